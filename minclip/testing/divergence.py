"""Where two models part: the steps of both are compared in the order of the computation.

The debugger of a backend. A bug somewhere in a tower spoils everything after it; the first step that differs is where
it sits. The first model's steps are kept while the second one runs, so that a picture or two is the right input.

The steps are those that the towers pass to `note`, in this order. b batch, t tokens, d width, h heads, k width of a
head, f width of the feed-forward layer, p width of the shared space:

    embeddings                 (b, t, d)     tokens or patches, with their positions; normalized in a post-norm tower
    layers.input               (b, t, d)     what enters the first layer; in the vision tower after pre_layrnorm
    layers.N.layer_norm1       (b, t, d)     of a pre-norm layer (CLIP's), before attention
    layers.N.q, .k, .v         (b, h, t, k)  queries, keys, values, with their biases, not scaled
    layers.N.scores            (b, h, t, t)  scaled, before the mask; relative positions are in them
    layers.N.probabilities     (b, h, t, t)  after softmax and head mask
    layers.N.context           (b, t, d)     probabilities times values, heads merged
    layers.N.attention         (b, t, d)     after the output projection, before the residual is added
    layers.N.layer_norm1       (b, t, d)     of a post-norm layer (RoBERTa's), after the residual is added
    layers.N.layer_norm2       (b, t, d)     of a pre-norm layer, before the feed-forward layer
    layers.N.fc1, .activation  (b, t, f)     the feed-forward layer, before and after its activation
    layers.N.fc2               (b, t, d)     before the residual is added
    layers.N.output            (b, t, d)     what leaves the layer
    pre_LN                     (b, t, d)     AltCLIP's text tower only
    pooled                     (b, d)
    projection                 (b, p)        where the checkpoint has one; not normalized

A tower that takes no `note` is compared on its hidden states (`output_hidden_states`) and outputs, one that gives no
hidden states on its outputs alone; the result then says what could not be seen.
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
from minclip.errors import BackendError
from minclip.inputs import ImageInputs, TextInputs, checked_inputs
from minclip.layers import causal_mask, padding_mask
from minclip.outputs import TowerOutput
from minclip.towers import pooling_weights

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


# --- what is found -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Divergence:
    """The first step at which two models differ.

    tower: "text" or "vision". layer: counted from 0, or None before and after the layers. step: as the reference calls
    it ("q", "probabilities", "fc1", ...). error: the largest absolute difference, at `index`; scale: the largest
    absolute number of the first model's step; allowed: the largest error that would have passed. problem: where the
    two cannot be subtracted, why; error is then infinite. alone: True where every noted step agreed, and the towers
    differ only when no steps are noted. unseen: what could not be compared before it.
    """

    tower: str
    layer: int | None
    step: str
    error: float = math.inf
    scale: float = 1.0
    index: tuple[int, ...] = ()
    allowed: float = 0.0
    problem: str | None = None
    alone: bool = False
    unseen: str | None = None

    @property
    def place(self) -> str:
        """Tower, layer and step in words."""
        layer = "" if self.layer is None else f" layer {self.layer},"
        return f"{self.tower} tower,{layer} step {self.step}"

    def __str__(self) -> str:
        numbers = f"off by {self.error:.2g} (scale {self.scale:.2g}, allowed {self.allowed:.2g}) at {self.index}"
        alone = ", though all noted steps agree; look at the path that is taken without `note`" if self.alone else ""
        unseen = f" ({self.unseen})" if self.unseen else ""
        return f"{self.place}: {self.problem or numbers}{alone}{unseen}"


@dataclass(frozen=True)
class Worst:
    """The step that came closest to its tolerance, or left it: error and tolerance in units of the step's scale."""

    place: str
    error: float
    tolerance: float


@dataclass(frozen=True)
class Comparison:
    """What comparing two models found. steps: how many values agreed. unseen: what could not be compared, a line each.

    missing: the towers that were given something, but that a backend does not have.
    """

    divergence: Divergence | None
    steps: int
    worst: Worst | None
    unseen: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.divergence is not None:
            return str(self.divergence)
        line = f"agrees at {self.steps} steps"
        if self.worst is not None:
            line += f"; worst error {self.worst.error:.2g} of {self.worst.tolerance:.2g} allowed, at {self.worst.place}"
        return "; ".join((line, *self.unseen))


