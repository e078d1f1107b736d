"""Full-size architectures with random weights against Transformers, once each: `pytest -m full_size`."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from skimage import data

import minclip

pytestmark = pytest.mark.full_size
transformers.logging.disable_progress_bar()

FILES = Path(__file__).parents[2] / "shared" / "data" / "clip-vit-base-patch32"
needs_files = pytest.mark.skipif(not FILES.exists(), reason="CLIP's tokenizer files are not beside this repository")
LABELS = ["a cat", "an astronaut in an orange suit", "a rocket"]
LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


def saved(folder: Path, config: Any) -> Any:
    """A checkpoint folder as Transformers writes it, with CLIP's tokenizer; the peer itself, in eager attention."""
    torch.manual_seed(0)
    peer = transformers.CLIPModel(config).eval()
    peer.save_pretrained(folder)
    for path in FILES.iterdir():
        if path.name != "config.json":
            shutil.copy(path, folder)
    if config.vision_config.image_size != 224:
        side = config.vision_config.image_size
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        processor.save_pretrained(folder)
    peer.set_attn_implementation("eager")
    return peer


def scaled(found: np.ndarray, expected: torch.Tensor) -> float:
    """Largest error relative to the largest number, at least 1."""
    return float(np.abs(found - expected.numpy()).max() / max(1.0, float(expected.abs().max())))


@needs_files
@pytest.mark.parametrize("size", ["ViT-B/32", "ViT-L/14-336"])
def test_every_output_is_the_peers(size: str, tmp_path: Path) -> None:
    config = transformers.CLIPConfig.from_pretrained(FILES)
    if size == "ViT-L/14-336":
        config = transformers.CLIPConfig(text_config=LARGE_TEXT, vision_config=LARGE_VISION, projection_dim=768)
    peer = saved(tmp_path, config)
    model = minclip.load(tmp_path)
    inputs = model.processor(text=LABELS[:2], images=[data.astronaut(), data.coffee()])
    record = {"output_hidden_states": True, "output_attentions": True, "return_loss": True}
    with torch.inference_mode():
        expected = peer(**{name: torch.from_numpy(value) for name, value in inputs.items()}, **record)
    found = model(**inputs, **record)
    assert found.loss == pytest.approx(float(expected.loss), abs=2e-5)
    for name in ("image_embeds", "text_embeds", "logits_per_image"):
        assert scaled(getattr(found, name), getattr(expected, name)) < 2e-5, name
    for tower in ("vision_model_output", "text_model_output"):
        ours, theirs = getattr(found, tower), getattr(expected, tower)
        for kind in ("hidden_states", "attentions"):
            pairs = zip(getattr(ours, kind), getattr(theirs, kind), strict=True)
            worst = [scaled(a, b) for a, b in pairs]
            assert max(worst) < 2e-5, (tower, kind, worst)
    del peer, expected
    gc.collect()
    fast = minclip.load(tmp_path, backend="torch", device="cpu")
    np.testing.assert_allclose(fast.get_image_features(**inputs), model.get_image_features(**inputs), atol=2e-4)
    np.testing.assert_allclose(fast(**inputs).image_embeds, found.image_embeds, atol=2e-5)
    np.testing.assert_allclose(fast(**inputs).text_embeds, found.text_embeds, atol=2e-5)


@needs_files
def test_a_photograph_is_ranked_as_the_peers_pipeline_ranks_it(tmp_path: Path) -> None:
    saved(tmp_path, transformers.CLIPConfig.from_pretrained(FILES))
    picture = Image.fromarray(data.astronaut())
    pipeline = transformers.pipeline("zero-shot-image-classification", model=str(tmp_path))
    form = "This is a photo of {}."
    expected = pipeline(picture, candidate_labels=LABELS, hypothesis_template=form)
    for backend in ("numpy", "torch"):
        found = minclip.zero_shot(picture, LABELS, model=tmp_path, template=form, backend=backend)
        assert [p.label for p in found] == [p["label"] for p in expected]
        np.testing.assert_allclose([p.score for p in found], [p["score"] for p in expected], atol=1e-5)
