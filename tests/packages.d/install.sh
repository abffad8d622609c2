# README "Install", word for word: by apt, by dnf, from the tarball and as a container.

install_readme() {
    HOST=bookworm MANAGER=dnf
    need podman:podman rpmbuild:rpm
    host_begin
    packages_of apt
    packages_of dnf
    readme_blocks
    host_root bookworm dnf rpm
    host_on
    step='the packages'
    cp "$(PACKAGE_apt 0.1.0)" "$(PACKAGE_dnf 0.1.0)" "$OUT/moat-0.1.0-$(uname -m).tar.gz" "$WORK/root/root/"
    check 'apt: as README says' readme_block 1
    check 'moatctl doctor' readme_block 5
    check 'apt: it runs, and enforces nothing' runs_open
    inside apt-get -qq purge -y moat >/dev/null
    dnf_stub 0.1.0
    echo 1 >"$WORK/root/etc/dnf/vars/releasever"
    check 'dnf: as README says' readme_block 2
    check 'dnf: it runs, and enforces nothing' runs_open
    step='dnf: remove and purge'
    { pm remove; pm purge; } >"$WORK/log" 2>&1
    check 'tarball: as README says' readme_block 3
    check 'tarball: it runs, and enforces nothing' runs_open
    step='the container image'
    inside sh -c '/root/moat-*/uninstall.sh --purge' >/dev/null
    host_off
    check 'container: as README says' readme_container
    step=
    echo "tests/packages install: everything passed in $SECONDS s"
}

# The commands of each block of the section, in files $WORK/readme.1 and so on; five lines at most.
readme_blocks() {
    step='README'
    awk -v to="$WORK/readme." '/^### / {within = $0 == "### Install"} within && /^```console/ {number++; next}
        within && /^# / {print substr($0, 3) >(to number)}' README.md
    local number
    for number in 1 2 3 4 5; do
        (($(wc -l <"$WORK/readme.$number") <= 5))
    done
}

# readme_block NUMBER: typed by root in its home; questions are answered with yes.
readme_block() { inside sh -exc "cd /root; $(<"$WORK/readme.$1")" < <(yes); }

runs_open() {
    inside systemctl is-active moatd moat-boot
    status_says 'no endpoint belongs to this host: nothing is enforced'
    [[ $(kernel_rules) != *moat-* ]]
}

# In the namespace of the container as the host, where the image that the definition begins with is this root, since no registry
# is there.
readme_container() {
    export -f podman_here typed
    podman_do import "$WORK/root" docker.io/library/debian:bookworm-slim
    mkdir -p "$WORK/etc/policy.d"
    policy | sed "s/node: web1/node: $(uname -n)/" >"$WORK/etc/policy.d/web1.yaml"
    podman_do typed "$WORK/readme.4"
    ns_enforced
    podman_do end
}
