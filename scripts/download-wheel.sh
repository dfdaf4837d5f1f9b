#!/bin/sh
# Downloads a wheel into DIRECTORY with pip. pip accepts the wheel only if its SHA-256 is one of the HASHes.
#
# usage: download-wheel.sh DIRECTORY PACKAGE==VERSION HASH...
set -eu

directory=$1 package=$2
shift 2
python3 -m pip --version >/dev/null 2>&1 ||
    { echo "download-wheel: pip is missing (python3 -m pip); run scripts/install-deps.sh" >&2; exit 1; }
echo "download-wheel: downloading $package"
mkdir -p "$directory"
{
    printf '%s' "$package"
    printf ' \\\n    --hash=sha256:%s' "$@"
    echo
} >"$directory/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir --require-hashes \
    --requirement "$directory/requirements.txt" --dest "$directory" ||
    { echo "download-wheel: the download of $package failed" >&2; exit 1; }
rm "$directory/requirements.txt"
