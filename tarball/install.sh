#!/bin/sh
# Installs moat on a host without apt or dnf, or brings a newer version there. Settings and policy in /etc/moat stay as they are.
# install.sh [ROOT]     ROOT: another root directory, for images
set -eu
root=${1-}
cd "$(dirname "$0")/files"

[ -n "$root" ] || [ "$(id -u)" = 0 ] || { echo "install.sh: must run as root" >&2; exit 77; }
for tool in iptables-nft-restore iptables-legacy-restore; do
    PATH=$PATH:$root/usr/sbin:$root/sbin command -v "$tool" >/dev/null && found=yes
done
[ -n "${found-}" ] || echo "install.sh: iptables is missing: install it before moatd is started" >&2

# A program that runs cannot be overwritten, but replaced.
find . -type f ! -path './etc/*' | while read -r file; do
    mkdir -p "$root/$(dirname "$file")"
    cp -p "$file" "$root/$file.new"
    mv "$root/$file.new" "$root/$file"
done
mkdir -p "$root/etc/moat/policy.d" "$root/etc/moat/moat.d"
[ -e "$root/etc/moat/moat.toml" ] || cp etc/moat/moat.toml "$root/etc/moat/"
mkdir -p -m 0700 "$root/var/lib/moat"

if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if ! systemctl --quiet is-active moatd.service; then
        echo "moat enforces nothing yet. Write policy into /etc/moat/policy.d, check it with 'moatctl validate -f /etc/moat/policy.d',"
        echo "then: systemctl enable --now moat-boot moatd"
    elif moatd check >/dev/null; then
        systemctl try-restart moatd.service
    else
        echo "moat: the new version cannot work with these settings or this state, see above: the old one keeps running." >&2
        echo "moat: mend it, then: systemctl restart moatd" >&2
        exit 78
    fi
fi
