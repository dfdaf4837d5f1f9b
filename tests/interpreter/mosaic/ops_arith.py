"""Operations of `arith` and `math`. Scalars are Python integers and NumPy floats, vectors are arrays."""

from jaxlib.mlir import ir

from ..element import WIDTHS, dense_array, scalar_literal, type_of
from .translate import operation

FLAGS = ("overflowFlags", "fastmath")
# The types whose subnormals a core may flush.
FLUSHED = ("f32", "bf16")


def plain(t, op, attributes):
    """Rejects flags that allow a compiler to assume something about the operands."""
    for flag in FLAGS:
        value = attributes.enum(flag)
        if value not in (None, "none"):
            t.fail(op, f"{flag} {value} is not supported")


def same_types(t, op):
    first, *others = t.operands(op)
    if any(o.type != first.type for o in others) or type_of(op.results[0].type) != first.type:
        t.fail(op, "operands and result differ in type")
    return first.type


def unsigned(value):
    """The expression of a value as an unsigned integer."""
    bits = WIDTHS[value.type.elem]
    if value.type.elem == "i1":
        return value.expr
    return f"({value.expr} & {2**bits - 1})" if value.type.is_scalar else f"{value.expr}.view(u{bits})"


def wrapped(expr, elem):
    """The expression of a Python integer wrapped to a signed integer of this width."""
    half = 1 << (WIDTHS[elem] - 1)
    return f"(({expr}) + {half} & {2 * half - 1}) - {half}"


def flushed(t, value):
    """The expression of a float operand of arithmetic: subnormals are zeros if the options say so."""
    return f"flush({value.expr})" if t.options.flush and value.type.elem in FLUSHED else value.expr


def flushed_result(t, expr, elem):
    return f"flush({expr})" if t.options.flush and elem in FLUSHED else expr


def convertible(t, op):
    """The operand and the result type of a conversion, whose shapes must be equal."""
    value = t.operand(op, 0)
    result = type_of(op.results[0].type)
    if value.type.shape != result.shape:
        t.fail(op, f"{value.type} to {result}")
    return value, result


@operation("arith.constant")
def constant(t, op, attributes):
    """A constant scalar or vector."""
    value, type = attributes.take("value"), type_of(op.results[0].type)
    if type.is_vector:
        t.bind_constant(op.results[0], dense_array(value, type.dtype, type.shape))
    elif type.is_float:
        t.bind_constant(op.results[0], scalar_literal(str(value).split(" : ")[0], type.elem))
    elif type.elem == "i1":
        t.bind_constant(op.results[0], ir.BoolAttr(value).value)
    else:
        t.bind_constant(op.results[0], ir.IntegerAttr(value).value)


@operation("arith.addi", "arith.subi", "arith.muli")
def integer_arithmetic(t, op, attributes):
    """Sum, difference or product, wrapped to the width."""
    plain(t, op, attributes)
    type = same_types(t, op)
    if type.elem == "i1":
        t.fail(op, "arithmetic on i1")
    a, b = t.operands(op)
    expr = f"{a.expr} {dict(addi='+', subi='-', muli='*')[op.name[6:]]} {b.expr}"
    t.define(op, wrapped(expr, type.elem) if type.is_scalar else expr)


@operation("arith.andi", "arith.ori", "arith.xori")
def bitwise(t, op, attributes):
    """Bitwise and, or, exclusive or."""
    same_types(t, op)
    a, b = t.operands(op)
    t.define(op, f"{a.expr} {dict(andi='&', ori='|', xori='^')[op.name[6:]]} {b.expr}")


@operation("arith.shli", "arith.shrsi", "arith.shrui")
def shift(t, op, attributes):
    """Shifts. A shift by the width or more is an error."""
    plain(t, op, attributes)
    if attributes.take("isExact") is not None:
        t.fail(op, "exact is not supported")
    type = same_types(t, op)
    a, b = t.operands(op)
    bits = WIDTHS[type.elem]
    amount = b.expr
    if b.const is None or b.uniform is None or not 0 <= b.uniform < bits:
        amount = f"M.shift({t.current}, {b.expr}, {bits})"
    if op.name == "arith.shli":
        expr = f"{a.expr} << {amount}"
        t.define(op, wrapped(expr, type.elem) if type.is_scalar else expr)
    elif op.name == "arith.shrsi":
        t.define(op, f"{a.expr} >> {amount}")
    elif type.is_scalar:
        t.define(op, wrapped(f"{unsigned(a)} >> {amount}", type.elem))
    else:
        t.define(op, f"({unsigned(a)} >> {amount}.view(u{bits})).view(i{bits})")


