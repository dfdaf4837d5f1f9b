#!/bin/sh
# Packs the installed files: TARGET/nucleus-VERSION-SYSTEM.tar.gz. They work in any directory, because the pkg-config
# and CMake files find the other files relative to themselves. Equal builds give equal archives.
#
# usage: tarball.sh TARGET VERSION
set -eu
cd "$(dirname "$0")/.."
target=$1 version=$2
system=$(uname -m)-$(uname -s | tr '[:upper:]' '[:lower:]')
name=nucleus-$version-$system
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
PREFIX=/$name DESTDIR=$scratch LIBDIR=lib RPATH=yes RELOCATABLE=yes VERSION=$version \
    scripts/install.sh install "$target" >/dev/null
# Only `make uninstall` needs the list. A user of the tarball removes the whole directory.
rm "$scratch/$name/share/nucleus/installed-files"
# The time of the last commit, or of the libraries if there is no repository.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y "$target/lib/libnucleus.a")}"
tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw,a-s \
    --directory "$scratch" "$name" | gzip --no-name --best >"$target/$name.tar.gz"
echo "tarball: wrote $target/$name.tar.gz"
