"""Products `x @ weight.T` by the kernels that OpenBLAS has for small matrices, which read both where they lie.

To multiply large matrices fast, a library first copies both into an order of its own (Goto and van de Geijn 2008), each
time anew. Its kernels for small matrices (of AVX-512) do without, and a large product can be cut into small ones:

- `InBlocks`: some rows of the weight at a time, as the checkpoint has them. It pays where x has few rows.
- `Packed`: the weight copied once into panels, in the order in which such a kernel reads it. It pays for x of any size.
"""

from __future__ import annotations

import math
import threading
from functools import cache

import numpy as np

from minclip.threads import Team, kernels
from minclip.weights import Weights, widen

SMALL = 100**3  # multiplications: with more, OpenBLAS copies first
BLOCK = 1200  # numbers of a block's product: likewise
NARROWEST = 4  # columns of a block that are worth a call
MULTIPLIED = tuple(
    f"{name}.weight"
    for name in (
        *("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "patch_embedding"),  # CLIP's towers
        *("query", "key", "value", "dense"),  # RoBERTa's
    )
)
"""How the names of the weights end that all tokens are multiplied by."""
AT_ONCE = 6  # rows that the kernel takes at once: others cost it more
MOST_ROWS, LONGEST = 256, 1600  # rows of x, and numbers of a row, that meet all panels before others
PANEL = 32  # columns of the product that a panel makes: two registers of AVX-512, and the kernel is fastest


@cache
def small_kernels() -> bool:
    """Whether NumPy's library is an OpenBLAS with kernels for small matrices: those for AVX-512.

    The gain was measured with SkylakeX's alone.
    """
    return not kernels().isdisjoint({"SkylakeX", "Cooperlake", "SapphireRapids"})


# --- weights as they are stored ------------------------------------------------------------------------------------


class InBlocks(np.ndarray):
    """A weight matrix (f, d) that `x @ weight.T` takes some of its rows at a time, where x (m, d) has few."""

    def __rmatmul__(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]  # of the overloads, the one met here
        weight, (m, d) = self.view(np.ndarray).T, x.shape
        f = len(weight)
        size = _divisor(f, min(BLOCK // m, SMALL // (m * d))) if m > 1 else 0
        if size < NARROWEST:
            return x @ weight.T
        y = np.empty((m, f), x.dtype)
        blocks = weight.reshape(-1, size, d).swapaxes(1, 2)  # (f / size, d, size)
        np.matmul(x, blocks, out=y.reshape(m, -1, size).swapaxes(0, 1))
        return y


def in_blocks(weight: np.ndarray) -> np.ndarray:
    """A matrix to be multiplied by in blocks, where the library gains by that."""
    return weight.view(InBlocks) if small_kernels() else weight


@cache
def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`; 0 for none."""
    return next((size for size in range(min(number, most), 0, -1) if number % size == 0), 0)


# --- weights laid out for the kernels ------------------------------------------------------------------------------


class Packed:
    """Some rows of a weight matrix (f, d), for `x @ packed.T`.

    panels: (n, d, PANEL), the columns of PANEL rows of the matrix each, one after another; zeros after its last row.
    units: which of the panels' rows are ours. stored: the weight as it was.
    """

    __array_ufunc__ = None  # so that NumPy leaves x @ self to us

    def __init__(self, panels: np.ndarray, units: slice, stored: np.ndarray) -> None:
        self.panels, self.units, self.stored = panels, units, stored

    @classmethod
    def of(cls, stored: np.ndarray, room: np.ndarray | None = None) -> Packed:
        """A copy in float32 of a weight (f, ...), whose further axes are taken as one. room: for `numbers(stored)`."""
        weight = widen(stored).reshape(len(stored), -1)
        f, d = weight.shape
        whole = f - f % PANEL
        room = np.empty(cls.numbers(stored), np.float32) if room is None else room
        panels = room.reshape(-1, d, PANEL)
        panels[: whole // PANEL] = weight[:whole].reshape(-1, PANEL, d).swapaxes(1, 2)
        if whole < f:
            panels[-1, :, : f - whole] = weight[whole:].T
            panels[-1, :, f - whole :] = 0
        return cls(panels, slice(0, f), stored)

    @staticmethod
    def numbers(stored: np.ndarray) -> int:
        """How many numbers the panels of a weight (f, ...) are."""
        f, *rest = stored.shape
        return -(-f // PANEL) * PANEL * math.prod(rest)

    def rows(self, units: slice) -> Packed:
        """Some of all rows."""
        return Packed(self.panels, units, self.stored)

    def columns(self, units: slice) -> Packed:
        """Some of the columns, of the same rows."""
        return Packed(self.panels[:, units], self.units, self.stored)

    @property
    def T(self) -> Packed:  # noqa: N802  # as an array has it
        """The same: what it is for is the product with its transpose."""
        return self

    def __len__(self) -> int:
        return self.units.stop - self.units.start

    def __rmatmul__(self, x: np.ndarray) -> np.ndarray:
        """x (m, d) to (m, f). Of many or long rows of x some meet all panels before others, as the cache holds them."""
        (m, d), units = x.shape, self.units
        first, last = units.start // PANEL, -(-units.stop // PANEL)
        slices = -(-d // LONGEST)
        size = max(1, SMALL // (-(-d // slices) * PANEL) // AT_ONCE) * AT_ONCE  # rows of a small product
        step = max(1, MOST_ROWS // size) * size
        y = np.empty((m, (last - first) * PANEL), x.dtype)
        for part in range(slices):
            columns = slice(d * part // slices, d * (part + 1) // slices)
            panels = self.panels[first:last, columns]
            for start in range(0, m, step):
                rows, out = x[start : start + step, columns], y[start : start + step]
                if part == 0:
                    _small_products(rows, panels, size, out)
                else:
                    product = np.empty_like(out)
                    _small_products(rows, panels, size, product)
                    out += product
        return y[:, units.start - first * PANEL : units.stop - first * PANEL]


def _small_products(x: np.ndarray, panels: np.ndarray, size: int, out: np.ndarray) -> None:
    """x (m, d) times panels (n, d, PANEL) into out (m, n PANEL): `size` rows at a time, then those that are left.

    A panel stays in the cache while all rows but those meet it.
    """
    (m, d), n = x.shape, len(panels)
    whole = m - m % size
    if whole:
        by_panel = out[:whole].reshape(-1, size, n, PANEL).transpose(2, 0, 1, 3)
        np.matmul(x[:whole].reshape(-1, size, d), panels[:, None], out=by_panel)
    if whole < m:
        np.matmul(x[whole:], panels, out=out[whole:].reshape(-1, n, PANEL).swapaxes(0, 1))


class Prepacking:
    """The weights of a tower for its products: packed before its first run where that is wanted and of use.

    prefix: of the tower's names. MULTIPLIED says which of its weights are packed. What is written into them afterwards
    is not seen. A tower's answers are then always the panels' answers, to the bit.
    """

    def __init__(self, weights: Weights, prefix: str, wanted: bool) -> None:
        self.weights, self.prefix = weights, prefix
        self.wanted = wanted and weights.dtype == np.float32 and small_kernels()
        self._packed: Weights | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Prepacking], tuple[Weights, str, bool]]:
        """For another process, which packs for itself."""
        return Prepacking, (self.weights, self.prefix, self.wanted)

    def for_run(self, team: Team) -> Weights:
        """The weights for a run. Raises MemoryError where there is no room for the copy."""
        if not self.wanted:
            return self.weights
        with self._lock:
            if self._packed is None:
                self._packed = self._pack(team)
            return self._packed

    def _pack(self, team: Team) -> Weights:
        """All panels in one array, which the system keeps in large pages."""
        names = [name for name in self.weights if name.startswith(self.prefix) and name.endswith(MULTIPLIED)]
        stored = [self.weights.stored(name) for name in names]
        ends = np.cumsum([Packed.numbers(array) for array in stored])
        places = np.split(np.empty(ends[-1], np.float32), ends[:-1])

        def some(part: slice) -> list[Packed]:
            return [Packed.of(array, place) for array, place in zip(stored[part], places[part], strict=True)]

        with team.at_work() as team:
            packed = [form for part in team.map(some, team.split(len(names))) for form in part]
        return self.weights.with_forms(dict(zip(names, packed, strict=True)))
