"""Zero-shot accuracy and retrieval: against counting by hand, and as the command writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from training import entries, rows, write_data

import minclip
from minclip_torch.training.entries import DataError, Entry, name_classes, read_entries
from minclip_torch.training.evaluate import BEGIN, END, evaluate, main, scores, table, write_card

CARD = f"# A model\n\n{BEGIN}\nold\n{END}\n\nthe rest\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen named pictures in two languages; the discs are a set."""
    path = write_data(tmp_path_factory.mktemp("evaluate"))
    lines = [{**line, "sets": ["discs"] if "disc" in line["captions"]["en"][0] else []} for line in entries()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_scores_are_what_counting_gives() -> None:
    images, texts = rows(30, 4, seed=1), rows(12, 4, seed=2)
    right = np.random.default_rng(3).integers(12, size=30)[:, None] == np.arange(12)
    right[right.sum(0).argmin()] = True  # every text has a picture
    found = scores("en", images, texts, right)

    def place(query: np.ndarray, candidates: np.ndarray, answers: np.ndarray) -> int:
        order = np.argsort(-(candidates @ query))
        return 1 + int(np.flatnonzero(answers[order])[0])

    by_image = [place(image, texts, right[i]) for i, image in enumerate(images)]
    by_text = [place(text, images, right[:, j]) for j, text in enumerate(texts)]
    assert (found.language, found.pictures, found.names) == ("en", 30, 12)
    assert found.top1 == pytest.approx(np.mean([n == 1 for n in by_image]))
    assert found.top5 == pytest.approx(np.mean([n <= 5 for n in by_image]))
    assert found.image_to_text_mrr == pytest.approx(np.mean([1 / n for n in by_image]))
    assert found.text_to_image_mrr == pytest.approx(np.mean([1 / n for n in by_text]))
    recalls = found.text_to_image_recall1, found.text_to_image_recall5, found.text_to_image_recall10
    assert recalls == pytest.approx([np.mean([n <= k for n in by_text]) for k in (1, 5, 10)])


def test_a_model_of_one_answer_is_no_better_than_the_worst_of_a_tie() -> None:
    same = np.ones((6, 3)) / np.sqrt(3)
    found = scores("en", same, same, np.eye(6, dtype=bool))
    assert (found.top1, found.top5, found.image_to_text_mrr) == (0, 0, pytest.approx(1 / 6))


def test_a_model_that_answers_nan_is_never_right() -> None:
    texts = rows(6, 3)
    assert scores("en", np.full_like(texts, np.nan), texts, np.eye(6, dtype=bool)).top5 == 0


def test_it_counts_what_zero_shot_answers(data: Path, miniature: Path) -> None:
    model, found_entries = minclip.load(miniature), read_entries(data)
    (english, french) = evaluate(model, found_entries)
    for found, language in ((english, "en"), (french, "fr")):
        names = [entry.captions[language][0] for entry in found_entries]
        wanted = [name for entry, name in zip(found_entries, names, strict=True) for _ in entry.images]
        pictures = [str(image) for entry in found_entries for image in entry.images]
        answers = [ranking[0].label for ranking in model.zero_shot(pictures, names)]
        assert found.language == language
        assert found.pictures == len(wanted)
        assert found.top1 == pytest.approx(np.mean([a == w for a, w in zip(answers, wanted, strict=True)]))


def test_names_that_two_entries_share_are_one_class(data: Path, miniature: Path) -> None:
    found_entries = read_entries(data)
    for entry in found_entries[4:]:
        entry.captions["fr"] = ("chose",)
    _, french = evaluate(minclip.load(miniature), found_entries)
    assert french.names == 5
    assert french.pictures == sum(len(entry.images) for entry in found_entries)


def test_a_language_is_evaluated_over_the_entries_that_have_it(data: Path, miniature: Path) -> None:
    model, found_entries = minclip.load(miniature), read_entries(data)
    del found_entries[3].captions["fr"]
    assert [found.language for found in evaluate(model, found_entries)] == ["en"]
    (french,) = evaluate(model, found_entries, ["fr"])
    assert [french] == evaluate(model, [*found_entries[:3], *found_entries[4:]], ["fr"])
    with pytest.raises(DataError, match="no entry has captions in 'xx'; there are en, fr"):
        evaluate(model, found_entries, ["en", "xx"])
    del found_entries[4].captions["en"]
    with pytest.raises(DataError, match="the entries have no language in common: name those to evaluate"):
        evaluate(model, found_entries)


def test_names_in_sentences_are_scored_as_labels_of_that_template(data: Path, miniature: Path) -> None:
    model, found_entries = minclip.load(miniature), read_entries(data)
    english, french = evaluate(model, found_entries, sentences=True)
    images = model.encode_image([str(image) for entry in found_entries for image in entry.images])
    right = name_classes(found_entries)[1][:, None] == np.arange(len(found_entries))
    for found, code, template in ((english, "en", "A {}."), (french, "fr", "Un {}.")):
        names = [entry.captions[code][0] for entry in found_entries]
        assert found == scores(code, images, model.encode_text([template.format(name) for name in names]), right)
    assert [english, french] != evaluate(model, found_entries)


def test_a_language_without_a_sentence_is_refused(data: Path, miniature: Path) -> None:
    made = [Entry(entry.images, {"": entry.captions["en"]}) for entry in read_entries(data)]
    with pytest.raises(DataError, match=r"^no sentence is known for names in '': name other --languages, or drop"):
        evaluate(minclip.load(miniature), made, sentences=True)


def test_further_names_are_wrong_answers_and_no_queries(data: Path, miniature: Path) -> None:
    model, found_entries = minclip.load(miniature), read_entries(data)
    further = ["a moon", found_entries[0].captions["fr"][0], "a hat"]
    (found,) = evaluate(model, found_entries, ["fr"], further=further)
    (alone,) = evaluate(model, found_entries, ["fr"])
    names, own = name_classes(found_entries, "fr")
    images = model.encode_image([str(image) for entry in found_entries for image in entry.images])
    texts = model.encode_text([*names, "a moon", "a hat"])
    right = own[:, None] == np.arange(len(names) + 2)
    assert found.names == len(names) + 2
    assert found.top1 == np.mean((images @ texts.T).argmax(1) == own)
    assert found.text_to_image_mrr == alone.text_to_image_mrr
    assert found.image_to_text_mrr == scores("fr", images, texts, right).image_to_text_mrr < alone.image_to_text_mrr
    with pytest.raises(DataError, match=r"^further names are of one language, not of en, fr: name it with --languages"):
        evaluate(model, found_entries, further=further)


def test_the_last_row_of_a_table_is_the_mean_over_languages() -> None:
    found = [
        scores(code, rows(9, 3, seed), rows(9, 3, seed + 5), np.eye(9, dtype=bool))
        for seed, code in ((1, "a"), (2, "b"))
    ]
    lines = table(found).splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["| language", lines[1], "| a", "| b", "| mean"]
    first, second, mean = ([float(cell) for cell in line.strip("| ").split(" | ")[3:]] for line in lines[2:])
    assert mean == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)], abs=0.11)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_its_table_and_itself_into_the_card(
    data: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARD, encoding="utf-8")
    command = [str(miniature), str(data), "--languages", "en", "--card", str(card)]
    for _ in range(2):  # a second time nothing is added
        assert main(command) == 0
        out = capsys.readouterr().out
        written = card.read_text(encoding="utf-8")
        assert written.startswith(f"# A model\n\n{BEGIN}")
        assert written.endswith(f"{END}\n\nthe rest\n")
        assert out.strip() in written
        assert " ".join(["python -m minclip_torch.training.evaluate", *command]) in written
        assert "old" not in written


