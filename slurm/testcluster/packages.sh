# Sourced by up.sh: installs the Debian packages that the cluster needs without starting their services. Exit code 3: they cannot be installed here.
PACKAGES="munge iproute2"
if [ "$VERSION" = own ]; then PACKAGES="$PACKAGES slurmctld slurmd slurm-client"; else PACKAGES="$PACKAGES debootstrap debian-archive-keyring"; fi
[ "$ACCOUNTING" = 0 ] || PACKAGES="$PACKAGES mariadb-server"
[ "$ACCOUNTING$VERSION" != 1own ] || PACKAGES="$PACKAGES slurmdbd"

installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}\n' $PACKAGES 2>/dev/null | grep -c '^ii')" = "$(wc -w <<<"$PACKAGES")" ]; }

install_packages() {
    local apt="apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Acquire::http::Timeout=20" policy="" log="$LOG/apt.log" try
    export DEBIAN_FRONTEND=noninteractive
    command -v apt-get >/dev/null || no_packages
    # policy-rc.d keeps dpkg from starting daemons; an existing file is left alone
    [ -e /usr/sbin/policy-rc.d ] || { policy=/usr/sbin/policy-rc.d; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
    for try in 1 2 3; do
        $apt update >"$log" 2>&1 || true # an unrelated package source that is down does not matter
        if $apt install -y --no-install-recommends $PACKAGES >>"$log" 2>&1; then break; fi
        [ "$try" = 3 ] || sleep 5
    done
    [ -z "$policy" ] || rm -f "$policy"
    installed || no_packages
}

no_packages() { tail -n 5 "$LOG/apt.log" >&2 2>/dev/null; say "error: apt-get could not install $PACKAGES" >&2; exit 3; }
