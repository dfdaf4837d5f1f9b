"""The StableHLO program around the kernels, executed with NumPy operation by operation."""

import re

import numpy as np
from jaxlib.mlir import ir

from .element import TENSOR_DTYPES, dense_array
from .errors import ProgramError
from .mosaic import kernel as mosaic
from .options import Options
from .parse import Attributes, parse_module, place
from .ptx import kernel as ptx

# The module that interprets the kernels, by the target of their custom call.
KERNELS = {"tpu_custom_call": mosaic, "__gpu$xla.gpu.ptx": ptx}

HANDLERS = {}


def operation(*names):
    def register(function):
        for name in names:
            HANDLERS[f"stablehlo.{name}"] = function
        return function

    return register


def tensor_type(mlir):
    """The dtype and the shape of a tensor type."""
    if not isinstance(mlir, ir.RankedTensorType) or any(d < 0 for d in mlir.shape):
        raise ProgramError(f"unsupported type {mlir}")
    elem = str(mlir.element_type)
    if elem not in TENSOR_DTYPES:
        raise ProgramError(f"unsupported element type in {mlir}")
    return TENSOR_DTYPES[elem], tuple(mlir.shape)


class Outer:
    """A parsed program. It can run any number of times."""

    def __init__(self, text, options=Options()):
        self.options = options
        self.module = parse_module(text, "program")
        self.functions = {}
        for op in self.module.body.operations:
            if op.operation.name != "func.func":
                raise ProgramError(f"program: {op.operation.name} {place(op)} where functions are expected")
            self.functions[ir.StringAttr(op.attributes["sym_name"]).value] = op
        if "main" not in self.functions:
            raise ProgramError("program: no function @main")
        block = self.functions["main"].regions[0].blocks[0]
        self.inputs = [tensor_type(a.type) for a in block.arguments]
        self.outputs = [tensor_type(v.type) for v in block.operations[len(block.operations) - 1].operands]
        # In the order of the program. Each kernel is translated once.
        self.kernels = {}
        for function in self.functions.values():
            for op in function.regions[0].blocks[0].operations:
                if op.operation.name == "stablehlo.custom_call":
                    module, config = kernel_of(op)
                    self.kernels[op.operation] = module.Kernel(config, options)

    def run(self, arguments):
        """Runs the program. The arguments must have the dtypes and shapes of `inputs`."""
        for i, (array, (dtype, shape)) in enumerate(zip(arguments, self.inputs, strict=True)):
            if array.dtype != dtype or array.shape != shape:
                raise ProgramError(f"argument {i} is {array.dtype}{array.shape}; {dtype}{shape} is expected")
        return self.call("main", arguments)

    def call(self, name, arguments):
        block = self.functions[name].regions[0].blocks[0]
        values = dict(zip(block.arguments, arguments, strict=True))
        # All wide arrays together take gigabytes, so each is freed after its last use.
        last_uses = {v: i for i, op in enumerate(block.operations) for v in op.operation.operands}
        for i, op in enumerate(block.operations):
            op = op.operation
            operands = [values[v] for v in op.operands]
            for value in {v for v in op.operands if last_uses[v] == i}:
                del values[value]
            if op.name == "func.return":
                return operands
            try:
                results = self.execute(op, operands)
            except ProgramError as error:
                raise ProgramError(f"{op.name} {place(op)}: {error}") from error
            for value, result in zip(op.results, results, strict=True):
                dtype, shape = tensor_type(value.type)
                if result.dtype != dtype or result.shape != shape:
                    raise ProgramError(f"{op.name} {place(op)}: the result is {result.dtype}{result.shape}, not {value.type}")
                values[value] = result
        raise ProgramError(f"program: @{name} does not return")

    def execute(self, op, operands):
        attributes = Attributes.of(op)
        for harmless in ("mhlo.frontend_attributes", "mhlo.sharding"):
            attributes.take(harmless)
        if op.name == "func.call":
            return self.call(ir.FlatSymbolRefAttr(attributes.take("callee")).value, operands)
        if op.name == "stablehlo.custom_call":
            return self.custom_call(op, attributes, operands)
        if op.name not in HANDLERS:
            raise ProgramError("unknown operation")
        with np.errstate(all="ignore"):
            result = HANDLERS[op.name](op, attributes, *operands)
        attributes.finish()
        return [np.ascontiguousarray(result).reshape(np.shape(result))]

    def custom_call(self, op, attributes, operands):
        for harmless in ("call_target_name", "backend_config", "kernel_name", "has_side_effect", "api_version"):
            attributes.take(harmless)
        for layouts, values in (("operand_layouts", op.operands), ("result_layouts", op.results)):
            for layout, value in zip(attributes.take(layouts, ()), values):
                if list(np.array(layout)) != list(range(len(value.type.shape)))[::-1]:
                    raise ProgramError(f"{layouts} other than row-major")
        aliases = {}
        for alias in attributes.take("output_operand_aliases", ()):
            match = re.search(
                r"output_tuple_indices = \[(\d*)\],\s*operand_index = (\d+),\s*operand_tuple_indices = \[\]", str(alias)
            )
            if not match:
                raise ProgramError(f"unknown alias {alias}")
            aliases[int(match.group(2))] = int(match.group(1) or 0)
        attributes.finish()
        results = [tensor_type(r.type) for r in op.results]
        return self.kernels[op].run(operands, results, aliases)

    def reset(self):
        """Clears the counters and the state of earlier runs."""
        for kernel in self.kernels.values():
            kernel.reset()

    def report(self):
        """The reports of the kernels, in the order of the program."""
        return [kernel.report() for kernel in self.kernels.values()]


