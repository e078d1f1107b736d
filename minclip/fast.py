"""The towers on all cores. What is computed is `minclip.towers`, which is the one to read; tests hold this to it.

Four things make it fast, and none changes an answer by more than rounding:

- A batch is cut by its rows: every thread runs the whole tower for some of the images or texts.
- Where a batch is too small for that, its layers are cut (tensor parallelism, Shoeybi et al. 2019, section 3): every
  thread computes with some of the heads, and some of the feed-forward layer's units; the sum of theirs is the layer's.
  Of the patch embedding, every thread computes some columns.
- Where only the pooled vector is wanted, and it is one token's, the last layer is computed for that token alone.
- Products are cut into small ones, where the linear-algebra library has kernels for such (`minclip.products`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

import numpy as np

from minclip.config import AnyTowerConfig, Config, RobertaConfig, TextConfig, VisionConfig
from minclip.inputs import ImageInputs, TextInputs
from minclip.layers import Note, layer_norm, mlp, multi_head_attention
from minclip.products import Packed, Prepacking, in_blocks
from minclip.threads import Team
from minclip.towers import causal_text_tower, pool_first, pooling_weights, roberta_text_tower, vision_tower
from minclip.weights import Weights, widen

TOKENS = 150  # with fewer for each thread, layers are cut: reading all weights for a few rows costs too much
MOST_TOKENS = 1024  # for a thread at a time: what lies between two steps then stays in its cache
SMALL = 4e8  # multiplications of a run that one thread does about as soon as several that have to be woken
SMALL_PACKED = 6.5e8  # the same with packed weights, where they take less time

Pooled = tuple[np.ndarray, np.ndarray]
"""States (b, t, d) and pooled vectors (b, d), as the towers return them; the states of one token each, (b, 1, d), where
only what is pooled was asked for."""


def vision(
    inputs: ImageInputs[np.ndarray], weights: Prepacking, config: VisionConfig, team: Team, *, pooled_only: bool = False
) -> Pooled:
    """`vision_tower` on all cores."""
    w = weights.for_run(team)
    b, _, height, width = inputs.pixel_values.shape
    tokens = 1 + (height // config.patch_size) * (width // config.patch_size)

    def some(rows: slice, team: Team) -> Pooled:
        kept = np.zeros(rows.stop - rows.start, int) if pooled_only else None  # the class token
        ours = _among(team, w, "vision_model.embeddings.patch_embedding.weight")
        return vision_tower(inputs.rows(rows), ours, config, layers=partial(pre_norm_layers, team=team, kept=kept))

    return _by_rows(some, b, tokens, config, team, SMALL_PACKED if weights.wanted else SMALL)


def text(
    inputs: TextInputs[np.ndarray], weights: Prepacking, config: Config, team: Team, *, pooled_only: bool = False
) -> Pooled:
    """The family's text tower on all cores. One that is not known here is cut by rows alone."""
    family, text_config = config.family, config.text_config
    assert text_config is not None
    layers = LAYERS.get(family.text_tower)
    w = weights.weights if layers is None else weights.for_run(team)
    absolute = getattr(text_config, "position_embedding_type", "absolute") == "absolute"  # else all queries are needed
    kept = pooled_tokens(pooling_weights(family.pool, inputs)) if pooled_only and layers and absolute else None

    def some(rows: slice, team: Team) -> Pooled:
        part = inputs.rows(rows)
        if layers is None:
            return family.text_tower(part, w, text_config, pool=family.pool)
        ours = None if kept is None else kept[rows]
        pool = family.pool if ours is None else pool_first
        return family.text_tower(part, w, text_config, pool=pool, layers=partial(layers, team=team, kept=ours))

    b, t = inputs.input_ids.shape
    return _by_rows(some, b, t, text_config, team, SMALL_PACKED if weights.wanted else SMALL)


