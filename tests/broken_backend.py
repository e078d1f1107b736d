"""A second implementation of the towers that shares no line with the reference, and can be given one bug.

Without a bug it shows that the conformance kit passes what is right however it is written; with one, that the kit
catches it and `first_divergence` names its place. A bug is a word that one `if` asks about, in one layer where it can.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minclip.backend import NumpyTowers, Record
from minclip.config import Config, RobertaConfig
from minclip.errors import BackendError
from minclip.inputs import ImageInputs, TextInputs
from minclip.layers import ACTIVATIONS
from minclip.outputs import TowerOutput
from minclip.towers import interpolate_positions
from minclip.weights import Weights


class BrokenBackend:
    """Another NumPy backend in float32, with a bug in a layer (or anywhere, where it is not about layers)."""

    name = "broken"

    def __init__(self, bug: str | None = None, layer: int = 0) -> None:
        self.bug, self.layer = bug, layer

    def devices(self) -> list[str]:
        return ["cpu"]

    def build(
        self, config: Config, weights: Weights, *, device: str | None = None, dtype: str | None = None, **options: Any
    ) -> BrokenTowers:
        given = {"device": (device, (None, "cpu")), "dtype": (dtype, (None, "float32"))}
        for name, (value, known) in given.items():
            if value not in known:
                raise BackendError(f"no {name} {value!r}; there is {known[1]}")
        if options and self.bug != "options are swallowed":
            raise BackendError(f"no option {', '.join(options)}")
        return BrokenTowers(config, weights.widened(), self.bug, self.layer)


class BrokenTowers(NumpyTowers):
    """Everything but the towers themselves is the reference's."""

    def __init__(self, config: Config, weights: Weights, bug: str | None, layer: int) -> None:
        super().__init__(config, weights)
        self.bug, self.layer = bug, layer
        self.calls = 0

    def vision(self, inputs: ImageInputs[Any], **record: Any) -> TowerOutput:
        pixel_values = inputs.pixel_values
        c, w, note = self.config.vision_config, self.weights.at("vision_model"), Noted(record)
        pixels = np.asarray(pixel_values, np.float32)
        if self.bug == "inputs overwritten":
            pixel_values *= 0.5
        side = c.patch_size
        rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
        places = [(y, x) for y in range(rows) for x in range(columns)]
        if self.bug == "patches column by column":
            places.sort(key=lambda place: place[::-1])
        patches = [pixels[:, :, side * y : side * (y + 1), side * x : side * (x + 1)] for y, x in places]
        kernel = w["embeddings.patch_embedding.weight"]
        tokens = [np.einsum("bcyx,dcyx->bd", patch, kernel) for patch in patches]
        tokens.insert(0, np.tile(w["embeddings.class_embedding"], (len(pixels), 1)))
        table = w["embeddings.position_embedding.weight"]
        if inputs.interpolate_pos_encoding:
            rows, columns = (columns, rows) if self.bug == "interpolation on its side" else (rows, columns)
            table = interpolate_positions(table, rows, columns)
        table = np.roll(table, 1, axis=0) if self.bug == "positions off by one" else table
        x = np.stack(tokens, axis=1) + table
        note("embeddings", x)
        if self.bug != "no pre_layrnorm":
            x = self.norm(x, w, "pre_layrnorm", c)
        x = self.layers(x, w, c, np.ones((1, 1, 1, 1), bool), None, note)
        pooled = self.norm(x[:, -1] if self.bug == "last token pooled" else x[:, 0], w, "post_layernorm", c)
        note("pooled", pooled)
        patch_states = x if self.bug == "class token in the mean" else x[:, 1:]
        logits = self.project(patch_states.mean(axis=1), "classifier")
        return self.output(x, pooled, self.project(pooled, "visual_projection", note), note, logits)

    def text(self, inputs: TextInputs[Any], **record: Any) -> TowerOutput:
        input_ids, attention_mask, position_ids = inputs.input_ids, inputs.attention_mask, inputs.position_ids
        token_type_ids, inputs_embeds, head_mask = inputs.token_type_ids, inputs.inputs_embeds, inputs.head_mask
        c, w, note = self.config.text_config, self.weights.at("text_model"), Noted(record)
        b, t = input_ids.shape
        real = np.ones((b, t), bool) if attention_mask is None else np.asarray(attention_mask) != 0
        if self.bug == "padding mask ignored":
            real = np.ones_like(real)
        visible = real[:, None, None, :] & np.ones((1, 1, t, 1), bool)  # (b, 1, t, t)
        if isinstance(c, RobertaConfig):
            x = self.roberta_embeddings(input_ids, position_ids, token_type_ids, inputs_embeds, w)
            note("embeddings", x)
            x = self.layers(x, w.at("roberta"), c, visible, head_mask, note)
            x = self.norm(x, w, "pre_LN", c)
            note("pre_LN", x)
            x = affine(x, w, "transformation")
            end = np.zeros(b, int)
        else:
            token = w["embeddings.token_embedding.weight"][input_ids] if inputs_embeds is None else inputs_embeds
            place = np.broadcast_to(np.arange(t) if position_ids is None else position_ids, (b, t))
            place = np.maximum(place - 1, 0) if self.bug == "positions off by one" else place
            x = token + w["embeddings.position_embedding.weight"][place]
            note("embeddings", x)
            x = self.layers(x, w, c, visible, head_mask, note)
            x = self.norm(x, w, "final_layer_norm", c)
            end = self.ends(input_ids, c)
        end = np.full(b, t - 1) if self.bug == "last token pooled" else end
        pooled = np.stack([row[i] for row, i in zip(x, end, strict=True)])
        note("pooled", pooled)
        return self.output(x, pooled, self.project(pooled, "text_projection", note), note)

    def ends(self, ids: np.ndarray, c: Any) -> np.ndarray:
        if c.pools_largest_id and self.bug != "old configs pooled by eos":
            return np.array([list(row).index(row.max()) for row in ids])
        found = [np.flatnonzero(row == c.eos_token_id) for row in ids]
        if self.bug == "old configs pooled by eos":
            found = [places if len(places) else np.array([0]) for places in found]
        for row, places in enumerate(found):
            if not len(places):
                raise ValueError(f"row {row} has no end-of-text id {c.eos_token_id}")
        return np.array([places[-1 if self.bug == "last end pooled" else 0] for places in found])

    def roberta_embeddings(self, ids: np.ndarray, place: Any, types: Any, embeds: Any, w: Weights) -> np.ndarray:
        c, e = self.config.text_config, w.at("roberta.embeddings")
        assert isinstance(c, RobertaConfig)
        x = e["word_embeddings.weight"][ids] if embeds is None else embeds
        if types is None or self.bug == "token types ignored":
            types = np.zeros_like(ids)
        x = x + e["token_type_embeddings.weight"][types]
        if c.position_embedding_type == "absolute":
            if place is None:
                real = ids != c.pad_token_id
                first = c.pad_token_id + (0 if self.bug == "positions off by one" else 1)
                place = np.where(real, real.cumsum(axis=1) - 1 + first, c.pad_token_id)
            x = x + e["position_embeddings.weight"][place]
        return self.norm(x, e, "LayerNorm", c)

    # --- layers ----------------------------------------------------------------------------------------------------

    def layers(self, x: np.ndarray, w: Weights, c: Any, visible: Any, head_mask: Any, note: Noted) -> np.ndarray:
        post = isinstance(c, RobertaConfig)
        t = x.shape[1]
        note("layers.input", x)
        for i in range(c.num_hidden_layers):
            here = self.bug if i == self.layer else None
            seen = visible
            if "max_position_embeddings" in vars(c) and not post and here != "not causal":
                seen = visible & (np.arange(t)[:, None] >= np.arange(t))
            if post and here == "causal":
                seen = visible & (np.arange(t)[:, None] >= np.arange(t))
            only = None if head_mask is None or here == "head mask ignored" else head_mask[i]
            layer = w.at(f"encoder.layer.{i}" if post else f"encoder.layers.{i}")
            block = self.post_norm if post else self.pre_norm
            x = block(x, layer, c, seen, only, here, note.under(i))
            note(f"layers.{i}.output", x)
        return x

    def pre_norm(self, x: Any, w: Weights, c: Any, seen: Any, only: Any, bug: str | None, note: Any) -> np.ndarray:
        y = x if bug == "norm after, not before" else self.norm(x, w, "layer_norm1", c, bug == "wrong epsilon")
        note("layer_norm1", y)
        y = self.attend(y, w.at("self_attn"), ("q_proj", "k_proj", "v_proj", "out_proj"), c, seen, only, bug, note)
        note("attention", y)
        if bug == "norm after, not before":
            x, y = self.norm(x + y, w, "layer_norm1", c), 0
        x = y if bug == "no residual" else x + y
        y = self.norm(x, w, "layer_norm2", c, bug == "wrong second epsilon")
        note("layer_norm2", y)
        y = self.feed_forward(y, w.at("mlp"), ("fc1", "fc2"), c, bug, note)
        return x + y

    def post_norm(self, x: Any, w: Weights, c: Any, seen: Any, only: Any, bug: str | None, note: Any) -> np.ndarray:
        names = ("self.query", "self.key", "self.value", "output.dense")
        y = self.attend(x, w.at("attention"), names, c, seen, only, bug, note)
        note("attention", y)
        if bug == "norm before, not after":
            x = x + self.norm(y, w, "attention.output.LayerNorm", c)
        else:
            x = self.norm(x + y, w, "attention.output.LayerNorm", c, bug == "wrong epsilon")
        note("layer_norm1", x)
        y = self.feed_forward(x, w, ("intermediate.dense", "output.dense"), c, bug, note)
        return self.norm(x + y, w, "output.LayerNorm", c, bug == "wrong second epsilon")

    def attend(
        self, x: Any, w: Weights, names: Any, c: Any, seen: Any, only: Any, bug: str | None, note: Any
    ) -> np.ndarray:
        b, t, d = x.shape
        h, k = c.num_attention_heads, d // c.num_attention_heads

        def heads(y: np.ndarray) -> np.ndarray:
            if bug == "heads interleaved":
                return y.reshape(b, t, k, h).transpose(0, 3, 1, 2)
            return y.reshape(b, t, h, k).transpose(0, 2, 1, 3)

        q, key, v = (heads(affine(x, w, name, bug == f"no bias in {'qkv'[i]}")) for i, name in enumerate(names[:3]))
        if bug == "queries and keys swapped":
            q, key = key, q
        for name, value in zip("qkv", (q, key, v), strict=True):
            note(name, value)
        scores = np.einsum("bhqk,bhrk->bhqr", q, key)
        kind = getattr(c, "position_embedding_type", "absolute")
        if kind != "absolute":
            table, reach = w["self.distance_embedding.weight"], c.max_position_embeddings - 1
            steps = np.subtract.outer(np.arange(t), np.arange(t))
            distance = table[(-steps if bug == "distances backwards" else steps) + reach]
            scores = scores + np.einsum("bhqk,qrk->bhqr", q, distance)
            if kind == "relative_key_query" and bug != "keys blind to distance":
                scores = scores + np.einsum("bhrk,qrk->bhqr", key, distance)
        scores = scores / (k if bug == "scale 1/k" else d**0.5 if bug == "scale of the whole width" else k**0.5)
        note("scores", np.where(seen, scores, np.nan))  # what cannot be seen is nobody's business
        if bug == "fast path not causal" and not note.listening:
            seen = np.ones_like(seen)
        masked = np.where(seen, scores, -1e30 if bug != "mask too weak" else scores - 5)
        powers = np.exp(masked - masked.max(axis=-1, keepdims=True))
        p = powers / powers.sum(axis=-1, keepdims=True)
        p = p if only is None else p * only[:, None, None]
        note("probabilities", p.swapaxes(-1, -2) if bug == "probabilities transposed" else p)
        context = np.einsum("bhqr,bhrk->bqhk", p, v)
        context = context[:, :, ::-1] if bug == "heads reversed" else context
        context = context.reshape(b, t, d)
        note("context", context)
        return affine(context, w, names[3], bug == "no bias in out")

    def feed_forward(self, x: Any, w: Weights, names: Any, c: Any, bug: str | None, note: Any) -> np.ndarray:
        y = affine(x, w, names[0], bug == "no bias in fc1")
        note("fc1", y)
        activation = c.hidden_act
        if bug == "another activation":
            activation = {"gelu": "gelu_new", "gelu_new": "gelu", "quick_gelu": "gelu"}.get(activation, "quick_gelu")
        y = ACTIVATIONS[activation](y)
        note("activation", y)
        y = affine(y, w, names[1], bug == "no bias in fc2")
        note("fc2", y)
        return y

    def norm(self, x: np.ndarray, w: Weights, name: str, c: Any, wrong: bool = False) -> np.ndarray:
        eps = 1e-6 if c.layer_norm_eps == 1e-5 else 1e-5
        eps = eps if wrong or self.bug == f"wrong epsilon in {name}" else c.layer_norm_eps
        centred = x - x.mean(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(eps))
        return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    # --- after -----------------------------------------------------------------------------------------------------

    def project(self, x: np.ndarray, name: str, note: Any = None) -> np.ndarray | None:
        if f"{name}.weight" not in self.weights:
            return None
        weight = self.weights[f"{name}.weight"]
        weight = weight.T.reshape(weight.shape) if self.bug == "projection transposed" else weight
        y = x @ weight.T + self.weights.get(f"{name}.bias", 0)
        if note is not None:
            note("projection", y)
        return y

    def output(self, x: Any, pooled: Any, embeds: Any, note: Noted, logits: Any = None) -> TowerOutput:
        states = note.record.hidden_states
        if self.bug == "a hidden state missing" and states is not None:
            states = states[1:]
        self.calls += 1
        if self.bug == "another answer every time" and embeds is not None:
            embeds = embeds + np.float32(1e-6 * self.calls)
        if self.bug == "batch normalized" and embeds is not None:
            embeds = embeds - embeds.mean(axis=0)
        return replace(TowerOutput(x, pooled, embeds, logits), hidden_states=states, attentions=note.record.attentions)

    def unit(self, embeds: np.ndarray) -> np.ndarray:
        return embeds if self.bug == "not normalized" else super().unit(embeds)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16) if self.bug == "half precision out" else array

    def pixel_values(self, pixels: Any, processor: Any, *, resized: bool) -> np.ndarray:
        if self.bug == "resized twice":
            resized = False
        return processor.normalize(np.stack(pixels if resized else [processor.pixels(one) for one in pixels]))


class Noted:
    """The reference's `Record`, under a layer's name."""

    def __init__(self, record: dict[str, Any]) -> None:
        states, attentions = record.get("output_hidden_states", False), record.get("output_attentions", False)
        self.record, self.prefix = Record(states, attentions, record.get("note")), ""
        self.listening = attentions or record.get("note") is not None

    def under(self, layer: int) -> Noted:
        inner = object.__new__(Noted)
        inner.record, inner.prefix, inner.listening = self.record, f"layers.{layer}.", self.listening
        return inner

    def __call__(self, name: str, value: np.ndarray) -> None:
        self.record.note(self.prefix + name, value)


def affine(x: np.ndarray, w: Weights, name: str, without_bias: bool = False) -> np.ndarray:
    """x W^T + bias, or the bug."""
    y = np.einsum("...d,fd->...f", x, w[f"{name}.weight"], optimize=True)
    return y if without_bias else y + w[f"{name}.bias"]
