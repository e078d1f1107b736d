"""Names in phrases: the table is complete, and each language's small rules are kept."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from minclip_torch.training.frames import (
    FRAMES,
    PLURALS,
    STOPPED,
    capitalized,
    draw,
    fill,
    is_phrase,
    plural,
    sentence,
    stopped,
)
from minclip_torch.training.miniatures.emoji import LANGUAGES


def drawn(text: str, language: str, framed: float = 1.0, count: int = 3000, seed: int = 0) -> Counter[str]:
    rng = np.random.default_rng(seed)
    return Counter(draw(text, language, framed, rng) for _ in range(count))


def test_every_language_of_the_bundled_models_has_frames() -> None:
    assert set(FRAMES) == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_frame_holds_one_place_for_the_name_and_stands_there_once(language: str) -> None:
    frames = FRAMES[language]
    assert 4 <= len(frames) == len(set(frames)) <= 9
    for frame in (*frames, *PLURALS):
        assert frame.count("{}") == 1
        assert frame == frame.strip()
        assert not frame.endswith(STOPPED)  # the stop is drawn


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_frame_of_a_language_comes_as_often(language: str) -> None:
    name = "q" if language != "en" else "qs"  # no plural of it
    found = drawn(name, language, count=4000)
    for frame in FRAMES[language]:
        framed = fill(frame, name, language)
        ways = {framed, capitalized(framed, language)}
        ways |= {stopped(way, language) for way in ways}
        others = sum(fill(other, name, language) == framed for other in FRAMES[language])
        share = sum(found[way] for way in ways) / 4000
        assert share == pytest.approx(others / len(FRAMES[language]), abs=0.03), frame


@pytest.mark.parametrize(
    ("language", "frame", "name", "expected"),
    [
        ("en", "a {}", "dog", "a dog"),
        ("en", "a {}", "apple", "an apple"),
        ("en", "this is a {}", "Eskimo", "this is an Eskimo"),
        ("en", "a {}", "unicorn", "a unicorn"),
        ("en", "a {}", "umbrella", "an umbrella"),
        ("en", "a {}", "hourglass", "an hourglass"),
        ("en", "a {}", "house", "a house"),
        ("en", "a {}", "one-piece swimsuit", "a one-piece swimsuit"),
        ("en", "a picture of a {}", "cherries", "a picture of cherries"),
        ("en", "a {}", "octopus", "an octopus"),
        ("en", "the {}", "apple", "the apple"),
        ("fr", "le {}", "chien", "le chien"),
        ("fr", "la {}", "école", "l'école"),
        ("fr", "une photo de {}", "arbre", "une photo d'arbre"),
        ("it", "il {}", "albero", "l'albero"),
        ("it", "un {}", "albero", "un albero"),
        ("it", "una {}", "ape", "un'ape"),
        ("it", "il {}", "squalo", "lo squalo"),
        ("it", "questo è un {}", "zaino", "questo è uno zaino"),
        ("it", "il {}", "sole", "il sole"),
        ("ar", "ال{}", "كلب", "الكلب"),
        ("ar", "ال{}", "وجه قطة", "وجه قطة"),
        ("he", "ה{}", "כלב", "הכלב"),
        ("zh", "一张{}的照片", "狗", "一张狗的照片"),
        ("de", "ein {}", "{} Ei", "ein {} Ei"),
    ],
)
def test_an_article_is_written_as_before_that_name(language: str, frame: str, name: str, expected: str) -> None:
    assert fill(frame, name, language) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog", "dogs"), ("red apple", "red apples"), ("box", "boxes"), ("peach", "peaches"), ("brush", "brushes"),
        ("cherry", "cherries"), ("monkey", "monkeys"), ("rose", "roses"), ("tomato", "tomatoes"), ("acorn", "acorns"),
        ("woman", None), ("man cook", None), ("mouse", None), ("sheep", None), ("scissors", None), ("knife", None),
        ("milk", None), ("person running", None), ("Tokyo tower", None), ("keycap: 0", None), ("x", None),
        ("dog with a hat", None),
    ],
)  # fmt: skip
def test_the_plural_of_regular_nouns_alone_is_made(name: str, expected: str | None) -> None:
    assert plural(name) == expected


def test_english_plurals_come_now_and_then() -> None:
    found = drawn("dog", "en")
    assert sum(found[text] for text in found if "dogs" in text) / 3000 == pytest.approx(0.15, abs=0.03)
    assert not any("a dogs" in text.lower() for text in found)
    assert not any("hunds" in text for text in drawn("hund", "sv"))


@pytest.mark.parametrize(
    ("language", "name", "expected"),
    [
        ("en", "apple", "An apple."), ("fr", "chien", "Un chien."), ("de", "Hund", "Ein Hund."),
        ("zh", "狗", "一个狗。"), ("ja", "犬", "これは犬です。"), ("ru", "собака", "Это собака."),
        ("el", "δέντρο", "Ένα δέντρο."),
        ("hi", "कुत्ता", "एक कुत्ता।"), ("bn", "কুকুর", "একটি কুকুর।"), ("th", "หมา", "นี่คือหมา"), ("ar", "كلب", "هذا كلب."),
        ("tr", "kedi", "Bir kedi."), ("ko", "개", "이것은 개입니다."), ("en", "A dog runs.", "A dog runs."),
    ],
)  # fmt: skip
def test_the_plain_sentence_has_capital_and_full_stop_of_its_script(language: str, name: str, expected: str) -> None:
    assert sentence(name, language) == expected


def test_half_of_the_framed_and_few_of_the_bare_have_a_capital_and_a_stop() -> None:
    for framed, share in ((1.0, 0.5), (0.0, 0.15)):
        found = drawn("собака", "ru", framed)
        for way in (str.istitle, lambda text: text.endswith(".")):
            counted = sum(count for text, count in found.items() if way(text[:1] + text[-1:]))
            assert counted / 3000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [("izgara", "tr", "İzgara"), ("ijs", "nl", "IJs"), ("élan", "fr", "Élan"), ("犬", "ja", "犬"), ("", "en", "")],
)
def test_capitals_are_the_languages_own(text: str, language: str, expected: str) -> None:
    assert capitalized(text, language) == expected


def test_a_stop_is_not_doubled() -> None:
    assert stopped("What?", "en") == "What?"
    assert stopped("犬。", "ja") == "犬。"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a dog on grass", "en"),
        ("An apple", "en"),
        ("Dogs bark.", "en"),
        ("الحوت", "ar"),
        ("一只狗", "zh"),
        ("ein Hund", "de"),
    ],
)
def test_what_is_a_phrase_already_is_left_alone(text: str, language: str) -> None:
    assert is_phrase(text, language)
    assert set(drawn(text, language, count=50)) == {text}


@pytest.mark.parametrize("language", ["", "xx", "en-GB"])
def test_a_language_without_frames_is_left_alone(language: str) -> None:
    assert set(drawn("dog", language, count=50)) == {"dog"}


def test_the_same_numbers_draw_the_same_captions() -> None:
    assert list(drawn("dog", "en", 0.5, 200, seed=1)) == list(drawn("dog", "en", 0.5, 200, seed=1))
    assert list(drawn("dog", "en", 0.5, 200, seed=1)) != list(drawn("dog", "en", 0.5, 200, seed=2))
