"""Terms of the loss against float64 formulas, and trainings with them against plain loops."""

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from jobs.experiment.specs import Distillation, RecipeSpec
from jobs.parallel.engine import make_optimizer, rendezvous
from jobs.train.distillation import FrozenNetwork, distilled, kl, mesa_counts, mesa_cross_entropy, mesa_kl
from jobs.train.lr_schedule import schedule
from models.pruning.base import Stage
from models.torchvision_shim import load_timm
from tests.support.networks import NO_DECAY, Halve, global_batch, toy_net, toy_spec
from tests.support.stages import dense, stage_run, train, weights

STUDENT = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)).double() * 2
TEACHER = torch.randn(9, 5, generator=torch.Generator().manual_seed(1)).double() * 4


def probabilities(logits: torch.Tensor, temperature: float) -> list[list[float]]:
    """Softened probabilities, one exponential at a time."""
    powers = [[math.exp(value / temperature) for value in row] for row in logits.tolist()]
    return [[power / sum(row) for power in row] for row in powers]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_the_sum_over_classes_and_the_mean_over_images(temperature: float) -> None:
    pairs = zip(probabilities(TEACHER, temperature), probabilities(STUDENT, temperature), strict=True)
    by_image = [sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True)) for teacher, student in pairs]
    assert float(kl(STUDENT, TEACHER, temperature)) == pytest.approx(sum(by_image) / 9, rel=1e-12)
    assert float(kl(STUDENT, STUDENT, temperature)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 1.0), (0.3, 4.0), (1.0, 2.0)])
def test_a_distilled_loss_is_hintons_formula(weight: float, temperature: float) -> None:
    frozen = FrozenNetwork(torch.nn.Identity(), RecipeSpec())
    term = distilled(Distillation(teacher="dense", weight=weight, temperature=temperature), frozen)
    pairs = zip(probabilities(TEACHER, temperature), probabilities(STUDENT, temperature), strict=True)
    divergence = sum(p * math.log(p / q) for teacher, student in pairs for p, q in zip(teacher, student, strict=True)) / 9
    loss = term(TEACHER, STUDENT, torch.tensor(1.7, dtype=torch.float64))
    assert float(loss) == pytest.approx((1 - weight) * 1.7 + weight * temperature**2 * divergence, rel=1e-6)  # a teacher's logits are fp32


def test_mesas_terms_are_those_of_the_papers_code() -> None:
    loss = torch.nn.KLDivLoss(reduction="batchmean")
    expected = 50.0 * loss(functional.log_softmax(STUDENT / 3, dim=1), functional.softmax(TEACHER / 3, dim=1))
    torch.testing.assert_close(mesa_kl(STUDENT, TEACHER), expected)
    load_timm()
    from timm.loss import SoftTargetCrossEntropy

    torch.testing.assert_close(mesa_cross_entropy(STUDENT, TEACHER), SoftTargetCrossEntropy()(STUDENT, TEACHER.softmax(-1)))


def test_mesa_counts_after_its_fraction_of_the_epochs_before_the_cooldown() -> None:
    counted = [epoch for epoch in range(320) if mesa_counts(RecipeSpec(mesa=0.5, mesa_start=0.25), epoch, 320, cooldown=10)]
    assert counted == [epoch for epoch in range(320) if epoch / 310 > 0.25]
    assert not any(mesa_counts(RecipeSpec(mesa=0.0), epoch, 8, cooldown=0) for epoch in range(8))


def test_a_frozen_network_never_learns() -> None:
    frozen = FrozenNetwork(toy_net(norm=True, dropout=0.5), RecipeSpec())
    images = global_batch(0, 8)[0].requires_grad_()
    assert torch.equal(frozen.logits(images), frozen.logits(images)), "dropout was on"
    assert not frozen.logits(images).requires_grad
    low = FrozenNetwork(toy_net(norm=True), RecipeSpec(dtype="bf16"))
    assert low.logits(images.bfloat16()).dtype == torch.float32
    assert low.network.get_parameter("fc.weight").dtype == torch.bfloat16 and low.network.get_buffer("norm.running_mean").dtype == torch.float32


SGD = {"optimizer": "sgd", "lr": 0.05}  # Adam would blow up the rounding of a bias before BatchNorm, whose gradient is 0


