"""Tests of single instructions. Oracles on Python's integers or the PTX ISA manual state the expected results."""

import itertools
import struct

import numpy as np

from ..errors import ProgramError
from .test_helpers import PtxTest, kernel
from .text import TYPES

WORDS = {
    16: [0, 1, 2, 3, 0x7FFF, 0x8000, 0xFFFF, 0x00FF, 0xABCD],
    32: [0, 1, 2, 3, 5, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF, 0x00010000, 0x12345678],
    64: [0, 1, 3, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 0xFEDCBA9876543210, 0x100000001],
}
FLOATS = [
    0x00000000,
    0x80000000,
    0x00000001,
    0x807FFFFF,
    0x3F800000,
    0xBF800000,
    0x3FC00000,
    0x40490FDB,
    0x7F7FFFFF,
    0xFF7FFFFF,
    0x7F800000,
    0xFF800000,
    0x7FC00000,
    0xFFC00001,
    0x7F800001,
    0x4F000000,
    0xCF000000,
    0x4F7FFFFF,
    0x3F000000,
]
NAN = 0x7FFFFFFF


def signed(x, bits):
    return x - (1 << bits) if x >> bits - 1 & 1 else x


def as_float(bits):
    return np.uint32(bits).view(np.float32)


def bits_of(x):
    """Returns the bits of a float. Every NaN becomes canonical."""
    x = np.float32(x)
    return NAN if np.isnan(x) else int(x.view(np.uint32))


def value(x, type):
    """Returns the number that these bits represent in a type."""
    bits, kind = TYPES[type]
    return signed(x, bits) if kind == "s" else x


