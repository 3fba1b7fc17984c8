"""The whole fp32 copy of a network in training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jobs.parallel.engine import rendezvous
from jobs.parallel.snapshot import Snapshot, average_buffers
from tests.support.networks import toy_net
from tests.support.processes import run_ranks


def test_it_takes_weights_and_buffers_of_the_network_in_training_and_sets_its_buffers() -> None:
    ranks = rendezvous(threads=1)
    snapshot, trained, other = Snapshot(toy_net(0, norm=True), ranks), toy_net(1, norm=True), toy_net(2, norm=True)
    trained.norm.running_mean.fill_(3.0)
    snapshot.take({name: weight.detach() for name, weight in trained.named_parameters()}, trained)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in snapshot.model.state_dict().items())
    assert list(snapshot.weights()) == [name for name, _ in trained.named_parameters()]
    snapshot.copy_buffers_to(other)
    assert other.norm.running_mean.tolist() == [3.0] * 5


def test_it_loads_an_exported_file_and_refuses_that_of_another_network(tmp_path: Path) -> None:
    snapshot, exported = Snapshot(toy_net(0), rendezvous(threads=1)), toy_net(1)
    save_file(exported.state_dict(), tmp_path / "model.safetensors")
    snapshot.load(tmp_path / "model.safetensors")
    assert all(torch.equal(weight, exported.get_parameter(name)) for name, weight in snapshot.weights().items())
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(RuntimeError, match="size mismatch for fc.weight"):
        snapshot.load(tmp_path / "other.safetensors")


def average_on_two(folder):
    """Floating-point buffers are averaged, counters are each rank's own, whether they are read or set."""
    ranks = rendezvous(threads=1)
    model = toy_net(norm=True)
    model.norm.running_mean.fill_(float(ranks.rank))
    model.norm.num_batches_tracked.fill_(ranks.rank)
    snapshot = Snapshot(toy_net(norm=True), ranks)
    snapshot.take(snapshot.weights(), model)
    assert snapshot.model.norm.running_mean.tolist() == [0.5] * 5 and int(snapshot.model.norm.num_batches_tracked) == ranks.rank
    assert model.norm.running_mean.tolist() == [float(ranks.rank)] * 5
    average_buffers(model, ranks)
    assert model.norm.running_mean.tolist() == [0.5] * 5 and int(model.norm.num_batches_tracked) == ranks.rank


@pytest.mark.slow
def test_two_ranks_average_their_statistics(tmp_path):
    run_ranks("tests.jobs.parallel.test_snapshot:average_on_two", 2, tmp_path)
