"""Control flow, barriers, and exchanges between the lanes of a warp."""

import numpy as np

from .text import Imm, Not, Pair, Symbol
from .translate import UNORDERED, operation

LANES = 32


def unguarded(i):
    if i.guard is not None:
        i.error("a guard: all threads of the group must execute the instruction")


def of_threads(block, slot):
    """The values of a source for all threads."""
    return np.broadcast_to(block.v[slot], block.live.shape)


@operation("bra")
def branch(t, i):
    """A branch. With .uni, all active threads of a warp must agree."""
    (target,) = i.expect(1)
    if not isinstance(target, Symbol) or target.name not in t.entry.labels:
        i.error("unknown label")
    t.step.kind, t.step.target = "branch", t.entry.labels[target.name]
    t.step.uniform = i.flag("uni")


@operation("exit", "ret")
def leave(t, i):
    """The end of a thread."""
    i.expect(0)
    i.flag("uni")
    t.step.kind = "exit"


@operation("trap")
def trap(t, i):
    """Aborts the kernel."""
    i.expect(0)

    def run(block, mask):
        i.error(f"thread {mask.threads[0]} of block {block.number} executes trap")

    return run


@operation("nanosleep")
def sleep(t, i):
    """Lets other blocks run."""
    i.type("u32")
    (time,) = i.expect(1)
    t.src(i, time, "u32")
    t.step.event = True
    return lambda block, mask: None


@operation("activemask")
def active(t, i):
    """The lanes of the warp that execute this instruction together."""
    i.type("b32")
    (d,) = i.expect(1)
    slot = t.dst(i, d, "b32")

    def run(block, mask):
        np.copyto(block.v[slot], arrived(block, mask.bits), where=mask.where)

    return run


# Barriers of the block


@operation("bar", "barrier")
def barrier(t, i):
    """bar.sync and bar.red with barrier 0, and bar.warp.sync."""
    unguarded(i)
    i.one_of(("cta", "aligned"))
    i.one_of(("cta", "aligned"))
    if i.flag("warp"):
        return warp_barrier(t, i)
    t.step.kind, t.step.event = "barrier", True
    if i.flag("red"):
        return reduction(t, i)
    i.needed(("sync",))
    only_barrier_0(i, i.expect(1)[0])
    return lambda block, mask: None


def only_barrier_0(i, number):
    if not isinstance(number, Imm) or number.value != 0:
        i.error("only barrier 0 is supported")


def reduction(t, i):
    op = i.needed(("popc", "and", "or"))
    i.type("u32" if op == "popc" else "pred")
    d, number, p = i.expect(3)
    only_barrier_0(i, number)
    source, negated = t.predicate(i, p)
    slot = t.dst(i, d, "u32" if op == "popc" else "pred")
    function = {"popc": np.count_nonzero, "and": np.all, "or": np.any}[op]

    def run(block, mask):
        bits = of_threads(block, source)[mask.threads]
        block.v[slot][mask.threads] = function(~bits if negated else bits)

    return run


# Warps


def arrived(block, bits):
    """For each thread, the lanes of its warp that are in a set."""
    lanes = np.where(bits, block.lane_bit, np.uint32(0)).reshape(-1, LANES)
    return np.repeat(np.bitwise_or.reduce(lanes, axis=1), LANES)


def members(t, i, operand):
    """Makes an instruction wait for the lanes in its mask. Returns the slot of the mask."""
    unguarded(i)
    slot = t.src(i, operand, "b32")

    def ready(block, bits):
        """The threads that can execute, because all lanes in their masks have arrived."""
        masks = of_threads(block, slot)
        wrong = np.flatnonzero(bits & (masks & block.lane_bit == 0))
        if len(wrong):
            i.error(f"thread {wrong[0]} of block {block.number} is not in its mask {masks[wrong[0]]:#010x}")
        found = bits & (masks & ~arrived(block, bits) == 0)
        first = np.repeat(masks.reshape(-1, LANES)[:, 0], LANES)
        for thread in np.flatnonzero(found) if (masks[found] != first[found]).any() else ():
            lanes = thread // LANES * LANES + np.flatnonzero(int(masks[thread]) >> np.arange(LANES) & 1)
            if (masks[lanes] != masks[thread]).any():
                i.error(f"the lanes in the mask of thread {thread} of block {block.number} have other masks")
        return found

    t.step.kind, t.step.ready = "warp", ready
    return slot


