"""Tests of whole kernels."""

from pathlib import Path

import numpy as np

from ..errors import ProgramError
from ..options import Options
from ..outer import Outer
from .test_helpers import PROGRAMS, SCHEDULES, PtxTest, file, kernel, program, tensor

U32 = np.uint32


def random_words(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, shape, U32)


class Programs(PtxTest):
    """Tests of the programs in the directory `programs`. tests/gpu assembles these programs with ptxas."""

    def test_every_program_is_tested(self):
        source = Path(__file__).read_text()
        for path in PROGRAMS.glob("*.ptx"):
            self.assertIn(f'file("{path.stem}")', source)

    def test_sum_by_a_tree(self):
        x = random_words((5, 64))
        for options in SCHEDULES:
            (y,) = self.run_program(file("sum_tree"), [x], ["5xui32"], options, grid=5, block=64)
            np.testing.assert_array_equal(y, x.sum(1, dtype=U32))

    def test_sum_by_atomics(self):
        x, before = random_words(128), np.array([7], U32)
        for options in SCHEDULES:
            (y,) = self.run_program(
                file("sum_atomics"), [x, before], ["1xui32"], options, grid=2, block=64, aliases={0: 1}
            )
            np.testing.assert_array_equal(y, [x.sum(dtype=U32) + U32(7)])
        self.assertEqual(before[0], 7)

    ARGMAX = dict(grid=6, block=128, aliases={0: 1})

    def argmax(self, ptx, x, options=Options(), **launch):
        outputs = ["3xui32", "6xui64", "3xui32"]
        return self.run_program(ptx, [x, np.zeros(3, U32)], outputs, options, **self.ARGMAX | launch)

    def rows(self):
        x = np.random.default_rng(1).standard_normal((3, 512)).astype(np.float32)
        x[0, [100, 101, 300]] = 50  # equal floats in one thread and in the other block
        x[1] = -(x[1] ** 2)
        x[1, [200, 457]] = 0.0
        x[2, 511] = np.inf
        return x

    def test_last_block_finishes(self):
        x = self.rows()
        for options in [*SCHEDULES, Options(resident=1), Options(schedule="random", seed=9, resident=2)]:
            tickets, _, y = self.argmax(file("argmax"), x, options)
            np.testing.assert_array_equal(y, x.argmax(1))
            np.testing.assert_array_equal(tickets, 0)

    def test_a_planted_comparison(self):
        x = self.rows()
        for right, wrong in [
            ("setp.gt.f32 %p1, %f2, %f1", "setp.ge.f32 %p1, %f2, %f1"),
            ("max.u64 %rd6", "min.u64 %rd6"),
            ("setp.ne.u32 %p5, %r17, 1", "setp.ne.u32 %p5, %r17, 0"),
        ]:
            self.assertIn(right, file("argmax"))
            try:
                _, _, y = self.argmax(file("argmax").replace(right, wrong), x)
            except ProgramError as error:
                # The block that arrives first reads the key of the other block.
                self.assertRegex(str(error), "%?never written|races with")
                continue
            self.assertFalse(np.array_equal(y, x.argmax(1)), wrong)

    def test_missing_fences(self):
        x = self.rows()
        for name in ("release", "acquire"):
            lines = [line for line in file("argmax").splitlines() if not line.endswith(f"// {name}")]
            for options in SCHEDULES:
                with self.assertRaisesRegex(
                    ProgramError, "ld.global.v2.u64 .*races with a write by thread 0 of block .*no release and acquire"
                ):
                    self.argmax("\n".join(lines), x, options)

    def test_a_missing_barrier_of_shared_memory(self):
        ptx = file("argmax").replace("    bar.sync 0;\n    setp.ne.u32 %p4", "    setp.ne.u32 %p4")
        with self.assertRaisesRegex(
            ProgramError, "ld.shared.v2.u64 at line 64: thread 0 of block 0 races with a write by thread 32"
        ):
            self.argmax(ptx, self.rows())

    def test_blocks_that_wait_for_each_other(self):
        for options in SCHEDULES:
            _, _, sums = self.run_program(
                file("meet"),
                [np.zeros(1, U32)],
                ["1xui32", "4xui32", "128xui32"],
                options,
                grid=4,
                block=32,
                aliases={0: 0},
            )
            np.testing.assert_array_equal(sums, 64)
        for schedule in ("sequential", "random"):
            self.assert_fails(
                "deadlock: all 3 resident blocks poll memory that none of them changes; 1 blocks have not started",
                file("meet"),
                [np.zeros(1, U32)],
                ["1xui32", "4xui32", "128xui32"],
                Options(schedule=schedule, resident=3),
                grid=4,
                block=32,
                aliases={0: 0},
            )

    def test_weak_polling(self):
        for right, wrong in [("ld.acquire.gpu", "ld.relaxed.gpu"), ("atom.acq_rel", "atom.acquire")]:
            ptx = file("meet").replace(right, wrong)
            self.assert_fails(
                "ld.global.v4.u32 .*no release and acquire",
                ptx,
                [np.zeros(1, U32)],
                ["1xui32", "4xui32", "128xui32"],
                grid=4,
                block=32,
                aliases={0: 0},
            )

    def test_divergence(self):
        def steps(n):
            count = 0
            while n > 1:
                n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
            return count

        x = np.arange(64, dtype=U32)
        expected = np.array([steps(int(n)) for n in x], U32)
        outer = Outer(program(file("diverge"), ["64xui32"], ["64xui32", "64xui32"], block=64))
        got, sums = outer.run([x])
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(sums, np.repeat(expected.reshape(2, 32).sum(1, dtype=U32), 32))
        (end, even) = outer.report()[0]["loops"]
        self.assertEqual((end["name"], even["name"]), ("at the end", "even"))
        self.assertTrue(end["then"] > 1 and even["then"] > 1 and even["else"] > 1)


