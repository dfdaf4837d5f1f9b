#!/usr/bin/env bash
# Type-checks the library and the command for 64-bit Arm on a machine of another architecture. The first run downloads
# the standard library of that target; later runs work offline.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
    command -v rustup >/dev/null ||
        { echo "check-aarch64: this Rust has no standard library for $target, and there is no rustup to add it" >&2; exit 1; }
    rustup target add "$target"
fi
# A type check needs neither an Arm linker nor an Arm C library. The PJRT header includes only headers that a
# freestanding compiler provides.
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu=-ffreestanding
# A dependency of the command contains an assembly file. clang can assemble it for any architecture.
export CC_aarch64_unknown_linux_gnu=clang AR_aarch64_unknown_linux_gnu=ar
cargo check --release --locked --workspace --lib --bins --target "$target"
echo "check-aarch64: the library and the command compile for $target"
