"""The examples on Transformers' pages for the three families, in minclip's idiom, with the peer's answers as oracle."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import minclip
from minclip.checkpoints import sources
from minclip.images import ImageProcessor
from minclip.processor import Processor

BACKENDS = ("numpy", "torch")
BUNDLED = {"clip": "mini-clip", "altclip": "mini-altclip", "metaclip_2": "mini-metaclip-2"}
TEXTS = ["a photo of a cat", "a photo of a dog and of another dog"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
SIDE = folders.VISION["image_size"]


def checkpoint(kind: str, folder: Path) -> Any:
    """A small random model of the class `kind` with a real tokenizer, saved, and as Transformers opens it again."""
    family = next(f for f, prefix in folders.PREFIXES.items() if kind.startswith(prefix))
    source = sources.BUNDLED / BUNDLED[family]
    processor = Processor.from_checkpoint(source, minclip.Config.from_dict(_json(source / "config.json")))
    tokenizer = processor.tokenizer
    sizes = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 80}
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**folders.TEXT, **sizes, **ends, **({"project_dim": 10} if family == "altclip" else {"projection_dim": 9})}
    vision = {**folders.VISION, "projection_dim": 9}
    config = getattr(transformers, f"{folders.PREFIXES[family]}Config")(
        text_config=text, vision_config=vision, projection_dim=9
    )
    given = config.text_config if "Text" in kind else config.vision_config if "Vision" in kind else config
    torch.manual_seed(0)
    peer = getattr(transformers, kind)(given).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(0, 0.3)
    peer.save_pretrained(folder)
    images = ImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    Processor(tokenizer, images, context_length=77).save(folder)
    peer.set_attn_implementation("eager")
    return peer


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


Pairs = dict[str, tuple[Any, Path]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Each family's whole model as the peer has it, and its folder."""
    found = {}
    for family, prefix in folders.PREFIXES.items():
        folder = tmp_path_factory.mktemp(family)
        found[family] = checkpoint(f"{prefix}Model", folder), folder
    return found


