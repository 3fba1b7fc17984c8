import pytest

from models.pruning.base import Budget
from models.pruning.registry import create_method

BUDGET = Budget(epochs=12, finetune_epochs=4)


def test_the_control_trains_as_long_as_pruned_cells_and_nothing_prunes():
    train, finetune = create_method("dense").stages(BUDGET)
    assert (train.epochs, finetune.epochs, finetune.schedule, finetune.start) == (12, 4, "finetune", "parent")
    assert train.method is None and finetune.method is None


def test_one_shot_methods_share_the_controls_training():
    assert create_method("magnitude", sparsity=0.9).stages(BUDGET)[0] == create_method("dense").stages(BUDGET)[0]


def test_the_control_of_an_iterative_method_takes_as_many_epochs_and_shares_the_rounds_of_a_shorter_one():
    few, many = (create_method("dense", rounds=rounds).stages(BUDGET) for rounds in (2, 5))
    assert many[:3] == few and few[0] == create_method("dense").stages(BUDGET)[0]
    assert all(stage.method is None and stage.schedule == "train" for stage in many)
    rounds = create_method("iterative_magnitude", rounds=5).stages(BUDGET)
    assert sum(stage.epochs for stage in many) == sum(stage.epochs for stage in rounds) == 6 * 12


def test_fewer_than_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds must be at least 0, got -1"):
        create_method("dense", rounds=-1)


def test_rounds_without_an_epoch_are_refused():
    with pytest.raises(ValueError, match="dense with rounds trains for `epochs` in every round: it must be at least 1, got 0"):
        create_method("dense", rounds=1).stages(Budget(epochs=0, finetune_epochs=3))
