# moat beside other programs that write rules: the real ones, on one host, one after the other.

# How long a denied packet may pass, in milliseconds, when another program has flushed moat's rules: until the kernel has told
# of it and they are written again.
REPAIR=1000

coexistence() {
    HOST=bookworm MANAGER=apt
    local program
    need curl:curl
    host_begin
    apt_built
    host_root bookworm python3 busybox-static firewalld ufw fail2ban docker.io libvirt-daemon-system dnsmasq-base
    # None of them starts by itself.
    systemctl --quiet --root="$WORK/root" disable firewalld ufw fail2ban docker.service docker.socket containerd libvirtd.service \
        libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirt-guests
    # Docker wants the unified hierarchy and keyrings.
    UNIFIED=1 NSPAWN_OPTIONS=(--system-call-filter='@keyring bpf')
    host_on
    inside mount -o remount,rw,bind /proc/sys
    inside sysctl -qw net.ipv4.ip_forward=1
    apt_publish 0.1.0
    check 'install' pm install 0.1.0
    policy >"$WORK/root/etc/moat/policy.d/web1.yaml"
    for program in firewalld ufw fail2ban docker libvirt kube_proxy; do beside "$program"; done
    step=
    echo "tests/packages coexistence: everything passed in $SECONDS s"
}

# beside PROGRAM: moat comes to a host with the program and goes again. Of each program there are functions PROGRAM_start,
# PROGRAM_again (what makes it write its rules anew), PROGRAM_more (what is to be seen of it alone) and PROGRAM_stop.
beside() {
    OWNER=${1/_/-}
    step="$OWNER: start"
    inside systemctl stop moatd
    inside moatd cleanup >/dev/null
    "$1_start" >"$WORK/log" 2>&1
    others >"$WORK/alone"
    [[ -s $WORK/alone ]]
    inside systemctl start moatd
    wait_enforced
    agree "$OWNER: policy"
    DENIED_MAX=$REPAIR agree "$OWNER: policy while it starts again" "$1_again"
    agree "$OWNER: policy afterwards"
    "$1_more"
    check "$OWNER: its rules are as they were when moatd has stopped" stopped_beside
    check "$OWNER: and when moat has cleaned up" cleaned_beside
    step="$OWNER: stop"
    "$1_stop" >"$WORK/log" 2>&1
}

# agree WHAT [COMMAND...]: what moat denies is denied. What it allows passes, or doctor says who denies it.
agree() {
    step=$1
    probe "${@:2}"
    local lost=$((SENT - ALLOWED)) result=ok
    if ((lost)); then
        doctor_names
        result=doctor
    fi
    ((DENIED <= ${DENIED_MAX:-0})) || result=FAILED
    row "$result" "$SENT" "$DENIED"
    [[ $result != FAILED ]]
}

# doctor_names [HOOK]: the finding has a base chain of this hook, its owner, and what to do.
doctor_names() {
    inside moatctl doctor >"$WORK/log" || true
    grep -Eqi "^${1:-input} .*(nft|legacy) .* $OWNER .*can deny" "$WORK/log"
    grep -Eqi "^$OWNER: ..." "$WORK/log"
}

# The rules and chains that are not moat's, of all tables, but for counters and what passes by itself.
others() {
    local table
    inside sh -c 'iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; ip6tables-legacy-save' 2>/dev/null |
        grep -E '^(-A|:[^ ]+ |\*)' | sed 's/ \[[0-9:]*\]$//' | grep -v -e moat -e '^:[A-Z]* ACCEPT$' -e '^\*' || true
    for table in $(inside nft list tables | awk '$2 !~ /^ip6?$/ {print $2 ":" $3}'); do
        inside nft -s list table "${table%:*}" "${table#*:}"
    done
}

stopped_beside() {
    inside systemctl stop moatd
    is_enforced
    others | diff "$WORK/alone" -
}

cleaned_beside() {
    inside moatd cleanup
    [[ $(kernel_rules) != *moat* ]]
    others | diff "$WORK/alone" -
}

# Whether the neighbour gets a connection to this port.
reaches() { ip netns exec "$PEER" curl -s -o "$WORK/page" -m 2 "http://$1/"; }
unreached() { ! reaches "$1"; }

# status_says PATTERN
status_says() {
    local i
    for ((i = 0; i < 50; i++)); do
        ! inside moatctl status | grep -Eq "$1" || return 0
        sleep 0.2
    done
    inside moatctl status
    return 1
}

# It says that it has started before its rules are there; a reload ends when they are.
firewalld_start() { inside systemctl start firewalld && inside firewall-cmd --reload; }
firewalld_again() { inside systemctl restart firewalld && inside firewall-cmd --reload; }
firewalld_stop() { inside systemctl stop firewalld; }
firewalld_more() {
    check 'firewalld: doctor names it' doctor_names
    # As doctor says.
    inside firewall-cmd -q --add-port=5000-5001/udp
    probing 'firewalld: with the ports open there, too' sleep 1
    inside firewall-cmd -q --remove-port=5000-5001/udp
}

