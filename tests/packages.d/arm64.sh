# The Debian package for arm64, cross-built here, and its programs run by qemu.

arm64() {
    need aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/include/stdlib.h:libc6-dev-arm64-cross \
        qemu-aarch64:qemu-user "${BUILD[@]}"
    TARGET=aarch64-unknown-linux-gnu BINUTILS=aarch64-linux-gnu- RUNNER=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
    rustup --quiet target add "$TARGET"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    BIN=$CARGO_TARGET_DIR/$TARGET/release
    compile
    deb 0.1.0
    local package=$OUT/moat_0.1.0-1_arm64.deb work
    [[ $(dpkg-deb -f "$package" Architecture) == arm64 ]]
    work=$(mktemp -d)
    dpkg-deb -x "$package" "$work"
    smoke "$work"
    rm -rf "$work"
    sha256sum "$package"
    echo "tests/packages arm64: the programs of the package run under qemu"
}

# smoke ROOT: the programs in it do what needs no kernel of their own.
smoke() {
    local version run=("${RUNNER[@]}")
    "${BINUTILS}readelf" -h "$1/usr/sbin/moatd" | grep AArch64
    version=$("${run[@]}" "$1/usr/sbin/moatd" --version)
    echo "$version"
    [[ $version == 'moatd 0.1.0'* ]]
    mkdir -p "$1/etc/moat/policy.d"
    policy >"$1/etc/moat/policy.d/web1.yaml"
    "${run[@]}" "$1/usr/bin/moatctl" validate --strict --node web1 "$1/etc/moat/policy.d"
    sed "s|^# *stateDir.*|stateDir = \"$1/var/lib/moat\"|" "$1/etc/moat/moat.toml" >"$1/moat.toml"
    "${run[@]}" "$1/usr/sbin/moatd" --config "$1/moat.toml" check
}
