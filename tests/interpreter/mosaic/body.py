"""Reads the Mosaic kernel of a custom call: its configuration, and its text or bytecode."""

import base64
import json

from jaxlib.mlir import ir, passmanager

from ..errors import ProgramError
from ..parse import context, parse_module, place

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


def parse_kernel(body):
    """Parses a kernel. A pass of the compiler converts the versioned form to the plain form."""
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
    """Returns the text or bytecode of a kernel, from the `backend_config` of its custom call."""
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
    # Bytecode starts with these bytes. Text must be a string. Only then can the parser report lines.
    return body if body.startswith(b"ML\xefR") else body.decode()
