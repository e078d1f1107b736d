"""Random small models of Transformers, the same models as minclip's config and weights, and inputs for both.

Everything is drawn by hypothesis: the architecture as the content of a config.json, the tensors and inputs from a
drawn seed. Weights are large (deviation 0.3), so that a step left out or misplaced moves the result by far more than
rounding does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from hypothesis import settings
from hypothesis import strategies as st
from transformers.activations import ACT2FN

from minclip.config import ACTIVATIONS, Config
from minclip.inputs import ImageInputs, TextInputs
from minclip.layers import silent
from minclip.towers import vision_tower
from minclip.weights import Weights

ACT2FN["selu"] = torch.nn.SELU  # Transformers documents it for CLIP and answers with a KeyError

FAMILIES = {
    "clip": (transformers.CLIPConfig, transformers.CLIPModel),
    "altclip": (transformers.AltCLIPConfig, transformers.AltCLIPModel),
    "metaclip_2": (transformers.MetaClip2Config, transformers.MetaClip2Model),
}
CAUSAL = ("clip", "metaclip_2")
EXACT = 1e-10
"""Allowed between float64 and float64: rounding, and nothing else."""
PADDING = ("none", "all ones", "right", "left", "holes", "a row of padding")

seeds = st.integers(0, 2**32 - 1)
thorough = settings(max_examples=5 * settings.default.max_examples)
"""For the few claims that carry the rest: agreement with the peer."""


# --- architectures -------------------------------------------------------------------------------------------------


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    """What text and vision towers have in common. Widths below 8 would make layer norms blow rounding up."""
    heads = draw(st.integers(1, 4))
    return {
        "num_attention_heads": heads,
        "hidden_size": heads * draw(st.sampled_from([8, 12, 16])),
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "hidden_act": draw(st.sampled_from(ACTIVATIONS)),
        "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-3, 0.1])),
    }


@st.composite
def text_configs(draw: st.DrawFn, family: str) -> dict[str, Any]:
    vocab_size = draw(st.integers(8, 40))
    config = {**draw(blocks()), "vocab_size": vocab_size, "max_position_embeddings": draw(st.integers(12, 20))}
    config |= {"pad_token_id": draw(st.sampled_from([0, 1, 3])), "bos_token_id": 0}
    if family == "altclip":
        return config | {"type_vocab_size": draw(st.integers(1, 3)), "project_dim": draw(st.integers(1, 20))}
    return config | {"eos_token_id": draw(st.sampled_from([2, 5, vocab_size - 1]))}


@st.composite
def vision_configs(draw: st.DrawFn) -> dict[str, Any]:
    patch = draw(st.integers(1, 5))
    size = patch * draw(st.integers(1, 4)) + draw(st.integers(0, patch - 1))
    return {**draw(blocks()), "patch_size": patch, "image_size": size, "num_channels": draw(st.sampled_from([3, 1, 4]))}


@dataclass(frozen=True)
class Pair:
    """One model twice: `peer` as Transformers runs it, `config` and `weights` as minclip does."""

    peer: Any
    config: Config
    weights: Weights

    def double(self) -> Pair:
        """The same numbers in float64."""
        return Pair(self.peer.double(), self.config, self.weights.astype(np.float64))


def pair(given: dict[str, Any], seed: int) -> Pair:
    """The model that a config.json describes, with random weights."""
    config_class, model_class = FAMILIES[given["model_type"]]
    config = config_class.from_dict(given)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    peer = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            parameter.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.3)
    return Pair(peer, Config.from_dict(given), Weights(canonical(peer)))


def canonical(peer: torch.nn.Module) -> dict[str, np.ndarray]:
    """A peer's tensors by minclip's names; `roberta.encoder.layers` is what one class writes for `.layer`."""
    tensors = {name: tensor.detach().numpy().copy() for name, tensor in peer.state_dict().items()}
    return {name.replace("roberta.encoder.layers.", "roberta.encoder.layer."): t for name, t in tensors.items()}


@st.composite
def pairs(draw: st.DrawFn, families: tuple[str, ...] = tuple(FAMILIES)) -> Pair:
    family = draw(st.sampled_from(families))
    given = {
        "model_type": family,
        "text_config": draw(text_configs(family)),
        "vision_config": draw(vision_configs()),
        "projection_dim": draw(st.integers(1, 24)),
        "logit_scale_init_value": 2.6592,
    }
    return pair(given, draw(seeds))


# --- inputs --------------------------------------------------------------------------------------------------------


def draw_attention_mask(draw: st.DrawFn, b: int, t: int) -> np.ndarray | None:
    """1 for a token, 0 for padding, in every pattern that people come up with; or none at all."""
    pattern = draw(st.sampled_from(PADDING))
    if pattern == "none":
        return None
    lengths = np.array(draw(st.lists(st.integers(1, t), min_size=b, max_size=b)))
    mask = np.arange(t) < lengths[:, None]
    if pattern == "all ones":
        mask[:] = True
    elif pattern == "left":
        mask = mask[:, ::-1]
    elif pattern == "holes":
        mask = np.array(draw(st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=b, max_size=b)))
    elif pattern == "a row of padding":
        mask[draw(st.integers(0, b - 1))] = False
    return mask.astype(np.int64)


def draw_text(draw: st.DrawFn, config: Config, b: int | None = None) -> dict[str, np.ndarray]:
    """Keyword arguments of a text tower: input_ids and, sometimes, attention_mask, position_ids, token_type_ids."""
    text, rng = config.text_config, np.random.default_rng(draw(seeds))
    b, t = b or draw(st.integers(1, 3)), draw(st.integers(1, 8))
    ids = rng.integers(0, text.vocab_size, (b, t))
    if config.model_type in CAUSAL and not text.pools_largest_id:
        ids[np.arange(b), rng.integers(0, t, b)] = text.eos_token_id
    inputs = {"input_ids": ids, "attention_mask": draw_attention_mask(draw, b, t)}
    shape = draw(st.sampled_from([None, (t,), (1, t), (b, t)]))
    if shape is not None:
        inputs["position_ids"] = rng.integers(0, text.max_position_embeddings, shape)
    if config.model_type == "altclip" and draw(st.booleans()):
        inputs["token_type_ids"] = rng.integers(0, text.type_vocab_size, (b, t))
    return {name: value for name, value in inputs.items() if value is not None}


def draw_pixels(draw: st.DrawFn, config: Config, b: int | None = None) -> dict[str, Any]:
    """Keyword arguments of the vision tower: pixel_values and, sometimes, another size with interpolated positions."""
    vision, rng = config.vision_config, np.random.default_rng(draw(seeds))
    height = width = vision.image_size
    interpolate = draw(st.booleans())
    if interpolate and draw(st.booleans()):
        sides = st.integers(vision.patch_size, 6 * vision.patch_size)
        height, width = draw(sides), draw(sides)
    shape = (b or draw(st.integers(1, 3)), vision.num_channels, height, width)
    return {"pixel_values": rng.standard_normal(shape, np.float32), "interpolate_pos_encoding": interpolate}


# --- running and comparing -----------------------------------------------------------------------------------------

Answer = dict[str, Any]
"""Arrays by name, of ours or of the peer's."""


