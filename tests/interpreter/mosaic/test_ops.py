"""Tests of operations against their documentation."""

import ml_dtypes
import numpy as np

from ..options import Options
from .test_helpers import KernelTest, random_tensor

T = "8x128xi32"
F = "8x128xf32"
BINARY = "%r = {op} %a0, %a1 : vector<{type}>"


def floats(*values):
    """A tile that starts with these values. An integer argument is the bits of a float."""
    tile = np.zeros((8, 128), np.float32)
    words = [np.uint32(v).view(np.float32) if isinstance(v, int) else np.float32(v) for v in values]
    tile[0, : len(words)] = words
    return tile


class Integers(KernelTest):
    def setUp(self):
        self.a, self.b = random_tensor(T, 1), random_tensor(T, 2)

    def binary(self, op, a=None, b=None):
        body = BINARY.format(op=op, type=T)
        return self.elementwise(body, [self.a if a is None else a, self.b if b is None else b], [T, T], T)[0]

    def test_wrapping_arithmetic(self):
        wide = {"addi": np.add, "subi": np.subtract, "muli": np.multiply}
        for name, function in wide.items():
            expected = function(self.a.astype(np.int64), self.b.astype(np.int64)) & 0xFFFFFFFF
            self.assert_bits(self.binary(f"arith.{name}"), expected.astype(np.uint32).view(np.int32))

    def test_shifts(self):
        amount = self.b & 31
        self.assert_bits(self.binary("arith.shrsi", b=amount), self.a >> amount)
        unsigned = self.a.view(np.uint32)
        self.assert_bits(self.binary("arith.shrui", b=amount), (unsigned >> amount.view(np.uint32)).view(np.int32))
        self.assert_bits(self.binary("arith.shli", b=amount), (unsigned << amount.view(np.uint32)).view(np.int32))
        with self.assertRaisesRegex(Exception, "arith.shli at line .*: shift by 32 of 32 bits"):
            self.binary("arith.shli", b=np.full((8, 128), 32, np.int32))

    def test_unsigned_order(self):
        ua, ub = self.a.view(np.uint32), self.b.view(np.uint32)
        self.assert_bits(self.binary("arith.maxui"), np.maximum(ua, ub).view(np.int32))
        body = f"%c = arith.cmpi ult, %a0, %a1 : vector<{T}>\n%r = arith.extui %c : vector<8x128xi1> to vector<{T}>"
        self.assert_bits(self.elementwise(body, [self.a, self.b], [T, T], T)[0], (ua < ub).astype(np.int32))

    def test_division(self):
        b = np.where(self.b == 0, 1, self.b)
        expected = np.trunc(self.a.astype(np.float64) / b).astype(np.int32)
        self.assert_bits(self.binary("arith.divsi", b=b), expected)
        self.assert_bits(self.binary("arith.remsi", b=b), self.a - expected * b)
        with self.assertRaisesRegex(Exception, "division by zero"):
            self.binary("arith.divsi", b=np.zeros((8, 128), np.int32))

    def test_bit_counts(self):
        self.a[0, :3] = 0, -1, 1
        for name, function in (
            ("ctpop", lambda v: bin(v).count("1")),
            ("ctlz", lambda v: 32 - v.bit_length()),
            ("cttz", lambda v: (v & -v).bit_length() - 1 if v else 32),
        ):
            expected = np.vectorize(function, otypes=[np.int32])(self.a.view(np.uint32).astype(object))
            self.assert_bits(self.elementwise(f"%r = math.{name} %a0 : vector<{T}>", [self.a], [T], T)[0], expected)

    def test_scalars_wrap(self):
        body = f"""
        %i = vector.extract %a0[0, 0] : i32 from vector<{T}>
        %big = arith.constant 2147483647 : i32
        %c31 = arith.constant 31 : i32
        %s = arith.addi %i, %big : i32
        %m = arith.muli %s, %s : i32
        %t = arith.shli %m, %c31 : i32
        %u = arith.shrui %t, %c31 : i32
        %x = arith.xori %m, %u : i32
        %r = vector.broadcast %x : i32 to vector<{T}>"""
        expected = (int(self.a[0, 0]) + 2147483647) ** 2 & 0xFFFFFFFF
        expected ^= expected & 1
        self.assertEqual(int(self.elementwise(body, [self.a], [T], T)[0].view(np.uint32)[3, 3]), expected)


