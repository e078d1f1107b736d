"""`minclip.towers` backwards: from the gradient of the pooled vector, or of the states it is made of, to the inputs.

Letters in shapes: b batch, c channels, t tokens, d width. `p` holds the tensors of the whole checkpoint and collects
their gradients. `note` is called with the gradient of each step under the step's own name (`layers.3.probabilities`),
in the order in which they are computed: from the last layer to the first.
"""

from __future__ import annotations

import numpy as np

from minclip.config import RobertaConfig, TextConfig, VisionConfig
from minclip.gradients.layers import layer_norm, linear, post_norm_block, pre_norm_block
from minclip.gradients.record import Parameters, Steps
from minclip.inputs import ImageInputs, TextInputs
from minclip.layers import Note, causal_mask, padding_mask, silent
from minclip.towers import Pool, cubic_weights, pooling_weights, roberta_positions, under

# --- vision --------------------------------------------------------------------------------------------------------


def vision_tower(
    dpooled: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: VisionConfig,
    inputs: ImageInputs[np.ndarray],
    note: Note = silent,
) -> np.ndarray:
    """From dpooled (b, d) to dpixel_values (b, c, height, width)."""
    p, eps = p.at("vision_model"), config.layer_norm_eps
    last = steps[f"layers.{config.num_hidden_layers - 1}.output"]  # (b, t, d)
    dx = np.zeros((len(dpooled), *last.shape[1:]), last.dtype)
    dx[:, 0] = layer_norm(dpooled, last[:, 0], p, "post_layernorm", eps)  # the patches' last states lead nowhere
    dx = pre_norm_layers(dx, p, steps, config, mask=None, head_mask=None, note=note)
    dx = layer_norm(dx, steps["embeddings"], p, "pre_layrnorm", eps)
    note("embeddings", dx)
    if p.wanted:
        dpositions = dx.sum(axis=0)  # (t, d)
        if inputs.interpolate_pos_encoding:
            height, width = inputs.pixel_values.shape[2:]
            rows, columns = height // config.patch_size, width // config.patch_size
            dpositions = interpolate_positions(dpositions, config.grid, rows, columns)
        p.add("embeddings.position_embedding.weight", dpositions)
        p.add("embeddings.class_embedding", dx[:, 0].sum(axis=0))
    return patch_embeddings(dx[:, 1:], inputs.pixel_values, p, "embeddings.patch_embedding.weight")


def patch_embeddings(dy: np.ndarray, pixel_values: np.ndarray, p: Parameters, name: str) -> np.ndarray:
    """y = the flattened patches times W^T, as in `linear`; dpixels go back to where the patches were cut out.

    dy (b, rows * columns, d), W the tensor `name` (d, c, patch, patch). Returns dpixel_values (b, c, height, width),
    zero in what is left over on the right and at the bottom.
    """
    b, c, height, width = pixel_values.shape
    d, _, patch, _ = p[name].shape
    rows, columns = height // patch, width // patch
    if p.wanted:
        x = pixel_values[:, :, : rows * patch, : columns * patch].reshape(b, c, rows, patch, columns, patch)
        x = x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, c * patch * patch)
        p.add(name, (dy.reshape(-1, d).T @ x).reshape(p[name].shape))
    dx = (dy @ p[name].reshape(d, -1)).reshape(-1, rows, columns, c, patch, patch)
    dpixels = np.zeros((len(dy), c, height, width), dy.dtype)
    cut = dx.transpose(0, 3, 1, 4, 2, 5).reshape(-1, c, rows * patch, columns * patch)
    dpixels[:, :, : rows * patch, : columns * patch] = cut
    return dpixels


def interpolate_positions(dy: np.ndarray, grid: int, rows: int, columns: int) -> np.ndarray:
    """y = down T across^T, so dT = down^T dy across: each learned position gets back what it lent, by its weight.

    dy (1 + rows * columns, d). Returns (1 + grid * grid, d).
    """
    if (rows, columns) == (grid, grid):
        return dy
    down, across = cubic_weights(grid, rows), cubic_weights(grid, columns)
    dtable = np.einsum("yi,xj,yxd->ijd", down, across, dy[1:].reshape(rows, columns, -1), optimize=True)
    return np.concatenate([dy[:1], dtable.reshape(grid * grid, -1).astype(dy.dtype)])


# --- text ----------------------------------------------------------------------------------------------------------


