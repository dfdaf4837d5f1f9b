"""Converts the arguments of calls to arrays that the library can read."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _abi, _dlpack
from ._errors import invalid

Array = np.ndarray[Any, Any]

# The names of the types of logits, and the types of NumPy that hold them.
DTYPES: dict[str, int] = {
    "f32": _abi.nuc_dtype.NUC_DTYPE_F32,
    "bf16": _abi.nuc_dtype.NUC_DTYPE_BF16,
    "f16": _abi.nuc_dtype.NUC_DTYPE_F16,
}
_NUMPY_NAMES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16"}


class Logits(NamedTuple):
    """Logits in memory that the library can read."""

    array: Array
    """`[num_rows, vocab]`; the elements of a row are adjacent."""
    dtype: int
    """A nuc_dtype."""
    row_stride: int
    """The distance between two rows in elements; 0 if the rows are adjacent."""
    owner: Any
    """Keeps the memory of the array alive."""


def address(array: Array | None) -> int | None:
    """The address of the first element; None for None."""
    # This is faster than array.ctypes.data.
    return None if array is None else array.__array_interface__["data"][0]


def logits_of(source: Any, dtype_name: str | None) -> Logits:
    """Views logits without a copy if their elements are aligned, native and adjacent in each row; else copies them."""
    owner: Any = None
    if isinstance(source, np.ma.MaskedArray):
        raise TypeError("logits are a masked array; replace masked logits by -inf first")
    if isinstance(source, np.ndarray):
        array, name = source, _name_of(source.dtype)
    elif hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__"):
        array, name, owner = _dlpack.view(source)
        name = name or _name_of(array.dtype)
    else:
        raise TypeError(f"logits must be a NumPy array or support DLPack, not {type(source).__name__}")
    if array.ndim != 2:
        raise invalid("logits", f"logits have {array.ndim} dimensions; they must be [num_rows, vocab]")
    name = _checked_name(array, name, dtype_name)
    code = DTYPES[name]
    if array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative:
        return Logits(array, code, 0, owner)
    stride = _row_stride(array)
    if stride is not None:
        return Logits(array, code, stride, owner)
    return Logits(np.array(array, array.dtype.newbyteorder("="), order="C"), code, 0, owner)


def _name_of(dtype: np.dtype[Any]) -> str | None:
    """The name of a type of NumPy or ml_dtypes; None if it is not a type of logits."""
    name = _NUMPY_NAMES.get(dtype)
    if name is None:
        # Types in the other byte order, and bfloat16 without an import of ml_dtypes.
        name = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(dtype.name)
    return name


def _checked_name(array: Array, name: str | None, dtype_name: str | None) -> str:
    """The type of the logits. `name` is the type that the array itself has."""
    if dtype_name is not None and dtype_name not in DTYPES:
        raise invalid("dtype", f"dtype is {dtype_name!r}; it must be 'f32', 'bf16' or 'f16'")
    if name is not None:
        if dtype_name not in (None, name):
            raise invalid("dtype", f"dtype is {dtype_name!r}, but the logits are {name}")
        return name
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        if dtype_name in ("bf16", "f16"):
            return dtype_name
        raise TypeError("uint16 logits are bits of a 16-bit type; pass dtype='bf16' or dtype='f16'")
    raise TypeError(f"logits are {array.dtype}; convert them to float32, float16 or bfloat16")


def _row_stride(array: Array) -> int | None:
    """The distance between rows in elements; None if the library cannot read the array as it is."""
    size, (rows, vocab) = array.itemsize, array.shape
    if not (array.flags.aligned and array.dtype.isnative) or (vocab > 1 and array.strides[1] != size):
        return None
    if rows <= 1:
        return 0
    stride, rest = divmod(array.strides[0], size)
    return stride if rest == 0 and stride >= vocab else None


def integers(name: str, value: Any, num_rows: int, dtype: npt.DTypeLike) -> Array | None:
    """An integer parameter as one element per row. Refuses fractions and numbers that do not fit the type."""
    if value is None:
        return None
    wanted = np.dtype(dtype)
    if type(value) is int and 0 <= value <= 2**31 - 1:
        return np.full(num_rows, value, wanted)
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, Sequence):
        # NumPy would convert [1, 2**63] to floats.
        array = np.asarray(value, dtype=object)
    else:
        array = np.asarray(value)
    if array.dtype == wanted:
        return per_row(name, array, num_rows)
    if array.dtype.kind == "O":
        numbers = [_index(name, number) for number in array.flat]
        smallest, largest = min(numbers, default=0), max(numbers, default=0)
    elif array.dtype.kind in "iu":
        smallest, largest = (int(array.min()), int(array.max())) if array.size else (0, 0)
    else:
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    limits = np.iinfo(wanted)
    if smallest < limits.min or largest > limits.max:
        wrong = smallest if smallest < limits.min else largest
        raise invalid(name, f"{name} contains {wrong}; it must be {limits.min} to {limits.max}")
    return per_row(name, array.astype(wanted), num_rows)


def _index(name: str, number: Any) -> int:
    if isinstance(number, (bool, np.bool_)) or not isinstance(number, SupportsIndex):
        raise TypeError(f"{name} must be integers, not {type(number).__name__}")
    return number.__index__()


def floats(name: str, value: Any, num_rows: int) -> Array | None:
    """A float parameter as one float32 per row, rounded to nearest."""
    if value is None:
        return None
    if type(value) is float:
        # The conversion of ctypes rounds a number that is too large to infinity, without a warning.
        return np.full(num_rows, ctypes.c_float(value).value, np.float32)
    array = np.asarray(value)
    if array.dtype != np.float32:
        # NumPy does not know that the type bfloat16 of the package ml_dtypes is a type of numbers.
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise TypeError(f"{name} must be numbers, not {array.dtype}")
        with np.errstate(over="ignore", under="ignore"):
            array = array.astype(np.float32)
    return per_row(name, array, num_rows)


def per_row(name: str, array: Array, num_rows: int) -> Array:
    """Repeats a scalar for each row; checks the length of an array."""
    if array.ndim == 0:
        return np.full(num_rows, array)
    if array.shape != (num_rows,):
        raise invalid(
            name,
            f"{name} has the shape {array.shape}; it must be a scalar or have one element per row ({num_rows})",
        )
    return array if array.flags.c_contiguous and array.flags.aligned else array.copy()


def words(value: Any, num_rows: int) -> Array | None:
    """The random words, `[num_rows, 4]`."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.shape != (num_rows, 4):
        raise invalid(
            "random_words", f"random_words have the shape {array.shape}; it must be ({num_rows}, 4)"
        )
    return integers("random_words", array.reshape(-1), 4 * num_rows, np.uint32)
