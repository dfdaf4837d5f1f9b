"""Helpers of the tests of GPU programs: programs around hand-written PTX."""

import re
import unittest
from pathlib import Path

from ..element import TENSOR_DTYPES
from ..errors import ProgramError
from ..options import Options
from ..outer import Outer

PROGRAMS = Path(__file__).parent / "programs"

HEADER = """.version 7.8
.target sm_80
.address_size 64
"""
# The schedules for tests of several blocks.
SCHEDULES = [Options()] + [Options(schedule="random", seed=seed) for seed in range(4)]


def escaped(text):
    return text.replace("\\", "\\5C").replace('"', "\\22").replace("\n", "\\0A")


def program(ptx, inputs, outputs, grid=1, block=32, shared_bytes=0, aliases={}, entries={}):
    """Returns a StableHLO module that only calls the kernel. `aliases` maps results to operands, as in the text of the
    module."""
    name = re.search(r"\.entry\s+(\w+)", ptx).group(1)
    numbers = {
        "grid_x": grid,
        "grid_y": 1,
        "grid_z": 1,
        "block_x": block,
        "block_y": 1,
        "block_z": 1,
        "shared_mem_bytes": shared_bytes,
    }
    config = f'{{name = "{name}", kernel_type = "ptx", kernel_data = "{escaped(ptx)}", '
    config += ", ".join(f"{key} = {value} : i32" for key, value in (numbers | entries).items()) + "}"
    alias = ", ".join(
        f"#stablehlo.output_operand_alias<output_tuple_indices = [{result if len(outputs) > 1 else ''}], "
        f"operand_index = {operand}, "
        "operand_tuple_indices = []>"
        for result, operand in aliases.items()
    )
    ins, outs = ([f"tensor<{t}>" for t in types] for types in (inputs, outputs))
    arguments = ", ".join(f"%a{i}: {t}" for i, t in enumerate(ins))
    names = ", ".join(f"%a{i}" for i in range(len(ins)))
    returned = ", ".join("%r" if len(outs) == 1 else f"%r#{i}" for i in range(len(outs)))
    types = ", ".join(outs)
    results = "%r" if len(outs) == 1 else f"%r:{len(outs)}"
    return f"""module @m {{
  func.func public @main({arguments}) -> ({types}) {{
    {results} = stablehlo.custom_call @__gpu$xla.gpu.ptx({names}) {{api_version = 2 : i32,
      backend_config = "{escaped(config)}", output_operand_aliases = [{alias}]}}
      : ({", ".join(ins)}) -> {types if len(outs) == 1 else f"({types})"}
    return {returned} : {types}
  }}
}}
"""


def kernel(body, parameters, threads=32, registers=True):
    """Returns a kernel with these instructions. Before them, it declares registers, and loads the parameters into %rd1,
    %rd2, …"""
    declared = (
        ".reg .pred %p<16>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .b64 %rd<32>; .reg .f32 %f<16>;"
        if registers
        else ""
    )
    loads = "\n".join(f"ld.param.u64 %rd{i + 1}, [a{i}];" for i in range(parameters))
    names = ", ".join(f".param .u64 a{i}" for i in range(parameters))
    return f"{HEADER}.visible .entry k({names}) .reqntid {threads}, 1, 1 {{\n{declared}\n{loads}\n{body}\n}}\n"


def tensor(array):
    elem = next(name for name, dtype in TENSOR_DTYPES.items() if dtype == array.dtype)
    return "x".join([*map(str, array.shape), elem])


class PtxTest(unittest.TestCase):
    def run_program(self, ptx, arrays, outputs, options=Options(), **launch):
        """Runs a kernel on arrays. Returns its results."""
        return Outer(program(ptx, [tensor(a) for a in arrays], outputs, **launch), options).run(arrays)

    def assert_fails(self, pattern, ptx, arrays, outputs, options=Options(), **launch):
        with self.assertRaisesRegex(ProgramError, pattern):
            self.run_program(ptx, arrays, outputs, options, **launch)

    def run_body(self, body, arrays, outputs, options=Options(), **launch):
        """Runs a kernel that consists of these instructions. Returns its results."""
        ptx = kernel(body, len(arrays) + len(outputs), launch.get("block", 32))
        return self.run_program(ptx, arrays, outputs, options, **launch)

    def assert_body_fails(self, pattern, body, arrays, outputs, options=Options(), **launch):
        ptx = kernel(body, len(arrays) + len(outputs), launch.get("block", 32))
        self.assert_fails(pattern, ptx, arrays, outputs, options, **launch)


def file(name):
    return (PROGRAMS / f"{name}.ptx").read_text()
