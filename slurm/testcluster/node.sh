#!/usr/bin/env bash
# Lets a node fail or return.
#   slurm/testcluster/node.sh kill node2     it dies with all that runs on it, and SLURM is not told
#   slurm/testcluster/node.sh start node2    it comes back
#   slurm/testcluster/node.sh cut node2      its network is cut; what runs on it lives on and still reaches its files. Needs mode netns
#   slurm/testcluster/node.sh mend node2     its network is mended
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unset TESTCLUSTER_SLURM # the running cluster knows which SLURM it has
for part in settings release configuration network daemons; do source "$HERE/$part.sh"; done

# The processes of jobs on node $1: they have its name and this cluster's configuration in their environment.
jobs_on() { grep -lzxs "SLURMD_NODENAME=$1" /proc/[0-9]*/environ | xargs -r grep -lzxs "SLURM_CONF=$SLURM_CONF" | cut -d/ -f3 || true; }

kill_node() {
    local node=$1 pids steps
    alive "$RUN/slurmd.$node.pid" slurmd || die "no slurmd of $node is running"
    pids="$(cat "$RUN/slurmd.$node.pid")"
    while [ -n "$pids" ]; do # all at once, slurmstepd first: a slurmstepd that sees its job end reports that, and SLURM takes the job for failed
        steps=$(for pid in $(jobs_on "$node"); do sed -n 's/^PPid:\t//p' "/proc/$pid/status" 2>/dev/null || true; done | sort -u |
            while read -r pid; do ! grep -qs '^slurmstepd' "/proc/$pid/comm" || echo "$pid"; done)
        kill -9 $pids $steps $(jobs_on "$node") 2>/dev/null || true
        sleep .1
        pids=$(jobs_on "$node")
    done
    say "$node is dead; SLURM will notice within 10 seconds or so"
}

link() { # down|up: the host's end of node $2's cable
    [ "$MODE" = netns ] || die "nodes have a network of their own in mode netns alone; this is mode $MODE"
    ip link set "$BRIDGE-${2#node}" "$1"
}

resume() { scontrol update NodeName="$1" State=RESUME 2>/dev/null || true; } # SLURM looks again at once

MODE=$(cat "$RUN/mode" 2>/dev/null) || die "no cluster $NUMBER is running"
node=${2:?usage: node.sh kill|start|cut|mend node2}
case $1 in
    kill) kill_node "$node" ;;
    start) start_slurmd "${node#node}" && resume "$node" ;;
    cut) link down "$node" && say "$node is cut off; SLURM will notice within half a minute" ;;
    mend) link up "$node" && resume "$node" ;;
    *) die "usage: node.sh kill|start|cut|mend node2" ;;
esac
