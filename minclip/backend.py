"""What a backend is, which there are, and the one that is always there: NumPy.

The seam is the tower, not the operation. A backend turns a config and weights into two towers, in whatever way is
natural in its own world; everything around them (tokens, pixels, logits, ranking) is the same code for all.
A plugin announces its backend in its pyproject.toml:

    [project.entry-points."minclip.backends"]
    torch = "minclip_torch:TorchBackend"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np

from minclip import fast
from minclip.config import Config
from minclip.contrastive import unit
from minclip.errors import BackendError
from minclip.files import one_line
from minclip.images import ImageProcessor
from minclip.inputs import ImageInputs, TextInputs
from minclip.layers import Note, silent
from minclip.outputs import TowerOutput
from minclip.products import Prepacking
from minclip.threads import Team, library_on_one_thread
from minclip.towers import head, vision_tower
from minclip.weights import Weights

GROUP = "minclip.backends"


class BackendArray(Protocol):
    """What is known of a backend's own arrays: rows, of some shape, that are multiplied, summed and put in order."""

    @property
    def shape(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> Any: ...

    def __mul__(self, other: Any, /) -> Any: ...

    def sum(self, axis: int, /) -> Any: ...


class Towers(Protocol):
    """Two towers on one device. Inputs hold NumPy's arrays; pixel_values may be the backend's own. Outputs are its own.

    Shapes are those of `minclip.towers`. output_hidden_states, output_attentions: whether the output holds them.
    note: called with the name and value of every step that the reference names (`layers.0.q`, ...), in its order; it is
    how `minclip.testing.first_divergence` looks inside. A backend may leave it out of its signature: it is then
    compared on its outputs alone.
    """

    def vision(
        self,
        inputs: ImageInputs[Any],
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Note | None = None,
    ) -> TowerOutput:
        """The vision tower, its projection and its classifier, as far as the checkpoint has them."""
        ...

    def text(
        self,
        inputs: TextInputs[Any],
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Note | None = None,
    ) -> TowerOutput:
        """The text tower, and its projection where the checkpoint has one."""
        ...

    def unit(self, embeds: Any) -> BackendArray:
        """Vectors (b, p) divided by their length, in at least float32, still the backend's own arrays."""
        ...

    def join(self, arrays: Sequence[Any]) -> BackendArray:
        """Several of the backend's arrays as one, along the first axis."""
        ...

    def to_numpy(self, array: Any) -> np.ndarray:
        """One of the backend's arrays as NumPy's, of at least float32."""
        ...


@runtime_checkable
class PreparesPixels(Protocol):
    """Towers that make `pixel_values` on their own device; for the others, the image processor makes them."""

    def pixel_values(self, pixels: Sequence[np.ndarray], processor: ImageProcessor, *, resized: bool) -> BackendArray:
        """The batch (b, c, height, width) that `vision` takes, from uint8 arrays (h, w, 3).

        resized: whether they are resized and cropped already, so that only normalizing is left. Where they are not,
        the backend does so itself, with the very bytes of `minclip.images`.
        """
        ...


@runtime_checkable
class GivesEmbeds(Protocol):
    """Towers that leave out, where only embeddings are wanted, the last layer's states of the tokens not pooled."""

    def image_embeds(self, inputs: ImageInputs[Any]) -> BackendArray | None:
        """The `embeds` that `vision` gives, within rounding; None where there is no projection."""
        ...

    def text_embeds(self, inputs: TextInputs[Any]) -> BackendArray | None:
        """The `embeds` that `text` gives, within rounding; None where there is no projection."""
        ...


class Backend(Protocol):
    """A factory of towers, named as users choose it."""

    name: str

    def devices(self) -> list[str]:
        """The devices that can be used now, the default one first."""
        ...

    def build(
        self, config: Config, weights: Weights, *, device: str | None = None, dtype: str | None = None, **options: Any
    ) -> Towers:
        """Towers of `config` with `weights` on `device`, computing in `dtype` ("float32", "bfloat16", ...).

        Raises BackendError, one line that lists what there is, for a device, dtype or option that is not.
        """
        ...


# --- which there are -----------------------------------------------------------------------------------------------


def get_backend(name: str) -> Backend:
    """The backend called `name`. Raises BackendError: not installed (with the way to), or unknown (with a list)."""
    found = installed()
    if name not in found:
        raise BackendError(f"there is no backend {name!r}; installed are {', '.join(sorted(found))}")
    backend = found[name]()
    if isinstance(backend, BackendError):
        raise backend
    return backend


OURS = {"torch": "torch", "jax": "jax", "onnx": "onnx"}
"""Our own plugins and the extra that installs what each needs."""


def installed() -> dict[str, Callable[[], Backend | BackendError]]:
    """Every backend's name, with a function that imports it, or gives the BackendError that says why it cannot.

    Whatever a plugin raises while it is imported or started costs nobody else anything.
    """

    def load(point: Any) -> Backend | BackendError:
        try:
            backend: Backend = point.load()()
        except (Exception, SystemExit) as error:
            missing = isinstance(error, ImportError) and point.name in OURS
            remedy = f"pip install 'minclip[{OURS[point.name]}]'" if missing else f"it comes from {point.value}"
            found = one_line(error) or type(error).__name__
            return BackendError(f"backend {point.name!r} cannot start ({found}); {remedy}")
        return backend

    found: dict[str, Callable[[], Backend | BackendError]] = {"numpy": NumpyBackend}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, lambda point=point: load(point))  # type: ignore[misc]
    return found


