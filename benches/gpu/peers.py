"""The time of other samplers on a GPU: one JSON object per line on standard output.

Measures PyTorch, and FlashInfer if it is installed. The shapes are those of benches/gpu/main.rs, and the logits are on
the device. A CUDA graph contains all calls. So the time in which the host launches kernels is not measured. The calls
read several arrays in turn, at least 160 MB together. The exception is 1×128256: its 20 calls read 10 MB, and the L2
cache of a large GPU can contain them.
"""

import json

try:
    import torch
except ImportError:
    raise SystemExit("peers: skipped, because PyTorch is not installed")

SHAPES = [(1, 128_256), (16, 262_144), (128, 128_256), (128, 262_144)]
ROTATED_BYTES = 160 << 20
CALLS = 20


def top_k(logits):
    values, indices = torch.topk(logits, 64, dim=-1)
    probabilities = torch.softmax(values, dim=-1)
    kept = torch.cumsum(probabilities, dim=-1) - probabilities < 0.95
    return indices.gather(-1, torch.multinomial(probabilities * kept, 1))


def top_p_by_sorting(logits):
    values, indices = torch.sort(logits, dim=-1, descending=True)
    probabilities = torch.softmax(values, dim=-1)
    kept = torch.cumsum(probabilities, dim=-1) - probabilities < 0.95
    return indices.gather(-1, torch.multinomial(probabilities * kept, 1))


def peers():
    yield "pytorch_max", lambda logits: torch.amax(logits, dim=-1)
    yield "pytorch_topk64", top_k
    yield "pytorch_sort_top_p", top_p_by_sorting
    try:
        from flashinfer import sampling
    except ImportError:
        return
    def joint(logits):
        return sampling.top_k_top_p_sampling_from_logits(logits, 64, 0.95, deterministic=True)
    yield "flashinfer_k64", joint
    def alone(logits):
        return sampling.top_p_sampling_from_probs(torch.softmax(logits, dim=-1), 0.95, deterministic=True)
    yield "flashinfer_top_p", alone


def measure(function, arrays):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for array in arrays[:3]:
            function(array)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in range(CALLS):
            function(arrays[call % len(arrays)])
    times = []
    for _ in range(15):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / CALLS)
    return sorted(times)[len(times) // 2]


def main():
    device = torch.cuda.get_device_name()
    for batch, vocab in SHAPES:
        count = min(40, -(-ROTATED_BYTES // (batch * vocab * 4)))
        arrays = [torch.randn(batch, vocab, device="cuda") * 3 for _ in range(count)]
        for name, function in peers():
            figure = {"name": f"gpu_peer/{name}/f32/{batch}x{vocab}", "device": device, "batch": batch, "vocab": vocab}
            try:
                figure["device_us"] = round(measure(function, arrays), 1)
            except Exception as error:
                figure["error"] = str(error).splitlines()[0]
            print(json.dumps(figure), flush=True)


main()
