"""Labels and scores: what a template makes of labels, and the ranking that probabilities make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np


class Prediction(NamedTuple):
    """A label and how probable it is among the labels it was ranked with."""

    label: str
    score: float


Ranking: TypeAlias = list[Prediction]
"""Best first."""


def rank(labels: Sequence[str], scores: np.ndarray, top_k: int | None = None) -> Ranking:
    """The labels by their scores (n,), best first, the `top_k` best alone where it is given."""
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}")
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [Prediction(labels[i], float(scores[i])) for i in order]


def checked_labels(labels: Sequence[str]) -> list[str]:
    """The labels as a list. Raises ValueError for none, a lone string, and what is no text, empty or repeated."""
    if isinstance(labels, str) or not isinstance(labels, Iterable) or not (found := list(labels)):
        raise ValueError(f"labels must be a list of at least one text, not {labels!r:.80}")
    for label in found:
        if not isinstance(label, str):
            raise ValueError(f"labels must be texts, and {label!r:.80} is of type {type(label).__name__}")
        if not label.strip():
            raise ValueError(f"labels holds {label!r}, which says nothing; leave it out")
    if len(set(found)) < len(found):
        twice = next(label for i, label in enumerate(found) if label in found[:i])
        raise ValueError(f"labels holds {twice!r:.80} twice, which would share its probability; give each once")
    return found


def checked_templates(template: str | Sequence[str] | None) -> list[str]:
    """The templates as a list; None is the label as it stands. Raises ValueError for one without a single `{}`."""
    templates = ["{}"] if template is None else [template] if isinstance(template, str) else list(template)
    if not templates:
        raise ValueError("template is an empty list; leave it out to use the labels as they stand")
    for form in templates:
        if not isinstance(form, str) or form.count("{}") != 1:
            raise ValueError(f"template {form!r} must hold one {{}} for the label, as in 'a photo of a {{}}.'")
    return templates


def templated(templates: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Every label in every template, template by template."""
    return [form.replace("{}", label) for form in templates for label in labels]
