#!/usr/bin/env python3
"""Builds and tests the crate without the feature `pjrt`. `make test-no-pjrt` and scripts/run_tests.py call it.

Without the feature, the crate must need only cargo. Cargo builds all development dependencies before any test, and
some of them need protoc and libclang. So this script makes a package in target/no-pjrt that has the sources of the
crate (symbolic links), but no development dependencies. It runs cargo there: the unit tests, the tests of the Rust
interface (tests/api) and the Rust examples. It prints the time of the build, which has a meaning only if the target
directory was empty.
"""

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute() / "no-pjrt"
PACKAGE = TARGET / "package"
LINKS = ("src", "kernels", "tests", "examples", "README.md", "LICENSE")
# Parts of the manifest: the beginning of the line that starts each of them.
DROPPED = ("[dev-dependencies]", "[[test]]", "[[bench]]", "[[example]]", "[workspace]")
ADDED = """
[workspace]

[[test]]
name = "api"

[[example]]
name = "quickstart"
path = "examples/rust/quickstart.rs"

[[example]]
name = "decode_loop"
path = "examples/rust/decode_loop.rs"
"""


def manifest():
    """The crate's manifest without development dependencies, tests, benchmarks and workspace members."""
    text = (ROOT / "Cargo.toml").read_text()
    parts = re.split(r"^(?=\[)", text, flags=re.M)
    kept = "".join(part for part in parts if not part.startswith(DROPPED))
    # There are no other packages to which these profiles could apply.
    kept = re.sub(r"^\[profile\.[a-z]+\.package\.[^\"\]]*\]\n(?:[^\[\n].*\n)*", "", kept, flags=re.M)
    kept = kept.replace("[package]\n", "[package]\nautobenches = false\nautoexamples = false\nautotests = false\n", 1)
    result = kept + ADDED
    parsed = tomllib.loads(result)
    if parsed["dependencies"] != tomllib.loads(text)["dependencies"] or "dev-dependencies" in parsed:
        sys.exit("test_without_pjrt: the manifest was not converted correctly")
    return result


def write_if_changed(path, text):
    """Writes only a changed file, because cargo compiles again if the time of a file changes."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def make_package():
    PACKAGE.mkdir(parents=True, exist_ok=True)
    write_if_changed(PACKAGE / "Cargo.toml", manifest())
    # The versions of the workspace. Cargo removes the packages that are not needed here.
    lock = PACKAGE / "Cargo.lock"
    if not lock.exists() or lock.stat().st_mtime < (ROOT / "Cargo.lock").stat().st_mtime:
        lock.write_text((ROOT / "Cargo.lock").read_text())
    for name in LINKS:
        link = PACKAGE / name
        if not link.is_symlink():
            link.symlink_to(ROOT / name)


def cargo(*arguments, environment=None):
    return subprocess.run(["cargo", *arguments], cwd=PACKAGE, env={**os.environ, **(environment or {})}).returncode


def main():
    make_package()
    os.environ["CARGO_TARGET_DIR"] = str(TARGET)
    flags = ["--release", "--no-default-features"]
    # A build script that looks for these programs fails.
    absent = {"PROTOC": "/nonexistent/protoc", "LIBCLANG_PATH": "/nonexistent"}
    start = time.monotonic()
    failed = cargo("build", *flags, "--lib", environment=absent)
    print(f"without pjrt: built in {time.monotonic() - start:.0f} s", flush=True)
    failed = failed or cargo("test", *flags, "--lib", "--test", "api", environment=absent)
    for example in ("quickstart", "decode_loop"):
        failed = failed or cargo("run", *flags, "--example", example, environment=absent)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
