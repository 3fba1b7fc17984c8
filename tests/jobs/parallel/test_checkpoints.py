import pickle
import resource
from dataclasses import replace

import pytest
import torch

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.checkpoints import CheckpointError, drop_checkpoints, load_checkpoint, restore_training, save_checkpoint, training_state
from jobs.parallel.engine import Engine, rendezvous
from jobs.parallel.fragments import Fragments
from tests.support.networks import NO_DECAY, global_batch, toy_net
from tests.support.processes import run_ranks


@pytest.fixture
def ranks():
    return rendezvous(threads=1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_of_the_last_two_is_read_back(tmp_path, ranks):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"weight": torch.full((3,), float(step)), "step": step}, ranks)
    assert names(tmp_path) == ["step-000000002", "step-000000003"]
    step, state = load_checkpoint(tmp_path, ranks)
    assert step == 3
    assert torch.equal(state["weight"], torch.full((3,), 3.0))


def test_there_is_none_before_the_first(tmp_path, ranks):
    assert load_checkpoint(tmp_path / "checkpoints", ranks) is None


def test_one_that_was_never_renamed_is_ignored_and_swept_away(tmp_path, ranks):
    save_checkpoint(tmp_path, 1, {"step": 1}, ranks)
    torn = tmp_path / ".step-000000002"
    torn.mkdir()
    (torn / "rank-0.pt").write_bytes(b"half")
    assert load_checkpoint(tmp_path, ranks)[0] == 1
    save_checkpoint(tmp_path, 3, {"step": 3}, ranks)
    assert not torn.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * len(data)])
def test_a_torn_file_sends_back_to_the_checkpoint_before(tmp_path, ranks, damage):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"weight": torch.ones(100)}, ranks)
    file = tmp_path / "step-000000002" / "rank-0.pt"
    file.write_bytes(damage(file.read_bytes()))
    assert load_checkpoint(tmp_path, ranks)[0] == 1


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a checkpoint ran code",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_would_run_code_is_not_run(tmp_path, ranks):
    checkpoint = tmp_path / "step-000000001"
    checkpoint.mkdir()
    (checkpoint / "rank-0.pt").write_bytes(pickle.dumps(Trap()))
    assert load_checkpoint(tmp_path, ranks) is None
    torch.save(Trap(), checkpoint / "rank-0.pt")
    assert load_checkpoint(tmp_path, ranks) is None


def test_one_of_more_ranks_is_refused_with_both_numbers(tmp_path, ranks):
    save_checkpoint(tmp_path, 1, {"step": 1}, ranks)
    (tmp_path / "step-000000001" / "rank-1.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="written by 2 ranks and this run has 1"):
        load_checkpoint(tmp_path, ranks)


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path, ranks):
    """A limit on the size of files stands for the disk: both make write() fail half-way."""
    save_checkpoint(tmp_path, 1, {"weight": torch.ones(10)}, ranks)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=rf"cannot write {tmp_path}/\.step-000000002/rank-0\.pt.*earlier checkpoints are whole"):
            save_checkpoint(tmp_path, 2, {"weight": torch.ones(1_000_000)}, ranks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step-000000001"]
    assert load_checkpoint(tmp_path, ranks)[0] == 1


def test_they_are_all_dropped_in_the_end(tmp_path, ranks):
    save_checkpoint(tmp_path / "checkpoints", 1, {"step": 1}, ranks)
    drop_checkpoints(tmp_path / "checkpoints", ranks)
    assert not (tmp_path / "checkpoints").exists()


def save_on_two(folder):
    ranks = rendezvous(threads=1)
    checkpoints = folder / "checkpoints"
    save_checkpoint(checkpoints, 1, {"rank": ranks.rank}, ranks)
    assert load_checkpoint(checkpoints, ranks) == (1, {"rank": ranks.rank})
    if ranks.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    message = "cannot write" if ranks.rank == 1 else "1 other rank"
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(checkpoints, 2, {"weight": torch.ones(1_000_000)}, ranks)
    assert load_checkpoint(checkpoints, ranks)[0] == 1


@pytest.mark.slow
def test_every_rank_stops_when_one_cannot_write(tmp_path):
    run_ranks("tests.jobs.parallel.test_checkpoints:save_on_two", 2, tmp_path)


def stepped(ranks, seed, steps):
    """An engine of the toy network after some steps."""
    engine = Engine(toy_net(seed), RecipeSpec(batch_size=4), no_decay=NO_DECAY, ranks=ranks)
    for step in range(steps):
        images, labels = global_batch(step, 4)
        engine.forward_backward(images, labels, last=True)
        engine.step(1e-3)
    return engine


@pytest.mark.parametrize("saved_on", ["cpu", "cuda"])
@pytest.mark.parametrize("resumed_on", ["cpu", "cuda"])
def test_a_stage_goes_on_where_its_checkpoint_is_of_another_device(tmp_path, ranks, monkeypatch, saved_on, resumed_on):
    """Only the generator of a GPU is played here. A checkpoint of a CPU gives the GPU a seed of its own, the same at each resumption."""
    calls, gpu_state = [], torch.arange(16, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: gpu_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: calls.append(("state", state.tolist())))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: calls.append(("seed", seed)))
    first = stepped(ranks, 0, 3)
    torch.manual_seed(123)
    drawn = torch.rand(7)
    torch.manual_seed(123)
    first.ranks = replace(ranks, device=torch.device(saved_on, 0))
    expected = Fragments(first).weights()
    save_checkpoint(tmp_path, 3, training_state(first, Fragments(first)), ranks)
    first.close()
    second = stepped(ranks, 1, 0)
    fragments = Fragments(second)
    torch.manual_seed(9)
    second.ranks = replace(ranks, device=torch.device(resumed_on, 0))
    restore_training(second, fragments, load_checkpoint(tmp_path, ranks)[1])
    assert all(torch.equal(fragments.weights(name)[name], weight) for name, weight in expected.items())
    assert torch.equal(torch.rand(7), drawn)
    assert calls == {"cpu": [], "cuda": [("state", gpu_state.tolist()) if saved_on == "cuda" else ("seed", 123)]}[resumed_on]
    second.close()
