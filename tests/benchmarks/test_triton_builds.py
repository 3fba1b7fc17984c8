"""The Triton kernels are compiled ahead of time, for GPUs that are not here, and keep everything in registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.triton_device import needs_triton

ROOT = Path(__file__).resolve().parents[2]


def builds(tmp_path: Path, *options: str) -> list[dict[str, int | str]]:
    """What the kernels take. Built in a process of its own: here Triton interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.triton_builds", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--architectures", "90", "--dtypes", "bf16"), 15),
        (("--architectures", "80", "100", "120", "--dtypes", "bf16", "--only", "scan_backward"), 9),
    ],
)
def test_kernels_are_built_for_every_network_without_a_spilled_register(tmp_path: Path, options: tuple[str, ...], count: int) -> None:
    built = builds(tmp_path, *options)
    assert len(built) == count
    assert not [build for build in built if build["spilled_bytes"]]
    assert all(int(build["registers"]) <= 255 and int(build["shared_bytes"]) <= 8192 for build in built)
    backward = {str(build["network"]): int(build["registers"]) for build in built if build["kernel"] == "scan_backward"}
    assert backward["vmamba"] < backward["mambavision"] < backward["vim"]
    forward = [int(build["registers"]) for build in built if build["kernel"] == "scan_forward"]
    assert all(registers <= 128 for registers in forward)  # a multiprocessor then runs 16 warps
