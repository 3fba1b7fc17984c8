"""The built library: its variants, its version, and the command that prints the variant."""

from pathlib import Path

import pytest
import torch

from models.ssm import kernel


def test_the_kernel_is_built_here() -> None:
    assert kernel.runnable_variants(), f"the C++ scan is not built: {kernel.BUILD}"


def test_asking_for_large_pages_leaves_memory_as_it_is() -> None:
    memory = torch.arange(2_000_000)
    kernel.load_kernel().use_large_pages(memory, memory[:0])
    assert torch.equal(memory, torch.arange(2_000_000))


def test_a_kernel_of_another_version_says_how_to_build_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.ctypes, "sizeof", lambda struct: 1)
    with pytest.raises(ImportError, match="built from another version of its source: install a C"):
        kernel.load_kernel.__wrapped__()


def test_a_kernel_that_does_not_load_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_kernel.so").write_bytes(b"\x7fELF, cut short")
    monkeypatch.setattr(kernel, "kernel_path", lambda variant: tmp_path / "_kernel.so")
    with pytest.raises(ImportError, match=r"_kernel.so does not load \(.*\): install a C\+\+ compiler .*; or use the slow scan: backend 'reference'"):
        kernel.load_kernel.__wrapped__()


def test_a_cpu_runs_its_own_variant_and_those_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert "avx512" not in kernel.runnable_variants() and kernel.runnable_variants()[-1] == "portable"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "unheard of")
    assert kernel.runnable_variants() == ["portable"]


def test_a_variant_that_was_not_built_is_missing() -> None:
    with pytest.raises(kernel.KernelMissing, match="the C\\+\\+ scan is not built"):
        kernel.load_kernel("vax")


def test_the_command_prints_the_variant_and_its_file_or_how_to_build_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.main()
    fastest = kernel.runnable_variants()[0]
    assert capsys.readouterr().out.startswith(f"C++ scan: {fastest} (_kernel_{fastest}.")
    monkeypatch.setattr(kernel, "runnable_variants", list)
    kernel.main()
    assert kernel.BUILD in capsys.readouterr().out
