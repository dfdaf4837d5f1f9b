"""Draws docs/bench-gpu.png, and writes the table of other samplers in docs/gpu.md.

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
# The limits that the kernels are built for: the time of a call in microseconds, for each of SHAPES.
LIMITS = {
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
# The samplers that the table lists, with the names of the table.
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
    return f"{time:#.3g}".rstrip(".") if time < 1000 else f"{time:,.0f}"


def own(figures, case, batch, vocab):
    return figures.get(f"gpu/{case}/f32/{batch}x{vocab}", {}).get("device_us")


def fastest(figures, case, batch, vocab, source):
    times = [
        figure["device_us"]
        for figure in figures.values()
        if figure["name"].startswith("gpu_peer/")
        and "device_us" in figure
        and (figure["case"], figure["batch"], figure["vocab"], figure["input"]) == (case, batch, vocab, source)
    ]
    return min(times, default=None)


def draw(figures, machine, path):
    figure, axes = plt.subplots(2, 2, figsize=(12, 11), layout="constrained")
    for number, (axis, (batch, vocab)) in enumerate(zip(axes.flat, SHAPES)):
        series = [
            [own(figures, case, batch, vocab) for case in CASES],
            [fastest(figures, case, batch, vocab, "logits") for case in CASES],
            [fastest(figures, case, batch, vocab, "probabilities") for case in CASES],
        ]
        height = 0.26
        for i, ((label, colour), times) in enumerate(zip(SERIES, series)):
            known = [(place, time) for place, time in enumerate(times) if time]
            places = [place + (i - 1) * height for place, _ in known]
            axis.barh(places, [time for _, time in known], height * 0.92, label=label, color=colour)
            for middle, (place, time) in zip(places, known):
                limit = LIMITS[list(CASES)[place]][number]
                # The label is to the right of the limit if the limit is just behind the bar.
                end = limit if i == 0 and time <= limit < 1.4 * time else time
                axis.annotate(
                    microseconds(time), (end, middle), (4, 0), textcoords="offset points", va="center", fontsize=8,
                    bbox={"color": "white", "pad": 0.6}, zorder=4,
                )  # fmt: skip
        for place, case in enumerate(CASES):
            edges = (place - 1.5 * height, place - 0.5 * height)
            label = "limit" if place == 0 else None
            axis.vlines(LIMITS[case][number], *edges, color="black", linewidth=2.5, label=label)
        read = figures.get(f"gpu_peer/pytorch_max_value/read/f32/{batch}x{vocab}", {}).get("device_us")
        if read:
            axis.axvline(read, color="#aa3344", linestyle="--", linewidth=1.2, label="PyTorch: maximum of each row")
        axis.set_xscale("log")
        axis.set_xlim(4, max(time for times in series for time in times if time) * 1.6)
        ticks = [tick for tick in (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if tick < axis.get_xlim()[1]]
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


def table(figures):
    rows = []
    # Samplers with deterministic=False are not in PEERS. Their times are almost the same.
    found = dict.fromkeys((f["peer"], f["case"]) for f in figures.values() if f.get("peer") in PEERS)
    for peer, case in sorted(found, key=lambda key: list(PEERS).index(key[0])):
        times = [
            figures.get(f"gpu_peer/{peer}/{case}/f32/{batch}x{vocab}", {}).get("device_us") for batch, vocab in SHAPES
        ]
        if not any(times):
            continue
        label = CASES.get(case.removesuffix("_only"), "–").replace("\n", " ")
        if case.endswith("_only"):
            label += ", no top-p"
        cells = [microseconds(time) if time else "–" for time in times]
        rows.append(f"| {PEERS[peer]} | {label} | {' | '.join(cells)} |")
    shapes = " | ".join(f"{batch}×{vocab}" for batch, vocab in SHAPES)
    return "\n".join([f"| sampler | case | {shapes} |", "| --- | --- | --- | --- | --- | --- |", *rows])


def main(source, chart, page):
    lines = [json.loads(line) for line in pathlib.Path(source).read_text().splitlines() if line.startswith("{")]
    figures = {line["name"]: line for line in lines}
    if "machine" not in figures:
        sys.exit(f"chart_gpu: {source} has no line with the name machine")
    draw(figures, figures["machine"], chart)
    page = pathlib.Path(page)
    begin, end = "<!-- samplers of others: begin -->", "<!-- samplers of others: end -->"
    text, replaced = re.subn(
        f"{begin}\n.*?{end}", lambda _: f"{begin}\n{table(figures)}\n{end}", page.read_text(), flags=re.DOTALL
    )
    if replaced != 1:
        sys.exit(f"chart_gpu: {page} has no place for the table")
    page.write_text(text)
    print(f"chart_gpu: {chart} and the table in {page} from {len(figures)} figures")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
