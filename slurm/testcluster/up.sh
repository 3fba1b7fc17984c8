#!/usr/bin/env bash
# Starts a real SLURM on this machine: slurmctld and a few slurmd, each a node of its own. Needs root on Debian or Ubuntu, but no systemd, and touches
# none of your configuration. Safe to run again: it starts only what is not running. settings.sh lists the settings; down.sh stops the cluster.
# Exit code 3: this machine cannot have a cluster (no root, no packages).
#   slurm/testcluster/up.sh && source /tmp/vssm-testcluster-0/env.sh && sinfo
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for part in settings release packages configuration network daemons; do source "$HERE/$part.sh"; done

[ "$(id -u)" = 0 ] || { say "error: needs root: SLURM's daemons start jobs as any user" >&2; exit 3; }
if alive "$RUN/slurmctld.pid" slurmctld && [ "$(cat "$RUN/slurm")" != "$VERSION" ]; then die "it runs SLURM $(cat "$RUN/slurm") already: down.sh first"; fi
mkdir -p "$ETC" "$LOG" "$RUN" "$ROOT/state" "$ROOT/spool"
chmod 755 "$ROOT" "$ETC" "$LOG" "$RUN" # munged refuses folders that others can write
if ! installed; then say "installing $PACKAGES"; install_packages; fi
slurm_here || make_slurm
choose_mode
if alive "$RUN/slurmctld.pid" slurmctld && [ "$(cat "$RUN/mode")" != "$MODE" ]; then die "it runs in mode $(cat "$RUN/mode") already: down.sh first"; fi
echo "$MODE" >"$RUN/mode"
echo "$VERSION" >"$RUN/slurm"
{ echo "export SLURM_CONF=$SLURM_CONF"; [ "$VERSION" = own ] || echo "export PATH=$FOREIGN_BIN:\$PATH"; } >"$ROOT/env.sh"

write_configuration
start_network
start_munged
start_accounting
start_slurmctld
for ((node = 1; node <= NODES; node++)); do start_slurmd $node; done
wait_for "$NODES nodes" nodes_up
say "up: $NODES nodes x $CPUS CPUs, mode $MODE, SLURM $(slurmctld -V | cut -d" " -f2), accounting $ACCOUNTING; source $ROOT/env.sh"
