#!/usr/bin/env bash
# Tests the Julia package with the libraries that `make build` built. `make test` runs this script. The environment
# variable JULIA selects another program than that of scripts/fetch-julia.sh.
#
#   test.sh          the tests
#   test.sh bench    the time of a call, beside the same call from C
set -euo pipefail
cd "$(dirname "$0")"
root=$(realpath ../..)

if [ -z "${JULIA:-}" ]; then
    "$root/scripts/fetch-julia.sh"
    JULIA=$root/.cache/julia/julia
fi
variables=$(../testing/build.sh)
eval "$variables"
unset NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG NUCLEUS_LIBRARY JULIA_PROJECT
export JULIA_LOAD_PATH=$PWD:@stdlib JULIA_DEPOT_PATH=$root/.cache/julia-depot
export NUCLEUS_TEST_HELPER=$NUCLEUS_HELPER_DIR/libnucleus_test_helper.so

if [ "${1:-}" = bench ]; then
    exec "$JULIA" --startup-file=no bench.jl
fi

./generate.py --check

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
block() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" README.md | sed '/^```/d'; }
# -O1, because most of the time is the compilation of code that runs once.
run() { "$JULIA" --startup-file=no -O1 "$@"; }

# found WORDS: the quick start of the README in another directory prints what the README says.
found() {
    (cd "$work" && run quickstart.jl) | diff "$work/wanted" - ||
        { echo "julia: wrong output of the quick start if the library is found by $1" >&2; exit 1; }
}

echo "julia: the quick start"
block julia >"$work/quickstart.jl"
block text >"$work/wanted"
found pkg-config # PKG_CONFIG_PATH is set
PKG_CONFIG_PATH= LD_LIBRARY_PATH=$NUCLEUS_LIB_DIR found "the dynamic loader"
export PKG_CONFIG_PATH= NUCLEUS_LIBRARY=$NUCLEUS_LIB_DIR/libnucleus.so.1
found NUCLEUS_LIBRARY
if NUCLEUS_LIBRARY=/nowhere/lib.so run "$work/quickstart.jl" >"$work/output" 2>&1; then
    echo "julia: the quick start runs without the library" >&2
    exit 1
fi
grep -q 'set NUCLEUS_LIBRARY to its path' "$work/output" ||
    { cat "$work/output"; echo "julia: the message for a missing library is wrong" >&2; exit 1; }

echo "julia: tests with 2 threads"
run -t 2 test/runtests.jl
echo "julia: all tests passed"
