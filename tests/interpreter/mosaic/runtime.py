"""The run-time library of translated kernels: the state of the machine, and helper functions of operations."""

import functools
from dataclasses import dataclass, field

import numpy as np

from ..element import BF16, DTYPES, WIDTHS, fill_with_garbage, garbage, garbage_element
from ..errors import ProgramError
from ..options import Options
from ..parse import place

I32 = np.dtype(np.int32)
U32 = np.dtype(np.uint32)
F32 = np.dtype(np.float32)


class Semaphore:
    """A counter, and the transfers in flight that will increment it."""

    __slots__ = ("count", "pending", "name")

    def __init__(self, name):
        self.count = 0
        self.pending = []
        self.name = name


@dataclass
class Machine:
    """The state of one kernel, except its memories."""

    options: Options
    counts: list = field(default_factory=list)
    # The operations of the program. Generated code refers to an operation by its index here.
    operations: list = field(default_factory=list)
    semaphores: list = field(default_factory=list)
    # How often an operation had a result that hardware leaves undefined, such as the integer of a NaN.
    poison: dict = field(default_factory=dict)
    grid: tuple = ()
    steps: int = 0
    dma_count: int = 0
    dma_bytes: int = 0

    def place(self, where):
        """The operation with this number, for messages."""
        op = self.operations[where]
        return f"{op.name} {place(op)}"

    def error(self, where, message):
        raise ProgramError(f"{self.place(where)}: {message}")

    def reset(self):
        """Clears the counters and the state of earlier runs."""
        self.counts[:] = [0] * len(self.counts)
        self.poison.clear()
        self.semaphores.clear()
        self.steps = self.dma_count = self.dma_bytes = 0

    # Run-time checks

    def out_of_bounds(self, where, shape, indices, sizes):
        self.error(where, f"out of bounds: {list(sizes)} elements at {list(indices)} of a memory of {list(shape)}")

    def not_multiple(self, where, value, multiple):
        self.error(where, f"{value} is not a multiple of {multiple}")

    def endless(self, where):
        self.error(where, f"more than {self.options.max_iterations} iterations")

    def poisoned(self, where, count):
        place = self.place(where)
        self.poison[place] = self.poison.get(place, 0) + int(count)

    # Semaphores and transfers

    def allocate(self, shape, name):
        """An array of new semaphores. Slices of it refer to the same semaphores."""
        array = np.empty(shape, object)
        for index in np.ndindex(*shape):
            array[index] = Semaphore(f"{name}{list(index)}")
        self.semaphores.extend(array.reshape(-1))
        return array

    def start(self, where, source, target, semaphore):
        """Starts a transfer."""
        if source.shape != target.shape or source.dtype != target.dtype:
            self.error(where, f"transfer of {source.dtype}{source.shape} to {target.dtype}{target.shape}")
        if not target.flags.writeable:
            self.error(where, "transfer into an input")
        if np.may_share_memory(source, target) and np.shares_memory(source, target):
            self.error(where, "transfer between overlapping memories")
        self.dma_count += 1
        self.dma_bytes += target.nbytes
        semaphore = semaphore.item()
        if self.options.dma == "eager":
            target[...] = source
            semaphore.count += target.nbytes
        else:
            # Until the kernel waits for the transfer, the target is undefined.
            fill_with_garbage(target)
            semaphore.pending.append((source, target, where))

    def wait_dma(self, where, semaphore, target):
        """Waits for the number of bytes that `target` has."""
        semaphore, amount = semaphore.item(), target.nbytes
        while semaphore.count < amount and semaphore.pending:
            source, target, _ = semaphore.pending.pop()
            target[...] = source
            semaphore.count += target.nbytes
        if semaphore.count < amount:
            self.error(where, f"waits for {amount} bytes on semaphore {semaphore.name}, but only {semaphore.count} arrive")
        semaphore.count -= amount

    def signal(self, semaphore, amount):
        semaphore.item().count += amount

    def wait(self, where, semaphore, amount):
        semaphore = semaphore.item()
        if semaphore.pending:
            self.error(where, f"tpu.sem_wait on semaphore {semaphore.name}, which transfers signal")
        if semaphore.count < amount:
            self.error(where, f"waits for {amount} on semaphore {semaphore.name}, which stays at {semaphore.count}")
        semaphore.count -= amount

    def check_idle(self):
        """Checks the end of a kernel: no transfer may be in flight, and every semaphore must be zero."""
        for semaphore in self.semaphores:
            if semaphore.pending:
                started = self.place(semaphore.pending[0][2])
                raise ProgramError(f"kernel ends while a transfer is in flight on {semaphore.name}, started by {started}")
            if semaphore.count:
                raise ProgramError(f"kernel ends with semaphore {semaphore.name} at {semaphore.count}, not zero")
        self.semaphores.clear()

    # Arithmetic with results that hardware leaves undefined for some operands

    def fptosi(self, where, x, elem):
        """Truncates a float to a signed integer. For a NaN or a value out of range, returns the smallest integer and
        counts it."""
        bits = WIDTHS[elem]
        return self._to_integer(where, x, elem, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1))

    def fptoui(self, where, x, elem):
        """Truncates a float to an unsigned integer."""
        return self._to_integer(where, x, elem, 0.0, 2.0 ** WIDTHS[elem])

    def _to_integer(self, where, x, elem, low, high):
        x = np.asarray(x).astype(F32, copy=False)
        if np.count_nonzero(abs(x) < 2.0**31) == x.size and elem == "i32" and low < 0:
            return x.astype(I32) if x.ndim else int(x)
        whole = np.trunc(x)
        bad = ~((whole >= low) & (whole < high))
        bad_count = np.count_nonzero(bad)
        if bad_count:
            self.poisoned(where, bad_count)
            whole = np.where(bad, F32.type(0), whole)
        dtype = DTYPES[elem]
        result = whole.astype(dtype) if low < 0 else whole.astype(np.int64).astype(dtype)
        if bad_count:
            result = np.where(bad, dtype.type(-(2 ** (WIDTHS[elem] - 1))), result)
        return result if result.ndim else result.item()

    def gather(self, where, source, indices, dim):
        """Elements of `source` at `indices` along `dim`. For an index out of range, returns garbage and counts it."""
        size = source.shape[dim]
        bad = indices.view(U32) >= size
        bad_count = np.count_nonzero(bad)
        if bad_count:
            self.poisoned(where, bad_count)
            indices = np.where(bad, 0, indices)
        if source.ndim == 2 and source.flags.c_contiguous:
            rows, lanes = _corners(indices.shape)
            flat = lanes + indices * source.shape[1] if dim == 0 else rows * source.shape[1] + indices
            result = source.reshape(-1).take(flat)
        else:
            result = np.take_along_axis(source, indices, dim)
        if bad_count:
            result[bad] = garbage_element(result.dtype)
        return result

    def reduce_index(self, where, x, axis, kind):
        """The lowest index of the largest or smallest value. A NaN makes the result undefined."""
        if x.dtype.kind != "i":
            nans = np.isnan(x).any(axis=axis)
        else:
            nans = np.zeros((), np.bool_)
        index = (np.argmax if kind == "arg_max" else np.argmin)(x, axis=axis).astype(I32)
        bad_count = np.count_nonzero(nans)
        if bad_count:
            self.poisoned(where, bad_count)
            index = np.where(nans, garbage_element(I32), index)
        return index

    def find_first_set(self, where, mask, dim):
        """The lowest index that is set along `dim`. If none is set, the result is undefined."""
        index = np.argmax(mask, axis=dim).astype(I32)
        none = ~mask.any(axis=dim)
        bad_count = np.count_nonzero(none)
        if bad_count:
            self.poisoned(where, bad_count)
            index = np.where(none, garbage_element(I32), index)
        return index

    def narrow(self, where, x, dtype):
        """Narrows an f32 that holds an integer. It is an error if its conversion to f32 may have rounded."""
        if np.count_nonzero(abs(x) >= 2.0**24):
            self.error(where, f"an integer of more than 24 bits to {dtype}")
        return x.astype(dtype)

    def divide(self, where, a, b, what, signed, bits):
        """The quotient of integers, rounded towards zero, or the remainder. For scalars and vectors."""
        scalar = not isinstance(a, np.ndarray)
        dtype = np.dtype(f"i{bits // 8}")
        a, b = np.asarray(a, dtype), np.asarray(b, dtype)
        if not signed:
            a, b = (v.view(f"u{bits // 8}") for v in (a, b))
        a, b = a.astype(np.int64), b.astype(np.int64)
        if np.count_nonzero(b == 0):
            self.error(where, "division by zero")
        quotient = np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)
        if signed and np.count_nonzero(quotient == 1 << (bits - 1)):
            self.error(where, "division overflows")
        result = (quotient if what == "div" else a - quotient * b).astype(dtype)
        return result.item() if scalar else result

    def shift(self, where, amount, bits):
        """Checks a shift amount and returns it."""
        if isinstance(amount, np.ndarray):
            bad = amount.view(f"u{amount.dtype.itemsize}") >= bits
            if np.count_nonzero(bad):
                self.error(where, f"shift by {amount[bad][0]} of {bits} bits")
        elif not 0 <= amount < bits:
            self.error(where, f"shift by {amount} of {bits} bits")
        return amount

    def ordered_unequal(self, where, a, b):
        """Whether a < b or a > b. Compilers disagree with MLIR on the result for a NaN, so NaNs are counted."""
        nans = np.count_nonzero((a != a) | (b != b))
        if nans:
            self.poisoned(where, nans)
        return (a < b) | (a > b)

    def sum(self, where, x, axes):
        """A sum of floats. The hardware's order of additions is unknown, so a sum that depends on it is an error."""
        total = np.add.reduce(x, axis=axes, dtype=x.dtype)
        certain = np.add.reduce(np.abs(x), axis=axes, dtype=np.float64) <= 2.0**24
        certain &= np.logical_and.reduce(x == np.trunc(x), axis=axes)
        if np.count_nonzero(~certain & np.isfinite(total)):
            self.error(where, "a sum whose rounding depends on the order of additions")
        return total

    def matmul(self, where, lhs, rhs, acc, equation):
        """A product of matrices. It is an error if the result could depend on the order of additions."""
        for x in (lhs, rhs):
            if x.dtype == F32 and (x.astype(BF16).astype(F32) != x).any():
                self.error(where, "f32 operands that bf16 cannot represent: the passes of the hardware are not supported")
        a, b, c = (np.asarray(x).astype(np.float64) for x in (lhs, rhs, acc))
        total = np.einsum(equation, a, b) + c
        if acc.dtype.kind == "i":
            bound = np.einsum(equation, np.abs(a), np.abs(b)) + np.abs(c)
            if (bound >= 2.0**53).any():
                self.error(where, "sums too large for the interpreter")
            return total.astype(np.int64).astype(acc.dtype)
        whole = all((np.isfinite(x) & (x == np.trunc(x))).all() for x in (a, b, c))
        if not whole or (np.einsum(equation, np.abs(a), np.abs(b)) + np.abs(c) > 2.0**24).any():
            self.error(where, "a sum whose rounding depends on the order of additions")
        return total.astype(acc.dtype)


