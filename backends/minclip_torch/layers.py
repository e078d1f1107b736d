"""Transformer layers as PyTorch modules, with the parameter names of checkpoints.

b batch, t tokens, d width, f feed-forward width, h heads, k head width. Attention goes through
`scaled_dot_product_attention`; it is written out only where somebody wants to see the probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "selu": F.selu,
    "silu": F.silu,
}


class Look:
    """What a forward pass is asked to show on its way: the steps of `minclip.backend.Towers`, given to `note`.

    explicit: whether attention has to be written out, for its scores and probabilities to exist.
    """

    def __init__(self, note: Callable[[str, Any], None] | None = None, *, explicit: bool = False, at: str = "") -> None:
        self._note = note
        self._at = at
        self.explicit = explicit

    def __call__(self, name: str, value: Tensor, scale: float = 1.0) -> None:
        """scale: what the value was multiplied by, and is not where it is shown."""
        if self._note is not None:
            self._note(self._at + name, value if scale == 1.0 else value / scale)

    def at(self, prefix: str) -> Look:
        """The same, with `prefix.` before the names."""
        return self if self._note is None else Look(self._note, explicit=self.explicit, at=f"{self._at}{prefix}.")


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query may see a key and a large negative number elsewhere.

    Half of the lowest finite number: adding a score to it cannot overflow to -inf, so that a query which may see
    nothing averages instead of becoming NaN.
    """
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, torch.finfo(dtype).min / 2
    )


def at(x: Tensor, kept: Tensor) -> Tensor:
    """One token of each row: (b, t, ...), (b,) -> (b, 1, ...)"""
    return x[torch.arange(len(x), device=x.device), kept].unsqueeze(1)


def mask_at(mask: Tensor | None, causal: bool, kept: Tensor, x: Tensor) -> Tensor | None:
    """The additive mask of those queries, (b, 1, 1, t); x (b, t, d) is what they attend to."""
    if causal:
        visible = torch.arange(x.shape[1], device=x.device) <= kept[:, None]
        return additive_mask(visible[:, None, None], x.dtype)
    if mask is None or mask.shape[-2] == 1:
        return mask
    return at(mask.transpose(1, 2), kept).transpose(1, 2)


