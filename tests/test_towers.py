"""The towers against Transformers on random small models, and against themselves."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peers import (
    CAUSAL,
    EXACT,
    Answer,
    Pair,
    Steps,
    answer_of,
    assert_close,
    assert_same,
    assert_same_in_both_types,
    draw_pixels,
    draw_text,
    pairs,
    run_peer,
    run_text,
    run_vision,
    seeds,
    thorough,
)

from minclip.config import MetaClip2TextConfig, TextConfig, VisionConfig
from minclip.layers import layer_norm
from minclip.towers import (
    cubic_weights,
    end_of_text,
    head,
    interpolate_positions,
    patch_embeddings,
    roberta_positions,
)
from minclip.weights import Weights

# --- the peer ------------------------------------------------------------------------------------------------------


def both(run: Any, tower: str, model: Pair, inputs: dict[str, Any]) -> tuple[Answer, Answer]:
    """Our answer and the peer's."""
    steps = Steps()
    found = steps.answer(*run(model, steps.note, **inputs))
    return found, answer_of(run_peer(getattr(model.peer, tower), **inputs))


@thorough
@given(st.data(), pairs())
def test_text_tower_equals_the_peer_in_float32_and_float64(data: st.DataObject, model: Pair) -> None:
    inputs = draw_text(data.draw, model.config)
    single = both(run_text, "text_model", model, inputs)
    assert_same_in_both_types(single, both(run_text, "text_model", model.double(), inputs))


@thorough
@given(st.data(), pairs())
def test_vision_tower_equals_the_peer_in_float32_and_float64(data: st.DataObject, model: Pair) -> None:
    inputs = draw_pixels(data.draw, model.config)
    single = both(run_vision, "vision_model", model, inputs)
    assert_same_in_both_types(single, both(run_vision, "vision_model", model.double(), inputs))


@given(st.data(), pairs())
def test_text_tower_from_embeddings_equals_the_peer(data: st.DataObject, model: Pair) -> None:
    model, inputs = model.double(), draw_text(data.draw, model.config)
    text, embeddings = model.config.text_config, np.random.default_rng(data.draw(seeds))
    embeds = embeddings.standard_normal((*inputs["input_ids"].shape, text.hidden_size))
    if model.config.model_type in CAUSAL:  # the peer takes no embeddings here: let its token table answer with ours
        model.peer.text_model.embeddings.token_embedding.forward = lambda _: torch.tensor(embeds)
        expected = run_peer(model.peer.text_model, **inputs)
    else:  # the peer takes either ids or embeddings; without ids it cannot know padding, and counts it
        others = {name: value for name, value in inputs.items() if name != "input_ids"}
        expected = run_peer(model.peer.text_model, inputs_embeds=embeds, **others)
        inputs.setdefault("position_ids", np.arange(embeds.shape[1]) + text.pad_token_id + 1)
    steps = Steps()
    found = steps.answer(*run_text(model, steps.note, inputs_embeds=embeds, **inputs))
    assert_same(found, answer_of(expected))