def pooled_tokens(weights: np.ndarray) -> np.ndarray | None:
    """The token (b,) that each text's vector is made of, given `pooling_weights` (b, t); None where several are."""
    return weights.argmax(axis=1) if ((weights != 0).sum(axis=1) == 1).all() and weights.max() == 1 else None


def _by_rows(
    some: Callable[[slice, Team], Pooled], count: int, tokens: int, config: AnyTowerConfig, team: Team, least: float
) -> Pooled:
    """`some` of all rows, cut among the team's threads where that is enough for each; else with the whole team, or for
    less than `least` multiplications with one."""
    layer = config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)
    small = count * tokens * layer * config.num_hidden_layers < least
    with (Team(1) if small else team).at_work() as team:
        if count * tokens < team.size * TOKENS:
            return some(slice(0, count), team)
        alone = Team(1)
        parts = team.map(lambda rows: some(rows, alone), team.split(count, max(1, MOST_TOKENS // tokens)))
    states, pooled = zip(*parts, strict=True)
    return np.concatenate(states), np.concatenate(pooled)


# --- layers, cut among threads -------------------------------------------------------------------------------------


def pre_norm_layers(
    x: np.ndarray,
    w: Weights,
    config: TextConfig | VisionConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    note: Note,
    team: Team,
    kept: np.ndarray | None,
) -> np.ndarray:
    """`minclip.towers.pre_norm_layers`, but for the notes. kept (b,): the only token of each row that is wanted in the
    end; then x (b, t, d) becomes (b, 1, d)."""
    eps, names = config.layer_norm_eps, ("q_proj", "k_proj", "v_proj", "out_proj")
    for i in range(config.num_hidden_layers):
        layer, factors = w.at(f"encoder.layers.{i}"), None if head_mask is None else head_mask[i]
        to = y = layer_norm(x, layer["layer_norm1.weight"], layer["layer_norm1.bias"], eps)
        if kept is not None and i == config.num_hidden_layers - 1:
            x, y, mask = _at(x, kept), _at(y, kept), _mask_at(mask, kept)
        x = x + _attention(y, to, layer.at("self_attn"), names, config, mask, factors, team)
        y = layer_norm(x, layer["layer_norm2.weight"], layer["layer_norm2.bias"], eps)
        x += _mlp(y, layer.at("mlp"), ("fc1", "fc2"), config, team)
    return x


def post_norm_layers(
    x: np.ndarray,
    w: Weights,
    config: RobertaConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    note: Note,
    team: Team,
    kept: np.ndarray | None,
) -> np.ndarray:
    """`minclip.towers.post_norm_layers`, but for the notes. kept: as for `pre_norm_layers`."""
    eps, names = config.layer_norm_eps, ("self.query", "self.key", "self.value", "output.dense")
    for i in range(config.num_hidden_layers):
        layer, factors = w.at(f"roberta.encoder.layer.{i}"), None if head_mask is None else head_mask[i]
        to, norm = x, layer.at("attention.output.LayerNorm")
        if kept is not None and i == config.num_hidden_layers - 1:
            x, mask = _at(x, kept), _mask_at(mask, kept)
        y = _attention(x, to, layer.at("attention"), names, config, mask, factors, team)
        y += x
        x = layer_norm(y, norm["weight"], norm["bias"], eps)
        y = _mlp(x, layer, ("intermediate.dense", "output.dense"), config, team)
        y += x
        x = layer_norm(y, layer["output.LayerNorm.weight"], layer["output.LayerNorm.bias"], eps)
    return x


LAYERS: dict[Callable[..., Pooled], Callable[..., np.ndarray]] = {
    vision_tower: pre_norm_layers,
    causal_text_tower: pre_norm_layers,
    roberta_text_tower: post_norm_layers,
}
"""What runs the layers of each tower here."""


def _attention(
    x: np.ndarray,
    to: np.ndarray,
    w: Weights,
    names: tuple[str, str, str, str],
    config: AnyTowerConfig,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    team: Team,
) -> np.ndarray:
    """Attention, every thread with some of the heads."""
    width = config.hidden_size // config.num_attention_heads
    kind = getattr(config, "position_embedding_type", "absolute")
    relative = None if kind == "absolute" else kind

    def some(heads: slice) -> np.ndarray:
        ours = _Share(w, names[:3], names[3], slice(heads.start * width, heads.stop * width))
        factors = None if head_mask is None else head_mask[heads]
        count = heads.stop - heads.start
        return multi_head_attention(x, ours, names, count, mask, to=to, relative=relative, head_mask=factors)

    return reduce(np.add, team.map(some, team.split(config.num_attention_heads)))


def _mlp(x: np.ndarray, w: Weights, names: tuple[str, str], config: AnyTowerConfig, team: Team) -> np.ndarray:
    """The feed-forward layer, every thread with some of its units."""

    def some(units: slice) -> np.ndarray:
        return mlp(x, _Share(w, names[:1], names[1], units), names, config.hidden_act)

    return reduce(np.add, team.map(some, team.split(config.intermediate_size)))


class _Share(Weights):
    """The weights of some units of a layer: their rows of what leads into them, their columns of what leads out.

    Of the bias of what leads out, the first share has all, the others nothing, so that the shares' sum is the whole.
    """

    def __init__(self, whole: Weights, into: Sequence[str], out: str, units: slice) -> None:
        super().__init__(whole._stored, whole.dtype, whole._prefix, whole.files)
        self._rows = {f"{name}.{kind}" for name in into for kind in ("weight", "bias")}
        self._out, self._units = out, units

    def __getitem__(self, name: str) -> np.ndarray:
        stored, units = self.stored(name), self._units
        into, out = name in self._rows, name == f"{self._out}.weight"
        if isinstance(stored, Packed):
            return stored.rows(units) if into else stored.columns(units)
        if name == f"{self._out}.bias" and units.start:
            return np.zeros(len(stored), self.dtype)
        share = widen(stored[units] if into else stored[:, units] if out else stored, self.dtype)
        return in_blocks(share) if share.ndim == 2 and (into or out) else share


def _among(team: Team, w: Weights, name: str) -> Weights:
    """The weights, with one of them made an `InTeam` where that is of use."""
    stored = w.stored(name)
    packed = stored if isinstance(stored, Packed) else None
    if team.size == 1 and packed is None:
        return w
    whole = (stored if packed is None else packed.stored).view(InTeam)
    whole.team, whole.packed = team, packed
    return w.with_forms({name: whole})


class InTeam(np.ndarray):
    """A weight matrix (f, d), or one that is flattened to that, whose `x @ weight.T` a team shares out."""

    team: Team
    packed: Packed | None

    def __array_finalize__(self, other: np.ndarray | None) -> None:
        if isinstance(other, InTeam):
            self.team, self.packed = other.team, other.packed

    def __rmatmul__(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]  # of the overloads, the one met here
        weight = self.view(np.ndarray).T

        def some(rows: slice) -> np.ndarray:
            share = in_blocks(weight[rows]) if self.packed is None else self.packed.rows(rows)
            return x @ share.T

        return np.concatenate(self.team.map(some, self.team.split(len(weight))), axis=-1)


# --- the last layer, for one token of each row ---------------------------------------------------------------------


def _at(x: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(b, t, d), (b,) -> (b, 1, d)"""
    return x[np.arange(len(x)), kept][:, None]


def _mask_at(mask: np.ndarray | None, kept: np.ndarray) -> np.ndarray | None:
    """The rows of those queries: (t, t), (b, 1, t, t) or (b, 1, 1, t) -> (b, 1, 1, t)"""
    if mask is None or mask.shape[-2] == 1:
        return mask
    t = mask.shape[-1]
    return np.broadcast_to(mask, (len(kept), 1, t, t))[np.arange(len(kept)), :, kept][:, :, None]
