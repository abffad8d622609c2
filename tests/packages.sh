# Sourced by tests/demo and tests/run.

# What cargo needs to build, for `need`; C++ is libFuzzer's.
BUILD=(cc:gcc c++:g++ /usr/include/stdlib.h:libc6-dev)

# need COMMAND:PACKAGE...: installs the Debian packages of commands, or of files with a full path, that are missing.
need() {
    local item missing=()
    for item in "$@"; do
        command -v "${item%%:*}" >/dev/null || [[ -e ${item%%:*} ]] || missing+=("${item##*:}")
    done
    ((${#missing[@]})) || return 0
    echo "installing ${missing[*]}"
    # A package that brings a service must not start it here.
    local policy=/usr/sbin/policy-rc.d made=
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=yes
    fi
    local status=0
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get -qq install -y --no-install-recommends \
        "${missing[@]}" </dev/null; } >/dev/null || status=$?
    [[ -z $made ]] || rm -f "$policy"
    return "$status"
}

# Stops unless this is root, with cargo.
need_root_and_cargo() {
    ((EUID == 0)) || { echo "$0: must run as root: it makes network namespaces" >&2; exit 77; }
    PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
    command -v cargo >/dev/null || { echo "$0: cargo is missing: install it from https://rustup.rs" >&2; exit 69; }
}
