# Building the packages.

CARGO_DEB_VERSION=3.8.0
OUT=target/packages
# The oldest C library that the binaries must run with: that of Enterprise Linux 9. Debian 12 and everything newer has it.
GLIBC=2.34
# Which binaries are packaged: release, or those that the other tests have built already, to save the time of a second build.
BINARIES=${BINARIES:-release}
# Apart from other builds: these binaries do not tell where they were built.
export CARGO_TARGET_DIR=$PWD/target/packaged-$BINARIES
BIN=$CARGO_TARGET_DIR/release
# For which machine, if not for this one; its binutils, and what runs its programs here.
TARGET= BINUTILS= RUNNER=()

build() {
    need lintian:lintian objdump:binutils rpmbuild:rpm rpmlint:rpmlint cpio:cpio "${BUILD[@]}"
    compile
    rm -f "$OUT"/moat[-_]*
    deb 0.1.0
    rpm_package 0.1.0
    tarball 0.1.0
    # The project has no public mail address yet, and the package is not one of Debian's archive with its bug numbers.
    lintian --allow-root --fail-on error,warning --suppress-tags \
        bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$OUT"/moat_0.1.0-1_*.deb
    rpmlint --strict --config rpm/rpmlint.toml "$OUT"/moat-0.1.0-1.*.rpm >"$OUT/rpmlint" || { cat "$OUT/rpmlint" >&2; return 1; }
    same_contents
    sha256sum "$OUT"/moat[-_]*
    echo "packages: $OUT"
}

# The programs, the completions and the files as on the host.
compile() {
    local program machine=()
    [[ -z $TARGET ]] || machine=(--target "$TARGET")
    mkdir -p "$OUT"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    cargo deb --version >/dev/null 2>&1 || cargo install --quiet --locked "cargo-deb@$CARGO_DEB_VERSION"
    if [[ $BINARIES == debug ]]; then
        mkdir -p "$BIN"
        CARGO_TARGET_DIR=target cargo build --quiet --locked --bins "${machine[@]}"
        for program in moatd moatctl; do "${BINUTILS}strip" -o "$BIN/$program" "target/${TARGET:+$TARGET/}debug/$program"; done
    else
        RUSTFLAGS="--remap-path-prefix=$PWD=/moat --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
            cargo build --quiet --release --locked --bins "${machine[@]}"
    fi
    check_glibc
    completions
    stage "$OUT/stage"
}

# deb VERSION
deb() {
    cargo deb --quiet --locked --no-build --no-strip ${TARGET:+--target "$TARGET"} --deb-version "$1-1" --output "$OUT/" >/dev/null
}

# rpm_package VERSION
rpm_package() {
    local top=$PWD/$OUT/rpmbuild
    rpmbuild --quiet -bb --define "_topdir $top" --define "_rpmdir $PWD/$OUT" --define "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm" \
        --define "stage $PWD/$OUT/stage" --define "moat_version $1" rpm/moat.spec
    rm -rf "$top"
}

