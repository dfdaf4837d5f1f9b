"""Runs the mutants of TPU kernels (mosaic/mutants.py) on the cases of a directory.

Some mutants need no run, because a proof shows that they do not change results (mosaic/proofs.py), or because a rule of
the list covers them.

A mutant is caught if the result of a case differs. It is also caught if the interpreter reports an error, such as an
access out of bounds or an endless loop. mutant_list.py describes the list of the mutants that are not caught. The
command fails if a mutant is neither caught nor in the list.
"""

import json
import multiprocessing
import signal
import time
from dataclasses import replace
from pathlib import Path

from .cases import check_outputs, run_files
from .errors import ProgramError
from .mosaic import kernel as mosaic
from .mosaic.body import kernel_body
from .mosaic.mutants import Selection, find, translators
from .mosaic.proofs import Proofs
from .mutant_list import Comparison, MutantList
from .outer import Outer, kernel_of

# One execution of a loop of an unchanged kernel has far fewer iterations. The cases have short rows.
MAX_ITERATIONS = 500
# A mutant is endless if it takes this many times the processor time of the unchanged kernel.
TIMES = 30
# The sample takes every n-th case. The number of cases is rarely a multiple of this prime number.
STRIDE = 37
# A listed mutant runs only about this number of cases, unless `--listed` is given. Listed mutants usually survive. So
# they would run all their cases, and take most of the time.
CASES_OF_LISTED = 20
# The number of mutants that a process runs before it reports their results.
TOGETHER = 20


class Endless(Exception):
    """The processor time of a mutant exceeds its limit."""


def stop(*_):
    raise Endless


class Fixed:
    """A kernel that returns known results."""

    def __init__(self, outputs):
        self.outputs = outputs

    def run(self, inputs, results, aliases=()):
        return self.outputs


class Recorder:
    """Runs a kernel and remembers its call."""

    def __init__(self, kernel):
        self.kernel = kernel

    def run(self, inputs, results, aliases=()):
        outputs = self.kernel.run(inputs, results, aliases)
        self.call = ([array.copy() for array in inputs], results, aliases)
        return outputs


class Case:
    """One case: the call of its kernel, and the results and the time of the unchanged kernel."""

    def __init__(self, program, case, directory, kernel):
        self.case, self.directory = case, directory
        # Whether `make test` runs this case.
        self.of_sample = case.get("notes", {}).get("sample", True)
        recorder = Recorder(kernel)
        wrong = check_outputs(run_with(program, recorder, case, directory), case, directory)
        if wrong:
            raise ProgramError(f"{case['name']}: the unchanged kernel does not agree: {wrong[0]}")
        self.call = recorder.call
        start = time.process_time()
        self.outputs = kernel.run(*self.call)
        self.seconds = time.process_time() - start

    def catches(self, program, kernel):
        """Runs a changed kernel. Returns what catches it: "difference", "error", "endless", or None."""
        signal.setitimer(signal.ITIMER_VIRTUAL, TIMES * self.seconds + 0.1)
        try:
            outputs = kernel.run(*self.call)
        except ProgramError:
            return "error"
        except Endless:
            return "endless"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            kernel.reset()
        if all(a.tobytes() == b.tobytes() for a, b in zip(outputs, self.outputs)):
            return None
        # Some results of the kernel do not affect those of the program.
        try:
            wrong = check_outputs(run_with(program, Fixed(outputs), self.case, self.directory), self.case, self.directory)
        except ProgramError:
            return "error"
        return "difference" if wrong else None


def run_with(program, kernel, case, directory):
    """Runs a program with another kernel."""
    (key,) = program.kernels
    before, program.kernels[key] = program.kernels[key], kernel
    try:
        return run_files(program, [directory / path for path in case["inputs"]])
    finally:
        program.kernels[key] = before


