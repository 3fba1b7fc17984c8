"""The cost of one stage and of one cell's measurement, from what is known: learned from records, or else from steps that were timed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from harness.cost.learned import DENSE, Learned, Sample
from harness.cost.work import Keys, Shape, WorkKey, batches_without_step, kind_of, steps_of
from jobs.experiment.cell import Cell
from jobs.experiment.specs import StageSpec
from jobs.experiment.step_times import StepTimes

ASSUMED_START_S = 10.0  # of a process, where no job was timed here
RECORD_BYTES = 25_000  # of a cell: record.json, config.json, README.md and its part of metrics.jsonl


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage takes. Seconds of its job, joules of the job's devices, bytes that stay."""

    seconds: float
    joules: float | None  # None: the machine does not measure them
    file_bytes: int


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What is known of each work."""

    learned: Mapping[WorkKey, Learned] = field(default_factory=dict)
    times: Mapping[WorkKey, StepTimes] = field(default_factory=dict)
    labels: Mapping[WorkKey, str] = field(default_factory=dict)  # of the models, for people
    timed_now: frozenset[WorkKey] = frozenset()  # by this command
    keys: Keys = field(default_factory=Keys)

    @property
    def start_s(self) -> float:
        """Seconds from the start of a process to its first stage: the mean of those that were timed."""
        return fmean(times.start_s for times in self.times.values()) if self.times else ASSUMED_START_S

    def stage(self, spec: StageSpec, shape: Shape) -> Cost:
        """The cost of a whole stage in a job of this shape. Raises KeyError for work of which nothing is known."""
        if spec.trials:  # it chooses, and trains nothing
            return Cost(seconds=0.0, joules=0.0, file_bytes=0)
        key = self.keys.of(spec, shape)
        if key in self.learned:
            return cost_from_records(spec, self.learned[key])
        return cost_from_times(spec, self.times[key])

    def measurement_s(self, cell: Cell, shape: Shape) -> float:
        """Seconds that the measurement of a finished cell takes: its evaluation on the test set, and its profile."""
        key, pruned = self.keys.of(cell if cell.tune is None else cell.untuned()[0], shape), cell.method.name != DENSE
        if key in self.learned and (measured := self.learned[key].measured_s):
            return fmean(measured.get(pruned) or next(iter(measured.values())))
        times = self.times.get(key)
        return times.measure_s + times.test_images * times.eval_image_s if times else 0.0

    def checkpoint_bytes(self, key: WorkKey) -> int:
        """The bytes of a checkpoint of a stage in training: three times its weights and more, where none was timed."""
        if key in self.times:
            return self.times[key].checkpoint_bytes
        return 3 * max((sample.file_bytes for sample in self.learned[key].trained), default=0)


def cost_from_records(spec: StageSpec, known: Learned) -> Cost:
    """The cost of a stage as the finished stages of its kind took, or else all stages of its model that made steps."""
    same = known.samples(kind_of(spec))
    steps, trained = steps_of(spec, known.steps_per_epoch), [sample for sample in same if sample.steps]
    if same and not steps:
        seconds, joules = fmean(sample.wall_s for sample in same), joules_each(same, len(same))
    else:
        like = trained or known.trained
        before_s, made = fmean(sample.wall_s - sample.train_s for sample in like), sum(sample.steps for sample in like)
        step_s = sum(sample.train_s for sample in like) / made  # with its part of evaluations and checkpoints
        seconds = before_s + (steps + batches_without_step(spec)) * step_s
        joules = None if (each := joules_each(like, made)) is None else steps * each
    file_bytes = round(fmean(sample.file_bytes for sample in same or known.trained))
    return Cost(seconds=seconds, joules=joules, file_bytes=file_bytes)


def cost_from_times(spec: StageSpec, times: StepTimes) -> Cost:
    """The cost of a stage by its steps, evaluations, checkpoints and its export, each as long as those that were timed.

    A teacher, and MESA's average, run a forward pass beside each training step. The work of a method within a step is not in it, nor that the
    removal of units makes the network faster.
    """
    steps, recipe = steps_of(spec, times.steps_per_epoch), spec.recipe
    passes = (recipe.distill is not None) + (0.0 if not recipe.mesa else 1.0 - recipe.mesa_start)
    step_s = times.step_s + passes * recipe.batch_size * times.eval_image_s
    validations = max(1, spec.stage.epochs) + (1 if spec.stage.method is not None and spec.stage.start == "parent" else 0)
    seconds = (
        times.prepare_s
        + (times.first_step_s - times.step_s if steps else 0.0)
        + (steps + batches_without_step(spec)) * step_s
        + validations * times.val_images * times.eval_image_s
        + spec.stage.epochs * times.checkpoint_s
        + times.export_s
    )
    kept = 1 + len(spec.stage.keep_steps)
    has_masks = spec.stage.method is not None or spec.stage.start == "rewind"
    return Cost(
        seconds=max(0.0, seconds),
        joules=None if times.step_joules is None else steps * times.step_joules,
        file_bytes=kept * times.weights_bytes + (times.mask_bytes if has_masks else 0),
    )


def joules_each(samples: Iterable[Sample], count: int) -> float | None:
    """The joules of all samples, divided by `count`; None unless they are known of every one."""
    total = known_sum(sample.joules for sample in samples)
    return None if total is None else total / count


def known_sum(values: Iterable[float | None]) -> float | None:
    """The sum of values; None unless every one is known."""
    given = list(values)
    known = [value for value in given if value is not None]
    return sum(known) if len(known) == len(given) else None
