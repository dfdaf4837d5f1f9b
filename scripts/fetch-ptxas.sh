#!/bin/sh
# Downloads ptxas, the assembler of CUDA, into .cache/ptxas/. It needs no GPU. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
directory=.cache/ptxas
# The wheels for x86-64 and for 64-bit Arm.
wanted=$(cat <<'REQUIREMENTS'
nvidia-cuda-nvcc-cu12==12.9.86 \
    --hash=sha256:5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0 \
    --hash=sha256:44e1eca4d08926193a558d2434b1bf83d57b4d5743e0c431c0c83d51da1df62b
REQUIREMENTS
)
if [ -x "$directory/ptxas" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$wanted" ]; then
    echo "fetch-ptxas: $directory/ptxas is up to date"
    exit 0
fi
python3 -m pip --version >/dev/null 2>&1 ||
    { echo "fetch-ptxas: pip is missing (python3 -m pip); run scripts/install-deps.sh" >&2; exit 1; }
echo "fetch-ptxas: downloading ptxas"
rm -rf "$directory"
mkdir -p "$directory"
printf '%s\n' "$wanted" >"$directory/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir --require-hashes \
    --requirement "$directory/requirements.txt" --dest "$directory/wheel" ||
    { echo "fetch-ptxas: the download failed" >&2; exit 1; }
python3 - "$directory" <<'PYTHON'
import pathlib, shutil, sys, zipfile
directory = pathlib.Path(sys.argv[1])
(wheel,) = (directory / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive, archive.open("nvidia/cuda_nvcc/bin/ptxas") as source:
    with open(directory / "ptxas", "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
chmod +x "$directory/ptxas"
rm -rf "$directory/wheel" "$directory/requirements.txt"
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$wanted" >"$directory/stamp"
echo "fetch-ptxas: $directory/ptxas is ready"
