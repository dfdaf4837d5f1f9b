#!/usr/bin/env python3
"""Compiles two passes of a top-k selection for the SparseCore with libtpu, and counts the cycles of their inner loops.

    sparsecore.py LIBTPU [TOPOLOGY...]

Needs JAX, which `make model` installs in .cache/model/env. Pallas lowers the kernels on the CPU, and libtpu compiles them
ahead of time. No TPU is needed. docs/tpu-sparsecore.md has the results.

- histogram: counts the keys of each row by their 11 upper bits.
- compress: writes the logits that reach a threshold to consecutive places.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOPOLOGIES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")
KERNELS = ("histogram", "compress")
# Each kernel is compiled with each of these numbers of vectors per iteration.
UNROLLED = (8, 16, 32)
ROWS, VOCAB = 64, 262_144
# The number of logits that a subcore copies to its memory at once.
CHUNK = 8192
BINS = 2048


def compile_kernel(topology, name, unrolled):
    """Compiles a kernel. libtpu writes the schedule to the directory that LIBTPU_INIT_ARGS names."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax._src.pallas.mosaic import tpu_info
    from jax.experimental import pallas as pl
    from jax.experimental import topologies
    from jax.experimental.pallas import tpu as pltpu
    from jax.experimental.pallas import tpu_sc as plsc

    device = topologies.get_topology_desc(topology, "tpu").devices[0]
    # Pallas reads these properties from the default device, which is the CPU here.
    tpu_info.get_device_kind = lambda: device.device_kind
    tpu_info.get_num_device_cores = lambda: device.num_cores
    info = tpu_info.get_tpu_info().sparse_core
    if info is None:
        sys.exit(f"{device.device_kind} has no SparseCore")
    lanes, workers = info.num_lanes, info.num_cores * info.num_subcores
    print(f"cores={info.num_cores} subcores={info.num_subcores} lanes={lanes} bytes={info.vmem_capacity_bytes}")

    def each_row(body):
        worker = jax.lax.axis_index("core") * info.num_subcores + jax.lax.axis_index("subcore")
        pl.loop(0, ROWS // workers)(lambda row: body(worker * (ROWS // workers) + row))

    def copy_chunk(logits, row, chunk, buffer):
        pltpu.sync_copy(logits.at[pl.ds(row * VOCAB + chunk * CHUNK, CHUNK)], buffer)

    def histogram(logits, result, buffer, bins):
        one = jnp.ones((lanes,), jnp.int32)

        @each_row
        def _(row):
            @plsc.parallel_loop(0, BINS, lanes, unroll=4)
            def _(i):
                bins[pl.ds(i, lanes)] = jnp.zeros((lanes,), jnp.int32)

            @pl.loop(0, VOCAB // CHUNK)
            def _(chunk):
                copy_chunk(logits, row, chunk, buffer)

                @plsc.parallel_loop(0, CHUNK, lanes, unroll=unrolled)
                def _(i):
                    bits = plsc.bitcast(buffer[pl.ds(i, lanes)], jnp.int32)
                    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
                    plsc.addupdate_scatter(bins, [(key >> 21) + BINS // 2], one)

            pltpu.sync_copy(bins, result.at[pl.ds(row * BINS, BINS)])

    def compress(logits, thresholds, result, buffer, kept, threshold):
        @each_row
        def _(row):
            pltpu.sync_copy(thresholds.at[pl.ds(row * 16, 16)], threshold)
            least = threshold[pl.ds(0, lanes)]

            def pass_over(chunk, count):
                copy_chunk(logits, row, chunk, buffer)

                @plsc.parallel_loop(0, CHUNK, lanes, unroll=unrolled, carry=count)
                def counted(i, count):
                    x = buffer[pl.ds(i, lanes)]
                    mask = x >= least
                    plsc.store_compressed(kept.at[pl.ds(count, lanes)], x, mask=mask)
                    return jnp.minimum(count + plsc.all_reduce_population_count(mask)[0], CHUNK - lanes)

                return counted

            jax.lax.fori_loop(0, VOCAB // CHUNK, pass_over, jnp.int32(0))
            pltpu.sync_copy(kept, result.at[pl.ds(row * CHUNK, CHUNK)])

    buffer = pltpu.VMEM((CHUNK,), jnp.float32)
    body, result, scratch, thresholds = {
        "histogram": (histogram, (ROWS * BINS, jnp.int32), [buffer, pltpu.VMEM((BINS,), jnp.int32)], 0),
        "compress": (compress, (ROWS * CHUNK, jnp.float32), [buffer, buffer, pltpu.VMEM((16,), jnp.float32)], 1),
    }[name]
    kernel = pl.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((result[0],), result[1]),
        mesh=plsc.VectorSubcoreMesh(core_axis_name="core", subcore_axis_name="subcore"),
        scratch_types=scratch,
        compiler_params=pltpu.CompilerParams(needs_layout_passes=False),
    )
    mesh = jax.sharding.Mesh(np.array([device]), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    sizes = [ROWS * VOCAB] + [ROWS * 16] * thresholds
    arguments = [jax.ShapeDtypeStruct((size,), jnp.float32, sharding=sharding) for size in sizes]
    jax.jit(kernel, out_shardings=sharding).trace(*arguments).lower(lowering_platforms=("tpu",)).compile()


def inner_loop(path, unrolled):
    """Returns the cycles of the loop that loads `unrolled` vectors: the number of its bundles plus its explicit
    delays."""
    bundles, labels = [], {}
    for line in path.read_text().split("\ntec\n", 1)[1].split("\n"):
        label = re.match(r"(\.L\w+):", line)
        if label:
            labels.setdefault(label[1], len(bundles))
        elif re.match(r"0x[0-9a-f]+: ", line):
            bundles.append(line)
        elif bundles:
            bundles[-1] += line
    for number, bundle in enumerate(bundles):
        branch = re.search(r"sbr\.rel @\S+ (\.LBB\w+)-\.Ltmp\d+(?:, \$(\d+))?", bundle)
        start = labels.get(branch[1]) if branch else None
        if start is None or start > number:
            continue
        # A few bundles after a branch run before the branch takes effect. The schedules of older generations do not
        # show how many. Three is an assumption.
        body = bundles[start : number + 1 + int(branch[2] or 3)]
        text = " ".join(body)
        if "stream" not in text and text.count("vld ") >= unrolled:
            return len(body) + sum(int(delay, 16) for delay in re.findall(r"sdelay \$0x([0-9a-f]+)", text))
    sys.exit(f"{path} has no loop over {unrolled} vectors")


def measure(libtpu, topology, name, unrolled):
    """Compiles a kernel in a new process. Returns the number of lanes and the cycles of one iteration. If libtpu does
    not compile the kernel, returns None and the error."""
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu", "TPU_LIBRARY_PATH": str(libtpu), "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "LIBTPU_INIT_ARGS": f"--xla_sc_dump_bundles_to={directory}",
        }  # fmt: skip
        command = [sys.executable, __file__, "--compile", topology, name, str(unrolled)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            return None, done.stderr.strip().split("\n")[-1]
        (schedule,) = Path(directory).glob("*_bundles.txt")
        return int(re.search(r"lanes=(\d+)", done.stdout)[1]), inner_loop(schedule, unrolled)


def main():
    if sys.argv[1] == "--compile":
        return compile_kernel(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    libtpu, topologies = Path(sys.argv[1]).resolve(), sys.argv[2:] or TOPOLOGIES
    print("| chip | pass | vectors per iteration | cycles | cycles per 1,024 logits |\n| --- | --- | --- | --- | --- |")
    for topology in topologies:
        chip = topology.split(":")[0]
        for name in KERNELS:
            for unrolled in UNROLLED:
                lanes, cycles = measure(libtpu, topology, name, unrolled)
                if lanes is None:
                    print(f"| {chip} | {name} | | {cycles} | |", flush=True)
                    break
                each = 1024 * cycles / (lanes * unrolled)
                print(f"| {chip} | {name} | {unrolled} x {lanes} lanes | {cycles} | {each:.0f} |", flush=True)


if __name__ == "__main__":
    main()