def first_divergence(
    model_a: HasTowers, model_b: HasTowers, inputs: Mapping[str, Any], *, tolerance: float | None = None
) -> Divergence | None:
    """The first tower, layer and step at which b leaves a, or None where they agree; see `compare`."""
    return compare(model_a, model_b, inputs, tolerance=tolerance).divergence


def compare(
    model_a: HasTowers, model_b: HasTowers, inputs: Mapping[str, Any], *, tolerance: float | None = None
) -> Comparison:
    """Run both models and compare their steps and outputs up to the first that differs.

    inputs: what a model is called with (`model.processor(text=..., images=...)`), in NumPy arrays; each tower that both
    models have and that is given something is run, text first. `probe` makes some. tolerance: the largest allowed
    error of a step, in units of the largest number of a's step; None goes by the types of both (`STEP_TOLERANCES`).
    What a backend computes where nobody can see it is its own business: queries at padding, masked scores.
    A tower in which b raises BackendError or NotImplementedError is missing, unless it is the only one: then that is
    raised. Raises ValueError where no tower can be run.
    """
    towers = [name for name in ("text", "vision") if name in model_a.config.towers and name in model_b.config.towers]
    given = {tower: it for tower, it in checked_inputs(model_a.config, inputs).items() if tower in towers}
    if not given:
        both = " and ".join(towers) or "no"
        raise ValueError(f"nothing to compare: the models share {both} tower, the inputs are {', '.join(inputs)}")
    judges: list[Judge] = []
    missing: list[str] = []
    for tower, arguments in given.items():
        judge = Judge(tower, visible(arguments, model_a.config), tolerance)
        runs: list[Run] = [partial(getattr(model.towers, tower), arguments) for model in (model_a, model_b)]
        try:
            found = _compare_tower(judge, runs, (model_a.towers.to_numpy, model_b.towers.to_numpy))
        except (BackendError, NotImplementedError) as error:
            if len(missing) == len(given) - 1:
                raise
            missing.append(tower)
            judge.unseen = f"the {tower} tower was not compared: {error or type(error).__name__}"
            found = None
        judges.append(judge)
        if found is not None:
            break
    worst = max(
        (judge.worst for judge in judges if judge.worst), key=lambda one: one.error / one.tolerance, default=None
    )
    unseen = tuple(judge.unseen for judge in judges if judge.unseen)
    return Comparison(found, sum(judge.agreed for judge in judges), worst, unseen, tuple(missing))


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
    pooled = pooling_weights(family.pool, inputs) != 0  # (b, t), the tokens that the pooled vector is made of
    has_keys = keys.any(axis=-1)[:, 0]  # a query without keys has no meaning
    rows = (real | pooled) & np.broadcast_to(has_keys, (b, t))  # a pooled token is seen, be it padding
    return Visible(rows, keys, (rows | ~pooled).all(axis=1))


