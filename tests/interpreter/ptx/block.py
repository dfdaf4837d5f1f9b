"""One block: its registers, its shared memory, and the schedule of its threads.

The threads with the same next instruction are a group. The group whose next instruction comes first in the kernel runs,
and the other groups wait. With this schedule, threads that took different sides of a branch meet again at its end. But
a group that polls memory could run forever while the other groups wait. So after some polls that find no change, a
random group runs.
"""

from dataclasses import dataclass, field

import numpy as np

from ..element import GARBAGE
from ..errors import ProgramError
from .memory import Global, Shared
from .ops_threads import LANES, guard_bits
from .races import Clock, Shadow
from .translate import Mask, checking, register_of, with_checks

# If a block takes more backward branches, it is assumed to be in an endless loop.
MAX_BRANCHES = 2_000_000


@dataclass
class Segment:
    """Consecutive instructions that the same threads execute. Only the last one can change the set of threads."""

    runs: list = field(default_factory=list)
    last: object = None
    end: int = 0
    event: bool = False


def segments(steps):
    """Returns the segments, by the number of their first instruction."""
    starts = {0} | {s.target for s in steps if s.kind == "branch"}
    for at, step in enumerate(steps):
        if step.kind in ("barrier", "warp"):
            starts.add(at)
        if step.kind != "plain" or step.event:
            starts.add(at + 1)
    found = {}
    for start in starts:
        segment, at = Segment(), start
        while at < len(steps):
            step = steps[at]
            at += 1
            segment.last = step
            segment.event |= step.event
            if step.kind == "plain":
                segment.runs.append(with_checks(step))
            elif step.guard and step.unsure:
                name = register_of(step.instruction.guard).name
                segment.runs.append(checking(lambda block, mask: None, [name], step.instruction))
            elif step.kind in ("barrier", "warp"):
                step.checked = with_checks(step)
            if at in starts:
                break
        segment.end = at
        found[start] = segment
    return found


