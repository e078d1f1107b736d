"""Where two models part: both towers run side by side, and their steps are compared as they are computed.

The debugger of a backend. A bug somewhere in a tower spoils everything after it; the first step that differs is where
it sits. Only one step of each model is held at a time, so that models of any size can be compared.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

import numpy as np

from minclip.backend import Towers
from minclip.config import Config, RobertaConfig, TextConfig
from minclip.images import ImageSource
from minclip.inputs import IMAGE_INPUTS, TEXT_INPUTS, checked_pixels, checked_text, inputs_of
from minclip.layers import causal_mask, padding_mask
from minclip.model import Model
from minclip.towers import TowerOutput, end_of_text

STEP_TOLERANCES = {"float64": 1e-9, "float32": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}
"""How far a step may be off, in units of its largest number, by the type it was computed in; the looser of two counts.

Measured between the torch backend and the reference on hundreds of random models and one of ViT-B/32's size, the worst
step was off by 4.5e-6 in float32, 1.1e-2 in float16 and 5.1e-2 in bfloat16.
"""


class HasTowers(Protocol):
    """What is asked of a model here; `minclip.Model` has it."""

    @property
    def config(self) -> Config: ...

    @property
    def towers(self) -> Towers: ...


@dataclass(frozen=True)
class Divergence:
    """The first step at which two models differ.

    tower: "text" or "vision". layer: counted from 0, or None before and after the layers. step: as the reference calls
    it ("q", "probabilities", "fc1", ...). error: the largest absolute difference, at `index`; scale: the largest
    absolute number of the first model's step. problem: where the two cannot be subtracted, why; error is then infinite.
    told: False where every step agreed while it was told, and the towers differ when they are left to themselves.
    """

    tower: str
    layer: int | None
    step: str
    error: float = math.inf
    scale: float = 1.0
    index: tuple[int, ...] = ()
    problem: str | None = None
    told: bool = True

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" layer {self.layer},"
        found = self.problem or f"off by {self.error:.2g} (scale {self.scale:.2g}) at {self.index}"
        alone = "" if self.told else ", though all steps agree while they are told; look at the path without `note`"
        return f"{self.tower} tower,{layer} step {self.step}: {found}{alone}"


class Step(NamedTuple):
    """A step's full name ("layers.3.q"), its value as NumPy's, and the type it was computed in."""

    name: str
    value: np.ndarray
    dtype: str


def first_divergence(
    model_a: HasTowers, model_b: HasTowers, inputs: Mapping[str, Any], *, tolerance: float | None = None
) -> Divergence | None:
    """The first tower, layer and step at which b leaves a, or None where they agree.

    inputs: what a model is called with (`model.processor(text=..., images=...)`), in NumPy arrays; each tower that both
    models have and that is given something is run, text first. `probe` makes some. tolerance: the largest allowed
    error of a step, in units of the largest number of a's step; None goes by the types of both (`STEP_TOLERANCES`).
    What a backend computes where nobody can see it is its own business: queries at padding, masked scores.
    Raises ValueError where no tower can be run.
    """
    text, vision = inputs_of(dict(inputs), TEXT_INPUTS), inputs_of(dict(inputs), IMAGE_INPUTS)
    towers = [name for name in ("text", "vision") if name in model_a.config.towers and name in model_b.config.towers]
    given = {"text": text if "input_ids" in text else None, "vision": vision if "pixel_values" in vision else None}
    if not any(given[tower] for tower in towers):
        both = " and ".join(towers) or "no"
        raise ValueError(f"nothing to compare: the models share {both} tower, the inputs are {', '.join(inputs)}")
    for tower in towers:
        arguments = given[tower]
        if arguments is None:
            continue
        seen = visible(tower, arguments, model_a.config)
        runs: list[Run] = [partial(getattr(model.towers, tower), **arguments) for model in (model_a, model_b)]
        convert = model_a.towers.to_numpy, model_b.towers.to_numpy
        compare = Comparison(tower, seen, tolerance)
        found = _in_steps(compare, runs, convert) or _in_outputs(compare, runs, convert)
        if found is not None:
            return found
    return None


# --- what is compared ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Visible:
    """What of a tower can be seen. rows (b, t): queries. keys (b, 1, t, t): keys a query may see. pooled (b,)."""

    rows: np.ndarray
    keys: np.ndarray
    pooled: np.ndarray

    def of(self, step: str) -> np.ndarray:
        """Boolean, broadcast to the value of the step."""
        if step == "scores":
            return self.keys & self.rows[:, None, :, None]
        if step in ("q", "k", "v", "probabilities"):
            return self.rows[:, None, :, None]
        return self.pooled[:, None] if step in ("pooled", "projection", *OUTPUTS[1:]) else self.rows[:, :, None]


OUTPUTS = ("last_hidden_state", "pooler_output", "embeds", "logits")


def visible(tower: str, given: Mapping[str, Any], config: Config) -> Visible | None:
    """What can be seen of a tower that is called with `given`; None is all of it.

    Checks the inputs, too, as a model does at its edge: raises ValueError for ids or pixels that mean nothing.
    """
    if tower == "vision":
        checked_pixels(np.asarray(given["pixel_values"]), config, bool(given.get("interpolate_pos_encoding")))
        return None
    ids, mask = (
        checked_text({"input_ids": np.asarray(given["input_ids"])}, config)["input_ids"],
        given.get("attention_mask"),
    )
    text = config.text_config
    assert text is not None
    b, t = ids.shape
    real = np.ones((b, t), bool) if mask is None else np.asarray(mask).astype(bool)
    bidirectional = isinstance(text, RobertaConfig)
    keys = padding_mask(real) & (np.ones((t, t), bool) if bidirectional else causal_mask(t))  # (b, 1, t, t)
    ends = np.zeros(b, int) if isinstance(text, RobertaConfig) else end_of_text(ids, text)
    rows = real.copy()
    rows[np.arange(b), ends] = True  # the pooled token is seen, be it padding
    rows &= keys.any(axis=-1)[:, 0]  # but a query without keys has no meaning
    return Visible(rows, keys, rows[np.arange(b), ends])


class Comparison:
    """Judges pairs of values of one tower; keeps the loosest type met so far, which later steps inherit."""

    def __init__(self, tower: str, seen: Visible | None, tolerance: float | None) -> None:
        self.tower = tower
        self._visible = seen
        self._given = tolerance
        self._loosest = STEP_TOLERANCES["float64"]

    def at(self, name: str, problem: str) -> Divergence:
        layer, step = _place(name)
        return Divergence(self.tower, layer, step, problem=problem)

    def steps(self, a: Step | None, b: Step | None) -> Divergence | None:
        """Compare what the two models told in turn; None is the end of a run."""
        if a is None or b is None or a.name != b.name:
            if a is None:
                assert b is not None
                return self.at(b.name, "told by the second model, where the first is done")
            instead = "is done" if b is None else f"tells {b.name}"
            return self.at(a.name, f"not told by the second model, which {instead} instead")
        return self.values(a.name, a.value, b.value, a.dtype, b.dtype)

    def values(self, name: str, a: np.ndarray, b: np.ndarray, *dtypes: str) -> Divergence | None:
        if a.shape != b.shape:
            return self.at(name, f"of shape {a.shape} in the first model and {b.shape} in the second")
        layer, step = _place(name)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(a == b, 0.0, np.abs(a.astype(np.float64) - b))
        error[np.isnan(error)] = np.inf
        size = np.abs(a)
        if self._visible is not None:
            seen = np.broadcast_to(self._visible.of(step), a.shape)
            error, size = np.where(seen, error, 0.0), np.where(seen, size, 0.0)
        index = np.unravel_index(error.argmax(), error.shape)
        worst, scale = float(error[index]), float(size.max())
        self._loosest = max([self._loosest, *(STEP_TOLERANCES.get(dtype, 0.0) for dtype in dtypes)])
        allowed = self._loosest if self._given is None else self._given
        if worst <= allowed * max(scale, SMALLEST_SCALES.get(step, SMALLEST_SCALE)):
            return None
        return Divergence(self.tower, layer, step, worst, scale, tuple(int(i) for i in index))


SMALLEST_SCALE = 1e-3  # smaller steps are differences of larger numbers, and as exact as those
SMALLEST_SCALES = {"scores": 1.0, "fc1": 1.0, "activation": 1.0}
"""Steps that are small only where terms of the order of 1 cancel: a few products, the far left of a gelu."""


def _place(name: str) -> tuple[int | None, str]:
    """The layer and the step: (3, "q") for layers.3.q, None and the name for layers.input or pooled."""
    first, _, rest = name.partition(".")
    number, _, step = rest.partition(".")
    return (int(number), step) if first == "layers" and number.isdigit() else (None, name)


# --- running both --------------------------------------------------------------------------------------------------

Run = Callable[..., TowerOutput]
ToNumpy = Callable[[Any], np.ndarray]


def _in_steps(compare: Comparison, runs: list[Run], convert: tuple[ToNumpy, ToNumpy]) -> Divergence | None:
    with closing(told(runs[0], convert[0], "first")) as ours, closing(told(runs[1], convert[1], "second")) as theirs:
        return next((found for a, b in zip_longest(ours, theirs) if (found := compare.steps(a, b))), None)


def _in_outputs(compare: Comparison, runs: list[Run], convert: tuple[ToNumpy, ToNumpy]) -> Divergence | None:
    """Nobody listening, a backend may take another way (fused attention, a compiled graph); that is compared, too."""
    found = _first_output(compare, [run() for run in runs], convert)
    if found is None:
        return None
    layers = _first_output(compare, [run(output_hidden_states=True) for run in runs], convert)
    return replace(layers or found, told=False)


def _first_output(
    compare: Comparison, outputs: list[TowerOutput], convert: tuple[ToNumpy, ToNumpy]
) -> Divergence | None:
    for (name, a), (_, b) in zip_longest(*map(_named, outputs), fillvalue=("hidden_states", None)):
        if (a is None) != (b is None):
            return compare.at(name, f"there in the {'first' if b is None else 'second'} model only")
        if a is not None:
            found = compare.values(name, convert[0](a), convert[1](b))
            if found is not None:
                return found
    return None


def _named(output: TowerOutput) -> Iterator[tuple[str, Any]]:
    """An output's arrays under the names of their steps, in the order of the computation."""
    for i, state in enumerate(output.hidden_states or ()):
        yield (f"layers.{i - 1}.output" if i else "layers.input"), state
    for name in OUTPUTS:
        yield name, getattr(output, name)


