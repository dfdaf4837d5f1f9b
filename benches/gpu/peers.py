"""The time of other samplers on a GPU: one JSON object per line on standard output.

Measures the samplers that are installed: PyTorch, FlashInfer, and the Triton kernel of vLLM. The shapes and the logits
are those of benches/gpu/main.rs: f32, normal with standard deviation 3, p = 0.95, on the device. A CUDA graph contains
20 calls with 20 arrays. So the time in which the host launches kernels is not measured, and the L2 cache does not
contain the logits. The exception is 1×128256: its arrays have 10 MB together, and the cache of a large GPU contains
them.

Before a sampler is measured, the tokens of every seventh call are checked: the filters must keep each of them. If
PyTorch is not installed, nothing is measured, and the exit status is 0.

Arguments select figures by name.
"""

import dataclasses
import importlib
import json
import sys
from typing import Any, Callable

try:
    import torch
except ImportError as error:
    print(f"peers: other samplers are not measured, because PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(0)

SHAPES = [(1, 128_256), (16, 262_144), (128, 128_256), (128, 262_144)]
CALLS = 20
REPLAYS = 15
P = 0.95
# Because of rounding, top-p can keep a token although the sum of the larger probabilities exceeds p. The check accepts
# a sum of at most p + TOLERANCE.
TOLERANCE = 1e-4


@dataclasses.dataclass
class Peer:
    name: str
    case: str
    # Takes an array and the number of the call. Returns the token of each row.
    sample: Callable[[Any, int], Any]
    # The number of tokens that top-k keeps. None: the sampler has no top-k.
    k: int | None = None
    # The parameter of top-p. 1: the sampler has no top-p.
    p: float = P
    # If true, top-p uses the probabilities of all tokens. If false, it uses only the tokens that top-k keeps.
    joint: bool = False
    # The input of the sampler: logits or probabilities.
    input: str = "logits"
    # Whether the sampler overwrites its input.
    in_place: bool = False


def pytorch():
    def top_k(k):
        def sample(logits, call):
            values, indices = torch.topk(logits, k, dim=-1)
            return choose(values, indices)

        return sample

    def sort(logits, call):
        values, indices = torch.sort(logits, dim=-1, descending=True)
        return choose(values, indices)

    def choose(values, indices):
        probabilities = torch.softmax(values, dim=-1)
        kept = torch.cumsum(probabilities, dim=-1) - probabilities < P
        return indices.gather(-1, torch.multinomial(probabilities * kept, 1)).squeeze(-1)

    yield Peer("pytorch_max", "greedy", lambda logits, call: torch.max(logits, dim=-1).indices, k=1, p=1.0)
    yield Peer("pytorch_max_value", "read", lambda logits, call: torch.amax(logits, dim=-1))
    yield Peer("pytorch_topk_multinomial", "k64", top_k(64), k=64)
    yield Peer("pytorch_topk_multinomial", "k1000", top_k(1000), k=1000)
    yield Peer("pytorch_sort_multinomial", "top_p_alone", sort)


def flashinfer():
    try:
        from flashinfer import cake_sampling, sampling
    except ImportError as error:
        print(f"peers: FlashInfer is not measured: {error}", file=sys.stderr)
        return
    # In a CUDA graph, the seeds for flashinfer.sampling must be tensors. flashinfer.cake_sampling takes integers
    # instead.
    seeds = [torch.tensor([call], device="cuda") for call in range(CALLS)]

    def after_softmax(sample):
        return lambda logits, call: sample(sampling.softmax(logits), call)

    def cake(k):
        def sample(probabilities, call):
            return cake_sampling.top_k_top_p_sampling_from_probs(
                probabilities, k, P, philox_seed=call, philox_offset=0
            )

        return sample

    for k in (64, 1000):
        yield Peer("flashinfer_cake", f"k{k}", cake(k), k, input="probabilities")
        yield Peer("flashinfer_softmax_cake", f"k{k}", after_softmax(cake(k)), k)
    for deterministic in (True, False):
        suffix = "" if deterministic else "_nondeterministic"

        def options(call, deterministic=deterministic):
            return {"deterministic": deterministic, "seed": seeds[call], "offset": seeds[0]}

        for k in (64, 1000, 5000):

            def joint(probabilities, call, k=k, options=options):
                return sampling.top_k_top_p_sampling_from_probs(
                    probabilities, k, P, filter_apply_order="joint", **options(call)
                )

            def renorm(probabilities, call, k=k, options=options):
                kept = sampling.top_k_renorm_probs(probabilities, k)
                return sampling.top_p_sampling_from_probs(kept, P, **options(call))

            def integer_k(logits, call, k=k, options=options):
                return sampling.top_k_top_p_sampling_from_logits(logits, k, P, **options(call))

            def top_k(probabilities, call, k=k, options=options):
                return sampling.top_k_sampling_from_probs(probabilities, k, **options(call))

            case = f"k{k}"
            yield Peer(f"flashinfer_joint{suffix}", case, joint, k, joint=True, input="probabilities")
            yield Peer(f"flashinfer_softmax_joint{suffix}", case, after_softmax(joint), k, joint=True)
            yield Peer(f"flashinfer_softmax_top_k_renorm{suffix}", case, after_softmax(renorm), k)
            yield Peer(f"flashinfer_integer_k{suffix}", case, integer_k, k)
            yield Peer(f"flashinfer_top_k{suffix}", f"{case}_only", top_k, k, 1.0, input="probabilities")

        def top_p(probabilities, call, options=options):
            return sampling.top_p_sampling_from_probs(probabilities, P, **options(call))

        yield Peer(f"flashinfer_top_p{suffix}", "top_p_alone", top_p, input="probabilities")
        yield Peer(f"flashinfer_softmax_top_p{suffix}", "top_p_alone", after_softmax(top_p))

    def plain(logits, call):
        return sampling.sampling_from_logits(logits, seed=seeds[call], offset=seeds[0])

    def plain_probabilities(probabilities, call):
        return sampling.sampling_from_probs(probabilities, seed=seeds[call], offset=seeds[0])

    yield Peer("flashinfer_logits", "plain", plain, p=1.0)
    yield Peer("flashinfer_probabilities", "plain", plain_probabilities, p=1.0, input="probabilities")


def vllm():
    try:
        from vllm.v1.sample.ops.topk_topp_triton import apply_top_k_top_p_triton
    except ImportError as error:
        print(f"peers: vLLM's kernel is not measured: {error}", file=sys.stderr)
        return

    def sampler(k):
        parameters = {}

        def sample(logits, call):
            batch = len(logits)
            if batch not in parameters:
                top_k = None if k is None else torch.full((batch,), k, dtype=torch.int32, device="cuda")
                parameters[batch] = (top_k, torch.full((batch,), P, device="cuda"))
            # vLLM chooses a token in this way. It computes a softmax of the logits that the kernel keeps, and divides
            # each probability by an exponentially distributed random number. It takes the token with the largest
            # quotient.
            probabilities = torch.softmax(apply_top_k_top_p_triton(logits, *parameters[batch]), dim=-1)
            noise = torch.empty_like(probabilities).exponential_()
            return probabilities.div_(noise).argmax(dim=-1)

        return sample

    for k in (64, 1000, 5000, None):
        yield Peer("vllm_triton", f"k{k}" if k else "top_p_alone", sampler(k), k, in_place=True)


def all_are_kept(peer, logits, tokens):
    """Returns whether top-k and top-p of `peer` keep each token. Allows for rounding in top-p."""
    if not bool(((tokens >= 0) & (tokens < logits.shape[-1])).all()):
        return False
    logits = logits.double()
    values = logits.gather(-1, tokens.long().view(-1, 1))
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
    above = logits > values
    kept = weights if peer.k is None or peer.joint else weights.topk(peer.k, dim=-1).values
    in_top_p = (weights * above).sum(dim=-1) <= (peer.p + TOLERANCE) * kept.sum(dim=-1)
    in_top_k = above.sum(dim=-1) < (peer.k or logits.shape[-1])
    return bool((in_top_p & in_top_k).all())


def measure(peer, logits):
    """Returns the time of a call in microseconds."""
    inputs = [torch.softmax(array, dim=-1) for array in logits] if peer.input == "probabilities" else logits
    if peer.in_place:
        inputs = [array.clone() for array in inputs]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in range(3):
            peer.sample(inputs[call], call)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        tokens = [peer.sample(inputs[call], call) for call in range(CALLS)]

    def restore_inputs():
        if peer.in_place:
            for array, original in zip(inputs, logits):
                array.copy_(original)
        torch.cuda.synchronize()

    restore_inputs()
    graph.replay()
    torch.cuda.synchronize()
    if peer.case != "read":
        for call in range(0, CALLS, 7):
            assert all_are_kept(peer, logits[call], tokens[call]), f"call {call}: a filter removes a token"
    times = []
    for _ in range(REPLAYS):
        restore_inputs()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / CALLS)
    # The shortest run counts, because the host can only make a run longer. The kernels of this library are measured in
    # the same way.
    return min(times)


def version(peer):
    library = {"pytorch": "torch"}.get(name := peer.name.partition("_")[0], name)
    return importlib.import_module(f"{library}.version").__version__


def main():
    chosen = sys.argv[1:]
    device = torch.cuda.get_device_name()
    for batch, vocab in SHAPES:
        logits = [torch.randn(batch, vocab, device="cuda") * 3 for _ in range(CALLS)]
        for peer in (*pytorch(), *flashinfer(), *vllm()):
            name = f"gpu_peer/{peer.name}/{peer.case}/f32/{batch}x{vocab}"
            if chosen and not any(part in name for part in chosen):
                continue
            figure = {
                "name": name,
                "device": device,
                "peer": peer.name,
                "version": version(peer),
                "input": peer.input,
                "batch": batch,
                "vocab": vocab,
                "dtype": "f32",
                "case": peer.case,
            }
            try:
                figure["device_us"] = round(measure(peer, logits), 1)
            except Exception as error:
                figure["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(json.dumps(figure), flush=True)
        del logits
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
