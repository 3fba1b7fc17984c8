"""The CUDA kernels against the reference, at upstream's own tolerances; how they are called, with stand-ins that refuse what they refuse; and what is
said where they are missing.
"""

import importlib.util

import pytest
import torch

from models.registry import create_model
from models.ssm import conv, cuda, scan
from models.ssm.backends import is_installed
from models.ssm.conv import conv1d_silu
from tests.support import upstream_kernels
from tests.support.scans import gradients, problem

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
backends = pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"needs {name}'s kernels")) for name in ("cuda", "triton")]
)
TOLERANCES = {torch.float32: (6e-4, 2e-3), torch.bfloat16: (3e-2, 5e-2)}  # mamba-ssm's own


def assert_equal_to_the_reference(backend: str, inputs: dict[str, torch.Tensor], *, reverse: bool = False) -> None:
    """Output and gradients of a scan on the GPU against the reference there."""
    inputs = {name: tensor.cuda() for name, tensor in inputs.items()}
    rtol, atol = TOLERANCES[inputs["u"].dtype]
    got, want = (gradients(inputs, backend=name, reverse=reverse, last=False) for name in (backend, "reference"))
    for name, tensor in want.items():
        scale = 1 if name == "y" else 10  # gradients sum over batch and length
        torch.testing.assert_close(
            got[name].float(), tensor.float(), rtol=rtol * scale, atol=atol * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.gpu
@gpu
@backends
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_the_scan_on_a_gpu_equals_the_reference(dtype: torch.dtype, groups: int, reverse: bool, backend: str) -> None:
    assert_equal_to_the_reference(backend, problem(2, 32, 197, 16, groups, dtype), reverse=reverse)


@pytest.mark.gpu
@gpu
@backends
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("length", [128, 256, 2100])  # loads of vectors, and more than one chunk
def test_it_does_at_lengths_that_have_code_of_their_own(length: int, dtype: torch.dtype, backend: str) -> None:
    inputs = problem(1, 8, length, 4, 1, dtype)
    inputs["delta"] = inputs["delta"] / 4 - 3  # states that reach far
    assert_equal_to_the_reference(backend, inputs)


@pytest.mark.gpu
@gpu
@backends
@pytest.mark.parametrize(("channels", "states"), [(37, 5), (1, 1), (70, 24), (33, 256)])
def test_it_does_at_odd_sizes_as_after_the_removal_of_units(channels: int, states: int, backend: str) -> None:
    assert_equal_to_the_reference(backend, problem(2, channels, 49, states, 0, torch.float32, channels_last=True))


@pytest.mark.gpu
@gpu
@backends
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("taps", [2, 4, 5])
def test_the_convolution_on_a_gpu_equals_the_reference(taps: int, dtype: torch.dtype, tolerance: float, reverse: bool, backend: str) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(shape).cuda().to(dtype).requires_grad_() for shape in ((2, 32, 50), (32, 1, taps), (32,))]
    results = []
    for name in (backend, "reference"):
        y = conv1d_silu(*leaves, left=taps - 1, reverse=reverse, backend=name)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), leaves)))
    for got, want in zip(*results, strict=True):
        assert (got.float() - want.float()).norm() <= tolerance * want.float().norm()


