# Sourced by up.sh and down.sh: in mode netns, a network namespace for each node, all of them on one bridge.

choose_mode() {
    [ "$MODE" = auto ] || return 0
    local probe=vssmp$$ # a name of its own: another cluster may be starting
    if ip netns add $probe 2>/dev/null && ip link add $probe type bridge 2>/dev/null; then MODE=netns
    elif unshare --uts --mount true 2>/dev/null; then MODE=uts
    else MODE=plain; fi
    ip link del $probe 2>/dev/null || true
    ip netns del $probe 2>/dev/null || true
}

namespace_of() { echo "vssm$NUMBER-node$1"; }

start_network() {
    [ "$MODE" = netns ] || return 0
    local node space
    ip link show "$BRIDGE" >/dev/null 2>&1 || { ip link add "$BRIDGE" type bridge; ip addr add "$NETWORK.254/24" dev "$BRIDGE"; ip link set "$BRIDGE" up; }
    for ((node = 1; node <= NODES; node++)); do
        space=$(namespace_of $node)
        [ -e "/run/netns/$space" ] && continue
        ip netns add "$space"
        ip link add "$BRIDGE-$node" type veth peer name eth0 netns "$space"
        ip link set "$BRIDGE-$node" master "$BRIDGE" up
        ip -n "$space" link set lo up
        ip -n "$space" addr add "$NETWORK.$node/24" dev eth0
        ip -n "$space" link set eth0 up
        ip -n "$space" route add default via "$NETWORK.254"
    done
}

stop_network() { # also ends what a killed job has left in the nodes
    local space link
    for space in /run/netns/vssm"$NUMBER"-node*; do
        [ -e "$space" ] || continue
        ip netns pids "${space##*/}" | xargs -r kill -9 2>/dev/null
        ip netns del "${space##*/}"
    done
    for link in /sys/class/net/"$BRIDGE" /sys/class/net/"$BRIDGE"-*; do [ ! -e "$link" ] || ip link del "${link##*/}" 2>/dev/null; done
}
