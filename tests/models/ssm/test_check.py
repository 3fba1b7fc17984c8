"""Kernels are checked: right ones pass, and wrong ones, absent ones and those that fail are named."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.registry import create_model
from models.ssm import backends, check
from models.ssm.conv import conv_reference
from models.ssm.scan import scan_reference
from tests.support import upstream_kernels
from tests.support.triton_device import DEVICE, needs_triton


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What another test has found out is asked again, and what a test of this file has, by others."""
    check.fault_of.cache_clear()
    backends.gpu_backend.cache_clear()
    yield
    check.fault_of.cache_clear()
    backends.gpu_backend.cache_clear()


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """Makes this look like a machine with a GPU on which these backends are installed; kernels still run on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("backends", "check"):
        monkeypatch.setattr(f"models.ssm.{name}.is_installed", lambda backend: backend in installed)
    fault_of = check.fault_of
    monkeypatch.setattr(check, "fault_of", lambda backend, device: fault_of(backend, "cpu"))


def reference(*parts: object) -> tuple[Tensor, Tensor]:
    return scan_reference(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 197, 2100])
def test_the_closed_form_is_the_scan(length: int) -> None:
    inputs = {name: tensor.double() for name, tensor in check.scan_inputs(length, torch.float32).items()}
    torch.testing.assert_close(check.closed_form(**inputs), reference(*inputs.values(), True, False)[0], rtol=1e-9, atol=1e-11)


def test_the_reference_and_the_cpp_kernels_are_right() -> None:
    assert check.first_fault(reference, conv_reference, "cpu", (5, 197)) is None
    assert check.fault_of("cpu", "cpu") is None


@needs_triton
def test_the_triton_kernels_are_right() -> None:
    assert check.first_fault(*check.implementations("triton"), DEVICE, (5,)) is None


@pytest.mark.parametrize("part", ["y", "u", "z", "D"])
def test_a_wrong_result_or_gradient_is_named(part: str) -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 1.5 if part == "y" else x.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad if part == "y" else grad * 1.5

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        u, D, z = (Wrong.apply(tensor) if name == part else tensor for name, tensor in (("u", u), ("D", D), ("z", z)))
        y, last = reference(u, delta, A, B, C, D, z, *rest)
        return (Wrong.apply(y) if part == "y" else y), last

    name = "y" if part == "y" else f"the gradient of {part}"
    fault = check.scan_fault(scan, "cpu", 9, torch.float32)
    assert fault is not None and fault.startswith(f"scan of length 9 in float32: {name} is wrong by 50.0% of its norm, and 0.2% is allowed")


def test_nan_and_errors_are_faults() -> None:
    def spoiled(*parts: object) -> tuple[Tensor, Tensor]:
        y, last = reference(*parts)
        return y * float("nan"), last

    def failing(*parts: object) -> Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    assert "y is wrong by nan%" in str(check.scan_fault(spoiled, "cpu", 5, torch.bfloat16))
    fault = check.convolution_fault(failing, "cpu", 5, torch.float32)
    assert fault == "convolution of length 5 in float32: RuntimeError: no kernel image is available for execution on the device"


def test_a_full_gpu_says_nothing_of_its_kernels() -> None:
    def full(*parts: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        check.convolution_fault(full, "cpu", 5, torch.float32)


def test_kernels_of_mamba_ssm_that_are_right_are_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    upstream_kernels.install(monkeypatch)
    monkeypatch.setattr(check, "LENGTHS", (5, 128))
    on_a_gpu(monkeypatch, "cuda", "triton")
    assert backends.scan_backend_used("cuda", "auto") == "cuda" and capsys.readouterr().out == ""


def test_a_miscompiled_kernel_is_passed_over_by_auto_and_refused_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    upstream_kernels.install(monkeypatch, wrong_from=128)
    monkeypatch.setattr(check, "LENGTHS", (5, 128))
    on_a_gpu(monkeypatch, "cuda", "triton")
    assert [backends.scan_backend_used("cuda", "auto") for _ in range(2)] == ["triton", "triton"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("mamba-ssm's and causal-conv1d's kernels are refused: scan of length 128 in float32: y is wrong by ")
    assert line.endswith("; the Triton kernels run instead")
    with pytest.raises(
        check.KernelFault, match="are refused: scan of length 128 .* Build the kernels again, or set recipe.scan to 'triton' or 'reference'$"
    ):
        check.check_kernels(create_model("vim_micro", scan_backend="cuda"), "cuda")
    check.check_kernels(create_model("vim_micro", scan_backend="reference"), "cuda")
    check.check_kernels(create_model("vit_micro", scan_backend="cuda"), "cuda")  # it has no scan


def test_a_node_without_a_c_compiler_is_told_what_triton_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*parts: object) -> tuple[Tensor, Tensor]:
        raise RuntimeError("Failed to find C compiler")

    on_a_gpu(monkeypatch, "triton")
    monkeypatch.setattr(check, "implementations", lambda backend: (refusing, conv_reference))
    remedies = {
        "there is no C compiler": "Triton needs a C compiler, and there is no C compiler: load one in cluster.setup .*, or set recipe.scan to 'cuda'",
        None: "Set recipe.scan to 'cuda' or 'reference'$",
    }
    for lacking, remedy in remedies.items():
        monkeypatch.setattr(check, "compiler_problem", lambda lacking=lacking: lacking)
        with pytest.raises(check.KernelFault, match=f"the Triton kernels are refused: .*Failed to find C compiler. {remedy}"):
            check.check_kernels(create_model("vim_micro", scan_backend="triton"), "cuda")


def test_a_gpu_without_kernels_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    with pytest.raises(ImportError, match="a scan on a GPU needs triton, not installed here: pip install triton; or set it to reference, slow"):
        check.check_kernels(create_model("vim_micro", scan_backend="auto"), "cuda")
    check.check_kernels(create_model("vim_micro", scan_backend="cuda"), "cpu")  # the CPU's kernels are not this function's matter


def test_the_command_prints_a_line_for_each_backend_and_fails_where_kernels_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "LENGTHS", (5,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main() == 0
    assert capsys.readouterr().out == "cpu: the C++ kernels are right at lengths 5\n"
    monkeypatch.setattr(check, "implementations", lambda backend: (lambda *parts: (reference(*parts)[0] * 2, None), conv_reference))
    assert check.main() == 1
    assert capsys.readouterr().out.startswith("cpu: the C++ kernels are WRONG: scan of length 5 in float32: y is wrong by ")
