"""Loads, stores, atomics and fences."""

import numpy as np

from .races import READ, STRONG_READ, STRONG_WRITE, WRITE
from .text import TYPES, Address, Symbol, Vector
from .translate import UNORDERED, dtype_of, operation

# Hints that do not change the value of a correct program.
HINTS = {"ca", "cg", "cs", "cv", "wb", "wt", "lu"}
SCOPES = {"cta", "gpu", "sys"}


def hints(i):
    i.one_of(HINTS)
    for name in [m for m in i.modifiers if m.startswith(("L1::", "L2::"))]:
        if name not in (
            "L1::no_allocate",
            "L1::evict_first",
            "L1::evict_last",
            "L1::evict_normal",
            "L1::evict_unchanged",
            "L2::64B",
            "L2::128B",
            "L2::256B",
        ):
            i.error(f"unknown modifier .{name}")
        i.modifiers.remove(name)


def ordering(i, allowed):
    """The ordering of a load or store: weak, relaxed, acquire or release. Weak accesses have no scope."""
    found = i.one_of(allowed)
    if found in ("acquire", "release", "relaxed", "acq_rel"):
        if i.needed(SCOPES) != "gpu":
            i.error("only the scope .gpu is supported")
    return {"volatile": "relaxed", None: "weak"}.get(found, found)


def parts_and_address(i, type, place, what):
    """Reads the operands of a load or store. `place` is 0 or 1: the place of the value, which can be a vector. Returns
    the parts of the value, and the address."""
    count = {"v2": 2, "v4": 4, None: 1}[i.one_of(("v2", "v4"))]
    operands = i.expect(2)
    value, address = operands[place], operands[1 - place]
    bits, kind = TYPES[type]
    parts = value.parts if isinstance(value, Vector) else (value,)
    if len(parts) != count or count > 1 and not isinstance(value, Vector) or bits * count > 128 or kind == "p":
        i.error(f"{len(parts)} {what} for {count} elements of .{type}")
    return parts, address


class Access:
    """The accesses of one instruction: addresses, checks, and the memory."""

    def __init__(self, t, i, operand, space, size, count=1):
        self.i, self.space, self.size, self.count = i, space, size, count
        self.base, self.offset = t.address(i, operand, space)
        t.smallest[space] = min(t.smallest[space], size)

    def error(self, block, thread, message):
        self.i.error(f"{message} (thread {thread} of block {block.number})")

    def parts(self, block, mask):
        """Yields each memory, the offsets of the accesses in it, and their threads."""
        threads = mask.threads
        base = block.v[self.base]
        # Arithmetic on addresses wraps.
        addresses = (base[threads] if np.ndim(base) else np.full(len(threads), base)).astype(np.int64) + self.offset
        total = self.size * self.count
        wrong = np.flatnonzero(addresses % total)
        if len(wrong):
            self.error(block, threads[wrong[0]], f"address {addresses[wrong[0]]:#x} is not a multiple of {total}")
        if self.space == "shared":
            memory = block.shared
            wrong = memory.outside(addresses, total)
            if len(wrong):
                self.error(
                    block, threads[wrong[0]], f"{total} bytes at {addresses[wrong[0]]} are in no array of shared memory"
                )
            yield memory, addresses, threads
            return
        for memory, where, offsets in block.launch.memory.resolve(addresses):
            some = threads[where]
            if memory is None:
                at = addresses[where][0]
                self.error(block, some[0], f"address {at:#x} is in no buffer")
            wrong = np.flatnonzero((offsets < 0) | (offsets + total > memory.size))
            if len(wrong):
                self.error(
                    block,
                    some[wrong[0]],
                    f"{total} bytes at {offsets[wrong[0]]} of {memory.name}, which has {memory.size} bytes",
                )
            yield memory, offsets, some

    def record(self, block, memory, threads, offsets, category):
        if memory.shadow is None:
            return
        column = 0 if self.space == "shared" else block.column
        race = memory.shadow.access(block.clock, column, threads, offsets, self.size, category)
        if race:
            self.i.error(f"{race} of {memory.name}")

    def check_written(self, block, memory, threads, offsets):
        wrong = memory.unwritten(offsets, self.size)
        if len(wrong):
            self.error(
                block,
                threads[wrong[0]],
                f"reads {self.size} bytes at {offsets[wrong[0]]} of {memory.name}, which were never written",
            )

    def check_writable(self, block, memory, threads):
        if not memory.writable:
            self.error(block, threads[0], f"writes {memory.name}, which is an operand without an alias")


