#!/bin/sh
# Downloads the packages for the tests of bindings/python to .cache/python/wheels, and installs them in the environment
# .cache/python/env, which builds and checks the package. Does nothing if both are up to date. Needs Python 3.11 to
# 3.13. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
directory=.cache/python
wanted=$(grep -v '^#' scripts/requirements-python.txt; python3 -V)
if [ -f "$directory/stamp" ] && [ "$(cat "$directory/stamp")" = "$wanted" ] &&
    "$directory/env/bin/python" -c 'import mypy, ml_dtypes, numpy, setuptools' 2>/dev/null; then
    echo "fetch-python: $directory is up to date"
    exit 0
fi
python3 -c 'import ensurepip' 2>/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    { echo "fetch-python: pip or venv is missing; run scripts/install-deps.sh" >&2; exit 1; }
echo "fetch-python: downloading the packages of $directory"
rm -rf "$directory"
mkdir -p "$directory"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir \
    --require-hashes --requirement scripts/requirements-python.txt --dest "$directory/wheels" ||
    { echo "fetch-python: the download failed" >&2; exit 1; }
python3 -m venv "$directory/env"
"$directory/env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
    "$directory"/wheels/*.whl
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$wanted" >"$directory/stamp"
echo "fetch-python: $directory is ready"
