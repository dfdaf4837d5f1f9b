"""Tests of loads, stores and atomics, and of errors of memory: bounds, bytes that were never written, and races."""

import numpy as np

from ..options import Options
from .test_helpers import SCHEDULES, PtxTest, kernel

U32 = np.uint32
INDEX = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd10, %r1, 4; add.u64 %rd11, %rd1, %rd10;"
SHARED = ".shared .align 16 .b8 s[256]; shl.b32 %r9, %r1, 2; mov.u32 %r8, s; add.u32 %r9, %r8, %r9;"


class Loads(PtxTest):
    def test_sizes(self):
        x = np.arange(64, dtype=np.uint8) * 5 + 1
        body = """ld.global.u8 %r1, [%rd1+3]; ld.global.u16 %h1, [%rd1+6]; cvt.u32.u16 %r2, %h1;
        ld.global.v2.u32 {%r3, %r4}, [%rd1+8];
        ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%rd1+16]; ld.global.u64 %rd3, [%rd1+32]; ld.global.s8 %r9, [%rd1+60];
        ld.global.u16 %r10, [%rd1+62];
        mov.b64 {%r11, %r12}, %rd3; mov.u32 %r13, %tid.x; setp.ne.u32 %p1, %r13, 0; @%p1 exit;
        st.global.v4.u32 [%rd2], {%r1, %r2, %r3, %r4}; st.global.v4.u32 [%rd2+16], {%r5, %r6, %r7, %r8};
        st.global.v2.u32 [%rd2+32], {%r11, %r12}; st.global.u32 [%rd2+40], %r9; st.global.u32 [%rd2+44], %r10;
        exit;"""
        (y,) = self.run_body(body, [x], ["12xui32"])
        words = x.view(U32)
        signed = int(x[60:61].view(np.int8)[0]) & 0xFFFFFFFF
        expected = [x[3], x[6:8].view(np.uint16)[0], *words[2:8], *words[8:10], signed, x[62:].view(np.uint16)[0]]
        np.testing.assert_array_equal(y, np.array([int(n) for n in expected], U32))

    def test_small_stores(self):
        body = """mov.u32 %r1, %tid.x; cvt.u64.u32 %rd2, %r1; add.u64 %rd2, %rd1, %rd2; add.u32 %r2, %r1, 250;
        st.global.u8 [%rd2], %r2; exit;"""
        (y,) = self.run_body(body, [], ["32xui8"])
        np.testing.assert_array_equal(y, np.arange(250, 282).astype(np.uint8))

    def test_bounds(self):
        x = np.zeros(32, U32)
        read = INDEX + "ld.global.u32 %r2, [%rd11{}]; exit;"
        self.run_body(read.format(""), [x], ["1xui32"])
        for offset, pattern in [
            ("+4", "4 bytes at 128 of operand 0, which has 128 bytes .thread 31 of block 0"),
            ("-4", "4 bytes at -4 of operand 0"),
            ("+2", "is not a multiple of 4"),
            ("+1099511627776", "4 bytes at 0 of result 0|4 bytes at .* of result 0"),
            ("-1099511627776", "is in no buffer"),
        ]:
            self.assert_body_fails(pattern, read.format(offset), [x], ["1xui32"])
        self.assert_body_fails(
            "is not a multiple of 16", INDEX + "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd11]; exit;", [x], ["1xui32"]
        )

    def test_addresses_of_32_bits(self):
        """An address that is computed with only 32 bits is outside the buffer."""
        body = (
            INDEX + "mov.b64 {%r2, %r3}, %rd1; shl.b32 %r4, %r1, 2; add.u32 %r2, %r2, %r4; "
            "mov.b64 %rd5, {%r2, %r3}; ld.global.u32 %r5, [%rd5]; exit;"
        )
        self.assert_body_fails("bytes at -4294967", body, [np.zeros(64, U32)], ["1xui32"], block=64)

    def test_operands_are_read_only(self):
        x = np.zeros(32, U32)
        self.assert_body_fails(
            "writes operand 0, which is an operand without an alias",
            INDEX + "st.global.u32 [%rd11], %r1; exit;",
            [x],
            ["1xui32"],
        )
        body = INDEX + "ld.global.nc.u32 %r2, [%rd11]; exit;"
        self.run_body(body, [x], ["1xui32"])
        self.assert_body_fails(
            ".nc reads operand 0, which the kernel can write", body, [x], ["32xui32"], aliases={0: 0}
        )

    def test_bytes_that_were_never_written(self):
        self.assert_body_fails(
            "reads 4 bytes at 0 of result 0, which were never written",
            INDEX + "ld.global.u32 %r2, [%rd11]; exit;",
            [],
            ["32xui32"],
        )
        half = INDEX + "cvt.u16.u32 %h1, %r1; st.global.u16 [%rd11], %h1; ld.global.u32 %r2, [%rd11]; exit;"
        self.assert_body_fails("reads 4 bytes at 0 of result 0, which were never written", half, [], ["32xui32"])
        body = INDEX + SHARED + "ld.shared.u32 %r2, [%r9]; exit;"
        self.assert_body_fails("ld.shared.u32 .*, which were never written", body, [], ["1xui32"])
        self.assert_body_fails(
            "atom.shared.add.u32 .*, which were never written",
            INDEX + SHARED + "atom.shared.add.u32 %r2, [%r9], 1; exit;",
            [],
            ["1xui32"],
        )

    def test_shared_bounds(self):
        body = INDEX + SHARED + ".shared .align 4 .b32 other; st.shared.u32 [%r9+{}], %r1; exit;"
        self.run_body(body.format(128), [], ["1xui32"])
        self.assert_body_fails("4 bytes at .* are in no array of shared memory", body.format(132), [], ["1xui32"])
        self.assert_body_fails("4 bytes at 0 are in no array", "st.shared.u32 [0], 1; exit;", [], ["1xui32"])

    def test_dynamic_shared_memory(self):
        ptx = kernel(
            INDEX + "shl.b32 %r9, %r1, 2; mov.u32 %r8, dynamic; add.u32 %r9, %r8, %r9; st.shared.u32 [%r9], %r1; exit;",
            1,
        )
        ptx = ptx.replace(".visible", ".extern .shared .align 16 .b8 dynamic[];\n.visible")
        self.run_program(ptx, [], ["1xui32"], shared_bytes=128)
        self.assert_fails("are in no array", ptx, [], ["1xui32"], shared_bytes=124)

    def test_registers_that_were_never_written(self):
        store = "st.global.u32 [%rd11], %r2; exit;"
        one_side = INDEX + "setp.ne.u32 %p1, %r1, 5; @%p1 mov.u32 %r2, 1;" + store
        self.assert_body_fails(
            "st.global.u32 at line .*: thread 5 of block 0 reads %r2, which it has not written",
            one_side,
            [],
            ["32xui32"],
        )
        self.run_body(
            INDEX + "setp.ne.u32 %p1, %r1, 5; @%p1 mov.u32 %r2, 1; @!%p1 mov.u32 %r2, 2;" + store, [], ["32xui32"]
        )
        self.assert_body_fails(
            "thread 0 of block 0 reads %p3", INDEX + "@%p3 mov.u32 %r2, 1; mov.u32 %r2, 2;" + store, [], ["32xui32"]
        )
        self.assert_body_fails(
            "thread 0 of block 0 reads %p3", INDEX + "mov.u32 %r2, 2; @%p3 bra end; end:" + store, [], ["32xui32"]
        )
        loop = (
            INDEX + "mov.u32 %r3, 0; next: setp.eq.u32 %p1, %r3, {}; @%p1 mov.u32 %r2, 7; add.u32 %r3, %r3, 1; "
            "setp.lt.u32 %p2, %r3, 3; @%p2 bra next;"
        )
        self.run_body(loop.format(2) + store, [], ["32xui32"])
        self.assert_body_fails("reads %r2", loop.format(3) + store, [], ["32xui32"])