def causal_text_tower(
    dstate: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: TextConfig,
    inputs: TextInputs[np.ndarray],
    note: Note = silent,
) -> np.ndarray:
    """From dstate (b, t, d) to the gradient of the token embeddings (b, t, d)."""
    p = p.at("text_model")
    t = inputs.input_ids.shape[1]
    last = steps[f"layers.{config.num_hidden_layers - 1}.output"]  # (b, t, d)
    dx = layer_norm(dstate, last, p, "final_layer_norm", config.layer_norm_eps)
    mask = causal_mask(t)  # (t, t)
    if inputs.attention_mask is not None:
        mask = mask & padding_mask(inputs.attention_mask)  # (b, 1, t, t)
    dx = pre_norm_layers(dx, p, steps, config, mask=mask, head_mask=inputs.head_mask, note=note)
    note("embeddings", dx)
    if p.wanted:
        if inputs.inputs_embeds is None:
            p.add_rows("embeddings.token_embedding.weight", inputs.input_ids, dx)
        positions = np.arange(t) if inputs.position_ids is None else inputs.position_ids
        p.add_rows("embeddings.position_embedding.weight", positions, dx)
    return dx


def pooled_states(dpooled: np.ndarray, pool: Pool, inputs: TextInputs[np.ndarray]) -> np.ndarray:
    """y = sum of a_i x_i:  dx_i = a_i dy, where most a_i are 0 if one token is pooled. (b, d) -> (b, t, d)"""
    weights = pooling_weights(pool, inputs).astype(dpooled.dtype)  # (b, t)
    return weights[:, :, None] * dpooled[:, None, :]


def roberta_text_tower(
    dstate: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: RobertaConfig,
    inputs: TextInputs[np.ndarray],
    note: Note = silent,
) -> np.ndarray:
    """From dstate (b, t, project_dim) to the gradient of the token embeddings (b, t, d)."""
    p, eps = p.at("text_model"), config.layer_norm_eps
    dx = linear(dstate, steps["pre_LN"], p, "transformation")  # (b, t, d)
    dx = layer_norm(dx, steps[f"layers.{config.num_hidden_layers - 1}.output"], p, "pre_LN", eps)
    mask = None if inputs.attention_mask is None else padding_mask(inputs.attention_mask)
    relative = None if config.position_embedding_type == "absolute" else config.position_embedding_type
    for i in reversed(range(config.num_hidden_layers)):
        layer, factors = p.at(f"roberta.encoder.layer.{i}"), None if inputs.head_mask is None else inputs.head_mask[i]
        noted, x, note_layer = steps.at(f"layers.{i}"), entering(steps, i), under(note, f"layers.{i}")
        note(f"layers.{i}.output", dx)
        dx = post_norm_block(dx, x, layer, noted, config.hidden_act, eps, mask, relative, factors, note_layer)
    note("layers.input", dx)

    e, ids = p.at("roberta.embeddings"), inputs.input_ids  # what entered the first norm is not noted: it is a sum
    types = np.zeros_like(ids) if inputs.token_type_ids is None else inputs.token_type_ids
    tables = {"token_type_embeddings.weight": types}
    if inputs.inputs_embeds is None:
        tables["word_embeddings.weight"] = ids
    if relative is None:
        counted = roberta_positions(ids, config.pad_token_id)
        tables["position_embeddings.weight"] = counted if inputs.position_ids is None else inputs.position_ids
    x = sum_of_rows(e, tables, inputs.inputs_embeds)  # (b, t, d)
    dx = layer_norm(dx, x, e, "LayerNorm", eps)
    if p.wanted:
        for name, rows in tables.items():
            e.add_rows(name, rows, dx)
    return dx


def sum_of_rows(e: Parameters, tables: dict[str, np.ndarray], further: np.ndarray | None) -> np.ndarray:
    """The rows looked up in each table, and `further`, added up: (b, t, d)."""
    total = np.zeros(1, e.weights.dtype) if further is None else further
    for name, rows in tables.items():
        total = total + e.weights.rows(name, rows)
    return total


# --- both ----------------------------------------------------------------------------------------------------------


def pre_norm_layers(
    dx: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: TextConfig | VisionConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    note: Note,
) -> np.ndarray:
    """All layers of one of CLIP's towers, the last one first. dx (b, t, d), result likewise."""
    activation, eps = config.hidden_act, config.layer_norm_eps
    for i in reversed(range(config.num_hidden_layers)):
        layer, factors = p.at(f"encoder.layers.{i}"), None if head_mask is None else head_mask[i]
        noted, x, note_layer = steps.at(f"layers.{i}"), entering(steps, i), under(note, f"layers.{i}")
        note(f"layers.{i}.output", dx)
        dx = pre_norm_block(dx, x, layer, noted, activation, eps, mask, factors, note_layer)
    note("layers.input", dx)
    return dx


def entering(steps: Steps, layer: int) -> np.ndarray:
    """What entered a layer (b, t, d)."""
    return steps["layers.input" if layer == 0 else f"layers.{layer - 1}.output"]


def head(dy: np.ndarray, name: str, x: np.ndarray, p: Parameters) -> np.ndarray:
    """A linear head of x (b, d): `linear`. dy (b, p), returns dx (b, d)."""
    return linear(dy, x, p, name)
