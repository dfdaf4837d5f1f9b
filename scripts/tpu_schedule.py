#!/usr/bin/env python3
"""Cycles of a TPU kernel on an input: libtpu's schedule, weighted by how often each part of it ran.

    tpu_schedule.py BUNDLES TRIPS [--case NAME] [--ghz 1.5] [--parts]

BUNDLES is a `*final_bundles.txt` of libtpu's dump (`--xla_jf_dump_to=DIR --xla_jf_dump_llo_text=true`), one bundle a
cycle; TRIPS the report of the interpreter (`--trips`) on the same program. The loops and branches of the two are
matched by their order and nesting, and by how often the exit test of a loop lets it turn; what does not match is an
error. Whatever lies between a loop's first and last bundle counts once a turn, for the core goes through all of it. Not
in the figure: DMA, which runs beside the schedule, and stalls on results of the cross-lane unit.

A kernel of several grid steps lies in a loop that the compiler made, as often as its exit test says (two turns more
than there are steps), inside a part that is skipped but for one turn a step. What the compiler put beside that part,
such as copies of windows, counts as run in every step, and the rest of the loop in every turn.
"""

import argparse
import json
import re
import sys

BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|0)\s+(LH|LB|LE|PB|PF|CT)?\s*:\s*(>*)\s*(.*)$")
BRANCH = re.compile(r"sbr\.rel \((!?%\w+)\) target = \$region(\d+)")
EXIT_TEST = re.compile(r"scmp\.\w+\.s32\.totalorder\s+%\S+,\s*(\d+)\s*/\* loop exit test \*/")
STARTS = re.compile(r"Start(?:/End empty)? region (\d+)")


class Node:
    """A loop of the schedule, or a part that a branch skips: bundles `start` to `end`, exclusive."""

    def __init__(self, kind, start, end, depth):
        self.kind, self.start, self.end, self.depth = kind, start, end, depth
        self.children, self.count, self.name = [], None, None
        # Of a loop, where its exit test compares with a constant.
        self.turns = None


class Item:
    """A loop or branch of the kernel's text, with its counts."""

    def __init__(self, report):
        self.kind, self.name = report["kind"], report["name"] or report["kind"]
        self.report = report
        self.regions = {}


def read_bundles(path):
    bundles = []
    for line in open(path, errors="replace"):
        match = BUNDLE.match(line)
        if match and (match[4].startswith("{") or "sbr" in match[4] or match[4].startswith("}")):
            address, tag, depth, text = match.groups()
            depth = bundles[-1]["depth"] if text.startswith("{}") and bundles else len(depth)
            bundles.append({"address": int(address, 16), "tag": tag, "depth": depth, "text": text})
        elif bundles:
            bundles[-1]["text"] += line
    return bundles


def schedule_tree(bundles):
    """The loops and skipped parts of a schedule, nested."""
    found = []
    for start, head in enumerate(bundles):
        if head["tag"] == "LB":
            limit = next((i for i in range(start + 1, len(bundles)) if bundles[i]["tag"] == "LB" and bundles[i]["depth"] <= head["depth"]), len(bundles))
            end = max(i for i in range(start, limit) if bundles[i]["depth"] >= head["depth"]) + 1
            loop = Node("loop", start, end, head["depth"])
            tests = [EXIT_TEST.search(b["text"]) for b in bundles[start:end] if b["depth"] == head["depth"]]
            # Two loops of one depth would be two tests; those of inner loops are moved to where the depth is theirs.
            loop.turns = next((int(test[1]) for test in reversed(tests) if test), None)
            found.append(loop)
    starts = {}
    for i, bundle in enumerate(bundles):
        for region in STARTS.findall(bundle["text"]):
            starts.setdefault(region, i)
    for i, bundle in enumerate(bundles):
        for _, region in BRANCH.findall(bundle["text"]):
            target = starts.get(region)
            if target is not None and target > i:
                # Four bundles after a branch run either way.
                body = next(j for j in range(i + 1, len(bundles)) if STARTS.search(bundles[j]["text"]) or bundles[j]["tag"] == "LB")
                body = min(body, target)
                if target > body:
                    found.append(Node("skip", body, target, bundle["depth"]))
    root = Node("root", 0, len(bundles), 0)
    found.sort(key=lambda n: (n.start, -n.end, n.kind == "loop"))
    stack = [root]
    for node in found:
        while stack[-1].end < node.end and stack[-1] is not root:
            stack.pop()
        while not (stack[-1].start <= node.start and node.end <= stack[-1].end):
            stack.pop()
        stack[-1].children.append(node)
        stack.append(node)
    return root


def text_tree(report):
    """The loops and branches of the kernel's text, nested."""
    top, path = [], []
    for entry in report:
        item = Item(entry)
        depth = len(entry["within"])
        del path[depth:]
        if depth:
            path[-1].regions.setdefault(entry["within"][-1], []).append(item)
        else:
            top.append(item)
        path.append(item)
    return top