class Floats(KernelTest):
    nan, inf = 0x7FC00001, float("inf")

    def compare(self, predicate, a, b, options=Options()):
        body = f"%c = arith.cmpf {predicate}, %a0, %a1 : vector<{F}>\n%r = arith.extui %c : vector<8x128xi1> to vector<{T}>"
        result, report = self.elementwise(body, [a, b], [F, F], T, options)
        return list(result[0, :4]), report

    def test_comparisons_with_nan(self):
        a, b = floats(1.0, self.nan, 2.0, self.nan), floats(2.0, 1.0, 2.0, self.nan)
        for predicate, expected in (
            ("oeq", [0, 0, 1, 0]), ("olt", [1, 0, 0, 0]), ("oge", [0, 0, 1, 0]), ("ord", [1, 0, 1, 0]),
            ("ueq", [0, 1, 1, 1]), ("ult", [1, 1, 0, 1]), ("uge", [0, 1, 1, 1]), ("une", [1, 1, 0, 1]),
            ("uno", [0, 1, 0, 1]), ("one", [1, 0, 0, 0]),
        ):  # fmt: skip
            with self.subTest(predicate):
                got, report = self.compare(predicate, a, b)
                self.assertEqual(got, expected)
                self.assertEqual(sum(report["poison"].values()), 2 if predicate == "one" else 0)

    def test_extremes(self):
        a, b = floats(self.nan, 1.0, -0.0, 0.0), floats(1.0, self.nan, 0.0, -0.0)
        maximum = "%r = arith.maximumf %a0, %a1 : vector<8x128xf32>"
        minimum = maximum.replace("max", "min")
        result = self.elementwise(maximum, [a, b], [F, F], F)[0][0]
        self.assertTrue(np.isnan(result[:2]).all())
        self.assertEqual(list(result.view(np.uint32)[2:4]), [0, 0])
        self.assertEqual(list(self.elementwise(minimum, [a, b], [F, F], F)[0][0].view(np.uint32)[2:4]), [1 << 31] * 2)
        ignoring = Options(nan_max="ignore")
        self.assertEqual(list(self.elementwise(maximum, [a, b], [F, F], F, ignoring)[0][0, :2]), [1, 1])

    def test_subnormals(self):
        a, b = floats(0x00000001, 0x80000001, 0x00800000), floats(1.0, 1.0, 0.5)
        body = BINARY.format(op="arith.mulf", type=F)
        kept = self.elementwise(body, [a, b], [F, F], F)[0][0].view(np.uint32)
        self.assertEqual(list(kept[:3]), [1, 0x80000001, 0x00400000])
        flushed = self.elementwise(body, [a, b], [F, F], F, Options(flush=True))[0][0].view(np.uint32)
        self.assertEqual(list(flushed[:3]), [0, 0x80000000, 0])
        self.assertEqual(self.compare("ogt", a, floats(0.0, 0.0, 0.0))[0][0], 1)
        self.assertEqual(self.compare("ogt", a, floats(0.0, 0.0, 0.0), Options(flush=True))[0][0], 0)

    def test_float_to_integer(self):
        a = floats(-1.9, 2147483520.0, 2147483648.0, self.nan, -2147483648.0)
        body = f"%r = arith.fptosi %a0 : vector<{F}> to vector<{T}>"
        result, report = self.elementwise(body, [a], [F], T)
        self.assertEqual(list(result[0, :5]), [-1, 2147483520, -(2**31), -(2**31), -(2**31)])
        self.assertEqual(list(report["poison"].values()), [2])

    def test_bf16_keeps_bits(self):
        words = np.arange(65536, dtype=np.uint16).reshape(512, 128)
        body = "%r = arith.extf %a0 : vector<512x128xbf16> to vector<512x128xf32>"
        result = self.elementwise(body, [words.view(ml_dtypes.bfloat16)], ["512x128xbf16"], "512x128xf32")[0]
        self.assert_bits(result, (words.astype(np.uint32) << 16).view(np.float32))

    def test_bitcast_packs_rows(self):
        a = random_tensor("16x128xi16")
        body = "%r = tpu.bitcast %a0 : vector<16x128xi16> -> vector<8x128xi32>"
        words = a.view(np.uint16).astype(np.uint32)
        expected = (words[0::2] | words[1::2] << 16).view(np.int32)
        self.assert_bits(self.elementwise(body, [a], ["16x128xi16"], T)[0], expected)
        back = "%r = tpu.bitcast %a0 : vector<8x128xi32> -> vector<16x128xi16>"
        self.assert_bits(self.elementwise(back, [expected], [T], "16x128xi16")[0], a)


    def test_pack_elementwise(self):
        a, b = random_tensor(F, 6), random_tensor(F, 7)
        narrow = [x.astype(ml_dtypes.bfloat16).view(np.uint16).astype(np.uint32) for x in (a, b)]
        body = f"%r = tpu.pack_elementwise %a0, %a1 {{target_type = bf16}} : vector<{F}>, vector<{F}> -> vector<{T}>"
        words = (narrow[0] | narrow[1] << 16).view(np.int32)
        self.assert_bits(self.elementwise(body, [a, b], [F, F], T)[0], words)
        body = f"%r = tpu.unpack_elementwise %a0, 1 {{source_type = bf16}} : vector<{T}> -> vector<{F}>"
        self.assert_bits(self.elementwise(body, [words], [T], F)[0], (narrow[1] << 16).view(np.float32))

    def test_constants_keep_bits(self):
        body = f"""%v = arith.constant dense<0xFFC12345> : vector<{F}>
        %s = arith.constant 0x7F812345 : f32
        %w = vector.broadcast %s : f32 to vector<{F}>
        %i = tpu.iota {{dimensions = array<i32: 0>}} : vector<{T}>
        %c = arith.cmpi slt, %i, %a0 : vector<{T}>
        %r = arith.select %c, %v, %w : vector<8x128xi1>, vector<{F}>"""
        got = self.elementwise(body, [np.full((8, 128), 4, np.int32)], [T], F)[0].view(np.uint32)
        self.assertEqual([int(w) for w in got[:, 9]], [0xFFC12345] * 4 + [0x7F812345] * 4)


