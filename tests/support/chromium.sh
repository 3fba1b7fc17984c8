#!/usr/bin/env bash
# Installs Chromium for the browser tests where that needs no question: as root on Debian or Ubuntu. Elsewhere the tests skip, and say so.
set -euo pipefail
for browser in chromium chromium-browser google-chrome; do
    if command -v "$browser" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "[test] no Chromium here: the browser tests will skip; install it to run them"
    exit 0
fi
echo "[test] installing Chromium for the browser tests: apt-get install chromium"
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -qq -o DPkg::Lock::Timeout=600"
$apt update >/dev/null 2>&1 || true # a source that is down does not matter while another has the package
$apt install -y --no-install-recommends chromium >/dev/null || echo "[test] apt-get could not install chromium: the browser tests will skip"
