"""Image classifiers: what their logits mean, and the loss that they are trained with.

A config's `problem_type` decides; where it is silent, the number of labels and the type of the labels do, as
Transformers' image-classification pipeline and its `ForImageClassificationLoss` have it.
"""

from __future__ import annotations

import numpy as np

from minclip.contrastive import cross_entropy
from minclip.layers import softmax

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def scores(logits: np.ndarray, problem_type: str | None) -> np.ndarray:
    """What each class is worth: logits (b, classes), result likewise.

    One label of many: softmax. Several labels at once, or a single class: the sigmoid of each. Regression: the number
    itself.
    """
    if problem_type == REGRESSION:
        return logits
    if problem_type == MULTI or logits.shape[1] == 1:
        return 1 / (1 + np.exp(-np.clip(logits, -80, None)))  # exp(80) is finite in float32
    return softmax(logits)


def loss(logits: np.ndarray, labels: np.ndarray, problem_type: str | None) -> float:
    """Mean cross-entropy, binary cross-entropy or squared error of logits (b, classes).

    labels: class indices (b,) for one label of many, numbers (b, classes) of 0 and 1 for several, or the values that
    regression aims at, (b,) for a single number. Raises ValueError where they do not fit the logits.
    """
    b, classes = logits.shape
    if problem_type is None:
        integers = labels.dtype.kind in "iu"
        problem_type = REGRESSION if classes == 1 else SINGLE if integers else MULTI
    if problem_type == SINGLE:
        labels = labels.reshape(-1)
        if labels.dtype.kind not in "iu" or len(labels) != b or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(f"labels must be {b} class numbers from 0 to {classes - 1}, found {labels!r:.80}")
        return float(cross_entropy(logits, labels))
    expected = (b,) if classes == 1 and labels.ndim == 1 else (b, classes)
    if labels.shape != expected:
        raise ValueError(f"labels have shape {labels.shape}, expected {(b, classes)} for {problem_type}")
    targets = labels.reshape(logits.shape).astype(logits.dtype)
    if not np.isfinite(targets).all() or (problem_type == MULTI and not ((targets >= 0) & (targets <= 1)).all()):
        allowed = "from 0 to 1" if problem_type == MULTI else "that are finite"
        raise ValueError(f"labels must be numbers {allowed} for {problem_type}")
    if problem_type == REGRESSION:
        return float(((logits - targets) ** 2).mean())
    # log(1 + exp(x)) - x y, with the exponential of a number that is not positive
    terms = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return float(terms.mean())
