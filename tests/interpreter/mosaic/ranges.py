"""The ranges of the values of a kernel, for any logits and any parameters that the host can pass.

The analysis runs the kernel with ranges instead of values. If the ranges show that a changed operation always has the
same result as the unchanged operation, the change cannot affect the kernel.

A range is a pair: the least and the largest value of all elements. Truth values are 0 and 1. `None` means that nothing
is known, and that a float can be NaN. The content of memory is unknown, except the parameters of the rows.
"""

import math

import numpy as np
from jaxlib.mlir import ir

from ..element import WIDTHS, dense_array, scalar_literal, type_of

LEAST, LARGEST = -(1 << 31), (1 << 31) - 1
MASK = (0, 1)
# A loop with more iterations than this is not run iteration by iteration.
MOST_ITERATIONS = 64
# Sums of floats up to this number are exact if all terms are integers.
EXACT = 1 << 24
# The results of these operations contain only elements of the first operand.
MOVES = {
    "vector.broadcast", "vector.shape_cast", "vector.extract", "tpu.dynamic_rotate", "tpu.assume_multiple",
    "arith.index_cast",
}  # fmt: skip


def union(a, b):
    if a is None or b is None:
        return None
    low, high = min(a[0], b[0]), max(a[1], b[1])
    # Such a range would mix signed and unsigned integers.
    return None if low < 0 and high > LARGEST else (low, high)


def checked(low, high):
    """Returns the range of an integer result. A result that can overflow can have any value. The range of an unsigned
    integer can end above the largest signed integer."""
    return (low, high) if LEAST <= low and high <= LARGEST or 0 <= low and high < 1 << 32 else None


def signed(a):
    """Returns a range for an operation on signed integers. It is None if the range ends above the largest of them."""
    return a if a is None or a[1] <= LARGEST else None


def corners(function, a, b):
    values = [function(x, y) for x in a for y in b]
    return min(values), max(values)


def all_ones(value):
    """Returns the least number 2ⁿ − 1 that is at least `value`."""
    return (1 << int(value).bit_length()) - 1


def shift(name, a, by):
    """Returns the range of a shifted integer. `by` is the amount."""
    if name == "arith.shrsi":
        a = signed(a) or (LEAST, LARGEST)
        return a[0] >> by, a[1] >> by
    if a is None or a[0] < 0:
        return (0, (2**32 - 1) >> by) if name == "arith.shrui" and by else None
    return (a[0] >> by, a[1] >> by) if name == "arith.shrui" else checked(a[0] << by, a[1] << by)


def bitwise(name, a, b):
    # `and` only clears bits, so its result is at most each operand that is not negative. `or` and `xor` set no bit
    # above the highest bit of the operands.
    if name == "arith.andi":
        limits = [r[1] for r in (a, b) if r is not None and r[0] >= 0]
        return (0, min(limits)) if limits else None
    if a == (0, 0):
        return b
    if b == (0, 0):
        return a
    if a is None or b is None or a[0] < 0 or b[0] < 0:
        return None
    return 0, all_ones(max(a[1], b[1]))


def order(predicate, a, b):
    """Returns the range of a comparison: eq, ne, lt, le, gt or ge."""
    if a is None or b is None:
        return MASK
    if predicate in ("gt", "ge"):
        return order({"gt": "lt", "ge": "le"}[predicate], b, a)
    if predicate in ("eq", "ne"):
        equal = a == b and a[0] == a[1]
        apart = a[1] < b[0] or b[1] < a[0]
        known = (1, 1) if equal else (0, 0) if apart else MASK
        return known if predicate == "eq" else (1 - known[1], 1 - known[0])
    less = a[1] < b[0] if predicate == "lt" else a[1] <= b[0]
    never = a[0] >= b[1] if predicate == "lt" else a[0] > b[1]
    return (1, 1) if less else (0, 0) if never else MASK


def float_result(low, high):
    """Returns the range of a float result. Rounding keeps the order, so the rounded limits are the limits of the
    rounded results."""
    low, high = float(np.float32(low)), float(np.float32(high))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