@pytest.fixture
def url() -> Iterator[str]:
    """The address of the picture on a server of this machine."""
    file = io.BytesIO()
    PICTURE.save(file, "PNG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(file.getvalue())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/000000039769.png"
        server.shutdown()


def run(peer: Any, **inputs: Any) -> Any:
    with torch.inference_mode():
        return peer(**{name: torch.as_tensor(value) for name, value in inputs.items()})


def close(found: Any, expected: Any) -> None:
    scale = max(1.0, float(np.abs(np.asarray(expected)).max()))
    np.testing.assert_allclose(found, expected, atol=3e-5 * scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", BUNDLED)
def test_zero_shot_from_a_url(whole: Pairs, family: str, backend: str, url: str) -> None:
    peer, folder = whole[family]
    ours = Processor.from_checkpoint(folder, minclip.load(folder).config)(text=TEXTS, images=PICTURE)
    expected = run(peer, **ours).logits_per_image.softmax(dim=1)[0]
    found = dict(minclip.zero_shot(url, TEXTS, model=folder, backend=backend))
    close([found[text] for text in TEXTS], expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", BUNDLED)
@pytest.mark.parametrize("tensors", ["np", "pt", None])
def test_the_processor_and_the_model_on_its_result(whole: Pairs, family: str, backend: str, tensors: Any) -> None:
    peer, folder = whole[family]
    kind = transformers.CLIPTokenizer if family == "clip" else transformers.XLMRobertaTokenizer
    expected = dict(kind.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))
    pixels = transformers.CLIPImageProcessorPil.from_pretrained(folder)(PICTURE, return_tensors="pt")
    expected = {name: expected[name] for name in ("input_ids", "attention_mask")} | dict(pixels)
    model = minclip.load(folder, backend=backend)
    inputs = model.processor(text=TEXTS, images=PICTURE, return_tensors=tensors, padding=True)
    assert {type(value) for value in inputs.values()} == {torch.Tensor if tensors == "pt" else np.ndarray}
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(inputs[name], expected[name])
    close(inputs["pixel_values"], expected["pixel_values"])
    theirs = run(peer, **inputs)
    found = model(**inputs)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        close(getattr(found, name), getattr(theirs, name))
    assert repr(found).startswith("ModelOutput(\n  logits_per_image: (1, 2) float32")
    assert len(repr(found)) < 800


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", BUNDLED)
def test_features_with_and_without_what_leads_to_them(whole: Pairs, family: str, backend: str) -> None:
    peer, folder = whole[family]
    model = minclip.load(folder, backend=backend)
    inputs = model.processor(text=TEXTS, images=PICTURE)
    text = {name: torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask")}
    pixels = {"pixel_values": torch.tensor(inputs["pixel_values"])}
    asked = {"output_hidden_states": True, "output_attentions": True}
    for ours, theirs, given in (
        (model.get_text_features, peer.get_text_features, text),
        (model.get_image_features, peer.get_image_features, pixels),
    ):
        with torch.inference_mode():
            expected = theirs(**given, **asked)
        close(ours(**inputs), expected.pooler_output)
        found = ours(**inputs, **asked)
        close(found.embeds, expected.pooler_output)
        assert len(found.hidden_states) == len(expected.hidden_states)
        for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
            close(a, b)
        for a, b in zip(found.attentions, expected.attentions, strict=True):
            close(a, b)


SINGLE = [kind for kind in folders.KINDS if "TextModel" in kind or "VisionModel" in kind]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", SINGLE)
def test_a_tower_with_and_without_projection(kind: str, backend: str, tmp_path: Path) -> None:
    peer = checkpoint(kind, tmp_path)
    model = minclip.load(tmp_path, backend=backend)
    if "Text" in kind:
        inputs = model.processor(text=TEXTS)
        found, projected = model.text_tower(**inputs), "text_embeds"
    else:
        inputs = model.processor(images=PICTURE)
        found, projected = model.vision_tower(**inputs), "image_embeds"
    expected = run(peer, **inputs)
    close(found.last_hidden_state, expected.last_hidden_state)
    if kind.endswith("WithProjection"):
        close(found.embeds, getattr(expected, projected))
    else:
        assert found.embeds is None
        close(found.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("family", BUNDLED)
def test_a_config_from_nothing_and_from_two_towers(family: str) -> None:
    kinds = {"clip": minclip.TextConfig, "metaclip_2": minclip.MetaClip2TextConfig, "altclip": minclip.RobertaConfig}
    prefix = folders.PREFIXES[family]
    peer = getattr(transformers, f"{prefix}Config")()
    for config in (
        minclip.Config(model_type=family),
        minclip.Config.from_text_vision_configs(kinds[family](), minclip.VisionConfig()),
    ):
        assert config.projection_dim == peer.projection_dim
        for ours, theirs in ((config.text_config, peer.text_config), (config.vision_config, peer.vision_config)):
            for name in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act"):
                assert getattr(ours, name) == getattr(theirs, name), name
    assert (
        minclip.Config.from_text_vision_configs(
            kinds[family](), minclip.VisionConfig(), projection_dim=64
        ).projection_dim
        == 64
    )


def test_a_text_ends_at_any_of_several_end_ids(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    first = minclip.load(tmp_path).get_text_features(input_ids=[[0, 5, 19], [0, 19, 5]])
    config = _json(tmp_path / "config.json")
    folders.edit_config(tmp_path, text_config={**config["text_config"], "eos_token_id": [19, 7]})
    for backend in BACKENDS:
        found = minclip.load(tmp_path, backend=backend).get_text_features(input_ids=[[0, 5, 19], [0, 19, 7]])
        close(found, first)


@pytest.mark.parametrize("family", BUNDLED)
def test_float_pictures_in_either_layout(whole: Pairs, family: str) -> None:
    processor = minclip.load(whole[family][1]).processor
    array = np.asarray(PICTURE)
    expected = processor(images=PICTURE)["pixel_values"]
    floats = (array / 255).astype(np.float32)
    close(processor(images=floats, do_rescale=False)["pixel_values"], expected)
    first = floats.transpose(2, 0, 1)
    close(processor(images=first, do_rescale=False, input_data_format="channels_first")["pixel_values"], expected)


@pytest.mark.parametrize("family", BUNDLED)
def test_ids_become_text_again(whole: Pairs, family: str) -> None:
    processor = minclip.load(whole[family][1]).processor
    rows = processor(text=TEXTS)["input_ids"]
    assert [text.strip() for text in processor.batch_decode(rows, skip_special_tokens=True)] == TEXTS
    assert processor.decode(rows[0], skip_special_tokens=True).strip() == TEXTS[0]
    kind = transformers.CLIPTokenizer if family == "clip" else transformers.XLMRobertaTokenizer
    peer = kind.from_pretrained(whole[family][1])
    assert processor.tokenizer.tokenize(TEXTS[1]) == peer.tokenize(TEXTS[1])
    assert processor(text="a dog " * 40, max_length=20)["input_ids"].shape == (1, 20)
