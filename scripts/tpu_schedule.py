#!/usr/bin/env python3
"""Counts the cycles of a TPU kernel on an input: libtpu's schedule, weighted by how often each part of it ran.

    tpu_schedule.py BUNDLES TRIPS [--case NAME] [--ghz 1.5] [--parts]

BUNDLES is a `*final_bundles.txt` of libtpu's dump (`--xla_jf_dump_to=DIR --xla_jf_dump_llo_text=true`). A core runs one
bundle per cycle. TRIPS is the report of the interpreter (`--trips`) on the same program. The script matches the loops
and branches of both by their order, their nesting, and the number of iterations in a loop's exit test. A mismatch is an
error. All bundles between the first and the last bundle of a loop count once per iteration. The result includes neither
DMA, which runs concurrently, nor stalls on results of the cross-lane unit.

If a kernel has several grid steps, the compiler generates a loop over them. The number of iterations is the number of
steps plus two. The kernel is a part of the loop body and runs in one iteration per step. The compiler adds other parts
to the body, for example copies of windows. These count once per step. The rest of the loop counts once per iteration.
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
    """A loop of the schedule, or a part that a branch skips: the bundles from `start` to `end`, exclusive."""

    def __init__(self, kind, start, end, depth):
        self.kind, self.start, self.end, self.depth = kind, start, end, depth
        self.children, self.count, self.name = [], None, None
        # The iterations of a loop, if its exit test compares with a constant.
        self.iterations = None


class Item:
    """A loop or branch in the text of the kernel, with its counts."""

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
            # The loop ends before the next loop that is not inside it.
            limit = start + 1
            while limit < len(bundles) and (bundles[limit]["tag"] != "LB" or bundles[limit]["depth"] > head["depth"]):
                limit += 1
            end = max(i for i in range(start, limit) if bundles[i]["depth"] >= head["depth"]) + 1
            loop = Node("loop", start, end, head["depth"])
            tests = [EXIT_TEST.search(b["text"]) for b in bundles[start:end] if b["depth"] == head["depth"]]
            # Exit tests of inner loops have a larger depth.
            loop.iterations = next((int(test[1]) for test in reversed(tests) if test), None)
            found.append(loop)
    starts = {}
    for i, bundle in enumerate(bundles):
        for region in STARTS.findall(bundle["text"]):
            starts.setdefault(region, i)
    for i, bundle in enumerate(bundles):
        for _, region in BRANCH.findall(bundle["text"]):
            target = starts.get(region)
            if target is not None and target > i:
                # The four bundles after a branch run in both cases.
                body = i + 1
                while not STARTS.search(bundles[body]["text"]) and bundles[body]["tag"] != "LB":
                    body += 1
                # The part that the branch skips may contain no start of a region. `body` is then after this part, and
                # the part begins after the four bundles.
                body = body if body < target else min(i + 5, target)
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
    """The loops and branches in the text of the kernel, nested."""
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
    """Sets the count of every node. Returns whether both lists have the same structure."""
    if not items:
        return all(leftover(n) for n in nodes)
    item, rest = items[0], items[1:]
    if item.kind in ("for", "while"):
        inner = [i for region in sorted(item.regions) for i in item.regions[region]]
        if not nodes:
            return False
        node = nodes[0]
        agrees = node.kind == "loop" and iterations_agree(node, item)
        if agrees and match(node.children, inner) and match(nodes[1:], rest):
            node.count, node.name = item.report["iterations"], item.name
            return True
        if node.kind == "skip" and node.children and match(node.children, [item]) and match(nodes[1:], rest):
            node.count, node.name = item.report["entered"], item.name + " (entry)"
            return True
        return False
    # libtpu usually places the "then" part first. A schedule may have only one of the parts.
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


def iterations_agree(node, item):
    """Whether a loop of the text can be a loop of the schedule, according to its exit test."""
    if item.kind != "for" or node.iterations is None:
        return True
    return item.report["iterations"] == node.iterations * item.report["entered"]


def leftover(node):
    """Whether a node has no loops, only parts that match no branch of the text. These parts count as executed."""
    if node.kind == "loop":
        return False
    return all(leftover(child) for child in node.children)


def match_kernel(root, items, steps):
    """Matches a whole kernel. Returns whether the schedule has its structure."""
    if steps == 1 and match(root.children, items):
        return True
    # On a device with two cores, the second core skips a kernel that runs only on the first core.
    for node in root.children if steps == 1 else ():
        others = [other for other in root.children if other is not node]
        if node.kind == "skip" and all(leftover(other) for other in others) and match(node.children, items):
            node.count, node.name = 1, "first core"
            return True
    grids = [node for node in root.children if node.kind == "loop"]
    if len(grids) != 1 or not all(leftover(node) for node in root.children if node is not grids[0]):
        return False
    grid = grids[0]
    for body in grid.children:
        others = [node for node in grid.children if node is not body]
        if body.kind == "skip" and all(leftover(node) for node in others) and match(body.children, items):
            grid.count, grid.name = steps + 2 if grid.iterations is None else grid.iterations, "grid loop"
            body.count, body.name = steps, "grid step"
            for node in others:
                node.count, node.name = steps, "window of the grid"
            return steps <= grid.count <= steps + 2
    return False


def weigh(root, bundles):
    """Returns the number of cycles, and for each node the cycles outside its children."""
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
    """Returns the bundles, the cycles and the parts of a schedule. `report` is the report of the interpreter about the
    kernel. Returns None if the schedule does not match the report. If several cores run the kernel, the result
    describes the slowest core."""
    found = []
    for core in report.get("cores", [report]):
        bundles = read_bundles(path)
        root = schedule_tree(bundles)
        if not match_kernel(root, text_tree(core["loops"]), core["steps"]):
            return None
        found.append((bundles, *weigh(root, bundles)))
    return max(found, key=lambda core: core[1])


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
                    address = bundles[node.start]["address"]
                    print(f"    {address:#7x} {size:5} bundles x {node.count:4} = {total:7}  {node.name}")


if __name__ == "__main__":
    main()
