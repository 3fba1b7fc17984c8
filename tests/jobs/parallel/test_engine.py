import atexit
import copy
import math
import os

import pytest
import torch

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.engine import BatchError, Batching, Engine, Ranks, RendezvousError, batching, leave_group, make_optimizer, rendezvous
from jobs.parallel.fragments import Fragments
from models.torchvision_shim import load_timm
from tests.support.networks import CLASSES, NO_DECAY, SIZE, global_batch, toy_net
from tests.support.processes import finish_ranks, run_ranks, start_ranks


def test_a_single_rank_meets_nobody_and_opens_no_port(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    ranks = rendezvous(threads=1)
    assert (ranks.rank, ranks.world) == (0, 1)
    assert rendezvous(threads=1) == ranks
    assert ranks.broadcast("as it is") == "as it is"
    assert isinstance(torch.distributed.distributed_c10d._get_default_store(), torch.distributed.PrefixStore)


def test_several_ranks_without_a_place_say_what_is_missing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RendezvousError, match="WORLD_SIZE is 2 but RANK is not set"):
        rendezvous(threads=1)


@pytest.mark.parametrize(
    ("batch", "micro", "world", "expected"),
    [(64, None, 1, (64, 1)), (64, None, 4, (16, 1)), (64, 8, 1, (8, 8)), (64, 8, 4, (8, 2)), (6, 3, 2, (3, 1))],
)
def test_the_global_batch_is_ranks_times_accumulation_times_micro_batch(batch, micro, world, expected):
    cut = batching(RecipeSpec(batch_size=batch, micro_batch_size=micro), world)
    assert (cut.micro, cut.accumulation) == expected
    assert cut == Batching(micro=expected[0], accumulation=expected[1])
    assert world * cut.accumulation * cut.micro == batch


def test_a_batch_that_ranks_cannot_share_is_refused_with_the_numbers():
    with pytest.raises(BatchError, match="batch_size 10 cannot be divided by 4 ranks; use a multiple of 4"):
        batching(RecipeSpec(batch_size=10), 4)


def test_a_batch_that_micro_batches_do_not_fill_is_refused_with_the_numbers():
    with pytest.raises(BatchError, match="batch_size 20 cannot be divided by 2 ranks x micro_batch_size 4; use a multiple of 8"):
        batching(RecipeSpec(batch_size=20, micro_batch_size=4), 2)


def test_lamb_is_refused_where_zero_cuts_layers():
    with pytest.raises(ValueError, match="zero_stage: 0"):
        make_optimizer(toy_net(), RecipeSpec(optimizer="lamb", zero_stage=2), frozenset())


def test_vectors_take_no_weight_decay():
    groups = make_optimizer(toy_net(norm=True), RecipeSpec(weight_decay=0.3), frozenset(NO_DECAY)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(parameter.dim() > 1 for parameter in groups[0]["params"])
    assert all(parameter.dim() == 1 for parameter in groups[1]["params"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"optimizer": "adamw"}, {"eps": 1e-8, "betas": (0.8, 0.9)}),
        ({"optimizer": "adamw", "opt_eps": 1e-3}, {"eps": 1e-3}),
        ({"optimizer": "lamb"}, {"eps": 1e-6, "betas": (0.8, 0.9)}),
        ({"optimizer": "lamb", "opt_eps": 1e-8}, {"eps": 1e-8}),
        ({"optimizer": "sgd", "momentum": 0.5, "nesterov": True}, {"momentum": 0.5, "nesterov": True}),
    ],
)
def test_an_optimizer_has_the_recipes_constants(fields, expected):
    group = make_optimizer(toy_net(), RecipeSpec(betas=(0.8, 0.9), **fields), frozenset()).param_groups[0]
    assert {name: group[name] for name in expected} == expected


class Layered(torch.nn.Module):
    """A stem, two numbered layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Linear(3 * SIZE * SIZE, 5)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)])
        self.head = torch.nn.Linear(5, CLASSES)

    def forward(self, x):
        x = self.stem(x.flatten(1)).tanh()
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_each_layer_has_its_share_of_the_rate_as_with_timms_groups(zero_stage):
    load_timm()
    from timm.optim._param_groups import param_groups_layer_decay

    torch.manual_seed(0)
    model = Layered()
    reference = copy.deepcopy(model)
    reference.group_matcher = lambda coarse: {"stem": r"^stem", "blocks": [(r"^layers\.(\d+)", None)]}
    groups = param_groups_layer_decay(reference, weight_decay=0.3, layer_decay=0.5)
    optimizer = torch.optim.AdamW(groups, lr=1.0, eps=1e-4)
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["lr_scale"]
    recipe = RecipeSpec(batch_size=8, layer_decay=0.5, weight_decay=0.3, opt_eps=1e-4, clip_grad=None, zero_stage=zero_stage)
    no_decay = [name for name, parameter in model.named_parameters() if parameter.dim() < 2]
    engine = Engine(model, recipe, no_decay=no_decay, ranks=rendezvous(1))
    for step in range(3):
        images, labels = global_batch(step, 8)
        engine.forward_backward(images, labels, last=True)
        assert engine.step(0.01)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(images), labels, label_smoothing=0.1).backward()
        optimizer.step()
    for name, weight in Fragments(engine).weights().items():
        torch.testing.assert_close(weight, reference.get_parameter(name).detach())
    engine.close()


def test_layer_decay_is_refused_where_layers_have_no_numbers():
    with pytest.raises(ValueError, match="whose blocks have numbers"):
        make_optimizer(toy_net(), RecipeSpec(layer_decay=0.5), frozenset())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_making_an_engine_leaves_weights_and_step_count_alone(dtype):
    """DeepSpeed's bf16 optimizer makes a step of its own to allocate its state."""
    model = toy_net()
    before = model.fc.weight.detach().clone()
    engine = Engine(model, RecipeSpec(batch_size=4, dtype=dtype, weight_decay=0.5), no_decay=NO_DECAY, ranks=rendezvous(1))
    assert torch.equal(engine.module.fc.weight.float(), before.to(engine.module.fc.weight.dtype).float())
    assert not engine.optimizer.state
    engine.close()


