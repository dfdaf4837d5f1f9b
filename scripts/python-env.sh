#!/bin/sh
# Creates the Python environment DIRECTORY and installs the packages in the REQUIREMENTS files, which pin versions and
# checksums. Does nothing if DIRECTORY already has these packages and MODULES (separated by commas) can be imported.
# Needs Python 3.11 to 3.13. PYTHON names the interpreter (default: python3). Only the first run needs the network.
#
# usage: python-env.sh DIRECTORY MODULES REQUIREMENTS...
set -eu

directory=$1 modules=$2
shift 2

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "python-env: $python is missing; run scripts/install-deps.sh" >&2; exit 1; }

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The stamp is written last, so an interrupted run is repeated.
wanted=$(grep -hv '^#' "$@")
if [ -f "$directory/stamp" ] && [ "$(cat "$directory/stamp")" = "$wanted" ] &&
    "$directory/bin/python" -c "import $modules" 2>/dev/null; then
    echo "python-env: $directory is up to date"
    exit 0
fi

"$python" -c 'import ensurepip' 2>/dev/null ||
    { echo "python-env: $python cannot create virtual environments; run scripts/install-deps.sh" >&2; exit 1; }
echo "python-env: downloading the packages of $directory"
rm -rf "$directory"
mkdir -p "$(dirname "$directory")"
"$python" -m venv "$directory"
work=$(mktemp -d .cache/fetch.XXXXXX)
printf '%s\n' "$wanted" >"$work/requirements.txt"
# --no-deps, because the requirements list every package that is used. jaxlib requires scipy, but its MLIR parser and
# the export of the model do not use scipy.
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir \
    --require-hashes --requirement "$work/requirements.txt" ||
    { echo "python-env: the installation of the packages in $directory failed" >&2; exit 1; }
printf '%s\n' "$wanted" >"$directory/stamp"
echo "python-env: $directory is ready"