class Atomics(PtxTest):
    def one_location(self, op, type, x, start, options):
        """Each thread runs an atomic on the same word. Returns the word, and the old values in the order of the
        threads."""
        bits = int(type[1:])
        r, size = ("%r2", 4) if bits == 32 else ("%rd20", 8)
        old = "%r3" if bits == 32 else "%rd21"
        ptx = kernel(
            f"""mov.u32 %r1, %tid.x; mul.wide.u32 %rd10, %r1, {size}; add.u64 %rd11, %rd1, %rd10;
        ld.global.{type} {r}, [%rd11];
        atom.relaxed.gpu.global.{op}.{type} {old}, [%rd3], {r}; add.u64 %rd12, %rd4, %rd10;
        st.global.u{bits} [%rd12], {old}; exit;""",
            4,
        )
        start = np.array([start], x.dtype)
        word, found = self.run_program(ptx, [x, start], [f"1xui{bits}", f"32xui{bits}"], options, aliases={0: 1})
        return word[0], found

    def test_one_location(self):
        rng = np.random.default_rng(3)
        for bits in (32, 64):
            dtype = np.dtype(f"u{bits // 8}")
            x = rng.integers(0, 2**bits, 32, dtype)
            for op, type, function in [
                ("add", f"u{bits}", np.add),
                ("max", f"u{bits}", np.maximum),
                ("min", f"s{bits}", None),
                ("or", f"b{bits}", np.bitwise_or),
                ("and", f"b{bits}", np.bitwise_and),
                ("xor", f"b{bits}", np.bitwise_xor),
            ]:
                for options in SCHEDULES[:2]:
                    word, old = self.one_location(op, type, x, 0x55, options)
                    if function is None:
                        expected = np.append(x, dtype.type(0x55)).view(f"i{bits // 8}").min().view(dtype)
                    else:
                        expected = function.reduce(np.append(x, dtype.type(0x55)), dtype=dtype)
                    self.assertEqual(word, expected, op)
                    # One of the threads was first and has read the initial value.
                    self.assertIn(0x55, old)
                    if op == "add" and options.schedule == "sequential":
                        np.testing.assert_array_equal(old, np.cumsum(np.append(dtype.type(0x55), x), dtype=dtype)[:-1])

    def test_reductions(self):
        """Two threads with consecutive numbers reduce into the same word. Some values are negative."""
        x = np.arange(32, dtype=np.int32) * 3 - 5
        for op, type, function in [
            ("add", "s32", np.add),
            ("min", "s32", np.minimum),
            ("max", "s32", np.maximum),
            ("xor", "b32", np.bitwise_xor),
        ]:
            ptx = kernel(
                INDEX
                + f"""ld.global.u32 %r2, [%rd11]; shr.u32 %r3, %r1, 1; mul.wide.u32 %rd12, %r3, 4;
        add.u64 %rd12, %rd3, %rd12;
            red.global.{op}.{type} [%rd12], %r2; exit;""",
                3,
            )
            for options in SCHEDULES[:2]:
                (y,) = self.run_program(ptx, [x, np.full(16, 4, np.int32)], ["16xi32"], options, aliases={0: 1})
                np.testing.assert_array_equal(y, function(function(x[::2], x[1::2]), np.int32(4)), op)

    def test_counters(self):
        x = np.full(32, 9, U32)
        for seed in range(3):
            word, old = self.one_location("inc", "u32", x, 3, Options(schedule="random", seed=seed))
            self.assertEqual(sorted(old), sorted([*range(3, 10), *list(range(10)) * 2, *range(5)]))
            self.assertEqual(word, 5)
        word, old = self.one_location("dec", "u32", x, 3, Options())
        np.testing.assert_array_equal(old[:6], [3, 2, 1, 0, 9, 8])
        word, old = self.one_location("exch", "b32", np.arange(32, dtype=U32), 77, Options())
        self.assertEqual((word, list(old[:3])), (31, [77, 0, 1]))

    def test_cas(self):
        """Exactly one thread finds the word 0, and replaces it."""
        ptx = kernel(
            INDEX
            + """add.u32 %r2, %r1, 1; atom.global.cas.b32 %r3, [%rd2], 0, %r2;
        mul.wide.u32 %rd10, %r1, 4; add.u64 %rd12, %rd3, %rd10; st.global.u32 [%rd12], %r3; exit;""",
            3,
        )
        for options in SCHEDULES:
            word, old = self.run_program(ptx, [np.zeros(1, U32)], ["1xui32", "32xui32"], options, aliases={0: 0})
            self.assertEqual(np.count_nonzero(old == 0), 1)
            self.assertEqual(word[0], np.flatnonzero(old == 0)[0] + 1)

    def test_spread_locations(self):
        """A histogram in shared memory."""
        x = np.random.default_rng(4).integers(0, 8, 64, U32)
        body = (
            INDEX
            + SHARED
            + """st.shared.u32 [%r9], 0; bar.sync 0; ld.global.u32 %r2, [%rd11]; mad.lo.u32 %r3, %r2, 4, %r8;
        red.shared.add.u32 [%r3], 1; bar.sync 0; ld.shared.u32 %r4, [%r9]; add.u64 %rd12, %rd2, %rd10;
        st.global.u32 [%rd12], %r4; exit;"""
        )
        (y,) = self.run_body(body, [x], ["64xui32"], block=64)
        np.testing.assert_array_equal(y, np.bincount(x, minlength=64))

    def test_unsupported(self):
        for text in (
            "atom.global.add.f32 %f1, [%rd1], 0f00000000;",
            "atom.global.inc.u64 %rd5, [%rd1], 1;",
            "red.global.exch.b32 [%rd1], 1;",
            "atom.relaxed.sys.global.add.u32 %r1, [%rd1], 1;",
            "atom.cta.global.add.u32 %r1, [%rd1], 1;",
        ):
            self.assert_body_fails("the scope|of .f32|of .u64|of .b32", text + " exit;", [], ["1xui32"])


