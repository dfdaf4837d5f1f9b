#!/usr/bin/env python3
"""Counts the cycles of the TPU kernels and writes the tables in docs/tpu.md.

    tpu_table.py NUCLEUS LIBTPU CASES [--docs docs/tpu.md]

NUCLEUS is the command, LIBTPU the plugin, CASES the directory that the example `tpu_cases` wrote. A separate process
compiles each program and dumps libtpu's schedule. The interpreter runs the same program, compares its results with those
of the built-in backend, and reports how often each part of the schedule runs. Nothing is reused from an earlier run.

If CASES has only batches of at most eight rows, the script writes only the table of small batches.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import tpu_schedule

ROOT = Path(__file__).resolve().parent.parent
# The limits of each column, for the rows of the table that have limits.
LIMITS = {
    (chip, 8, dtype): {
        "bounded random": limits[0], "bounded worst": limits[1], "arbitrary k=5000": limits[2],
        "top-p random": limits[3], "top-p peaked": limits[0], "plain draw": limits[3],
        "model p=.95": limits[4], "model p=.99": limits[4],
    }
    for chip, dtype, limits in (
        ("v5e", "bf16", (6_500, 11_000, 20_000, 22_000, 18_000)),
        ("v6e", "bf16", (4_400, 8_500, 17_000, 20_000, 16_000)),
        ("v6e", "f32", (7_000, 9_500, 20_000, 22_000, 18_000)),
        ("tpu7x", "bf16", (3_500, 8_000, 17_000, 20_000, 16_000)),
        ("tpu7x", "f32", (5_000, 9_500, 20_000, 22_000, 18_000)),
    )
}  # fmt: skip
# The numbers of rows in the table of small batches. Each value is the goal: the largest ratio to the cycles of eight
# rows.
SMALL = {1: 0.25, 2: 0.35, 4: 0.6, 8: 1}
SMALL_COLUMNS = ("bounded random", "bounded worst", "arbitrary k=5000", "top-p random", "top-p peaked")
# The chip whose devices have two cores. Its goal is the largest ratio of the cycles of 16 rows to the cycles of eight
# rows.
TWO_CORES, TWO_CORES_GOAL = "v5p", 1.1
TITLES = {
    "bounded random": "bounded, k = 64, p = 0.95, random",
    "bounded worst": "bounded, k = 64, p = 0.95, worst case",
    "arbitrary k=5000": "any k, k = 5000, p = 0.95",
    "top-p random": "top-p 0.95 alone, random",
    "top-p peaked": "top-p 0.95 alone, peaked",
    "plain draw": "no k and no p, random",
    "model p=.95": "top-p 0.95 alone, as models",
    "model p=.99": "top-p 0.99 alone, as models",
}


def version(script, package):
    """The version of a package that a script in this directory fetches."""
    return re.search(rf"^{package}==(\S+)", (ROOT / "scripts" / script).read_text(), re.M)[1]


def write_between(path, name, text):
    """Replaces the text between two marks of a document."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    document = path.read_text()
    if document.count(start) != 1 or document.count(end) != 1:
        sys.exit(f"tpu_table: {path} has no marks {start.strip()} and {end}")
    before, rest = document.split(start)
    path.write_text(before + start + text + rest[rest.index(end) :])


def compile_schedule(arguments, line, directory):
    """Compiles the program of a table row. Returns the path of its kernel's schedule."""
    name = "-".join(str(line[key]) for key in ("chip", "batch", "dtype", "path"))
    target = directory / f"{name}.bundles"
    if target.exists():
        return target
    dump = directory / name
    dump.mkdir()
    environment = os.environ | {"LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true"}
    command = [arguments.nucleus, "compile", "--plugin", arguments.libtpu, "--topology", line["topology"],
               "--batch", line["batch"], "--vocab", line["vocab"], "--dtype", line["dtype"], "--path", line["path"],
               "--max-k", line["max_k"], "--output", dump / "programs"]  # fmt: skip
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"tpu_table: {name} does not compile:\n{done.stdout}{done.stderr}")
    # The schedule of the kernel is by far the largest. The other schedules copy a window, or start or end a program.
    schedules = [path for path in dump.glob("*-final_bundles.txt") if "schedule-analysis" not in path.name]
    kernel = max(schedules, key=lambda path: path.stat().st_size)
    if "custom-call(" not in kernel.read_text(errors="replace"):
        sys.exit(f"tpu_table: {name}: {kernel} is not the schedule of a kernel")
    shutil.move(kernel, target)
    shutil.rmtree(dump)
    return target


def interpret(cases, number, some, python):
    """Runs the interpreter. Returns how often each part of the kernels ran, by case."""
    directory = cases / f"part{number}"
    directory.mkdir(exist_ok=True)
    moved = []
    for case in some:
        files = {key: [f"../{name}" for name in case[key]] for key in ("inputs", "expected")}
        moved.append(case | files | {"program": f"../{case['program']}"})
    (directory / "cases.json").write_text(json.dumps(moved))
    command = [python, "-m", "interpreter", "check", "--trips", directory / "trips.json", directory]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"tpu_table: the interpreter does not agree:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return json.loads((directory / "trips.json").read_text())


def table(lines):
    """Returns the table in Markdown, from the cycles by (chip, batch, dtype) and column."""
    heads = ["", *TITLES.values(), "HBM alone"]
    rows = []
    for key, (columns, memory) in lines.items():
        chip, batch, dtype = key
        cells = []
        for column in TITLES:
            cell = f"{columns[column]:,}"
            if key in LIMITS:
                limit = LIMITS[key][column]
                cell = f"{cell} (limit {limit:,}{'' if columns[column] <= limit else ', not met'})"
            cells.append(cell)
        rows.append([f"{chip}, {batch} rows, {dtype}", *cells, f"{memory:,}"])
    return markdown(heads, rows)


