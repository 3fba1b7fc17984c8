"""python -m harness.doctor [profile | grid.yaml] [--job]: what this machine, its cluster and its file systems have for a run.

--job, inside an allocation (salloc, sbatch, srun): looks at every node of it too.
Exit codes: 0: ready, perhaps with warnings; 1: a run would fail; 2: usage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.grid.cluster_profile import profile_file, read_cluster
from harness.grid.read import read_grid
from harness.grid.yaml_source import GridError, Node, Report, read_yaml
from harness.health import containers, disks, gpus, network, scheduler, software
from harness.health.finding import Finding, State, error, ok
from harness.plan.containers import entered
from harness.plan.sizes import sizes_of_cells
from harness.text import counted, no_current_folder
from jobs.cluster.containers import command_inside, inside_variables, srun_options
from jobs.cluster.slurm import available
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.containers import same_path
from jobs.experiment.files import this_host, write_json
from jobs.experiment.output import printable, replace_unencodable, tells_lost_output
from jobs.experiment.run_folder import RUNS
from jobs.experiment.specs import ClusterSpec
from jobs.worker.environment import ROOT

READY, BROKEN, USAGE = 0, 1, 2
COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}
LIMIT_S = 600  # for what a node looks at


@tells_lost_output(USAGE)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    if problem := no_current_folder():
        print(problem, file=sys.stderr)
        return USAGE
    options = parse(arguments)
    try:
        cluster = cluster_of(options.profile)
    except GridError as wrong:
        print(wrong, file=sys.stderr)
        return USAGE
    if options.node:
        name = os.environ.get("SLURMD_NODENAME") or this_host()  # first: what follows forgets the job around it
        findings = collected(of_a_node(cluster, options.runs, options.mark))
        write_json(options.node / f"{name}.json", [asdict(finding) for finding in findings])
        return READY
    if options.job and "SLURM_JOB_ID" not in os.environ:
        print("--job looks from within an allocation: salloc --nodes=2 ... first, or srun python -m harness.doctor --job", file=sys.stderr)
        return USAGE
    nodes = of_all_nodes(cluster, options.profile, options.runs) if options.job else {}  # first: what follows forgets the job around it
    looks = chain(here(cluster, options.runs), scheduler.entries(sizes_in(options.profile)) if available() else ())
    reports = {f"{this_host()}, where you are": collected(looks), **nodes}
    show(reports, as_json=options.json)
    return BROKEN if any(finding.state == "error" for findings in reports.values() for finding in findings) else READY


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", nargs="?", help="a cluster profile, or a grid with its cluster (default: this machine alone)")
    parser.add_argument("--job", action="store_true", help="look at every node of the allocation in which this runs, too")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, by machine")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    parser.add_argument("--node", type=Path, help=argparse.SUPPRESS)  # what --job runs on each node: writes its findings to this folder
    parser.add_argument("--mark", help=argparse.SUPPRESS)  # the name of the file that --job left in the cache, if it could
    return parser.parse_args(arguments)


def cluster_of(name: str | None) -> ClusterSpec:
    """The cluster that a profile, or the `cluster` of a grid, describes. Raises GridError."""
    if name is None:
        return ClusterSpec()
    report = Report(name)
    cluster = read_cluster(described(Path(name)), Path(name), report)
    if report.problems:
        raise GridError(report.problems)
    return cluster


def described(path: Path) -> Node | None:
    """What a profile, or the `cluster` of a grid, says; None where a grid has none. Raises GridError."""
    node = read_yaml(path)[1]
    given = node.value.get("cluster") if isinstance(node.value, dict) and "models" in node.value else node
    return given if isinstance(given, Node) else None


def file_of(name: str) -> Path:
    """The file with the description of a cluster: the profile that a grid names, else the grid or profile itself."""
    given = described(Path(name))
    named = profile_file(given.value, Path(name)) if given and isinstance(given.value, str) else None
    return (named or Path(name)).resolve()


def sizes_in(name: str | None) -> list[tuple[str, ClusterSpec]]:
    """The sizes of jobs that a grid's entries make of its profile; none for a profile, and none for a grid with mistakes, which a launch tells."""
    try:
        grid = read_grid(Path(name or os.devnull))
    except GridError:
        return []
    return [(where, cluster) for where, cluster, _ in sizes_of_cells(grid, grid.cells)[1:]]


def here(cluster: ClusterSpec, runs: Path) -> Iterator[Finding]:
    """What there is to see on the machine where a user types."""
    yield from scheduler.scheduler(cluster)
    yield from containers.container(cluster)
    yield from machine(cluster, runs, on_node=cluster.kind != "slurm")


def of_a_node(cluster: ClusterSpec, runs: Path, mark: str | None) -> Iterator[Finding]:
    """What there is to see on a node. mark: a file's name in the cache, if the node sees the login node's; None where that has none."""
    if mark:
        yield from disks.same_folder(Path(cluster.cache).expanduser(), mark)
    yield from machine(cluster, runs, on_node=True)


