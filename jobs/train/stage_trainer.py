"""A stage under way: where it starts or goes on, its steps, its epochs, its end.

One optimizer step: micro-batches forward and backward; the method sees the dense gradients; masked gradients are zeroed; the optimizer steps and its
hook zeroes what is masked; the averaged weights take the new ones in; the method sees the new weights. Validation always runs the whole fp32 weights
that an export at that moment would hold.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.experiment.run_folder import CHECKPOINTS, METRICS, PROGRESS
from jobs.experiment.specs import StageSpec
from jobs.measure.energy import StageEnergy
from jobs.parallel.checkpoints import drop_checkpoints, load_checkpoint, save_checkpoint
from jobs.parallel.engine import Ranks
from jobs.parallel.memory import forget_peak, peak_bytes
from jobs.parallel.snapshot import average_buffers
from jobs.train.evaluation import evaluate, load_masks
from jobs.train.exports import ExportError, StageResult, exported, read_result, rewind_file, write_export, write_rewind
from jobs.train.lr_schedule import schedule
from jobs.train.metrics import MetricsLog, Reporter, StageProgress, ignore
from jobs.train.network import Batches, Samples, TrainedNetwork
from models.pruning.base import Progress

LOG_STEPS = 20  # optimizer steps between two lines of metrics


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite."""


@dataclass(kw_only=True)
class Tally:
    """What a checkpoint carries besides tensors."""

    step: int = 0  # optimizer steps finished
    epoch_loss: float = 0.0  # sum over the steps of the epoch
    epoch_steps: int = 0
    line_loss: float = 0.0  # sum over the steps since the last line of metrics
    line_steps: int = 0
    last_loss: float | None = None
    train_loss: float = math.nan  # mean over the last finished epoch
    val_top1: float | None = None
    stepping_s: float = 0.0
    stepped: int = 0  # optimizer steps behind stepping_s
    elapsed_s: float = 0.0
    joules: float | None = 0.0  # of this rank's device
    peak_bytes: int = 0  # of this rank


def derived_seed(seed: int, *words: object) -> int:
    """A seed below 2^31 for one purpose, a pure function of the cell's seed and of what the purpose is called."""
    return int.from_bytes(hashlib.sha256(repr((seed, *words)).encode()).digest()[:4], "big") >> 1


