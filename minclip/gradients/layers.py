"""`minclip.layers` backwards: each function as there, in the same order, with the same letters.

Let L be a number that a model computes: a loss, a cosine. Written dy is the gradient of L with respect to y: an array
of y's shape that says by how much L grows when a number of y grows a little. Every function here is the chain rule for
one step: it is handed dy, the gradient of what the step gave, and returns dx, that of what the step was given. What the
step was given, x, it finds among the steps that the forward pass noted (`Steps`). The gradients of weights are added up
on the way (`Parameters`).

Letters in shapes: b batch, t tokens, d width, f width of the feed-forward layer, h heads, k width of a head.
One forward pass may serve several gradients: where x has a batch of one, dy may have any.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minclip import layers
from minclip.gradients.record import Parameters, Steps
from minclip.layers import Note, merge_heads, silent, split_heads


def linear(dy: np.ndarray, x: np.ndarray, p: Parameters, name: str) -> np.ndarray:
    """y = x W^T + b:  dx = dy W,  dW = dy^T x,  db = the sum of dy.

    x (..., d), dy (..., f); W (f, d) is the tensor `name.weight`, b (f,) `name.bias`, where there is one. Sums run over
    all axes but the last. Returns dx (..., d).
    """
    rows = dy.reshape(-1, dy.shape[-1])
    if p.wanted:
        p.add(f"{name}.weight", rows.T @ x.reshape(-1, x.shape[-1]))
        if f"{name}.bias" in p:
            p.add(f"{name}.bias", rows.sum(axis=0))
    return (rows @ p[f"{name}.weight"]).reshape(*dy.shape[:-1], x.shape[-1])


def layer_norm(dy: np.ndarray, x: np.ndarray, p: Parameters, name: str, eps: float) -> np.ndarray:
    """y = w n + b with n = (x - mean) / s and s^2 = variance + eps:

        dn = w dy,  dx = (dn - mean(dn) - n mean(n dn)) / s,  dw = the sum of n dy,  db = the sum of dy.

    Means run over the last axis: x moves the mean and the deviation of its row, too, and those two terms take from dn
    the part that they undo. w and b (d,) are the tensors `name.weight` and `name.bias`. x, dy (..., d); returns dx.
    """
    n = x - x.mean(axis=-1, dtype=np.float64, keepdims=True).astype(x.dtype)
    s = np.sqrt(np.einsum("...d,...d->...", n, n)[..., None] / x.shape[-1] + x.dtype.type(eps))
    n /= s
    if p.wanted:
        p.add(f"{name}.weight", (dy * n).reshape(-1, x.shape[-1]).sum(axis=0))
        p.add(f"{name}.bias", dy.reshape(-1, x.shape[-1]).sum(axis=0))
    dn = dy * p[f"{name}.weight"]
    along = np.einsum("...d,...d->...", dn, n)[..., None] / x.shape[-1]  # mean(n dn)
    dn -= dn.mean(axis=-1, keepdims=True)
    dn -= n * along
    dn /= s
    return dn


def softmax(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y_i = e^x_i / sum of e^x_j:  dx_i = y_i (dy_i - sum of y_j dy_j).

    To raise one share is to lower the others. It takes the softmax itself, y (..., t), not x.
    """
    return y * (dy - np.einsum("...t,...t->...", dy, y)[..., None])


# --- activations (elementwise: dx = dy f'(x)) ------------------------------------------------------------------------


def gelu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f = x Phi(x):  f' = Phi(x) + x phi(x), phi the standard normal's density, the derivative of Phi."""
    x = np.clip(x, -40, 40)  # Phi is 0 or 1 there to the last digit, and x^2 does not overflow
    z = x * x.dtype.type(math.sqrt(0.5))
    density = np.exp(-z * z) * x.dtype.type(1 / math.sqrt(2 * math.pi))
    return dy * (0.5 + 0.5 * layers.erf(z) + x * density)


def gelu_new(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f = x (1 + tanh u) / 2 with u = c (x + a x^3):  f' = (1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2.

    u' = c (1 + 3 a x^2).
    """
    a, c = x.dtype.type(0.044715), x.dtype.type(math.sqrt(2 / math.pi))
    x = np.clip(x, -20, 20)  # tanh is 1 there to the last digit, and x^3 does not overflow
    tanh = np.tanh(c * (x + a * x * x * x))
    du = c * (1 + 3 * a * x * x)
    return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * du)


