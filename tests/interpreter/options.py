"""The options of the interpreter. They select behaviour that differs between devices, or that is unknown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The options of the interpreter. They select behaviour that differs between devices, or that is unknown."""

    # Flush subnormal inputs and outputs of f32 arithmetic to zeros of the same sign.
    flush: bool = False
    # The result of maximumf and minimumf if one operand is a NaN and the other is a number. "propagate": the NaN, as
    # MLIR documents. "ignore": the number.
    nan_max: str = "propagate"
    # "deferred": a transfer moves its data when the kernel waits for the transfer. If several transfers are pending,
    # the transfer that started last moves its data first. "eager": a transfer moves its data when it starts.
    dma: str = "deferred"
    # The contents of uninitialized memory, a key of element.GARBAGE.
    garbage: str = "nan"
    # A grid with a parallel dimension is divided among the cores, which run one after the other. If true, the last core
    # runs first.
    reverse_parallel: bool = False
    # The largest number of iterations of one execution of a loop. It is also the largest number of backward branches of
    # a block of a GPU program. For a block, MAX_BRANCHES in ptx/block.py is a second limit. If there are more
    # iterations or branches, the interpreter reports an endless loop.
    max_iterations: int = 100_000_000
    # The order of the blocks of a GPU program: "sequential" or "random" (ptx/kernel.py).
    schedule: str = "sequential"
    # The seed of the order "random".
    seed: int = 0
    # How many blocks of a GPU program run at the same time. 0: all.
    resident: int = 0
