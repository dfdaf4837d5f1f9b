"""Operations of `vector` on values, and their equivalents in `tpu`."""

import math
import re

from ..element import type_of
from .ops_arith import flushed, flushed_result, plain
from .translate import operation

DYNAMIC = -(2**63)


@operation("vector.broadcast")
def broadcast(t, op, attributes):
    """Repeats a scalar in all lanes, or a vector along new leading dimensions and dimensions of size one."""
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    if value.type.elem != result.elem:
        t.fail(op, f"{value.type} to {result}")
    if value.type.is_scalar:
        t.define(op, f"filled({result.shape}, {result.elem}, {value.expr})")
    elif value.type.shape == result.shape:
        t.alias(op.results[0], value)
    else:
        tail = result.shape[len(result.shape) - len(value.type.shape) :]
        if any(a not in (1, b) for a, b in zip(value.type.shape, tail, strict=True)):
            t.fail(op, f"{value.type} to {result}")
        t.define(op, f"spread({result.shape}, {result.elem}, {value.expr})")


@operation("vector.shape_cast", "tpu.reshape")
def shape_cast(t, op, attributes):
    """Another shape with the same elements in row-major order."""
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    if value.type.elem != result.elem or value.type.size != result.size:
        t.fail(op, f"{value.type} to {result}")
    t.define(op, f"{value.expr}.reshape({result.shape})")


@operation("tpu.relayout", "tpu.mask_cast", "tpu.assume_layout")
def same_value(t, op, attributes):
    """The identity, because the interpreter has no register layouts."""
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    if value.type != result:
        t.fail(op, f"{value.type} to {result}")
    t.alias(op.results[0], value)


def to_scalar(type, expr):
    """The expression of an array element as a scalar: integers become Python integers."""
    return expr if type.is_float else f"{expr}.item()"


@operation("vector.extract")
def extract(t, op, attributes):
    """The element or the slice at these leading indices."""
    value, *dynamic = t.operands(op)
    result = type_of(op.results[0].type)
    static = attributes.array("static_position")
    attributes.take("operandSegmentSizes")
    dynamic = iter(dynamic)
    indices = []
    for size, position in zip(value.type.shape, static):
        if position == DYNAMIC:
            index = next(dynamic)
            t.line(f"if not 0 <= {index.expr} < {size}: M.out_of_bounds({t.current}, {value.type.shape}, [{index.expr}], [1])")
            indices.append(index.expr)
        elif 0 <= position < size:
            indices.append(str(position))
        else:
            t.fail(op, f"index {position} of {value.type}")
    if not indices:
        t.alias(op.results[0], value)
    elif result.is_scalar:
        t.define(op, to_scalar(result, f"{value.expr}[{', '.join(indices)}]"))
    else:
        t.define(op, f"{value.expr}[{', '.join(indices)}]")


@operation("vector.extract_strided_slice")
def extract_strided_slice(t, op, attributes):
    """A box of a vector."""
    value = t.operand(op, 0)
    offsets, sizes, strides = (attributes.array(name) for name in ("offsets", "sizes", "strides"))
    if any(s != 1 for s in strides):
        t.fail(op, f"strides {strides}")
    for offset, size, whole in zip(offsets, sizes, value.type.shape):
        if offset < 0 or offset + size > whole:
            t.fail(op, f"{size} elements at {offset} of {value.type}")
    key = ", ".join(f"{o}:{o + s}" for o, s in zip(offsets, sizes))
    t.define(op, f"{value.expr}[{key}]")


@operation("vector.transpose", "tpu.transpose")
def transpose(t, op, attributes):
    """Permutes the dimensions."""
    value, order = t.operand(op, 0), attributes.array("permutation")
    t.define(op, f"{value.expr}.transpose({order}).copy()")


def joined(t, op, values, dimension):
    result = type_of(op.results[0].type)
    rest = {v.type.elem + str(v.type.shape[:dimension] + v.type.shape[dimension + 1 :]) for v in values}
    if len(rest) != 1 or sum(v.type.shape[dimension] for v in values) != result.shape[dimension]:
        t.fail(op, f"{[str(v.type) for v in values]} to {result}")
    return f"concatenate(({''.join(v.expr + ', ' for v in values)}), {dimension})"


@operation("tpu.concatenate")
def concatenate(t, op, attributes):
    """Concatenates vectors."""
    t.define(op, joined(t, op, t.operands(op), attributes.integer("dimension")))


@operation("tpu.repeat")
def repeat(t, op, attributes):
    """Concatenates copies of a vector."""
    values = [t.operand(op, 0)] * attributes.integer("times")
    t.define(op, joined(t, op, values, attributes.integer("dimension")))


