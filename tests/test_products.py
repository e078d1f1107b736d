"""Products cut into small ones are the product: of weights as they are stored, and of weights copied into panels."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fast import TOLERANCE, close

import minclip
from minclip import fast, products
from minclip.backend import NumpyBackend, NumpyTowers
from minclip.inputs import ImageInputs
from minclip.products import PANEL, Packed, Prepacking
from minclip.testing import BackendConformance
from minclip.testing.strategies import Case, cases, configs, inputs
from minclip.threads import Team
from minclip.weights import Weights


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(st.data())
def test_blocks_of_any_size_are_the_product(dtype: str, data: st.DataObject) -> None:
    m, f, d = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 97)), data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, weight = rng.standard_normal((m, d)).astype(dtype), rng.standard_normal((f, 2 * d)).astype(dtype)
    for part in (weight[:, :d], weight[:, d:], np.ascontiguousarray(weight[:, :d])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "BLOCK", data.draw(st.integers(1, 2 * m * f)))
            patch.setattr(products, "NARROWEST", data.draw(st.integers(1, 5)))
            found = x @ part.view(products.InBlocks).T
        assert type(found) is np.ndarray
        close(found, x @ part.T, dtype)


@given(st.data())
def test_panels_of_any_matrix_are_the_product(data: st.DataObject) -> None:
    """Of all rows and some, of all columns and some; however many rows of x a small product may have."""
    m, f, d = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 3 * PANEL)), data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    weight = rng.standard_normal((f, d)).astype(data.draw(st.sampled_from(["float16", "float32", "float64"])))
    x, wide = rng.standard_normal((m, d)).astype(np.float32), weight.astype(np.float32)
    first, last = sorted(data.draw(st.lists(st.integers(0, f), min_size=2, max_size=2, unique=True)))
    start, stop = sorted(data.draw(st.lists(st.integers(0, d), min_size=2, max_size=2, unique=True)))
    packed = Packed.of(weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "SMALL", data.draw(st.integers(1, 2 * m * d * PANEL)))
        patch.setattr(products, "MOST_ROWS", data.draw(st.integers(1, 2 * m)))
        patch.setattr(products, "LONGEST", data.draw(st.integers(1, 2 * d)))
        rows, columns = slice(first, last), slice(start, stop)
        assert len(packed) == f
        assert len(packed.rows(rows)) == last - first
        close(x @ packed.T, x @ wide.T, "float32")
        close(x @ packed.rows(rows).T, x @ wide[rows].T, "float32")
        close(x[:, columns] @ packed.columns(columns).T, x[:, columns] @ wide[:, columns].T, "float32")


@pytest.mark.parametrize(("m", "d"), [(50, 768), (50, 1536), (256, 2048), (800, 3072), (257, 4096), (7, 768)])
def test_no_small_product_is_too_large_for_the_small_kernels(m: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One multiplication more, and the library copies first: half as fast, with the same answer."""
    seen = []
    plain = np.matmul

    def matmul(x: np.ndarray, w: np.ndarray, out: np.ndarray) -> np.ndarray:
        seen.append(x.shape[-2] * x.shape[-1] * w.shape[-1])
        return plain(x, w, out=out)

    packed, x = Packed.of(np.ones((PANEL, d), np.float32)), np.ones((m, d), np.float32)
    monkeypatch.setattr(np, "matmul", matmul)
    assert ((x @ packed.T) == d).all()
    assert seen
    assert max(seen) <= products.SMALL


@pytest.mark.parametrize(("kernels", "small"), [({"SkylakeX"}, True), ({"Haswell"}, False), (set(), False)])
def test_blocks_are_for_libraries_that_gain_by_them(
    kernels: set[str], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "kernels", lambda: kernels)
    products.small_kernels.cache_clear()
    weights = Weights({"up.weight": np.ones((6, 4), np.float32), "up.bias": np.ones(6, np.float32)})
    share = fast._Share(weights, ["up"], "down", slice(0, 3))
    assert (type(share["up.weight"]) is products.InBlocks) == small
    assert type(share["up.bias"]) is np.ndarray
    products.small_kernels.cache_clear()


