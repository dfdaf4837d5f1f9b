"""The list of the mutants that no case catches.

The list gives a reason for each mutant. Either the change affects only the time of the kernel, or the changed operation
has the same results for all values that occur. A mutant that nobody has examined is listed as open. The tests may lack
a row that catches it.

The list is a text file. Lines that start with # are comments. A line `kernel: NAME` begins the section of a kernel.
The next line, `parts: I/N ...`, names the mutants that were run: every N-th mutant, from number I. The command runs
these mutants and the listed ones. It knows nothing about the other mutants. A line in brackets gives the reason for
the mutants on the lines below it.

The line of a mutant has three parts, separated by ` | `: the path of the operation, the operation with its change,
and a number. The number tells apart operations with the same path and the same text. The change of a constant is its
new value. `*` stands for all copies of an unrolled operation. If these copies have different constants, their change
is `each + step` or `each - step`.
"""

from .errors import ProgramError

# The reasons of mutants that nobody has examined.
OPEN_SAME = "open; the changed operation has the same result in all cases"
OPEN_OTHER = "open; the changed operation has another result in some case"
OPEN = (OPEN_SAME, OPEN_OTHER)
# The reason of mutants that are caught and that `make test` runs. Their names are in the list. Without these names, a
# change of a kernel could select mutants that nobody has run.
SAMPLE = "caught; the sample of make test"
SAMPLE_SIZE = 30
# What catches a mutant.
WAYS = {"difference": "another result", "error": "an error", "endless": "its time"}
# The ways that do not depend on the time. The sample contains only mutants that are caught in these ways.
EXACT = ("difference", "error")

# The part that contains all mutants.
ALL_MUTANTS = "0/1"


def read_list(path):
    """Reads the list. Returns the reasons and the parts.

    The key of a reason is a pair: the name of the kernel and the name of the mutant. The key of a list of parts is the
    name of the kernel.
    """
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
    """Returns the mutants that the command runs."""
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
    """Compares the mutants of a kernel that were run with the list."""

    def __init__(self, kernel, caught, reasons):
        """`caught` gives what caught each mutant, or None if nothing caught it. `reasons` is the list."""
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
        """Changes the list. `part` is the part that was run, or None if the parts in the list were run."""
        for name in self.stale:
            del reasons[self.name, name]
        cases = {result["name"]: result["cases"] for result in self.results()}
        for name in self.still_open + self.unlisted:
            reasons[self.name, name] = OPEN_OTHER if cases[name] else OPEN_SAME
        # The sample contains only mutants whose operation has another result in many cases. Few cases are enough to
        # catch them.
        often = [name for name, by in self.caught.items() if by in EXACT and 4 * cases[name] >= len(self.kernel.list)]
        fill_sample(reasons, self.name, often)
        if part == ALL_MUTANTS:
            parts[self.name] = [ALL_MUTANTS]
        elif part:
            known = parts.setdefault(self.name, [ALL_MUTANTS] if self.before else [])
            if not {ALL_MUTANTS, part} & set(known):
                known.append(part)


def fill_sample(reasons, kernel, caught):
    """Adds evenly spaced mutants to the sample of a kernel, until it has `SAMPLE_SIZE` mutants."""
    missing = SAMPLE_SIZE - sum(key[0] == kernel and reason == SAMPLE for key, reason in reasons.items())
    new = [name for name in caught if (kernel, name) not in reasons]
    for name in new[:: max(1, len(new) // max(missing, 1))][: max(missing, 0)]:
        reasons[kernel, name] = SAMPLE
