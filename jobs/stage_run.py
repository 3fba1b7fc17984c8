"""A stage under way: where it starts or goes on, its steps, its epochs, its end.

One optimizer step: micro-batches forward and backward; the method sees the dense gradients; masked gradients are zeroed; the optimizer steps and its
hook zeroes what is masked; the averaged weights take the new ones in; the method sees the new weights. Validation always runs the whole fp32 weights
that an export at that moment would hold.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from jobs.averaging import Average
from jobs.checkpoints import drop_checkpoints, load_checkpoint, restore_training, save_checkpoint, training_state
from jobs.energy import StageEnergy
from jobs.engine import Engine, Ranks
from jobs.evaluation import evaluate, load_masks
from jobs.exports import ExportError, StageResult, exported, read_result, rewind_file, write_export, write_rewind
from jobs.fragments import Fragments
from jobs.masking import Masking
from jobs.metrics import MetricsLog, Reporter, StageProgress, ignore
from jobs.peak_memory import forget_peak, peak_bytes
from jobs.removal import Removal, structure_from_json, structure_to_json
from jobs.schedule import schedule
from jobs.snapshot import Snapshot, average_buffers
from jobs.specs import StageSpec
from models.pruning.base import Progress, Pruner
from models.pruning.structure import Structure
from models.pruning.inputs import InputNorms

LOG_STEPS = 20  # optimizer steps between two lines of metrics


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite."""


class Batches(Protocol):
    """Micro-batches of this rank: images (b, 3, H, W) float32, labels (b,) int64."""

    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor]]:
        """Those of one epoch from optimizer step `first_step` on."""


class Samples(Protocol):
    """This rank's share of a split, each sample once over all ranks."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As above."""


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


