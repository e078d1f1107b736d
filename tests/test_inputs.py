"""What goes into a model: every refusal as one matrix, for lists, arrays and tensors, in front of every backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import torch

import minclip

BACKENDS = ("numpy", "torch")
KINDS = {"CLIPModel": "clip", "AltCLIPModel": "altclip", "MetaClip2Model": "metaclip_2"}
SIDE, CONTEXT, VOCABULARY, END = 11, 12, 20, 19
IDS = np.array([[0, 5, 6, END], [0, 7, END, 1]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
PIXELS = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
EMBEDS = np.random.default_rng(1).standard_normal((2, 4, 16)).astype(np.float32)
HEADS = np.array([[1.0, 0.5], [0.0, 1.0]], np.float32)
RIGHT = {"input_ids": IDS, "attention_mask": MASK, "pixel_values": PIXELS}

Models = dict[tuple[str, str], minclip.Model]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Every family's small model on every backend, by family and backend."""
    found = {}
    for kind, family in KINDS.items():
        folder = tmp_path_factory.mktemp(family)
        folders.peer(kind).save_pretrained(folder)
        found |= {(family, backend): minclip.load(folder, backend=backend) for backend in BACKENDS}
    return found


def with_value(array: np.ndarray, value: Any, dtype: Any = None) -> np.ndarray:
    """A copy of an array with the last of its numbers replaced."""
    changed = array.astype(dtype or array.dtype)
    changed.reshape(-1)[-1] = value
    return changed


# --- refusals ------------------------------------------------------------------------------------------------------

