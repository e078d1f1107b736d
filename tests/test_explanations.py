"""Explanations: against the published rule in torch, against what must hold, and against chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import minclip
from minclip import explanations, gradients
from minclip.contrastive import unit
from minclip.errors import CheckpointError, ImageError
from minclip.explanations import METHODS, coloured, deletion_insertion, explain, gathered, pieces, surgery
from minclip.gradients import loss as backwards
from minclip.gradients.passes import forward
from minclip.model import Model
from minclip.testing.gradients import pair_cases, reference
from minclip.testing.strategies import configs
from minclip_torch import gradients as peer
from minclip_torch.backend import load_weights
from minclip_torch.layers import Look
from minclip_torch.modules import Clip

PICTURES = Path(minclip.__file__).parent / "bundled" / "pictures"
bundled = pytest.mark.parametrize("name", ["mini-clip", "mini-altclip", "mini-metaclip-2"])
LESS_CLEAR = "its weights of 2026-11-30 fall short: 0.14 apart, deletion 0.82 of chance; README tells"
well_apart = pytest.mark.parametrize(
    "name",
    [
        "mini-clip",
        "mini-altclip",
        pytest.param("mini-metaclip-2", marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=LESS_CLEAR)),
    ],
)
PAIRS = (("dog", "rocket"), ("rocket", "dog"), ("fish", "umbrella"))


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: minclip.load(name) for name in ("mini-clip", "mini-altclip", "mini-metaclip-2")}


def two(left: str, right: str, side: int = 128) -> Image.Image:
    """Two of the bundled drawings side by side on white."""
    canvas = Image.new("RGBA", (2 * side, 2 * side), "white")
    for x, name in ((0, left), (side, right)):
        with Image.open(PICTURES / f"{name}.png") as picture:
            canvas.alpha_composite(picture.convert("RGBA").resize((side, side)), (x, side // 2))
    return canvas.convert("RGB")


def right_share(found: np.ndarray) -> float:
    """How much of a map's relevance lies on the right half."""
    return float(found[:, found.shape[1] // 2 :].sum() / found.sum())


# --- what a map shows ----------------------------------------------------------------------------------------------


@bundled
def test_of_two_things_each_label_lights_up_its_own(name: str, models: dict[str, Model]) -> None:
    for left, right in PAIRS:
        one, other = explain(two(left, right), [left, right], model=models[name])
        assert right_share(one.map) < 0.5 < right_share(other.map), (left, right)


@well_apart
def test_the_maps_of_two_things_lie_well_apart(name: str, models: dict[str, Model]) -> None:
    for left, right in PAIRS:
        one, other = explain(two(left, right), [left, right], model=models[name])
        assert right_share(other.map) - right_share(one.map) > 0.15, (left, right)


@bundled
def test_a_contrast_separates_them_further_on_average(name: str, models: dict[str, Model]) -> None:
    plain, held = [], []
    for left, right in (("dog", "rocket"), ("rocket", "dog"), ("fish", "umbrella"), ("guitar", "apple")):
        picture = two(left, right)
        one, other = explain(picture, [left, right], model=models[name])
        plain.append(right_share(other.map) - right_share(one.map))
        (one,) = explain(picture, left, model=models[name], against=right)
        (other,) = explain(picture, right, model=models[name], against=left)
        held.append(right_share(other.map) - right_share(one.map))
    assert np.mean(held) > np.mean(plain) > 0.2


@well_apart
def test_deleting_by_the_default_map_costs_a_fifth_more_than_by_chance(name: str, models: dict[str, Model]) -> None:
    model, rng = models[name], np.random.default_rng(0)
    names = ("apple", "bicycle", "dog", "fish", "guitar", "rocket", "snowman", "umbrella")
    found, chance = [], []
    for label in names:
        picture = PICTURES / f"{label}.png"
        found.append(deletion_insertion(model, picture, label, explain(picture, label, model=model)[0].map, steps=8))
        chance.append(deletion_insertion(model, picture, label, rng.random((8, 8)), steps=8))
    deletion, insertion = np.mean(found, axis=0) / np.mean(chance, axis=0)
    assert deletion < 0.8
    assert insertion > 1


def test_areas_are_of_the_cosine_from_the_whole_picture_to_none(models: dict[str, Model]) -> None:
    """With two points: the mean of the whole and the empty picture's cosines, whatever the map."""
    model, picture = models["mini-clip"], PICTURES / "dog.png"
    empty = Image.new("RGB", (64, 64), "white")
    both = model.encode_image([picture, empty]) @ model.encode_text("dog")[0]
    areas = deletion_insertion(model, picture, "dog", np.arange(64.0).reshape(8, 8), steps=1)
    np.testing.assert_allclose(areas, [both.mean()] * 2, atol=1e-6)


# --- the methods ---------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=20)
def test_relevance_is_the_published_rule(data: st.DataObject) -> None:
    """R = R + mean over heads of (gradient * attention)+ R from the start layer on, written out with autograd."""
    case = data.draw(pair_cases(configs()))
    start = data.draw(st.sampled_from([0, -1]))
    made = Clip(case.model.config)
    load_weights(made, case.model.weights)
    made = made.double().eval().requires_grad_()
    maps: list[torch.Tensor] = []

    def keep(name: str, value: torch.Tensor) -> None:
        if name.endswith(".probabilities"):
            value.retain_grad()
            maps.append(value)

    image, text = peer.embed(made, case.inputs, Look(keep, explicit=True))
    (image * text).sum().backward()
    model = reference(case.model)
    w = gradients.whole(model)
    passes = [forward(tower, w, model.config, case.inputs) for tower in ("vision", "text")]
    embeds = [unit(one.embeds) for one in passes]
    layers = case.model.config.vision_config.num_hidden_layers
    for run, towards, own in zip(passes, reversed(embeds), (maps[:layers], maps[layers:]), strict=True):
        t = own[0].shape[-1]
        relevance = torch.eye(t, dtype=torch.float64).expand(len(run.embeds), t, t)
        for attention in own[start:]:
            relevance = relevance + (attention.grad * attention).clamp(min=0).mean(dim=1) @ relevance
        rows = np.arange(len(run.embeds)), run.pooling_weights().argmax(axis=1)
        expected = (relevance.detach().numpy() - np.eye(t))[rows]
        found = gathered(run, backwards.unit(towards, run.embeds), "relevance", start)
        np.testing.assert_allclose(found, expected, atol=1e-9 * max(1.0, expected.max()))


@bundled
def test_rollout_is_the_product_of_halved_attentions(name: str, models: dict[str, Model]) -> None:
    model = models[name]
    inputs = model.processor(images=PICTURES / "dog.png", text="dog")
    maps = model(**inputs, output_attentions=True).vision_model_output.attentions
    product = np.eye(65)
    for one in maps:
        product = (one[0].mean(axis=0) + np.eye(65)) / 2 @ product
    found = explain(PICTURES / "dog.png", ["dog", "rocket"], model=model, method="rollout")
    for one in found:
        np.testing.assert_allclose(one.map.ravel(), product[0, 1:], atol=1e-6)
    last = explain(PICTURES / "dog.png", "dog", model=model, method="attention")[0]
    np.testing.assert_allclose(last.map.ravel(), maps[-1][0].mean(axis=0)[0, 1:], atol=1e-6)


def test_surgery_of_one_text_against_another_is_the_other_way_round_the_contrary(models: dict[str, Model]) -> None:
    model = models["mini-clip"]
    w = gradients.whole(model)
    run = forward("vision", w, model.config, model.processor(images=PICTURES / "dog.png"))
    text = model.encode_text(["dog", "cat"])
    maps = surgery(run, w, text, None)
    assert maps.shape == (2, 64)
    np.testing.assert_allclose(maps.min(axis=1), 0, atol=1e-7)
    lone = surgery(run, w, text[:1], text[1])
    both = surgery(run, w, text[1:], text[0])
    np.testing.assert_allclose(
        lone + both, (lone + both).mean(), atol=1e-5
    )  # what speaks for one speaks against the other


@bundled
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_maps_and_tokens_of_every_family(name: str, method: str, models: dict[str, Model]) -> None:
    model = models[name]
    texts = ["a dog", "собака", "a drawing of 火箭"]
    found = explain(two("dog", "rocket"), texts, model=model, method=method)
    cosines = model.encode_text(texts) @ model.encode_image(two("dog", "rocket"))[0]
    for one, text, cosine in zip(found, texts, cosines, strict=True):
        assert one.map.shape == (8, 8)
        assert (one.map >= 0).all()
        assert np.isfinite(one.map).all()
        assert one.map.max() > 0
        assert one.score == pytest.approx(float(cosine), abs=1e-5)
        assert "".join(characters for characters, _ in one.tokens).replace(" ", "") == text.replace(" ", "")
        shares = [share for _, share in one.tokens]
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1, abs=1e-6) or sum(shares) == 0


def test_torch_and_half_precision_checkpoints_are_explained_alike(models: dict[str, Model]) -> None:
    """The bundled checkpoints are stored in float16."""
    expected = explain(PICTURES / "dog.png", "dog", model=models["mini-clip"])[0]
    model = minclip.load("mini-clip", backend="torch", device="cpu")
    found = explain(PICTURES / "dog.png", "dog", model=model)[0]
    np.testing.assert_allclose(found.map, expected.map, atol=1e-6)
    assert found.score == pytest.approx(expected.score, abs=1e-6)


def test_a_contrast_scores_the_difference_of_the_cosines(models: dict[str, Model]) -> None:
    model, picture = models["mini-clip"], two("dog", "rocket")
    dog, rocket = explain(picture, ["dog", "rocket"], model=model)
    for method in ("relevance", "surgery"):
        (found,) = explain(picture, "dog", model=model, against="rocket", method=method)
        assert found.score == pytest.approx(dog.score - rocket.score, abs=1e-6)


def test_one_text_is_explained_as_among_others(models: dict[str, Model]) -> None:
    model, picture = models["mini-altclip"], two("dog", "rocket")
    among = explain(picture, ["a rocket", "dog", "guitar and fish"], model=model)[1]
    alone = explain(picture, "dog", model=model)[0]
    np.testing.assert_allclose(alone.map, among.map, atol=1e-5)
    assert [c for c, _ in alone.tokens] == [c for c, _ in among.tokens]


# --- tokens and colours --------------------------------------------------------------------------------------------


@bundled
def test_letters_spread_over_tokens_stand_together(name: str, models: dict[str, Model]) -> None:
    tokenizer = models[name].processor.tokenizer
    for text in ("dog", "two words", "火箭", "🚀 rocket", "naïve café"):
        ids = tokenizer(text)["input_ids"][0]
        found = pieces(tokenizer, ids[1:-1], np.ones(len(ids) - 2))
        assert all("\N{REPLACEMENT CHARACTER}" not in characters for characters, _ in found)
        assert "".join(c for c, _ in found) == tokenizer.decode(ids[1:-1])
        assert sum(share for _, share in found) == pytest.approx(1)
        assert all(characters.strip() for characters, _ in found)


def test_colours_get_darker_evenly() -> None:
    """Light and dark alone tell the levels apart, whatever colours an eye can see."""
    rgb = coloured(np.linspace(0, 1, 64)).astype(float) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(lightness) < 0).all()
    assert lightness[0] - lightness[-1] > 70