def answer(state: Any, pooled: Any, hidden_states: Any, attentions: Any) -> Answer:
    return {
        "last_hidden_state": state,
        "pooler_output": pooled,
        **{f"hidden_states[{i}]": value for i, value in enumerate(hidden_states)},
        **{f"attentions[{i}]": value for i, value in enumerate(attentions)},
    }


def answer_of(output: Any) -> Answer:
    """A peer's tower output."""
    return answer(output.last_hidden_state, output.pooler_output, output.hidden_states, output.attentions)


def run_peer(peer: torch.nn.Module, **inputs: Any) -> Any:
    """The peer's answer, hidden states and attentions included, in the precision of its weights.

    Its eager attention takes the softmax in float32 even in a float64 model; here it is kept from that.
    """
    softmax, dtype = torch.nn.functional.softmax, next(peer.parameters()).dtype
    given = {name: torch.tensor(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
    given |= {name: x.to(dtype) for name, x in given.items() if name in ("pixel_values", "inputs_embeds")}
    if given.get("position_ids", torch.zeros(1, 1)).ndim == 1:
        given["position_ids"] = given["position_ids"][None]
    with torch.no_grad(), mock.patch("torch.nn.functional.softmax", lambda x, dim, **_: softmax(x, dim)):
        return peer(**given, output_hidden_states=True, output_attentions=True)


class Steps(dict[str, np.ndarray]):
    """What a tower's `note` was told, in order; a name told twice is an error."""

    def note(self, name: str, value: np.ndarray) -> None:
        assert name not in self, f"{name} was told twice"
        self[name] = value

    @property
    def hidden_states(self) -> list[np.ndarray]:
        """What enters the first layer, then what leaves each."""
        return [v for name, v in self.items() if name == "layers.input" or name.endswith(".output")]

    @property
    def attentions(self) -> list[np.ndarray]:
        return [v for name, v in self.items() if name.endswith(".probabilities")]

    def answer(self, state: np.ndarray, pooled: np.ndarray) -> Answer:
        """What the tower returned and noted, by the peer's names."""
        return answer(state, pooled, self.hidden_states, self.attentions)


def error(found: Any, expected: Any) -> float:
    """The largest difference, in unit scale: of 1, or of the largest expected number where that is more."""
    found, expected = np.asarray(found), np.asarray(expected)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0)) / scale


