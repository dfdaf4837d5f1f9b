"""Wrong arguments raise exceptions that name them, and the forms of a right argument give the same tokens."""

import pickle
import unittest
import warnings
import weakref

import ml_dtypes
import nucleus_sampler
import numpy as np
from nucleus_sampler import (
    InvalidArgumentError,
    NucleusError,
    RowStatus,
    Sampler,
    Status,
)

ROWS, VOCAB = 4, 50


class DLPackOnly:
    """An object that supports only DLPack, like a tensor of another framework."""

    def __init__(self, array, code=None, device=1):
        self.array, self.code, self.device = array, code, device

    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self):
        capsule = self.array.__dlpack__()
        if self.code is not None:
            nucleus_sampler._dlpack.tensor_of(capsule).dtype.code = self.code
        return capsule


class Arguments(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sampler = Sampler(backend="builtin")
        random = np.random.default_rng(7)
        cls.logits = random.normal(0, 3, (ROWS, VOCAB)).astype(np.float32)
        cls.parameters = {"top_k": [0, 5, 40, 1], "temperature": 0.9, "seed": [1, 2, 3, 4], "offset": 9}
        cls.want = cls.tokens(cls.logits)

    @classmethod
    def tearDownClass(cls):
        cls.sampler.close()

    @classmethod
    def tokens(cls, logits, **changes):
        return cls.sampler.sample(logits, **{**cls.parameters, **changes}).tokens.tolist()

    def refused(self, argument, logits=None, row=None, **changes):
        """Checks that a call is refused, and returns the message."""
        with self.assertRaises(InvalidArgumentError) as raised:
            self.sampler.sample(self.logits if logits is None else logits, **changes)
        error = raised.exception
        self.assertEqual(
            (error.status, error.argument, error.row), (Status.NUC_INVALID_ARGUMENT, argument, row)
        )
        self.assertIsInstance(error, ValueError)
        self.assertIn(error.message, str(error))
        return error.message

    def test_errors_of_the_library(self):
        message = self.refused("temperature", temperature=[1, 1, np.nan, 1], row=2, strict=True)
        self.assertIn("temperature[2]", message)
        self.refused("top_p", top_p=np.nan, row=0, strict=True)
        self.refused("replace_val", replace_val=np.nan)
        self.refused("vocab", np.empty((2, 0), np.float32))
        self.refused("random_words", seed=1, random_words=np.zeros((ROWS, 4), np.uint32))
        self.refused("nuc_debug_arrays", path="arbitrary", debug=["topk_indices_k"])
        self.refused(
            "top_k",
            path="bounded",
            top_k=[1, 2, 129, 3],
            row=2,
            strict=True,
            logits=np.zeros((4, 200), np.float32),
        )

    def test_bad_rows_are_reported(self):
        result = self.sampler.sample(self.logits, temperature=[1, -1, 1, 1], top_p=[1, 1, 1, np.nan])
        self.assertEqual(result.row_status.tolist(), [0, RowStatus.BAD_PARAMETER, 0, RowStatus.BAD_PARAMETER])
        self.assertEqual(result.tokens[[1, 3]].tolist(), [-1, -1])
        self.assertTrue((result.tokens[[0, 2]] >= 0).all())

    def test_errors_of_the_package(self):
        self.refused("logits", self.logits[0])
        self.refused("logits", self.logits[None])
        self.refused("top_k", top_k=[1, 2, 3])
        self.refused("top_k", top_k=[[1, 2, 3, 4]])
        self.refused("top_p", top_p=[0.5] * 5)
        self.refused("temperature", temperature=np.ones((ROWS, 1), np.float32))
        self.refused("random_words", random_words=np.zeros(ROWS, np.uint32))
        self.refused("random_words", random_words=[[1, 2, 3, 2**32]] * ROWS)
        self.refused("top_k", top_k=2**31)
        self.refused("seed", seed=-1)
        self.refused("offset", offset=[0, 0, 0, 2**64])
        self.refused("path", path="fast")
        self.refused("dtype", dtype="f64")
        self.refused("dtype", dtype="bf16")
        self.refused("debug", debug=["tokens"])
        self.refused("logits", DLPackOnly(self.logits, device=2))

    def test_wrong_types(self):
        wrong = [
            (self.logits.astype(np.float64), {}),
            (self.logits.astype(np.int32), {}),
            (self.logits.astype(np.uint16), {}),
            (self.logits.astype(np.complex64), {}),
            (self.logits.tolist(), {}),
            (None, {}),
            (np.ma.masked_less(self.logits, 0), {}),
            (DLPackOnly(self.logits.astype(np.float64)), {}),
            (self.logits, {"top_k": 1.5}),
            (self.logits, {"top_k": [1.5] * ROWS}),
            (self.logits, {"top_k": True}),
            (self.logits, {"top_k": "5"}),
            (self.logits, {"seed": np.ones(ROWS, np.float32)}),
            (self.logits, {"top_p": "0.5"}),
            (self.logits, {"temperature": 1j}),
            (self.logits, {"temperature": [True] * ROWS}),
            (self.logits, {"debug": 1}),
        ]
        for logits, changes in wrong:
            with self.subTest(logits=type(logits), changes=changes), self.assertRaises(TypeError):
                self.sampler.sample(logits, **changes)
        with self.assertRaisesRegex(TypeError, "debug must be True, False or names of arrays, not int"):
            self.sampler.sample(self.logits, debug=1)
        with self.assertRaises(TypeError):
            Sampler(max_k=1.5)
        with self.assertRaises(InvalidArgumentError):
            Sampler(max_k=-1)

    def test_bfloat16_parameters(self):
        values = [0.5, 1, 0.25, 0.75]
        want = self.tokens(self.logits, top_p=values)
        self.assertEqual(self.tokens(self.logits, top_p=np.array(values, ml_dtypes.bfloat16)), want)
        half = ml_dtypes.bfloat16(0.5)
        self.assertEqual(self.tokens(self.logits, top_p=half), self.tokens(self.logits, top_p=0.5))

    def test_layouts_of_logits(self):
        wide = np.full((ROWS, 2 * VOCAB), np.nan, np.float32)
        wide[:, :VOCAB] = self.logits
        twice = np.repeat(self.logits, 2, axis=1)
        tall = np.repeat(self.logits, 3, axis=0)
        unaligned = (
            np.frombuffer(b"x" + self.logits.tobytes(), np.uint8)[1:].view(np.float32).reshape(ROWS, VOCAB)
        )
        self.assertFalse(unaligned.flags.aligned)
        read_only = self.logits.copy()
        read_only.flags.writeable = False
        layouts = {
            "row stride": wide[:, :VOCAB],
            "every second column": twice[:, ::2],
            "every third row": tall[::3],
            "column-major": np.asfortranarray(self.logits),
            "reversed columns": self.logits[:, ::-1].copy()[:, ::-1],
            "reversed rows": self.logits[::-1].copy()[::-1],
            "big-endian": self.logits.astype(">f4"),
            "unaligned": unaligned,
            "read-only": read_only,
        }
        for name, logits in layouts.items():
            with self.subTest(name):
                self.assertEqual(self.tokens(logits), self.want)
        with self.subTest("equal rows"):
            equal = np.broadcast_to(self.logits[0], (ROWS, VOCAB))
            self.assertEqual(self.tokens(equal), self.tokens(equal.copy()))

    def test_layouts_of_16_bit_logits(self):
        for dtype, name in ((np.float16, "f16"), (ml_dtypes.bfloat16, "bf16")):
            logits = self.logits.astype(dtype)
            want = self.tokens(logits)
            wide = np.zeros((ROWS, 2 * VOCAB), dtype)
            wide[:, :VOCAB] = logits
            layouts = [wide[:, :VOCAB], np.asfortranarray(logits), logits[::-1].copy()[::-1]]
            for layout in layouts:
                self.assertEqual(self.tokens(layout), want)
                self.assertEqual(self.tokens(layout.view(np.uint16), dtype=name), want)
            self.assertEqual(self.tokens(logits.view(np.uint16).astype(">u2"), dtype=name), want)

    def test_logits_are_not_copied(self):
        wide = np.zeros((ROWS, VOCAB + 3), np.float32)
        for logits in (self.logits, wide[:, :VOCAB], wide[::2, :VOCAB]):
            view = nucleus_sampler._arrays.logits_of(logits, None)
            self.assertIs(view.array, logits)
        view = nucleus_sampler._arrays.logits_of(DLPackOnly(self.logits), None)
        self.assertEqual(view.array.ctypes.data, self.logits.ctypes.data)

    def test_dlpack(self):
        wide = np.zeros((ROWS, 2 * VOCAB), np.float32)
        wide[:, :VOCAB] = self.logits
        for logits in (self.logits, wide[:, :VOCAB], np.asfortranarray(self.logits)):
            self.assertEqual(self.tokens(DLPackOnly(logits)), self.want)
        half = self.logits.astype(np.float16)
        result = self.sampler.sample(DLPackOnly(half), debug=True)
        self.assertEqual(result.debug.topk_logits_unsorted.dtype, np.float16)
        # DLPack's code of bfloat16 is 4. The memory is that of an array of uint16.
        brain = self.logits.astype(ml_dtypes.bfloat16)
        for bits in (brain.view(np.uint16), np.asfortranarray(brain.view(np.uint16))):
            self.assertEqual(self.tokens(DLPackOnly(bits, code=4)), self.tokens(brain))
        result = self.sampler.sample(DLPackOnly(brain.view(np.uint16), code=4), debug=True)
        self.assertEqual(result.debug.topk_logits_unsorted.dtype, np.uint16)
        empty = self.sampler.sample(DLPackOnly(np.empty((0, VOCAB), np.float32)))
        self.assertEqual(empty.tokens.shape, (0,))
        with self.assertRaises(InvalidArgumentError):
            self.tokens(DLPackOnly(np.empty((3, 2, 1), np.float32)))

    def test_dlpack_memory_is_freed(self):
        class Owner(np.ndarray):
            pass

        freed = []
        logits = self.logits.copy().view(Owner)
        weakref.finalize(logits, freed.append, True)
        source = DLPackOnly(logits)
        self.tokens(source)
        del source, logits
        self.assertEqual(freed, [True])

    def test_forms_of_parameters(self):
        every = {
            "top_k": (20, np.int32),
            "top_p": (0.9375, np.float32),
            "min_p": (0.03125, np.float32),
            "temperature": (4.0, np.float32),
            "seed": (7, np.uint64),
            "offset": (2**63 + 1, np.uint64),
        }
        want = self.sampler.sample(
            self.logits, **{name: np.full(ROWS, value, kind) for name, (value, kind) in every.items()}
        ).tokens.tolist()
        forms = {
            "scalars": lambda value, kind: value,
            "NumPy scalars": lambda value, kind: kind(value),
            "lists": lambda value, kind: [value] * ROWS,
            "tuples of NumPy scalars": lambda value, kind: (kind(value),) * ROWS,
            "strided arrays": lambda value, kind: np.full(2 * ROWS, value, kind)[::2],
            "unaligned arrays": lambda value, kind: np.frombuffer(
                b"x" + np.full(ROWS, value, kind).tobytes(), np.uint8
            )[1:].view(kind),
            "big-endian arrays": lambda value, kind: np.full(ROWS, value, np.dtype(kind).newbyteorder(">")),
            "wide arrays": lambda value, kind: np.full(
                ROWS, value, np.float64 if kind is np.float32 else np.uint64
            ),
        }
        for form, make in forms.items():
            with self.subTest(form):
                arguments = {name: make(value, kind) for name, (value, kind) in every.items()}
                self.assertEqual(self.sampler.sample(self.logits, **arguments).tokens.tolist(), want)
        # Each parameter has an effect, so the comparison above can fail.
        values = {name: value for name, (value, _) in every.items()}
        others = {"top_k": 1, "top_p": 0, "min_p": 1, "temperature": 0, "seed": 8, "offset": 2**63}
        for name, other in others.items():
            changed = self.sampler.sample(self.logits, **{**values, name: other})
            self.assertNotEqual(changed.tokens.tolist(), want, name)

    def test_a_large_top_p_is_off(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(self.tokens(self.logits, top_p=1e300), self.want)

    def test_no_rows(self):
        result = self.sampler.sample(np.empty((0, VOCAB), np.float32), top_k=[], temperature=1, debug=True)
        self.assertEqual(result.tokens.shape, (0,))
        self.assertEqual(result.debug.topk_logits_unsorted.shape, (0, VOCAB))

    def test_only_the_requested_debug_arrays(self):
        result = self.sampler.sample(self.logits, debug="next_tokens")
        self.assertEqual(result.debug.next_tokens.tolist(), result.tokens.tolist())
        self.assertIsNone(result.debug.greedy_sampled)
        self.assertIsNone(self.sampler.sample(self.logits).debug.next_tokens)

    def test_creation(self):
        with self.assertRaises(NucleusError) as raised:
            Sampler(plugin_path="/nowhere/plugin.so")
        self.assertEqual(raised.exception.status, Status.NUC_PLUGIN_NOT_FOUND)
        self.assertIn("/nowhere/plugin.so", raised.exception.message)
        copy = pickle.loads(pickle.dumps(raised.exception))
        self.assertEqual((copy.status, copy.message), (raised.exception.status, raised.exception.message))
        with self.assertRaises(InvalidArgumentError) as raised:
            Sampler(backend="builtin", max_k=5000)
        self.assertEqual(raised.exception.argument, "max_k")
        with self.assertRaises(InvalidArgumentError):
            Sampler(backend="gpu")
        with self.assertRaises(InvalidArgumentError):
            Sampler(plugin_path="a\0b")
        with self.assertRaises(TypeError):
            Sampler(client_options={"name": None})
        with self.assertRaisesRegex(TypeError, "must be a str, not int"):
            Sampler(client_options={1: 2})
        for options in ({"a\0b": 1}, {"name": "a\0b"}):
            with self.assertRaisesRegex(InvalidArgumentError, "contains a NUL character"):
                Sampler(client_options=options)

    def test_client_options_have_the_types_of_their_values(self):
        options = {"a": "text", "b": True, "c": -5, "d": 0.5}
        array = nucleus_sampler._sampler._client_options(options)
        self.assertEqual([option.name for option in array], [b"a", b"b", b"c", b"d"])
        kinds = nucleus_sampler._abi.nuc_option_type
        self.assertEqual(
            [option.type for option in array],
            [kinds.NUC_OPTION_STRING, kinds.NUC_OPTION_BOOL, kinds.NUC_OPTION_INT64, kinds.NUC_OPTION_FLOAT],
        )
        self.assertEqual((array[0].string_value, array[1].int64_value), (b"text", 1))
        self.assertEqual((array[2].int64_value, array[3].float_value), (-5, 0.5))

    def test_information(self):
        with Sampler(backend="builtin", num_threads=1, max_k=9) as sampler:
            info = sampler.info()
            self.assertEqual((info.platform_name, info.max_k, info.pjrt_api), ("builtin", 9, (0, 0)))
            self.assertEqual(len(sampler.devices()), info.num_devices)
            sampler.prewarm(8, VOCAB)
            sampler.sample(self.logits)
            self.assertEqual(sampler.stats()["total_count"], 1)
        self.assertTrue(sampler.closed)
        for use in (sampler.info, sampler.stats, sampler.devices, lambda: sampler.sample(self.logits)):
            with self.assertRaises(ValueError):
                use()
        sampler.close()


if __name__ == "__main__":
    unittest.main()
