"""Mutants of a kernel. A mutant is the kernel with one change: a comparison has another predicate, a shift has another
amount, or a constant has another value.

The emitter unrolls loops. So one operation in the source of the emitter can have many copies in the text. A mutant
changes all these copies together.

One translation of the kernel contains all mutants. Each run selects one of them, so the kernel is not translated again
for each mutant. A second translation runs the unchanged kernel. Beside each operation, it also computes the changed
operation of each mutant, and records the mutants for which the two results differ. The other mutants cannot change the
results of the kernel for these inputs, so they need no run.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxlib.mlir import ir

from ..element import WIDTHS, dense_array, scalar_literal, type_of
from ..errors import ProgramError
from ..parse import context
from .runtime import wrap
from .translate import HANDLERS, LABELS, Translator, label_of

# For each predicate of integers and of floats: its name, and the predicate that replaces it. A predicate that orders
# its operands differs from its replacement only if the operands are equal. The tests would detect a larger change more
# easily.
INTEGER_PREDICATES = {
    0: ("eq", 1), 1: ("ne", 0), 2: ("slt", 3), 3: ("sle", 2), 4: ("sgt", 5), 5: ("sge", 4), 6: ("ult", 7), 7: ("ule", 6),
    8: ("ugt", 9), 9: ("uge", 8),
}  # fmt: skip
FLOAT_PREDICATES = {
    1: ("oeq", 6), 2: ("ogt", 3), 3: ("oge", 2), 4: ("olt", 5), 5: ("ole", 4), 6: ("one", 1), 7: ("ord", 14), 8: ("ueq", 13),
    9: ("ugt", 10), 10: ("uge", 9), 11: ("ult", 12), 12: ("ule", 11), 13: ("une", 8), 14: ("uno", 7),
}  # fmt: skip
SHIFTS = ("arith.shli", "arith.shrui", "arith.shrsi")
# The distance between an f32 constant and its replacement, in units of the last bit of the constant. A smaller change
# of a coefficient rarely changes a result.
ULPS = 4096

# These operations only repeat their operand.
REPEATS = {"vector.broadcast", "vector.shape_cast", "arith.index_cast"}

# The text of an operation contains its operands, their operands, and so on, to this depth.
DEPTH = 4
# If the texts of operations differ only in the constants, and there are more than this number of texts, the operations
# count as copies of one unrolled operation. The text of these copies does not show the constants.
DIFFERENT_CONSTANTS = 6
# If more than this number of operations have the same text, they count as copies of one unrolled operation.
FEW_COPIES = 3
# The value of `Mutant.copy` if the mutant changes all copies of an unrolled operation.
ALL = "*"


@dataclass
class Mutant:
    """One change of one operation, or of all copies of an unrolled operation."""

    # The numbers of the operations in the kernel.
    indices: list
    # The labels of the loops and branches around the operation.
    path: str
    # The text of the operation.
    text: str
    # The text of the change.
    change: str
    # The kind of the change and its parameter: ("predicate", number), ("amount", value) or ("value", step). A step is 1
    # or -1.
    action: tuple
    # The number of this operation among those with the same path and text, or `ALL`.
    copy: object

    @property
    def name(self):
        return f"{self.path or 'kernel body'} | {self.text} -> {self.change} | {self.copy}"


def operations_of(module):
    """Returns all operations of a module. Each has the name of the function that contains it."""
    found = []

    def visit(op, function):
        for region in op.regions:
            for block in region.blocks:
                for inner in block.operations:
                    found.append((function, inner.operation))
                    visit(inner.operation, function)

    for function in module.body.operations:
        visit(function.operation, ir.StringAttr(function.attributes["sym_name"]).value)
    return found


def constant_of(value):
    """Returns the value of a constant scalar, or the element of a constant vector whose elements are equal. Returns
    None for all other values."""
    op = getattr(value.owner, "operation", value.owner)
    while isinstance(op, ir.Operation) and op.name in REPEATS:
        value = op.operands[0]
        op = getattr(value.owner, "operation", value.owner)
    if not isinstance(op, ir.Operation) or op.name != "arith.constant":
        return None
    attribute, type = op.attributes["value"], type_of(op.results[0].type)
    if type.is_vector:
        array = dense_array(attribute, type.dtype, type.shape)
        words = array.view(f"u{array.itemsize}")
        return array.flat[0] if (words == words.flat[0]).all() else None
    if type.is_float:
        return scalar_literal(str(attribute).split(" : ")[0], type.elem)
    return ir.BoolAttr(attribute).value if type.elem == "i1" else ir.IntegerAttr(attribute).value


def neighbours(constant, elem):
    """Returns the values that replace a constant, by the step: 1 or -1. A step changes an integer or a boolean by one.
    It changes an f32 by `ULPS` units of its last bit, and a shorter float by one unit. The step 1 makes a negative
    float smaller, because it increases the bits. Zero becomes the smallest normal number with the sign of the step."""
    if elem == "i1":
        return {-1 if constant else 1: not constant}
    if not isinstance(constant, (float, np.floating)) and np.asarray(constant).dtype.kind in "iu":
        return {step: wrap(int(constant) + step, WIDTHS[elem]) for step in (1, -1)}
    if np.isnan(constant):
        return {}
    if constant == 0:
        tiny = np.float32(np.finfo(np.float32).tiny).astype(constant.dtype)
        return {1: tiny, -1: -tiny}
    word = f"i{constant.itemsize}"
    bits = np.asarray(constant).view(word)
    if np.isinf(constant):
        # The bits of an infinity plus 1 are a NaN.
        return {-1: (bits - np.asarray(1, word)).view(constant.dtype)[()]}
    ulps = np.asarray(ULPS if constant.itemsize == 4 else 1, word)
    values = {step: (bits + step * ulps).view(constant.dtype)[()] for step in (1, -1)}
    # If a step passes the largest finite value, the replacement is infinity.
    infinity = np.copysign(constant.dtype.type(np.inf), constant)
    return {step: infinity if np.isnan(value) else value for step, value in values.items()}


def short(name):
    return name.split(".", 1)[1]


class Survey:
    """The texts of the operations of a module."""

    def __init__(self):
        self.texts = {}
        self.paths = {}

    def path(self, op):
        """Returns the labels of the loops and branches around an operation."""
        block = op.block
        if block not in self.paths:
            parent = block.owner.operation
            if parent.name not in LABELS:
                self.paths[block] = ""
            else:
                way = [r for r, region in enumerate(parent.regions) for b in region.blocks if b == block][0]
                part = {"scf.if": [": then", ": else"], "scf.while": [": condition", ""], "scf.for": [""]}[parent.name][way]
                outer = self.path(parent)
                self.paths[block] = f"{outer}{' / ' if outer else ''}{label_of(parent)}{part}"
        return self.paths[block]

    def value(self, value, depth):
        """Returns the text of an operand. The text does not show constants."""
        op = getattr(value.owner, "operation", value.owner)
        if not isinstance(op, ir.Operation):
            return "argument"
        if constant_of(value) is not None:
            return "c"
        key = (op, depth)
        if key not in self.texts:
            if depth == 0 or op.regions:
                self.texts[key] = short(op.name)
            else:
                self.texts[key] = self.operation(op, depth, lambda operand: "c")
        return self.texts[key]

    def operation(self, op, depth, constant):
        """Returns the text of an operation. `constant` returns the text of a constant operand."""
        name = short(op.name)
        if op.name in ("arith.cmpi", "arith.cmpf"):
            name = predicates(op)[int(op.attributes["predicate"].value)][0]
        if op.name == "vector.multi_reduction":
            name = str(op.attributes["kind"]).split("<")[1].rstrip(">")
        # The text does not show the indices of a load, because they depend on the layout of the memory.
        operands = [] if op.name == "vector.load" else [v for v in op.operands if not isinstance(v.type, ir.MemRefType)]
        texts = [constant(v) if constant_of(v) is not None else self.value(v, depth - 1) for v in operands]
        return f"{name}({', '.join(texts)})"


def predicates(op):
    return INTEGER_PREDICATES if op.name == "arith.cmpi" else FLOAT_PREDICATES


def changes(op):
    """Yields the changes of an operation: the name of each change, and its action."""
    if op.name in ("arith.cmpi", "arith.cmpf"):
        _, other = predicates(op)[int(op.attributes["predicate"].value)]
        yield predicates(op)[other][0], ("predicate", other)
    elif op.name in SHIFTS:
        amount, bits = constant_of(op.operands[1]), WIDTHS[type_of(op.operands[1].type).elem]
        if amount is not None:
            changed = int(amount) + (1 if amount < bits - 1 else -1)
            yield f"by {changed}", ("amount", changed)
    elif op.name == "arith.constant":
        constant = constant_of(op.results[0])
        values = neighbours(constant, type_of(op.results[0].type).elem) if constant is not None else {}
        yield from ((shown(value), ("value", step)) for step, value in values.items())


def changes_together(operations):
    """Yields the changes of operations that change together: the name of each change, its action, and the numbers of
    the operations that it changes."""
    found = {}
    for index, op in operations:
        for name, action in changes(op):
            names, indices = found.setdefault(action, (set(), []))
            names.add(name)
            indices.append(index)
    for action, (names, indices) in found.items():
        # If the copies have different constants, their new values differ. The name then shows only the sign of the
        # step.
        step = "+" if action[1:] == (1,) else "-"
        yield names.pop() if len(names) == 1 else f"each {step} step", action, indices


def shown(constant):
    return str(constant) if isinstance(constant, np.generic) else repr(constant)


def users(survey, constant):
    """Returns the texts of the operations that use a constant. The texts do not show constants."""
    texts, values = set(), [constant.results[0]]
    while values:
        for use in values.pop().uses:
            op = use.owner.operation
            if op.name in REPEATS:
                values.append(op.results[0])
            else:
                texts.add(survey.operation(op, 1, lambda operand: "c"))
    return ", ".join(sorted(texts))


def find(module):
    """Returns the mutants of a module."""
    survey = Survey()
    families = {}
    operations = operations_of(module)
    kernel = operations[0][0]
    for index, (function, op) in enumerate(operations):
        if op.name not in HANDLERS or not any(True for _ in changes(op)):
            continue
        if op.operands and all(constant_of(v) is not None for v in op.operands):
            continue
        path = survey.path(op)
        # The other functions of the module compute the positions of windows.
        path = path if function == kernel else f"@{function}{' / ' if path else ''}{path}"
        if op.name == "arith.constant":
            # Two constants are in one family if the operations that use them have the same texts. A large family comes
            # from an unrolled operation.
            family = f"constant of {type_of(op.results[0].type)} in {users(survey, op)}"
            text = f"constant {shown(constant_of(op.results[0]))} of {type_of(op.results[0].type)}"
        else:
            family = survey.operation(op, DEPTH, lambda operand: "c")
            text = survey.operation(op, DEPTH, lambda operand: shown(constant_of(operand)))
        families.setdefault((path, family), {}).setdefault(text, []).append((index, op))
    mutants = []
    for (path, family), texts in families.items():
        if len(texts) > DIFFERENT_CONSTANTS:
            texts = {family: [entry for entries in texts.values() for entry in entries]}
        for text, entries in texts.items():
            entries.sort(key=lambda entry: entry[0])
            groups = [(ALL, entries)] if len(entries) > FEW_COPIES else [(n, [entry]) for n, entry in enumerate(entries)]
            for copy, some in groups:
                for change, action, indices in changes_together(some):
                    mutants.append(Mutant(indices, path, text, change, action, copy))
    return sorted(mutants, key=lambda mutant: mutant.indices[0])


@dataclass
class Selection:
    """The mutant that a run uses, and the mutants whose operations had different results."""

    # The number of the mutant, or -1 for the unchanged kernel.
    current: list = field(default_factory=lambda: [-1])
    # For each mutant: 1 if its operation had a result that differs from the result of the unchanged operation, or if it
    # had an error.
    differs: bytearray = field(default_factory=bytearray)


def translators(mutants, selection, watch):
    """Returns a function that creates a translator for each function of the kernel. If `watch` is true, the translated
    kernel is unchanged, and records the mutants that differ. Otherwise, it runs the mutant that `selection` names."""
    numbers = {}
    operations = None

    def create(program, function):
        nonlocal operations
        if operations is None:
            operations = operations_of(program.module)
            for number, mutant in enumerate(mutants):
                for index in mutant.indices:
                    numbers.setdefault(operations[index][1], []).append((number, mutant))
            program.namespace.update(
                X=selection.current, D=selection.differs, ProgramError=ProgramError, note=lambda *a: note(selection, *a)
            )
        return MutantTranslator(program, function, numbers, watch)

    return create


def note(selection, number, value, changed):
    """Records the mutant `number` if its value differs from the value of the unchanged operation."""
    a, b = np.asarray(value), np.asarray(changed)
    if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
        selection.differs[number] = 1


class MutantTranslator(Translator):
    """Translates a function together with its mutants."""

    def __init__(self, program, function, mutants, watch):
        super().__init__(program, function)
        self.mutants, self.watch = mutants, watch
        if not watch:
            self.line("x = X[0]")

    def operation(self, op):
        mutants = self.mutants.get(op)
        if not mutants or op not in self.live:
            return super().operation(op)
        own = self.lines_of(op)
        (result,) = op.results
        value = self.values[result]
        if value.const is not None:
            # The translator has computed the result as a constant. But the result depends on the mutant, so it needs a
            # variable.
            folded, value = value, self.bind_new(result)
            own.append((f"{'    ' * self.indent}{value.expr} = {folded.expr}", self.current))
        if self.watch:
            self.write(own, 0)
            for number, mutant in mutants:
                self.watched(op, number, mutant, value)
        else:
            for number, mutant in mutants:
                self.line(f"{'el' if number != mutants[0][0] else ''}if x == {number}:")
                self.write(self.changed(op, mutant, value.expr), 1)
            self.line("else:")
            self.write(own, 1)
        self.values[result] = value

    def watched(self, op, number, mutant, value):
        """Writes code that runs the changed operation after the unchanged operation, and compares their results."""
        self.line(f"if not D[{number}]:")
        self.indent += 1
        self.line("try:")
        variable = self.fresh("m")
        self.write(self.changed(op, mutant, variable), 1)
        self.line(f"    note({number}, {value.expr}, {variable})")
        self.line(f"except Exception: D[{number}] = 1")
        self.indent -= 1

    def changed(self, op, mutant, variable):
        """Returns the lines of a changed operation. The lines assign its result to `variable`."""
        kind, what = mutant.action
        (result,) = op.results
        # The values that the change replaces.
        before = {value: self.values[value] for value in [result, *list(op.operands)[1:2]]}
        lines = []
        try:
            if kind == "value":
                self.replace(result, neighbours(constant_of(result), type_of(result.type).elem)[what])
            elif kind == "amount":
                self.replace(op.operands[1], what)
                lines = self.lines_of(op)
            else:
                other = self.other(op, what)
                lines = self.lines_of(other)
                self.values[result] = self.values[other.results[0]]
            changed = self.values[result].expr
        except ProgramError:
            return [(f"{'    ' * self.indent}raise ProgramError('an invalid operation')", self.current)]
        finally:
            self.values.update(before)
        return [*lines, (f"{'    ' * self.indent}{variable} = {changed}", self.current)]

    def other(self, op, predicate):
        """Creates a comparison with another predicate."""
        with context(), op.location:
            attribute = ir.IntegerAttr.get(op.attributes["predicate"].type, predicate)
            other = ir.Operation.create(
                op.name, [op.results[0].type], list(op.operands), {"predicate": attribute}, ip=ir.InsertionPoint(op)
            )
        self.live.add(other)
        return other

    def replace(self, value, constant):
        """Replaces a constant."""
        type = type_of(value.type)
        if type.is_vector:
            constant = np.full(type.shape, constant, type.dtype)
        self.bind_constant(value, constant)

    def lines_of(self, op):
        """Returns the lines of an operation and the places of these lines in the program text. Does not write the
        lines."""
        start = len(self.lines)
        super().operation(op)
        lines = list(zip(self.lines[start:], self.places_of_lines[start:]))
        del self.lines[start:], self.places_of_lines[start:]
        return lines

    def write(self, lines, indent):
        self.lines += ["    " * indent + line for line, _ in lines]
        self.places_of_lines += [place for _, place in lines]
        if not lines:
            self.line("    " * indent + "pass")
