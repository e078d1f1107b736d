"""The mathematics against PyTorch, the C library and the identities that define it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from peers import Steps, assert_close, seeds

from minclip import layers
from minclip.layers import (
    ACTIVATIONS,
    attention,
    causal_mask,
    erf,
    layer_norm,
    linear,
    merge_heads,
    mlp,
    padding_mask,
    relative_positions,
    softmax,
    split_heads,
)
from minclip.weights import Weights

DTYPES = (np.float32, np.float64)
loud = {"over": "raise", "divide": "raise", "invalid": "raise"}
"""Underflow to zero is not an error: it is what the exponential of a masked score is for."""

PEERS = {
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": torch.relu,
    "selu": torch.nn.functional.selu,
    "silu": torch.nn.functional.silu,
}

shapes = npst.array_shapes(min_dims=1, max_dims=4, max_side=5)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --- linear, layer_norm, softmax -----------------------------------------------------------------------------------


@given(shapes, st.integers(1, 6), st.booleans(), seeds)
def test_linear_equals_torch(shape: tuple[int, ...], f: int, biased: bool, seed: int) -> None:
    x, weight, bias = normal(seed, *shape), normal(seed + 1, f, shape[-1]), normal(seed + 2, f) if biased else None
    expected = torch.nn.functional.linear(
        torch.tensor(x), torch.tensor(weight), None if bias is None else torch.tensor(bias)
    )
    assert_close(linear(x, weight, bias), expected, "linear", 1e-13)


def test_linear_of_an_empty_batch_is_empty() -> None:
    assert linear(np.empty((0, 3, 4)), np.ones((5, 4)), np.ones(5)).shape == (0, 3, 5)


@given(shapes, st.sampled_from([1e-12, 1e-5, 0.1]), st.sampled_from(DTYPES), seeds)
def test_layer_norm_equals_torch(shape: tuple[int, ...], eps: float, dtype: Any, seed: int) -> None:
    x, weight, bias = (normal(seed + i, *s).astype(dtype) for i, s in enumerate([shape, shape[-1:], shape[-1:]]))
    found = layer_norm(x, weight, bias, eps)
    exact = [torch.tensor(a, dtype=torch.float64) for a in (x, weight, bias)]
    expected = torch.nn.functional.layer_norm(exact[0], shape[-1:], exact[1], exact[2], eps)
    assert found.dtype == dtype
    spread = max(1.0, float(1 / np.sqrt(np.var(x, axis=-1).min() + eps)))  # what rounding is divided by
    assert_close(found, expected, "layer_norm", spread * (1e-6 if dtype == np.float32 else 1e-14))


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 1100), st.sampled_from(DTYPES))
def test_layer_norm_of_equal_values_is_the_bias_exactly(value: float, d: int, dtype: Any) -> None:
    bias = normal(0, d).astype(dtype)
    found = layer_norm(np.full((2, d), value, dtype), np.full(d, 3, dtype), bias, 1e-5)
    np.testing.assert_array_equal(found, np.broadcast_to(bias, (2, d)))


@given(st.sampled_from([0, 1e2, 1e4, -1e6]), st.integers(2, 900), seeds)
def test_layer_norm_far_from_zero_is_as_exact_as_the_input(offset: float, d: int, seed: int) -> None:
    """Both we and torch are off by what half a unit in the last place of the input is, in deviations."""
    x = (offset + 3 * normal(seed, 4, d)).astype(np.float32)
    one, zero = np.ones(d, np.float32), np.zeros(d, np.float32)
    expected = torch.nn.functional.layer_norm(torch.tensor(x, dtype=torch.float64), (d,), eps=0.5)
    last_place = float(np.spacing(np.abs(x).max()))
    deviation = float(np.sqrt(np.var(x.astype(np.float64), axis=-1).min() + 0.5))
    assert_close(layer_norm(x, one, zero, 0.5), expected, "layer_norm", last_place / deviation + 2e-6)


@given(npst.arrays(np.float64, shapes, elements=st.floats(-1e4, 1e4)), st.floats(-1e3, 1e3), st.sampled_from(DTYPES))
def test_softmax_equals_torch_and_does_not_see_a_shift(x: np.ndarray, shift: float, dtype: Any) -> None:
    with np.errstate(**loud):
        found, shifted = softmax(x.astype(dtype)), softmax(x + shift)
    assert_close(found, torch.tensor(x.astype(dtype)).softmax(-1), "softmax", 1e-6 if dtype == np.float32 else 1e-13)
    assert_close(shifted, softmax(x), "shifted", 1e-10)
    assert found.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_a_row_of_lowest_numbers_is_even(dtype: Any) -> None:
    lowest = np.finfo(dtype).min
    with np.errstate(**loud):
        found = softmax(np.array([[lowest] * 4, [lowest, 0, lowest, 0], [lowest, 50, 50, lowest]], dtype))
    np.testing.assert_array_equal(found, [[0.25] * 4, [0, 0.5, 0, 0.5], [0, 0.5, 0.5, 0]])


# --- activations ---------------------------------------------------------------------------------------------------


def test_erf_is_the_c_librarys_in_float64() -> None:
    x = np.concatenate([np.linspace(-7, 7, 2001), [0.0, -0.0, 1e-300, 1e4, -1e4, math.inf, -math.inf]])
    np.testing.assert_array_equal(erf(x), [math.erf(v) for v in x])


def test_erf_in_float32_is_within_4e_7_absolute_and_relative() -> None:
    x = np.concatenate([np.linspace(-6, 6, 200_001), np.geomspace(1e-30, 100, 20_001)]).astype(np.float32)
    exact = np.array([math.erf(v) for v in x.astype(np.float64)])
    found = erf(x)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() < 4e-7
    np.testing.assert_allclose(found[exact != 0], exact[exact != 0], rtol=4e-7)


def test_erf_in_float32_is_odd_and_exactly_one_from_3_91_on() -> None:
    x = np.concatenate([np.linspace(0, 5, 10_001), [10.0, 1e4, 3e38]]).astype(np.float32)
    np.testing.assert_array_equal(erf(-x), -erf(x))
    np.testing.assert_array_equal(erf(x[x >= 3.91]), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_torch(name: str, dtype: Any) -> None:
    small = np.geomspace(1e-6, 30, 2001)
    x = np.concatenate([np.linspace(-30, 30, 6001), small, -small, [0.0, 1e2, -1e2, 1e4, -1e4]]).astype(dtype)
    with np.errstate(**loud):
        found = ACTIVATIONS[name](x)
    expected = PEERS[name](torch.tensor(x, dtype=torch.float64)).numpy()
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, expected, rtol=1e-6 if dtype == np.float32 else 1e-14, atol=2e-6 * (dtype == np.float32) + 1e-14
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_far_out_is_the_identity_or_its_limit_exactly(name: str) -> None:
    left = -1.0507009873554805 * 1.6732632423543772 if name == "selu" else 0.0
    right = 1.0507009873554805e4 if name == "selu" else 1e4
    for dtype in DTYPES:
        expected = np.array([right, left], dtype)
        np.testing.assert_allclose(ACTIVATIONS[name](np.array([1e4, -1e4], dtype)), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(npst.array_shapes(max_dims=4, max_side=5, min_side=0), seeds)
def test_activation_keeps_any_shape_and_memory_order(name: str, shape: tuple[int, ...], seed: int) -> None:
    x = normal(seed, *shape)
    for view in (x, x.T, x[..., ::2]):
        before = view.copy()
        found = ACTIVATIONS[name](view)
        assert found.shape == view.shape
        np.testing.assert_allclose(found, PEERS[name](torch.tensor(view.copy())).numpy(), rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(view, before)


def test_gelu_is_the_same_across_the_borders_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(0, 7, 11).astype(np.float32)
    whole = ACTIVATIONS["gelu"](x)
    monkeypatch.setattr(layers, "GELU_BLOCK", 10)
    np.testing.assert_array_equal(ACTIVATIONS["gelu"](x), whole)


# --- attention -----------------------------------------------------------------------------------------------------


@st.composite
def heads(draw: st.DrawFn) -> list[np.ndarray]:
    """q, k, v (b, h, t, k) in float64."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 8)))
    seed = draw(seeds)
    return [2 * normal(seed + i, *shape) for i in range(3)]


