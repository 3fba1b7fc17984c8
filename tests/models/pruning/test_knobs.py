import pytest
from torch import nn

from models.pruning.base import Budget, Progress
from models.pruning.knobs import Gradual, Targeted, check_count, check_living, check_share, finetune, from_scratch, groups_of, trunk
from models.pruning.registry import create_method
from models.pruning.scope import DEFAULT_GROUPS
from models.registry import create_model

SHAPES = {"small": (3,), "wide": (4, 5)}


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_a_share_is_at_least_0_and_below_1(value):
    check_share("ratio", 0.0)
    check_share("ratio", 0.999)
    with pytest.raises(ValueError, match=rf"ratio must be in \[0, 1\), got {value:g}"):
        check_share("ratio", value)


def test_a_count_is_at_least_1():
    check_count("batches", 1, "batch")
    with pytest.raises(ValueError, match="batches must be at least 1 batch, got 0"):
        check_count("batches", 0, "batch")


def test_a_parameter_without_a_weight_left_is_named_the_largest_first():
    check_living({"small": 2, "wide": 19}, SHAPES, "the rule")
    with pytest.raises(ValueError, match="the rule drops all 20 weights of 'wide' and 1 more: lower the sparsity, or leave its group out"):
        check_living({"small": 3, "wide": 20}, SHAPES, "the rule")


def test_one_threshold_for_each_layer_must_leave_each_a_weight():
    Targeted(sparsity=0.8, scope="layer").check_reach(SHAPES)
    with pytest.raises(ValueError, match="sparsity 0.9 of every layer drops all 3 weights of 'small'"):
        Targeted(sparsity=0.9, scope="layer").check_reach(SHAPES)


def test_one_threshold_for_the_network_must_leave_it_a_weight():
    Targeted(sparsity=0.97).check_reach(SHAPES)
    with pytest.raises(ValueError, match="sparsity 0.99 of 23 prunable weights leaves none"):
        Targeted(sparsity=0.99).check_reach(SHAPES)


def test_only_the_parameters_of_the_methods_groups_are_checked():
    network = create_model("vim_micro", depth=1)
    Targeted(sparsity=0.9, scope="layer", groups=("head", "D")).check(network)
    with pytest.raises(ValueError, match="drops all 128 weights of 'layers.0.mixer.D'"):
        Targeted(sparsity=0.999, scope="layer", groups=("head", "D")).check(network)
    with pytest.raises(ValueError, match="the model has no parameter in mlp"):
        Targeted(sparsity=0.5, groups=("mlp",)).check(nn.Linear(2, 2))


def masked_steps(method: Gradual, steps: int) -> dict[int, float]:
    """The sparsities of the masks that are due, by step."""
    due = {step: method.target("cubic", Progress(step=step, steps=steps, steps_per_epoch=10)) for step in range(1, steps + 1)}
    return {step: sparsity for step, sparsity in due.items() if sparsity is not None}


def test_masks_are_due_every_interval_between_two_points_and_at_the_second():
    method = Gradual(sparsity=0.9, initial_sparsity=0.2, begin_fraction=0.1, end_fraction=0.5, interval=15)
    due = masked_steps(method, 100)
    assert list(due) == [10, 25, 40, 50] and due[10] == 0.2 and due[50] == 0.9
    assert due[25] == pytest.approx(0.9 - 0.7 * (1 - 15 / 40) ** 3)


def test_a_stage_of_one_step_draws_the_last_mask_at_once():
    assert masked_steps(Gradual(sparsity=0.9), 1) == {1: 0.9} and Gradual(sparsity=0.9, end_fraction=0.2).last_step(2) == 1


def test_the_dense_control_counts_the_default_groups():
    assert groups_of(None) == groups_of(create_method("dense")) == groups_of(create_method("structured", ratio=0.5)) == DEFAULT_GROUPS
    assert groups_of(create_method("magnitude", sparsity=0.5, groups=("mlp",))) == ("mlp",)


def test_stages_get_the_epochs_of_the_budget():
    budget, method = Budget(epochs=12, finetune_epochs=4), create_method("magnitude", sparsity=0.5)
    assert (trunk(budget).epochs, trunk(budget).method, trunk(budget).start) == (12, None, "scratch")
    tuned = finetune(budget, method)
    assert (tuned.epochs, tuned.method, tuned.start, tuned.schedule) == (4, method, "parent", "finetune")
    (only,) = from_scratch(budget, method)
    assert (only.epochs, only.method, only.start, only.schedule) == (16, method, "scratch", "train")
    with pytest.raises(ValueError, match="magnitude prunes while it trains: epochs \\+ finetune_epochs must be at least 1, got 0"):
        from_scratch(Budget(epochs=0, finetune_epochs=0), method)
