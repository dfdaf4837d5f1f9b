"""Finds the operations of a kernel that cannot affect its results.

The text of a kernel for readers names values on which the results do not depend. An example is the place that a search
probes next. Such a value is called free. An operation affects only the time if its results are used only to
compute free values.
"""

from .translate import HANDLERS


def has_effects(op):
    """Whether an operation does more than compute its results."""
    if op.name.startswith("scf."):
        return any(has_effects(inner.operation) for r in op.regions for b in r.blocks for inner in b.operations
                   if inner.operation.name not in ("scf.yield", "scf.condition"))  # fmt: skip
    return not HANDLERS[op.name].pure and op.name not in ("vector.load", "tpu.memref_slice", "tpu.assume_multiple")


class Relevance:
    """The values of a function that can affect the results. The operations in `free` define the free values."""

    def __init__(self, function, free):
        self.free = free
        self.values = set()
        self.work = []
        for op in self.all_operations(function):
            if has_effects(op):
                self.need_control(op) if op.name.startswith("scf.") else self.need(op.operands)
        while self.work:
            self.visit(self.work.pop())

    def all_operations(self, op):
        for region in op.regions:
            for block in region.blocks:
                for inner in block.operations:
                    yield inner.operation
                    yield from self.all_operations(inner.operation)

    def need(self, values):
        for value in values:
            if value not in self.values:
                self.values.add(value)
                self.work.append(value)

    def need_control(self, op):
        """Marks the operands that decide whether and how often the regions of an operation run."""
        if op.name == "scf.while":
            self.need(list(op.regions[0].blocks[0].operations)[-1].operation.operands[:1])
        else:
            self.need(list(op.operands)[: 1 if op.name == "scf.if" else 3])

    def visit(self, value):
        owner = value.owner
        if not hasattr(owner, "operations"):
            op = owner.operation if hasattr(owner, "operation") else owner
            if op in self.free:
                return
            if op.name in ("scf.if", "scf.for", "scf.while"):
                self.need_control(op)
                self.need_state(op, list(op.results).index(value))
            else:
                self.need(op.operands)
            return
        # The value is an argument of a block.
        op = owner.owner.operation
        number = list(owner.arguments).index(value)
        if op.name == "scf.for" and number > 0:
            self.need_control(op)
            self.need_state(op, number - 1)
        elif op.name == "scf.for":
            self.need_control(op)
        elif op.name == "scf.while":
            self.need_control(op)
            if owner == op.regions[1].blocks[0]:
                self.need_state(op, number)
            else:
                self.need([op.operands[number], self.end(op, 1).operands[number]])

    def end(self, op, region):
        return list(op.regions[region].blocks[0].operations)[-1].operation

    def need_state(self, op, number):
        """Marks the values that become result `number` of a loop or branch."""
        if op.name == "scf.if":
            self.need([self.end(op, region).operands[number] for region in (0, 1)])
        elif op.name == "scf.for":
            self.need([op.operands[3 + number], self.end(op, 0).operands[number]])
        else:
            self.need([self.end(op, 0).operands[1 + number]])

    def can_affect(self, op):
        """Whether an operation can affect the results."""
        return op not in self.free and (has_effects(op) or any(result in self.values for result in op.results))
