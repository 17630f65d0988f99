#!/usr/bin/env bash
# Makes a Debian package of a binary that is there already: `make deb` builds one and calls this.
#
#   packaging/deb.sh BINARY FOLDER
#
# FOLDER gets `snapedge_<version>_<arch>.deb`. The version is that of Cargo.toml, or DEB_VERSION;
# the processor is this machine's, or DEB_ARCH. A binary for another processor cannot be asked for
# its man pages here: DEB_TOOL names one of the same version that can. It needs debhelper and
# dpkg-dev, and no root.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 2 ] || { sed -n 's/^# *\(packaging\/.*\)/usage: \1/p' "$0" >&2; exit 64; }
binary=$(realpath "$1")
folder=$(realpath -m "$2")
tool=$(realpath "${DEB_TOOL:-$binary}")
arch=${DEB_ARCH:-$(dpkg --print-architecture)}
cargo_version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
# A version before another one (1.0.0-rc.1) is written with a tilde in Debian.
version=${DEB_VERSION:-${cargo_version/-/\~}}

for command in dpkg-buildpackage dh; do
    command -v "$command" >/dev/null || {
        echo "missing: $command, on Debian: apt-get install debhelper dpkg-dev" >&2
        exit 1
    }
done

# Everything that goes into the package, and `debian` beside it.
stage=$folder/snapedge-$version
rm -rf "$stage"
mkdir -p "$stage"/{bin,man,share/conf,completions/{bash,zsh,fish}}
cp -r packaging/debian "$stage/debian"
cp conf/snapedge.service "$stage/debian/snapedge.service"
install -m 755 "$binary" "$stage/bin/snapedge"
cp -r README.md SECURITY.md CHANGELOG.md CONTRIBUTING.md docs "$stage/share/"
cp -r conf/{snapedge.{yaml,service,socket},demo.yaml,alerts.yml,grafana-dashboard.json,examples} \
    "$stage/share/conf/"
packaging/sbom.py --cargo "${CARGO:-cargo}" "$stage/share"

"$tool" man "$stage/man"
"$tool" completions bash >"$stage/completions/bash/snapedge"
"$tool" completions zsh >"$stage/completions/zsh/_snapedge"
"$tool" completions fish >"$stage/completions/fish/snapedge.fish"

# The changelog of the package tells its version, and the time of all files in it. A version that it
# does not have yet gets an entry of the time of the last commit, so that the same commit gives the
# same package.
written=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$stage/debian/changelog")
if [ "$written" != "$version" ]; then
    when=$(git log -1 --format=%cD 2>/dev/null || date -R)
    who=$(sed -n 's/^Maintainer: //p' "$stage/debian/control")
    {
        printf 'snapedge (%s) unstable; urgency=medium\n\n' "$version"
        printf '  * CHANGELOG.md tells what is new in the program.\n\n -- %s  %s\n\n' "$who" "$when"
        cat packaging/debian/changelog
    } >"$stage/debian/changelog"
fi

cd "$stage"
dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes --host-arch="$arch" \
    --no-check-builddeps
echo "made $folder/snapedge_${version}_$arch.deb"