FOLDS = {
    "add": "np.add.reduce({x}, axis={axes}, dtype={elem})",
    "mul": "np.multiply.reduce({x}, axis={axes}, dtype={elem})",
    "minsi": "np.minimum.reduce({x}, axis={axes})",
    "maxsi": "np.maximum.reduce({x}, axis={axes})",
    "minui": "np.minimum.reduce({x}.view(u{bits}), axis={axes}).view({elem})",
    "maxui": "np.maximum.reduce({x}.view(u{bits}), axis={axes}).view({elem})",
    "and": "np.bitwise_and.reduce({x}, axis={axes})",
    "or": "np.bitwise_or.reduce({x}, axis={axes})",
    "xor": "np.bitwise_xor.reduce({x}, axis={axes})",
    "minimumf": "reduce_with(minimum, {x}, {axes})",
    "maximumf": "reduce_with(maximum, {x}, {axes})",
    "minnumf": "reduce_with(minnum, {x}, {axes})",
    "maxnumf": "reduce_with(maxnum, {x}, {axes})",
}

SUM_OF_FLOATS = "M.sum({where}, {x}, {axes})"

# Combines a reduced value with the accumulator.
JOINS = {
    "add": "({r}) + {acc}", "mul": "({r}) * {acc}", "minsi": "np.minimum({r}, {acc})", "maxsi": "np.maximum({r}, {acc})",
    "minui": "np.minimum(({r}).view(u{bits}), {acc}.view(u{bits})).view({elem})",
    "maxui": "np.maximum(({r}).view(u{bits}), {acc}.view(u{bits})).view({elem})",
    "and": "({r}) & {acc}", "or": "({r}) | {acc}", "xor": "({r}) ^ {acc}",
    "minimumf": "minimum({r}, {acc})", "maximumf": "maximum({r}, {acc})",
    "minnumf": "minnum({r}, {acc})", "maxnumf": "maxnum({r}, {acc})",
}  # fmt: skip

# The neutral elements of reductions. Most accumulators are neutral, and then the combination is omitted.
NEUTRAL = {"add": 0, "mul": 1, "or": 0, "xor": 0, "and": -1, "maxui": 0, "minui": -1}


def is_neutral(kind, value):
    uniform = value.uniform
    if uniform is None or value.type.is_float and kind in ("add", "mul"):
        return False
    if value.type.elem == "i1":
        return uniform == (kind == "and")
    if value.type.is_float:
        return uniform == (-math.inf if kind.startswith("max") else math.inf) and kind in ("maximumf", "minimumf")
    bits = value.type.dtype.itemsize * 8
    return uniform == {"maxsi": -(2 ** (bits - 1)), "minsi": 2 ** (bits - 1) - 1}.get(kind, NEUTRAL.get(kind))


@operation("vector.multi_reduction")
def multi_reduction(t, op, attributes):
    """Reduces dimensions and combines the result with an accumulator."""
    plain(t, op, attributes)
    kind, axes = attributes.enum("kind"), attributes.array("reduction_dims")
    value, acc = t.operands(op)
    if value.type.is_float:
        fitting = kind.endswith("f") or kind in ("add", "mul")
    else:
        fitting = kind in ("and", "or", "xor") or not kind.endswith("f") and value.type.elem != "i1"
    if kind not in FOLDS or not axes or not fitting:
        t.fail(op, f"kind {kind} over {axes} of {value.type}")
    if t.options.nan_max == "ignore":
        kind = kind.replace("maximumf", "maxnumf").replace("minimumf", "minnumf")
    words = dict(axes=axes, elem=value.type.elem, bits=value.type.dtype.itemsize * 8)
    fold = SUM_OF_FLOATS if value.type.is_float and kind == "add" else FOLDS[kind]
    reduced = fold.format(x=flushed(t, value), where=t.current, **words)
    if acc.type.is_scalar:
        # A reduction to a scalar. Arrays of one element keep their type in integer arithmetic; NumPy scalars do not.
        if kind == "add":
            reduced = f"np.asarray({reduced})[None]"
        else:
            reduced = f"np.asarray({reduced}).reshape(1)"
        expr = JOINS[kind].format(r=reduced, acc=f"filled((1,), {acc.type.elem}, {acc.expr})", **words)
        t.define(op, to_scalar(acc.type, f"({expr})[0]"))
        return
    if not is_neutral(kind, acc):
        reduced = JOINS[kind].format(r=reduced, acc=flushed(t, acc), **words)
    t.define(op, flushed_result(t, reduced, value.type.elem))


@operation("vector.contract")
def contract(t, op, attributes):
    """A product of matrices with the dimensions of the indexing maps."""
    plain(t, op, attributes)
    kind = attributes.enum("kind")
    attributes.take("iterator_types")
    if kind not in (None, "add"):
        t.fail(op, f"kind {kind}")
    names = []
    for index_map in attributes.take("indexing_maps"):
        results = re.fullmatch(r"affine_map<\(.*\) -> \((.*)\)>", str(index_map)).group(1)
        names.append("".join("abcdefgh"[int(d.strip()[1:])] for d in results.split(",")))
    lhs, rhs, acc = t.operands(op)
    t.define(op, f"M.matmul({t.current}, {lhs.expr}, {rhs.expr}, {acc.expr}, {f'{names[0]},{names[1]}->{names[2]}'!r})")
