"""Runs the mutants of TPU kernels (mosaic/mutants.py) on the cases of a directory.

A mutant is caught if a result of some case differs, or if the interpreter reports an error, such as an access out
of bounds or an endless loop. The command fails if a mutant that is not caught is not in the list. The list gives a
reason for a mutant: the change affects only the time of the kernel, or the changed operation has the same results
for all values that occur. A mutant that nobody has examined is listed as open: the tests may lack a row.

The list is a text file. A line `kernel: NAME` begins the part of a kernel. The next line, `parts: I/N ...`, names the
mutants that were run: every N-th, from number I. The command runs these mutants and the listed ones. It knows nothing
about the other mutants. A line in brackets gives the reason for the mutants on the following lines. The line of a
mutant has its name: the path, the operation with its change, and the number of the operation among those with the
same path and text, separated by ` | `. The change of a constant is its new value. `*` stands for all copies of an
unrolled operation. If these copies have different constants, their change is `each + step` or `each - step`. Lines
that start with # are comments.
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
from .mosaic.mutants import Selection, find, translators
from .outer import Outer, kernel_of

# The reasons of mutants that nobody has examined yet: no case gives the changed operation another result, or some do.
OPEN_SAME = "open; the changed operation has the same result in all cases"
OPEN_OTHER = "open; the changed operation has another result in some case"
OPEN = (OPEN_SAME, OPEN_OTHER)
# The reason of mutants that are caught and that `make test` runs. Their names are in the list, so that a change of a
# kernel does not select mutants that nobody has run.
SAMPLE = "caught; the sample of make test"
SAMPLE_SIZE = 30
# One execution of a loop of an unchanged kernel has far fewer iterations. The cases have short rows.
MAX_ITERATIONS = 500
# A mutant is endless if it takes this many times the processor time of the unchanged kernel.
TIMES = 30
# The sample takes every n-th case. The number of cases is rarely a multiple of this prime number.
STRIDE = 37
# The number of mutants that a process runs before it reports their results.
TOGETHER = 20


# What catches a mutant.
WAYS = {"difference": "another result", "error": "an error", "endless": "its time"}
# The ways that do not depend on the time. Only these mutants are in the sample.
EXACT = ("difference", "error")


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
        recorder = Recorder(kernel)
        wrong = check_outputs(run_with(program, recorder, case, directory), case, directory)
        if wrong:
            raise ProgramError(f"{case['name']}: the unchanged kernel does not agree: {wrong[0]}")
        self.call = recorder.call
        start = time.process_time()
        self.outputs = kernel.run(*self.call)
        self.seconds = time.process_time() - start

    def catches(self, program, kernel):
        """Runs a changed kernel. Returns what its result is: "difference", "error", "endless", or None if it is right."""
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
        """`choose` selects the mutants to run, by the name of the kernel and all mutants."""
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
        self.mutants = choose(self.name, self.found)
        self.unchanged, self.directory, self.list = unchanged, directory, cases
        self.seen = Selection(differs=bytearray(len(self.mutants)))
        self.watching = mosaic.Kernel(config, options, translators(self.mutants, self.seen, watch=True))
        self.selection = Selection()
        self.changed = mosaic.Kernel(config, options, translators(self.mutants, self.selection, watch=False))
        # The cases that were read, and for each mutant the numbers of those in which its operation has another result.
        self.cases = []
        self.differs = [[] for _ in self.mutants]

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

    def run(self, numbers):
        """Runs mutants. Returns what caught each of them, or None."""
        results = []
        last = None
        for number in numbers:
            self.selection.current[0] = number
            caught = None
            # Often the case that caught the previous mutant also catches this one.
            cases = sorted(self.differs[number], key=lambda case: case != last)
            for case in cases:
                caught = self.cases[case].catches(self.program, self.changed)
                if caught:
                    last = case
                    break
            results.append((number, caught))
        return results


def run_all(kernel, processes):
    """Runs all mutants of a kernel. Returns what caught each of them, or None."""
    global _kernel
    _kernel = kernel
    numbers = range(len(kernel.mutants))
    parts = [numbers[i : i + TOGETHER] for i in range(0, len(numbers), TOGETHER)]
    results = {}
    # The processes share the translated kernel and the cases with this process.
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for part in pool.imap_unordered(_run_part, parts):
            results.update(part)
    return [results[number] for number in numbers]


def _run_part(numbers):
    return _kernel.run(numbers)


# The list

# The part that contains all mutants.
ALL_MUTANTS = "0/1"


def read_list(path):
    """Reads the list. Returns the reason of each entry, by the name of the kernel and the name of the mutant, and the
    parts of each kernel."""
    reasons, parts, kernel, reason = {}, {}, None, None
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("kernel: "):
            kernel, reason = line.removeprefix("kernel: "), None
        elif line.startswith("parts: ") and kernel is not None:
            parts[kernel] = line.removeprefix("parts: ").split()
        elif line.startswith("[") and line.endswith("]"):
            reason = line[1:-1]
        elif kernel is None or reason is None or line.count(" | ") != 2:
            raise ProgramError(f"{path}:{number}: not a line of the list")
        else:
            reasons[kernel, line] = reason
    return reasons, parts


def write_list(path, reasons, parts):
    """Writes the list. `reasons` and `parts` have the form that `read_list` returns."""
    kernels = {kernel: {} for kernel in parts}
    for (kernel, name), reason in reasons.items():
        kernels.setdefault(kernel, {}).setdefault(reason, []).append(name)
    text = "".join(f"{line}\n" for line in path.read_text().splitlines() if line.startswith("#")) if path.exists() else ""
    for kernel, groups in sorted(kernels.items()):
        text += f"\nkernel: {kernel}\nparts: {' '.join(parts.get(kernel, [ALL_MUTANTS]))}\n"
        for reason, names in sorted(groups.items(), key=lambda group: (group[0] == SAMPLE, group[0] in OPEN, group[0])):
            text += f"\n[{reason}]\n" + "".join(f"{name}\n" for name in names)
    path.write_text(text)


def chosen(arguments, reasons, parts, kernel, mutants):
    """The mutants that the command runs."""
    if arguments.sample:
        return [mutant for mutant in mutants if reasons.get((kernel, mutant.name)) == SAMPLE]
    names = {name for (of, name), reason in reasons.items() if of == kernel and reason != SAMPLE}
    numbers = set()
    if not arguments.listed:
        for part in [arguments.part] if arguments.part else parts.get(kernel, [ALL_MUTANTS]):
            first, every = map(int, part.split("/"))
            numbers.update(range(first, len(mutants), every))
    if arguments.listed or not arguments.part:
        numbers.update(number for number, mutant in enumerate(mutants) if mutant.name in names)
    return [mutants[number] for number in sorted(numbers)]


class Comparison:
    """The mutants of a kernel that were run, compared with the list."""

    def __init__(self, kernel, caught, reasons):
        """`caught` says what caught each mutant, or None. `reasons` is the list."""
        self.kernel, self.name = kernel, kernel.name
        self.caught = dict(zip((mutant.name for mutant in kernel.mutants), caught))
        self.before = {name: reason for (of, name), reason in reasons.items() if of == kernel.name}
        self.alive = [name for name, by in self.caught.items() if by is None]
        self.unlisted = [name for name in self.alive if self.before.get(name, SAMPLE) == SAMPLE]
        self.still_open = [name for name in self.alive if self.before.get(name) in OPEN]
        names = {mutant.name for mutant in kernel.found}
        self.stale = [
            name
            for name, reason in self.before.items()
            if name not in names or reason != SAMPLE and self.caught.get(name)
        ]

    def summary(self):
        ways = list(self.caught.values())
        counts = ", ".join(f"{ways.count(by)} by {text}" for by, text in WAYS.items())
        caught, explained = len(ways) - len(self.alive), len(self.alive) - len(self.still_open) - len(self.unlisted)
        return (
            f"{self.name}: {len(ways)} of {len(self.kernel.found)} mutants: {caught} caught ({counts}), "
            f"{explained} listed with a reason, {len(self.still_open)} listed as open, {len(self.unlisted)} not listed"
        )

    def complaints(self, is_sample):
        """Returns the differences between the list and the survivors."""
        found = [f"neither caught nor listed: {self.name} | {name}" for name in self.unlisted]
        if not is_sample:
            return found + [f"listed, but caught or no longer there: {self.name} | {name}" for name in self.stale]
        sample = sum(reason == SAMPLE for reason in self.before.values())
        if 4 * len(self.caught) < sample or not sample:
            found.append(f"{self.name} has only {len(self.caught)} of the {sample} mutants of the sample")
        return found

    def results(self):
        """Returns what caught each mutant, and in how many cases its operation has another result."""
        return [
            {"name": mutant.name, "caught": self.caught[mutant.name], "cases": len(differs)}
            for mutant, differs in zip(self.kernel.mutants, self.kernel.differs)
        ]

    def update(self, reasons, parts, part):
        """Changes the list. `part` is the part that was run, or None for the parts in the list."""
        for name in self.stale:
            del reasons[self.name, name]
        cases = {result["name"]: result["cases"] for result in self.results()}
        for name in self.still_open + self.unlisted:
            reasons[self.name, name] = OPEN_OTHER if cases[name] else OPEN_SAME
        # A mutant whose operation has another result in few cases needs many cases.
        often = [name for name, by in self.caught.items() if by in EXACT and 4 * cases[name] >= len(self.kernel.list)]
        fill_sample(reasons, self.name, often)
        if part == ALL_MUTANTS:
            parts[self.name] = [ALL_MUTANTS]
        elif part:
            known = parts.setdefault(self.name, [ALL_MUTANTS] if self.before else [])
            if not {ALL_MUTANTS, part} & set(known):
                known.append(part)


def command(arguments, options):
    """Runs the mutants of all directories and compares the survivors with the list. Returns the exit status."""
    reasons, parts = read_list(arguments.list)
    complaints, results = [], {}
    signal.signal(signal.SIGVTALRM, stop)
    for directory in arguments.directories:
        start = time.monotonic()
        kernel = Kernel(directory, options, lambda *found: chosen(arguments, reasons, parts, *found))
        if arguments.sample:
            caught = kernel.run_sample()
        else:
            kernel.read_all()
            caught = run_all(kernel, arguments.processes)
        comparison = Comparison(kernel, caught, reasons)
        print(f"{comparison.summary()}; {time.monotonic() - start:.0f} s", flush=True)
        complaints += comparison.complaints(arguments.sample)
        results[kernel.name] = comparison.results()
        if arguments.update:
            comparison.update(reasons, parts, arguments.part)
    if arguments.results:
        arguments.results.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.update:
        write_list(arguments.list, reasons, parts)
        return 0
    print("".join(f"{complaint}\n" for complaint in complaints), end="")
    return 1 if complaints else 0


def fill_sample(reasons, kernel, caught):
    """Adds evenly spaced mutants to the sample of a kernel, until it has `SAMPLE_SIZE` mutants."""
    missing = SAMPLE_SIZE - sum(key[0] == kernel and reason == SAMPLE for key, reason in reasons.items())
    new = [name for name in caught if (kernel, name) not in reasons]
    for name in new[:: max(1, len(new) // max(missing, 1))][: max(missing, 0)]:
        reasons[kernel, name] = SAMPLE
