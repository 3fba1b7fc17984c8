"""What is told of GPUs and kernels before anything is queued, on a machine without a GPU."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from harness.plan import gpu_checks
from harness.plan.gpu_checks import device_problems
from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec, ModelSpec, RecipeSpec
from models.ssm import kernel
from models.ssm.backends import gpu_backend
from models.ssm.kernel import KernelMissing
from tests.support.cells import make_cell

SLURM = ClusterSpec(kind="slurm", gpus_per_node=1)
CPUS = ClusterSpec(kind="slurm")


def cell(scan: str = "reference", model: str = "vim_micro", **options: Any) -> Cell:
    return make_cell(model=ModelSpec(name=model, options=options, label=model), recipe=RecipeSpec(scan=scan))


def has(monkeypatch: pytest.MonkeyPatch, *, cuda: str | None = "13.0", gpus: int = 0, packages: tuple[str, ...] = ()) -> None:
    """Plays torch's build, the GPUs of this machine, and the installed packages with kernels."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr("jobs.cluster.gpus.installed_gpus", lambda: 8)
    kernels = ("selective_scan_cuda", "causal_conv1d")
    monkeypatch.setattr(gpu_checks, "find_spec", lambda name: (name in packages or None) if name in kernels else find_spec(name))


def gone(*_: object) -> None:
    raise KernelMissing


@pytest.mark.parametrize("cluster", [SLURM, ClusterSpec(gpus_per_node=1), ClusterSpec(kind="slurm", slurm={"gres": "gpu:a100:1"})])
def test_a_build_of_torch_for_cpus_is_a_problem_of_jobs_with_gpus(monkeypatch: pytest.MonkeyPatch, cluster: ClusterSpec) -> None:
    has(monkeypatch, cuda=None, gpus=0)
    (problem,) = device_problems(cluster, [cell()])
    assert problem.startswith("cluster: its jobs ask for GPUs, and torch") and "build for CPUs alone: install its CUDA build" in problem


def test_a_login_node_needs_no_gpu_but_a_local_job_does(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    assert device_problems(SLURM, [cell()]) == []
    monkeypatch.setattr("jobs.parallel.devices.refusal", lambda: "No CUDA GPUs are available")
    assert device_problems(ClusterSpec(gpus_per_node=1), [cell()]) == [
        "cluster.gpus_per_node: torch can use no GPU of this machine: No CUDA GPUs are available"
    ]


@pytest.mark.parametrize(
    ("cluster", "scan", "message"),
    [
        (SLURM, "cpu", "recipe.scan: scan backend 'cpu' does not take tensors on 'cuda'"),
        (CPUS, "cuda", "recipe.scan: scan backend 'cuda' does not take tensors on 'cpu'"),
        (ClusterSpec(), "cuda", "recipe.scan: scan backend 'cuda' does not take tensors on 'cpu'"),
    ],
)
def test_a_scan_of_another_device_is_a_problem(monkeypatch: pytest.MonkeyPatch, cluster: ClusterSpec, scan: str, message: str) -> None:
    has(monkeypatch)
    (problem,) = device_problems(cluster, [cell(scan)])
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("model", "options", "packages"),
    [
        ("vim_micro", {}, {"selective_scan_cuda", "causal_conv1d"}),
        ("vim_micro", {"s5": {}}, {"causal_conv1d"}),
        ("vim_micro", {"s4": {}}, {"causal_conv1d"}),
        ("mambavision_micro", {}, {"selective_scan_cuda"}),
        ("vmamba_micro", {}, {"selective_scan_cuda"}),
        ("vmamba_micro", {"s4": {}}, set()),
        ("vssd_micro_32", {}, set()),
        ("vit_micro", {}, set()),
        ("mambaout_micro", {}, set()),
    ],
)
def test_a_network_needs_the_kernels_that_it_runs(monkeypatch: pytest.MonkeyPatch, model: str, options: dict[str, Any], packages: set[str]) -> None:
    has(monkeypatch)
    told = device_problems(SLURM, [cell("cuda", model, **options)])
    names = {"selective_scan_cuda": "mamba-ssm's selective scan", "causal_conv1d": "causal-conv1d"}
    assert {package for package, name in names.items() if any(f"{name} is not installed, and {model}" in line for line in told)} == packages
    assert len(told) == len(packages) and all("slurm/install_cuda.sh" in line and "scan: reference" in line for line in told)
    has(monkeypatch, packages=tuple(packages))
    assert device_problems(SLURM, [cell("cuda", model, **options)]) == []


