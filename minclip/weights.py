"""The tensors of a checkpoint as one mapping from dotted names to arrays, read only when used.

NumPy has no bfloat16, so such a tensor is kept as it lies in the file, in an array of a one-field structured type
(`BFLOAT16`) that remembers what its 16 bits are, and is widened when somebody asks for it.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minclip.errors import CheckpointError
from minclip.files import open_regular

BFLOAT16 = np.dtype([("bfloat16", "<u2")])


def widen(array: np.ndarray, dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """The same numbers as `dtype` (float32 or float64); no copy where they are that already.

    A bfloat16 is the upper half of a float32, so widening is a shift by 16 bits and exact.
    """
    if array.dtype == BFLOAT16:
        bits = array["bfloat16"].astype(np.uint32)
        bits <<= 16  # in place, so that a single number stays an array, too
        array = bits.view(np.float32)
    return array.astype(dtype, copy=False)


def check_finite(weights: Weights) -> list[str]:
    """The names of the tensors that hold a NaN or an infinity, in order. Reads all of them."""

    def finite(array: np.ndarray) -> np.ndarray:
        if array.dtype == BFLOAT16:  # all bits of the exponent set
            return array["bfloat16"] & 0x7F80 != 0x7F80
        return np.isfinite(array)

    return [name for name in weights if not finite(weights.stored(name)).all()]


class OpenFile:
    """A file that arrays are views of, kept open so that a change to it is noticed.

    Reading beyond the end of a mapped file kills the process (SIGBUS), and what is written into it shows in the arrays.
    A file put in its place by renaming, as minclip writes, does neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        self._state = self._now()

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """Raise CheckpointError where the file was written to since it was opened."""
        if self._now() != self._state:
            raise CheckpointError(
                f"{self.path} was changed while its weights were in use; load the model again, and put new files in "
                "the place of old ones instead of writing into them, or load with mmap=False"
            )


class Weights(Mapping[str, np.ndarray]):
    """Names to arrays of one floating type, over tensors stored in any.

    `weights[name]` widens a tensor stored in another type each time it is asked for, which keeps a half-precision
    checkpoint at half the memory; `widened()` does so once, for speed. Float32 tensors asked for as float32 are
    handed out as they are: views of the memory-mapped file. files: those that the tensors are views of.
    """

    def __init__(
        self,
        stored: Mapping[str, np.ndarray],
        dtype: np.typing.DTypeLike = np.float32,
        prefix: str = "",
        files: Sequence[OpenFile] = (),
    ) -> None:
        self._stored = stored
        self._prefix = prefix
        self.files = tuple(files)
        self.dtype = np.dtype(dtype)

    def __repr__(self) -> str:
        count = sum(self.stored(name).size for name in self)
        return f"<Weights: {len(self)} tensors, {count:,} numbers, handed out as {self.dtype}>"

    def __getitem__(self, name: str) -> np.ndarray:
        return widen(self.stored(name), self.dtype)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._prefix + name in self._stored

    def __iter__(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._stored if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the tensors are copied, and no file is behind them."""
        return {**vars(self), "files": ()}

    def check_unchanged(self) -> None:
        """Raise CheckpointError, naming the file, where one that the tensors are views of was written to."""
        for file in self.files:
            file.check_unchanged()

    @property
    def read_only(self) -> bool:
        """Whether no tensor can be changed in place. Those of a mapped file cannot; those that are trained can."""
        return not any(self.stored(name).flags.writeable for name in self)

    def stored(self, name: str) -> np.ndarray:
        """A tensor in the type it is stored in (float16, float32, float64 or `BFLOAT16`)."""
        return self._stored[self._prefix + name]

    def rows(self, name: str, ids: np.ndarray) -> np.ndarray:
        """The rows `ids` (any shape) of a table (n, d), shape (*ids.shape, d); the rest of it is never read."""
        return widen(self.stored(name)[ids], self.dtype)

    def at(self, prefix: str) -> Weights:
        """The weights whose names begin with `prefix.`, under the rest of their names."""
        return Weights(self._stored, self.dtype, f"{self._prefix}{prefix}.", self.files)

    def with_forms(self, forms: Mapping[str, object]) -> Weights:
        """The same, but for the tensors of these names another form that `stored` gives instead."""
        named = {self._prefix + name: form for name, form in forms.items()}
        stored: Any = ChainMap(named, self._stored)  # type: ignore[arg-type]
        return Weights(stored, self.dtype, self._prefix, self.files)

    def astype(self, dtype: np.typing.DTypeLike) -> Weights:
        """The same tensors, handed out as `dtype`."""
        return Weights(self._stored, dtype, self._prefix, self.files)

    def widened(self) -> Weights:
        """The same tensors converted once and for all; those already of `dtype` stay where they lie."""
        return Weights({name: self[name] for name in self}, self.dtype, files=self.files)
