"""What gradients are for: AdamW, and the loop around it. The lesson; `minclip_torch.training` is the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minclip import gradients
from minclip.gradients import HasWeights


@dataclass
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    m and v follow the mean of the gradient and of its square; their ratio is a step whose size does not depend on the
    gradient's. Both begin at 0, and are divided by what that makes them too small by. Decay shrinks the weights
    themselves, and is no part of m and v: that is the W.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.01
    step_count: int = 0
    m: dict[str, np.ndarray] = field(default_factory=dict)
    v: dict[str, np.ndarray] = field(default_factory=dict)

    def step(self, tensors: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> None:
        """Move the tensors, in place, against their gradients."""
        self.step_count += 1
        beta1, beta2 = self.betas
        for name, g in gradients.items():
            m = self.m[name] = beta1 * self.m.get(name, np.zeros_like(g)) + (1 - beta1) * g
            v = self.v[name] = beta2 * self.v.get(name, np.zeros_like(g)) + (1 - beta2) * g * g
            mean, square = m / (1 - beta1**self.step_count), v / (1 - beta2**self.step_count)
            tensor = tensors[name]
            tensor *= 1 - self.learning_rate * self.weight_decay
            tensor -= self.learning_rate * mean / (np.sqrt(square) + self.eps)


def train(model: HasWeights, batches: Iterable[Mapping[str, Any]], optimizer: AdamW) -> Iterator[float]:
    """Learn from batches of pairs, one step each; gives the loss before each step.

    The model's tensors are changed in place, so they must be writeable and of the type that is computed in, as those of
    a model made in memory are. Raises ValueError naming the first that is not.
    """
    weights = gradients.whole(model)
    for name in weights:
        if weights.stored(name).dtype != weights.dtype or not weights.stored(name).flags.writeable:
            raise ValueError(
                f"{name} cannot be changed in place: it is {weights.stored(name).dtype} or read-only, as tensors of a "
                f"file are; train a model whose tensors are writeable and {weights.dtype}"
            )
    for batch in batches:
        loss, found = gradients.contrastive(model, **batch)
        yield loss
        optimizer.step(weights, found)
