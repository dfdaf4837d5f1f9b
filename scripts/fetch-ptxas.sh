#!/bin/sh
# Downloads ptxas, the assembler of CUDA, into .cache/ptxas/. It needs no GPU. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
# The wheels for x86-64 and for 64-bit Arm.
exec scripts/fetch-wheel-file.sh ptxas nvidia/cuda_nvcc/bin/ptxas nvidia-cuda-nvcc-cu12==12.9.86 \
    5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0 \
    44e1eca4d08926193a558d2434b1bf83d57b4d5743e0c431c0c83d51da1df62b
