"""Whether what is fast is also right, before it is timed."""

import time
from functools import partial

from benchmarks.gpu.rows import Row, Values
from benchmarks.gpu.sizes import Sizes

NAMES = {"triton": "Triton", "cuda": "mamba-ssm", "cpu": "C++"}


def machine_rows(sizes: Sizes) -> list[Row]:
    """One row: what this machine is."""
    return [Row(labels={}, measure=partial(machine, sizes))]


def machine(sizes: Sizes) -> Values:
    """Device, driver and versions."""
    import platform

    import torch

    from jobs.worker.environment import code_version, cpu_name, package_versions

    commit, dirty = code_version()
    values: Values = {"commit": f"{commit or 'unknown'}{' and changes' if dirty else ''}"[:20], "Python": platform.python_version()}
    values |= {"torch": torch.__version__, "CUDA": torch.version.cuda}
    values |= {name: package_versions().get(name, "not installed") for name in ("triton", "mamba-ssm", "causal-conv1d", "deepspeed")}
    if sizes.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        values |= {"GPU": properties.name, "compute capability": f"{properties.major}.{properties.minor}", "driver": driver()}
        values |= {"memory, GB": properties.total_memory / 1e9}
    return values | {"CPU": cpu_name()}


def driver() -> str:
    """The version of NVIDIA's driver, or why it is not known."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # NVML has many
        return f"unknown: {error}"


def check_rows(sizes: Sizes) -> list[Row]:
    """Kernels against closed forms, networks on the device against the CPU, the official composition against ours, and a repeated step."""
    rows = [Row(labels={"check": f"kernels: {NAMES[backend]}"}, measure=partial(kernels, backend, sizes)) for backend in sizes.backends]
    rows += [Row(labels={"check": f"{name}: logits as on a CPU"}, measure=partial(logits, name, sizes)) for name in sizes.models]
    official = [name for name in sizes.models if name.startswith(("vim", "mambavision"))]
    rows += [Row(labels={"check": f"{name}: logits as in the official composition"}, measure=partial(composition, name, sizes)) for name in official]
    name = sizes.models[0]
    return [*rows, Row(labels={"check": f"{name}: a training step repeats to the bit"}, measure=partial(repeat, name, sizes))]


def kernels(backend: str, sizes: Sizes) -> Values:
    """The verdict of `models.ssm.check`, its seconds with compiling, and without."""
    from models.ssm.backends import PACKAGES, is_installed
    from models.ssm.check import LENGTHS, first_fault, implementations

    if backend in PACKAGES and not is_installed(backend):
        return {"result": f"not installed: {' and '.join(PACKAGES[backend])}"}
    times = []
    for _ in range(2):
        began = time.perf_counter()
        fault = first_fault(*implementations(backend), sizes.device, LENGTHS)
        times.append(time.perf_counter() - began)
    return {"result": fault or "right", "first time, s": times[0], "again, s": times[1]}


def logits(name: str, sizes: Sizes) -> Values:
    """The error of fp32 logits on the device, by the kernels that `auto` takes, relative to the norm of those of the reference on a CPU."""
    import torch

    from models.registry import create_model
    from models.ssm.backends import scan_backend_used

    torch.manual_seed(0)
    with torch.no_grad():
        model, images = create_model(name, img_size=sizes.img_size, scan_backend="reference").eval(), torch.randn(2, 3, *[sizes.img_size] * 2)
        want = model(images)
        for module in model.modules():
            for attribute in {"backend", "scan_backend"} & vars(module).keys():
                setattr(module, attribute, "auto")
        got = model.to(sizes.device)(images.to(sizes.device)).cpu()
    return {"result": scan_backend_used(sizes.device), "error, relative": distance(got, want)}


def composition(name: str, sizes: Sizes) -> Values:
    """The error of our fp32 logits relative to those of the official composition."""
    import torch

    from benchmarks.gpu.networks import network

    results = []
    for way in ("ours", "official"):
        torch.manual_seed(0)
        model, images = network(name, "fp32", way, "auto", 2, sizes)[:2]
        with torch.no_grad():
            results.append(model.eval()(images))
    return {"error, relative": distance(*results)}


def distance(got: object, want: object) -> float:
    """The norm of the difference relative to the norm of the second."""
    import torch

    assert isinstance(got, torch.Tensor) and isinstance(want, torch.Tensor)
    return float((got - want).norm() / want.norm())


def repeat(name: str, sizes: Sizes) -> Values:
    """Whether the gradients of a step are the same bits twice."""
    import torch

    from benchmarks.gpu.networks import network

    model, images, *_ = network(name, sizes.dtypes[0], "ours", sizes.backends[0], sizes.batch, sizes)
    first, second = (torch.autograd.grad(model(images).float().square().sum(), list(model.parameters())) for _ in range(2))
    differing = sum(not torch.equal(one_time, again) for one_time, again in zip(first, second, strict=True))
    return {"result": f"{differing} of {len(first)} gradients differ" if differing else "equal"}
