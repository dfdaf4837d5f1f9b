"""Translates the instructions of a kernel to Python closures over NumPy arrays with one element per thread.

A register is an array. A closure takes a `Block` and a `Mask`, and changes the elements of the threads in the mask.
`Block.v` is a list of arrays: the registers, the special registers, the immediates, and the addresses of shared arrays
and of buffers. If the kernel uses a register with several types, the list has a view of the register for each type. An
operand is translated to its index in this list. This index is called a slot.

If a thread reads a register before it has written it, this is an error. A data-flow analysis finds the reads that
follow a write on every path. Only the other reads are checked while the kernel runs.
"""

from dataclasses import dataclass, field

import numpy as np

from ..errors import ProgramError
from .text import TYPES, Address, Imm, Not, Reg, Symbol

HANDLERS = {}

SPECIAL = (
    "%tid.x",
    "%ntid.x",
    "%ctaid.x",
    "%nctaid.x",
    "%laneid",
    "%lanemask_eq",
    "%lanemask_lt",
    "%lanemask_le",
    "%lanemask_gt",
    "%lanemask_ge",
)

NAN32 = np.uint32(0x7FFFFFFF)

# The operations of atomics and reductions whose result does not depend on the order of the threads.
UNORDERED = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def operation(*names):
    """Registers the decorated function as the translation of these instructions. The function takes the translator and
    the instruction, and returns the closure."""

    def register(function):
        for name in names:
            HANDLERS[name] = function
        return function

    return register


