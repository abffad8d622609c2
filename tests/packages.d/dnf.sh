# A host with dnf. It is Debian below, where a stub of a package stands for what an RPM distribution would provide.

PACKAGE_dnf() { echo "$OUT/moat-$1-1.$(uname -m).rpm"; }

# dnf_publish VERSION: to the signed repository, the package signed, too.
dnf_publish() {
    local repo=$WORK/repo package
    if [[ ! -d $repo ]]; then
        need createrepo_c:createrepo-c rpmsign:rpm
        signing_key
        mkdir -p "$repo"
        gpg --armor --export >"$repo/key.asc"
        mkdir -p "$WORK/root/etc/yum.repos.d"
        cat >"$WORK/root/etc/yum.repos.d/moat.repo" <<REPO
[moat]
name=moat
baseurl=http://10.77.0.2:8000
gpgkey=http://10.77.0.2:8000/key.asc
gpgcheck=1
repo_gpgcheck=1
metadata_expire=0
REPO
        serve "$repo"
        dnf_stub "$1"
    fi
    package=$repo/$(basename "$(PACKAGE_dnf "$1")")
    cp "$(PACKAGE_dnf "$1")" "$package"
    rpmsign --define '__gpg /usr/bin/gpg' --define "_gpg_name moat@localhost" --define "_gpg_path $GNUPGHOME" --addsign "$package"
    createrepo_c --quiet "$repo"
    gpg --batch --quiet --yes --detach-sign --armor "$repo/repodata/repomd.xml"
}

# A package that provides all that ours requires; Debian has put the real things there.
dnf_stub() {
    {
        printf 'Name: stub\nVersion: 1\nRelease: 1\nSummary: stub\nLicense: none\nBuildArch: noarch\n'
        rpm -qpR "$(PACKAGE_dnf "$1")" 2>/dev/null | grep -v '^rpmlib(' | sort -u | sed 's/^/Provides: /'
        printf '%%description\nstub\n%%files\n'
    } >"$WORK/stub.spec"
    rpmbuild --quiet -bb --define "_topdir $WORK/rpmbuild" --define "_rpmdir $WORK/root/opt" --define '_rpmfilename stub.rpm' "$WORK/stub.spec"
    inside rpm --nodeps -i /opt/stub.rpm
}

dnf_do() { inside dnf -y --releasever=1 "$@"; }

# dnf_install [VERSION]: installs, upgrades or downgrades.
dnf_install() {
    local verb=install
    if inside rpm -q moat; then
        verb=upgrade
        [[ $(printf '%s\n' "${1-}" "$(dnf_version)" | sort -V | tail -1) == "${1-}" ]] || verb=downgrade
    fi
    dnf_do "$verb" "moat${1:+-$1}" 2>&1
    [[ $verb != install ]] || inside systemctl enable --now moat-boot moatd
}

dnf_version() { inside rpm -q --qf '%{VERSION}' moat; }
dnf_remove() { dnf_do remove moat; }

# An rpm knows no purge: this is what docs/packaging.md says instead.
dnf_purge() {
    inside /var/lib/moat/moatd.purge cleanup
    inside rm -rf /etc/moat /var/lib/moat
}

dnf_ours() { printf '%s\n' /etc/yum.repos.d/moat.repo; }

# No running systemd.
dnf_chroot() {
    cp "$(PACKAGE_dnf 0.1.0)" "$WORK/root/tmp/moat.rpm"
    unshare -n chroot "$WORK/root" rpm -i /tmp/moat.rpm
    unshare -n chroot "$WORK/root" rpm -e moat
}
