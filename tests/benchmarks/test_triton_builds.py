"""The Triton kernels are compiled ahead of time, for GPUs that are not here, and keep everything in registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.triton_device import needs_triton

ROOT = Path(__file__).resolve().parents[2]
# Calls of the command: every kernel for one GPU, and for the others the one that takes most registers there.
CALLS = (["--architectures", "90"], ["--architectures", "80", "100", "120", "--only", "scan_backward", "--network", "vim"])
CODE = f"from benchmarks.triton_builds import main; [main(['--json', '--dtypes', 'bf16', *words]) for words in {CALLS}]"


@needs_triton
@pytest.mark.slow
def test_kernels_are_built_for_every_network_without_a_spilled_register(tmp_path: Path) -> None:
    """In a process of its own: here Triton interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    built = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(built) == 15 + 3
    assert not [build for build in built if build["spilled_bytes"]]
    assert all(int(build["registers"]) <= 255 and int(build["shared_bytes"]) <= 8192 for build in built)
    backward = {build["network"]: build["registers"] for build in built if build["kernel"] == "scan_backward" and build["architecture"] == 90}
    assert backward["vmamba"] < backward["mambavision"] < backward["vim"]
    forward = [build["registers"] for build in built if build["kernel"] == "scan_forward"]
    assert all(registers <= 128 for registers in forward)  # a multiprocessor then runs 16 warps
