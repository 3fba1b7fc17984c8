"""`cluster:` of an entry: what it may give, and what it makes of a profile."""

from typing import Any

import pytest

from harness.grid.resources import Resources, with_resources
from jobs.experiment.specs import ClusterSpec
from tests.support.grids import mistakes, read

PROFILE = ClusterSpec(kind="slurm", gpus_per_node=1, mem_gb=8.0, timeout_min=60, slurm={"partition": "gpu", "qos": "low"})
START = "name: t\nseeds: [0]\npruning: [dense]\ncluster: {kind: slurm}\n"


def size(**given: Any) -> ClusterSpec:
    """The profile with resources: SLURM's own in `slurm`."""
    return with_resources(PROFILE, Resources(fields={name: value for name, value in given.items() if name != "slurm"}, slurm=given.get("slurm", {})))


def test_without_resources_the_profile_stays() -> None:
    assert with_resources(PROFILE, None, None) is PROFILE


def test_the_last_entry_counts_and_what_it_leaves_out_stays() -> None:
    model, pruning = Resources(fields={"timeout_min": 600, "mem_gb": 16.0}, slurm={"qos": "high"}), Resources(fields={"timeout_min": 30})
    made = with_resources(PROFILE, model, pruning)
    assert (made.timeout_min, made.mem_gb, made.slurm) == (30, 16.0, {"partition": "gpu", "qos": "high"})


def test_each_rank_has_a_gpu_whichever_of_the_two_numbers_is_given() -> None:
    assert (size(gpus_per_node=4).tasks_per_node, size(tasks_per_node=4).gpus_per_node) == (4, 4)
    assert with_resources(ClusterSpec(kind="slurm"), Resources(fields={"tasks_per_node": 4})).gpus_per_node == 0, "no GPU is asked for"
    assert size(gpus_per_node=0).tasks_per_node == 1, "on the CPU"


@pytest.mark.parametrize(
    ("slurm", "given", "expected"),
    [
        ({"gres": "gpu:h100:1", "qos": "q"}, {"gpus_per_node": 2}, {"qos": "q"}),
        ({"gres": "scratch:100G"}, {"gpus_per_node": 2}, {"gres": "scratch:100G"}),
        ({"additional_parameters": {"gpus-per-node": "h100:1", "licenses": "x"}}, {"gpus_per_node": 2}, {"additional_parameters": {"licenses": "x"}}),
        ({"mem_per_cpu": "2G"}, {"mem_gb": 9.0}, {}),
        ({"time": "1:00:00"}, {"timeout_min": 9}, {}),
        ({"additional_parameters": {"a": 1}}, {"slurm": {"additional_parameters": {"b": 2}}}, {"additional_parameters": {"a": 1, "b": 2}}),
        ({"gres": "gpu:1"}, {"slurm": {"gres": "gpu:h100:2"}}, {"gres": "gpu:h100:2"}),
    ],
)
def test_one_thing_is_asked_for_in_the_words_of_the_entry_alone(slurm: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]) -> None:
    own = Resources(fields={name: value for name, value in given.items() if name != "slurm"}, slurm=given.get("slurm", {}))
    assert with_resources(ClusterSpec(kind="slurm", slurm=slurm), own).slurm == expected


def test_an_option_of_sbatch_takes_the_place_of_a_number() -> None:
    made = size(slurm={"mem_per_cpu": "2G", "gres": "gpu:h100:1"})
    assert (made.mem_gb, made.gpus_per_node) == (None, 0)


def test_an_entry_is_read_with_all_names_that_a_profile_knows(folder: object) -> None:
    entry = "models: [{name: vim_micro, cluster: {gpus_per_node: 4, slurm_mem_gb: 8, ntasks_per_node: 4, slurm: {partition: [a, b]}}}]\n"
    (choice,) = [choice for choice in read(START + entry).choices if choice.resources]
    assert choice.resources == Resources(fields={"gpus_per_node": 4, "mem_gb": 8.0, "tasks_per_node": 4}, slurm={"partition": "a,b"})


MISTAKES = {
    "cache: /x": ".cache: it is one for the whole grid: write it in the profile, or under the grid's own `cluster`",
    "profile_batch: 8": ".profile_batch: it is one for the whole grid",
    "array_parallelism: 8": ".array_parallelism: it is one for the whole grid",
    "exclude: node1": ".exclude: it is one for the whole grid",
    "time: 60": ".time: an entry has timeout_min for this",
    "timeout: 60": ".timeout: unknown key; did you mean 'timeout_min'? valid: nodes, tasks_per_node,",
    "timeout_min: 0": ".timeout_min: must be 1 or more, got 0",
    "timeout_min: long": ".timeout_min: expected a whole number",
    "mem_gb: 8, slurm_mem_gb: 9": ".slurm_mem_gb: given twice",
    "gpus_per_node: 2, tasks_per_node: 4": ".gpus_per_node: each of the 4 ranks of a node (tasks_per_node) has a GPU of its own, not 2 for all",
}


@pytest.mark.parametrize(("given", "said"), MISTAKES.items(), ids=MISTAKES)
def test_what_makes_no_sense_in_an_entry_is_refused_by_name(folder: object, given: str, said: str) -> None:
    (found,) = mistakes(START + f"models:\n- name: vim_micro\n  cluster: {{{given}}}\n")
    assert found.startswith(f"grid.yaml:7: models[0].cluster{said}")


def test_no_mapping_is_no_resources(folder: object) -> None:
    (found,) = mistakes(START + "models: [{name: vim_micro, cluster: slurm/gpu.yaml}]\n")
    assert found.startswith(
        "grid.yaml:5: models[0].cluster: expected a mapping, such as {gpus_per_node: 4, timeout_min: 600}, got text 'slurm/gpu.yaml'"
    )
    assert not any(choice.resources for choice in read(START + "models: [{name: vim_micro, cluster: }]\n").choices)


def test_a_link_of_a_chain_has_no_resources_of_its_own(folder: object) -> None:
    links = "[{method: wanda, sparsity: 0.5, cluster: {mem_gb: 8}}, semi_structured]"
    (found,) = mistakes(f"name: t\nseeds: [0]\nmodels: [vim_micro]\npruning:\n- chain: {links}\n")
    assert found.startswith("grid.yaml:5: pruning[0].chain[0].cluster: the cluster belongs to the chain: write it beside `chain`")


def test_a_mistake_in_an_entry_of_several_names_is_told_once(folder: object) -> None:
    (found,) = mistakes(START + "models: [{name: [vim_micro, vit_micro], cluster: {nodes: 0}}]\n")
    assert found == "grid.yaml:5: models[0].cluster.nodes: must be 1 or more, got 0"
    names = "models: [{name: [vim_micro, vit_micro], cluster: {nodes: 2}}, {name: vssd_micro, cluster: {}}]\n"
    assert [choice.resources and choice.resources.fields for choice in read(START + names).choices[:3]] == [{"nodes": 2}, {"nodes": 2}, None]
