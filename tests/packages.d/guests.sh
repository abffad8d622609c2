# Programs that lead the neighbour to guests of the host: libvirt and kube-proxy. A guest is a network namespace with a web server.

GUEST=moatguest$$

# guest ADDRESS GATEWAY: the host's end of its link is `guest`; it is served by the peer's python.
guest() {
    ip netns add "$GUEST"
    ip link add guest netns "$CT" type veth peer name eth0 netns "$GUEST"
    ip -n "$CT" link set guest up
    ip -n "$GUEST" link set eth0 up
    ip -n "$GUEST" addr add "$1" dev eth0
    ip -n "$GUEST" route add default via "$2"
    ip netns exec "$GUEST" python3 -m http.server -d "$WORK/repo" 80 >/dev/null 2>&1 &
    GUEST_SERVER=$!
}

guest_off() {
    kill "$GUEST_SERVER"
    ip netns del "$GUEST"
}

libvirt_start() {
    inside systemctl start libvirtd
    inside virsh net-start default
    guest 192.168.122.2/24 192.168.122.1
    ip -n "$CT" link set guest master virbr0
    ip -n "$PEER" route replace 192.168.122.0/24 via 10.77.0.1
}
libvirt_again() { inside systemctl restart libvirtd && sleep 2; }
libvirt_stop() {
    guest_off
    inside virsh net-destroy default
    inside systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
}
libvirt_more() {
    check 'libvirt: without policy its own rules close a guest' unreached 192.168.122.2
    forward_policy applyOnForward Allow 80
    check 'libvirt: an allow does not open what they close, and doctor names it' still_closed 192.168.122.2
    # As doctor says.
    step='libvirt: a network with forward mode open'
    libvirt_open | inside virsh net-create /dev/stdin >"$WORK/log"
    ip -n "$CT" link set guest master virbr1
    ip -n "$GUEST" addr add 192.168.123.2/24 dev eth0
    ip -n "$GUEST" route replace default via 192.168.123.1
    ip -n "$PEER" route replace 192.168.123.0/24 via 10.77.0.1
    check 'libvirt: with forward mode open an allow passes' retry reaches 192.168.123.2
    DENIED_MAX=$REPAIR agree 'libvirt: policy while it starts again' libvirt_again
    check 'libvirt: the allow still passes' retry reaches 192.168.123.2
    forward_policy applyOnForward Allow 81
    check 'libvirt: what no forward policy allows does not' retry unreached 192.168.123.2
    no_forward_policy
    inside virsh net-destroy open >"$WORK/log"
}
libvirt_open() {
    echo "<network><name>open</name><forward mode='open'/><bridge name='virbr1'/><ip address='192.168.123.1' netmask='255.255.255.0'/></network>"
}
still_closed() {
    status_says 'GlobalNetworkPolicy/forward'
    unreached "$1"
    doctor_names forward
}

# The rules of kube-proxy's iptables mode for one service with a cluster IP and a node port, in the shape it gives them.
kube_rules() {
    cat <<'RULES'
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-EXT-WEB - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-WEB - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEB - [0:0]
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-EXT-WEB
-A KUBE-EXT-WEB -m comment --comment "masquerade traffic for default/web external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-WEB -j KUBE-SVC-WEB
-A KUBE-SVC-WEB ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-WEB -m comment --comment "default/web -> 10.244.0.2:80" -j KUBE-SEP-WEB
-A KUBE-SEP-WEB -s 10.244.0.2/32 -m comment --comment "default/web" -j KUBE-MARK-MASQ
-A KUBE-SEP-WEB -p tcp -m comment --comment "default/web" -m tcp -j DNAT --to-destination 10.244.0.2:80
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
COMMIT
RULES
}

# What leads to these chains: table, built-in chain, condition and chain. kube-proxy puts each first.
KUBE_JUMPS=(
    'filter INPUT -j KUBE-FIREWALL'
    'filter INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS'
    'filter INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
    'filter INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    'filter FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    'filter FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'
    'filter FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    'filter OUTPUT -j KUBE-FIREWALL'
    'filter OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    'nat PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    'nat OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    'nat POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
)

# kube_jumps COMMAND...: lines for iptables-restore, one for each command (-I, -D) and jump.
kube_jumps() {
    local table command jump
    for table in filter nat; do
        echo "*$table"
        for jump in "${KUBE_JUMPS[@]}"; do
            for command in "$@"; do [[ $jump != "$table "* ]] || echo "$command ${jump#* }"; done
        done
        echo COMMIT
    done
}

kube_proxy_start() {
    guest 10.244.0.2/24 10.244.0.1
    ip -n "$CT" addr add 10.244.0.1/24 dev guest
    ip -n "$PEER" route replace 10.96.0.0/16 via 10.77.0.1
    kube_rules | inside iptables-restore --noflush
    kube_jumps -I | inside iptables-restore --noflush
}
# All chains anew, and every jump at the first place again.
kube_proxy_again() {
    kube_rules | inside iptables-restore --noflush
    kube_jumps -D -I | inside iptables-restore --noflush
}
kube_proxy_stop() {
    kube_jumps -D | inside iptables-restore --noflush
    kube_rules | sed -n -e '/^[*C]/p' -e 's/^:\([^ ]*\).*/-F \1/p' | inside iptables-restore --noflush
    kube_rules | sed -n -e '/^[*C]/p' -e 's/^:\([^ ]*\).*/-X \1/p' | inside iptables-restore --noflush
    guest_off
}
kube_proxy_more() {
    check 'kube-proxy: without policy a node port is open' retry reaches 10.77.0.1:30080
    forward_policy preDNAT Deny 30080
    check 'kube-proxy: a preDNAT deny closes it' retry unreached 10.77.0.1:30080
    check 'kube-proxy: and not the cluster IP' reaches 10.96.0.10
    forward_policy applyOnForward Allow 80
    check 'kube-proxy: an allow of forwarded traffic passes' retry reaches 10.77.0.1:30080
    forward_policy applyOnForward Allow 81
    check 'kube-proxy: what no forward policy allows does not' retry unreached 10.77.0.1:30080
    DENIED_MAX=$REPAIR agree 'kube-proxy: policy while it writes all rules anew' kube_proxy_again
    check 'kube-proxy: node port and cluster IP are still closed' both_closed
    no_forward_policy
}
both_closed() {
    unreached 10.77.0.1:30080
    unreached 10.96.0.10
}
