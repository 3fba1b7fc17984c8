"""How long a single image takes, in the ways that a profile can ask for."""

from functools import partial

from benchmarks.gpu.rows import Row, Values
from benchmarks.gpu.sizes import Sizes

WAYS: tuple[dict[str, bool | str], ...] = (
    {},
    {"cuda_graphs": True},
    {"dtype": "bf16", "cuda_graphs": True},
    {"channels_last": True, "dtype": "bf16"},
    {"compile": True},
    {"compile": True, "cuda_graphs": True},
)


def latency_rows(sizes: Sizes) -> list[Row]:
    """A row for each network and way."""
    import torch

    from jobs.measure.protocols import Protocol

    device, rows = torch.device(sizes.device), []
    for way in WAYS:
        for name in sizes.trained:
            protocol = Protocol(**way)  # type: ignore[arg-type]
            rows.append(Row(labels={"network": name, "way": protocol.name(device)}, measure=partial(latency, name, way, sizes)))
    return rows


def latency(name: str, way: dict[str, bool | str], sizes: Sizes) -> Values:
    """Milliseconds of one image, and images/s of a batch, as a cell's profile measures them."""
    import torch

    from jobs.measure.profiling import measure_speed
    from jobs.measure.protocols import Protocol
    from models.registry import create_model

    model = create_model(name, img_size=sizes.img_size).to(sizes.device).eval()
    with torch.inference_mode():
        images = torch.randn(sizes.batch, 3, *[sizes.img_size] * 2, device=sizes.device)
        speed, notes = measure_speed(model, model, images, 2 * sizes.seconds, same_shape=True, way=Protocol(**way))  # type: ignore[arg-type]
    return {"one image, ms": speed["latency_ms"], "img/s": speed["throughput_img_per_s"], "notes": "; ".join(notes) or None}
