import pytest
import torch

from models.pruning.base import Budget, NetworkView, Progress
from models.pruning.early_bird import distances
from models.pruning.registry import create_method
from models.pruning.structure import find_groups
from tests.support.removal import small_network

UNITS = 20


class Scripted:
    """A network over one gated group whose mask after epoch e drops the units of `script[e - 1]`; 10 steps an epoch."""

    def __init__(self, script, **state):
        self.script, self.epoch, self.structures, self.pushed = script, 0, [], []
        self.network = NetworkView(
            names=(),
            state=state,
            read_weight=self.gate,
            read_gradient={}.get,
            input_norms={}.get,
            apply=lambda masks: None,
            gates={"mixer.d_inner": "mixer.gate"},
            remove=self.remove,
            add_l1=lambda name, strength: self.pushed.append((name, strength)),
        )

    def gate(self, name):
        scale = 1 + torch.arange(UNITS) / 100
        scale[self.script[self.epoch - 1]] *= -0.1
        return scale

    def remove(self, structure):
        self.structures.append((self.epoch, structure))
        self.network.gates = {}

    def train(self, method, epochs):
        for step in range(10 * self.epoch + 1, 10 * epochs + 1):
            self.epoch = -(-step // 10)
            progress = Progress(step=step, steps=10 * epochs, steps_per_epoch=10)
            method.after_backward(self.network, progress)
            method.after_step(self.network, progress)
        return self.structures


def early_bird(**knobs):
    """The method of the stage that searches, of 30 epochs unless told otherwise."""
    (stage,) = create_method("early_bird", **{"ratio": 0.2} | knobs).stages(Budget(epochs=30, finetune_epochs=5))
    assert stage.epochs == 35
    return stage.method


def test_distances_are_the_shares_of_units_on_which_masks_differ_from_the_newest():
    history = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    assert distances(history) == [0.0, 0.5, 0.5]


# 4 of 20 units go. Two masks that differ in one unit are 2 / 20 = 0.1 apart, in two units 0.2.
MOVING = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 4, 8, 12]]
SETTLED = [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3], [0, 1, 2, 5], [0, 1, 2, 3]]


def test_the_ticket_is_found_at_the_epoch_where_the_last_five_masks_agree():
    structures = Scripted([*MOVING, *SETTLED, *MOVING]).train(early_bird(), 12)
    ((epoch, structure),) = structures
    assert epoch == len(MOVING) + len(SETTLED)
    assert structure.kept == {"mixer.d_inner": list(range(4, UNITS))}
    assert structure.counts == {"mixer.d_inner": UNITS}
    assert structure.notes[0] == "ticket found after epoch 9: the last 5 masks are at most 0.100 apart"


def test_one_mask_of_five_that_is_too_far_away_postpones_the_ticket():
    far = [[0, 1, 4, 5], *[[0, 1, 2, 3]] * 6]  # 0.2 apart; it leaves the FIFO when five others are in it
    assert Scripted(far).train(early_bird(), 7)[0][0] == 6


def test_no_ticket_is_found_before_the_fifo_is_full():
    assert Scripted([[0, 1, 2, 3]] * 9).train(early_bird(), 9)[0][0] == 5
    assert Scripted([[0, 1, 2, 3]] * 9).train(early_bird(fifo=3), 9)[0][0] == 3


def test_without_a_ticket_the_last_mask_is_taken_and_the_record_says_so():
    ((epoch, structure),) = Scripted(MOVING).train(early_bird(search_epochs=4), 4)
    assert epoch == 4 and structure.kept == {"mixer.d_inner": [unit for unit in range(UNITS) if unit not in MOVING[3]]}
    assert structure.notes[0] == "no ticket in 4 epochs (the last 4 masks are up to 0.300 apart, and epsilon is 0.1): the last mask was taken"
    assert "l1" not in structure.notes[1] and "criterion: |gate| under L1 0.0001" in structure.notes[1]


def test_a_search_that_goes_on_from_its_state_ends_as_one_that_was_not_stopped():
    script = [*MOVING, *SETTLED]
    first = Scripted(script)
    assert not first.train(early_bird(), 7)
    second = Scripted(script, **first.network.state)
    second.epoch = 7
    assert second.train(early_bird(), 9) == Scripted(script).train(early_bird(), 9)


def test_gates_are_pushed_towards_zero_until_the_ticket_is_found():
    scripted = Scripted([[0, 1, 2, 3]] * 4)
    scripted.train(early_bird(fifo=2, l1=0.5), 4)
    assert scripted.pushed == [("mixer.gate", 0.5)] * 20  # two epochs of ten steps


def test_the_search_ends_in_time_to_fine_tune():
    method = create_method("early_bird", ratio=0.3)
    assert [stage.method.search_epochs for stage in method.stages(Budget(epochs=7, finetune_epochs=2))] == [7]
    assert [stage.method.search_epochs for stage in method.stages(Budget(epochs=0, finetune_epochs=2))] == [2]
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        method.stages(Budget(epochs=0, finetune_epochs=0))


def test_only_its_own_kinds_of_units_are_gated():
    network = small_network("mambavision")
    gates = create_method("early_bird", ratio=0.3, units=("mlp",)).gate(network, find_groups(network, 32))
    assert gates and {name.rsplit(".", 2)[1] for name in gates} == {"mlp"}


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"ratio": -0.1}, "ratio must be in"),
        ({"ratio": 0.3, "units": ("inner", "stat")}, "stat"),
        ({"ratio": 0.3, "fifo": 1}, "at least 2 masks"),
        ({"ratio": 0.3, "epsilon": 1.0}, "epsilon must be"),
        ({"ratio": 0.3, "l1": -1.0}, "l1 must be at least 0"),
        ({"ratio": 0.3, "search_epochs": 0}, "search_epochs must be at least 1"),
    ],
)
def test_impossible_knobs_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        create_method("early_bird", **knobs)