@operation("ld")
def load(t, i):
    """Loads of parameters, global and shared memory."""
    type = i.type()
    space = i.needed(("param", "global", "shared"))
    if space == "param":
        return load_parameter(t, i, type)
    order = ordering(i, ("weak", "volatile", "relaxed", "acquire"))
    constant = i.flag("nc")
    hints(i)
    parts, address = parts_and_address(i, type, 0, "destinations")
    access = Access(t, i, address, space, TYPES[type][0] // 8, len(parts))
    slots = [t.dst(i, part, type, wider=True) for part in parts]
    category = READ if order == "weak" else STRONG_READ
    if order != "weak":
        t.step.event = True
    if constant and (space != "global" or order != "weak"):
        i.error(".nc is for weak loads of global memory")

    def run(block, mask):
        for memory, offsets, threads in access.parts(block, mask):
            if constant and memory.writable:
                access.error(block, threads[0], f".nc reads {memory.name}, which the kernel can write")
            for n, slot in enumerate(slots):
                at = offsets + n * access.size
                access.check_written(block, memory, threads, at)
                access.record(block, memory, threads, at, category)
                if slot is not None:
                    block.v[slot][threads] = memory.load(at, access.size).view(dtype_of(type))
                if category == STRONG_READ and memory.shadow is not None:
                    observe(block, memory, threads, at, order == "acquire")
        if category == STRONG_READ:
            block.launch.polled()

    return run


def observe(block, memory, threads, offsets, acquire):
    releases = memory.shadow.releases
    if releases.of:
        for thread, unit in zip(threads, (offsets // memory.shadow.unit).tolist()):
            releases.read(block.clock, thread, unit, acquire)


def publish(block, memory, threads, offsets, release, atomic):
    releases = memory.shadow.releases
    if release or releases.of or block.clock.has_fenced:
        for thread, unit in zip(threads, (offsets // memory.shadow.unit).tolist()):
            releases.write(block.clock, thread, unit, release, atomic)


def load_parameter(t, i, type):
    d, address = i.expect(2)
    if (
        type not in ("u64", "b64")
        or not isinstance(address, Address)
        or not isinstance(address.base, Symbol)
        or address.offset
    ):
        i.error("parameters are loaded whole, as .u64")
    if address.base.name not in t.entry.parameters:
        i.error(f"unknown parameter {address.base.name}")
    slot = t.slot(("parameter", t.entry.parameters.index(address.base.name)))
    return t.compute(i, d, type, lambda x: x, [slot])


@operation("st")
def store(t, i):
    """Stores to global and shared memory."""
    type = i.type()
    space = i.needed(("global", "shared"))
    order = ordering(i, ("weak", "volatile", "relaxed", "release"))
    hints(i)
    parts, address = parts_and_address(i, type, 1, "values")
    access = Access(t, i, address, space, TYPES[type][0] // 8, len(parts))
    slots = [t.src(i, part, type, wider=True) for part in parts]
    word = np.dtype(f"u{access.size}")
    category = WRITE if order == "weak" else STRONG_WRITE
    if order != "weak":
        t.step.event = True

    def run(block, mask):
        for memory, offsets, threads in access.parts(block, mask):
            access.check_writable(block, memory, threads)
            for n, slot in enumerate(slots):
                at = offsets + n * access.size
                access.record(block, memory, threads, at, category)
                value = block.v[slot]
                value = value[threads] if np.ndim(value) else np.full(len(threads), value)
                value = value.view(f"u{value.dtype.itemsize}").astype(word)
                if category == STRONG_WRITE and len(threads) > 1:
                    # Threads can store to the same address. Any order is possible.
                    shuffled = block.launch.order(len(threads))
                    memory.store(at[shuffled], access.size, value[shuffled])
                    publish(block, memory, threads[shuffled], at[shuffled], order == "release", False)
                    continue
                memory.store(at, access.size, value)
                if category == STRONG_WRITE:
                    publish(block, memory, threads, at, order == "release", False)
        block.launch.progress()

    return run


# Atomics

SCALAR = {
    "add": lambda old, b, c: old + b,
    "min": lambda old, b, c: min(old, b),
    "max": lambda old, b, c: max(old, b),
    "and": lambda old, b, c: old & b,
    "or": lambda old, b, c: old | b,
    "xor": lambda old, b, c: old ^ b,
    "exch": lambda old, b, c: b,
    "cas": lambda old, b, c: c if old == b else old,
    "inc": lambda old, b, c: 0 if old >= b else old + 1,
    "dec": lambda old, b, c: b if old == 0 or old > b else old - 1,
}
ARRAYS = {
    "add": lambda old, b, c: old + b,
    "min": lambda old, b, c: np.minimum(old, b),
    "max": lambda old, b, c: np.maximum(old, b),
    "and": lambda old, b, c: old & b,
    "or": lambda old, b, c: old | b,
    "xor": lambda old, b, c: old ^ b,
    "exch": lambda old, b, c: b,
    "cas": lambda old, b, c: np.where(old == b, c, old),
    "inc": lambda old, b, c: np.where(old >= b, old.dtype.type(0), old + old.dtype.type(1)),
    "dec": lambda old, b, c: np.where((old == 0) | (old > b), b, old - old.dtype.type(1)),
}
ATOMIC_TYPES = {
    "add": "u32 s32 u64",
    "min": "u32 s32 u64 s64",
    "max": "u32 s32 u64 s64",
    "and": "b32 b64",
    "or": "b32 b64",
    "xor": "b32 b64",
    "exch": "b32 b64",
    "cas": "b32 b64",
    "inc": "u32",
    "dec": "u32",
}


def exchange(memory, offsets, size, type, op, b, c, wanted):
    """Executes atomics in this order. Returns the old values, if they are wanted, and whether the memory changed."""
    dtype = dtype_of(type)
    before = memory.load(offsets, size).view(dtype)
    if len(np.unique(offsets)) == len(offsets):
        after = np.asarray(ARRAYS[op](before, b, c), dtype)
        memory.store(offsets, size, after.view(f"u{size}"))
        return before, bool((after != before).any())
    # Several threads have the same address, so their operations run one after the other.
    if op in UNORDERED and (op == "add" or not wanted):
        UNORDERED[op].at(memory.views[size].view(dtype), offsets // size, b)
        old = before + sums_before(offsets, b) if wanted else None
        return old, bool((memory.load(offsets, size).view(dtype) != before).any())
    return one_by_one(memory, offsets, size, dtype, op, b, c)


def sums_before(offsets, values):
    """For each element, the sum of the values of the earlier elements with the same offset."""
    lanes = np.argsort(offsets, kind="stable")
    ordered, values = offsets[lanes], values[lanes]
    sums = np.cumsum(values, dtype=values.dtype) - values
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sums -= np.repeat(sums[starts], np.diff(np.r_[starts, len(lanes)]))
    result = np.empty_like(sums)
    result[lanes] = sums
    return result


def one_by_one(memory, offsets, size, dtype, op, b, c):
    """Atomics with Python's integers, which are faster here than arrays of one element."""
    values = {at: int(x) for at, x in zip(offsets.tolist(), memory.load(offsets, size).view(dtype))}
    mask, signed, bits = (1 << 8 * size) - 1, dtype.kind == "i", 8 * size
    function, old, changed = SCALAR[op], [], False
    for at, x, y in zip(offsets.tolist(), b.tolist(), c.tolist() if c is not None else [0] * len(b)):
        before = values[at]
        after = function(before, x, y) & mask
        if signed and after >> bits - 1:
            after -= 1 << bits
        changed |= after != before
        values[at] = after
        old.append(before)
    memory.store(np.array(list(values)), size, np.array(list(values.values()), dtype).view(f"u{size}"))
    return np.array(old, dtype), changed


@operation("atom", "red")
def atomic(t, i):
    """Atomics on global and shared memory. Threads of one instruction follow each other in any order."""
    type = i.type()
    space = i.needed(("global", "shared"))
    order = (
        i.one_of(("relaxed", "acquire", "release", "acq_rel") if i.name == "atom" else ("relaxed", "release"))
        or "relaxed"
    )
    scope = i.one_of(SCOPES)
    if scope not in (None, "gpu") and (scope, space) != ("cta", "shared"):
        i.error(f"the scope .{scope}")
    op = i.needed(tuple(ATOMIC_TYPES))
    if type not in ATOMIC_TYPES[op].split() or op in ("exch", "cas") and i.name == "red":
        i.error(f".{op} of .{type}")
    operands = list(i.expect(2 if i.name == "red" else 4 if op == "cas" else 3))
    d = operands.pop(0) if i.name == "atom" else None
    access = Access(t, i, operands[0], space, TYPES[type][0] // 8)
    sources = [t.src(i, x, type) for x in operands[1:]]
    slot = t.dst(i, d, type)
    t.step.event = True
    acquire, release = order in ("acquire", "acq_rel"), order in ("release", "acq_rel")

    def run(block, mask):
        changed = False
        for memory, offsets, threads in access.parts(block, mask):
            access.check_writable(block, memory, threads)
            shuffled = block.launch.order(len(threads))
            threads, offsets = threads[shuffled], offsets[shuffled]
            access.check_written(block, memory, threads, offsets)
            access.record(block, memory, threads, offsets, STRONG_WRITE)
            values = [
                block.v[s][threads] if np.ndim(block.v[s]) else np.full(len(threads), block.v[s]) for s in sources
            ]
            second = values[1] if len(values) > 1 else None
            old, different = exchange(memory, offsets, access.size, type, op, values[0], second, slot is not None)
            changed |= different
            if slot is not None:
                block.v[slot][threads] = old
            if memory.shadow is not None:
                # One thread after the other: a thread also observes the releases of those before it.
                busy = release or memory.shadow.releases.of or block.clock.has_fenced
                for n in range(len(threads)) if busy else ():
                    one = slice(n, n + 1)
                    if i.name == "atom":
                        observe(block, memory, threads[one], offsets[one], acquire)
                    publish(block, memory, threads[one], offsets[one], release, True)
        if changed:
            block.launch.progress()
        elif slot is not None:
            block.launch.polled()

    return run


@operation("membar", "fence")
def fence(t, i):
    """Fences of the device."""
    if i.name == "membar":
        i.needed(("gl",))
    else:
        i.needed(("acq_rel", "sc"))
        i.needed(("gpu",))
    i.expect(0)
    t.step.event = True

    def run(block, mask):
        block.clock.fence(mask.threads)

    return run
