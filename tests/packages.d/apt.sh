# A host with apt: how packages come and go there.

PACKAGE_apt() { echo "$OUT/moat_$1-1_$(dpkg --print-architecture).deb"; }

# The package of one version, for tests that need no more.
apt_built() {
    [[ -z ${BUILT-} ]] || return 0
    compile
    deb 0.1.0
}

# apt_publish VERSION: to the signed repository.
apt_publish() {
    local repo=$WORK/repo
    if [[ ! -d $repo ]]; then
        signing_key
        mkdir -p "$repo"
        gpg --export >"$WORK/root/usr/share/keyrings/moat.gpg"
        echo 'deb [signed-by=/usr/share/keyrings/moat.gpg] http://10.77.0.2:8000 ./' \
            >"$WORK/root/etc/apt/sources.list.d/moat.list"
        serve "$repo"
    fi
    cp "$(PACKAGE_apt "$1")" "$repo"
    (cd "$repo" && apt-ftparchive packages . >Packages && apt-ftparchive release . >Release.new && mv Release.new Release &&
        gpg --batch --quiet --yes --clearsign -o InRelease Release)
}

# apt_install [VERSION]: installs, upgrades or downgrades.
apt_install() {
    inside apt-get -qq update
    inside apt-get -qq install -y --no-install-recommends --allow-downgrades -o Dpkg::Options::=--force-confold "moat${1:+=$1-1}"
}

apt_version() { inside dpkg-query -W -f '${Version}' moat | sed 's/-1$//'; }
apt_remove() { inside apt-get -qq remove -y moat; }
apt_purge() { inside apt-get -qq purge -y moat; }

# What this test itself has put there.
apt_ours() { printf '%s\n' /etc/apt/sources.list.d/moat.list /usr/share/keyrings/moat.gpg; }

# No running systemd, and policy-rc.d says no.
apt_chroot() {
    cp "$(PACKAGE_apt 0.1.0)" "$WORK/root/tmp/moat.deb"
    printf '#!/bin/sh\nexit 101\n' >"$WORK/root/usr/sbin/policy-rc.d"
    chmod +x "$WORK/root/usr/sbin/policy-rc.d"
    unshare -n chroot "$WORK/root" dpkg -i /tmp/moat.deb
    [[ -L $WORK/root/etc/systemd/system/multi-user.target.wants/moatd.service ]]
    unshare -n chroot "$WORK/root" dpkg -P moat
}
