"""The mathematics of a transformer, as plain functions over arrays.

Letters in shapes: b batch, t tokens, d width, f width of the feed-forward layer, h heads, k width of a head.
`w` is a checkpoint's tensors by name (`Weights`): `w["fc1.weight"]` is an array, `w.at("mlp")` the names under `mlp.`.
Every function works in the floating type of what it is given, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minclip.weights import Weights

Note = Callable[[str, np.ndarray], None]
"""Called with the name and value of each step as it is computed. So hidden states, attentions and the step at which
two backends differ can be seen without a second copy of the forward pass."""


def silent(name: str, value: np.ndarray) -> None:
    """The note for when nobody is looking."""


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x W^T + bias. x (..., d), weight (f, d) as checkpoints store it, bias (f,). Returns (..., f)."""
    y = x.reshape(-1, x.shape[-1]) @ weight.T  # one large product instead of b small ones
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight))


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Layer normalization (Ba et al. 2016, eq. 4) over the last axis. x (..., d), weight and bias (d,).

    The mean is summed in float64: in float32 it misses a row of equal values by a hair, which the division by a
    deviation of almost nothing then blows up to 1 where 0 is right.
    """
    y = x - x.mean(axis=-1, dtype=np.float64, keepdims=True).astype(x.dtype)
    variance = np.einsum("...d,...d->...", y, y)[..., None] / x.shape[-1]
    y *= 1 / np.sqrt(variance + x.dtype.type(eps))
    y *= weight
    y += bias
    return y


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, shifted by the maximum so that no exponential overflows. x (..., t)."""
    y = x - x.max(axis=-1, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


# --- activations (elementwise, one axis or more) ---------------------------------------------------------------------


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), Phi the standard normal's distribution function (Hendrycks and Gimpel 2016)."""
    flat = x.reshape(-1)
    y = np.empty_like(flat)
    for i in range(0, flat.size, GELU_BLOCK):
        block = flat[i : i + GELU_BLOCK]
        y[i : i + GELU_BLOCK] = block * (0.5 + 0.5 * erf(block * block.dtype.type(math.sqrt(0.5))))
    return y.reshape(x.shape)


def gelu_new(x: np.ndarray) -> np.ndarray:
    """The tanh approximation of gelu (same paper, section 2)."""
    y = x * x
    y *= x.dtype.type(0.044715)
    y += 1
    y *= x
    y *= x.dtype.type(math.sqrt(2 / math.pi))
    np.tanh(y, out=y)
    y += 1
    y *= x
    y *= x.dtype.type(0.5)
    return y


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """x sigmoid(1.702 x), the approximation that CLIP was trained with."""
    return _times_sigmoid(x, 1.702)


def silu(x: np.ndarray) -> np.ndarray:
    """x sigmoid(x)."""
    return _times_sigmoid(x, 1.0)


def _times_sigmoid(x: np.ndarray, scale: float) -> np.ndarray:
    y = x * x.dtype.type(-scale)
    with np.errstate(over="ignore"):  # exp overflows to inf far on the left, where x / inf is the right answer: 0
        np.exp(y, out=y)
    y += 1
    return np.divide(x, y, out=y)


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def selu(x: np.ndarray) -> np.ndarray:
    """Scaled exponential linear unit (Klambauer et al. 2017, eq. 2)."""
    scale, alpha = x.dtype.type(1.0507009873554805), x.dtype.type(1.6732632423543772)
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": gelu,
    "gelu_new": gelu_new,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "selu": selu,
    "silu": silu,
}


# --- attention -----------------------------------------------------------------------------------------------------


def causal_mask(t: int) -> np.ndarray:
    """Which key (column) each query (row) may see: itself and what came before. Boolean (t, t)."""
    return np.tri(t, dtype=bool)


def padding_mask(attention_mask: np.ndarray) -> np.ndarray:
    """Keys that are tokens and not padding, for all heads and queries. (b, t) of 0 and 1 -> boolean (b, 1, 1, t)."""
    return attention_mask.astype(bool)[:, None, None, :]


def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(b, t, d) -> (b, h, t, k) with d = h k."""
    b, t, d = x.shape
    return x.reshape(b, t, heads, d // heads).transpose(0, 2, 1, 3)


def merge_heads(x: np.ndarray) -> np.ndarray:
    """(b, h, t, k) -> (b, t, d) with d = h k."""
    b, h, t, k = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, t, h * k)


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1).

    q, k, v: (b, h, t, k). mask: boolean, broadcast to (b, h, t, t), True where a query may see a key. bias: added to
    the products before they are scaled, (b, h, t, t). head_mask: (h,) factors of the heads' probabilities.
    Returns the context (b, h, t, k) and the probabilities (b, h, t, t).
    """
    scale = q.dtype.type(1 / math.sqrt(q.shape[-1]))
    scores = (q * scale) @ k.swapaxes(-1, -2)  # (b, h, t, t)
    if bias is not None:
        scores += bias * scale
    note("scores", scores)
    if mask is not None:  # the lowest finite number, not -inf: a query that may see nothing averages instead of NaN
        scores = np.where(mask, scores, np.finfo(scores.dtype).min)
    probabilities = softmax(scores)
    if head_mask is not None:
        probabilities *= head_mask[:, None, None]
    note("probabilities", probabilities)
    return probabilities @ v, probabilities


