"""The data of a stage as a job finds it on its node: verified, and copied to the node's own disk where the profile asks for it."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.experiment.specs import ClusterSpec, DataSpec

if TYPE_CHECKING:
    from jobs.data.prepare import Dataset
    from jobs.parallel.engine import Ranks

POLL_S = 1.0  # between two questions to all ranks whether their nodes have the data


def data_on_this_node(data: DataSpec, cluster: ClusterSpec, ranks: "Ranks") -> "Dataset":
    """The data set, ready to load. A collective. Raises DataError where it is not written yet, or cannot be copied."""
    from jobs.data.prepare import ready

    dataset = ready(data, Path(cluster.cache).expanduser(), by_content=cluster.hash_data)
    if cluster.cache_local is None:
        return dataset
    from jobs.data.local_copy import copied, local_cache

    local = local_cache(cluster.cache_local)
    with ThreadPoolExecutor(1) as thread:
        return awaited(thread.submit(copied, dataset, local), ranks)


def awaited(copying: "Future[Dataset]", ranks: "Ranks") -> "Dataset":
    """The result, once all ranks have theirs. They ask each other every second: a copy may take longer than a collective may.

    Raises DataError where a rank's copy fails: its own, or that another rank's did.
    """
    if ranks.world > 1:
        while count(not copying.done(), ranks):
            time.sleep(POLL_S)
        if count(copying.exception() is not None, ranks) and copying.exception() is None:
            from jobs.data.beton import DataError

            raise DataError("another rank could not copy the data to the disk of its node: its log says why")
    return copying.result()


def count(flag: bool, ranks: "Ranks") -> int:
    """How many ranks say so. A collective."""
    import torch

    return int(ranks.sum(torch.tensor([float(flag)], device=ranks.device)).item())
