"""Writes the reference of the C interface: one page per group of include/nucleus.h, from its comments."""

import re

COMMENT = re.compile(r"/\*\*(.*?)\*/\n?", re.DOTALL)
GROUP = re.compile(r"@defgroup (\w+) (.+)")
# The name that a declaration declares.
NAMES = [
    re.compile(r"^#define (NUC_\w+)"),
    re.compile(r"\b(nuc_\w+)\("),
    re.compile(r"^(?:typedef )?struct (nuc_\w+)"),
    re.compile(r"^typedef \w+ (nuc_\w+);"),
    re.compile(r"^typedef .*\(\*(nuc_\w+)\)"),
]


def text_of(comment):
    """A comment without its stars."""
    lines = [re.sub(r"^ \* ?", "", line) for line in comment.strip("\n").split("\n")]
    return "\n".join(line.rstrip() for line in lines).strip()


def markdown(text):
    """Marks the names of the interface as code. Lines that are indented by four spaces are code already."""
    lines = []
    for line in text.split("\n"):
        if not line.startswith("    "):
            parts = line.split("`")
            parts[::2] = [re.sub(r"\b(nuc_\w+|NUC_\w+)", r"`\1`", part).replace("*", r"\*") for part in parts[::2]]
            line = "`".join(parts).replace("<", "&lt;") if "`" not in line else "`".join(parts)
        lines.append(line)
    return "\n".join(lines)


def name_of(text, code):
    """The title of a declaration: its name, or whose values an enumeration has."""
    if code.startswith("enum"):
        return re.search(r"values of (nuc_\w+)", text)[0].capitalize()
    for pattern in NAMES:
        found = pattern.search(code)
        if found:
            return found[1]
    raise SystemExit(f"reference: no name in this declaration of the header:\n{code}")


def end_of_declaration(header, start):
    """The index after the declaration at `start`: after its `;` outside braces, or after a macro's last line."""
    if header.startswith("#define", start):
        end = header.index("\n", start)
        while header[end - 1] == "\\":
            end = header.index("\n", end + 1)
        return end
    depth = 0
    for index in range(start, len(header)):
        depth += {"{": 1, "}": -1}.get(header[index], 0)
        if header[index] == ";" and depth == 0:
            return index + 1
    raise SystemExit("reference: the header ends inside a declaration")


def pages(header):
    """The pages: a dictionary from file name to text."""
    header = header.replace("NUC_NODISCARD ", "").replace("NUC_API ", "")
    found, current, at = {}, None, 0
    while match := COMMENT.search(header, at):
        at, text = match.end(), text_of(match[1])
        group = GROUP.search(text)
        if group:
            identifier, title = group[1].removeprefix("nuc_"), group[2]
            text = text.split("\n", 1)[1].removesuffix("@{").strip()
            current = f"{identifier}.md"
            found[current] = [f"# {title}\n\n{markdown(text)}\n"]
        elif text == "@}":
            current = None
        elif current:
            end = end_of_declaration(header, at)
            code = header[at:end].strip()
            found[current].append(f"## {name_of(text, code)}\n\n{markdown(text)}\n\n```c\n{code}\n```\n")
            at = end
    return {name: "\n".join(parts) for name, parts in found.items()}