def quick_gelu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f = x sigmoid(1.702 x)."""
    return _times_sigmoid(dy, x, 1.702)


def silu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f = x sigmoid(x)."""
    return _times_sigmoid(dy, x, 1.0)


def _times_sigmoid(dy: np.ndarray, x: np.ndarray, scale: float) -> np.ndarray:
    """f = x s with s = sigmoid(scale x):  f' = s + scale x s (1 - s), for s' = s (1 - s)."""
    z = x * x.dtype.type(scale)
    with np.errstate(over="ignore"):  # exp overflows to inf far on the left, where s = 1 / inf is the right answer: 0
        s = 1 / (1 + np.exp(-z))
    return dy * s * (1 + z * (1 - s))


def relu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f = max(x, 0):  f' = 1 where x > 0, else 0; at the corner, too, as everybody has it."""
    return dy * (x > 0)


def selu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f = scale x, or scale alpha (e^x - 1) where x <= 0:  f' = scale, or scale alpha e^x."""
    scale, alpha = x.dtype.type(1.0507009873554805), x.dtype.type(1.6732632423543772)
    return dy * scale * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "gelu": gelu,
    "gelu_new": gelu_new,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "selu": selu,
    "silu": silu,
}


# --- attention -----------------------------------------------------------------------------------------------------


