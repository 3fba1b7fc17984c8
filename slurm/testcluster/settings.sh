# Sourced by up.sh and down.sh: the settings, which environment variables may change, and what follows from them.
#   TESTCLUSTER=0             the number of the cluster, 0 to 9: each has its own folder, network and ports, so that several can run side by side
#   TESTCLUSTER_MODE=auto     netns: every node has its own host name, address and ports; uts: its own host name and 127.x address; plain: a slurmd a node
#   TESTCLUSTER_NODES=4  TESTCLUSTER_CPUS=2  TESTCLUSTER_MEMORY=5000  TESTCLUSTER_GPUS=2      of each node; SLURM does not check them (the GPUs are fakes)
#   TESTCLUSTER_SLURM=own     own: this machine's packages; 24.11: Debian 13's, in $TESTCLUSTER_CACHE (release.sh)
#   TESTCLUSTER_ACCOUNTING=0  1: with slurmdbd and MariaDB, so that sacct answers and limits of associations hold
#   TESTCLUSTER_PATIENCE=60   seconds until a daemon that does not answer is an error
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH LC_ALL=C
NUMBER=${TESTCLUSTER:-0}
MODE=${TESTCLUSTER_MODE:-auto} NODES=${TESTCLUSTER_NODES:-4} CPUS=${TESTCLUSTER_CPUS:-2} MEMORY=${TESTCLUSTER_MEMORY:-5000} GPUS=${TESTCLUSTER_GPUS:-2}
ACCOUNTING=${TESTCLUSTER_ACCOUNTING:-0} PATIENCE=${TESTCLUSTER_PATIENCE:-60}

ROOT=${TESTCLUSTER_ROOT:-/tmp/vssm-testcluster-$NUMBER}
ETC=$ROOT/etc LOG=$ROOT/log RUN=$ROOT/run
MUNGE_SOCKET=$RUN/munge.socket
NETWORK=10.213.$((77 + NUMBER)) BRIDGE=vssm$NUMBER # bridge: .254, nodes: .1 and up
PORT=$((16000 + 100 * NUMBER))                     # slurmctld +17, slurmdbd +19, MariaDB +30, slurmd of node i: +50 + i
export SLURM_CONF=$ETC/slurm.conf

say() { printf '[testcluster %s] %s\n' "$NUMBER" "$*"; }
die() { say "error: $*" >&2; tail -n 15 "$LOG"/*.log >&2 2>/dev/null || true; exit 1; }

# True while the process of a pid file runs the named program; a zombie does not.
alive() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] && ! grep -q '^State:.Z' "/proc/$pid/status"
}

# wait_for WHAT COMMAND...: returns when the command succeeds.
wait_for() {
    local what=$1 tries=$((PATIENCE * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        ((tries--)) || { "$@" || true; die "$what is not ready: $*"; }
        sleep .1
    done
}
