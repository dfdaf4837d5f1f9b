"""The list of the mutants that no case catches.

The list gives a reason for each mutant. There are three kinds of reasons. The change affects only the time of the
kernel. Or the changed operation has the same results for all values that occur. Or the kernels contain several copies
of the operation, and the cases catch the same change of another copy (mosaic/sources.py). A mutant that nobody has
examined is listed as open. The tests may lack a row that catches it.

The list is a text file. Lines that start with # are comments. A line `kernel: NAME` begins the section of a kernel, and
`kernel: *` that of all kernels. A line in brackets gives the reason for the mutants on the lines below it.

The line of a mutant has three parts, separated by ` | `: the path of the operation, the operation with its change,
and a number. The number tells apart operations with the same path and the same text. The change of a constant is its
new value. `*` stands for all copies of an unrolled operation. If these copies have different constants, their change
is `each + step` or `each - step`.

A line `rule: PATH | OPERATION` stands for several mutants: `*` matches any text, and there is no number. A rule is for
changes that have the same reason at every place that it matches. A mutant that a rule covers is not run.
"""

import re
from dataclasses import dataclass, field

from .errors import ProgramError
from .mosaic.proofs import SAME, TIME

# The reasons of mutants that nobody has examined.
OPEN_SAME = "open; the changed operation has the same result in all cases"
OPEN_OTHER = "open; the changed operation has another result in some case"
OPEN = (OPEN_SAME, OPEN_OTHER)
# The reasons of mutants whose change is caught in another copy of the same operation (mosaic/sources.py).
COPY = "caught in another copy of the same arithmetic function"
UNROLLED = "caught in another copy of the same unrolled operation"
COPIES = (COPY, UNROLLED)
# The reason of mutants that are caught and that `make test` runs. Their names are in the list. Without these names, a
# change of a kernel could select mutants that nobody has run.
SAMPLE = "caught; the sample of make test"
SAMPLE_SIZE = 30
# What catches a mutant.
WAYS = {"difference": "another result", "error": "an error", "endless": "its time"}
# The ways that do not depend on the time. The sample contains only mutants that are caught in these ways.
EXACT = ("difference", "error")
# The name of the section with the rules for all kernels.
ALL_KERNELS = "*"
RULE = "rule: "


@dataclass
class Rule:
    """A rule for the mutants of a kernel. `text` is its line. `mutants` is the number of mutants that it covers."""

    kernel: str
    text: str
    reason: str
    mutants: int = 0

    def __post_init__(self):
        parts = self.text.removeprefix(RULE).split("*")
        self.pattern = re.compile(".*".join(map(re.escape, parts)))

    def covers(self, kernel, mutant):
        text = f"{mutant.path or 'kernel body'} | {mutant.text} -> {mutant.change}"
        return self.kernel in (ALL_KERNELS, kernel) and self.pattern.fullmatch(text) is not None


@dataclass
class MutantList:
    """The content of a list."""

    # The lines with comments.
    comments: list = field(default_factory=list)
    # The reason of each mutant. A key is a pair: the name of the kernel and the name of the mutant.
    reasons: dict = field(default_factory=dict)
    rules: list = field(default_factory=list)

    @staticmethod
    def read(path):
        found, kernel, reason = MutantList(), None, None
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
            if line.startswith("#"):
                found.comments.append(line)
            elif line.startswith("kernel: "):
                kernel, reason = line.removeprefix("kernel: "), None
            elif line.startswith("[") and line.endswith("]"):
                reason = line[1:-1]
            elif line.strip():
                is_rule = line.startswith(RULE)
                if kernel is None or reason is None or line.count(" | ") != (1 if is_rule else 2):
                    raise ProgramError(f"{path}:{number}: not a line of the list")
                if is_rule:
                    found.rules.append(Rule(kernel, line, reason))
                else:
                    found.reasons[kernel, line] = reason
        return found

    def write(self, path):
        kernels = {}
        for rule in self.rules:
            kernels.setdefault(rule.kernel, {}).setdefault(rule.reason, []).append(rule.text)
        for (kernel, name), reason in self.reasons.items():
            kernels.setdefault(kernel, {}).setdefault(reason, []).append(name)
        text = "".join(f"{line}\n" for line in self.comments)
        for kernel, groups in sorted(kernels.items()):
            text += f"\nkernel: {kernel}\n"
            for reason in sorted(groups, key=lambda reason: (reason == SAMPLE, reason in OPEN, reason)):
                text += f"\n[{reason}]\n" + "".join(f"{name}\n" for name in groups[reason])
        path.write_text(text)

    def rule_of(self, kernel, mutant):
        """Returns the first rule that covers a mutant, or None."""
        return next((rule for rule in self.rules if rule.covers(kernel, mutant)), None)

    def unused_rules(self):
        """Returns complaints about the rules that cover no mutant."""
        return [f"the rule covers no mutant: {rule.text}" for rule in self.rules if not rule.mutants]