class SelfAttention(nn.Module):
    """Scaled dot-product attention in `heads` subspaces, with one product for queries, keys and values.

    The state dict has the three projections apart, under `names`, as checkpoints do.
    """

    def __init__(self, d: int, heads: int, names: tuple[str, str, str], dropout: float) -> None:
        super().__init__()
        self.heads, self.names, self.dropout = heads, names, dropout
        self.qkv = nn.Linear(d, 3 * d)
        self.register_state_dict_post_hook(_split_qkv)
        self.register_load_state_dict_pre_hook(_fuse_qkv)

    def attend(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        head_mask: Tensor | None,
        look: Look,
        kept: Tensor | None = None,
    ) -> Tensor:
        """x (b, t, d) -> context (b, t, d), or (b, 1, d) of the tokens `kept` (b,).

        mask: additive, broadcast to (b, h, t, t); causal: instead of a mask. kept: not with learned distances.
        """
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # each (b, h, t, k)
        look("q", q)
        look("k", k)
        look("v", v)
        if kept is not None:
            q, mask, causal = at(q.transpose(1, 2), kept).transpose(1, 2), mask_at(mask, causal, kept, x), False
        bias = self.relative_positions(q, k)
        dropout = self.dropout if self.training else 0.0
        if look.explicit or head_mask is not None:
            context = self._written_out(q, k, v, mask, bias, causal, head_mask, dropout, look)
        else:
            if bias is not None:
                scaled = bias / math.sqrt(q.shape[-1])
                mask = scaled if mask is None else scaled + mask
            context = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)
        context = context.transpose(1, 2).reshape(b, -1, d)
        look("context", context)
        return context

    def relative_positions(self, q: Tensor, k: Tensor) -> Tensor | None:
        """What the distances add to the products before they are scaled, (b, h, t, t); None for absolute positions."""
        return None

    def _written_out(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        causal: bool,
        head_mask: Tensor | None,
        dropout: float,
        look: Look,
    ) -> Tensor:
        products = q @ k.transpose(-1, -2)  # (b, h, t, t)
        scores = (products if bias is None else products + bias) / math.sqrt(q.shape[-1])
        look("scores", scores)
        if causal:
            t = q.shape[2]
            mask = additive_mask(torch.ones(t, t, dtype=torch.bool, device=q.device).tril(), q.dtype)
        seen = scores if mask is None else scores + mask
        probabilities = torch.softmax(seen, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
        if head_mask is not None:
            probabilities = probabilities * head_mask.to(q.dtype)[:, None, None]
        look("probabilities", probabilities)
        return F.dropout(probabilities, dropout) @ v if dropout else probabilities @ v


def _split_qkv(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for kind in ("weight", "bias"):
        parts = state.pop(f"{prefix}qkv.{kind}").chunk(3)
        for name, part in zip(module.names, parts, strict=True):
            state[f"{prefix}{name}.{kind}"] = part.clone()  # a tensor of its own, as writers of files want it


def _fuse_qkv(module: Any, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    for kind in ("weight", "bias"):
        names = [f"{prefix}{name}.{kind}" for name in module.names]
        if all(name in state for name in names):
            state[f"{prefix}qkv.{kind}"] = torch.cat([state.pop(name) for name in names])


class Mlp(nn.Module):
    """Feed-forward layer: out, activation, back. `fc1` (f, d) and `fc2` (d, f) are the caller's modules.

    scale: what fc1 was multiplied by when quick_gelu was folded into it (`fold_quick_gelu`), else 1.
    """

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.scale = 1.0

    def forward(self, x: Tensor, fc1: nn.Module, fc2: nn.Module, look: Look) -> Tensor:
        y = fc1(x)
        look("fc1", y, self.scale)
        y = self.activation(y)
        look("activation", y, self.scale)
        return fc2(y)

    def fold_quick_gelu(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        """Turn x sigmoid(1.702 x) into one silu: with z = 1.702 x it is silu(z) / 1.702, and both factors go into the
        weights. For inference; the state dict is the checkpoint's no more."""
        if self.activation is not quick_gelu:
            return
        self.scale, self.activation = 1.702, F.silu
        fc1.weight = nn.Parameter(fc1.weight * self.scale, requires_grad=False)
        fc1.bias = nn.Parameter(fc1.bias * self.scale, requires_grad=False)
        fc2.weight = nn.Parameter(fc2.weight / self.scale, requires_grad=False)


class ClipAttention(SelfAttention):
    """`self_attn` of CLIP's towers."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__(d, heads, ("q_proj", "k_proj", "v_proj"), dropout)
        self.out_proj = nn.Linear(d, d)


class ClipMlp(Mlp):
    """`mlp` of CLIP's towers."""

    def __init__(self, d: int, f: int, activation: str) -> None:
        super().__init__(activation)
        self.fc1 = nn.Linear(d, f)
        self.fc2 = nn.Linear(f, d)


class PreNormLayer(nn.Module):
    """One layer of CLIP's towers: normalize, transform, add."""

    def __init__(self, d: int, f: int, heads: int, activation: str, eps: float, dropout: float) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(d, eps)
        self.self_attn = ClipAttention(d, heads, dropout)
        self.layer_norm2 = nn.LayerNorm(d, eps)
        self.mlp = ClipMlp(d, f, activation)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        head_mask: Tensor | None,
        look: Look,
        kept: Tensor | None = None,
    ) -> Tensor:
        y = self.layer_norm1(x)
        look("layer_norm1", y)
        y = self.self_attn.out_proj(self.self_attn.attend(y, mask, causal, head_mask, look, kept))
        look("attention", y)
        x = (x if kept is None else at(x, kept)) + y
        y = self.layer_norm2(x)
        look("layer_norm2", y)
        y = self.mlp(y, self.mlp.fc1, self.mlp.fc2, look)
        look("fc2", y)
        return x + y

    def fold_quick_gelu(self) -> None:
        self.mlp.fold_quick_gelu(self.mlp.fc1, self.mlp.fc2)


class RobertaSelf(SelfAttention):
    """`attention.self` of a RoBERTa layer. positions: how many, where the distances between tokens are learned."""

    def __init__(self, d: int, heads: int, dropout: float, kind: str, positions: int) -> None:
        super().__init__(d, heads, ("query", "key", "value"), dropout)
        self.kind = kind
        if kind != "absolute":
            self.distance_embedding = nn.Embedding(2 * positions - 1, d // heads)

    def relative_positions(self, q: Tensor, k: Tensor) -> Tensor | None:
        if self.kind == "absolute":
            return None
        table = self.distance_embedding.weight
        positions = torch.arange(q.shape[2], device=q.device)
        distance = table[positions[:, None] - positions[None, :] + len(table) // 2]  # (t, t, k)
        bias = torch.einsum("bhqk,qrk->bhqr", q, distance)
        if self.kind == "relative_key_query":
            bias = bias + torch.einsum("bhrk,qrk->bhqr", k, distance)
        return bias


class DenseNorm(nn.Module):
    """Linear, dropout, add, normalize: what ends both halves of a RoBERTa layer."""

    def __init__(self, n_in: int, d: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, d)
        self.LayerNorm = nn.LayerNorm(d, eps)
        self.dropout = nn.Dropout(dropout)


class Dense(nn.Module):
    """A linear layer called `dense`."""

    def __init__(self, d: int, f: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d, f)


class RobertaAttention(nn.Module):
    """`attention` of a RoBERTa layer: `self` and `output`."""

    def __init__(self, inner: RobertaSelf, output: DenseNorm) -> None:
        super().__init__()
        self.self = inner
        self.output = output


class PostNormLayer(nn.Module):
    """One layer of RoBERTa: transform, add, normalize."""

    def __init__(
        self,
        d: int,
        f: int,
        heads: int,
        activation: str,
        eps: float,
        *,
        kind: str,
        positions: int,
        attention_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        inner = RobertaSelf(d, heads, attention_dropout, kind, positions)
        self.attention = RobertaAttention(inner, DenseNorm(d, d, eps, dropout))
        self.intermediate = Dense(d, f)
        self.output = DenseNorm(f, d, eps, dropout)
        self.mlp = Mlp(activation)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        head_mask: Tensor | None,
        look: Look,
        kept: Tensor | None = None,
    ) -> Tensor:
        half = self.attention.output
        y = half.dense(self.attention.self.attend(x, mask, causal, head_mask, look, kept))
        look("attention", y)
        x = x if kept is None else at(x, kept)
        x = half.LayerNorm(x + half.dropout(y))
        look("layer_norm1", x)
        y = self.mlp(x, self.intermediate.dense, self.output.dense, look)
        look("fc2", y)
        return self.output.LayerNorm(x + self.output.dropout(y))

    def fold_quick_gelu(self) -> None:
        self.mlp.fold_quick_gelu(self.intermediate.dense, self.output.dense)
