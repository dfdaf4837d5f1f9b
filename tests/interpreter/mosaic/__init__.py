"""The kernels of TPU programs: Mosaic kernels in MLIR text or bytecode, translated to Python and executed with NumPy."""
