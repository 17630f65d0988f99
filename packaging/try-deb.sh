#!/usr/bin/env bash
# Tries a Debian package as an operator would: in a new Debian it is installed, run, upgraded in
# place and purged, and nothing of it may be left. Prints what it sees, and fails where something is
# wrong.
#
#   packaging/try-deb.sh [--boot] DEB [NEWER]
#
# NEWER is the version that is upgraded to; without it, it is DEB with a greater number. With
# `--boot` the same is done once more under systemd in a container: the service starts, is reloaded,
# rotates its log, gives way to another process, is restarted by the upgrade and stopped by the
# removal. TRY_DROPIN names a drop-in for the service there, SUITE and MIRROR another Debian. A
# binary that `make deb` did not build has paths of the machine that built it: TRY_PATHS=yes permits
# them.
#
# It needs root, debootstrap, lintian, unshare and setpriv, and `systemd-nspawn` for `--boot`. It
# fetches Debian, and has networks of its own, in which its ports are free.
set -euo pipefail

SUITE=${SUITE:-bookworm}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say() { echo "== $*"; }
fail() { echo "try-deb: $*" >&2; exit 1; }

boot=
if [ "${1:-}" = --boot ]; then boot=yes; shift; fi
[ $# = 1 ] || [ $# = 2 ] || { sed -n 's/^# *\(packaging\/.*\)/usage: \1/p' "$0" >&2; exit 64; }
[ "$(id -u)" = 0 ] || fail "this needs root"
deb=$(realpath "$1")
work=$(mktemp -d -t try-deb.XXXXXX)
machine=
# shellcheck disable=SC2329 # the trap calls it
finish() {
    if [ -n "$machine" ]; then kill "$machine" 2>/dev/null || true; wait "$machine" || true; fi
    rm -rf --one-file-system "$work"
}
trap finish EXIT

# A package that differs in its number alone.
bump() {
    dpkg-deb -R "$deb" "$work/bumped"
    sed -i 's/^Version: .*/&+try1/' "$work/bumped/DEBIAN/control"
    dpkg-deb --root-owner-group -b "$work/bumped" "$work/newer.deb" >/dev/null
    rm -rf "$work/bumped"
    echo "$work/newer.deb"
}
newer=$(realpath "${2:-$(bump)}")
version=$(dpkg-deb -f "$deb" Version)
newer_version=$(dpkg-deb -f "$newer" Version)
dpkg --compare-versions "$newer_version" gt "$version" || fail "$newer_version is no upgrade"

# ---------------------------------------------------------------- the package as a file

looks() {
    say "lintian of $version"
    lintian --allow-root --fail-on error --fail-on warning "$deb"
    echo "no errors and no warnings, but for what is overridden:"
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/share/lintian/overrides/snapedge
    say "what the program tells of the machine that built it"
    local found
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/snapedge >"$work/program"
    # Paths of Cargo and rustup, and of this source. Those of `rustc` itself (/rustc, /rust/deps)
    # are the same everywhere.
    found=$(strings -n 6 "$work/program" |
        grep -cE "/\.?cargo/registry/|/\.?rustup/|$(realpath "$(dirname "$0")/..")/" || true)
    if [ "$found" = 0 ]; then
        echo "nothing"
    elif [ -n "${TRY_PATHS:-}" ]; then
        echo "$found lines with its paths, which TRY_PATHS permits"
    else
        fail "$found lines with its paths, see \`strings\`; make deb builds one without them"
    fi
    if readelf -S "$work/program" | grep -qE '\.(symtab|debug_info)'; then
        fail "the program is not stripped"
    fi
    dpkg-deb -c "$deb" | awk '{ print $1, $2, $3, $6, $7, $8 }'
}

# ---------------------------------------------------------------- what is on the disk

# Folders and files that dpkg, apt and a running system write to, whatever is installed.
MOVING='^\./(proc|sys|dev|run|tmp|root|var/tmp|var/lib/(dpkg|apt)|var/cache/(apt|debconf|ldconfig)'
MOVING+='|var/log/(apt|journal|dpkg\.log|alternatives\.log)'
MOVING+='|var/lib/systemd/(timers|random-seed|credential\.secret)|var/lib/logrotate'
MOVING+='|etc/(passwd|group|shadow|gshadow|subuid|subgid)-)(/|$)'

# Each other file, and who may log in.
inventory() {
    (
        cd "$1"
        find . -xdev | grep -vE "$MOVING"
        cat etc/passwd etc/group
    ) | sort
}

expect_files() {
    local path
    for path in usr/bin/snapedge usr/lib/systemd/system/snapedge.service \
        etc/snapedge/snapedge.yaml etc/logrotate.d/snapedge usr/share/doc/snapedge/README.md \
        usr/share/doc/snapedge/docs/operations.md usr/share/doc/snapedge/conf/snapedge.yaml \
        usr/share/doc/snapedge/conf/alerts.yml usr/share/doc/snapedge/conf/grafana-dashboard.json \
        usr/share/doc/snapedge/examples/rpc-edge.yaml usr/share/doc/snapedge/THIRD-PARTY.txt.gz \
        usr/share/doc/snapedge/snapedge.cdx.json.gz usr/share/man/man1/snapedge.1.gz \
        usr/share/man/man1/snapedge-status.1.gz usr/share/bash-completion/completions/snapedge \
        usr/share/zsh/vendor-completions/_snapedge usr/share/fish/vendor_completions.d/snapedge.fish
    do
        [ -e "$1/$path" ] || fail "/$path is not installed"
    done
    [ "$(chroot "$1" stat -c '%U %a' /etc/snapedge/snapedge.yaml)" = "root 644" ] ||
        fail "the configuration is not root's"
    chroot "$1" getent passwd snapedge | grep -q ':/usr/sbin/nologin$' ||
        fail "there is no user snapedge, or it can log in"
}

# ---------------------------------------------------------------- without systemd

# Runs the program in the root by its own configuration, in a network of its own and with an
# environment as empty as that of a service, and asks it.
run_in() {
    # shellcheck disable=SC2016 # the inner shell expands it
    env -i PATH="$PATH" unshare --net --fork --kill-child bash -euc '
        ip link set lo up
        install -d -o "$(stat -c %u "$1/var/cache/snapedge")" "$1/var/cache/snapedge"
        ids=$(chroot "$1" getent passwd snapedge | cut -d: -f3,4)
        chroot "$1" setpriv --reuid "${ids%:*}" --regid "${ids#*:}" --clear-groups --no-new-privs \
            --bounding-set=-all --inh-caps=-all \
            /usr/bin/snapedge -c /etc/snapedge/snapedge.yaml 2>"$1/tmp/log" &
        for _ in $(seq 100); do
            code=0
            answer=$(chroot "$1" snapedge status -c /etc/snapedge/snapedge.yaml 2>&1) || code=$?
            [ $code = 2 ] || break
            sleep 0.1
        done
        # The node of the configuration is not there: the edge answers, and is not healthy.
        [ $code = 1 ] || { echo "$answer"; cat "$1/tmp/log"; exit 1; }
        echo "$answer" | head -2
        [ -e "$1/var/cache/snapedge/snapedge.lock" ] || { echo "there is no cache"; exit 1; }
        kill -TERM $!
        wait $!
        echo "ended with 0"
    ' bash "$1"
}

chroot_apt() { chroot "$1" apt-get -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${@:2}"; }

without_systemd() {
    local root=$work/base
    say "Debian $SUITE without systemd: install $version"
    # Nothing is started in a root that no machine runs.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    inventory "$root" >"$work/before"
    cp "$deb" "$root/tmp/one.deb"
    cp "$newer" "$root/tmp/two.deb"
    chroot_apt "$root" install /tmp/one.deb
    expect_files "$root"
    chroot "$root" snapedge --version
    chroot "$root" snapedge -t -c /etc/snapedge/snapedge.yaml
    # As the unit does.
    chroot "$root" install -d -o snapedge -g snapedge -m 750 /var/cache/snapedge /var/log/snapedge
    run_in "$root"

    say "upgrade to $newer_version, with a configuration that was changed"
    echo '# kept' >>"$root/etc/snapedge/snapedge.yaml"
    chroot_apt "$root" install /tmp/two.deb
    # shellcheck disable=SC2016 # a format of dpkg-query
    [ "$(chroot "$root" dpkg-query -W -f '${Version}' snapedge)" = "$newer_version" ] ||
        fail "it was not upgraded"
    grep -q '^# kept$' "$root/etc/snapedge/snapedge.yaml" || fail "the configuration was replaced"
    [ -e "$root/var/cache/snapedge/snapedge.lock" ] || fail "the cache went with the upgrade"
    run_in "$root"

    say "remove: configuration and cache stay"
    chroot_apt "$root" remove snapedge
    [ -e "$root/etc/snapedge/snapedge.yaml" ] || fail "the configuration went"
    [ -e "$root/var/cache/snapedge/snapedge.lock" ] || fail "the cache went"
    [ ! -e "$root/usr/bin/snapedge" ] || fail "the program stayed"

    purged "$root" chroot "$root"
}

# Purges it by a command in the root, and compares the disk with how it was before.
purged() {
    say "purge: nothing stays"
    "${@:2}" dpkg --purge snapedge
    inventory "$1" >"$work/after"
    diff "$work/before" "$work/after" || fail "the purge left, or took, what is shown above"
    say "nothing is left"
}

# ---------------------------------------------------------------- under systemd

inside() { nsenter -t "$(pgrep -P "$machine")" -m -u -i -n -p -C -- "$@"; }

property() { inside systemctl show snapedge -P "$1"; }

expect_active() {
    [ "$(property ActiveState)/$(property SubState)" = active/running ] || {
        inside journalctl -u snapedge --no-pager -o cat -n 30
        fail "the service is $(property ActiveState)/$(property SubState) after $1"
    }
}

with_systemd() {
    local root=$work/booted options=(--register=no) pid code log conf
    command -v systemd-nspawn >/dev/null || fail "systemd-nspawn is missing: systemd-container"
    say "Debian $SUITE under systemd: install $version"
    cp -a "$work/pristine" "$root"
    chroot_apt "$root" install systemd systemd-sysv dbus logrotate curl >"$work/log" 2>&1 ||
        { tail "$work/log"; fail "systemd cannot be installed"; }
    cp "$deb" "$root/srv/one.deb"
    cp "$newer" "$root/srv/two.deb"
    [ -d /run/systemd/system ] || options+=(--keep-unit)
    # What the service itself forbids is to be seen, and not what the container does.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet "${options[@]}" --private-network \
        --system-call-filter=@debug -bD "$root" >"$work/console" 2>&1 </dev/null &
    machine=$!
    for _ in $(seq 300); do
        [ "$(inside systemctl is-system-running 2>/dev/null || true)" != running ] || break
        sleep 0.1
    done
    inside systemctl is-system-running || { tail "$work/console"; fail "systemd does not run"; }
    inventory "$root" >"$work/before"
    if [ -n "${TRY_DROPIN:-}" ]; then
        mkdir -p "$root/etc/systemd/system/snapedge.service.d"
        cp "$TRY_DROPIN" "$root/etc/systemd/system/snapedge.service.d/try.conf"
    fi

    inside dpkg --install /srv/one.deb
    expect_active "the installation"
    code=0
    inside snapedge status -c /etc/snapedge/snapedge.yaml >"$work/status" || code=$?
    [ $code = 1 ] || fail "snapedge status ended with $code"
    head -1 "$work/status"
    inside systemd-analyze verify --man=no snapedge.service
    # At most 2.0, in tenths.
    inside systemd-analyze security --no-pager --threshold=20 snapedge.service >"$work/security" ||
        { cat "$work/security"; fail "the service may do too much"; }
    tail -1 "$work/security"
    pid=$(property MainPID)
    inside grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' "/proc/$pid/status"
    [ "$(inside stat -c '%U %a' /var/cache/snapedge)" = "snapedge 750" ] ||
        fail "the cache is not the service's alone"

    say "reload, with a port below 1024 and a file for the access log"
    conf=$root/etc/snapedge/snapedge.yaml
    sed -i 's/^listen: .*/listen: ["0.0.0.0:8458", "0.0.0.0:80"]/' "$conf"
    printf 'log:\n  access: /var/log/snapedge/access.log\n' >>"$conf"
    inside systemctl restart snapedge
    expect_active "a restart"
    [ "$(inside curl -s -o /dev/null -w '%{http_code}' localhost:80/snapshot.tar.bz2)" = 404 ] ||
        fail "port 80 does not answer"
    pid=$(property MainPID)
    inside systemctl reload snapedge || fail "systemctl reload failed"
    cp "$conf" "$work/good.yaml"
    echo 'no_such_key: 1' >>"$conf"
    ! inside systemctl reload snapedge 2>/dev/null || fail "a file with errors was taken"
    cp "$work/good.yaml" "$conf"
    expect_active "a reload of a file with errors"
    [ "$(property MainPID)" = "$pid" ] || fail "a reload restarted the process"

    say "logrotate"
    inside logrotate -f /etc/logrotate.d/snapedge
    inside curl -s -o /dev/null localhost:80/health
    for _ in $(seq 50); do
        [ ! -s "$root/var/log/snapedge/access.log" ] || break
        sleep 0.1
    done
    for log in access.log.1 access.log; do
        [ -s "$root/var/log/snapedge/$log" ] || fail "the log was not opened anew: no $log"
    done
    [ "$(property MainPID)" = "$pid" ] || fail "SIGUSR1 ended the process"

    say "a file with errors: one start, and no more"
    echo 'no_such_key: 1' >>"$conf"
    inside systemctl restart snapedge 2>/dev/null || true
    sleep 5
    echo "exit code $(property ExecMainStatus), restarts $(property NRestarts)"
    [ "$(property ExecMainStatus)/$(property NRestarts)" = 64/0 ] || fail "it was started again"
    cp "$work/good.yaml" "$conf"
    inside systemctl restart snapedge

    say "a process that is killed comes back"
    pid=$(property MainPID)
    inside kill -KILL "$pid"
    for _ in $(seq 150); do
        [ "$(property MainPID)" = "$pid" ] || [ "$(property SubState)" != running ] || break
        sleep 0.1
    done
    expect_active "SIGKILL"

    say "another process in its place: the service goes on"
    pid=$(property MainPID)
    inside snapedge upgrade -c /etc/snapedge/snapedge.yaml || {
        inside journalctl -u snapedge --no-pager -o cat -n 30
        fail "snapedge upgrade failed"
    }
    for _ in $(seq 100); do
        inside test -d "/proc/$pid" || break
        sleep 0.1
    done
    ! inside test -d "/proc/$pid" || fail "the old process runs on"
    # For longer than `WatchdogSec`, which holds for the new one now.
    sleep 35
    expect_active "snapedge upgrade"
    [ "$(property MainPID)" != "$pid" ] || fail "systemd does not know the new process"
    [ "$(property NRestarts)" = 1 ] || fail "it was restarted"
    inside systemctl reload snapedge || fail "systemctl reload failed"
    [ "$(inside curl -s -o /dev/null -w '%{http_code}' localhost:80/snapshot.tar.bz2)" = 404 ] ||
        fail "port 80 does not answer"

    say "upgrade to $newer_version: the service is restarted"
    pid=$(property MainPID)
    inside dpkg --install /srv/two.deb
    expect_active "the upgrade"
    [ "$(property MainPID)" != "$pid" ] || fail "the old process runs on"

    say "remove: the service is stopped"
    inside dpkg --remove snapedge
    ! inside pgrep -x snapedge || fail "it runs on"
    rm -rf "$root/etc/systemd/system/snapedge.service.d"
    purged "$root" inside
}

# ---------------------------------------------------------------- all of it

looks
say "debootstrap $SUITE"
debootstrap --variant=minbase "$SUITE" "$work/pristine" "$MIRROR" >"$work/log" ||
    { tail "$work/log"; fail "debootstrap failed"; }
# What the package depends on is there before, so that it is not taken for something of the package.
dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/(.*//; s/|.*//' >"$work/depends"
xargs -a "$work/depends" chroot "$work/pristine" apt-get -y -qq --no-install-recommends install \
    >"$work/log" 2>&1 || { tail "$work/log"; fail "what it depends on cannot be installed"; }
cp -a "$work/pristine" "$work/base"
without_systemd
[ -z "$boot" ] || with_systemd
say "$version and $newer_version are good"