@pytest.mark.parametrize(("more", "title"), [([], "bare names:"), (["--sentences"], 'names in sentences ("A name."):')])
def test_a_card_says_what_the_labels_were(
    data: Path, miniature: Path, tmp_path: Path, more: list[str], title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARD, encoding="utf-8")
    assert main([str(miniature), str(data), *more, "--card", str(card)]) == 0
    assert f"`data.jsonl`, {title}\n" in capsys.readouterr().out
    assert f"`data.jsonl`, {title}\n" in card.read_text(encoding="utf-8")


def test_a_set_is_scored_among_its_own_names(data: Path, miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(miniature), str(data), "--set", "discs", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["language"], line["pictures"], line["names"]) for line in lines] == [("en", 6, 3), ("fr", 6, 3)]
    assert all(0 <= line["top1"] <= line["top5"] <= 1 for line in lines)


def test_names_in_a_file_are_chosen_from_and_the_table_says_so(
    data: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\ufeffred disc\n\n  a hat \r\na moon", encoding="utf-8")
    command = [str(miniature), str(data), "--languages", "en", "--names", str(names)]
    assert main(command) == 0
    title, _, _, _, row = capsys.readouterr().out.strip().splitlines()
    assert title == "`data.jsonl`, bare names, those of `names.txt` among them:"
    assert row.startswith("| en | 15 | 14 |")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["further_names"] == str(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "names.txt cannot be read as a list of names: "),
        (b"r\xe9seau", "names.txt cannot be read as a list of names: "),
        (b" \n\n", "names.txt holds no names: write one a line"),
    ],
)
def test_a_list_of_names_that_is_none_is_refused(
    data: Path, tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content)
    assert main(["mini-clip", str(data), "--languages", "en", "--names", str(names)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("card", ["no marks", f"only {BEGIN}", f"{END} and {BEGIN}"])
def test_a_card_without_the_marks_stays_as_it_is(tmp_path: Path, card: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(card, encoding="utf-8")
    with pytest.raises(DataError, match=r"README\.md has no <!-- evaluation --> \.\.\. <!-- end of evaluation -->"):
        write_card(path, "results")
    assert path.read_text(encoding="utf-8") == card


def test_a_card_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "README.md"
    path.write_text(CARD, encoding="utf-8")

    def fills_the_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fills_the_disk)
    with pytest.raises(OSError, match="No space left"):
        write_card(path, "results")
    assert path.read_text(encoding="utf-8") == CARD
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no marks", "has no <!-- evaluation -->"), ("réseau".encode("latin-1"), "no text in UTF-8"), (None, "card.md")],
)
def test_a_card_that_cannot_take_results_is_refused_before_the_work(
    data: Path,
    miniature: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    message: str,
) -> None:
    card = tmp_path / "card.md"
    if content is not None:
        card.write_bytes(content)
    assert main([str(miniature), str(data), "--card", str(card)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "DATA"], "no folder or file 'nowhere'"),
        (["MODEL", "absent.jsonl"], "absent.jsonl cannot be read"),
        (["MODEL", "DATA", "--set", "moons"], "has no entry of the set 'moons'"),
        (["MODEL", "DATA", "--languages", "xx"], "no entry has captions in 'xx'; there are en, fr"),
        (["MODEL", "DATA", "--backend", "abacus"], "no backend 'abacus'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    data: Path, miniature: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([{"MODEL": str(miniature), "DATA": str(data)}.get(word, word) for word in words]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("minclip: ")
    assert message in line
    assert "\n" not in line
