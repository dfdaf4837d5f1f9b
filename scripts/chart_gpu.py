"""Draws docs/bench-gpu.png, and writes the missed goals and the comparison with other samplers in docs/gpu.md.

usage: chart_gpu.py FIGURES CHART PAGE

FIGURES are the lines that `make bench-gpu` prints, and a line that names the machine and the date.
"""

import json
import pathlib
import re
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHAPES = [(1, 128_256), (16, 262_144), (128, 128_256), (128, 262_144)]
CASES = {
    "greedy": "greedy",
    "k64": "k = 64",
    "k1000": "k = 1000",
    "k5000": "k = 5000",
    "top_p_alone": "top-p alone",
    "plain": "plain draw",
    "top_p_model": "top-p alone,\nmodel rows",
    "plain_model": "plain draw,\nmodel rows",
}
# The goals of the design, in microseconds per call, for each of SHAPES. The kernels do not reach every goal.
GOALS = {
    "greedy": (6, 10, 26, 50),
    "k64": (10, 16, 32, 54),
    "k1000": (13, 20, 38, 62),
    "k5000": (16, 24, 56, 104),
    "top_p_alone": (16, 24, 56, 104),
    "plain": (16, 24, 56, 104),
    "top_p_model": (13, 20, 44, 82),
    "plain_model": (13, 20, 44, 82),
}
SERIES = [
    ("nucleus, from logits", "#4477aa"),
    ("fastest other sampler from logits", "#cc8844"),
    ("fastest other sampler from probabilities", "#bbbbbb"),
]
# The samplers in the table, and their names in the table.
PEERS = {
    "pytorch_max_value": "PyTorch: maximum of each row, without index",
    "pytorch_max": "PyTorch: maximum of each row, with index",
    "pytorch_topk_multinomial": "PyTorch: topk, top-p, multinomial",
    "pytorch_sort_multinomial": "PyTorch: sort, top-p, multinomial",
    "flashinfer_integer_k": "FlashInfer: top_k_top_p_sampling_from_logits, integer k",
    "flashinfer_softmax_joint": "FlashInfer: softmax, top_k_top_p_sampling_from_probs",
    "flashinfer_softmax_top_k_renorm": "FlashInfer: softmax, top_k_renorm_probs, top_p_sampling_from_probs",
    "flashinfer_softmax_top_p": "FlashInfer: softmax, top_p_sampling_from_probs",
    "flashinfer_softmax_cake": "FlashInfer: softmax, cake_sampling",
    "flashinfer_logits": "FlashInfer: sampling_from_logits",
    "flashinfer_cake": "FlashInfer: cake_sampling, from probabilities",
    "flashinfer_joint": "FlashInfer: top_k_top_p_sampling_from_probs",
    "flashinfer_top_k": "FlashInfer: top_k_sampling_from_probs",
    "flashinfer_top_p": "FlashInfer: top_p_sampling_from_probs",
    "flashinfer_probabilities": "FlashInfer: sampling_from_probs",
    "vllm_triton": "vLLM: apply_top_k_top_p_triton, softmax, exponential noise, argmax",
}


def microseconds(time):
    return f"{time:.1f}" if time < 99.95 else f"{time:,.0f}"


def own(figures, case, batch, vocab):
    return figures.get(f"gpu/{case}/f32/{batch}x{vocab}", {}).get("device_us")


def fastest(figures, case, batch, vocab, source):
    found = [
        figure
        for figure in figures.values()
        if figure["name"].startswith("gpu_peer/")
        and "device_us" in figure
        and (figure["case"], figure["batch"], figure["vocab"], figure["input"]) == (case, batch, vocab, source)
    ]
    return min(found, key=lambda figure: figure["device_us"], default={})


def draw(figures, machine, path):
    figure, axes = plt.subplots(2, 2, figsize=(12, 11), layout="constrained")
    for number, (axis, (batch, vocab)) in enumerate(zip(axes.flat, SHAPES)):
        series = [
            [own(figures, case, batch, vocab) for case in CASES],
            [fastest(figures, case, batch, vocab, "logits").get("device_us") for case in CASES],
            [fastest(figures, case, batch, vocab, "probabilities").get("device_us") for case in CASES],
        ]
        height = 0.26
        for i, ((label, colour), times) in enumerate(zip(SERIES, series)):
            known = [(place, time) for place, time in enumerate(times) if time]
            places = [place + (i - 1) * height for place, _ in known]
            axis.barh(places, [time for _, time in known], height * 0.92, label=label, color=colour)
            for middle, (place, time) in zip(places, known):
                goal = GOALS[list(CASES)[place]][number]
                # If the mark of the goal is close to the end of the bar, the label would cover it. So the label is
                # behind the mark.
                end = goal if i == 0 and time <= goal < 1.4 * time else time
                axis.annotate(
                    microseconds(time), (end, middle), (4, 0), textcoords="offset points", va="center", fontsize=8,
                    bbox={"color": "white", "pad": 0.6}, zorder=4,
                )  # fmt: skip
        for place, case in enumerate(CASES):
            edges = (place - 1.5 * height, place - 0.5 * height)
            label = "goal" if place == 0 else None
            axis.vlines(GOALS[case][number], *edges, color="black", linewidth=2.5, label=label)
        read = figures.get(f"gpu_peer/pytorch_max_value/read/f32/{batch}x{vocab}", {}).get("device_us")
        if read:
            axis.axvline(read, color="#aa3344", linestyle="--", linewidth=1.2, label="PyTorch: maximum of each row")
        axis.set_xscale("log")
        axis.set_xlim(2, max(time for times in series for time in times if time) * 1.6)
        ticks = [tick for tick in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if tick < axis.get_xlim()[1]]
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.set_yticks(range(len(CASES)), CASES.values())
        axis.invert_yaxis()
        axis.set_xlabel("time of a call on the device, µs (logarithmic)")
        axis.set_title(f"{batch} × {vocab:,} logits, f32", fontsize="medium", loc="left")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.suptitle(f"Sampling on a GPU. {machine['device']}, {machine['date']}. p = 0.95", fontsize="medium")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def shapes():
    return " | ".join(f"{batch}×{vocab}" for batch, vocab in SHAPES)


