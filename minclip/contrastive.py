"""Where the two towers meet: unit vectors, scaled cosines, and the loss (Radford et al. 2021, figure 3).

b images, n texts, p width of the shared space.
"""

from __future__ import annotations

import math

import numpy as np

from minclip.layers import softmax


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors divided by their length. x (b, p), result likewise."""
    return x / (x * x).sum(-1, keepdims=True) ** 0.5


def logits_per_image(image_embeds: np.ndarray, text_embeds: np.ndarray, logit_scale: float) -> np.ndarray:
    """Cosine of every image with every text, times exp(logit_scale). Unit vectors (b, p) and (n, p) -> (b, n)."""
    return image_embeds @ text_embeds.T * math.exp(logit_scale)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """How the texts share each image's certainty: softmax over them. (b, n) -> (b, n)."""
    return softmax(logits)


def contrastive_loss(logits: np.ndarray) -> float:
    """The symmetric cross-entropy: the i-th text is the right one for the i-th image, and the other way round.

    logits (b, b). Raises ValueError where there are not as many texts as images.
    """
    if logits.shape[0] != logits.shape[1]:
        raise ValueError(
            f"the loss pairs the i-th image with the i-th text, but there are {logits.shape[0]} images "
            f"and {logits.shape[1]} texts; pass as many of each"
        )
    right = np.arange(len(logits))
    return float(cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


def cross_entropy(logits: np.ndarray, right: np.ndarray) -> np.floating:
    """Mean over rows of -log softmax at the right column. logits (b, n), right (b,).

    The logarithm of the sum of exponentials keeps it finite where a probability is 0.
    """
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return (log_sum - logits[np.arange(len(logits)), right]).mean()
