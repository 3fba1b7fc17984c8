"""The GPUs that local jobs get: those of CUDA_VISIBLE_DEVICES, else all of this machine. Each job has its own."""

import os

from jobs.experiment.specs import ClusterSpec

VARIABLE = "CUDA_VISIBLE_DEVICES"
BY_NAME = ("GPU-", "MIG-")  # beginnings of UUIDs


def visible_gpus() -> tuple[str, ...]:
    """What names each GPU in CUDA_VISIBLE_DEVICES: a number or a UUID. As CUDA does, entries behind the first that names no GPU are left out.

    Without the variable: each GPU by its number, or by the UUIDs of the slices into which MIG cuts it.
    """
    count, given = installed_gpus(), os.environ.get(VARIABLE)
    if given is None:
        return tuple(name for number in range(count) for name in slices_of(number) or (str(number),))
    names: dict[str, None] = {}
    for name in map(str.strip, given.split(",")):
        if not (name.startswith(BY_NAME) or (name.isascii() and name.isdecimal() and int(name) < count)):
            break
        names[name] = None
    return tuple(names)


def installed_gpus() -> int:
    """The number of this machine's NVIDIA GPUs, by NVML; 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def slices_of(number: int) -> tuple[str, ...]:
    """The UUIDs of the slices into which MIG cuts a GPU; none where it is whole. CUDA shows a process one slice at most."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        if pynvml.nvmlDeviceGetMigMode(handle)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return ()
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:  # no driver, or a card that knows no MIG
        return ()
    names = []
    for position in range(most):
        try:
            names.append(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, position)))
        except pynvml.NVMLError:  # no slice at this position
            continue
    return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


def gpus_of_slot(cluster: ClusterSpec, slot: int) -> tuple[str, ...]:
    """The GPUs of a job, by its number among those that run side by side. ValueError where there are not enough."""
    first, end = slot * cluster.gpus_per_node, (slot + 1) * cluster.gpus_per_node
    if end == 0 or end <= len(gpus := visible_gpus()):
        return gpus[first:end] if end else ()
    raise ValueError(f"{end} GPUs are needed for {slot + 1} jobs at a time, and this machine has {described(gpus)}")


def gpu_problems(cluster: ClusterSpec) -> list[str]:
    """Jobs on this machine that ask for more GPUs than it has."""
    if cluster.kind == "slurm" or not cluster.gpus_per_node:
        return []
    gpus, jobs = visible_gpus(), cluster.max_parallel or 1
    if cluster.gpus_per_node > len(gpus):
        return [f"cluster.gpus_per_node: a job needs {cluster.gpus_per_node}, and this machine has {described(gpus)}"]
    if jobs * cluster.gpus_per_node > len(gpus):
        most = len(gpus) // cluster.gpus_per_node
        needed = f"{jobs} jobs at a time with {cluster.gpus_per_node} GPUs each need {jobs * cluster.gpus_per_node}"
        return [f"cluster.max_parallel: {needed}, and this machine has {described(gpus)}; use at most {most}"]
    return []


def described(gpus: tuple[str, ...]) -> str:
    """The number of GPUs, and what decides it."""
    given = os.environ.get(VARIABLE)
    return f"{len(gpus)}, by " + ("NVML" if given is None else f"{VARIABLE}={given!r} and NVML")
