#!/usr/bin/env python3
"""Draws docs/overview.png, the picture of the README, from docs/figures/overview.json."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent.parent
COLOURS = ["#4477aa", "#cc8844", "#bbbbbb"]


def main():
    charts = json.loads((ROOT / "docs/figures/overview.json").read_text()).values()
    figure, axes = plt.subplots(1, len(charts), figsize=(10, 3.8), layout="constrained")
    for axis, chart in zip(axes, charts):
        height = 0.8 / len(chart["series"])
        for i, (name, times) in enumerate(chart["series"].items()):
            places = [place + i * height for place in range(len(times))]
            bars = axis.barh(places, times, height * 0.92, label=name, color=COLOURS[i])
            axis.bar_label(bars, [f"{time:,.3g}" if time < 1000 else f"{time:,.0f}" for time in times],
                           fontsize=8, padding=3)  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlim(1, max(max(times) for times in chart["series"].values()) * 4)
        middle = 0.4 - height / 2
        axis.set_yticks([place + middle for place in range(len(chart["cases"]))], chart["cases"])
        axis.invert_yaxis()
        axis.set_title(chart["title"], fontsize="medium", loc="left")
        axis.set_xlabel(chart["source"], fontsize="small", color="#555555")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    figure.savefig(ROOT / "docs/overview.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
