"""Label sets: the answers of the labels themselves, encoded once, by the model that made them and no other."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniature import captions, draw

import minclip
from minclip import encoding
from minclip.backend import NumpyTowers
from minclip.contrastive import unit
from minclip.inputs import text_inputs
from minclip.label_set import ARRAYS, LabelSet
from minclip.pipeline import Progress
from minclip.ranking import Prediction
from minclip.weights import Weights

BACKENDS = ("numpy", "torch")
PICTURES = [draw(caption, np.random.default_rng(number)) for number, caption in enumerate(captions()[:3])]
ROUNDING = 1e-5  # batches of other sizes are summed in another order
WORDS = st.sampled_from(["red", "circle", "a blue square", "猫", "triangle " * 20, "l'été", "a", "{}", "  b  "])
LABELS = st.lists(WORDS | st.text("abc é猫", min_size=1).filter(str.strip), min_size=1, max_size=9, unique=True)
FORMATS = st.sampled_from(["{}", "a {} here", "{} {", "a photo of a {}, drawn by hand, on paper."])
TEMPLATES = st.none() | FORMATS
SEVERAL = TEMPLATES | st.lists(FORMATS, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def models(miniature: Path) -> dict[str, minclip.Model]:
    return {backend: minclip.load(miniature, backend=backend, device="cpu") for backend in BACKENDS}


@pytest.fixture
def model(miniature: Path) -> minclip.Model:
    return minclip.load(miniature)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what the text tower was given since the test began."""
    shapes: list[tuple[int, ...]] = []

    def counted(config: minclip.Config, **given: Any) -> Any:
        shapes.append(given["input_ids"].shape)
        return text_inputs(config, **given)

    monkeypatch.setattr("minclip.model.text_inputs", counted)  # what every run of a text tower begins with
    return shapes


