#!/usr/bin/env python3
"""Reads what the C header declares: functions, constants and the ABI version.

The C compiler preprocesses the header first, so the parser sees neither comments nor macros.

    header.py functions         the names of the functions, one per line
    header.py abi-version       the number NUC_ABI_VERSION
    header.py version-script    the symbol version script of the shared library
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "include"
# The package version changes with every release, and the other names are not constants of the interface.
NOT_CONSTANTS = re.compile(r"NUC_VERSION\w*|NUC_\w+_H")


def program(variable, default):
    """Returns the command of a tool as a list of words. CC, for example, can have several words ("ccache gcc")."""
    return shlex.split(os.environ.get(variable, "")) or [default]


def preprocess(include, text, *options):
    """The preprocessed text of a C file that includes the header first."""
    command = [*program("CC", "cc"), "-E", "-P", "-std=c11", "-x", "c", f"-I{include}", *options, "-"]
    source = f"#include <nucleus.h>\n{text}"
    return subprocess.run(command, input=source, text=True, stdout=subprocess.PIPE, check=True).stdout


def prototypes(include=INCLUDE):
    """The prototype of each function that the header declares, without attributes, by name."""
    text = preprocess(include, "", "-D__attribute__(x)=")
    # Remove the bodies of structs, enums and inline functions, the innermost first.
    count = 1
    while count:
        text, count = re.subn(r"\{[^{}]*\}", " @ ", text)
    found = {}
    for statement in text.split(";"):
        declaration = " ".join(statement.rsplit("@", 1)[-1].split())
        name = re.match(r"(?!typedef\b)[\w\s*]*?\b(nuc_\w+) ?\(", declaration)
        if name:
            found[name[1]] = declaration
    if not found:
        sys.exit(f"header: {include}/nucleus.h declares no function")
    return found


def abi_version(include=INCLUDE):
    """The value of NUC_ABI_VERSION."""
    text = preprocess(include, "@ NUC_ABI_VERSION").rsplit("@", 1)[-1]
    number = re.fullmatch(r"\s*\(?(\d+)[uU]?\)?\s*", text)
    if not number:
        sys.exit(f"header: NUC_ABI_VERSION is not a number: {text.strip()}")
    return int(number[1])


def constants(include=INCLUDE):
    """The macros of the header whose values are integers: a dictionary of names and C expressions."""
    defined = re.findall(r"^#define (NUC_\w+) ", preprocess(include, "", "-dM"), re.MULTILINE)
    names = sorted(name for name in defined if not NOT_CONSTANTS.fullmatch(name))
    lines = preprocess(include, "\n".join(f"@ {index} {name}" for index, name in enumerate(names)))
    values = re.findall(r"@ (\d+)((?:\s+[^@\s]+)+)", lines)
    integer = re.compile(r"[\s()+*<>|&~-]*(0[xX][0-9a-fA-F]+|\d+)[uUlL]*[\s()+*<>|&~\dxXa-fA-FuUlL-]*")
    return {names[int(index)]: value.strip() for index, value in values if integer.fullmatch(value)}


def version_script(include=INCLUDE):
    """A version script that exports exactly the functions of the header, with the version NUCLEUS_<ABI version>."""
    names = "".join(f"    {name};\n" for name in sorted(prototypes(include)))
    return f"NUCLEUS_{abi_version(include)} {{\n  global:\n{names}  local:\n    *;\n}};\n"


def main():
    prints = {
        "functions": lambda: "".join(f"{name}\n" for name in sorted(prototypes())),
        "abi-version": lambda: f"{abi_version()}\n",
        "version-script": version_script,
    }
    if len(sys.argv) != 2 or sys.argv[1] not in prints:
        sys.exit(__doc__)
    sys.stdout.write(prints[sys.argv[1]]())


if __name__ == "__main__":
    main()
