"""Runs the kernels of GPU programs: PTX text. NumPy executes an instruction for many threads of a block at once.

Every instruction follows the PTX ISA manual. An unknown instruction, modifier or type is an error. These are errors
too:

- reads of registers and bytes that were never written;
- accesses that are misaligned or outside a buffer;
- barriers that some running threads do not reach;
- masks with a lane that does not participate;
- data races (see races.py).
"""
