"""Proves that mutants cannot change the results of a kernel, so that they need no run.

There are two proofs. The changed operation affects only values on which the results do not depend (relevance.py). Or
the ranges of the values show that the changed operation always has the same result (ranges.py).

The proofs need facts about the kernels. The kernels note these facts in the comments of their text for readers. A note
names a value. The text that is interpreted has the same names, but it has no comments.
"""

import re

from ..parse import line_of
from .mutants import operations_of
from .ranges import Ranges, never_differs
from .relevance import Relevance
from .sources import Sources

FREE = re.compile(r"^\s*// any value of (%\d+) is correct: .*$", re.MULTILINE)
RANGE = re.compile(r"^\s*// (%\d+) is between 0 and (\d+)$", re.MULTILINE)
DEFINITION = re.compile(r"^\s*(%\d+) = ")

TIME = "affects only the time"
SAME = "always has the same result"


class Proofs:
    """The proofs for the mutants of a kernel, and the copies of the operations that they change."""

    def __init__(self, module, body, notes, columns):
        """`body` is the text of the module. `notes` is the text for readers. `columns` contains the ranges of the
        columns of the parameters."""
        operations = operations_of(module)
        self.main = operations[0][0]
        self.operations = operations
        by_line = {line_of(op): op for _, op in operations}
        lines = enumerate(body.splitlines(), 1)
        definitions = {found.group(1): by_line.get(n) for n, line in lines if (found := DEFINITION.match(line))}
        function = module.body.operations[0].operation
        free = {definitions[name] for name in FREE.findall(notes)}
        self.relevance = Relevance(function, free)
        self.sources = Sources(definitions, notes)
        self.ranges = Ranges(function, columns, {definitions[name]: int(most) for name, most in RANGE.findall(notes)})

    def copies(self, mutant):
        return self.sources.copies(mutant, self.operations)

    def of(self, mutant):
        """Returns `TIME`, `SAME`, or None if there is no proof."""
        changed = [self.operations[index] for index in mutant.indices]
        if any(function != self.main for function, _ in changed):
            return None
        if not any(self.relevance.can_affect(op) for _, op in changed):
            return TIME
        if all(never_differs(op, mutant.action, self.ranges.of.get(op)) for _, op in changed):
            return SAME
        return None
