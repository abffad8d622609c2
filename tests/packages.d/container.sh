# The container image, built and run by podman, enforcing in a network namespace that it is given.

container() {
    HOST=podman MANAGER=apt
    need podman:podman
    host_begin
    apt_built
    host_root bookworm
    mkdir -p "$WORK/etc/policy.d" "$WORK/state"
    policy | sed 's/node: web1/node: container/' >"$WORK/etc/policy.d/web1.yaml"
    export -f podman_here typed
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
    printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$WORK/storage" "$WORK/run" >"$WORK/storage.conf"
    export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
    case $1 in
    import) tar -C "$2" -c . | podman import - "${3:-moat-base}" ;;
    build) podman build --network=none --build-arg BASE=localhost/moat-base --build-arg PACKAGE="$(cd "$OUT" && ls moat_0.1.0-1_*.deb)" -t moat -f Containerfile "$OUT" ;;
    run) podman run -d --name moat --hostname container --network="ns:/run/netns/$CT" --cap-add NET_ADMIN --cap-add NET_RAW \
        -v "$WORK/etc:/etc/moat:ro" -v "$WORK/state:/var/lib/moat" moat ;;
    typed) typed "$2" ;;
    again) podman stop moat && sleep 1 && podman start moat && sleep 3 ;;
    status) podman exec moat moatctl status ;;
    end) podman rm -f --all ;;
    esac
}

# typed FILE: these commands on a host that has the container's network, and files of its own in /etc/moat and /var/lib/moat.
typed() {
    local dir
    for dir in etc var/lib; do
        mkdir -p "$WORK/upper/$dir/moat" "$WORK/work/$dir"
        mount -t overlay -o "lowerdir=/$dir,upperdir=$WORK/upper/$dir,workdir=$WORK/work/$dir" overlay "/$dir"
    done
    cp -r "$WORK/etc/." /etc/moat
    nsenter --net="/run/netns/$CT" bash -ex "$1"
}
