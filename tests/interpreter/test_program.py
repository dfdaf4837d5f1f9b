"""Tests of the program around the kernels, and of the command line."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np

from .cli import main
from .errors import ProgramError
from .outer import Outer
from .mosaic.test_helpers import VMEM, program

# Written by hand, in the form that the emitter writes.
VERSIONED = f"""module attributes {{stable_mosaic.version = 15 : i64}} {{
  "stable_mosaic.func.func"() ({{
  ^bb0(%x: memref<8x128xi32, {VMEM}>, %y: memref<8x128xi32, {VMEM}>):
    %z = "stable_mosaic.arith.constant"() {{value = 0 : index}} : () -> index
    %lo = "stable_mosaic.arith.constant"() {{value = 0 : i32}} : () -> i32
    %hi = "stable_mosaic.arith.constant"() {{value = 5 : i32}} : () -> i32
    %one = "stable_mosaic.arith.constant"() {{value = 1 : i32}} : () -> i32
    %v = "stable_mosaic.vector.load"(%x, %z, %z) : (memref<8x128xi32, {VMEM}>, index, index) -> vector<8x128xi32>
    %r = "stable_mosaic.scf.for"(%lo, %hi, %one, %v) ({{
    ^bb0(%i: i32, %a: vector<8x128xi32>):
      %s = "stable_mosaic.arith.addi"(%a, %a) {{overflowFlags = #arith.overflow<none>}} : (vector<8x128xi32>, vector<8x128xi32>) -> vector<8x128xi32>
      "stable_mosaic.scf.yield"(%s) : (vector<8x128xi32>) -> ()
    }}) {{nucleus.loop = "double"}} : (i32, i32, i32, vector<8x128xi32>) -> vector<8x128xi32>
    "stable_mosaic.vector.store"(%r, %y, %z, %z) : (vector<8x128xi32>, memref<8x128xi32, {VMEM}>, index, index) -> ()
    "stable_mosaic.func.return"() : () -> ()
  }}) {{dimension_semantics = [], function_type = (memref<8x128xi32, {VMEM}>, memref<8x128xi32, {VMEM}>) -> (),
       scalar_prefetch = 0 : i64, scratch_operands = 0 : i64, sym_name = "double"}} : () -> ()
}}
"""


def outer_function(body, arguments, result):
    return f"module {{ func.func public @main({arguments}) -> {result} {{\n{body}\nreturn %r : {result}\n}} }}"


class Versioned(unittest.TestCase):
    def test_hand_written(self):
        outer = Outer(program(VERSIONED, ["8x128xi32"], ["8x128xi32"], 1))
        x = np.arange(1024, dtype=np.int32).reshape(8, 128)
        np.testing.assert_array_equal(outer.run([x])[0], x * 32)
        (loop,) = outer.report()[0]["loops"]
        self.assertEqual((loop["name"], loop["line"], loop["iterations"]), ("double", 9, 5))

    def test_unknown_operation(self):
        text = VERSIONED.replace("stable_mosaic.arith.addi", "stable_mosaic.tpu.surprise")
        with self.assertRaisesRegex(ProgramError, "tpu.surprise"):
            Outer(program(text, ["8x128xi32"], ["8x128xi32"], 1))

    def test_form_must_fit_its_configuration(self):
        with self.assertRaisesRegex(ProgramError, "serialization_format None for a body in the versioned form"):
            Outer(program(VERSIONED, ["8x128xi32"], ["8x128xi32"]))

    def test_unknown_configuration(self):
        text = program(VERSIONED, ["8x128xi32"], ["8x128xi32"], 1).replace("serialization_format", "surprise")
        with self.assertRaisesRegex(ProgramError, "unknown entry 'surprise'"):
            Outer(text)

    def test_malformed_configuration(self):
        text = program(VERSIONED, ["8x128xi32"], ["8x128xi32"], 1).replace("custom_call_config", "surprise")
        with self.assertRaisesRegex(ProgramError, "malformed backend_config: KeyError"):
            Outer(text)

    def test_operands_must_fit(self):
        with self.assertRaisesRegex(ProgramError, r"an operand of \[4, 128\] for memref<8x128xi32, vmem>"):
            Outer(program(VERSIONED, ["4x128xi32"], ["8x128xi32"], 1)).run([np.zeros((4, 128), np.int32)])


class Tensors(unittest.TestCase):
    def run_body(self, body, arguments, result, *arrays):
        return Outer(outer_function(body, arguments, result)).run(list(arrays))[0]

    def test_shapes(self):
        x = np.arange(6, dtype=np.int32).reshape(2, 3)
        body = """
        %f = stablehlo.constant dense<-1> : tensor<i32>
        %p = stablehlo.pad %x, %f, low = [1, 0], high = [0, 2], interior = [1, 0] : (tensor<2x3xi32>, tensor<i32>) -> tensor<4x5xi32>
        %s = stablehlo.slice %p [1:4:2, 1:4] : (tensor<4x5xi32>) -> tensor<2x3xi32>
        %t = stablehlo.transpose %s, dims = [1, 0] : (tensor<2x3xi32>) -> tensor<3x2xi32>
        %b = stablehlo.broadcast_in_dim %t, dims = [0, 2] : (tensor<3x2xi32>) -> tensor<3x2x2xi32>
        %c = stablehlo.concatenate %b, %b, dim = 1 : (tensor<3x2x2xi32>, tensor<3x2x2xi32>) -> tensor<3x4x2xi32>
        %r = stablehlo.reshape %c : (tensor<3x4x2xi32>) -> tensor<24xi32>"""
        padded = np.full((4, 5), -1, np.int32)
        padded[1::2, :3] = x
        part = padded[1:4:2, 1:4].T
        expected = np.repeat(part[:, None], 4, 1).reshape(24)
        np.testing.assert_array_equal(self.run_body(body, "%x: tensor<2x3xi32>", "tensor<24xi32>", x), expected)

    def test_bits(self):
        words = np.arange(65536, dtype=np.uint16)
        body = """
        %b = stablehlo.bitcast_convert %x : (tensor<65536xui16>) -> tensor<65536xbf16>
        %u = stablehlo.bitcast_convert %b : (tensor<65536xbf16>) -> tensor<65536xui16>
        %w = stablehlo.convert %u : (tensor<65536xui16>) -> tensor<65536xi32>
        %k = stablehlo.constant dense<16> : tensor<65536xi32>
        %s = stablehlo.shift_left %w, %k : tensor<65536xi32>
        %z = stablehlo.constant dense<0> : tensor<65536xi32>
        %c = stablehlo.compare LT, %s, %z, SIGNED : (tensor<65536xi32>, tensor<65536xi32>) -> tensor<65536xi1>
        %r = stablehlo.select %c, %z, %s : tensor<65536xi1>, tensor<65536xi32>"""
        shifted = (words.astype(np.uint32) << 16).view(np.int32)
        got = self.run_body(body, "%x: tensor<65536xui16>", "tensor<65536xi32>", words)
        np.testing.assert_array_equal(got, np.maximum(shifted, 0))

    def test_unknown_operation(self):
        body = "%r = stablehlo.cosine %x : tensor<2xf32>"
        with self.assertRaisesRegex(ProgramError, "stablehlo.cosine at line 2: unknown operation"):
            self.run_body(body, "%x: tensor<2xf32>", "tensor<2xf32>", np.zeros(2, np.float32))

    def test_sums_of_products(self):
        x = np.array([3.0, 2.0**30], np.float32)
        body = """
        %p = stablehlo.multiply %x, %x : tensor<2xf32>
        %m = stablehlo.minimum %p, %x : tensor<2xf32>
        %r = stablehlo.add %m, %x : tensor<2xf32>"""
        got = self.run_body(body, "%x: tensor<2xf32>", "tensor<2xf32>", x)
        np.testing.assert_array_equal(got, [6.0, 2.0**31])
        for operation in ("add", "subtract"):
            fused = body.replace("add %m", f"{operation} %p")
            with self.assertRaisesRegex(ProgramError, "which a compiler could fuse"):
                self.run_body(fused, "%x: tensor<2xf32>", "tensor<2xf32>", x)

    def test_bf16_constants(self):
        body = "%c = stablehlo.constant dense<[0x7FC1, 0xFF80, 1.5]> : tensor<3xbf16>\n"
        body += "%r = stablehlo.bitcast_convert %c : (tensor<3xbf16>) -> tensor<3xui16>"
        self.assertEqual(list(self.run_body(body, "", "tensor<3xui16>")), [0x7FC1, 0xFF80, 0x3FC0])


class CommandLine(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.x = np.arange(1024, dtype=np.int32).reshape(8, 128)
        (self.directory / "p.mlir").write_text(program(VERSIONED, ["8x128xi32"], ["8x128xi32"], 1))
        (self.directory / "x.bin").write_bytes(self.x.tobytes())
        (self.directory / "good.bin").write_bytes((self.x * 32).tobytes())
        wrong = self.x * 32
        wrong[2, 5] = -1
        (self.directory / "bad.bin").write_bytes(wrong.tobytes())

    def main(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in arguments])
        return code, out.getvalue(), err.getvalue()

    def test_run(self):
        out, trips = self.directory / "out", self.directory / "trips.json"
        code, _, _ = self.main(
            "run", self.directory / "p.mlir", "--inputs", self.directory / "x.bin", "--outputs", out, "--trips", trips, "--flush"
        )
        self.assertEqual(code, 0)
        self.assertEqual((out / "0.bin").read_bytes(), (self.x * 32).tobytes())
        self.assertEqual(json.loads(trips.read_text())[0]["loops"][0]["iterations"], 5)

    def test_check(self):
        cases = [{"name": n, "program": "p.mlir", "inputs": ["x.bin"], "expected": [f"{n}.bin"]} for n in ("good", "bad")]
        (self.directory / "cases.json").write_text(json.dumps(cases[:1]))
        self.assertEqual(self.main("check", self.directory)[:2], (0, "good: PASS\n1 of 1 cases pass\n"))
        (self.directory / "cases.json").write_text(json.dumps(cases))
        code, out, _ = self.main("check", self.directory)
        self.assertEqual(code, 1)
        self.assertIn("bad: 1 mismatches\n  output 0 at [2, 5]: got 0x000020a0, expected 0xffffffff\n", out)

    def test_wrong_input(self):
        code, _, err = self.main("run", self.directory / "p.mlir", "--inputs", "--outputs", self.directory)
        self.assertEqual((code, err), (1, "error: 0 input files; the program takes 1\n"))

    def test_emitpretty(self):
        code, out, _ = self.main("emitpretty", self.directory / "p.mlir")
        self.assertEqual(code, 0)
        self.assertIn("func.func @double", out)
        self.assertNotIn("stable_mosaic.arith", out)