class Shapes(KernelTest):
    def setUp(self):
        self.a = random_tensor(T, 3)

    def unary(self, body, output=T):
        return self.elementwise(body, [self.a], [T], output)[0]

    def test_rotate(self):
        body = f"%n = arith.constant -3 : i32\n%r = tpu.dynamic_rotate %a0 by %n dim 0 : vector<{T}>, i32 -> vector<{T}>"
        self.assert_bits(self.unary(body), np.roll(self.a, -3, 0))
        body = f"""%n = arith.constant 7 : i32
        %r = tpu.dynamic_rotate %a0 by %n dim 1 {{stride = 2 : si32, stride_dimension = 0 : si32}} : vector<{T}>, i32 -> vector<{T}>"""
        self.assert_bits(self.unary(body), np.stack([np.roll(row, 7 + 2 * i) for i, row in enumerate(self.a)]))

    def test_dynamic_gather(self):
        for dim, size in ((0, 8), (1, 128)):
            indices = random_tensor(T, 4) & (size - 1)
            body = f"%r = tpu.dynamic_gather %a0[%a1] in [{dim}] : vector<{T}>, vector<{T}> -> vector<{T}>"
            got, report = self.elementwise(body, [self.a, indices], [T, T], T)
            self.assert_bits(got, np.take_along_axis(self.a, indices, dim))
            indices[0, 0] = size
            got, report = self.elementwise(body, [self.a, indices], [T, T], T)
            self.assertEqual((int(got[0, 0]), sum(report["poison"].values())), (0x7FC12345, 1))

    def test_iota_select_slices(self):
        body = f"""
        %i = tpu.iota {{dimensions = array<i32: 1>}} : vector<{T}>
        %k = arith.constant dense<64> : vector<{T}>
        %c = arith.cmpi slt, %i, %k : vector<{T}>
        %s = arith.select %c, %a0, %i : vector<8x128xi1>, vector<{T}>
        %x = vector.extract_strided_slice %s {{offsets = [0, 32], sizes = [8, 64], strides = [1, 1]}} : vector<{T}> to vector<8x64xi32>
        %r = tpu.concatenate %x, %x in 1 : vector<8x64xi32>, vector<8x64xi32> -> vector<{T}>"""
        lanes = np.broadcast_to(np.arange(128, dtype=np.int32), (8, 128))
        part = np.where(lanes < 64, self.a, lanes)[:, 32:96]
        self.assert_bits(self.unary(body), np.concatenate([part, part], 1))

    def test_reductions(self):
        for kind, start, function in (
            ("maxsi", -(2**31), np.max), ("minsi", 2**31 - 1, np.min), ("add", 0, np.sum), ("add", 7, None),
        ):  # fmt: skip
            body = f"""%z0 = arith.constant dense<{start}> : vector<8xi32>
            %s = vector.multi_reduction <{kind}>, %a0, %z0 [1] : vector<{T}> to vector<8xi32>
            %t = vector.shape_cast %s : vector<8xi32> to vector<8x1xi32>
            %r = vector.broadcast %t : vector<8x1xi32> to vector<{T}>"""
            expected = function(self.a, axis=1) if function else np.sum(self.a, axis=1) + 7
            expected = (expected.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
            self.assert_bits(self.unary(body), np.broadcast_to(expected[:, None], (8, 128)).copy())
        body = f"""%s = tpu.reduce_index %a0 {{axis = 1 : i32, kind = #tpu.reduction_kind<arg_max>}} : vector<8x128xf32> -> vector<8xi32>
            %t = vector.shape_cast %s : vector<8xi32> to vector<8x1xi32>
            %r = vector.broadcast %t : vector<8x1xi32> to vector<{T}>"""
        ties = np.round(random_tensor(F, 5))
        got = self.elementwise(body, [ties], [F], T)[0][:, 0]
        self.assertEqual(list(got), [list(row).index(max(row)) for row in ties])

    def test_sums_of_floats_have_no_order(self):
        body = f"""%z0 = arith.constant dense<0.0> : vector<8xf32>
        %s = vector.multi_reduction <add>, %a0, %z0 [1] : vector<{F}> to vector<8xf32>
        %t = vector.shape_cast %s : vector<8xf32> to vector<8x1xf32>
        %r = vector.broadcast %t : vector<8x1xf32> to vector<{F}>"""
        whole = np.round(random_tensor(F) * 1000)
        sums = np.broadcast_to(whole.sum(axis=1, dtype=np.float64).astype(np.float32)[:, None], (8, 128)).copy()
        self.assert_bits(self.elementwise(body, [whole], [F], F)[0], sums)
        nan = np.where(whole == whole[3, 5], np.float32("nan"), whole)
        self.assertTrue(np.isnan(self.elementwise(body, [nan], [F], F)[0][3]).all())
        for wrong in (whole + np.float32(0.5), whole * np.float32(4096)):
            with self.assertRaisesRegex(Exception, "depends on the order of additions"):
                self.elementwise(body, [wrong], [F], F)

    def test_unknown_attribute(self):
        with self.assertRaisesRegex(Exception, "unknown attribute surprise"):
            self.unary(f"%r = arith.addi %a0, %a0 {{surprise = 1 : i32}} : vector<{T}>")
        with self.assertRaisesRegex(Exception, "fastmath .* is not supported"):
            body = f"%r = arith.addf %a0, %a0 fastmath<nnan> : vector<{F}>"
            self.elementwise(body, [random_tensor(F)], [F], F)

    def test_matrix_product(self):
        a = np.random.default_rng(0).integers(-8, 8, (128, 128)).astype(ml_dtypes.bfloat16)
        body = """%z0 = arith.constant dense<0.0> : vector<128x128xf32>
        %r = tpu.matmul %a0, %a1, %z0 {dimension_numbers = #tpu.dot_dimension_numbers<[1], [0], [0], [1], [0, 0, 1, 1], [], []>,
            transpose_lhs_hint = false} : vector<128x128xbf16>, vector<128x128xbf16>, vector<128x128xf32> -> vector<128x128xf32>"""
        types = ["128x128xbf16"] * 2
        expected = (a.astype(np.float64) @ a.T.astype(np.float64)).astype(np.float32)
        b = np.ascontiguousarray(a.T)
        self.assert_bits(self.elementwise(body, [a, b], types, "128x128xf32")[0], expected)
        with self.assertRaisesRegex(Exception, "depends on the order of additions"):
            fractions = (a.astype(np.float32) / 3).astype(ml_dtypes.bfloat16)
            self.elementwise(body, [fractions, b], types, "128x128xf32")