class Launches(PtxTest):
    BODY = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r1; ret;"

    def test_results(self):
        (y,) = self.run_body(self.BODY, [], ["32xui32"])
        np.testing.assert_array_equal(y, np.arange(32))

    def test_configuration(self):
        ptx = kernel(self.BODY, 1)
        for pattern, change in [
            ("unknown entry 'cluster_x'", {"cluster_x": 2}),
            ("only one dimension", {"grid_y": 2}),
            ("1 blocks of 33 threads", {"block_x": 33}),
            ("64 threads contradict", {"block_x": 64}),
        ]:
            with self.assertRaisesRegex(ProgramError, pattern):
                Outer(program(ptx, [], ["32xui32"], entries=change))
        with self.assertRaisesRegex(ProgramError, "0 operands and 2 results for 1 parameters"):
            Outer(program(ptx, [], ["32xui32", "1xui32"])).run([])

    def test_malformed_text(self):
        for pattern, change in [
            ("line 4: .visible .entry is expected", (".visible", ".weak")),
            ("unknown instruction", ("mul.wide.u32", "mulx.wide.u32")),
            ("unknown modifier .ftz", ("mul.wide", "mul.ftz.wide")),
            ("needs one of .hi, .lo, .wide", ("mul.wide", "mul")),
            ("unknown register %r99", ("%r1, %tid.x", "%r99, %tid.x")),
            ("%r1 is .b32, not .u64", ("st.global.u32", "st.global.u64")),
            ("unknown modifier .sc", ("st.global", "st.sc.global")),
            ("the integer 1 as .f32", ("%r1, %tid.x;", "%r1, %tid.x; mov.f32 %f1, 1;")),
            ("the end of the kernel is reached", ("ret;", "")),
            ("unknown label", ("ret;", "bra nowhere;")),
            ("%p1 is defined twice", ("ret;", ".reg .pred %p1; ret;")),
        ]:
            ptx = kernel(self.BODY, 1)
            self.assertIn(change[0], ptx)
            with self.assertRaisesRegex(ProgramError, pattern):
                Outer(program(ptx.replace(*change), [], ["32xui32"]))

    def test_unread_results_are_garbage(self):
        (y,) = self.run_body("ret;", [], ["2xui32"])
        self.assertEqual(y[0], 0x7FC12345)

    def test_tensor_names(self):
        self.assertEqual(tensor(np.zeros((2, 3), np.float32)), "2x3xf32")
