# The life of a package on one distribution, from installation to purge.

# Distributions: suite and package manager of each.
DISTRIBUTIONS=(bookworm:apt trixie:apt noble:apt resolute:apt sid:apt bookworm:dnf)

# life [SUITE:MANAGER]
life() {
    local suite=${1:-bookworm:apt}
    MANAGER=${suite#*:} HOST=${suite%:*}
    [[ $MANAGER == apt ]] || HOST="$HOST+$MANAGER"
    host_begin
    packages_of "$MANAGER"
    host_root "${suite%:*}" $([[ $MANAGER == apt ]] || echo dnf rpm)
    host_on
    kernel_rules >"$WORK/before"
    pm publish 0.1.0
    check 'install from the signed repository' pm install 0.1.0
    check 'an installation enforces nothing' untouched
    check 'systemd-analyze security at most 2.5' hardened
    policy >"$WORK/root/etc/moat/policy.d/web1.yaml"
    check 'policy is in force' wait_enforced
    check 'moatctl doctor finds nothing to mend' inside moatctl doctor
    probing reload inside systemctl reload moatd
    probing restart inside systemctl restart moatd
    probing 'stop and start' stop_and_start
    probing 'kill -9' kill_and_wait KILL
    probing 'killed by the watchdog' kill_and_wait STOP
    probing daemon-reexec inside systemctl daemon-reexec
    echo '# edited by hand' >>"$WORK/root/etc/moat/moat.toml"
    sleep 1.1
    pm publish 0.1.1
    probing 'upgrade with an edited conffile' upgrade 0.1.1
    probing downgrade upgrade 0.1.0
    probing 'an upgrade that cannot work changes nothing' bad_upgrade
    check 'a stopped and a masked service stay stopped' stays_stopped
    if [[ ! ${SHORT-} ]]; then
        LINK_DOWN=yes probing 'the legacy backend, from boot' with_backend legacy
        LINK_DOWN=yes probing 'back to nft' with_backend nft
    fi
    LINK_DOWN=yes probing 'boot' reboot
    check 'moat-boot before the network' boot_order
    check 'boot with tools that do not work: closed' broken_boot closed
    check 'boot with tools that do not work: open' broken_boot open
    [[ ${SHORT-} ]] || check 'boot with tools that hang: closed' broken_boot closed hang
    check 'moat.boot=off' boot_off
    check 'remove (clean) and reinstall' remove_clean
    check 'remove (keep), then purge' remove_keep
    check 'purge leaves no file' no_file inside
    step='install into a root without systemd'
    host_off
    check "$step" pm chroot
    [[ $MANAGER != apt ]] || check 'tarball: install and uninstall without systemd' bare
    step=
    echo "tests/packages life ${suite/:/ with }: everything passed in $SECONDS s"
}

# What the package manager of the host does.
pm() { "${MANAGER}_$1" "${@:2}"; }

# packages_of MANAGER: two versions for the life test.
packages_of() {
    local kind=deb version
    [[ $1 == apt ]] || kind=rpm_package
    [[ -z ${BUILT-} ]] || return 0
    compile
    for version in 0.1.0 0.1.1; do "$kind" "$version"; done
    tarball 0.1.0
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
    pm install "$1"
    [[ $(pm version) == "$1" ]]
    inside grep -q 'edited by hand' /etc/moat/moat.toml
    inside systemctl is-active moatd
}

bad_upgrade() {
    local old
    old=$(inside systemctl show -P MainPID moatd)
    inside sh -c 'echo "maxIpsetSize = 0" >/etc/moat/moat.d/bad.toml'
    pm install 0.1.1 2>&1 | tee "$WORK/upgrade"
    grep -q 'the old one keeps running' "$WORK/upgrade"
    [[ $(inside systemctl show -P MainPID moatd) == "$old" ]]
    inside rm /etc/moat/moat.d/bad.toml
    inside systemctl restart moatd
}

# Stopped and disabled through one change of version, masked through another.
stays_stopped() {
    inside systemctl disable --now moatd
    pm install 0.1.0
    [[ $(inside systemctl show -P ActiveState moatd) == inactive ]]
    [[ $(inside systemctl show -P UnitFileState moatd) == disabled ]]
    inside systemctl mask moatd
    pm install 0.1.1
    [[ $(inside systemctl show -P ActiveState moatd) == inactive ]]
    [[ $(inside systemctl show -P UnitFileState moatd) == masked ]]
    is_enforced
    inside systemctl unmask moatd
    inside systemctl enable --now moatd
}

# A boot with this backend of the iptables tools.
with_backend() {
    inside sh -c "echo 'iptablesBackend = \"$1\"' >/etc/moat/moat.d/backend.toml"
    reboot
    inside systemctl is-active moatd
    inside "iptables-$1-save" | grep moat-
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
    local tool
    for tool in iptables-legacy ip6tables-legacy; do
        printf '*%s\nCOMMIT\n' raw mangle nat filter | ip netns exec "$CT" "$tool-restore"
    done
    ip netns exec "$CT" nft flush ruleset
    ip netns exec "$CT" ipset destroy
}

boot_order() {
    [[ $(inside systemctl is-system-running --wait) == running ]]
    local boot network
    boot=$(inside systemctl show -P ExecMainExitTimestampMonotonic moat-boot)
    network=$(inside systemctl show -P ActiveEnterTimestampMonotonic network-pre.target)
    ((boot > 0 && boot < network))
}

# broken_boot closed|open [hang]: what bootFailurePolicy says where the tools are away, or never come to an end.
broken_boot() {
    local tools=$WORK/root/usr/sbin tool
    echo "bootFailurePolicy = \"$1\"" >"$WORK/root/etc/moat/moat.d/boot.toml"
    off_and_empty
    for tool in nft legacy; do
        mv "$tools/xtables-$tool-multi" "$tools/away-$tool"
        [[ ${2-} != hang ]] || install -m 755 /dev/stdin "$tools/xtables-$tool-multi" <<<$'#!/bin/sh\nexec sleep 1000'
    done
    host_on
    boot_in_time
    [[ $(inside nft list tables) == *moat-boot* && $1 == closed || $(inside nft list tables) != *moat-boot* && $1 == open ]]
    for tool in nft legacy; do mv -f "$tools/away-$tool" "$tools/xtables-$tool-multi"; done
    inside systemctl restart moatd
    [[ $(inside nft list tables) != *moat-boot* ]]
    is_enforced
}

# moat-boot ends after a minute at the latest, and nothing waits for moatd.
boot_in_time() {
    local begin end unit
    begin=$(inside systemctl show -P ExecMainStartTimestampMonotonic moat-boot)
    end=$(inside systemctl show -P ExecMainExitTimestampMonotonic moat-boot)
    echo "moat-boot took $(((end - begin) / 1000)) ms"
    ((end > begin && end - begin < 65000000))
    for unit in network-pre.target systemd-user-sessions.service multi-user.target; do
        begin=$(inside systemctl show -P ActiveEnterTimestampMonotonic "$unit")
        echo "$unit $(((begin - end) / 1000)) ms later"
        ((begin > 0 && begin - end < 10000000))
    done
}

boot_off() {
    off_and_empty
    host_on moat.boot=off
    [[ $(inside systemctl show -P ConditionResult moat-boot) == no ]]
    wait_enforced
}

remove_clean() {
    pm remove
    untouched
    pm install
    wait_enforced
}

remove_keep() {
    inside sh -c 'echo "onRemove = \"keep\"" >/etc/moat/moat.d/keep.toml'
    pm remove
    is_enforced
    pm purge
    untouched
}

# no_file RUNNER: nothing in the root has moat's name, but for what the test has put there.
no_file() {
    local left
    left=$("$1" sh -c 'find / -xdev -iname "*moat*" -not -path "/proc/*" -not -path "/var/log/*" -not -path "/var/cache/*" \
        -not -path "/var/lib/apt/lists/*" -not -path "/run/*" -not -path "/tmp/*"' | grep -vxF "$(pm ours)" || true)
    [[ -z $left ]] || { echo "left behind: $left"; return 1; }
}

chrooted() { unshare -n chroot "$WORK/root" "$@"; }

bare() {
    tar -xf "$OUT/moat-0.1.0-$(uname -m).tar.gz" -C "$WORK/root/tmp"
    chrooted sh -c '/tmp/moat-*/install.sh && moatctl version && /tmp/moat-*/install.sh && /tmp/moat-*/uninstall.sh --purge'
    no_file chrooted
}

# The life on every distribution, one after the other; a failure does not end it. Prints one table.
all() {
    local table=$OUT/life distribution failed=0
    mkdir -p "$OUT"
    [[ ${BUILT-} ]] || build >"$OUT/build.log"
    deb 0.1.1
    rpm_package 0.1.1
    printf '| host | step | result | packets | wrong |\n|---|---|---|---|---|\n' | tee "$table"
    for distribution in "${DISTRIBUTIONS[@]}"; do
        BUILT=yes tests/packages life "$distribution" 2>>"$table.log" | tee -a "$table" || failed=$((failed + 1))
    done
    echo "tests/packages all: ${#DISTRIBUTIONS[@]} distributions, $failed failed, in $SECONDS s; what went wrong: $table.log"
    ((failed == 0))
}