class Ops(PtxTest):
    def column(self, words, bits):
        """Returns an operand with one element per thread. An element has at least 32 bits."""
        return np.array(words, np.uint64 if bits == 64 else np.uint32)

    def run_op(self, text, sources, results):
        """Runs an instruction on each tuple of operands. `text` names the operands {a}, {b}, … and the results {d} and
        {e}. `sources` has the width in bits and the words of each operand. `results` has the width in bits of each
        result."""
        count = len(sources[0][1])
        threads = -(-count // 32) * 32
        body, names, arrays = ["mov.u32 %r31, %tid.x;"], {}, []
        for n, (bits, words) in enumerate(sources):
            arrays.append(self.column([*words, *[words[0]] * (threads - count)], bits))
            size = 8 if bits == 64 else 4
            name = {1: f"%p{n}", 16: f"%h{n}", 32: f"%r{n}", 64: f"%rd2{n}"}[bits]
            names["abcd_"[n] if n < 3 else "x"] = name
            load = f"%rd2{n}" if bits == 64 else f"%r{n}"
            body += [
                f"mul.wide.u32 %rd10, %r31, {size}; add.u64 %rd11, %rd{n + 1}, %rd10;",
                f"ld.global.u{8 * size} {load}, [%rd11];",
            ]
            if bits == 1:
                body.append(f"setp.ne.u32 {name}, {load}, 0;")
            if bits == 16:
                body.append(f"cvt.u16.u32 {name}, {load};")
        for n, bits in enumerate(results):
            names["de"[n]] = {1: f"%p1{n}", 16: f"%h1{n}", 32: f"%r2{n}", 64: f"%rd1{n + 5}"}[bits]
        body.append(text.format(**names))
        outputs = []
        for n, bits in enumerate(results):
            size = 8 if bits == 64 else 4
            name = names["de"[n]]
            if bits == 1:
                body.append(f"selp.u32 %r30, 1, 0, {name};")
                name = "%r30"
            if bits == 16:
                body.append(f"cvt.u32.u16 %r30, {name};")
                name = "%r30"
            body += [
                f"mul.wide.u32 %rd10, %r31, {size}; add.u64 %rd11, %rd{len(sources) + n + 1}, %rd10;",
                f"st.global.u{8 * size} [%rd11], {name};",
            ]
            outputs.append(f"{threads}xui{8 * size}")
        body.append("ret;")
        found = self.run_program(
            kernel("\n".join(body), len(sources) + len(results), threads), arrays, outputs, block=threads
        )
        return [[int(x) for x in column[:count]] for column in found]

    def check(self, text, types, result, oracle, words=None):
        """Compares an instruction with an oracle on tuples of special words. Uses at most 960 tuples, selected at
        random."""
        columns = words or [FLOATS if t == "f32" else [0, 1] if t == "pred" else WORDS[TYPES[t][0]] for t in types]
        tuples = list(itertools.product(*columns))
        tuples = [tuples[i] for i in np.random.default_rng(0).permutation(len(tuples))[:960]]
        bits = TYPES[result][0]
        (got,) = self.run_op(text, [(TYPES[t][0], [row[n] for row in tuples]) for n, t in enumerate(types)], [bits])
        for row, found in zip(tuples, got):
            arguments = [as_float(x) if t == "f32" else value(x, t) for x, t in zip(row, types)]
            with np.errstate(all="ignore"):
                expected = oracle(*arguments)
                expected = bits_of(expected) if result == "f32" else int(expected) & (1 << bits) - 1
            self.assertEqual(found, expected, f"{text} of {[hex(x) for x in row]}: {found:#x}, not {expected:#x}")

    def test_sums_and_products(self):
        for type in ("u16", "s16", "u32", "s32", "u64", "s64"):
            bits, kind = TYPES[type]
            for name, oracle in [
                ("add", lambda a, b: a + b),
                ("sub", lambda a, b: a - b),
                ("mul.lo", lambda a, b: a * b),
                ("mul.hi", lambda a, b: a * b >> bits),
                ("min", min),
                ("max", max),
            ]:
                self.check(f"{name}.{type} {{d}}, {{a}}, {{b}};", [type] * 2, type, oracle)
            if bits < 64:
                self.check(f"mul.wide.{type} {{d}}, {{a}}, {{b}};", [type] * 2, f"{kind}{2 * bits}", lambda a, b: a * b)
                wide = f"{kind}{2 * bits}"
                self.check(
                    f"mad.wide.{type} {{d}}, {{a}}, {{b}}, {{c}};", [type, type, wide], wide, lambda a, b, c: a * b + c
                )
            self.check(f"mad.lo.{type} {{d}}, {{a}}, {{b}}, {{c}};", [type] * 3, type, lambda a, b, c: a * b + c)
            self.check(
                f"mad.hi.{type} {{d}}, {{a}}, {{b}}, {{c}};", [type] * 3, type, lambda a, b, c: (a * b >> bits) + c
            )

    def test_quotients(self):
        def quotient(a, b):
            return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)

        for type in ("u32", "s32", "u64", "s64"):
            words = WORDS[TYPES[type][0]]
            for name, oracle in [("div", quotient), ("rem", lambda a, b: a - b * quotient(a, b))]:
                self.check(f"{name}.{type} {{d}}, {{a}}, {{b}};", [type] * 2, type, oracle, [words, words[1:]])
        with self.assertRaisesRegex(ProgramError, "div.u32 at line .*division by zero in thread 1 of block 0"):
            self.run_op("div.u32 {d}, {a}, {b};", [(32, [1, 1]), (32, [1, 0])], [32])

    def test_bits(self):
        for name, oracle in [("and", lambda a, b: a & b), ("or", lambda a, b: a | b), ("xor", lambda a, b: a ^ b)]:
            for type in ("b16", "b32", "b64", "pred"):
                self.check(f"{name}.{type} {{d}}, {{a}}, {{b}};", [type] * 2, type, oracle)
        for type in ("b16", "b32", "b64", "pred"):
            self.check(f"not.{type} {{d}}, {{a}};", [type], type, lambda a: ~a)
        for type in ("b32", "b64"):
            bits = TYPES[type][0]
            self.check(f"popc.{type} {{d}}, {{a}};", [type], "u32", lambda a: bin(a).count("1"))
            self.check(f"clz.{type} {{d}}, {{a}};", [type], "u32", lambda a: bits - a.bit_length())
            self.check(f"brev.{type} {{d}}, {{a}};", [type], type, lambda a: int(f"{a:0{bits}b}"[::-1], 2))
            self.check(f"bfind.u{bits} {{d}}, {{a}};", [type], "u32", lambda a: a.bit_length() - 1)

    def test_shifts(self):
        amounts = [0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 0xFFFFFFFF]
        for bits in (16, 32, 64):
            words = [WORDS[bits], amounts]
            self.check(
                f"shl.b{bits} {{d}}, {{a}}, {{b}};",
                [f"b{bits}", "u32"],
                f"b{bits}",
                lambda a, n: a << min(n, bits),
                words,
            )
            self.check(
                f"shr.u{bits} {{d}}, {{a}}, {{b}};",
                [f"u{bits}", "u32"],
                f"u{bits}",
                lambda a, n: a >> min(n, bits),
                words,
            )
            self.check(
                f"shr.s{bits} {{d}}, {{a}}, {{b}};",
                [f"s{bits}", "u32"],
                f"s{bits}",
                lambda a, n: a >> min(n, bits),
                words,
            )
        for mode, limit in [("wrap", lambda n: n & 31), ("clamp", lambda n: min(n, 32))]:
            self.check(
                f"shf.l.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};",
                ["b32"] * 3,
                "b32",
                lambda a, b, n: (b << 32 | a) << limit(n) >> 32,
            )
            self.check(
                f"shf.r.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};",
                ["b32"] * 3,
                "b32",
                lambda a, b, n: (b << 32 | a) >> limit(n),
            )

    def test_fields(self):
        """The oracles are the definitions of the manual, bit by bit."""

        def extract(a, pos, count, bits, is_signed):
            a, pos, count = a & (1 << bits) - 1, pos & 255, count & 255
            sign = a >> min(pos + count - 1, bits - 1) & 1 if is_signed and count else 0
            found = [a >> pos + i & 1 if i < count and pos + i < bits else sign for i in range(bits)]
            return sum(bit << i for i, bit in enumerate(found))

        def insert(a, b, pos, count, bits):
            for i in range(count):
                if pos + i < bits:
                    b = b & ~(1 << pos + i) | (a >> i & 1) << pos + i
            return b

        places = [0, 1, 5, 31, 32, 33, 63, 64, 255, 256]
        for type in ("u32", "s32", "u64", "s64"):
            bits, kind = TYPES[type]
            self.check(
                f"bfe.{type} {{d}}, {{a}}, {{b}}, {{c}};",
                [type, "u32", "u32"],
                type,
                lambda a, p, n: extract(a, p, n, bits, kind == "s"),
                [WORDS[bits], places, places],
            )
        for bits in (32, 64):
            for pos, count in [(0, 8), (5, 7), (30, 9), (0, 32), (40, 30), (3, 0), (200, 4)]:
                self.check(
                    f"bfi.b{bits} {{d}}, {{a}}, {{b}}, {pos}, {count};",
                    [f"b{bits}"] * 2,
                    f"b{bits}",
                    lambda a, b: insert(a, b, pos, count, bits),
                )

    def test_bytes(self):
        def permute(a, b, c):
            source = struct.pack("<II", a, b)
            found = []
            for n in range(4):
                selector = c >> 4 * n & 15
                byte = source[selector & 7]
                found.append((255 if byte & 128 else 0) if selector & 8 else byte)
            return int.from_bytes(bytes(found), "little")

        selectors = [0x3210, 0x7654, 0x0123, 0x5410, 0xFEDC, 0xBA98, 0x4444, 0xFFFF3210]
        self.check("prmt.b32 {d}, {a}, {b}, {c};", ["b32"] * 3, "b32", permute, [WORDS[32], WORDS[32], selectors])
        for table, oracle in [
            (0xE8, lambda a, b, c: a & b | a & c | b & c),
            (0x96, lambda a, b, c: a ^ b ^ c),
            (0xCA, lambda a, b, c: a & b | ~a & c),
            (0x00, lambda a, b, c: 0),
        ]:
            self.check(f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table:#x};", ["b32"] * 3, "b32", oracle)

    def test_floats(self):
        self.check("add.rn.f32 {d}, {a}, {b};", ["f32"] * 2, "f32", lambda a, b: a + b)
        self.check("sub.rn.f32 {d}, {a}, {b};", ["f32"] * 2, "f32", lambda a, b: a - b)
        self.check("mul.rn.f32 {d}, {a}, {b};", ["f32"] * 2, "f32", lambda a, b: a * b)
        self.check("add.rn.f32 {d}, {a}, 0f3F800001;", ["f32"], "f32", lambda a: a + as_float(0x3F800001))

        def extreme(a, b, smaller):
            if np.isnan(a) or np.isnan(b):
                return b if np.isnan(a) else a
            if a == b == 0:
                return (a if np.signbit(a) == smaller else b) if np.signbit(a) != np.signbit(b) else a
            return min(a, b) if smaller else max(a, b)

        self.check("min.f32 {d}, {a}, {b};", ["f32"] * 2, "f32", lambda a, b: extreme(a, b, True))
        self.check("max.f32 {d}, {a}, {b};", ["f32"] * 2, "f32", lambda a, b: extreme(a, b, False))
        self.check(
            "max.NaN.f32 {d}, {a}, {b};",
            ["f32"] * 2,
            "f32",
            lambda a, b: np.nan if np.isnan(a) or np.isnan(b) else extreme(a, b, False),
        )
        for pattern, text in [
            ("may be fused", "add.f32 {d}, {a}, {a};"),
            ("fused products", "fma.rn.f32 {d}, {a}, {a}, {a};"),
            ("unknown modifier .rz", "add.rn.rz.f32 {d}, {a}, {a};"),
            ("unknown modifier .ftz", "add.rn.ftz.f32 {d}, {a}, {a};"),
        ]:
            with self.assertRaisesRegex(ProgramError, pattern):
                self.run_op(text, [(32, [0])], [32])

    def test_comparisons(self):
        integer = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
        unsigned = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}

        def oracle(sign):
            return eval(f"lambda a, b: a {sign} b")

        for type in ("u16", "s16", "u32", "s32", "u64", "s64"):
            for name, sign in (integer | (unsigned if type[0] == "u" else {})).items():
                self.check(f"setp.{name}.{type} {{d}}, {{a}}, {{b}};", [type] * 2, "pred", oracle(sign))
        for name, sign in integer.items():
            ordered = oracle(sign)
            self.check(
                f"setp.{name}.f32 {{d}}, {{a}}, {{b}};",
                ["f32"] * 2,
                "pred",
                lambda a, b: not np.isnan(a) and not np.isnan(b) and ordered(a, b),
            )
            self.check(
                f"setp.{name}u.f32 {{d}}, {{a}}, {{b}};",
                ["f32"] * 2,
                "pred",
                lambda a, b: np.isnan(a) or np.isnan(b) or ordered(a, b),
            )
        self.check("setp.num.f32 {d}, {a}, {b};", ["f32"] * 2, "pred", lambda a, b: not (np.isnan(a) or np.isnan(b)))
        self.check("setp.nan.f32 {d}, {a}, {b};", ["f32"] * 2, "pred", lambda a, b: np.isnan(a) or np.isnan(b))
        for name, oracle in [("and", lambda p, q: p and q), ("or", lambda p, q: p or q), ("xor", lambda p, q: p != q)]:
            sources = [(32, [1, 1, 2, 2]), (32, [2, 2, 1, 1]), (1, [0, 1, 0, 1])]
            for sign in ("", "!"):
                p, q = self.run_op(f"setp.lt.{name}.u32 {{d}}|{{e}}, {{a}}, {{b}}, {sign}{{c}};", sources, [1, 1])
                third = [bool(c) != bool(sign) for c in sources[2][1]]
                self.assertEqual(p, [int(oracle(a < b, c)) for a, b, c in zip(sources[0][1], sources[1][1], third)])
                self.assertEqual(q, [int(oracle(a >= b, c)) for a, b, c in zip(sources[0][1], sources[1][1], third)])
        self.check("selp.b32 {d}, {a}, {b}, {c};", ["b32", "b32", "pred"], "b32", lambda a, b, p: a if p else b)
        for text in ("setp.ltu.u32 {d}, {a}, {a};", "setp.lo.s32 {d}, {a}, {a};", "setp.lt.b32 {d}, {a}, {a};"):
            with self.assertRaisesRegex(ProgramError, r"setp.*: \.l"):
                self.run_op(text, [(32, [0])], [1])

    ROUNDINGS = [("rzi", np.trunc), ("rni", np.rint), ("rmi", np.floor), ("rpi", np.ceil)]

    def test_conversions(self):
        for source, target in itertools.product(("u16", "s16", "u32", "s32", "u64", "s64"), repeat=2):
            self.check(f"cvt.{target}.{source} {{d}}, {{a}};", [source], target, lambda a: a)
        self.check("cvt.u32.u8 {d}, {a};", ["u32"], "u32", lambda a: a & 255)
        self.check("cvt.s32.s8 {d}, {a};", ["u32"], "s32", lambda a: signed(a & 255, 8))
        for source in ("u32", "s32", "u64", "s64"):
            self.check(f"cvt.rn.f32.{source} {{d}}, {{a}};", [source], "f32", nearest)
        for target in ("s32", "u32"):
            low, high = (0, 2**32 - 1) if target == "u32" else (-(2**31), 2**31 - 1)
            for mode, function in self.ROUNDINGS:
                self.check(
                    f"cvt.{mode}.{target}.f32 {{d}}, {{a}};",
                    ["f32"],
                    target,
                    lambda a: 0 if np.isnan(a) else min(max(function(float(a)), low), high),
                )
        for mode, function in self.ROUNDINGS:
            self.check(f"cvt.{mode}.f32.f32 {{d}}, {{a}};", ["f32"], "f32", function)
        halves = list(range(0, 65536, 67)) + [0x7C00, 0xFC00, 0x7E00, 0xFFFF, 0x0001]
        self.check(
            "cvt.f32.f16 {d}, {a};",
            ["u16"],
            "f32",
            lambda a: np.uint16(a).view(np.float16).astype(np.float32),
            [halves],
        )
        with self.assertRaisesRegex(ProgramError, "needs one of .rn"):
            self.run_op("cvt.f32.u32 {d}, {a};", [(32, [0])], [32])

    def test_doubles(self):
        """Operands and results are the bits of f64, in 64-bit registers."""
        values = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            3.0,
            0.1,
            1e300,
            -1e300,
            2.0**52 + 0.5,
            5e-324,
            2.0**63,
            2.0**64,
            -(2.0**63),
            np.inf,
        ]
        bits = [int(np.float64(x).view(np.uint64)) for x in values]

        def double(x):
            return np.uint64(x).view(np.float64)

        def pattern(x):
            return int(np.float64(x).view(np.uint64))

        for name, function in [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide)]:
            self.check(
                f"{name}.rn.f64 {{d}}, {{a}}, {{b}};",
                ["b64", "b64"],
                "b64",
                lambda a, b, function=function: pattern(function(double(a), double(b))),
                [bits[2:-1], bits[2:-1]],
            )
        with self.assertRaisesRegex(
            ProgramError, "sub.rn.f64 .*the result is a NaN, whose bits are unspecified .thread 0"
        ):
            self.run_op("sub.rn.f64 {d}, {a}, {a};", [(64, bits[-1:])], [64])
        self.check("rcp.rn.f64 {d}, {a};", ["b64"], "b64", lambda a: pattern(np.float64(1) / double(a)), [bits])
        fma = "fma.rn.f64 {d}, {a}, {b}, {c};"

        def check_fma(rows):
            operands = [(64, [pattern(row[n]) for row in rows]) for n in range(3)]
            (found,) = self.run_op(fma, operands, [64])
            self.assertEqual(found, [pattern(row[3]) for row in rows])

        # The exact products have up to 106 bits, and the sums have few.
        a, b = 2**53 - 1, 2**52 + 12345
        check_fma([(a, b, -float(a * b), a * b - int(float(a * b))) for a, b in [(a, b), (a, a), (b, 3), (-b, b)]])
        tiny = 2.0**-52
        check_fma(
            [
                (1 + tiny, 1 - tiny, -1.0, -(tiny**2)),
                # A product that is a tie is rounded to even, but a small addend decides.
                (1 + tiny, 1.5, 0.0, 1.5 + 2 * tiny),
                (1 + tiny, 1.5, -(2.0**-200), 1.5 + tiny),
                (3.0, 5.0, -15.0, 0.0),
                (-0.0, 5.0, -0.0, -0.0),
                (0.0, 5.0, -0.0, 0.0),
                (2.0**1023, 2.0, -(2.0**1023), 2.0**1023),
                (2.0**1023, -4.0, 1.0, -np.inf),
                (np.inf, 2.0, 1.0, np.inf),
            ]
        )
        self.check("cvt.rn.f64.u64 {d}, {a};", ["u64"], "b64", lambda a: pattern(float(a)))
        self.check("cvt.rn.f64.s64 {d}, {a};", ["s64"], "b64", lambda a: pattern(float(a)))
        self.check("cvt.rn.f32.f64 {d}, {a};", ["b64"], "f32", double, [bits])
        self.check(
            "cvt.f64.f32 {d}, {a};",
            ["f32"],
            "b64",
            lambda a: pattern(np.float64(a)),
            [[x for x in FLOATS if not np.isnan(as_float(x))]],
        )
        nan = [pattern(np.nan)]
        for target in ("u32", "s32", "u64", "s64"):
            width, kind = TYPES[target]
            low, high = (0, 2**width - 1) if kind == "u" else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
            for mode, function in self.ROUNDINGS:
                self.check(
                    f"cvt.{mode}.{target}.f64 {{d}}, {{a}};",
                    ["b64"],
                    target,
                    lambda a, function=function, low=low, high=high, width=width: (
                        1 << width - 1
                        if np.isnan(double(a))
                        else high
                        if double(a) == np.inf
                        else min(max(int(function(double(a))), low), high)
                    ),
                    [bits + nan],
                )
        self.check(
            "setp.lt.f64 {d}, {a}, {b};",
            ["b64", "b64"],
            "pred",
            lambda a, b: double(a) < double(b),
            [bits + nan, bits + nan],
        )

    def test_moves(self):
        self.check("mov.b64 {d}, {{{a}, {b}}};", ["b32"] * 2, "b64", lambda a, b: b << 32 | a)
        self.check("mov.b32 {d}, {{{a}, {b}}};", ["b16"] * 2, "b32", lambda a, b: b << 16 | a)
        low, high = self.run_op("mov.b64 {{{d}, {e}}}, {a};", [(64, [0x1122334455667788])], [32, 32])
        self.assertEqual((low, high), ([0x55667788], [0x11223344]))
        for text, expected in [
            ("mov.f32 {d}, 0fBF800000;", 0xBF800000),
            ("mov.u32 {d}, -1;", 2**32 - 1),
            ("mov.b32 {d}, 0x8000_0;".replace("_", ""), 0x80000),
        ]:
            self.assertEqual(self.run_op(text, [(32, [0])], [32]), [[expected]])
        self.assertEqual(self.run_op("mov.b64 {d}, 0d4009000000000000;", [(32, [0])], [64]), [[0x4009000000000000]])
        with self.assertRaisesRegex(ProgramError, "4294967296 exceeds .u32"):
            self.run_op("mov.u32 {d}, 4294967296;", [(32, [0])], [32])

    def test_signs(self):
        self.check("neg.s32 {d}, {a};", ["s32"], "s32", lambda a: -a)
        self.check("abs.s32 {d}, {a};", ["s32"], "s32", abs)
        self.check("neg.f32 {d}, {a};", ["f32"], "f32", lambda a: -a)
        self.check("abs.f32 {d}, {a};", ["f32"], "f32", abs)


def nearest(a):
    """Converts an integer to f32. Rounds once, to nearest even."""
    magnitude = abs(a)
    shift = max(magnitude.bit_length() - 24, 0)
    kept, rest = magnitude >> shift, magnitude & (1 << shift) - 1
    half = 1 << shift >> 1
    kept += shift > 0 and (rest > half or rest == half and kept & 1)
    return np.float32((-1 if a < 0 else 1) * float(kept << shift))