def dtype_of(type):
    """Returns the NumPy type of a PTX type."""
    bits, kind = TYPES[type]
    if kind == "p":
        return np.dtype(np.bool_)
    return np.dtype({"b": "u", "u": "u", "s": "i", "f": "f"}[kind] + str(bits // 8))


@dataclass
class Step:
    """A translated instruction."""

    instruction: object
    run: object
    # The slot of the guard, and whether the guard is negated.
    guard: tuple = None
    reads: set = field(default_factory=set)
    writes: set = field(default_factory=set)
    # "plain", "branch", "exit", "barrier" (waits for the block) or "warp" (waits for other lanes).
    kind: str = "plain"
    # Whether other blocks can observe the instruction. The schedule can then continue with another block.
    event: bool = False
    # The index of the target of a branch.
    target: int = None
    # Whether the branch is bra.uni.
    uniform: bool = False
    # For kind "warp": the function that returns the threads that can execute the instruction, because all lanes in
    # their masks have arrived.
    ready: object = None
    # For kinds "barrier" and "warp": `run` with the checks of its registers.
    checked: object = None
    # The registers whose reads by this instruction need a check.
    unsure: set = field(default_factory=set)
    # The registers that this instruction writes, and whose reads by any instruction need a check.
    tracked_writes: set = field(default_factory=set)


class Translator:
    def __init__(self, entry):
        self.entry = entry
        # Descriptions of the elements of Block.v: ("register", name, dtype), ("special", name, dtype), ("constant",
        # bytes, dtype), ("shared", name, dtype) or ("parameter", index).
        self.slots = []
        self.slot_index = {}
        # The size of the smallest access to each memory.
        self.smallest = {"global": 8, "shared": 8}
        self.step = None
        self.steps = []
        for instruction in entry.instructions:
            if instruction.name not in HANDLERS:
                instruction.error("unknown instruction")
            self.step = step = Step(instruction, None)
            step.run = HANDLERS[instruction.name](self, instruction)
            instruction.finish()
            if instruction.guard is not None:
                step.guard = self.predicate(instruction, instruction.guard)
            self.steps.append(step)
        self.check_reads()

    # Operands

    def slot(self, key):
        if key not in self.slot_index:
            self.slot_index[key] = len(self.slots)
            self.slots.append(key)
        return self.slot_index[key]

    def register(self, ins, operand, type, wider=False):
        """Checks that an operand is a register that fits a type, and returns its slot."""
        if not isinstance(operand, Reg):
            ins.error(f"a register is expected, not {operand}")
        if operand.name in SPECIAL:
            if type not in ("u32", "b32", "s32"):
                ins.error(f"{operand.name} as .{type}")
            return self.slot(("special", operand.name, dtype_of(type)))
        if operand.name not in self.entry.registers:
            ins.error(f"unknown register {operand.name}")
        declared = self.entry.registers[operand.name]
        (bits, kind), (needed, needed_kind) = TYPES[declared], TYPES[type]
        fits = bits >= needed if wider and kind != "p" else bits == needed
        if not fits or {kind, needed_kind} in ({"f", "u"}, {"f", "s"}):
            ins.error(f"{operand.name} is .{declared}, not .{type}")
        used = type if bits == needed else f"{'s' if needed_kind == 's' else 'u'}{bits}"
        return self.slot(("register", operand.name, dtype_of(used)))

    def dst(self, ins, operand, type, wider=False):
        """Returns the slot of a destination, or None for `_`."""
        if operand is None:
            return None
        if isinstance(operand, Reg) and operand.name in SPECIAL:
            ins.error(f"{operand.name} is read-only")
        slot = self.register(ins, operand, type, wider)
        self.step.writes.add(operand.name)
        return slot

    def src(self, ins, operand, type, wider=False):
        """Returns the slot of a source: a register, a special register, an immediate, or a shared array's address."""
        if isinstance(operand, Imm):
            value = self.immediate(ins, operand, type)
            return self.slot(("constant", value.tobytes(), value.dtype))
        if isinstance(operand, Symbol):
            if operand.name not in self.entry.shared or TYPES[type][0] < 32 or TYPES[type][1] == "f":
                ins.error(f"unknown operand {operand.name}")
            return self.slot(("shared", operand.name, dtype_of(type)))
        slot = self.register(ins, operand, type, wider)
        if operand.name not in SPECIAL:
            self.step.reads.add(operand.name)
        return slot

    def immediate(self, ins, operand, type):
        bits, kind = TYPES[type]
        if kind == "p":
            if operand.value not in (0, 1):
                ins.error("a predicate is 0 or 1")
            return np.bool_(operand.value)
        if operand.float_bits:
            if operand.float_bits != bits or kind not in "fb":
                ins.error(f"a float of {operand.float_bits} bits as .{type}")
        elif kind == "f":
            ins.error(f"the integer {operand.value} as .{type}")
        elif not -(1 << bits - 1) <= operand.value < 1 << bits:
            ins.error(f"{operand.value} exceeds .{type}")
        return np.array(operand.value & (1 << bits) - 1, f"u{bits // 8}").view(dtype_of(type))[()]

    def predicate(self, ins, operand):
        """Returns the slot of a source predicate, and whether it is negated."""
        negated = isinstance(operand, Not)
        return self.src(ins, operand.operand if negated else operand, "pred"), negated

    def address(self, ins, operand, space):
        """Returns the slot of the base of an address, and its offset."""
        if not isinstance(operand, Address):
            ins.error(f"an address is expected, not {operand}")
        type = "u64"
        if space == "shared":
            declared = self.entry.registers.get(getattr(operand.base, "name", None), "b32")
            type = "u64" if TYPES[declared][0] == 64 else "u32"
        elif not isinstance(operand.base, Reg):
            ins.error(f"an address of global memory is a register, not {operand.base}")
        return self.src(ins, operand.base, type), operand.offset

    def compute(self, ins, destination, type, function, sources):
        """Returns the closure of an instruction that computes each element from the same element of its sources.
        `sources` are slots."""
        d = self.dst(ins, destination, type)
        if d is None:
            ins.error("the destination is _")
        return assign(d, function, sources)

    # Definite assignment

    def following(self, at):
        """Returns the numbers of the steps that can run after a step."""
        step = self.steps[at]
        found = [step.target] if step.kind == "branch" else []
        if step.kind not in ("branch", "exit") or step.instruction.guard is not None:
            found.append(at + 1)
        return found

    def check_reads(self):
        """Finds the reads that do not follow a write on every path. The closures check these reads, and note the writes
        of these registers."""
        number = {name: i for i, name in enumerate(self.entry.registers)}
        # For each step, the registers that every path to the step has written, as bits. None if no path reaches the
        # step.
        before = [None] * (len(self.steps) + 1)
        before[0] = 0
        waiting = [0]
        while waiting:
            at = waiting.pop()
            if at == len(self.steps):
                continue
            step, after = self.steps[at], before[at]
            if step.instruction.guard is None:
                after |= sum(1 << number[name] for name in step.writes)
            for to in self.following(at):
                merged = after if before[to] is None else before[to] & after
                if merged != before[to]:
                    before[to] = merged
                    waiting.append(to)
        if before[-1] is not None:
            raise ProgramError("PTX: the end of the kernel is reached without exit or ret")
        unsure = [
            {name for name in step.reads if known is not None and not known >> number[name] & 1}
            for step, known in zip(self.steps, before)
        ]
        self.tracked = set().union(*unsure)
        for step, names in zip(self.steps, unsure):
            step.unsure = names
            step.tracked_writes = step.writes & self.tracked


def register_of(operand):
    """Returns the register of a predicate, which may be negated."""
    return operand.operand if isinstance(operand, Not) else operand


class Mask:
    """A set of threads of a block."""

    __slots__ = ("bits", "where", "threads")

    def __init__(self, bits):
        self.bits = bits
        self.threads = np.flatnonzero(bits)
        # The value for NumPy's argument `where`. NumPy is faster if it is True.
        self.where = True if len(self.threads) == len(bits) else bits

    def __len__(self):
        return len(self.threads)


def assign(d, function, sources):
    """Returns the closure that writes the result of a function of arrays to a register."""

    def run(block, mask):
        v = block.v
        np.copyto(v[d], function(*[v[s] for s in sources]), where=mask.where, casting="unsafe")

    return run


def with_checks(step):
    """Returns the closure of a step, with its guard and the checks of its registers."""
    run, instruction = step.run, step.instruction
    if step.tracked_writes:
        run = marking(run, sorted(step.tracked_writes))
    guard, unsure = step.guard, step.unsure
    guard_name = register_of(instruction.guard).name if guard else None
    inner = sorted(unsure - {guard_name})
    if inner:
        run = checking(run, inner, instruction)
    if guard:
        run = guarded(run, *guard)
        if guard_name in unsure:
            run = checking(run, [guard_name], instruction)
    return run


def guarded(run, slot, negated):
    def guarded_run(block, mask):
        bits = ~block.v[slot] & mask.bits if negated else block.v[slot] & mask.bits
        inside = Mask(bits)
        if inside:
            return run(block, inside)
        return None

    return guarded_run


def marking(run, names):
    def marking_run(block, mask):
        result = run(block, mask)
        for name in names:
            block.written[name][mask.threads] = True
        return result

    return marking_run


def checking(run, names, instruction):
    def checking_run(block, mask):
        for name in names:
            written = block.written[name][mask.threads]
            if not written.all():
                thread = mask.threads[np.flatnonzero(~written)[0]]
                instruction.error(f"thread {thread} of block {block.number} reads {name}, which it has not written")
        return run(block, mask)

    return checking_run


from . import ops_arith, ops_memory, ops_threads  # noqa: E402, F401
