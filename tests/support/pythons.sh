#!/usr/bin/env bash
# Runs tests under another Python: in a Debian that has it, with the project set up there by slurm/install.sh as on any machine. Needs root on Debian.
#   tests/support/pythons.sh 3.13 [pytest arguments ...]      default: the fast tests of all folders
#   NEWEST_TORCH=1 tests/support/pythons.sh 3.14            with the newest torch and torchvision in place of those of constraints.txt
# 3.13 is Debian 13's Python, 3.14 that of Debian's unstable. The Debian is made once by debootstrap, in /var/cache/vssm-pythons (1.1 GB). What pip
# installs there (7 GB: PyPI's torch is the CUDA build) is removed at the end; KEEP=1 keeps it for the next run.
set -euo pipefail
cd "$(dirname "$0")/../.."
VERSION=${1:?usage: tests/support/pythons.sh 3.13|3.14 [pytest arguments ...]}
shift
case $VERSION in
    3.13) RELEASE=trixie ;;
    3.14) RELEASE=sid ;;
    *) echo "error: $VERSION: valid are 3.13 and 3.14" >&2; exit 2 ;;
esac
ROOT=/var/cache/vssm-pythons/$RELEASE
PACKAGES=python3-venv,python3-dev,g++,pkg-config,libjpeg-dev,libturbojpeg0-dev,libopencv-core-dev,libopencv-imgproc-dev,ca-certificates,make,git,procps

make_root() { # whole or not at all; its mounts are in a namespace of their own, and end with it
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
    rm -rf --one-file-system "$ROOT.new"
    mkdir -p "${ROOT%/*}"
    # its script for sid: an older debootstrap has none by a newer release's name
    unshare --mount debootstrap --variant=minbase --include=$PACKAGES $RELEASE "$ROOT.new" "$mirror" /usr/share/debootstrap/scripts/sid
    mv "$ROOT.new" "$ROOT"
}

# A command in that Debian, with this machine's /proc, /dev, names and certificates.
within() {
    unshare --mount sh -c '
        root=$1; shift
        for folder in proc sys dev; do mount --rbind /$folder "$root/$folder"; done
        for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do touch "$root$file"; mount --bind "$file" "$root$file"; done
        exec chroot "$root" sh -c "cd /vssm-bench && exec \"\$@\"" sh "$@"' sh "$ROOT" "$@"
}

newest_torch() {
    sed -E '/^(torch|torchvision|triton|setuptools)==/d' "$ROOT/vssm-bench/constraints.txt" >"$ROOT/vssm-bench/newest.txt"
    within env PIP_NO_CACHE_DIR=1 .venv/bin/pip --quiet install --upgrade torch torchvision triton -c newest.txt
    within .venv/bin/pip list | grep -E '^(torch|torchvision|triton) '
}

exec 8>"/var/lock/vssm-pythons-$RELEASE.lock"
flock 8
[ -d "$ROOT" ] || make_root
mkdir -p "$ROOT/vssm-bench"
git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -cf - | tar -C "$ROOT/vssm-bench" -xf -
[ -n "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$ROOT/vssm-bench"' EXIT
within env PYTHON=python3 PIP_NO_CACHE_DIR=1 slurm/install.sh dev
[ -z "${NEWEST_TORCH:-}" ] || newest_torch
[ $# -gt 0 ] || set -- -m "not slow and not slurm and not browser and not long" tests
within .venv/bin/python -m pytest -q -p no:cacheprovider "$@"
