"""What slurm/install_cuda.sh asks before it builds CUDA kernels, and what it changes in their setup.py. Only the standard library is used.

python slurm/cuda_build.py check NVCC TORCH_CUDA ARCHS    exits with a message if this machine cannot build
python slurm/cuda_build.py home NVCC                      prints the toolkit's folder, for CUDA_HOME
python slurm/cuda_build.py headers CUDA_HOME              prints the folders of headers that the toolkit lacks and torch's CUDA packages have
python slurm/cuda_build.py jobs                           prints how many compilers fit into the memory
python slurm/cuda_build.py patch SETUP_PY ARCHS           rewrites a setup.py
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

STANDARD = "-std=c++20"  # the headers of torch 2.14 want it, and those of 2.13 take it
# What torch's headers include. A toolkit may come without its libraries' headers; the packages that torch's CUDA build depends on have them.
HEADERS = ("cuda_runtime_api.h", "cublas_v2.h", "cublasLt.h", "cusparse.h", "cusolverDn.h")
JOB_GB = 4.0  # of one compilation of the scan's backward kernels
MOST_JOBS = 8
PAIR = re.compile(r'^(\s*)cc_flag\.append\("-gencode"\)\n\s*cc_flag\.append\("arch=compute_\d+,code=sm_\d+"\)\n', re.M)
# Kernels of nvcc 13 that are built for sm_103 (B300) give wrong numbers without an error. Those of sm_100 run there too.
INSTEAD = {"103": "100"}


def wanted(archs: str) -> list[str]:
    """The values of nvcc's -gencode for architectures such as '80,90'. The highest one comes as PTX too, which newer GPUs compile for themselves."""
    numbers = sorted({INSTEAD.get(arch.strip(), arch.strip()) for arch in archs.split(",") if arch.strip()}, key=int)
    return [f"arch=compute_{arch},code=sm_{arch}" for arch in numbers] + [f"arch=compute_{arch},code=compute_{arch}" for arch in numbers[-1:]]


def patched(text: str, archs: str) -> str:
    """A setup.py that builds for the wanted architectures alone, which turns an hour into minutes, and by torch's C++ standard.

    Raises ValueError if the text is not what these packages have.
    """
    first = PAIR.search(text)
    if first is None:
        raise ValueError("it does not list its architectures as expected")
    if '"-std=c++17"' not in text:
        raise ValueError("it does not set its C++ standard as expected")
    lines = "".join(f'{first[1]}cc_flag += ["-gencode", "{value}"]\n' for value in wanted(archs))
    text = PAIR.sub(lambda match: lines if match.start() == first.start() else f"{match[1]}pass\n", text)
    return text.replace('"-std=c++17"', f'"{STANDARD}"')


def compiler_problem(compiler: str) -> str | None:
    """Why the C++ compiler cannot build against torch's headers; None if it can."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "one.cpp"
        source.write_text("#include <concepts>\nstatic_assert(std::integral<int>);\nint main() { return 0; }\n")
        error = failure([compiler, STANDARD, "-fsyntax-only", str(source)])
    if error is None:
        return None
    return f"{compiler} does not compile C++20, which torch wants from 2.14 on ({error}): load GCC 11 or newer (module load gcc), or set CXX"


def toolkit_problem(nvcc: str, torch_cuda: str) -> str | None:
    """Why nvcc does not fit torch; None if it does. `torch_cuda`: torch.version.cuda, such as '13.0'."""
    version = nvcc_version(nvcc)
    if version is None:
        return f"{nvcc} -V tells no version: load the CUDA toolkit {torch_cuda} (module load cuda) or set CUDA_HOME"
    if version.split(".")[0] == torch_cuda.split(".")[0]:
        return None
    return (
        f"{nvcc} is of CUDA {version} and torch was built for CUDA {torch_cuda}: load a toolkit of CUDA {torch_cuda.split('.')[0]}, or set CUDA_HOME"
    )


def nvcc_version(nvcc: str) -> str | None:
    """nvcc's version, such as '13.0'; None where it does not run."""
    try:
        told = subprocess.run([nvcc, "-V"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    match = re.search(r"release (\d+\.\d+)", told)
    return match[1] if match else None


def toolkit_home(nvcc: str) -> Path:
    """The toolkit's folder, by nvcc's own words. nvcc may be a link or a script that calls the real one, and torch would then look beside it."""
    try:
        told = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
        match = re.search(r"^#\$ TOP=(.+)$", told.stdout + told.stderr, re.M)
    except OSError:
        match = None
    return (Path(match[1].strip()) if match else Path(nvcc).resolve().parents[1]).resolve()


def further_headers(home: Path, packages: Path) -> list[Path]:
    """The folders of headers in `packages`, a site-packages, without which torch's headers cannot be read; empty if the toolkit has all.

    Raises ValueError if neither has one.
    """
    absent = [name for name in HEADERS if not (home / "include" / name).exists()]
    chosen: dict[Path, None] = {}
    for name in absent:
        folder = next((path.parent for path in sorted(packages.glob(f"nvidia/*/include/{name}"))), None)
        if folder is None:
            raise ValueError(f"{home / 'include'} has no {name}, nor have torch's CUDA packages: load a whole CUDA toolkit, or set CUDA_HOME")
        chosen[folder] = None
    return list(chosen)


def kernel_problem(nvcc: str, archs: str) -> str | None:
    """Why nvcc compiles no kernel for the architectures with this machine's C++ compiler; None if it does."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "one.cu"
        source.write_text("__global__ void one() {}\n")
        targets = [word for value in wanted(archs) for word in ("-gencode", value)]
        error = failure([nvcc, STANDARD, *targets, "-c", str(source), "-o", str(Path(folder) / "one.o")])
    return error and f"{nvcc} compiles no kernel for {archs} ({error}): its CUDA may not know this GPU, or not take this C++ compiler"


def failure(command: list[str]) -> str | None:
    """The first error that a command prints; None if it ends well."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else f"it ended with {done.returncode}")


def jobs(cores: int, free_gb: float) -> int:
    """How many compilers may run at the same time."""
    return max(1, min(MOST_JOBS, cores, int(free_gb // JOB_GB)))


def free_gb(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Memory that is available now."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    return int(match[1]) / 2**20 if match else JOB_GB


def check(nvcc: str, torch_cuda: str, archs: str) -> str | None:
    """The first problem that would end the build; None without one."""
    return compiler_problem(os.environ.get("CXX", "g++")) or toolkit_problem(nvcc, torch_cuda) or kernel_problem(nvcc, archs)


def main(arguments: list[str]) -> None:
    """Runs a command of the module's docstring."""
    match arguments:
        case ["check", nvcc, torch_cuda, archs]:
            sys.exit(check(nvcc, torch_cuda, archs))
        case ["home", nvcc]:
            print(toolkit_home(nvcc))
        case ["headers", home]:
            try:
                print(":".join(map(str, further_headers(Path(home), Path(sysconfig.get_path("purelib"))))))
            except ValueError as error:
                sys.exit(str(error))
        case ["jobs"]:
            print(jobs(len(os.sched_getaffinity(0)), free_gb()))
        case ["patch", path, archs]:
            try:
                Path(path).write_text(patched(Path(path).read_text(), archs))
            except ValueError as error:
                sys.exit(f"{path}: {error}; build the package by its own instructions")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
