"""Draws the JSON lines of `make bench`: the time of a call divided by the time of a maximum of the same rows."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CASES = ["greedy", "k64", "k5000", "top_p_alone", "min_p_alone", "plain"]


def bars(axis, figures, series, groups, title):
    """Draws a group of bars for each of `groups`, with one bar for each of `series`. Both are lists of a label and a test."""
    width = 0.8 / len(series)
    for i, (label, in_series) in enumerate(series):
        found = [
            (place, figure)
            for place, (_, in_group) in enumerate(groups)
            for figure in figures
            if in_series(figure) and in_group(figure)
        ]
        places = [place + (i - len(series) / 2 + 0.5) * width for place, _ in found]
        drawn = axis.bar(places, [figure["ratio"] for _, figure in found], width, label=label)
        axis.bar_label(drawn, [f"{figure['median_us']:.3g}" for _, figure in found], fontsize=7, rotation=90, padding=2)
    axis.set_xticks(range(len(groups)), [label for label, _ in groups])
    axis.set_ylabel("times the maximum's time")
    axis.set_title(title, fontsize="medium")
    axis.margins(y=0.18)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize="small")


def main(source, target):
    with open(source, encoding="utf-8") as lines:
        figures = [json.loads(line) for line in lines if line.startswith("{")]
    if not figures:
        sys.exit(f"chart: {source} has no figures")
    by_case = [(case, lambda f, case=case: f["case"] == case) for case in CASES]
    vocabs = sorted({f["vocab"] for f in figures})
    dtypes = list(dict.fromkeys(f["dtype"] for f in figures))
    single = [f for f in figures if f["batch"] == 1]
    _, axes = plt.subplots(len(vocabs) + 1, 1, figsize=(11, 3.4 * (len(vocabs) + 1)), layout="constrained")
    for axis, vocab in zip(axes, vocabs):
        by_dtype = [(dtype, lambda f, d=dtype: (f["dtype"], f["vocab"]) == (d, vocab)) for dtype in dtypes]
        bars(axis, single, by_dtype, by_case, f"built in, one thread, 1 x {vocab:,}, normal logits (labels: µs)")
    rows = list(dict.fromkeys(f["case"].removeprefix(case + "_") for case in CASES for f in single if f["case"].startswith(case + "_")))
    by_row = [(row, lambda f, row=row: f["case"].endswith("_" + row)) for row in rows]
    by_prefix = [(case, lambda f, case=case: f["case"].startswith(case + "_")) for case in CASES]
    bars(axes[-1], single, by_row, by_prefix, "rows on which little can be skipped: f32, 1 x 128,256 (labels: µs)")
    plt.savefig(target, dpi=100)
    print(f"chart: {target} from {len(figures)} figures")


if __name__ == "__main__":
    main(*sys.argv[1:3])
