#!/usr/bin/env python3
"""Draws docs/tpu-passes.png, the way of a block of rows through the passes of a TPU kernel."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent.parent
READS_ALL, READS_FEW, DECIDES, RESULT = "#cfe0f3", "#ececec", "#fff3d6", "#d9ecd5"
WIDTH = 3.0
# Each box: column, top, height, colour, text, and the source file.
BOXES = {
    "copy": (0, 0.0, 0.62, READS_FEW, "The block is copied from HBM\nto vector memory, in pieces", ""),
    "first": (
        0, 1.0, 0.98, READS_ALL,
        "First pass: the two largest logits of\neach group, and 256 bins", "prefilter.rs",
    ),
    "bound": (
        0, 2.36, 0.98, READS_FEW,
        "Bound: the k-th largest bin, or a bin\nthat about 170 logits reach", "threshold_search.rs",
    ),
    "few": (0, 3.72, 0.62, DECIDES, "Do few cells reach the bound?", ""),
    "gather": (
        0, 4.72, 0.98, READS_FEW,
        "Gather: the logits that reach the bound,\nin registers (the survivors)", "gather.rs",
    ),
    "alone": (0, 6.08, 0.62, DECIDES, "Top-p without top-k,\nand other logits have a weight?", ""),
    "rest": (
        1, 6.0, 0.98, READS_ALL,
        "Limits of the total weight:\napproximate weights of the rest", "total_bounds.rs",
    ),
    "same": (1, 7.44, 0.62, DECIDES, "Same threshold for both limits?", ""),
    "survivors": (
        0, 7.26, 0.98, READS_FEW,
        "Thresholds, weights and draw,\namong the survivors", "survivors.rs",
    ),
    "some": (
        2, 3.54, 0.98, DECIDES,
        "Do at most a quarter of the cells reach\nthe threshold of the list,\nand is there no NaN?", "",
    ),
    "list": (
        2, 4.90, 0.98, READS_ALL,
        "Candidate list: the largest logits\nof each lane of a chunk", "candidate_list.rs",
    ),
    "passes": (
        2, 6.26, 1.34, READS_FEW,
        "Passes over the list: thresholds, weights,\nsums of chunks, draw. Top-p alone:\n"
        "first a pass over all logits for the total", "multi_pass.rs",
    ),
    "suffice": (2, 7.98, 0.62, DECIDES, "Does the list suffice?", ""),
    "all": (
        3, 6.26, 1.34, READS_ALL,
        "Passes over all logits:\nthresholds, weights,\nsums of chunks, draw", "multi_pass.rs",
    ),
    "result": (
        0, 9.0, 0.98, RESULT,
        "Five numbers and the thresholds of each\nrow; StableHLO writes the wide arrays", "wide_outputs.rs",
    ),
}  # fmt: skip
COLUMNS = (0.0, 3.7, 7.4, 11.1)
# The right edge of the first column.
RIGHT = COLUMNS[0] + WIDTH
# The place of the label of an arrow that goes down.
BELOW = (0.08, 0.3)


def place(name):
    column, top, height = BOXES[name][:3]
    return COLUMNS[column], top, height


def side(name, which):
    left, top, height = place(name)
    return {
        "top": (left + WIDTH / 2, top),
        "bottom": (left + WIDTH / 2, top + height),
        "left": (left, top + height / 2),
        "right": (left + WIDTH, top + height / 2),
    }[which]


def arrow(axis, start, points, label="", place_of_label=(0.08, -0.05)):
    """Draws an arrow from `start` through the points. `place_of_label` is relative to `start`."""
    points = [start, *points]
    axis.plot(*zip(*points), color="#444444", linewidth=1, zorder=1)
    axis.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": "#444444", "linewidth": 1})
    if label:
        at = (start[0] + place_of_label[0], start[1] + place_of_label[1])
        axis.annotate(label, at, fontsize=8, color="#444444", ha="left", va="bottom")


def main():
    figure, axis = plt.subplots(figsize=(12.4, 8.6), layout="constrained")
    for name, (_, _, height, colour, words, file) in BOXES.items():
        left, top, _ = place(name)
        axis.add_patch(plt.Rectangle((left, top), WIDTH, height, facecolor=colour, edgecolor="#777777", zorder=2))
        at_middle, below = left + WIDTH / 2, top + height - 0.07
        axis.text(at_middle, below, file, fontsize=7, color="#666666", ha="center", va="bottom", zorder=3)
        middle = top + (height - (0.24 if file else 0)) / 2
        axis.text(at_middle, middle, words, fontsize=8.5, ha="center", va="center", zorder=3)
    for start, end, label in (
        ("copy", "first", ""), ("first", "bound", ""), ("bound", "few", ""), ("few", "gather", "yes"),
        ("gather", "alone", ""), ("alone", "survivors", "no"), ("survivors", "result", ""), ("rest", "same", ""),
        ("some", "list", "yes"), ("list", "passes", ""), ("passes", "suffice", ""),
    ):  # fmt: skip
        arrow(axis, side(start, "bottom"), [side(end, "top")], label, BELOW)
    few, gather, alone, same, some, listed, suffice = (
        side(name, "right") for name in ("few", "gather", "alone", "same", "some", "list", "suffice")
    )
    all_top, all_left = side("all", "top"), COLUMNS[3]
    # These are the x coordinates of the vertical parts of arrows. If two arrows reach the same box, they reach it at
    # different places.
    gather_x, same_x, list_x, suffice_x = gather[0] + 1.9, same[0] + 0.3, all_top[0] - 0.3, suffice[0] + 0.35
    arrow(axis, few, [side("some", "left")], "no")
    arrow(axis, gather, [(gather_x, gather[1]), (gather_x, 4.03)], "too many in a lane")
    arrow(axis, alone, [(COLUMNS[1], alone[1])], "yes")
    arrow(axis, same, [(same_x, same[1]), (same_x, 4.2), (COLUMNS[2], 4.2)], "no", (0.06, -0.05))
    start = side("same", "left")
    arrow(axis, start, [(RIGHT, start[1])], "yes", (-0.45, -0.05))
    arrow(axis, some, [(all_top[0], some[1]), all_top], "no")
    arrow(axis, listed, [(list_x, listed[1]), (list_x, all_top[1])], "too many in a lane")
    arrow(axis, suffice, [(suffice_x, suffice[1]), (suffice_x, 6.93), (all_left, 6.93)], "no", (0.06, -0.05))
    for name, y, label in (("suffice", 9.33, "yes"), ("all", 9.65, "")):
        start = side(name, "bottom")
        arrow(axis, start, [(start[0], y), (RIGHT, y)], label, BELOW)
    keys = [
        (READS_ALL, "reads all logits of the block"),
        (READS_FEW, "reads few logits, or none"),
        (DECIDES, "decision for the whole block"),
        (RESULT, "result"),
    ]
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="#777777") for colour, _ in keys]
    axis.legend(handles, [label for _, label in keys], loc="upper right", fontsize=8.5, frameon=False)
    axis.set_xlim(-0.1, COLUMNS[3] + WIDTH + 0.1)
    axis.set_ylim(10.1, -0.1)
    axis.axis("off")
    figure.savefig(ROOT / "docs/tpu-passes.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
