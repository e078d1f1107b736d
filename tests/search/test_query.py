"""What a query means: texts, pictures and sums of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniature import draw
from PIL import Image

import minclip
from minclip.errors import SearchError
from minclip.search.query import Term, query_vector, terms


def text(weight: float, content: str) -> Term:
    return Term(weight, content, False)


def picture(weight: float, content: object) -> Term:
    return Term(weight, content, True)


IMAGE = Image.new("RGB", (4, 4))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a dog", [text(1, "a dog")]),
        ("2:golden retriever", [text(2, "golden retriever")]),
        (".5:dog", [text(0.5, "dog")]),
        ("1:3:15 train", [text(1, "3:15 train")]),
        ("2:", [text(1, "2:")]),
        ("salt - and + pepper", [text(1, "salt - and + pepper")]),
        (["golden", "retriever"], [text(1, "golden retriever")]),
        (
            ["2:golden retriever", "+", "pool.jpg", "-", "fruit"],
            [text(2, "golden retriever"), picture(1, "pool.jpg"), text(-1, "fruit")],
        ),
        (["-", "0.5:fruit", "+", "a", "bowl"], [text(-0.5, "fruit"), text(1, "a bowl")]),
        (["3:./dog", "-", IMAGE], [picture(3, "./dog"), picture(-1, IMAGE)]),
        (IMAGE, [picture(1, IMAGE)]),
        (Path("dog"), [picture(1, Path("dog"))]),
        ("https://host/dog", [picture(1, "https://host/dog")]),
        ("狗", [text(1, "狗")]),
    ],
)
def test_a_query_is_read_as_rclips_users_write_it(query: object, expected: list[Term]) -> None:
    assert terms(query) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("query", ["", " ", "+", [], ["+"], ["a", "+"], ["a", "+", "-", "b"], ["a", IMAGE]])
def test_a_query_without_a_term_somewhere_is_refused(query: object) -> None:
    with pytest.raises(SearchError, match="query"):
        terms(query)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(1, 9), st.text("abc ", min_size=1).filter(str.strip))))
def test_what_is_written_is_read_back(parts: list[tuple[str, int, str]]) -> None:
    words = [word for sign, weight, content in parts for word in (sign, f"{weight}:{content}")]
    if words:
        assert terms(words) == [text(w if s == "+" else -w, c.strip()) for s, w, c in parts]


def test_the_vector_is_the_weighted_sum_of_unit_vectors(miniature: Path) -> None:
    model = minclip.load(miniature)
    image = draw("a blue square", np.random.default_rng(0))
    red, blue = model.encode_text("a red circle")[0], model.encode_image([image])[0]
    expected = 2 * red - 0.5 * blue
    found = query_vector(["2:a red circle", "-", image, "+", "0.5:a red circle", "-", "0.5:a red circle"], model)
    np.testing.assert_allclose(query_vector(["a red circle"], model), red, atol=1e-6)
    halved = 2 * red - blue
    np.testing.assert_allclose(found, halved / np.linalg.norm(halved), atol=1e-5)
    assert not np.allclose(found, expected / np.linalg.norm(expected), atol=1e-3)


def test_terms_that_cancel_out_are_refused(miniature: Path) -> None:
    with pytest.raises(SearchError, match="cancel out"):
        query_vector(["a dog", "-", "a dog"], minclip.load(miniature))
