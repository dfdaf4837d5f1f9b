#!/usr/bin/env python3
"""Builds the documentation site into target/docs/site. `make docs` calls it.

    build.py COMMAND        COMMAND is the command `nucleus`, which computes the arrays of the pictures

The sources are docs/*.md, and docs/site/*.md for pages that contain generated parts. The build adds the reference of
the C interface (reference.py), the pictures of the stages (stages.py) and tables of the benchmarks' figures
(figures.py). Quick starts include the examples that the tests run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import figures
import reference
import stages

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "target/docs"
SOURCE = TARGET / "source"


def included(text):
    """Replaces each line `{{ include FILE }}` or `{{ include FILE BEGIN END }}` by a file, or by the lines between the
    two markers."""

    def replace(match):
        indent, path, begin, end = match.groups()
        lines = (ROOT / path).read_text().rstrip("\n").split("\n")
        if begin:
            first = next(i for i, line in enumerate(lines) if begin in line)
            last = next(i for i, line in enumerate(lines) if i > first and end in line)
            lines = lines[first + 1 : last]
        return "\n".join(indent + line for line in lines)

    return re.sub(r"^([ ]*)\{\{ include (\S+)(?: (\S+) (\S+))? \}\}$", replace, text, flags=re.MULTILINE)


def main(command):
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE, ignore=shutil.ignore_patterns("site", "figures"))
    shutil.copytree(ROOT / "docs/site", SOURCE, dirs_exist_ok=True)
    pictures = SOURCE / "pictures"
    pictures.mkdir()
    row = stages.draw(command, pictures)
    machine, measured = figures.read(ROOT / "docs/figures/cpu.jsonl")
    values = {
        "machine": f"{machine.get('processor', 'unknown')}, {machine.get('date', 'unknown date')}",
        "figures built_in": figures.built_in(measured),
        "figures devices": figures.devices(measured),
        **{f"row {name}": f"{value:,}" for name, value in row.items()},
    }
    (SOURCE / "reference").mkdir()
    for name, text in reference.pages((ROOT / "include/nucleus.h").read_text()).items():
        (SOURCE / "reference" / name).write_text(text)
    for path in SOURCE.glob("*.md"):
        text = included(path.read_text())
        for name, value in values.items():
            text = text.replace("{{ " + name + " }}", value)
        missing = re.search(r"\{\{ .* \}\}", text)
        if missing:
            sys.exit(f"docs: {path.name}: nothing is known about {missing[0]}")
        path.write_text(text)
    shutil.copy(Path(__file__).parent / "mkdocs.yml", TARGET)
    # The variable turns off a message about a successor of the theme.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", TARGET / "mkdocs.yml"]
    subprocess.run(command, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    print(f"docs: {(TARGET / 'site').relative_to(ROOT)} is ready")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
