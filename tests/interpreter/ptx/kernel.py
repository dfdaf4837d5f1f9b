"""One kernel launch: its configuration, its buffers, and the schedule of its blocks.

The schedule "sequential" runs one block after the other, in the order of their numbers. If a block polls memory and
finds no change, the next block runs. The schedule "random" starts blocks in random order. After each barrier, atomic,
fence and strong access, it continues with a random block. The order of the threads in an atomic is random too. With
`resident`, at most this number of blocks runs at the same time. When a block ends, another block starts. A device that
is too small for all blocks also works like this.

If all resident blocks poll memory that none of them changes, the interpreter reports a deadlock.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxlib.mlir import ir

from ..element import garbage, use_garbage
from ..errors import ProgramError
from ..options import Options
from ..parse import context
from .block import Block, segments
from .memory import Global, Memory, Shared
from .ops_threads import LANES, name_of
from .races import MAX_THREADS, Shadow
from .text import parse
from .translate import Translator

# After this number of polls without a change of memory, another block or group of threads runs.
PATIENCE = 20
# After about this number of polls without a change of memory, the launch is in a deadlock.
DEADLOCK = 10_000


def configuration(config):
    """Returns the entries of a `backend_config`. It is the text of a dictionary attribute."""
    try:
        with context():
            attribute = ir.Attribute.parse(config.value)
        entries = {a.name: a.attr for a in attribute}
    except (ir.MLIRError, TypeError, AttributeError) as error:
        raise ProgramError(f"__gpu$xla.gpu.ptx: malformed backend_config: {error}") from None
    found = {}
    for name in ("name", "kernel_type", "kernel_data"):
        if not isinstance(entries.get(name), ir.StringAttr):
            raise ProgramError(f"__gpu$xla.gpu.ptx: {name} is not a string")
        found[name] = entries.pop(name).value
    for name in ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem_bytes"):
        attribute = entries.pop(name, None)
        if not isinstance(attribute, ir.IntegerAttr) or str(attribute.type) != "i32":
            raise ProgramError(f"__gpu$xla.gpu.ptx: {name} is not an i32")
        found[name] = attribute.value
    if entries:
        raise ProgramError(f"__gpu$xla.gpu.ptx: unknown entry {next(iter(entries))!r} in its backend_config")
    if found["kernel_type"] != "ptx":
        raise ProgramError(f'__gpu$xla.gpu.ptx: kernel_type {found["kernel_type"]!r}; "ptx" is expected')
    return found


def pretty(config):
    """Returns the text of a kernel."""
    return configuration(config)["kernel_data"]


class Kernel:
    """A translated kernel. It can run any number of times."""

    def __init__(self, config, options=Options()):
        self.options = options
        found = configuration(config)
        self.name, self.grid, self.threads = found["name"], found["grid_x"], found["block_x"]
        if any(found[name] != 1 for name in ("grid_y", "grid_z", "block_y", "block_z")):
            raise ProgramError("__gpu$xla.gpu.ptx: only one dimension of blocks and threads is supported")
        if self.grid < 1 or self.threads % LANES or not 0 < self.threads <= MAX_THREADS:
            raise ProgramError(f"__gpu$xla.gpu.ptx: {self.grid} blocks of {self.threads} threads")
        try:
            entry = parse(found["kernel_data"])
            self.check(entry)
            self.translator = Translator(entry)
        except ProgramError as error:
            raise ProgramError(f"kernel {self.name}: {error}") from None
        self.segments = segments(self.translator.steps)
        self.shared_starts = Shared.layout(entry.shared, found["shared_mem_bytes"])
        self.reset()

    def check(self, entry):
        if entry.name != self.name:
            raise ProgramError(f"the entry is {entry.name}")
        limits = entry.limits
        if limits.get("reqntid", self.threads) != self.threads or limits.get("maxntid", self.threads) < self.threads:
            raise ProgramError(f"{self.threads} threads contradict {limits}")

    def run(self, inputs, results, aliases=()):
        """Runs the kernel. Returns its results. `results` has the dtype and the shape of each result. `aliases` maps
        operands to the results that share their memory."""
        with np.errstate(all="ignore"):
            try:
                return Launch(self, inputs, results, dict(aliases)).run()
            except ProgramError as error:
                raise ProgramError(f"kernel {self.name}: {error}") from None

    def reset(self):
        """Clears the counters of earlier runs."""
        self.runs = 0
        self.branches = {}

    def report(self):
        """Returns counts over all runs since the last reset. For each branch with a guard: how often some threads of a
        group took the branch, and how often some did not."""
        loops = []
        for index, step in enumerate(s for s in self.translator.steps if s.kind == "branch" and s.guard):
            then, other = self.branches.get(id(step), (0, 0))
            loops.append(
                {
                    "kind": "if",
                    "name": name_of(step.instruction),
                    "index": index,
                    "line": step.instruction.line,
                    "within": [],
                    "then": then,
                    "else": other,
                }
            )
        return {"kernel": self.name, "steps": self.runs * self.grid, "loops": loops, "poison": {}}


@dataclass
class Launch:
    """The state of one launch."""

    kernel: Kernel
    inputs: list
    results: list
    aliases: dict
    # The number of polls since the last call of `progress`.
    vain: int = 0
    numbers: list = field(default_factory=list)

    def __post_init__(self):
        self.options = self.kernel.options
        self.grid = self.kernel.grid
        self.rng = np.random.default_rng(self.options.seed)
        use_garbage(self.options.garbage)
        self.kernel.runs += 1
        self.allocate()

    def allocate(self):
        """Allocates the buffers: first those of the operands, then those of the results without an alias."""
        parameters = self.kernel.translator.entry.parameters
        if len(self.inputs) + len(self.results) != len(parameters):
            raise ProgramError(
                f"{len(self.inputs)} operands and {len(self.results)} results for {len(parameters)} parameters"
            )
        unit = self.kernel.translator.smallest["global"]

        def shadow(size):
            return Shadow(size, unit, self.grid)

        buffers = []
        for n, array in enumerate(self.inputs):
            data = np.frombuffer(array.tobytes(), np.uint8)
            writable = n in self.aliases
            buffers.append(Memory(f"operand {n}", data, True, writable, shadow(len(data)) if writable else None))
        of_result = {result: operand for operand, result in self.aliases.items()}
        self.numbers = list(range(len(buffers)))
        for n, (dtype, shape) in enumerate(self.results):
            data = garbage(shape, dtype).reshape(-1).view(np.uint8)
            if n in of_result:
                if buffers[of_result[n]].size != len(data):
                    raise ProgramError(f"result {n} and operand {of_result[n]} share memory but differ in size")
                self.numbers.append(of_result[n])
                continue
            self.numbers.append(len(buffers))
            buffers.append(Memory(f"result {n}", data, False, True, shadow(len(data))))
        self.memory = Global(buffers)

    def run(self):
        self.run_blocks()
        outputs = []
        for number, (dtype, shape) in zip(self.numbers[len(self.inputs) :], self.results):
            memory = self.memory.buffers[number]
            outputs.append(memory.data[: memory.size].copy().view(dtype).reshape(shape))
        return outputs

    def run_blocks(self):
        random = self.options.schedule == "random"
        order = self.rng.permutation(self.grid) if random else np.arange(self.grid)
        waiting = [int(n) for n in order[::-1]]
        capacity = self.options.resident or self.grid
        resident, turn = [], 0
        while waiting or resident:
            while waiting and len(resident) < capacity:
                resident.append(self.block(waiting.pop()))
            turn = int(self.rng.integers(len(resident))) if random else turn % len(resident)
            if not self.advance(resident[turn], random):
                resident.pop(turn)
            elif not random:
                turn += 1
            if self.vain > DEADLOCK + 100 * PATIENCE * len(resident):
                raise ProgramError(
                    f"deadlock: all {len(resident)} resident blocks poll memory that none of them changes; "
                    f"{len(waiting)} blocks have not started"
                )

    def block(self, number):
        """Runs a block. This is a generator, so the block is allocated only when it starts."""
        yield from Block(self, number).run()

    def advance(self, block, random):
        """Runs a block to its next event. In the sequential schedule, runs it until it ends, or until several polls
        find no change. Returns whether the block is still running."""
        start = self.vain
        for _ in block:
            start = min(start, self.vain)
            if random or self.vain - start > PATIENCE:
                return True
        return False

    # What blocks report

    def progress(self):
        """Records that memory has changed, that threads have passed a barrier, or that threads have ended."""
        self.vain = 0

    def polled(self):
        """Records a strong read, or an atomic operation that changed nothing."""
        self.vain += 1

    def spins(self):
        """Whether many polls have found no change. Another group of threads should then run."""
        return self.vain > PATIENCE

    def choose(self, pcs):
        return pcs[int(self.rng.integers(len(pcs)))]

    def order(self, count):
        """Returns the order in which the threads of an instruction execute an atomic or a strong store."""
        return self.rng.permutation(count) if self.options.schedule == "random" else np.arange(count)

    def count(self, step, taken, passed):
        if step.guard:
            then, other = self.kernel.branches.get(id(step), (0, 0))
            self.kernel.branches[id(step)] = (then + int(taken), other + int(passed))
