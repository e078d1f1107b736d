"""Image classifiers: scores as the peer's pipeline has them, the loss as its models compute it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from folders import VISION, edit_config, peer
from PIL import Image

import minclip
from minclip import classification
from minclip.images import ImageProcessor

BACKENDS = ("numpy", "torch")
TYPES = (None, "single_label_classification", "multi_label_classification", "regression")
# the peer refuses one label of many where there is but one
CASES = [(t, n) for t in TYPES for n in (1, 2, 4) if (t, n) != ("single_label_classification", 1)]
SIDE = VISION["image_size"]
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)) for seed in range(3)
]


def classifier(folder: Path, kind: str, classes: int, problem_type: str | None) -> Any:
    """A small classifier, saved with its image processor, as Transformers opens it again."""
    peer(f"{kind}ForImageClassification", labels=classes).save_pretrained(folder)
    ImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save(folder)
    edit_config(folder, problem_type=problem_type)
    return getattr(transformers, f"{kind}ForImageClassification").from_pretrained(folder).eval()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["CLIP", "MetaClip2"])
@pytest.mark.parametrize(("problem_type", "classes"), CASES)
def test_scores_are_the_peers_pipelines(
    problem_type: str | None, classes: int, kind: str, backend: str, tmp_path: Path
) -> None:
    theirs = classifier(tmp_path, kind, classes, problem_type)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)
    pipeline = transformers.pipeline("image-classification", model=theirs, image_processor=processor)
    rankings = minclip.load(tmp_path, backend=backend).classify(PICTURES)
    for ranking, expected in zip(rankings, pipeline(PICTURES, top_k=classes), strict=True):
        assert [prediction.label for prediction in ranking] == [one["label"] for one in expected]
        scores = [one["score"] for one in expected]
        np.testing.assert_allclose([prediction.score for prediction in ranking], scores, atol=2e-5, rtol=2e-5)


def labels_for(problem_type: str | None, classes: int) -> list[np.ndarray]:
    """Labels of three pictures, of each kind that fits."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, classes, 3)
    several = rng.integers(0, 2, (3, classes)).astype(np.float32)
    values = rng.standard_normal((3, classes)).astype(np.float32)
    if problem_type == "single_label_classification":
        return [numbers]
    if problem_type == "multi_label_classification":
        return [several]
    if problem_type == "regression":
        return [values[:, 0] if classes == 1 else values]
    return [values[:, 0]] if classes == 1 else [numbers, several]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("problem_type", "classes"), CASES)
def test_the_loss_is_the_peers(problem_type: str | None, classes: int, backend: str, tmp_path: Path) -> None:
    theirs = classifier(tmp_path, "CLIP", classes, problem_type)
    theirs.set_attn_implementation("eager")
    model = minclip.load(tmp_path, backend=backend)
    pixels = model.processor(images=PICTURES)["pixel_values"]
    for labels in labels_for(problem_type, classes):
        theirs.config.problem_type = problem_type  # it keeps what it guessed from the first labels
        with torch.inference_mode():
            expected = theirs(torch.tensor(pixels), labels=torch.tensor(labels), output_hidden_states=True)
        for given in (labels, labels.tolist(), torch.tensor(labels)):
            found = model(pixel_values=pixels, labels=given, output_hidden_states=True, output_attentions=True)
            assert found.loss == pytest.approx(float(expected.loss), abs=2e-5, rel=2e-5)
            np.testing.assert_allclose(found.logits, expected.logits, atol=2e-5)
            assert found.hidden_states is not None
            for ours, states in zip(found.hidden_states, expected.hidden_states, strict=True):
                np.testing.assert_allclose(ours, states, atol=2e-5 * max(1, float(states.abs().max())))
            assert found.attentions is not None
            assert len(found.attentions) == VISION["num_hidden_layers"]
    assert model(pixel_values=pixels).loss is None


@pytest.mark.parametrize(
    ("problem_type", "labels", "words"),
    [
        (None, [0, 1, 4], "class numbers from 0 to 3"),
        (None, [0, 1, -1], "class numbers from 0 to 3"),
        (None, [0, 1], "must be 3 class numbers"),
        (None, [0.0, 1.0, 2.0], r"labels have shape \(3,\), expected \(3, 4\)"),
        (None, [[0.0, 1.0, 0.5, 2.0]] * 3, "from 0 to 1"),
        (None, [[0.0, 1.0, 0.5, np.nan]] * 3, "from 0 to 1"),
        ("single_label_classification", [0.0, 1.0, 2.0], "class numbers"),
        ("multi_label_classification", [[0, 1, 0]] * 3, r"expected \(3, 4\)"),
        ("regression", [[0, 1, 0, np.inf]] * 3, "finite"),
        ("regression", ["a", "b", "c"], "labels is list .*expected an array of numbers"),
        ("regression", [[1, 2], [3]], "labels is a list whose rows differ"),
    ],
)
def test_labels_that_do_not_fit_are_refused(problem_type: str, labels: Any, words: str, tmp_path: Path) -> None:
    classifier(tmp_path, "CLIP", 4, problem_type)
    for backend in BACKENDS:
        model = minclip.load(tmp_path, backend=backend)
        with pytest.raises(ValueError, match=words) as caught:
            model(pixel_values=model.processor(images=PICTURES)["pixel_values"], labels=labels)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("problem_type", "classes"), CASES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_give_no_scores(
    problem_type: str | None, value: float, classes: int, tmp_path: Path
) -> None:
    theirs = classifier(tmp_path, "CLIP", classes, problem_type)
    theirs.classifier.bias.data[0] = value
    theirs.save_pretrained(tmp_path)
    for backend in BACKENDS:
        model = minclip.load(tmp_path, backend=backend)
        pixels = model.processor(images=PICTURES)["pixel_values"]
        for call in (lambda m: m.classify(PICTURES), lambda m, p=pixels: m(pixel_values=p)):
            with pytest.raises(minclip.CheckpointError, match="row 0 hold NaN or infinity") as caught:
                call(model)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype: type) -> None:
    logits = np.array([[1e4, -1e4, 0.0], [80.0, -80.0, -90.0]], dtype)
    with np.errstate(all="raise", under="ignore"):
        for problem_type in TYPES:
            assert np.isfinite(classification.scores(logits, problem_type)).all()
        both = np.array([[1.0, 0.0, 1.0]] * 2)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            torch.tensor(logits), torch.tensor(both, dtype=torch.tensor(logits).dtype)
        )
        assert classification.loss(logits, both, "multi_label_classification") == pytest.approx(float(expected))