class Block:
    def __init__(self, launch, number):
        self.launch, self.number = launch, number
        kernel, threads = launch.kernel, launch.kernel.threads
        self.column = number
        self.live = np.ones(threads, np.bool_)
        lane = np.arange(threads, dtype=np.uint32) % np.uint32(LANES)
        self.lane, self.lane_bit = lane, np.uint32(1) << lane
        translator = kernel.translator
        self.written = {name: np.zeros(threads, np.bool_) for name in translator.tracked}
        self.v = self.arrays(translator, threads)
        self.clock = Clock(number, launch.grid, threads)
        starts = kernel.shared_starts
        unit = translator.smallest["shared"]
        size = max((start + n for start, n in starts.values()), default=0)
        self.shared = Shared(starts, GARBAGE[launch.options.garbage][4], Shadow(size, unit, 1))
        # By the number of the next instruction: the threads that can run, and the threads that wait for lanes of their
        # warp.
        self.groups = {0: Mask(self.live.copy())}
        self.lanes_wait = {}
        # The barrier at which threads wait, and these threads. None if no thread waits.
        self.barrier = None
        self.back = 0

    def arrays(self, translator, threads):
        registers, found = {}, []
        special = {
            "%tid.x": np.arange(threads, dtype=np.uint32),
            "%laneid": self.lane,
            "%lanemask_eq": self.lane_bit,
            "%lanemask_lt": self.lane_bit - np.uint32(1),
            "%lanemask_le": self.lane_bit | self.lane_bit - np.uint32(1),
            "%lanemask_gt": ~(self.lane_bit | self.lane_bit - np.uint32(1)),
            "%lanemask_ge": ~(self.lane_bit - np.uint32(1)),
            "%ntid.x": np.uint32(threads),
            "%ctaid.x": np.uint32(self.number),
            "%nctaid.x": np.uint32(self.launch.grid),
        }
        for kind, *key in translator.slots:
            if kind == "register":
                name, dtype = key
                if name not in registers:
                    registers[name] = np.zeros(threads, f"u{dtype.itemsize}" if dtype != np.bool_ else dtype)
                found.append(registers[name].view(dtype))
            elif kind == "special":
                found.append(special[key[0]].view(key[1]))
            elif kind == "constant":
                found.append(np.frombuffer(*key)[0])
            elif kind == "shared":
                found.append(key[1].type(self.launch.kernel.shared_starts[key[0]][0]))
            else:
                found.append(np.uint64(Global.address(self.launch.numbers[key[0]])))
        return found

    # The schedule

    def add(self, pc, mask):
        """Lets threads continue at an instruction."""
        if pc in self.groups:
            mask = Mask(mask.bits | self.groups[pc].bits)
        self.groups[pc] = mask

    def run(self):
        """Runs the block. This is a generator. It yields after each event that other blocks can observe."""
        while True:
            if not self.groups:
                if not self.live.any():
                    return
                self.resume()
                continue
            pc = min(self.groups)
            if len(self.groups) > 1 and self.launch.spins():
                pc = self.launch.choose(sorted(self.groups))
            mask = self.groups.pop(pc)
            while mask is not None:
                segment = self.launch.kernel.segments[pc]
                for run in segment.runs:
                    run(self, mask)
                pc, mask = self.advance(pc, segment, mask)
                if segment.event:
                    yield
                if mask is not None and self.groups and pc >= min(self.groups):
                    self.add(pc, mask)
                    mask = None

    def advance(self, start, segment, mask):
        """Executes the last instruction of a segment. Returns the number of the next instruction, and the threads that
        continue there now. If there are none, returns None instead of a mask."""
        step = segment.last
        if step.kind == "plain":
            return segment.end, mask
        if step.kind == "branch":
            return self.branch(step, segment.end, mask)
        if step.kind == "exit":
            leaving = guard_bits(self, step, mask)
            self.live &= ~leaving
            self.launch.progress()
            rest = Mask(mask.bits & ~leaving)
            return segment.end, rest if rest else None
        if step.kind == "warp":
            return self.arrive_warp(start, step, segment.end, mask)
        self.arrive_barrier(start, step, segment.end, mask)
        return segment.end, None

    def branch(self, step, end, mask):
        taken = guard_bits(self, step, mask)
        count = np.count_nonzero(taken)
        self.launch.count(step, count > 0, count < len(mask))
        if count and step.target <= end - 1:
            self.back += 1
            limit = min(self.launch.options.max_iterations, MAX_BRANCHES)
            if self.back > limit:
                step.instruction.error(f"block {self.number} took more than {limit} backward branches")
        if count == len(mask):
            return step.target, mask
        if count == 0:
            return end, mask
        rest = mask.bits & ~taken
        if step.uniform:
            warps = [np.unique(np.flatnonzero(bits) // LANES) for bits in (taken, rest)]
            if len(np.intersect1d(*warps)):
                step.instruction.error(f"threads of one warp of block {self.number} take both sides of bra.uni")
        self.add(step.target, Mask(taken))
        self.add(end, Mask(rest))
        return end, None

    def arrive_warp(self, start, step, end, mask):
        bits = mask.bits
        if start in self.lanes_wait:
            bits = bits | self.lanes_wait.pop(start)
        ready = step.ready(self, bits)
        waiting = bits & ~ready
        if waiting.any():
            self.lanes_wait[start] = waiting
        if not ready.any():
            return end, None
        mask = mask if len(mask) == np.count_nonzero(ready) and (ready == mask.bits).all() else Mask(ready)
        step.checked(self, mask)
        return end, mask

    def arrive_barrier(self, start, step, end, mask):
        if self.barrier is not None:
            at, _, _, before = self.barrier
            if at != start:
                step.instruction.error(
                    f"threads of block {self.number} wait at different barriers: line {step.instruction.line} and "
                    f"line {self.launch.kernel.translator.steps[at].instruction.line}"
                )
            mask = Mask(mask.bits | before.bits)
        self.barrier = (start, step, end, mask)
        if len(mask) == np.count_nonzero(self.live):
            self.resume()

    def resume(self):
        """Continues the threads at a barrier if all running threads have reached it. Otherwise reports that no thread
        can run."""
        if self.barrier is not None:
            _, step, end, mask = self.barrier
            if (mask.bits == self.live).all():
                self.barrier = None
                step.checked(self, mask)
                self.clock.barrier()
                self.launch.progress()
                self.add(end, mask)
                return
        self.stuck()

    def stuck(self):
        steps = self.launch.kernel.translator.steps
        words = []
        if self.barrier is not None:
            start, step, _, mask = self.barrier
            words.append(
                f"{len(mask)} of {np.count_nonzero(self.live)} threads wait at the barrier {step.instruction.opcode} "
                f"at line {step.instruction.line}"
            )
        for at, bits in self.lanes_wait.items():
            instruction = steps[at].instruction
            words.append(
                f"thread {np.flatnonzero(bits)[0]} waits at {instruction.opcode} at line {instruction.line} for lanes "
                "in its mask that do not participate"
            )
        raise ProgramError(f"block {self.number} cannot continue: {'; '.join(words)}")
