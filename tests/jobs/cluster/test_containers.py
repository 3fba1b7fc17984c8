"""What srun and the batch script get for a container, and how tasks inside reach SLURM's commands.

tests/end_to_end/test_in_container.py runs such scripts in a root of their own.
"""

import os
import re
import shlex
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cluster.containers import ENTER, OUTSIDE, called_outside, command_inside, inside_variables, script_lines, srun_options
from jobs.cluster.slurm import SILENT
from jobs.cluster.slurm_arrays import RESTART, submission
from jobs.experiment.specs import ClusterSpec, ContainerSpec
from jobs.worker.code_copy import PACKAGES
from jobs.worker.environment import ROOT
from tests.support.waiting import PATIENCE_S, wait_until

PYXIS = ContainerSpec(image="nvidia/cuda:13.0.0-base-ubuntu24.04", runtime="pyxis", mounts=("/runs:/runs", "/data:/data:ro"))
APPTAINER = replace(PYXIS, image="/shared/vssm.sif", runtime="apptainer")
ENVIRONMENT = {"NCCL_DEBUG": "INFO", "NOTE": "it's $HOME, 1 2"}
INSIDE = ["sh", "-c", ENTER, "sh", "PYTHONNOUSERSITE=1", "NCCL_DEBUG=INFO", "NOTE=it's $HOME, 1 2", "python3", "-u", "-m", "jobs.cluster.start"]


def cluster_of(container: ContainerSpec, gpus: int = 0) -> ClusterSpec:
    return ClusterSpec(
        kind="slurm", container=container, gpus_per_node=gpus, environment=ENVIRONMENT, setup=("ulimit -n 4096",), slurm={"srun_args": ["--mpi=none"]}
    )


def srun_gets(tmp_path: Path, cluster: ClusterSpec) -> list[str]:
    """The words that the job's script calls srun with, on a node where srun only notes them."""
    script, tools = tmp_path / "submission.sh", tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    script.write_text(submission(cluster, tmp_path, [0], name="t"))
    (tools / "srun").write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/words\n')
    (tools / "srun").chmod(0o755)
    environment = os.environ | {"SLURM_JOB_ID": "17", "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(script)], env=environment, check=True, timeout=PATIENCE_S)
    return (tmp_path / "words").read_text().split("\0")[:-1]


def test_both_definitions_of_the_image_take_the_same_files_of_the_project_with_all_its_packages() -> None:
    of_apptainer = re.findall(r"^    (\S+) /opt/vssm-bench/\1$", (ROOT / "slurm" / "container.def").read_text(), re.M)
    of_docker = [word for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "slurm" / "Dockerfile").read_text(), re.M) for word in line.split()]
    assert of_apptainer == of_docker and all((ROOT / name).exists() for name in of_docker)
    assert {"setup.cfg", "pyproject.toml", "constraints.txt", "slurm", *PACKAGES} <= {*of_docker}


OWN = ["--kill-on-bad-exit=1", "--cpus-per-task=1", "--mpi=none"]


def test_srun_with_pyxis_gets_image_mounts_and_folder_and_starts_the_images_python(tmp_path: Path) -> None:
    assert srun_gets(tmp_path, cluster_of(PYXIS)) == [
        *("--unbuffered", "--output", f"{tmp_path}/%j_%t_log.out"),
        *OWN,
        "--container-image=nvidia/cuda:13.0.0-base-ubuntu24.04",
        "--container-mounts=/runs:/runs,/data:/data:ro",
        f"--container-workdir={tmp_path}",
        "--no-container-mount-home",
        *INSIDE,
        str(tmp_path),
    ]


