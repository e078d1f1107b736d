"""The towers: pixels or tokens in, hidden states and one pooled vector each out.

Letters in shapes: b batch, c channels, t tokens, d width, p width of the shared space. `w` holds the tensors of the
whole checkpoint under the names that Transformers gives them (`vision_model.`, `text_model.`, `visual_projection.`).
`note` receives the name and value of every step (`layers.3.fc1`, ...), in the order of the computation.
What comes in is taken as it is: `minclip.inputs` has checked ids, shapes and sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minclip.config import RobertaConfig, TextConfig, VisionConfig
from minclip.inputs import ImageInputs, TextInputs
from minclip.layers import (
    Note,
    causal_mask,
    layer_norm,
    linear,
    padding_mask,
    post_norm_block,
    pre_norm_block,
    silent,
)
from minclip.weights import Weights

Layers = Callable[..., np.ndarray]
"""What runs all layers of a tower: `pre_norm_layers` or `post_norm_layers` below, or what computes the same by other
means (`minclip.fast`)."""

# --- vision --------------------------------------------------------------------------------------------------------


def vision_tower(
    inputs: ImageInputs[np.ndarray],
    w: Weights,
    config: VisionConfig,
    *,
    layers: Layers | None = None,
    note: Note = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """The vision transformer (Dosovitskiy et al. 2021) with CLIP's extra norm before the first layer.

    Returns the last hidden state (b, t, d), which is not post-normed, and the class token after the post-norm (b, d).
    """
    w = w.at("vision_model")
    x = patch_embeddings(inputs.pixel_values, w["embeddings.patch_embedding.weight"])  # (b, t - 1, d)
    class_token = np.broadcast_to(w["embeddings.class_embedding"], (len(x), 1, x.shape[-1]))
    x = np.concatenate([class_token, x], axis=1)  # (b, t, d)
    positions = w["embeddings.position_embedding.weight"]
    if inputs.interpolate_pos_encoding:
        height, width = inputs.pixel_values.shape[2:]
        positions = interpolate_positions(positions, height // config.patch_size, width // config.patch_size)
    x = x + positions
    note("embeddings", x)
    x = layer_norm(x, w["pre_layrnorm.weight"], w["pre_layrnorm.bias"], config.layer_norm_eps)
    x = (layers or pre_norm_layers)(x, w, config, mask=None, head_mask=None, note=note)
    pooled = layer_norm(x[:, 0], w["post_layernorm.weight"], w["post_layernorm.bias"], config.layer_norm_eps)
    note("pooled", pooled)
    return x, pooled


def patch_embeddings(pixel_values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A convolution whose stride is its width is one product with the flattened patches.

    pixel_values (b, c, height, width), weight (d, c, patch, patch). Returns (b, rows * columns, d), row by row.
    """
    b, c, height, width = pixel_values.shape
    d, _, patch, _ = weight.shape
    rows, columns = height // patch, width // patch
    x = pixel_values[:, :, : rows * patch, : columns * patch].reshape(b, c, rows, patch, columns, patch)
    x = x.transpose(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * patch * patch)
    return linear(x, weight.reshape(d, -1))


