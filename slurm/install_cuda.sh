#!/usr/bin/env bash
# Builds mamba-ssm's selective scan and causal-conv1d into .venv, on a machine with the CUDA toolkit (nvcc) that torch was built for.
#   slurm/install_cuda.sh            for this machine's GPU
#   CUDA_ARCHS=80,90 slurm/install_cuda.sh   for others (a login node without a GPU builds for the nodes')
# pip alone cannot: both builds import the installed torch, which build isolation hides, and mamba-ssm's asks for C++17, which the headers of torch 2.14
# refuse.
# slurm/cuda_build.py asks first whether this machine can build, and changes their setup.py.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
MAMBA=mamba-ssm==2.3.2.post1
CONV=causal-conv1d==1.7.0
say() { printf '\033[1m[install]\033[0m %s\n' "$*"; }
die() { printf '[install] error: %s\n' "$*" >&2; exit 2; }
of_torch() { "$VENV/bin/python" -c "import torch; print($1)"; }
version_of() { "$VENV/bin/python" -c "from importlib.metadata import version; print(version('$1'))" 2>/dev/null || true; }

[ -x "$VENV/bin/python" ] || die "$VENV is missing: run slurm/install.sh first"
TORCH_CUDA=$(of_torch 'torch.version.cuda or ""')
[ -n "$TORCH_CUDA" ] ||
    die "torch in $VENV is a CPU build. Install the CUDA build of the same version first: https://pytorch.org/get-started/locally"
# torch's builds look in CUDA_HOME first too
NVCC=${CUDA_HOME:+$CUDA_HOME/bin/nvcc}
NVCC=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$NVCC" ] || die "$NVCC is missing. Load the CUDA toolkit (module load cuda) or set CUDA_HOME; torch wants CUDA $TORCH_CUDA"
ARCHS=${CUDA_ARCHS:-$(of_torch '",".join(sorted({"%d%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}))')}
[ -n "$ARCHS" ] || die "no GPU here: say what to build for, such as CUDA_ARCHS=80,90"
"$VENV/bin/python" slurm/cuda_build.py check "$NVCC" "$TORCH_CUDA" "$ARCHS" || die "this machine cannot build them, for the reason above"
CUDA_HOME=${CUDA_HOME:-$("$VENV/bin/python" slurm/cuda_build.py home "$NVCC")}
HEADERS=$("$VENV/bin/python" slurm/cuda_build.py headers "$CUDA_HOME") || die "this machine cannot build them, for the reason above"
export CUDA_HOME CPATH=${HEADERS:+$HEADERS${CPATH:+:}}${CPATH:-}
[ -n "$CPATH" ] || unset CPATH # empty, it would mean the current folder
export MAX_JOBS=${MAX_JOBS:-$("$VENV/bin/python" slurm/cuda_build.py jobs)}

build() {
    local package=$1 flag=$2 folder
    folder=$(mktemp -d)
    env "${flag}_SKIP_CUDA_BUILD=TRUE" "$VENV/bin/pip" --quiet download --no-deps --no-build-isolation --no-binary :all: --dest "$folder" "$package" || die "cannot download $package"
    tar -xzf "$folder"/*.tar.gz -C "$folder"
    "$VENV/bin/python" slurm/cuda_build.py patch "$folder"/*/setup.py "$ARCHS" || die "$package cannot be built as it is, for the reason above"
    say "$package for sm_${ARCHS//,/, sm_}, $MAX_JOBS compilers at a time, some minutes"
    env "${flag}_FORCE_BUILD=TRUE" "$VENV/bin/pip" --quiet install --no-deps --no-build-isolation --no-cache-dir "$folder"/*/ || die "the build of $package failed"
    rm -rf "$folder"
}
# What mamba-ssm's own Python imports, for the benchmark of the official composition; its other dependencies serve models that nothing here uses.
# Triton is torch's own: another version may not compile torch's kernels.
TRITON=$(version_of triton)
"$VENV/bin/pip" --quiet install -c constraints.txt einops transformers
[ "$(version_of triton)" = "$TRITON" ] || die "pip has changed triton from ${TRITON:-none} to $(version_of triton): install torch again"
build "$CONV" CAUSAL_CONV1D
build "$MAMBA" MAMBA
"$VENV/bin/python" -c 'import torch, selective_scan_cuda, causal_conv1d' || die "the kernels were built and do not load"
"$VENV/bin/python" -c 'from mamba_ssm.ops.selective_scan_interface import selective_scan_fn' ||
    say "mamba-ssm's own Python does not load (see above): all runs but the rows of the official composition in \`python -m benchmarks.gpu\`"
"$VENV/bin/python" -m models.ssm.check || say "kernels are wrong (see above): where they are mamba-ssm's, scans on a GPU run in Triton instead"
say "ready: scans on a GPU run mamba-ssm's kernel, if it is right"
