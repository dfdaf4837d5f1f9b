"""Arithmetic, logic, comparisons and conversions."""

from fractions import Fraction

import numpy as np

from .text import COMPARISONS, TYPES, Imm, Pair, Vector
from .translate import NAN32, assign, dtype_of, operation

U32, U64 = np.dtype(np.uint32), np.dtype(np.uint64)


def ints(bits="16 32 64"):
    return " ".join(f"{kind}{n}" for kind in "us" for n in bits.split())


def words(bits="16 32 64"):
    return " ".join(f"b{n}" for n in bits.split())


def binary(t, i, type, function):
    d, a, b = i.expect(3)
    return t.compute(i, d, type, function, [t.src(i, a, type), t.src(i, b, type)])


# Floats


def canonical(x):
    """Replaces every NaN with the NaN that arithmetic returns."""
    nan = np.isnan(x)
    return np.where(nan, NAN32.view(np.float32), x) if nan.any() else x


def f32(function):
    """Returns a variant of a function of f32 that returns only canonical NaNs."""
    return lambda *x: canonical(function(*x))


# There is no canonical NaN of f64: see `not_nan`.
FLOATS = {"f32": f32, "f64": lambda function: function}


def not_nan(t, i, type, run):
    """Returns `run`, and for f64 with a check: a NaN is an error, because the manual does not specify its bits."""
    if type != "f64":
        return run
    slot = t.register(i, i.operands[0], "f64")

    def checked(block, mask):
        run(block, mask)
        wrong = np.flatnonzero(np.isnan(block.v[slot][mask.threads]))
        if len(wrong):
            thread = mask.threads[wrong[0]]
            i.error(f"the result is a NaN, whose bits are unspecified (thread {thread} of block {block.number})")

    return checked


def float_extreme(smaller):
    """Returns the function for the smaller or the larger float. If one operand is NaN, it returns the other operand. -0
    is smaller than +0."""

    def function(a, b):
        a, b = np.broadcast_arrays(a, b)
        first = (a < b) | ((a == b) & (np.signbit(a) >= np.signbit(b)))
        if not smaller:
            first = (a > b) | ((a == b) & (np.signbit(a) <= np.signbit(b)))
        return canonical(np.where(np.isnan(b) | (first & ~np.isnan(a)), a, b))

    return function


def or_nan(function):
    """Returns the variant with .NaN: its result is NaN if an operand is NaN."""
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), NAN32.view(np.float32), function(a, b))


# Integers


def high_u64(a, b):
    """Returns the high half of a product of unsigned 64-bit integers."""
    low, s = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low, a >> s, b & low, b >> s
    middle = a1 * b0 + (a0 * b0 >> s)
    return a1 * b1 + (middle >> s) + ((middle & low) + a0 * b1 >> s)


def high(type):
    bits, kind = TYPES[type]
    if bits < 64:
        wide = np.dtype(f"{'i' if kind == 's' else 'u'}{bits // 4}")
        return lambda a, b: (np.multiply(a, b, dtype=wide) >> wide.type(bits)).astype(dtype_of(type))
    if kind == "u":
        return high_u64

    def signed(a, b):
        au, bu = np.asarray(a).view(U64), np.asarray(b).view(U64)
        zero = np.uint64(0)
        return (high_u64(au, bu) - np.where(a < 0, bu, zero) - np.where(b < 0, au, zero)).view(np.int64)

    return signed


@operation("add", "sub")
def add(t, i):
    """Sums and differences. Integers wrap."""
    type = i.type(ints() + " f32 f64")
    function = np.add if i.name == "add" else np.subtract
    return not_nan(t, i, type, binary(t, i, type, rounded(i, type, function)))


def rounded(i, type, function):
    """Returns the function for a type. Floats are rounded to nearest even, and need .rn: without .rn, ptxas may fuse a
    product and a sum."""
    if type not in FLOATS:
        return function
    if not i.flag("rn"):
        i.error("without .rn, a product and a sum of floats may be fused")
    return FLOATS[type](function)


@operation("mul")
def mul(t, i):
    """Products: the low or high half, or all bits."""
    type = i.type(ints() + " f32 f64")
    if type in FLOATS:
        return not_nan(t, i, type, binary(t, i, type, rounded(i, type, np.multiply)))
    part = i.needed(("lo", "hi", "wide"))
    if part == "wide":
        d, a, b = i.expect(3)
        wide = wide_type(i, type)
        return t.compute(
            i, d, wide, lambda a, b: np.multiply(a, b, dtype=dtype_of(wide)), [t.src(i, a, type), t.src(i, b, type)]
        )
    return binary(t, i, type, np.multiply if part == "lo" else high(type))


