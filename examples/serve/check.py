"""A plain forward pass in NumPy: no cache, no batch, one layer after the other. It checks the exported steps."""

import numpy as np


def normalize(shape, x, scale):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + shape.epsilon) * scale


def rotate(shape, x):
    places = np.arange(len(x))[:, None, None]
    angles = places * shape.rotary_base ** (-np.arange(0, shape.head_size, 2) / shape.head_size)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def attend(shape, queries, keys, values):
    group = shape.heads // shape.key_value_heads
    result = np.empty_like(queries)
    for head in range(shape.heads):
        scores = queries[:, head] @ keys[:, head // group].T / np.sqrt(shape.head_size)
        scores = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        result[:, head] = shares / shares.sum(axis=-1, keepdims=True) @ values[:, head // group]
    return result


def forward(shape, tensor, tokens):
    """Returns the logits [vocab] after the last of `tokens`. `tensor(name)` is a matrix [outputs, inputs] in f64."""
    embedding = tensor("token_embd.weight")
    x = embedding[tokens]
    for index in range(shape.layers):
        weight = lambda name: tensor(f"blk.{index}.{name}.weight")
        h = normalize(shape, x, weight("attn_norm"))
        queries, keys, values = (
            (h @ weight(name).T).reshape(len(x), -1, shape.head_size) for name in ("attn_q", "attn_k", "attn_v")
        )
        attention = attend(shape, rotate(shape, queries), rotate(shape, keys), values)
        x = x + attention.reshape(x.shape) @ weight("attn_output").T
        h = normalize(shape, x, weight("ffn_norm"))
        gate = h @ weight("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ weight("ffn_up").T)) @ weight("ffn_down").T
    return embedding @ normalize(shape, x[-1], tensor("output_norm.weight"))
