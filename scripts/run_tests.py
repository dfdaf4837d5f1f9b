#!/usr/bin/env python3
"""Builds and runs every test, and prints the time of each part. `make test` and `make test-full` call it.

The parts are the build, each Rust test program, the examples in the documentation, the crate without the feature pjrt
(test_without_pjrt.py), the interpreter of TPU and GPU programs (tests/interpreter), the commands of the README, the
packages of other languages (bindings), and the scripts tests/*/run.sh, which test the C and the C++ interface and the
installed library. A part that fails does not stop the others, and its last lines are printed again at the end. The last
line is `N passed, N failed`. It counts the tests of the scripts, and one failure for each other part that failed.

    run_tests.py            the daily selection of cases
    run_tests.py --full     all cases, and the Rust tests with debug assertions and overflow checks
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each of these directories has a script run.sh, which ends with the line `N passed, N failed`.
SCRIPTS = {"tests/c": "C", "tests/cpp": "C++", "tests/consumers": "installed library"}


def processor():
    """The processor's model, its widest vector instructions, and the number of cores."""
    model, flags = platform.processor() or platform.machine(), ""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
        if line.startswith("flags"):
            flags = line.split(":", 1)[1].split()
    widest = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "")
    return f"{model} {widest}".strip() + f", {len(os.sched_getaffinity(0))} cores"


class Parts:
    """Runs parts one after the other. Records the time of each part, and the last lines of each part that fails."""

    def __init__(self):
        self.rows = []
        self.last_lines = {}

    def run(self, name, command, cwd=ROOT, is_printed=lambda line: True):
        """Runs a command, and prints the lines for which `is_printed` returns true. Returns whether it succeeded.

        The lines are those of the standard output and of the standard error.
        """
        start, before = time.monotonic(), used()
        last = deque(maxlen=15)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, cwd=cwd, text=True, errors="replace", **streams) as process:
            for line in process.stdout:
                if is_printed(line):
                    last.append(line)
                    print(line, end="", flush=True)
        good = process.returncode == 0
        self.rows.append((name, time.monotonic() - start, used() - before, good))
        if not good:
            self.last_lines[name] = "".join(last)
        return good

    def failures(self):
        return [name for name, _, _, good in self.rows if not good]

    def table(self):
        rows = [*self.rows, ("total", sum(r[1] for r in self.rows), sum(r[2] for r in self.rows), True)]
        lines = [f"{'part':<44} {'wall':>7} {'processor':>10}"]
        lines += [
            f"{name:<44} {wall:>5.0f} s {cpu:>8.0f} s{'' if good else '  FAILED'}" for name, wall, cpu, good in rows
        ]
        return "\n".join(lines)


