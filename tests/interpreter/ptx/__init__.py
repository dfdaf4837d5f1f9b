"""The kernels of GPU programs: PTX text, executed with NumPy on all threads of a block at once.

Every instruction follows the PTX ISA manual. An unknown instruction, modifier or type is an error. So are reads of
registers and bytes that were never written, accesses that are misaligned or outside a buffer, barriers that not all
running threads reach, masks that name a lane that does not participate, and data races (see races.py).
"""
