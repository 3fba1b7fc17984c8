"""The data of a stage on its node."""

from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from jobs.data.beton import DataError
from jobs.data.prepare import Dataset, prepare
from jobs.experiment.specs import ClusterSpec, DataSpec
from jobs.parallel.engine import Ranks
from jobs.worker import data as module
from jobs.worker.data import awaited, data_on_this_node
from tests.support.one_stage import one_rank

DATA = DataSpec(source="synthetic", samples=96, img_size=16, loader="torch")


def test_data_is_read_from_the_cache_or_from_the_nodes_own_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    cluster = ClusterSpec(cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="the data is not ready"):
        data_on_this_node(DATA, cluster, one_rank())
    dataset = prepare(DATA, tmp_path / "cache")
    assert data_on_this_node(DATA, cluster, one_rank()) == dataset
    local = data_on_this_node(DATA, ClusterSpec(cache=str(tmp_path / "cache"), cache_local="$NODE_DISK/x"), one_rank())
    assert local.train.is_relative_to(tmp_path / "disk" / "x") and local.sha256 == dataset.sha256


class Two(Ranks):
    """This rank and another, which says what the test has set, question by question."""

    other: list[float] = []

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + Two.other.pop(0)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Two:
    """Two ranks without pauses."""
    monkeypatch.setattr(module, "POLL_S", 0.0)
    return Two(rank=0, local_rank=0, world=2, device=torch.device("cpu"))


def test_a_rank_that_has_its_copy_asks_on_until_the_others_have_theirs(two: Two) -> None:
    copying: Future[Dataset] = Future()
    copying.set_result("here")  # type: ignore[arg-type]
    Two.other = [1.0, 1.0, 0.0, 0.0]
    assert awaited(copying, two) == "here" and Two.other == []


def test_every_rank_ends_when_one_of_them_fails(two: Two) -> None:
    copying: Future[Dataset] = Future()
    copying.set_result("here")  # type: ignore[arg-type]
    Two.other = [0.0, 1.0]
    with pytest.raises(DataError, match="another rank could not copy the data to the disk of its node"):
        awaited(copying, two)
    failed: Future[Dataset] = Future()
    failed.set_exception(DataError("no room"))
    Two.other = [0.0, 1.0]
    with pytest.raises(DataError, match="no room"):
        awaited(failed, two)