# Bits


def wrap(value, bits):
    """Wraps an integer to a signed integer of `bits` bits."""
    half = 1 << (bits - 1)
    return ((value + half) & (2 * half - 1)) - half


def scalar_bits(value, elem):
    """Reinterprets a float as an integer."""
    return np.asarray(value).view(f"i{WIDTHS[elem] // 8}").item()


def scalar_float(value, elem):
    """Reinterprets an integer as a float."""
    return np.array(value, f"i{WIDTHS[elem] // 8}").view(DTYPES[elem])[()]


def flush(x):
    """Flushes subnormals to zeros of the same sign."""
    if isinstance(x, np.ndarray):
        word = np.dtype(f"u{x.dtype.itemsize}")
        exponent, sign = (0x7F800000, 0x80000000) if x.dtype.itemsize == 4 else (0x7F80, 0x8000)
        bits = x.view(word)
        small = (bits & exponent) == 0
        return np.where(small, bits & sign, bits).astype(word, copy=False).view(x.dtype)
    return flush(np.asarray(x).reshape(1))[0]


def bitcast_rows(x, dtype):
    """Reinterprets the bits as elements of another width. Narrow elements share words along the second dimension from the
    end."""
    dtype = np.dtype(dtype)
    if x.dtype.itemsize == dtype.itemsize:
        return x.view(dtype)
    if x.dtype.itemsize < dtype.itemsize:
        ratio = dtype.itemsize // x.dtype.itemsize
        *outer, rows, lanes = x.shape
        grouped = x.reshape(*outer, rows // ratio, ratio, lanes).swapaxes(-1, -2)
        return np.ascontiguousarray(grouped).view(dtype)[..., 0]
    ratio = x.dtype.itemsize // dtype.itemsize
    *outer, rows, lanes = x.shape
    split = np.ascontiguousarray(x)[..., None].view(dtype)
    return split.swapaxes(-1, -2).reshape(*outer, rows * ratio, lanes)


class Packed:
    """A view of a memory with elements of another width. Reading and writing convert the rows of words that they touch."""

    def __init__(self, base, dtype, shape):
        self.base, self.dtype, self.shape = base, np.dtype(dtype), tuple(shape)

    def _rows(self, key):
        """The key of the rows of the base that contain the rows of `key`, and the position of the latter in the former."""
        *outer, rows, lanes = key
        old, new = self.base.dtype.itemsize, self.dtype.itemsize
        if old <= new:
            ratio = new // old
            return (*outer, slice(rows.start * ratio, rows.stop * ratio), slice(None)), slice(0, rows.stop - rows.start)
        ratio = old // new
        first = rows.start // ratio
        part = slice(rows.start - first * ratio, rows.stop - first * ratio)
        return (*outer, slice(first, -(-rows.stop // ratio)), slice(None)), part

    def __getitem__(self, key):
        base, part = self._rows(key)
        return bitcast_rows(self.base[base], self.dtype)[..., part, key[-1]]

    def __setitem__(self, key, value):
        base, part = self._rows(key)
        words = bitcast_rows(self.base[base], self.dtype).copy()
        words[..., part, key[-1]] = value
        self.base[base] = bitcast_rows(words, self.base.dtype)


# Floats


def _zero_sign(result, a, b, keep):
    """Corrects the sign of zero results for an order with -0 below +0. `keep` combines the bits of the operands."""
    zero = result == 0
    if np.count_nonzero(zero):
        if not isinstance(result, np.ndarray):
            words = f"u{result.dtype.itemsize}"
            return keep(np.asarray(a).view(words), np.asarray(b).view(words)).view(result.dtype)[()] if a == b else result
        words = f"u{result.dtype.itemsize}"
        both = zero & (a == b)
        return np.where(both, keep(a.view(words), b.view(words)), result.view(words)).view(result.dtype)
    return result


def maximum(a, b):
    """The larger operand; a NaN if either is a NaN; +0 of +0 and -0."""
    return _zero_sign(np.maximum(a, b), a, b, np.bitwise_and)


def minimum(a, b):
    """The smaller operand; a NaN if either is a NaN; -0 of +0 and -0."""
    return _zero_sign(np.minimum(a, b), a, b, np.bitwise_or)


def maxnum(a, b):
    """The larger operand; the other operand if one is a NaN."""
    return _zero_sign(np.fmax(a, b), a, b, np.bitwise_and)


def minnum(a, b):
    """The smaller operand; the other operand if one is a NaN."""
    return _zero_sign(np.fmin(a, b), a, b, np.bitwise_or)


def reduce_with(function, x, axes):
    """Reduces axes with a function of two arrays."""
    for axis in sorted(axes, reverse=True):
        parts = np.moveaxis(x, axis, 0)
        while len(parts) > 1:
            half = len(parts) // 2
            rest = parts[2 * half :]
            parts = function(np.ascontiguousarray(parts[:half]), np.ascontiguousarray(parts[half : 2 * half]))
            parts = np.concatenate([parts, rest]) if len(rest) else parts
        x = parts[0]
    return x


def extf(x, dtype):
    """Converts to a wider float, which is exact. The bits of a bf16 become the upper half of the f32."""
    if x.dtype == BF16 and dtype == F32:
        words = np.asarray(x).view(np.uint16).astype(U32) << 16
        return words.view(F32) if words.ndim else words[()].view(F32)
    return x.astype(dtype)


# Shapes


def filled(shape, dtype, value):
    """A vector of one value."""
    result = np.empty(shape, dtype)
    result.fill(value)
    return result


def spread(shape, dtype, value):
    """A vector repeated along its dimensions of size one, and along new leading dimensions."""
    result = np.empty(shape, dtype)
    result[...] = value
    return result


def rotate(x, amount, dim):
    """Moves element i to (i + amount) modulo the size."""
    size = x.shape[dim]
    amount %= size
    if amount == 0:
        return x
    cut = (slice(None),) * dim
    return np.concatenate((x[cut + (slice(size - amount, None),)], x[cut + (slice(0, size - amount),)]), dim)


def rotate_strided(x, amount, dim, stride, stride_dim):
    """Rotates by `amount`, plus `stride` for each step along `stride_dim`."""
    slices = [
        rotate(np.take(x, [i], stride_dim), amount + i * stride, dim) for i in range(x.shape[stride_dim])
    ]
    return np.concatenate(slices, stride_dim)


def iota(shape, dims):
    """Indices along `dims`, counted as if they were one dimension."""
    result = np.zeros(shape, I32)
    for dim in dims:
        along = [-1 if i == dim else 1 for i in range(len(shape))]
        result = result * shape[dim] + np.arange(shape[dim], dtype=I32).reshape(along)
    return result


def leading_zeros(x):
    """The number of zero bits above the highest set bit."""
    bits = x.dtype.itemsize * 8
    words = x.view(f"u{x.dtype.itemsize}")
    step = 1
    while step < bits:
        words = words | (words >> words.dtype.type(step))
        step *= 2
    return (bits - np.bitwise_count(words).astype(x.dtype)).astype(x.dtype)


def trailing_zeros(x):
    """The number of zero bits below the lowest set bit."""
    words = x.view(f"u{x.dtype.itemsize}")
    below = ~words & (words - words.dtype.type(1))
    return np.bitwise_count(below).astype(x.dtype)


@functools.cache
def _corners(shape):
    """The row and column numbers of a matrix."""
    return np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]


def reshape_view(memory, shape):
    """A view of a memory with another shape."""
    return memory.reshape(shape, copy=False)


NAMESPACE = {
    name: globals()[name]
    for name in (
        "I32 U32 F32 BF16 Packed bitcast_rows extf filled flush garbage iota leading_zeros maximum maxnum minimum "
        "minnum reduce_with reshape_view rotate rotate_strided scalar_bits scalar_float spread "
        "trailing_zeros wrap"
    ).split()
} | {
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": I32,
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": U32,
    "f16": np.dtype(np.float16),
    "f32": F32,
    "bf16": BF16,
    "i1": np.dtype(np.bool_),
    "where": np.where,
    "concatenate": np.concatenate,
}
