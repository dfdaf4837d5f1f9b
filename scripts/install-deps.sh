#!/bin/sh
# Installs the missing Debian packages that building and testing need. If none is missing, it does nothing and needs no
# network. It does not install Rust, because Debian's Rust is older than Cargo.toml requires. With an argument it also
# installs what one task needs: `abi` (make abi-check), `consumers` (tests/consumers/run.sh), `deb` (make deb) or
# `test-deb` (make test-deb).
set -eu

quiet() { "$@" >/dev/null 2>&1; }
found() { quiet command -v "$1"; }
any_file() { for file in "$@"; do [ -e "$file" ] && return; done; return 1; }

missing=
need() { # need PACKAGE PROBE...: install the package if the probe fails
    package=$1
    shift
    "$@" || missing="$missing $package"
}

need gcc found gcc
need g++ found g++
need make found make
need valgrind found valgrind
need pkgconf found pkg-config
need python3 found python3
need python3-pip quiet python3 -m pip --version
need python3-venv quiet python3 -c 'import ensurepip'
# The build generates the PJRT bindings. The C headers need libclang. The protocol buffers need protoc and its
# well-known types.
need clang found clang
need libclang-dev any_file /usr/lib/llvm-*/lib/libclang.so
need protobuf-compiler found protoc
need libprotobuf-dev any_file /usr/include/google/protobuf/any.proto /usr/local/include/google/protobuf/any.proto

case ${1:-} in
    abi) need abigail-tools found abidiff ;;
    consumers)
        need cmake found cmake
        need debhelper found dh
        ;;
    deb) need debhelper found dh ;;
    test-deb)
        need debootstrap found debootstrap
        need lintian found lintian
        ;;
esac

if [ -z "$missing" ]; then
    echo "install-deps: nothing is missing"
    exit 0
fi
echo "install-deps: missing:$missing"
found apt-get || { echo "install-deps: there is no apt-get; install these packages with the package manager of this system" >&2; exit 1; }
as_root=
if [ "$(id -u)" -ne 0 ]; then
    found sudo || { echo "install-deps: run this script as root, or install sudo" >&2; exit 1; }
    as_root=sudo
fi
$as_root apt-get update
# shellcheck disable=SC2086 # intentionally split into words: a command prefix that may be empty, and a list of packages
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
echo "install-deps: installed$missing"
