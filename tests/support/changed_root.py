"""Stand-ins for apptainer, and for srun with pyxis, that really change root: a task sees its image, its mounts, and nothing else of this machine.

An image is a text file with the folders that are in it, one a line; the first holds its Python. It needs root, and the right to make mounts.
Run as a program with the words `apptainer exec ...` it does what apptainer would, and with `srun ...` what srun would.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys")  # of every image
CHANGE_ROOT = """
set -e
root=$1 path=$2 start=$3; shift 3
mount -t tmpfs none "$root"
while [ "$1" != -- ]; do
    source=${1%%:*} rest=${1#*:} mode=
    target=${rest%%:*}
    [ "$rest" = "$target" ] || mode=ro
    if [ -d "$source" ]; then mkdir -p "$root$target"; else mkdir -p "$(dirname "$root$target")"; [ -e "$root$target" ] || : >"$root$target"; fi
    mount --rbind "$source" "$root$target"
    [ -z "$mode" ] || mount -o remount,bind,ro "$root$target"
    shift
done
shift
mkdir -p "$root/tmp"
exec chroot "$root" /usr/bin/env PATH="$path" /bin/sh -c 'cd "$0" && exec "$@"' "$start" "$@"
"""


@cache
def can_change_root() -> bool:
    """True where this process may make mounts of its own."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def write_image(path: Path) -> Path:
    """An image with this Python and its packages, without the project's code and without this machine's other folders."""
    python = [os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)]
    path.write_text("\n".join(dict.fromkeys([*python, *(folder for folder in SYSTEM if os.path.exists(folder))])))
    return path


def write_commands(folder: Path) -> None:
    """The two commands, as scripts in a folder that stands first on PATH."""
    folder.mkdir(exist_ok=True)
    for name in ("apptainer", "srun"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {name} "$@"\n')
        (folder / name).chmod(0o755)


def inside(image: Path, mounts: list[str], start: str, words: list[str]) -> list[str]:
    """The command that runs `words` in an image."""
    folders = image.read_text().splitlines()
    root = image.with_suffix(".root")
    root.mkdir(exist_ok=True)
    path = f"{folders[0]}/bin:/usr/local/bin:/usr/bin:/bin"
    every = [*(f"{folder}:{folder}" for folder in folders), *mounts]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", CHANGE_ROOT, "sh", str(root), path, start, *every, "--", *words]


def apptainer(words: list[str]) -> list[str]:
    """What `apptainer exec` runs."""
    assert words.pop(0) == "exec"
    mounts, start = [], "/"
    while words[0].startswith("--"):
        match words.pop(0):
            case "--bind":
                mounts.append(words.pop(0))
            case "--pwd":
                start = words.pop(0)
            case "--no-mount":
                words.pop(0)
            case option:
                assert option in ("--no-eval", "--nv"), option
    return inside(Path(words[0]), mounts, start, words[1:])


def srun(words: list[str]) -> list[str]:
    """What `srun` runs, as the first task of a job of one; its output goes where srun's does."""
    options: dict[str, str] = {}
    while words[0].startswith("-"):
        option, _, value = words.pop(0).partition("=")
        options[option] = words.pop(0) if option == "--output" else value
    if "--output" in options:
        log = os.open(options["--output"].replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
    os.environ.update(SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_NTASKS="1")
    if "--container-image" not in options:
        return words
    return inside(Path(options["--container-image"]), options["--container-mounts"].split(","), options["--container-workdir"], words)


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    command = {"apptainer": apptainer, "srun": srun}[name](given)
    os.execvp(command[0], command)
