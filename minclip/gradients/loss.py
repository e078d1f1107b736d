"""`minclip.contrastive` backwards: from the loss to the logits, to unit vectors, to what the towers gave.

b images, n texts, p width of the shared space.
"""

from __future__ import annotations

import math

import numpy as np

from minclip.layers import softmax


def unit(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x / |x|:  dx = (dy - y (y . dy)) / |x|. Of dy, what points along y is dropped: y cannot grow.

    x, dy (b, p); returns dx (b, p).
    """
    length = (x * x).sum(-1, keepdims=True) ** 0.5
    y = x / length
    return (dy - y * (y * dy).sum(-1, keepdims=True)) / length


def logits_per_image(
    dy: np.ndarray, image_embeds: np.ndarray, text_embeds: np.ndarray, logit_scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y = e^s I T^T:  dI = e^s dy T,  dT = e^s dy^T I,  ds = the sum of dy y, for e^s is its own derivative.

    Unit vectors I (b, p) and T (n, p), dy (b, n). Returns dI (b, p), dT (n, p) and ds ().
    """
    scaled = dy * dy.dtype.type(math.exp(logit_scale))
    dscale = (scaled * (image_embeds @ text_embeds.T)).sum()
    return scaled @ text_embeds, scaled.T @ image_embeds, np.asarray(dscale)


def contrastive_loss(logits: np.ndarray) -> np.ndarray:
    """loss = (cross-entropy of the rows + of the columns) / 2:  dlogits = (P_rows - 1 + P_columns - 1) / 2b.

    P are softmax over rows and over columns, 1 is the identity: the right pair is pulled together by what its
    probability lacks of 1, every wrong pair is pushed apart by its probability. logits (b, b), result likewise.
    """
    right = np.eye(len(logits), dtype=logits.dtype)
    return (softmax(logits) - right + softmax(logits.T).T - right) / (2 * len(logits))
