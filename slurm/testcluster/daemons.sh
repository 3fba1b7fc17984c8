# Sourced by up.sh and down.sh: starts and stops the daemons. Each is known by its pid file.

start_munged() {
    alive "$RUN/munged.pid" munged || munged --force --socket="$MUNGE_SOCKET" --key-file="$ETC/munge.key" --pid-file="$RUN/munged.pid" \
        --log-file="$LOG/munged.log" --seed-file="$RUN/munged.seed" 2>>"$LOG/munged.log"
    wait_for munged munge -n --socket="$MUNGE_SOCKET"
}

start_accounting() {
    [ "$ACCOUNTING" = 1 ] || return 0
    local sql="mariadb --no-defaults --socket=$ROOT/mysql/mysqld.sock"
    if ! alive "$ROOT/mysql/mysqld.pid" mariadbd; then
        [ -d "$ROOT/mysql/mysql" ] || mariadb-install-db --no-defaults --user=mysql --datadir="$ROOT/mysql" --auth-root-authentication-method=socket \
            --skip-test-db --innodb-log-file-size=64M >"$LOG/mariadb-install.log" 2>&1
        setsid mariadbd --defaults-file="$ETC/my.cnf" >"$LOG/mariadb.log" 2>&1 </dev/null &
    fi
    wait_for MariaDB $sql -e 'SELECT 1'
    $sql -e "CREATE DATABASE IF NOT EXISTS slurm_acct_db; CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'testcluster'; GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'"
    alive "$RUN/slurmdbd.pid" slurmdbd || slurmdbd
    wait_for slurmdbd timeout 10 sacctmgr -n list cluster
    # with limits enforced, users without an association may not submit
    sacctmgr -i add cluster "testcluster$NUMBER" >/dev/null 2>&1 || true
    sacctmgr -i add account test >/dev/null 2>&1 || true
    sacctmgr -i add user root account=test >/dev/null 2>&1 || true
}

start_slurmctld() {
    if alive "$RUN/slurmctld.pid" slurmctld; then scontrol reconfigure; else slurmctld; fi
    wait_for slurmctld sh -c 'timeout 10 scontrol ping | grep -q "is UP"'
}

start_slurmd() { # NUMBER of the node: with a host name and /etc/hosts of its own if the mode has them
    local node=node$1 network=()
    mkdir -p "$ROOT/spool/$node"
    alive "$RUN/slurmd.$node.pid" slurmd && return
    [ "$MODE" != plain ] || { slurmd "${STEPD[@]}" -N "$node"; return; }
    [ "$MODE" = uts ] || network=(nsenter --net="/run/netns/$(namespace_of "$1")")
    "${network[@]}" unshare --uts --mount --propagation slave sh -c '
        hostname "$1"; mount --bind "$2/hosts" /etc/hosts; mount --bind "$2/nsswitch.conf" /etc/nsswitch.conf; shift 2; exec slurmd "$@"' sh "$node" "$ETC" "${STEPD[@]}" -N "$node"
}

# True when every node takes jobs. Resumes nodes that are down or drained, as after a restart of their slurmd.
nodes_up() {
    local up=0 node state
    while read -r node state; do
        case $state in
            idle | mix | alloc | comp) up=$((up + 1)) ;;
            down* | drain* | drng* | inval* | fail*) scontrol update NodeName="$node" State=RESUME || true ;;
        esac
    done < <(timeout 10 sinfo -h -N -p main -o '%N %t')
    [ "$up" = "$NODES" ]
}

stop_daemon() { # PIDFILE PROGRAM: ends that process, and no other process that may have got its number
    local pid tries=150
    alive "$1" "$2" || { rm -f "$1"; return 0; }
    pid=$(cat "$1")
    kill "$pid"
    while alive "$1" "$2" && ((tries--)); do sleep .1; done
    if [ -e "$1" ] && alive "$1" "$2"; then kill -9 "$pid"; fi
    rm -f "$1"
}

cancel_jobs() { # before the daemons stop: slurmstepd outlives slurmd
    alive "$RUN/slurmctld.pid" slurmctld || return 0
    local tries=100
    timeout 60 scancel --user=root 2>/dev/null || true
    while [ -n "$(timeout 10 squeue -h -t running,completing 2>/dev/null)" ] && ((tries--)); do sleep .1; done
}