@operation("arith.minsi", "arith.maxsi", "arith.minui", "arith.maxui")
def integer_extreme(t, op, attributes):
    """The smaller or larger of two integers."""
    type = same_types(t, op)
    if type.elem == "i1":
        t.fail(op, "order of i1")
    a, b = t.operands(op)
    smaller, signed = op.name[6:9] == "min", op.name.endswith("si")
    x, y = (a.expr, b.expr) if signed else (unsigned(a), unsigned(b))
    if type.is_scalar:
        t.define(op, f"{a.expr} if {x} {'<' if smaller else '>'} {y} else {b.expr}")
    else:
        expr = f"np.{'minimum' if smaller else 'maximum'}({x}, {y})"
        t.define(op, expr if signed else f"{expr}.view(i{WIDTHS[type.elem]})")


@operation("arith.divsi", "arith.divui", "arith.remsi", "arith.remui")
def divide(t, op, attributes):
    """Division rounded towards zero, and its remainder. A division by zero is an error."""
    plain(t, op, attributes)
    if attributes.take("isExact") is not None:
        t.fail(op, "exact is not supported")
    type = same_types(t, op)
    a, b = t.operands(op)
    what, signed = op.name[6:9], op.name.endswith("si")
    if type.is_scalar and signed and isinstance(b.const, int) and b.const > 0:
        size = f"abs({a.expr}) {'//' if what == 'div' else '%'} {b.const}"
        t.define(op, f"({size}) if {a.expr} >= 0 else -({size})")
    else:
        t.define(op, f"M.divide({t.current}, {a.expr}, {b.expr}, {what!r}, {signed}, {WIDTHS[type.elem]})")


COMPARISONS = ["==", "!=", "<", "<=", ">", ">=", "<", "<=", ">", ">="]


@operation("arith.cmpi")
def compare_integers(t, op, attributes):
    """Compares signed or unsigned integers."""
    predicate = attributes.integer("predicate")
    a, b = t.operands(op)
    if a.type != b.type:
        t.fail(op, f"{a.type} with {b.type}")
    if a.type.elem == "i1" and 2 <= predicate < 6:
        t.fail(op, "order of i1")
    x, y = (unsigned(a), unsigned(b)) if predicate >= 6 else (a.expr, b.expr)
    t.define(op, f"{x} {COMPARISONS[predicate]} {y}")


# By predicate: always false, ordered eq gt ge lt le ne, ordered, unordered eq gt ge lt le ne, unordered, always true.
FLOAT_COMPARISONS = [
    None, "{a} == {b}", "{a} > {b}", "{a} >= {b}", "{a} < {b}", "{a} <= {b}", "M.ordered_unequal({where}, {a}, {b})",
    "({a} == {a}) & ({b} == {b})", "(({a} < {b}) | ({a} > {b})) ^ True", "({a} <= {b}) ^ True", "({a} < {b}) ^ True",
    "({a} >= {b}) ^ True", "({a} > {b}) ^ True", "{a} != {b}", "({a} != {a}) | ({b} != {b})", None,
]  # fmt: skip


@operation("arith.cmpf")
def compare_floats(t, op, attributes):
    """Compares floats. A NaN makes ordered predicates false and unordered predicates true."""
    plain(t, op, attributes)
    template = FLOAT_COMPARISONS[attributes.integer("predicate")]
    if template is None:
        t.fail(op, "a constant predicate")
    a, b = t.operands(op)
    if a.type != b.type:
        t.fail(op, f"{a.type} with {b.type}")
    if t.options.flush and a.type.elem in FLUSHED:
        for name, value in (("x", a), ("y", b)):
            t.line(f"{name} = flush({value.expr})")
        # Not evaluated during translation, because it reads these two variables.
        bound = t.bind_new(op.results[0])
        expr = template.format(a="x", b="y", where=t.current)
        t.line(f"{bound.expr} = {f'bool({expr})' if a.type.is_scalar else expr}")
        return
    expr = template.format(a=a.expr, b=b.expr, where=t.current)
    t.define(op, f"bool({expr})" if a.type.is_scalar else expr)


