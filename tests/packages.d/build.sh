# Building the packages.

CARGO_DEB_VERSION=3.8.0
OUT=target/packages
# The oldest C library that the binaries must run with: that of Enterprise Linux 9. Debian 12 and everything newer has it.
GLIBC=2.34

build() {
    need lintian:lintian objdump:binutils "${BUILD[@]}"
    cargo deb --version >/dev/null 2>&1 || cargo install --quiet --locked "cargo-deb@$CARGO_DEB_VERSION"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    cargo build --quiet --release --locked --bins
    check_glibc
    completions
    rm -f "$OUT"/*.deb
    make_deb
    # The project has no public mail address yet, and the package is not one of Debian's archive with its bug numbers.
    lintian --allow-root --fail-on error,warning --suppress-tags \
        bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$OUT"/moat_*.deb
    sha256sum "$OUT"/*.deb
    echo "packages: $OUT"
}

# make_deb [VERSION]
make_deb() {
    cargo deb --quiet --locked --no-build --no-strip ${1:+--deb-version "$1"} --output "$OUT/"
}

# Prints the newest symbol versions that the binaries need.
check_glibc() {
    local program newest
    for program in moatd moatctl; do
        newest=$(objdump -T "target/release/$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
        echo "$program needs $newest"
        [[ $(printf '%s\n' "$newest" "GLIBC_$GLIBC" | sort -V | tail -1) == "GLIBC_$GLIBC" ]] ||
            { echo "$program does not run with glibc $GLIBC" >&2; return 1; }
    done
}

completions() {
    local dir=$OUT/completions
    mkdir -p "$dir"
    target/release/moatctl completion bash >"$dir/moatctl"
    target/release/moatctl completion zsh >"$dir/_moatctl"
    target/release/moatctl completion fish >"$dir/moatctl.fish"
}