def attention(
    dcontext: np.ndarray,
    steps: Steps,
    mask: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """context = P v with P = softmax(S) and S = (q k^T + bias) / sqrt(k):

        dP = dcontext v^T,  dv = P^T dcontext,  dS by `softmax`,  dbias = dS / sqrt(k),  dq = dbias k,  dk = dbias^T q.

    A head's factor m stands before its P, so dP is multiplied by it on the way to S. Masked scores were replaced by a
    constant, so nothing that comes to them goes on. dcontext (b, h, t, k), mask and head_mask as in the forward pass.
    Returns dq, dk, dv (b, h, t, k) and dbias (b, h, t, t). `note` is called with dP as "probabilities", dS as "scores".
    """
    q, k, v, probabilities = (steps[name] for name in ("q", "k", "v", "probabilities"))
    dprobabilities = dcontext @ v.swapaxes(-1, -2)  # (b, h, t, t)
    dv = probabilities.swapaxes(-1, -2) @ dcontext
    note("probabilities", dprobabilities)
    if head_mask is not None:  # what was noted is m P; softmax needs P itself
        scores = steps["scores"]
        probabilities = layers.softmax(scores if mask is None else np.where(mask, scores, np.finfo(scores.dtype).min))
        dprobabilities = dprobabilities * head_mask[:, None, None]
    dscores = softmax(dprobabilities, probabilities)
    if mask is not None:
        dscores = np.where(mask, dscores, 0)
    note("scores", dscores)
    dbias = dscores * q.dtype.type(1 / math.sqrt(q.shape[-1]))
    return dbias @ k, dbias.swapaxes(-1, -2) @ q, dv, dbias


def relative_positions(
    dbias: np.ndarray, q: np.ndarray, k: np.ndarray, p: Parameters, name: str, kind: str
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """bias_qr = q . T[q - r], and + k . T[q - r] for "relative_key_query":

        dq = the sum over r of dbias_qr T[q - r],  dk likewise over q,  dT[q - r] = the sum of dbias_qr (q + k).

    q, k (b, h, t, k); T (2 n - 1, k) is the tensor `name`; dbias (b, h, t, t). Returns dq and dk; dk is 0 for
    "relative_key".
    """
    table, t = p[name], q.shape[2]
    positions = np.arange(t)
    rows = positions[:, None] - positions[None, :] + (len(table) - 1) // 2  # (t, t)
    distance = table[rows]  # (t, t, k)
    dq = np.einsum("bhqr,qrk->bhqk", dbias, distance, optimize=True)
    ddistance = np.einsum("bhqr,bhqk->qrk", dbias, q, optimize=True)
    dk: np.ndarray | float = 0.0
    if kind == "relative_key_query":
        dk = np.einsum("bhqr,qrk->bhrk", dbias, distance, optimize=True)
        ddistance += np.einsum("bhqr,bhrk->qrk", dbias, k, optimize=True)
    if p.wanted:
        p.add_rows(name, rows, ddistance)
    return dq, dk


def multi_head_attention(
    dy: np.ndarray,
    x: np.ndarray,
    p: Parameters,
    steps: Steps,
    names: tuple[str, str, str, str],
    mask: np.ndarray | None,
    *,
    relative: str | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """y = out(attention(q(x), k(x), v(x))): x went three ways, so dx is the sum of what comes back on each.

    x, dy (b, t, d); the rest as in the forward pass. Returns dx (b, t, d).
    """
    query, key, value, output = names
    heads = steps["q"].shape[1]
    dcontext = split_heads(linear(dy, steps["context"], p, output), heads)  # (b, h, t, k)
    dq, dk, dv, dbias = attention(dcontext, steps, mask, head_mask, note)
    if relative:
        further = relative_positions(dbias, steps["q"], steps["k"], p, "self.distance_embedding.weight", relative)
        dq, dk = dq + further[0], dk + further[1]
    dx = linear(merge_heads(dq), x, p, query)
    dx += linear(merge_heads(dk), x, p, key)
    dx += linear(merge_heads(dv), x, p, value)
    return dx


# --- blocks --------------------------------------------------------------------------------------------------------


def mlp(
    dy: np.ndarray, x: np.ndarray, p: Parameters, steps: Steps, names: tuple[str, str], activation: str
) -> np.ndarray:
    """y = down(f(up(x))): the same three steps, last one first. x, dy (b, t, d); returns dx (b, t, d)."""
    up, down = names
    dactivation = linear(dy, steps["activation"], p, down)  # (b, t, f)
    dfc1 = ACTIVATIONS[activation](dactivation, steps["fc1"])
    return linear(dfc1, x, p, up)  # (b, t, d)


def pre_norm_block(
    dy: np.ndarray,
    x: np.ndarray,
    p: Parameters,
    steps: Steps,
    activation: str,
    eps: float,
    mask: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """y = m + mlp(norm2(m)) with m = x + attention(norm1(x)): a sum passes its gradient on to both of its terms.

    This is why deep towers learn: along the residuals dy comes back to x as it is, whatever the branches add.
    x, dy (b, t, d); returns dx (b, t, d).
    """
    m = x + steps["attention"]
    dnorm = mlp(dy, steps["layer_norm2"], p.at("mlp"), steps, ("fc1", "fc2"), activation)
    dm = dy + layer_norm(dnorm, m, p, "layer_norm2", eps)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    dnorm = multi_head_attention(
        dm, steps["layer_norm1"], p.at("self_attn"), steps, names, mask, head_mask=head_mask, note=note
    )
    return dm + layer_norm(dnorm, x, p, "layer_norm1", eps)


def post_norm_block(
    dy: np.ndarray,
    x: np.ndarray,
    p: Parameters,
    steps: Steps,
    activation: str,
    eps: float,
    mask: np.ndarray | None = None,
    relative: str | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """y = norm2(m + mlp(m)) with m = norm1(x + attention(x)). x, dy (b, t, d); returns dx (b, t, d)."""
    m = steps["layer_norm1"]
    dsum = layer_norm(dy, m + steps["fc2"], p, "output.LayerNorm", eps)
    dm = dsum + mlp(dsum, m, p, steps, ("intermediate.dense", "output.dense"), activation)
    dsum = layer_norm(dm, x + steps["attention"], p, "attention.output.LayerNorm", eps)
    names = ("self.query", "self.key", "self.value", "output.dense")
    return dsum + multi_head_attention(
        dsum, x, p.at("attention"), steps, names, mask, relative=relative, head_mask=head_mask, note=note
    )


# --- numerical detail ----------------------------------------------------------------------------------------------


def erf(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f' = 2 / sqrt(pi) e^(-x^2)."""
    return dy * x.dtype.type(2 / math.sqrt(math.pi)) * np.exp(-x * x)