class Kernel:
    """The mutants of the kernel of one directory of cases."""

    def __init__(self, directory, options, choose):
        """`choose` receives this object, with `name`, `found` and `proofs`. It returns the mutants to run."""
        directory = Path(directory)
        cases = json.loads((directory / "cases.json").read_text())
        if len({case["program"] for case in cases}) != 1:
            raise ProgramError(f"{directory}: the cases have several programs")
        options = replace(options, max_iterations=MAX_ITERATIONS)
        self.program = Outer((directory / cases[0]["program"]).read_text(), options)
        (key,) = self.program.kernels
        module, config = kernel_of(key)
        if module is not mosaic:
            raise ProgramError(f"{directory}: not a TPU kernel")
        unchanged = self.program.kernels[key]
        self.name = unchanged.name
        self.found = find(unchanged.program.module)
        self.config, self.module = config, unchanged.program.module
        self.unchanged, self.directory, self.list = unchanged, directory, cases
        self.mutants = choose(self)
        self.seen = Selection(differs=bytearray(len(self.mutants)))
        self.watching = mosaic.Kernel(config, options, translators(self.mutants, self.seen, watch=True))
        self.selection = Selection()
        self.changed = mosaic.Kernel(config, options, translators(self.mutants, self.selection, watch=False))
        # The cases that were read. For each mutant, the numbers of the cases in which its operation has another result.
        self.cases = []
        self.differs = [[] for _ in self.mutants]
        # The mutants that were caught in a case of the sample.
        self.of_sample = set()

    def proofs(self):
        """Returns what can be proved about the mutants."""
        notes, columns = self.directory / "kernel.txt", self.directory / "columns.json"
        notes = notes.read_text() if notes.exists() else ""
        columns = json.loads(columns.read_text()) if columns.exists() else []
        return Proofs(self.module, kernel_body(self.config.value), notes, columns)

    def read(self, number):
        """Reads a case. Returns the numbers of the mutants whose operation has another result in it."""
        case = Case(self.program, self.list[number], self.directory, self.unchanged)
        self.cases.append(case)
        self.seen.differs[:] = bytes(len(self.mutants))
        self.watching.run(*case.call)
        self.watching.reset()
        found = [mutant for mutant, differs in enumerate(self.seen.differs) if differs]
        for mutant in found:
            self.differs[mutant].append(len(self.cases) - 1)
        return found

    def read_all(self):
        """Reads all cases. A mutant runs the shortest cases first."""
        for number in range(len(self.list)):
            self.read(number)
        for cases in self.differs:
            cases.sort(key=lambda case: self.cases[case].seconds)

    def run_sample(self):
        """Reads cases until all mutants are caught. Returns what caught each mutant, or None."""
        caught = [None] * len(self.mutants)
        # Neighbours in the list have similar rows.
        for number in sorted(range(len(self.list)), key=lambda number: number * STRIDE % len(self.list)):
            for mutant in self.read(number):
                if caught[mutant] is None:
                    self.selection.current[0] = mutant
                    caught[mutant] = self.cases[-1].catches(self.program, self.changed)
            if None not in caught:
                break
        return caught

    def run(self, numbers, briefly):
        """Runs mutants. Returns what caught each of them, or None, and whether a case of the sample caught it. The
        mutants whose names are in `briefly` run only some cases."""
        results = []
        last = None
        for number in numbers:
            self.selection.current[0] = number
            caught, of_sample = None, False
            # Often the case that caught the previous mutant also catches this one.
            cases = sorted(self.differs[number], key=lambda case: case != last)
            if self.mutants[number].name in briefly:
                cases = sorted(cases)[:: max(1, len(cases) // CASES_OF_LISTED)]
            for case in cases:
                caught = self.cases[case].catches(self.program, self.changed)
                if caught:
                    last = case
                    of_sample = self.cases[case].of_sample
                    break
            results.append((number, caught, of_sample))
        return results


def run_all(kernel, processes, briefly):
    """Runs all mutants of a kernel. Returns what caught each of them, or None. See `Kernel.run` for `briefly`."""
    global _kernel, _briefly
    _kernel, _briefly = kernel, briefly
    numbers = range(len(kernel.mutants))
    parts = [numbers[i : i + TOGETHER] for i in range(0, len(numbers), TOGETHER)]
    results = {}
    # The processes share the translated kernel and the cases with this process.
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for part in pool.imap_unordered(_run_part, parts):
            results.update((number, caught) for number, caught, _ in part)
            kernel.of_sample.update(number for number, _, of_sample in part if of_sample)
    return [results[number] for number in numbers]


def _run_part(numbers):
    return _kernel.run(numbers, _briefly)


def command(arguments, options):
    """Runs the mutants of all directories and compares the survivors with the list. Returns the exit status."""
    known = MutantList.read(arguments.list)
    comparisons = []
    signal.signal(signal.SIGVTALRM, stop)
    for directory in arguments.directories:
        start = time.monotonic()
        comparison = Comparison(known, arguments)
        kernel = Kernel(directory, options, comparison.chosen)
        if arguments.sample:
            caught = kernel.run_sample()
        else:
            kernel.read_all()
            caught = run_all(kernel, arguments.processes, set() if arguments.listed else comparison.survivors())
        comparison.compare(kernel, caught)
        comparisons.append(comparison)
        print(f"{comparison.name}: {time.monotonic() - start:.0f} s", flush=True)
    # A copy can be in another kernel.
    places = set().union(*(comparison.caught_places() for comparison in comparisons))
    complaints = []
    for comparison in comparisons:
        comparison.find_copies(places)
        print(comparison.summary(), flush=True)
        complaints += comparison.complaints()
        if arguments.update:
            comparison.update()
    if arguments.results:
        results = {comparison.name: comparison.results() for comparison in comparisons}
        arguments.results.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.update:
        known.write(arguments.list)
        return 0
    complaints += known.unused_rules() if comparison.is_complete else []
    print("".join(f"{complaint}\n" for complaint in complaints), end="")
    return 1 if complaints else 0
