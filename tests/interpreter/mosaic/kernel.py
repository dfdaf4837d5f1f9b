"""One kernel: its grid, its windows and its scratch memory.

The steps of the grid run in row-major order. If a dimension is parallel, two cores run the grid, as libtpu does on
a device with two cores: each runs a consecutive half of the first parallel dimension, with its own scratch memory
and windows. An odd number of steps is an error. A window of an input is read-only. It is copied in when its block changes, and the part beyond the end
of the array is garbage. A window of an output starts as garbage. It is copied out when its block changes or the
grid ends, without the part beyond the end. Scratch memory keeps its contents from step to step.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np
from jaxlib.mlir import ir

from ..element import SEMAPHORES, garbage, type_of, use_garbage
from ..errors import ProgramError
from ..parse import Attributes
from ..options import Options
from .body import kernel_body, parse_kernel
from .runtime import Machine
from .translate import Program

DYNAMIC = -(2**63)

# The number of cores that run a grid with a parallel dimension.
CORES = 2

# The memory spaces to which windows are copied. Operands in other spaces are accessed in place.
WINDOWED = {"vmem", "smem"}


@dataclass
class Window:
    """The part of an operand that a step of the kernel accesses: a block, or everything if there are no bounds."""

    type: object
    transform: object = None
    bounds: tuple = None
    # Only for element windows, whose indices count elements: the padding before the first element.
    pad_low: tuple = None


class Kernel:
    """A translated kernel. It can run any number of times."""

    def __init__(self, config, options=Options(), translator=None):
        """`config` is the `backend_config` of the custom call. `translator` creates the translator of each function.
        The default is `Translator`."""
        self.options = options
        self.machine = Machine(options)
        # For each core: the number of its steps, and its counters.
        self.by_core = {}
        module = parse_kernel(kernel_body(config.value))
        main = module.body.operations[0]
        attributes = Attributes.of(main)
        self.name = ir.StringAttr(attributes.take("sym_name")).value
        for harmless in ("function_type", "sym_visibility", "arg_attrs", "res_attrs"):
            attributes.take(harmless)
        if attributes.enum("tpu.core_type", "tc") != "tc":
            raise ProgramError("kernel: only tensor cores are supported")
        grid = attributes.take("iteration_bounds")
        self.bounds = tuple(grid) if grid is not None else ()
        self.parallel = [str(s) != "#tpu.dimension_semantics<arbitrary>" for s in attributes.take("dimension_semantics", ())]
        self.prefetch_count = attributes.integer("scalar_prefetch", 0)
        self.scratch_count = attributes.integer("scratch_operands", 0)
        windows = attributes.take("window_params")
        attributes.finish()

        self.program = Program(module, self.machine, translator)
        # Translating evaluates constant expressions, which can overflow.
        with np.errstate(all="ignore"):
            self.function = self.program.function(self.name)
        types = [type_of(a.type) for a in main.regions[0].blocks[0].arguments]
        grid_types, types = types[: len(self.bounds)], types[len(self.bounds) :]
        if any(t.elem not in ("i32", "index") or not t.is_scalar for t in grid_types) or not all(t.is_memref for t in types):
            raise ProgramError("kernel: the arguments must be grid indices followed by memories")
        scratch_start = len(types) - self.scratch_count
        self.prefetch_types = types[: self.prefetch_count]
        self.operand_types = types[self.prefetch_count : scratch_start]
        self.scratch_types = types[scratch_start:]
        self.windows = self._windows(windows)

    def _windows(self, params):
        if params is None:
            return [Window(t) for t in self.operand_types]
        if len(params) != len(self.operand_types):
            raise ProgramError(f"kernel: {len(params)} window_params for {len(self.operand_types)} operands")
        windows = []
        for param, type in zip(params, self.operand_types):
            known = {p.name: p.attr for p in param} if not hasattr(param, "items") else dict(param.items())
            if not known:
                windows.append(Window(type))
                continue
            # The number of buffers of a window changes only the time of copies, not the values that a correct kernel
            # reads.
            known.pop("pipeline_mode", None)
            transform = ir.FlatSymbolRefAttr(known.pop("transform_indices")).value
            window = Window(type, self.program.function(transform), tuple(known.pop("window_bounds")))
            kind = known.pop("window_kind", None)
            if kind is not None:
                match = re.fullmatch(r"#tpu\.element_window<\[([\d, ]*)\], ?\[([\d, ]*)\]>", str(kind))
                if not match:
                    raise ProgramError(f"kernel: unknown window kind {kind}")
                window.pad_low = tuple(int(n) for n in match.group(1).split(","))
            if known:
                raise ProgramError(f"kernel: unknown window parameters {list(known)}")
            if np.prod(window.bounds) != type.size or type.space not in WINDOWED:
                raise ProgramError(f"kernel: a window of {window.bounds} for {type}")
            windows.append(window)
        return windows

    def run(self, inputs, results, aliases=()):
        """Runs the kernel. `results` are dtypes and shapes; `aliases` map operands to the results that share their memory."""
        with np.errstate(all="ignore"):
            try:
                return self._run(list(inputs), results, dict(aliases))
            except ProgramError as error:
                raise ProgramError(f"kernel {self.name}: {error}") from error
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise ProgramError(f"kernel {self.name}: {self.program.explain(error)}") from error

    def _run(self, inputs, results, aliases):
        grid = tuple(int(inputs.pop(0)) if b == DYNAMIC else b for b in self.bounds)
        dynamic = self.bounds.count(DYNAMIC)
        use_garbage(self.options.garbage)
        self.machine.grid = grid
        if len(inputs) + len(results) != self.prefetch_count + len(self.operand_types):
            raise ProgramError(f"{len(inputs)} operands and {len(results)} results do not match the arguments of the kernel")
        outputs = [garbage(shape, dtype) for dtype, shape in results]
        for operand, output in aliases.items():
            if inputs[operand - dynamic].shape != outputs[output].shape:
                raise ProgramError(f"result {output} and operand {operand} share memory but differ in shape")
            # An aliased operand uses the memory of its result.
            outputs[output][...] = inputs[operand - dynamic].view(outputs[output].dtype)
            inputs[operand - dynamic] = outputs[output]
        read_only = [_frozen(array) if not any(array is o for o in outputs) else array for array in inputs]
        prefetch = [_as_type(a, t) for a, t in zip(read_only, self.prefetch_types)]
        arrays = [_as_type(a, t, w) for a, t, w in
                  zip(read_only[self.prefetch_count :] + outputs, self.operand_types, self.windows)]  # fmt: skip
        first_output = len(inputs) - self.prefetch_count
        for core, ranges in self._cores(grid):
            before = [self.machine.steps, *self.machine.counts]
            scratch = [self._allocate(t) for t in self.scratch_types]
            slots = [_Slot(w, a, i >= first_output) for i, (w, a) in enumerate(zip(self.windows, arrays))]
            for step in itertools.product(*ranges):
                self.machine.steps += 1
                for slot in slots:
                    slot.move(step, prefetch)
                self.function(*step, *prefetch, *(slot.memory for slot in slots), *scratch)
            for slot in slots:
                slot.write_back()
            self.machine.check_idle()
            after = [self.machine.steps, *self.machine.counts]
            sums = self.by_core.setdefault(core, [0] * len(after))
            self.by_core[core] = [c + b - a for a, b, c in zip(before, after, sums)]
        return outputs

    def _cores(self, grid):
        """Returns a list with an entry for each core: its number, and the range that it runs in each dimension of the
        grid."""
        ranges = [range(n) for n in grid]
        if not any(self.parallel):
            return [(0, ranges)]
        split = self.parallel.index(True)
        if grid[split] % CORES:
            # In libtpu's program, the second core would then run step 0 again.
            raise ProgramError(f"a parallel dimension of {grid[split]} steps on {CORES} cores")
        half = grid[split] // CORES
        cores = [
            (core, [range(n)[core * half : (core + 1) * half] if d == split else range(n) for d, n in enumerate(grid)])
            for core in range(CORES)
        ]
        return cores[::-1] if self.options.reverse_parallel else cores

    def _allocate(self, type):
        if type.elem in SEMAPHORES:
            return self.machine.allocate(type.shape, f"{SEMAPHORES[type.elem]} semaphore")
        return garbage(type.shape, type.dtype)

    def reset(self):
        """Clears the counters and the state of earlier runs."""
        self.machine.reset()
        self.by_core.clear()

    def report(self):
        """Returns the counts of all runs since the last reset: steps, loops, branches, undefined results and transfers.
        If several cores ran, the report also has the steps, loops and branches of each core."""

        def loops(counts):
            entries = []
            for loop in self.program.loops:
                entry = {k: v for k, v in loop.items() if k != "counters" and not (k == "name" and v is None)}
                entries.append(entry | {name: counts[i] for name, i in loop["counters"].items()})
            return entries

        cores = [{"steps": steps, "loops": loops(counts)} for _, (steps, *counts) in sorted(self.by_core.items())]
        return {
            "kernel": self.name,
            "steps": self.machine.steps,
            "loops": loops(self.machine.counts),
            **({"cores": cores} if len(cores) > 1 else {}),
            "poison": dict(self.machine.poison),
            "transfers": {"count": self.machine.dma_count, "bytes": self.machine.dma_bytes},
        }


class _Slot:
    """The memory with which a kernel accesses one operand."""

    def __init__(self, window, array, is_output):
        self.window, self.array, self.is_output = window, array, is_output
        self.start = None
        if window.bounds is None and window.type.space in WINDOWED:
            # Without window parameters, the window is the whole operand.
            self.window = Window(window.type, lambda *_: (0,) * array.ndim, array.shape)
        self.memory = array if self.window.bounds is None else None

    def move(self, step, prefetch):
        """Copies the block of the previous step out and that of this step in, if they differ."""
        if self.window.bounds is None:
            return
        index = self.window.transform(*step, *prefetch)
        bounds, shape = self.window.bounds, self.array.shape
        if self.window.pad_low is not None:
            start = tuple(i - p for i, p in zip(index, self.window.pad_low, strict=True))
        else:
            start = tuple(i * b for i, b in zip(index, bounds, strict=True))
        if start == self.start:
            return
        self.write_back()
        for s, b, n in zip(start, bounds, shape, strict=True):
            if s + b <= 0 or s >= n or s < 0 and self.window.pad_low is None:
                raise ProgramError(f"step {step}: block {index} of {list(bounds)} lies outside an operand of {list(shape)}")
        self.start = start
        self.block = garbage(bounds, self.array.dtype)
        if not self.is_output:
            inside, outside = self._overlap()
            self.block[inside] = self.array[outside]
            self.block.setflags(write=False)
        self.memory = self.block.reshape(self.window.type.shape)

    def write_back(self):
        if self.is_output and self.start is not None:
            inside, outside = self._overlap()
            self.array[outside] = self.block[inside]

    def _overlap(self):
        """The overlap of the block and the operand, as slices of each."""
        low = [max(s, 0) for s in self.start]
        high = [min(s + b, n) for s, b, n in zip(self.start, self.window.bounds, self.array.shape)]
        inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, self.start))
        return inside, tuple(slice(a, b) for a, b in zip(low, high))


def _frozen(array):
    view = array.view()
    view.setflags(write=False)
    return view


def _as_type(array, type, window=None):
    """An operand with the element type of the kernel's argument. Kernels have no unsigned types."""
    dtype = type.dtype
    if array.dtype.itemsize != dtype.itemsize or (array.dtype == np.bool_) != (dtype == np.bool_):
        raise ProgramError(f"an operand of {array.dtype} for {type}")
    if (window is None or window.bounds is None) and array.shape != type.shape:
        raise ProgramError(f"an operand of {list(array.shape)} for {type}")
    return array if array.dtype == dtype else array.view(dtype)


def pretty(config):
    """Returns the kernel of a custom call as text in the plain form."""
    return str(parse_kernel(kernel_body(config.value)))
