#!/usr/bin/env python3
"""Compares the binary interface of the C header with the committed baseline, tests/abi/nucleus-N.abi.

    abi.py check        prints the differences between the interface and the baseline; fails if one of them is not an
                        addition
    abi.py baseline     writes the baseline for the current header
    abi.py self-test    changes copies of the header in many ways, and checks the result of `check` for each

N is NUC_ABI_VERSION. The baseline describes the last release (docs/abi-policy.md).

libabigail reads the types of an interface from the debug information of C code. The Rust library has only line numbers.
Therefore this script compiles a stub library: empty functions with the prototypes of the header, the SONAME and the
symbol versions. tests/c/run.sh checks that the real library has the same SONAME and exactly these symbols. The integer
macros of the header become an enum of the stub library, so a changed value is also a difference.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE

import header

ROOT = Path(__file__).resolve().parent.parent
# Replace the system's headers, so that the baseline does not depend on the C library of this machine.
SYSTEM_HEADERS = {
    "stddef.h": "typedef __SIZE_TYPE__ size_t;\n#define NULL ((void *)0)\n",
    "stdint.h": "#define INT32_C(x) x\n#define UINT32_C(x) x##u\n#define INT64_C(x) x##ll\n#define UINT64_C(x) x##ull\n"
    + "".join(
        f"typedef __{sign}INT{bits}_TYPE__ {sign.lower()}int{bits}_t;\n"
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    ),
    "stdbool.h": "#define bool _Bool\n#define true 1\n#define false 0\n",
}
# With these options `abidw` omits paths, the processor and the needed libraries from the description.
DESCRIBE = [
    "--load-all-types", "--no-architecture", "--no-corpus-path", "--no-show-locs", "--no-comp-dir-path",
    "--no-elf-needed",
]  # fmt: skip
COMPARE = ["--no-architecture", "--no-show-locs", "--show-bytes"]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], text=True, **options)


def stub_source(include):
    """A C file that defines every function of the header, and an enum of the header's integer macros."""
    macros = "".join(f"    CONSTANT_{name} = {value},\n" for name, value in header.constants(include).items())
    prototypes = header.prototypes(include).values()
    functions = "".join(f"{prototype} {{ __builtin_trap(); }}\n" for prototype in prototypes)
    return f"#include <nucleus.h>\nenum macros {{\n{macros}    CONSTANT_END\n}};\n{functions}"


