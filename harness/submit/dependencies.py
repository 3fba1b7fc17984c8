"""Jobs as few SLURM arrays, each job waiting for its own parents alone.

SLURM can pair the tasks of two arrays that have the same number (aftercorr), or let a whole array wait for one task (afterok). So the children of an
array are submitted either as "the first children of all", "the second children of all" ..., or as "all children of one", whichever takes fewer
submissions. Throughout, a job is its number in the list of all jobs.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.plan.jobs import levels
from jobs.experiment.ids import JobId

PAIRED = -1  # instead of a task: every task waits for the task of the same number


@dataclass(frozen=True, kw_only=True)
class Array:
    """One submission."""

    jobs: Mapping[int, int]  # by task
    after: tuple[tuple[int, int], ...]  # what it waits for: the number of an array, and a task of that array or PAIRED
    level: int  # 0: waits for nothing
    however: bool = False  # True: it starts however those end


def fan_out(
    parents: Sequence[frozenset[int]],
    max_tasks: int,
    submitted: Sequence[Mapping[int, int]] = (),
    sizes: Sequence[int] = (),
    choosing: Collection[int] = (),
) -> list[Array]:
    """Arrays of at most `max_tasks` jobs, parents first. `parents`: for each job those that it waits for, all with smaller numbers.

    submitted: jobs by task of the arrays that SLURM has already. They come first, unchanged, and wait for nothing here. sizes: of each job, as a
    number; the jobs of an array have one size. Empty: all are equal. choosing: jobs that only choose among trials. They start however the jobs
    before them end: a trial may fail.
    """
    arrays = [Array(jobs=jobs, after=(), level=0) for jobs in submitted]
    tasks = {job: (number, task) for number, array in enumerate(arrays) for task, job in array.jobs.items()}
    for level, members in enumerate(by_level(parents)):
        first, new = len(arrays), [job for job in members if job not in tasks]
        patient = [job for job in new if job in choosing and parents[job]]
        for equal in alike([job for job in new if job not in patient], sizes):
            arrays += [Array(jobs=jobs, after=after, level=level) for jobs, after in _grouped(equal, parents, arrays, tasks, max_tasks)]
        arrays += [Array(jobs={0: job}, after=tuple(tasks[parent] for parent in sorted(parents[job])), level=level, however=True) for job in patient]
        tasks |= {job: (number, task) for number, array in enumerate(arrays[first:], first) for task, job in array.jobs.items()}
    return arrays


def alike(jobs: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """The jobs in lists of one size each."""
    lists: dict[int, list[int]] = {}
    for job in jobs:
        lists.setdefault(sizes[job] if sizes else 0, []).append(job)
    return list(lists.values())


def by_level(parents: Sequence[frozenset[int]]) -> list[list[int]]:
    """The jobs of each level."""
    depths = levels(parents)
    members: list[list[int]] = [[] for _ in range(1 + max(depths, default=-1))]
    for job, level in enumerate(depths):
        members[level].append(job)
    return members


JobsAfter = tuple[dict[int, int], tuple[tuple[int, int], ...]]  # an array's jobs by task, and what it waits for


def _grouped(
    members: Sequence[int], parents: Sequence[frozenset[int]], arrays: Sequence[Array], tasks: Mapping[int, tuple[int, int]], max_tasks: int
) -> list[JobsAfter]:
    """The arrays of one level. `tasks`: array and task of every job of the levels before."""
    roots: list[int] = []
    single: list[JobsAfter] = []
    children: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # array -> task -> jobs
    for job in members:
        nearest = nearest_parents(parents[job], parents)
        if not nearest:
            roots.append(job)
        elif len(nearest) == 1:
            array, task = tasks[nearest[0]]
            children[array][task].append(job)
        else:
            single.append(({0: job}, tuple(tasks[parent] for parent in nearest)))
    groups: list[JobsAfter] = [(part, ()) for part in _cut(roots, max_tasks)]
    for array, by_task in children.items():
        groups += _siblings(array, len(arrays[array].jobs), by_task, max_tasks)
    return groups + single


def _siblings(array: int, size: int, by_task: Mapping[int, Sequence[int]], max_tasks: int) -> list[JobsAfter]:
    """The children of an array of `size` tasks, as few arrays: parents with many children have arrays of their own, the others are paired."""
    counts = [len(jobs) for jobs in by_task.values()]
    limits = [0] if size == 1 else sorted({0, *counts})
    limit = min(limits, key=lambda limit: limit + sum(-(-count // max_tasks) for count in counts if count > limit))
    groups: list[JobsAfter] = []
    for task, jobs in by_task.items():
        if len(jobs) > limit:
            groups += [(part, ((array, task),)) for part in _cut(jobs, max_tasks)]
    for rank in range(limit):
        paired = {task: jobs[rank] for task, jobs in by_task.items() if rank < len(jobs) <= limit}
        if len(paired) == 1:
            groups += [({0: job}, ((array, task),)) for task, job in paired.items()]
        elif paired:
            groups.append((paired, ((array, PAIRED),)))
    return groups


def _cut(jobs: Sequence[int], size: int) -> list[dict[int, int]]:
    """Jobs in arrays of at most `size` tasks, numbered from 0."""
    return [dict(enumerate(jobs[first : first + size])) for first in range(0, len(jobs), size)]


def nearest_parents(candidates: frozenset[int], parents: Sequence[frozenset[int]]) -> list[int]:
    """Those of `candidates` that no other of them waits for already."""
    if len(candidates) < 2:
        return list(candidates)
    ancestors: set[int] = set()
    ahead = [parent for candidate in candidates for parent in parents[candidate]]
    while ahead:
        job = ahead.pop()
        if job not in ancestors:
            ancestors.add(job)
            ahead += parents[job]
    return sorted(candidates - ancestors)


def dependency(array: Array, ids: Sequence[Mapping[int, JobId]]) -> str:
    """What an array waits for, as sbatch's --dependency has it. `ids`: SLURM's job ids by task, of each array before it."""
    if not array.after:
        return ""
    first, task = array.after[0]
    if task == PAIRED:
        return f"aftercorr:{next(iter(ids[first].values())).array}"
    return ("afterany:" if array.however else "afterok:") + ":".join(str(ids[parent][task]) for parent, task in array.after)


def jobs_at_a_time(arrays: Sequence[Array], limit: int | None) -> list[int]:
    """How many of its jobs each array may run at a time, so that a level keeps to `limit`: at least one each, and 0 for no limit."""
    if limit is None:
        return [0] * len(arrays)
    members: dict[int, list[int]] = defaultdict(list)
    for number, array in enumerate(arrays):
        members[array.level].append(number)
    allowed = [0] * len(arrays)
    for numbers in members.values():
        each, rest = divmod(limit, len(numbers))
        for position, number in enumerate(numbers):
            allowed[number] = max(1, each + (position < rest))
    return allowed
