"""Parses PTX text: one module with one entry."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from ..errors import ProgramError

NAME = r"[A-Za-z_$%][\w$]*"
# For each type, the number of its bits, and how arithmetic reads them: as bits (b), unsigned (u), signed (s), float (f)
# or predicate (p).
TYPES = {"pred": (1, "p"), "f16": (16, "f"), "f32": (32, "f"), "f64": (64, "f")} | {
    f"{kind}{bits}": (bits, kind) for kind in "bus" for bits in (8, 16, 32, 64)
}
COMPARISONS = {
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "lo",
    "ls",
    "hi",
    "hs",
    "equ",
    "neu",
    "ltu",
    "leu",
    "gtu",
    "geu",
    "num",
    "nan",
}


@dataclass(frozen=True)
class Reg:
    """A register or a special register."""

    name: str


@dataclass(frozen=True)
class Imm:
    """An immediate: an integer, or the bits of a float. `float_bits` is the width of the float, or 0 for an integer."""

    value: int
    float_bits: int = 0


@dataclass(frozen=True)
class Symbol:
    """The name of a shared array or of a parameter."""

    name: str


@dataclass(frozen=True)
class Address:
    """`[base + offset]`."""

    base: object
    offset: int


@dataclass(frozen=True)
class Vector:
    """`{a, b, …}`."""

    parts: tuple


@dataclass(frozen=True)
class Not:
    """`!p`."""

    operand: object


@dataclass(frozen=True)
class Pair:
    """`a|b`, two destinations."""

    first: object
    second: object


@dataclass
class Instruction:
    """One instruction. `modifiers` are the words after the name. Each is removed when the translation reads it."""

    opcode: str
    name: str
    modifiers: list
    operands: list
    line: int
    # The predicate of the instruction: a register, or Not of a register.
    guard: object = None
    # The comment at the end of the line, which names a branch in reports.
    comment: str = ""

    def error(self, message):
        raise ProgramError(f"{self.opcode} at line {self.line}: {message}")

    def flag(self, *names):
        """Removes the modifier that is one of these names. Returns whether there was one."""
        return self.one_of(names) is not None

    def one_of(self, names):
        """Removes the modifier that is one of these names. Returns it, or None if there is none."""
        found = [m for m in self.modifiers if m in names]
        if len(found) > 1:
            self.error(f"both .{found[0]} and .{found[1]}")
        if found:
            self.modifiers.remove(found[0])
        return found[0] if found else None

    def needed(self, names):
        """Removes the modifier that is one of these names. Returns it. It is an error if there is none."""
        found = self.one_of(names)
        if found is None:
            self.error(f"needs one of {', '.join(f'.{n}' for n in sorted(names))}")
        return found

    def type(self, allowed=None):
        """Removes the last modifier, which is a type. Returns it."""
        if not self.modifiers or self.modifiers[-1] not in TYPES:
            self.error("has no type that is known")
        found = self.modifiers.pop()
        if allowed is not None and found not in allowed.split():
            self.error(f"type .{found} is not supported")
        return found

    def expect(self, *counts):
        """Checks the number of operands. Returns the operands."""
        if len(self.operands) not in counts:
            self.error(f"{len(self.operands)} operands; {' or '.join(map(str, counts))} are expected")
        return self.operands

    def finish(self):
        """Checks that all modifiers were read. An unknown modifier could change the meaning."""
        if self.modifiers:
            self.error(f"unknown modifier .{self.modifiers[0]}")


@dataclass
class Entry:
    """A parsed kernel."""

    name: str = ""
    parameters: list = field(default_factory=list)
    # The type of each register, by its name.
    registers: dict = field(default_factory=dict)
    # (size, alignment) of each shared array, by its name. The size is None if the declaration has none.
    shared: dict = field(default_factory=dict)
    # The index of the instruction after each label, by the name of the label.
    labels: dict = field(default_factory=dict)
    instructions: list = field(default_factory=list)
    # The values of .reqntid and .maxntid.
    limits: dict = field(default_factory=dict)
    target: int = 0


def parse(text):
    """Parses a module."""
    return Parser(text).module()


class Parser:
    def __init__(self, text):
        if not text.isascii():
            raise ProgramError("PTX: the text is not ASCII")
        # Comments become spaces, so that positions stay the same. `comments` has the comment at the end of each line.
        self.comments = {}

        def blank(match):
            if match.group().startswith("//"):
                self.comments[self.line_at(match.start())] = match.group()[2:].strip()
            return re.sub(r"[^\n]", " ", match.group())

        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.text = re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.S)
        self.at = 0
        self.entry = Entry()

    @property
    def line(self):
        return self.line_at(self.at)

    def line_at(self, position):
        return bisect_right(self.newlines, position - 1) + 1

    def error(self, message):
        raise ProgramError(f"PTX, line {self.line}: {message}")

    def skip(self):
        self.at = re.compile(r"\s*").match(self.text, self.at).end()

    def take(self, pattern):
        """Matches a pattern at the current position, and moves the position after the match. Returns the match, or
        None."""
        self.skip()
        match = re.compile(pattern, re.S).match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def need(self, pattern, what):
        match = self.take(pattern)
        if not match:
            self.error(f"{what} is expected, not {self.text[self.at : self.at + 30]!r}")
        return match

    def module(self):
        self.need(r"\.version\s+\d+\.\d+", ".version")
        self.entry.target = int(self.need(r"\.target\s+sm_(\d+)a?\b", ".target sm_N").group(1))
        self.need(r"\.address_size\s+64", ".address_size 64")
        while self.take(r"(?=\.(extern\s+\.)?shared\b)"):
            self.shared()
        self.need(r"\.visible\s+\.entry", ".visible .entry")
        self.entry.name = self.need(NAME, "the name of the entry").group()
        self.need(r"\(", "(")
        while not self.take(r"\)"):
            found = self.need(
                rf"\.param\s+\.u64\s+(?:\.ptr\s+(?:\.global\s+)?(?:\.align\s+\d+\s+)?)?({NAME})\s*,?",
                "a parameter .u64",
            )
            self.entry.parameters.append(found.group(1))
        while directive := self.take(r"\.(reqntid|maxntid|minnctapersm|maxnreg)\s+(\d+)((?:\s*,\s*\d+)*)"):
            if re.search(r"[02-9]|1\d", directive.group(3)):
                self.error("blocks of more than one dimension are not supported")
            self.entry.limits[directive.group(1)] = int(directive.group(2))
        self.need(r"\{", "{")
        while not self.take(r"\}"):
            self.statement()
        self.skip()
        if self.at != len(self.text):
            self.error("text after the entry; one entry is expected")
        return self.entry

    def shared(self):
        found = self.need(
            rf"(\.extern\s+)?\.shared\s+\.align\s+(\d+)\s+\.([bu](?:8|16|32|64))\s+({NAME})(\[(\d*)\])?\s*;",
            "a shared array",
        )
        extern, align, type, name, array, count = found.groups()
        if bool(extern) != (array is not None and count == ""):
            self.error(f"shared array {name}: .extern and only .extern has no size")
        self.define(name)
        size = None if extern else int(count or 1) * TYPES[type][0] // 8
        self.entry.shared[name] = (size, int(align))

    def define(self, name):
        entry = self.entry
        if name in entry.registers or name in entry.shared or name in entry.labels or name in entry.parameters:
            self.error(f"{name} is defined twice")

    def statement(self):
        if self.take(r"(?=\.shared\b)"):
            return self.shared()
        if self.take(r"\.reg\b"):
            return self.registers()
        if self.take(r"\.pragma\b[^;]*;"):
            return None
        if label := self.take(rf"({NAME})\s*:(?!:)"):
            self.define(label.group(1))
            self.entry.labels[label.group(1)] = len(self.entry.instructions)
            return None
        return self.instruction()

    def registers(self):
        type = self.need(r"\.(\w+)", "a type").group(1)
        if type not in TYPES or TYPES[type][0] == 8:
            self.error(f"registers of type .{type}")
        names = self.need(r"([^;]*);", ";").group(1)
        for part in names.split(","):
            found = re.fullmatch(rf"\s*({NAME})(?:<(\d+)>)?\s*", part)
            if not found:
                self.error(f"malformed register {part.strip()!r}")
            name, count = found.groups()
            for register in [name] if count is None else [f"{name}{i}" for i in range(int(count))]:
                self.define(register)
                self.entry.registers[register] = type

    def instruction(self):
        line = self.line
        guard = None
        if found := self.take(rf"@(!?)({NAME})"):
            guard = Not(Reg(found.group(2))) if found.group(1) else Reg(found.group(2))
            if self.entry.registers.get(found.group(2)) != "pred":
                self.error(f"{found.group(2)} is not a predicate")
        self.skip()
        line = self.line
        opcode = self.need(r"[a-z][a-z0-9]*(\.[\w:]+)*", "an instruction").group()
        text = self.need(r"([^;{}]*(?:\{[^;{}]*\}[^;{}]*)*);", f"operands of {opcode} and ;").group(1)
        name, *modifiers = opcode.split(".")
        operands = [self.operand(part) for part in split(text)]
        self.entry.instructions.append(
            Instruction(opcode, name, modifiers, operands, line, guard, self.comments.get(line, ""))
        )

    def operand(self, text):
        text = text.strip()
        if text.startswith("{"):
            return Vector(tuple(self.operand(part) for part in split(text[1:-1])))
        if text.startswith("["):
            found = re.fullmatch(rf"\[\s*({NAME}|\d+)\s*(?:([+-])\s*(-?\w+))?\s*\]", text)
            if not found:
                self.error(f"malformed address {text}")
            base, sign, offset = found.groups()
            value = self.number(offset).value if offset else 0
            return Address(self.operand(base), -value if sign == "-" else value)
        if text.startswith("!"):
            return Not(self.operand(text[1:]))
        if "|" in text:
            first, second = text.split("|")
            return Pair(self.operand(first), self.operand(second))
        if text == "_":
            return None
        if re.match(r"[-+]?\d", text):
            return self.number(text)
        if not re.fullmatch(rf"{NAME}(\.[xyz])?", text):
            self.error(f"malformed operand {text!r}")
        if text in self.entry.registers or text.startswith("%"):
            return Reg(text)
        return Symbol(text)

    def number(self, text):
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", text):
            return Imm(int(text[2:], 16), 32)
        if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", text):
            return Imm(int(text[2:], 16), 64)
        found = re.fullmatch(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9]\d*)U?", text)
        if not found:
            self.error(f"malformed number {text!r}")
        sign, digits = found.groups()
        octal = re.fullmatch(r"0[0-7]+", digits)
        value = int(digits, 8) if octal else int(digits, 0)
        return Imm(-value if sign == "-" else value)


def split(text):
    """Splits operands at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, c in enumerate(text):
        depth += c in "[{"
        depth -= c in "]}"
        if c == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [p for p in parts if p.strip()] if text.strip() else []
