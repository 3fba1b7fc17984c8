"""`cluster:` as a word, a profile or a mapping."""

from pathlib import Path

import pytest

from harness.grid.read import read_grid
from jobs.experiment.specs import ClusterSpec, PrepareSpec, ProfileSpec
from tests.support.grids import START, mistakes, read


def test_a_cluster_is_local_unless_said(folder: Path) -> None:
    assert read(START).cluster == ClusterSpec()
    assert read(START + "cluster: debug\n").cluster == ClusterSpec(kind="debug")


def test_slurm_names_come_with_or_without_their_prefix(folder: Path) -> None:
    flat = "kind: slurm, partition: gpu, slurm_qos: high, slurm_mem_gb: 8, slurm_array_parallelism: 4, setup: [module load x]"
    assert read(START + f"cluster: {{{flat}, slurm: {{gres: 'gpu:2', slurm_time: 12:30:00}}}}\n").cluster == ClusterSpec(
        kind="slurm",
        mem_gb=8.0,
        max_parallel=4,
        setup=("module load x",),
        slurm={"partition": "gpu", "qos": "high", "gres": "gpu:2", "time": "12:30:00"},
    )


def test_a_profile_is_found_beside_the_grid_and_then_in_the_current_folder(folder: Path) -> None:
    (folder / "grids").mkdir()
    (folder / "grids" / "grid.yaml").write_text(START + "cluster: gpu.yaml\n")
    (folder / "gpu.yaml").write_text("kind: slurm\nnodes: 2\n")
    assert read_grid(Path("grids/grid.yaml")).cluster.nodes == 2
    (folder / "grids" / "gpu.yaml").write_text("kind: slurm\nnodes: 4\n")
    assert read_grid(Path("grids/grid.yaml")).cluster.nodes == 4


def test_mistakes_of_a_profile_are_reported_in_its_own_file(folder: Path) -> None:
    Path("gpu.yaml").write_text("kind: slurm\nnodes: 0\npartion: gpu\n")
    assert [line.split(";")[0] for line in mistakes(START + "cluster: gpu.yaml\nrecpe: 3\n")] == [
        "gpu.yaml:2: nodes: must be 1 or more, got 0",
        "gpu.yaml:3: partion: unknown key",
        "grid.yaml:6: recpe: unknown key",
    ]


def test_a_profile_that_is_not_yaml_is_refused_in_its_own_file(folder: Path) -> None:
    Path("gpu.yaml").write_text("")
    assert mistakes(START + "cluster: gpu.yaml\n") == ["gpu.yaml:1: the file is empty"]


def test_every_slurm_parameter_of_submitit_is_known() -> None:
    from submitit.slurm.slurm import _get_default_parameters

    from harness.grid.cluster_profile import FIELDS, RENAMED, SLURM_NAMES

    assert set(_get_default_parameters()) <= {*SLURM_NAMES, *RENAMED, *FIELDS}


