"""Tests of the mutants of kernels."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np

from .. import mutant_list
from ..cli import main
from ..outer import Outer
from .mutants import find, neighbours
from .test_helpers import VMEM, program

# Doubles the elements below 5. The loop runs three times, and each iteration adds 1 to all elements.
KERNEL = f"""
func.func @k(%x: memref<8x128xi32, {VMEM}>, %y: memref<8x128xi32, {VMEM}>) attributes {{
    dimension_semantics = [], scalar_prefetch = 0 : i64, scratch_operands = 0 : i64}} {{
  %z = arith.constant 0 : index
  %zero = arith.constant 0 : i32
  %three = arith.constant 3 : i32
  %one = arith.constant dense<1> : vector<8x128xi32>
  %five = arith.constant dense<5> : vector<8x128xi32>
  %v = vector.load %x[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
  %small = arith.cmpi slt, %v, %five : vector<8x128xi32>
  %twice = arith.shli %v, %one : vector<8x128xi32>
  %s = arith.select %small, %twice, %v : vector<8x128xi1>, vector<8x128xi32>
  %r:2 = scf.while (%i = %zero, %a = %s) : (i32, vector<8x128xi32>) -> (i32, vector<8x128xi32>) {{
    %more = arith.cmpi ne, %i, %three : i32
    scf.condition(%more) %i, %a : i32, vector<8x128xi32>
  }} do {{
  ^bb0(%i: i32, %a: vector<8x128xi32>):
    %step = arith.constant 1 : i32
    %next = arith.addi %i, %step : i32
    %sum = arith.addi %a, %one : vector<8x128xi32>
    scf.yield %next, %sum : i32, vector<8x128xi32>
  }} loc("count")
  vector.store %r#1, %y[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
  return
}}"""
TYPES = ["8x128xi32"]
# The tests catch these two mutants only if the input has an element that is 5.
BOUNDARY = "kernel body | slt(load(), 5) -> sle | 0"
CONSTANT = "kernel body | constant 5 of vector<8x128xi32> -> 6 | 0"


class Mutants(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.list = self.directory / "mutants.txt"

    def write_case(self, x, kernel=KERNEL, notes={}):
        text = program(kernel, TYPES, TYPES)
        x.tofile(self.directory / "x.bin")
        Outer(text).run([x])[0].tofile(self.directory / "y.bin")
        (self.directory / "program.mlir").write_text(text)
        case = {"name": "case", "program": "program.mlir", "inputs": ["x.bin"], "expected": ["y.bin"], "notes": notes}
        (self.directory / "cases.json").write_text(json.dumps([case]))

    def run_mutants(self, *arguments):
        """Runs the command. Returns its status, its output, and what caught each mutant."""
        results, said = self.directory / "results.json", io.StringIO()
        command = ["mutants", "--list", self.list, "--processes", "1", "--results", results, *arguments, self.directory]
        with contextlib.redirect_stdout(said):
            status = main([str(word) for word in command])
        caught = {entry["name"]: entry["caught"] for entry in json.loads(results.read_text())["k"]}
        return status, said.getvalue(), caught

    def test_all_caught(self):
        self.write_case(np.arange(1024, dtype=np.int32).reshape(8, 128))
        status, said, caught = self.run_mutants()
        self.assertEqual(status, 0, said)
        self.assertNotIn(None, caught.values())
        self.assertEqual(caught[BOUNDARY], "difference")
        self.assertEqual(caught["count: condition | ne(argument, 3) -> eq | 0"], "difference")
        # The counter goes from 2 to 4, so it never equals 3 and the loop does not end.
        self.assertEqual(caught["count | constant 1 of i32 -> 2 | 0"], "error")
        self.assertEqual(caught["kernel body | shli(load(), 1) -> by 2 | 0"], "difference")

    def test_a_missing_row(self):
        x = np.arange(1024, dtype=np.int32).reshape(8, 128)
        self.write_case(np.where(x == 5, 6, x).astype(np.int32))
        status, said, caught = self.run_mutants()
        self.assertEqual((status, [name for name, by in caught.items() if by is None]), (1, [CONSTANT, BOUNDARY]))
        self.assertIn(f"neither caught nor listed: k | {BOUNDARY}", said)
        # After --update, the list contains both mutants.
        self.run_mutants("--update")
        text = self.list.read_text()
        self.assertIn(f"[{mutant_list.OPEN_OTHER}]\n{CONSTANT}\n", text)
        self.assertIn(f"[{mutant_list.OPEN_SAME}]\n{BOUNDARY}\n", text)
        for reason in mutant_list.OPEN:
            text = text.replace(reason, "a reason")
        self.list.write_text(text)
        self.assertEqual(self.run_mutants()[0], 0)
        _, _, caught = self.run_mutants("--listed", "--update")
        self.assertEqual(list(caught), [CONSTANT, BOUNDARY])
        self.assertIn(f"[a reason]\n{CONSTANT}\n{BOUNDARY}\n", self.list.read_text())

    def test_open_mutants_are_listed(self):
        x = np.arange(1024, dtype=np.int32).reshape(8, 128)
        self.write_case(np.where(x == 5, 6, x).astype(np.int32))
        self.run_mutants("--update")
        status, said, _ = self.run_mutants()
        self.assertEqual(status, 0, said)
        self.assertIn("0 listed with another reason, 2 listed as open, 0 not listed", said)
        self.list.write_text(self.list.read_text().replace(f"{BOUNDARY}\n", ""))
        status, said, _ = self.run_mutants()
        self.assertEqual(status, 1)
        self.assertIn(f"neither caught nor listed: k | {BOUNDARY}", said)

    def test_parts_of_the_mutants(self):
        x = np.arange(1024, dtype=np.int32).reshape(8, 128)
        self.write_case(np.where(x == 5, 6, x).astype(np.int32))
        names = list(self.run_mutants()[2])
        first = names.index(BOUNDARY) % 2
        self.run_mutants("--update")
        status, said, caught = self.run_mutants("--part", f"{first}/2")
        self.assertEqual((status, list(caught)), (0, names[first::2]), said)
        self.assertIn(BOUNDARY, caught)

    def test_rules(self):
        x = np.arange(1024, dtype=np.int32).reshape(8, 128)
        self.write_case(np.where(x == 5, 6, x).astype(np.int32))
        rule = "rule: kernel * | slt(load(), *) -> sle"
        self.list.write_text(f"kernel: *\n\n[a reason]\n{rule}\n\nkernel: k\n\n[another reason]\n{CONSTANT}\n")
        status, said, caught = self.run_mutants()
        self.assertEqual(status, 0, said)
        self.assertNotIn(BOUNDARY, caught)
        self.assertIn("1 covered by rules", said)
        self.assertIn("1 listed with another reason, 0 listed as open, 0 not listed", said)
        before = self.list.read_text()
        self.run_mutants("--update")
        self.assertTrue(self.list.read_text().startswith("\n" + before))
        # A rule must cover a mutant. A mutant that a rule covers must not be listed.
        self.list.write_text(f"{before}\n[a third reason]\nrule: count | slt(*\n{BOUNDARY}\n")
        status, said, _ = self.run_mutants()
        self.assertEqual(status, 1)
        self.assertIn("the rule covers no mutant: rule: count | slt(*", said)
        self.assertIn(f"covered by a rule, or no longer there: k | {BOUNDARY}", said)

    def test_a_listed_mutant_that_is_caught(self):
        self.write_case(np.arange(1024, dtype=np.int32).reshape(8, 128))
        self.list.write_text(f"# kept\n\nkernel: k\n\n[a reason]\n{BOUNDARY}\n")
        status, said, _ = self.run_mutants()
        self.assertEqual(status, 1)
        self.assertIn(f"covered by a rule, or no longer there: k | {BOUNDARY}", said)
        self.run_mutants("--update")
        text = self.list.read_text()
        self.assertTrue(text.startswith(f"# kept\n\nkernel: k\n\n[{mutant_list.SAMPLE}]\n"), text)
        self.assertIn(BOUNDARY, text)
        # The case catches all mutants of the sample.
        self.assertEqual(self.run_mutants("--sample")[0], 0)

    def test_the_sample_does_not_contain_mutants_that_only_other_cases_catch(self):
        self.write_case(np.arange(1024, dtype=np.int32).reshape(8, 128), notes={"sample": False})
        self.run_mutants("--update")
        self.assertEqual(self.list.read_text(), "")

    def test_a_sample_that_a_change_of_the_kernel_removed(self):
        self.write_case(np.arange(1024, dtype=np.int32).reshape(8, 128))
        self.list.write_text(f"kernel: k\n[{mutant_list.SAMPLE}]\n{BOUNDARY}\n" + "".join(f"kernel body | {i} | 0\n" for i in range(4)))
        status, said, _ = self.run_mutants("--sample")
        self.assertEqual(status, 1)
        self.assertIn("k has only 1 of the 5 mutants of the sample", said)

    def test_neighbours_of_constants(self):
        largest, infinity = np.finfo(np.float32).max, np.float32(np.inf)
        tiny = np.finfo(np.float32).tiny
        self.assertEqual(neighbours(np.int32(7), "i32"), {1: 8, -1: 6})
        self.assertEqual((neighbours(True, "i1"), neighbours(False, "i1")), ({-1: False}, {1: True}))
        self.assertEqual(neighbours(np.float32(0), "f32"), {1: tiny, -1: -tiny})
        self.assertEqual(neighbours(infinity, "f32"), {-1: largest})
        self.assertEqual(neighbours(-infinity, "f32"), {-1: -largest})
        self.assertEqual(neighbours(largest, "f32")[1], infinity)
        self.assertEqual(neighbours(-largest, "f32")[1], -infinity)
        self.assertEqual(neighbours(np.float32(np.nan), "f32"), {})
        values = neighbours(np.float32(-1), "f32")
        self.assertLess(values[1], -1)
        self.assertGreater(values[-1], -1)

    def test_copies_of_an_unrolled_operation(self):
        adds = "".join(
            f"""%c{i} = arith.constant dense<{i}> : vector<8x128xi32>
            %m{i} = arith.cmpi slt, %v, %c{i} : vector<8x128xi32>
            %s{i + 1} = arith.select %m{i}, %s{i}, %c{i} : vector<8x128xi1>, vector<8x128xi32>\n"""
            for i in range(10, 20)
        )
        kernel = KERNEL.replace("%r:2 =", f"%s10 = arith.addi %s, %s : vector<8x128xi32>\n{adds}%r:2 =")
        self.write_case(np.arange(1024, dtype=np.int32).reshape(8, 128), kernel)
        module = next(iter(Outer((self.directory / "program.mlir").read_text()).kernels.values())).program.module
        (mutant,) = [mutant for mutant in find(module) if mutant.text == "slt(load(), c)"]
        self.assertEqual((mutant.copy, len(mutant.indices)), ("*", 11))
        # The constants differ, so their new values differ. The names show only the sign of the step.
        names = [m.name for m in find(module) if "constant of vector<8x128xi32>" in m.text]
        self.assertTrue(names and all(name.endswith(("-> each + step | *", "-> each - step | *")) for name in names), names)
