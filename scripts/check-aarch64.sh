#!/usr/bin/env bash
# Type-checks the library for 64-bit Arm, whose baseline is NEON, on an x86-64 Debian machine. Installs Debian's own Rust
# compiler and its Arm standard library beside the toolchain in use, which has none for other machines.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
packages=(rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    echo "check-aarch64: installing ${packages[*]}"
    $sudo dpkg --add-architecture arm64
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
export RUSTC=/usr/bin/rustc
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu=--sysroot=/usr/aarch64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo check --lib --locked --target $target --target-dir target/aarch64-check
echo "check-aarch64: the library compiles for $target"
