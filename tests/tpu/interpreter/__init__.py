"""An independent interpreter of TPU programs.

A program is the StableHLO module that PJRT is given: a few tensor operations around `tpu_custom_call`s, whose
bodies are Mosaic kernels as MLIR text. The interpreter parses both with the MLIR parser of jaxlib and executes them
with NumPy, one documented function per operation. It shares nothing with the emitter of the programs, and it is
strict: what it does not know is an error, uninitialised memory holds ugly values, transfers happen only when
they are waited for.

    python -m interpreter run PROGRAM.mlir --inputs a.bin b.bin --outputs DIR
    python -m interpreter check DIR
    python -m interpreter emitpretty PROGRAM.mlir

Tensors are raw little-endian files. `check` reads DIR/cases.json, a list of objects with `name`, `program`, `inputs`
and `expected`: files beside it, in the order of arguments and results; an expected null is not compared. `--trips`
writes how often every loop and branch of a kernel ran, by its place in the text and by the string attribute
`nucleus.loop` or `nucleus.branch` where it has one.
"""
