"""Jobs as arrays: each job waits for its own parents, in few submissions."""

from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from harness.submit.dependencies import PAIRED, Array, dependency, fan_out, jobs_at_a_time, nearest_parents
from jobs.experiment.ids import JobId

Graph = list[frozenset[int]]


@st.composite
def forests(draw: st.DrawFn) -> Graph:
    """Up to forty jobs, most of them with one parent, some with two."""
    size = draw(st.integers(0, 40))
    return [frozenset(draw(st.lists(st.integers(0, job - 1), max_size=2))) if job else frozenset() for job in range(size)]


def tasks_of(arrays: list[Array]) -> dict[int, tuple[int, int]]:
    """Array and task of every job."""
    return {job: (index, task) for index, array in enumerate(arrays) for task, job in array.jobs.items()}


def waits_for(arrays: list[Array], job: int) -> set[int]:
    """The jobs whose success SLURM waits for, as it reads its dependencies."""
    index, task = tasks_of(arrays)[job]
    return {arrays[parent].jobs[task if named == PAIRED else named] for parent, named in arrays[index].after}


@given(forests(), st.integers(1, 7))
def test_every_job_stands_once_and_waits_for_its_nearest_parents_alone(before: Graph, chunk: int) -> None:
    arrays = fan_out(before, chunk)
    assert sorted(job for array in arrays for job in array.jobs.values()) == list(range(len(before)))
    for job, parents in enumerate(before):
        assert waits_for(arrays, job) == set(nearest_parents(parents, before))


@given(forests(), st.integers(1, 7), st.data())
def test_an_array_has_jobs_of_one_size_and_each_still_waits_for_its_own_parents(before: Graph, chunk: int, data: st.DataObject) -> None:
    sizes = [data.draw(st.integers(0, 2)) for _ in before]
    arrays = fan_out(before, chunk, sizes=sizes)
    assert sorted(job for array in arrays for job in array.jobs.values()) == list(range(len(before)))
    assert all(len({sizes[job] for job in array.jobs.values()}) == 1 for array in arrays)
    for job, parents in enumerate(before):
        assert waits_for(arrays, job) == set(nearest_parents(parents, before))


@given(forests(), st.integers(1, 7))
def test_what_slurm_has_already_comes_first_and_is_waited_for_as_the_rest(forest: Graph, chunk: int) -> None:
    present = [{7: 0}, {3: 1, 4: 2}]
    before = [frozenset[int]()] * 3 + forest
    arrays = fan_out(before, chunk, present)
    assert [array.jobs for array in arrays[:2]] == present
    assert sorted(job for array in arrays for job in array.jobs.values()) == list(range(len(before)))
    for job, parents in enumerate(before):
        assert waits_for(arrays, job) == set(nearest_parents(parents, before))


@given(forests(), st.integers(1, 7))
def test_arrays_keep_to_what_slurm_allows(before: Graph, chunk: int) -> None:
    for array in (arrays := fan_out(before, chunk)):
        assert len(array.jobs) <= chunk and max(array.jobs) < chunk
        assert all(parent < arrays.index(array) for parent, _ in array.after)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=30))
def test_children_take_no_more_submissions_than_either_way_alone(children: list[int]) -> None:
    before = [frozenset[int]()] * len(children) + [frozenset({parent}) for parent, count in enumerate(children) for _ in range(count)]
    submissions = len(fan_out(before, 1001)) - 1
    assert submissions <= min(max(children), sum(count > 0 for count in children))
    assert submissions <= 2 * sqrt(sum(children))


def test_a_thousand_cells_take_a_handful_of_submissions() -> None:
    trunks, methods = 90, 11
    before = [frozenset[int]()] * trunks + [frozenset({job % trunks}) for job in range(trunks * methods)]
    assert len(fan_out(before, 1001)) == 1 + methods
    alone = [frozenset[int]()] + [frozenset({0})] * 1000
    assert len(fan_out(alone, 1001)) == 2


def test_arrays_are_cut_where_slurm_ends_them() -> None:
    arrays = fan_out([frozenset[int]()] * 25, 10)
    assert [len(array.jobs) for array in arrays] == [10, 10, 5]


def test_dependencies_are_written_as_sbatch_takes_them() -> None:
    ids = [{0: JobId(number=17, task=0), 1: JobId(number=17, task=1)}, {0: JobId(number=18)}]
    assert dependency(Array(jobs={0: 5, 1: 6}, after=((0, PAIRED),), level=1), ids) == "aftercorr:17"
    assert dependency(Array(jobs={0: 5}, after=((0, 1),), level=1), ids) == "afterok:17_1"
    assert dependency(Array(jobs={0: 5}, after=((0, 1), (1, 0)), level=1), ids) == "afterok:17_1:18"
    assert dependency(Array(jobs={0: 5}, after=(), level=0), ids) == ""


def test_a_parent_behind_another_parent_is_not_waited_for_twice() -> None:
    before = [frozenset[int](), frozenset({0}), frozenset({0, 1}), frozenset({2, 0})]
    assert nearest_parents(before[2], before) == [1] and nearest_parents(before[3], before) == [2]


def test_the_limit_of_a_level_is_divided_among_its_arrays() -> None:
    arrays = fan_out([frozenset[int]()] * 30 + [frozenset({job % 30}) for job in range(90)], 1001)
    assert jobs_at_a_time(arrays, 10) == [10, 4, 3, 3]
    assert jobs_at_a_time(arrays, 2) == [2, 1, 1, 1] and jobs_at_a_time(arrays, None) == [0, 0, 0, 0]


@given(forests(), st.integers(1, 7), st.data())
def test_a_choice_starts_however_the_jobs_before_it_end(before: Graph, chunk: int, data: st.DataObject) -> None:
    choosing = data.draw(st.sets(st.sampled_from(range(len(before))))) if before else set()
    arrays = fan_out(before, chunk, choosing=choosing)
    assert sorted(job for array in arrays for job in array.jobs.values()) == list(range(len(before)))
    for job, parents in enumerate(before):
        array = arrays[tasks_of(arrays)[job][0]]
        assert array.however == (job in choosing and bool(parents))
        assert waits_for(arrays, job) == set(parents if array.however else nearest_parents(parents, before))


def test_slurm_is_told_to_wait_for_any_end() -> None:
    ids = [{0: JobId(number=17, task=0), 1: JobId(number=17, task=1)}, {0: JobId(number=18)}]
    assert dependency(Array(jobs={0: 5}, after=((0, 1), (1, 0)), level=1, however=True), ids) == "afterany:17_1:18"
