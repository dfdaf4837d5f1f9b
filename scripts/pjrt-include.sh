#!/bin/sh
# Prints the directory with the header of the PJRT C API. The header is in the sources of the crate pjrt-sys.
set -eu

cd "$(dirname "$0")/.."
cargo metadata --locked --format-version 1 | python3 -c '
import json, pathlib, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "pjrt-sys":
        print(pathlib.Path(package["manifest_path"]).parent / "include")'
