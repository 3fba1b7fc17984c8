"""Which process works, or last worked, on a stage: its part of stage.json.

stage.json    one attempt, with a description of the stage for people who read its folder; each attempt writes it anew when it starts
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.experiment.files import parsed, write_json
from jobs.experiment.ids import JobId
from jobs.experiment.run_folder import STAGE


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a stage."""

    started: str  # ISO 8601, UTC
    host: str = ""
    pid: int = 0
    job: JobId | None = None  # None: the process is no job of SLURM's
    nodes: str = ""  # SLURM's list, 'node[1-2]'
    restarts: int = 0  # how often SLURM had started the job before

    @property
    def name(self) -> str:
        """'17_3-0': SLURM's job, and how often it had been restarted."""
        return f"{self.job}-{self.restarts}"


def write_attempt(folder: Path, attempt: Attempt, description: Mapping[str, object]) -> None:
    """Writes stage.json for the stage in `folder`, whole or not at all. `description`: the stage's other fields."""
    slurm = {"job": str(attempt.job), "nodes": attempt.nodes, "restarts": attempt.restarts} if attempt.job else {}
    write_json(folder / STAGE, {**description, "started": attempt.started, "host": attempt.host, "pid": attempt.pid, **slurm})


def read_attempt(folder: Path) -> Attempt | None:
    """The last attempt at the stage in `folder`; None where none has started, or the file cannot be read."""
    try:
        content = parsed((folder / STAGE).read_bytes())
        return Attempt(
            started=content["started"],
            host=content.get("host", ""),
            pid=content.get("pid", 0),
            job=JobId.parse(content["job"]) if content.get("job") else None,
            nodes=content.get("nodes") or "",
            restarts=content.get("restarts", 0),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