def one_line(call: Callable[[], object], kind: type[Exception], *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


# --- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@given(labels=LABELS, template=SEVERAL)
def test_a_set_ranks_as_its_labels_and_templates_do(
    models: dict[str, minclip.Model], tmp_path_factory: pytest.TempPathFactory, backend: str, labels: list[str],
    template: str | list[str] | None,
) -> None:  # fmt: skip
    model, path = models[backend], tmp_path_factory.getbasetemp() / "labels.npz"
    made = model.label_set(labels, template)
    made.save(path)
    expected = model.zero_shot(PICTURES, labels, template=template)
    for known in (made, LabelSet.open(path), pickle.loads(pickle.dumps(made))):
        assert model.zero_shot(PICTURES, known) == expected
        assert minclip.zero_shot(PICTURES, known, model=model) == expected
        assert np.array_equal(known.embeds, made.embeds)
        assert known.embeds.dtype == np.float32
        assert (list(known.labels), len(known)) == (labels, len(labels))
        assert (known.templates, known.model, known.fingerprint) == (made.templates, made.model, made.fingerprint)
    one = model.zero_shot(PICTURES[0], labels, template=template, top_k=1)
    assert model.zero_shot(PICTURES[0], made, top_k=1) == one


@pytest.mark.parametrize("backend", BACKENDS)
@given(labels=LABELS, templates=st.lists(FORMATS, min_size=1, max_size=4), at_once=st.integers(1, 12))
def test_a_label_is_the_renormalized_mean_of_its_texts_encoded_one_by_one(
    models: dict[str, minclip.Model], backend: str, labels: list[str], templates: list[str], at_once: int
) -> None:
    model = models[backend]
    expected = []
    for label in labels:
        rows = np.concatenate([model.encode_text(form.replace("{}", label)) for form in templates])
        expected.append(unit(rows.mean(axis=0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "TEXTS_AT_ONCE", at_once)
        found = model.label_set(labels, templates, batch_size=3)
    np.testing.assert_allclose(found.embeds, expected, atol=ROUNDING)


def test_the_one_liner_takes_the_model_that_made_the_set(miniature: Path, model: minclip.Model) -> None:
    known = model.label_set(captions())
    assert known.model == str(miniature)
    assert minclip.zero_shot(PICTURES[0], known) == model.zero_shot(PICTURES[0], captions())


def test_a_set_made_in_float64_is_float32_and_ranks_alike(miniature: Path) -> None:
    model = minclip.load(miniature, dtype="float64")
    known = model.label_set(captions())
    assert known.embeds.dtype == np.float32
    expected = dict(model.zero_shot(PICTURES[0], captions()))
    assert dict(model.zero_shot(PICTURES[0], known)) == pytest.approx(expected, abs=1e-6)


def test_another_backend_takes_the_set_and_a_copy_of_the_folder_too(miniature: Path, tmp_path: Path) -> None:
    """In float64, whose embeddings are rounded to float32 once: products in another order make no difference."""
    shutil.copytree(miniature, tmp_path / "copy")
    first = minclip.load(miniature, dtype="float64")
    known = first.label_set(captions())
    expected = dict(first.zero_shot(PICTURES[0], known))
    for other in (
        minclip.load(miniature, backend="torch", dtype="float64"),
        minclip.load(tmp_path / "copy", dtype="float64"),
    ):
        assert dict(other.zero_shot(PICTURES[0], known)) == pytest.approx(expected, abs=1e-6)


def test_a_set_cannot_be_changed(model: minclip.Model) -> None:
    labels, rows = captions(), np.array(model.label_embeds(captions()))
    known = LabelSet(labels, ["{}"], rows, "a", "b")
    labels[0], rows[0] = "another", 0
    assert known.labels[0] == captions()[0]
    assert np.array_equal(known.embeds, model.label_embeds(captions()))
    with pytest.raises(ValueError, match="read-only"):
        known.embeds[0] = 0


# --- what is encoded, and when -------------------------------------------------------------------------------------


def test_a_loop_over_pictures_encodes_its_labels_once(model: minclip.Model, encoded: list[tuple[int, ...]]) -> None:
    answers = [model.zero_shot(picture, captions(), template=["{}", "{} here"]) for picture in PICTURES]
    assert [rows for rows, _ in encoded] == [24]
    assert model.zero_shot(PICTURES[1], tuple(captions()), template=("{}", "{} here")) == answers[1]
    assert minclip.zero_shot(PICTURES[0], captions(), model=model, template=["{}", "{} here"]) == answers[0]
    assert len(encoded) == 1


def test_a_set_is_never_encoded_again(model: minclip.Model, tmp_path: Path, encoded: list[tuple[int, ...]]) -> None:
    model.label_set(captions()).save(tmp_path / "set.npz")
    model.zero_shot(PICTURES, LabelSet.open(tmp_path / "set.npz"))
    assert len(encoded) == 1


def test_other_labels_templates_towers_or_processors_are_encoded(
    miniature: Path, model: minclip.Model, encoded: list[tuple[int, ...]]
) -> None:
    labels = captions()[:3]
    for other in (labels[::-1], labels[:2], labels):  # one set is remembered, not all
        model.zero_shot(PICTURES[0], other)
    for template in ("a {}", ["a {}", "b {}"], ["b {}", "a {}"]):
        model.zero_shot(PICTURES[0], labels, template=template)
    assert len(encoded) == 6
    model.processor = minclip.load(miniature).processor
    model.zero_shot(PICTURES[0], labels, template=["b {}", "a {}"])
    model.towers = minclip.load(miniature).towers
    model.zero_shot(PICTURES[0], labels, template=["b {}", "a {}"])
    assert len(encoded) == 8


def test_what_is_remembered_is_out_of_the_caller_s_reach(model: minclip.Model) -> None:
    labels, templates = captions(), ["{}"]
    expected = model.zero_shot(PICTURES[0], labels, template=templates)
    with pytest.raises(ValueError, match="read-only"):
        model.label_embeds(labels, templates)[0] = 0
    labels[0], templates[0] = "another", "a {}"
    assert model.zero_shot(PICTURES[0], captions(), template="{}") == expected
    assert model.zero_shot(PICTURES[0], labels, template=templates) == minclip.Model.zero_shot(
        model, PICTURES[0], tuple(labels), template="a {}"
    )


def trainable(model: minclip.Model) -> minclip.Model:
    """The model over weights in memory, as those that are trained."""
    weights = Weights({name: model.weights[name].copy() for name in model.weights})
    return minclip.Model(model.config, weights, model.processor, NumpyTowers(model.config, weights), "trainable")


def test_weights_that_were_trained_in_place_give_their_own_answers(model: minclip.Model) -> None:
    student = trainable(model)
    known, before = student.label_set(captions()), student.zero_shot(PICTURES[0], captions())
    assert student.zero_shot(PICTURES[0], known) == before
    student.weights["text_projection.weight"][::2] *= -1
    after = student.zero_shot(PICTURES[0], captions())
    assert after == trainable(student).zero_shot(PICTURES[0], captions())
    assert after != before
    one_line(lambda: student.zero_shot(PICTURES[0], known), minclip.LabelSetError, "another model")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_remembers_is_pickled(models: dict[str, minclip.Model], backend: str) -> None:
    model = models[backend]
    expected = model.zero_shot(PICTURES[0], captions())
    again = pickle.loads(pickle.dumps(model))
    for labels in (captions(), model.label_set(captions())):
        assert dict(again.zero_shot(PICTURES[0], labels)) == pytest.approx(dict(expected), abs=1e-6)


def test_threads_that_share_a_model_each_get_their_own_answer(model: minclip.Model) -> None:
    lists = [captions()[start:] for start in range(6)]
    expected = [model.zero_shot(PICTURES[0], labels) for labels in lists]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: (n, model.zero_shot(PICTURES[0], lists[n])), [n % 6 for n in range(60)]))
    for number, ranking in found:
        assert [p.label for p in ranking] == [p.label for p in expected[number]]
        assert dict(ranking) == pytest.approx(dict(expected[number]), abs=1e-6)


def test_of_many_labels_in_many_templates_few_texts_are_held_at_once(
    model: minclip.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, rows = [], encoding.text_rows
    monkeypatch.setattr("minclip.model.text_rows", lambda texts, *rest: held.append(len(texts)) or rows(texts, *rest))
    monkeypatch.setattr(encoding, "TEXTS_AT_ONCE", 50)
    forms = [f"{{}} in style {number}" for number in range(20)]
    assert len(model.label_set([f"thing {number}" for number in range(9)], forms)) == 9
    assert held == [40, 40, 40, 40, 20]


# --- texts by length -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    texts=st.lists(WORDS | st.text(max_size=30).filter(str.isprintable), min_size=1, max_size=20),
    size=st.integers(1, 9),
)
def test_texts_keep_their_order_whatever_their_lengths(
    models: dict[str, minclip.Model], backend: str, texts: list[str], size: int
) -> None:
    model = models[backend]
    alone = np.concatenate([model.encode_text(text) for text in texts])
    np.testing.assert_allclose(model.encode_text(texts, batch_size=size), alone, atol=ROUNDING)
    native = model.encode_text(texts, batch_size=size, native=True)
    np.testing.assert_allclose(model.towers.to_numpy(native), alone, atol=ROUNDING)


def test_equal_texts_are_encoded_once(model: minclip.Model, encoded: list[tuple[int, ...]]) -> None:
    found = model.encode_text(["a", "b", "a", "a", "b"])
    assert [rows for rows, _ in encoded] == [2]
    assert np.array_equal(found, found[[0, 1, 0, 0, 1]])
    assert not np.array_equal(found[0], found[1])


def test_short_texts_are_not_padded_to_long_ones(model: minclip.Model, encoded: list[tuple[int, ...]]) -> None:
    short, long = [f"{c} b" for c in "acdefghi"], [f"{c} square" * 9 for c in "acdefghi"]
    model.encode_text([text for pair in zip(short, long, strict=True) for text in pair], batch_size=8)
    lengths = [len(model.processor.tokenizer.encode(texts[0], truncation=True)) for texts in (long, short)]
    assert encoded == [(8, length) for length in lengths]


def test_the_texts_done_before_memory_ran_out_are_kept(model: minclip.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a blue square", "a red circle", "b", "a green triangle", "a"]  # by length: 3, 0, 1, then 2 and 4
    expected = model.encode_text(texts)
    left: list[None] = []  # batches until then

    def failing(config: minclip.Config, **given: Any) -> Any:
        if not left:
            raise minclip.BackendError("out of memory")
        left.pop()
        return text_inputs(config, **given)

    monkeypatch.setattr("minclip.model.text_inputs", failing)
    for done, kept in ((0, 0), (1, 0), (2, 1), (3, 2), (4, 4)):
        left[:] = [None] * done
        with pytest.raises(minclip.BackendError) as caught:
            model.encode_text(texts, batch_size=1)
        finished = caught.value.finished
        assert (0 if finished is None else len(finished)) == kept
        if finished is not None:
            np.testing.assert_allclose(finished, expected[:kept], atol=ROUNDING)


def test_the_bar_counts_every_text_and_ends_once(
    model: minclip.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = []
    monkeypatch.setattr(encoding, "TEXTS_AT_ONCE", 4)
    monkeypatch.setattr("minclip.model.Progress", lambda *a, **kw: bars.append(Progress(*a, **kw)) or bars[-1])
    model.label_set(captions(), ["{}", "{}", "a {}"], progress=True)
    assert [(bar.done, bar.total) for bar in bars] == [(36, 36)]
    assert capsys.readouterr().err.count("\n") == 1


# --- bad input -----------------------------------------------------------------------------------------------------

BAD: list[tuple[Callable[[minclip.Model, LabelSet], object], type[Exception], str]] = [
    (lambda m, s: m.zero_shot(PICTURES[0], s, template="a {}"), ValueError, "template"),
    (lambda m, s: minclip.zero_shot(PICTURES[0], s, model=m, template=["{}"]), ValueError, "template"),
    (lambda m, s: m.label_embeds(s, "{}"), ValueError, "template"),
    (lambda m, s: m.zero_shot(PICTURES[0], s, top_k=0), ValueError, "top_k"),
    (lambda m, s: m.zero_shot([], s), ValueError, "images is empty"),
    (lambda m, s: m.label_set(s), ValueError, "labels must be a list"),
    (lambda m, s: m.label_set([]), ValueError, "labels"),
    (lambda m, s: m.label_set("a cat"), ValueError, "labels"),
    (lambda m, s: m.label_set(["a", "a"]), ValueError, "'a' twice"),
    (lambda m, s: m.label_set(["a", " "]), ValueError, "says nothing"),
    (lambda m, s: m.label_set(["a", 3]), ValueError, "3 is of type int"),
    (lambda m, s: m.label_set(["a"], "no braces"), ValueError, "template"),
    (lambda m, s: m.label_set(["a"], []), ValueError, "template"),
    (lambda m, s: m.label_set(["a"], batch_size=0), ValueError, "batch_size"),
    (lambda m, s: m.label_set(["a"]).save(""), minclip.LabelSetError, "cannot be written"),
    (lambda m, s: m.label_set(["a\0"]).save("set.npz"), minclip.LabelSetError, "NUL"),
    (lambda m, s: minclip.explain(PICTURES[0], s, model=m), ValueError, "labels must be a list"),
    (lambda m, s: m.encode_text(s), ValueError, "texts must be"),
    (lambda m, s: LabelSet(s.labels, s.templates, s.embeds[1:], "a", "b"), ValueError, "shape (11, 32)"),
    (lambda m, s: LabelSet(s.labels, s.templates, s.embeds * 2, "a", "b"), ValueError, "unit length"),
    (lambda m, s: LabelSet(s.labels, s.templates, s.embeds * np.nan, "a", "b"), ValueError, "unit length"),
    (lambda m, s: LabelSet(s.labels, s.templates, s.embeds[:, 0], "a", "b"), ValueError, "shape (12,)"),
    (lambda m, s: LabelSet.open("nowhere.npz"), minclip.LabelSetError, "nowhere.npz cannot be read: No such file"),
    (lambda m, s: LabelSet.open(os.devnull), minclip.LabelSetError, f"{os.devnull} cannot be read"),
    (
        lambda m, s: m.zero_shot(PICTURES[0], LabelSet(["a"], ["{}"], [[1.0]], "other", s.fingerprint)),
        minclip.LabelSetError,
        "made with other",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), BAD)
def test_what_makes_no_sense_is_refused_in_one_line(
    model: minclip.Model, call: Callable[[minclip.Model, LabelSet], object], kind: type[Exception], words: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    known = model.label_set(captions())
    one_line(lambda: call(model, known), kind, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["text_projection.weight", "visual_projection.weight", "logit_scale"])
def test_a_set_of_another_model_is_refused_by_both_names(model: minclip.Model, name: str) -> None:
    other = trainable(model)
    other.weights[name][...] += 0.01
    one_line(
        lambda: other.zero_shot(PICTURES[0], model.label_set(captions())),
        minclip.LabelSetError, "trainable", "another model", model.source,
    )  # fmt: skip


def contents(known: LabelSet) -> dict[str, Any]:
    return {
        "embeds": known.embeds,
        "labels": np.array(known.labels),
        "templates": np.array(known.templates),
        "model": np.array(known.model),
        "fingerprint": np.array(known.fingerprint),
    }


class Trap:
    """Says where it was unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("sprung").touch, ()


FILES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a NaN": lambda c: c | {"embeds": np.where(np.eye(*c["embeds"].shape) > 0, np.nan, c["embeds"])},
    "an infinity": lambda c: c | {"embeds": c["embeds"] + np.float32("inf")},
    "vectors that are too long": lambda c: c | {"embeds": c["embeds"] * np.float32(1.1)},
    "vectors whose squares overflow": lambda c: c | {"embeds": c["embeds"] * np.float32(1e38)},
    "a vector too few": lambda c: c | {"embeds": c["embeds"][1:]},
    "no vector": lambda c: c | {"embeds": c["embeds"][:0]},
    "one vector": lambda c: c | {"embeds": c["embeds"][0]},
    "float64": lambda c: c | {"embeds": c["embeds"].astype(np.float64)},
    "the other byte order": lambda c: c | {"embeds": c["embeds"].astype(">f4")},
    "labels that are bytes": lambda c: c | {"labels": np.array([b"a"] * 12)},
    "labels that are numbers": lambda c: c | {"labels": np.arange(12)},
    "labels in rows": lambda c: c | {"labels": c["labels"].reshape(3, 4)},
    "a label twice": lambda c: c | {"labels": np.array(["a"] * 12)},
    "an empty label": lambda c: c | {"labels": np.array(["", *c["labels"][1:]])},
    "no label": lambda c: c | {"labels": c["labels"][:0], "embeds": c["embeds"][:0]},
    "labels of no width": lambda c: c | {"labels": np.zeros(12, "U0")},
    "a template without braces": lambda c: c | {"templates": np.array(["a"])},
    "no template": lambda c: c | {"templates": np.array([], "U1")},
    "a fingerprint that is none": lambda c: c | {"fingerprint": np.array("abc")},
    "a list of models": lambda c: c | {"model": np.array(["a", "b"])},
    "an array too many": lambda c: c | {"further": np.array(1)},
    "an array too few": lambda c: {name: array for name, array in c.items() if name != "templates"},
    "embeddings of texts": lambda c: {"embeds": c["embeds"], "texts": c["labels"], "model": c["model"]},
    "a pickle": lambda c: c | {"labels": np.array([Trap()] * 12, object)},
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_label_set_is_refused_in_one_line(
    model: minclip.Model, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "set.npz", **FILES[what](contents(model.label_set(captions()))))
    one_line(lambda: LabelSet.open("set.npz"), minclip.LabelSetError, "set.npz is not a whole label set (")
    assert list(tmp_path.iterdir()) == [tmp_path / "set.npz"]
    assert not recwarn.list


def test_the_file_is_an_npz_that_numpy_reads_and_may_have_any_name(model: minclip.Model, tmp_path: Path) -> None:
    known = model.label_set(captions(), ["{}", "a {}"])
    known.save(tmp_path / "labels")
    with np.load(tmp_path / "labels") as arrays:
        assert sorted(arrays) == list(ARRAYS)
        assert all(np.array_equal(arrays[name], array) for name, array in contents(known).items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels"]


def other_files(whole: bytes) -> dict[str, bytes]:
    return {"empty": b"", "text": b"a cat\na dog\n", "cut short": whole[:-1], "half": whole[: len(whole) // 2]}


@pytest.mark.parametrize("what", other_files(b"ab"))
def test_other_files_are_refused_by_name(model: minclip.Model, what: str, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    model.label_set(captions()).save(path)
    path.write_bytes(other_files(path.read_bytes())[what])
    one_line(lambda: LabelSet.open(path), minclip.LabelSetError, str(path), "minclip labels")


def test_a_compressed_file_which_may_hide_gigabytes_is_refused(model: minclip.Model, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", **contents(model.label_set(captions())))
    one_line(lambda: LabelSet.open(tmp_path / "set.npz"), minclip.LabelSetError, "compressed")


def test_a_folder_is_no_set_and_is_not_replaced_by_one(model: minclip.Model, tmp_path: Path) -> None:
    one_line(lambda: LabelSet.open(tmp_path), minclip.LabelSetError, str(tmp_path))
    one_line(lambda: model.label_set(captions()).save(tmp_path), minclip.LabelSetError, str(tmp_path))


def test_an_old_file_stays_where_the_new_one_cannot_be_written(
    model: minclip.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.npz"
    model.label_set(captions()).save(path)
    before = path.read_bytes()

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    one_line(lambda: model.label_set(["a"]).save(path), minclip.LabelSetError, str(path), "No space left")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.npz"]


def test_labels_and_their_set_have_the_same_type_of_answer(model: minclip.Model) -> None:
    labels: Sequence[str] = captions()
    for given_labels in (labels, model.label_set(labels)):
        ranking = model.zero_shot(PICTURES[0], given_labels)
        assert isinstance(ranking[0], Prediction)
        assert isinstance(model.zero_shot([PICTURES[0]], given_labels)[0], list)
    assert repr(model.label_set(labels)) == f"<minclip.LabelSet: 12 labels, 1 templates, of {model.source}>"