def mesa_by_hand(steps: int, *, per_epoch: int, start: float, kind: str) -> dict[str, torch.Tensor]:
    """The averaged weights and statistics of a training with MESA in plain torch, with timm's average as the teacher."""
    load_timm()
    from timm.utils.model_ema import ModelEmaV2

    spec = toy_spec(dense(), ema=0.9, **SGD)
    model, rates = toy_net(norm=True), schedule(spec.recipe, "train", steps=steps, steps_per_epoch=per_epoch)
    optimizer, average = make_optimizer(model, spec.recipe, frozenset(NO_DECAY)), ModelEmaV2(model, decay=0.9)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rates.lr(step)
        images, labels = global_batch(1000 * (step // per_epoch) + step % per_epoch, 16)
        logits = model(images)
        loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
        if step // per_epoch > start * steps / per_epoch:
            with torch.no_grad():
                teacher = average.module(images)
            term = functional.cross_entropy(logits, teacher.softmax(1))
            if kind == "kl":
                term = 50 * functional.kl_div((logits / 3).log_softmax(1), (teacher / 3).softmax(1), reduction="batchmean")
            loss = loss + 0.3 * term
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
    return copy.deepcopy(average.module.state_dict())


@pytest.mark.parametrize(("zero_stage", "kind"), [(0, "kl"), (0, "cross_entropy"), (2, "kl"), (3, "kl")])
def test_a_training_with_mesa_is_a_plain_loop_with_timms_average(tmp_path: Path, zero_stage: int, kind: str) -> None:
    expected = mesa_by_hand(16, per_epoch=4, start=0.25, kind=kind)
    options = {"mesa": 0.3, "mesa_start": 0.25, "mesa_loss": kind, "ema": 0.9, "ema_warmup": "none", "ema_buffers": True, **SGD}
    train(tmp_path / "mesa", dense(epochs=4), net={"norm": True}, zero_stage=zero_stage, **options)
    for name, value in weights(tmp_path / "mesa").items():
        if value.is_floating_point():  # timm averages the count of batches too
            torch.testing.assert_close(value, expected[name], rtol=2e-4, atol=2e-5)
    train(tmp_path / "without", dense(epochs=4), net={"norm": True}, **{**options, "mesa": 0.0})
    assert not torch.allclose(weights(tmp_path / "without")["fc.weight"], expected["fc.weight"], atol=1e-3), "the term does nothing"


DISTILL = Distillation(teacher="dense", weight=0.7, temperature=3.0)


def distilled_by_hand(teacher: torch.nn.Module, student: torch.nn.Module, steps: int) -> dict[str, torch.Tensor]:
    """The weights of a fine-tuning under a teacher in plain torch."""
    spec = toy_spec(dense(), distill=DISTILL, **SGD)
    rates, optimizer = schedule(spec.recipe, "finetune", steps=steps, steps_per_epoch=4), make_optimizer(student, spec.recipe, frozenset(NO_DECAY))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rates.lr(step)
        images, labels = global_batch(1000 * (step // 4) + step % 4, 16)
        logits = student(images)
        with torch.no_grad():
            taught = (teacher(images) / 3).softmax(1)
        soft = -(taught * (logits / 3).log_softmax(1)).sum(1).mean() + (taught * taught.log()).sum(1).mean()
        loss = 0.3 * functional.cross_entropy(logits, labels, label_smoothing=0.1) + 0.7 * 9 * soft
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    return {name: weight.detach() for name, weight in student.named_parameters()}


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_distilled_training_is_a_plain_loop_with_the_teacher(tmp_path: Path, zero_stage: int) -> None:
    train(tmp_path / "dense", dense(epochs=8), **SGD)
    teacher, student = toy_net(), toy_net()
    for network in (teacher, student):
        network.load_state_dict(weights(tmp_path / "dense"))
    with torch.no_grad():
        student.fc.weight[::2] = 0.0
    save_file(student.state_dict(), tmp_path / "dense" / "export" / "model.safetensors")  # what a pruned parent would leave
    stage = Stage(name="finetune", epochs=2, schedule="finetune", start="parent")
    train(tmp_path / "taught", stage, parent=tmp_path / "dense", teacher=teacher, zero_stage=zero_stage, distill=DISTILL, **SGD)
    expected = distilled_by_hand(teacher, student, 8)
    for name, value in weights(tmp_path / "taught").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_a_teacher_is_whole_while_its_network_is_masked(tmp_path: Path) -> None:
    train(tmp_path / "dense", dense(epochs=2))
    teacher = toy_net()
    teacher.load_state_dict(weights(tmp_path / "dense"))
    before = copy.deepcopy(teacher.state_dict())
    stage = Stage(name="finetune", epochs=1, schedule="finetune", start="parent", method=Halve())
    run = stage_run(tmp_path / "pruned", stage, rendezvous(threads=1), teacher=teacher, distill=DISTILL, ema=0.9, mesa=0.1, mesa_start=0.0)
    run.run(tmp_path / "dense", None)
    assert run.network.teacher is not None
    assert all(torch.equal(value, before[name]) for name, value in run.network.teacher.network.state_dict().items())
    run.network.engine.close()
