# Hosts as they are: without IPv6, without the program ipset, with a root file system that cannot be written.

hosts() {
    HOST=bookworm MANAGER=apt
    host_begin
    apt_built
    host_root bookworm
    host_on
    apt_publish 0.1.0
    check 'install' pm install 0.1.0
    policy_with_set >"$WORK/root/etc/moat/policy.d/web1.yaml"
    check 'policy is in force' wait_enforced
    probing '/run is a tmpfs, and empty after a boot' tmpfs_run
    probing 'no IPv6 in the kernel' no_ipv6
    probing 'no program ipset' no_ipset
    LINK_DOWN=yes probing 'read-only root, and a state that can be written' read_only
    step=
    echo "tests/packages hosts: everything passed in $SECONDS s"
}

# Beside the policy of the other tests: one that needs an IP set.
policy_with_set() {
    policy
    cat <<'YAML'
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: office, labels: {from: office}}
spec: {nets: [198.51.100.0/24, "2001:db8::/64"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: office}
spec: {selector: role == 'web', types: [Ingress], ingress: [{action: Allow, source: {selector: from == 'office'}}]}
YAML
}

# Enforcing, with no problem and no warning.
all_well() {
    status_says '^state +enforcing'
    inside moatctl status >"$WORK/status"
    ! grep -A5 -E '^(problems|warnings)' "$WORK/status"
}

tmpfs_run() {
    [[ $(inside stat -f -c %T /run) == tmpfs ]]
    inside systemctl stop moatd
    inside rm -rf /run/moat
    inside systemctl start moatd
    all_well
}

# With ipv6.disable=1 there is no list of IPv6 addresses, and the tools for IPv6 fail. So it is for the daemon here.
no_ipv6() {
    local drop=$WORK/root/etc/systemd/system/moatd.service.d sbin=$WORK/root/usr/sbin tool
    mkdir -p "$drop" "$WORK/away"
    printf '[Service]\nTemporaryFileSystem=/proc/net\n' >"$drop/test.conf"
    for tool in "$sbin"/ip6tables-{nft,legacy}{,-save,-restore}; do
        mv "$tool" "$WORK/away/"
        install -m 755 /dev/stdin "$tool" <<<$'#!/bin/sh\necho "Address family not supported by protocol" >&2\nexit 3'
    done
    inside systemctl daemon-reload
    inside systemctl restart moatd
    all_well
    mv -f "$WORK"/away/* "$sbin/"
    rm "$drop/test.conf"
    inside systemctl daemon-reload
    inside systemctl restart moatd
    all_well
    inside ip6tables-save | grep moat-
}

# The daemon makes its sets by itself; only trying the kernel's features needs the program, and doctor says that it could not.
no_ipset() {
    local program=$WORK/root/usr/sbin/ipset
    mv "$program" "$WORK/away-ipset"
    policy_with_set | sed 's/office/laboratory/g' >"$WORK/root/etc/moat/policy.d/web1.yaml"
    inside systemctl restart moatd
    all_well
    inside iptables-save | grep -- '--match-set [^ ]*laboratory'
    inside moatctl doctor >"$WORK/doctor" || true
    grep 'cannot run ipset' "$WORK/doctor"
    mv "$WORK/away-ipset" "$program"
}

# Only the state and what every host has in memory can be written. Twice, so that what the first run leaves is used.
read_only() {
    local i
    cp -a "$WORK/root/var/lib/moat" "$WORK/state"
    NSPAWN_OPTIONS=(--read-only --bind="$WORK/state:/var/lib/moat" --tmpfs=/var/log --tmpfs=/var/tmp)
    for i in 1 2; do
        reboot
        ! inside touch /etc/moat/moat.toml
        all_well
        inside moatctl status | grep '^snapshot'
    done
}
