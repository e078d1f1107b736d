"""The reference in float64, and how far a backend may be and is from it. Part of `minclip.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minclip.backend import GivesEmbeds, NumpyTowers, Towers
from minclip.config import Config
from minclip.inputs import checked_inputs, split_inputs
from minclip.outputs import TowerOutput
from minclip.testing.divergence import compare
from minclip.testing.strategies import Case, RandomModel

TOLERANCES = {"float64": 1e-6, "float32": 2e-5, "bfloat16": 2e-2, "float16": 2e-2}
"""The largest absolute error of a unit-length embedding against the reference in float64, by the type computed in."""


@dataclass(frozen=True)
class Built:
    """A random model's towers on a backend."""

    config: Config
    towers: Towers

    def run(self, given: dict[str, Any], **record: Any) -> dict[str, dict[str, Any]]:
        """The outputs of the towers that are given something, their arrays as NumPy's: {"text": {...}, ...}."""
        return {tower: self._as_numpy(run(inputs, **record)) for tower, run, inputs in self._runs(given)}

    def embed(self, given: dict[str, Any]) -> dict[str, np.ndarray]:
        """Unit vectors, as `Model` makes them."""
        if isinstance(self.towers, GivesEmbeds):
            direct: dict[str, Callable[..., Any]] = {
                "vision": self.towers.image_embeds,
                "text": self.towers.text_embeds,
            }
            outputs = {tower: direct[tower](inputs) for tower, _, inputs in self._runs(given)}
        else:
            outputs = {tower: run(inputs).embeds for tower, run, inputs in self._runs(given)}
        return {tower: self.towers.to_numpy(self.towers.unit(embeds)) for tower, embeds in outputs.items()}

    def _runs(self, given: dict[str, Any]) -> Iterator[tuple[str, Callable[..., TowerOutput], Any]]:
        for tower, inputs in checked_inputs(self.config, given).items():
            yield tower, getattr(self.towers, tower), inputs

    def _as_numpy(self, output: TowerOutput) -> dict[str, Any]:
        found = output.converted(self.towers.to_numpy)
        return {name: value for name, value in vars(found).items() if value is not None}


def part(tower: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The named inputs of one tower."""
    return split_inputs(dict(given))[("text", "vision").index(tower)]


def truth(model: RandomModel) -> Built:
    """The model on the reference, in float64."""
    return Built(model.config, NumpyTowers(model.config, model.weights.astype("float64").widened()))


def close(what: str, found: np.ndarray, expected: np.ndarray, tolerance: float, seen: Any = None) -> None:
    """Assert the same shape, and no difference above the tolerance where it can be seen (everywhere)."""
    assert found.shape == expected.shape, f"{what} has shape {found.shape}, expected {expected.shape}"
    error = np.abs(found.astype(np.float64) - expected)
    if seen is not None:
        error = np.where(seen, error, 0.0)
    index = tuple(map(int, np.unravel_index(np.nan_to_num(error, nan=np.inf).argmax(), error.shape)))
    assert error[index] <= tolerance, f"{what} is off by {error[index]:.2g} at {index}, allowed are {tolerance:.2g}"


@contextmanager
def blame(case: Case, built: Built) -> Iterator[None]:
    """Put in front of a failure where it comes from."""
    try:
        yield
    except AssertionError as error:
        found, failure = compare(truth(case.model), built, case.inputs), error
    else:
        return
    where = found if found.divergence is not None else f"no step differs: the backend {found}"
    raise AssertionError(f"{where}\n{failure}")


def refusal(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The message of the error that the call must raise: one line."""
    try:
        call()
    except kind as error:
        message = str(error)
    else:
        raise AssertionError(f"nothing was raised, expected {kind.__name__}")
    assert "\n" not in message, f"more than one line: {message}"
    return message