class StageTrainer:
    """One stage on all ranks. `model` is taken over."""

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
    ) -> None:
        self.spec, self.training, self.validation, self.folder, self.ranks = spec, training, validation, folder, ranks
        self.checkpoint_steps, self.checkpoints = checkpoint_steps, folder / CHECKPOINTS
        self.steps = spec.stage.epochs * training.steps_per_epoch
        self.schedule = schedule(spec.recipe, spec.stage.schedule, steps=self.steps, steps_per_epoch=training.steps_per_epoch)
        self.network = TrainedNetwork(spec, model, training, no_decay=no_decay, ranks=ranks)
        self.tally = Tally()
        self.reporter = Reporter(folder / PROGRESS, report)

    def run(self, parent: Path | None, rewind: Path | None) -> StageResult:
        """Starts or goes on, trains to the end, exports."""
        self.inherited_loss = _train_loss(parent)
        self.advance(parent, rewind, self.steps)
        if self.tally.val_top1 is None or not self.epochs_here:
            self.validate()
        return self.export()

    def advance(self, parent: Path | None, rewind: Path | None, step: int) -> None:
        """Starts or goes on, trains to the end of the epoch that holds a step."""
        if not self.resume():
            self.start(parent, rewind)
        if self.ranks.rank == 0:
            self.log = MetricsLog(self.folder / METRICS, self.tally.step)
        self.began_s = time.monotonic() - self.tally.elapsed_s
        self.energy = StageEnergy(self.ranks, self.tally.joules)
        forget_peak(self.ranks.device)
        self.epochs_here = 0
        while self.tally.step < step:
            self.train_epoch()

    # Where a stage starts

    def start(self, parent: Path | None, rewind: Path | None) -> None:
        """Weights from scratch, from the parent, or from the rewind step under the parent's masks; then the method's first say."""
        stage, masks = self.spec.stage, {}
        if stage.start != "scratch":
            if parent is None:
                raise ExportError(f"stage {stage.name} starts from a {stage.start}, and no parent stage was given")
            handed = exported(parent)
            masks = load_masks(handed.weights.parent)
            source = handed.weights
            if stage.start == "rewind":
                source = rewind_file(rewind, stage.rewind_step)
                self.tally.step = min(stage.rewind_step or 0, self.steps)  # the rates and the order of images go on from there
            if handed.structure is not None:
                self.network.shrink(handed.structure)
            self.network.snapshot.load(source)
        self.network.begin(masks)
        torch.manual_seed(derived_seed(self.spec.seed, "dropout", stage.name, self.ranks.rank))
        self.keep_rewind()
        if self.network.pruner is not None and stage.method is not None:
            stage.method.begin(self.network.pruner)

    # One epoch, one step

    def train_epoch(self) -> None:
        """The rest of the current epoch, its validation, its lines of metrics and its checkpoint."""
        per_epoch, tally = self.training.steps_per_epoch, self.tally
        epoch, first = divmod(tally.step, per_epoch)
        self.network.engine.module.train()
        with closing(self.training.epoch(epoch, first)) as batches:  # a loader's threads end before validation starts its own
            while tally.step < (epoch + 1) * per_epoch:
                self.train_step(batches)
                if self.checkpoint_steps and tally.step % self.checkpoint_steps == 0 and tally.step % per_epoch:
                    self.save()
        average_buffers(self.network.engine.module, self.ranks)
        tally.train_loss, tally.epoch_loss, tally.epoch_steps = tally.epoch_loss / tally.epoch_steps, 0.0, 0
        self.validate()
        self.epochs_here += 1
        self.write_line("epoch", loss=tally.train_loss, val_top1=tally.val_top1, val_loss=self.val_loss, sparsity=self.network.sparsity())
        self.tell(news=True)
        self.save()

    def train_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One update of the weights."""
        tally, began = self.tally, time.perf_counter()
        network, lr = self.network, self.schedule.lr(tally.step)
        loss = self.backward(batches)
        method, progress = self.spec.stage.method, self._progress(tally.step + 1)
        if network.pruner is not None and method is not None and method.needs_gradients:
            method.after_backward(network.pruner, progress)
        network.masking.zero_gradients()
        if not network.engine.step(lr):
            raise Diverged(f"the gradient is not finite at {self.place()}; loss {loss:g}")
        tally.step += 1
        tally.last_loss, tally.epoch_loss, tally.epoch_steps = loss, tally.epoch_loss + loss, tally.epoch_steps + 1
        tally.line_loss, tally.line_steps = tally.line_loss + loss, tally.line_steps + 1
        if network.average is not None:
            network.average.update(tally.step)
        if network.pruner is not None and method is not None:
            method.after_step(network.pruner, progress)
        tally.stepping_s, tally.stepped = tally.stepping_s + time.perf_counter() - began, tally.stepped + 1
        self.keep_rewind()
        if tally.step % LOG_STEPS == 0:
            self.write_line("step", loss=tally.line_loss / tally.line_steps, lr=lr)
            tally.line_loss, tally.line_steps = 0.0, 0
        self.tell()

    def backward(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """The loss of one global batch, its gradient left in the engine. Raises Diverged on every rank when it is not finite on one."""
        engine = self.network.engine
        count = engine.batching.accumulation
        losses = []
        for index in range(count):
            images, labels = next(batches)
            losses.append(engine.forward_backward(images, labels, last=index == count - 1))
        loss = float(self.ranks.sum(torch.stack(losses).double().mean())) / self.ranks.world
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at {self.place()}; the last finite one was {self.tally.last_loss}")
        return loss

    def place(self) -> str:
        """For an error: where the step being made stands."""
        epoch = self.tally.step // self.training.steps_per_epoch + 1
        rate = self.schedule.lr(self.tally.step)
        return f"epoch {epoch} of {self.spec.stage.epochs}, step {self.tally.step + 1} of {self.steps}, learning rate {rate:g}"

    def _progress(self, step: int) -> Progress:
        return Progress(step=step, steps=self.steps, steps_per_epoch=self.training.steps_per_epoch)

    # What is kept

    def validate(self) -> None:
        """Scores the weights that an export would hold."""
        self.network.copy_result()
        scores = evaluate(self.network.snapshot.model, self.validation.batches(), self.ranks)
        if not math.isfinite(scores.loss):
            place = f"after step {self.tally.step} of {self.steps}; the last training loss was {self.tally.last_loss}"
            raise Diverged(f"the validation loss is {scores.loss} {place}")
        self.tally.val_top1, self.val_loss = scores.top1, scores.loss

    def keep_rewind(self) -> None:
        """Writes the weights aside at the steps that later stages rewind to; never averaged ones."""
        if self.tally.step in self.spec.stage.keep_steps:
            self.network.copy_weights()
            if self.ranks.rank == 0:
                write_rewind(self.folder, self.network.snapshot.model.state_dict(), self.tally.step)

    def export(self) -> StageResult:
        """Publishes the weights that were validated last, and drops the checkpoints."""
        tally = self.tally
        images = tally.stepped * self.spec.recipe.batch_size
        result = StageResult(
            val_top1=tally.val_top1,
            val_loss=self.val_loss,
            train_loss=tally.train_loss if math.isfinite(tally.train_loss) else self.inherited_loss,
            steps=tally.stepped,
            epochs=self.spec.stage.epochs,
            train_s=time.monotonic() - self.began_s,
            train_img_per_s=images / tally.stepping_s if tally.stepping_s else 0.0,
            sparsity=self.network.sparsity(),
            peak_memory_bytes=max(tally.peak_bytes, peak_bytes(self.ranks.device)),
            joules=self.energy.total(),
        )
        if self.ranks.rank == 0:
            network = self.network
            write_export(self.folder, network.snapshot.model.state_dict(), network.masking.masks, result, network.removal.done)
        drop_checkpoints(self.checkpoints, self.ranks)
        return result

    def save(self) -> None:
        """A checkpoint of this instant, by all ranks."""
        self.tally.elapsed_s, self.tally.joules = time.monotonic() - self.began_s, self.energy.own()
        self.tally.peak_bytes = max(self.tally.peak_bytes, peak_bytes(self.ranks.device))
        save_checkpoint(self.checkpoints, self.tally.step, {"tally": asdict(self.tally), **self.network.state()}, self.ranks)

    def resume(self) -> bool:
        """Goes back to the newest checkpoint. False where there is none."""
        found = load_checkpoint(self.checkpoints, self.ranks)
        if found is None:
            return False
        self.tally = Tally(**found[1]["tally"])
        self.network.restore(found[1])
        return True

    # What the outside sees

    def write_line(self, event: str, **values: float | None) -> None:
        """One line of metrics.jsonl, by rank 0."""
        if self.ranks.rank == 0:
            epoch = -(-self.tally.step // self.training.steps_per_epoch)
            line = {"event": event, "epoch": epoch, "step": self.tally.step, **values, "img_per_s": self.img_per_s(), "time": time.time()}
            self.log.write(line)

    def img_per_s(self) -> float | None:
        """Images per second over the steps made so far."""
        return self.tally.stepped * self.spec.recipe.batch_size / self.tally.stepping_s if self.tally.stepping_s else None

    def tell(self, *, news: bool = False) -> None:
        """progress.json and the callback, by rank 0."""
        if self.ranks.rank:
            return
        tally, elapsed_s = self.tally, time.monotonic() - self.began_s
        left = self.steps - tally.step
        progress = StageProgress(
            epoch=tally.step // self.training.steps_per_epoch,
            epochs=self.spec.stage.epochs,
            step=tally.step,
            steps=self.steps,
            loss=tally.last_loss,
            img_per_s=self.img_per_s(),
            eta_s=left * elapsed_s / tally.stepped if tally.stepped else None,
            val_top1=tally.val_top1,
            time=time.time(),
        )
        self.reporter.report(progress, news=news)


def _train_loss(parent: Path | None) -> float:
    result = read_result(parent) if parent else None
    return result.train_loss if result else math.nan