class Enough(BaseException):
    """Ends a run that nobody listens to any more; no Exception, so that no backend takes it for one of its own."""


def told(run: Run, to_numpy: ToNumpy, which: str) -> Generator[Step]:
    """The steps that a run tells `note`, in a thread of its own that is never more than one step ahead."""
    steps: queue.Queue[Step | BaseException | None] = queue.Queue(maxsize=1)
    closed = threading.Event()
    last = "the start"

    def note(name: str, value: Any) -> None:
        nonlocal last
        if closed.is_set():
            raise Enough
        last = name
        kept = np.array(to_numpy(value))  # a copy: the run goes on, and may work in place
        steps.put(Step(name, kept, str(getattr(value, "dtype", "")).rpartition(".")[2]))

    def work() -> None:
        try:
            run(note=note)
        except BaseException as error:
            error.add_note(f"raised in the {which} model, after {last}")
            steps.put(error)
        else:
            steps.put(None)

    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    try:
        while (step := steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield step
    finally:
        closed.set()
        while thread.is_alive():  # a full queue would keep it waiting
            try:
                steps.get(timeout=0.01)
            except queue.Empty:
                continue


# --- something to run them on --------------------------------------------------------------------------------------


def probe(model: Model, *, image: ImageSource | None = None, text: str | None = None) -> dict[str, np.ndarray]:
    """Inputs for every tower of a model: the image and the text, or noise and two padded rows of random ids.

    Raises ValueError for an image or a text whose tower is absent; ImageError, TokenizerError as the processor does.
    """
    for given, tower in ((image, "vision"), (text, "text")):
        if given is not None and tower not in model.config.towers:
            raise ValueError(f"{model.source} has no {tower} tower to compare on the {given!r:.60} that was given")
    rng, config = np.random.default_rng(2021), model.config
    inputs: dict[str, np.ndarray] = {}
    if text is not None:
        inputs |= model.processor(text=text)
    elif "text" in config.towers and config.text_config is not None:
        t = min(16, config.text_config.context_length)
        real = np.arange(t) < np.array([[t], [(t + 1) // 2]])  # (2, t)
        ids = random_ids(config.text_config, rng, real)
        inputs |= {"input_ids": ids, "attention_mask": real.astype(np.int64)}
    if image is not None:
        inputs |= model.processor(images=image)
    elif "vision" in config.towers and config.vision_config is not None:
        vision = config.vision_config
        shape = (1, vision.num_channels, vision.image_size, vision.image_size)
        inputs["pixel_values"] = rng.standard_normal(shape, dtype=np.float32)
    return inputs


def random_ids(
    text: TextConfig | RobertaConfig, rng: np.random.Generator, real: np.ndarray, *, pad_with_end: bool = False
) -> np.ndarray:
    """Ids (b, t) that end each row's run of real tokens (b, t) with the end-of-text id, and nowhere before.

    What is not real is padding: any ids but the end's, or that everywhere after the end; in AltCLIP the padding's.
    """
    b, t = real.shape
    last = t - 1 - real[:, ::-1].argmax(axis=1)
    if isinstance(text, RobertaConfig):
        ids = np.where(real, rng.integers(0, text.vocab_size, (b, t)), text.pad_token_id)
        ids[np.arange(b), last] = text.eos_token_id
        return ids
    end = text.vocab_size - 1 if text.pools_largest_id else text.eos_token_id
    ids = rng.integers(0, text.vocab_size - 1, (b, t))
    ids += ids >= end  # any id but the end's
    ids[np.arange(b), last] = end
    after = np.arange(t) > last[:, None]
    return np.where(after & pad_with_end, end, ids)