@pytest.mark.parametrize("size", [(64, 64), (30, 70)])
def test_an_overlay_is_dark_where_the_map_is_large(size: tuple[int, int]) -> None:
    found = np.zeros((8, 8))
    found[1, 6] = 1
    drawn = np.asarray(explanations.overlay(Image.new("RGB", size, "white"), found, 128).convert("L"), int)
    assert min(drawn.shape) == 128
    y, x = np.unravel_index(drawn.argmin(), drawn.shape)
    assert (y * 8 // drawn.shape[0], x * 8 // drawn.shape[1]) == (1, 6)
    assert drawn[-1, 0] > 250


# --- bad input -----------------------------------------------------------------------------------------------------


def test_a_truncated_text_is_explained_as_far_as_it_is_read(models: dict[str, Model]) -> None:
    model = models["mini-clip"]
    found = explain(PICTURES / "dog.png", ["dog " * 200, "dog"], model=model)
    assert [one.truncated for one in found] == [True, False]
    assert len(found[0].tokens) == model.processor.context_length - 2


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "labels must be a list of at least one"),
        ([3], {}, "must be texts"),
        ("dog", {"method": "magic"}, "is not one of relevance, rollout, surgery, attention"),
        ("dog", {"method": "rollout", "against": "cat"}, "does not look at the text"),
        ("dog", {"against": 3}, "against must be a text"),
        ("dog", {"start_layer": 7}, "start_layer=7 is not a layer of both towers"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_line(
    texts: object, options: dict[str, object], message: str, models: dict[str, Model]
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        explain(PICTURES / "dog.png", texts, model=models["mini-clip"], **options)
    assert "\n" not in str(caught.value)


def test_an_unreadable_picture_is_named(models: dict[str, Model]) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        explain("nowhere.png", "dog", model=models["mini-clip"])


@pytest.mark.parametrize("kind", ["CLIPForImageClassification", "CLIPVisionModelWithProjection"])
def test_a_model_without_the_text_tower_is_refused_in_a_line(kind: str, models: dict[str, Model]) -> None:
    from dataclasses import replace

    whole = models["mini-clip"]
    config = replace(whole.config, text_config=None, architectures=(kind,), id2label={0: "a", 1: "b"})
    model = Model(config, whole.weights, whole.processor, whole.towers, "lonely")
    with pytest.raises(CheckpointError, match="lonely holds only its vision tower") as caught:
        explain(PICTURES / "dog.png", "dog", model=model)
    assert "\n" not in str(caught.value)