@operation("arith.select")
def select(t, op, attributes):
    """Selects one of two values by one condition, or lane by lane."""
    condition, a, b = t.operands(op)
    if a.type != b.type or condition.type.elem != "i1" or a.type.is_memref:
        t.fail(op, f"{condition.type}, {a.type}, {b.type}")
    if condition.type.is_scalar:
        t.define(op, f"{a.expr} if {condition.expr} else {b.expr}")
    elif condition.type.shape != a.type.shape:
        t.fail(op, f"{condition.type}, {a.type}")
    else:
        t.define(op, f"where({condition.expr}, {a.expr}, {b.expr})")


@operation("arith.extsi", "arith.extui", "arith.trunci")
def resize_integer(t, op, attributes):
    """Extends an integer by its sign or by zeros, or keeps its low bits."""
    plain(t, op, attributes)
    value, result = convertible(t, op)
    old, new = value.type.elem, result.elem
    wider = op.name != "arith.trunci"
    if result.is_float or value.type.is_float or (WIDTHS[old] < WIDTHS[new]) != wider:
        t.fail(op, f"{value.type} to {result}")
    if value.type.is_scalar:
        if op.name == "arith.extui":
            expr = f"int({value.expr})" if old == "i1" else unsigned(value)
        elif op.name == "arith.extsi":
            expr = f"-int({value.expr})" if old == "i1" else value.expr
        else:
            expr = f"({value.expr} & 1) != 0" if new == "i1" else wrapped(value.expr, new)
    elif op.name == "arith.extsi":
        expr = f"-({value.expr}.astype({new}))" if old == "i1" else f"{value.expr}.astype({new})"
    elif op.name == "arith.extui":
        expr = f"{unsigned(value)}.astype({new})"
    else:
        expr = f"({value.expr} & 1) != 0" if new == "i1" else f"{value.expr}.astype({new})"
    t.define(op, expr)


@operation("arith.index_cast")
def index_cast(t, op, attributes):
    """The identity, because indices have 32 bits here."""
    value, result = convertible(t, op)
    if not value.type.is_scalar or {value.type.elem, result.elem} != {"i32", "index"}:
        t.fail(op, f"{value.type} to {result}")
    t.alias(op.results[0], value)


FLOAT_BINARY = {
    "arith.addf": "{a} + {b}",
    "arith.subf": "{a} - {b}",
    "arith.mulf": "{a} * {b}",
    "arith.divf": "{a} / {b}",
    "arith.maximumf": "maximum({a}, {b})",
    "arith.minimumf": "minimum({a}, {b})",
    "arith.maxnumf": "maxnum({a}, {b})",
    "arith.minnumf": "minnum({a}, {b})",
}


@operation(*FLOAT_BINARY)
def float_arithmetic(t, op, attributes):
    """IEEE 754 arithmetic, rounded to nearest even. `runtime.py` defines maximum, minimum, maxnum and minnum."""
    plain(t, op, attributes)
    type = same_types(t, op)
    a, b = t.operands(op)
    template = FLOAT_BINARY[op.name]
    if t.options.nan_max == "ignore":
        template = template.replace("maximum", "maxnum").replace("minimum", "minnum")
    t.define(op, flushed_result(t, template.format(a=flushed(t, a), b=flushed(t, b)), type.elem))


@operation("arith.negf")
def negate(t, op, attributes):
    """Inverts the sign bit."""
    plain(t, op, attributes)
    same_types(t, op)
    t.define(op, f"-{t.operand(op, 0).expr}")


@operation("math.absf")
def absolute(t, op, attributes):
    """Clears the sign bit."""
    plain(t, op, attributes)
    same_types(t, op)
    t.define(op, f"abs({t.operand(op, 0).expr})")


@operation("math.absi")
def absolute_integer(t, op, attributes):
    """The absolute value. For the smallest integer, the result is the smallest integer."""
    type = same_types(t, op)
    expr = f"abs({t.operand(op, 0).expr})"
    t.define(op, wrapped(expr, type.elem) if type.is_scalar else expr)


@operation("math.floor", "math.ceil", "math.trunc", "math.roundeven")
def to_whole(t, op, attributes):
    """Rounds to an integral float."""
    plain(t, op, attributes)
    type = same_types(t, op)
    function = dict(floor="floor", ceil="ceil", trunc="trunc", roundeven="rint")[op.name[5:]]
    t.define(op, flushed_result(t, f"np.{function}({flushed(t, t.operand(op, 0))})", type.elem))


