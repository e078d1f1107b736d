"""One tower forwards with its steps kept, and back again: the one place where gradients meet the towers' arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minclip.config import Config, RobertaConfig, TextConfig
from minclip.gradients import towers as backwards
from minclip.gradients.record import Parameters, Steps
from minclip.inputs import IMAGE_INPUTS, TEXT_INPUTS, checked_pixels, checked_text, inputs_of
from minclip.layers import Note, silent
from minclip.towers import causal_text_tower, head, roberta_text_tower, vision_tower
from minclip.weights import Weights


@dataclass(frozen=True)
class Pass:
    """A tower's forward pass, kept to go back through.

    tower: "vision" or "text". pooled (b, d); embeds (b, p), projected, not normalized. steps: everything noted.
    """

    tower: str
    config: Config
    weights: Weights
    inputs: Mapping[str, Any]
    steps: Steps
    pooled: np.ndarray
    embeds: np.ndarray

    def backward(self, dembeds: np.ndarray, p: Parameters, note: Note = silent) -> np.ndarray:
        """From dembeds (b, p) to the gradient of what the tower was given: pixels (b, c, h, w), or the embeddings of
        its tokens (b, t, d). On the way p's gradients are added up, and `note` is told those of the steps."""
        kind = "visual" if self.tower == "vision" else "text"
        dpooled = backwards.head(dembeds, f"{kind}_projection", self.pooled, p)
        note("pooled", dpooled)
        return _BACKWARDS[_kind(self.tower, self.config)](
            dpooled, p, self.steps, _tower_config(self.tower, self.config), **self.inputs, note=note
        )

    def rows(self, chosen: np.ndarray) -> Pass:
        """The same pass for the chosen rows of the batch (n,), in that order; a row may be chosen more than once."""
        b = len(self.embeds)
        alone = ("head_mask", "interpolate_pos_encoding")
        inputs = {
            name: value if name in alone or np.ndim(value) < 2 or len(value) != b else value[chosen]
            for name, value in self.inputs.items()
        }
        return Pass(
            self.tower,
            self.config,
            self.weights,
            inputs,
            self.steps.rows(chosen),
            self.pooled[chosen],
            self.embeds[chosen],
        )


def forward(tower: str, weights: Weights, config: Config, inputs: Mapping[str, Any]) -> Pass:
    """Run a tower of a whole model on its inputs (those of the other are left aside) and keep all steps.

    Raises ValueError naming the input that does not fit.
    """
    given = inputs_of(dict(inputs), IMAGE_INPUTS if tower == "vision" else TEXT_INPUTS)
    if tower == "vision":
        pixels = checked_pixels(given.get("pixel_values"), config, given.get("interpolate_pos_encoding", False))
        checked = {**given, "pixel_values": np.asarray(pixels, weights.dtype)}
    else:
        checked = {"input_ids": None, **checked_text(given, config)}
        for name in ("inputs_embeds", "head_mask"):
            if name in checked:
                checked[name] = np.asarray(checked[name], weights.dtype)
    steps = Steps()
    run = _FORWARDS[_kind(tower, config)]
    _, pooled = run(**checked, w=weights, config=_tower_config(tower, config), note=steps.note)
    embeds = head("visual_projection" if tower == "vision" else "text_projection", pooled, weights)
    assert embeds is not None
    return Pass(tower, config, weights, checked, steps, pooled, embeds)


_FORWARDS: dict[str, Any] = {"vision": vision_tower, "causal": causal_text_tower, "roberta": roberta_text_tower}
_BACKWARDS: dict[str, Any] = {
    "vision": backwards.vision_tower,
    "causal": backwards.causal_text_tower,
    "roberta": backwards.roberta_text_tower,
}


def _tower_config(tower: str, config: Config) -> Any:
    return config.vision_config if tower == "vision" else config.text_config


def _kind(tower: str, config: Config) -> str:
    text = {TextConfig: "causal", RobertaConfig: "roberta"}
    return "vision" if tower == "vision" else text[type(_tower_config(tower, config))]