def assert_close(found: Any, expected: Any, what: str, tolerance: float) -> None:
    """Equal within `tolerance` of unit scale."""
    assert np.shape(found) == np.shape(expected), f"{what}: shape {np.shape(found)}, expected {np.shape(expected)}"
    wrong = error(found, expected)
    assert wrong <= tolerance, f"{what}: error {wrong:.2g} of unit scale, allowed are {tolerance:.2g}"


def assert_same(found: Answer, expected: Answer, tolerance: float = EXACT) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, name, tolerance)


def assert_same_in_both_types(single: tuple[Answer, Answer], double: tuple[Answer, Answer]) -> None:
    """Ours and the peer's answer in float32 and again in float64: equal but for rounding.

    In float32 that is 2e-5; or, in the rare model that blows rounding up further, four times what the peer itself is
    off from its own float64.
    """
    assert_same(*double)
    (found, expected), (_, exact) = single, double
    assert found.keys() == expected.keys() == exact.keys()
    for name, value in expected.items():
        assert np.asarray(found[name]).dtype == np.float32, f"{name} is not float32"
        assert_close(found[name], value, name, max(2e-5, 4 * error(value, exact[name])))


# --- our towers -----------------------------------------------------------------------------------------------------


def run_text(model: Pair, note: Any = silent, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    """The text tower on inputs as they are, without the limits that `minclip.inputs` sets."""
    text, family = model.config.text_config, model.config.family
    if given.get("input_ids") is None:
        given["input_ids"] = np.full(given["inputs_embeds"].shape[:2], text.pad_token_id + 1)
    if given.get("attention_mask") is not None:
        given["attention_mask"] = given["attention_mask"].astype(bool)
    ends = None if family.ends is None else family.ends(given["input_ids"], text)
    return family.text_tower(TextInputs(**given, ends=ends), model.weights, text, pool=family.pool, note=note)


def run_vision(model: Pair, note: Any = silent, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    given["pixel_values"] = given["pixel_values"].astype(model.weights.dtype)
    return vision_tower(ImageInputs(**given), model.weights, model.config.vision_config, note=note)
