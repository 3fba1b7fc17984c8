"""The training of one stage: its start or resumption, its steps, its epochs, its export.

One optimizer step: micro-batches go forward and backward. The method sees the dense gradients. Masked gradients are set to zero. The optimizer steps,
and its hook sets masked weights to zero. The averaged weights take in the new ones. The method sees the new weights. Validation always runs the whole
fp32 weights that an export at that moment would hold.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.experiment.progress import StageProgress
from jobs.experiment.run_folder import CHECKPOINTS, METRICS, PROGRESS
from jobs.experiment.specs import StageSpec
from jobs.measure.energy import StageEnergy
from jobs.parallel.checkpoints import drop_checkpoints, load_checkpoint, save_checkpoint
from jobs.parallel.engine import Ranks
from jobs.parallel.memory import forget_peak, peak_bytes
from jobs.parallel.snapshot import average_buffers
from jobs.train.evaluation import evaluate, load_masks
from jobs.train.exports import ExportError, StageResult, exported, read_result, rewind_file, write_export, write_rewind
from jobs.train.late_loss import Diverged, UnreadStep
from jobs.train.lr_schedule import schedule
from jobs.train.metrics import MetricsLog, Reporter, ignore
from jobs.train.network import Batches, Samples, TrainedNetwork
from jobs.train.training_state import TrainingState, derived_seed
from models.pruning.base import Progress, Stage

LOG_STEPS = 20  # optimizer steps between two lines of metrics


class StageTrainer:
    """One stage on all ranks. Takes `model` over."""

    def __init__(
        self,
        spec: StageSpec,
        model: nn.Module,
        training: Batches,
        validation: Samples,
        folder: Path,
        *,
        no_decay: list[str],
        ranks: Ranks,
        checkpoint_steps: int | None = None,
        report: Callable[[StageProgress], None] = ignore,
        notes: Sequence[str] = (),
        teacher: nn.Module | None = None,
    ) -> None:
        """`notes`: what the result says of the weights that the stage starts from. `teacher`: of the recipe's distillation."""
        self.spec, self.training, self.validation, self.folder, self.ranks = spec, training, validation, folder, ranks
        self.notes = notes
        self.checkpoint_steps, self.checkpoints = checkpoint_steps, folder / CHECKPOINTS
        self.steps = spec.stage.epochs * training.steps_per_epoch
        self.schedule = schedule(spec.recipe, spec.stage.schedule, steps=self.steps, steps_per_epoch=training.steps_per_epoch)
        self.network = TrainedNetwork(spec, model, training, no_decay=no_decay, ranks=ranks, teacher=teacher)
        self.state = TrainingState()
        self.reporter = Reporter(folder / PROGRESS, report)
        self.log: MetricsLog | None = None  # of rank 0
        self.began_s = time.monotonic()
        self.energy = StageEnergy(ranks, 0.0)
        self.epochs_here = 0  # since this process started or resumed
        self.val_loss = math.nan
        self.unread: UnreadStep | None = None

    def run(self, parent: Path | None, rewind: Path | None) -> StageResult:
        """Starts or resumes, trains to the end, exports."""
        self.advance(parent, rewind, self.steps)
        if self.state.val_top1 is None or not self.epochs_here:
            self.validate()
        return self.export(inherited_loss=_train_loss(parent))

    def advance(self, parent: Path | None, rewind: Path | None, step: int) -> None:
        """Starts or resumes, and trains to the end of the epoch that holds a step."""
        if not self.resume():
            self.start(parent, rewind)
        if self.ranks.rank == 0:
            self.log = MetricsLog(self.folder / METRICS, self.state.step)
        self.began_s = time.monotonic() - self.state.elapsed_s
        self.energy = StageEnergy(self.ranks, self.state.joules)
        forget_peak(self.ranks.device)
        self.epochs_here = 0
        while self.state.step < step:
            self.train_epoch()

    # The start

    def start(self, parent: Path | None, rewind: Path | None) -> None:
        """Takes weights from scratch, from the parent, or from the rewind step under the parent's masks. Then the method begins."""
        stage: Stage = self.spec.stage
        masks: Mapping[str, Tensor] = {}
        if stage.start != "scratch":
            if parent is None:
                raise ExportError(f"stage {stage.name} starts from a {stage.start}, but no parent stage was given")
            export = exported(parent)
            masks = load_masks(export.weights.parent)
            source = export.weights
            if stage.start == "rewind":
                source = rewind_file(rewind, stage.rewind_step)
                self.state.step = min(stage.rewind_step or 0, self.steps)  # the rates and the order of images go on from there
            if export.structure is not None:
                self.network.inherit(export.structure)
            self.network.snapshot.load(source)
        self.network.begin(masks)
        torch.manual_seed(derived_seed(self.spec.seed, "dropout", stage.name, self.ranks.rank))
        self.keep_rewind()
        if self.network.view is not None and stage.method is not None:
            stage.method.begin(self.network.view)
            if self.steps == 0:
                self.calibrate()
            self.measure_pruned()

    def calibrate(self) -> None:
        """Calls the method's hooks with the gradients of the weights as they are, as often as the method asks, for a stage that makes no step."""
        method, view = self.spec.stage.method, self.network.view
        assert method is not None and view is not None
        batches = min(method.calibration_batches, self.training.steps_per_epoch)
        for number in self.network.calibrated(batches):
            progress = Progress(step=number, steps=batches, steps_per_epoch=self.training.steps_per_epoch)
            method.after_backward(view, progress)
            method.after_step(view, progress)

    def measure_pruned(self) -> None:
        """Validates a trained network right after its pruning, before any weight has learnt from it. Nothing if it is not pruned yet."""
        if self.network.pruned and self.spec.stage.start == "parent":
            self.network.copy_result()
            self.state.val_top1_pruned = evaluate(self.network.snapshot.model, self.validation.batches(), self.ranks).top1

    # One epoch, one step

    def train_epoch(self) -> None:
        """Trains the rest of the current epoch, validates, writes metrics and a checkpoint."""
        per_epoch, state = self.training.steps_per_epoch, self.state
        epoch, first = divmod(state.step, per_epoch)
        self.network.engine.module.train()
        with closing(self.training.epoch(epoch, first)) as batches:  # a loader's threads end before validation starts its own
            while state.step < (epoch + 1) * per_epoch:
                self.train_step(batches)
                if self.checkpoint_steps and state.step % self.checkpoint_steps == 0 and state.step % per_epoch:
                    self.save()
        average_buffers(self.network.engine.module, self.ranks)
        state.train_loss, state.epoch_loss, state.epoch_steps = state.epoch_loss / state.epoch_steps, 0.0, 0
        self.validate()
        self.epochs_here += 1
        self.write_line("epoch", loss=state.train_loss, val_top1=state.val_top1, val_loss=self.val_loss, sparsity=self.network.sparsity())
        self.report_progress(now=True)
        self.save()

    def train_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Makes one update of the weights."""
        state, began = self.state, time.perf_counter()
        network, lr = self.network, self.schedule.lr(state.step)
        loss = self.backward(batches)
        method, progress = self.spec.stage.method, self._progress(state.step + 1)
        if network.view is not None and method is not None:
            UnreadStep.of(loss, None, self.position()).loss(state.last_loss)  # no method sees what is not finite
            if method.needs_gradients:
                method.after_backward(network.view, progress)
                if state.step == 0 and method.calibration_batches == 1:
                    self.measure_pruned()
        network.masking.zero_gradients()
        network.clip_values()
        self.read_loss()
        self.unread = UnreadStep.of(loss, network.engine.update(lr), self.position())
        state.step += 1
        if method is not None or self.is_read_at_once():
            self.read_loss()
        if network.average is not None:
            network.average.update(state.step)
        if network.view is not None and method is not None:
            method.after_step(network.view, progress)
        state.stepping_s, state.stepped = state.stepping_s + time.perf_counter() - began, state.stepped + 1
        self.keep_rewind()
        if state.step % LOG_STEPS == 0:
            self.write_line("step", loss=state.line_loss / state.line_steps, lr=lr)
            state.line_loss, state.line_steps = 0.0, 0
        self.report_progress()

    def is_read_at_once(self) -> bool:
        """True if something depends on the loss of the step just made: a line, a checkpoint, kept weights, the end of the epoch."""
        step = self.state.step
        intervals = (LOG_STEPS, self.training.steps_per_epoch, self.checkpoint_steps)
        return step in self.spec.stage.keep_steps or any(interval and step % interval == 0 for interval in intervals)

    def read_loss(self) -> None:
        """Takes the loss of the last step into the sums, unless it was read before. Raises Diverged on every rank if it is not finite on one."""
        if self.unread is None:
            return
        state, loss = self.state, self.unread.loss(self.state.last_loss)
        self.unread = None
        state.last_loss, state.epoch_loss, state.epoch_steps = loss, state.epoch_loss + loss, state.epoch_steps + 1
        state.line_loss, state.line_steps = state.line_loss + loss, state.line_steps + 1

    def backward(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """The loss of one global batch, a scalar on the device, fp64; its gradient stays in the engine."""
        engine = self.network.engine
        count = engine.batching.accumulation
        terms = self.network.terms(self.state.step // self.training.steps_per_epoch)
        losses = []
        for index in range(count):
            images, targets = next(batches)
            losses.append(engine.forward_backward(images, targets, last=index == count - 1, terms=terms))
        return self.ranks.sum(torch.stack(losses).double().mean()) / self.ranks.world

    def position(self) -> str:
        """The step in the making, in the words of an error."""
        epoch = self.state.step // self.training.steps_per_epoch + 1
        rate = self.schedule.lr(self.state.step)
        return f"epoch {epoch} of {self.spec.stage.epochs}, step {self.state.step + 1} of {self.steps}, learning rate {rate:g}"

    def _progress(self, step: int) -> Progress:
        return Progress(step=step, steps=self.steps, steps_per_epoch=self.training.steps_per_epoch)

    # Exports and checkpoints

    def validate(self) -> None:
        """Evaluates the weights that an export would hold. Raises Diverged if the loss is not finite."""
        self.network.copy_result()
        scores = evaluate(self.network.snapshot.model, self.validation.batches(), self.ranks)
        if not math.isfinite(scores.loss):
            position = f"after step {self.state.step} of {self.steps}; the last training loss was {self.state.last_loss}"
            raise Diverged(f"the validation loss is {scores.loss} {position}")
        self.state.val_top1, self.val_loss = scores.top1, scores.loss

    def keep_rewind(self) -> None:
        """Keeps the weights, never averaged ones, at the steps that later stages rewind to."""
        if self.state.step in self.spec.stage.keep_steps:
            self.network.copy_weights()
            if self.ranks.rank == 0:
                write_rewind(self.folder, self.network.snapshot.model.state_dict(), self.state.step)

    def export(self, *, inherited_loss: float) -> StageResult:
        """Publishes the weights that were validated last, and drops the checkpoints. `inherited_loss`: the train loss of a stage without epochs."""
        state = self.state
        images, val_top1 = state.stepped * self.spec.recipe.batch_size, state.val_top1
        assert val_top1 is not None  # `run` validates first
        result = StageResult(
            val_top1=val_top1,
            val_top1_pruned=state.val_top1_pruned,
            val_loss=self.val_loss,
            train_loss=state.train_loss if math.isfinite(state.train_loss) else inherited_loss,
            steps=state.stepped,
            epochs=self.spec.stage.epochs,
            train_s=time.monotonic() - self.began_s,
            train_img_per_s=images / state.stepping_s if state.stepping_s else 0.0,
            sparsity=self.network.sparsity(),
            peak_memory_bytes=max(state.peak_bytes, peak_bytes(self.ranks.device)),
            joules=self.energy.total(),
            notes=list(self.notes),
            ranks=self.ranks.world,
            threads=torch.get_num_threads(),
        )
        if self.ranks.rank == 0:
            network = self.network
            write_export(self.folder, network.snapshot.model.state_dict(), network.masking.masks, result, network.removal.done)
        drop_checkpoints(self.checkpoints, self.ranks)
        return result

    def save(self) -> None:
        """Writes a checkpoint. A collective."""
        self.state.elapsed_s, self.state.joules = time.monotonic() - self.began_s, self.energy.own()
        self.state.peak_bytes = max(self.state.peak_bytes, peak_bytes(self.ranks.device))
        save_checkpoint(self.checkpoints, self.state.step, {"tally": asdict(self.state), **self.network.state()}, self.ranks)

    def resume(self) -> bool:
        """Goes back to the newest checkpoint. False if there is none."""
        checkpoint = load_checkpoint(self.checkpoints, self.ranks)
        if checkpoint is None:
            return False
        _, content = checkpoint
        self.state = TrainingState(**content["tally"])
        self.network.restore(content)
        return True

    # Reports

    def write_line(self, event: str, **values: float | None) -> None:
        """Writes a line of metrics.jsonl, on rank 0."""
        if self.log is not None:
            epoch = -(-self.state.step // self.training.steps_per_epoch)
            line = {"event": event, "epoch": epoch, "step": self.state.step, **values, "img_per_s": self.img_per_s(), "time": time.time()}
            self.log.write(line)

    def img_per_s(self) -> float | None:
        """Images per second over the steps so far."""
        return self.state.stepped * self.spec.recipe.batch_size / self.state.stepping_s if self.state.stepping_s else None

    def report_progress(self, *, now: bool = False) -> None:
        """Writes progress.json and calls the callback, on rank 0."""
        if self.ranks.rank:
            return
        state, elapsed_s = self.state, time.monotonic() - self.began_s
        left = self.steps - state.step
        progress = StageProgress(
            epoch=state.step // self.training.steps_per_epoch,
            epochs=self.spec.stage.epochs,
            step=state.step,
            steps=self.steps,
            loss=state.last_loss,
            img_per_s=self.img_per_s(),
            eta_s=left * elapsed_s / state.stepped if state.stepped else None,
            val_top1=state.val_top1,
            time=time.time(),
        )
        self.reporter.report(progress, now=now)


def _train_loss(parent: Path | None) -> float:
    result = read_result(parent) if parent else None
    return result.train_loss if result else math.nan
