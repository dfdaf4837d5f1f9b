"""Runs the kernels of TPU programs: Mosaic in MLIR text or bytecode, translated to Python and executed with NumPy."""
