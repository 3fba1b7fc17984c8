"""VMamba against the official code, its four directions against a loop over every token, and what each of its variants changes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.configs import VMambaConfig
from models.pretrained import load_pretrained
from models.registry import OptionError, create_model, model_config
from models.ssm import triton_ops
from models.vmamba import SS2D
from tests.support.golden import GOLDEN, LIMITS, NAMES, filled, golden_distance, golden_images, on_meta
from tests.support.removal import moved
from tests.support.triton_device import DEVICE, needs_triton


@pytest.mark.parametrize(
    ("name", "parameters", "entries"),
    [
        ("vmamba_tiny_s1l8", 30_249_064, 276),
        ("vmamba_tiny_s2l5", 30_705_832, 222),
        ("vmamba_small_s2l15", 50_147_752, 402),
        ("vmamba_small_s1l20", 49_012_840, 492),
        ("vmamba_base_s2l15", 88_557_800, 402),
        ("vmamba_base_s1l20", 86_614_504, 492),
    ],
)
def test_parameter_counts_are_the_official_integers(name: str, parameters: int, entries: int) -> None:
    model = on_meta(name)
    assert (sum(parameter.numel() for parameter in model.parameters()), len(model.state_dict())) == (parameters, entries)


def test_state_dict_has_the_official_names_and_shapes() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in on_meta("vmamba_tiny_s2l5").state_dict().items()}
    expected = {
        "patch_embed.0.weight": (48, 3, 3, 3),
        "patch_embed.0.bias": (48,),
        "patch_embed.2.weight": (48,),
        "patch_embed.5.weight": (96, 48, 3, 3),
        "patch_embed.7.bias": (96,),
        "layers.0.blocks.1.norm.weight": (96,),
        "layers.1.blocks.0.op.in_proj.weight": (384, 192),
        "layers.1.blocks.0.op.conv2d.weight": (384, 1, 3, 3),
        "layers.1.blocks.0.op.x_proj_weight": (4, 14, 384),
        "layers.1.blocks.0.op.dt_projs_weight": (4, 384, 12),
        "layers.1.blocks.0.op.dt_projs_bias": (4, 384),
        "layers.1.blocks.0.op.A_logs": (1536, 1),
        "layers.1.blocks.0.op.Ds": (1536,),
        "layers.1.blocks.0.op.out_norm.weight": (384,),
        "layers.1.blocks.0.op.out_proj.weight": (192, 384),
        "layers.2.blocks.4.norm2.bias": (384,),
        "layers.2.blocks.4.mlp.fc1.weight": (1536, 384),
        "layers.2.blocks.4.mlp.fc2.bias": (384,),
        "layers.2.downsample.1.weight": (768, 384, 3, 3),
        "layers.2.downsample.1.bias": (768,),
        "layers.2.downsample.3.weight": (768,),
        "classifier.norm.weight": (768,),
        "classifier.head.weight": (1000, 768),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any(name.startswith("layers.3.downsample") or name.endswith(("conv2d.bias", "_proj.bias")) for name in shapes)


def test_logits_are_those_of_the_official_code() -> None:
    model, expected = filled(create_model("vmamba_tiny_s1l8")).eval(), GOLDEN["vmamba_tiny_s1l8"][NAMES[torch.float32]]
    with torch.no_grad():
        assert golden_distance(model(golden_images(224)), expected) < LIMITS[torch.float32]


def positions(height: int, width: int) -> list[list[tuple[int, int]]]:
    """The tokens in the order in which each direction reads them: arXiv 2401.10166, figure 3."""
    rows = [(y, x) for y in range(height) for x in range(width)]
    columns = [(y, x) for x in range(width) for y in range(height)]
    return [rows, columns, rows[::-1], columns[::-1]]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("states", [1, 3])
def test_the_four_directions_are_a_loop_over_every_token(states: int, backend: str) -> None:
    torch.manual_seed(0)
    mixer = SS2D(8, VMambaConfig(d_state=states, dt_rank=2), backend).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    maps = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    expected = np.zeros(maps.shape)
    part = {name: parameter.detach().numpy() for name, parameter in mixer.named_parameters()}
    for image in range(2):
        for direction, read in enumerate(positions(3, 4)):
            rates = -np.exp(part["A_logs"].reshape(4, 8, states)[direction])
            skip = part["Ds"].reshape(4, 8)[direction]
            h = np.zeros((8, states))
            for y, x in read:
                u = maps[image, :, y, x].numpy()
                dt, B, C = np.split(part["x_proj_weight"][direction] @ u, [2, 2 + states])
                delta = np.log1p(np.exp(part["dt_projs_weight"][direction] @ dt + part["dt_projs_bias"][direction]))
                h = np.exp(delta[:, None] * rates) * h + (delta * u)[:, None] * B
                expected[image, :, y, x] += h @ C + skip * u
    with torch.no_grad():
        torch.testing.assert_close(mixer.four_ways(maps).numpy(), expected, rtol=1e-10, atol=1e-10)


def test_older_checkpoints_load_under_todays_names_and_shapes(tmp_path: Path) -> None:
    """Names of the first release, and linear layers that were 1x1 convolutions."""
    weights = filled(create_model("vmamba_micro", 10)).state_dict()
    older = {}
    for name, tensor in weights.items():
        for now, then in ((".op.", ".self_attention."), (".norm.", ".ln_1."), ("classifier.head.", "head."), ("classifier.ln_1.", "norm.")):
            name = name.replace(now, then)
        convolved = name.endswith(("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight"))
        older[name] = tensor[:, :, None, None] if convolved else tensor
    torch.save({"model": older, "epoch": 264}, tmp_path / "vssm.pth")
    model = create_model("vmamba_micro", 10)
    assert load_pretrained(model, tmp_path / "vssm.pth").sentences == ()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert {"norm.weight", "head.bias", "layers.0.blocks.0.self_attention.A_logs", "layers.0.blocks.0.ln_1.weight"} <= set(older)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    torch.save({"model": create_model("vmamba_micro", 10, expand=2).state_dict()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit the model: layers.0.blocks.0.op.x_proj_weight is \(4, 4, 64\), the model has \(4, 4, 32\)"):
        create_model("vmamba_micro", 10, pretrained=tmp_path / "w.pth")


def test_initialisation_is_that_of_the_official_code() -> None:
    torch.manual_seed(0)
    mixer = create_model("vmamba_micro", d_state=4).layers[3].blocks[0].op
    steps = torch.nn.functional.softplus(mixer.dt_projs_bias.detach())
    assert 1e-3 < float(steps.min()) < 2e-3 and 0.08 < float(steps.max()) < 0.1
    assert torch.equal(mixer.A_logs, torch.arange(1.0, 5).log().repeat(4 * 256, 1)) and bool((mixer.Ds == 1).all())
    assert float(mixer.in_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(mixer.x_proj_weight.detach().abs().max()) == pytest.approx(256**-0.5, rel=0.01)
    assert float(mixer.dt_projs_weight.detach().abs().max()) == pytest.approx(16**-0.5, rel=0.01)


VARIANTS: list[dict[str, object]] = [
    {},
    {"s4": {}},
    {"s5": {"d_state": 8}},
    {"se": {"ratio": 2}},
    {"mobilenet": {"expand": 2}},
    {"d_state": 4, "expand": 2, "se": {}, "mobilenet": {}},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "+".join(options))
def test_every_variant_takes_odd_images_and_trains_all_its_parameters(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model("vmamba_micro", num_classes=10, dim=8, **options)
    model(torch.randn(2, 3, 36, 30)).square().sum().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"s4": {}}, {"s5": {"d_state": 8}}], ids=lambda options: "+".join(options))
def test_fixed_state_spaces_read_in_the_same_four_directions(options: dict[str, object]) -> None:
    mixer = moved(create_model("vmamba_micro", dim=8, **options)).double().layers[0].blocks[0].op
    maps = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        got = mixer.four_ways(maps)
        expected = torch.zeros_like(maps)
        for ssm, read in zip(mixer.ssm, positions(3, 4), strict=True):
            rows, columns = (list(axis) for axis in zip(*read, strict=True))
            expected[:, :, rows, columns] += ssm(maps[:, :, rows, columns].transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("variant", ["swa", "attention_pool", "convnext"])
def test_a_variant_that_makes_no_sense_is_refused_with_the_reason(variant: str) -> None:
    with pytest.raises(OptionError, match=f"{variant}: vmamba_micro does not take this variant: it"):
        model_config("vmamba_micro", {variant: True})


def test_bare_matrices_decay_as_in_the_official_runs() -> None:
    from models.layers import weight_decay_groups

    decayed, exempt = weight_decay_groups(on_meta("vmamba_micro"), decay_ssm=False)
    op = "layers.0.blocks.0.op."
    assert {op + "dt_projs_bias", op + "x_proj_weight", op + "in_proj.weight"} <= set(decayed)
    assert {op + "A_logs", op + "Ds", "classifier.head.bias"} <= set(exempt)
    assert op + "A_logs" in weight_decay_groups(on_meta("vmamba_micro"), decay_ssm=True)[0]


@needs_triton
@pytest.mark.parametrize("states", [1, 2])
def test_triton_scans_a_pair_of_directions_from_both_ends_in_one_launch_as_the_reference_does(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mixer = SS2D(4, VMambaConfig(d_state=states), "triton").to(DEVICE)
    initialised = [parameter.data.normal_(0, 0.5) for parameter in mixer.parameters()]
    maps, results, launches = torch.randn(2, 3, 5, 4, device=DEVICE, requires_grad=True), [], []
    monkeypatch.setattr("models.vmamba.scan_sides", lambda u, *rest: launches.append(len(u)) or triton_ops.scan_sides(u, *rest))
    for backend in ("triton", "reference"):
        mixer.scan_backend = backend
        y = mixer(maps)
        results.append((y, *torch.autograd.grad(y.square().sum(), [maps, *mixer.parameters()])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)
    assert launches == [2] and len(initialised) == len(results[0]) - 2
