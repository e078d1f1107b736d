"""All three families at full size, random weights: labels in five languages on a photograph, ranked as the peer does.

`pytest -m full_size tests/test_full_families.py`; needs about 16 GiB of memory and 8 GiB of disk, and gives them back.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sentencepiece_corpus import train
from skimage import data

import minclip

pytestmark = pytest.mark.full_size
transformers.logging.disable_progress_bar()

CLIP_FILES = Path(__file__).parents[2] / "shared" / "data" / "clip-vit-base-patch32"
LABELS = [
    "a cup of coffee on a wooden table",
    "une tasse de café sur une table en bois",
    "木桌上的一杯咖啡",
    "فنجان قهوة على طاولة خشبية",
    "लकड़ी की मेज पर कॉफी का प्याला",
]
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
HUGE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
CONFIGS = {
    "clip": lambda: transformers.CLIPConfig.from_pretrained(CLIP_FILES),
    "altclip": lambda: transformers.AltCLIPConfig(vision_config={**LARGE, "patch_size": 14}, projection_dim=768),
    "metaclip_2": lambda: transformers.MetaClip2Config(
        text_config={**LARGE, "vocab_size": 901629, "eos_token_id": 2, "bos_token_id": 0, "projection_dim": 1024},
        vision_config={**HUGE, "patch_size": 14, "projection_dim": 1024},
        projection_dim=1024,
    ),
}
MODELS = {"clip": "CLIPModel", "altclip": "AltCLIPModel", "metaclip_2": "MetaClip2Model"}


def random_weights(model: torch.nn.Module) -> None:
    """Weights under which different texts come out different: what Transformers draws for AltCLIP is next to zero."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "roberta" in name and name.endswith("weight") and parameter.ndim == 2:
            parameter.data.normal_(0, 0.04, generator=generator)


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The family's checkpoint folder, as Transformers writes it: weights, tokenizer, image processor."""
    if request.param == "clip" and not CLIP_FILES.exists():
        pytest.skip("CLIP's tokenizer files are not beside this repository")
    torch.manual_seed(0)
    model = getattr(transformers, MODELS[request.param])(CONFIGS[request.param]())
    random_weights(model)
    model.save_pretrained(tmp_path)
    del model
    gc.collect()
    if request.param == "clip":
        for path in CLIP_FILES.iterdir():
            if path.name != "config.json":
                shutil.copy(path, tmp_path)
    else:
        (tmp_path / "sentencepiece.bpe.model").write_bytes(train("unigram"))
        tokenizer = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path, model_max_length=77)
        (tmp_path / "sentencepiece.bpe.model").unlink()
        tokenizer.save_pretrained(tmp_path)
        transformers.CLIPImageProcessorPil().save_pretrained(tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path)


def peers_probabilities(folder: Path, picture: Image.Image) -> np.ndarray:
    """What Transformers makes of the folder, by its own tokenizer and image processor."""
    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    with torch.inference_mode():
        text = tokenizer(LABELS, padding=True, return_tensors="pt")
        outputs = model(
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
            pixel_values=processor(picture, return_tensors="pt")["pixel_values"],
        )
    return outputs.logits_per_image.softmax(dim=1)[0].numpy()  # type: ignore[no-any-return]


def test_labels_in_five_languages_are_ranked_as_the_peer_ranks_them(folder: Path) -> None:
    picture = Image.fromarray(data.coffee())
    expected = peers_probabilities(folder, picture)
    gc.collect()
    assert np.diff(np.sort(expected)).min() > 1e-4, "two labels are too close for their order to mean anything"
    for backend in ("numpy", "torch"):
        model = minclip.load(folder, backend=backend, device="cpu")
        ranking = model.zero_shot(picture, LABELS)
        del model
        gc.collect()
        assert [p.label for p in ranking] == [LABELS[i] for i in np.argsort(-expected)], backend
        np.testing.assert_allclose([p.score for p in ranking], np.sort(expected)[::-1], atol=1e-5, err_msg=backend)
