"""The Model and the one-liner: ranking, embedding, inputs that do not fit, saving."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from miniature import captions, draw
from PIL import Image

import minclip
from minclip import checkpoints
from minclip.backend import NumpyTowers
from minclip.checkpoints import sources
from minclip.contrastive import unit

transformers.logging.disable_progress_bar()
LABELS = captions()


@pytest.fixture(scope="module")
def model(miniature: Path) -> minclip.Model:
    return minclip.load(miniature)


@pytest.fixture(scope="module")
def peer(miniature: Path) -> Any:
    return transformers.CLIPModel.from_pretrained(miniature).eval()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    return [draw(label, rng, side=int(rng.integers(32, 120))) for label in LABELS]


def test_colours_are_told_apart(model: minclip.Model) -> None:
    rng = np.random.default_rng(1)
    drawn = [LABELS[i] for i in rng.integers(len(LABELS), size=60)]
    rankings = model.zero_shot([draw(caption, rng, side=64) for caption in drawn], LABELS)
    right = [
        ranking[0].label.split()[1] == caption.split()[1] for ranking, caption in zip(rankings, drawn, strict=True)
    ]
    assert np.mean(right) > 0.95


def test_zero_shot_is_the_peers_pipeline(miniature: Path, model: minclip.Model, pictures: list[Image.Image]) -> None:
    pipeline = transformers.pipeline(
        "zero-shot-image-classification",
        model=transformers.CLIPModel.from_pretrained(miniature),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(miniature),
        image_processor=transformers.CLIPImageProcessorPil.from_pretrained(miniature),
    )
    for picture in pictures:
        expected = pipeline(picture, candidate_labels=LABELS, hypothesis_template="{}")
        found = model.zero_shot(picture, LABELS)
        assert [p.label for p in found] == [p["label"] for p in expected]
        np.testing.assert_allclose([p.score for p in found], [p["score"] for p in expected], atol=1e-5)


def test_the_one_liner_is_load_and_zero_shot(
    miniature: Path, model: minclip.Model, pictures: list[Image.Image]
) -> None:
    assert minclip.zero_shot(pictures[0], LABELS, model=miniature) == model.zero_shot(pictures[0], LABELS)
    assert minclip.zero_shot(pictures[:2], LABELS, model=model, top_k=2) == model.zero_shot(
        pictures[:2], LABELS, top_k=2
    )


def test_scores_add_up_to_one_and_fall(model: minclip.Model, pictures: list[Image.Image]) -> None:
    scores = [prediction.score for prediction in model.zero_shot(pictures[3], LABELS)]
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert scores == sorted(scores, reverse=True)


def test_top_k_keeps_the_best(model: minclip.Model, pictures: list[Image.Image]) -> None:
    assert model.zero_shot(pictures[0], LABELS, top_k=3) == model.zero_shot(pictures[0], LABELS)[:3]


def test_several_templates_are_the_renormalized_mean(model: minclip.Model, pictures: list[Image.Image]) -> None:
    forms = ["{}", "{} here"]
    embeds = [model.encode_text([form.replace("{}", label) for label in LABELS]) for form in forms]
    logits = model.encode_image(pictures[0]) @ unit((embeds[0] + embeds[1]) / 2).T * np.exp(model.logit_scale)
    best = model.zero_shot(pictures[0], LABELS, template=forms)[0]
    assert best.label == LABELS[int(logits.argmax())]
    assert best.score == pytest.approx(float(1 / np.exp(logits - logits.max()).sum()), abs=1e-6)


def test_every_kind_of_source_gives_the_same_embedding(model: minclip.Model, tmp_path: Path) -> None:
    picture = draw("a red circle", np.random.default_rng(0), side=50)
    path = tmp_path / "picture.png"
    picture.save(path)
    expected = model.encode_image(picture)
    array = np.asarray(picture)
    with path.open("rb") as file:
        for source in (str(path), path, file, array, array.transpose(2, 0, 1), array[None]):
            np.testing.assert_array_equal(model.encode_image(source), expected)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_batches_and_workers_change_nothing(model: minclip.Model, pictures: list[Image.Image], batch_size: int) -> None:
    one_by_one = np.concatenate([model.encode_image(picture) for picture in pictures])
    for workers in (1, 3):
        found = model.encode_image(pictures, batch_size=batch_size, workers=workers)
        np.testing.assert_allclose(found, one_by_one, atol=1e-5)
    texts = model.encode_text(LABELS, batch_size=batch_size)
    np.testing.assert_allclose(texts, np.concatenate([model.encode_text(label) for label in LABELS]), atol=1e-5)


def test_resizing_in_the_backend_gives_the_same_embedding(model: minclip.Model, pictures: list[Image.Image]) -> None:
    expected = model.encode_image(pictures, batch_size=5)
    np.testing.assert_array_equal(model.encode_image(pictures, resize_on_device=True, batch_size=5), expected)


def test_an_unreadable_image_is_named(model: minclip.Model, pictures: list[Image.Image]) -> None:
    with pytest.raises(minclip.ImageError, match=r"images\[1\].*missing\.png"):
        model.encode_image([pictures[0], "missing.png"])


def test_an_unreadable_image_is_left_out_on_request(model: minclip.Model, pictures: list[Image.Image]) -> None:
    seen: list[int] = []
    given = ["missing.png", pictures[0], pictures[1], "missing too.png"]
    found = model.encode_image(given, batch_size=2, on_error=lambda index, error: seen.append(index))
    np.testing.assert_allclose(found, model.encode_image(pictures[:2]), atol=1e-5)
    assert seen == [0, 3]
    assert model.encode_image(["missing.png"], on_error=lambda *_: None).shape == (0, model.config.projection_dim)


def test_batches_done_before_memory_ran_out_are_kept(
    miniature: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = minclip.load(miniature)
    expected = model.encode_image(pictures[:4])
    calls = iter([None, None, minclip.BackendError("cuda:0 ran out of memory with 2 images; try batch_size=1")])
    vision = NumpyTowers.image_embeds

    def failing(self: NumpyTowers, inputs: Any) -> Any:
        error = next(calls)
        if error:
            raise error
        return vision(self, inputs)

    monkeypatch.setattr(NumpyTowers, "image_embeds", failing)
    with pytest.raises(minclip.BackendError, match="batch_size=1") as caught:
        model.encode_image(pictures, batch_size=2)
    assert caught.value.finished is not None
    np.testing.assert_allclose(caught.value.finished, expected, atol=1e-5)


def test_the_outputs_are_the_peers(model: minclip.Model, peer: Any, pictures: list[Image.Image]) -> None:
    inputs = model.processor(text=LABELS, images=pictures)
    found = model(**inputs, return_loss=True, output_hidden_states=True, output_attentions=True)
    peer.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = peer(
            **{name: torch.from_numpy(value) for name, value in inputs.items()},
            return_loss=True,
            output_hidden_states=True,
            output_attentions=True,
        )
    assert found.loss == pytest.approx(float(expected.loss), abs=2e-5)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        scale = float(getattr(expected, name).abs().max())
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-5 * max(1, scale))
    for name in ("vision_model_output", "text_model_output"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert len(ours.hidden_states) == len(theirs.hidden_states)
        assert len(ours.attentions) == len(theirs.attentions)
        for a, b in zip(
            (*ours.hidden_states, *ours.attentions), (*theirs.hidden_states, *theirs.attentions), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=2e-5 * max(1, float(b.abs().max())))
    with torch.inference_mode():
        features = peer.get_image_features(torch.from_numpy(inputs["pixel_values"])).pooler_output
    np.testing.assert_allclose(model.get_image_features(**inputs), features, atol=2e-5 * float(features.abs().max()))


def test_float64_computes_and_answers_in_float64(miniature: Path, pictures: list[Image.Image]) -> None:
    model = minclip.load(miniature, dtype="float64")
    assert model.encode_image(pictures[0]).dtype == np.float64
    np.testing.assert_allclose(model.encode_image(pictures), minclip.load(miniature).encode_image(pictures), atol=2e-5)


def test_a_saved_folder_answers_alike_here_and_in_the_peer(
    model: minclip.Model, pictures: list[Image.Image], tmp_path: Path
) -> None:
    model.save(tmp_path / "copy")
    again = minclip.load(tmp_path / "copy")
    assert again.zero_shot(pictures[0], LABELS) == model.zero_shot(pictures[0], LABELS)
    peer = transformers.CLIPModel.from_pretrained(tmp_path / "copy").eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path / "copy")
    inputs = tokenizer(LABELS, padding=True, return_tensors="pt")
    np.testing.assert_array_equal(inputs["input_ids"], model.processor(text=LABELS)["input_ids"])
    with torch.inference_mode():
        features = peer.get_text_features(**inputs).pooler_output
    np.testing.assert_allclose(unit(features.numpy()), model.encode_text(LABELS), atol=2e-5)


def test_a_classifier_ranks_its_own_classes(miniature: Path, tmp_path: Path, pictures: list[Image.Image]) -> None:
    config = transformers.CLIPConfig.from_pretrained(miniature)
    config.id2label, config.label2id = {0: "cat", 1: "dog", 2: "owl"}, {"cat": 0, "dog": 1, "owl": 2}
    torch.manual_seed(0)
    peer = transformers.CLIPForImageClassification(config).eval()
    peer.save_pretrained(tmp_path)
    shutil.copy(miniature / "preprocessor_config.json", tmp_path)
    model = minclip.load(tmp_path)
    rankings = model.classify(pictures)
    with torch.inference_mode():
        logits = peer(torch.from_numpy(model.processor(images=pictures)["pixel_values"])).logits
    expected = torch.softmax(logits, dim=1).numpy()
    for ranking, row in zip(rankings, expected, strict=True):
        assert ranking[0].label == ["cat", "dog", "owl"][int(row.argmax())]
        np.testing.assert_allclose([p.score for p in ranking], sorted(row, reverse=True), atol=1e-5)
    with pytest.raises(minclip.CheckpointError, match="no text tower"):
        model.encode_text("a cat")


def test_a_classifier_drafts_where_it_is_asked_to(miniature: Path, tmp_path: Path) -> None:
    draw(captions()[0], np.random.default_rng(0), side=100).save(tmp_path / "photo.jpg")
    labels = ["cat", "dog"]
    model = minclip.load(miniature, labels=labels)
    shrunk = model.processor.image_processor.replace(draft=True).pixels(tmp_path / "photo.jpg")
    expected = model.classify(Image.fromarray(shrunk))
    assert model.classify(tmp_path / "photo.jpg", draft=True) == expected != model.classify(tmp_path / "photo.jpg")


def test_the_absent_tower_is_named(tmp_path: Path, miniature: Path) -> None:
    transformers.CLIPTextModel.from_pretrained(miniature).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(miniature / name, tmp_path)
    model = minclip.load(tmp_path)
    with pytest.raises(minclip.CheckpointError, match="no vision tower"):
        model.encode_image(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(minclip.CheckpointError, match="no text projection"):
        model.encode_text("a red circle")
    assert model.text_tower(**model.processor(text="a red circle")).pooler_output.shape == (1, 64)
    with pytest.raises(minclip.CheckpointError, match="not a whole model"):
        _ = model.logit_scale


GREY = np.zeros((9, 9, 3), np.uint8)


def pixels(*shape: int, fill: float = 0.0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"pixel_values": np.full(shape, fill, dtype)}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.zero_shot(GREY, []), ValueError, "labels"),
        (lambda m: m.zero_shot(GREY, "a cat"), ValueError, "labels"),
        (lambda m: m.zero_shot([], LABELS), ValueError, "images is empty"),
        (
            lambda m: m.zero_shot(GREY, LABELS, template="a photo"),
            ValueError,
            "template 'a photo'",
        ),
        (lambda m: m.zero_shot(GREY, LABELS, template=[]), ValueError, "template"),
        (lambda m: m.zero_shot(GREY, LABELS, top_k=0), ValueError, "top_k"),
        (lambda m: m.encode_text([]), ValueError, "texts is empty"),
        (lambda m: m.encode_text(["a"], batch_size=0), ValueError, "batch_size"),
        (lambda m: m.encode_image(np.zeros((9, 9, 3), np.float32)), minclip.ImageError, "float32"),
        (lambda m: m.encode_image("no such file.jpg"), minclip.ImageError, "no such file.jpg"),
        (lambda m: m.classify(GREY), minclip.CheckpointError, "no image-classification head"),
        (lambda m: m.get_image_features(**pixels(3, 32, 32)), ValueError, r"\(3, 32, 32\)"),
        (lambda m: m.get_image_features(**pixels(1, 3, 32, 48)), ValueError, "interpolate"),
        (lambda m: m.get_image_features(**pixels(0, 3, 32, 32)), ValueError, "no image"),
        (lambda m: m.get_image_features(**pixels(1, 3, 32, 32, dtype=np.uint8)), ValueError, "uint8"),
        (
            lambda m: m.get_image_features(**pixels(1, 3, 32, 32, fill=np.nan)),
            ValueError,
            "image 0 hold NaN",
        ),
        (lambda m: m.get_text_features(input_ids=np.array([[5, 10**6]])), ValueError, "row 0 holds id 1000000"),
        (lambda m: m.get_text_features(input_ids=np.array([[5, -1]])), ValueError, "id -1"),
        (lambda m: m.get_text_features(input_ids=np.array([[5, 6]])), ValueError, "row 0 has no end-of-text id"),
        (lambda m: m.get_text_features(input_ids=np.zeros((1, 78), int)), ValueError, "78 tokens"),
        (lambda m: m.get_text_features(input_ids=np.array([1.5])), ValueError, "expected integers"),
        (lambda m: m.get_text_features(pixels=1), ValueError, "unknown input 'pixels'"),
        (
            lambda m: m.get_text_features(input_ids=np.array([[5]]), position_ids=np.array([[77]])),
            ValueError,
            "hold 77",
        ),
        (
            lambda m: m.get_text_features(input_ids=np.array([[5]]), position_ids=np.array([[-1]])),
            ValueError,
            "hold -1",
        ),
        (
            lambda m: m.get_text_features(input_ids=np.array([[5]]), token_type_ids=np.array([[1]])),
            ValueError,
            "hold 1",
        ),
        (
            lambda m: m.get_text_features(input_ids=np.array([[5]]), attention_mask=np.ones((1, 2))),
            ValueError,
            r"\(1, 2\)",
        ),
        (lambda m: m.get_text_features(input_ids=[[5]], position_ids=[[-1]]), ValueError, "hold -1"),
        (lambda m: m.get_text_features(input_ids=[[5]], position_ids=[[0.5]]), ValueError, "float64"),
        (lambda m: m.get_text_features(input_ids=[[5, 6], [7]]), ValueError, "rows differ in length"),
        (lambda m: m.get_text_features(input_ids=[[5]], head_mask=np.ones(3)), ValueError, r"expected \(1, 4\)"),
        (lambda m: m.get_text_features(input_ids=[[5]], inputs_embeds=np.ones((1, 1, 3))), ValueError, "inputs_embeds"),
        (lambda m: m.zero_shot(GREY, ["a", 3]), ValueError, "3 is of type int"),
        (lambda m: m.zero_shot(GREY, LABELS, template=[3]), ValueError, "template 3"),
        (lambda m: m.zero_shot(GREY, LABELS, top_k=1.5), ValueError, "top_k"),
        (lambda m: m.encode_image([GREY], workers=0), ValueError, "workers"),
        (lambda m: m(), ValueError, "input_ids is missing"),
        (lambda m: m.processor(), ValueError, "nothing"),
    ],
)
def test_bad_input_gets_one_line_that_names_it(model: minclip.Model, call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_a_long_text_is_truncated_with_its_end_token(model: minclip.Model) -> None:
    ids = model.processor(text="red " * 200)["input_ids"]
    assert ids.shape == (1, 77)
    assert ids[0, -1] == model.processor.tokenizer.eos_token_id
    with pytest.raises(minclip.TokenizerError, match="202 tokens"):
        model.processor(text="red " * 200, truncation=False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "file object"])
def test_one_picture_many_times_in_a_batch_is_no_race(model: minclip.Model, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    draw("a blue square", np.random.default_rng(0), side=300).save(path, format="PNG" if kind == "PNG" else "JPEG")
    expected = model.encode_image(path)
    with path.open("rb") as file:
        for _ in range(5):
            source = file if kind == "file object" else Image.open(path)
            found = model.encode_image([source] * 12, workers=6, batch_size=12)
            np.testing.assert_allclose(found, np.repeat(expected, 12, axis=0), atol=1e-5)


def test_the_one_liner_sees_that_a_folder_has_changed(miniature: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(miniature, tmp_path / "model")
    picture = draw("a red circle", np.random.default_rng(0))
    before = minclip.zero_shot(picture, LABELS, model=folder)
    assert minclip.zero_shot(picture, LABELS, model=folder) == before
    other = transformers.CLIPModel.from_pretrained(folder)
    other.visual_projection.weight.data.neg_()
    other.save_pretrained(folder)
    assert minclip.zero_shot(picture, LABELS, model=folder) != before
    shutil.rmtree(folder)
    with pytest.raises(minclip.CheckpointError, match="no folder"):
        minclip.zero_shot(picture, LABELS, model=folder)


def test_a_processor_that_does_not_fit_the_tower_is_named(miniature: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(miniature, tmp_path / "model")
    written = json.loads((folder / "preprocessor_config.json").read_text())
    written["crop_size"] = {"height": 48, "width": 48}
    (folder / "preprocessor_config.json").write_text(json.dumps(written))
    model = minclip.load(folder)
    with pytest.raises(minclip.ConfigError, match=r"preprocessor_config\.json makes images of 48x48"):
        model.encode_image(GREY)
    values = model.processor(images=GREY)["pixel_values"]
    assert model.get_image_features(pixel_values=values, interpolate_pos_encoding=True).shape == (1, 32)


@pytest.mark.parametrize("on_device", [False, True])
def test_pictures_of_different_sizes_are_named(miniature: Path, tmp_path: Path, on_device: bool) -> None:
    folder = shutil.copytree(miniature, tmp_path / "model")
    written = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**written, "do_center_crop": False}))
    given = [np.zeros((32, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)]
    for backend in ("numpy", "torch"):
        with pytest.raises(minclip.ImageError, match="32x64, 64x32"):
            minclip.load(folder, backend=backend).encode_image(given, resize_on_device=on_device)


def test_a_tokenizer_of_another_checkpoint_is_refused(miniature: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(miniature, tmp_path / "model")
    vocab = json.loads((folder / "vocab.json").read_text())
    vocab["<|endoftext|>"] = 5000
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(minclip.TokenizerError, match="id 5000"):
        minclip.load(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{bad", "JSON"),
        ("[1]", "JSON object"),
        ('{"preprocess_cfg": [1]}', "preprocess_cfg"),
        ('{"preprocess_cfg": {"mean": "x"}}', "image_mean"),
        ('{"preprocess_cfg": {"resize_mode": "longest"}}', "longest"),
    ],
)
def test_a_broken_open_clip_config_is_named(miniature: Path, tmp_path: Path, content: str, words: str) -> None:
    folder = shutil.copytree(miniature, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(minclip.ConfigError, match=rf"open_clip_config\.json.*{words}"):
        minclip.load(folder)


def test_open_clips_preprocessing_is_read(miniature: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(miniature, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    asked = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash", "interpolation": "bilinear"}
    (folder / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": asked}))
    found = minclip.load(folder).processor.image_processor
    assert (found.size, found.resample) == ({"height": 32, "width": 32}, 2)
    assert (found.image_mean, found.image_std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_hopelessly_nested_json_is_one_line(miniature: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        folder = shutil.copytree(miniature, tmp_path / name)
        (folder / name).write_text("[" * 200_000)
        with pytest.raises(minclip.MinclipError, match=name):
            minclip.load(folder)


def test_lists_are_taken_for_arrays(model: minclip.Model) -> None:
    ids = model.processor(text=LABELS)["input_ids"]
    expected = model.get_text_features(input_ids=ids)
    mask = np.ones_like(ids).tolist()
    np.testing.assert_array_equal(model.get_text_features(input_ids=ids.tolist(), attention_mask=mask), expected)


def test_no_model_named_is_the_default_in_the_box(
    miniature: Path, box: Path, model: minclip.Model, pictures: list[Image.Image]
) -> None:
    assert minclip.load().source == minclip.load(sources.DEFAULT).source == sources.DEFAULT
    expected = model.zero_shot(pictures[0], LABELS)
    assert minclip.load().zero_shot(pictures[0], LABELS) == expected
    assert minclip.zero_shot(pictures[0], LABELS) == expected


def test_a_folder_by_the_defaults_name_does_not_stand_in_for_it(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / sources.DEFAULT).mkdir()
    monkeypatch.chdir(tmp_path)
    assert checkpoints.locate() == box / sources.DEFAULT


@pytest.mark.parametrize("call", [minclip.load, lambda: minclip.zero_shot(GREY, LABELS)])
def test_a_box_without_its_model_is_named_in_one_line(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BUNDLED", tmp_path / "gone")
    with pytest.raises(minclip.CheckpointError, match=f"{tmp_path / 'gone'} lacks {sources.DEFAULT}") as caught:
        call()
    assert "install minclip again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_tokenizer_takes_ids_but_no_text(miniature: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(miniature / name, tmp_path)
    model = minclip.load(tmp_path)
    assert model.get_text_features(input_ids=np.array([[5, model.config.text_config.eos_token_id]])).shape == (1, 32)  # type: ignore[union-attr]
    with pytest.raises(minclip.TokenizerError, match="no tokenizer files"):
        model.encode_text("a cat")
    assert model.processor.image_processor.crop_size == {"height": 32, "width": 32}


def test_a_broken_tokenizer_stops_the_load(miniature: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(miniature, tmp_path / "broken")
    (folder / "vocab.json").write_text(json.dumps({"a": 0})[:-1])
    with pytest.raises(minclip.TokenizerError, match=r"vocab\.json"):
        minclip.load(folder)


def test_an_unknown_tokenizer_json_is_refused(miniature: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(miniature / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}}}')
    with pytest.raises(minclip.TokenizerError, match=r"tokenizer\.json"):
        minclip.load(tmp_path)


def test_half_precision_weights_answer_like_their_widened_selves(
    miniature: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model = transformers.CLIPModel.from_pretrained(miniature, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    lazy, once = minclip.load(tmp_path), minclip.load(tmp_path, dtype="float32")
    np.testing.assert_array_equal(lazy.encode_image(pictures), once.encode_image(pictures))
    widened = model.float().eval()
    with torch.inference_mode():
        features = widened.get_image_features(torch.from_numpy(once.processor(images=pictures)["pixel_values"]))
    np.testing.assert_allclose(once.encode_image(pictures), unit(features.pooler_output.numpy()), atol=2e-5)