PREDICATES = ["eq", "ne", "lt", "le", "gt", "ge", "lt", "le", "gt", "ge"]
FLOAT_PREDICATES = {1: "eq", 2: "gt", 3: "ge", 4: "lt", 5: "le", 6: "ne"}


def compare(op_name, predicate, a, b):
    if op_name == "arith.cmpi":
        if predicate >= 6 and any(r is None or r[0] < 0 for r in (a, b)):
            return MASK
        if predicate < 6:
            a, b = signed(a), signed(b)
        return order(PREDICATES[predicate], a, b)
    return order(FLOAT_PREDICATES[predicate], a, b) if predicate in FLOAT_PREDICATES else MASK


def constant_range(op):
    attribute, type = op.attributes["value"], type_of(op.results[0].type)
    if type.is_vector:
        array = dense_array(attribute, type.dtype, type.shape)
        low, high = array.min(), array.max()
    elif type.is_float:
        low = high = scalar_literal(str(attribute).split(" : ")[0], type.elem)
    else:
        low = high = ir.BoolAttr(attribute).value if type.elem == "i1" else ir.IntegerAttr(attribute).value
    if type.is_float:
        return (float(low), float(high)) if np.isfinite(float(low)) and np.isfinite(float(high)) else None
    return int(low), int(high)


def trailing_zeros(value):
    """Returns a number of low bits of an integer that are always 0. Other low bits can also be 0."""
    op = getattr(value.owner, "operation", value.owner)
    if not isinstance(op, ir.Operation):
        return 0
    if op.name in MOVES:
        return trailing_zeros(op.operands[0])
    if op.name in ("arith.ori", "arith.addi", "arith.select"):
        return min(trailing_zeros(operand) for operand in list(op.operands)[-2:])
    if op.name == "arith.constant":
        found = constant_range(op)
        return 32 if found == (0, 0) else 0
    if op.name != "arith.shli":
        return 0
    amount = getattr(op.operands[1].owner, "operation", op.operands[1].owner)
    by = constant_range(amount) if isinstance(amount, ir.Operation) and amount.name == "arith.constant" else None
    return 0 if by is None or by[0] != by[1] else trailing_zeros(op.operands[0]) + by[0]


