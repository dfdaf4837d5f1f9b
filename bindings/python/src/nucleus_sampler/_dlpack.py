"""Reads arrays through the DLPack protocol.

NumPy's own reader does not know bfloat16, which many frameworks use for logits.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ._errors import invalid

_CPU = 1
# The NumPy type for the memory of a DLPack type, by code and bits. NumPy has no bfloat16 (code 4).
_TYPES: dict[tuple[int, int], tuple[Any, str | None]] = {
    (2, 32): (np.float32, None),
    (2, 16): (np.float16, None),
    (4, 16): (np.uint16, "bf16"),
    (1, 16): (np.uint16, None),
}


class _Device(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def tensor_of(capsule: Any) -> Tensor:
    """The tensor in a capsule. It is valid as long as the capsule."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    # A DLManagedTensor begins with its DLTensor.
    return Tensor.from_address(get_pointer(capsule, b"dltensor"))


def view(source: Any) -> tuple[np.ndarray[Any, Any], str | None, Any]:
    """Views an object with `__dlpack__` as an array, without a copy.

    Returns the array, "bf16" if its elements are the bits of bfloat16, and an object that must stay alive as long as
    the array is used: the capsule, which frees the memory when it is collected.
    """
    device_type = source.__dlpack_device__()[0]
    if device_type != _CPU:
        raise invalid(
            "logits",
            f"logits are on a device (DLPack device type {int(device_type)}); copy them to the CPU first",
        )
    capsule = source.__dlpack__()
    tensor = tensor_of(capsule)
    known = _TYPES.get((tensor.dtype.code, tensor.dtype.bits)) if tensor.dtype.lanes == 1 else None
    if known is None:
        raise TypeError(
            f"the elements of logits have the DLPack type code {tensor.dtype.code} with {tensor.dtype.bits} bits; "
            "convert them to float32, float16 or bfloat16"
        )
    dtype, name = np.dtype(known[0]), known[1]
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if not all(shape):
        return np.empty(shape, dtype), name, capsule
    # Without strides the array is dense and row-major.
    strides = (
        tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim)) if tensor.strides else None
    )
    steps = strides or np.empty(shape, dtype).strides
    if any(step < 0 for step in steps):
        raise invalid("logits", "logits have a negative stride; make them contiguous first")
    extent = sum((length - 1) * step for length, step in zip(shape, steps, strict=True)) + dtype.itemsize
    memory = (ctypes.c_uint8 * extent).from_address(tensor.data + tensor.byte_offset)
    return np.ndarray(shape, dtype, memory, strides=strides), name, capsule