def wide_type(i, type):
    bits, kind = TYPES[type]
    if bits == 64:
        i.error(f".wide of .{type}")
    return f"{kind}{2 * bits}"


@operation("mad")
def mad(t, i):
    """A product of integers plus an integer."""
    type = i.type(ints())
    part = i.needed(("lo", "hi", "wide"))
    d, a, b, c = i.expect(4)
    wide = wide_type(i, type) if part == "wide" else type
    product = high(type) if part == "hi" else lambda a, b: np.multiply(a, b, dtype=dtype_of(wide))
    return t.compute(
        i, d, wide, lambda a, b, c: product(a, b) + c, [t.src(i, a, type), t.src(i, b, type), t.src(i, c, wide)]
    )


def fused(a, b, c):
    """Returns a * b + c, rounded once to nearest even."""
    if not np.isfinite((a, b, c)).all():
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        # The sum of two zeros has the sign of both. Otherwise, a sum that cancels is +0.
        return a * b + c if c == 0 else 0.0
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


@operation("fma")
def fma(t, i):
    """A fused product and sum of f64. Those of f32 are not part of the contract."""
    type = i.type("f32 f64")
    if type == "f32":
        i.error("fused products and sums of f32 are not part of the contract")
    i.needed(("rn",))
    d, *operands = i.expect(4)
    sources, out = [t.src(i, operand, type) for operand in operands], t.dst(i, d, type)

    def run(block, mask):
        values = [np.broadcast_to(block.v[slot], mask.bits.shape)[mask.threads].tolist() for slot in sources]
        block.v[out][mask.threads] = [fused(*operands) for operands in zip(*values)]

    return not_nan(t, i, type, run)


@operation("min", "max")
def extreme(t, i):
    """The smaller or larger of two numbers."""
    type = i.type(ints() + " f32")
    if type == "f32":
        function = float_extreme(i.name == "min")
        return binary(t, i, type, or_nan(function) if i.flag("NaN") else function)
    return binary(t, i, type, np.minimum if i.name == "min" else np.maximum)


@operation("div", "rem")
def divide(t, i):
    """Quotients and remainders of integers, and quotients of f64. Quotients of integers are truncated. Division of
    integers by zero is an error."""
    type = i.type(ints() + " f64")
    if type == "f64" and i.name == "div":
        return not_nan(t, i, type, binary(t, i, type, rounded(i, type, np.divide)))
    d, a, b = i.expect(3)
    x, y, out = t.src(i, a, type), t.src(i, b, type), t.dst(i, d, type)
    remainder = i.name == "rem"

    def run(block, mask):
        u, w = (np.broadcast_to(block.v[s], mask.bits.shape)[mask.threads] for s in (x, y))
        if (w == 0).any():
            i.error(f"division by zero in thread {mask.threads[np.flatnonzero(w == 0)[0]]} of block {block.number}")
        rest = np.fmod(u, w)
        block.v[out][mask.threads] = rest if remainder else (u - rest) // w

    return run


@operation("rcp")
def reciprocal(t, i):
    """Reciprocals, rounded to nearest even."""
    type = i.type("f64")
    d, a = i.expect(2)
    inverse = rounded(i, type, np.divide)
    return not_nan(t, i, type, t.compute(i, d, type, lambda x: inverse(np.float64(1), x), [t.src(i, a, type)]))


@operation("abs", "neg")
def sign(t, i):
    """Absolute and negated values. The sign of a NaN is unspecified, so NaNs become canonical."""
    type = i.type("s16 s32 s64 f32")
    d, a = i.expect(2)
    function = np.abs if i.name == "abs" else np.negative
    return t.compute(i, d, type, (lambda x: canonical(function(x))) if type == "f32" else function, [t.src(i, a, type)])


# Bits


@operation("and", "or", "xor")
def bitwise(t, i):
    """Bitwise functions."""
    functions = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    return binary(t, i, i.type(words() + " pred"), functions[i.name])


@operation("not")
def invert(t, i):
    """Inverts every bit."""
    type = i.type(words() + " pred")
    d, a = i.expect(2)
    return t.compute(i, d, type, np.invert, [t.src(i, a, type)])