@pytest.mark.parametrize(("gpus", "shown"), [(0, []), (2, ["--nv"])])
def test_srun_starts_apptainer_which_shows_gpus_to_jobs_that_have_some(tmp_path: Path, gpus: int, shown: list[str]) -> None:
    assert srun_gets(tmp_path, cluster_of(APPTAINER, gpus)) == [
        *("--unbuffered", "--output", f"{tmp_path}/%j_%t_log.out"),
        *OWN,
        *("sh", "-c", 'trap "" USR2; exec "$@"', "sh"),
        *("apptainer", "exec", "--no-eval", "--no-mount", "home,cwd", *shown, "--pwd", str(tmp_path)),
        *("--bind", "/runs:/runs", "--bind", "/data:/data:ro"),
        "/shared/vssm.sif",
        *INSIDE,
        str(tmp_path),
    ]


@pytest.mark.parametrize("container", [PYXIS, APPTAINER])
def test_sbatch_gets_no_option_of_a_container_and_the_script_runs_outside(tmp_path: Path, container: ContainerSpec) -> None:
    plain = submission(replace(cluster_of(container), container=None), tmp_path, [0, 1], name="t").splitlines()
    text = submission(cluster_of(container), tmp_path, [0, 1], name="t")
    assert [line for line in text.splitlines() if line.startswith("#SBATCH")] == [line for line in plain if line.startswith("#SBATCH")]
    assert (
        text.index(OUTSIDE.read_text().rstrip()) < text.index(RESTART.read_text().rstrip()) < text.index("\nulimit -n 4096\n") < text.index("\nsrun ")
    )
    assert OUTSIDE.read_text() not in "\n".join(plain) and "container" not in plain[-2]


def test_enroot_shows_gpus_to_jobs_that_have_some_unless_somebody_has_said_which(tmp_path: Path) -> None:
    assert [*script_lines(cluster_of(PYXIS, 1), PYXIS, tmp_path)][:2] == [
        'export NVIDIA_VISIBLE_DEVICES="${NVIDIA_VISIBLE_DEVICES:-all}"',
        'export NVIDIA_DRIVER_CAPABILITIES="${NVIDIA_DRIVER_CAPABILITIES:-compute,utility}"',
    ]
    for cluster, container in ((cluster_of(PYXIS), PYXIS), (cluster_of(APPTAINER, 1), APPTAINER)):
        assert "NVIDIA" not in "\n".join(script_lines(cluster, container, tmp_path))


def test_variables_of_a_profile_replace_those_of_the_image_and_slurms_commands_come_first(tmp_path: Path) -> None:
    words = command_inside(PYXIS, ["-c", "print()"], inside_variables(ENVIRONMENT), tmp_path, gpus=False)
    assert srun_options(replace(PYXIS, mounts=()), tmp_path)[1] == f"--container-workdir={tmp_path}"
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$NOTE|$NCCL_DEBUG|$PYTHONHOME$TMPDIR|$PATH|$*"\n')
    (tmp_path / "python3").chmod(0o755)
    image = {"PATH": f"{tmp_path}:/usr/bin:/bin", "NCCL_DEBUG": "WARN", "PYTHONHOME": "/elsewhere", "TMPDIR": "/no/such"}
    answers = [
        subprocess.run(words, env=image | outside, capture_output=True, text=True, check=True).stdout
        for outside in ({}, {"VSSM_OUTSIDE": "/outside"})
    ]
    mounted = subprocess.run(words, env=image | {"TMPDIR": "/usr"}, capture_output=True, text=True, check=True).stdout
    assert "|/usr|" in mounted
    assert answers[0] == f"it's $HOME, 1 2|INFO||{tmp_path}:/usr/bin:/bin|-c print()\n" and "|/outside:" in answers[1]


def test_a_signal_that_comes_before_python_listens_kills_no_task(tmp_path: Path) -> None:
    words = command_inside(PYXIS, [], {}, tmp_path, gpus=False)
    (tmp_path / "python3").write_text("#!/bin/sh\nkill -USR2 $$; echo alive\n")
    (tmp_path / "python3").chmod(0o755)
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"


