"""What comes out: of a tower, of both towers compared, of a classifier. Their reprs show shapes, not numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


class _ShowsShapes:
    """A repr with a line for each field that is there: the shapes and types of arrays."""

    def __repr__(self) -> str:
        present = [(f.name, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        lines = [f"  {name}: {_shown(value)}" for name, value in present if value is not None]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} of {_shown(value[0])}" if value else "none"
    if hasattr(value, "shape"):
        return f"{tuple(value.shape)} {str(value.dtype).rpartition('.')[2]}"
    return repr(value).replace("\n", "\n  ")


@dataclass(frozen=True, repr=False, eq=False)
class TowerOutput(_ShowsShapes):
    """What a tower gives, in the backend's own arrays.

    last_hidden_state (b, t, d); pooler_output (b, d), not projected; embeds (b, p), the projection of the pooled
    output, where the checkpoint has one, not normalized; logits (b, classes) where it has an image-classification
    head. On request hidden_states (layers + 1 of (b, t, d): what enters the first layer, then what leaves each) and
    attentions (one (b, h, t, t) a layer).
    """

    last_hidden_state: Any
    pooler_output: Any
    embeds: Any = None
    logits: Any = None
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None

    def converted(self, convert: Callable[[Any], np.ndarray]) -> TowerOutput:
        """The same with another kind of arrays."""

        def of(value: Any) -> Any:
            return None if value is None else tuple(map(of, value)) if isinstance(value, tuple) else convert(value)

        return replace(self, **{f.name: of(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True, repr=False, eq=False)
class ModelOutput(_ShowsShapes):
    """What a whole model gives. b images, n texts, p width of the shared space. All arrays are NumPy's.

    image_embeds (b, p) and text_embeds (n, p) have unit length. loss only where it was asked for. Where Transformers 5
    puts the projected vector into `text_model_output.pooler_output`, here it is `text_model_output.embeds`.
    """

    logits_per_image: np.ndarray  # (b, n)
    logits_per_text: np.ndarray  # (n, b)
    image_embeds: np.ndarray
    text_embeds: np.ndarray
    vision_model_output: TowerOutput
    text_model_output: TowerOutput
    loss: float | None = None


@dataclass(frozen=True, repr=False, eq=False)
class ClassifierOutput(_ShowsShapes):
    """What an image classifier gives: logits (b, classes), the loss where labels were given, the rest on request."""

    logits: np.ndarray
    loss: float | None = None
    hidden_states: tuple[np.ndarray, ...] | None = None
    attentions: tuple[np.ndarray, ...] | None = None