def shift_left(a, n):
    """Shifts left. A shift by the width or more gives 0."""
    bits = np.asarray(a).dtype.itemsize * 8
    return np.where(n < bits, np.left_shift(a, np.minimum(n, bits - 1).astype(np.asarray(a).dtype)), a.dtype.type(0))


def shift_right(a, n):
    """Shifts right. A shift by the width or more gives copies of the sign, or 0 for unsigned types."""
    dtype = np.asarray(a).dtype
    bits = dtype.itemsize * 8
    shifted = np.right_shift(a, np.minimum(n, bits - 1).astype(dtype))
    return shifted if dtype.kind == "i" else np.where(n < bits, shifted, dtype.type(0))


@operation("shl", "shr")
def shift(t, i):
    """Shifts. The amount has 32 bits. Amounts larger than the width of the value are clamped to the width."""
    type = i.type(words() if i.name == "shl" else words() + " " + ints())
    d, a, n = i.expect(3)
    function = shift_left if i.name == "shl" else shift_right
    return t.compute(i, d, type, function, [t.src(i, a, type), t.src(i, n, "u32")])


@operation("shf")
def funnel(t, i):
    """Shifts two words as one. The result is the high word (left shift) or the low word (right shift)."""
    type = i.type("b32")
    left = i.needed(("l", "r")) == "l"
    clamp = i.needed(("wrap", "clamp")) == "clamp"
    d, a, b, c = i.expect(4)

    def function(low, high, n):
        both = high.astype(U64) << np.uint64(32) | low
        n = (np.minimum(n, 32) if clamp else n & np.uint32(31)).astype(U64)
        return both << n >> np.uint64(32) if left else both >> n

    return t.compute(i, d, type, function, [t.src(i, x, "b32") for x in (a, b, c)])


def ones(count, dtype):
    """Returns words whose `count` lowest bits are set."""
    bits = dtype.itemsize * 8
    return np.where(count < bits, shift_left(np.full(np.shape(count), 1, dtype), count) - dtype.type(1), ~dtype.type(0))


@operation("bfe")
def extract(t, i):
    """Extracts a field of bits. For signed types, extends it with its sign."""
    type = i.type(ints("32 64"))
    d, a, p, n = i.expect(4)
    bits, kind = TYPES[type]
    dtype = np.dtype(f"u{bits // 8}")

    def function(a, pos, count):
        a = np.asarray(a).view(dtype)
        pos, count = pos & np.uint32(255), count & np.uint32(255)
        inside = ones(count, dtype)
        field = shift_right(a, pos) & inside
        if kind == "s":
            top = shift_right(a, np.minimum(pos + count - np.uint32(1), np.uint32(bits - 1))) & dtype.type(1)
            field = np.where(
                (count > 0) & (top == 1), field | ~inside | ~ones(bits - np.minimum(pos, bits), dtype), field
            )
        return field.view(dtype_of(type))

    return t.compute(i, d, type, function, [t.src(i, a, type), t.src(i, p, "u32"), t.src(i, n, "u32")])


@operation("bfi")
def insert(t, i):
    """Inserts a field of bits."""
    type = i.type(words("32 64"))
    d, a, b, p, n = i.expect(5)

    def function(a, b, pos, count):
        pos, count = pos & np.uint32(255), count & np.uint32(255)
        dtype = dtype_of(type)
        field = shift_left(ones(count, dtype), pos)
        return (shift_left(a, pos) & field) | (b & ~field)

    sources = [t.src(i, a, type), t.src(i, b, type), t.src(i, p, "u32"), t.src(i, n, "u32")]
    return t.compute(i, d, type, function, sources)


@operation("prmt")
def permute(t, i):
    """Selects four of eight bytes. The high bit of a selector repeats the sign of its byte."""
    type = i.type("b32")
    d, a, b, c = i.expect(4)

    def function(a, b, c):
        both = b.astype(U64) << np.uint64(32) | a
        result = np.uint32(0)
        for byte in range(4):
            selector = c.astype(U32) >> np.uint32(4 * byte)
            value = (both >> (selector & np.uint32(7)).astype(U64) * np.uint64(8)).astype(U32) & np.uint32(255)
            value = np.where(
                selector & np.uint32(8), np.where(value & np.uint32(128), np.uint32(255), np.uint32(0)), value
            )
            result = result | value << np.uint32(8 * byte)
        return result

    return t.compute(i, d, type, function, [t.src(i, x, "b32") for x in (a, b, c)])


