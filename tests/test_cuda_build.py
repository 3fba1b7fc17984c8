"""slurm/cuda_build.py: what it asks before a build, and what it changes in the setup.py of the kernels. Nothing is built here."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "slurm" / "cuda_build.py"
PACKAGES = ("mamba_ssm", "causal_conv1d")


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("cuda_build", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(package: str) -> str:
    return (ROOT / "tests" / "fixtures" / f"setup_{package}.txt").read_text()


def flags(setup: str, *, cuda: str = "13.0", hip: bool = False) -> dict[str, list[str]]:
    """The compilers' arguments that a setup.py ends up with."""
    names = {"SKIP_CUDA_BUILD": False, "HIP_BUILD": hip, "cc_flag": [], "bare_metal_version": Version(cuda), "Version": Version, "os": os}
    exec(setup, names | {"append_nvcc_threads": lambda arguments: [*arguments, "--threads", "4"]}, scope := {})
    return scope["extra_compile_args"]


def targets(arguments: list[str]) -> list[str]:
    return [value for flag, value in zip(arguments, arguments[1:], strict=False) if flag == "-gencode"]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        ("90", ["arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"]),
        ("90,80", ["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"]),
        ("103", ["arch=compute_100,code=sm_100", "arch=compute_100,code=compute_100"]),
        ("100,103,120", [f"arch=compute_{arch}" for arch in ("100,code=sm_100", "120,code=sm_120", "120,code=compute_120")]),
        (" 80, 103", [f"arch=compute_{arch}" for arch in ("80,code=sm_80", "100,code=sm_100", "100,code=compute_100")]),
    ],
)
def test_a_setup_builds_for_the_wanted_architectures_alone(build: Any, package: str, archs: str, expected: list[str]) -> None:
    before, after = flags(text_of(package)), flags(build.patched(text_of(package), archs))
    assert len(targets(before["nvcc"])) == 9, "the fixture is what the packages have"
    assert targets(after["nvcc"]) == expected
    kept = [argument for argument in before["nvcc"] if not argument.startswith(("-gencode", "arch=", "-std="))]
    assert [argument for argument in after["nvcc"] if not argument.startswith(("-gencode", "arch=", "-std="))] == kept


