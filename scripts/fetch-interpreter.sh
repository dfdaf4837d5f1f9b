#!/bin/sh
# Creates .cache/interpreter/, the Python environment of the interpreter in tests/tpu/: NumPy, and jaxlib for its MLIR
# parser. Needs Python 3.11 to 3.13. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
directory=.cache/interpreter
mkdir -p .cache

command -v python3 >/dev/null || { echo "fetch-interpreter: python3 is missing; run scripts/install-deps.sh" >&2; exit 1; }

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Wheels for Python 3.11, 3.12 and 3.13: three for x86-64, then three for 64-bit Arm.
wanted=$(cat <<'REQUIREMENTS'
jaxlib==0.10.2 \
    --hash=sha256:1faca3c5d4662cb4a6130a68105d68bb520764817e165d6eebfd6786c0d1f30f \
    --hash=sha256:fe88ec443714c4379968b6c109f9fa617c7ad19b802828e4d7bf861cd66da4b7 \
    --hash=sha256:9e4818b4a8756fd3918766ca2aa5342125809f4f08a6fe46026d4386e7c23644 \
    --hash=sha256:d44565dcfd1b4f60f76d911c6512118a8a4fc764bdef92663fecb8bfccd54f23 \
    --hash=sha256:53b72977ae582c03a9e8e1cdee1efbf8ebc1418270965b0e69eade57acf40331 \
    --hash=sha256:45b28b0238697ab74bbcf20411aafb6db42acc31836cc2fd711e5cf056bf9556
numpy==2.4.6 \
    --hash=sha256:89cd468399cfd2504718f0ba50e410dca55a170b61a02ad92bb18c8a65186e93 \
    --hash=sha256:90f9849678c75fe7afa2d348ac842c168b0a4d3d61919687216dfc547976d853 \
    --hash=sha256:a7830bab239b79cda9c08c2da014761cafb48da6150e1da17ac06283f43b6089 \
    --hash=sha256:0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47 \
    --hash=sha256:5f9fb9157b4ce2971008323afe46053787b526ef624fea915b261468a8421a0f \
    --hash=sha256:72fbe16c6fac95aedf5937fa873445cec2110be35d8a4e9433d7501fd98dae6b
ml_dtypes==0.6.0 \
    --hash=sha256:6c8e39b53e90afda8ce52859c93de4dba3e02b76d85dcf091cc469f9184c6dae \
    --hash=sha256:3b4a480aa8fd54a1805b8ac10f3f91763926a74f73c0c364c10f9231854f4170 \
    --hash=sha256:26b1f1fa4f0435a2946859823f6e2bf06796f1e9f10f5a05b08a5e3c8f46ff69 \
    --hash=sha256:7728c0420ec1c338564fc8b01015ff2d58567e70f17fedce5a0a7c0308c0d5b9 \
    --hash=sha256:37da32aa97749251025666d62372775019594577b9c9e9cfda83bed48d778fdb \
    --hash=sha256:28d676428b104bb9717b0928bc5c5129f2d6b51b6727587cc4289e7bf8713cb5
REQUIREMENTS
)

# The stamp is written last, so an interrupted run is repeated.
if [ -f "$directory/stamp" ] && [ "$(cat "$directory/stamp")" = "$wanted" ] &&
    "$directory/bin/python" -c 'import ml_dtypes, numpy, jaxlib.mlir.ir' 2>/dev/null; then
    echo "fetch-interpreter: $directory is up to date"
    exit 0
fi

python3 -c 'import ensurepip' 2>/dev/null ||
    { echo "fetch-interpreter: python3 cannot create virtual environments; run scripts/install-deps.sh" >&2; exit 1; }
echo "fetch-interpreter: downloading jaxlib, numpy and ml_dtypes"
rm -rf "$directory"
python3 -m venv "$directory"
work=$(mktemp -d .cache/fetch.XXXXXX)
printf '%s\n' "$wanted" >"$work/requirements.txt"
# Without dependencies: jaxlib requires scipy, but its MLIR parser does not use it.
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir \
    --require-hashes --requirement "$work/requirements.txt" ||
    { echo "fetch-interpreter: the installation of jaxlib, numpy and ml_dtypes failed" >&2; exit 1; }
printf '%s\n' "$wanted" >"$directory/stamp"
echo "fetch-interpreter: $directory is ready"
