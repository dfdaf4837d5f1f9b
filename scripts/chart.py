"""Draws the JSON lines of `make bench` as bars: microseconds a call, grouped by case, one chart a backend."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(source, target):
    with open(source, encoding="utf-8") as lines:
        figures = [json.loads(line) for line in lines if line.startswith("{")]
    if not figures:
        sys.exit(f"chart: {source} has no figures")
    panels = list(dict.fromkeys((f["backend"], f["batch"]) for f in figures))
    shapes = list(dict.fromkeys((f["dtype"], f["vocab"]) for f in figures))
    colors = plt.get_cmap("tab20").colors
    _, axes = plt.subplots(len(panels), 1, figsize=(11, 4 * len(panels)), squeeze=False, layout="constrained")
    for axis, (backend, batch) in zip(axes[:, 0], panels):
        here = [f for f in figures if (f["backend"], f["batch"]) == (backend, batch)]
        cases = list(dict.fromkeys(f["case"] for f in here))
        width = 0.8 / len(shapes)
        for i, (dtype, vocab) in enumerate(shapes):
            bars = {f["case"]: f["median_us"] for f in here if (f["dtype"], f["vocab"]) == (dtype, vocab)}
            places = [cases.index(case) + (i - len(shapes) / 2 + 0.5) * width for case in bars]
            axis.bar(places, bars.values(), width, label=f"{dtype}, {vocab:,}", color=colors[i % len(colors)])
        axis.set_xticks(range(len(cases)), cases)
        axis.set_yscale("log")
        axis.set_ylabel("µs a call (median)")
        axis.set_title(f"{backend}, {batch} row{'s' if batch > 1 else ''}")
        axis.grid(axis="y", alpha=0.3)
        axis.legend(title="logits, vocabulary", fontsize="small", ncols=3)
    plt.savefig(target, dpi=120)
    print(f"chart: {target} shows {len(figures)} figures")


if __name__ == "__main__":
    main(*sys.argv[1:3])