def kernel_of(op):
    """Returns the module that interprets the kernel of a custom call, and the kernel's configuration. Other custom
    calls are an error."""
    attributes = op.operation.attributes
    target = ir.StringAttr(attributes["call_target_name"]).value
    if target not in KERNELS:
        raise ProgramError(f"stablehlo.custom_call {place(op)}: unknown target {target}")
    config = attributes["backend_config"] if "backend_config" in attributes else None
    if not isinstance(config, ir.StringAttr):
        raise ProgramError(f"stablehlo.custom_call {place(op)}: backend_config is not a string")
    return KERNELS[target], config


def pretty_kernels(text):
    """The kernels of a program, as text in the plain form."""
    found = []
    for function in parse_module(text, "program").body.operations:
        for op in function.operation.regions[0].blocks[0].operations:
            if op.operation.name == "stablehlo.custom_call":
                module, config = kernel_of(op)
                found.append(module.pretty(config))
    return found


# Operations


def result_type(op):
    return tensor_type(op.results[0].type)


@operation("constant")
def constant(op, attributes):
    """A constant."""
    return dense_array(attributes.take("value"), *result_type(op))


@operation("pad")
def pad(op, attributes, x, filler):
    """Adds elements before, after and between those of a tensor."""
    low, high = attributes.array("edge_padding_low"), attributes.array("edge_padding_high")
    interior = attributes.array("interior_padding")
    if any(n < 0 for n in low + high):
        raise ProgramError("negative padding")
    shape = [a + b + n + max(n - 1, 0) * i for a, b, n, i in zip(low, high, x.shape, interior)]
    result = np.full(shape, filler)
    result[tuple(slice(a, a + n + max(n - 1, 0) * i, i + 1) for a, n, i in zip(low, x.shape, interior))] = x
    return result


@operation("slice")
def slice_(op, attributes, x):
    """A box of a tensor, with strides."""
    start, limit, strides = (attributes.array(name) for name in ("start_indices", "limit_indices", "strides"))
    return x[tuple(slice(*part) for part in zip(start, limit, strides))]


@operation("reshape")
def reshape(op, attributes, x):
    """Another shape with the same elements in row-major order."""
    return x.reshape(result_type(op)[1])


@operation("transpose")
def transpose(op, attributes, x):
    """Permutes the dimensions."""
    return x.transpose(attributes.array("permutation"))


@operation("concatenate")
def concatenate(op, attributes, *parts):
    """Concatenates tensors."""
    return np.concatenate(parts, attributes.integer("dimension"))


@operation("broadcast_in_dim")
def broadcast_in_dim(op, attributes, x):
    """Repeats a tensor along new dimensions and dimensions of size one."""
    shape = result_type(op)[1]
    dims = attributes.array("broadcast_dimensions")
    order = np.argsort(dims, kind="stable")
    spread = [1] * len(shape)
    for position in order:
        spread[dims[position]] = x.shape[position]
    return np.broadcast_to(x.transpose(order).reshape(spread), shape)


@operation("iota")
def iota(op, attributes):
    """Indices along a dimension."""
    dtype, shape = result_type(op)
    dim = attributes.integer("iota_dimension")
    steps = np.arange(shape[dim]).astype(dtype)
    return np.broadcast_to(steps.reshape([-1 if i == dim else 1 for i in range(len(shape))]), shape)


