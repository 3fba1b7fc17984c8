#!/usr/bin/env bash
# Makes .venv with the pinned packages, FFCV and the C++ scan. Safe to run again: it does only what is missing.
#   slurm/install.sh [extra ...]        extras of setup.cfg, default: dev
# PYTHON=python3.12 slurm/install.sh    another interpreter (3.11 to 3.14)
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
EXTRAS=$(IFS=,; echo "${*:-dev}")
FFCV=ffcv==1.0.2
say() { printf '\033[1m[install]\033[0m %s\n' "$*"; }
die() { printf '[install] error: %s\n' "$*" >&2; exit 2; }

# 1. An interpreter that is supported.
CANDIDATES="python3 python3.14 python3.13 python3.12 python3.11"
find_python() {
    local p
    for p in ${PYTHON:-$CANDIDATES}; do
        "$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && { echo "$p"; return; }
    done
    die "Python 3.11, 3.12, 3.13 or 3.14 is needed; tried: ${PYTHON:-$CANDIDATES}. Set PYTHON=/path/to/python3.11"
}

# 2. The system libraries that FFCV and the decoding of images are built against.
PACKAGES="g++ pkg-config libjpeg-dev libturbojpeg0-dev libopencv-core-dev libopencv-imgproc-dev"
has_libraries() {
    command -v g++ >/dev/null && command -v pkg-config >/dev/null && pkg-config --exists libturbojpeg libjpeg &&
        { pkg-config --exists opencv4 || [ -e /usr/include/opencv4/opencv2/imgproc.hpp ]; }
}
install_libraries() {
    has_libraries && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "system libraries: apt-get install $PACKAGES"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq -o DPkg::Lock::Timeout=600 update
        # shellcheck disable=SC2086
        apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $PACKAGES >/dev/null
        return
    fi
    cat >&2 <<MESSAGE
[install] error: FFCV needs libjpeg-turbo, OpenCV (core, imgproc), g++ and pkg-config. One of these installs them:
    sudo apt-get install --no-install-recommends $PACKAGES
    conda install -c conda-forge compilers pkg-config libjpeg-turbo opencv
then run this again. Where neither is possible: WITHOUT_FFCV=1 make demo, and write 'loader: torch' under 'data:' in the grid.
MESSAGE
    exit 2
}

# 3. Debian ships no opencv4.pc with the two small packages: describe them to pkg-config ourselves.
describe_opencv() {
    pkg-config --exists opencv4 && return
    local at=$1
    mkdir -p "$at/include/opencv2"
    printf '#define HAVE_OPENCV_CORE\n#define HAVE_OPENCV_IMGPROC\n' >"$at/include/opencv2/opencv_modules.hpp"
    printf 'Name: opencv4\nDescription: core and imgproc\nVersion: 4\nLibs: -lopencv_imgproc -lopencv_core\nCflags: -I%s/include -I/usr/include/opencv4\n' "$at" >"$at/opencv4.pc"
    export PKG_CONFIG_PATH="$at${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
}

fingerprint() { { echo "$EXTRAS ${WITHOUT_FFCV:-}"; cat setup.cfg pyproject.toml constraints.txt slurm/install.sh models/ssm/*.cpp models/ssm/*.h jobs/data/*.cpp jobs/data/*.h 2>/dev/null; } | sha256sum | cut -d' ' -f1; }

if [ "$(cat "$VENV/.ready" 2>/dev/null)" = "$(fingerprint)" ]; then exit 0; fi
[ -n "${WITHOUT_FFCV:-}" ] || install_libraries
[ -x "$VENV/bin/python" ] || { python=$(find_python); say "$VENV with $($python --version)"; "$python" -m venv "$VENV"; }
PIP="$VENV/bin/pip --disable-pip-version-check --quiet"
# FFCV and the scan are built inside .venv (no build isolation), so that the pinned setuptools and compiler are what builds them.
export PIP_CONSTRAINT=$PWD/constraints.txt
say "pinned packages (a few minutes the first time)"
$PIP install setuptools wheel numpy
$PIP install --no-build-isolation -e ".[$EXTRAS]"
if [ -z "${WITHOUT_FFCV:-}" ] && ! "$VENV/bin/pip" show -q ffcv 2>/dev/null; then
    say "$FFCV, built against the system's libturbojpeg and OpenCV"
    describe_opencv "$PWD/$VENV/opencv"
    $PIP install --no-deps --no-build-isolation "$FFCV"
fi
"$VENV/bin/python" -m models.ssm.kernel
"$VENV/bin/python" -m jobs.data.decoding
fingerprint >"$VENV/.ready"
say "ready: $VENV (. $VENV/bin/activate)"
