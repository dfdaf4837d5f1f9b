"""Finds data races from the order that barriers, fences and atomics establish. The schedule does not matter.

Two accesses of the same bytes by different threads are a race under three conditions: at least one of them writes, at
least one is weak, and neither happens before the other. Weak accesses are plain `ld` and `st`. Strong accesses are
atomics, and `ld` and `st` with .relaxed, .acquire, .release or .volatile. The following establishes an order of
accesses:

- the order of the instructions of a thread;
- a barrier of the block (bar.sync, bar.red): everything before it happens before everything after it;
- bar.warp.sync of all lanes of a warp, for these lanes;
- a release pattern that an acquire pattern observes, for threads of different blocks. A release pattern is a strong
  write with .release or .acq_rel, or a fence and a later strong write by the same thread. An acquire pattern is a
  strong read with .acquire or .acq_rel, or a strong read and a later fence by the same thread. An atomic continues the
  releases that it observes. A fence publishes only what happens before the fence. If a barrier follows the fence, the
  accesses that other threads make before this barrier are not published.

The time of a thread consists of two numbers. The first one, the epoch, is the number of barriers that its block has
passed. The second one counts the releases of the thread and the barriers of its warp in this epoch. A unit of memory
has the size of the smallest access of the kernel. For each unit, `Shadow` has the latest access of each category by
each block. If several threads of the block accessed the unit in the same epoch, `Shadow` only knows whether they belong
to one warp. This is enough to report the first race. The model has these limits:

- A read returns the value that was stored last, by any thread. A device may reorder relaxed accesses of different
  addresses. The interpreter does not. It reports a weak access that depends on their order as a race. It reports
  nothing if a program uses only relaxed accesses and expects an order of them.
- Strong accesses establish no order between threads of the same block. If a program uses them instead of a barrier, the
  interpreter reports a race, although the program may be correct.
- Fences and atomics have the scope of the device. Atomics of shared memory can also have the scope of the block. Other
  scopes are errors.
"""

import numpy as np

# The numbers of bits of the fields of a stamp: the second number of the time, and the thread. Special values of the
# thread mean several threads of one warp (WARP + number of the warp) or of the block (SEVERAL).
SUB_BITS, THREAD_BITS = 20, 11
THREAD = (1 << THREAD_BITS) - 1
MAX_THREADS = 1024
SEVERAL = MAX_THREADS
WARP = MAX_THREADS + 1

READ, STRONG_READ, WRITE, STRONG_WRITE = range(4)
WORDS = ("read", "strong read", "write", "strong write")
CONFLICTS = {
    READ: (WRITE, STRONG_WRITE),
    STRONG_READ: (WRITE,),
    WRITE: (READ, STRONG_READ, WRITE, STRONG_WRITE),
    STRONG_WRITE: (READ, WRITE),
}


