"""What a backward pass reads and writes: the steps of the forward pass, and a gradient for every tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minclip.weights import Weights


class Steps:
    """What a forward pass noted, by name: hand `steps.note` to a tower, then read `steps["layers.3.q"]`."""

    def __init__(self, values: dict[str, np.ndarray] | None = None, prefix: str = "") -> None:
        self._values: dict[str, np.ndarray] = {} if values is None else values
        self._prefix = prefix

    def note(self, name: str, value: np.ndarray) -> None:
        """Keep a step; arrays are kept as they are, not copied."""
        self._values[self._prefix + name] = value

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[self._prefix + name]

    def at(self, prefix: str) -> Steps:
        """The steps whose names begin with `prefix.`, under the rest of their names."""
        return Steps(self._values, f"{self._prefix}{prefix}.")

    def rows(self, chosen: np.ndarray) -> Steps:
        """The same steps for the chosen rows (n,) of the batch, which is the first axis of all of them."""
        return Steps({name: value[chosen] for name, value in self._values.items()}, self._prefix)


class Parameters:
    """The tensors of a checkpoint, and beside each the gradient that a backward pass adds up.

    `p["fc1.weight"]` is a tensor, `p.add("fc1.weight", gradient)` adds to its gradient, `p.at("mlp")` are those under
    `mlp.`. wanted: whether gradients of tensors are asked for; where only those of the inputs are, nothing is kept and
    the products that would give them need not be computed.
    """

    def __init__(
        self, weights: Weights, *, wanted: bool = True, sums: dict[str, np.ndarray] | None = None, prefix: str = ""
    ) -> None:
        self.weights = weights
        self.wanted = wanted
        self._sums: dict[str, np.ndarray] = {} if sums is None else sums
        self._prefix = prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self.weights[name]

    def __contains__(self, name: str) -> bool:
        return name in self.weights

    def at(self, prefix: str) -> Parameters:
        """The tensors whose names begin with `prefix.`, under the rest of their names."""
        return Parameters(
            self.weights.at(prefix), wanted=self.wanted, sums=self._sums, prefix=f"{self._prefix}{prefix}."
        )

    def add(self, name: str, gradient: np.ndarray) -> None:
        """Add to a tensor's gradient: what is used in several places is moved by all of them."""
        name = self._prefix + name
        self._sums[name] = self._sums[name] + gradient if name in self._sums else gradient

    def add_rows(self, name: str, ids: np.ndarray, gradient: np.ndarray) -> None:
        """Add to the rows `ids` (any shape) of a table (n, d) the gradients (*shape, d) of what was looked up there.

        ids may lack leading axes of the shape: positions are the same for every text of a batch.
        """
        table = np.zeros(self.weights.stored(name).shape, gradient.dtype)
        np.add.at(table, np.broadcast_to(ids, gradient.shape[:-1]), gradient)  # += would count a repeated id once
        self.add(name, table)

    def gradients(self) -> Mapping[str, np.ndarray]:
        """The gradient of every tensor, in the order of the checkpoint; zeros for those that nothing depends on."""
        zeros = {name: np.zeros(self.weights.stored(name).shape, self.weights.dtype) for name in self.weights}
        return {name: self._sums.get(name, zero) for name, zero in zeros.items()}