def status() -> dict[str, list[str] | BackendError]:
    """Every installed backend with its devices, or with the error that keeps it from working."""
    found: dict[str, list[str] | BackendError] = {}
    for name, load in sorted(installed().items()):
        backend = load()
        try:
            found[name] = backend if isinstance(backend, BackendError) else backend.devices()
        except (Exception, SystemExit) as error:
            found[name] = BackendError(f"backend {name!r} cannot list its devices: {one_line(error)}")
    return found


def backends() -> dict[str, list[str]]:
    """The backends that work here and their devices, e.g. {"numpy": ["cpu"], "torch": ["cuda:0", "cpu"]}."""
    return {name: devices for name, devices in status().items() if not isinstance(devices, BackendError)}


# --- NumPy ---------------------------------------------------------------------------------------------------------


class NumpyBackend:
    """The reference. dtype None computes in float32 and leaves half-precision tensors as they are stored, widening
    each when it is used; "float32" widens them once; "float64" is the truth that errors are measured against."""

    name = "numpy"

    def devices(self) -> list[str]:
        """The CPU."""
        return ["cpu"]

    def build(
        self,
        config: Config,
        weights: Weights,
        *,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        prepack: bool = False,
        **options: Any,
    ) -> NumpyTowers:
        """See `Backend.build`. threads: how many work on a run; None is `minclip.threads.default_threads()`.

        prepack: whether each tower's weights are copied, before its first run, into the order in which this processor
        multiplies by them fastest (`minclip.products`), where one is known. It takes as much memory again as the
        layers' weights in float32, and what is written into the weights afterwards is not seen.
        """
        if device not in (None, "cpu"):
            raise BackendError(f"backend 'numpy' has no device {device!r}; it has cpu")
        if dtype not in (None, "float32", "float64"):
            raise BackendError(f"backend 'numpy' does not compute in {dtype!r}; it does in float32 and float64")
        if options:
            raise BackendError(f"backend 'numpy' takes no option {', '.join(options)}; it takes threads and prepack")
        if not isinstance(prepack, bool):
            raise BackendError(f"prepack must be True or False, not {prepack!r}")
        widened = weights if dtype is None else weights.astype(dtype).widened()
        return NumpyTowers(config, widened, Team(threads), prepack=prepack)