class Comparison:
    """Compares the mutants of a kernel with the list."""

    def __init__(self, known, arguments):
        """`known` is the list. `arguments` says which mutants to run."""
        self.known, self.arguments = known, arguments
        # Whether all mutants that need a run are run.
        self.is_complete = not (arguments.sample or arguments.listed or arguments.part)

    def chosen(self, kernel):
        """Returns the mutants of a kernel that the command runs."""
        self.name, self.found = kernel.name, kernel.found
        self.before = {name: reason for (of, name), reason in self.known.reasons.items() if of == kernel.name}
        self.proofs, self.rules, self.copies = {}, {}, {}
        if self.arguments.sample:
            return [mutant for mutant in kernel.found if self.before.get(mutant.name) == SAMPLE]
        proofs = kernel.proofs()
        for mutant in kernel.found:
            self.copies[mutant.name] = proofs.copies(mutant)
            if proof := proofs.of(mutant):
                self.proofs[mutant.name] = proof
        for mutant in kernel.found:
            rule = None if mutant.name in self.proofs else self.known.rule_of(kernel.name, mutant)
            if rule is not None:
                rule.mutants += 1
                self.rules[mutant.name] = rule
        some = [mutant for mutant in kernel.found if mutant.name not in self.proofs and mutant.name not in self.rules]
        if self.arguments.listed:
            return [mutant for mutant in some if self.before.get(mutant.name, SAMPLE) != SAMPLE]
        if self.arguments.part:
            first, every = map(int, self.arguments.part.split("/"))
            return some[first::every]
        return some

    def survivors(self):
        """Returns the names of the mutants that survive according to the list."""
        return {name for name, reason in self.before.items() if reason != SAMPLE}

    def compare(self, kernel, caught):
        """`caught` gives what caught each mutant that was run, or None if nothing caught it."""
        self.cases = dict(zip((mutant.name for mutant in kernel.mutants), map(len, kernel.differs)))
        self.all_cases = len(kernel.list)
        self.of_sample = {kernel.mutants[number].name for number in kernel.of_sample}
        self.caught = dict(zip((mutant.name for mutant in kernel.mutants), caught))
        self.alive = [name for name, by in self.caught.items() if by is None]
        self.unlisted = [name for name in self.alive if self.before.get(name, SAMPLE) == SAMPLE]
        self.still_open = [name for name in self.alive if self.before.get(name) in OPEN]
        names = {mutant.name for mutant in kernel.found}
        without_run = self.proofs.keys() | self.rules.keys()
        self.stale = [name for name in self.before if name not in names]
        self.stale += [name for name in self.survivors() & names if self.caught.get(name) or name in without_run]

    def caught_places(self):
        """Returns the caught changes of operations with copies, in the form of `Sources.copies`."""
        copies = [self.copies.get(name) for name, by in self.caught.items() if by]
        return set().union(*(some for some in copies if some and len(some) == 1))

    def find_copies(self, places):
        """Finds the survivors whose change is caught in another copy. `places` contains the caught changes of all
        kernels."""
        copied = [name for name in self.alive if self.copies.get(name) and self.copies[name] <= places]
        # The change of an unrolled operation has three elements.
        self.copied = {name: COPY if all(len(c) == 2 for c in self.copies[name]) else UNROLLED for name in copied}
        self.not_copied = []
        if self.is_complete:
            self.not_copied = [
                name for name in self.alive if self.before.get(name) in COPIES and name not in self.copied
            ]

    def summary(self):
        ways = list(self.caught.values())
        counts = ", ".join(f"{ways.count(by)} by {text}" for by, text in WAYS.items())
        copied = sum(self.before.get(name) in COPIES for name in self.alive)
        caught = len(ways) - len(self.alive)
        explained = len(self.alive) - copied - len(self.still_open) - len(self.unlisted)
        proved = list(self.proofs.values())
        return (
            f"{self.name}: {len(self.found)} mutants: {proved.count(TIME)} {TIME} (proved), "
            f"{proved.count(SAME)} {SAME} (proved), {len(self.rules)} covered by rules, "
            f"{len(ways)} run: {caught} caught ({counts}), "
            f"{copied} listed as caught in another copy, {explained} listed with another reason, "
            f"{len(self.still_open)} listed as open, {len(self.unlisted)} not listed"
        )

    def complaints(self):
        """Returns the differences between the list and the survivors."""
        found = [f"neither caught nor listed: {self.name} | {name}" for name in self.unlisted]
        if not self.arguments.sample:
            reason = "listed, but caught, proved, covered by a rule, or no longer there"
            found += [f"caught in no copy: {self.name} | {name}" for name in self.not_copied]
            return found + [f"{reason}: {self.name} | {name}" for name in self.stale]
        sample = sum(reason == SAMPLE for reason in self.before.values())
        if 4 * len(self.caught) < sample or not sample:
            found.append(f"{self.name} has only {len(self.caught)} of the {sample} mutants of the sample")
        return found

    def results(self):
        """Returns what caught each mutant, and in how many cases its operation has another result."""
        return [
            {"name": name, "caught": by, "cases": self.cases[name], "copy": name in self.copied}
            for name, by in self.caught.items()
        ]

    def update(self):
        """Changes the list."""
        reasons = self.known.reasons
        for name in self.stale:
            del reasons[self.name, name]
        for name in self.still_open + self.unlisted + self.not_copied:
            open = OPEN_OTHER if self.cases[name] else OPEN_SAME
            reasons[self.name, name] = self.copied.get(name, open)
        # `make test` runs the sample on only some of the cases. So one of these cases must catch each mutant of the
        # sample. The sample contains only mutants whose operation has another result in many cases. Few cases are
        # enough to catch them.
        often = [
            name
            for name, by in self.caught.items()
            if by in EXACT and name in self.of_sample and 4 * self.cases[name] >= self.all_cases
        ]
        fill_sample(reasons, self.name, often)


def fill_sample(reasons, kernel, caught):
    """Adds evenly spaced mutants to the sample of a kernel, until it has `SAMPLE_SIZE` mutants."""
    missing = SAMPLE_SIZE - sum(key[0] == kernel and reason == SAMPLE for key, reason in reasons.items())
    new = [name for name in caught if (kernel, name) not in reasons]
    for name in new[:: max(1, len(new) // max(missing, 1))][: max(missing, 0)]:
        reasons[kernel, name] = SAMPLE
