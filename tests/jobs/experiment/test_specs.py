"""Settings that follow from others."""

import pytest

from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import ClusterSpec, DataSpec, image_size


@pytest.mark.parametrize("source", SOURCES)
def test_images_have_their_sources_size_unless_another_is_given(source: str) -> None:
    assert image_size(DataSpec(source=source)) == SOURCES[source].img_size
    assert image_size(DataSpec(source=source, img_size=17)) == 17


def test_a_job_has_the_ranks_of_all_its_nodes() -> None:
    assert ClusterSpec().ranks == 1 and ClusterSpec(kind="slurm", nodes=2, tasks_per_node=4).ranks == 8


@pytest.mark.parametrize(
    ("settings", "promised"),
    [
        ({}, False),
        ({"gpus_per_node": 4}, True),
        ({"slurm": {"gres": "gpu:h100:4"}}, True),
        ({"slurm": {"slurm_gres": "gpu:1"}}, True),
        ({"slurm": {"gres": "craynetwork:1"}}, False),
        ({"slurm": {"gpus_per_task": 1}}, True),
        ({"slurm": {"gpus_per_task": "h100:1"}}, True),
        ({"slurm": {"num_gpus": 0}}, False),
        ({"slurm": {"additional_parameters": {"gpus-per-node": "h100:4"}}}, True),
        ({"slurm": {"additional_parameters": {"tres-per-task": "gres/gpu:1"}}}, True),
        ({"slurm": {"partition": "gpu", "constraint": "gpu"}}, False),
    ],
)
def test_a_job_is_promised_gpus_in_our_words_or_in_slurms(settings: dict[str, object], promised: bool) -> None:
    assert ClusterSpec(kind="slurm", **settings).promised_gpus is promised


def test_a_local_job_is_promised_the_gpus_of_the_profile_alone() -> None:
    assert ClusterSpec(gpus_per_node=1).promised_gpus and not ClusterSpec(slurm={"gres": "gpu:1"}).promised_gpus
