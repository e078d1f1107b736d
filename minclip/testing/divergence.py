"""Where two models part: the steps of both are compared in the order of the computation.

The debugger of a backend. A bug somewhere in a tower spoils everything after it; the first step that differs is where
it sits. The first model's steps are kept while the second one runs, so that a picture or two is the right input.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

import numpy as np

from minclip.backend import Towers
from minclip.config import Config
from minclip.images import ImageSource
from minclip.inputs import ImageInputs, TextInputs, checked_inputs
from minclip.layers import causal_mask, padding_mask
from minclip.model import Model
from minclip.outputs import TowerOutput

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
    alone: True where every noted step agreed, and the towers differ only when no steps are noted.
    """

    tower: str
    layer: int | None
    step: str
    error: float = math.inf
    scale: float = 1.0
    index: tuple[int, ...] = ()
    problem: str | None = None
    alone: bool = False

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" layer {self.layer},"
        found = self.problem or f"off by {self.error:.2g} (scale {self.scale:.2g}) at {self.index}"
        alone = ", though all noted steps agree; look at the path that is taken without `note`" if self.alone else ""
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
    towers = [name for name in ("text", "vision") if name in model_a.config.towers and name in model_b.config.towers]
    given = {tower: it for tower, it in checked_inputs(model_a.config, inputs).items() if tower in towers}
    if not given:
        both = " and ".join(towers) or "no"
        raise ValueError(f"nothing to compare: the models share {both} tower, the inputs are {', '.join(inputs)}")
    for tower, arguments in given.items():
        runs: list[Run] = [partial(getattr(model.towers, tower), arguments) for model in (model_a, model_b)]
        convert = model_a.towers.to_numpy, model_b.towers.to_numpy
        compare = Comparison(tower, visible(arguments, model_a.config), tolerance)
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


def visible(inputs: TextInputs[Any] | ImageInputs[Any], config: Config) -> Visible | None:
    """What can be seen of a tower that is called with these inputs; None is all of it."""
    if isinstance(inputs, ImageInputs):
        return None
    (b, t), family = inputs.input_ids.shape, config.family
    real = np.ones((b, t), bool) if inputs.attention_mask is None else inputs.attention_mask
    keys = padding_mask(real) & (causal_mask(t) if family.causal else np.ones((t, t), bool))  # (b, 1, t, t)
    one_hot = np.broadcast_to(np.eye(t), (b, t, t))
    pooled = family.pool(one_hot, inputs) != 0  # (b, t), the tokens that the pooled vector is made of
    has_keys = keys.any(axis=-1)[:, 0]  # a query without keys has no meaning
    rows = (real | pooled) & np.broadcast_to(has_keys, (b, t))  # a pooled token is seen, be it padding
    return Visible(rows, keys, (rows | ~pooled).all(axis=1))


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
        """Compare what the two models noted in turn; None is the end of a run."""
        if a is None or b is None or a.name != b.name:
            if a is None:
                assert b is not None
                return self.at(b.name, "noted by the second model, where the first is done")
            instead = "is done" if b is None else f"notes {b.name}"
            return self.at(a.name, f"not noted by the second model, which {instead} instead")
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
    """Compare the steps that both runs note, one by one; runs that note nothing have none."""
    if not all(notes_steps(run) for run in runs):
        return None
    ours = noted(runs[0], convert[0], "first")
    theirs = noted(runs[1], convert[1], "second")
    return next((found for a, b in zip_longest(ours, theirs) if (found := compare.steps(a, b))), None)


def notes_steps(run: Run) -> bool:
    """Whether a tower takes `note` at all; a backend need not."""
    parameters = inspect.signature(run).parameters.values()
    return any(p.name == "note" or p.kind is p.VAR_KEYWORD for p in parameters)


def _in_outputs(compare: Comparison, runs: list[Run], convert: tuple[ToNumpy, ToNumpy]) -> Divergence | None:
    """Without `note`, a backend may take another way (fused attention, a compiled graph); that is compared, too."""
    found = _first_output(compare, [run() for run in runs], convert)
    if found is None:
        return None
    layers = _first_output(compare, [run(output_hidden_states=True) for run in runs], convert)
    return replace(layers or found, alone=all(notes_steps(run) for run in runs))


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


def noted(run: Run, to_numpy: ToNumpy, which: str) -> list[Step]:
    """The steps that a run notes, copied, since the run goes on and may work in place."""
    steps: list[Step] = []

    def note(name: str, value: Any) -> None:
        steps.append(Step(name, np.array(to_numpy(value)), str(getattr(value, "dtype", "")).rpartition(".")[2]))

    try:
        run(note=note)
    except Exception as error:
        error.add_note(f"raised in the {which} model, after {steps[-1].name if steps else 'the start'}")
        raise
    return steps


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
        ids = random_ids(config, rng, real)
        inputs |= {"input_ids": ids, "attention_mask": real.astype(np.int64)}
    if image is not None:
        inputs |= model.processor(images=image)
    elif "vision" in config.towers and config.vision_config is not None:
        vision = config.vision_config
        shape = (1, vision.num_channels, vision.image_size, vision.image_size)
        inputs["pixel_values"] = rng.standard_normal(shape, dtype=np.float32)
    return inputs


def random_ids(config: Config, rng: np.random.Generator, real: np.ndarray, *, pad_with_end: bool = False) -> np.ndarray:
    """Ids (b, t) that end each row's run of real tokens (b, t) with the end-of-text id, and nowhere before.

    What is not real is padding: any ids but the end's, or that everywhere after the end; where the family has no rule
    for the end of a text, the padding's.
    """
    text = config.text_config
    assert text is not None
    b, t = real.shape
    last = t - 1 - real[:, ::-1].argmax(axis=1)
    end = text.vocab_size - 1 if getattr(text, "pools_largest_id", False) else int(np.min(text.eos_token_id))
    if config.family.ends is None:
        ids = np.where(real, rng.integers(0, text.vocab_size, (b, t)), text.pad_token_id)
        ids[np.arange(b), last] = end
        return ids
    ids = rng.integers(0, text.vocab_size - 1, (b, t))
    ids += ids >= end  # any id but the end's
    ids[np.arange(b), last] = end
    after = np.arange(t) > last[:, None]
    return np.where(after & pad_with_end, end, ids)
