"""Parsing and verification of MLIR modules, and access to their attributes."""

import re
import sys
import types
from dataclasses import dataclass

from jaxlib.mlir import ir
from jaxlib.mlir._mlir_libs import _jax_mlir_ext
from jaxlib.mlir.dialects import stablehlo
from jaxlib.mosaic.python import tpu

from .errors import ProgramError

# The bindings import a Python module for each dialect. The module of Mosaic needs JAX. Python would repeat the failed
# import for every operation, which takes a fifth of the time. An empty module prevents this.
sys.modules.setdefault("jaxlib.mlir.dialects.tpu", types.ModuleType("jaxlib.mlir.dialects.tpu"))

_context = None

def context():
    """The MLIR context of all modules."""
    global _context
    if _context is None:
        registry = ir.DialectRegistry()
        _jax_mlir_ext.register_dialects(registry)
        _context = ir.Context()
        _context.append_dialect_registry(registry)
        _context.load_all_available_dialects()
        tpu.register_dialect(_context)
        stablehlo.register_dialect(_context)
        # The versioned form of a kernel uses a dialect that is not registered.
        _context.allow_unregistered_dialects = True
    return _context


def parse_module(text, what):
    """Parses and verifies text or bytecode."""
    with context(), ir.Location.unknown():
        try:
            return ir.Module.parse(text)
        except ir.MLIRError as error:
            raise ProgramError(f"{what}: {error}") from None


def place(op):
    """The position of an operation, for messages."""
    line = line_of(op)
    return f"at line {line}" if line is not None else f"at {op.operation.location}"


def line_of(op):
    """The line of an operation in the parsed text, or None if the operation has a location attribute."""
    match = re.fullmatch(r'loc\("-":(\d+):\d+\)', str(op.operation.location))
    return int(match.group(1)) if match else None


@dataclass
class Attributes:
    """The attributes of an operation. All must be read, because an unknown attribute could change the meaning."""

    op: object
    unread: dict

    @staticmethod
    def of(op):
        attributes = op.operation.attributes
        return Attributes(op, {name: value for name, value in attributes.items()})

    def take(self, name, default=None):
        return self.unread.pop(name, default)

    def integer(self, name, default=None):
        value = self.unread.pop(name, None)
        return default if value is None else int(value.value)

    def array(self, name, default=()):
        value = self.unread.pop(name, None)
        if value is None:
            return tuple(default)
        return tuple(int(v.value) if isinstance(v, ir.Attribute) else int(v) for v in value)

    def enum(self, name, default=None):
        """The text in the angle brackets: `max` of `#some.kind<max>`."""
        value = self.unread.pop(name, None)
        if value is None:
            return default
        match = re.fullmatch(r"#[\w.]+<(.*)>", str(value))
        return match.group(1) if match else str(value)

    def finish(self):
        for name in self.unread:
            if not name.startswith("nucleus."):
                raise ProgramError(f"{self.op.operation.name} {place(self.op)}: unknown attribute {name} = {self.unread[name]}")
