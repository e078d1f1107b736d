"""The claim about gradients, for backends that have them. Part of `minclip.testing`.

A backend's towers may have a method `gradients(inputs)`: the contrastive loss of a batch of pairs and its gradient for
every tensor by name, as `minclip.gradients.contrastive` gives them. It is compared with the reference in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from minclip import gradients
from minclip.backend import NumpyBackend
from minclip.config import Config
from minclip.testing.strategies import Case, RandomModel, image_inputs, models, text_inputs
from minclip.weights import Weights

GRADIENT_TOLERANCES = {"float64": 1e-8, "float32": 2e-4}
"""The largest error of a gradient in units of its tensor's scale (`gradients_agree`). Measured on 400 random models and
28,000 tensors: 5e-12 in float64; in float32 1e-6 at the median, and all but one in a thousand below 2e-4, those of
losses that nothing moves or texts that are the same."""
FLAT = 1e-3
"""A loss whose largest gradient is below this is not compared: probabilities at 0 and 1, rounded, are all there is."""


@dataclass(frozen=True)
class Reference:
    """A random model as `minclip.gradients` takes it."""

    config: Config
    weights: Weights
    towers: Any
    source: str = "a random model"


def reference(model: RandomModel, dtype: str = "float64") -> Reference:
    """The model on the NumPy backend."""
    return Reference(model.config, model.weights, NumpyBackend().build(model.config, model.weights, dtype=dtype))


@st.composite
def pair_cases(draw: st.DrawFn, config: st.SearchStrategy[Config], *, interpolate: bool = False) -> Case:
    """A model with as many texts as images, all different, at least two: a lone pair's loss is 0, whatever it is."""
    model = draw(models(config))
    b = draw(st.integers(2, 4))
    texts = draw(text_inputs(model.config, batch=b))
    assume(len(np.unique(texts["input_ids"], axis=0)) == b)  # equal ones are pulled two ways, and rounding is left
    return Case(model, texts | draw(image_inputs(model.config, batch=b, interpolate=interpolate)))


def gradients_agree(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float) -> None:
    """Assert that every tensor has a gradient of its shape, off by no more than the tolerance times its scale.

    The scale is the largest number of the tensor's gradient, or a hundredth of the largest of all, or 0.001 where the
    loss is nearly flat: what is smaller is the difference of larger numbers. The keys' biases have a gradient of
    nothing but rounding, as softmax takes them back; so has the vision tower where all texts are the same.
    """
    assert found.keys() == expected.keys(), f"gradients of other tensors: {sorted(found.keys() ^ expected.keys())}"
    largest = {name: float(np.abs(gradient).max()) for name, gradient in expected.items()}
    if max(largest.values()) < FLAT:
        return
    floor = max(1e-2 * max(largest.values()), 1e-3)
    for name, right in expected.items():
        assert found[name].shape == right.shape, f"{name}: shape {found[name].shape}, expected {right.shape}"
        scale = max(largest[name], floor)
        error = float(np.abs(found[name] - right).max())
        assert error <= tolerance * scale, f"{name}: off by {error:.2g} (scale {scale:.2g}), allowed {tolerance:.2g}"


def towers_agree(towers: Any, case: Case, dtype: str) -> None:
    """The claim: loss and gradients of a backend's towers are the reference's.

    True of towers without gradients, and in half precision, where there is no tolerance to hold them to.
    """
    if not hasattr(towers, "gradients") or dtype not in GRADIENT_TOLERANCES:
        return
    expected_loss, expected = gradients.contrastive(reference(case.model), **case.inputs)
    loss, found = towers.gradients(case.inputs)
    assert abs(loss - expected_loss) <= GRADIENT_TOLERANCES[dtype] * max(1.0, expected_loss), f"loss {loss}"
    gradients_agree(found, expected, GRADIENT_TOLERANCES[dtype])