@given(st.data(), heads())
def test_attention_equals_torch(data: st.DataObject, qkv: list[np.ndarray]) -> None:
    """Masks leave every query something to see; the peer answers NaN where there is nothing."""
    b, h, t, k = qkv[0].shape
    kind = data.draw(st.sampled_from(["none", "causal", "padding", "both", "any", "any with bias"]))
    rng = np.random.default_rng(data.draw(seeds))
    padding = rng.integers(0, 2, (b, t))
    padding[:, 0] = 1
    masks = {
        "none": None,
        "causal": causal_mask(t),
        "padding": padding_mask(padding),
        "both": causal_mask(t) & padding_mask(padding),
    }
    mask = masks[kind] if kind in masks else (rng.random((b, h, t, t)) < 0.5) | np.eye(t, dtype=bool)
    bias = rng.standard_normal((b, h, t, t)) if kind == "any with bias" else None
    if bias is None:
        peer_mask = None if mask is None else torch.tensor(np.broadcast_to(mask, (b, h, t, t)).copy())
    else:  # the bias joins the products before they are scaled
        peer_mask = torch.tensor(np.where(mask, bias / math.sqrt(k), -np.inf))
    expected = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, qkv), attn_mask=peer_mask)
    context, probabilities = attention(*qkv, mask, bias)
    assert_close(context, expected, "context", 1e-12)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-12)
    if mask is not None:
        assert not probabilities[~np.broadcast_to(mask, probabilities.shape)].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_that_may_see_nothing_averages_everything(dtype: Any) -> None:
    q, k, v = (normal(i, 1, 2, 3, 4).astype(dtype) for i in range(3))
    with np.errstate(**loud):
        context, probabilities = attention(q, k, v, np.zeros((1, 1, 1, 3), bool))
    np.testing.assert_allclose(probabilities, 1 / 3, rtol=1e-6)
    assert_close(context, np.broadcast_to(v.mean(axis=2, keepdims=True), v.shape), "context", 1e-6)


