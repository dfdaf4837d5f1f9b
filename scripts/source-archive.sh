#!/bin/sh
# Packs the committed sources: TARGET/nucleus-VERSION.tar.gz. Equal commits give equal archives.
#
# usage: source-archive.sh TARGET VERSION
set -eu
cd "$(dirname "$0")/.."
target=$1 version=$2
mkdir -p "$target"
git archive --format=tar --prefix="nucleus-$version/" HEAD | gzip --no-name --best >"$target/nucleus-$version.tar.gz.new"
mv "$target/nucleus-$version.tar.gz.new" "$target/nucleus-$version.tar.gz"
[ -z "$(git status --porcelain --untracked-files=no)" ] ||
    echo "source-archive: there are changes that are not committed; the archive does not contain them" >&2
echo "source-archive: wrote $target/nucleus-$version.tar.gz"
