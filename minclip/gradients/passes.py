"""One tower forwards with its steps kept, and back again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minclip.config import Config
from minclip.gradients import towers as backwards
from minclip.gradients.record import Parameters, Steps
from minclip.inputs import ImageInputs, TextInputs, image_inputs, split_inputs, text_inputs
from minclip.layers import Note, silent
from minclip.towers import causal_text_tower, head, pooling_weights, roberta_text_tower, vision_tower
from minclip.weights import Weights

TEXT_TOWERS: dict[Any, Callable[..., np.ndarray]] = {
    causal_text_tower: backwards.causal_text_tower,
    roberta_text_tower: backwards.roberta_text_tower,
}
"""Each text tower, and the function that goes back through it."""


@dataclass(frozen=True, eq=False)
class Pass:
    """A tower's forward pass, kept to go back through.

    tower: "vision" or "text". pooled (b, d); embeds (b, p), projected, not normalized. steps: everything noted.
    """

    tower: str
    config: Config
    weights: Weights
    inputs: Any
    steps: Steps
    pooled: np.ndarray
    embeds: np.ndarray

    @property
    def tower_config(self) -> Any:
        """The config of this tower."""
        return self.config.vision_config if self.tower == "vision" else self.config.text_config

    def pooling_weights(self) -> np.ndarray:
        """How much each token's last state counts in the pooled vector, (b, t)."""
        if self.tower == "text":
            return pooling_weights(self.config.family.pool, self.inputs)
        weights = np.zeros(self.steps["embeddings"].shape[:2])
        weights[:, 0] = 1  # the class token
        return weights

    def backward(self, dembeds: np.ndarray, p: Parameters, note: Note = silent) -> np.ndarray:
        """From dembeds (b, p) to the gradient of what the tower was given: pixels (b, c, h, w), or the embeddings of
        its tokens (b, t, d). On the way p's gradients are added up, and `note` is called with those of the steps."""
        dpooled = backwards.head(dembeds, PROJECTIONS[self.tower], self.pooled, p)
        note("pooled", dpooled)
        if self.tower == "vision":
            return backwards.vision_tower(dpooled, p, self.steps, self.tower_config, self.inputs, note)
        family = self.config.family
        dstate = backwards.pooled_states(dpooled, family.pool, self.inputs)  # (b, t, d)
        return TEXT_TOWERS[family.text_tower](dstate, p, self.steps, self.tower_config, self.inputs, note)

    def rows(self, chosen: np.ndarray) -> Pass:
        """The same pass for the chosen rows of the batch (n,), in that order; a row may be chosen more than once."""
        b = len(self.embeds)
        fields = {
            name: value[chosen]
            for name, value in vars(self.inputs).items()
            if name != "head_mask" and isinstance(value, np.ndarray) and len(value) == b
            if name != "position_ids" or value.ndim == 2
        }
        inputs = replace(self.inputs, **fields)
        steps, pooled, embeds = self.steps.rows(chosen), self.pooled[chosen], self.embeds[chosen]
        return replace(self, inputs=inputs, steps=steps, pooled=pooled, embeds=embeds)


PROJECTIONS = {"vision": "visual_projection", "text": "text_projection"}


def forward(tower: str, weights: Weights, config: Config, inputs: Mapping[str, Any]) -> Pass:
    """Run a tower of a whole model on its inputs (those of the other are left aside) and keep all steps.

    Raises ValueError naming the input that does not fit.
    """
    text, vision = split_inputs(dict(inputs))
    steps = Steps()
    checked: ImageInputs[np.ndarray] | TextInputs[np.ndarray]
    if tower == "vision":
        checked = image_inputs(config, **vision)
        checked = replace(checked, pixel_values=checked.pixel_values.astype(weights.dtype, copy=False))
        assert config.vision_config is not None
        _, pooled = vision_tower(checked, weights, config.vision_config, note=steps.note)
    else:
        checked, family = text_inputs(config, **text), config.family
        floats = {name: getattr(checked, name) for name in ("inputs_embeds", "head_mask")}
        typed = {name: x.astype(weights.dtype, copy=False) for name, x in floats.items() if x is not None}
        checked = replace(checked, **typed)
        _, pooled = family.text_tower(checked, weights, config.text_config, pool=family.pool, note=steps.note)
    embeds = head(PROJECTIONS[tower], pooled, weights)
    assert embeds is not None
    return Pass(tower, config, weights, checked, steps, pooled, embeds)