@pytest.mark.parametrize("package", PACKAGES)
def test_a_setup_asks_for_no_other_standard_than_torchs(build: Any, package: str) -> None:
    """mamba-ssm's asked for C++17, which the headers of torch 2.14 refuse."""
    patched = build.patched(text_of(package), "90")
    assert "c++17" not in patched
    for arguments in flags(patched).values():
        assert {argument for argument in arguments if argument.startswith("-std=")} == ({"-std=c++20"} if package == "mamba_ssm" else set())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("cc_flag.append", "cc_flags.append"), "does not list its architectures as expected"),
        (lambda text: text.replace("c++17", "c++23"), "does not set its C++ standard as expected"),
    ],
)
def test_a_setup_of_another_form_is_refused(build: Any, tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "setup.py"
    path.write_text(changed := change(text_of("mamba_ssm")))
    done = subprocess.run([sys.executable, str(SCRIPT), "patch", str(path), "90"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr and str(path) in done.stderr
    assert path.read_text() == changed


def program(folder: Path, name: str, script: str) -> str:
    """A program that stands for a compiler."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_without_cpp20_is_named_with_its_own_words(build: Any, tmp_path: Path) -> None:
    assert build.compiler_problem(os.environ.get("CXX", "g++")) is None
    old = program(tmp_path, "g++", "echo \"g++: error: unrecognized command line option '-std=c++20'; did you mean '-std=c++2a'?\" >&2; exit 1")
    problem = build.compiler_problem(old)
    assert problem.startswith(f"{old} does not compile C++20") and "unrecognized command line option" in problem and "GCC 11" in problem
    assert "No such file" in build.compiler_problem(str(tmp_path / "none"))


NVCC_SAYS = "echo 'nvcc: NVIDIA (R) Cuda compiler driver'; echo 'Cuda compilation tools, release 12.4, V12.4.131'"


@pytest.mark.parametrize(("torch_cuda", "fits"), [("12.8", True), ("12.4", True), ("13.0", False), ("11.8", False)])
def test_nvcc_must_be_of_torchs_major_version(build: Any, tmp_path: Path, torch_cuda: str, fits: bool) -> None:
    problem = build.toolkit_problem(program(tmp_path, "nvcc", NVCC_SAYS), torch_cuda)
    assert problem is None if fits else f"is of CUDA 12.4 and torch was built for CUDA {torch_cuda}" in problem


@pytest.mark.parametrize("script", ["exit 1", "echo hello"])
def test_an_nvcc_that_tells_no_version_is_refused(build: Any, tmp_path: Path, script: str) -> None:
    assert "tells no version" in build.toolkit_problem(program(tmp_path, "nvcc", script), "13.0")
    assert "tells no version" in build.toolkit_problem(str(tmp_path / "none"), "13.0")


def test_the_toolkit_is_where_nvcc_says_it_is_not_where_a_script_of_its_name_lies(build: Any, tmp_path: Path) -> None:
    real = tmp_path / "cuda-13.0" / "bin"
    real.mkdir(parents=True)
    program(real, "nvcc", f"echo '#$ _SPACE_= ' >&2; echo '#$ TOP={real}/..' >&2")
    wrapper = program(tmp_path, "nvcc", f'exec {real}/nvcc "$@"')
    assert build.toolkit_home(wrapper) == build.toolkit_home(str(real / "nvcc")) == real.parent
    program(real, "silent", "exit 1")
    (tmp_path / "link").symlink_to(real / "silent")
    assert build.toolkit_home(str(tmp_path / "link")) == real.parent


def test_headers_that_a_toolkit_lacks_are_those_of_torchs_packages(build: Any, tmp_path: Path) -> None:
    home, packages = tmp_path / "cuda", tmp_path / "site-packages"
    folders = {home / "include": build.HEADERS[:1], packages / "nvidia" / "cu13" / "include": build.HEADERS}
    for folder, names in folders.items():
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    assert build.further_headers(home, packages) == [packages / "nvidia" / "cu13" / "include"]
    with pytest.raises(ValueError, match=r"cuda/include has no cublas_v2.h, nor have torch's CUDA packages: load a whole CUDA toolkit"):
        build.further_headers(home, tmp_path)
    for name in build.HEADERS:
        (home / "include" / name).touch()
    assert build.further_headers(home, tmp_path) == []


def test_an_nvcc_that_does_not_know_the_gpu_is_named_with_its_own_words(build: Any, tmp_path: Path) -> None:
    nvcc = program(tmp_path, "nvcc", "echo \"nvcc fatal   : Unsupported gpu architecture 'compute_120'\" >&2; exit 1")
    assert "compiles no kernel for 120 (nvcc fatal   : Unsupported gpu architecture" in build.kernel_problem(nvcc, "120")
    wanted = program(tmp_path, "fine", f'echo "$@" > {tmp_path}/asked')
    assert build.kernel_problem(wanted, "103") is None
    assert "-gencode arch=compute_100,code=sm_100 -gencode arch=compute_100,code=compute_100" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(("cores", "free_gb", "jobs"), [(64, 500.0, 8), (4, 500.0, 4), (64, 17.0, 4), (64, 1.0, 1), (1, 0.0, 1)])
def test_as_many_compilers_run_as_cores_and_memory_allow(build: Any, cores: int, free_gb: float, jobs: int) -> None:
    assert build.jobs(cores, free_gb) == jobs


def test_memory_is_what_the_system_says(build: Any, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
    assert build.free_gb(tmp_path / "meminfo") == 8.0
    assert int(subprocess.run([sys.executable, str(SCRIPT), "jobs"], capture_output=True, text=True, check=True).stdout) >= 1


def install(venv: Path, **variables: str) -> SimpleNamespace:
    """The install script's exit status and words."""
    environment = {"PATH": os.environ["PATH"], "VENV": str(venv), "HOME": os.environ.get("HOME", "/"), **variables}
    done = subprocess.run(["bash", str(ROOT / "slurm" / "install_cuda.sh")], capture_output=True, text=True, env=environment, check=False)
    return SimpleNamespace(status=done.returncode, words=done.stdout + done.stderr)


def played(folder: Path, torch_cuda: str) -> Path:
    """An environment whose torch says what the test sets; all else runs in this one's Python."""
    (folder / "bin").mkdir(parents=True)
    answer = f'case "$2" in *torch.version.cuda*) echo "{torch_cuda}";; *device_count*) echo "";; *) exec {sys.executable} "$@";; esac'
    program(folder / "bin", "python", answer)
    program(folder / "bin", "pip", "echo pip was called; exit 9")
    return folder


def test_the_script_ends_before_anything_is_fetched(tmp_path: Path) -> None:
    toolkit = tmp_path / "cuda"
    (toolkit / "bin").mkdir(parents=True)
    program(toolkit / "bin", "nvcc", NVCC_SAYS)
    cases = {
        "is missing: run slurm/install.sh first": install(tmp_path / "nothing"),
        "is a CPU build. Install the CUDA build": install(played(tmp_path / "a", "")),
        "/nowhere/bin/nvcc is missing": install(played(tmp_path / "b", "13.0"), CUDA_HOME="/nowhere"),
        "no GPU here: say what to build for": install(played(tmp_path / "c", "12.8"), CUDA_HOME=str(toolkit)),
        "is of CUDA 12.4 and torch was built for CUDA 13.0": install(played(tmp_path / "d", "13.0"), CUDA_HOME=str(toolkit), CUDA_ARCHS="90"),
    }
    for words, end in cases.items():
        assert end.status == 2 and words in end.words and "pip was called" not in end.words, (words, end.words)