def interpolate_positions(positions: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Stretch the learned positions to another grid, bicubically; the class token's position stays as it is.

    positions: (1 + grid * grid, d). Returns (1 + rows * columns, d).
    """
    grid = int((len(positions) - 1) ** 0.5)
    if (rows, columns) == (grid, grid):
        return positions
    table = positions[1:].reshape(grid, grid, -1)
    down, across = cubic_weights(grid, rows), cubic_weights(grid, columns)
    table = np.einsum("yi,xj,ijd->yxd", down, across, table, optimize=True).astype(positions.dtype)
    return np.concatenate([positions[:1], table.reshape(rows * columns, -1)])


def cubic_weights(n_in: int, n_out: int) -> np.ndarray:
    """The matrix (n_out, n_in) of one-dimensional bicubic interpolation (Keys 1981, a = -0.75).

    Half-pixel centres, no antialiasing, the border repeated: what the peers' `interpolate(mode="bicubic")` does.
    """
    a = -0.75
    centre = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    weights = np.zeros((n_out, n_in))
    for offset in (-1, 0, 1, 2):
        tap = np.floor(centre) + offset
        x = np.abs(centre - tap)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        column = np.clip(tap, 0, n_in - 1).astype(int)
        np.add.at(weights, (np.arange(n_out), column), np.where(x <= 1, near, far))
    return weights


# --- text ----------------------------------------------------------------------------------------------------------

Pool = Callable[[np.ndarray, TextInputs[np.ndarray]], np.ndarray]
"""What makes one vector (b, d) of the states (b, t, d) of a text: a sum of the states with weights that depend on the
inputs alone, so that gradients and comparisons can be made from it. See the family's row."""


def pool_end_of_text(x: np.ndarray, inputs: TextInputs[np.ndarray]) -> np.ndarray:
    """The state at the token that ends each text. (b, t, d) -> (b, d)"""
    return x[np.arange(len(x)), inputs.ends]


def pool_first(x: np.ndarray, inputs: TextInputs[np.ndarray]) -> np.ndarray:
    """The state of the first token. (b, t, d) -> (b, d)"""
    return x[:, 0]


def pooling_weights(pool: Pool, inputs: TextInputs[np.ndarray]) -> np.ndarray:
    """How much each token's state counts in the pooled vector, (b, t): pooling is a weighted sum of states."""
    b, t = inputs.input_ids.shape
    return pool(np.broadcast_to(np.eye(t), (b, t, t)), inputs)


def end_of_text(input_ids: np.ndarray, config: TextConfig) -> np.ndarray:
    """Where each text ends: the first end-of-text id, or the largest id in configs of the old convention.

    input_ids (b, t). Returns (b,). Raises ValueError for a row without an end, whose pooled state would mean nothing.
    """
    if config.pools_largest_id:
        return input_ids.argmax(axis=1)
    ends = np.isin(input_ids, config.eos_token_id)
    if not ends.any(axis=1).all():
        row = int(np.flatnonzero(~ends.any(axis=1))[0])
        raise ValueError(
            f"input_ids row {row} has no end-of-text id {config.eos_token_id}, so there is no state to pool; "
            "append it, or encode the text with this checkpoint's own tokenizer"
        )
    return ends.argmax(axis=1)


def causal_text_tower(
    inputs: TextInputs[np.ndarray],
    w: Weights,
    config: TextConfig,
    *,
    pool: Pool,
    layers: Layers | None = None,
    note: Note = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """CLIP's and MetaCLIP 2's text tower: each token sees itself and those before it.

    Returns the normed last hidden state (b, t, d) and what `pool` makes of it (b, d).
    """
    w = w.at("text_model")
    ids, t = inputs.input_ids, inputs.input_ids.shape[1]
    tokens = inputs.inputs_embeds
    if tokens is None:
        tokens = w.rows("embeddings.token_embedding.weight", ids)  # (b, t, d)
    positions = np.arange(t) if inputs.position_ids is None else inputs.position_ids
    x = tokens + w.rows("embeddings.position_embedding.weight", positions)
    note("embeddings", x)
    mask = causal_mask(t)  # (t, t)
    if inputs.attention_mask is not None:
        mask = mask & padding_mask(inputs.attention_mask)  # (b, 1, t, t)
    x = (layers or pre_norm_layers)(x, w, config, mask=mask, head_mask=inputs.head_mask, note=note)
    x = layer_norm(x, w["final_layer_norm.weight"], w["final_layer_norm.bias"], config.layer_norm_eps)
    pooled = pool(x, inputs)
    note("pooled", pooled)
    return x, pooled


def roberta_text_tower(
    inputs: TextInputs[np.ndarray],
    w: Weights,
    config: RobertaConfig,
    *,
    pool: Pool,
    layers: Layers | None = None,
    note: Note = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """AltCLIP's text tower (Chen et al. 2022): XLM-R, every token sees every other, then a step into CLIP's text space.

    Returns the transformed states (b, t, project_dim) and what `pool` makes of them (b, project_dim).
    """
    w, eps = w.at("text_model"), config.layer_norm_eps
    e, ids = w.at("roberta.embeddings"), inputs.input_ids
    tokens = e.rows("word_embeddings.weight", ids) if inputs.inputs_embeds is None else inputs.inputs_embeds
    types = np.zeros_like(ids) if inputs.token_type_ids is None else inputs.token_type_ids
    x = tokens + e.rows("token_type_embeddings.weight", types)  # (b, t, d)
    if config.position_embedding_type == "absolute":
        positions = roberta_positions(ids, config.pad_token_id) if inputs.position_ids is None else inputs.position_ids
        x = x + e.rows("position_embeddings.weight", positions)
    x = layer_norm(x, e["LayerNorm.weight"], e["LayerNorm.bias"], eps)
    note("embeddings", x)
    mask = None if inputs.attention_mask is None else padding_mask(inputs.attention_mask)
    x = (layers or post_norm_layers)(x, w, config, mask=mask, head_mask=inputs.head_mask, note=note)
    x = layer_norm(x, w["pre_LN.weight"], w["pre_LN.bias"], eps)
    note("pre_LN", x)
    x = linear(x, w["transformation.weight"], w["transformation.bias"])  # (b, t, project_dim)
    pooled = pool(x, inputs)
    note("pooled", pooled)
    return x, pooled


def roberta_positions(input_ids: np.ndarray, pad_token_id: int) -> np.ndarray:
    """Tokens numbered from pad_token_id + 1, padding left out of the count and given pad_token_id. (b, t) -> (b, t)"""
    tokens = input_ids != pad_token_id
    return np.cumsum(tokens, axis=1) * tokens + pad_token_id


# --- both ----------------------------------------------------------------------------------------------------------


def pre_norm_layers(
    x: np.ndarray,
    w: Weights,
    config: TextConfig | VisionConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    note: Note,
) -> np.ndarray:
    """All layers of one of CLIP's towers. x (b, t, d), result likewise."""
    heads, activation, eps = config.num_attention_heads, config.hidden_act, config.layer_norm_eps
    note("layers.input", x)
    for i in range(config.num_hidden_layers):
        layer, note_layer = w.at(f"encoder.layers.{i}"), under(note, f"layers.{i}")
        factors = None if head_mask is None else head_mask[i]
        x = pre_norm_block(x, layer, heads, activation, eps, mask, factors, note_layer)
        note_layer("output", x)
    return x


def post_norm_layers(
    x: np.ndarray,
    w: Weights,
    config: RobertaConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    note: Note,
) -> np.ndarray:
    """All layers of RoBERTa. x (b, t, d), result likewise."""
    heads, activation, eps = config.num_attention_heads, config.hidden_act, config.layer_norm_eps
    relative = None if config.position_embedding_type == "absolute" else config.position_embedding_type
    note("layers.input", x)
    for i in range(config.num_hidden_layers):
        layer, note_layer = w.at(f"roberta.encoder.layer.{i}"), under(note, f"layers.{i}")
        factors = None if head_mask is None else head_mask[i]
        x = post_norm_block(x, layer, heads, activation, eps, mask, relative, factors, note_layer)
        note_layer("output", x)
    return x


def under(note: Note, prefix: str) -> Note:
    """A note that puts `prefix.` before the names."""
    return note if note is silent else lambda name, value: note(f"{prefix}.{name}", value)


def head(name: str, x: np.ndarray, w: Weights) -> np.ndarray | None:
    """A linear head (`text_projection`, `visual_projection`, `classifier`) of x (b, d), or None where there is none."""
    if f"{name}.weight" not in w:
        return None
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))