def one_line(case):
    return CASES.get(case, "–").replace("\n", " ")


def sampler(name):
    peer = name.removesuffix("_nondeterministic")
    return PEERS[peer] + ("" if peer == name else ", deterministic=False")


def measured(figures):
    """Returns the measured figures: the case, the number of the shape in SHAPES, and the time."""
    return [
        (case, i, time) for case in CASES for i, shape in enumerate(SHAPES) if (time := own(figures, case, *shape))
    ]


def missed(figures):
    """Returns the text about the goals that are not reached."""
    known = measured(figures)
    late = {(case, i): time for case, i, time in known if time > GOALS[case][i]}
    text = f"The kernels reach {len(known) - len(late)} of the {len(known)} goals."
    if not late:
        return text
    worst = max(time / GOALS[case][i] for (case, i), time in late.items())
    text += f" The other times are up to {worst:.1f} times the goal."
    text += "\nThis table shows them, and the goals in brackets."
    rows = []
    for case in CASES:
        cells = [
            f"{microseconds(late[case, i])} ({GOALS[case][i]})" if (case, i) in late else "reached"
            for i in range(len(SHAPES))
        ]
        if any((case, i) in late for i in range(len(SHAPES))):
            rows.append(f"| {one_line(case)} | {' | '.join(cells)} |")
    return "\n".join([text, "", f"| case | {shapes()} |", "| --- | --- | --- | --- | --- |", *rows])


def comparison(figures):
    """Returns the text about the cases in which another sampler that reads logits is faster."""
    known = measured(figures)
    compared = [
        (case, SHAPES[i], time, other)
        for case, i, time in known
        if (other := fastest(figures, case, *SHAPES[i], "logits"))
    ]
    rows = [
        f"| {one_line(case)} | {batch}×{vocab} | {microseconds(time)} | {microseconds(other['device_us'])} "
        f"| {sampler(other['peer'])} |"
        for case, (batch, vocab), time, other in compared
        if other["device_us"] < time
    ]
    count = f"In {len(compared)} of the {len(known)} cases of the chart, other samplers that read logits were measured."
    if not rows:
        return f"{count}\nNone of them is faster than this library."
    faster = "This table lists all cases in which one of them is faster than this library."
    header = ["| case | shape | this library | other sampler | name |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([count, faster, "", *header, *rows])


def nondeterministic(figures):
    """Returns the text about FlashInfer's samplers with deterministic=False, which are not in the table."""
    savings = [
        1 - figure["device_us"] / figures[other]["device_us"]
        for name, figure in figures.items()
        if (other := name.replace("_nondeterministic", "")) != name
        and "device_us" in figure
        and "device_us" in figures.get(other, {})
    ]
    text = "FlashInfer's samplers are deterministic in the next table."
    if savings:
        text += f" With `deterministic=False` they need up to {max(0, max(savings)):.0%} less time."
    return text


def table(figures):
    rows = []
    found = dict.fromkeys((f["peer"], f["case"]) for f in figures.values() if f.get("peer") in PEERS)
    for peer, case in sorted(found, key=lambda key: list(PEERS).index(key[0])):
        times = [
            figures.get(f"gpu_peer/{peer}/{case}/f32/{batch}x{vocab}", {}).get("device_us") for batch, vocab in SHAPES
        ]
        if not any(times):
            continue
        label = one_line(case.removesuffix("_only"))
        if case.endswith("_only"):
            label += ", no top-p"
        cells = [microseconds(time) if time else "–" for time in times]
        rows.append(f"| {PEERS[peer]} | {label} | {' | '.join(cells)} |")
    return "\n".join([f"| sampler | case | {shapes()} |", "| --- | --- | --- | --- | --- | --- |", *rows])


def replace(page, text, name, part):
    """Returns the text of the page with `part` between the two comments that contain the name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text, replaced = re.subn(f"{begin}\n.*?{end}", lambda _: f"{begin}\n{part}\n{end}", text, flags=re.DOTALL)
    if replaced != 1:
        sys.exit(f"chart_gpu: {page} has no place for the {name}")
    return text


def main(source, chart, page):
    lines = [json.loads(line) for line in pathlib.Path(source).read_text().splitlines() if line.startswith("{")]
    figures = {line["name"]: line for line in lines}
    if "machine" not in figures:
        sys.exit(f"chart_gpu: {source} has no line with the name machine")
    draw(figures, figures["machine"], chart)
    page = pathlib.Path(page)
    text = replace(page, page.read_text(), "missed goals", missed(figures))
    part = "\n\n".join([comparison(figures), nondeterministic(figures), table(figures)])
    page.write_text(replace(page, text, "samplers of others", part))
    print(f"chart_gpu: {chart} and the tables in {page} from {len(figures)} figures")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
