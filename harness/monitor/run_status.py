"""What a status shows, whoever shows it: the facts of a run at one moment, from one survey."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.monitor.incidents import IncidentGroup, grouped, incidents
from harness.monitor.memory import Memory
from harness.monitor.survey import State, Survey, survey
from harness.monitor.training_time import trained_s, until_end_s
from jobs.experiment.ids import StageId
from jobs.experiment.progress import StageProgress, read_progress
from jobs.experiment.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ModelProgress:
    """How far the cells of a model have come, in epochs over all its stages. A stage without epochs counts as one."""

    model: str
    cells: Mapping[State, int]
    epochs: float
    trained: float  # of these
    lost: float  # of these, those that no job will train: of failed stages, and of those behind them

    @property
    def ended(self) -> int:
        """Cells that are done."""
        return self.cells.get("done", 0)

    @property
    def total(self) -> int:
        """All its cells."""
        return sum(self.cells.values())

    @property
    def fraction(self) -> float:
        """Of the epochs, those that have been trained."""
        return self.trained / self.epochs if self.epochs else 0.0


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run at one moment."""

    surveyed: Survey
    counts: Mapping[State, int]  # of cells
    models: tuple[ModelProgress, ...]
    at_work: tuple[StageId, ...]
    progress: Mapping[StageId, StageProgress]  # of those at work that have begun to train
    stages_done: int
    trained_s: float
    left_s: float | None  # until all stages have trained, with as many at a time as now
    groups: tuple[IncidentGroup, ...]  # failures
    time: float  # Unix seconds

    @property
    def under_way(self) -> bool:
        """True if something runs or waits, or may."""
        return bool(self.counts.get("running") or self.counts.get("queued") or self.counts.get("unknown"))

    @property
    def end(self) -> float | None:
        """When all stages should have trained, Unix seconds; None if unknown."""
        return None if self.left_s is None else self.time + self.left_s


@dataclass
class Observer:
    """Looks at a run folder, again and again; what cannot change any more is read once.

    memory: what was seen before, for a status that watches; None: every look asks SLURM, with patience.
    """

    run: RunFolder
    memory: Memory | None = None
    done_s: dict[StageId, float] = field(default_factory=dict)  # seconds of training, by done stage

    def look(self) -> RunStatus:
        """The run now."""
        memory = self.memory
        surveyed = survey(self.run) if memory is None else survey(self.run, queue=memory.queue_state, names=memory.names)
        at_work = stages_at_work(surveyed)
        progress = {stage: known for stage in at_work if (known := read_progress(self.run.stage_dir(stage)))}
        done = [stage for stage in surveyed.index.stages if surveyed.done(stage)]
        self.done_s = {stage: self.done_s[stage] if stage in self.done_s else trained_s(self.run, stage) for stage in done}
        return RunStatus(
            surveyed=surveyed,
            counts=Counter(surveyed.states.values()),
            models=model_progress(surveyed, progress),
            at_work=at_work,
            progress=progress,
            stages_done=len(done),
            trained_s=sum(self.done_s.values()) + sum(stage.spent_s for stage in progress.values()),
            left_s=until_end_s(surveyed, self.done_s, progress, len(at_work)),
            groups=tuple(grouped(incidents(self.run, surveyed))),
            time=time.time(),
        )


def stages_at_work(surveyed: Survey) -> tuple[StageId, ...]:
    """The stages at which running cells stand, each once."""
    return tuple(dict.fromkeys(stage for cell, state in surveyed.states.items() if state == "running" for stage in surveyed.at_work(cell)))


def model_progress(surveyed: Survey, progress: Mapping[StageId, StageProgress]) -> tuple[ModelProgress, ...]:
    """The progress of each model, in the sequence of the grid. A cell's title begins with its model."""
    states: dict[str, Counter[State]] = {}
    stages: dict[str, dict[StageId, None]] = {}
    for cell, entry in surveyed.index.cells.items():
        model = entry.title.partition("  ")[0]
        states.setdefault(model, Counter())[surveyed.states[cell]] += 1
        stages.setdefault(model, {}).update(dict.fromkeys(entry.stages))
    return tuple(of_model(model, states[model], list(stages[model]), surveyed, progress) for model in states)


def of_model(
    model: str, states: Mapping[State, int], stages: Sequence[StageId], surveyed: Survey, progress: Mapping[StageId, StageProgress]
) -> ModelProgress:
    """The progress of a model with these stages."""
    weight = {stage: float(max(1, surveyed.index.stages[stage].epochs)) for stage in stages}
    trained = {stage: weight[stage] * fraction_of(stage, surveyed, progress) for stage in stages}
    lost = sum(weight[stage] - trained[stage] for stage in stages if stage in surveyed.dropped)
    return ModelProgress(model=model, cells=states, epochs=sum(weight.values()), trained=sum(trained.values()), lost=lost)


def fraction_of(stage: StageId, surveyed: Survey, progress: Mapping[StageId, StageProgress]) -> float:
    """Of a stage's steps, those that are done."""
    if surveyed.done(stage):
        return 1.0
    now = progress.get(stage)
    return now.step / now.steps if now is not None and now.steps else 0.0
