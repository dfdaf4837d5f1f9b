"""Tests of the proofs that mutants do not change results."""

import unittest

from ..parse import context, parse_module
from .mutants import find
from .proofs import SAME, TIME, Proofs
from .test_helpers import VMEM

# Stores the upper 16 bits of the parameter of each row. The comparisons never change what it stores. The note is a
# comment.
KERNEL = f"""module {{
func.func @k(%0: i32, %1: memref<8x128xi32, {VMEM}>, %2: memref<8x128xi32, {VMEM}>) {{
  %3 = arith.constant 0 : index
  %4 = arith.constant dense<16> : vector<8x1xi32>
  %5 = arith.constant 100 : i32
  %6 = arith.constant 7 : i32
  %7 = arith.constant 0 : i32
  %8 = vector.load %1[%3, %3] : memref<8x128xi32, {VMEM}>, vector<8x1xi32>
  %9 = arith.shrui %8, %4 : vector<8x1xi32>
  %10 = vector.broadcast %9 : vector<8x1xi32> to vector<8x128xi32>
  %11 = arith.muli %0, %6 : i32
  %12 = arith.cmpi slt, %11, %5 : i32
  // any value of %12 is correct: both sides return the same number
  %13 = scf.if %12 -> (i32) {{
    scf.yield %7 : i32
  }} else {{
    scf.yield %7 : i32
  }}
  %14 = arith.cmpi slt, %13, %5 : i32
  %15 = vector.broadcast %13 : i32 to vector<8x128xi32>
  %16 = arith.select %14, %10, %15 : vector<8x128xi32>
  vector.store %16, %2[%3, %3] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
  return
}}
}}
"""
# Stores 1 if a quarter of a parameter rounds to less than 1. Otherwise, stores the parameter.
ROUNDED = f"""module {{
func.func @k(%0: i32, %1: memref<8x128xi32, {VMEM}>, %2: memref<8x128xi32, {VMEM}>) {{
  %3 = arith.constant 0 : index
  %4 = arith.constant dense<0.25> : vector<8x1xf32>
  %5 = arith.constant dense<1> : vector<8x1xi32>
  %6 = vector.load %1[%3, %3] : memref<8x128xi32, {VMEM}>, vector<8x1xi32>
  %7 = arith.sitofp %6 : vector<8x1xi32> to vector<8x1xf32>
  %8 = arith.mulf %7, %4 : vector<8x1xf32>
  %9 = tpu.fptosi %8 {{rounding_mode = #tpu.rounding_mode<to_nearest_even>}} : vector<8x1xf32> -> vector<8x1xi32>
  %10 = arith.cmpi slt, %9, %5 : vector<8x1xi32>
  %11 = arith.select %10, %5, %6 : vector<8x1xi1>, vector<8x1xi32>
  %12 = vector.broadcast %11 : vector<8x1xi32> to vector<8x128xi32>
  vector.store %12, %2[%3, %3] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
  return
}}
}}
"""
SHIFT = "shrui(load(), 16) -> by 17"
PLACE = "slt(muli(argument, c), 100) -> sle"
ALWAYS = "slt(if, 100) -> sle"


class Cases(unittest.TestCase):
    def proofs(self, notes, columns, kernel=KERNEL):
        with context():
            module = parse_module(kernel, "kernel")
            proofs = Proofs(module, kernel, notes, columns)
            return {mutant.name.split(" | ")[1]: proofs.of(mutant) for mutant in find(module)}

    def test_a_value_that_can_be_any_value(self):
        self.assertIsNone(self.proofs("", [])[PLACE])
        found = self.proofs(KERNEL, [])
        self.assertEqual(found[PLACE], TIME)
        # Only the free value uses the constant 7. The selection also depends on a comparison with 100.
        self.assertEqual(found["constant 7 of i32 -> 8"], TIME)
        self.assertIsNone(found["constant 100 of i32 -> 101"])

    def test_ranges_of_parameters(self):
        self.assertIsNone(self.proofs(KERNEL, [])[SHIFT])
        self.assertIsNone(self.proofs(KERNEL, [[0, 1 << 16]])[SHIFT])
        self.assertEqual(self.proofs(KERNEL, [[0, (1 << 16) - 1]])[SHIFT], SAME)
        self.assertEqual(self.proofs("  // %8 is between 0 and 65535\n", [])[SHIFT], SAME)

    def test_a_comparison_with_one_result(self):
        self.assertEqual(self.proofs("", [])[ALWAYS], SAME)
        # If the compared numbers can be equal, the results can differ.
        other = KERNEL.replace("scf.yield %7 : i32\n  }\n", "scf.yield %5 : i32\n  }\n")
        self.assertIsNone(self.proofs("", [], other)[ALWAYS])

    def test_a_conversion_to_the_nearest_integer(self):
        comparison = "slt(fptosi(mulf(sitofp(load), c)), 1) -> sle"
        # 2 · 0.25 is rounded to 0, and 3 · 0.25 to 1.
        self.assertEqual(self.proofs("", [[0, 2]], ROUNDED)[comparison], SAME)
        self.assertIsNone(self.proofs("", [[0, 3]], ROUNDED)[comparison])
