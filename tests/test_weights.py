"""Weights: exact widening, no copy that is not needed, no row read that is not asked for."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minclip.errors import CheckpointError
from minclip.weights import BFLOAT16, OpenFile, Weights, check_finite, widen

ALL_BITS = np.arange(2**16, dtype=np.uint16)


def as_bfloat16(bits: np.ndarray) -> np.ndarray:
    return bits.astype("<u2").view(BFLOAT16)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the last bit, signed zeros included; NaN is NaN, whatever its payload."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found)[~np.isnan(found)], np.signbit(expected)[~np.isnan(expected)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_bfloat16_widens_as_in_torch(dtype: Any) -> None:
    expected = torch.tensor(ALL_BITS.view(np.int16)).view(torch.bfloat16).to(torch.float32).numpy()
    with np.errstate(invalid="ignore"):  # some of these bits are signalling NaNs
        assert_same_bits(widen(as_bfloat16(ALL_BITS), dtype), expected.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_float16_widens_as_in_torch(dtype: Any) -> None:
    expected = torch.tensor(ALL_BITS.view(np.int16)).view(torch.float16).to(torch.float32).numpy()
    with np.errstate(invalid="ignore"):
        assert_same_bits(widen(ALL_BITS.view(np.float16), dtype), expected.astype(dtype))


@given(npst.arrays(np.float32, npst.array_shapes(min_dims=0, max_dims=3), elements=st.floats(width=32)))
def test_bfloat16_of_any_shape_keeps_its_shape_and_value(x: np.ndarray) -> None:
    half = torch.tensor(x).to(torch.bfloat16)
    stored = as_bfloat16(half.view(torch.int16).numpy().view(np.uint16))
    found = widen(stored)
    assert isinstance(found, np.ndarray)
    assert_same_bits(found, half.float().numpy())


@given(st.sampled_from([np.float16, np.float32, np.float64]), st.sampled_from([np.float32, np.float64]))
def test_weights_come_out_in_the_type_asked_for(stored: Any, asked: Any) -> None:
    x = np.linspace(-3, 3, 12).reshape(3, 4).astype(stored)
    weights = Weights({"a": x}, asked)
    for found in (weights["a"], weights.rows("a", np.arange(3)), weights.widened()["a"], weights.astype(asked)["a"]):
        assert_same_bits(found, x.astype(asked))
    assert weights.stored("a").dtype == stored


def test_float32_is_handed_out_as_it_lies() -> None:
    x = np.ones((3, 4), np.float32)
    weights = Weights({"tower.a": x})
    assert weights["tower.a"] is x
    assert weights.at("tower")["a"] is x
    assert weights.widened()["tower.a"] is x
    assert weights.stored("tower.a") is x


def test_widened_converts_once() -> None:
    weights = Weights({"a": np.ones(3, np.float16)})
    assert weights["a"] is not weights["a"]
    once = weights.widened()
    assert once["a"] is once["a"]


class Counting(dict[str, np.ndarray]):
    """A mapping that remembers what was asked of it, as a file that is read on demand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> np.ndarray:
        self.asked.append(name)
        return super().__getitem__(name)


class Table:
    """A table that can be indexed by rows and in no other way."""

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        assert isinstance(ids, np.ndarray)
        return ids[..., None] * np.ones(3, np.float16)


def test_rows_are_the_only_thing_read_of_a_table() -> None:
    ids = np.array([[4, 4, 0], [2, 1, 7]])
    found = Weights({"table": Table()}).rows("table", ids)  # type: ignore[dict-item]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.repeat(ids[..., None], 3, axis=-1))


@given(npst.arrays(np.int64, npst.array_shapes(max_dims=3), elements=st.integers(0, 8)))
def test_rows_equal_indexing_in_every_type(ids: np.ndarray) -> None:
    table = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    bits = (table.view(np.uint32) >> 16).astype(np.uint16)
    for stored in (table, table.astype(np.float16), table.astype(np.float64), as_bfloat16(bits)):
        np.testing.assert_array_equal(Weights({"t": stored}).rows("t", ids), widen(stored)[ids])


def test_asking_whether_a_tensor_is_there_reads_nothing() -> None:
    stored = Counting({"tower.a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})
    weights = Weights(stored)
    assert "tower.a" in weights
    assert "a" in weights.at("tower")
    assert "b" not in weights.at("tower")
    assert 3 not in weights
    assert list(weights) == ["tower.a", "b"]
    assert len(weights.at("tower")) == 1
    assert stored.asked == []


def test_at_looks_below_a_whole_name_only() -> None:
    names = ["layers.1.a", "layers.1.b.c", "layers.10.a", "layers.1", "a"]
    weights = Weights({name: np.full(1, i, np.float32) for i, name in enumerate(names)})
    below = weights.at("layers.1")
    assert sorted(below) == ["a", "b.c"]
    assert below["a"] == 0
    assert below["b.c"] == weights.at("layers").at("1")["b.c"] == 1
    assert below.get("bias") is None
    with pytest.raises(KeyError, match=r"layers\.1\.bias"):
        below["bias"]


def test_astype_and_at_keep_each_other() -> None:
    weights = Weights({"tower.a": np.ones(2, np.float16)})
    assert weights.astype(np.float64).at("tower")["a"].dtype == np.float64
    assert weights.at("tower").astype(np.float64)["a"].dtype == np.float64
    assert weights["tower.a"].dtype == np.float32
    assert sorted(weights.at("tower").widened()) == ["a"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, BFLOAT16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_with_a_number_that_is_none_is_found(dtype: Any, value: float) -> None:
    rows = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    bad = rows.copy()
    bad[1, 2] = value
    tensors = {"good": rows, "bad": bad, "scalar": np.array(value, np.float32), "empty": rows[:0]}
    if dtype == BFLOAT16:
        weights = Weights({name: as_bfloat16(x.view(np.uint32) >> 16) for name, x in tensors.items()})
    else:
        weights = Weights({name: x.astype(dtype) for name, x in tensors.items()})
    assert check_finite(weights) == ["bad", "scalar"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, BFLOAT16])
def test_the_largest_numbers_of_a_type_are_finite(dtype: Any) -> None:
    largest = as_bfloat16(np.array([0x7F7F, 0xFF7F])) if dtype == BFLOAT16 else np.array([1, -1]) * np.finfo(dtype).max
    assert check_finite(Weights({"a": largest})) == []


def test_weights_go_to_another_process_without_their_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    weights = Weights({"a": np.arange(3, dtype=np.float32)}, np.float64, files=[OpenFile(tmp_path / "file")])
    back = pickle.loads(pickle.dumps(weights))
    np.testing.assert_array_equal(back["a"], weights["a"])
    assert back.dtype == np.float64
    (tmp_path / "file").write_bytes(b"changed")
    back.check_unchanged()
    with pytest.raises(CheckpointError, match="was changed"):
        weights.check_unchanged()