class NumpyTowers:
    """`minclip.towers` behind the protocol.

    team: threads that work on a run where nobody looks at its steps (`minclip.fast`); None runs the definition itself.
    prepack: whether such runs are by weights laid out for them, see `NumpyBackend.build`.
    """

    def __init__(self, config: Config, weights: Weights, team: Team | None = None, *, prepack: bool = False) -> None:
        self.config = config
        self.weights = weights
        self.team = team
        self._vision = Prepacking(weights, "vision_model.", prepack)
        self._text = Prepacking(weights, "text_model.", prepack)

    def vision(
        self,
        inputs: ImageInputs[np.ndarray],
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Note | None = None,
    ) -> TowerOutput:
        """See `Towers.vision`."""
        config, w = self.config.vision_config, self.weights
        assert config is not None
        record = Record(output_hidden_states, output_attentions, note)
        pixels = replace(inputs, pixel_values=np.asarray(inputs.pixel_values, w.dtype))
        if self.team is not None and record.note is silent:
            state, pooled = fast.vision(pixels, self._vision, config, self.team)
        else:
            state, pooled = vision_tower(pixels, w, config, note=record.note)
        embeds = self._head("visual_projection", pooled)
        logits = None
        if self.config.is_classifier:
            logits = self._head("classifier", state[:, 1:].mean(axis=1))  # (b, classes), of the mean patch
        if embeds is not None:
            record.note("projection", embeds)
        return TowerOutput(state, pooled, embeds, logits, record.hidden_states, record.attentions)

    def text(
        self,
        inputs: TextInputs[np.ndarray],
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Note | None = None,
    ) -> TowerOutput:
        """See `Towers.text`."""
        family, w = self.config.family, self.weights
        record = Record(output_hidden_states, output_attentions, note)
        inputs = self._typed(inputs)
        if self.team is not None and record.note is silent:
            state, pooled = fast.text(inputs, self._text, self.config, self.team)
        else:
            state, pooled = family.text_tower(inputs, w, self.config.text_config, pool=family.pool, note=record.note)
        embeds = self._head("text_projection", pooled)
        if embeds is not None:
            record.note("projection", embeds)
        return TowerOutput(state, pooled, embeds, None, record.hidden_states, record.attentions)

    def image_embeds(self, inputs: ImageInputs[np.ndarray]) -> np.ndarray | None:
        """See `GivesEmbeds.image_embeds`."""
        config = self.config.vision_config
        assert config is not None
        if self.team is None:
            return self.vision(inputs).embeds
        pixels = replace(inputs, pixel_values=np.asarray(inputs.pixel_values, self.weights.dtype))
        _, pooled = fast.vision(pixels, self._vision, config, self.team, pooled_only=True)
        return self._head("visual_projection", pooled)

    def text_embeds(self, inputs: TextInputs[np.ndarray]) -> np.ndarray | None:
        """See `GivesEmbeds.text_embeds`."""
        if self.team is None:
            return self.text(inputs).embeds
        _, pooled = fast.text(self._typed(inputs), self._text, self.config, self.team, pooled_only=True)
        return self._head("text_projection", pooled)

    def _head(self, name: str, x: np.ndarray) -> np.ndarray | None:
        """`minclip.towers.head`, on one thread where the towers were on a team's."""
        with nullcontext() if self.team is None else library_on_one_thread():
            return head(name, x, self.weights)

    def _typed(self, inputs: TextInputs[np.ndarray]) -> TextInputs[np.ndarray]:
        """The same with floats of the type that is computed in."""
        given = {name: getattr(inputs, name) for name in ("inputs_embeds", "head_mask")}
        typed = {name: np.asarray(value, self.weights.dtype) for name, value in given.items() if value is not None}
        return replace(inputs, **typed)

    def unit(self, embeds: np.ndarray) -> np.ndarray:
        """See `Towers.unit`."""
        with np.errstate(invalid="ignore", over="ignore"):  # whoever asked for the vectors refuses what has no length
            return unit(embeds)

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """See `Towers.join`."""
        return np.concatenate(arrays)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        """See `Towers.to_numpy`."""
        return array


class Record:
    """Keeps the hidden states and attentions that were asked for, out of the steps that the towers note."""

    def __init__(self, hidden_states: bool, attentions: bool, further: Note | None) -> None:
        self._states: list[Any] | None = [] if hidden_states else None
        self._attentions: list[Any] | None = [] if attentions else None
        self._further = further
        self.note: Note = self._note if hidden_states or attentions or further else silent

    def _note(self, name: str, value: Any) -> None:
        if self._states is not None and name.startswith("layers.") and name.endswith((".input", ".output")):
            self._states.append(value)
        if self._attentions is not None and name.endswith(".probabilities"):
            self._attentions.append(value)
        if self._further is not None:
            self._further(name, value)

    @property
    def hidden_states(self) -> tuple[Any, ...] | None:
        return None if self._states is None else tuple(self._states)

    @property
    def attentions(self) -> tuple[Any, ...] | None:
        return None if self._attentions is None else tuple(self._attentions)