class StageRun:
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
        self.checkpoint_steps, self.checkpoints = checkpoint_steps, folder / "checkpoints"
        self.steps = spec.stage.epochs * training.steps_per_epoch
        self.schedule = schedule(spec.recipe, spec.stage.schedule, steps=self.steps, steps_per_epoch=training.steps_per_epoch)
        self.removal = Removal(spec, model)
        self.no_decay = [*no_decay, *self.removal.gates.values()]
        self.snapshot = Snapshot(copy.deepcopy(model), ranks)
        self._set_up(model)
        self.pruner = self._pruner()
        self.tally = Tally()
        self.reporter = Reporter(folder / "progress.json", report)

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
            self.log = MetricsLog(self.folder / "metrics.jsonl", self.tally.step)
        self.began_s = time.monotonic() - self.tally.elapsed_s
        self.energy = StageEnergy(self.ranks, self.tally.joules)
        forget_peak(self.ranks.device)
        self.epochs_here = 0
        while self.tally.step < step:
            self.train_epoch()

    def _set_up(self, model: nn.Module) -> None:
        """The engine, which takes `model` over, and what stands on it."""
        method = self.spec.stage.method
        self.engine = Engine(model, self.spec.recipe, no_decay=self.no_decay, ranks=self.ranks)
        self.fragments = Fragments(self.engine)
        self.masking = Masking(self.engine, self.fragments, keeps_dense=method is not None and method.keeps_dense)
        self.average: Average | None = None

    def shrink(self, structure: Structure) -> None:
        """Removes units and goes on with the smaller network, on the same schedule; optimizer and averages begin anew. A collective.

        ValueError: under masks, or a second time.
        """
        if self.masking.masks:
            raise ValueError("units are removed from a network without masks, which have the shapes of the whole one; set masks afterwards")
        self.snapshot.take(self.fragments.weights(), self.engine.module)
        self.removal.apply(self.snapshot.model, structure)
        self.engine.close()
        self._set_up(copy.deepcopy(self.snapshot.model).train())
        self.average = self._average()
        if self.pruner is not None:
            self.pruner.groups, self.pruner.gates = (), {}

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
                self.shrink(handed.structure)
            self.snapshot.load(source)
        self.snapshot.copy_buffers_to(self.engine.module)
        self.fragments.write(self.snapshot.weights())
        self.masking.apply(masks)
        self.average = self._average()
        torch.manual_seed(derived_seed(self.spec.seed, "dropout", stage.name, self.ranks.rank))
        self.keep_rewind()
        if self.pruner is not None and stage.method is not None:
            self.pruner.masks = dict(self.masking.masks)
            stage.method.begin(self.pruner)

    def _average(self) -> Average | None:
        decay = self.spec.recipe.ema
        return None if decay is None else Average(decay, self.fragments, self.masking)

    def _pruner(self) -> Pruner | None:
        method = self.spec.stage.method
        if method is None:
            return None
        from models.pruning.knobs import groups_of
        from models.pruning.scope import prunable_names

        return Pruner(
            names=prunable_names(self.snapshot.model, groups_of(method)),
            seed=self.spec.seed,
            read_weight=lambda name: self.masking.weight(name),  # of the engine that there is: removing units makes another
            read_gradient=lambda name: self.fragments.gradient(name),
            input_norms=self.input_norms,
            apply=self.apply_masks,
            groups=self.removal.groups,
            gates=self.removal.gates,
            remove=self.shrink,
            add_l1=lambda name, strength: self.fragments.add_l1(name, strength),
        )

    def input_norms(self, batches: int) -> dict[str, Tensor]:
        """Norms of what the prunable weights meet in the first `batches` global batches of images, each once (see `Pruner`); a collective."""
        assert self.pruner is not None
        self.snapshot.take(self.fragments.weights(), self.engine.module)
        network = self.snapshot.model.eval()
        count = min(batches, self.training.steps_per_epoch) * self.engine.batching.accumulation
        with closing(self.training.epoch(0)) as images, InputNorms(network, self.pruner.names) as inputs, torch.no_grad():
            for micro_batch, _ in islice(images, count):
                network(micro_batch.to(self.ranks.device))
        return inputs.norms(self.ranks.sum)

    def apply_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Replaces the masks, in the averaged weights too."""
        self.masking.apply(masks)
        if self.average is not None:
            self.masking.zero(self.average.parts)

    # One epoch, one step

    def train_epoch(self) -> None:
        """The rest of the current epoch, its validation, its lines of metrics and its checkpoint."""
        per_epoch, tally = self.training.steps_per_epoch, self.tally
        epoch, first = divmod(tally.step, per_epoch)
        self.engine.module.train()
        with closing(self.training.epoch(epoch, first)) as batches:  # a loader's threads end before validation starts its own
            while tally.step < (epoch + 1) * per_epoch:
                self.train_step(batches)
                if self.checkpoint_steps and tally.step % self.checkpoint_steps == 0 and tally.step % per_epoch:
                    self.save()
        average_buffers(self.engine.module, self.ranks)
        tally.train_loss, tally.epoch_loss, tally.epoch_steps = tally.epoch_loss / tally.epoch_steps, 0.0, 0
        self.validate()
        self.epochs_here += 1
        self.write_line("epoch", loss=tally.train_loss, val_top1=tally.val_top1, val_loss=self.val_loss, sparsity=self.sparsity())
        self.tell(news=True)
        self.save()

    def train_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One update of the weights."""
        tally, began = self.tally, time.perf_counter()
        lr = self.schedule.lr(tally.step)
        loss = self.backward(batches)
        method, progress = self.spec.stage.method, self._progress(tally.step + 1)
        if self.pruner is not None and method is not None and method.needs_gradients:
            method.after_backward(self.pruner, progress)
        self.masking.zero_gradients()
        if not self.engine.step(lr):
            raise Diverged(f"the gradient is not finite at {self.place()}; loss {loss:g}")
        tally.step += 1
        tally.last_loss, tally.epoch_loss, tally.epoch_steps = loss, tally.epoch_loss + loss, tally.epoch_steps + 1
        tally.line_loss, tally.line_steps = tally.line_loss + loss, tally.line_steps + 1
        if self.average is not None:
            self.average.update(tally.step)
        if self.pruner is not None and method is not None:
            method.after_step(self.pruner, progress)
        tally.stepping_s, tally.stepped = tally.stepping_s + time.perf_counter() - began, tally.stepped + 1
        self.keep_rewind()
        if tally.step % LOG_STEPS == 0:
            self.write_line("step", loss=tally.line_loss / tally.line_steps, lr=lr)
            tally.line_loss, tally.line_steps = 0.0, 0
        self.tell()

    def backward(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """The loss of one global batch, its gradient left in the engine. Raises Diverged on every rank when it is not finite on one."""
        count = self.engine.batching.accumulation
        losses = []
        for index in range(count):
            images, labels = next(batches)
            losses.append(self.engine.forward_backward(images, labels, last=index == count - 1))
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

    def whole_weights(self) -> dict[str, Tensor]:
        """The fp32 weights that are evaluated and exported; a collective."""
        return self.fragments.weights() if self.average is None else self.average.weights()

    def validate(self) -> None:
        """Scores the weights that an export would hold."""
        self.snapshot.take(self.whole_weights(), self.engine.module)
        scores = evaluate(self.snapshot.model, self.validation.batches(), self.ranks)
        if not math.isfinite(scores.loss):
            place = f"after step {self.tally.step} of {self.steps}; the last training loss was {self.tally.last_loss}"
            raise Diverged(f"the validation loss is {scores.loss} {place}")
        self.tally.val_top1, self.val_loss = scores.top1, scores.loss

    def keep_rewind(self) -> None:
        """Writes the weights aside at the steps that later stages rewind to; never averaged ones."""
        if self.tally.step in self.spec.stage.keep_steps:
            self.snapshot.take(self.fragments.weights(), self.engine.module)
            if self.ranks.rank == 0:
                write_rewind(self.folder, self.snapshot.model.state_dict(), self.tally.step)

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
            sparsity=self.sparsity(),
            peak_memory_bytes=max(tally.peak_bytes, peak_bytes(self.ranks.device)),
            joules=self.energy.total(),
        )
        if self.ranks.rank == 0:
            write_export(self.folder, self.snapshot.model.state_dict(), self.masking.masks, result, self.removal.done)
        drop_checkpoints(self.checkpoints, self.ranks)
        return result

    def sparsity(self) -> float:
        """Share of zeros in the masked parameters, or of all parameters that were removed."""
        return self.removal.share(self.snapshot.model) if self.removal.done else self.masking.sparsity()

    def save(self) -> None:
        """A checkpoint of this instant, by all ranks."""
        self.tally.elapsed_s, self.tally.joules = time.monotonic() - self.began_s, self.energy.own()
        self.tally.peak_bytes = max(self.tally.peak_bytes, peak_bytes(self.ranks.device))
        state = {
            "tally": asdict(self.tally),
            "training": training_state(self.engine, self.fragments),
            "average": None if self.average is None else self.average.parts,
            "masks": self.masking.masks,
            "dense": self.masking.dense,
            "structure": structure_to_json(self.removal.done),
            "method": None if self.pruner is None else self.pruner.state,
        }
        save_checkpoint(self.checkpoints, self.tally.step, state, self.ranks)

    def resume(self) -> bool:
        """Goes back to the newest checkpoint. False where there is none."""
        found = load_checkpoint(self.checkpoints, self.ranks)
        if found is None:
            return False
        state, device = found[1], self.ranks.device
        self.tally = Tally(**state["tally"])
        structure = structure_from_json(state.get("structure"))
        if structure is not None:
            self.shrink(structure)
        restore_training(self.engine, self.fragments, state["training"])
        self.masking.apply(state["masks"])
        self.masking.restore_dense(state.get("dense", {}))  # absent from checkpoints of a version that had none
        self.average = self._average()
        if self.average is not None:
            self.average.parts = {name: part.to(device) for name, part in state["average"].items()}
        if self.pruner is not None:
            self.pruner.masks = dict(self.masking.masks)
            self.pruner.state = {key: tensor.to(device) for key, tensor in state["method"].items()}
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
