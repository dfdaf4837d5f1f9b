"""Finds the copies of operations.

The text of a kernel for readers can name the place in the source of the emitter that adds each operation. Two
operations from the same place can be copies. There are two kinds of copies.

The emitter inlines its functions. So a kernel contains an arithmetic function several times, and each copy has its own
mutants. The result of an arithmetic function depends only on its operands. If the tests catch a mutant of one copy,
they show that the function needs the changed operation. The same change of another copy can survive, because the
operands of that copy never have the rare values that show the change.

The emitter also unrolls its loops. A mutant changes the copies of an unrolled operation together only if their texts
are equal. For example, a step of a search compares the slots of the survivors with the places that it probes. The
places are different sums, so the texts of these comparisons differ. If the tests catch a mutant of one copy, they show
that the source of the emitter needs the operation.
"""

import re

# The files whose functions are arithmetic functions.
ARITHMETIC = (
    "src/mlir/mosaic/wide.rs", "src/semantics/clean.rs", "src/semantics/draw.rs", "src/semantics/narrow_keys.rs",
    "src/semantics/top_p.rs", "src/semantics/weights.rs", "kernels/tpu/keys.rs", "kernels/tpu/lane_sums.rs",
    "kernels/tpu/short_division.rs",
)  # fmt: skip
# In these files, operations from the same place and with the same path are copies of one unrolled operation. No
# function of these files is called twice on the same path, except functions that add no comparison and no shift.
UNROLLED = ("kernels/tpu/survivors.rs",)
# In these files, this is true only for operations in loops. A function adds a loop for each call, and each loop has its
# own path.
UNROLLED_IN_LOOPS = ("kernels/tpu/threshold_search.rs",)
# The end of the path of an operation in a branch. The path is empty if the operation is in no loop and no branch.
BRANCH = re.compile(r"(^|: then|: else)$")

SOURCE = re.compile(r"^\s*// (%\d+) is from (\S+)$", re.MULTILINE)


class Sources:
    """The places in the source of the emitter that add the operations of a kernel."""

    def __init__(self, definitions, notes):
        """`definitions` contains the operation of each name. `notes` is the text for readers."""
        self.places = {definitions.get(name): place for name, place in SOURCE.findall(notes)}
        # The names of the operations from each place.
        self.names = {}
        for op, place in self.places.items():
            if op is not None:
                self.names.setdefault(place, set()).add(op.name)

    def copies(self, mutant, operations):
        """Returns the changes that a mutant consists of. Operations with the same change are copies. A change of an
        arithmetic function is a pair: the place and the name of the change. For an unrolled operation, the path is the
        third element. Returns None if the mutant changes another operation, or a constant. Constants have no place,
        because the kernel contains each constant once."""
        if mutant.action[0] == "value":
            return None
        changes = {self.change(operations[index][1], mutant) for index in mutant.indices}
        return None if None in changes else frozenset(changes)

    def change(self, op, mutant):
        place = self.places.get(op, "")
        file = place.split(":")[0]
        if file.endswith(ARITHMETIC):
            return place, mutant.change
        unrolled = file.endswith(UNROLLED) or file.endswith(UNROLLED_IN_LOOPS) and not BRANCH.search(mutant.path)
        # Some functions add operations of several kinds for their caller. These have the same place, but they are not
        # copies.
        if unrolled and len(self.names[place]) == 1:
            return place, mutant.change, mutant.path
        return None
