"""What a job's device lacks to run the grid's networks, as far as this machine can tell: torch's build, GPUs, and kernels of the scan.

A cluster's nodes use the environment of the login node, so its packages are looked at here. No GPU is needed for that.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from jobs.cluster.gpus import gpu_problems
from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec, image_size

if TYPE_CHECKING:
    from torch import nn

INSTALL = "run slurm/install_cuda.sh, which builds it"


def device_problems(cluster: ClusterSpec, cells: Sequence[Cell]) -> list[str]:
    """The problems, one sentence each: GPUs that torch cannot use, a backend of another device, a kernel that is not installed."""
    from models.ssm.backends import missing_kernels, scan_backend_used

    if cluster.container:  # its image has packages and kernels of its own, into which `harness.doctor --job` looks
        return []
    on_gpu = runs_on_gpu(cluster)
    if problems := gpu_problems(cluster) or torch_problems(cluster):
        return problems
    for scan in sorted({cell.recipe.scan for cell in cells}):
        try:
            backend = scan_backend_used("cuda" if on_gpu else "cpu", scan)
        except ValueError as error:
            problems.append(f"recipe.scan: {error}")
            continue
        if backend == "cpu":
            problems += library_problems(cluster)
        elif backend == "cuda":
            problems += package_problems([cell for cell in cells if cell.recipe.scan == scan])
        elif lacking := missing_kernels("cuda" if on_gpu else "cpu", scan) or (compiler_lacking(cluster) if backend == "triton" else None):
            problems += [f"recipe.scan: {lacking}"] if any(kernels_of(cell) for cell in cells if cell.recipe.scan == scan) else []
    return problems


def compiler_lacking(cluster: ClusterSpec) -> str | None:
    """Why Triton could build no launcher where the jobs run, as far as this machine shows; a profile that sets a compiler up is believed."""
    from models.ssm.backends import compiler_problem
    from models.ssm.check import COMPILER_REMEDY

    if cluster.kind == "slurm" and (cluster.setup or "CC" in cluster.environment):
        return None
    problem = compiler_problem()
    return problem and f"the Triton kernels need a C compiler on the node, and here {problem}: {COMPILER_REMEDY}, or set scan to cuda or reference"


def runs_on_gpu(cluster: ClusterSpec) -> bool:
    """True if the jobs will compute on GPUs: they ask for them, or they run here, where one is."""
    import torch

    return cluster.promised_gpus or (cluster.kind == "debug" and torch.cuda.is_available())


def torch_problems(cluster: ClusterSpec) -> list[str]:
    """Why jobs that ask for GPUs would see none."""
    import torch

    from jobs.parallel.devices import NO_CUDA_BUILD, refusal

    if not cluster.promised_gpus:
        return []
    if torch.version.cuda is None:
        return [f"cluster: its jobs ask for GPUs, and torch {torch.__version__} is installed, {NO_CUDA_BUILD}"]
    if cluster.kind == "slurm" or torch.cuda.is_available():
        return []
    return [f"cluster.gpus_per_node: torch can use no GPU of this machine: {refusal()}"]


def library_problems(cluster: ClusterSpec) -> list[str]:
    """A C++ scan that is not built, or that does not load where the jobs run on this machine."""
    from models.ssm.kernel import VARIANTS, KernelMissing, kernel_path, load_kernel

    if cluster.kind == "slurm":  # the nodes may have another CPU: whether its variant is built is all that can be told here
        return [] if any(map(kernel_path, VARIANTS.values())) else [f"recipe.scan: {KernelMissing()}"]
    try:
        load_kernel()
    except (KernelMissing, ImportError) as error:
        return [f"recipe.scan: {error}"]
    return []


def package_problems(cells: Sequence[Cell]) -> list[str]:
    """Packages with CUDA kernels that a network of `cells` runs and that are not installed. A network is built, without memory, only if one is."""
    missing = [package for package in ("selective_scan_cuda", "causal_conv1d") if find_spec(package) is None]
    if not missing:
        return []
    networks = {(id(cell.model), image_size(cell.data)): cell for cell in cells}
    labels: dict[str, list[str]] = {}
    for cell in networks.values():
        for package in kernels_of(cell) & set(missing):
            labels.setdefault(package, []).append(cell.model.label)
    names = {"selective_scan_cuda": "mamba-ssm's selective scan", "causal_conv1d": "causal-conv1d"}
    return [
        f"recipe.scan: {names[package]} is not installed, and {' and '.join(sorted(set(users))[:3])} would run it on a GPU: {INSTALL}, "
        "or set scan: reference, which is slow"
        for package, users in sorted(labels.items())
    ]


def kernels_of(cell: Cell) -> set[str]:
    """The packages whose kernels a cell's network runs on a GPU; none for a network that cannot be built, which is a problem of its own."""
    import torch

    from models.registry import create_model

    try:
        with torch.device("meta"):
            network = create_model(cell.model.name, 10, image_size(cell.data), **cell.model.architecture)
    except Exception:  # a model that a user added may raise any
        return set()
    return {package for module in network.modules() for package in kernels_of_module(module)}


def kernels_of_module(module: "nn.Module") -> list[str]:
    """The packages whose kernels one module runs itself."""
    from models.layers import TokenConv1d
    from models.ssm.conv import CAUSAL_CONV1D_TAPS

    if isinstance(module, TokenConv1d):
        taps = module.weight.shape[-1]
        return ["causal_conv1d"] if module.left == taps - 1 and taps in CAUSAL_CONV1D_TAPS else []
    scans = hasattr(module, "scan_backend") and not getattr(module, "fixed", False)  # S4 and S5 are products and FFTs
    return ["selective_scan_cuda"] if scans else []
