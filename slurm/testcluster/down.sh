#!/usr/bin/env bash
# Stops what up.sh started, with all jobs, and removes its folder with all logs. TESTCLUSTER_KEEP=1 keeps the folder.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unset TESTCLUSTER_SLURM # the running cluster knows which SLURM it has
for part in settings release configuration network daemons; do source "$HERE/$part.sh"; done

cancel_jobs
for file in "$RUN"/slurmd.*.pid; do [ ! -e "$file" ] || stop_daemon "$file" slurmd; done
stop_daemon "$RUN/slurmctld.pid" slurmctld
stop_daemon "$RUN/slurmdbd.pid" slurmdbd
stop_daemon "$ROOT/mysql/mysqld.pid" mariadbd
stop_daemon "$RUN/munged.pid" munged
stop_network
forget_names
[ "${TESTCLUSTER_KEEP:-0}" = 1 ] || rm -rf "$ROOT"
say "down"
