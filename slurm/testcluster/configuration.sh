# Sourced by up.sh: writes every file that the daemons read to $ETC. Outside of $ROOT it writes only names to /etc/hosts, in mode plain.

address_of() { # of node $1
    case $MODE in netns) echo "$NETWORK.$1" ;; uts) echo "127.0.$((77 + NUMBER)).$1" ;; plain) echo 127.0.0.1 ;; esac
}

write_configuration() {
    HOST=$(hostname) CONTROLLER=127.0.0.1
    [ "$MODE" = netns ] && CONTROLLER=$NETWORK.254
    [ -s "$ETC/munge.key" ] || (umask 077 && dd if=/dev/urandom of="$ETC/munge.key" bs=1024 count=1 status=none)
    # Job ids must not repeat: submitit trusts result files of an earlier job with the same id.
    [ -s "$ROOT/first_job_id" ] || echo $((($(date +%s) - 1700000000) / 4 % 60000000)) >"$ROOT/first_job_id"
    slurm_conf >"$ETC/slurm.conf"
    gres_conf >"$ETC/gres.conf"
    cgroup_conf >"$ETC/cgroup.conf"
    if [ "$ACCOUNTING" = 1 ]; then
        slurmdbd_conf >"$ETC/slurmdbd.conf"
        chmod 600 "$ETC/slurmdbd.conf"
        mariadb_conf >"$ETC/my.cnf"
    fi
    names
}

plugin_dir() { [ "$VERSION" = own ] || echo "PluginDir=$FOREIGN_LIB"; }

slurm_conf() {
    cat <<CONF
ClusterName=testcluster$NUMBER
FirstJobId=$(cat "$ROOT/first_job_id")
SlurmctldHost=$HOST($CONTROLLER)
SlurmctldPort=$((PORT + 17))
$(plugin_dir)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its credential has expired: by default 120 s
AuthInfo=socket=$MUNGE_SOCKET,cred_expire=5
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd.%n.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd.%n.log
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# no cgroups and no binding to cores: works in containers
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=3
JobAcctGatherParams=OverMemoryKill,UsePss
PropagateResourceLimits=NONE
# believe the CPUs and the memory given below
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
# schedule at once
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,bf_max_job_array_resv=4,default_queue_depth=1000
PriorityType=priority/basic
MaxArraySize=1001
MaxJobCount=50000
MinJobAge=3600 # a job that has ended stays known for as long as anybody may look at it
# failures and preemption
JobRequeue=1
EnforcePartLimits=ALL
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=30
# if a job loses its node, its srun kills the step again after KillWait + 2 s: this must be over before the requeued job can start
KillWait=2
CompleteWait=0
UnkillableStepTimeout=50
MessageTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
CONF
    [ "$ACCOUNTING" = 0 ] || cat <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$CONTROLLER
AccountingStoragePort=$((PORT + 19))
# the name is misleading: munge's socket
AccountingStoragePass=$MUNGE_SOCKET
AccountingStorageEnforce=limits
CONF
    local node host gres=""
    [ "$GPUS" = 0 ] || gres=" Gres=gpu:$GPUS"
    for ((node = 1; node <= NODES; node++)); do
        host=node$node
        [ "$MODE" = plain ] && host=$HOST
        echo "NodeName=node$node NodeHostname=$host NodeAddr=$(address_of $node) Port=$((PORT + 50 + node)) CPUs=$CPUS RealMemory=$MEMORY$gres State=UNKNOWN"
    done
    local shared="Nodes=node[1-$NODES] DefaultTime=60 State=UP"
    echo "PartitionName=main $shared Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20 PreemptMode=REQUEUE"
    echo "PartitionName=high $shared MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF"
    echo "PartitionName=short $shared MaxTime=30 MaxNodes=2 PriorityTier=1 GraceTime=20 PreemptMode=REQUEUE"
}

cgroup_conf() { # slurmd 22.05 dies if it cannot find cgroups, although nothing here uses them. An empty folder as mount point is enough.
    [ "$VERSION" = own ] || { echo CgroupPlugin=disabled; return; }
    mkdir -p "$ROOT/nocgroup"
    printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=%s\nCgroupAutomount=no\n' "$ROOT/nocgroup"
}

gres_conf() { # SLURM needs a character device for each GPU: copies of /dev/null
    local gpu devices=()
    [ "$GPUS" = 0 ] && return
    mkdir -p "$ROOT/dev"
    for ((gpu = 0; gpu < GPUS; gpu++)); do
        [ -c "$ROOT/dev/nvidia$gpu" ] || mknod -m 666 "$ROOT/dev/nvidia$gpu" c 1 3 || die "cannot make character devices here: set TESTCLUSTER_GPUS=0"
        devices+=("$ROOT/dev/nvidia$gpu")
    done
    (IFS=, && echo "NodeName=node[1-$NODES] AutoDetect=off Name=gpu File=${devices[*]}")
}

slurmdbd_conf() {
    cat <<CONF
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
DbdHost=$HOST
DbdAddr=$CONTROLLER
DbdPort=$((PORT + 19))
$(plugin_dir)
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 30))
StorageUser=slurm
StoragePass=testcluster
StorageLoc=slurm_acct_db
LogFile=$LOG/slurmdbd.log
PidFile=$RUN/slurmdbd.pid
CONF
}

mariadb_conf() {
    cat <<CONF
[mariadbd]
user=mysql
datadir=$ROOT/mysql
socket=$ROOT/mysql/mysqld.sock
pid-file=$ROOT/mysql/mysqld.pid
bind-address=127.0.0.1
port=$((PORT + 30))
innodb_buffer_pool_size=64M
innodb_log_file_size=64M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
skip-name-resolve
CONF
}

names() { # the names of the nodes: mounted over /etc/hosts within them; in mode plain, where nothing can be mounted, written into it
    local node
    { printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$CONTROLLER" "$HOST"
      for ((node = 1; node <= NODES; node++)); do echo "$(address_of $node) node$node"; done; } >"$ETC/hosts"
    # No DNS within the nodes: torch looks up the names of its peers' addresses, and each query would wait 10 s for a server that a node cannot reach.
    { sed '/^hosts:/d' /etc/nsswitch.conf 2>/dev/null || true; echo 'hosts: files'; } >"$ETC/nsswitch.conf"
    [ "$MODE" != plain ] || { forget_names; { echo "# testcluster $NUMBER"; grep ' node' "$ETC/hosts"; echo "# end of testcluster $NUMBER"; } >>/etc/hosts; }
}

forget_names() {
    local kept
    grep -q "^# testcluster $NUMBER\$" /etc/hosts || return 0
    kept=$(sed "/^# testcluster $NUMBER\$/,/^# end of testcluster $NUMBER\$/d" /etc/hosts)
    printf '%s\n' "$kept" >/etc/hosts # in place: containers mount the file
}
