# A container with real systemd, a peer in a network namespace of its own, and a signed repository there.

WORK=
CT=moatct$$ PEER=moatpeer$$
UBUNTU=(noble resolute)
PIDS=()
# What else systemd-nspawn is told.
NSPAWN_OPTIONS=()

host_begin() {
    need mmdebstrap:mmdebstrap systemd-nspawn:systemd-container apt-ftparchive:apt-utils gpg:gnupg python3:python3 ip:iproute2 \
        iptables:iptables ipset:ipset nft:nftables
    WORK=$(mktemp -d /var/tmp/moat-packages.XXXXXX)
    exec 3>&2
    trap host_end EXIT
    ip netns add "$CT"
    ip netns add "$PEER"
    ip link add eth0 netns "$CT" type veth peer name eth0 netns "$PEER"
    ip -n "$CT" addr add 10.77.0.1/24 dev eth0
    ip -n "$PEER" addr add 10.77.0.2/24 dev eth0
    ip -n "$CT" link set lo up
    ip -n "$PEER" link set lo up
    ip -n "$CT" link set eth0 up
    ip -n "$PEER" link set eth0 up
}

host_end() {
    local status=$? pid
    if ((status)); then
        echo "tests/packages: FAILED at: ${step:-start}" >&3
        complain || true
    fi
    rm -f "$WORK/probing"
    host_off || true
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    ip netns del "$CT" 2>/dev/null || true
    ip netns del "$PEER" 2>/dev/null || true
    ip netns del "$GUEST" 2>/dev/null || true
    rm -rf --one-file-system "$WORK"
}

