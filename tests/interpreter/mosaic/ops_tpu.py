"""The remaining operations of `tpu`: lanes, sublanes, bits, matrices, and the shape of the grid."""

import re

from jaxlib.mlir import ir

from ..element import WIDTHS, type_of
from .ops_vector import FOLDS
from .runtime import iota
from .translate import operation


@operation("tpu.iota")
def iota_vector(t, op, attributes):
    """Indices along the given dimensions."""
    type = type_of(op.results[0].type)
    if type.elem != "i32":
        t.fail(op, f"{type}")
    t.bind_constant(op.results[0], iota(type.shape, attributes.array("dimensions")))


@operation("tpu.dynamic_rotate")
def rotate(t, op, attributes):
    """Moves element i to (i + amount) modulo the size. With a stride, the amount grows by it from slice to slice."""
    value = t.operand(op, 0)
    amount = t.operand(op, 1).expr
    dimension = attributes.integer("dimension")
    stride, stride_dimension = attributes.integer("stride"), attributes.integer("stride_dimension")
    if (stride is None) != (stride_dimension is None) or not 0 <= dimension < len(value.type.shape):
        t.fail(op, f"dimension {dimension}, stride {stride} along {stride_dimension} of {value.type}")
    if stride is None:
        t.define(op, f"rotate({value.expr}, {amount}, {dimension})")
    else:
        t.define(op, f"rotate_strided({value.expr}, {amount}, {dimension}, {stride}, {stride_dimension})")


@operation("tpu.dynamic_gather")
def dynamic_gather(t, op, attributes):
    """Gathers elements along one dimension; the other dimensions keep their indices."""
    source, indices = t.operands(op)
    dims = attributes.array("dimensions")
    result = type_of(op.results[0].type)
    if len(dims) != 1 or indices.type.elem != "i32" or result.shape != indices.type.shape:
        t.fail(op, f"dimensions {dims}, indices {indices.type}, result {result}")
    others = [(a, b) for d, (a, b) in enumerate(zip(source.type.shape, result.shape, strict=True)) if d != dims[0]]
    if any(a != b for a, b in others):
        t.fail(op, f"{source.type} at {indices.type}")
    t.define(op, f"M.gather({t.current}, {source.expr}, {indices.expr}, {dims[0]})")


@operation("tpu.gather")
def static_gather(t, op, attributes):
    """Gathers slices at constant indices of one dimension."""
    value, indices, dim = t.operand(op, 0), attributes.array("indices"), attributes.integer("dimension")
    if any(not 0 <= i < value.type.shape[dim] for i in indices):
        t.fail(op, f"indices {indices} of {value.type}")
    t.define(op, f"np.take({value.expr}, {indices}, {dim})")


@operation("tpu.bitcast")
def bitcast(t, op, attributes):
    """Reinterprets the bits. Elements of another width share words along the second dimension from the end, the first in
    the lowest bits."""
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    old, new = value.type, result
    if old.is_scalar or "i1" in (old.elem, new.elem):
        t.fail(op, f"{old} to {new}")
    shape = list(old.shape)
    if WIDTHS[old.elem] != WIDTHS[new.elem]:
        if len(shape) < 2 or shape[-2] * WIDTHS[old.elem] % WIDTHS[new.elem]:
            t.fail(op, f"{old} to {new}")
        shape[-2] = shape[-2] * WIDTHS[old.elem] // WIDTHS[new.elem]
    if tuple(shape) != new.shape:
        t.fail(op, f"{old} to {new}")
    t.define(op, f"bitcast_rows({value.expr}, {new.elem})")


