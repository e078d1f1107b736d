"""Random weights are distributed tensor by tensor as Transformers draws them for the same config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from folders import KINDS, PREFIXES, tensors

import minclip
from minclip.config import Config
from minclip.initialization import initial_weights

# wide enough for means and deviations to be known to a few percent; every factor differs from the others
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 90, "max_position_embeddings": 40, "initializer_factor": 1.5, "initializer_range": 0.05}
VISION = {**SIZES, "image_size": 40, "patch_size": 8, "initializer_factor": 0.7, "initializer_range": 0.03}


def fresh(kind: str, seed: int = 0) -> Any:
    """A model of Transformers as its constructor leaves it."""
    family, prefix = next(item for item in PREFIXES.items() if kind.startswith(item[1]))
    width = {"project_dim": 48} if family == "altclip" else {"projection_dim": 48}
    config = getattr(transformers, f"{prefix}Config")(
        text_config={**TEXT, **width, "eos_token_id": 2, "bos_token_id": 0},
        vision_config={**VISION, "projection_dim": 48},
        projection_dim=48,
        num_labels=30,
        initializer_factor=0.4,
        logit_scale_init_value=1.25,
    )
    if "TextModel" in kind:
        config = config.text_config
    elif "VisionModel" in kind:
        config = config.vision_config
    torch.manual_seed(seed)
    return getattr(transformers, kind)(config)


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_distributed_as_the_peer_draws_it(kind: str, tmp_path: Path) -> None:
    peer = fresh(kind)
    peer.save_pretrained(tmp_path)
    expected = tensors(peer)
    found = initial_weights(minclip.load(tmp_path).config, seed=1)
    assert set(found) == set(expected)
    for name, theirs in expected.items():
        ours = found[name]
        assert ours.shape == theirs.shape
        if theirs.std() == 0:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            continue
        # five standard errors of a difference: of two means, and of two deviations
        assert abs(ours.mean() - theirs.mean()) <= 5 * theirs.std() * (2 / theirs.size) ** 0.5, name
        assert abs(ours.std() / theirs.std() - 1) <= 5 * theirs.size**-0.5, name
        np.testing.assert_array_equal((ours == 0).all(axis=-1), (theirs == 0).all(axis=-1), err_msg=name)  # padding


@pytest.mark.parametrize("family", PREFIXES)
def test_a_seed_is_a_model(family: str) -> None:
    text = {**TEXT, "hidden_size": 16, "eos_token_id": 2, "bos_token_id": 0}
    vision = {**VISION, "hidden_size": 16}
    config = Config.from_dict({"model_type": family, "text_config": text, "vision_config": vision})
    first, again, other = (initial_weights(config, seed) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    name = "visual_projection.weight"
    assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("family", PREFIXES)
def test_a_model_from_a_config_is_saved_and_opened_by_the_peer(family: str, backend: str, tmp_path: Path) -> None:
    text = {**TEXT, "eos_token_id": 2, "bos_token_id": 0}
    config = Config.from_dict({"model_type": family, "text_config": text, "vision_config": VISION})
    model = minclip.Model.from_config(config, seed=3, backend=backend)
    assert "random weights" in repr(model)
    inputs = {"input_ids": np.array([[0, 5, 2]]), "pixel_values": np.ones((1, 3, 40, 40), np.float32)}
    with pytest.raises(minclip.TokenizerError, match="made from a config and has no tokenizer"):
        model.encode_text("a cat")
    found = model(**inputs)
    model.save(tmp_path)
    peer = getattr(transformers, f"{PREFIXES[family]}Model").from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        expected = peer(**{name: torch.tensor(value) for name, value in inputs.items()})
    np.testing.assert_allclose(found.image_embeds, expected.image_embeds, atol=2e-5)
    np.testing.assert_allclose(found.text_embeds, expected.text_embeds, atol=2e-5)


# --- a new head ----------------------------------------------------------------------------------------------------

NAMES = ["cat", "dog", "an owl", "été"]


@pytest.mark.parametrize("kind", ["CLIPModel", "MetaClip2Model", "CLIPVisionModel", "CLIPForImageClassification"])
def test_a_checkpoint_gets_a_new_head_which_is_saved_and_opened_by_the_peer(kind: str, tmp_path: Path) -> None:
    fresh(kind).save_pretrained(tmp_path / "old")
    model = minclip.load(tmp_path / "old", labels=NAMES)
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    ranking = model.classify(picture)
    assert {prediction.label for prediction in ranking} == set(NAMES)
    assert sum(prediction.score for prediction in ranking) == pytest.approx(1, abs=1e-5)
    model.save(tmp_path / "new")
    assert minclip.load(tmp_path / "new").classify(picture) == ranking
    prefix = kind.removesuffix("Model").removesuffix("Vision").removesuffix("ForImageClassification")
    peer = getattr(transformers, f"{prefix}ForImageClassification").from_pretrained(tmp_path / "new").eval()
    assert peer.config.id2label == dict(enumerate(NAMES))
    pixels = model.processor(images=picture)["pixel_values"]
    with torch.inference_mode():
        expected = peer(torch.from_numpy(pixels)).logits
    np.testing.assert_allclose(model(pixel_values=pixels).logits, expected, atol=2e-5)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "at least one"),
        ("cat", "at least one"),
        (5, "at least one"),
        (["cat", "cat"], "'cat' twice"),
        (["cat", " "], "says nothing"),
        (["cat", 3], "type int"),
        (["cat", ["dog"]], "type list"),
    ],
)
def test_labels_of_a_new_head_are_checked(tmp_path: Path, labels: Any, words: str) -> None:
    fresh("CLIPModel").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        minclip.load(tmp_path, labels=labels)
    assert "\n" not in str(caught.value)


def test_a_text_tower_takes_no_image_head(tmp_path: Path) -> None:
    fresh("CLIPTextModel").save_pretrained(tmp_path)
    with pytest.raises(minclip.CheckpointError, match="no vision tower"):
        minclip.load(tmp_path, labels=NAMES)


def test_weights_under_a_new_head_are_still_watched(tmp_path: Path) -> None:
    fresh("CLIPModel").save_pretrained(tmp_path)
    model = minclip.load(tmp_path, labels=NAMES)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(minclip.CheckpointError, match=r"model\.safetensors was changed"):
        model.classify(np.zeros((9, 9, 3), np.uint8))