@operation("lop3")
def logic3(t, i):
    """Any function of three bits. Its truth table is an immediate."""
    type = i.type("b32")
    d, a, b, c, table = i.expect(5)
    if not isinstance(table, Imm) or not 0 <= table.value < 256:
        i.error("the truth table is not an immediate of 8 bits")

    def function(a, b, c):
        result = np.uint32(0)
        for row in range(8):
            if table.value >> row & 1:
                result = result | (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return result

    return t.compute(i, d, type, function, [t.src(i, x, "b32") for x in (a, b, c)])


def leading_zeros(x):
    """Returns the number of 0 bits above the highest 1 bit."""
    bits = x.dtype.itemsize * 8
    x = x.copy()
    for shift in (1, 2, 4, 8, 16, 32)[: bits.bit_length() - 1]:
        x |= x >> x.dtype.type(shift)
    return (bits - np.bitwise_count(x)).astype(U32)


@operation("popc", "clz")
def count(t, i):
    """The number of 1 bits, or of leading 0 bits."""
    type = i.type("b32 b64")
    d, a = i.expect(2)
    return t.compute(i, d, "u32", np.bitwise_count if i.name == "popc" else leading_zeros, [t.src(i, a, type)])


@operation("bfind")
def find(t, i):
    """The position of the highest 1 bit, or all bits set if there is none."""
    type = i.type("u32 u64")
    d, a = i.expect(2)
    bits = TYPES[type][0]
    return t.compute(i, d, "u32", lambda x: np.uint32(bits - 1) - leading_zeros(x), [t.src(i, a, type)])


@operation("brev")
def reverse(t, i):
    """Reverses the bits."""
    type = i.type("b32 b64")
    d, a = i.expect(2)

    def function(x):
        octets = np.ascontiguousarray(x).reshape(-1, 1).view(np.uint8)
        return (
            np.packbits(np.unpackbits(octets, axis=1), axis=1, bitorder="little")[:, ::-1]
            .copy()
            .view(x.dtype)
            .reshape(np.shape(x))
        )

    return t.compute(i, d, type, function, [t.src(i, a, type)])


# Comparisons and selections

ORDERED = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def comparison(i, name, type):
    """Returns a comparison as a function of arrays. If a float is NaN, the ordered comparisons are false, and the
    unordered comparisons are true."""
    kind = TYPES[type][1]
    if name in ("num", "nan") or name.endswith("u"):
        if kind != "f":
            i.error(f".{name} of .{type}")
        if name in ("num", "nan"):
            return lambda a, b: (np.isnan(a) | np.isnan(b)) == (name == "nan")
        return lambda a, b: ORDERED[name[:-1]](a, b) | np.isnan(a) | np.isnan(b)
    if name in ("lo", "ls", "hi", "hs") and kind != "u" or kind == "b" and name not in ("eq", "ne"):
        i.error(f".{name} of .{type}")
    if kind == "f" and name == "ne":
        return lambda a, b: (a != b) & ~np.isnan(a) & ~np.isnan(b)
    return ORDERED[name]


@operation("setp")
def compare(t, i):
    """Compares two numbers. The second destination receives the negated result. A third predicate can be combined with
    both results."""
    type = i.type(words() + " " + ints() + " f32 f64")
    test = comparison(i, i.needed(COMPARISONS), type)
    combine = i.one_of(("and", "or", "xor"))
    d, a, b, *c = i.expect(4 if combine else 3)
    first, second = (d.first, d.second) if isinstance(d, Pair) else (d, None)
    p, q = t.dst(i, first, "pred"), t.dst(i, second, "pred")
    x, y = t.src(i, a, type), t.src(i, b, type)
    other, negated = t.predicate(i, c[0]) if combine else (None, False)
    combined = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, None: None}[combine]
    if q is None and combine is None:
        return assign(p, test, [x, y])

    def run(block, mask):
        v = block.v
        found = test(v[x], v[y])
        third = ~v[other] if negated else v[other] if combine else None
        # Both results are computed before one is written, because a destination can be the third predicate.
        results = [
            (slot, combined(r, third) if combine else r) for slot, r in ((p, found), (q, ~found)) if slot is not None
        ]
        for slot, result in results:
            np.copyto(v[slot], result, where=mask.where)

    return run


