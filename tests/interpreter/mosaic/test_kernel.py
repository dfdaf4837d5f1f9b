"""Tests of grids, windows, memory, transfers and control flow."""

import numpy as np

from ..options import Options
from .test_helpers import ANY, SEM, SMEM, VMEM, KernelTest, program, random_tensor
from ..outer import Outer

UNINITIALIZED = 0x7FC12345
PLAIN = "dimension_semantics = [], scalar_prefetch = 0 : i64"


class Windows(KernelTest):
    # A kernel that doubles blocks of 8 rows and 128 lanes.
    KERNEL = f"""
    func.func @k(%i: i32, %j: i32, %x: memref<8x128xi32, {VMEM}>, %y: memref<8x128xi32, {VMEM}>) attributes {{
        dimension_semantics = [#tpu.dimension_semantics<SEMANTICS>, #tpu.dimension_semantics<arbitrary>],
        iteration_bounds = array<i64: ROWS, COLUMNS>, scalar_prefetch = 0 : i64, scratch_operands = 0 : i64,
        window_params = [{{transform_indices = @block, window_bounds = array<i64: 8, 128>}},
                         {{transform_indices = @block, window_bounds = array<i64: 8, 128>,
                           pipeline_mode = #tpu.pipeline_mode<synchronous>}}]}} {{
      %z = arith.constant 0 : index
      %v = vector.load %x[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
      %r = arith.addi %v, %v : vector<8x128xi32>
      STORE
      return
    }}
    func.func @block(%i: i32, %j: i32) -> (i32, i32) {{
      return %i, %j : i32, i32
    }}"""
    STORE = f"vector.store %r, %y[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>"

    def kernel(self, rows=2, columns=3, store=STORE, semantics="arbitrary"):
        text = self.KERNEL.replace("ROWS", str(rows)).replace("COLUMNS", str(columns))
        return text.replace("STORE", store).replace("SEMANTICS", semantics)

    def test_ragged_last_block(self):
        for order in (False, True):
            x = random_tensor("13x300xi32")
            options = Options(reverse_parallel=order)
            kernel = self.kernel(semantics="parallel")
            (y,), report = self.run_kernel(kernel, [x], ["13x300xi32"], ["13x300xi32"], options)
            self.assert_bits(y, x * 2)
            self.assertEqual(report["steps"], 2 * 3)

    def test_an_odd_grid_on_two_cores(self):
        x, types = random_tensor("21x300xi32"), ["21x300xi32"]
        (y,), _ = self.run_kernel(self.kernel(rows=3), [x], types, types)
        self.assert_bits(y, x * 2)
        for order in (False, True):
            options, kernel = Options(reverse_parallel=order), self.kernel(rows=3, semantics="parallel")
            self.assert_fails("a parallel dimension of 3 steps on 2 cores", kernel, [x], types, types, options)

    def test_each_core_has_its_own_scratch_memory(self):
        # The scratch memory starts with garbage on each core. Each step adds its block to the sum in this memory.
        kernel = f"""
        func.func @k(%i: i32, %x: memref<8x128xi32, {VMEM}>, %y: memref<8x128xi32, {VMEM}>, %s: memref<8x128xi32, {VMEM}>) attributes {{
            dimension_semantics = [#tpu.dimension_semantics<parallel>], iteration_bounds = array<i64: 4>,
            scalar_prefetch = 0 : i64, scratch_operands = 1 : i64,
            window_params = [{{transform_indices = @block, window_bounds = array<i64: 8, 128>}},
                             {{transform_indices = @block, window_bounds = array<i64: 8, 128>}}]}} {{
          %z = arith.constant 0 : index
          %v = vector.load %x[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          %old = vector.load %s[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          %r = arith.addi %v, %old : vector<8x128xi32>
          vector.store %r, %s[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          vector.store %r, %y[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          return
        }}
        func.func @block(%i: i32) -> (i32, i32) {{
          %zero = arith.constant 0 : i32
          return %i, %zero : i32, i32
        }}"""
        x = random_tensor("32x128xi32")
        first, second, third, fourth = x.reshape(4, 8, 128) + np.array([1, 0, 1, 0], np.int32)[:, None, None] * UNINITIALIZED
        expected = np.concatenate([first, first + second, third, third + fourth])
        for order in (False, True):
            options = Options(reverse_parallel=order)
            (y,), report = self.run_kernel(kernel, [x], ["32x128xi32"], ["32x128xi32"], options)
            self.assert_bits(y, expected)
            self.assertEqual((report["steps"], [core["steps"] for core in report["cores"]]), (4, [2, 2]))

    def test_memory_beyond_the_end_is_garbage(self):
        x = random_tensor("5x128xi32")
        store = f"""
        %n = arith.constant 7 : index
        %row = vector.load %x[%n, %z] : memref<8x128xi32, {VMEM}>, vector<1x128xi32>
        %all = vector.broadcast %row : vector<1x128xi32> to vector<8x128xi32>
        vector.store %all, %y[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>"""
        (y,), _ = self.run_kernel(self.kernel(1, 1, store), [x], ["5x128xi32"], ["5x128xi32"])
        self.assertTrue((y == UNINITIALIZED).all())

    def test_block_outside(self):
        x = random_tensor("13x300xi32")
        self.assert_fails("block .* lies outside", self.kernel(3), [x], ["13x300xi32"], ["13x300xi32"])

    def test_inputs_are_read_only(self):
        x = random_tensor("8x128xi32")
        store = self.STORE.replace("%y", "%x")
        self.assert_fails("vector.store at .*read-only", self.kernel(1, 1, store), [x], ["8x128xi32"], ["8x128xi32"])

    def test_unwritten_output_is_garbage(self):
        for garbage, word in (("nan", UNINITIALIZED), ("large", 0x7F7FFFFF)):
            (y,), _ = self.run_kernel(self.kernel(1, 1, ""), [random_tensor("8x128xi32")], ["8x128xi32"], ["8x128xi32"],
                                      Options(garbage=garbage))  # fmt: skip
            self.assertTrue((y == word).all())

    def test_scratch_persists_and_starts_as_garbage(self):
        kernel = f"""
        func.func @k(%i: i32, %n: memref<1xi32, {SMEM}>, %x: memref<8x128xi32, {VMEM}>, %y: memref<8x128xi32, {VMEM}>,
            %s: memref<8x128xi32, {VMEM}>) attributes {{
            dimension_semantics = [#tpu.dimension_semantics<arbitrary>], iteration_bounds = array<i64: 4>,
            scalar_prefetch = 1 : i64, scratch_operands = 1 : i64,
            window_params = [{{transform_indices = @in, window_bounds = array<i64: 8, 128>}},
                             {{transform_indices = @out, window_bounds = array<i64: 8, 128>}}]}} {{
          %z = arith.constant 0 : index
          %start = memref.load %n[%z] : memref<1xi32, {SMEM}>
          %first = arith.cmpi eq, %i, %start : i32
          scf.if %first {{
            %zero = arith.constant dense<0> : vector<8x128xi32>
            vector.store %zero, %s[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          }}
          %v = vector.load %x[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          %a = vector.load %s[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          %r = arith.addi %v, %a : vector<8x128xi32>
          vector.store %r, %s[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          vector.store %r, %y[%z, %z] : memref<8x128xi32, {VMEM}>, vector<8x128xi32>
          return
        }}
        func.func @in(%i: i32, %n: memref<1xi32, {SMEM}>) -> (i32, i32) {{
          %c0 = arith.constant 0 : i32
          return %i, %c0 : i32, i32
        }}
        func.func @out(%i: i32, %n: memref<1xi32, {SMEM}>) -> (i32, i32) {{
          %c0 = arith.constant 0 : i32
          return %c0, %c0 : i32, i32
        }}"""
        x = random_tensor("32x128xi32")
        types = (["1xi32", "32x128xi32"], ["8x128xi32"])
        (y,), _ = self.run_kernel(kernel, [np.array([0], np.int32), x], *types)
        self.assert_bits(y, x.reshape(4, 8, 128).sum(0, dtype=np.int32))
        (y,), _ = self.run_kernel(kernel, [np.array([9], np.int32), x], *types)
        self.assert_bits(y, x.reshape(4, 8, 128).sum(0, dtype=np.int32) + np.int32(UNINITIALIZED))


