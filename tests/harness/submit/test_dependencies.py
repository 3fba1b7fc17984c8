"""Orders as arrays: each task waits for its own parents, in few submissions."""

from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from harness.submit.dependencies import PAIRED, Array, dependency, fan_out, nearest, shares

Graph = list[frozenset[int]]


@st.composite
def forests(draw: st.DrawFn) -> Graph:
    """Up to forty orders, most of them with one parent, some with two."""
    size = draw(st.integers(0, 40))
    return [frozenset(draw(st.lists(st.integers(0, order - 1), max_size=2))) if order else frozenset() for order in range(size)]


def placed(arrays: list[Array]) -> dict[int, tuple[int, int]]:
    """Array and task of every order."""
    return {order: (index, task) for index, array in enumerate(arrays) for task, order in array.orders.items()}


def waits_for(arrays: list[Array], order: int) -> set[int]:
    """The orders whose success SLURM waits for, as it reads its dependencies."""
    index, task = placed(arrays)[order]
    return {arrays[parent].orders[task if named == PAIRED else named] for parent, named in arrays[index].after}


@given(forests(), st.integers(1, 7))
def test_every_order_stands_once_and_waits_for_its_nearest_parents_alone(before: Graph, chunk: int) -> None:
    arrays = fan_out(before, chunk)
    assert sorted(order for array in arrays for order in array.orders.values()) == list(range(len(before)))
    for order, parents in enumerate(before):
        assert waits_for(arrays, order) == set(nearest(parents, before))


@given(forests(), st.integers(1, 7))
def test_what_slurm_has_already_comes_first_and_is_waited_for_as_the_rest(forest: Graph, chunk: int) -> None:
    present = [{7: 0}, {3: 1, 4: 2}]
    before = [frozenset[int]()] * 3 + forest
    arrays = fan_out(before, chunk, present)
    assert [array.orders for array in arrays[:2]] == present
    assert sorted(order for array in arrays for order in array.orders.values()) == list(range(len(before)))
    for order, parents in enumerate(before):
        assert waits_for(arrays, order) == set(nearest(parents, before))


@given(forests(), st.integers(1, 7))
def test_arrays_keep_to_what_slurm_allows(before: Graph, chunk: int) -> None:
    for array in (arrays := fan_out(before, chunk)):
        assert len(array.orders) <= chunk and max(array.orders) < chunk
        assert all(parent < arrays.index(array) for parent, _ in array.after)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=30))
def test_children_take_no_more_submissions_than_either_way_alone(children: list[int]) -> None:
    before = [frozenset[int]()] * len(children) + [frozenset({parent}) for parent, count in enumerate(children) for _ in range(count)]
    submissions = len(fan_out(before, 1001)) - 1
    assert submissions <= min(max(children), sum(count > 0 for count in children))
    assert submissions <= 2 * sqrt(sum(children))


def test_a_thousand_cells_take_a_handful_of_submissions() -> None:
    trunks, methods = 90, 11
    before = [frozenset[int]()] * trunks + [frozenset({order % trunks}) for order in range(trunks * methods)]
    assert len(fan_out(before, 1001)) == 1 + methods
    alone = [frozenset[int]()] + [frozenset({0})] * 1000
    assert len(fan_out(alone, 1001)) == 2


def test_arrays_are_cut_where_slurm_ends_them() -> None:
    arrays = fan_out([frozenset[int]()] * 25, 10)
    assert [len(array.orders) for array in arrays] == [10, 10, 5]


def test_dependencies_are_said_in_slurms_words() -> None:
    names = [{0: "17_0", 1: "17_1"}, {0: "18"}]
    assert dependency(Array(orders={0: 5, 1: 6}, after=((0, PAIRED),), level=1), names) == "aftercorr:17"
    assert dependency(Array(orders={0: 5}, after=((0, 1),), level=1), names) == "afterok:17_1"
    assert dependency(Array(orders={0: 5}, after=((0, 1), (1, 0)), level=1), names) == "afterok:17_1:18"
    assert dependency(Array(orders={0: 5}, after=(), level=0), names) == ""


def test_a_parent_behind_another_parent_is_not_waited_for_twice() -> None:
    before = [frozenset[int](), frozenset({0}), frozenset({0, 1}), frozenset({2, 0})]
    assert nearest(before[2], before) == [1] and nearest(before[3], before) == [2]


def test_the_jobs_at_a_time_are_shared_by_the_arrays_of_a_level() -> None:
    arrays = fan_out([frozenset[int]()] * 30 + [frozenset({order % 30}) for order in range(90)], 1001)
    assert shares(arrays, 10) == [10, 4, 3, 3]
    assert shares(arrays, 2) == [2, 1, 1, 1] and shares(arrays, None) == [0, 0, 0, 0]
