"""Translates the functions of a kernel to Python, so that a step of a loop costs little more than its NumPy calls.

Each SSA value becomes a local variable. Scalars are Python integers (wrapped to their width), booleans and NumPy floats.
Vectors are arrays that never change after their creation. Memory references are arrays, or views of arrays, that are
written in place. Constant expressions are evaluated during translation. The `ops_*` modules have one function for each
operation, which writes the Python code of that operation.
"""

import re
import traceback
from dataclasses import dataclass

import numpy as np
from jaxlib.mlir import ir

from . import runtime
from ..element import Type, type_of
from ..errors import PlacedError, ProgramError
from ..parse import Attributes, line_of, place

HANDLERS = {}


@dataclass
class Handler:
    """The translation of an operation. A pure operation can be removed, or evaluated during translation."""

    translate: object
    pure: bool


def operation(*names, pure=True):
    """Registers a translation for these operations: a function of the translator, the operation and its attributes."""

    def register(function):
        for name in names:
            HANDLERS[name] = Handler(function, pure)
        return function

    return register


@dataclass
class Value:
    """An SSA value: its type, its Python expression, and its value if it is constant."""

    type: Type
    expr: str
    const: object = None
    # A `Packed` view of a memory with elements of another width, which NumPy cannot express.
    packed: bool = False

    @property
    def uniform(self):
        """The common value of all lanes of a constant, or None."""
        if self.const is None or not isinstance(self.const, np.ndarray):
            return self.const
        first = self.const.flat[0]
        return first.item() if (self.const == first).all() else None