# Its first start writes two rules less than every later one.
ufw_start() { inside ufw --force enable && inside ufw reload; }
ufw_again() { inside ufw reload && inside systemctl restart ufw; }
ufw_stop() { inside ufw disable; }
ufw_more() { probing 'ufw: policy has the first word' inside ufw reload; }

fail2ban_start() {
    printf '%s\n' '[sshd]' 'enabled = false' '[web]' 'enabled = true' 'backend = polling' 'filter = sshd' 'protocol = udp' \
        'banaction = nftables-allports' 'logpath = /var/log/attack.log' >"$WORK/root/etc/fail2ban/jail.d/web.conf"
    : >"$WORK/root/var/log/attack.log"
    inside systemctl start fail2ban
    ban
}
fail2ban_again() { inside systemctl restart fail2ban; }
fail2ban_stop() { inside systemctl stop fail2ban; }
fail2ban_more() {
    check 'fail2ban: doctor names it' doctor_names
    inside fail2ban-client unban --all
    probing 'fail2ban: without the ban' sleep 1
    ban
}
ban() {
    local i
    for ((i = 0; i < 50; i++)); do
        ! inside fail2ban-client set web banip 10.77.0.2 || break
        sleep 0.2
    done
    for ((i = 0; i < 50; i++)); do
        ! inside nft list ruleset | grep -q 10.77.0.2 || return 0
        sleep 0.2
    done
    return 1
}

docker_start() {
    mkdir -p "$WORK/image/bin" "$WORK/image/www"
    cp "$WORK/root/bin/busybox" "$WORK/image/bin/"
    echo hello >"$WORK/image/www/index.html"
    tar -C "$WORK/image" -cf "$WORK/root/opt/image.tar" .
    inside systemctl start docker
    inside docker import /opt/image.tar web
    inside docker run -d --name web --restart always -p 8080:80 web /bin/busybox httpd -f -p 80 -h /www
    retry reaches 10.77.0.1:8080
}
docker_again() { inside systemctl restart docker; }
docker_stop() {
    inside docker rm -f web
    inside systemctl stop docker.socket docker containerd
}
docker_more() {
    local port='published +tcp 8080 -> 172\.17\.0\.2:80 \(Docker\): '
    check 'docker: without policy for it a published port is open' retry reaches 10.77.0.1:8080
    check 'docker: and status says so' status_says "$port"'not governed at HostEndpoint web1'
    forward_policy preDNAT Deny 8080
    check 'docker: a preDNAT deny is a deny to the container' retry unreached 10.77.0.1:8080
    check 'docker: and status says so' status_says "$port"'.*policy of HostEndpoint web1 applies'
    check 'docker: status in JSON' published_json
    forward_policy applyOnForward Allow 80
    check 'docker: an allow of forwarded traffic passes' retry reaches 10.77.0.1:8080
    forward_policy applyOnForward Allow 81
    check 'docker: what no forward policy allows does not' retry unreached 10.77.0.1:8080
    DENIED_MAX=$REPAIR agree 'docker: policy while it starts again' docker_again
    check 'docker: the port is still closed' unreached 10.77.0.1:8080
    no_forward_policy
    check 'docker: open again without that policy' retry reaches 10.77.0.1:8080
}
published_json() {
    inside moatctl status -o json | python3 -c 'import json, sys; [p] = json.load(sys.stdin)["published"]
assert p == {"protocol": "tcp", "address": None, "port": "8080", "to": "172.17.0.2:80", "owner": "Docker",
    "governedBy": ["web1"], "notGovernedBy": []}, p'
}

# forward_policy preDNAT|applyOnForward ACTION PORT: for what the neighbour sends through this host.
forward_policy() {
    local field='applyOnForward: true'
    [[ $1 != preDNAT ]] || field='preDNAT: true, applyOnForward: true'
    cat >"$WORK/forward.yaml" <<YAML
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: forward}
spec: {selector: role == 'web', order: 10, $field, types: [Ingress], ingress: [{action: $2, protocol: TCP, source: {nets: [10.77.0.2/32]}, destination: {ports: [$3]}}]}
YAML
    mv "$WORK/forward.yaml" "$WORK/root/etc/moat/policy.d/forward.yaml"
}

no_forward_policy() { rm "$WORK/root/etc/moat/policy.d/forward.yaml"; }

# retry COMMAND...: until it succeeds, for at most ten seconds.
retry() {
    local i
    for ((i = 0; i < 50; i++)); do
        ! "$@" || return 0
        sleep 0.2
    done
    return 1
}

