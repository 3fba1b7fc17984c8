import pytest
import torch
from torch import Tensor, nn

from models.pruning.base import Budget, NetworkView, Progress, PruningMethod
from models.pruning.registry import create_method
from tests.support.network_views import fake_network, lowest_dropped, same

CRITERIA = ["gradient", "snip", "taylor", "movement"]


class Training:
    """A small network trained by plain SGD, its hooks called as an engine calls them, its gradients and weights kept for the test."""

    def __init__(self, method: PruningMethod, steps: int) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))
        self.parameters = dict(self.net.named_parameters())
        self.method, self.steps, self.gradients, self.history = method, steps, {}, []
        self.network: NetworkView = fake_network({name: weight.data for name, weight in self.parameters.items()}, self.gradients)
        self.masks: list[dict[str, Tensor]] = []
        for step in range(1, steps + 1):
            self.step(step)

    def step(self, step: int) -> None:
        """One update; the batch is a function of the step."""
        generator = torch.Generator().manual_seed(step)
        inputs, targets = torch.randn(16, 5, generator=generator), torch.randint(3, (16,), generator=generator)
        grads = torch.autograd.grad(nn.functional.cross_entropy(self.net(inputs), targets), list(self.parameters.values()))
        self.gradients.update(zip(self.parameters, grads, strict=True))
        self.history.append({name: (weight.detach().clone(), self.gradients[name]) for name, weight in self.parameters.items()})
        progress = Progress(step=step, steps=self.steps, steps_per_epoch=10)
        self.method.after_backward(self.network, progress)
        with torch.no_grad():
            for name, weight in self.parameters.items():
                weight -= 0.5 * self.gradients[name]
                weight *= self.network.masks.get(name, torch.ones_like(weight))
        self.method.after_step(self.network, progress)
        self.masks.append(dict(self.network.masks))

    def scores(self, criterion: str, first: int, last: int) -> dict[str, Tensor]:
        """The criterion's definition over the batches of steps first to last, from the weights and autograd's gradients of those steps."""
        summed = {}
        for name in self.parameters:
            pairs = [step[name] for step in self.history[first - 1 : last]]
            summed[name] = {
                "gradient": sum(g.abs() for _, g in pairs),
                "snip": sum(g * w for w, g in pairs).abs(),
                "taylor": sum((g * w) ** 2 for w, g in pairs),
                "movement": sum(-g * w for w, g in pairs),
            }[criterion]
        return summed


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("batches", [1, 3])
def test_one_shot_drops_the_lowest_scores_of_the_first_batches(criterion, batches):
    run = Training(create_method("gradient", sparsity=0.75, criterion=criterion, batches=batches), steps=6)
    assert all(not masks for masks in run.masks[: batches - 1])
    assert all(same(masks, lowest_dropped(run.scores(criterion, 1, batches), 48)) for masks in run.masks[batches - 1 :])


def test_snip_with_one_batch_scores_the_initial_weights():
    run = Training(create_method("gradient", sparsity=0.5, criterion="snip"), steps=2)
    torch.manual_seed(0)
    initial = nn.Sequential(nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False)).state_dict()
    assert all(torch.equal(initial[name], weight) for name, (weight, _) in run.history[0].items())
    assert run.masks[0] and all((run.history[1][name][0][~mask] == 0).all() for name, mask in run.masks[0].items())


def test_layer_scope_drops_the_same_share_of_every_parameter():
    run = Training(create_method("gradient", sparsity=0.5, scope="layer"), steps=1)
    assert [int((~mask).sum()) for mask in run.masks[0].values()] == [20, 12]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_schedule_draws_masks_from_the_scores_since_the_last_one_but_movement_from_all(criterion):
    knobs = {"schedule": "cubic", "begin_fraction": 0.2, "end_fraction": 0.8, "interval": 3, "initial_sparsity": 0.25}
    run = Training(create_method("gradient", sparsity=0.75, criterion=criterion, **knobs), steps=10)
    previous, before = 0, {}
    for step in (2, 5, 8):  # p = 0, 1/2, 1
        zeros = round(64 * (0.75 - 0.5 * (1 - (step - 2) / 6) ** 3))
        scores = run.scores(criterion, 1 if criterion == "movement" else previous + 1, step)
        scores = {name: torch.where(before[name], score, -torch.inf) if before else score for name, score in scores.items()}
        assert same(run.masks[step - 1], lowest_dropped(scores, zeros))
        previous, before = step, run.masks[step - 1]
    assert same(run.masks[-1], before)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_nothing_is_kept_once_the_last_mask_is_drawn(criterion):
    run = Training(create_method("gradient", sparsity=0.5, criterion=criterion, schedule="cosine", interval=2), steps=8)
    assert run.network.state == {}


def test_a_stage_shorter_than_the_batches_still_reaches_its_sparsity():
    run = Training(create_method("gradient", sparsity=0.5, batches=50), steps=4)
    assert sum(int((~mask).sum()) for mask in run.masks[-1].values()) == 32


def test_a_killed_stage_goes_on_from_the_state_it_saved():
    method = create_method("gradient", sparsity=0.5, batches=4)
    whole, resumed = Training(method, steps=6), Training(method, steps=0)
    resumed.steps = 6
    for step in range(1, 7):
        resumed.step(step)
        saved = {name: value.clone() for name, value in resumed.network.state.items()}
        resumed.network.state = saved  # as a checkpoint gives it back
    assert same(whole.masks[-1], resumed.masks[-1])


def test_snip_starts_from_scratch_and_the_others_from_the_trained_network():
    budget = Budget(epochs=12, finetune_epochs=4)
    for criterion in CRITERIA:
        method = create_method("gradient", sparsity=0.5, criterion=criterion)
        stages = method.stages(budget)
        assert [stage.epochs for stage in stages] == ([16] if criterion == "snip" else [12, 4])
        assert stages[-1].method == method and sum(stage.epochs for stage in stages) == 16


@pytest.mark.parametrize("knobs", [{}, {"criterion": "gradient", "batches": 3}])
def test_scores_of_the_weights_as_they_are_need_no_epoch(knobs):
    method = create_method("gradient", sparsity=0.5, **knobs)
    assert [stage.epochs for stage in method.stages(Budget(epochs=0, finetune_epochs=0))] == [0, 0]
    assert method.calibration_batches == knobs.get("batches", 1)


@pytest.mark.parametrize("knobs", [{"criterion": "movement"}, {"schedule": "cubic"}, {"criterion": "movement", "batches": 2}])
def test_scores_that_are_summed_during_training_need_an_epoch(knobs):
    method = create_method("gradient", sparsity=0.5, **knobs)
    assert method.calibration_batches == 0
    with pytest.raises(
        ValueError, match="scores weights while it trains: finetune_epochs must be at least 1, got 0; taylor and gradient with one_shot"
    ):
        method.stages(Budget(epochs=12, finetune_epochs=0))


def test_snip_needs_an_epoch():
    with pytest.raises(ValueError, match="gradient prunes while it trains"):
        create_method("gradient", sparsity=0.5, criterion="snip").stages(Budget(epochs=0, finetune_epochs=0))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"batches": 0}, "batches must be at least 1 batch, got 0"), ({"batches": 2, "schedule": "cubic"}, "batches goes with schedule: one_shot")],
)
def test_knobs_that_contradict_each_other_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method("gradient", sparsity=0.5, **knobs)
