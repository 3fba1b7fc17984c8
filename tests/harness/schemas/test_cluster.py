"""The schema of cluster profiles."""

from pathlib import Path
from typing import Any

import pytest

from harness.schemas.cluster import cluster_schema, named_or, prepare_schema, profile_schema, with_slurm
from tests.harness.schemas.conftest import read

ROOT = Path(__file__).resolve().parents[3]
PROFILES = sorted((ROOT / "slurm").glob("*.yaml"))
WRONG: tuple[dict[str, Any], ...] = (
    {"gpus": 4},
    {"kind": "pbs"},
    {"nodes": 0},
    {"nodes": "two"},
    {"timeout_min": 1.5},
    {"mem_gb": 0},
    {"profile": {"dtype": ["fp8"]}},
    {"profile": {"compiled": True}},
    {"prepare": {"jobs": 0}},
    {"prepare": {"job": 4}},
    {"setup": "module load cuda"},
    {"slurm": {"partitions": "gpu"}},
    {"slurm_kind": "slurm"},
    {"environment": {"A": [1]}},
    {"container": {"image": "/vssm.sif"}},
    {"container": {"image": "/vssm.sif", "runtime": "docker"}},
    {"container": {"image": "/vssm.sif", "runtime": "pyxis", "mounts": "/data"}},
    {"container": {"image": "/vssm.sif", "runtime": "pyxis", "mount": ["/data"]}},
)
RIGHT: tuple[dict[str, Any], ...] = (
    {},
    {"setup": None, "environment": None, "profile": None, "prepare": None, "slurm": None},
    {"kind": "slurm", "slurm": {"partition": "gpu", "gres": "gpu:4"}, "slurm_qos": "high", "array_parallelism": 4, "mem_gb": "1.5e2"},
    {"profile": {"compile": True, "dtype": ["fp32", "bf16"]}, "environment": {"A": "1.10", "B": 1}},
    {"kind": "slurm", "container": {"image": "/vssm.sif", "runtime": "apptainer", "mounts": ["/data", "/a:/b:ro"]}},
    {"container": None},
    {"kind": "slurm", "prepare": {"partition": "cpu", "jobs": 8, "slurm": {"qos": "low"}}},
)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_every_profile_of_the_project_is_valid(path: Path, of_profiles: Any) -> None:
    of_profiles.validate(read(path))


@pytest.mark.parametrize("profile", RIGHT, ids=str)
def test_so_is_whatever_the_launcher_takes(profile: dict[str, Any], of_profiles: Any) -> None:
    of_profiles.validate(profile)


@pytest.mark.parametrize("profile", WRONG, ids=str)
def test_mistakes_are_not(profile: dict[str, Any], of_profiles: Any) -> None:
    assert not of_profiles.is_valid(profile)


def test_every_key_has_a_description_and_the_fields_their_defaults() -> None:
    properties = cluster_schema()["properties"]
    assert [name for name, part in properties.items() if "description" not in part] == []
    assert properties["timeout_min"]["default"] == 1440
    parts = [*profile_schema()["properties"].values(), *prepare_schema()["properties"].values()]
    assert sum("description" not in part for part in parts) <= 1  # but for `slurm`
    assert with_slurm({}, [])["properties"]["partition"] and {"type": "null"} in named_or({})["anyOf"]
