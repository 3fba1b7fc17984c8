# shellcheck shell=bash
# Part of the batch script of jobs whose tasks run in a container, before restart.sh. jobs/cluster/containers.py copies this text into the script.
#
# An image has no commands of SLURM, and could not reach SLURM's sockets and keys. The tasks need two of them: `scontrol requeue` when a job must leave
# its nodes, and squeue, which says whether another job is alive. So each task finds two scripts of these names first on its PATH. They leave what they
# were called with in a folder below $VSSM_OUTSIDE, and wait. The batch script, which runs outside, makes the call and leaves the answer there. A third
# script, `outside`, has it make any call, with what it reads: the command of `notify`. All of it lies in the job's folder, which all nodes see.
export VSSM_OUTSIDE
mkdir -p "$VSSM_OUTSIDE"
for name in squeue scontrol outside; do
    cat >"$VSSM_OUTSIDE/$name" <<'CALL'
#!/bin/sh
# Has the batch script, outside of the container, make this call.
name=${0##*/} limit=60
folder=$(mktemp -d "$VSSM_OUTSIDE/call-XXXXXXXX") || exit 1
if [ "$name" = outside ]; then
    limit=3600
    cat >"$folder/in"
else
    set -- "$name" "$@"
    : >"$folder/in"
fi
printf '%s\0' "$@" >"$folder/new" && mv "$folder/new" "$folder/asked"
waited=0
until [ -e "$folder/ended" ]; do
    if [ "$waited" -ge "$limit" ]; then
        echo "$name: unable to contact slurm: the batch script of this job does not answer" >&2
        exit 1
    fi
    sleep 1
    waited=$((waited + 1))
done
cat "$folder/out"
cat "$folder/error" >&2
code=$(cat "$folder/ended")
rm -r "$folder"
exit "$code"
CALL
    chmod +x "$VSSM_OUTSIDE/$name"
done

answer_call() { # FOLDER
    local words code=0
    mapfile -d '' words <"$1/taken"
    "${words[@]}" <"$1/in" >"$1/out" 2>"$1/error" || code=$?
    echo "$code" >"$1/new" && mv "$1/new" "$1/ended"
}

answer_calls() { # until the batch script ends
    local asked
    while kill -0 $$; do
        for asked in "$VSSM_OUTSIDE"/call-*/asked; do
            [ -e "$asked" ] || continue # the pattern itself, where nothing is asked
            mv "$asked" "${asked%asked}taken" && answer_call "${asked%/asked}" &
        done
        sleep 0.5
    done
    rm -rf "$VSSM_OUTSIDE"
}
answer_calls </dev/null >/dev/null 2>&1 &