# input, what is wrong with it, the value as an array, words of the error
BAD: list[tuple[str, str, np.ndarray, str]] = [
    ("attention_mask", "added to scores", np.where(MASK, 0.0, -8192.0), "attention_mask holds -8192.0"),
    ("attention_mask", "minus infinity", np.where(MASK, 0.0, -np.inf), "attention_mask holds -inf"),
    ("attention_mask", "NaN", with_value(MASK, np.nan, np.float64), "attention_mask holds nan"),
    ("attention_mask", "a half", with_value(MASK, 0.5, np.float64), "attention_mask holds 0.5"),
    ("attention_mask", "two", with_value(MASK, 2), "attention_mask holds 2"),
    ("attention_mask", "minus one", with_value(MASK, -1), "attention_mask holds -1"),
    ("attention_mask", "a column short", MASK[:, :3], r"attention_mask has shape \(2, 3\), expected \(2, 4\)"),
    ("attention_mask", "one row for all", MASK[:1], r"attention_mask has shape \(1, 4\), expected \(2, 4\)"),
    ("attention_mask", "of four dimensions", MASK[:, None, None], "attention_mask has shape"),
    ("attention_mask", "empty", MASK[:0], r"attention_mask has shape \(0, 4\)"),
    ("input_ids", "negative", with_value(IDS, -1), "input_ids row 1 holds id -1, .* vocabulary of 20"),
    ("input_ids", "past the vocabulary", with_value(IDS, VOCABULARY), "input_ids row 1 holds id 20"),
    ("input_ids", "past 2^31", with_value(IDS, 2**32 + 5), f"input_ids row 1 holds id {2**32 + 5}"),
    ("input_ids", "past 2^63", with_value(IDS, 2**63 + 5, np.uint64), "row 1 holds id 9223372036854775813|are float64"),
    ("input_ids", "floats", IDS.astype(np.float32), "input_ids are float.*, expected integers"),
    ("input_ids", "NaN", with_value(IDS, np.nan, np.float64), "input_ids are float.*, expected integers"),
    ("input_ids", "booleans", IDS > 3, "input_ids are bool.*, expected integers"),
    ("input_ids", "of one dimension", IDS[0], r"shape \(4,\), expected integers of shape \(texts, tokens\)"),
    ("input_ids", "a lone number", np.array(5), r"of shape \(\), expected integers"),
    ("input_ids", "no text", IDS[:0], r"input_ids are .*\(0, 4\)"),
    ("input_ids", "no token", IDS[:, :0], r"input_ids are .*\(2, 0\)"),
    ("input_ids", "too long", np.full((2, 13), END), "13 tokens a text, the model's context has"),
    ("position_ids", "negative", np.array([[0, 1, 2, -1]]), "position_ids hold -1"),
    ("position_ids", "past the table", np.array([[0, 1, 2, CONTEXT]]), "position_ids hold 12"),
    ("position_ids", "floats", np.array([[0.0, 1.0, 2.0, 3.0]]), "position_ids are float"),
    ("position_ids", "short", np.arange(3), r"position_ids has shape \(3,\)"),
    ("token_type_ids", "past the table", np.ones((2, 4), int), "token_type_ids hold 1, .* rows 0 to 0"),
    ("token_type_ids", "of another shape", np.zeros((2, 3), int), r"token_type_ids has shape \(2, 3\)"),
    ("inputs_embeds", "NaN", with_value(EMBEDS, np.nan), "inputs_embeds of row 1 hold NaN"),
    ("inputs_embeds", "infinity", with_value(EMBEDS, np.inf), "inputs_embeds of row 1 hold NaN, infinity"),
    ("inputs_embeds", "1e300", with_value(EMBEDS, 1e300, np.float64), "inputs_embeds of row 1"),
    ("inputs_embeds", "another width", EMBEDS[..., :9], r"inputs_embeds has shape \(2, 4, 9\), expected \(2, 4, 16\)"),
    ("inputs_embeds", "of two dimensions", EMBEDS[0], r"inputs_embeds has shape \(4, 16\)"),
    ("inputs_embeds", "of one dimension", EMBEDS[0, 0], r"inputs_embeds has shape \(16,\)"),
    ("inputs_embeds", "empty", EMBEDS[:0], r"inputs_embeds has shape \(0, "),
    ("head_mask", "NaN", with_value(HEADS, np.nan), "head_mask of row 1 hold NaN"),
    ("head_mask", "NaN for a head of every layer", with_value(HEADS[0], np.nan), "head_mask of row 1 hold NaN"),
    ("head_mask", "1e300", with_value(HEADS, 1e300, np.float64), "head_mask of row 1"),
    ("head_mask", "a layer short", HEADS[:1], r"head_mask has shape \(1, 2\), expected \(2, 2\)"),
    ("head_mask", "a head too many", np.ones(3), r"head_mask has shape \(3,\), expected \(2, 2\)"),
    ("pixel_values", "bytes", np.zeros(PIXELS.shape, np.uint8), "pixel_values are uint8, expected floats"),
    ("pixel_values", "integers", np.zeros(PIXELS.shape, np.int64), "pixel_values are int64, expected floats"),
    ("pixel_values", "booleans", PIXELS > 0, "pixel_values are bool, expected floats"),
    ("pixel_values", "NaN", with_value(PIXELS, np.nan), "pixel_values of image 1 hold NaN"),
    ("pixel_values", "infinity", with_value(PIXELS, -np.inf), "pixel_values of image 1 hold NaN, infinity"),
    ("pixel_values", "1e300", with_value(PIXELS, 1e300, np.float64), "pixel_values of image 1 .* beyond float32"),
    ("pixel_values", "smaller", PIXELS[..., :10], "pixel_values are 11x10, the model's images are 11x11"),
    ("pixel_values", "larger", np.pad(PIXELS, ((0, 0), (0, 0), (0, 1), (0, 1))), "pixel_values are 12x12"),
    ("pixel_values", "two channels", PIXELS[:, :2], r"pixel_values have shape \(2, 2, 11, 11\), expected"),
    ("pixel_values", "channels last", PIXELS.transpose(0, 2, 3, 1), r"pixel_values have shape \(2, 11, 11, 3\)"),
    ("pixel_values", "a lone picture", PIXELS[0], r"pixel_values have shape \(3, 11, 11\)"),
    ("pixel_values", "no picture", PIXELS[:0], "pixel_values hold no image"),
]

AS: dict[str, Callable[[np.ndarray], Any]] = {
    "an array": np.asarray,
    "a list": lambda array: array.tolist(),
    "a tensor": lambda array: torch.tensor(array),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "transposed": lambda array: np.array(array.T, order="C").T,
}
FLOATS_AS: dict[str, Callable[[np.ndarray], Any]] = {
    "a tensor with gradients": lambda array: torch.tensor(array, requires_grad=True),
    "a bfloat16 tensor": lambda array: torch.tensor(array).to(torch.bfloat16),
}


def as_kind(kind: str, array: np.ndarray) -> Any:
    """The array as something of this kind; skipped where there is no such thing."""
    if kind in FLOATS_AS and array.dtype.kind != "f":
        pytest.skip("integers have no gradients")
    if kind == "a list" and not array.size:
        pytest.skip("an empty list has no shape")
    return {**AS, **FLOATS_AS}[kind](array)