class Transfers(KernelTest):
    ROW = f"memref<8x128xi32, {VMEM}>"
    TYPES = (["8x256xi32"], ["8x128xi32"])

    def kernel(self, body):
        """A kernel whose body copies the second half of its input to its output through scratch memory."""
        return f"""
        func.func @k(%x: memref<8x256xi32, {ANY}>, %y: {self.ROW}, %s: {self.ROW},
            %sems: memref<2x!tpu.dma_semaphore, {SEM}>, %flag: memref<!tpu.semaphore, {SEM}>) attributes {{
            {PLAIN}, scratch_operands = 3 : i64}} {{
          %z = arith.constant 0 : index
          %c0 = arith.constant 0 : i32
          %c1 = arith.constant 1 : i32
          %c128 = arith.constant 128 : i32
          %half = tpu.memref_slice %x[%c0, %c128] : memref<8x256xi32, {ANY}> -> memref<8x128xi32, {ANY}>
          %one = tpu.memref_slice %sems[%c1] : memref<2x!tpu.dma_semaphore, {SEM}> -> memref<1x!tpu.dma_semaphore, {SEM}>
          %sem = tpu.memref_squeeze %one : memref<1x!tpu.dma_semaphore, {SEM}> -> memref<!tpu.dma_semaphore, {SEM}>
          {body}
          return
        }}"""

    START = f"""tpu.enqueue_dma source(%half : memref<8x128xi32, {ANY}>) target(%s : {ROW})
        target_semaphore(%sem : memref<!tpu.dma_semaphore, {SEM}>)"""
    WAIT = f"""tpu.wait_dma2 semaphore(%sem : memref<!tpu.dma_semaphore, {SEM}>)
        src(%half : memref<8x128xi32, {ANY}>) dst(%s : {ROW})"""
    COPY = f"""%v = vector.load %s[%z, %z] : {ROW}, vector<8x128xi32>
        vector.store %v, %y[%z, %z] : {ROW}, vector<8x128xi32>"""

    def setUp(self):
        self.x = random_tensor("8x256xi32")

    def run_body(self, *body, options=Options()):
        return self.run_kernel(self.kernel("\n".join(body)), [self.x], *self.TYPES, options)

    def test_waited_for(self):
        for dma in ("deferred", "eager"):
            (y,), report = self.run_body(self.START, self.WAIT, self.COPY, options=Options(dma=dma))
            self.assert_bits(y, self.x[:, 128:].copy())
            self.assertEqual(report["transfers"], {"count": 1, "bytes": 4096})

    def test_read_before_the_wait(self):
        (y,), _ = self.run_body(self.START, self.COPY, self.WAIT)
        self.assertTrue((y == UNINITIALIZED).all())

    def assert_body_fails(self, pattern, *body):
        self.assert_fails(pattern, self.kernel("\n".join(body)), [self.x], *self.TYPES)

    def test_transfer_without_wait(self):
        self.assert_body_fails(r"in flight on dma semaphore\[1\], started by tpu.enqueue_dma at", self.START)

    def test_wait_without_transfer(self):
        self.assert_body_fails("tpu.wait_dma2 at .*: waits for 4096 bytes", self.WAIT)

    def test_regular_semaphores(self):
        signal = f"tpu.sem_signal %flag, %c1 : memref<!tpu.semaphore, {SEM}>"
        wait = f"tpu.sem_wait %flag, %c1 : memref<!tpu.semaphore, {SEM}>"
        self.run_body(signal, wait)
        self.assert_body_fails(r"ends with semaphore regular semaphore\[\] at 1", signal)
        self.assert_body_fails("tpu.sem_wait at .*: waits for 1 .* stays at 0", wait)

    def test_out_of_bounds(self):
        for index, body in (
            ("%far", "%v = vector.load %s[%z, %far] : memref<8x128xi32, MEM>, vector<8x128xi32>"),
            ("%far", "%v = arith.constant dense<0> : vector<8x64xi32>\n"
                     "vector.store %v, %y[%z, %far] : memref<8x128xi32, MEM>, vector<8x64xi32>"),
            ("%neg", "%v = memref.load %s[%neg, %z] : memref<8x128xi32, MEM>"),
            ("%c128", "%t = tpu.memref_slice %s[%c0, %c128] : memref<8x128xi32, MEM> -> memref<8x64xi32, MEM>"),
        ):  # fmt: skip
            with self.subTest(body):
                constants = "%far = arith.constant 65 : index\n%neg = arith.constant -1 : index\n"
                self.assert_body_fails("out of bounds: .* elements at .* of a memory of", constants + body.replace("MEM", VMEM))
        dynamic = f"""
        %v = vector.load %s[%z, %z] : {self.ROW}, vector<8x128xi32>
        %n = vector.extract %v[0, 0] : i32 from vector<8x128xi32>
        %i = arith.index_cast %n : i32 to index
        %w = vector.load %s[%z, %i] : {self.ROW}, vector<8x128xi32>"""
        self.assert_body_fails(rf"vector.load at line \d+: out of bounds: .*\[0, {UNINITIALIZED}\]", dynamic)

    def test_promises_are_checked(self):
        body = f"""
        %v = vector.load %s[%z, %z] : {self.ROW}, vector<8x128xi32>
        %n = vector.extract %v[0, 0] : i32 from vector<8x128xi32>
        %m = tpu.assume_multiple %n, 128 : i32"""
        self.assert_body_fails(f"tpu.assume_multiple at .*: {UNINITIALIZED} is not a multiple of 128", body)

    def test_strided_access(self):
        body = f"""
        {self.START}
        {self.WAIT}
        %v = tpu.strided_load %s[%z, %z] {{strides = array<i32: 2, 1>}} : {self.ROW}, vector<4x128xi32>
        %i = arith.constant 1 : index
        tpu.strided_store %s[%i, %z], %v {{strides = array<i32: 2, 1>}} : {self.ROW}, vector<4x128xi32>
        {self.COPY.replace("%v", "%u")}"""
        (y,), _ = self.run_body(body)
        self.assert_bits(y, np.repeat(self.x[::2, 128:], 2, 0))

    def test_masked_store(self):
        body = f"""
        {self.START}
        {self.WAIT}
        %v = vector.load %s[%z, %z] : {self.ROW}, vector<8x128xi32>
        %zero = arith.constant dense<0> : vector<8x128xi32>
        %m = arith.cmpi sgt, %v, %zero : vector<8x128xi32>
        tpu.vector_store %y[%z, %z], %v masked %m {{strides = array<i32>}} : {self.ROW}, vector<8x128xi32>, vector<8x128xi1>"""
        (y,), _ = self.run_body(body)
        half = self.x[:, 128:]
        self.assert_bits(y, np.where(half > 0, half, np.int32(UNINITIALIZED)))

    def test_direct_access_to_hbm(self):
        body = f"%v = vector.load %half[%z, %z] : memref<8x128xi32, {ANY}>, vector<8x128xi32>"
        self.assert_body_fails("vector.load at .*: direct access to memref<8x128xi32, any>", body)

    def test_unknown_operation(self):
        self.assert_body_fails("math.sin at .*: unknown operation", "%f = arith.constant 1.0 : f32\n%g = math.sin %f : f32")

    def test_memory_bitcast(self):
        body = f"""
        {self.START}
        {self.WAIT}
        %n = tpu.memref_bitcast %s : {self.ROW} -> memref<16x128xi16, {VMEM}>
        %v = vector.load %n[%z, %z] : memref<16x128xi16, {VMEM}>, vector<16x128xi16>
        %i = arith.constant 1 : index
        %w = vector.load %n[%i, %z] : memref<16x128xi16, {VMEM}>, vector<8x128xi16>
        %j = arith.constant 8 : index
        vector.store %w, %n[%j, %z] : memref<16x128xi16, {VMEM}>, vector<8x128xi16>
        {self.COPY.replace("%v", "%u")}"""
        halves = self.x[:, 128:].copy().view(np.uint16).reshape(8, 128, 2).transpose(0, 2, 1).reshape(16, 128).copy()
        halves[8:16] = halves[1:9].copy()
        words = halves.astype(np.uint32)
        (y,), _ = self.run_body(body)
        self.assert_bits(y, (words[0::2] | words[1::2] << 16).view(np.int32))