def relative_positions(q: np.ndarray, k: np.ndarray, table: np.ndarray, kind: str) -> np.ndarray:
    """What each query-key distance adds to the products (Shaw et al. 2018; Huang et al. 2020, methods 2 and 4).

    q, k: (b, h, t, k). table: (2 n - 1, k), the row of distance query - key is distance + n - 1.
    kind: "relative_key" (the query meets the distance) or "relative_key_query" (the key does, too).
    Returns (b, h, t, t).
    """
    t, n = q.shape[2], (len(table) + 1) // 2
    positions = np.arange(t)
    distance = table[positions[:, None] - positions[None, :] + n - 1]  # (t, t, k)
    bias = np.einsum("bhqk,qrk->bhqr", q, distance, optimize=True)
    if kind == "relative_key_query":
        bias += np.einsum("bhrk,qrk->bhqr", k, distance, optimize=True)
    return bias


def multi_head_attention(
    x: np.ndarray,
    w: Weights,
    names: tuple[str, str, str, str],
    heads: int,
    mask: np.ndarray | None,
    *,
    to: np.ndarray | None = None,
    relative: str | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """Attention of x to itself in `heads` subspaces (Vaswani et al. 2017, section 3.2.2). x (b, t, d), result likewise.

    names: what the checkpoint calls the query, key, value and output projections. to: what x attends to instead of
    itself, (b, s, d). relative: see `relative_positions`.
    """
    query, key, value, output = names
    to = x if to is None else to
    q = split_heads(linear(x, w[f"{query}.weight"], w[f"{query}.bias"]), heads)  # (b, h, t, k)
    k = split_heads(linear(to, w[f"{key}.weight"], w[f"{key}.bias"]), heads)
    v = split_heads(linear(to, w[f"{value}.weight"], w[f"{value}.bias"]), heads)
    note("q", q)
    note("k", k)
    note("v", v)
    bias = relative_positions(q, k, w["self.distance_embedding.weight"], relative) if relative else None
    context, _ = attention(q, k, v, mask, bias, head_mask, note)
    context = merge_heads(context)  # (b, t, d)
    note("context", context)
    return linear(context, w[f"{output}.weight"], w[f"{output}.bias"])


# --- blocks --------------------------------------------------------------------------------------------------------


def mlp(x: np.ndarray, w: Weights, names: tuple[str, str], activation: str, note: Note = silent) -> np.ndarray:
    """Feed-forward layer: out, activation, back. x (b, t, d) -> (b, t, f) -> (b, t, d)."""
    up, down = names
    y = linear(x, w[f"{up}.weight"], w[f"{up}.bias"])  # (b, t, f)
    note("fc1", y)
    y = ACTIVATIONS[activation](y)
    note("activation", y)
    return linear(y, w[f"{down}.weight"], w[f"{down}.bias"])  # (b, t, d)


def pre_norm_block(
    x: np.ndarray,
    w: Weights,
    heads: int,
    activation: str,
    eps: float,
    mask: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """One layer of CLIP's towers: normalize, transform, add. x (b, t, d), result likewise."""
    y = layer_norm(x, w["layer_norm1.weight"], w["layer_norm1.bias"], eps)
    note("layer_norm1", y)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    y = multi_head_attention(y, w.at("self_attn"), names, heads, mask, head_mask=head_mask, note=note)
    note("attention", y)
    x = x + y
    y = layer_norm(x, w["layer_norm2.weight"], w["layer_norm2.bias"], eps)
    note("layer_norm2", y)
    y = mlp(y, w.at("mlp"), ("fc1", "fc2"), activation, note)
    note("fc2", y)
    return x + y


def post_norm_block(
    x: np.ndarray,
    w: Weights,
    heads: int,
    activation: str,
    eps: float,
    mask: np.ndarray | None = None,
    relative: str | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """One layer of RoBERTa, as in the first transformer: transform, add, normalize. x (b, t, d), result likewise."""
    names = ("self.query", "self.key", "self.value", "output.dense")
    y = multi_head_attention(
        x, w.at("attention"), names, heads, mask, relative=relative, head_mask=head_mask, note=note
    )
    note("attention", y)
    norm = w.at("attention.output.LayerNorm")
    x = layer_norm(x + y, norm["weight"], norm["bias"], eps)
    note("layer_norm1", x)
    y = mlp(x, w, ("intermediate.dense", "output.dense"), activation, note)
    note("fc2", y)
    return layer_norm(x + y, w["output.LayerNorm.weight"], w["output.LayerNorm.bias"], eps)


# --- numerical detail ----------------------------------------------------------------------------------------------

GELU_BLOCK = 65536  # numbers at a time, so that erf's temporaries stay in the cache: 2.5 times as fast


def erf(x: np.ndarray) -> np.ndarray:
    """The error function. float64: the C library's, number by number; float32: a rational fit, 40 times as fast.

    The fit is x P(x^2) / Q(x^2) with the largest error on [0, 3.92] made smallest (least squares, reweighted). At 3.91
    it comes out as exactly 1 (erf is 1 - 3e-8 there), and so from there on. The largest error is 4e-7, absolute and
    relative, that of evaluating the fit in float32.
    """
    if x.dtype == np.float64:
        return np.array(np.frompyfunc(math.erf, 1, 1)(x), dtype=np.float64)
    x = np.clip(x, -3.91, 3.91)
    z = x * x
    y = _polynomial(z, ERF_P)
    y *= x
    y /= _polynomial(z, ERF_Q)
    return y


ERF_P = (1.12837902, 0.192762238, 0.0530602521, 0.00386825418, 0.000287478559, 2.03475828e-06)
ERF_Q = (1.0, 0.504162752, 0.115083878, 0.0151721465, 0.00118809905, 3.80708426e-05)


def _polynomial(z: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """c0 + c1 z + c2 z^2 + ..., by Horner's rule."""
    *rest, last = coefficients
    y = np.full_like(z, last)
    for c in reversed(rest):
        y *= z
        y += z.dtype.type(c)
    return y