@operation("math.ctpop", "math.ctlz", "math.cttz")
def count_bits(t, op, attributes):
    """The number of set bits, of leading zeros, or of trailing zeros."""
    type = same_types(t, op)
    value, bits = t.operand(op, 0), WIDTHS[type.elem]
    if type.is_scalar:
        word = unsigned(value)
        t.define(op, {
            "math.ctpop": f"{word}.bit_count()",
            "math.ctlz": f"{bits} - {word}.bit_length()",
            "math.cttz": f"(({value.expr} & -{value.expr}).bit_length() - 1) % {bits + 1}",
        }[op.name])  # fmt: skip
    else:
        t.define(op, {
            "math.ctpop": f"np.bitwise_count({unsigned(value)}).astype({type.elem})",
            "math.ctlz": f"leading_zeros({value.expr})",
            "math.cttz": f"trailing_zeros({value.expr})",
        }[op.name])  # fmt: skip


def rounding(t, op, attributes, default):
    return attributes.enum("rounding_mode", attributes.enum("roundingmode", default))


@operation("arith.fptosi", "arith.fptoui", "tpu.fptosi", "tpu.fptoui")
def float_to_integer(t, op, attributes):
    """Truncates, or rounds to nearest even. For a value out of range, returns the smallest integer and counts it."""
    plain(t, op, attributes)
    value, result = convertible(t, op)
    mode = rounding(t, op, attributes, "towards_zero")
    if mode not in ("towards_zero", "to_nearest_even") or not value.type.is_float:
        t.fail(op, f"rounding mode {mode} of {value.type}")
    expr = flushed(t, value)
    if mode == "to_nearest_even":
        expr = f"np.rint({expr})"
    t.define(op, f"M.{op.name.split('.')[1]}({t.current}, {expr}, {result.elem!r})")


@operation("arith.sitofp", "arith.uitofp", "tpu.sitofp", "tpu.uitofp")
def integer_to_float(t, op, attributes):
    """Converts with rounding to nearest even."""
    plain(t, op, attributes)
    value, result = convertible(t, op)
    mode = rounding(t, op, attributes, "to_nearest_even")
    if mode not in ("to_nearest_even", "tonearesteven") or not result.is_float:
        t.fail(op, f"rounding mode {mode} to {result}")
    signed = op.name.endswith("sitofp")
    expr = value.expr if signed else unsigned(value)
    sign = "-" if signed and value.type.elem == "i1" else ""
    # A scalar is first converted to f64, which represents every integer of this width exactly.
    expr = f"np.float32({sign}float({expr}))" if value.type.is_scalar else f"{sign}{expr}.astype(f32)"
    t.define(op, expr if result.elem == "f32" else f"M.narrow({t.current}, {expr}, {result.elem})")


@operation("arith.extf", "tpu.extf")
def extend_float(t, op, attributes):
    """Converts to a wider float, which is exact."""
    plain(t, op, attributes)
    value, result = convertible(t, op)
    if WIDTHS[value.type.elem] >= WIDTHS[result.elem]:
        t.fail(op, f"{value.type} to {result}")
    t.define(op, flushed_result(t, f"extf({value.expr}, {result.elem})", result.elem))


@operation("arith.truncf", "tpu.truncf")
def truncate_float(t, op, attributes):
    """Converts to a narrower float with rounding to nearest even."""
    plain(t, op, attributes)
    value, result = convertible(t, op)
    mode = rounding(t, op, attributes, "to_nearest_even")
    if mode not in ("to_nearest_even", "tonearesteven") or WIDTHS[value.type.elem] <= WIDTHS[result.elem]:
        t.fail(op, f"rounding mode {mode}, {value.type} to {result}")
    t.define(op, f"{flushed(t, value)}.astype({result.elem})")


@operation("arith.bitcast")
def bitcast(t, op, attributes):
    """Reinterprets the bits as another type of the same width."""
    value, result = convertible(t, op)
    old, new = value.type.elem, result.elem
    if WIDTHS[old] != WIDTHS[new]:
        t.fail(op, f"{value.type} to {result}")
    if not value.type.is_scalar:
        t.define(op, f"{value.expr}.view({new})")
    elif value.type.is_float == result.is_float:
        t.alias(op.results[0], value)
    elif result.is_float:
        t.define(op, f"scalar_float({value.expr}, {new!r})")
    else:
        t.define(op, f"scalar_bits({value.expr}, {old!r})")
