#!/bin/sh
# Removes moat and its rules from this host. With --purge also its settings, policy and state.
set -eu
cd "$(dirname "$0")/files"

[ "$(id -u)" = 0 ] || { echo "uninstall.sh: must run as root" >&2; exit 77; }
if [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now moatd.service moat-boot.service >/dev/null 2>&1 || :
fi
if [ "${1-}" = --purge ]; then
    moatd cleanup
else
    moatd cleanup --on-remove
fi
find . -type f ! -path './etc/*' | while read -r file; do rm -f "/$file"; done
rmdir /usr/share/doc/moat/examples /usr/share/doc/moat /usr/share/licenses/moat 2>/dev/null || :
if [ "${1-}" = --purge ]; then
    rm -rf /etc/moat /var/lib/moat /run/moat
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload
