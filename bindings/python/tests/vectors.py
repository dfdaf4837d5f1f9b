"""Reads the shared test vectors (tests/vectors/README.md)."""

import os
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

REPOSITORY = Path(os.environ["NUCLEUS_REPOSITORY"])

# The types that have the same bits.
BITS = {"f32": np.uint32, "bf16": np.uint16, "f16": np.uint16}
TYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}

TOKENS = {"tokens": (10, np.int32), "row_status": (16, np.uint32)}
# The debug arrays: the base of their words, their type (None: the type of the logits) and their shape.
DEBUG = {
    "greedy_sampled": (10, np.int32, "R"),
    "topk_logits_unsorted": (16, None, "RV"),
    "topk_topp_unnorm_probs_i32_unsorted": (10, np.int32, "RV"),
    "random_unnorm_cdf_sampled_high": (16, np.uint32, "R"),
    "random_unnorm_cdf_sampled_low": (16, np.uint32, "R"),
    "next_tokens": (10, np.int32, "R"),
    "topk_indices_k": (10, np.int32, "RK"),
    "topk_logits_k": (16, None, "RK"),
    "topk_topp_unnorm_probs_i32_k": (10, np.int32, "RK"),
}
K_SLICES = ("topk_indices_k", "topk_logits_k", "topk_topp_unnorm_probs_i32_k")


@dataclass
class Case:
    name: str
    dtype: str
    path: str
    max_k: int
    logits: np.ndarray
    arguments: dict
    tokens: np.ndarray
    row_status: np.ndarray
    debug: dict

    @property
    def file(self):
        return self.name.removesuffix(f"_{self.dtype}")


def numbers(lines, key, base, dtype):
    return np.array([int(word, base) for word in lines[key].split()], dtype=dtype)


def case_of(lines):
    dtype = lines["dtype"]
    rows, vocab, max_k = (int(lines[key]) for key in ("num_rows", "vocab", "max_k"))
    shapes = {"R": (rows,), "RV": (rows, vocab), "RK": (rows, max_k)}
    arguments = {
        "keep_ties": lines["keep_ties"] == "1",
        "replace_val": float(np.uint32(int(lines["replace_val"], 16)).view(np.float32)),
    }
    for key in ("top_p", "min_p", "temperature"):
        if key in lines:
            arguments[key] = numbers(lines, key, 16, np.uint32).view(np.float32)
    for key, base, kind in (("top_k", 10, np.int32), ("seed", 16, np.uint64), ("offset", 16, np.uint64)):
        if key in lines:
            arguments[key] = numbers(lines, key, base, kind)
    if "random_words" in lines:
        arguments["random_words"] = numbers(lines, "random_words", 16, np.uint32).reshape(rows, 4)
    debug = {}
    for name, (base, kind, shape) in DEBUG.items():
        if name in lines:
            debug[name] = numbers(lines, name, base, kind or BITS[dtype]).reshape(shapes[shape])
    return Case(
        name=lines["case"],
        dtype=dtype,
        path=lines["path"],
        max_k=max_k,
        logits=numbers(lines, "logits", 16, BITS[dtype]).reshape(rows, vocab).view(TYPES[dtype]),
        arguments=arguments,
        tokens=numbers(lines, "tokens", 10, np.int32),
        row_status=numbers(lines, "row_status", 16, np.uint32),
        debug=debug,
    )


def read(file):
    lines = file.read_text(encoding="ascii").splitlines()
    assert lines[0] == "nucleus-vectors 1", file
    keys = {}
    for line in lines[1:]:
        if line and not line.startswith("#"):
            key, _, words = line.partition(" ")
            if key == "end":
                yield case_of(keys)
                keys = {}
            else:
                keys[key] = words
    assert not keys, f"a case of {file} has no end"


def cases():
    """Every case of every file."""
    found = [case for file in sorted((REPOSITORY / "tests/vectors").glob("*.txt")) for case in read(file)]
    assert found
    return found


def difference(result, case, slices):
    """The name of the first output that differs in a bit, a type or a shape; None if there is none."""

    def same(got, want):
        if got is None or got.shape != want.shape or got.dtype.itemsize != want.dtype.itemsize:
            return False
        return np.array_equal(got.view(want.dtype), want)

    if not (same(result.tokens, case.tokens) and result.tokens.dtype == np.int32):
        return "tokens"
    if not (same(result.row_status, case.row_status) and result.row_status.dtype == np.uint32):
        return "row_status"
    for name, (_, kind, _) in DEBUG.items():
        got = getattr(result.debug, name)
        if name in K_SLICES and not slices:
            if got is not None:
                return name
        elif not same(got, case.debug[name]) or got.dtype != np.dtype(kind or TYPES[case.dtype]):
            return name
    return None
