"""Random models on the reference: float32 agrees with float64, finite and in the same shapes, in every family."""

from __future__ import annotations

import pytest
from attack import counts, memory_limit

from minclip.backend import NumpyBackend
from minclip.families import FAMILIES
from minclip.testing import BackendConformance, RandomModel
from minclip.testing.truth import Built


class Counting(BackendConformance):
    """The kit on NumPy, counting the models."""

    backend = NumpyBackend()
    shrink = False

    def __init__(self, examples: int) -> None:
        self.examples = examples  # type: ignore[misc]
        self.built = 0

    def build(self, model: RandomModel, dtype: str | None = None) -> Built:
        self.built += 1
        return super().build(model, dtype)


@counts(5, 170)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_random_models_agree_with_float64(family: str, count: int) -> None:
    kit = Counting(count)
    with memory_limit():
        kit.test_unit_embeddings_agree_with_float64(family, "float32")
    print(f"{family}: {kit.built} models")
    assert kit.built >= count
