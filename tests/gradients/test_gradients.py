"""The backward pass against torch's autograd, against finite differences, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minclip import gradients
from minclip.backend import NumpyBackend
from minclip.config import FAMILIES, Config
from minclip.errors import CheckpointError
from minclip.gradients import layers as backwards
from minclip.gradients.record import Parameters
from minclip.layers import ACTIVATIONS
from minclip.testing.gradients import (
    GRADIENT_TOLERANCES,
    Reference,
    gradients_agree,
    pair_cases,
    reference,
    towers_agree,
)
from minclip.testing.strategies import (
    Case,
    RandomModel,
    classifiers,
    configs,
    optional_text_inputs,
    single_towers,
    weights,
)
from minclip.weights import Weights
from minclip_torch import gradients as peer
from minclip_torch.backend import load_weights
from minclip_torch.layers import ACTIVATIONS as PEERS_ACTIVATIONS
from minclip_torch.layers import Look
from minclip_torch.modules import Clip

families = pytest.mark.parametrize("family", sorted(FAMILIES))
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def module(model: RandomModel) -> Clip:
    """The model as torch modules in float64."""
    made = Clip(model.config)
    load_weights(made, model.weights)
    return made.double().eval()


# --- against torch -------------------------------------------------------------------------------------------------


@families
@dtypes
@given(st.data())
def test_gradients_of_every_tensor_equal_torchs(family: str, dtype: str, data: st.DataObject) -> None:
    case = data.draw(pair_cases(configs(family), interpolate=data.draw(st.booleans())))
    expected_loss, expected = peer.contrastive(module(case.model), case.model.weights, case.inputs)
    loss, found = gradients.contrastive(reference(case.model, dtype), **case.inputs)
    assert loss == pytest.approx(expected_loss, abs=1e-12 if dtype == "float64" else 2e-4)
    assert all(gradient.dtype == dtype for gradient in found.values())
    gradients_agree(found, expected, GRADIENT_TOLERANCES[dtype])


@families
@given(st.data())
def test_gradients_with_optional_text_inputs_equal_torchs(family: str, data: st.DataObject) -> None:
    """Positions, token types, embeddings in place of ids, and factors of the heads."""
    case = data.draw(pair_cases(configs(family)))
    text = data.draw(optional_text_inputs(case.model.config))
    pixels = np.resize(case.inputs["pixel_values"], (len(text["input_ids"]), *case.inputs["pixel_values"].shape[1:]))
    noise = np.random.default_rng(0).standard_normal(pixels.shape).astype(np.float32)
    inputs = {**text, "pixel_values": pixels + noise}
    _, expected = peer.contrastive(module(case.model), case.model.weights, inputs)
    _, found = gradients.contrastive(reference(case.model), **inputs)
    gradients_agree(found, expected, GRADIENT_TOLERANCES["float64"])


@families
@given(st.data())
def test_gradients_of_cosines_for_pixels_tokens_and_attention_maps_equal_torchs(
    family: str, data: st.DataObject
) -> None:
    case = data.draw(pair_cases(configs(family)))
    made, config = module(case.model), case.model.config
    leaves = {
        "pixel_values": torch.tensor(case.inputs["pixel_values"], dtype=torch.float64, requires_grad=True),
        "inputs_embeds": token_embeddings(made, case.inputs["input_ids"]).detach().requires_grad_(),
    }
    maps: list[torch.Tensor] = []

    def keep(name: str, value: torch.Tensor) -> None:
        if name.endswith(".probabilities"):
            value.retain_grad()
            maps.append(value)

    image, text = peer.embed(made, {**case.inputs, **leaves}, Look(keep, explicit=True))
    cosines = (image * text).sum(dim=-1)
    cosines.sum().backward()
    found = gradients.similarity(reference(case.model), **case.inputs)
    np.testing.assert_allclose(found.cosines, cosines.detach(), atol=1e-12)
    assert config.vision_config is not None
    layers = config.vision_config.num_hidden_layers
    expected = {
        "pixel_values": leaves["pixel_values"].grad,
        "inputs_embeds": leaves["inputs_embeds"].grad,
        **{f"vision {i}": value.grad for i, value in enumerate(maps[:layers])},
        **{f"text {i}": value.grad for i, value in enumerate(maps[layers:])},
    }
    ours = {
        "pixel_values": found.pixel_values,
        "inputs_embeds": found.inputs_embeds,
        **{f"vision {i}": value for i, value in enumerate(found.vision_attentions)},
        **{f"text {i}": value for i, value in enumerate(found.text_attentions)},
    }
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        close(name, gradient, expected[name].numpy())


def token_embeddings(made: Clip, ids: np.ndarray) -> torch.Tensor:
    text = made.text_model
    table = text.roberta.embeddings.word_embeddings if hasattr(text, "roberta") else text.embeddings.token_embedding
    return table(torch.tensor(ids))


def close(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape, name
    scale = max(1e-3, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() <= GRADIENT_TOLERANCES["float64"] * scale, name


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@dtypes
def test_activations_have_torchs_derivatives_far_out_as_well(name: str, dtype: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e30, -300.0, -88.0, 88.0, 300.0, 1e18]]).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    PEERS_ACTIVATIONS[name](leaf).sum().backward()
    with np.errstate(invalid="raise"):
        found = backwards.ACTIVATIONS[name](np.ones_like(x), x)
    assert found.dtype == dtype
    finite = np.isfinite(leaf.grad.numpy())  # torch's own gelu_new is NaN where x^3 overflows
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(found[finite], leaf.grad.numpy()[finite], atol=tolerance, rtol=tolerance)
    assert backwards.ACTIVATIONS.keys() == ACTIVATIONS.keys()


class OffByATouch:
    """Towers whose gradients are the reference's but for one number of one tensor."""

    def __init__(self, model: RandomModel, tensor: str) -> None:
        self.model, self.tensor = model, tensor

    def gradients(self, given_: dict[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        loss, found = gradients.contrastive(reference(self.model), **given_)
        wrong = found[self.tensor].copy()
        wrong.flat[0] += 1e-3 * max(np.abs(gradient).max() for gradient in found.values())
        return loss, {**found, self.tensor: wrong}


@pytest.mark.parametrize("tensor", ["text_projection.weight", "vision_model.embeddings.class_embedding", "logit_scale"])
def test_the_kits_claim_finds_one_wrong_number(tensor: str) -> None:
    model = RandomModel(small().config, 0)
    case = Case(model, inputs(3, 3))
    towers_agree(NumpyBackend().build(model.config, model.weights), case, "float32")  # which has none to be wrong
    with pytest.raises(AssertionError, match=rf"{tensor}: off by"):
        towers_agree(OffByATouch(model, tensor), case, "float32")


# --- against finite differences ------------------------------------------------------------------------------------


@families
@given(st.data())
@settings(max_examples=4)
def test_gradients_say_what_a_small_step_does_to_the_loss(family: str, data: st.DataObject) -> None:
    """Central differences along a random direction in each tensor, in float64."""
    case = data.draw(pair_cases(configs(family)).filter(smooth))
    model = reference(case.model)
    rng, step = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), 1e-5
    _, found = gradients.contrastive(model, **case.inputs)
    tensors = {name: case.model.weights[name].astype(np.float64) for name in case.model.weights}
    top = max(float(np.abs(gradient).max()) for gradient in found.values())
    for name, tensor in tensors.items():
        direction = rng.standard_normal(tensor.shape) * max(1e-3, float(np.abs(tensor).max()))

        def loss(amount: float, name: str = name, moved: Any = direction) -> float:
            shifted = {**tensors, name: tensors[name] + amount * moved}
            return gradients.contrastive(as_float64(case.model.config, shifted), **case.inputs)[0]

        slope = (loss(step) - loss(-step)) / (2 * step)
        assert slope == pytest.approx(float((found[name] * direction).sum()), rel=1e-5, abs=1e-5 * max(1.0, top)), name


def smooth(case: Case) -> bool:
    """Whether finite differences can see: no corners, and no norm of almost nothing."""
    towers = (case.model.config.text_config, case.model.config.vision_config)
    return (
        case.model.temper == "loud"
        and all(t is not None and t.hidden_act not in ("relu", "selu") and t.layer_norm_eps > 1e-7 for t in towers)
        and bool((case.inputs["pixel_values"].std(axis=(1, 2, 3)) > 0.1).all())
    )


def as_float64(config: Config, tensors: dict[str, np.ndarray]) -> Reference:
    w = Weights(tensors, np.float64)
    return Reference(config, w, None)


# --- itself --------------------------------------------------------------------------------------------------------


def small(family: str = "clip", **text: Any) -> Reference:
    sizes = {"num_attention_heads": 3, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2}
    config = Config.from_dict(
        {
            "model_type": family,
            "text_config": {**sizes, "vocab_size": 9, "eos_token_id": 8, "max_position_embeddings": 12, **text},
            "vision_config": {**sizes, "image_size": 8, "patch_size": 4},
            "projection_dim": 6,
        }
    )
    return Reference(config, weights(config, 0), None)


def inputs(images: int, texts: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, 8, (texts, 5))
    ids[:, -1] = 8
    return {"input_ids": ids, "pixel_values": rng.standard_normal((images, 3, 8, 8)).astype(np.float32)}


@families
def test_one_image_meets_every_text_in_one_forward_pass_and_so_does_one_text(family: str) -> None:
    model = small(family)
    for images, texts in ((1, 3), (3, 1)):
        given_ = inputs(images, texts)
        together = gradients.similarity(model, **given_)
        for i in range(3):
            rows = {"pixel_values": min(i, images - 1), "input_ids": min(i, texts - 1)}
            alone = gradients.similarity(model, **{name: given_[name][row : row + 1] for name, row in rows.items()})
            for name in ("cosines", "pixel_values", "inputs_embeds"):
                np.testing.assert_allclose(getattr(together, name)[i], getattr(alone, name)[0], atol=2e-5)
            for name in ("vision_attentions", "text_attentions"):
                for ours, theirs in zip(getattr(together, name), getattr(alone, name), strict=True):
                    np.testing.assert_allclose(ours[i], theirs[0], atol=2e-5)


def test_chosen_pairs_are_the_pairs_of_chosen_rows() -> None:
    model, given_ = small(), inputs(3, 2)
    given_["attention_mask"] = np.ones_like(given_["input_ids"])
    pairs = [(2, 0), (0, 1), (2, 1), (2, 0)]
    found = gradients.similarity(model, pairs=pairs, **given_)
    chosen = {
        "pixel_values": given_["pixel_values"][[i for i, _ in pairs]],
        "input_ids": given_["input_ids"][[j for _, j in pairs]],
    }
    expected = gradients.similarity(model, **chosen)
    np.testing.assert_allclose(found.cosines, expected.cosines, atol=1e-6)
    np.testing.assert_allclose(found.pixel_values, expected.pixel_values, atol=1e-5)
    np.testing.assert_allclose(found.text_attentions[0], expected.text_attentions[0], atol=1e-5)


def test_a_step_along_the_pixels_gradient_raises_the_cosine() -> None:
    model, given_ = small(), inputs(1, 1)
    found = gradients.similarity(model, **given_)
    step = 1e-2 * found.pixel_values / np.abs(found.pixel_values).max()
    nearer = gradients.similarity(model, **{**given_, "pixel_values": given_["pixel_values"] + step})
    assert nearer.cosines[0] > found.cosines[0]


def test_tensors_are_left_as_they_were_and_may_be_read_only() -> None:
    model = small()
    before = {name: model.weights[name].copy() for name in model.weights}
    for name in model.weights:
        model.weights[name].flags.writeable = False
    gradients.contrastive(model, **inputs(3, 3))
    assert all(np.array_equal(model.weights[name], before[name]) for name in before)


def test_half_precision_weights_give_gradients_in_float32() -> None:
    model = small()
    halved = Weights({name: model.weights[name].astype(np.float16) for name in model.weights})
    widened = Weights({name: halved[name] for name in halved})
    _, found = gradients.contrastive(Reference(model.config, halved, None), **inputs(3, 3))
    _, expected = gradients.contrastive(Reference(model.config, widened, None), **inputs(3, 3))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert found["logit_scale"].dtype == np.float32


def test_what_is_used_in_several_places_is_moved_by_all_of_them() -> None:
    p = Parameters(Weights({"table": np.zeros((3, 2), np.float32)}))
    p.add_rows("table", np.array([0, 2, 2]), np.ones((4, 3, 2), np.float32))
    p.add("table", np.full((3, 2), 10.0, np.float32))
    np.testing.assert_array_equal(p.gradients()["table"], [[14, 14], [10, 10], [18, 18]])


# --- refusals ------------------------------------------------------------------------------------------------------


@given(st.one_of(single_towers(), classifiers()))
def test_a_model_without_the_other_tower_is_refused_in_a_line(config: Config) -> None:
    model = Reference(config, weights(config, 0), None, "lonely")
    for call in (gradients.contrastive, gradients.similarity):
        with pytest.raises(CheckpointError, match=r"lonely holds only its (text|vision) tower") as caught:
            call(model, pixel_values=np.zeros((1, 3, 8, 8), np.float32))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "texts", "pairs", "message"),
    [
        (2, 3, None, "2 images and 3 texts make no pairs"),
        (2, 3, [(0, 3)], "text 3, but the texts go from 0 to 2"),
        (2, 3, [(-1, 0)], "image -1"),
        (2, 3, [], "at least one pair"),
        (2, 3, [0, 1], "at least one pair"),
    ],
)
def test_pairs_that_are_none_are_refused_in_a_line(images: int, texts: int, pairs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        gradients.similarity(small(), pairs=pairs, **inputs(images, texts))
    assert "\n" not in str(caught.value)


def test_a_loss_needs_as_many_texts_as_images() -> None:
    with pytest.raises(ValueError, match="2 images and 3 texts"):
        gradients.contrastive(small(), **inputs(2, 3))


@pytest.mark.parametrize("missing", ["input_ids", "pixel_values"])
def test_a_missing_input_is_named(missing: str) -> None:
    given_ = inputs(2, 2)
    del given_[missing]
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        gradients.contrastive(small(), **given_)
