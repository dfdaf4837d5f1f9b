#!/bin/sh
# Builds the Debian packages from what `make build` built: TARGET/deb/*.deb. Needs debhelper.
#
# usage: deb.sh TARGET VERSION
set -eu
cd "$(dirname "$0")/.."
target=$1 version=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The time of the last commit, or of the libraries if there is no repository.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y "$target/lib/libnucleus.a")}"
export SOURCE_DATE_EPOCH
mkdir "$scratch/nucleus"
cp -R packaging/debian "$scratch/nucleus/debian"
cat >"$scratch/nucleus/debian/changelog" <<END
nucleus ($version) unstable; urgency=medium

  * Version $version. The file changelog.gz in this directory lists the changes.

 -- $(sed -n 's/^Maintainer: //p' packaging/debian/control)  $(date -uRd "@$SOURCE_DATE_EPOCH")
END
pages=$(cd cli/man 2>/dev/null && ls *.1 || cd "$target/man" 2>/dev/null && ls *.1 || true)
for page in $pages; do echo "usr/share/man/man1/$page" >>"$scratch/nucleus/debian/nucleus.install"; done
(
    cd "$scratch/nucleus"
    export NUCLEUS_ROOT="$OLDPWD" NUCLEUS_TARGET="$target" NUCLEUS_VERSION="$version"
    # -d: the build needs no other packages than debhelper, which dh checks itself.
    dpkg-buildpackage --build=binary --no-sign --no-check-builddeps --root-command=
) >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
rm -rf "$target/deb"
mkdir -p "$target/deb"
mv "$scratch"/*.deb "$target/deb/"
echo "deb: wrote $(cd "$target/deb" && ls *.deb | tr '\n' ' ')to $target/deb"