class Ranges:
    """Runs a function with ranges. `of` contains, for each operation that can run, the ranges of its operands."""

    def __init__(self, function, parameters, noted):
        """`parameters` contains the range of each column of the parameters, which are the second argument."""
        self.of = {}
        self.noted = noted
        self.values = {}
        self.columns = parameters
        block = function.regions[0].blocks[0]
        self.parameters = block.arguments[1]
        self.block(block)

    def get(self, value):
        return self.values.get(value)

    def block(self, block):
        """Runs the operations of a block. Returns the last one."""
        for op in block.operations:
            op = op.operation
            ranges = [self.get(operand) for operand in op.operands]
            before = self.of.get(op)
            self.of[op] = ranges if before is None else [union(a, b) for a, b in zip(before, ranges)]
            if op.name in ("scf.if", "scf.for", "scf.while"):
                getattr(self, op.name[4:] + "_")(op, ranges)
            elif len(op.results) == 1 and not str(op.results[0].type).startswith("memref"):
                found = self.result(op, ranges)
                most = self.noted.get(op)
                if most is not None:
                    found = (0, most) if found is None else (max(0, found[0]), min(found[1], most))
                self.values[op.results[0]] = found
        return op

    def yielded(self, end, first=0):
        return [self.get(operand) for operand in list(end.operands)[first:]]

    def if_(self, op, ranges):
        condition = ranges[0] or MASK
        results = None
        for truth, region in zip((1, 0), op.regions):
            if condition in (MASK, (truth, truth)) and len(region.blocks):
                found = self.yielded(self.block(region.blocks[0]))
                results = found if results is None else [union(a, b) for a, b in zip(results, found)]
        self.values.update(zip(op.results, results or []))

    def for_(self, op, ranges):
        first, end, step, *state = ranges
        block = op.regions[0].blocks[0]
        index, arguments = block.arguments[0], list(block.arguments)[1:]
        self.values[index] = (first[0], max(first[0], end[1] - 1)) if first and end and step and step[0] > 0 else None
        known = first and end and first[0] == first[1] and end[0] == end[1] and step == (1, 1)
        count = end[0] - first[0] if known else None
        state = self.iterate(arguments, state, lambda: self.yielded(self.block(block)), count)
        self.values.update(zip(op.results, state))

    def while_(self, op, ranges):
        before, after = (region.blocks[0] for region in op.regions)
        passed = []

        def once():
            passed[:] = self.yielded(self.block(before), 1)
            self.values.update(zip(after.arguments, passed))
            return self.yielded(self.block(after))

        self.iterate(list(before.arguments), ranges, once, None)
        self.values.update(zip(op.results, passed))

    def iterate(self, arguments, state, once, count):
        """Runs iterations until the ranges of the state no longer change. Returns these ranges."""
        iteration = 0
        while True:
            self.values.update(zip(arguments, state))
            if count is not None and iteration >= count:
                return state
            found = [union(a, b) for a, b in zip(state, once())]
            if found == state:
                return state
            iteration += 1
            # After a few iterations, a range that still changes becomes unknown.
            if count is None or count > MOST_ITERATIONS:
                found = [b if a == b or iteration < 3 else None for a, b in zip(state, found)]
            state = found

    def result(self, op, ranges):
        """Returns the range of the result of an operation."""
        name, type = op.name, type_of(op.results[0].type)
        a, b = (ranges + [None, None])[:2]
        if name == "arith.constant":
            return constant_range(op)
        if name in MOVES:
            return a
        if name == "arith.cmpi" and self.adds_without_carry(op):
            return 0, 0
        if name in ("arith.cmpi", "arith.cmpf"):
            return compare(name, int(op.attributes["predicate"].value), a, b)
        if name == "arith.select":
            return union(b, ranges[2]) if a in (None, MASK) else b if a == (1, 1) else ranges[2]
        if type.elem == "i1":
            return self.mask(name, a or MASK, b or MASK)
        if name == "vector.load":
            return self.load(op)
        if name == "tpu.iota":
            return 0, max(type.shape[int(d)] - 1 for d in op.attributes["dimensions"])
        if name in ("arith.shli", "arith.shrui", "arith.shrsi"):
            if b is not None and b[0] == b[1]:
                if name == "arith.shli" and trailing_zeros(op.operands[0]) + b[0] >= 32:
                    return 0, 0
                return shift(name, a, b[0]) if 0 <= b[0] < 32 else None
            # An arithmetic shift of an integer above the largest signed one sets the upper bits.
            a = signed(a) if name == "arith.shrsi" else a
            return (0, a[1]) if name != "arith.shli" and a is not None and a[0] >= 0 else None
        if name in ("arith.andi", "arith.ori", "arith.xori"):
            return bitwise(name, a, b)
        if name in ("arith.maxsi", "arith.minsi"):
            a, b = signed(a), signed(b)
        if name == "arith.maxsi":
            return max(a[0] if a else LEAST, b[0] if b else LEAST), max(a[1] if a else LARGEST, b[1] if b else LARGEST)
        if name == "arith.minsi":
            return min(a[0] if a else LEAST, b[0] if b else LEAST), min(a[1] if a else LARGEST, b[1] if b else LARGEST)
        if name == "arith.muli" and (0, 0) in (a, b):
            return 0, 0
        if a is None or name in BINARY and b is None:
            return None
        if name in BINARY:
            low, high = BINARY[name](a, b)
            return float_result(low, high) if type.is_float else checked(low, high)
        if name == "math.floor":
            return math.floor(a[0]), math.floor(a[1])
        if name in ("tpu.fptosi", "arith.fptosi"):
            nearest = "rounding_mode" in op.attributes and "nearest" in str(op.attributes["rounding_mode"])
            # `round` rounds ties to even.
            convert = round if nearest else math.trunc
            return checked(convert(a[0]), convert(a[1]))
        if name in ("arith.sitofp", "tpu.sitofp"):
            return float_result(*a) if signed(a) else None
        if name in ("arith.extf", "tpu.extf"):
            return a
        if name in ("tpu.bitcast", "arith.bitcast"):
            return bitcast(type, a)
        if name == "vector.multi_reduction":
            return self.reduction(op, ranges)
        return None

    def adds_without_carry(self, op):
        """Whether an operation computes the carry of an unsigned sum that never has a carry. The carry is
        `(a + b) ^ s < a ^ s`, where `s` is the sign bit."""
        if int(op.attributes["predicate"].value) != 2:
            return False
        flipped = [getattr(operand.owner, "operation", None) for operand in op.operands]
        if any(x is None or x.name != "arith.xori" or self.get(x.operands[1]) != (LEAST, LEAST) for x in flipped):
            return False
        total, first = (x.operands[0] for x in flipped)
        addition = getattr(total.owner, "operation", None)
        if addition is None or addition.name != "arith.addi" or first not in list(addition.operands):
            return False
        terms = [self.get(operand) for operand in addition.operands]
        return all(r is not None and r[0] >= 0 for r in terms) and terms[0][1] + terms[1][1] < 1 << 32

    def mask(self, name, a, b):
        if name == "arith.andi":
            return min(a[0], b[0]), min(a[1], b[1])
        if name == "arith.ori":
            return max(a[0], b[0]), max(a[1], b[1])
        if name == "arith.xori" and a[0] == a[1] and b[0] == b[1]:
            return (a[0] ^ b[0],) * 2
        return MASK

    def load(self, op):
        memory, *indices = op.operands
        if memory != self.parameters:
            return None
        column = self.get(indices[1])
        type = type_of(op.results[0].type)
        if column is None or column[0] != column[1] or type.shape[1] != 1:
            return None
        return self.columns[column[0]] if column[0] < len(self.columns) else None

    def reduction(self, op, ranges):
        terms, start = ranges
        kind = str(op.attributes["kind"]).split("<")[1].rstrip(">")
        count = type_of(op.operands[0].type).size // max(1, type_of(op.results[0].type).size or 1)
        if terms is None:
            return None
        if kind == "add" and start == (0, 0):
            low, high = (min(count * terms[0], terms[0]), max(count * terms[1], terms[1]))
            integers = all(float(x).is_integer() and abs(x) <= EXACT for x in (low, high))
            return (low, high) if integers else None
        if kind in ("maximumf", "minimumf", "maxsi", "minsi"):
            # The start is the identity of the reduction.
            return terms
        return None