@operation("tpu.bitcast_vreg")
def bitcast_vreg(t, op, attributes):
    """Reinterprets the bits of a register. Narrow elements form a last dimension, or more sublanes."""
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    old, new = value.type, result
    if "i1" in (old.elem, new.elem):
        t.fail(op, f"{old} to {new}")
    if WIDTHS[old.elem] == WIDTHS[new.elem] and old.shape == new.shape:
        t.define(op, f"{value.expr}.view({new.elem})")
    elif len(old.shape) <= 2 and len(new.shape) <= 2:
        bitcast(t, op, attributes)
    else:
        if any(v.shape[:2] != old.shape[:2] or v.size * WIDTHS[v.elem] != old.size * WIDTHS[old.elem] for v in (old, new)):
            t.fail(op, f"{old} to {new}")
        expr = f"np.ascontiguousarray({value.expr}.reshape({(*old.shape[:2], -1)})).view({new.elem})"
        t.define(op, f"{expr}.reshape({new.shape})")


@operation("tpu.pack_elementwise")
def pack_elementwise(t, op, attributes):
    """Packs one narrow element of each source into words, the first source in the lowest bits. Conversion to bf16 rounds to
    nearest even; integers lose their high bits."""
    target = str(ir.TypeAttr(attributes.take("target_type")).value)
    sources, result = t.operands(op), type_of(op.results[0].type)
    old = sources[0].type
    bits = WIDTHS.get(target, 0)
    if bits not in (8, 16) or len(sources) * bits != WIDTHS[result.elem] or WIDTHS[old.elem] != WIDTHS[result.elem]:
        t.fail(op, f"{len(sources)} of {old} as {target} to {result}")
    if old.is_float != (target == "bf16") or old.shape != result.shape or old.elem not in ("f32", "i32"):
        t.fail(op, f"{old} as {target} to {result}")
    words = [f"({s.expr}.astype({target}).view(u{bits}).astype(u32) << {i * bits})" for i, s in enumerate(sources)]
    t.define(op, f"({' | '.join(words)}).view({result.elem})")


@operation("tpu.unpack_elementwise")
def unpack_elementwise(t, op, attributes):
    """Extracts one narrow element of each word and widens it. Integers keep their sign."""
    source_type = str(ir.TypeAttr(attributes.take("source_type")).value)
    index = attributes.integer("index")
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    bits = WIDTHS.get(source_type, 0)
    wide = "f32" if source_type == "bf16" else "i32"
    if bits not in (8, 16) or result.elem != wide or WIDTHS[value.type.elem] != 32 or value.type.shape != result.shape:
        t.fail(op, f"{source_type} of {value.type} to {result}")
    if not 0 <= index < 32 // bits:
        t.fail(op, f"index {index}")
    part = f"({value.expr}.view(u32) >> {index * bits}).astype(u{bits}).view({source_type})"
    t.define(op, f"extf({part}, f32)" if wide == "f32" else f"{part}.astype(i32)")


def fold_name(t, op, kind, type):
    """The name of a reduction in FOLDS, for an element type."""
    if kind == "sum":
        return "add"
    if not type.is_float:
        return f"{kind}si"
    ignore = t.options.nan_max == "ignore"
    return f"{kind}{'numf' if ignore else 'imumf'}"


@operation("tpu.all_reduce")
def all_reduce(t, op, attributes):
    """A reduction along one dimension, with the result in all its lanes. For masks: the count or the first index."""
    dim, kind = attributes.integer("dim"), attributes.enum("kind")
    value, result = t.operand(op, 0), type_of(op.results[0].type)
    if value.type.shape != result.shape:
        t.fail(op, f"{value.type} to {result}")
    if kind in ("arg_max", "arg_min"):
        reduced = f"M.reduce_index({t.current}, {value.expr}, {dim}, {kind!r})"
    elif kind == "find_first_set":
        if value.type.elem != "i1":
            t.fail(op, f"{kind} of {value.type}")
        reduced = f"M.find_first_set({t.current}, {value.expr}, {dim})"
    elif value.type.elem == "i1":
        if kind != "sum" or result.elem != "i32":
            t.fail(op, f"{kind} of {value.type} to {result}")
        reduced = f"np.add.reduce({value.expr}, axis={dim}, dtype=i32)"
    elif kind in ("sum", "max", "min") and value.type.elem == result.elem:
        words = dict(x=value.expr, axes=(dim,), elem=value.type.elem, bits=WIDTHS[value.type.elem])
        reduced = FOLDS[fold_name(t, op, kind, value.type)].format(**words)
    else:
        t.fail(op, f"{kind} of {value.type} to {result}")
    t.define(op, f"spread({result.shape}, {result.elem}, np.expand_dims({reduced}, {dim}))")


