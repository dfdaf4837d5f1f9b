"""Parsing and verification of MLIR modules, and access to their attributes."""

import base64
import json
import re
import sys
import types
from dataclasses import dataclass

from jaxlib.mlir import ir, passmanager
from jaxlib.mlir._mlir_libs import _jax_mlir_ext
from jaxlib.mlir.dialects import stablehlo
from jaxlib.mosaic.python import tpu

from .errors import ProgramError

# The bindings import a Python module for each dialect. The module of Mosaic needs JAX. Python would repeat the failed
# import for every operation, which takes a fifth of the time. An empty module prevents this.
sys.modules.setdefault("jaxlib.mlir.dialects.tpu", types.ModuleType("jaxlib.mlir.dialects.tpu"))

_context = None

# Entries of `custom_call_config` that do not change the results of a kernel on one core.
HARMLESS = {
    "needs_layout_passes",
    "needs_hlo_passes",
    "cost_estimate",
    "internal_scratch_in_bytes",
    "output_memory_space_colors",
    "input_memory_space_colors",
    "disable_bounds_checks",
    "disable_semaphore_checks",
    "skip_device_barrier",
    "shape_invariant_numerics",
    "allow_input_fusion",
}
HARMLESS_OUTSIDE = {"scoped_memory_configs", "flag_configs", "device_type"}


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


def parse_kernel(body):
    """Parses a kernel. The compiler's own pass converts the versioned form to the plain form."""
    module = parse_module(body, "kernel")
    with context(), ir.Location.unknown():
        if "stable_mosaic.version" in module.operation.attributes:
            try:
                passmanager.PassManager.parse("builtin.module(mosaic-serde{serialize=false})").run(module.operation)
            except ir.MLIRError as error:
                raise ProgramError(f"kernel: {error}") from None
        for op in module.body.operations:
            if op.operation.name != "func.func":
                raise ProgramError(f"kernel: {op.operation.name} {place(op)} where functions are expected")
    return module


def kernel_body(backend_config):
    """The text or bytecode of a kernel, from the `backend_config` of its custom call."""
    try:
        config = json.loads(backend_config)
        inner = config.pop("custom_call_config")
        body = base64.b64decode(inner.pop("body"), validate=True)
    except (AttributeError, KeyError, ValueError) as error:
        raise ProgramError(f"tpu_custom_call: malformed backend_config: {error!r}") from None
    serialization = inner.pop("serialization_format", None)
    if inner.pop("has_communication", False) or inner.pop("collective_id", None) is not None:
        raise ProgramError("tpu_custom_call: communication between devices is not supported")
    for name in list(inner.keys() - HARMLESS) + list(config.keys() - HARMLESS_OUTSIDE):
        raise ProgramError(f"tpu_custom_call: unknown entry {name!r} in its backend_config")
    versioned = b"stable_mosaic" in body
    if serialization not in (None, 1) or versioned != (serialization == 1):
        raise ProgramError(
            f"tpu_custom_call: serialization_format {serialization} for a body in the "
            f"{'versioned' if versioned else 'plain'} form"
        )
    # Bytecode starts with these bytes. Text must be a string, so that the parser can report its lines.
    return body if body.startswith(b"ML\xefR") else body.decode()


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
