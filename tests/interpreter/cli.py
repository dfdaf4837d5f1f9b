"""The command line."""

import argparse
import json
import sys
from pathlib import Path

from . import mutation
from .cases import check_case, run_files
from .element import GARBAGE
from .errors import ProgramError
from .outer import Outer, pretty_kernels
from .options import Options


def options_of(arguments):
    return Options(flush=arguments.flush, nan_max=arguments.nan_max, dma=arguments.dma, garbage=arguments.garbage,
                   reverse_parallel=arguments.reverse_parallel, max_iterations=arguments.max_iterations,
                   schedule=arguments.schedule, seed=arguments.seed, resident=arguments.resident)  # fmt: skip


def warn_of_poison(report, where):
    for kernel in report:
        for place, count in kernel["poison"].items():
            print(f"{where}: {place} had no defined result for {count} elements", file=sys.stderr)


def command_run(arguments):
    """Runs a program on files and writes its results to files."""
    program = Outer(Path(arguments.program).read_text(), options_of(arguments))
    outputs = run_files(program, arguments.inputs)
    directory = Path(arguments.outputs)
    directory.mkdir(parents=True, exist_ok=True)
    for i, output in enumerate(outputs):
        (directory / f"{i}.bin").write_bytes(output.tobytes())
    report = program.report()
    warn_of_poison(report, arguments.program)
    if arguments.trips:
        Path(arguments.trips).write_text(json.dumps(report, indent=1) + "\n")
    return 0


def command_check(arguments):
    """Runs the cases of a directory and compares every bit."""
    directory = Path(arguments.directory)
    cases = json.loads((directory / "cases.json").read_text())
    options = options_of(arguments)
    failures, reports = 0, {}
    path, program = None, None
    if arguments.kernels:
        write_kernels({directory / case["program"] for case in cases}, Path(arguments.kernels))
    for case in cases:
        name = case["name"]
        try:
            # Consecutive cases often have the same program. It is then translated only once.
            if program is None or path != directory / case["program"]:
                path, program = directory / case["program"], None
                program = Outer(path.read_text(), options)
            program.reset()
            wrong = check_case(program, case, directory)
        except ProgramError as error:
            wrong = [f"error: {error}"]
        failures += bool(wrong)
        print("\n".join([f"{name}: {wrong[0] if wrong else 'PASS'}", *wrong[1:]]), flush=True)
        if program is not None:
            reports[name] = program.report()
            warn_of_poison(reports[name], name)
    print(f"{len(cases) - failures} of {len(cases)} cases pass")
    if arguments.trips:
        Path(arguments.trips).write_text(json.dumps(reports, indent=1) + "\n")
    return 1 if failures or not cases else 0


def write_kernels(programs, directory):
    """Writes the text of every kernel to a file. Its name contains the name of the program and the kernel's number."""
    directory.mkdir(parents=True, exist_ok=True)
    for program in sorted(programs):
        for n, kernel in enumerate(pretty_kernels(program.read_text())):
            (directory / f"{program.stem}.{n}.txt").write_text(kernel)


def command_mutants(arguments):
    """Runs mutants of the TPU kernels in directories of cases. Each directory has one program."""
    return mutation.command(arguments, options_of(arguments))


def command_pretty(arguments):
    """Prints the kernels of a program: PTX text, or Mosaic text in the plain form."""
    for kernel in pretty_kernels(Path(arguments.program).read_text()):
        print(kernel)
    return 0


def parser():
    top = argparse.ArgumentParser(prog="interpreter", description="An independent interpreter of TPU and GPU programs.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--flush", action="store_true", help="f32 arithmetic flushes subnormals to zero")
    shared.add_argument("--nan-max", choices=["propagate", "ignore"], default="propagate",
                        help="the result of maximumf and minimumf of a NaN and a number")  # fmt: skip
    shared.add_argument("--dma", choices=["deferred", "eager"], default="deferred",
                        help="when a transfer moves its data: when the kernel waits for it, or when it starts")  # fmt: skip
    shared.add_argument("--garbage", choices=list(GARBAGE), default="nan",
                        help="the contents of uninitialized memory")  # fmt: skip
    shared.add_argument("--reverse-parallel", action="store_true",
                        help="of the cores that run a grid with a parallel dimension, the last runs first")  # fmt: skip
    shared.add_argument("--max-iterations", type=int, default=Options.max_iterations,
                        help="report an error if one execution of a loop needs more iterations, or a block of a GPU program more backward branches")  # fmt: skip
    shared.add_argument("--schedule", choices=["sequential", "random"], default="sequential",
                        help="the order of the blocks of a GPU program")  # fmt: skip
    shared.add_argument("--seed", type=int, default=0, help="the seed of --schedule=random")
    shared.add_argument("--resident", type=int, default=0,
                        help="how many blocks of a GPU program run at the same time; 0: all")  # fmt: skip
    shared.add_argument("--trips", metavar="FILE", help="write the iteration counts of loops and branches as JSON")

    run = commands.add_parser("run", parents=[shared], help=command_run.__doc__)
    run.add_argument("program")
    run.add_argument("--inputs", nargs="*", default=[], metavar="FILE",
                     help="raw little-endian tensors, in the order of the arguments")  # fmt: skip
    run.add_argument("--outputs", required=True, metavar="DIR", help="directory for the results: 0.bin, 1.bin, …")
    run.set_defaults(command=command_run)

    check = commands.add_parser("check", parents=[shared], help=command_check.__doc__)
    check.add_argument("--kernels", metavar="DIR", help="directory for the text of each kernel")
    check.add_argument("directory", help="directory with cases.json: a list of {name, program, inputs, expected}")
    check.set_defaults(command=command_check)

    mutants = commands.add_parser("mutants", parents=[shared], help=command_mutants.__doc__)
    mutants.add_argument("--list", required=True, type=Path, metavar="FILE",
                         help="the mutants that may survive, with the reason if it is known (mutant_list.py)")  # fmt: skip
    mutants.add_argument("--sample", action="store_true", help="run only the sample in the list")
    mutants.add_argument("--part", metavar="I/N",
                         help="run every N-th mutant, from number I; the first number is 0")  # fmt: skip
    mutants.add_argument("--listed", action="store_true", help="run only the listed survivors, on all cases")
    mutants.add_argument("--update", action="store_true", help="write the list anew; new survivors are listed as open")
    mutants.add_argument("--processes", type=int, default=2)
    mutants.add_argument("--results", type=Path, metavar="FILE", help="write what caught each mutant as JSON")
    mutants.add_argument("directories", nargs="+", metavar="DIR")
    mutants.set_defaults(command=command_mutants)

    pretty = commands.add_parser("emitpretty", help=command_pretty.__doc__)
    pretty.add_argument("program")
    pretty.set_defaults(command=command_pretty)
    return top


def main(argv=None):
    arguments = parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except ProgramError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