class Judge:
    """Judges pairs of values of one tower; keeps the loosest type met so far, which later steps inherit."""

    def __init__(self, tower: str, seen: Visible | None, tolerance: float | None) -> None:
        self.tower = tower
        self.agreed = 0
        self.worst: Worst | None = None
        self.unseen: str | None = None
        self._visible = seen
        self._given = tolerance
        self._loosest = STEP_TOLERANCES["float64"]

    def at(self, name: str, problem: str) -> Divergence:
        """A divergence that is not one of numbers."""
        layer, step = _place(name)
        return Divergence(self.tower, layer, step, problem=problem)

    def steps(self, a: Step | None, b: Step | None) -> Divergence | None:
        """Compare what the two models noted in turn; None is the end of a run."""
        if a is None or b is None or a.name != b.name:
            if a is None:
                assert b is not None
                return self.at(b.name, "noted by the second model after the last step of the first")
            instead = "notes no further step" if b is None else f"notes {b.name} instead"
            return self.at(a.name, f"not noted by the second model, which {instead}")
        return self.values(a.name, a.value, b.value, a.dtype, b.dtype)

    def values(self, name: str, a: np.ndarray, b: np.ndarray, *dtypes: str) -> Divergence | None:
        """Compare two arrays of a step; dtypes: the types that they were computed in."""
        if a.shape != b.shape:
            return self.at(name, f"of shape {a.shape} in the first model and {b.shape} in the second")
        layer, step = _place(name)
        error, size = self._errors(step, a, b)
        index = np.unravel_index(error.argmax(), error.shape)
        error_there, scale = float(error[index]), float(size.max())
        self._loosest = max([self._loosest, *(STEP_TOLERANCES.get(dtype, 0.0) for dtype in dtypes)])
        tolerance = self._loosest if self._given is None else self._given
        unit = max(scale, SMALLEST_SCALES.get(step, SMALLEST_SCALE))
        place, allowed = tuple(int(i) for i in index), tolerance * unit
        found = Divergence(self.tower, layer, step, error_there, scale, place, allowed)
        worst = Worst(found.place, error_there / unit, tolerance)
        if self.worst is None or worst.error / tolerance > self.worst.error / self.worst.tolerance:
            self.worst = worst
        if error_there > allowed:
            return found
        self.agreed += 1
        return None

    def _errors(self, step: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Absolute differences, infinite where one is no number, and sizes; 0 where nobody can see them."""
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(a == b, 0.0, np.abs(a.astype(np.float64) - b))
        error[np.isnan(error)] = np.inf
        size = np.abs(a)
        if self._visible is None:
            return error, size
        seen = np.broadcast_to(self._visible.of(step), a.shape)
        return np.where(seen, error, 0.0), np.where(seen, size, 0.0)


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


class Step(NamedTuple):
    """A step's full name ("layers.3.q"), its value as NumPy's, and the type it was computed in."""

    name: str
    value: np.ndarray
    dtype: str


def _dtype(value: Any) -> str:
    """The type of a backend's array by NumPy's name, "" where it does not say."""
    return str(getattr(value, "dtype", "")).rpartition(".")[2]


def takes(run: Run, name: str) -> bool:
    """Whether a tower takes an argument of that name."""
    parameters = inspect.signature(run).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _compare_tower(judge: Judge, runs: list[Run], convert: tuple[ToNumpy, ToNumpy]) -> Divergence | None:
    """Steps first, then what comes out when no steps are noted: a backend may compute that in another way (fused
    attention, a compiled graph). Where steps cannot be seen, hidden states take their place."""
    see_steps = all(takes(run, "note") for run in runs)
    if see_steps:
        ours, theirs = (
            noted(run, to, which) for run, to, which in zip(runs, convert, ("first", "second"), strict=True)
        )
        for a, b in zip_longest(ours, theirs):
            if (found := judge.steps(a, b)) is not None:
                return found
        found = _first_output(judge, [run() for run in runs], convert)
        if found is None:
            return None
    plain = found if see_steps else None
    keep = {"output_hidden_states": True}
    outputs = [run(**keep if takes(run, "output_hidden_states") else {}) for run in runs]
    if any(not output.hidden_states for output in outputs):
        outputs = [replace(output, hidden_states=None) for output in outputs]
        compared = "outputs alone were compared, as there are no hidden states either"
    else:
        compared = "hidden states and outputs were compared, no step between them"
    if not see_steps:
        judge.unseen = f"the {judge.tower} tower takes no `note`: {compared}"
    found = _first_output(judge, outputs, convert) or plain
    return None if found is None else replace(found, alone=see_steps, unseen=judge.unseen)


def _first_output(judge: Judge, outputs: list[TowerOutput], convert: tuple[ToNumpy, ToNumpy]) -> Divergence | None:
    for (name, a), (_, b) in zip_longest(*map(_named, outputs), fillvalue=("hidden_states", None)):
        if (a is None) != (b is None):
            return judge.at(name, f"there in the {'first' if b is None else 'second'} model only")
        if a is not None:
            found = judge.values(name, convert[0](a), convert[1](b), _dtype(a), _dtype(b))
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
        steps.append(Step(name, np.array(to_numpy(value)), _dtype(value)))

    try:
        run(note=note)
    except Exception as error:
        error.add_note(f"raised in the {which} model, after {steps[-1].name if steps else 'the start'}")
        raise
    return steps