@operation("convert")
def convert(op, attributes, x):
    """Converts by value. Integers lose their high bits. Floats round to nearest even, or truncate to an integer in range.
    An integer must be representable as the float that it becomes. A NaN is an error."""
    dtype = result_type(op)[0]
    old_float, new_float = (d.kind not in "iub" for d in (x.dtype, dtype))
    if dtype == np.bool_ and x.dtype != dtype:
        return x != 0
    if old_float and dtype != x.dtype and np.isnan(x).any():
        raise ProgramError(f"conversion of NaN to {dtype}")
    if old_float and not new_float and (dtype != np.int32 or (np.abs(x.astype(np.float64)) >= 2.0**31).any()):
        raise ProgramError(f"conversion out of range to {dtype}")
    result = x.astype(dtype)
    if new_float and not old_float and (result.astype(np.float64) != x.astype(np.float64)).any():
        raise ProgramError(f"inexact conversion from {x.dtype} to {dtype}")
    return result


@operation("bitcast_convert")
def bitcast_convert(op, attributes, x):
    """Reinterprets the bits as another type of the same width."""
    dtype = result_type(op)[0]
    if dtype.itemsize != x.dtype.itemsize or np.bool_ in (dtype, x.dtype):
        raise ProgramError(f"{x.dtype} to {dtype}")
    return x.view(dtype)


def integers_only(*operands):
    if any(x.dtype.kind not in "iub" for x in operands):
        raise ProgramError("float arithmetic outside a kernel")


@operation("add", "subtract", "multiply")
def arithmetic(op, attributes, a, b):
    """Arithmetic on integers, wrapped to their width, and on f32. A float product as an operand of a sum or a difference
    is an error, because a compiler could fuse the two operations."""
    if a.dtype == np.bool_ or (a.dtype.kind not in "iu" and a.dtype != np.float32):
        raise ProgramError(f"arithmetic on {a.dtype}")
    products = [value for value in op.operands if getattr(value.owner, "name", None) == "stablehlo.multiply"]
    if a.dtype == np.float32 and products and not op.name.endswith("multiply"):
        raise ProgramError("a sum or difference of a product of floats, which a compiler could fuse")
    functions = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}
    with np.errstate(all="ignore"):
        return functions[op.name.split(".")[1]](a, b)


@operation("and", "or", "xor")
def bitwise(op, attributes, a, b):
    """Bitwise and, or, exclusive or."""
    return {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[op.name[10:]](a, b)


@operation("not")
def invert(op, attributes, a):
    """Inverts every bit."""
    return ~a


@operation("shift_left", "shift_right_arithmetic", "shift_right_logical")
def shift(op, attributes, a, b):
    """Shifts. A shift by the width or more is an error."""
    bits = a.dtype.itemsize * 8
    integers_only(a, b)
    if ((b.astype(np.int64) < 0) | (b.astype(np.int64) >= bits)).any():
        raise ProgramError("shift by the width or more")
    if op.name.endswith("left"):
        return np.left_shift(a, b)
    kind = "i" if op.name.endswith("arithmetic") else "u"
    word = f"{kind}{a.dtype.itemsize}"
    return np.right_shift(a.view(word), b.view(word)).view(a.dtype)


@operation("maximum", "minimum")
def extreme(op, attributes, a, b):
    """The larger or smaller of two integers or floats. A NaN, or two zeros of different sign, are errors, because
    targets differ in these cases."""
    if a.dtype == np.float32:
        if np.isnan(a).any() or np.isnan(b).any():
            raise ProgramError(f"{op.name} of NaN")
        if ((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b))).any():
            raise ProgramError(f"{op.name} of zeros of both signs")
    else:
        integers_only(a, b)
    return np.maximum(a, b) if op.name.endswith("maximum") else np.minimum(a, b)


@operation("compare")
def compare(op, attributes, a, b):
    """Compares integers or floats. With a NaN, NE is true and all others are false."""
    kind = attributes.enum("compare_type", "NOTYPE").split()[-1]
    own = "SIGNED" if a.dtype.kind == "i" else "UNSIGNED" if a.dtype.kind in "ub" else "FLOAT"
    if kind not in {"NOTYPE", own}:
        raise ProgramError(f"{kind} comparison of {a.dtype}")
    functions = {"EQ": np.equal, "NE": np.not_equal, "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal}
    return functions[attributes.enum("comparison_direction").split()[-1]](a, b)


@operation("select")
def select(op, attributes, condition, a, b):
    """Selects one of two values lane by lane, or by one condition."""
    return np.where(condition, a, b)