@operation("tpu.reduce_index")
def reduce_index(t, op, attributes):
    """The lowest index of the largest or smallest element along one dimension. The result lacks this dimension."""
    axis, kind = attributes.integer("axis"), attributes.enum("kind")
    if kind not in ("arg_max", "arg_min"):
        t.fail(op, f"kind {kind}")
    t.define(op, f"M.reduce_index({t.current}, {t.operand(op, 0).expr}, {axis}, {kind!r})")


@operation("tpu.create_mask")
def create_mask(t, op, attributes):
    """True inside a box."""
    attributes.take("operandSegmentSizes")
    result, operands = type_of(op.results[0].type), t.operands(op)
    rank = len(result.shape)
    if len(operands) != 2 * rank:
        t.fail(op, f"{len(operands)} bounds for {result}")
    bound = t.bind_new(op.results[0])
    key = ", ".join(f"max({a.expr}, 0):max({b.expr}, 0)" for a, b in zip(operands[:rank], operands[rank:]))
    t.line(f"{bound.expr} = np.zeros({result.shape}, i1)")
    t.line(f"{bound.expr}[{key}] = True")


@operation("tpu.assume_multiple", pure=False)
def assume_multiple(t, op, attributes):
    """A promise to the compiler. The interpreter checks it."""
    value, multiple = t.operand(op, 0), attributes.integer("multiple")
    if not (isinstance(value.const, int) and value.const % multiple == 0):
        t.line(f"if {value.expr} % {multiple}: M.not_multiple({t.current}, {value.expr}, {multiple})")
    t.alias(op.results[0], value)


@operation("tpu.iteration_bound")
def iteration_bound(t, op, attributes):
    """The size of a dimension of the grid."""
    bound = t.bind_new(op.results[0])
    t.line(f"{bound.expr} = M.grid[{attributes.integer('dim')}]")


@operation("tpu.device_id", "tpu.core_id", "tpu.subcore_id")
def only_one(t, op, attributes):
    """Zero, because the interpreter runs one core of one device."""
    t.bind_constant(op.results[0], 0)


@operation("tpu.matmul")
def matmul(t, op, attributes):
    """A product of matrices. `Machine.matmul` rejects products that depend on the order of additions."""
    for name in ("transpose_lhs_hint", "precision"):
        attributes.take(name)
    flags = [str(attributes.take(name, "false")) == "true" for name in ("transpose_lhs", "transpose_rhs")]
    numbers = attributes.enum("dimension_numbers")
    lhs, rhs, acc = t.operands(op)
    left, right = ("ba" if flags[0] else "ab"), ("cb" if flags[1] else "bc")
    if len(lhs.type.shape) != 2 or len(rhs.type.shape) != 2:
        t.fail(op, f"{lhs.type} times {rhs.type}")
    if numbers is not None:
        lists = [[int(n) for n in part.split(",") if n.strip()] for part in re.findall(r"\[([^\]]*)\]", numbers)]
        if len(lists) < 4 or any(lists[5:]) or any(flags) or lists[4] != [0, 1 - lists[0][0], 1, 1 - lists[1][0]]:
            t.fail(op, f"dimension numbers {numbers}")
        left = "ab" if lists[0] == [1] else "ba"
        right = "bc" if lists[1] == [0] else "cb"
    t.define(op, f"M.matmul({t.current}, {lhs.expr}, {rhs.expr}, {acc.expr}, {f'{left},{right}->ac'!r})")