def test_a_network_that_cannot_be_built_is_left_to_the_check_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    assert device_problems(SLURM, [cell("cuda", "vim_micro", patch_size=64)]) == []


def test_jobs_on_cpus_need_the_built_library_here_and_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for cluster in (CPUS, ClusterSpec()):
        assert device_problems(cluster, [cell("auto")]) == []
    monkeypatch.setattr(kernel, "kernel_path", lambda variant: None)
    monkeypatch.setattr(kernel, "load_kernel", gone)
    for cluster in (CPUS, ClusterSpec()):
        (problem,) = device_problems(cluster, [cell("auto")])
        assert problem.startswith("recipe.scan: the C++ scan is not built")
        assert device_problems(cluster, [cell("reference")]) == []


def test_jobs_on_gpus_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, packages=("selective_scan_cuda", "causal_conv1d"))
    monkeypatch.setattr(kernel, "load_kernel", gone)
    monkeypatch.setattr(kernel, "kernel_path", lambda variant: None)
    assert device_problems(SLURM, [cell("cuda"), cell("reference")]) == []


@pytest.mark.parametrize(("scan", "wanted"), [("auto", "selective_scan_cuda and causal_conv1d or triton"), ("triton", "triton")])
def test_triton_is_needed_where_it_would_run(monkeypatch: pytest.MonkeyPatch, scan: str, wanted: str) -> None:
    has(monkeypatch)
    for installed, count in ((False, 1), (True, 0)):
        monkeypatch.setattr("models.ssm.backends.is_installed", lambda backend, installed=installed: backend == "triton" and installed)
        gpu_backend.cache_clear()
        problems = device_problems(SLURM, [cell(scan)])
        assert len(problems) == count and all(f"a scan on a GPU needs {wanted}, not installed here" in problem for problem in problems)
        assert device_problems(SLURM, [cell(scan, "vit_micro")]) == []  # it has no scan
    gpu_backend.cache_clear()


@pytest.mark.parametrize(
    ("cluster", "asked"),
    [
        (SLURM, True),
        (ClusterSpec(gpus_per_node=1), True),
        (ClusterSpec(kind="slurm", gpus_per_node=1, setup=("module load gcc",)), False),
        (ClusterSpec(kind="slurm", gpus_per_node=1, environment={"CC": "/opt/gcc"}), False),
    ],
)
def test_triton_needs_a_c_compiler_unless_the_profile_sets_one_up(monkeypatch: pytest.MonkeyPatch, cluster: ClusterSpec, asked: bool) -> None:
    has(monkeypatch, gpus=8)
    gpu_backend.cache_clear()
    monkeypatch.setattr("models.ssm.backends.is_installed", lambda backend: backend == "triton")
    monkeypatch.setattr("models.ssm.backends.compiler_problem", lambda: "there is no C compiler")
    problems = device_problems(cluster, [cell("triton"), cell("reference")])
    wanted = "recipe.scan: the Triton kernels need a C compiler on the node, and here there is no C compiler: load one in cluster.setup"
    assert len(problems) == asked and all(problem.startswith(wanted) for problem in problems)
    assert device_problems(cluster, [cell("triton", "vssd_micro_32"), cell("cuda", "vit_micro")]) == []  # they have no scan
    gpu_backend.cache_clear()


def test_triton_runs_on_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    (problem,) = device_problems(CPUS, [cell("triton")])
    assert problem == "recipe.scan: scan backend 'triton' does not take tensors on 'cpu'; ask for 'auto' or 'reference'"