def match(nodes, items):
    """Gives every node its count; whether the two lists are the same structure."""
    if not items:
        return all(leftover(n) for n in nodes)
    item, rest = items[0], items[1:]
    if item.kind in ("for", "while"):
        inner = [i for region in sorted(item.regions) for i in item.regions[region]]
        if not nodes:
            return False
        node = nodes[0]
        if node.kind == "loop" and turns_agree(node, item) and match(node.children, inner) and match(nodes[1:], rest):
            node.count, node.name = item.report["iterations"], item.name
            return True
        if node.kind == "skip" and node.children and match(node.children, [item]) and match(nodes[1:], rest):
            node.count, node.name = item.report["entered"], item.name + " (entry)"
            return True
        return False
    # libtpu lays out the then part first; where it has only one of them, that is the one.
    ways = [(0, "then"), (1, "else")]
    parts = {way: item.regions.get(way, []) for way, _ in ways}

    def part(node, way, name):
        if node.kind != "skip" or not match(node.children, parts[way]):
            return False
        node.count, node.name = item.report[name], f"{item.name}, {name}"
        return True

    for order in (ways, ways[::-1]):
        if len(nodes) >= 2 and all(part(n, *w) for n, w in zip(nodes, order)) and match(nodes[2:], rest):
            return True
    for way, name in ways:
        if nodes and not parts[1 - way] and part(nodes[0], way, name) and match(nodes[1:], rest):
            return True
    return not parts[0] and not parts[1] and match(nodes, rest)


def turns_agree(node, item):
    """Whether a loop of the text may be one of the schedule, by its exit test."""
    return item.kind != "for" or node.turns is None or item.report["iterations"] == node.turns * item.report["entered"]


def leftover(node):
    """Parts of the schedule that no branch of the text made: they count as run."""
    if node.kind == "loop":
        return False
    return all(leftover(child) for child in node.children)


def match_kernel(root, bundles, items, steps):
    """Matches a whole kernel; whether the schedule has its structure."""
    if steps == 1 and match(root.children, items):
        return True
    grids = [node for node in root.children if node.kind == "loop"]
    if len(grids) != 1 or not all(leftover(node) for node in root.children if node is not grids[0]):
        return False
    grid = grids[0]
    for body in grid.children:
        others = [node for node in grid.children if node is not body]
        if body.kind == "skip" and all(leftover(node) for node in others) and match(body.children, items):
            grid.count, grid.name = steps + 2 if grid.turns is None else grid.turns, "grid loop"
            body.count, body.name = steps, "grid step"
            for node in others:
                node.count, node.name = steps, "window of the grid"
            return steps <= grid.count <= steps + 2
    return False


def weigh(root, bundles):
    """Cycles, and those of each node without what is nested in it."""
    owner = [root] * len(bundles)

    def visit(node):
        for child in node.children:
            for i in range(child.start, child.end):
                owner[i] = child
            if child.count is None:
                child.count = node.count
            visit(child)

    root.count, root.name = 1, "outside of loops"
    visit(root)
    parts = {}
    for node in owner:
        key = id(node)
        bundles_, cycles, _ = parts.get(key, (0, 0, node))
        parts[key] = (bundles_ + 1, cycles + node.count, node)
    return sum(p[1] for p in parts.values()), list(parts.values())


def cycles_of(path, report):
    """A schedule's bundles and cycles, and its parts, by a kernel's report; None where the two do not match."""
    bundles = read_bundles(path)
    root = schedule_tree(bundles)
    if not match_kernel(root, bundles, text_tree(report["loops"]), report["steps"]):
        return None
    cycles, parts = weigh(root, bundles)
    return bundles, cycles, parts


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundles")
    arguments.add_argument("trips")
    arguments.add_argument("--case")
    arguments.add_argument("--ghz", type=float, default=1.5)
    arguments.add_argument("--parts", action="store_true")
    arguments = arguments.parse_args()
    reports = json.load(open(arguments.trips))
    for name, kernels in reports.items():
        if arguments.case and arguments.case not in name:
            continue
        found = cycles_of(arguments.bundles, kernels[0])
        if not found:
            sys.exit(f"{name}: the schedule's loops and branches are not those of the kernel's text")
        bundles, cycles, parts = found
        print(f"{name[:60]}: {len(bundles)} bundles, {cycles} cycles, {cycles / arguments.ghz / 1e3:.2f} us")
        if arguments.parts:
            for size, total, node in sorted(parts, key=lambda p: p[2].start):
                if total:
                    print(f"    {bundles[node.start]['address']:#7x} {size:5} bundles x {node.count:4} = {total:7}  {node.name}")


if __name__ == "__main__":
    main()
