# Sourced by up.sh, down.sh and node.sh: which SLURM the cluster runs, this machine's own or that of another Debian release, and how the latter gets here.
#
# Another release's SLURM lies in a folder of its own, $FOREIGN, that debootstrap makes once: a whole Debian, so that every library is there. Nothing
# of it is installed on this machine. Its programs are copied to $FOREIGN/opt/slurm, and the copies look for their loader and libraries in $FOREIGN.
# So they run on this machine's file system like any program, and the jobs that they start are this machine's programs, with its libraries.
CACHE=${TESTCLUSTER_CACHE:-/var/cache/vssm-testcluster}
VERSION=${TESTCLUSTER_SLURM:-$(cat "$RUN/slurm" 2>/dev/null || echo own)}
case $VERSION in
    own) RELEASE="" ;;
    24.11) RELEASE=trixie ;;
    *) say "error: TESTCLUSTER_SLURM=$VERSION: valid are own (this machine's packages) and 24.11" >&2; exit 2 ;;
esac
FOREIGN=$CACHE/slurm-$VERSION
FOREIGN_BIN=$FOREIGN/opt/slurm/bin FOREIGN_LIB=$FOREIGN/opt/slurm/lib
FOREIGN_PACKAGES=slurmctld,slurmd,slurm-client,slurmdbd,slurm-wlm-basic-plugins,slurm-wlm-mysql-plugin,patchelf
STEPD=()
[ "$VERSION" = own ] || { PATH=$FOREIGN_BIN:$PATH STEPD=(-d "$FOREIGN_BIN/slurmstepd"); }

slurm_here() { [ "$VERSION" = own ] || [ -x "$FOREIGN_BIN/slurmctld" ]; }

make_slurm() { # whole or not at all; a second up.sh waits for the first
    local new=$FOREIGN.new alone=()
    mkdir -p "$CACHE"
    exec 8>"$CACHE/slurm-$VERSION.lock"
    flock 8
    if ! slurm_here; then
        say "SLURM $VERSION of Debian's $RELEASE, into $FOREIGN (a minute, once)"
        rm -rf --one-file-system "$new" # a killed one may have left its /proc there, where mounts of its own are not allowed
        if unshare --mount true 2>/dev/null; then alone=(unshare --mount); fi
        { "${alone[@]}" debootstrap --variant=minbase --include="$FOREIGN_PACKAGES" "$RELEASE" "$new" $(mirror) && move_programs "$new"; } \
            >"$LOG/debootstrap.log" 2>&1 || no_slurm
        rm -rf --one-file-system "$new/var/cache/apt/archives"/*.deb "$FOREIGN"
        mv "$new" "$FOREIGN"
    fi
    exec 8>&-
}

# Where this machine's own apt gets Debian from; empty, which is debootstrap's default, where it is another distribution.
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1; }

move_programs() { # within the new root $1: programs and plug-ins that look for their libraries in $FOREIGN
    local libraries=/usr/lib/$(uname -m)-linux-gnu program name loader
    loader=$(chroot "$1" patchelf --print-interpreter /usr/bin/sinfo) && mkdir -p "$1/opt/slurm/bin" && cp -a "$1$libraries/slurm-wlm" "$1/opt/slurm/lib" || return
    rm -f "$1/opt/slurm/lib"/mpi_pmix* # want a library that Debian does not install with them, and every log would say so
    for program in $(chroot "$1" dpkg -L slurmctld slurmd slurm-client slurmdbd | grep -E '^/usr/s?bin/'); do
        name=$(basename "$program" -wlm)
        cp "$1$program" "$1/opt/slurm/bin/$name" && chroot "$1" patchelf --set-interpreter "$FOREIGN$loader" "/opt/slurm/bin/$name" || return
    done
    chroot "$1" sh -c 'patchelf --force-rpath --set-rpath "$1" /opt/slurm/bin/* /opt/slurm/lib/*.so' sh "$FOREIGN_LIB:$FOREIGN$libraries"
}

no_slurm() { tail -n 5 "$LOG/debootstrap.log" >&2; say "error: SLURM $VERSION cannot be installed here; $LOG/debootstrap.log says why" >&2; exit 3; }