# What is added to a good grid, and the line that it gives
MISTAKES = {
    "unknown cluster": ("cluster: slrum", "5: cluster: no profile slrum; valid: local, debug, the path of a profile such as "),
    "cluster is a number": ("cluster: 3", "5: cluster: expected local, debug, the path of a profile, or a mapping"),
    "unknown cluster key": ("cluster: {kind: slurm, partion: gpu}", "5: cluster.partion: unknown key; did you mean 'partition'?"),
    "unknown SLURM name": ("cluster: {kind: slurm, slurm: {slurm_qoss: x}}", "5: cluster.slurm_qoss: unknown key; did you mean"),
    "cluster type": ("cluster: {nodes: two}", "5: cluster.nodes: expected a whole number, got text 'two'"),
    "cluster value": ("cluster: {stages_per_job: 0}", "5: cluster.stages_per_job: must be 1 or more, got 0"),
    "name and prefix": ("cluster: {kind: slurm, qos: a, slurm_qos: b}", "5: cluster.slurm_qos: given twice: also as qos"),
    "beside and under slurm": ("cluster: {kind: slurm, qos: a, slurm: {qos: b}}", "5: cluster.slurm.qos: given twice"),
    "slurm is no mapping": ("cluster: {kind: slurm, slurm: [a]}", "5: cluster.slurm: expected a mapping of submitit's SLURM parameters"),
    "SLURM names elsewhere": ("cluster: {partition: gpu}", "5: cluster.kind: partition need kind: slurm; this is local"),
    "no path of a profile": ('cluster: "a\\0b"', "5: cluster: must have no character U+0000"),
    "blank cache": ("cluster: {cache: ' '}", "5: cluster.cache: must not be blank"),
    "address as cache": (
        "cluster: {cache: 's3://bucket/cache'}",
        "5: cluster.cache: must be the path of a file here, got the address s3://bucket/cache",
    ),
    "ranks that share a GPU": (
        "cluster: {kind: local, tasks_per_node: 2, gpus_per_node: 1}",
        "5: cluster.gpus_per_node: each of the 2 ranks of a node (tasks_per_node) has a GPU of its own, not 1 for all",
    ),
    "debug with ranks": (
        "cluster: {kind: debug, tasks_per_node: 2}",
        "5: cluster.tasks_per_node: debug runs in the launcher's own process, with one rank, not 2; kind: local takes several",
    ),
    "unknown key of prepare": ("cluster: {kind: slurm, prepare: {job: 2}}", "5: cluster.prepare.job: unknown key; did you mean"),
    "prepare is no mapping": ("cluster: {kind: slurm, prepare: cpu}", "5: cluster.prepare: expected a mapping, such as {partition: cpu, jobs: 8"),
    "prepare without jobs": ("cluster: {kind: slurm, prepare: {jobs: 0}}", "5: cluster.prepare.jobs: must be 1 or more, got 0"),
    "prepare in prepare": ("cluster: {kind: slurm, prepare: {prepare: {}}}", "5: cluster.prepare.prepare: unknown key"),
    "local with nodes": ("cluster: {nodes: 2}", "5: cluster.nodes: local has one node, not 2; kind: slurm takes several"),
    "an axis that is not there": ("cluster: {profile: {compiled: true}}", "5: cluster.profile.compiled: unknown key; did you mean 'compile'?"),
    "a value that an axis does not have": ("cluster: {profile: {dtype: [fp32, int8]}}", "5: cluster.profile.dtype: "),
    "axes without names": ("cluster: {profile: [compile]}", "5: cluster.profile: expected a mapping of axes, such as {compile: true, dtype: [fp32"),
    "graphs without GPUs": (
        "cluster: {profile: {cuda_graphs: [false, true]}}",
        "5: cluster.profile: cuda_graphs is of GPUs, and these jobs ask for none: set gpus_per_node, or leave it out",
    ),
    "GPUs without ranks": (
        "cluster: {gpus_per_node: 4}",
        "5: cluster.gpus_per_node: each rank has one GPU, so of 4 some would idle: set tasks_per_node, 1, to as many",
    ),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")


def test_an_empty_setup_environment_or_slurm_means_none(folder: Path) -> None:
    assert read(START + "cluster:\n  kind: slurm\n  setup:\n  environment:\n  slurm:\n").cluster == ClusterSpec(kind="slurm")


def test_variables_and_parameters_are_as_the_file_has_them(folder: Path) -> None:
    cluster = read(
        START + "cluster: {kind: slurm, mem: 1.50, exclusive: yes, nodelist: [n1, n2], environment: {V: 1.10, W: off, X: 4, Y: ''}}\n"
    ).cluster
    assert cluster.environment == {"V": "1.10", "W": "off", "X": "4", "Y": ""}
    assert cluster.slurm == {"mem": "1.50", "exclusive": True, "nodelist": ["n1", "n2"]}


@pytest.mark.parametrize("value, shown", [("", "nothing"), ("~", "nothing"), ("[1, 2]", "a list"), ("{a: 1}", "a mapping")])
def test_a_variable_that_is_no_text_is_refused(folder: Path, value: str, shown: str) -> None:
    (line,) = mistakes(START + f"cluster: {{kind: slurm, environment: {{A: {value}}}}}\n")
    assert line == f"grid.yaml:5: cluster.environment: A: expected text, got {shown}; write '' for an empty variable"


def test_an_environment_that_is_no_mapping_is_refused(folder: Path) -> None:
    assert mistakes(START + "cluster: {kind: slurm, environment: 3}\n") == ["grid.yaml:5: cluster.environment: expected a mapping, got 3"]


def test_jobs_that_write_data_have_a_mapping_of_their_own(folder: Path) -> None:
    text = "cluster: {kind: slurm, partition: gpu, prepare: {partition: cpu, jobs: 8, cpus_per_task: 16, slurm: {qos: low}}}\n"
    prepare = PrepareSpec(jobs=8, cpus_per_task=16, slurm={"partition": "cpu", "qos": "low"})
    assert read(START + text).cluster == ClusterSpec(kind="slurm", slurm={"partition": "gpu"}, prepare=prepare)
    assert read(START + "cluster:\n  kind: slurm\n  prepare:\n").cluster == ClusterSpec(kind="slurm")


def test_variables_of_the_cache_are_replaced_and_those_of_a_nodes_own_disk_are_left_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "/store")
    monkeypatch.delenv("NODE_DISK", raising=False)
    cluster = read(START + "cluster: {kind: slurm, cache: '$STORE/${STORE}/a', cache_local: $NODE_DISK/b}\n").cluster
    assert (cluster.cache, cluster.cache_local) == ("/store//store/a", "$NODE_DISK/b")
    (problem,) = mistakes(START + "cluster: {cache_local: $NODE_DISK/b}\n")
    assert problem == "grid.yaml:5: cluster.cache_local: $NODE_DISK/b: $NODE_DISK is not set: set it, or name a folder"
    monkeypatch.setenv("STORE", "")
    (problem,) = mistakes(START + "cluster: {kind: slurm, cache: $STORE/$NODE_DISK}\n")
    assert "cluster.cache: $STORE/$NODE_DISK: $STORE, $NODE_DISK are not set on this machine, which must see the cache too" in problem


def test_axes_take_single_values_and_lists(folder: Path) -> None:
    text = "{kind: slurm, gpus_per_node: 1, profile: {compile: true, dtype: [fp32, bf16], tf32: [false, true], cuda_graphs: [false, true]}}"
    axes = ProfileSpec(compile=(True,), dtype=("fp32", "bf16"), tf32=(False, True), cuda_graphs=(False, True))
    assert read(START + f"cluster: {text}\n").cluster.profile == axes
    assert read(START + "cluster:\n  profile:\n").cluster == ClusterSpec()
