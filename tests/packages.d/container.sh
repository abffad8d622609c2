# The container image, built and run by podman, enforcing in a network namespace that it is given.

container() {
    HOST=podman MANAGER=apt
    need podman:podman
    host_begin
    packages_of apt
    host_root bookworm
    mkdir -p "$WORK/etc/policy.d" "$WORK/state"
    policy | sed 's/node: web1/node: container/' >"$WORK/etc/policy.d/web1.yaml"
    export -f podman_here
    check 'base image' podman_do import "$WORK/root"
    check 'build' podman_do build
    check 'run' podman_do run
    check 'policy is in force' ns_enforced
    probing 'stop and start' podman_do again
    check 'moatctl in the container' podman_do status
    podman_do end
    step=
    echo "tests/packages container: everything passed in $SECONDS s"
}

ns_enforced() {
    local i
    for ((i = 0; i < 100; i++)); do
        ! ip netns exec "$CT" iptables-nft-save | grep -q 'dports\? 5000' || return 0
        sleep 0.2
    done
    return 1
}

# podman_do VERB...: in a mount namespace without the unified hierarchy, which podman takes for more than is there in a container.
podman_do() {
    WORK=$WORK CT=$CT OUT=$OUT unshare -m --propagation private bash -euc 'umount /sys/fs/cgroup/unified 2>/dev/null || true; podman_here "$@"' - "$@"
}

podman_here() {
    cat >"$WORK/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
CONF
    export CONTAINERS_CONF=$WORK/containers.conf
    local pod=(podman --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs)
    case $1 in
    import) tar -C "$2" -c . | "${pod[@]}" import - moat-base ;;
    build) "${pod[@]}" build --network=none --build-arg BASE=localhost/moat-base --build-arg PACKAGE="$(cd "$OUT" && ls moat_0.1.0-1_*.deb)" -t moat -f Containerfile "$OUT" ;;
    run) "${pod[@]}" run -d --name moat --hostname container --network="ns:/run/netns/$CT" --cap-add NET_ADMIN --cap-add NET_RAW \
        -v "$WORK/etc:/etc/moat:ro" -v "$WORK/state:/var/lib/moat" moat ;;
    again) "${pod[@]}" stop moat && sleep 1 && "${pod[@]}" start moat && sleep 3 ;;
    status) "${pod[@]}" exec moat moatctl status ;;
    end) "${pod[@]}" rm -f moat ;;
    esac
}