def refusal(model: minclip.Model, **inputs: Any) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        model(**{**RIGHT, **inputs})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [*AS, *FLOATS_AS])
@pytest.mark.parametrize(("name", "what", "value", "words"), BAD, ids=[f"{name}: {what}" for name, what, *_ in BAD])
def test_what_fits_nothing_is_refused_alike_everywhere(
    models: Models, name: str, what: str, value: np.ndarray, words: str, kind: str
) -> None:
    given = as_kind(kind, value)
    for family in KINDS.values():
        messages = {refusal(models[family, backend], **{name: given}) for backend in BACKENDS}
        assert len(messages) == 1
        (message,) = messages
        listed = kind == "a list" and name == "pixel_values" and value.dtype == np.uint8  # a list of ints is of int64
        assert_says(message, words.replace("uint8", "int64") if listed else words)


def assert_says(message: str, words: str) -> None:
    assert re.search(words, message), message


class Unwilling:
    """Something that cannot be turned into an array."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("not\nnow")

    def __repr__(self) -> str:
        return "Unwilling\n()"


NO_ARRAYS = {
    "a string": ("x", "expected an array of numbers"),
    "bytes": (b"x", "expected an array of numbers"),
    "strings": (np.array([["a", "b"], ["c", "d"]] * 20), "expected an array of numbers"),
    "None in a list": ([[None, 1]], "expected an array of numbers"),
    "complex numbers": (np.ones((2, 4), complex), "expected an array of numbers"),
    "complex tensors": (torch.ones(2, 4, dtype=torch.complex64), "expected an array of numbers"),
    "dates": (np.array([["2020-01-01"]], "datetime64[D]"), "expected an array of numbers"),
    "a dictionary": ({"input_ids": [[1]]}, "expected an array of numbers"),
    "numbers past 2^64": ([[0, 2**70]], "expected an array of numbers"),
    "a ragged list": ([[0, 5, END], [0, END]], "rows differ in length"),
    "an 8-bit float tensor": (torch.ones(2, 4).to(torch.float8_e4m3fn), "cannot become an array"),
    "a sparse tensor": (torch.ones(2, 4).to_sparse(), "cannot become an array"),
    "a tensor without data": (torch.ones(2, 4, device="meta"), "cannot become an array"),
    "an object": (Unwilling(), "cannot become an array: not now"),
}


@pytest.mark.parametrize("what", NO_ARRAYS)
@pytest.mark.parametrize(
    "name", ["input_ids", "attention_mask", "position_ids", "inputs_embeds", "head_mask", "pixel_values"]
)
def test_what_is_no_array_is_refused_alike_everywhere(models: Models, name: str, what: str) -> None:
    value, words = NO_ARRAYS[what]
    messages = {refusal(model, **{name: value}) for model in models.values()}
    assert len(messages) == 1
    assert_says(messages.pop(), f"^{name} .*{words}")


@pytest.mark.parametrize("kind", AS)
@pytest.mark.parametrize("family", ["clip", "metaclip_2"])
def test_a_text_without_its_end_is_refused(models: Models, family: str, kind: str) -> None:
    given = AS[kind](np.array([[0, 5, END, 1], [0, 5, 6, 7]]))
    messages = {refusal(models[family, backend], input_ids=given) for backend in BACKENDS}
    assert len(messages) == 1
    assert_says(messages.pop(), "input_ids row 1 has no end-of-text id 19")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_missing_is_named(models: Models, backend: str) -> None:
    model = models["clip", backend]
    assert_says(refusal(model, input_ids=None), "input_ids is missing")
    assert_says(refusal(model, pixel_values=None), "pixel_values is missing")
    assert_says(refusal(model, input_ids=None, inputs_embeds=EMBEDS), "input_ids is missing")
    assert_says(refusal(model, labels=[0]), "labels are for image classifiers")
    assert_says(refusal(model, input_ids=IDS[:1], attention_mask=None, return_loss=True), "2 images and 1 texts")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name, *_ in BAD if name != "pixel_values"])
def test_a_classifier_takes_no_text(tmp_path: Path, name: str, backend: str) -> None:
    folders.peer("CLIPForImageClassification").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"takes no {name}"):
        minclip.load(tmp_path, backend=backend)(pixel_values=PIXELS, **{name: IDS})


# --- what is taken -------------------------------------------------------------------------------------------------

FIT = {"input_ids": IDS, "attention_mask": MASK, "position_ids": np.arange(4), "token_type_ids": np.zeros((2, 4), int)}
INTEGERS: list[Callable[[np.ndarray], Any]] = [
    *(lambda x, t=t: x.astype(t) for t in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">i8", ">u4")),
    *(lambda x, t=t: torch.tensor(x).to(t) for t in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)),
    *(lambda x, t=t: torch.tensor(x).to(t) for t in (torch.uint16, torch.uint32, torch.uint64)),
    lambda x: x.tolist(),
    lambda x: tuple(map(tuple, x.tolist())) if x.ndim > 1 else tuple(x.tolist()),
    lambda x: [torch.tensor(row) for row in x] if x.ndim > 1 else torch.tensor(x),
    lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    lambda x: np.asfortranarray(x),
]
MASKS: list[Callable[[np.ndarray], Any]] = [
    *INTEGERS,
    *(lambda x, t=t: x.astype(t) for t in (bool, "f2", "f4", "f8", ">f4", np.longdouble)),
    *(lambda x, t=t: torch.tensor(x).to(t) for t in (torch.bool, torch.float32, torch.float16, torch.bfloat16)),
    lambda x: torch.tensor(x).float().requires_grad_(),
]
REALS: list[Callable[[np.ndarray], Any]] = [
    *(lambda x, t=t: x.astype(t) for t in ("f4", "f8", ">f4", ">f8", np.longdouble)),
    lambda x: torch.tensor(x),
    lambda x: torch.tensor(x).double(),
    lambda x: torch.tensor(x, requires_grad=True),
    lambda x: torch.tensor(x).to(torch.bfloat16),
    lambda x: torch.tensor(x).half(),
    lambda x: x.astype("f2"),
    lambda x: x.tolist(),
    lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
]


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", KINDS.values())
@pytest.mark.parametrize("name", FIT)
def test_integers_of_every_type_give_one_answer(models: Models, family: str, backend: str, name: str) -> None:
    model = models[family, backend]
    expected = model(**RIGHT | FIT)
    for change in (*(MASKS if name == "attention_mask" else INTEGERS), read_only):
        found = model(**RIGHT | FIT | {name: change(FIT[name])})
        np.testing.assert_array_equal(found.text_embeds, expected.text_embeds)


# halves and bfloat16 hold these numbers exactly, so that every type gives one answer
REAL = {"pixel_values": np.round(PIXELS * 8) / 8, "inputs_embeds": np.round(EMBEDS * 8) / 8, "head_mask": HEADS}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", KINDS.values())
@pytest.mark.parametrize("name", REAL)
def test_floats_of_every_type_give_one_answer(models: Models, family: str, backend: str, name: str) -> None:
    model = models[family, backend]
    expected = model(**RIGHT | REAL)
    other = model(**RIGHT | REAL | {name: REAL[name] * 2})
    assert not np.array_equal(other.logits_per_image, expected.logits_per_image)
    for change in (*REALS, read_only):
        found = model(**RIGHT | REAL | {name: change(REAL[name])})
        np.testing.assert_array_equal(found.logits_per_image, expected.logits_per_image)


@pytest.mark.parametrize("family", KINDS.values())
def test_both_backends_give_one_answer(models: Models, family: str) -> None:
    for given in (RIGHT, RIGHT | FIT, RIGHT | REAL, RIGHT | {"head_mask": [0.5, 1]}):
        ours, theirs = (models[family, backend](**given) for backend in BACKENDS)
        np.testing.assert_allclose(ours.image_embeds, theirs.image_embeds, atol=2e-5)
        np.testing.assert_allclose(ours.text_embeds, theirs.text_embeds, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", KINDS.values())
def test_a_factor_a_head_is_the_same_for_every_layer(models: Models, family: str, backend: str) -> None:
    model = models[family, backend]
    one, each = (model(**RIGHT, head_mask=mask).text_embeds for mask in (HEADS[0], np.stack([HEADS[0]] * 2)))
    np.testing.assert_array_equal(one, each)
    assert np.abs(one - model(**RIGHT).text_embeds).max() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_embeddings_take_the_place_of_ids_where_no_end_is_looked_for(models: Models, backend: str) -> None:
    model = models["altclip", backend]
    table = model.weights["text_model.roberta.embeddings.word_embeddings.weight"]
    ids = np.array([[0, 5, 6, END], [0, 7, 8, END]])
    found = model.get_text_features(inputs_embeds=table[ids])
    np.testing.assert_allclose(found, model.get_text_features(input_ids=ids), atol=1e-5)
