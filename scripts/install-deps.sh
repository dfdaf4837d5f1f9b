#!/bin/sh
# Installs the Debian packages that building and testing need and that are missing. With all of them there it does
# nothing and needs no network. Rust itself is not among them: Debian's is older than Cargo.toml asks for.
set -eu

quiet() { "$@" >/dev/null 2>&1; }
found() { quiet command -v "$1"; }
any_file() { for file in "$@"; do [ -e "$file" ] && return; done; return 1; }

missing=
need() { # need PACKAGE PROBE...: the package is wanted unless the probe succeeds
    package=$1
    shift
    "$@" || missing="$missing $package"
}

need gcc found gcc
need g++ found g++
need make found make
need valgrind found valgrind
need python3 found python3
need python3-pip quiet python3 -m pip --version
need python3-venv quiet python3 -c 'import ensurepip'
# The PJRT bindings are generated at build time: headers through libclang, protocol buffers through protoc with the
# well-known types beside it.
need clang found clang
need libclang-dev any_file /usr/lib/llvm-*/lib/libclang.so
need protobuf-compiler found protoc
need libprotobuf-dev any_file /usr/include/google/protobuf/any.proto /usr/local/include/google/protobuf/any.proto

if [ -z "$missing" ]; then
    echo "install-deps: everything is there"
    exit 0
fi
echo "install-deps: missing:$missing"
found apt-get || { echo "install-deps: no apt-get here; install them with this system's own tool" >&2; exit 1; }
as_root=
if [ "$(id -u)" -ne 0 ]; then
    found sudo || { echo "install-deps: run this as root, or install sudo" >&2; exit 1; }
    as_root=sudo
fi
$as_root apt-get update
# shellcheck disable=SC2086 # words on purpose: a command prefix that may be empty, a list of packages
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
echo "install-deps: installed$missing"
