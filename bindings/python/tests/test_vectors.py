"""The shared test vectors, with every output."""

import copy
import dataclasses
import unittest

import numpy as np
from nucleus_sampler import InvalidArgumentError, RowStatus, Sampler
from vectors import REPOSITORY, cases, difference

PLUGIN = REPOSITORY / ".cache/plugins/lammps-jax-pjrt-cpu.so"


class Vectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cases = cases()
        cls.samplers = {
            max_k: Sampler(backend="builtin", max_k=max_k) for max_k in {case.max_k for case in cls.cases}
        }

    @classmethod
    def tearDownClass(cls):
        for sampler in cls.samplers.values():
            sampler.close()

    def sample(self, case, logits=None, **changes):
        arguments = {"path": case.path, "debug": True, **case.arguments, **changes}
        return self.samplers[case.max_k].sample(case.logits if logits is None else logits, **arguments)

    def test_every_output_of_every_path(self):
        self.assertGreaterEqual(sum(len(case.tokens) for case in self.cases), 300)
        for case in self.cases:
            slices = case.path == "bounded"
            requests = [(case.path, True)]
            if slices:
                # The k-slices can also be requested from the other functions.
                requests += [(path, list(case.debug)) for path in ("auto", "reference")]
            else:
                requests += [(path, True) for path in ("auto", "arbitrary", "reference")]
            for path, debug in requests:
                with self.subTest(case=case.name, path=path):
                    result = self.sample(case, path=path, debug=debug)
                    self.assertIsNone(difference(result, case, slices))

    def test_bits_of_16_bit_types(self):
        for case in self.cases:
            if case.dtype != "f32":
                with self.subTest(case=case.name):
                    result = self.sample(case, case.logits.view(np.uint16), dtype=case.dtype)
                    self.assertEqual(result.debug.topk_logits_unsorted.dtype, np.uint16)
                    np.testing.assert_array_equal(result.tokens, case.tokens)
                    np.testing.assert_array_equal(
                        result.debug.topk_logits_unsorted, case.debug["topk_logits_unsorted"]
                    )

    def test_strict_calls(self):
        failures = 0
        for case in self.cases:
            bad = np.flatnonzero(case.row_status == RowStatus.BAD_PARAMETER)
            with self.subTest(case=case.name):
                if len(bad):
                    failures += 1
                    with self.assertRaises(InvalidArgumentError) as raised:
                        self.sample(case, strict=True)
                    self.assertIn(raised.exception.row, bad)
                    self.assertIn(raised.exception.argument, ("top_k", "top_p", "min_p", "temperature"))
                else:
                    result = self.sample(case, strict=True)
                    self.assertIsNone(difference(result, case, case.path == "bounded"))
        self.assertGreater(failures, 0)

    def test_a_changed_bit_is_found(self):
        """The comparison of these tests finds one wrong bit in any output."""
        case = next(case for case in self.cases if case.path == "bounded")
        result = self.sample(case)
        self.assertIsNone(difference(result, case, True))
        for name in ("tokens", "row_status", *case.debug):
            changed = copy.deepcopy(result)
            holder = changed if name in ("tokens", "row_status") else changed.debug
            array = getattr(holder, name)
            bits = array.view({2: np.uint16, 4: np.uint32}[array.itemsize])
            bits.flat[-1] ^= 1
            self.assertEqual(difference(changed, case, True), name)
        missing = result._replace(debug=dataclasses.replace(result.debug, next_tokens=None))
        self.assertEqual(difference(missing, case, True), "next_tokens")

    def test_a_plugin(self):
        """Cases in f32 with one shape, because each shape compiles programs."""
        self.assertTrue(PLUGIN.exists(), "run make plugins")
        chosen = [
            case
            for case in self.cases
            if case.dtype == "f32"
            and case.path == "auto"
            and case.logits.shape == (8, 16)
            and not case.arguments["keep_ties"]
        ]
        self.assertGreater(len(chosen), 5)
        with Sampler(backend="pjrt", plugin_path=PLUGIN, max_k=8, row_buckets=[8]) as sampler:
            self.assertEqual(sampler.info().platform_name, "cpu")
            sampler.prewarm(8, 16, debug=["topk_logits_unsorted", "topk_topp_unnorm_probs_i32_unsorted"])
            compiled = sampler.stats()["compiles"]
            self.assertGreater(compiled, 0)
            for case in chosen:
                with self.subTest(case=case.name):
                    result = sampler.sample(case.logits, path=case.path, debug=True, **case.arguments)
                    self.assertIsNone(difference(result, case, False))
            self.assertEqual(
                sampler.stats()["compiles"], compiled, "a call compiled although it was prewarmed"
            )


if __name__ == "__main__":
    unittest.main()