def describe(include, output):
    """Writes libabigail's description of the interface in `include` to the file `output`."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for name, text in SYSTEM_HEADERS.items():
            (scratch / name).write_text(text)
        (scratch / "nucleus.h").write_text((include / "nucleus.h").read_text())
        (scratch / "stub.c").write_text(stub_source(scratch))
        (scratch / "script").write_text(header.version_script(scratch))
        command = [
            *header.program("CC", "cc"), "-std=c11", "-gdwarf-4", "-O0", "-fno-eliminate-unused-debug-types", "-I.",
            "-fPIC", "-shared", "-nostdlib", f"-Wl,-soname,libnucleus.so.{header.abi_version(scratch)}",
            "-Wl,--version-script=script", "stub.c", "-o", "stub.so",
        ]  # fmt: skip
        run(*command, cwd=scratch, check=True)
        run("abidw", *DESCRIBE, "--out-file", output.resolve(), "stub.so", cwd=scratch, check=True)


def compare(baseline, include):
    """Compares the interface in `include` with a baseline. Returns whether it is compatible, and the differences.

    Added functions, types, enumerators and macros are compatible. An added field is reported as incompatible, because
    the header does not show whether the library still accepts the old struct.
    """
    # The types that no function uses are enums: functions take their values as plain integers.
    unreachable = "--non-reachable-types"
    with tempfile.TemporaryDirectory() as scratch:
        present = Path(scratch) / "present.abi"
        describe(include, present)
        functions, types, everything = (
            run("abidiff", *COMPARE, *options, baseline, present, stdout=PIPE)
            for options in (["--no-added-syms"], ["--no-added-syms", unreachable], ["--harmless", unreachable])
        )
    # The exit status is a bit set: 1 and 2 are failures of the tool, 4 is a change, 8 is an incompatible change.
    statuses = [result.returncode for result in (functions, types, everything)]
    if any(status & 3 or status < 0 for status in statuses):
        sys.exit(f"abi: abidiff failed with statuses {statuses}\n{everything.stdout}")
    # abidiff counts an added type that no function uses as a change. No option turns this off.
    only_added = re.search(r"^Unreachable types summary: 0 removed\b[^,]*, 0 changed\b", types.stdout, re.MULTILINE)
    compatible = functions.returncode == 0 and (types.returncode == 0 or only_added is not None)
    return compatible, everything.stdout.strip() if everything.returncode else ""


def baseline_file(include):
    return ROOT / "tests" / "abi" / f"nucleus-{header.abi_version(include)}.abi"


def check():
    baseline = baseline_file(header.INCLUDE)
    if not baseline.exists():
        sys.exit(f"abi: there is no {baseline.relative_to(ROOT)}; run make abi-baseline and commit it")
    compatible, differences = compare(baseline, header.INCLUDE)
    if differences:
        print(differences)
    if not compatible:
        sys.exit(
            f"abi: the interface differs from {baseline.relative_to(ROOT)}.\n"
            "Undo the change, or increase NUC_ABI_VERSION. "
            "If docs/abi-policy.md allows it, run make\nabi-baseline and commit the new baseline with the change."
        )
    print(f"abi: the interface {'has only additions to' if differences else 'equals'} {baseline.relative_to(ROOT)}")


def baseline():
    output = baseline_file(header.INCLUDE)
    output.parent.mkdir(parents=True, exist_ok=True)
    for older in output.parent.glob("*.abi"):
        older.unlink()
    describe(header.INCLUDE, output)
    print(f"abi: wrote {output.relative_to(ROOT)}")


def edits():
    """Edits of the header: a description, a pattern, its replacement, and whether the result is compatible."""
    struct = r"(typedef struct (?:\w+ )?\{)([^{}]*?)(\n\} ?\w+;)"
    version = r"\n[^\n;]*\bnuc_version\(void\)[^;]*;"
    return [
        ("a comment", r"\Z", "/* nothing */\n", True),
        ("a new function", r"\Z", "int nuc_added(int x);\n", True),
        ("a new function with new types", r"\Z",
         "enum nuc_added_enum { NUC_ADDED };\nstruct nuc_added_struct { enum nuc_added_enum x; };\n"
         "int nuc_added(struct nuc_added_struct *x);\n", True),
        ("a new enumerator", r"(\benum\b[^;{}()]*\{[^{}]*?),?(\n\})", r"\1, NUC_ADDED = 12345\2", True),
        ("a new macro", r"\Z", "#define NUC_ADDED 7\n", True),
        ("a removed function", version, "", False),
        ("another return type", version, "\nint nuc_version(void);", False),
        ("another parameter", version, "\nconst char *nuc_version(int x);", False),
        ("a field at the start of a struct", struct, r"\1 int64_t added;\2\3", False),
        ("a field at the end of a struct", struct, r"\1\2\n int64_t added;\3", False),
        ("a field of another type", r"(#include <stdint.h>\n)(.*?\n +)int32_t (\w+;)",
         r"\1typedef uint32_t nuc_added;\2nuc_added \3", False),
        ("another value of an enumerator", r"\bNUC_OK = 0\b", "NUC_OK = 54321", False),
        ("a removed enumerator", r"\n *NUC_INVALID_ARGUMENT = 1,", "", False),
        ("another value of a macro", r"(#define NUC_(?!ABI|VERSION)\w+) \d+[uU]?\b", r"\1 77", False),
        ("another ABI version", r"(#define NUC_ABI_VERSION) \d+", r"\1 99", False),
    ]  # fmt: skip


def self_test():
    text = (header.INCLUDE / "nucleus.h").read_text()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "before.abi"
        describe(header.INCLUDE, before)
        for name, pattern, replacement, expected in edits():
            edited, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
            (Path(scratch) / "nucleus.h").write_text(edited)
            compatible, differences = compare(before, Path(scratch)) if count else (None, "")
            reported = bool(differences) or name == "a comment"
            if count == 0:
                print(f"abi: self-test: {name}: the header has no place for this change")
            elif compatible != expected or not reported:
                print(f"abi: self-test: {name}: compatible: {compatible}, expected {expected}; reported: {reported}")
            failed += count == 0 or compatible != expected or not reported
    print(f"abi: self-test: {len(edits()) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def main():
    commands = {"check": check, "baseline": baseline, "self-test": self_test}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()


if __name__ == "__main__":
    main()