class Clock:
    """The time of each thread of a block, and the times that it knows of the threads of other blocks."""

    def __init__(self, block, blocks, threads):
        self.block, self.blocks, self.threads = block, blocks, threads
        self.epoch = 1
        self.sub = np.zeros(threads, np.int64)
        # Accesses of the lanes of a warp up to this value of `sub` are ordered by a barrier of the warp.
        self.closed = np.full(threads, -1, np.int64)
        # For each thread, the times that it knows of each thread of each block, or None. Threads share these arrays, so
        # an array never changes after its creation.
        self.known = [None] * threads
        # For each thread, what its last fence publishes, and the releases that its strong reads have observed since
        # then.
        self.fenced = [None] * threads
        self.observed = [None] * threads
        self.has_fenced = False

    def stamps(self, threads):
        return ((self.epoch << SUB_BITS | self.sub[threads]) << THREAD_BITS) | threads

    def barrier(self):
        """Records that all threads of the block have reached a barrier."""
        self.epoch += 1
        self.sub[:] = 0
        self.closed[:] = -1
        distinct = {id(k): k for k in self.known if k is not None}
        if distinct:
            joined = list(distinct.values())
            merged = joined[0] if len(joined) == 1 else np.maximum.reduce(joined)
            self.known = [merged] * self.threads

    def warp_barrier(self, threads):
        """Records that all lanes of a warp have reached bar.warp.sync."""
        latest = self.sub[threads].max()
        self.closed[threads] = latest
        self.sub[threads] = latest + 1
        distinct = {id(self.known[t]): self.known[t] for t in threads if self.known[t] is not None}
        if distinct:
            merged = np.maximum.reduce(list(distinct.values()))
            for t in threads:
                self.known[t] = merged

    # Releases and acquires

    def release(self, thread):
        """Returns what a thread publishes now: its block, its number, its time, the time of the last barrier of its
        warp, and the times that it knows."""
        sub = int(self.sub[thread])
        self.sub[thread] += 1
        return (self.block, int(thread), self.epoch, sub, int(self.closed[thread]), self.known[thread])

    def acquire(self, thread, releases):
        """Adds the times that releases publish to those that a thread knows."""
        if not releases:
            return
        known = self.known[thread]
        known = np.zeros((self.blocks, self.threads), np.int64) if known is None else known.copy()
        for block, other, epoch, sub, closed, before in releases.values():
            if before is not None:
                np.maximum(known, before, out=known)
            row = known[block]
            np.maximum(row, (epoch << SUB_BITS) - 1, out=row)
            warp = row[other // 32 * 32 : other // 32 * 32 + 32]
            if closed >= 0:
                np.maximum(warp, epoch << SUB_BITS | closed, out=warp)
            row[other] = max(row[other], epoch << SUB_BITS | sub)
        self.known[thread] = known

    def fence(self, threads):
        self.has_fenced = True
        for t in threads:
            self.acquire(t, self.observed[t])
            self.observed[t] = None
            self.fenced[t] = self.release(t)


class Releases:
    """For each unit of a memory, the releases that a strong read of this unit observes."""

    def __init__(self):
        self.of = {}

    def read(self, clock, thread, unit, acquire):
        found = self.of.get(unit)
        if not found:
            return
        if acquire:
            clock.acquire(thread, found)
        elif clock.observed[thread] is None:
            clock.observed[thread] = dict(found)
        else:
            clock.observed[thread].update(found)

    def write(self, clock, thread, unit, release, atomic):
        token = clock.release(thread) if release else clock.fenced[thread]
        found = self.of.get(unit) if atomic else None
        if token is None:
            if not atomic:
                self.of.pop(unit, None)
            return
        found = dict(found) if found else {}
        found[token[0], token[1]] = token
        self.of[unit] = found


class Shadow:
    """The latest accesses of each unit of a memory."""

    def __init__(self, size, unit, blocks):
        self.unit, self.blocks = unit, blocks
        self.units = -(-size // unit)
        self.stamps = [None] * 4
        # The block that has accessed each unit: -1 for none, -2 for several.
        self.owner = np.full(self.units, -1, np.int32)
        self.releases = Releases()

    def access(self, clock, column, threads, offsets, size, category):
        """Records accesses. Returns the description of a race, or None."""
        units = offsets // self.unit
        for part in range(max(size // self.unit, 1)):
            found = self.access_units(clock, column, threads, units + part, category)
            if found:
                return found
        return None

    def access_units(self, clock, column, threads, units, category):
        for other in CONFLICTS[category]:
            if self.stamps[other] is not None:
                found = self.same_block(clock, column, threads, units, category, other)
                if found:
                    return found
        if self.blocks > 1:
            owner = self.owner[units]
            foreign = (owner != column) & (owner != -1)
            if foreign.any():
                where = np.flatnonzero(foreign)
                for other in CONFLICTS[category]:
                    if self.stamps[other] is not None:
                        found = self.other_blocks(clock, column, threads[where], units[where], category, other)
                        if found:
                            return found
                self.owner[units[where]] = -2
            self.owner[units[owner == -1]] = column
        return self.record(clock, column, threads, units, category)

    def same_block(self, clock, column, threads, units, category, other):
        stamps = self.stamps[other][column, units]
        now = stamps >> SUB_BITS + THREAD_BITS == clock.epoch
        if not now.any():
            return None
        accessors = stamps & THREAD
        conflict = now & (accessors != threads)
        if conflict.any() and (clock.closed >= 0).any():
            warp = np.where(accessors >= WARP, accessors - WARP, np.where(accessors == SEVERAL, -1, accessors // 32))
            sub = stamps >> THREAD_BITS & (1 << SUB_BITS) - 1
            conflict &= ~((warp == threads // 32) & (sub <= clock.closed[threads]))
        if not conflict.any():
            return None
        at = np.flatnonzero(conflict)[0]
        return (
            f"thread {threads[at]} of block {clock.block} races with a {WORDS[other]} by {describe(accessors[at])} of "
            f"the same block ({WORDS[category]} of byte {units[at] * self.unit}; no barrier between them)"
        )

    def other_blocks(self, clock, column, threads, units, category, other):
        stamps = self.stamps[other][:, units]
        stamps[column] = 0
        pairs = np.argwhere(stamps)
        known = clock.known[threads[0]]
        if known is not None and all(clock.known[t] is known for t in threads):
            # The usual case after a barrier: all threads know the same times. This removes most ordered pairs at once.
            found = stamps[pairs[:, 0], pairs[:, 1]]
            accessors = found & THREAD
            single = accessors < MAX_THREADS
            pairs = pairs[~(single & (known[pairs[:, 0], np.where(single, accessors, 0)] >= found >> THREAD_BITS))]
        for block, at in pairs:
            stamp, thread = int(stamps[block, at]), int(threads[at])
            time, accessor = stamp >> THREAD_BITS, stamp & THREAD
            known = clock.known[thread]
            if known is not None:
                if accessor < MAX_THREADS:
                    ordered = known[block, accessor] >= time
                elif accessor == SEVERAL:
                    ordered = known[block].min() >= ((time >> SUB_BITS) + 1 << SUB_BITS) - 1
                else:
                    first = (accessor - WARP) * 32
                    ordered = known[block, first : first + 32].min() >= time
                if ordered:
                    continue
            return (
                f"thread {thread} of block {clock.block} races with a {WORDS[other]} by {describe(accessor)} of block "
                f"{block} ({WORDS[category]} of byte {units[at] * self.unit}; no release and acquire order them. A "
                "release is a fence after the last barrier and then a strong write, by one thread)"
            )
        return None

    def record(self, clock, column, threads, units, category):
        if self.stamps[category] is None:
            self.stamps[category] = np.zeros((self.blocks, self.units), np.int64)
        table = self.stamps[category]
        row = table[column]
        new = clock.stamps(threads)
        if category != WRITE:
            new = self.merged(clock, row[units], new, threads)
        row[units] = new
        clash = np.flatnonzero((row[units] ^ new) & THREAD)
        if len(clash) == 0:
            return None
        if category == WRITE:
            at = clash[0]
            return (
                f"threads {threads[at]} and {int(row[units[at]]) & THREAD} of block {clock.block} write byte "
                f"{units[at] * self.unit} in the same instruction"
            )
        # Several threads of the instruction access the same unit.
        lanes = np.argsort(units, kind="stable")
        ordered = units[lanes]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        time = np.maximum.reduceat(new[lanes] >> THREAD_BITS, starts)
        code = new[lanes] & THREAD
        warp = np.where(code >= WARP, code - WARP, np.where(code == SEVERAL, -1, code // 32))
        low, high = np.minimum.reduceat(warp, starts), np.maximum.reduceat(warp, starts)
        first, last = np.minimum.reduceat(code, starts), np.maximum.reduceat(code, starts)
        merged = np.where(first == last, first, np.where((low == high) & (low >= 0), WARP + low, SEVERAL))
        row[ordered[starts]] = time << THREAD_BITS | merged
        return None

    def merged(self, clock, old, new, threads):
        """Returns the stamps of new accesses. If another thread of the block accessed a unit in the same epoch, its new
        stamp stands for several threads."""
        several = (old >> SUB_BITS + THREAD_BITS == clock.epoch) & ((old & THREAD) != threads)
        if not several.any():
            return new
        code = old & THREAD
        warp = np.where(code >= WARP, code - WARP, np.where(code == SEVERAL, -1, code // 32))
        joined = np.where(warp == threads // 32, WARP + threads // 32, SEVERAL)
        time = np.maximum(old >> THREAD_BITS, new >> THREAD_BITS)
        return np.where(several, time << THREAD_BITS | joined, new)


def describe(code):
    if code == SEVERAL:
        return "several threads"
    return f"warp {code - WARP}" if code >= WARP else f"thread {code}"
