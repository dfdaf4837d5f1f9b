"""Draws the stages of one row from the debug arrays that the command `nucleus sample` writes."""

import subprocess

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

VOCAB, TOP_K, TOP_P, TEMPERATURE, SEED = 24, 12, 0.9, 0.8, 4
REMOVED, BY_TOP_P, KEPT, DRAWN = "#c8ccd4", "#f0b35b", "#4477aa", "#cc3355"


def sample(command, directory):
    """Samples a row, and returns its logits and the debug arrays."""
    logits = np.random.default_rng(20).normal(0, 2, (1, VOCAB)).astype(np.float32)
    np.save(directory / "row.npy", logits)
    arrays = directory / "row.npz"
    subprocess.run(
        [command, "sample", directory / "row.npy", "--debug", arrays, "--top-k", str(TOP_K), "--top-p", str(TOP_P),
         "--temperature", str(TEMPERATURE), "--seed", str(SEED)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with np.load(arrays) as file:
        return logits[0], {name: file[name] for name in file.files}


def axis_of(title, label):
    figure, axis = plt.subplots(figsize=(8, 2.6), layout="constrained")
    axis.set_title(title, fontsize="medium", loc="left")
    axis.set_xlabel("token")
    axis.set_ylabel(label)
    axis.set_xticks(range(VOCAB))
    axis.tick_params(labelsize="small")
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def draw(command, directory):
    """Writes stage-1.svg to stage-4.svg into the directory. Returns the numbers that the page shows."""
    matplotlib.rcParams["svg.hashsalt"] = "nucleus"
    logits, arrays = sample(command, directory)
    tokens = np.arange(VOCAB)
    after_top_k = arrays["topk_logits_unsorted"][0]
    weights = arrays["topk_topp_unnorm_probs_i32_unsorted"][0].astype(np.int64)
    in_top_k = after_top_k > -1e11
    kept = weights > 0
    high, low = (int(arrays[f"random_unnorm_cdf_sampled_{half}"][0]) for half in ("high", "low"))
    random, token = high << 32 | low, int(arrays["next_tokens"][0])
    colours = np.where(kept, KEPT, np.where(in_top_k, BY_TOP_P, REMOVED))

    figures = []
    figure, axis = axis_of("the logits", "logit")
    axis.bar(tokens, logits, color=KEPT)
    figures.append(figure)

    figure, axis = axis_of(f"topk_logits_unsorted: top-k keeps {TOP_K} logits", "logit")
    axis.bar(tokens, logits, color=np.where(in_top_k, KEPT, REMOVED))
    figures.append(figure)

    figure, axis = axis_of("topk_topp_unnorm_probs_i32_unsorted: top-p keeps the largest weights", "weight / 2²⁸")
    # The array holds 0 for the weights that top-p removed. The picture shows them too, from their definition.
    scaled = np.exp((logits.astype(float) - logits.max()) / TEMPERATURE)
    axis.bar(tokens, np.where(kept, weights / 2**28, np.where(in_top_k, scaled, 0)), color=colours)
    figures.append(figure)

    figure, axis = axis_of("the draw: the first token whose running sum exceeds r", "running sum / 2²⁸")
    sums = np.cumsum(weights) / 2**28
    axis.bar(tokens, sums, color=np.where(tokens == token, DRAWN, REMOVED))
    axis.axhline(random / 2**28, color=DRAWN, linestyle="--", linewidth=1)
    axis.annotate("r", (VOCAB - 0.6, random / 2**28), color=DRAWN, va="bottom")
    figures.append(figure)

    for number, figure in enumerate(figures, 1):
        figure.savefig(directory / f"stage-{number}.svg", metadata={"Date": None})
        plt.close(figure)
    return {"token": token, "random": random, "total": int(weights.sum()), "kept": int(kept.sum())}
