"""Writes tables of the figures that the benchmarks print (docs/figures/*.jsonl)."""

import json

CASES = {
    "greedy": "greedy", "k64": "k = 64", "k5000": "k = 5000", "min_p_alone": "min-p alone", "plain": "plain draw",
    "top_p_alone": "top-p alone", "top_p_t2": "top-p, T = 2",
}  # fmt: skip


def read(path):
    """The figures of a file, and the line that describes the machine."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    machine = next((line for line in lines if line.get("name") == "machine"), {})
    return machine, [line for line in lines if line.get("name") != "machine"]


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(figure):
    return f"{figure['median_us']:.3g} µs ({figure['ratio']:.2g}×)" if figure else "–"


def built_in(figures):
    """Tables of the built-in backend on one thread: rows in the cache, and 64 rows in turn."""
    best = [f for f in figures if f["name"].count("/") == 3 and f.get("threads") == 1]
    parts = []
    titles = {"sampling": "The row is in the cache", "cold": "64 rows in turn, which are not in the cache"}
    for kind, title in titles.items():
        shapes = sorted({(f["dtype"] != "f32", f["dtype"], f["vocab"]) for f in best if f["name"].startswith(kind + "/")
                         and f["batch"] == 1 and f["case"] in CASES})  # fmt: skip
        rows = []
        for _, dtype, vocab in shapes:
            found = {f["case"]: f for f in best if f["name"].startswith(kind + "/")
                     and (f["dtype"], f["vocab"], f["batch"]) == (dtype, vocab, 1)}  # fmt: skip
            rows.append([f"{dtype}, {vocab:,}", *(cell(found.get(case)) for case in CASES)])
        parts.append(f"**{title}.**\n\n" + table(["logits", *CASES.values()], rows))
    return "\n".join(parts)


def devices(figures):
    """The host's cost of a call on a device, and the time from the start of a process to its first token."""
    calls = [[f"{f['batch']} × {f['vocab']:,}", f["platform"], f"{f['execute_us']:.3g} µs", f"{f['added_us']:.2g} µs"]
             for f in figures if f["name"].startswith("device_call/host_time")]  # fmt: skip
    return table(["logits", "platform", "the plugin's Execute", "added by nucleus"], calls)
