#!/usr/bin/env bash
# Prepares the tests of the bindings, and prints shell variables for them. bindings/*/test.sh run it:
#
#   eval "$(bindings/testing/build.sh)"
#
# NUCLEUS_LIB_DIR    the directory of the libraries that `make build` built
# NUCLEUS_HELPER_DIR the directory of libnucleus_test_helper.so (helper.c)
# PKG_CONFIG_PATH    a directory with a nucleus.pc for the libraries in NUCLEUS_LIB_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath "${CARGO_TARGET_DIR:-target}")
lib=$target/lib
output=$target/bindings
[ -e "$lib/libnucleus.so" ] || { echo "bindings: no $lib/libnucleus.so; run make build" >&2; exit 1; }
mkdir -p "$output/pkgconfig"

# The header of the PJRT C API, which the crate pjrt-sys contains.
pjrt=$(scripts/pjrt-include.sh)
cc -std=c99 -O2 -Wall -Wextra -Wconversion -pedantic -Werror -fPIC -shared -Iinclude -isystem "$pjrt" \
    bindings/testing/helper.c -o "$output/libnucleus_test_helper.so" -L"$lib" -lnucleus -Wl,-rpath,"$lib"

escaped=$(printf '%s\n' "$lib" | sed 's/[&|\\]/\\&/g')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
sed -e "s|@PREFIX@|$escaped|" -e "s|@VERSION@|$version|" -e 's|@RPATH@| -Wl,-rpath,${libdir}|' -e 's|@QUOTE@|"|g' \
    -e "s|^includedir=.*|includedir=$(printf '%s\n' "$PWD" | sed 's/[&|\\]/\\&/g')/include|" \
    -e "s|^libdir=.*|libdir=$escaped|" scripts/install/nucleus.pc.in >"$output/pkgconfig/nucleus.pc"

printf 'export NUCLEUS_LIB_DIR=%q NUCLEUS_HELPER_DIR=%q PKG_CONFIG_PATH=%q\n' "$lib" "$output" "$output/pkgconfig"
