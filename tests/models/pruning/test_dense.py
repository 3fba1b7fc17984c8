from models.pruning.base import Budget
from models.pruning.registry import create_method

BUDGET = Budget(epochs=12, finetune_epochs=4)


def test_the_control_trains_as_long_as_pruned_cells_and_nothing_prunes():
    train, finetune = create_method("dense").stages(BUDGET)
    assert (train.epochs, finetune.epochs, finetune.schedule, finetune.start) == (12, 4, "finetune", "parent")
    assert train.method is None and finetune.method is None


def test_one_shot_methods_share_the_controls_training():
    assert create_method("magnitude", sparsity=0.9).stages(BUDGET)[0] == create_method("dense").stages(BUDGET)[0]
