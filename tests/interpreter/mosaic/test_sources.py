"""Tests of the copies of operations of arithmetic functions."""

import unittest
from argparse import Namespace
from types import SimpleNamespace

from ..mutant_list import COPY, OPEN_OTHER, OPEN_SAME, UNROLLED, Comparison, MutantList
from ..parse import context, parse_module
from .mutants import find
from .proofs import Proofs
from .test_helpers import VMEM

# The first two comparisons are copies of a comparison in an arithmetic function. The next two are copies of an unrolled
# comparison. The last one has no copies. The notes are comments.
KERNEL = f"""module {{
func.func @k(%0: i32, %1: memref<8x128xi32, {VMEM}>, %2: memref<8x128xi32, {VMEM}>) {{
  %3 = arith.constant 5 : i32
  // %4 is from src/mlir/mosaic/wide.rs:10:4
  %4 = arith.cmpi slt, %0, %3 : i32
  %5 = arith.addi %0, %3 : i32
  // %6 is from src/mlir/mosaic/wide.rs:10:4
  %6 = arith.cmpi slt, %5, %0 : i32
  // %7 is from src/../kernels/tpu/survivors.rs:10:4
  %7 = arith.cmpi sge, %5, %3 : i32
  // %8 is from src/../kernels/tpu/survivors.rs:10:4
  %8 = arith.cmpi sge, %0, %3 : i32
  // %9 is from src/../kernels/tpu/gather.rs:10:4
  %9 = arith.cmpi slt, %5, %3 : i32
  return
}}
}}
"""
FIRST = "kernel body | slt(argument, 5) -> sle | 0"
SECOND = "kernel body | slt(addi(argument, c), argument) -> sle | 0"
COPIES_IN_LOOP = ["kernel body | sge(addi(argument, c), 5) -> sgt | 0", "kernel body | sge(argument, 5) -> sgt | 0"]
OTHER = "kernel body | slt(addi(argument, c), 5) -> sle | 0"


class Copies(unittest.TestCase):
    def copies(self, kernel=KERNEL):
        with context():
            module = parse_module(kernel, "kernel")
            proofs = Proofs(module, kernel, kernel, [])
            return {mutant.name: proofs.copies(mutant) for mutant in find(module)}

    def test_operations_from_one_place_are_copies(self):
        copies = self.copies()
        self.assertEqual(copies[FIRST], {("src/mlir/mosaic/wide.rs:10:4", "sle")})
        self.assertEqual(copies[FIRST], copies[SECOND])

    def test_copies_of_an_unrolled_operation_have_the_same_path(self):
        copies = self.copies()
        changes = [{("src/../kernels/tpu/survivors.rs:10:4", "sgt", "")}] * 2
        self.assertEqual([copies[name] for name in COPIES_IN_LOOP], changes)
        # The function at this place adds two kinds of operations.
        place = "survivors.rs:10:4\n  %5 = arith.addi"
        copies = self.copies(KERNEL.replace("  %5 = arith.addi", f"  // %5 is from src/../kernels/tpu/{place}"))
        self.assertEqual([copies[name] for name in COPIES_IN_LOOP], [None, None])
        # In this file, only operations in loops are copies.
        self.assertIsNone(self.copies(KERNEL.replace("survivors.rs", "threshold_search.rs"))[COPIES_IN_LOOP[0]])

    def test_other_operations_have_no_copies(self):
        copies = self.copies()
        self.assertIsNone(copies[OTHER])
        # Constants have no place.
        self.assertIsNone(copies["kernel body | constant 5 of i32 -> 6 | 0"])

    def test_another_place_is_no_copy(self):
        copies = self.copies(KERNEL.replace("wide.rs:10:4", "wide.rs:11:4", 1))
        self.assertNotEqual(copies[FIRST], copies[SECOND])


class Reasons(unittest.TestCase):
    """The reasons that the list gives for mutants after a run."""

    COPIES = {FIRST: frozenset({("place", "sle")}), SECOND: frozenset({("place", "sle")}), OTHER: None}

    def run_mutants(self, caught, reasons, listed=False, copies=COPIES):
        """`caught` says what caught each mutant. `reasons` is the list before the run. Returns the complaints, and the
        list after an update."""
        known = MutantList(reasons={("k", name): reason for name, reason in reasons.items()})
        comparison = Comparison(known, Namespace(sample=False, listed=listed, part=None))
        names = list(caught)
        found = [SimpleNamespace(name=name, path="", text=name, change="sle") for name in copies]
        proofs = SimpleNamespace(of=lambda mutant: None, copies=lambda mutant: copies[mutant.name])
        comparison.chosen(SimpleNamespace(name="k", found=found, proofs=lambda: proofs))
        mutants = [mutant for name in names for mutant in found if mutant.name == name]
        comparison.compare(
            SimpleNamespace(mutants=mutants, found=found, differs=[[0]] * len(names), list=[0], of_sample=set()),
            list(caught.values()),
        )
        comparison.find_copies(comparison.caught_places())
        complaints = comparison.complaints()
        comparison.update()
        return complaints, {name: known.reasons.get(("k", name)) for name in names}

    def test_a_survivor_with_a_caught_copy(self):
        caught = {FIRST: "endless", SECOND: None, OTHER: None}
        complaints, reasons = self.run_mutants(caught, {})
        self.assertEqual(reasons, {FIRST: None, SECOND: COPY, OTHER: OPEN_OTHER})
        self.assertEqual(len(complaints), 2)
        self.assertEqual(self.run_mutants(caught, {SECOND: COPY, OTHER: "a reason"})[0], [])

    def test_a_survivor_without_a_caught_copy(self):
        caught = {FIRST: None, SECOND: None, OTHER: "endless"}
        complaints, reasons = self.run_mutants(caught, {FIRST: COPY, SECOND: OPEN_SAME})
        self.assertEqual(reasons, {FIRST: OPEN_OTHER, SECOND: OPEN_OTHER, OTHER: None})
        self.assertEqual(complaints, [f"caught in no copy: k | {FIRST}"])

    def test_a_survivor_with_a_caught_copy_in_an_unrolled_loop(self):
        change = frozenset({("place", "sle", "")})
        _, reasons = self.run_mutants({FIRST: "endless", SECOND: None}, {}, copies={FIRST: change, SECOND: change})
        self.assertEqual(reasons, {FIRST: None, SECOND: UNROLLED})

    def test_a_run_of_some_mutants_keeps_the_reason(self):
        complaints, reasons = self.run_mutants({SECOND: None}, {SECOND: COPY}, listed=True)
        self.assertEqual((complaints, reasons), ([], {SECOND: COPY}))
