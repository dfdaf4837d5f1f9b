#!/bin/sh
# Builds .cache/gpu-peers/site: the samplers of FlashInfer, compiled, and of vLLM, for benches/gpu/peers.py. A machine
# that has these packages does not need the directory. It is for a machine with a GPU and PyTorch, but without network:
# copy the directory to that machine, and add it to PYTHONPATH.
#
# The machine must have the version of Python that builds the directory: PYTHON, or python3. FLASHINFER_CUDA_ARCH_LIST
# lists the GPUs (default: 9.0a). Needs x86-64 and a C++ compiler. The first run downloads 600 MB, and compiles for ten
# minutes on one core. Only the first run needs the network.
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
