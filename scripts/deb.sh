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
# The manual pages that install.sh installs.
for page in cli/man/*.1 "$target"/man/*.1; do
    if [ -e "$page" ]; then echo "usr/share/man/man1/$(basename "$page")" >>"$scratch/nucleus/debian/nucleus.install"; fi
done
(
    cd "$scratch/nucleus"
    export NUCLEUS_ROOT="$OLDPWD" NUCLEUS_TARGET="$target" NUCLEUS_VERSION="$version"
    # --no-check-builddeps: the build needs only debhelper, and dh checks that itself.
    dpkg-buildpackage --build=binary --no-sign --no-check-builddeps --root-command=
) >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
# The message of install.sh if the sources are newer than the build.
grep '^install: .* is newer' "$scratch/log" >&2 || true
rm -rf "$target/deb"
mkdir -p "$target/deb"
mv "$scratch"/*.deb "$target/deb/"
echo "deb: wrote $(cd "$target/deb" && ls *.deb | tr '\n' ' ')to $target/deb"