def machine(cluster: ClusterSpec, runs: Path, *, on_node: bool) -> Iterator[Finding]:
    """Software, GPUs, file systems and network of this machine."""
    forget_outer_job()
    shared = cluster.kind == "slurm"
    yield from software.python_version()
    yield from software.packages()
    yield from software.built_parts()
    yield from gpus.gpus(cluster, on_node=on_node)
    yield from software.scan_kernels()
    yield from disks.disk("runs", runs.absolute(), shared=shared)
    yield from disks.disk("cache", Path(cluster.cache).expanduser(), shared=shared)
    yield from disks.home(Path(cluster.cache).expanduser())
    yield from disks.scratch()
    yield from network.network(cluster.nodes)


def collected(findings: Iterator[Finding]) -> list[Finding]:
    """All findings; an unforeseen exception becomes one, since the others are worth reading all the more."""
    known: list[Finding] = []
    try:
        known.extend(findings)
    except Exception as failed:  # whatever a broken machine raises
        known.append(error("doctor", f"{type(failed).__name__}: {failed}", "this ended the look at the rest; tell it to the authors"))
    return known


def of_all_nodes(cluster: ClusterSpec, profile: str | None, runs: Path) -> dict[str, list[Finding]]:
    """The findings of every node of the allocation, by name: from inside the container, if the cluster has one.

    They write them into the run folders' folder, which all of them are to see.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs.absolute(), prefix=".doctor-") as folder:
        try:
            command = ["srun", "--overlap", "--ntasks-per-node=1", *look(cluster, profile, runs, Path(folder))]
            mark = Path(folder).name
            with disks.marked(Path(cluster.cache).expanduser(), mark) as written:
                command += ["--mark", mark] if written else []
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        except ValueError as failed:
            return {"nodes": [error("container", str(failed), "correct the profile")]}
        except (OSError, subprocess.TimeoutExpired) as failed:
            return {"nodes": [error("srun", str(failed), "see that srun runs in this allocation: srun hostname")]}
        inside = ", inside its container" if cluster.container else ""
        reports = {
            f"{path.stem}{inside}": [Finding(**each) for each in json.loads(path.read_bytes())] for path in sorted(Path(folder).glob("*.json"))
        }
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or len(reports))
    if done.returncode:
        why = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        inside = f", or in {cluster.container.image}, and {cluster.container.runtime} on the nodes" if cluster.container else ""
        reports["nodes"] = [error("srun", why[-1], f"see that Python and the project are on the nodes{inside}")]
    elif len(reports) < nodes:
        text = f"{len(reports)} of {counted(nodes, 'node')} could write to {runs.absolute()}, so that this machine sees it"
        reports["nodes"] = [error("runs", text, "give a folder on a file system that the nodes share: --runs")]
    else:
        reports["nodes"] = [ok("runs", f"{counted(nodes, 'node')} wrote to {runs.absolute()}, and all of it is seen here")]
    return reports


def look(cluster: ClusterSpec, profile: str | None, runs: Path, folder: Path) -> list[str]:
    """What srun starts on each node, its own options first. ValueError where the container cannot mount what the look needs."""
    file = file_of(profile) if profile else None
    words = ["-m", "harness.doctor", "--node", str(folder), "--runs", str(runs.absolute()), *([str(file)] if file else [])]
    if cluster.container is None or file is None:
        return [sys.executable, *words]
    needed = [same_path(path) for path in (ROOT, runs.absolute(), file.parent)]
    inner = entered(cluster, cluster.container, needed, ROOT)
    assert inner.container is not None
    variables = {**inside_variables(inner.environment), "HOME": str(Path.home())}
    return [
        *srun_options(inner.container, folder),
        *command_inside(inner.container, words, variables, folder, gpus=cluster.promised_gpus),
    ]


def show(reports: dict[str, list[Finding]], *, as_json: bool) -> None:
    """Prints every finding, one line each."""
    if as_json:
        print(json.dumps({host: [asdict(finding) for finding in findings] for host, findings in reports.items()}, indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    for host, findings in reports.items():
        if len(reports) > 1:
            console.print(Text(f"\n{host}", style="bold"))
        for finding in findings:
            line = Text(f"{finding.state:8} ", style=COLOURS[finding.state]) + Text(f"{finding.topic}: {printable(finding.text)}")
            console.print(line + Text(f"\n         -> {printable(finding.remedy)}", style="dim") if finding.remedy else line)
    counts = {state: sum(finding.state == state for findings in reports.values() for finding in findings) for state in COLOURS}
    verdict = "ready" if not counts["error"] else "not ready"
    console.print(Text(f"{verdict}: {counted(counts['error'], 'error')}, {counted(counts['warning'], 'warning')}", style="bold"))


if __name__ == "__main__":
    sys.exit(main())
