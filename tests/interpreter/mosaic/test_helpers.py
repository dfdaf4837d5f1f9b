"""Shared by the tests of the interpreter: programs around hand-written kernels."""

import base64
import json
import unittest

import numpy as np
from jaxlib.mlir import ir, passmanager

from ..element import TENSOR_DTYPES
from ..errors import ProgramError
from ..outer import Outer
from ..parse import context, parse_module
from ..options import Options

VMEM = "#tpu.memory_space<vmem>"
SMEM = "#tpu.memory_space<smem>"
ANY = "#tpu.memory_space<any>"
SEM = "#tpu.memory_space<semaphore_mem>"


def versioned(kernel):
    """Converts a kernel from the plain to the versioned form, as text."""
    module = parse_module(kernel, "kernel")
    with context(), ir.Location.unknown():
        passmanager.PassManager.parse("builtin.module(mosaic-serde{serialize=true target-version=15})").run(module.operation)
        return module.operation.get_asm(print_generic_op_form=True)


def program(kernel, inputs, outputs, serialization=None):
    """A StableHLO module that only calls the kernel."""
    config = {"custom_call_config": {"body": base64.b64encode(kernel.encode()).decode()}}
    if serialization is not None:
        config["custom_call_config"]["serialization_format"] = serialization
    config = json.dumps(config).replace("\\", "\\5C").replace('"', "\\22")
    ins, outs = ([f"tensor<{t}>" for t in types] for types in (inputs, outputs))
    arguments = ", ".join(f"%a{i}: {t}" for i, t in enumerate(ins))
    names = ", ".join(f"%a{i}" for i in range(len(ins)))
    returned = ", ".join("%r" if len(outs) == 1 else f"%r#{i}" for i in range(len(outs)))
    result = "%r" if len(outs) == 1 else f"%r:{len(outs)}"
    types = ", ".join(outs)
    layouts = [", ".join(row_major(t) for t in group) for group in (inputs, outputs)]
    return f"""module @m {{
  func.func public @main({arguments}) -> ({types}) {{
    {result} = stablehlo.custom_call @tpu_custom_call({names}) {{backend_config = "{config}", operand_layouts = [{layouts[0]}],
      result_layouts = [{layouts[1]}]}} : ({", ".join(ins)}) -> {types if len(outs) == 1 else f"({types})"}
    return {returned} : {types}
  }}
}}
"""


def row_major(tensor):
    rank = tensor.count("x")
    return f"dense<{list(range(rank))[::-1]}> : tensor<{rank}xindex>"


def random_tensor(tensor, seed=0):
    *shape, elem = tensor.split("x")
    dtype, shape = TENSOR_DTYPES[elem], tuple(int(d) for d in shape)
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


class KernelTest(unittest.TestCase):
    """Runs each kernel in the plain and in the versioned form."""

    def run_kernel(self, kernel, arrays, inputs, outputs, options=Options()):
        """Runs a kernel. Returns its results and its report."""
        results = []
        for text, serialization in ((kernel, None), (versioned(kernel), 1)):
            outer = Outer(program(text, inputs, outputs, serialization), options)
            results.append((outer.run(arrays), outer.report()[0]))
        for a, b in zip(results[0][0], results[1][0]):
            self.assert_bits(a, b)
        return results[0]

    def assert_fails(self, pattern, kernel, arrays, inputs, outputs, options=Options()):
        with self.assertRaisesRegex(ProgramError, pattern):
            self.run_kernel(kernel, arrays, inputs, outputs, options)

    def assert_bits(self, got, expected):
        self.assertEqual((got.dtype, got.shape), (expected.dtype, expected.shape))
        np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), expected.view(f"u{got.itemsize}"))

    def elementwise(self, body, arrays, inputs, output, options=Options()):
        """Runs a kernel whose body computes %r from %a0, %a1, …, which are whole operands."""
        memrefs = [f"memref<{t}, {VMEM}>" for t in [*inputs, output]]
        rank = output.count("x")
        zeros = ", ".join(["%z"] * rank)
        loads = "\n".join(
            f"%a{i} = vector.load %m{i}[{', '.join(['%z'] * t.count('x'))}] : {m}, vector<{t}>"
            for i, (t, m) in enumerate(zip(inputs, memrefs))
        )
        kernel = f"""
        func.func @k({", ".join(f"%m{i}: {m}" for i, m in enumerate(memrefs))}) attributes {{
            dimension_semantics = [], scalar_prefetch = 0 : i64, scratch_operands = 0 : i64}} {{
          %z = arith.constant 0 : index
          {loads}
          {body}
          vector.store %r, %m{len(inputs)}[{zeros}] : {memrefs[-1]}, vector<{output}>
          return
        }}"""
        (result,), report = self.run_kernel(kernel, arrays, inputs, [output], options)
        return result, report