@pytest.mark.gpu
@gpu
@backends
@pytest.mark.parametrize(
    ("name", "options"), [("vim_tiny", {}), ("mambavision_t", {}), ("vim_micro", {"mobilenet": {"kernel": 5}}), ("vim_micro", {"s5": {}})]
)
def test_models_agree_on_cpu_and_gpu(name: str, options: dict[str, object], backend: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    images = torch.randn(2, 3, *[32 if "micro" in name else 224] * 2)
    with torch.no_grad():
        want = model(images)
        for module in model.modules():
            for attribute in {"backend", "scan_backend"} & vars(module).keys():
                setattr(module, attribute, backend)
        got = model.cuda()(images.cuda()).cpu()
    assert (got - want).norm() / want.norm() < 5e-3


@pytest.mark.gpu
@gpu
@pytest.mark.skipif(not is_installed("triton"), reason="needs Triton")
def test_a_training_step_in_triton_repeats_to_the_bit() -> None:
    torch.manual_seed(0)
    torch.backends.cudnn.deterministic = True
    model, images = create_model("vim_tiny", depth=4, scan_backend="triton").cuda().bfloat16(), torch.randn(16, 3, 224, 224).cuda().bfloat16()
    first, second = (torch.autograd.grad(model(images).float().square().sum(), list(model.parameters())) for _ in range(2))
    assert all(torch.equal(one_time, again) for one_time, again in zip(first, second, strict=True))


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """mamba-ssm's and causal-conv1d's kernels, by the reference, for tensors of the CPU."""
    upstream_kernels.install(monkeypatch)
    for module in (scan, conv):
        monkeypatch.setattr(module, "resolve_backend", lambda tensor, backend: "cuda" if backend == "cuda" else "reference")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("left_out", [(), ("z",), ("D", "z", "delta_bias")])
@pytest.mark.parametrize(("dtype", "groups"), [(torch.float32, 0), (torch.bfloat16, 2)])
def test_the_kernels_are_called_as_they_ask(
    stand_ins: None, dtype: torch.dtype, groups: int, left_out: tuple[str, ...], channels_last: bool, reverse: bool
) -> None:
    inputs = {name: tensor for name, tensor in problem(2, 8, 13, 4, groups, dtype, channels_last).items() if name not in left_out}
    got, want = (gradients(inputs, backend=backend, reverse=reverse, last=False) for backend in ("cuda", "reference"))
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape, name
        assert (got[name].float() - tensor.float()).norm() <= (1e-5 if dtype == torch.float32 else 2e-2) * tensor.float().norm(), name


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("taps", [1, 2, 4, 5, 16])
def test_convolutions_of_any_number_of_taps_run(
    stand_ins: None, monkeypatch: pytest.MonkeyPatch, taps: int, channels_last: bool, reverse: bool
) -> None:
    monkeypatch.setattr(conv, "is_installed", lambda backend: False)  # without Triton cuDNN takes what causal-conv1d does not
    x, weight, bias = torch.randn(2, 13, 8) if channels_last else torch.randn(2, 8, 13), torch.randn(8, 1, taps), torch.randn(8)
    x = x.transpose(1, 2) if channels_last else x
    got, want = (conv1d_silu(x, weight, bias, left=taps - 1, reverse=reverse, backend=backend) for backend in ("cuda", "reference"))
    torch.testing.assert_close(got, want)


def test_nothing_is_kept_that_backward_does_not_need(stand_ins: None) -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(1, 8, 64, 2, 1, torch.float32).items()}
    kept = []
    for left_out in ((), ("z",)):
        given: list[object] = [None if name in left_out else tensor for name, tensor in inputs.items()]
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor):
            cuda.scan_cuda(*given, True, False)
        kept.append(sum(sizes))
    assert kept[0] - kept[1] == 2 * 8 * 64  # z, and y before its gate


def test_the_operator_keeps_torch_s_rules_and_compiles_whole(stand_ins: None) -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(1, 4, 6, 2, 1, torch.float32).items()}
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(cuda._scan, (*inputs.values(), True), test_utils=checks)
    torch.library.opcheck(cuda._scan, (*[None if name in ("D", "z", "delta_bias") else inputs[name] for name in inputs], True), test_utils=checks)

    def loss(u: torch.Tensor) -> torch.Tensor:
        return cuda.scan_cuda(**{**inputs, "u": u * 2}, delta_softplus=True, reverse=True)[0].square().sum()

    u = inputs["u"]
    want, got = (torch.autograd.grad(function(u), u) for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")))
    torch.testing.assert_close(got, want)


def test_fp64_is_refused() -> None:
    with pytest.raises(ValueError, match="the CUDA scan takes fp32, bf16 and fp16, not torch.float64; ask for backend 'triton' or 'reference'"):
        cuda.scan_cuda(*problem(1, 2, 3, 1, 1).values(), True, False)


@pytest.mark.skipif(importlib.util.find_spec("selective_scan_cuda") is not None, reason="the kernel is installed")
def test_missing_kernels_say_how_to_install_them() -> None:
    inputs = problem(1, 4, 5, 2, 1, torch.float32)
    with pytest.raises(ImportError, match="slurm/install_cuda.sh"):
        cuda.scan_cuda(*inputs.values(), True, False)