def small_table(lines):
    """Returns the table of small batches in Markdown. A cell has the cycles, and their share of those of eight rows."""
    heads = ["", *(TITLES[column] for column in SMALL_COLUMNS)]
    rows = []
    for (chip, batch, dtype), (columns, _) in lines.items():
        eight, _ = lines[chip, 8, dtype]
        cells = []
        for column in SMALL_COLUMNS:
            share = columns[column] / eight[column]
            missed = f", limit {SMALL[batch]}" if share > SMALL[batch] else ""
            goal = LIMITS.get((chip, 8, dtype), {}).get(column, math.inf)
            note = f" ({share:.2f}{missed})" if batch < 8 else f" (limit {goal:,})" if columns[column] > goal else ""
            cells.append(f"{columns[column]:,}{note}")
        rows.append([f"{chip}, {dtype}, {batch} {'row' if batch == 1 else 'rows'}", *cells])
    return markdown(heads, rows)


def two_cores_table(lines):
    """Returns the table of the device with two cores in Markdown. A cell has the cycles of 8 rows, the cycles of 16
    rows, and their ratio."""
    rows = []
    for dtype in ("bf16", "f32"):
        cells = []
        for column in TITLES:
            one, two = (lines[TWO_CORES, batch, dtype][0][column] for batch in (8, 16))
            missed = f", limit {TWO_CORES_GOAL}" if two > TWO_CORES_GOAL * one else ""
            cells.append(f"{one:,}, {two:,} ({two / one:.2f}{missed})")
        rows.append([f"{TWO_CORES}, {dtype}, 8 and 16 rows", *cells])
    return markdown(["", *TITLES.values()], rows)


def markdown(heads, rows):
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, ["---"] * len(heads), *rows])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("nucleus", type=Path)
    arguments.add_argument("libtpu", type=Path)
    arguments.add_argument("cases", type=Path)
    arguments.add_argument("--docs", type=Path, default=ROOT / "docs/tpu.md")
    arguments = arguments.parse_args()
    cases = json.loads((arguments.cases / "cases.json").read_text())
    jobs = len(os.sched_getaffinity(0))
    python = ROOT / ".cache/interpreter/bin/python"

    with tempfile.TemporaryDirectory(prefix="nucleus-schedules-") as directory, ThreadPoolExecutor(jobs) as pool:
        programs = {}
        for case in cases:
            for line in case["notes"]:
                programs[line["chip"], line["batch"], line["dtype"], line["path"]] = line
        compiled = pool.map(lambda line: compile_schedule(arguments, line, Path(directory)), programs.values())
        schedules = dict(zip(programs, compiled))
        print(f"tpu_table: {len(schedules)} programs compiled", flush=True)
        # One case per process, because a case of 128 rows takes a minute.
        reports = {}
        for found in pool.map(lambda job: interpret(arguments.cases, job[0], [job[1]], python), enumerate(cases)):
            reports |= found
        print(f"tpu_table: {len(reports)} cases interpreted, all equal to the built-in backend", flush=True)

        lines = {}
        for case in cases:
            for line in case["notes"]:
                schedule = schedules[line["chip"], line["batch"], line["dtype"], line["path"]]
                found = tpu_schedule.cycles_of(schedule, reports[case["name"]][0])
                if not found:
                    sys.exit(f"tpu_table: {line}: the schedule's loops and branches are not those of the kernel's text")
                memory = round(line["hbm_bytes"] / line["hbm_bytes_per_second"] * line["clock_hz"])
                columns, _ = lines.setdefault((line["chip"], line["batch"], line["dtype"]), ({}, memory))
                columns[line["column"]] = found[1]

    two_cores = {key: line for key, line in lines.items() if key[0] == TWO_CORES}
    lines = {key: line for key, line in lines.items() if key[0] != TWO_CORES}
    order = {chip: place for place, chip in enumerate(("v5e", "v6e", "tpu7x"))}
    keys = sorted(lines, key=lambda key: (key not in LIMITS, order[key[0]], key[1], key[2]))
    lines = {key: lines[key] for key in keys}
    small = {key: line for key, line in lines.items() if key[1] in SMALL}
    small = dict(sorted(small.items(), key=lambda item: (order[item[0][0]], item[0][2], item[0][1])))
    lines = {key: line for key, line in lines.items() if key in LIMITS or key[1] not in SMALL}
    libtpu, jaxlib = version("fetch-plugins.sh", "libtpu"), version("requirements-interpreter.txt", "jaxlib")
    note = (f"{datetime.now(timezone.utc):%Y-%m-%d}, libtpu {libtpu}, "
            f"trip counts by jaxlib {jaxlib}'s parser and the interpreter.\n")  # fmt: skip
    texts = {"small batches": small_table(small)}
    if any(key not in LIMITS for key in lines):
        texts["table"] = table(lines)
    if len(two_cores) == 4:
        texts["two cores"] = two_cores_table(two_cores)
    for name, text in texts.items():
        write_between(arguments.docs, name, f"\n{text}\n{note}\n")
        print(text)
    for key, limits in LIMITS.items():
        columns, _ = lines.get(key, ({}, 0))
        missed = [column for column, limit in limits.items() if columns.get(column, 0) > limit]
        if missed:
            print(f"tpu_table: {', '.join(map(str, key))}: limits that are not met: {', '.join(missed)}")


if __name__ == "__main__":
    main()