class Program:
    """The functions of one module. They are translated into one namespace."""

    def __init__(self, module, machine, translator=None):
        self.machine = machine
        self.options = machine.options
        self.translator = translator or Translator
        # Keeps the operations of machine.operations alive.
        self.module = module
        self.functions = {ir.StringAttr(op.attributes["sym_name"]).value: op for op in module.body.operations}
        self.namespace = dict(runtime.NAMESPACE)
        self.namespace.update(M=machine, T=machine.counts, np=np)
        self.loops = []
        self.constants = {}
        self.names = 0
        self.made = {}
        # The index in machine.operations of the operation of each generated file and line.
        self.lines = {}

    def function(self, name):
        """The translation of an MLIR function."""
        if name not in self.made:
            if name not in self.functions:
                raise ProgramError(f"kernel: no function @{name}")
            self.made[name] = None
            self.made[name] = self.translator(self, self.functions[name]).function(name)
        elif self.made[name] is None:
            raise ProgramError(f"kernel: @{name} calls itself")
        return self.made[name]

    def explain(self, error):
        """Describes an unexpected Python error, with the operation that caused it."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in self.lines:
                where = self.lines[frame.filename][frame.lineno - 1]
                if where is not None:
                    return f"{self.machine.place(where)}: {error}"
        return str(error)

    def fresh(self, prefix="v"):
        self.names += 1
        return f"{prefix}{self.names}"

    def hoist(self, value, prefix="c"):
        """Makes an object available to the translated functions, and returns its name there."""
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
            key = (str(value.dtype), value.shape, value.tobytes())
        elif isinstance(value, np.generic):
            key = (str(value.dtype), value.tobytes())
        else:
            key = id(value)
        if key not in self.constants:
            name = self.fresh(prefix)
            self.namespace[name] = value
            # Keeping the value ensures that no other object gets the same id.
            self.constants[key] = (name, value)
        return self.constants[key][0]


class Translator:
    """Translates one function."""

    def __init__(self, program, function):
        self.program = program
        self.machine = program.machine
        self.options = program.options
        self.namespace = program.namespace
        self.hoist = program.hoist
        self.fresh = program.fresh
        self.source = function
        self.lines, self.places_of_lines, self.indent = [], [], 1
        self.values, self.current, self.live = {}, None, set()

    def function(self, name):
        """Translates and returns the Python function."""
        if len(self.source.regions[0].blocks) != 1:
            raise ProgramError(f"kernel: @{name} has {len(self.source.regions[0].blocks)} blocks; one is expected")
        block = self.source.regions[0].blocks[0]
        self.live = _live_operations(block)
        arguments = [self.bind_new(argument) for argument in block.arguments]
        self.block(block)
        python = self.fresh(f"f_{re.sub(r'[^0-9A-Za-z_]', '_', name)}_")
        header = f"def {python}({', '.join(a.expr for a in arguments)}):\n"
        filename = f"<kernel {python} {id(self.program)}>"
        exec(compile(header + "\n".join(self.lines) + "\n", filename, "exec"), self.namespace)
        self.program.lines[filename] = [None, *self.places_of_lines]
        return self.namespace[python]

    # Writing Python

    def line(self, text):
        self.lines.append("    " * self.indent + text)
        self.places_of_lines.append(self.current)

    # Values

    def operand(self, op, index):
        return self.values[op.operands[index]]

    def operands(self, op):
        return [self.values[value] for value in op.operands]

    def bind_new(self, value):
        """Creates a variable for a block argument or a result."""
        bound = Value(type_of(value.type), self.fresh())
        self.values[value] = bound
        return bound

    def bind_constant(self, result, const):
        type = type_of(result.type)
        if type.is_scalar:
            if type.elem == "i1":
                const, expr = bool(const), repr(bool(const))
            elif type.is_float:
                expr = self.hoist(const)
            else:
                const = int(const)
                expr = repr(const) if const >= 0 else f"({const})"
        else:
            if const.dtype != type.dtype or const.shape != type.shape:
                raise ProgramError(f"constant of {const.dtype}{const.shape} for {type}")
            expr = self.hoist(const)
        self.values[result] = Value(type, expr, const)

    def alias(self, result, value):
        """Binds a result to the value of an operand that the operation does not change."""
        self.values[result] = Value(type_of(result.type), value.expr, value.const, value.packed)

    def define(self, op, expr, *, index=0, packed=False):
        """Binds a result to an expression. If all operands are constant, evaluates it now."""
        result = op.results[index]
        operands = [self.values[v] for v in op.operands]
        if HANDLERS[op.name].pure and all(v.const is not None for v in operands) and not type_of(result.type).is_memref:
            try:
                const = eval(expr, self.namespace)
            except ProgramError:
                # This is an error only if the kernel executes the operation.
                const = None
            if const is not None:
                self.bind_constant(result, const if not isinstance(const, np.ndarray) else const.copy())
                return
        bound = self.bind_new(result)
        bound.packed = packed
        self.line(f"{bound.expr} = {expr}")

    def is_used(self, op):
        return any(any(True for _ in result.uses) for result in op.results)

    # Operations

    def fail(self, op, message):
        raise PlacedError(f"{op.name} {place(op)}: {message}")

    def block(self, block):
        """Translates the operations of a block, in order."""
        for op in block.operations:
            self.operation(op.operation)

    def operation(self, op):
        handler = HANDLERS.get(op.name)
        if handler is None:
            self.fail(op, "unknown operation")
        operations = self.machine.operations
        operations.append(op)
        outer, self.current = self.current, len(operations) - 1
        attributes = Attributes.of(op)
        before = len(self.lines)
        try:
            handler.translate(self, op, attributes)
        except PlacedError:
            raise
        except ProgramError as error:
            self.fail(op, str(error))
        attributes.finish()
        if handler.pure and op not in self.live:
            # It is removed only after translation, so that unknown attributes are still an error.
            del self.lines[before:], self.places_of_lines[before:]
        self.current = outer

    def counter(self, op, kind, attributes, counts):
        """Adds a loop or branch to the report. Returns the index of its first counter."""
        attributes.take(LABELS[op.name])
        first = len(self.machine.counts)
        self.machine.counts.extend([0] * len(counts))
        self.program.loops.append(
            {
                "kind": kind,
                "index": len(self.program.loops),
                "line": line_of(op),
                "name": label_of(op),
                "within": enclosing(op),
                "counters": {count: first + i for i, count in enumerate(counts)},
            }
        )
        return first


# The attributes that contain the labels of loops and branches.
LABELS = {"scf.for": "nucleus.loop", "scf.while": "nucleus.loop", "scf.if": "nucleus.branch"}


def label_of(op):
    """Returns the label of a loop or branch, or None if it has no label."""
    if LABELS[op.name] in op.attributes:
        return ir.StringAttr(op.attributes[LABELS[op.name]]).value
    own = re.fullmatch(r'loc\("([^"]*)"\)', str(op.location))
    return own.group(1) if own else None


def enclosing(op):
    """For each loop or branch around an operation, the outermost first: the index of the region that contains it."""
    path = []
    while op.parent is not None and op.parent.name.startswith("scf."):
        parent = op.parent
        path.append([r for r, region in enumerate(parent.regions) for b in region.blocks if b == op.block][0])
        op = parent
    return path[::-1]


def _live_operations(block):
    """The operations that have an effect, and those that they depend on."""
    order = []

    def visit(block):
        for op in block.operations:
            order.append(op.operation)
            for region in op.operation.regions:
                for inner in region.blocks:
                    visit(inner)

    visit(block)
    live = set()
    # In this order, each use is before its definition. A loop keeps its carried values alive.
    for op in reversed(order):
        handler = HANDLERS.get(op.name)
        if handler is None or not handler.pure or _used_by(op, live):
            live.add(op)
    return live


def _used_by(op, live):
    return any(use.owner.operation in live for result in op.results for use in result.uses)


# Importing these modules registers their operations.
from . import ops_arith, ops_control, ops_memory, ops_tpu, ops_vector  # noqa: E402, F401