# --- when weights are packed ----------------------------------------------------------------------------------------


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the library had kernels for small matrices."""
    monkeypatch.setattr(products, "small_kernels", lambda: True)


def packed_names(weights: Weights) -> set[str]:
    return {name for name in weights if isinstance(weights.stored(name), Packed)}


@pytest.mark.usefixtures("always")
@given(st.sampled_from(list(minclip.config.FAMILIES)), st.data())
def test_all_that_tokens_are_multiplied_by_is_packed_and_nothing_else(family: str, data: st.DataObject) -> None:
    """No table of tokens or positions, which are large and never multiplied; of two towers each its own."""
    case: Case = data.draw(cases(configs(family), inputs))
    weights = case.model.weights
    tables = {name for name in weights if "embedding" in name and "patch_embedding" not in name}
    matrices = {n for n in weights if n.endswith(".weight") and weights.stored(n).ndim >= 2} - tables
    layers = {name for name in matrices if "_model." in name and ".pooler." not in name}
    found = [
        packed_names(Prepacking(weights, f"{tower}_model.", True).for_run(Team(2))) for tower in ("vision", "text")
    ]
    assert not found[0] & found[1]
    assert found[0] | found[1] == layers - {"text_model.transformation.weight"}


@pytest.mark.usefixtures("always")
def test_weights_are_packed_once_before_the_first_run() -> None:
    """By whichever of several runs at once comes first; the model's own stay as they are."""
    model = minclip.load("mini-clip", prepack=True)
    assert isinstance(model.towers, NumpyTowers)
    prepacking, texts = model.towers._text, ["a cat", "a dog"]
    with ThreadPoolExecutor(4) as pool:
        answers = [run.result() for run in [pool.submit(model.encode_text, texts) for _ in range(4)]]
        found = [run.result() for run in [pool.submit(prepacking.for_run, Team(2)) for _ in range(4)]]
    assert len({id(weights) for weights in found}) == 1
    assert packed_names(found[0])
    assert not packed_names(model.weights)
    assert all((answer == answers[0]).all() for answer in answers)
    close(answers[0], minclip.load("mini-clip").encode_text(texts), "float32")


@pytest.mark.usefixtures("always")
def test_another_process_packs_for_itself() -> None:
    towers = NumpyBackend().build(*_bundled(), prepack=True)
    towers._vision.for_run(Team(1))
    size = len(pickle.dumps(towers))
    assert size == len(pickle.dumps(NumpyBackend().build(*_bundled(), prepack=True)))
    again = pickle.loads(pickle.dumps(towers))
    assert packed_names(again._vision.for_run(Team(1))) == packed_names(towers._vision.for_run(Team(1)))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("dtype", "stored", "prepack", "packed"),
    [
        (None, "float32", True, True),
        ("float32", "float32", True, True),
        (None, "float16", True, True),  # then they are widened once
        ("float32", "float16", True, True),
        (None, "float32", False, False),
        ("float64", "float32", True, False),  # the panels are float32
    ],
)
def test_what_is_packed_where_it_is_asked_for(dtype: str | None, stored: str, prepack: bool, packed: bool) -> None:
    config, weights = _bundled()
    arrays = Weights({name: weights[name].astype(stored) for name in weights})
    towers = NumpyBackend().build(config, arrays, dtype=dtype, prepack=prepack)
    assert bool(packed_names(towers._vision.for_run(Team(1)))) == packed
    expected = NumpyTowers(config, arrays.astype(dtype or "float32")).image_embeds(_pixels(config))
    found = towers.image_embeds(_pixels(config))
    assert expected is not None
    assert found is not None
    close(found, expected, dtype or "float32")


def test_what_is_no_truth_value_is_refused() -> None:
    with pytest.raises(minclip.BackendError, match="prepack must be True or False, not 'yes'"):
        minclip.load("mini-clip", prepack="yes")


class PrepackedBackend(NumpyBackend):
    """NumPy's with panels wherever this machine's library is fast with them."""

    def build(self, config: minclip.Config, weights: Weights, **options: Any) -> NumpyTowers:
        return super().build(config, weights, prepack=True, **options)


@pytest.mark.usefixtures("always")
class TestPrepacked(BackendConformance):
    backend = PrepackedBackend()
    device = "cpu"
    dtypes = ("float32",)


def _pixels(config: minclip.Config) -> ImageInputs[np.ndarray]:
    assert config.vision_config is not None
    side = config.vision_config.image_size
    return ImageInputs(np.random.default_rng(0).standard_normal((3, 3, side, side)).astype(np.float32))


def _bundled() -> tuple[minclip.Config, Weights]:
    model = minclip.load("mini-clip")
    return model.config, model.weights
