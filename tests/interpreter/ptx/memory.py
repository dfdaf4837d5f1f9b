"""The memories of a kernel: buffers in global memory, and the shared memory of a block.

An access must be aligned and inside one array. A kernel may read only bytes that were written. The high bits of an
address of global memory contain the number of the buffer. Near the start of each buffer, the addresses cross a multiple
of 4 GiB. So if a kernel computes an address with only 32 bits, the result is outside the buffer.
"""

import numpy as np

BASE = 0xFFFF_FF80
SHIFT = 40
PADDING = 16


class Memory:
    """One array: a buffer, or all of the shared memory of a block."""

    def __init__(self, name, data, initialized, writable, shadow=None):
        self.name = name
        self.size = len(data)
        self.data = np.concatenate([data, np.zeros(-len(data) % PADDING, np.uint8)])
        # 1 for each byte that has been written, else 0. None if all bytes have been written.
        self.valid = None if initialized else np.zeros_like(self.data)
        self.writable = writable
        self.shadow = shadow
        self.views = {n: self.data.view(f"u{n}") for n in (1, 2, 4, 8)}
        self.valid_views = None if initialized else {n: self.valid.view(f"u{n}") for n in (1, 2, 4, 8)}

    def load(self, offsets, size):
        """Returns the values at these offsets, as unsigned integers."""
        return self.views[size][offsets // size]

    def unwritten(self, offsets, size):
        """Returns the positions in `offsets` of reads of bytes that were never written."""
        if self.valid is None:
            return ()
        full = int.from_bytes(b"\1" * size, "little")
        return np.flatnonzero(self.valid_views[size][offsets // size] != full)

    def store(self, offsets, size, values):
        self.views[size][offsets // size] = values
        if self.valid is not None:
            self.valid_views[size][offsets // size] = int.from_bytes(b"\1" * size, "little")


class Shared(Memory):
    """The shared memory of a block. There are gaps between its arrays. Address 0 is in no array."""

    GAP = 256

    def __init__(self, arrays, fill, shadow):
        """`arrays` has the start and the size of each array."""
        size = max((start + n for start, n in arrays.values()), default=0)
        super().__init__("shared memory", np.resize(np.frombuffer(fill, np.uint8), size), False, True, shadow)
        self.starts = np.array(sorted(start for start, _ in arrays.values()), np.int64)
        self.ends = np.array(sorted(start + n for start, n in arrays.values()), np.int64)

    @classmethod
    def layout(cls, declared, dynamic):
        """Returns the start and the size of each array of an entry. Arrays without a size share the dynamic shared
        memory."""
        at, found = cls.GAP, {}
        for name, (size, align) in sorted(declared.items(), key=lambda item: item[1][0] is None):
            start = -(-at // align) * align
            found[name] = (start, dynamic if size is None else size)
            if size is not None:
                at = start + size + cls.GAP
        return found

    def outside(self, offsets, size):
        """Returns the positions in `offsets` of the accesses that are not inside one array."""
        if len(self.starts) == 0:
            return np.arange(len(offsets))
        number = np.searchsorted(self.starts, offsets, "right") - 1
        return np.flatnonzero((number < 0) | (offsets + size > self.ends[number]))


class Global:
    """The buffers of a launch."""

    def __init__(self, buffers):
        self.buffers = buffers

    @staticmethod
    def address(number):
        return (number + 1 << SHIFT) + BASE

    def resolve(self, addresses):
        """Groups accesses by buffer. Yields each buffer with the positions of its accesses and their offsets. Yields
        None instead of a buffer for addresses in no buffer."""
        relative = addresses.astype(np.int64) - BASE
        # An address slightly before a buffer also belongs to this buffer, with a negative offset. So the quotients are
        # rounded to the nearest number.
        numbers = (relative + (1 << SHIFT - 1) >> SHIFT) - 1
        first = int(numbers[0])
        if (numbers == first).all():
            yield self.buffer(first), slice(None), relative - (first + 1 << SHIFT)
            return
        for number in np.unique(numbers):
            where = np.flatnonzero(numbers == number)
            yield self.buffer(int(number)), where, relative[where] - (int(number) + 1 << SHIFT)

    def buffer(self, number):
        return self.buffers[number] if 0 <= number < len(self.buffers) else None