@operation("selp")
def select(t, i):
    """Selects one of two values by a predicate."""
    type = i.type(words() + " " + ints() + " f32 f64")
    d, a, b, c = i.expect(4)
    p, negated = t.predicate(i, c)
    if negated:
        i.error("a negated predicate")
    return t.compute(i, d, type, lambda p, a, b: np.where(p, a, b), [p, t.src(i, a, type), t.src(i, b, type)])


# Moves and conversions


@operation("mov")
def move(t, i):
    """Copies a value, returns the address of a shared array, packs two halves, or unpacks two halves."""
    type = i.type("pred " + words() + " " + ints() + " f32 f64")
    d, a = i.expect(2)
    bits = TYPES[type][0]
    if not isinstance(d, Vector) and not isinstance(a, Vector):
        return t.compute(i, d, type, lambda x: x, [t.src(i, a, type)])
    vector, whole = (a, d) if isinstance(a, Vector) else (d, a)
    if type not in ("b32", "b64") or len(vector.parts) != 2 or isinstance(whole, Vector):
        i.error("only two halves of .b32 or .b64 can be packed or unpacked")
    half, shift = f"b{bits // 2}", dtype_of(type).type(bits // 2)
    if vector is a:
        low, high = (t.src(i, part, half) for part in a.parts)
        return t.compute(i, d, type, lambda l, h: h.astype(dtype_of(type)) << shift | l, [low, high])
    source = t.src(i, a, type)
    parts = [(t.dst(i, part, half), n) for n, part in enumerate(d.parts) if part is not None]

    def run(block, mask):
        value = np.array(block.v[source])
        for slot, n in parts:
            np.copyto(block.v[slot], value >> shift if n else value, where=mask.where, casting="unsafe")

    return run


# Rounding to an integer: to nearest even, towards zero, down and up.
INTEGRAL = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@operation("cvt")
def convert(t, i):
    """Conversions between integers, between floats, and between integers and floats.

    Floats become integers with saturation. If the float and the integer have 32 bits, a NaN becomes 0. Otherwise a NaN
    becomes the integer in which only the highest bit is set. Integers become floats by rounding to nearest even.
    """
    source = i.type(ints("8 16 32 64") + " f16 f32 f64")
    target = i.type(ints("8 16 32 64") + " f32 f64")
    d, a = i.expect(2)
    from_float, to_float = TYPES[source][1] == "f", TYPES[target][1] == "f"
    if not from_float and not to_float:
        s = t.src(i, a, source, wider=True)
        out = t.dst(i, d, target, wider=True)
        low, final = dtype_of(source), dtype_of(target)
        return assign(out, lambda x: np.asarray(x).astype(low).astype(final), [s])
    if (source, target) == ("f16", "f32"):
        s = t.src(i, a, "b16")
        return t.compute(i, d, target, f32(lambda x: np.asarray(x).view(np.float16).astype(np.float32)), [s])
    if source == target == "f32":
        return t.compute(i, d, target, f32(INTEGRAL[i.needed(INTEGRAL)]), [t.src(i, a, source)])
    if from_float and not to_float and TYPES[source][0] >= 32 and TYPES[target][0] >= 32:
        function = to_integer(INTEGRAL[i.needed(INTEGRAL)], source, target)
        return t.compute(i, d, target, function, [t.src(i, a, source)])
    if to_float and (not from_float and TYPES[source][0] >= 32 or (source, target) == ("f64", "f32")):
        i.needed(("rn",))
        return t.compute(
            i, d, target, FLOATS[target](lambda x: np.asarray(x).astype(dtype_of(target))), [t.src(i, a, source)]
        )
    if (source, target) == ("f32", "f64"):
        return t.compute(i, d, target, lambda x: np.asarray(x).astype(np.float64), [t.src(i, a, source)])
    return i.error(f"conversion from .{source} to .{target}")


def to_integer(rounding, source, target):
    """Returns the function that converts floats to integers."""
    dtype, bits = dtype_of(target), TYPES[target][0]
    limits = np.iinfo(dtype)
    nan = dtype.type(0 if source == "f32" and bits == 32 else limits.min if dtype.kind == "i" else 1 << bits - 1)
    # The first float beyond the range.
    end = float(limits.max + 1)

    def function(x):
        x = rounding(np.asarray(x).astype(np.float64))
        inside = (x >= limits.min) & (x < end)
        result = np.where(inside, x, 0.0).astype(dtype)
        result = np.where(x >= end, dtype.type(limits.max), np.where(x < limits.min, dtype.type(limits.min), result))
        return np.where(np.isnan(x), nan, result)

    return function
