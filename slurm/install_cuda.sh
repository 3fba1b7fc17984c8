#!/usr/bin/env bash
# Builds mamba-ssm's selective scan and causal-conv1d into .venv, on a machine with an NVIDIA GPU and the CUDA toolkit (nvcc) that torch was built for.
#   slurm/install_cuda.sh            for this machine's GPU
#   CUDA_ARCHS=80,90 slurm/install_cuda.sh   for others (a login node without a GPU builds for the nodes')
# pip alone cannot: both builds import the installed torch, which build isolation hides.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
MAMBA=mamba-ssm==2.3.2.post1
CONV=causal-conv1d==1.7.0
say() { printf '\033[1m[install]\033[0m %s\n' "$*"; }
die() { printf '[install] error: %s\n' "$*" >&2; exit 2; }

[ -x "$VENV/bin/python" ] || die "$VENV is missing: run slurm/install.sh first"
"$VENV/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)' ||
    die "torch in $VENV is a CPU build. Install the CUDA build of the same version first: https://pytorch.org/get-started/locally"
command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] ||
    die "nvcc is missing. Load the CUDA toolkit (module load cuda) or set CUDA_HOME; torch wants CUDA $("$VENV/bin/python" -c 'import torch; print(torch.version.cuda)')"
ARCHS=${CUDA_ARCHS:-$("$VENV/bin/python" -c 'import torch; print(",".join(sorted({"%d%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})))')}
[ -n "$ARCHS" ] || die "no GPU here: say what to build for, such as CUDA_ARCHS=80,90"

# Both setup.py files list many architectures; only the wanted lines stay, which turns an hour into minutes.
build() {
    local package=$1 flag=$2 folder
    folder=$(mktemp -d)
    env "${flag}_SKIP_CUDA_BUILD=TRUE" "$VENV/bin/pip" --quiet download --no-deps --no-build-isolation --no-binary :all: --dest "$folder" "$package" || die "cannot download $package"
    tar -xzf "$folder"/*.tar.gz -C "$folder"
    "$VENV/bin/python" - "$folder"/*/setup.py "$ARCHS" <<'PYTHON'
import re
import sys

path, archs = sys.argv[1], sys.argv[2].split(",")
text = open(path).read()
pair = re.compile(r'^(\s*)cc_flag\.append\("-gencode"\)\n\s*cc_flag\.append\("arch=compute_\d+,code=sm_\d+"\)\n', re.M)
first = pair.search(text)
if first is None:
    sys.exit(f"{path} does not list its architectures as expected: build the package by its own instructions")
wanted = "".join(f'{first.group(1)}cc_flag += ["-gencode", "arch=compute_{arch},code=sm_{arch}"]\n' for arch in archs)
open(path, "w").write(pair.sub(lambda match: wanted if match.start() == first.start() else f"{match.group(1)}pass\n", text))
PYTHON
    say "$package for sm_${ARCHS//,/, sm_}, some minutes"
    env "${flag}_FORCE_BUILD=TRUE" MAX_JOBS="${MAX_JOBS:-8}" "$VENV/bin/pip" --quiet install --no-deps --no-build-isolation --no-cache-dir "$folder"/*/ || die "the build of $package failed"
    rm -rf "$folder"
}
# What mamba-ssm's own Python imports, for the benchmark of the official composition; its other dependencies serve models that nothing here uses.
"$VENV/bin/pip" --quiet install -c constraints.txt triton einops transformers
build "$CONV" CAUSAL_CONV1D
build "$MAMBA" MAMBA
"$VENV/bin/python" -c 'import torch, selective_scan_cuda, causal_conv1d' || die "the kernels were built and do not load"
"$VENV/bin/python" -c 'from mamba_ssm.ops.selective_scan_interface import selective_scan_fn' ||
    say "mamba-ssm's own Python does not load (see above): all runs but \`python -m benchmarks.steps --gpu\`"
say "ready: scans on a GPU run mamba-ssm's kernel"
