"""Python's garbage collector while packages are imported, and at the end of a process.

torch, DeepSpeed and FFCV have two million objects. The collector goes through them again and again while they are imported, and once more before the
process ends, which takes a third of the time of a job that trains for a second.
"""

import atexit
import gc

RARELY = (100_000, 50, 100)
USUAL = gc.get_threshold()  # Python's own, which differ by version: nothing has changed them when a process begins


def collect_rarely() -> None:
    """For a process that imports large packages next: few collections from here on, and none at the end."""
    gc.set_threshold(*RARELY)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """For a process that has imported them: a cycle of objects that holds large tensors is soon found again."""
    gc.set_threshold(*USUAL)
