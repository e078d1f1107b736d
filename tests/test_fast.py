"""What runs on all cores is what `minclip.towers` computes: whichever way the work is cut, whatever is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minclip import fast, products
from minclip.backend import NumpyTowers
from minclip.config import FAMILIES, Config
from minclip.inputs import TextInputs, checked_inputs
from minclip.testing.strategies import Case, cases, configs, inputs, optional_text_inputs
from minclip.threads import Team
from minclip.towers import pooling_weights
from minclip.weights import Weights

CUTS = {"rows": (0, 1024), "rows, few at a time": (0, 4), "layers": (10**6, 1024)}
"""`TOKENS` and `MOST_TOKENS` that make a run of any size be cut in one way."""
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}


@contextmanager
def cut(way: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "small_kernels", lambda: True)
        patch.setattr(fast, "SMALL", 0)
        patch.setattr(fast, "SMALL_PACKED", 0)
        patch.setattr(fast, "TOKENS", CUTS[way][0])
        patch.setattr(fast, "MOST_TOKENS", CUTS[way][1])
        yield


def close(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    assert found.dtype == expected.dtype == dtype
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    assert np.abs(found - expected).max(initial=0.0) <= TOLERANCE[dtype] * scale


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way", CUTS)
@given(st.data(), st.integers(1, 5))
def test_all_cores_give_what_the_definition_gives(way: str, dtype: str, data: st.DataObject, threads: int) -> None:
    stored, widened = data.draw(st.sampled_from(["float32", "float16", "bfloat16"])), data.draw(st.booleans())
    case: Case = data.draw(cases(configs(), inputs, stored=stored))
    weights = case.model.weights.astype(dtype)
    weights = weights.widened() if widened else weights
    plain = NumpyTowers(case.model.config, weights)
    with cut(way):
        quick = NumpyTowers(case.model.config, weights, Team(threads), prepack=data.draw(st.booleans()))
    text = data.draw(optional_text_inputs(case.model.config)) if data.draw(st.booleans()) else {}
    pixels = {"pixel_values": case.inputs["pixel_values"]}
    checked: dict[str, Any] = checked_inputs(case.model.config, {**pixels, **text} if text else case.inputs)
    with cut(way):
        for tower, given_inputs in checked.items():
            expected, found = getattr(plain, tower)(given_inputs), getattr(quick, tower)(given_inputs)
            for name in ("last_hidden_state", "pooler_output", "embeds"):
                close(getattr(found, name), getattr(expected, name), dtype)
            embeds = {"vision": quick.image_embeds, "text": quick.text_embeds}[tower](given_inputs)
            close(embeds, expected.embeds, dtype)


@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 4), st.sampled_from(["float32", "float16"]), st.booleans())
def test_a_team_multiplies_by_its_shares_of_a_matrix(m: int, f: int, threads: int, stored: str, packed: bool) -> None:
    """A convolution's, too, which the towers flatten; what is not shared stays as it is."""
    rng = np.random.default_rng(m)
    table = {"at.kernel": rng.standard_normal((f, 3, 2, 2)).astype(stored), "at.bias": np.ones(f, np.float32)}
    x, plain = rng.standard_normal((m, 12)).astype(np.float32), Weights(table)
    given_weights = plain.with_forms({"at.kernel": products.Packed.of(table["at.kernel"])}) if packed else plain
    with Team(threads).at_work() as team:
        weights = fast._among(team, given_weights, "at.kernel").at("at")
        product = x @ weights["kernel"].reshape(f, -1).T
        assert isinstance(weights["kernel"], fast.InTeam) == (threads > 1 or packed)
    assert type(product) is type(weights["bias"]) is np.ndarray
    close(product, x @ plain["at.kernel"].reshape(f, -1).T, "float32")


@pytest.mark.parametrize("way", CUTS)
@given(st.data())
def test_the_number_of_threads_changes_nothing_but_rounding(way: str, data: st.DataObject) -> None:
    case: Case = data.draw(cases(configs(), inputs))
    with cut(way):
        for tower, checked in checked_inputs(case.model.config, case.inputs).items():
            answers = []
            for threads in (1, 2, 3):
                towers = NumpyTowers(case.model.config, case.model.weights, Team(threads))
                answers.append({"vision": towers.image_embeds, "text": towers.text_embeds}[tower](checked))
            for answer in answers[1:]:
                close(answer, answers[0], "float32")


@given(st.data())
def test_the_last_layer_is_left_out_for_one_pooled_token_only(data: st.DataObject) -> None:
    """A family that pools the mean of its tokens needs all states, and gets them."""
    case: Case = data.draw(cases(configs("clip"), inputs))
    config, weights = case.model.config, case.model.weights
    mean = replace(FAMILIES["clip"], pool=lambda x, inputs: x.mean(axis=1))
    checked = checked_inputs(config, case.inputs)["text"]
    assert fast.pooled_tokens(pooling_weights(FAMILIES["clip"].pool, checked)) is not None
    with pytest.MonkeyPatch.context() as patch, cut("layers"):
        patch.setitem(FAMILIES, "clip", mean)
        one_token = checked.input_ids.shape[1] == 1
        assert (fast.pooled_tokens(pooling_weights(mean.pool, checked)) is not None) == one_token
        expected = NumpyTowers(config, weights).text(checked).embeds
        close(NumpyTowers(config, weights, Team(2)).text_embeds(checked), expected, "float32")


def test_a_text_tower_that_is_not_known_here_is_cut_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def tower(inputs: Any, w: Any, config: Any, *, pool: Any, note: Any = None) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(inputs.input_ids))
        x = w.rows("text_model.embeddings.token_embedding.weight", inputs.input_ids)
        return x, pool(x, inputs)

    config = Config()
    weights = Weights({"text_model.embeddings.token_embedding.weight": np.eye(9, 4, dtype=np.float32)})
    monkeypatch.setitem(FAMILIES, "clip", replace(FAMILIES["clip"], text_tower=tower))
    inputs = TextInputs(np.arange(8).reshape(4, 2), ends=np.array([1, 0, 1, 0]))
    with cut("rows"):
        found = NumpyTowers(config, weights, Team(2)).text(inputs)
    assert sorted(seen) == [2, 2]
    assert (found.last_hidden_state == np.eye(9, 4)[inputs.input_ids]).all()
    assert (found.pooler_output == np.eye(9, 4)[[1, 2, 5, 6]]).all()
