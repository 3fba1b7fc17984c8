"""The parts of a launch that concern its cost: the choice to which a run keeps, the estimate of what is left, a new choice."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cost.budget import hours_of
from harness.cost.chosen import NO_BUDGET, KeptChoice, decide, forget_choice, is_for, kept_choice, kept_to, write_choice
from harness.cost.estimate import Estimate
from harness.cost.gather import data_lines, gathered
from harness.cost.knowledge import Knowledge
from harness.cost.table import described
from harness.grid.read import Grid
from harness.plan.jobs import done_stages, make_jobs
from harness.plan.stages import StageGraph
from harness.submit.data_first import data_sets
from harness.text import counted
from jobs.experiment.job import PlannedCell
from jobs.experiment.run_folder import RunFolder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that concern cost."""
    parser.add_argument("--estimate", action="store_true", help="with --dry-run: what the plan will cost, by finished records and by steps timed now")
    parser.add_argument("--budget", help="launch as much of the grid as so many hours of GPUs, or of cores, pay: 200h, 90m, 2d; none: all of it")


def misuse(options: argparse.Namespace) -> str | None:
    """What is wrong with these options together. Raises BudgetError for a budget that is no time."""
    if options.budget not in (None, NO_BUDGET):
        hours_of(options.budget)
    if options.estimate and not options.dry_run:
        return "--estimate goes with --dry-run: it tells what a launch will cost, and launches nothing"
    return None


@dataclass(kw_only=True)
class Costs:
    """The cost of one launch."""

    run: RunFolder
    options: argparse.Namespace
    previous: KeptChoice | None = None
    new: KeptChoice | None = None
    knowledge: Knowledge | None = None
    to_choose: bool = False

    def within(self, grid: Grid) -> Grid:
        """The grid, or the part of it to which the run keeps already. Says so. Raises BudgetError."""
        self.previous = kept_choice(self.run)
        if self.previous and self.options.budget == NO_BUDGET:
            print(f"the budget of {self.previous.budget} holds no longer: this run has {counted(len(grid.cells), 'cell')} again", flush=True)
        elif self.previous and is_for(self.previous, grid, self.options.budget):
            grid, sentence = kept_to(grid, self.previous)
            print(sentence, flush=True)
        else:
            self.to_choose = self.options.budget not in (None, NO_BUDGET)
        return grid

    @property
    def wanted(self) -> bool:
        """True if costs are to be known."""
        return bool(self.options.estimate or self.to_choose)

    def gather(self, grid: Grid, graph: StageGraph, left: Sequence[PlannedCell], *, can_run: bool) -> None:
        """Learns what the cells that are left will take, and times what no record tells. Raises TimingError, SchedulerError, OSError."""
        jobs = make_jobs(grid, graph, self.run, left)
        self.knowledge = gathered(grid, self.run, self.options.runs, jobs, anew=self.options.estimate, can_run=can_run)

    def choose(self, grid: Grid, graph: StageGraph, left: Sequence[PlannedCell]) -> Grid:
        """The grid, or the part of it that a new budget pays. Says what is chosen and what is left out. Raises BudgetError."""
        if not self.to_choose:
            return grid
        decision = decide(grid, graph, self.run, self.estimate(grid, graph, left), self.options.budget)
        print(decision.text, flush=True)
        self.new = decision.choice
        return decision.grid

    def estimate(self, grid: Grid, graph: StageGraph, left: Sequence[PlannedCell]) -> Estimate:
        """The cost of the cells that are left."""
        assert self.knowledge is not None, "gather comes first"
        jobs, done = make_jobs(grid, graph, self.run, left), done_stages(graph, self.run)
        return Estimate(graph=graph, jobs=jobs, done=done, knowledge=self.knowledge, cluster=grid.cluster)

    def text(self, grid: Grid, graph: StageGraph, left: Sequence[PlannedCell]) -> str:
        """The estimate for people."""
        files = data_lines(grid.cluster, data_sets(planned.cell for planned in left))
        return described(self.estimate(grid, graph, left), files)

    @property
    def to_keep(self) -> bool:
        """True if `keep` has something to write, or to forget."""
        return self.new is not None or (self.previous is not None and self.options.budget == NO_BUDGET)

    def keep(self) -> None:
        """Keeps a new choice in the run folder, or forgets the one that holds no longer."""
        if self.new is not None:
            write_choice(self.run, self.new)
        elif self.options.budget == NO_BUDGET:
            forget_choice(self.run)
