"""A forest of orders as few SLURM arrays, each task waiting for its own parent and for nothing else.

SLURM can pair the tasks of two arrays that have the same number (aftercorr), or let a whole array wait for one task (afterok). So the children of an
array are submitted either as "the first children of all", "the second children of all" ..., or as "all children of one"; whichever takes fewer submissions.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAIRED = -1  # in place of a task: every task waits for the one of the same number


@dataclass(frozen=True, kw_only=True)
class Array:
    """One submission."""

    orders: Mapping[int, int]  # task id -> place among the orders
    after: tuple[tuple[int, int], ...]  # (place among the arrays, task or PAIRED) of all that it waits for
    level: int  # 0: waits for nothing


def fan_out(before: Sequence[frozenset[int]], chunk: int, submitted: Sequence[Mapping[int, int]] = ()) -> list[Array]:
    """Arrays, parents first. `before`: for each order the places of those that it waits for, all smaller. `chunk`: the most tasks of an array.

    submitted: orders by task of arrays that SLURM has already; they come first, as they are, and wait for nothing here.
    """
    arrays = [Array(orders=tasks, after=(), level=0) for tasks in submitted]
    place = {order: (index, task) for index, array in enumerate(arrays) for task, order in array.orders.items()}
    for level, members in enumerate(by_level(before)):
        first, new = len(arrays), [order for order in members if order not in place]
        arrays += [Array(orders=tasks, after=after, level=level) for tasks, after in grouped(new, before, arrays, place, chunk)]
        place |= {order: (first + index, task) for index, array in enumerate(arrays[first:]) for task, order in array.orders.items()}
    return arrays


def by_level(before: Sequence[frozenset[int]]) -> list[list[int]]:
    """Orders by the length of the longest way to them."""
    depth: list[int] = []
    for parents in before:
        depth.append(1 + max((depth[parent] for parent in parents), default=-1))
    levels: list[list[int]] = [[] for _ in range(1 + max(depth, default=-1))]
    for order, level in enumerate(depth):
        levels[level].append(order)
    return levels


Group = tuple[dict[int, int], tuple[tuple[int, int], ...]]  # task -> order; what the array waits for


def grouped(
    members: Sequence[int], before: Sequence[frozenset[int]], arrays: Sequence[Array], place: Mapping[int, tuple[int, int]], chunk: int
) -> list[Group]:
    """One level's arrays."""
    roots: list[int] = []
    alone: list[Group] = []
    children: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # array -> task -> orders
    for order in members:
        parents = nearest(before[order], before)
        if not parents:
            roots.append(order)
        elif len(parents) == 1:
            array, task = place[parents[0]]
            children[array][task].append(order)
        else:
            alone.append(({0: order}, tuple(place[parent] for parent in parents)))
    found: list[Group] = [(part, ()) for part in chunks(roots, chunk)]
    for array, by_task in children.items():
        found += siblings(array, len(arrays[array].orders), by_task, chunk)
    return found + alone


def siblings(array: int, size: int, by_task: Mapping[int, Sequence[int]], chunk: int) -> list[Group]:
    """The children of one array of `size` tasks, as few arrays: parents with many children have arrays of their own, the others are paired."""
    counts = [len(orders) for orders in by_task.values()]
    limits = [0] if size == 1 else sorted({0, *counts})
    limit = min(limits, key=lambda limit: limit + sum(-(-count // chunk) for count in counts if count > limit))
    found: list[Group] = []
    for task, orders in by_task.items():
        if len(orders) > limit:
            found += [(part, ((array, task),)) for part in chunks(orders, chunk)]
    for rank in range(limit):
        paired = {task: orders[rank] for task, orders in by_task.items() if rank < len(orders) <= limit}
        if len(paired) == 1:
            found += [({0: order}, ((array, task),)) for task, order in paired.items()]
        elif paired:
            found.append((paired, ((array, PAIRED),)))
    return found


def chunks(orders: Sequence[int], size: int) -> list[dict[int, int]]:
    """Orders as arrays of at most `size` tasks, numbered from 0."""
    return [dict(enumerate(orders[first : first + size])) for first in range(0, len(orders), size)]


def nearest(parents: frozenset[int], before: Sequence[frozenset[int]]) -> list[int]:
    """Those of `parents` that no other of them waits for already."""
    if len(parents) < 2:
        return list(parents)
    above: set[int] = set()
    ways = [one for parent in parents for one in before[parent]]
    while ways:
        one = ways.pop()
        if one not in above:
            above.add(one)
            ways += before[one]
    return sorted(parents - above)


def dependency(array: Array, names: Sequence[Mapping[int, str]]) -> str:
    """SLURM's words for what an array waits for. `names`: job ids by task, of each array before it."""
    if not array.after:
        return ""
    if array.after[0][1] == PAIRED:
        return f"aftercorr:{next(iter(names[array.after[0][0]].values())).split('_')[0]}"
    return "afterok:" + ":".join(names[parent][task] for parent, task in array.after)


def shares(arrays: Sequence[Array], at_a_time: int | None) -> list[int]:
    """How many of its jobs each array may run at a time, so that a level keeps to `at_a_time`; 0 for no limit. At least one each."""
    if at_a_time is None:
        return [0] * len(arrays)
    places: dict[int, list[int]] = defaultdict(list)
    for index, array in enumerate(arrays):
        places[array.level].append(index)
    found = [0] * len(arrays)
    for members in places.values():
        whole, rest = divmod(at_a_time, len(members))
        for position, index in enumerate(members):
            found[index] = max(1, whole + (position < rest))
    return found
