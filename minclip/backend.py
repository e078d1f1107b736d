"""What a backend is, which there are, and the one that is always there: NumPy.

The seam is the tower, not the operation. A backend turns a config and weights into two towers, in whatever way is at
home in its world; everything around them (tokens, pixels, logits, ranking) is the same code for all.
A plugin announces its backend in its pyproject.toml:

    [project.entry-points."minclip.backends"]
    torch = "minclip_torch:TorchBackend"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from minclip.config import Config, RobertaConfig, TextConfig, VisionConfig
from minclip.contrastive import unit
from minclip.errors import BackendError
from minclip.images import ImageProcessor, check_same_size
from minclip.layers import Note, silent
from minclip.towers import TowerOutput, causal_text_tower, head, roberta_text_tower, vision_tower
from minclip.weights import Weights

GROUP = "minclip.backends"


class Towers(Protocol):
    """Two towers on one device. Arrays come in as NumPy's or as the backend's own, and go out as the backend's own.

    Shapes are those of `minclip.towers`. `note`, where given, is called with the name and value of every step that
    the reference names (`layers.0.q`, ...); it is how `minclip.testing.first_divergence` looks inside.
    """

    def vision(
        self,
        pixel_values: Any,
        *,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Callable[[str, Any], None] | None = None,
    ) -> TowerOutput:
        """pixel_values (b, c, height, width), normalized."""
        ...

    def text(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        token_type_ids: Any = None,
        *,
        inputs_embeds: Any = None,
        head_mask: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Callable[[str, Any], None] | None = None,
    ) -> TowerOutput:
        """input_ids, attention_mask, position_ids and token_type_ids (b, t), head_mask (layers, h)."""
        ...

    def pixel_values(self, pixels: Sequence[np.ndarray], processor: ImageProcessor, *, resized: bool) -> Any:
        """The batch (b, c, height, width) that `vision` takes, from pictures of bytes (h, w, 3).

        resized: whether they are resized and cropped already, so that only normalizing is left. Where they are not,
        the backend does so itself, with the very bytes of `minclip.images`.
        """
        ...

    def unit(self, embeds: Any) -> Any:
        """Vectors (b, p) divided by their length, in at least float32, still the backend's own arrays."""
        ...

    def join(self, arrays: Sequence[Any]) -> Any:
        """Several of the backend's arrays as one, along the first axis."""
        ...

    def to_numpy(self, array: Any) -> np.ndarray:
        """One of the backend's arrays as NumPy's, of at least float32."""
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


def get_backend(name: str) -> Backend:
    """The backend called `name`. Raises BackendError: not installed (with the way to), or unknown (with a list)."""
    found = installed()
    if name not in found:
        raise BackendError(f"there is no backend {name!r}; installed are {', '.join(sorted(found))}")
    backend = found[name]()
    if isinstance(backend, BackendError):
        raise backend
    return backend


def installed() -> dict[str, Callable[[], Backend | BackendError]]:
    """Every backend's name, with a function that imports it, or says in a BackendError why it cannot."""

    def load(point: Any) -> Backend | BackendError:
        try:
            backend: Backend = point.load()()
        except ImportError as error:
            install = f'pip install "minclip[{point.name}]"'
            return BackendError(
                f"backend {point.name!r} cannot be imported ({error}); install what it needs: {install}"
            )
        return backend

    found: dict[str, Callable[[], Backend | BackendError]] = {"numpy": NumpyBackend}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, lambda point=point: load(point))  # type: ignore[misc]
    return found


def backends() -> dict[str, list[str]]:
    """The backends that work here and their devices, e.g. {"numpy": ["cpu"], "torch": ["cuda:0", "cpu"]}."""
    loaded = {name: load() for name, load in sorted(installed().items())}
    return {name: backend.devices() for name, backend in loaded.items() if not isinstance(backend, BackendError)}


