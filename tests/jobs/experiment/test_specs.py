"""Settings that follow from others."""

import pytest

from jobs.experiment.specs import NATIVE_SIZES, ClusterSpec, DataSpec, image_size


@pytest.mark.parametrize("source", NATIVE_SIZES)
def test_images_have_their_sources_size_unless_another_is_given(source: str) -> None:
    assert image_size(DataSpec(source=source)) == NATIVE_SIZES[source]
    assert image_size(DataSpec(source=source, img_size=17)) == 17


def test_a_job_has_the_ranks_of_all_its_nodes() -> None:
    assert ClusterSpec().ranks == 1 and ClusterSpec(kind="slurm", nodes=2, tasks_per_node=4).ranks == 8
