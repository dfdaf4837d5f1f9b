"""Draws the figures that `make bench` prints: the time of a call as a multiple of the maximum of the same rows."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CASES = ["greedy", "k64", "k5000", "top_p_alone", "top_p_t2", "min_p_alone", "plain"]
MODEL_CASES = ["k64", "top_p_alone", "top_p_99", "plain", "k64_t07", "top_p_alone_t07", "top_p_99_t07", "plain_t07"]


def bars(axis, figures, series, groups, title):
    """Draws a group of bars for each of `groups` and a bar in it for each of `series`.

    Both are lists of a label and a function that says whether a figure belongs to it.
    """
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
    # The names of figures of narrower instruction sets have one part more.
    best = [f for f in figures if f["name"].count("/") == 3 and f["threads"] == 1]
    best = [f for f in best if not f["case"].endswith("_aligned")]
    by_case = [(case, lambda f, case=case: f["case"] == case) for case in CASES]
    single = [f for f in best if f["name"].startswith("sampling/") and f["batch"] == 1]
    cold = [f for f in best if f["name"].startswith("cold/")]
    vocabs = sorted({f["vocab"] for f in single})
    dtypes = list(dict.fromkeys(f["dtype"] for f in single))
    _, axes = plt.subplots(len(vocabs) + 3, 1, figsize=(11, 3.4 * (len(vocabs) + 3)), layout="constrained")
    for axis, vocab in zip(axes, vocabs):
        by_dtype = [(dtype, lambda f, d=dtype: (f["dtype"], f["vocab"]) == (d, vocab)) for dtype in dtypes]
        bars(axis, single, by_dtype, by_case, f"built in, one thread, 1 x {vocab:,}, normal logits (labels: µs)")
    by_dtype = [(dtype, lambda f, d=dtype: f["dtype"] == d) for dtype in ("f32", "bf16")]
    bars(axes[-3], cold, by_dtype, by_case, "the same, 64 rows of 128,256 in turn (labels: µs)")
    model = [f for f in cold if f["case"].endswith("_model") and f["dtype"] == "f32"]
    by_vocab = [(f"{v:,}", lambda f, v=v: f["vocab"] == v) for v in sorted({f["vocab"] for f in model})]
    by_model = [(case, lambda f, case=case: f["case"] == case + "_model") for case in MODEL_CASES]
    bars(axes[-2], model, by_vocab, by_model, "rows as models make them, f32, 64 rows in turn (labels: µs)")
    prefixed = [(case, f["case"]) for case in CASES for f in single if f["case"].startswith(case + "_")]
    rows = list(dict.fromkeys(name.removeprefix(case + "_") for case, name in prefixed))
    by_row = [(row, lambda f, row=row: f["case"].endswith("_" + row)) for row in rows]
    by_prefix = [(case, lambda f, case=case: f["case"].startswith(case + "_")) for case in CASES]
    bars(axes[-1], single, by_row, by_prefix, "crafted rows: f32, 1 x 128,256 (labels: µs)")
    plt.savefig(target, dpi=100)
    print(f"chart: {target} from {len(figures)} figures")


if __name__ == "__main__":
    main(*sys.argv[1:3])