# host_root SUITE PACKAGE...: a root file system of a Debian or Ubuntu suite.
host_root() {
    local source='deb http://deb.debian.org/debian '$1' main' packages
    [[ " ${UBUNTU[*]} " != *" $1 "* ]] || source='deb [trusted=yes] http://archive.ubuntu.com/ubuntu '$1' main universe'
    packages=$(IFS=,; echo "${*:2}")
    # In a mount namespace of its own, so that nothing stays mounted whatever happens.
    unshare -m mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="systemd,systemd-sysv,dbus,udev,apt,iptables,ipset,nftables,iproute2,procps,netbase${packages:+,$packages}" \
        "$1" "$WORK/root" "$source"
    : >"$WORK/root/etc/machine-id"
    echo web1 >"$WORK/root/etc/hostname"
    rm -f "$WORK/root"/etc/apt/sources.list "$WORK/root"/etc/apt/sources.list.d/*
    # The link comes up as it does on a host: after network-pre.target.
    cat >"$WORK/root/etc/systemd/system/link.service" <<UNIT
[Unit]
DefaultDependencies=no
After=network-pre.target
[Service]
Type=oneshot
ExecStart=/sbin/ip link set eth0 up
UNIT
    mkdir -p "$WORK/root/etc/systemd/system/multi-user.target.wants"
    ln -s ../link.service "$WORK/root/etc/systemd/system/multi-user.target.wants/"
    # Two newer releases of systemd want the unified hierarchy.
    UNIFIED=0
    [[ $1 != sid && $1 != resolute ]] || UNIFIED=1
}

# host_on [KERNEL ARGUMENT...]: boots the container and waits for TARGET (multi-user.target).
host_on() {
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=$UNIFIED systemd-nspawn -q --boot --register=no --keep-unit -D "$WORK/root" \
        --machine=web1 --network-namespace-path="/run/netns/$CT" --capability=all --console=read-only "${NSPAWN_OPTIONS[@]}" -- "$@" \
        </dev/null >"$WORK/console" 2>&1 &
    NSPAWN=$!
    local i
    for ((i = 0; i < 500; i++)); do
        INIT=$(pgrep -P "$NSPAWN" -x systemd || pgrep -P "$NSPAWN" | head -1) || true
        [[ -n $INIT ]] && inside systemctl is-active "${TARGET:-multi-user.target}" >/dev/null 2>&1 && return
        sleep 0.2
    done
    cat "$WORK/console" >&2
    return 1
}

host_off() {
    [[ -n ${INIT-} ]] || return 0
    kill -s SIGRTMIN+4 "$INIT" 2>/dev/null || true
    wait "$NSPAWN" 2>/dev/null || true
    INIT=
}

inside() {
    nsenter -t "$INIT" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"
}

# All that a packet filter holds, for comparison. Once made, tables of the legacy tools belong to the kernel, so only their rules
# and chains count.
kernel_rules() {
    inside sh -c 'iptables-nft-save; ip6tables-nft-save; ipset list; nft list tables' 2>/dev/null | grep -v '^#' || true
    inside sh -c 'iptables-legacy-save; ip6tables-legacy-save' 2>/dev/null | grep -E '^(-A|:[^ ]+ - )' || true
}

# A key that repositories and packages are signed with.
signing_key() {
    export GNUPGHOME=$WORK/gnupg
    mkdir -p -m 700 "$GNUPGHOME"
    gpg --batch --quiet --passphrase '' --quick-generate-key 'moat test <moat@localhost>' rsa3072 sign never
}

# serve DIRECTORY: as http://10.77.0.2:8000, where the peer is.
serve() {
    ip netns exec "$PEER" python3 -m http.server -d "$1" 8000 >/dev/null 2>&1 &
    PIDS+=($!)
    local i
    for ((i = 0; i < 100; i++)); do
        ip netns exec "$PEER" bash -c ': </dev/tcp/127.0.0.1/8000' 2>/dev/null && return
        sleep 0.1
    done
    return 1
}

# Steps run without `||` or `if` around them, or `set -e` would not hold in them; the trap says which one failed.

# probing WHAT COMMAND...: runs the command while the prober runs, and demands that every verdict was right.
probing() {
    step=$1
    probe "${@:2}"
    local wrong=$((SENT - ALLOWED + DENIED))
    # Before the link is up nothing can arrive.
    [[ ${LINK_DOWN-} ]] && wrong=$DENIED
    row "$( ((wrong)) && echo FAILED || echo ok)" "$SENT" "$wrong"
    ((wrong == 0 && ALLOWED > 0))
}

# probe COMMAND...: runs the command while the prober runs. SENT to each port, and what arrived at the ALLOWED and the DENIED one.
probe() {
    local flag=$WORK/probing
    rm -f "$flag".*
    : >"$flag"
    ip netns exec "$CT" python3 tests/packages.d/prober.py receive "$flag" >"$WORK/received" &
    local receiver=$!
    until [[ -e $flag.receive ]]; do sleep 0.1; done
    ip netns exec "$PEER" python3 tests/packages.d/prober.py send 10.77.0.1 "$flag" >"$WORK/sent" &
    local sender=$!
    until [[ -e $flag.send ]]; do sleep 0.1; done
    sleep 1
    "$@" >"$WORK/log" 2>&1
    sleep 1
    rm "$flag"
    wait "$sender" "$receiver"
    SENT=$(<"$WORK/sent")
    read -r ALLOWED DENIED <"$WORK/received"
    echo "allowed but lost: $((SENT - ALLOWED)); denied but arrived: $DENIED" >>"$WORK/log"
}

# row RESULT [PACKETS WRONG]: a line of the table.
row() { printf '| %-12s | %-43s | %-6s | %7s | %5s |\n' "$HOST" "$step" "$1" "${2-}" "${3-}"; }

# What helps to find out why a step failed.
complain() {
    cat "$WORK/log" || true
    [[ -z ${INIT-} ]] || inside journalctl -b --no-pager -u 'moat*' | tail -30
} >&3

# check WHAT COMMAND...: one step without the prober.
check() {
    step=$1
    "${@:2}" >"$WORK/log" 2>&1
    row ok
}
