# The life of the Debian package, from installation to purge.

life() {
    host_begin
    build
    host_root bookworm
    repository "$OUT"/moat_0.1.0-1_*.deb
    make_deb 0.1.1-1
    host_on
    kernel_rules >"$WORK/before"
    check 'install from the signed repository' install moat
    check 'an installation enforces nothing' untouched
    check 'systemd-analyze security at most 2.5' hardened
    policy >"$WORK/root/etc/moat/policy.d/web1.yaml"
    check 'policy is in force' wait_enforced
    probing reload inside systemctl reload moatd
    probing restart inside systemctl restart moatd
    probing 'stop and start' stop_and_start
    probing 'kill -9' kill_and_wait KILL
    probing 'killed by the watchdog' kill_and_wait STOP
    probing daemon-reexec inside systemctl daemon-reexec
    echo '# edited by hand' >>"$WORK/root/etc/moat/moat.toml"
    sleep 1.1
    repository "$OUT"/moat_0.1.1-1_*.deb
    probing 'upgrade with an edited conffile' upgrade 0.1.1-1
    probing downgrade upgrade 0.1.0-1
    probing 'an upgrade that cannot work changes nothing' bad_upgrade
    check 'a masked service stays stopped' masked
    LINK_DOWN=yes probing 'boot' reboot
    check 'moat-boot before the network' boot_order
    check 'boot with tools that do not work' broken_boot
    check 'moat.boot=off' boot_off
    check 'remove (clean) and reinstall' remove_clean
    check 'remove (keep), then purge' remove_keep
    check 'purge leaves no file' no_file
    check 'install into a root without systemd' chroot_install
    step=; host_off
    echo "tests/packages life: everything passed in $SECONDS s"
}

install() {
    inside apt-get -qq update
    inside apt-get -qq install -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
}

untouched() { kernel_rules | diff "$WORK/before" -; }

hardened() {
    inside systemctl is-enabled moatd moat-boot
    inside systemd-analyze security --no-pager --threshold=25 moatd.service
}

policy() {
    cat <<'YAML'
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: web1, labels: {role: web}}
spec: {node: web1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: role == 'web'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [5000]}}]
  egress: [{action: Allow}]
YAML
}

is_enforced() { kernel_rules | grep -q 'dports\? 5000'; }

wait_enforced() {
    local i
    for ((i = 0; i < 100; i++)); do
        is_enforced && return
        sleep 0.2
    done
    return 1
}

stop_and_start() {
    inside systemctl stop moatd
    sleep 1
    inside systemctl start moatd
}

# Ends the daemon with a signal, and waits for another one that is ready.
kill_and_wait() {
    local old new i
    if [[ $1 == STOP ]]; then
        inside mkdir -p /run/systemd/system/moatd.service.d
        inside sh -c 'printf "[Service]\nWatchdogSec=3s\n" >/run/systemd/system/moatd.service.d/test.conf'
        inside systemctl daemon-reload
        inside systemctl restart moatd
    fi
    old=$(inside systemctl show -P MainPID moatd)
    inside kill "-$1" "$old"
    for ((i = 0; i < 200; i++)); do
        new=$(inside systemctl show -P MainPID moatd)
        [[ $new != "$old" && $new != 0 && $(inside systemctl show -P ActiveState moatd) == active ]] && return
        sleep 0.2
    done
    return 1
}

upgrade() {
    install --allow-downgrades "moat=$1"
    [[ $(inside dpkg-query -W -f '${Version}' moat) == "$1" ]]
    inside grep -q 'edited by hand' /etc/moat/moat.toml
    inside systemctl is-active moatd
}

bad_upgrade() {
    local old
    old=$(inside systemctl show -P MainPID moatd)
    inside sh -c 'echo "maxIpsetSize = 0" >/etc/moat/moat.d/bad.toml'
    install moat=0.1.1-1 2>&1 | tee "$WORK/upgrade"
    grep -q 'the old one keeps running' "$WORK/upgrade"
    [[ $(inside systemctl show -P MainPID moatd) == "$old" ]]
    inside rm /etc/moat/moat.d/bad.toml
    inside systemctl restart moatd
}

masked() {
    inside systemctl mask --now moatd
    install --allow-downgrades moat=0.1.0-1
    [[ $(inside systemctl show -P ActiveState moatd) == inactive ]]
    is_enforced
    inside systemctl unmask moatd
    inside systemctl start moatd
}

# A host that boots: no rules, and the link is down until systemd brings it up.
reboot() {
    off_and_empty
    host_on "$@"
    is_enforced
    sleep 2
}

off_and_empty() {
    host_off
    ip -n "$CT" link set eth0 down
    ip netns exec "$CT" nft flush ruleset
    ip netns exec "$CT" ipset destroy
}

boot_order() {
    [[ $(inside systemctl is-system-running) == running ]]
    local boot network
    boot=$(inside systemctl show -P ExecMainExitTimestampMonotonic moat-boot)
    network=$(inside systemctl show -P ActiveEnterTimestampMonotonic network-pre.target)
    ((boot > 0 && boot < network))
}

broken_boot() {
    local tools=$WORK/root/usr/sbin tool
    off_and_empty
    for tool in nft legacy; do mv "$tools/xtables-$tool-multi" "$tools/away-$tool"; done
    host_on
    inside systemctl is-active multi-user.target
    inside nft list tables | grep moat-boot
    for tool in nft legacy; do mv "$tools/away-$tool" "$tools/xtables-$tool-multi"; done
    inside systemctl restart moatd
    [[ $(inside nft list tables) != *moat-boot* ]]
    is_enforced
}

boot_off() {
    off_and_empty
    host_on moat.boot=off
    [[ $(inside systemctl show -P ConditionResult moat-boot) == no ]]
}

remove_clean() {
    inside apt-get -qq remove -y moat
    untouched
    install moat
    wait_enforced
}

remove_keep() {
    inside sh -c 'echo "onRemove = \"keep\"" >/etc/moat/moat.d/keep.toml'
    inside apt-get -qq remove -y moat
    is_enforced
    inside apt-get -qq purge -y moat
    untouched
}

no_file() {
    local left
    left=$(inside sh -c 'find / -xdev -iname "*moat*" -not -path "/proc/*" -not -path "/var/log/journal/*" -not -path "/var/cache/*" \
        -not -path "/var/lib/apt/lists/*" -not -path "/run/*" -not -path "/tmp/*"' |
        grep -v -e /etc/apt/sources.list.d/moat.list -e /usr/share/keyrings/moat.gpg || true)
    [[ -z $left ]] || { echo "left behind: $left"; return 1; }
}

# No running systemd, and policy-rc.d says no.
chroot_install() {
    host_off
    cp "$OUT"/moat_0.1.0-1_*.deb "$WORK/root/tmp/moat.deb"
    printf '#!/bin/sh\nexit 101\n' >"$WORK/root/usr/sbin/policy-rc.d"
    chmod +x "$WORK/root/usr/sbin/policy-rc.d"
    unshare -n chroot "$WORK/root" dpkg -i /tmp/moat.deb
    unshare -n chroot "$WORK/root" dpkg -P moat
}
