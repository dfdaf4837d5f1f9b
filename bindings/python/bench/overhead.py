#!/usr/bin/env python3
"""Measures a call from Python beside the same call from C: one row in f32, top-k 50, top-p 0.9, one thread.

    overhead.py LIBRARY_DIRECTORY

Prints one JSON object per vocabulary. `scalars` passes Python numbers, `arrays` passes NumPy arrays of the right
types, `debug` also requests every debug array. Times are medians in microseconds. Needs the package and a C compiler.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from nucleus_sampler import Sampler

HERE = Path(__file__).resolve().parent
ROUNDS, CALLS = 200, 50


def median(call):
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for offset in range(CALLS):
            call(offset)
        times.append((time.perf_counter_ns() - start) / CALLS)
    return statistics.median(times)


def main():
    library = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory, Sampler(backend="builtin", num_threads=1) as sampler:
        program = Path(directory) / "call"
        subprocess.run(
            ["cc", "-std=gnu99", "-O2", f"-I{HERE.parent.parent.parent / 'include'}", HERE / "call.c", "-o", program,
             f"-L{library}", "-lnucleus", f"-Wl,-rpath,{library}"],
            check=True,
        )  # fmt: skip
        for vocab in (1024, 128_256):
            logits = np.random.default_rng(1).normal(0, 3, (1, vocab)).astype(np.float32)
            arrays = {
                "top_k": np.array([50], np.int32),
                "top_p": np.array([0.9], np.float32),
                "temperature": np.array([0.7], np.float32),
                "seed": np.array([1], np.uint64),
                "offset": np.array([0], np.uint64),
            }
            scalars = {"top_k": 50, "top_p": 0.9, "temperature": 0.7, "seed": 1}
            c = subprocess.run(
                [program, str(vocab), str(ROUNDS), str(CALLS)],
                input=logits.tobytes(),
                capture_output=True,
                check=True,
            )
            found = {
                "c": float(c.stdout),
                "scalars": median(lambda offset: sampler.sample(logits, **scalars, offset=offset)),
                "arrays": median(lambda offset: sampler.sample(logits, **arrays)),
                "debug": median(lambda offset: sampler.sample(logits, **arrays, debug=True)),
            }
            print(
                json.dumps(
                    {"vocab": vocab, **{name: round(value / 1000, 2) for name, value in found.items()}}
                )
            )


if __name__ == "__main__":
    main()