class Races(PtxTest):
    """Races between the threads of a block, and between blocks."""

    def fails(self, pattern, body, block=64, grid=1, outputs=("64xui32",), options=Options()):
        self.assert_body_fails(pattern, body, [], list(outputs), options, block=block, grid=grid)

    def test_shared_memory(self):
        start = (
            INDEX + SHARED + "st.shared.u32 [%r9], %r1; {} sub.u32 %r2, 63, %r1; mad.lo.u32 %r2, %r2, 4, %r8; "
            "ld.shared.u32 %r3, [%r2]; exit;"
        )
        self.run_body(start.format("bar.sync 0;"), [], ["1xui32"], block=64)
        self.fails(
            "thread 0 of block 0 races with a write by thread 63 of the same block .read of byte 508", start.format("")
        )
        # A barrier of a warp orders the lanes of the warp. It does not order different warps.
        self.fails("races with a write by thread 63", start.format("bar.warp.sync 0xffffffff;"))
        inside = start.replace("sub.u32 %r2, 63, %r1;", "xor.b32 %r2, %r1, 31;")
        self.run_body(inside.format("bar.warp.sync 0xffffffff;"), [], ["1xui32"], block=64)
        self.fails("races with a write by thread 31", inside.format(""))

    def test_write_after_read(self):
        body = (
            INDEX
            + SHARED
            + """st.shared.u32 [%r9], %r1; bar.sync 0; ld.shared.u32 %r2, [s+20]; {} setp.eq.u32 %p1, %r1, {};
        @%p1 st.shared.u32 [s+20], 1; exit;"""
        )
        self.run_body(body.format("bar.sync 0;", 5), [], ["1xui32"], block=64)
        self.fails("thread 5 of block 0 races with a read by several threads", body.format("", 5))
        self.fails(
            "thread 5 of block 0 races with a read by several threads", body.format("bar.warp.sync 0xffffffff;", 5)
        )
        self.assert_body_fails("thread 5 of block 0 races with a read by warp 0", body.format("", 5), [], ["1xui32"])
        self.run_body(body.format("bar.warp.sync 0xffffffff;", 5), [], ["1xui32"])

    def test_one_instruction(self):
        self.fails("threads . and .* of block 0 write byte 0 in the same instruction", "st.global.u32 [%rd1], 1; exit;")
        overlapping = """mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 1; @%p1 exit; shl.b32 %r2, %r1, {};
        cvt.u64.u32 %rd2, %r2; add.u64 %rd2, %rd1, %rd2; st.global.{} exit;"""
        self.run_body(overlapping.format(3, "v2.u32 [%rd2], {%r1, %r1};"), [], ["64xui32"])
        # Vectors that overlap by one word.
        self.assert_body_fails(
            "thread 1 of block 0 races with a write by thread 0 of the same block|thread 0 .* by thread 1",
            overlapping.format(2, "u32 [%rd2], %r1; st.global.u32 [%rd2+4], %r1;"),
            [],
            ["64xui32"],
        )

    def test_bytes_beside_each_other(self):
        body = (
            "mov.u32 %r1, %tid.x; cvt.u64.u32 %rd2, %r1; add.u64 %rd2, %rd1, %rd2; st.global.u8 [%rd2], %r1; {} exit;"
        )
        self.run_body(body.format(""), [], ["64xui32"], block=64)
        self.fails(
            "races with a write by thread 1 ",
            body.format("setp.ne.u32 %p1, %r1, 0; @%p1 exit; ld.global.u32 %r2, [%rd1];"),
        )

    def test_atomics_and_weak_accesses(self):
        zero = INDEX + SHARED + "st.shared.u32 [%r9], 0; bar.sync 0; {}"
        for first, second in [
            ("red.shared.add.u32 [s], 1;", "ld.shared.u32 %r3, [s];"),
            ("ld.shared.u32 %r3, [s];", "red.shared.add.u32 [s], 1;"),
        ]:
            self.fails("races with a (strong write|read)", zero.format(f"{first} {second} exit;"))
            self.run_body(zero.format(f"{first} bar.sync 0; {second} exit;"), [], ["1xui32"], block=64)
        self.run_body(
            zero.format("red.shared.add.u32 [s], 1; ld.volatile.shared.u32 %r3, [s]; exit;"), [], ["1xui32"], block=64
        )

    BLOCKS = """mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; setp.ne.u32 %p1, %r1, 0; @%p1 exit;
        mul.wide.u32 %rd10, %r2, 4;
    add.u64 %rd11, %rd1, %rd10; """

    def test_blocks_are_not_ordered(self):
        """Block 1 starts after the end of block 0. But nothing establishes this order."""
        body = (
            self.BLOCKS
            + "setp.eq.u32 %p2, %r2, 0; @%p2 st.global.u32 [%rd1], 1; @%p2 exit; {} ld.{}global.u32 %r3, [%rd1]; exit;"
        )
        for between in ("", "fence.acq_rel.gpu;", "membar.gl;"):
            self.fails(
                "thread 0 of block 1 races with a write by thread 0 of block 0", body.format(between, ""), grid=2
            )
        self.fails(
            "block 1 races with a write by thread 0 of block 0 .strong read", body.format("", "relaxed.gpu."), grid=2
        )
        self.fails(
            "races with a write by thread 0 of block [01] .write of byte 0",
            self.BLOCKS + "st.global.u32 [%rd1], 1; exit;",
            grid=2,
        )
        # Strong writes of different blocks do not race. Weak accesses of different words do not race.
        self.run_body(
            self.BLOCKS + "st.global.u32 [%rd11], 1; ld.global.u32 %r3, [%rd11]; exit;", [], ["64xui32"], grid=2
        )
        self.run_body(self.BLOCKS + "st.relaxed.gpu.global.u32 [%rd1], 1; exit;", [], ["64xui32"], grid=2)

    # Block 0 writes a word with each of its threads and sets a flag. Block 1 waits for the flag and reads the words.
    MESSAGE = """mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd10, %r1, 4; add.u64 %rd11, %rd2, %rd10;
    setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0; @%p2 bra reader;
    st.global.u32 [%rd11], %r1; {written} @%p1 exit; {send} exit;
    reader: @%p1 bra waited;
    spin: {receive} setp.eq.u32 %p3, %r3, 0; @%p3 bra spin; {received}
    waited: {waited} ld.global.u32 %r4, [%rd11]; exit;"""
    PARTS = dict(
        written="bar.sync 0;",
        send="fence.acq_rel.gpu; st.relaxed.gpu.global.u32 [%rd1], 1;",
        receive="ld.relaxed.gpu.global.u32 %r3, [%rd1];",
        received="fence.acq_rel.gpu;",
        waited="bar.sync 0;",
    )

    def message(self, pattern=None, **parts):
        body = self.MESSAGE.format(**self.PARTS | parts)
        for options in SCHEDULES:
            launch = dict(grid=2, block=64, aliases={0: 0})
            arguments = (body, [np.zeros(1, U32)], ["1xui32", "64xui32"], options)
            # The first two parameters, an operand that is 0 and its result, are the same memory.
            arguments = (arguments[0].replace("%rd2,", "%rd3,").replace("[%rd1]", "[%rd2]"), *arguments[1:])
            if pattern is None:
                self.run_body(*arguments, **launch)
            else:
                self.assert_body_fails(pattern, *arguments, **launch)

    def test_messages(self):
        self.message()
        self.message(
            send="st.release.gpu.global.u32 [%rd1], 1;", receive="ld.acquire.gpu.global.u32 %r3, [%rd1];", received=""
        )
        self.message(
            send="fence.sc.gpu; red.relaxed.gpu.global.add.u32 [%rd1], 1;",
            receive="atom.acquire.gpu.global.or.b32 %r3, [%rd1], 0;",
            received="",
        )
        self.message(
            send="membar.gl; st.volatile.global.u32 [%rd1], 1;",
            receive="ld.volatile.global.u32 %r3, [%rd1];",
            received="membar.gl;",
        )
        # The atomic continues the release that it observes.
        self.message(send="st.release.gpu.global.u32 [%rd1], 1; red.relaxed.gpu.global.add.u32 [%rd1], 1;")

    def test_broken_messages(self):
        race = "ld.global.u32 .*races with a write by thread .* of block 0 .*no release and acquire order them"
        self.message(race, send="st.relaxed.gpu.global.u32 [%rd1], 1;")
        self.message(race, received="")
        self.message(race, waited="")
        self.message(race, written="")
        # The fence is before the barrier, so it publishes only the words of one thread.
        self.message(race, written="fence.acq_rel.gpu; bar.sync 0;", send="st.relaxed.gpu.global.u32 [%rd1], 1;")
        # The fence is after the store of the flag.
        self.message(race, send="st.relaxed.gpu.global.u32 [%rd1], 1; fence.acq_rel.gpu;")
        # The fence is before the load of the flag.
        self.message(race, receive="fence.acq_rel.gpu; ld.relaxed.gpu.global.u32 %r3, [%rd1];", received="")
        # A weak flag.
        self.message(
            "ld.relaxed.*races with a write|st.global.u32 .*races with a strong read",
            send="fence.acq_rel.gpu; st.global.u32 [%rd1], 1;",
        )
        # A release does not publish what the writer does after it.
        self.message(race, send="st.release.gpu.global.u32 [%rd1], 1; st.global.u32 [%rd11], 5;")
