"""Options for behaviour that hardware may choose, or that is unknown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options for behaviour that hardware may choose, or that is unknown."""

    # Flush subnormal inputs and outputs of f32 arithmetic to zeros of the same sign.
    flush: bool = False
    # The result of maximumf and minimumf of a NaN and a number. "propagate": the NaN, as MLIR documents. "ignore": the
    # number.
    nan_max: str = "propagate"
    # "deferred": a transfer moves its data when the kernel waits for it, the last started
    # first. "eager": when it starts.
    dma: str = "deferred"
    # The contents of uninitialized memory, a key of element.GARBAGE.
    garbage: str = "nan"
    # Run the parallel dimensions of the grid from the last index to the first.
    reverse_parallel: bool = False
    # If one execution of a scf.while has more iterations, or a block of a GPU program takes more backward branches, it
    # is reported as an endless loop.
    max_iterations: int = 100_000_000
    # The order of the blocks of a GPU program: "sequential" or "random" (ptx/kernel.py), with the seed of the latter.
    schedule: str = "sequential"
    seed: int = 0
    # How many blocks of a GPU program run at the same time. 0: all.
    resident: int = 0
