#!/usr/bin/env python3
"""Builds the wheel of the Python package with the library of `make build`. `make python-wheel` calls it.

    build_wheel.py LIBRARY_DIRECTORY OUTPUT_DIRECTORY

Needs setuptools. The platform tag of the wheel states the version of glibc that the library needs. The same sources and
the same library give the same wheel, byte for byte.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Libraries that every Linux system with glibc has, according to the manylinux standard (PEP 600).
ALLOWED = re.compile(r"(lib(c|m|dl|pthread|rt|gcc_s)|ld-linux-.*)\.so\.\d+")


def platform_tag(library):
    """The tag `manylinux_MAJOR_MINOR_ARCHITECTURE` for the library's needs."""
    dynamic = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    unknown = [name for name in needed if not ALLOWED.fullmatch(name)]
    if unknown or not needed:
        sys.exit(f"build_wheel: {library} needs {unknown or 'nothing'}, so it is not a manylinux library")
    versions = subprocess.run(["readelf", "-VW", library], capture_output=True, text=True, check=True).stdout
    major, minor = max((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", versions))
    return f"manylinux_{major}_{minor}_{platform.machine()}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    directory, output = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    layout = json.loads((ROOT / "include/nucleus.layout.json").read_text())
    name = f"libnucleus.so.{layout['abi_version']}"
    library = directory / name
    if not library.exists():
        sys.exit(f"build_wheel: {library} does not exist; run `make build` first")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as staging:
        stage = Path(staging) / "python"
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests", "bench")
        shutil.copytree(HERE, stage, ignore=ignored)
        shutil.copyfile(ROOT / "LICENSE", stage / "LICENSE")
        (stage / "src/nucleus_sampler/lib").mkdir()
        shutil.copyfile(library, stage / "src/nucleus_sampler/lib" / name)
        (stage / "src/nucleus_sampler/lib" / name).chmod(0o755)
        # The time stamps of the files in the wheel: 1980-01-01, the first time that a zip file can contain.
        environment = {
            **os.environ,
            "NUCLEUS_WHEEL_PLATFORM": platform_tag(library),
            "SOURCE_DATE_EPOCH": "315532800",
        }
        build = (
            "import sys; from setuptools import build_meta; "
            "print(build_meta.build_wheel(sys.argv[1]), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", build, str(output)],
            cwd=stage,
            env=environment,
            text=True,
            capture_output=True,
        )
        if done.returncode != 0:
            sys.exit(f"build_wheel: setuptools failed\n{done.stdout}\n{done.stderr}")
        print(output / done.stderr.splitlines()[-1])


if __name__ == "__main__":
    main()
