"""Logits, probabilities and the loss against Transformers and PyTorch, the single-tower heads included."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from peers import (
    CAUSAL,
    EXACT,
    Answer,
    Pair,
    assert_close,
    assert_same_in_both_types,
    canonical,
    draw_pixels,
    draw_text,
    pairs,
    run_peer,
    run_text,
    run_vision,
    seeds,
    thorough,
)

from minclip.config import Config
from minclip.contrastive import contrastive_loss, logits_per_image, probabilities, unit
from minclip.towers import head
from minclip.weights import Weights

finite = st.floats(-100, 100)


def whole_model(model: Pair, text: dict[str, Any], vision: dict[str, Any]) -> tuple[Answer, Answer]:
    """Our answer and the peer's."""
    w = model.weights
    vision = {**vision, "pixel_values": vision["pixel_values"].astype(w.dtype)}
    text_embeds = head("text_projection", run_text(model, **text)[1], w)
    image_embeds = head("visual_projection", run_vision(model, **vision)[1], w)
    assert text_embeds is not None
    assert image_embeds is not None
    found: Answer = {"text_embeds": unit(text_embeds), "image_embeds": unit(image_embeds)}
    logits = logits_per_image(found["image_embeds"], found["text_embeds"], float(w["logit_scale"]))
    found |= {"logits_per_image": logits, "logits_per_text": logits.T}
    if len(text_embeds) == len(image_embeds):
        found["loss"] = w.dtype.type(contrastive_loss(logits))
    output = run_peer(model.peer, **text, **vision, return_loss="loss" in found)
    return found, {name: getattr(output, name) for name in found}


@thorough
@given(st.data(), pairs())
def test_the_whole_model_equals_the_peer_in_float32_and_float64(data: st.DataObject, model: Pair) -> None:
    texts, images = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    text, vision = draw_text(data.draw, model.config, b=texts), draw_pixels(data.draw, model.config, b=images)
    single = whole_model(model, text, vision)
    assert_same_in_both_types(single, whole_model(model.double(), text, vision))


@given(st.data(), pairs())
def test_projected_features_equal_the_peer(data: st.DataObject, model: Pair) -> None:
    model = model.double()
    text, vision = draw_text(data.draw, model.config), draw_pixels(data.draw, model.config)
    vision["pixel_values"] = vision["pixel_values"].astype(np.float64)
    _, pooled = run_text(model, **text)
    expected = run_peer(Call(model.peer, "get_text_features"), **text)
    assert_close(head("text_projection", pooled, model.weights), expected.pooler_output, "text features", EXACT)
    _, pooled = run_vision(model, **vision)
    expected = run_peer(Call(model.peer, "get_image_features"), **vision)
    assert_close(head("visual_projection", pooled, model.weights), expected.pooler_output, "image features", EXACT)


class Call(torch.nn.Module):
    """A method of a model in the place of its forward pass."""

    def __init__(self, model: torch.nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, **inputs: object) -> object:
        return getattr(self.model, self.method)(**inputs)


@given(st.data(), pairs(CAUSAL), st.integers(1, 5))
def test_the_classification_head_equals_the_peer(data: st.DataObject, model: Pair, classes: int) -> None:
    """A linear layer with bias on the mean of the patch tokens, the class token left out."""
    kinds = {
        "clip": transformers.CLIPForImageClassification,
        "metaclip_2": transformers.MetaClip2ForImageClassification,
    }
    peer_config = model.peer.config
    peer_config.num_labels = classes
    peer = kinds[model.config.model_type](peer_config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(0, 0.3)
    peer, w = peer.double(), Weights(canonical(peer), np.float64)
    vision = draw_pixels(data.draw, model.config)
    vision["interpolate_pos_encoding"] = False
    c, side = model.config.vision_config.num_channels, model.config.vision_config.image_size
    vision["pixel_values"] = np.random.default_rng(data.draw(seeds)).standard_normal((2, c, side, side))
    state, _ = run_vision(replace(model, weights=w), **vision)
    logits = head("classifier", state[:, 1:].mean(axis=1), w)
    expected = run_peer(peer, pixel_values=vision["pixel_values"])
    assert_close(logits, expected.logits, "logits", EXACT)


@given(npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite))
def test_unit_vectors_have_length_one_and_keep_their_direction(x: np.ndarray) -> None:
    x = x[np.linalg.norm(x, axis=1) > 1e-3]
    np.testing.assert_allclose(np.linalg.norm(unit(x), axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(unit(x) * np.linalg.norm(x, axis=1, keepdims=True), x, atol=EXACT)
    np.testing.assert_allclose(unit(3 * x), unit(x), atol=1e-12)


@given(st.integers(1, 6).flatmap(lambda b: npst.arrays(np.float64, (b, b), elements=finite)))
def test_the_loss_is_the_mean_cross_entropy_of_rows_and_columns(logits: np.ndarray) -> None:
    rows, target = torch.tensor(logits), torch.arange(len(logits))
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(rows, target) + cross_entropy(rows.T, target)) / 2
    assert contrastive_loss(logits) == pytest.approx(float(expected), abs=1e-10)
    assert contrastive_loss(logits.T) == pytest.approx(float(expected), abs=1e-10)


def test_the_loss_stays_finite_where_a_probability_is_zero() -> None:
    logits = np.array([[-1e4, 1e4], [1e4, -1e4]], np.float32)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert contrastive_loss(logits) == pytest.approx(2e4)


def test_indifferent_logits_cost_the_logarithm_of_the_batch() -> None:
    assert contrastive_loss(np.full((7, 7), 3.0)) == pytest.approx(np.log(7))


def test_a_batch_with_more_texts_than_images_has_no_loss() -> None:
    with pytest.raises(ValueError, match="2 images and 3 texts") as caught:
        contrastive_loss(np.zeros((2, 3)))
    assert "\n" not in str(caught.value)


@given(st.data())
def test_probabilities_sum_to_one_for_each_image(data: st.DataObject) -> None:
    logits = data.draw(npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite))
    shares = probabilities(logits)
    np.testing.assert_allclose(shares, torch.tensor(logits).softmax(1).numpy(), atol=1e-14)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)


def test_an_image_is_most_like_itself() -> None:
    """Cosine 1, times the temperature, is the largest that a logit can be."""
    embeds = unit(np.random.default_rng(0).standard_normal((5, 8)))
    logits = logits_per_image(embeds, embeds, Config().logit_scale_init_value)
    np.testing.assert_allclose(logits.diagonal(), np.exp(2.6592), rtol=1e-12)
    assert (logits.argmax(axis=1) == np.arange(5)).all()