def used():
    """The processor time of all children that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def build(parts, profile):
    """Builds the Rust test programs. Returns the name, the file and the package directory of each."""
    messages = []

    def is_printed(line):
        """Keeps the messages of Cargo. Other lines are printed."""
        is_message = line.startswith("{")
        if is_message:
            messages.append(line)
        return not is_message

    good = parts.run(
        "build",
        # Does not build the examples; `make lint` checks that they compile.
        ["cargo", "test", *profile, "--locked", "--workspace", "--lib", "--bins", "--tests", "--no-run",
         "--message-format", "json-render-diagnostics"],
        is_printed=is_printed,
    )  # fmt: skip
    programs = []
    for line in messages if good else []:
        message = json.loads(line)
        if message.get("executable") and message["profile"]["test"]:
            target, package = message["target"], Path(message["manifest_path"]).parent
            kind = "unit tests" if target["kind"][0] in ("lib", "bin", "cdylib", "rlib") else "tests"
            crate = "command" if package.name == "cli" else "library"
            name = f"{crate}: {kind}" if kind == "unit tests" or crate == "command" else f"tests/{target['name']}"
            programs.append((name, message["executable"], package))
    if good and not programs:
        sys.exit("tests: the build produced no test programs")
    # The unit tests run first: they are fast, and their failures often explain later failures.
    return sorted(programs, key=lambda program: "unit" not in program[0])


def processes(name, full):
    """The arguments of each process that runs a test program.

    With all cases, each plugin is compared in a process of its own. Every compiled program takes several memory
    mappings, and the programs of all plugins together exceed the kernel's limit for one process (vm.max_map_count).
    """
    if not full or name != "tests/library":
        return [[]]
    plugins = [f"agreement::plugin_api_{version}" for version in (115, 106, 81)]
    return [*([plugin] for plugin in plugins), ["--skip", "agreement::plugin_api_"]]


def main():
    full = "--full" in sys.argv[1:]
    environment = os.environ
    environment.setdefault("NUCLEUS_TEST_SEED", str(int(time.time()) // 86_400))
    # The tests choose plugins and directories themselves.
    for name in ("NUCLEUS_PJRT_PLUGIN", "NUCLEUS_PROGRAM_DIR", "NUCLEUS_LOG"):
        environment.pop(name, None)
    if full:
        environment["NUCLEUS_TEST_FULL"] = "1"
    print(f"tests: seed {environment['NUCLEUS_TEST_SEED']}; NUCLEUS_TEST_SEED repeats a run", flush=True)

    parts = Parts()
    programs = build(parts, [] if full else ["--release"])
    # The C tests use the release library. After a build of the tests with --release, this compiles no Rust code.
    parts.run("build: library, C examples", ["make", "examples"])
    if parts.failures():
        return finish(parts, 0, 0)
    for name, program, package in programs:
        for filters in processes(name, full):
            label = " ".join([name, *filters])
            print(f"\n=== {label}", flush=True)
            parts.run(label, [program, *filters], cwd=package)
    print("\n=== examples in the documentation", flush=True)
    profile = [] if full else ["--release"]
    parts.run("documentation", ["cargo", "test", *profile, "--locked", "--workspace", "--doc"])
    print("\n=== without the feature pjrt", flush=True)
    parts.run("without pjrt", ["scripts/test_without_pjrt.py"])
    print("\n=== interpreter of TPU and GPU programs", flush=True)
    python = ROOT / ".cache/interpreter/bin/python"
    parts.run("interpreter", [python, "-m", "unittest", "discover", "-s", "interpreter", "-t", "."], cwd=ROOT / "tests")

    print("\n=== commands of the README", flush=True)
    parts.run("tests/readme.py", ["tests/readme.py"])
    for language in ("go", "julia", "python"):
        print(f"\n=== bindings/{language}", flush=True)
        parts.run(f"bindings/{language}", [f"bindings/{language}/test.sh"])

    passed = failed = 0
    for directory, title in SCRIPTS.items():
        print(f"\n=== {title}", flush=True)
        counts = run_script(parts, directory)
        passed, failed = passed + counts[0], failed + counts[1]
    return finish(parts, passed, failed)


def finish(parts, passed, failed):
    """Prints the times and the closing line. Returns the exit status."""
    failed += len([name for name in parts.failures() if name not in SCRIPTS])
    print(f"\n{parts.table()}\n{processor()}; seed {os.environ['NUCLEUS_TEST_SEED']}")
    for name, lines in parts.last_lines.items():
        print(f"\n=== {name} failed. Its last lines:\n{lines.rstrip()}")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def run_script(parts, directory):
    """Runs DIRECTORY/run.sh and prints its lines as they come. Returns how many of its tests passed and failed."""
    closing = None

    def is_printed(line):
        nonlocal closing
        counts = re.fullmatch(r"(\d+) passed, (\d+) failed", line.strip())
        closing = counts or closing
        return not counts

    good = parts.run(directory, [f"{directory}/run.sh"], is_printed=is_printed)
    passed, failed = (int(number) for number in closing.groups()) if closing else (0, 1)
    # After a failure before the first test, the last line reports no failure, or there is no last line.
    return passed, max(failed, int(not good))


if __name__ == "__main__":
    sys.exit(main())
