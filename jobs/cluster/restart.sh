# shellcheck shell=bash
# Part of every job's batch script, after its variables and before its own setup lines. jobs/cluster/slurm_arrays.py copies this text into the script
# when the job is submitted, so the node does not need to reach this file. It runs under bash, once for every attempt at the job.
#
# 1. Wait until SLURM has stopped killing what a previous attempt left behind.
#
# When a failed node returns, SLURM may give it the same job again. It then also sends the node commands to kill what is left of the previous attempt.
# These commands name only the job, or a step of the job, so they can hit the new attempt. There are three ways:
#
#   - A kill of the whole job comes within seconds, whatever has started meanwhile. The new attempt therefore sleeps 5 s before it starts anything.
#     If the kill ends its script with TERM, SLURM has not recorded an end of the job, and would not start it again: the script queues the job itself.
#   - The kill may instead take a node from the job. srun would then wait for that node for ever. The script counts the job's nodes after the sleep,
#     and queues the job again if one is missing.
#   - A kill of a step is repeated by slurmctld for minutes. It names the number of the step that the previous attempt was at. Attempt k therefore
#     starts k mod 5 steps that do nothing, so that its real step gets another number than that of the attempts before it.
#
# Every tenth restart goes on in any case, so that wrong answers of squeue cannot keep a job in the queue for ever.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    # squeue takes the bare id of an array's last task for the whole array, so a task is named by its array.
    job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}

    requeue_job() { # REASON: SLURM kills this script when it has queued the job again, at the latest while the script sleeps
        [ $((SLURM_RESTART_COUNT % 10)) -eq 0 ] && return
        echo "$1: back into the queue"
        scontrol requeue "$job" && sleep 60
    }

    on_term() { # A job that SLURM still counts as running was not meant: TERM was for a previous attempt.
        local state
        state=$(squeue --noheader --states=all --format=%T --jobs="$job")
        if [ "$state" = RUNNING ]; then requeue_job "a kill that was meant for a previous attempt"; fi
        exit 143
    }
    trap on_term TERM

    sleep 5 &
    wait $! # unlike a plain sleep, wait lets the trap run at once

    nodes=$(squeue --noheader --format=%D --jobs="$job")
    nodes=${nodes:-$SLURM_JOB_NUM_NODES} # squeue says nothing while slurmctld does not answer
    if [ "$nodes" -lt "$SLURM_JOB_NUM_NODES" ]; then requeue_job "SLURM has left this job $nodes of its $SLURM_JOB_NUM_NODES nodes"; fi

    for _ in $(seq $((SLURM_RESTART_COUNT % 5))); do srun -N 1 -n 1 true; done
    trap - TERM
fi

# 2. End the tasks of this attempt together with its script.
#
# If a node's slurmd dies, tasks live on that no srun controls any more. If such a task still runs when slurmd returns, SLURM kills everything that
# carries the job's number, the script of a new attempt included. So when the script of an attempt ends, it kills the tasks of that attempt on its
# node. It recognizes them by a variable that they inherit.
VSSM_ATTEMPT=$SLURM_JOB_ID.$(date +%s%N)
export VSSM_ATTEMPT

tasks_of_attempt() { # the processes of this attempt on this node
    grep -lzsxF "VSSM_ATTEMPT=$VSSM_ATTEMPT" /proc/[0-9]*/environ | xargs -r grep -lzsxF "SLURMD_NODENAME=$SLURMD_NODENAME" | cut -d/ -f3
}
trap 'kill -9 $(tasks_of_attempt) 2>/dev/null' EXIT
