"""Element types, MLIR types, constants, and the contents of uninitialized memory."""

import functools
import re
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from jaxlib.mlir import ir

from .errors import ProgramError

BF16 = np.dtype(ml_dtypes.bfloat16)

DTYPES = {
    "i1": np.dtype(np.bool_),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "bf16": BF16,
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
}

# Tensors of the outer program can also be unsigned or have 64 bits. Vectors and memories of a kernel cannot.
TENSOR_DTYPES = DTYPES | {
    "i64": np.dtype(np.int64),
    "ui8": np.dtype(np.uint8),
    "ui16": np.dtype(np.uint16),
    "ui32": np.dtype(np.uint32),
    "ui64": np.dtype(np.uint64),
}

FLOATS = {"bf16", "f16", "f32"}
WIDTHS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "index": 32, "bf16": 16, "f16": 16, "f32": 32}
SEMAPHORES = {"!tpu.dma_semaphore": "dma", "!tpu.semaphore": "regular"}

# The contents of uninitialized memory, by the size of an element. "nan" is a NaN as a float and a large odd integer as
# an integer: comparisons with a NaN are false, and arithmetic keeps these values recognizable. "large" is the largest
# finite number: it is greater than other numbers.
GARBAGE = {
    "nan": {1: b"\x01", 2: b"\xc1\x7f", 4: b"\x45\x23\xc1\x7f", 8: b"\x45\x23\xc1\x7f\x45\x23\xc1\x7f"},
    "large": {1: b"\x00", 2: b"\x7f\x7f", 4: b"\xff\xff\x7f\x7f", 8: b"\xff\xff\x7f\x7f\xff\xff\x7f\x7f"},
}
_garbage = GARBAGE["nan"]


@dataclass(frozen=True)
class Type:
    """A scalar (no shape), a vector (a shape), or a memory reference (a shape and a memory space)."""

    elem: str
    shape: tuple = None
    space: str = None

    @property
    def is_scalar(self):
        return self.shape is None

    @property
    def is_vector(self):
        return self.shape is not None and self.space is None

    @property
    def is_memref(self):
        return self.space is not None

    @property
    def is_float(self):
        return self.elem in FLOATS

    @property
    def dtype(self):
        return DTYPES[self.elem]

    @property
    def size(self):
        return int(np.prod(self.shape, dtype=np.int64))

    def __str__(self):
        if self.is_scalar:
            return self.elem
        shape = "".join(f"{d}x" for d in self.shape)
        return f"memref<{shape}{self.elem}, {self.space}>" if self.is_memref else f"vector<{shape}{self.elem}>"


@functools.cache
def type_of(mlir):
    """Converts an MLIR type of a kernel to a Type."""
    if isinstance(mlir, ir.VectorType):
        if any(mlir.scalable_dims) or mlir.rank == 0:
            raise ProgramError(f"unsupported vector type {mlir}")
        elem = str(mlir.element_type)
        if elem not in DTYPES:
            raise ProgramError(f"unsupported element type in {mlir}")
        return Type(elem, tuple(mlir.shape))
    if isinstance(mlir, ir.MemRefType):
        if any(d < 0 for d in mlir.shape):
            raise ProgramError(f"unsupported dynamic shape in {mlir}")
        if not is_identity(mlir.layout, mlir.rank):
            raise ProgramError(f"unsupported memory layout in {mlir}")
        elem = str(mlir.element_type)
        if elem not in DTYPES and elem not in SEMAPHORES:
            raise ProgramError(f"unsupported element type in {mlir}")
        return Type(elem, tuple(mlir.shape), memory_space(mlir.memory_space))
    elem = str(mlir)
    if elem not in WIDTHS:
        raise ProgramError(f"unsupported type {mlir}")
    return Type(elem)


def is_identity(layout, rank):
    dims = ", ".join(f"d{i}" for i in range(rank))
    return str(layout) == f"affine_map<({dims}) -> ({dims})>"


def memory_space(attribute):
    match = re.fullmatch(r"#tpu\.memory_space<(\w+)>", str(attribute))
    return match.group(1) if match else "unspecified"


def use_garbage(kind):
    """Selects the contents of uninitialized memory, a key of `GARBAGE`, for this process."""
    global _garbage
    _garbage = GARBAGE[kind]


def garbage_element(dtype):
    """One element of uninitialized memory."""
    return np.frombuffer(_garbage[dtype.itemsize], dtype)[0]


def garbage(shape, dtype):
    """Uninitialized memory."""
    return np.full(shape, garbage_element(np.dtype(dtype)))


def fill_with_garbage(memory):
    """Fills memory with the contents of uninitialized memory."""
    memory[...] = garbage_element(memory.dtype)


def scalar_literal(text, elem):
    """The exact value of a float constant in MLIR text, which writes NaNs as the hexadecimal number of their bits."""
    dtype = TENSOR_DTYPES[elem]
    if text.startswith("0x"):
        return np.array(int(text, 16), f"u{dtype.itemsize}").view(dtype)[()]
    return np.array(float(text), np.float64).astype(dtype)[()]


def dense_array(attribute, dtype, shape):
    """The array of a `dense<…>` attribute, with every bit kept."""
    if dtype != BF16:
        array = np.array(attribute)
        if array.dtype != dtype:
            raise ProgramError(f"constant of {array.dtype} where {dtype} is expected: {str(attribute)[:80]}")
        return np.broadcast_to(array, shape).copy()
    # jaxlib has no buffer interface for bf16, so this parses the text.
    text = str(attribute)
    body = text[text.index("<") + 1 : text.rindex("> :")]
    if body.startswith('"0x'):
        return np.frombuffer(bytes.fromhex(body[3:-1]), BF16).reshape(shape).copy()
    values = [scalar_literal(token, "bf16") for token in re.findall(r"[^\s\[\],]+", body)]
    if len(values) == 1:
        return np.full(shape, values[0])
    return np.array(values, BF16).reshape(shape)
