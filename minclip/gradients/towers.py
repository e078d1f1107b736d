"""`minclip.towers` backwards: from the gradient of the pooled vector to those of pixels or tokens.

Letters in shapes: b batch, c channels, t tokens, d width. `p` holds the tensors of the whole checkpoint and collects
their gradients. `note` is told the gradients of steps under the steps' own names (`layers.3.probabilities`), in the
order in which they are computed: from the last layer to the first.
"""

from __future__ import annotations

import numpy as np

from minclip.config import RobertaConfig, TextConfig, VisionConfig
from minclip.gradients.layers import layer_norm, linear, post_norm_block, pre_norm_block
from minclip.gradients.record import Parameters, Steps
from minclip.layers import Note, causal_mask, padding_mask, silent
from minclip.towers import cubic_weights, end_of_text, roberta_positions, under

# --- vision --------------------------------------------------------------------------------------------------------


def vision_tower(
    dpooled: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: VisionConfig,
    pixel_values: np.ndarray,
    *,
    interpolate_pos_encoding: bool = False,
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
        if interpolate_pos_encoding:
            height, width = pixel_values.shape[2:]
            rows, columns = height // config.patch_size, width // config.patch_size
            dpositions = interpolate_positions(dpositions, config.grid, rows, columns)
        p.add("embeddings.position_embedding.weight", dpositions)
        p.add("embeddings.class_embedding", dx[:, 0].sum(axis=0))
    return patch_embeddings(dx[:, 1:], pixel_values, p, "embeddings.patch_embedding.weight")


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
    dpooled: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: TextConfig,
    input_ids: np.ndarray,
    attention_mask: np.ndarray | None = None,
    position_ids: np.ndarray | None = None,
    *,
    inputs_embeds: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """From dpooled (b, d) to the gradient of the token embeddings (b, t, d). Arguments as in the forward pass."""
    p = p.at("text_model")
    t = input_ids.shape[1]
    last = steps[f"layers.{config.num_hidden_layers - 1}.output"]  # (b, t, d)
    dx = np.zeros((len(dpooled), *last.shape[1:]), last.dtype)
    dx[np.arange(len(dx)), end_of_text(input_ids, config)] = dpooled
    dx = layer_norm(dx, last, p, "final_layer_norm", config.layer_norm_eps)
    mask = causal_mask(t)  # (t, t)
    if attention_mask is not None and not attention_mask.all():
        mask = mask & padding_mask(attention_mask)  # (b, 1, t, t)
    dx = pre_norm_layers(dx, p, steps, config, mask=mask, head_mask=head_mask, note=note)
    note("embeddings", dx)
    if p.wanted:
        if inputs_embeds is None:
            p.add_rows("embeddings.token_embedding.weight", input_ids, dx)
        p.add_rows("embeddings.position_embedding.weight", np.arange(t) if position_ids is None else position_ids, dx)
    return dx


def roberta_text_tower(
    dpooled: np.ndarray,
    p: Parameters,
    steps: Steps,
    config: RobertaConfig,
    input_ids: np.ndarray | None,
    attention_mask: np.ndarray | None = None,
    position_ids: np.ndarray | None = None,
    token_type_ids: np.ndarray | None = None,
    *,
    inputs_embeds: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    note: Note = silent,
) -> np.ndarray:
    """From dpooled (b, project_dim) to the gradient of the token embeddings (b, t, d). Arguments as going forwards."""
    p, eps = p.at("text_model"), config.layer_norm_eps
    dx = np.zeros((len(dpooled), *steps["pre_LN"].shape[1:-1], dpooled.shape[-1]), dpooled.dtype)
    dx[:, 0] = dpooled
    dx = linear(dx, steps["pre_LN"], p, "transformation")  # (b, t, d)
    dx = layer_norm(dx, steps[f"layers.{config.num_hidden_layers - 1}.output"], p, "pre_LN", eps)
    mask = None if attention_mask is None or attention_mask.all() else padding_mask(attention_mask)
    relative = None if config.position_embedding_type == "absolute" else config.position_embedding_type
    for i in reversed(range(config.num_hidden_layers)):
        layer, only = p.at(f"roberta.encoder.layer.{i}"), None if head_mask is None else head_mask[i]
        told, x = steps.at(f"layers.{i}"), entering(steps, i)
        note(f"layers.{i}.output", dx)
        dx = post_norm_block(
            dx, x, layer, told, config.hidden_act, eps, mask, relative, only, under(note, f"layers.{i}")
        )
    note("layers.input", dx)

    e = p.at("roberta.embeddings")  # what entered the first norm is not noted: it is a sum of rows
    if input_ids is None:
        assert inputs_embeds is not None
        input_ids = np.full(inputs_embeds.shape[:2], config.pad_token_id + 1)
    tables = {"token_type_embeddings.weight": np.zeros_like(input_ids) if token_type_ids is None else token_type_ids}
    if inputs_embeds is None:
        tables["word_embeddings.weight"] = input_ids
    if relative is None:
        counted = roberta_positions(input_ids, config.pad_token_id)
        tables["position_embeddings.weight"] = counted if position_ids is None else position_ids
    rows = [e.weights.rows(name, ids) for name, ids in tables.items()]
    x = np.sum(rows if inputs_embeds is None else [*rows, inputs_embeds], axis=0)  # (b, t, d)
    dx = layer_norm(dx, x, e, "LayerNorm", eps)
    if p.wanted:
        for name, ids in tables.items():
            e.add_rows(name, ids, dx)
    return dx


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
        layer, only = p.at(f"encoder.layers.{i}"), None if head_mask is None else head_mask[i]
        told, x = steps.at(f"layers.{i}"), entering(steps, i)
        note(f"layers.{i}.output", dx)
        dx = pre_norm_block(dx, x, layer, told, activation, eps, mask, only, under(note, f"layers.{i}"))
    note("layers.input", dx)
    return dx


def entering(steps: Steps, layer: int) -> np.ndarray:
    """What entered a layer (b, t, d)."""
    return steps["layers.input" if layer == 0 else f"layers.{layer - 1}.output"]


def head(dy: np.ndarray, name: str, x: np.ndarray, p: Parameters) -> np.ndarray:
    """A linear head of x (b, d): `linear`. dy (b, p), returns dx (b, d)."""
    return linear(dy, x, p, name)
