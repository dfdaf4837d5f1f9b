"""The decode and prefill steps of a Llama model, as JAX functions with static shapes for a batch of slots.

A slot holds one running request. `positions[slot]` is the index of the slot's next input token in its sequence, or -1
if the slot is free. The caches have the shape [layers, slots, key_value_heads, context, head_size].
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    feed_forward: int
    vocab: int
    epsilon: float
    rotary_base: float
    slots: int
    context: int  # positions per slot
    prompt: int  # the largest number of tokens in a prompt

    def cache(self):
        return (self.layers, self.slots, self.key_value_heads, self.context, self.head_size)


# The weights of one layer. The arrays of all layers are stacked, so their first dimension is the layer.
LAYER_WEIGHTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
# The arguments of both steps start with these weights, in this order.
WEIGHTS = LAYER_WEIGHTS + ("output_norm", "token_embd")


def normalize(shape, x, scale):
    return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + shape.epsilon) * scale


def rotate(shape, x, positions):
    """Applies the rotary embedding to x [rows, heads, head_size]. Elements 2i and 2i+1 form a pair."""
    exponents = jnp.arange(0, shape.head_size, 2, dtype=jnp.float32) / shape.head_size
    angles = positions.astype(jnp.float32)[:, None] * shape.rotary_base**-exponents
    sine, cosine = jnp.sin(angles)[:, None, :], jnp.cos(angles)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1).reshape(x.shape)


def project(shape, layer, x, positions):
    """Returns the queries [rows, key_value_heads, group, head_size], and the keys and values of x [rows, width]."""
    h = normalize(shape, x, layer["attn_norm"])
    queries, keys, values = (
        (h @ layer[name]).reshape(len(x), -1, shape.head_size) for name in ("attn_q", "attn_k", "attn_v")
    )
    queries = rotate(shape, queries, positions) * shape.head_size**-0.5
    return queries.reshape(len(x), shape.key_value_heads, -1, shape.head_size), rotate(shape, keys, positions), values


def finish_layer(shape, layer, x, attention):
    x = x + attention.reshape(x.shape) @ layer["attn_output"]
    h = normalize(shape, x, layer["ffn_norm"])
    return x + (jax.nn.silu(h @ layer["ffn_gate"]) * (h @ layer["ffn_up"])) @ layer["ffn_down"]


def split(weights):
    named = dict(zip(WEIGHTS, weights, strict=True))
    return {name: named[name] for name in LAYER_WEIGHTS}, named["output_norm"], named["token_embd"]


def decode(shape, *arguments):
    """(weights..., key_cache, value_cache, positions, tokens) -> (key_cache, value_cache, positions, logits).

    Appends one token to every slot and returns the logits [slots, vocab] of the next one. A free slot changes nothing
    in the caches, and its logits have no meaning.
    """
    *weights, key_cache, value_cache, positions, tokens = arguments
    layers, output_norm, embedding = split(weights)
    at = jnp.maximum(positions, 0)
    places = jnp.arange(shape.context)
    earlier = (places < at[:, None])[:, None, None, :]

    def layer_step(x, layer):
        weights, key_cache, value_cache = layer
        queries, keys, values = project(shape, weights, x, at)
        # The new token sees the cached tokens and itself.
        scores = jnp.where(earlier, jnp.einsum("skgh,skch->skgc", queries, key_cache), -jnp.inf)
        own_score = jnp.einsum("skgh,skh->skg", queries, keys)[..., None]
        highest = jnp.maximum(scores.max(axis=-1, keepdims=True), own_score)
        shares, own_share = jnp.exp(scores - highest), jnp.exp(own_score - highest)
        attention = jnp.einsum("skgc,skch->skgh", shares, value_cache) + own_share * values[:, :, None, :]
        attention /= shares.sum(axis=-1, keepdims=True) + own_share
        return finish_layer(shape, weights, x, attention), (keys, values)

    # The layers only read the caches, and one update after them writes all layers. Updates inside of the scan make XLA
    # copy both caches in every layer.
    x, (keys, values) = lax.scan(layer_step, embedding[tokens], (layers, key_cache, value_cache))
    written = (places == positions[:, None])[None, :, None, :, None]
    key_cache = jnp.where(written, keys[:, :, :, None, :], key_cache)
    value_cache = jnp.where(written, values[:, :, :, None, :], value_cache)
    logits = normalize(shape, x, output_norm) @ embedding.T
    advanced = jnp.where(positions < 0, -1, jnp.minimum(positions + 1, shape.context - 1))
    return key_cache, value_cache, advanced, logits


def prefill(shape, *arguments):
    """(weights..., key_cache, value_cache, positions, tokens, request) -> (key_cache, value_cache, positions, tokens).

    `request` is [slot, length, prompt tokens..., padding]. Fills the slot's part of the caches, and makes the last
    token of the prompt the slot's next input. So the next decode step returns the logits of the first new token.
    """
    *weights, key_cache, value_cache, positions, tokens, request = arguments
    layers, _, embedding = split(weights)
    slot, length, prompt = request[0], request[1], request[2:]
    places = jnp.arange(shape.prompt)
    visible = (places <= places[:, None])[:, None, None, :]

    def layer_step(x, layer):
        queries, keys, values = project(shape, layer, x, places)
        scores = jnp.einsum("pkgh,ckh->pkgc", queries, keys)
        shares = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
        attention = jnp.einsum("pkgc,ckh->pkgh", shares, values)
        return finish_layer(shape, layer, x, attention), (keys, values)

    _, (keys, values) = lax.scan(layer_step, embedding[prompt], layers)

    def update(cache, new):  # new: [layers, prompt, key_value_heads, head_size]
        return lax.dynamic_update_slice(cache, new.swapaxes(1, 2)[:, None], (0, slot, 0, 0, 0))

    return (
        update(key_cache, keys),
        update(value_cache, values),
        positions.at[slot].set(length - 1),
        tokens.at[slot].set(prompt[length - 1]),
    )