def warp_barrier(t, i):
    """A barrier of all lanes of a warp."""
    i.needed(("sync",))
    (mask_operand,) = i.expect(1)
    slot = members(t, i, mask_operand)

    def run(block, mask):
        masks, live = of_threads(block, slot), arrived(block, block.live)
        wrong = np.flatnonzero(mask.bits & (masks != live))
        if len(wrong):
            i.error("only masks of all running lanes of the warp are supported")
        for warp in np.unique(mask.threads // LANES):
            block.clock.warp_barrier(mask.threads[mask.threads // LANES == warp])

    return run


@operation("vote")
def vote(t, i):
    """A predicate over the lanes in the mask."""
    i.needed(("sync",))
    mode = i.needed(("ballot", "all", "any", "uni"))
    type = i.type("b32" if mode == "ballot" else "pred")
    d, p, mask_operand = i.expect(3)
    source, negated = t.predicate(i, p)
    masks_slot = members(t, i, mask_operand)
    slot = t.dst(i, d, type)

    def run(block, mask):
        bits = of_threads(block, source)
        yes = arrived(block, (~bits if negated else bits) & mask.bits)
        masks = of_threads(block, masks_slot)
        yes = yes & masks
        results = {"ballot": yes, "all": yes == masks, "any": yes != 0, "uni": (yes == 0) | (yes == masks)}
        np.copyto(block.v[slot], results[mode], where=mask.where)

    return run


@operation("shfl")
def shuffle(t, i):
    """The value of another lane."""
    i.needed(("sync",))
    mode = i.needed(("idx", "up", "down", "bfly"))
    i.type("b32")
    d, a, b, c, mask_operand = i.expect(5)
    first, second = (d.first, d.second) if isinstance(d, Pair) else (d, None)
    sources = [t.src(i, x, "b32") for x in (a, b, c)]
    masks_slot = members(t, i, mask_operand)
    slot, inside_slot = t.dst(i, first, "b32"), t.dst(i, second, "pred")

    def run(block, mask):
        value, b, c = (of_threads(block, s) for s in sources)
        lane = block.lane.astype(np.int64)
        b, c = b.astype(np.int64) & 31, c.astype(np.int64)
        segment, clamp = c >> 8 & 31, c & 31
        low, high = lane & segment, lane & segment | clamp & ~segment
        j = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": low | b & ~segment}[mode]
        inside = j >= high if mode == "up" else j <= high
        j = np.where(inside, j, lane)
        missing = np.flatnonzero(mask.bits & (of_threads(block, masks_slot) >> j.astype(np.uint32) & 1 == 0))
        if len(missing):
            i.error(f"thread {missing[0]} of block {block.number} reads lane {j[missing[0]]}, which is not in its mask")
        result = value[np.arange(len(j)) // LANES * LANES + j]
        if slot is not None:
            np.copyto(block.v[slot], result, where=mask.where)
        if inside_slot is not None:
            np.copyto(block.v[inside_slot], inside, where=mask.where)

    return run


@operation("redux")
def reduce(t, i):
    """A reduction over the lanes in the mask."""
    i.needed(("sync",))
    op = i.needed(tuple(UNORDERED))
    type = i.type("u32 s32" if op in ("add", "min", "max") else "b32")
    d, a, mask_operand = i.expect(3)
    source = t.src(i, a, type)
    masks_slot = members(t, i, mask_operand)
    slot = t.dst(i, d, type)

    def run(block, mask):
        value, masks = of_threads(block, source), of_threads(block, masks_slot)
        key = (mask.threads // LANES).astype(np.uint64) << np.uint64(32) | masks[mask.threads]
        for one in np.unique(key):
            lanes = mask.threads[key == one]
            block.v[slot][lanes] = UNORDERED[op].reduce(value[lanes])

    return run


def guard_bits(block, step, mask):
    """The threads of a mask for which the guard of a step holds."""
    if step.guard is None:
        return mask.bits
    slot, negated = step.guard
    return mask.bits & (~block.v[slot] if negated else block.v[slot])


def name_of(instruction):
    """The name of a branch in reports: the comment after it, or its text."""
    guard = instruction.guard
    target = instruction.operands[0].name
    sign = (
        ""
        if guard is None
        else f"@{'!' if isinstance(guard, Not) else ''}{getattr(guard, 'name', None) or guard.operand.name} "
    )
    return instruction.comment or f"{sign}bra {target} at line {instruction.line}"
