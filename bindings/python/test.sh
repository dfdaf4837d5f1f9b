#!/usr/bin/env bash
# Builds the wheel, installs it in a new environment outside of the repository, and runs the tests of the Python package
# there. Also checks the types. Needs `make build` and `make plugins`.
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/fetch-python.sh

repository=$PWD
target=$(realpath "${CARGO_TARGET_DIR:-target}")
python=$repository/.cache/python/env/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH NUCLEUS_LIBRARY NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
export PYTHONDONTWRITEBYTECODE=1

rm -rf "$target/python"
wheel=$("$python" bindings/python/build_wheel.py "$target/lib" "$target/python")
echo "built ${wheel#"$repository/"}"
same=$("$python" bindings/python/build_wheel.py "$target/lib" "$work/again")
cmp "$wheel" "$same" || { echo "python: two builds of the wheel differ" >&2; exit 1; }

"$python" -m venv --without-pip "$work/env"
"$python" -m pip --python "$work/env/bin/python" install --quiet --disable-pip-version-check --no-index \
    --find-links .cache/python/wheels "$wheel" ml_dtypes

# The program in the README is checked with the types of the installed package.
sed -n '/^```python$/,/^```$/p' bindings/python/README.md | sed '/^```/d' >"$work/readme.py"
"$python" -m mypy --config-file bindings/python/pyproject.toml --cache-dir .cache/python/mypy \
    --python-executable "$work/env/bin/python" "$work/readme.py" bindings/python/src/nucleus_sampler/*.py

cd "$work"
NUCLEUS_REPOSITORY=$repository "$work/env/bin/python" -m unittest discover -s "$repository/bindings/python/tests"