@given(heads(), seeds)
def test_head_mask_scales_probabilities_and_context_of_its_head(qkv: list[np.ndarray], seed: int) -> None:
    factors = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], qkv[0].shape[1])
    context, probabilities = attention(*qkv)
    masked_context, masked = attention(*qkv, head_mask=factors)
    assert_close(masked, probabilities * factors[:, None, None], "probabilities", 1e-14)
    assert_close(masked_context, context * factors[:, None, None], "context", 1e-12)


@given(heads(), st.sampled_from(["relative_key", "relative_key_query"]), st.integers(0, 3), seeds)
def test_relative_positions_equal_the_sum_over_each_pair(
    qkv: list[np.ndarray], kind: str, spare: int, seed: int
) -> None:
    q, k, _ = qkv
    (b, h, t, width), n = q.shape, q.shape[2] + spare
    table = normal(seed, 2 * n - 1, width)
    expected = np.zeros((b, h, t, t))
    for row, one, i, j in np.ndindex(b, h, t, t):
        distance = table[i - j + n - 1]
        expected[row, one, i, j] = sum(q[row, one, i] * distance)
        if kind == "relative_key_query":
            expected[row, one, i, j] += sum(k[row, one, j] * distance)
    assert_close(relative_positions(q, k, table, kind), expected, kind, 1e-12)


def test_causal_mask_lets_each_token_see_itself_and_what_came_before() -> None:
    assert all(causal_mask(5)[i, j] == (j <= i) for i in range(5) for j in range(5))


def test_padding_mask_hides_padding_from_every_query_and_head() -> None:
    mask = padding_mask(np.array([[1, 1, 0], [0, 1, 0]]))
    assert mask.shape == (2, 1, 1, 3)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask[:, 0, 0], [[True, True, False], [False, True, False]])


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), seeds)
def test_merging_heads_undoes_splitting_them(b: int, t: int, h: int, k: int, seed: int) -> None:
    x = normal(seed, b, t, h * k)
    split = split_heads(x, h)
    assert split.shape == (b, h, t, k)
    np.testing.assert_array_equal(split[:, h - 1], x[:, :, -k:])
    np.testing.assert_array_equal(merge_heads(split), x)


# --- blocks --------------------------------------------------------------------------------------------------------


def drawn_weights(module: torch.nn.Module, names: dict[str, str], seed: int) -> Weights:
    """Random weights for a torch module, and the same under minclip's names."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    tensors = {}
    for name, tensor in module.double().state_dict().items():
        module_name, _, kind = name.rpartition(".")
        if kind in ("in_proj_weight", "in_proj_bias"):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                tensors[f"{names[letter]}.{kind.removeprefix('in_proj_')}"] = part.numpy()
        else:
            tensors[f"{names[module_name]}.{kind}"] = tensor.numpy()
    return Weights(tensors, np.float64)


BLOCK_NAMES = {
    "pre": {
        **{letter: f"self_attn.{letter}_proj" for letter in "qkv"},
        "self_attn.out_proj": "self_attn.out_proj",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
    },
    "post": {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "self_attn.out_proj": "attention.output.dense",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    },
}


@pytest.mark.parametrize("order", ["pre", "post"])
@given(st.integers(1, 4), st.sampled_from(["relu", "gelu"]), st.booleans(), seeds)
def test_block_equals_torchs_encoder_layer(order: str, h: int, activation: str, causal: bool, seed: int) -> None:
    """A second oracle for the blocks, by other hands than the peer's."""
    d, t = 4 * h, 5
    layer = torch.nn.TransformerEncoderLayer(
        d, h, 7, dropout=0, activation=activation, layer_norm_eps=1e-3, batch_first=True, norm_first=order == "pre"
    )
    w = drawn_weights(layer, BLOCK_NAMES[order], seed % 2**31)
    x = normal(seed, 2, t, d)
    expected = layer(torch.tensor(x), src_mask=torch.tensor(~causal_mask(t)) if causal else None).detach()
    block = layers.pre_norm_block if order == "pre" else layers.post_norm_block
    found = block(x, w, h, activation, 1e-3, causal_mask(t) if causal else None)
    assert_close(found, expected, f"{order}-norm block", 1e-11)


def test_mlp_goes_out_through_the_activation_and_back() -> None:
    x = normal(0, 2, 3, 4)
    w = Weights(
        {"a.weight": normal(1, 5, 4), "a.bias": normal(2, 5), "b.weight": normal(3, 4, 5), "b.bias": normal(4, 4)},
        np.float64,
    )
    steps = Steps()
    found = mlp(x, w, ("a", "b"), "relu", steps.note)
    assert_close(found, np.maximum(x @ w["a.weight"].T + w["a.bias"], 0) @ w["b.weight"].T + w["b.bias"], "mlp", 1e-13)
    assert list(steps) == ["fc1", "activation"]
    assert steps["fc1"].min() < 0 <= steps["activation"].min()
