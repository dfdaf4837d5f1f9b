#!/bin/sh
# Builds the directory .cache/gpu-peers/site for benches/gpu/peers.py. It contains the compiled samplers of FlashInfer,
# and the sampler of vLLM. The directory is for a machine that has a GPU and PyTorch, but no network. Copy it to that
# machine, and add it to PYTHONPATH. A machine that has the packages of FlashInfer and vLLM does not need the directory.
#
# PYTHON is the Python that builds the directory (default: python3). The machine with the GPU must have the same version
# of Python. FLASHINFER_CUDA_ARCH_LIST lists the compute capabilities of the GPUs (default: 9.0a). Needs x86-64 and a
# C++ compiler. The first run downloads 600 MB, and compiles for ten minutes on one core. Only the first run needs the
# network.
set -eu

cd "$(dirname "$0")/.."
directory=.cache/gpu-peers
scripts/python-env.sh "$directory/env" 'tvm_ffi, ninja, filelock, packaging' scripts/requirements-gpu-peers.txt

vllm=vllm==0.33.0
sources=$(
    printf '%s\n' "$vllm ${FLASHINFER_CUDA_ARCH_LIST:-}"
    cat scripts/build_gpu_peers.py "$directory/env/stamp" | sha256sum
)
if [ -d "$directory/site" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$sources" ]; then
    echo "fetch-gpu-peers: $directory/site is up to date"
    exit 0
fi
rm -rf "$directory/site" "$directory/vllm"
scripts/download-wheel.sh "$directory/vllm" "$vllm" \
    4b6bdec4ab269990bf70d45a3c1e94c3760a27064513760193b26d6f0da883aa
"$directory/env/bin/python" scripts/build_gpu_peers.py "$directory/site" "$directory"/vllm/*.whl
rm -rf "$directory/vllm" "$directory/work"
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$sources" >"$directory/stamp"
echo "fetch-gpu-peers: $directory/site is ready"