class NumpyBackend:
    """The reference. dtype None computes in float32 and leaves half-precision tensors as they are stored, widening
    each when it is used; "float32" widens them once; "float64" is the truth that errors are measured against."""

    name = "numpy"

    def devices(self) -> list[str]:
        return ["cpu"]

    def build(
        self, config: Config, weights: Weights, *, device: str | None = None, dtype: str | None = None, **options: Any
    ) -> NumpyTowers:
        if device not in (None, "cpu"):
            raise BackendError(f"backend 'numpy' has no device {device!r}; it has cpu")
        if dtype not in (None, "float32", "float64"):
            raise BackendError(f"backend 'numpy' does not compute in {dtype!r}; it does in float32 and float64")
        if options:
            raise BackendError(f"backend 'numpy' takes no option {', '.join(options)}; it has none")
        return NumpyTowers(config, weights if dtype is None else weights.astype(dtype).widened())


class NumpyTowers:
    """`minclip.towers` behind the protocol."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = config
        self.weights = weights

    def vision(
        self,
        pixel_values: np.ndarray,
        *,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Note | None = None,
    ) -> TowerOutput:
        """See `Towers.vision`."""
        config = self.config.vision_config
        assert isinstance(config, VisionConfig)
        record = Record(output_hidden_states, output_attentions, note)
        state, pooled = vision_tower(
            np.asarray(pixel_values, self.weights.dtype),
            self.weights,
            config,
            interpolate_pos_encoding=interpolate_pos_encoding,
            note=record.note,
        )
        embeds = head("visual_projection", pooled, self.weights)
        logits = None
        if self.config.is_classifier:
            logits = head("classifier", state[:, 1:].mean(axis=1), self.weights)  # (b, classes), of the mean patch
        if embeds is not None:
            record.note("projection", embeds)
        return TowerOutput(
            last_hidden_state=state,
            pooler_output=pooled,
            embeds=embeds,
            logits=logits,
            hidden_states=record.hidden_states,
            attentions=record.attentions,
        )

    def text(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        position_ids: np.ndarray | None = None,
        token_type_ids: np.ndarray | None = None,
        *,
        inputs_embeds: np.ndarray | None = None,
        head_mask: np.ndarray | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Note | None = None,
    ) -> TowerOutput:
        """See `Towers.text`."""
        config = self.config.text_config
        record = Record(output_hidden_states, output_attentions, note)
        given = {"inputs_embeds": inputs_embeds, "head_mask": head_mask}
        floats = {name: None if x is None else np.asarray(x, self.weights.dtype) for name, x in given.items()}
        if isinstance(config, RobertaConfig):
            state, pooled = roberta_text_tower(
                input_ids,
                self.weights,
                config,
                attention_mask,
                position_ids,
                token_type_ids,
                **floats,
                note=record.note,
            )
        else:
            assert isinstance(config, TextConfig)
            state, pooled = causal_text_tower(
                input_ids, self.weights, config, attention_mask, position_ids, **floats, note=record.note
            )
        embeds = head("text_projection", pooled, self.weights)
        if embeds is not None:
            record.note("projection", embeds)
        return TowerOutput(
            last_hidden_state=state,
            pooler_output=pooled,
            embeds=embeds,
            hidden_states=record.hidden_states,
            attentions=record.attentions,
        )

    def pixel_values(self, pixels: Sequence[np.ndarray], processor: ImageProcessor, *, resized: bool) -> np.ndarray:
        if not resized:
            pixels = [processor.pixels(picture) for picture in pixels]
        check_same_size([picture.shape for picture in pixels])
        return processor.normalize(np.stack(pixels))

    def unit(self, embeds: np.ndarray) -> np.ndarray:
        return unit(embeds)

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array


class Record:
    """Keeps the hidden states and attentions that were asked for, out of the steps that the towers note."""

    def __init__(self, hidden_states: bool, attentions: bool, further: Callable[[str, Any], None] | None) -> None:
        self._states: list[Any] | None = [] if hidden_states else None
        self._attentions: list[Any] | None = [] if attentions else None
        self._further = further
        self.note: Callable[[str, Any], None] = self._note if hidden_states or attentions or further else silent

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
