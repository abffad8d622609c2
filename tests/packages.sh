# Sourced by tests/demo and tests/run: `need` installs the Debian packages of commands that are missing.

# need COMMAND:PACKAGE...
need() {
    local item missing=()
    for item in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${item%%:*}" >/dev/null || missing+=("${item##*:}")
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
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        "${missing[@]}" </dev/null; } >/dev/null || status=$?
    [[ -z $made ]] || rm -f "$policy"
    return "$status"
}

# Stops unless this is root, with cargo.
need_root_and_cargo() {
    ((EUID == 0)) || { echo "$0: must run as root: it makes network namespaces" >&2; exit 77; }
    [[ -d $HOME/.cargo/bin ]] && PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || { echo "$0: cargo is missing: install it from https://rustup.rs" >&2; exit 69; }
}
