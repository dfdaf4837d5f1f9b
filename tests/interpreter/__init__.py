"""An independent interpreter of TPU and GPU programs.

A program is the StableHLO module that a PJRT plugin receives: a few tensor operations around custom calls. Each custom
call contains a kernel. The kernels are Mosaic in MLIR for TPUs (`mosaic/`), and PTX for GPUs (`ptx/`). The interpreter
parses MLIR with jaxlib, and PTX with its own parser. It executes both with NumPy, with one documented function per
operation. It shares no code with the emitters of the programs. It is strict: an unknown operation or attribute is an
error, and uninitialized memory contains garbage. On TPUs, a transfer moves its data only when the kernel waits for the
transfer. On GPUs, a data race is an error.

    python -m interpreter run PROGRAM.mlir --inputs a.bin b.bin --outputs DIR
    python -m interpreter check DIR
    python -m interpreter mutants --list FILE DIR
    python -m interpreter emitpretty PROGRAM.mlir

Tensors are raw little-endian files. `check` reads DIR/cases.json, a list of objects with `name`, `program`, `inputs` and
`expected`. `inputs` and `expected` name files in DIR, in the order of the arguments and of the results. If an element
of `expected` is null, that result is not compared. `mutants` runs changed kernels on these cases (mutation.py). `--trips`
writes how often each loop and branch of a kernel ran. It identifies a loop or branch by its line, and by its string
attribute `nucleus.loop` or `nucleus.branch` if there is one.
"""