def test_a_gradient_that_is_not_finite_is_reported():
    engine = Engine(toy_net(), RecipeSpec(batch_size=4, dtype="bf16"), no_decay=NO_DECAY, ranks=rendezvous(1))
    images, labels = global_batch(0, 4)
    engine.forward_backward(images * math.inf, labels, last=True)
    assert not engine.step(1e-3)
    engine.close()


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_step_never_waits_for_the_device(monkeypatch, zero_stage):
    """DeepSpeed's throughput timer did, twice for each micro-batch, from the third step on."""
    from deepspeed.accelerator import get_accelerator

    waits = []
    monkeypatch.setattr(type(get_accelerator()), "synchronize", lambda self, device_index=None: waits.append(1))
    engine = Engine(toy_net(), RecipeSpec(batch_size=4, micro_batch_size=2, zero_stage=zero_stage), no_decay=NO_DECAY, ranks=rendezvous(1))
    del waits[:]
    for step in range(4):
        for index in range(2):
            engine.forward_backward(*global_batch(step, 2), last=index == 1)
        engine.step(1e-3)
    assert not waits
    engine.close()


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_after_a_stage_torchs_linear_function_is_its_own(zero_stage):
    """DeepSpeed's, of ZeRO 3, would make every network that this process measures later slower."""
    before = torch.nn.functional.linear
    engine = Engine(toy_net(), RecipeSpec(batch_size=4, zero_stage=zero_stage), no_decay=NO_DECAY, ranks=rendezvous(1))
    assert (torch.nn.functional.linear is before) == (zero_stage == 0)
    engine.close()
    assert torch.nn.functional.linear is before


def lose_a_rank(folder):
    """Rank 1 leaves in the middle of training."""
    ranks = rendezvous(threads=1)
    engine = Engine(toy_net(), RecipeSpec(batch_size=8), no_decay=NO_DECAY, ranks=ranks)
    for step in range(3):
        if ranks.rank == 1 and step == 2:
            os._exit(7)
        images, labels = global_batch(step, 4)
        engine.forward_backward(images, labels, last=True)
        engine.step(1e-3)


@pytest.mark.slow
def test_when_a_rank_dies_the_other_ends_with_an_error(tmp_path):
    ends = finish_ranks(start_ranks("tests.jobs.parallel.test_engine:lose_a_rank", 2, tmp_path), tmp_path)
    assert ends[1][0] == 7
    assert ends[0][0] not in (0, 7)
    assert "Connection closed by peer" in ends[0][1] or "gloo" in ends[0][1].lower()


def exchange(folder):
    ranks = rendezvous(threads=1)
    assert rendezvous(threads=1) == ranks
    assert ranks.broadcast({"from": ranks.rank}) == {"from": 0}
    assert ranks.sum(torch.tensor([1.0, ranks.rank])).tolist() == [2.0, 1.0]
    ranks.barrier()


@pytest.mark.parametrize(("backend", "finished", "left"), [("gloo", False, True), ("nccl", False, False), ("nccl", True, True)])
def test_nccls_group_is_left_only_where_all_ranks_are_done(monkeypatch, backend, finished, left):
    """A rank that failed would never join, and without leaving NCCL warns at the end of every job."""
    calls = []
    ranks = rendezvous(threads=1)
    monkeypatch.setattr(Ranks, "done_together", False)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: backend)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: calls.append(1))
    if finished:
        ranks.finish()
    leave_group()
    assert bool(calls) == left


def part(folder):
    """Says, while the interpreter ends, whether gloo's threads are still there: what is registered first runs last."""
    atexit.register(lambda: (folder / f"left-{os.environ['RANK']}").write_text(str(torch.distributed.is_initialized())))
    rendezvous(threads=1).barrier()


@pytest.mark.slow
def test_ranks_part_before_the_interpreter_ends(tmp_path):
    run_ranks("tests.jobs.parallel.test_engine:part", 2, tmp_path)
    assert [(tmp_path / f"left-{rank}").read_text() for rank in range(2)] == ["False", "False"]


@pytest.mark.slow
def test_ranks_meet_once_and_exchange_values(tmp_path):
    run_ranks("tests.jobs.parallel.test_engine:exchange", 2, tmp_path)
