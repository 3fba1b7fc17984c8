"""Variables of the environment that belong to another job: that of the shell in which a command was typed, or of a container.

The grid says where its jobs run and with how many ranks. A shell within `salloc` or `srun`, a job of torchrun's, and some container images set the
same variables as SLURM and torchrun set for a job of ours.
"""

import os
import sys
import warnings
from collections.abc import Mapping

# Where the ranks of a job are. Of torchrun's own variables, those that start with TORCHELASTIC_ count too.
RANKS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NNODES", "NODE_RANK", "GROUP_RANK", "ROLE_RANK",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT", "MEETING_FILE",
)  # fmt: skip
OF_A_JOB = ("SLURM_", "SLURMD_", "SUBMITIT_", "VSSM_ATTEMPT")  # beginnings of names
OF_A_SITE = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS", "SLURM_SACK", "SLURM_TIME_FORMAT")  # how to reach SLURM: they describe no job
# SLURM's commands take these for options. Those of sbatch come before the lines of a job's script, which are the grid's.
OF_COMMANDS = ("SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_", "SBATCH_", "SALLOC_", "SRUN_", "SLURM_TIME_FORMAT")
STRICT = "error"  # the beginning of an option of Python's that makes errors of warnings
DEFAULTS = ("account", "partition", "qos", "reservation", "wckey")  # of sbatch: the user's own, where the grid does not say


def forget_outer_job() -> None:
    """Removes from this process's environment the variables of a job around it: the process is no job, and no rank of a job."""
    forget_outer_slurm()
    forget_outer_ranks()
    forget_strict_warnings()


def forget_strict_warnings() -> None:
    """Leaves warnings warnings, here and in processes that start from here, where PYTHONWARNINGS or -W makes errors of them: libraries warn."""
    if any(option.startswith(STRICT) for option in sys.warnoptions):
        warnings.simplefilter("default")
    if any(option.strip().startswith(STRICT) for option in os.environ.get("PYTHONWARNINGS", "").split(",")):
        del os.environ["PYTHONWARNINGS"]


def forget_outer_slurm() -> None:
    """Removes the variables of a job of SLURM's or submitit's around this process."""
    for name in [name for name in os.environ if name.startswith(OF_A_JOB) and not name.startswith(OF_A_SITE)]:
        del os.environ[name]


def forget_outer_ranks() -> None:
    """Removes the variables that make this process a rank of several."""
    for name in [name for name in os.environ if name in RANKS or name.startswith("TORCHELASTIC_")]:
        del os.environ[name]


def slurm_variables() -> dict[str, str]:
    """The environment in which SLURM's commands answer in the form that we read, and take options from us alone."""
    kept = tuple(variable(option) for option in DEFAULTS)
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(OF_COMMANDS)} | {"LC_ALL": "C"}


def sbatch_options(given: Mapping[str, object]) -> list[str]:
    """Options of sbatch's command line that keep what the grid says where a variable says otherwise. `given`: the options of the grid by name."""
    return [f"--{option}={given[option]}" for option in DEFAULTS if given.get(option) and variable(option) in os.environ]


def variable(option: str) -> str:
    """The variable that sbatch takes for an option."""
    return f"SBATCH_{option.upper()}"
