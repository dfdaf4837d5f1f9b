"""Finds the copies of the operations of arithmetic functions.

The emitter inlines its functions. So a kernel contains a function several times, and each copy has its own mutants. The
result of an arithmetic function depends only on its operands. If the tests catch a mutant of one copy, they show that
the function needs the changed operation. The same change of another copy can survive, because the operands of that copy
never have the rare values that show the change.

The text of a kernel for readers can name the place in the source of the emitter that adds each operation. Two
operations from the same place are copies.
"""

import re

# The files whose functions are arithmetic functions.
ARITHMETIC = (
    "src/mlir/mosaic/wide.rs", "src/semantics/clean.rs", "src/semantics/draw.rs", "src/semantics/narrow_keys.rs",
    "src/semantics/top_p.rs", "src/semantics/weights.rs", "kernels/tpu/keys.rs", "kernels/tpu/lane_sums.rs",
    "kernels/tpu/short_division.rs",
)  # fmt: skip

SOURCE = re.compile(r"^\s*// (%\d+) is from (\S+)$", re.MULTILINE)


def places(definitions, notes):
    """Returns the places of the operations of arithmetic functions. `definitions` contains the operation of each name.
    `notes` is the text for readers."""
    found = {definitions.get(name): place for name, place in SOURCE.findall(notes)}
    return {op: place for op, place in found.items() if place.split(":")[0].endswith(ARITHMETIC)}


def copies_of(mutant, operations, places):
    """Returns the changes that a mutant consists of, as pairs of a place and a change. Returns None if the mutant
    changes an operation outside of the arithmetic functions, or a constant. Constants have no place, because the kernel
    contains each constant once."""
    changed = [operations[index][1] for index in mutant.indices]
    if mutant.action[0] == "value" or any(op not in places for op in changed):
        return None
    return frozenset((places[op], mutant.change) for op in changed)