@given(st.data(), pairs())
def test_head_mask_scales_what_each_head_sends_to_the_output_projection(data: st.DataObject, model: Pair) -> None:
    """The peer has no head masks any more, but a head scaled is its columns of the output projection scaled."""
    model, inputs = model.double(), draw_text(data.draw, model.config)
    text = model.config.text_config
    shape = (text.num_hidden_layers, text.num_attention_heads)
    factors = data.draw(st.sampled_from([(0.0, 1.0), (0.0, 0.5, 2.0), (0.0,)]))
    head_mask = np.random.default_rng(data.draw(seeds)).choice(factors, shape)
    for name, parameter in model.peer.text_model.named_parameters():
        if name.endswith(("out_proj.weight", "attention.output.dense.weight")):
            layer = next(int(part) for part in name.split(".") if part.isdigit())
            parameter.data *= torch.tensor(head_mask[layer].repeat(text.hidden_size // shape[1]))
    expected = run_peer(model.peer.text_model, **inputs)
    state, pooled = run_text(model, head_mask=head_mask, **inputs)
    assert_close(state, expected.last_hidden_state, "last_hidden_state", EXACT)
    assert_close(pooled, expected.pooler_output, "pooler_output", EXACT)


# --- relative positions: in no peer of today -----------------------------------------------------------------------


def attention_by_loops(
    steps: Steps, layer: int, table: np.ndarray, kind: str, mask: np.ndarray | None, head_mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and probabilities of one layer, number by number (Huang et al. 2020, methods 2 and 4)."""
    q, k = steps[f"layers.{layer}.q"], steps[f"layers.{layer}.k"]
    (b, h, t, width), n = q.shape, (len(table) + 1) // 2
    scores, probabilities = np.zeros((b, h, t, t)), np.zeros((b, h, t, t))
    for row in range(b):
        for one in range(h):
            for i in range(t):
                for j in range(t):
                    distance = table[i - j + n - 1]
                    product = sum(q[row, one, i, c] * k[row, one, j, c] for c in range(width))
                    product += sum(q[row, one, i, c] * distance[c] for c in range(width))
                    if kind == "relative_key_query":
                        product += sum(k[row, one, j, c] * distance[c] for c in range(width))
                    scores[row, one, i, j] = product / math.sqrt(width)
                seen = [j for j in range(t) if mask is None or mask[row, j]]
                top = max((scores[row, one, i, j] for j in seen), default=0)
                total = sum(math.exp(scores[row, one, i, j] - top) for j in seen)
                factor = 1.0 if head_mask is None else head_mask[layer, one]
                for j in range(t):
                    share = math.exp(scores[row, one, i, j] - top) / total if j in seen else 0.0
                    probabilities[row, one, i, j] = factor * (share if seen else 1 / t)
    return scores, probabilities


@given(st.data(), pairs(("altclip",)), st.sampled_from(["relative_key", "relative_key_query"]))
def test_relative_positions_follow_the_equations(data: st.DataObject, model: Pair, kind: str) -> None:
    text, rng = model.config.text_config, np.random.default_rng(data.draw(seeds))
    inputs = draw_text(data.draw, model.config)
    n, width = text.max_position_embeddings, text.hidden_size // text.num_attention_heads
    stored = {name: model.weights[name].astype(np.float64) for name in model.weights}
    for i in range(text.num_hidden_layers):
        table = rng.standard_normal((2 * n - 1, width))
        stored[f"text_model.roberta.encoder.layer.{i}.attention.self.distance_embedding.weight"] = table
    config = replace(text, position_embedding_type=kind)
    head_mask = data.draw(st.sampled_from([None, rng.random((text.num_hidden_layers, text.num_attention_heads))]))
    steps = Steps()
    relative = replace(model, config=replace(model.config, text_config=config), weights=Weights(stored, np.float64))
    run_text(relative, steps.note, head_mask=head_mask, **inputs)

    e = {name: stored[f"text_model.roberta.embeddings.{name}.weight"] for name in ("word_embeddings", "LayerNorm")}
    types = stored["text_model.roberta.embeddings.token_type_embeddings.weight"]
    tokens = e["word_embeddings"][inputs["input_ids"]] + types[inputs.get("token_type_ids", 0)]
    bias = stored["text_model.roberta.embeddings.LayerNorm.bias"]
    no_positions = layer_norm(tokens, e["LayerNorm"], bias, text.layer_norm_eps)
    assert_close(steps["embeddings"], no_positions, "embeddings without absolute positions", EXACT)
    for i in range(text.num_hidden_layers):
        table = stored[f"text_model.roberta.encoder.layer.{i}.attention.self.distance_embedding.weight"]
        scores, shares = attention_by_loops(steps, i, table, kind, inputs.get("attention_mask"), head_mask)
        assert_close(steps[f"layers.{i}.scores"], scores, f"layer {i}: scores", EXACT)
        assert_close(steps[f"layers.{i}.probabilities"], shares, f"layer {i}: probabilities", EXACT)
        v = steps[f"layers.{i}.v"]
        context = np.stack([[shares[r, h] @ v[r, h] for h in range(v.shape[1])] for r in range(len(v))])
        joined = np.concatenate([context[:, h] for h in range(v.shape[1])], axis=-1)
        assert_close(steps[f"layers.{i}.context"], joined, f"layer {i}: context", EXACT)


# --- invariants ----------------------------------------------------------------------------------------------------


def rows_of(inputs: dict[str, Any], rows: Any, b: int) -> dict[str, Any]:
    """The same inputs for some of the batch; what is one for all stays."""
    return {n: x[rows] if isinstance(x, np.ndarray) and x.ndim > 1 and len(x) == b else x for n, x in inputs.items()}


@given(st.data(), pairs())
def test_a_batch_says_what_its_rows_say_one_by_one_in_any_order(data: st.DataObject, model: Pair) -> None:
    model = model.double()
    for run, inputs in (
        (run_text, draw_text(data.draw, model.config, b=3)),
        (run_vision, draw_pixels(data.draw, model.config, b=3)),
    ):
        state, pooled = run(model, **inputs)
        order = data.draw(st.permutations(range(3)))
        for rows in (order, *([i] for i in range(3))):
            some_state, some_pooled = run(model, **rows_of(inputs, rows, 3))
            assert_close(some_state, state[rows], f"states of rows {rows}", EXACT)
            assert_close(some_pooled, pooled[rows], f"pooled rows {rows}", EXACT)


@given(st.data(), pairs(), st.integers(1, 4))
def test_padding_on_the_right_does_not_reach_the_pooled_output(data: st.DataObject, model: Pair, extra: int) -> None:
    model, inputs = model.double(), draw_text(data.draw, model.config)
    ids, text = inputs["input_ids"], model.config.text_config
    pad = 0 if getattr(text, "pools_largest_id", False) else text.pad_token_id  # the largest id must not be padding
    if model.config.model_type == "altclip":
        ids = np.where(ids == pad, (pad + 1) % text.vocab_size, ids)
    right = ((0, 0), (0, extra))
    padded = {"input_ids": np.pad(ids, right, constant_values=pad), "attention_mask": np.pad(np.ones_like(ids), right)}
    state, pooled = run_text(model, input_ids=ids)
    padded_state, padded_pooled = run_text(model, **padded)
    assert_close(padded_pooled, pooled, "pooled", EXACT)
    assert_close(padded_state[:, : ids.shape[1]], state, "states of the tokens", EXACT)


@given(st.data(), pairs(CAUSAL))
def test_no_token_of_a_causal_tower_sees_a_later_one(data: st.DataObject, model: Pair) -> None:
    model = model.double()
    ids = draw_text(data.draw, model.config)["input_ids"]
    cut = data.draw(st.integers(0, ids.shape[1] - 1))
    changed = ids.copy()
    changed[:, cut:] = (changed[:, cut:] + 1) % model.config.text_config.vocab_size
    changed[:, -1] = model.config.text_config.eos_token_id
    state, _ = run_text(model, input_ids=ids)
    changed_state, _ = run_text(model, input_ids=changed)
    assert_close(changed_state[:, :cut], state[:, :cut], f"states before token {cut}", EXACT)


ATTENTION_STEPS = ["q", "k", "v", "scores", "probabilities", "context", "attention"]
MLP_STEPS = ["fc1", "activation", "fc2"]
PRE_NORM_STEPS = ["layer_norm1", *ATTENTION_STEPS, "layer_norm2", *MLP_STEPS, "output"]
POST_NORM_STEPS = [*ATTENTION_STEPS, "layer_norm1", *MLP_STEPS, "output"]


@given(st.data(), pairs())
def test_note_is_told_every_step_once_and_in_order(data: st.DataObject, model: Pair) -> None:
    post_norm = model.config.model_type == "altclip"
    for run, inputs, config, layer_steps, after in (
        (
            run_text,
            draw_text(data.draw, model.config),
            model.config.text_config,
            POST_NORM_STEPS if post_norm else PRE_NORM_STEPS,
            ["pre_LN", "pooled"] if post_norm else ["pooled"],
        ),
        (run_vision, draw_pixels(data.draw, model.config), model.config.vision_config, PRE_NORM_STEPS, ["pooled"]),
    ):
        names: list[str] = []
        run(model, lambda name, _, names=names: names.append(name), **inputs)
        layers = [f"layers.{i}.{step}" for i in range(config.num_hidden_layers) for step in layer_steps]
        assert names == ["embeddings", "layers.input", *layers, *after]


@given(st.data(), pairs())
def test_nothing_given_or_told_is_changed_afterwards(data: st.DataObject, model: Pair) -> None:
    stored = {name: model.weights[name].copy() for name in model.weights}
    shape = (model.config.text_config.num_hidden_layers, model.config.text_config.num_attention_heads)
    text = {**draw_text(data.draw, model.config), "head_mask": np.full(shape, 0.5, np.float32)}
    for run, inputs in ((run_text, text), (run_vision, draw_pixels(data.draw, model.config))):
        before = {name: np.copy(value) for name, value in inputs.items()}
        steps, as_told = Steps(), {}

        def note(name: str, value: np.ndarray, steps: Steps = steps, as_told: dict = as_told) -> None:
            steps.note(name, value)
            as_told[name] = value.copy()

        run(model, note, **inputs)
        for name, value in steps.items():
            np.testing.assert_array_equal(value, as_told[name], err_msg=f"{name} was changed after it was told")
        for name, value in inputs.items():
            np.testing.assert_array_equal(value, before[name], err_msg=f"input {name} was changed")
    for name, value in stored.items():
        np.testing.assert_array_equal(model.weights[name], value, err_msg=f"weight {name} was changed")


@given(st.data(), pairs())
def test_read_only_weights_and_inputs_are_enough(data: st.DataObject, model: Pair) -> None:
    """Tensors of a memory-mapped file cannot be written to."""
    for name in model.weights:
        model.weights.stored(name).flags.writeable = False
    for run, inputs in (
        (run_text, draw_text(data.draw, model.config)),
        (run_vision, draw_pixels(data.draw, model.config)),
    ):
        for value in inputs.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        run(model, **inputs)


# --- the end of a text ---------------------------------------------------------------------------------------------


def test_pooling_takes_the_first_of_several_end_tokens() -> None:
    ids = np.array([[5, 9, 9, 9], [9, 5, 9, 5]])
    np.testing.assert_array_equal(end_of_text(ids, TextConfig(eos_token_id=9)), [1, 0])


def test_an_old_clip_config_pools_the_first_largest_id_and_metaclip_2_never_does() -> None:
    ids = np.array([[7, 2, 9, 9], [2, 7, 7, 1]])
    np.testing.assert_array_equal(end_of_text(ids, TextConfig(eos_token_id=2)), [2, 1])
    np.testing.assert_array_equal(end_of_text(ids, MetaClip2TextConfig(eos_token_id=2)), [1, 0])


def test_any_of_several_end_ids_ends_a_text() -> None:
    ids = np.array([[5, 9, 3, 9], [5, 4, 3, 9]])
    np.testing.assert_array_equal(end_of_text(ids, TextConfig(eos_token_id=[9, 3])), [1, 2])


@pytest.mark.parametrize("kind", [TextConfig, MetaClip2TextConfig])
def test_a_row_without_an_end_token_is_refused_by_row_and_id(kind: type[TextConfig]) -> None:
    ids = np.array([[5, 9], [5, 5], [9, 5], [5, 5]])
    with pytest.raises(ValueError, match=r"^input_ids row 1 has no end-of-text id 9\b") as caught:
        end_of_text(ids, kind(eos_token_id=9))
    assert "\n" not in str(caught.value)


def test_roberta_numbers_tokens_and_leaves_padding_out_of_the_count() -> None:
    ids = np.array([[0, 5, 1, 6, 2, 1, 1]])
    np.testing.assert_array_equal(roberta_positions(ids, 1), [[2, 3, 1, 4, 5, 1, 1]])


# --- patches and positions -----------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4), seeds)
def test_patch_embeddings_are_a_strided_convolution(patch: int, rest: int, more: int, c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, c, patch * 2 + rest, patch * 3 + more))
    weight = rng.standard_normal((6, c, patch, patch))
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), stride=patch)
    assert_close(patch_embeddings(x, weight), expected.flatten(2).transpose(1, 2), "patches", 1e-12)


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), seeds)
def test_interpolated_positions_equal_torch_bicubic(grid: int, rows: int, columns: int, seed: int) -> None:
    positions = np.random.default_rng(seed).standard_normal((1 + grid * grid, 5))
    table = torch.tensor(positions[1:]).T.reshape(1, 5, grid, grid)
    expected = torch.nn.functional.interpolate(table, size=(rows, columns), mode="bicubic", align_corners=False)
    found = interpolate_positions(positions, rows, columns)
    assert_close(found[1:], expected[0].flatten(1).T, "patches' positions", 1e-12)
    np.testing.assert_array_equal(found[0], positions[0])
    single = interpolate_positions(positions.astype(np.float32), rows, columns)
    assert single.dtype == np.float32
    assert_close(single, found, "float32", 1e-6)


@given(st.integers(1, 30), st.integers(1, 60))
def test_interpolation_keeps_constants(n_in: int, n_out: int) -> None:
    np.testing.assert_allclose(cubic_weights(n_in, n_out).sum(axis=1), 1, atol=1e-12)


def test_positions_of_the_learned_grid_are_left_alone() -> None:
    positions = np.random.default_rng(0).standard_normal((10, 4), np.float32)
    assert interpolate_positions(positions, 3, 3) is positions
    np.testing.assert_array_equal(cubic_weights(7, 7), np.eye(7))


def test_the_grid_is_the_square_root_of_the_positions() -> None:
    assert [VisionConfig(image_size=s, patch_size=p).grid for s, p in ((224, 32), (336, 14), (33, 16))] == [7, 24, 2]


# --- heads ---------------------------------------------------------------------------------------------------------


def test_a_head_that_the_checkpoint_lacks_is_none() -> None:
    assert head("text_projection", np.ones((2, 3), np.float32), Weights({})) is None


def test_a_head_is_linear_with_a_bias_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)
    bare = Weights({"text_projection.weight": weight}, np.float64)
    assert_close(head("text_projection", x, bare), x @ weight.T, "projection", 1e-14)
    classifier = Weights({"classifier.weight": weight, "classifier.bias": bias}, np.float64)
    assert_close(head("classifier", x, classifier), x @ weight.T + bias, "classifier", 1e-14)