# tarball VERSION
tarball() {
    local name
    name=moat-$1-$(uname -m)
    rm -rf "${OUT:?}/$name"
    mkdir -p "$OUT/$name"
    cp -a "$OUT/stage" "$OUT/$name/files"
    cp -p tarball/*.sh README.md "$OUT/$name/"
    tar -C "$OUT" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$name" |
        gzip -9n >"$OUT/$name.tar.gz"
    rm -rf "${OUT:?}/$name"
}

# stage DIR: all files of the rpm and of the tarball, as on the host. The list for the Debian package is in Cargo.toml.
stage() {
    local section
    rm -rf "$1"
    install -D -m 755 -t "$1/usr/sbin" "$BIN/moatd"
    install -D -m 755 -t "$1/usr/bin" "$BIN/moatctl"
    install -D -m 644 -t "$1/etc/moat" etc/moat/moat.toml
    install -d -m 755 "$1/etc/moat/policy.d" "$1/etc/moat/moat.d"
    install -d -m 700 "$1/var/lib/moat"
    install -D -m 644 -t "$1/usr/lib/systemd/system" systemd/*.service
    for section in 1 5 7 8; do install -D -m 644 -t "$1/usr/share/man/man$section" docs/man/*."$section"; done
    gzip -9nr "$1/usr/share/man"
    install -D -m 644 -t "$1/usr/share/bash-completion/completions" "$OUT/completions/moatctl"
    install -D -m 644 -t "$1/usr/share/zsh/site-functions" "$OUT/completions/_moatctl"
    install -D -m 644 -t "$1/usr/share/fish/vendor_completions.d" "$OUT/completions/moatctl.fish"
    install -D -m 644 -t "$1/usr/share/doc/moat/examples" etc/moat/examples/*
    install -D -m 644 -t "$1/usr/share/doc/moat" README.md
    install -D -m 644 CHANGELOG.md "$1/usr/share/doc/moat/NEWS.md"
    install -D -m 644 -t "$1/usr/share/licenses/moat" LICENSE
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# Prints the newest symbol versions that the binaries need.
check_glibc() {
    local program newest
    for program in moatd moatctl; do
        newest=$("${BINUTILS}objdump" -T "$BIN/$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
        echo "$program needs $newest"
        [[ $(printf '%s\n' "$newest" "GLIBC_$GLIBC" | sort -V | tail -1) == "GLIBC_$GLIBC" ]] ||
            { echo "$program does not run with glibc $GLIBC" >&2; return 1; }
    done
}

completions() {
    local dir=$OUT/completions
    mkdir -p "$dir"
    "${RUNNER[@]}" "$BIN/moatctl" completion bash >"$dir/moatctl"
    "${RUNNER[@]}" "$BIN/moatctl" completion zsh >"$dir/_moatctl"
    "${RUNNER[@]}" "$BIN/moatctl" completion fish >"$dir/moatctl.fish"
}

# The three packages install the same files, but for what each distribution has in a place of its own.
same_contents() {
    local of
    of() { sed -e 's|^\./|/|' -e 's|^/||' -e '/^$/d' | grep -v -e '/$' -e '^etc/needrestart' -e '^usr/share/licenses/' -e '^usr/share/doc/moat/copyright$' \
        -e '^usr/share/doc/moat/changelog.*gz$' -e '^usr/share/lintian/' -e 'zsh/.*/_moatctl$' | sort; }
    local deb rpm tar
    deb=$(dpkg-deb --fsys-tarfile "$OUT"/moat_0.1.0-1_*.deb | tar -t | of)
    rpm=$(rpm2cpio "$OUT"/moat-0.1.0-1.*.rpm | cpio -t --quiet 2>/dev/null | while read -r f; do [[ -d $OUT/stage/$f ]] || echo "$f"; done | of)
    tar=$(tar -tf "$OUT"/moat-0.1.0-*.tar.gz | sed -n 's|^[^/]*/files/||p' | of)
    diff <(echo "$deb") <(echo "$rpm")
    diff <(echo "$rpm") <(echo "$tar")
    echo "deb, rpm and tarball: the same $(wc -l <<<"$rpm") files"
}

# Builds everything twice, the second time from a clone elsewhere, and compares.
reproducible() {
    local first second work
    build >/dev/null
    first=$(cd "$OUT" && sha256sum moat[-_]*)
    work=$(mktemp -d /var/tmp/moat-again.XXXXXX)
    git clone -q . "$work/elsewhere"
    (cd "$work/elsewhere" && tests/packages build >/dev/null)
    second=$(cd "$work/elsewhere/$OUT" && sha256sum moat[-_]*)
    rm -rf "$work"
    diff <(echo "$first") <(echo "$second")
    echo "$first"
    echo "two builds in two places are the same, byte for byte"
}