class Control(KernelTest):
    KERNEL = f"""
    func.func @k(%n: memref<4xi32, {SMEM}>, %y: memref<4xi32, {SMEM}>) attributes {{{PLAIN}, scratch_operands = 0 : i64}} {{
      %z = arith.constant 0 : index
      %i1 = arith.constant 1 : index
      %c0 = arith.constant 0 : i32
      %c1 = arith.constant 1 : i32
      %c3 = arith.constant 3 : i32
      %limit = memref.load %n[%z] : memref<4xi32, {SMEM}>
      %sum:2 = scf.for %i = %c0 to %limit step %c3 iter_args(%a = %c0, %b = %c1) -> (i32, i32) : i32 {{
        %odd = arith.andi %i, %c1 : i32
        %is_odd = arith.cmpi eq, %odd, %c1 : i32
        %t = scf.if %is_odd -> (i32) {{
          %u = arith.addi %a, %i : i32
          scf.yield %u : i32
        }} else {{
          scf.yield %a : i32
        }} {{nucleus.branch = "odd"}}
        scf.yield %b, %t : i32, i32
      }} {{nucleus.loop = "threes"}}
      %w = scf.while (%x = %limit) : (i32) -> i32 {{
        %go = arith.cmpi sgt, %x, %c1 : i32
        scf.condition(%go) %x : i32
      }} do {{
      ^bb0(%x: i32):
        %half = arith.shrsi %x, %c1 : i32
        scf.yield %half : i32
      }}
      memref.store %sum#0, %y[%z] : memref<4xi32, {SMEM}>
      memref.store %w, %y[%i1] : memref<4xi32, {SMEM}>
      return
    }}"""

    @staticmethod
    def expected(limit):
        a, b = 0, 1
        for i in range(0, limit, 3):
            a, b = b, a + i if i & 1 else a
        return a

    def test_trip_counts(self):
        for limit in (20, 0, 1):
            n = np.array([limit, 0, 0, 0], np.int32)
            (y,), report = self.run_kernel(self.KERNEL, [n], ["4xi32"], ["4xi32"])
            self.assertEqual(int(y[0]), self.expected(limit))
            self.assertEqual(int(y[1]), min(limit, 1))
            self.assertEqual(int(y[2]), UNINITIALIZED)
            trips = len(range(0, limit, 3))
            loop, branch, search = report["loops"]
            self.assertEqual((loop["kind"], loop["name"], loop["index"]), ("for", "threes", 0))
            self.assertEqual((loop["entered"], loop["iterations"]), (1, trips))
            self.assertEqual((branch["name"], branch["then"], branch["else"]), ("odd", trips // 2, trips - trips // 2))
            self.assertEqual((search["kind"], search["iterations"]), ("while", max(limit.bit_length() - 1, 0)))
            self.assertNotIn("name", search)

    def test_lines(self):
        outer = Outer(program(self.KERNEL, ["4xi32"], ["4xi32"]))
        lines = [loop["line"] for loop in outer.report()[0]["loops"]]
        text = self.KERNEL.split("\n")
        self.assertIn("scf.for", text[lines[0] - 1])
        self.assertIn("scf.while", text[lines[2] - 1])

    def test_endless(self):
        kernel = self.KERNEL.replace("arith.shrsi %x, %c1", "arith.addi %x, %c0")
        n = np.array([5, 0, 0, 0], np.int32)
        options = Options(max_iterations=1000)
        self.assert_fails("scf.while at .*: more than 1000 iterations", kernel, [n], ["4xi32"], ["4xi32"], options)

    def test_calls(self):
        kernel = f"""
        func.func @k(%n: memref<4xi32, {SMEM}>, %y: memref<4xi32, {SMEM}>) attributes {{{PLAIN}, scratch_operands = 0 : i64}} {{
          %z = arith.constant 0 : index
          %v = memref.load %n[%z] : memref<4xi32, {SMEM}>
          %a, %b = func.call @both(%v) : (i32) -> (i32, i32)
          %c:2 = func.call @both(%a) : (i32) -> (i32, i32)
          %s = arith.addi %b, %c#1 : i32
          memref.store %s, %y[%z] : memref<4xi32, {SMEM}>
          return
        }}
        func.func private @both(%a: i32) -> (i32, i32) {{
          %c7 = arith.constant 7 : i32
          %s = arith.addi %a, %c7 : i32
          %p = arith.muli %a, %c7 : i32
          return %s, %p : i32, i32
        }}"""
        n = np.array([3, 0, 0, 0], np.int32)
        (y,), _ = self.run_kernel(kernel, [n], ["4xi32"], ["4xi32"])
        self.assertEqual(int(y[0]), 21 + 70)