@pytest.mark.parametrize("change", ["", "touch -d 2020-01-01 {}", "echo x >>{}", "rm {}"])
def test_a_job_whose_image_has_changed_since_the_launch_ends_and_says_so(tmp_path: Path, change: str) -> None:
    image = tmp_path / "it's vssm.sif"
    image.write_text("an image")
    container = replace(APPTAINER, image=str(image))
    first = next(iter(script_lines(cluster_of(container), container, tmp_path)))
    if change:
        subprocess.run(change.format(shlex.quote(str(image))), shell=True, check=True)
    done = subprocess.run(["bash", "-c", f"{first}\necho it runs"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == ((1, "") if change else (0, "it runs\n"))
    assert ("has changed since the launch" in done.stderr) == bool(change)


def outside(tmp_path: Path, tasks: str) -> "subprocess.CompletedProcess[str]":
    """A batch script that serves `tasks`, shell lines whose PATH has SLURM's commands only as a container has them."""
    tools, folder = tmp_path / "tools", tmp_path / "it's für uns" / "outside"
    tools.mkdir()
    (tools / "squeue").write_text('#!/bin/sh\nprintf "<%s>" "$@"; echo; echo "no such job" >&2; exit 3\n')
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    script = f"VSSM_OUTSIDE={shlex.quote(str(folder))}\n{OUTSIDE.read_text()}\n(PATH=$VSSM_OUTSIDE:/usr/bin:/bin\n{tasks}\n)"
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_calls_of_tasks_are_made_outside_with_their_words_answers_and_exit_codes(tmp_path: Path) -> None:
    calls = """squeue --jobs=17 '' "a b"; echo $?; scontrol requeue 1_2 & a=$!; scontrol requeue 3 & wait $a && wait $!; echo $?"""
    done = outside(tmp_path, calls)
    assert done.stdout == "<--jobs=17><><a b>\n3\n0\n" and done.stderr == "no such job\n"
    assert sorted((tmp_path / "asked").read_text().splitlines()) == ["requeue 1_2", "requeue 3"]


def test_a_command_of_notify_is_run_outside_with_what_it_reads_its_variables_and_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/bin/sh", "-c", 'cat; echo "$EVENT"; pwd; command -v squeue\nexit 4']
    monkeypatch.delenv("VSSM_OUTSIDE", raising=False)
    assert called_outside(words, {"EVENT": "end"}, "/", 9.0) == words
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.setenv("VSSM_OUTSIDE", str(tmp_path / "it's für uns" / "outside"))
    call = shlex.join(called_outside(words, {"EVENT": "it's\nover"}, str(folder), 9.0))
    done = outside(tmp_path, f"printf 'a\\nb\\n' | {call}; echo $?")
    assert done.stdout == f"a\nb\nit's\nover\n{folder}\n{tmp_path}/tools/squeue\n4\n", done.stderr


def test_a_script_that_has_ended_answers_no_call_and_the_task_says_why(tmp_path: Path) -> None:
    patient = OUTSIDE.read_text()
    assert "limit=60" in patient and "unable to contact slurm" in patient
    client = patient.split("<<'CALL'\n")[1].split("CALL\n")[0].replace("limit=60", "limit=0")
    (tmp_path / "squeue").write_text(client)
    (tmp_path / "squeue").chmod(0o755)
    done = subprocess.run([tmp_path / "squeue"], env=os.environ | {"VSSM_OUTSIDE": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "squeue: unable to contact slurm: the batch script of this job does not answer\n"
    assert SILENT.search(done.stderr), "nothing is known of the job then; in particular, not that it is gone"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_serves_the_tasks_ends_with_the_script_whatever_ends_that(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "outside"
    text = f"VSSM_OUTSIDE={folder}\n{OUTSIDE.read_text()}\necho serves\nread -r line"
    script = subprocess.Popen(["bash", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None and script.stdout.readline() == "serves\n"
    script.send_signal(number)
    script.wait()
    wait_until(lambda: not folder.exists(), "its folder to go")