BINARY = {
    "arith.addi": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "arith.subi": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "arith.muli": lambda a, b: corners(lambda x, y: x * y, a, b),
    "arith.addf": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "arith.subf": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "arith.mulf": lambda a, b: corners(lambda x, y: x * y, a, b),
    "arith.maximumf": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "arith.minimumf": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
}


def bitcast(type, a):
    """The bits of floats that are not negative have the same order as the floats."""
    if type.is_float:
        if a[0] < 0 or a[1] >= 0x7F800000:
            return None
        return tuple(float(np.uint32(x).view(np.float32)) for x in a)
    if a[0] < 0 or a[1] > 3e38 or (a[0] == 0 and math.copysign(1, a[0]) < 0):
        return None
    return tuple(int(np.float32(x).view(np.int32)) for x in a)


def never_differs(op, action, ranges):
    """Whether the ranges of the operands show that a changed operation has the same result as the unchanged one."""
    if ranges is None:
        # The operation never runs.
        return True
    kind, what = action
    if kind == "predicate":
        before = compare(op.name, int(op.attributes["predicate"].value), *ranges)
        return before != MASK and before == compare(op.name, what, *ranges)
    if kind == "amount":
        by = ranges[1]
        if op.name == "arith.shli" and trailing_zeros(op.operands[0]) + min(by[0], what) >= 32:
            return True
        before, after = shift(op.name, ranges[0], by[0]), shift(op.name, ranges[0], what)
        return before is not None and before[0] == before[1] and before == after
    return False
