#!/usr/bin/env python3
"""Generates src/nucleus_sampler/_abi.py from include/nucleus.layout.json.

generate.py            rewrites the file
generate.py --print    prints it
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAYOUT = HERE.parent.parent / "include/nucleus.layout.json"
OUTPUT = HERE / "src/nucleus_sampler/_abi.py"

TYPES = {
    "size_t": "c_size_t",
    "int32_t": "c_int32",
    "uint32_t": "c_uint32",
    "int64_t": "c_int64",
    "uint64_t": "c_uint64",
    "float": "c_float",
    "char": "c_char",
    "const char *": "c_char_p",
}

HEAD = '''"""The structs and constants of include/nucleus.h.

Generated from include/nucleus.layout.json by generate.py. Do not edit. `make python-structs` rewrites this file.
"""

import ctypes
import enum
'''


def ctypes_name(c_type, enums):
    """The ctypes type of a field, as source text."""
    array = re.fullmatch(r"(.*)\[(\d+)\]", c_type)
    if array:
        return f"{ctypes_name(array.group(1), enums)} * {array.group(2)}"
    if c_type in enums:
        c_type = enums[c_type]
    if c_type in TYPES:
        return f"ctypes.{TYPES[c_type]}"
    if c_type.endswith("*"):
        return "ctypes.c_void_p"
    raise SystemExit(f"generate.py: no ctypes type for {c_type!r}")


def source(layout):
    lines = [HEAD]
    lines.append(f'LIBRARY_VERSION = "{layout["library_version"]}"')
    lines.append(f"POINTER_SIZE = {layout['pointer_size']}\n")
    lines += [f"{constant['name']} = {constant['value']}" for constant in layout["constants"]]
    for enumeration in layout["enums"]:
        lines.append(f"\n\nclass {enumeration['name']}(enum.IntEnum):")
        lines += [f"    {value['name']} = {value['value']}" for value in enumeration["values"]]
    enums = {enumeration["name"]: enumeration["type"] for enumeration in layout["enums"]}
    for struct in layout["structs"]:
        lines.append(f"\n\nclass {struct['name']}(ctypes.Structure):")
        lines.append("    _fields_ = [")
        for field in struct["fields"]:
            lines.append(f'        ("{field["name"]}", {ctypes_name(field["type"], enums)}),')
        lines.append("    ]")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = source(json.loads(LAYOUT.read_text()))
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(text)
    else:
        OUTPUT.write_text(text)
