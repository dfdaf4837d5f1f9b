"""Tests of barriers, and of exchanges between lanes."""

import numpy as np

from ..options import Options
from .test_helpers import PtxTest

U32 = np.uint32
ALL = "0xffffffff"
INDEX = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd10, %r1, 4; add.u64 %rd11, %rd1, %rd10;"


class Lanes(PtxTest):
    def lanes(self, body, count=32):
        """Runs instructions that compute %r5 from the thread's number in %r1, and returns %r5 of all threads."""
        (found,) = self.run_body(
            f"{INDEX}\n{body}\nst.global.u32 [%rd11], %r5; ret;", [], [f"{count}xui32"], block=count
        )
        return found

    def lanes_fail(self, pattern, body, count=32):
        self.assert_body_fails(
            pattern, f"{INDEX}\n{body}\nst.global.u32 [%rd11], %r5; ret;", [], [f"{count}xui32"], block=count
        )

    def test_shuffles(self):
        """The oracle is the pseudocode of the manual, lane by lane."""

        def source(mode, lane, b, c):
            segment, clamp = c >> 8 & 31, c & 31
            high, low = lane & segment | clamp & ~segment & 31, lane & segment
            j, inside = {
                "up": (lane - b, lane - b >= high),
                "down": (lane + b, lane + b <= high),
                "bfly": (lane ^ b, lane ^ b <= high),
                "idx": (low | b & ~segment & 31, (low | b & ~segment & 31) <= high),
            }[mode]
            return (j if inside else lane), inside

        for mode in ("up", "down", "bfly", "idx"):
            for b in (0, 1, 5, 16, 31):
                for c in (0, 31, 0x1F, 0x181F, 0x1C07, 0x1000):
                    body = f"""add.u32 %r2, %r1, 100; shfl.sync.{mode}.b32 %r3|%p1, %r2, {b}, {c}, {ALL};
                    selp.u32 %r4, 1000, 0, %p1; add.u32 %r5, %r3, %r4;"""
                    expected = []
                    for lane in range(64):
                        j, inside = source(mode, lane % 32, b, c)
                        expected.append(100 + lane // 32 * 32 + j + (1000 if inside else 0))
                    np.testing.assert_array_equal(self.lanes(body, 64), expected, f"{mode} {b} {c}")

    def test_votes(self):
        odd = "and.b32 %r2, %r1, 3; setp.eq.u32 %p1, %r2, 3;"
        np.testing.assert_array_equal(self.lanes(f"{odd} vote.sync.ballot.b32 %r5, %p1, {ALL};", 64), 0x88888888)
        np.testing.assert_array_equal(self.lanes(f"{odd} vote.sync.ballot.b32 %r5, !%p1, {ALL};"), 0x77777777)
        np.testing.assert_array_equal(self.lanes(f"vote.sync.ballot.b32 %r5, 1, {ALL};"), 0xFFFFFFFF)
        for mode, test, expected in [
            ("any", "setp.eq.u32 %p1, %r1, 40;", [0, 1]),
            ("all", "setp.lt.u32 %p1, %r1, 40;", [1, 0]),
            ("uni", "setp.lt.u32 %p1, %r1, 40;", [1, 0]),
            ("all", "setp.lt.u32 %p1, %r1, 32;", [1, 0]),
        ]:
            got = self.lanes(f"{test} vote.sync.{mode}.pred %p2, %p1, {ALL}; selp.u32 %r5, 1, 0, %p2;", 64)
            np.testing.assert_array_equal(got, np.repeat(expected, 32))

    def test_reductions(self):
        x = np.arange(64).reshape(2, 32) * 7 % 31 - 10
        for op, type, function in [
            ("add", "s32", np.sum),
            ("min", "s32", np.min),
            ("max", "s32", np.max),
            ("or", "b32", np.bitwise_or.reduce),
        ]:
            body = f"""mul.lo.u32 %r2, %r1, 7; rem.u32 %r2, %r2, 31; sub.s32 %r2, %r2, 10;
            redux.sync.{op}.{type} %r5, %r2, {ALL};"""
            expected = np.repeat([int(function(row)) & 0xFFFFFFFF for row in x], 32)
            np.testing.assert_array_equal(self.lanes(body, 64), expected)
        got = self.lanes(f"sub.s32 %r2, %r1, 10; redux.sync.max.u32 %r5, %r2, {ALL};")
        np.testing.assert_array_equal(got, 0xFFFFFFFF)

    def test_lane_masks(self):
        lane = np.arange(64) % 32
        for name, expected in [
            ("eq", 1 << lane),
            ("lt", (1 << lane) - 1),
            ("le", (2 << lane) - 1),
            ("gt", 2**32 - (2 << lane)),
            ("ge", 2**32 - (1 << lane)),
        ]:
            np.testing.assert_array_equal(self.lanes(f"mov.u32 %r5, %lanemask_{name};", 64), expected)

    def test_parts_of_a_warp(self):
        """The halves of a warp take different sides of a branch. The lanes of each half exchange values there."""
        body = """setp.lt.u32 %p1, %r1, 16; @%p1 bra low;
        redux.sync.add.u32 %r5, %r1, 0xffff0000; bra end;
        low: redux.sync.add.u32 %r5, %r1, 0x0000ffff;
        end: activemask.b32 %r6; setp.ne.u32 %p2, %r6, 0xffffffff; @%p2 trap;"""
        np.testing.assert_array_equal(self.lanes(body), np.repeat([120, 376], 16))
        same = "setp.lt.u32 %p1, %r1, 16; selp.b32 %r2, 0xffff, 0xffff0000, %p1; redux.sync.add.u32 %r5, %r1, %r2;"
        np.testing.assert_array_equal(self.lanes(same), np.repeat([120, 376], 16))

    def test_lanes_that_arrive_later(self):
        """One lane takes a longer path. The other lanes wait for it."""
        body = f"""setp.ne.u32 %p1, %r1, 3; @%p1 bra meet;
        bra far;
        meet: redux.sync.add.u32 %r5, %r1, {ALL}; bra end;
        far: bra meet;
        end: mov.u32 %r6, 0;"""
        np.testing.assert_array_equal(self.lanes(body), 496)

    def test_lanes_that_do_not_participate(self):
        self.lanes_fail(
            "cannot continue: thread 0 waits at vote.sync.ballot.b32 at line .* for lanes in its mask that do not",
            f"setp.gt.u32 %p1, %r1, 9; mov.u32 %r5, 0; @%p1 bra end; vote.sync.ballot.b32 %r5, 1, {ALL}; end:",
        )
        self.lanes_fail(
            "waits at shfl.sync.idx.b32",
            f"setp.eq.u32 %p1, %r1, 9; @%p1 exit; shfl.sync.idx.b32 %r5, %r1, 9, 31, {ALL};",
        )
        self.lanes_fail("thread 2 of block 0 is not in its mask", "vote.sync.ballot.b32 %r5, 1, 3;")
        self.lanes_fail(
            "thread 16 of block 0 reads lane 0, which is not in its mask",
            """setp.lt.u32 %p1, %r1, 16; selp.b32 %r2, 0xffff, 0xffff0000, %p1;
                        shfl.sync.idx.b32 %r5, %r1, 0, 31, %r2;""",
        )
        self.lanes_fail(
            "the lanes in the mask of thread 0 of block 0 have other masks",
            """setp.lt.u32 %p1, %r1, 16; selp.b32 %r2, 0xffffffff, 0xffff0000, %p1;
            redux.sync.add.u32 %r5, %r1, %r2;""",
        )
        self.lanes_fail("a guard", f"setp.lt.u32 %p1, %r1, 16; @%p1 redux.sync.add.u32 %r5, %r1, {ALL};")

    def test_uniform_branches(self):
        self.lanes("mov.u32 %r5, 1; setp.lt.u32 %p1, %r1, 32; @%p1 bra.uni end; mov.u32 %r5, 2; end:", 64)
        self.lanes_fail(
            "take both sides of bra.uni",
            "mov.u32 %r5, 1; setp.lt.u32 %p1, %r1, 31; @%p1 bra.uni end; mov.u32 %r5, 2; end:",
            64,
        )


class Barriers(PtxTest):
    def test_reductions(self):
        body = (
            INDEX
            + """setp.ge.u32 %p1, %r1, 10;
        bar.red.popc.u32 %r2, 0, %p1; bar.red.and.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, !%p1;
        selp.u32 %r3, 1000, 0, %p2; selp.u32 %r4, 2000, 0, %p3;
        add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r4; st.global.u32 [%rd11], %r2; exit;"""
        )
        (got,) = self.run_body(body, [], ["64xui32"], block=64)
        np.testing.assert_array_equal(got, 2054)

    def test_threads_that_do_not_arrive(self):
        body = (
            INDEX + "setp.ne.u32 %p1, %r1, 5; @%p1 bra in; wait: bra wait2; "
            "wait2: vote.sync.ballot.b32 %r2, 1, 0xffffffff; in: bar.sync 0; exit;"
        )
        self.assert_body_fails(
            "63 of 64 threads wait at the barrier bar.sync at line .*thread 5 waits at vote.sync",
            body,
            [],
            ["1xui32"],
            block=64,
        )
        two = INDEX + "setp.lt.u32 %p1, %r1, 32; @%p1 bra low; bar.sync 0; exit; low: bar.sync 0; exit;"
        self.assert_body_fails("wait at different barriers", two, [], ["1xui32"], block=64)

    def test_threads_that_ended(self):
        """A barrier waits only for the threads that have not ended."""
        body = INDEX + "setp.ge.u32 %p1, %r1, 40; @%p1 exit; bar.sync 0; st.global.u32 [%rd11], %r1; exit;"
        (got,) = self.run_body(body, [], ["64xui32"], block=64)
        np.testing.assert_array_equal(got[:40], np.arange(40))

    def test_other_barriers(self):
        for text in ("bar.sync 1;", "bar.sync 0, 64;", "bar.arrive 0, 64;"):
            self.assert_body_fails("only barrier 0|operands|needs one of .sync", text + " exit;", [], ["1xui32"])

    def test_endless_loops(self):
        self.assert_body_fails(
            "took more than 1000 backward branches", "again: bra again;", [], ["1xui32"], Options(max_iterations=1000)
        )
        self.assert_body_fails("the end of the kernel", "mov.u32 %r1, 0;", [], ["1xui32"])

    def test_trap(self):
        body = INDEX + "setp.eq.u32 %p1, %r1, 7; @%p1 trap; exit;"
        self.assert_body_fails("thread 7 of block 0 executes trap", body, [], ["1xui32"])
