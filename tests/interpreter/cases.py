"""Runs cases. A case is a program, the files of its inputs, and the files of the expected outputs."""

from pathlib import Path

import numpy as np

from .errors import ProgramError

SHOWN = 8


def read_tensor(path, dtype, shape):
    """Reads a raw little-endian file as a tensor."""
    data = Path(path).read_bytes()
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(data) != expected:
        raise ProgramError(f"{path} has {len(data)} bytes; {expected} are expected")
    return np.frombuffer(data, dtype).reshape(shape)


def run_files(program, paths):
    if len(paths) != len(program.inputs):
        raise ProgramError(f"{len(paths)} input files; the program takes {len(program.inputs)}")
    return program.run([read_tensor(p, *t) for p, t in zip(paths, program.inputs)])


def differences(got, expected):
    """Returns the number of elements whose bits differ. Also returns the position, the bits and the expected bits of
    the first of these elements."""
    words = np.dtype(f"u{got.dtype.itemsize}")
    a, b = got.view(words), expected.view(words)
    positions = np.argwhere(a != b)
    shown = [
        (tuple(int(i) for i in p), f"0x{int(a[tuple(p)]):0{2 * words.itemsize}x}", f"0x{int(b[tuple(p)]):0{2 * words.itemsize}x}")
        for p in positions[:SHOWN]
    ]
    return len(positions), shown


def check_case(program, case, directory):
    """Runs one case. Returns lines that describe the mismatches. The list is empty if the case passes."""
    return check_outputs(run_files(program, [directory / p for p in case["inputs"]]), case, directory)


def check_outputs(outputs, case, directory):
    """Compares the outputs of a case with the expected outputs. Returns lines that describe the mismatches. The list is
    empty if the case passes."""
    if len(case["expected"]) != len(outputs):
        raise ProgramError(f"{len(case['expected'])} expected files; the program returns {len(outputs)}")
    total, lines = 0, []
    for i, (output, path) in enumerate(zip(outputs, case["expected"])):
        if path is None:
            continue
        count, shown = differences(output, read_tensor(directory / path, output.dtype, output.shape))
        total += count
        lines += [f"  output {i} at {list(at)}: got {got}, expected {want}" for at, got, want in shown]
    return [f"{total} mismatches", *lines] if total else []
