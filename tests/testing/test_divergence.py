"""`first_divergence` names the place of a bug and says nothing where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from broken_backend import BrokenBackend
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minclip.backend import NumpyBackend, NumpyTowers
from minclip.config import Config, RobertaConfig
from minclip.errors import BackendError
from minclip.families import FAMILIES
from minclip.inputs import ImageInputs, text_inputs
from minclip.testing.divergence import Divergence, compare, first_divergence
from minclip.testing.probe import probe
from minclip.testing.strategies import Case, RandomModel, cases, configs, single_towers
from minclip.testing.truth import Built, truth
from minclip.towers import end_of_text


def model_of(family: str, **text: Any) -> RandomModel:
    """Three layers of three heads; the projections are square, so that a transposed one still fits."""
    sizes = {"num_attention_heads": 3, "hidden_size": 12, "intermediate_size": 17, "num_hidden_layers": 3}
    ids = {"vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": 39, "type_vocab_size": 2, "project_dim": 12}
    given = {
        "model_type": family,
        "text_config": {**sizes, **ids, "hidden_act": "gelu", **text},
        "vision_config": {**sizes, "image_size": 10, "patch_size": 3, "hidden_act": "quick_gelu"},
        "projection_dim": 12,
    }
    return RandomModel(Config.from_dict(given), seed=5)


def inputs_of(model: RandomModel) -> dict[str, Any]:
    """Texts with padding, two ends and token types; an image whose patches differ."""
    rng = np.random.default_rng(6)
    ids = rng.integers(3, 38, (3, 10))
    mask = np.arange(10) < np.array([[10], [6], [8]])
    ids[[0, 1, 2], [9, 5, 7]] = 39
    ids[~mask] = 1 if isinstance(model.config.text_config, RobertaConfig) else 39
    given = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if isinstance(model.config.text_config, RobertaConfig):
        given["token_type_ids"] = rng.integers(0, 2, ids.shape)
    return {**given, "pixel_values": rng.standard_normal((2, 3, 10, 10)).astype(np.float32)}


def divergence(bug: str, model: RandomModel, tower: str, layer: int = 0, **more: Any) -> tuple[Any, ...] | None:
    """Layer, step and whether it was noted, looking at one tower of a model that has the bug in that layer."""
    broken = Built(model.config, BrokenBackend(bug, layer).build(model.config, model.weights))
    names = ("pixel_values",) if tower == "vision" else ("input_ids", "attention_mask", "token_type_ids")
    given = {name: value for name, value in inputs_of(model).items() if name in names}
    found = first_divergence(truth(model), broken, given | more)
    assert found is not None
    assert found.tower == tower
    return found.layer, found.step, not found.alone


IN_BOTH = {
    "another activation": "activation",
    "heads interleaved": "q",
    "heads reversed": "context",
    "no bias in fc1": "fc1",
    "no bias in fc2": "fc2",
    "no bias in k": "k",
    "no bias in out": "attention",
    "no bias in q": "q",
    "no bias in v": "v",
    "probabilities transposed": "probabilities",
    "queries and keys swapped": "q",
    "scale 1/k": "scores",
    "scale of the whole width": "scores",
}
IN_PRE_NORM = {**IN_BOTH, "no residual": "layer_norm2", "norm after, not before": "layer_norm1"}
IN_PRE_NORM |= {"wrong epsilon": "layer_norm1", "wrong second epsilon": "layer_norm2"}
IN_CAUSAL = {**IN_PRE_NORM, "not causal": "probabilities", "mask too weak": "probabilities"}
IN_POST_NORM = {**IN_BOTH, "causal": "scores", "norm before, not after": "layer_norm1"}
IN_POST_NORM |= {"mask too weak": "probabilities", "wrong epsilon": "layer_norm1", "wrong second epsilon": "output"}
# ("causal" is named at the scores, since this backend notes masked ones, and masks too many.)
IN_A_LAYER = [
    (bug, family, tower, step)
    for family, tower, bugs in (
        ("clip", "vision", IN_PRE_NORM),
        ("clip", "text", IN_CAUSAL),
        ("metaclip_2", "text", IN_CAUSAL),
        ("altclip", "text", IN_POST_NORM),
    )
    for bug, step in bugs.items()
]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(("bug", "family", "tower", "step"), IN_A_LAYER)
def test_a_bug_in_a_layer_is_named_with_its_layer_and_step(
    bug: str, family: str, tower: str, step: str, layer: int
) -> None:
    temper = "quiet" if "epsilon" in bug else "loud"  # an epsilon ten times too small is seen in a quiet model only
    assert divergence(bug, replace(model_of(family), temper=temper), tower, layer) == (layer, step, True)


@pytest.mark.parametrize(
    ("bug", "family", "tower", "layer", "step"),
    [
        ("positions off by one", "clip", "text", None, "embeddings"),
        ("positions off by one", "altclip", "text", None, "embeddings"),
        ("positions off by one", "clip", "vision", None, "embeddings"),
        ("patches column by column", "clip", "vision", None, "embeddings"),
        ("token types ignored", "altclip", "text", None, "embeddings"),
        ("wrong epsilon in pre_layrnorm", "clip", "vision", None, "layers.input"),
        ("no pre_layrnorm", "clip", "vision", None, "layers.input"),
        ("padding mask ignored", "altclip", "text", 0, "probabilities"),
        ("wrong epsilon in LayerNorm", "altclip", "text", None, "embeddings"),
        ("wrong epsilon in pre_LN", "altclip", "text", None, "pre_LN"),
        ("wrong epsilon in final_layer_norm", "clip", "text", None, "pooled"),
        ("wrong epsilon in post_layernorm", "clip", "vision", None, "pooled"),
        ("last token pooled", "clip", "vision", None, "pooled"),
        ("last token pooled", "clip", "text", None, "pooled"),
        ("last token pooled", "altclip", "text", None, "pooled"),
        ("last end pooled", "metaclip_2", "text", None, "pooled"),
        ("projection transposed", "clip", "text", None, "projection"),
        ("projection transposed", "metaclip_2", "vision", None, "projection"),
    ],
)
def test_a_bug_outside_the_layers_is_named_with_its_step(
    bug: str, family: str, tower: str, layer: int | None, step: str
) -> None:
    temper = "quiet" if "epsilon" in bug else "loud"
    assert divergence(bug, replace(model_of(family), temper=temper), tower) == (layer, step, True)


@pytest.mark.parametrize("bug", ["distances backwards", "keys blind to distance"])
def test_a_wrong_relative_position_is_named_at_the_scores(bug: str) -> None:
    model = model_of("altclip", position_embedding_type="relative_key_query")
    assert divergence(bug, model, "text", 1) == (1, "scores", True)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_ignored_head_mask_is_named_at_the_probabilities(family: str) -> None:
    head_mask = np.random.default_rng(0).random((3, 3)).astype(np.float32)
    assert divergence("head mask ignored", model_of(family), "text", 1, head_mask=head_mask) == (
        1,
        "probabilities",
        True,
    )


def test_old_configs_pooled_by_eos_are_named_at_the_pooled_state() -> None:
    assert divergence("old configs pooled by eos", model_of("clip", eos_token_id=2), "text") == (None, "pooled", True)


def test_a_bug_that_hides_while_steps_are_noted_is_named_with_its_layer() -> None:
    assert divergence("fast path not causal", model_of("clip"), "text", 1) == (1, "output", False)


@given(cases(st.one_of(configs(), single_towers())))
def test_two_right_implementations_do_not_diverge(case: Case) -> None:
    model = case.model
    other = Built(model.config, BrokenBackend().build(model.config, model.weights))
    found = first_divergence(truth(model), other, case.inputs)
    assert found is None, str(found)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_computed_at_padding_is_not_compared(family: str) -> None:
    """Rubbish at padded queries, and in scores that are masked anyway, is nobody's business."""
    model = model_of(family)
    given = {name: value for name, value in inputs_of(model).items() if name != "pixel_values"}
    mask = given["attention_mask"].astype(bool)

    class Careless(NumpyTowers):
        def text(self, *arguments: Any, note: Any = None, **named: Any) -> Any:
            def told(name: str, value: np.ndarray) -> None:
                value = value.copy()
                if name.endswith(".scores"):
                    value[~np.broadcast_to(mask[:, None, None, :], value.shape)] = np.nan
                elif value.ndim == 4:
                    value[~np.broadcast_to(mask[:, None, :, None], value.shape)] = np.nan
                elif value.ndim == 3:
                    value[~mask] = np.nan
                note(name, value)

            output = super().text(*arguments, note=told if note else None, **named)
            state = np.where(mask[..., None], output.last_hidden_state, np.nan)
            return replace(output, last_hidden_state=state)

    careless = Built(model.config, Careless(model.config, model.weights))
    assert first_divergence(truth(model), careless, given) is None


# --- what it says --------------------------------------------------------------------------------------------------


def test_a_divergence_reads_as_one_line() -> None:
    found = Divergence("text", 3, "probabilities", error=0.12, scale=1.0, index=(0, 2, 5, 6), allowed=2e-5)
    assert str(found) == "text tower, layer 3, step probabilities: off by 0.12 (scale 1, allowed 2e-05) at (0, 2, 5, 6)"
    found = Divergence(
        "vision", None, "embeddings", problem="of shape (2, 3) in the first model and (2, 4) in the second"
    )
    assert str(found) == ("vision tower, step embeddings: of shape (2, 3) in the first model and (2, 4) in the second")


def test_error_scale_and_index_are_those_of_the_worst_number() -> None:
    model = model_of("clip")

    def poke(name: str, value: np.ndarray) -> list[tuple[str, np.ndarray]]:
        if name == "layers.1.fc1":
            value = value.copy()
            value[1, 4, 7] += 0.5
            value[0, 0, 0] += 0.25
        return [(name, value)]

    steps = {}
    truth(model).towers.vision(
        ImageInputs(inputs_of(model)["pixel_values"]), note=lambda name, value: steps.setdefault(name, value)
    )
    found = first_divergence(truth(model), renoted(model, poke), pixels_of(model))
    assert found is not None
    assert (found.layer, found.step, found.index) == (1, "fc1", (1, 4, 7))
    assert found.error == pytest.approx(0.5, rel=1e-4)
    assert found.scale == pytest.approx(np.abs(steps["layers.1.fc1"]).max())


def test_a_number_that_is_not_one_is_infinitely_far_off() -> None:
    def poison(name: str, value: np.ndarray) -> list[tuple[str, np.ndarray]]:
        return [(name, np.full_like(value, np.nan) if name == "pooled" else value)]

    model = model_of("clip")
    found = first_divergence(truth(model), renoted(model, poison), pixels_of(model))
    assert found is not None
    assert (found.step, found.error) == ("pooled", np.inf)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda n, v: [], "layer 0, step k: not noted by the second model, which notes layers.0.v instead"),
        (
            lambda n, v: [("layers.0.keys", v)],
            "layer 0, step k: not noted by the second model, which notes layers.0.keys instead",
        ),
        (lambda n, v: [(n, v[:, :2])], "layer 0, step k: of shape (2, 3, 10, 4) in the first model and (2, 2, 10, 4)"),
    ],
)
def test_steps_missing_or_misshapen_are_named(change: Any, line: str) -> None:
    model = model_of("clip")

    def retell(name: str, value: np.ndarray) -> list[tuple[str, np.ndarray]]:
        return change(name, value) if name == "layers.0.k" else [(name, value)]

    found = first_divergence(truth(model), renoted(model, retell), pixels_of(model))
    assert line in str(found)


def test_a_backend_that_notes_nothing_or_too_much_is_named() -> None:
    model = model_of("clip")
    found = first_divergence(truth(model), renoted(model, lambda n, v: []), pixels_of(model))
    assert str(found) == "vision tower, step embeddings: not noted by the second model, which notes no further step"
    more = renoted(model, lambda n, v: [(n, v), ("more", v)] if n == "projection" else [(n, v)])
    found = first_divergence(truth(model), more, pixels_of(model))
    assert str(found) == "vision tower, step more: noted by the second model after the last step of the first"


def renoted(model: RandomModel, change: Any) -> Built:
    """The reference, whose notes go through `change(name, value) -> [(name, value), ...]`."""

    class Renoted(NumpyTowers):
        def vision(self, *arguments: Any, note: Any = None, **named: Any) -> Any:
            def told(name: str, value: np.ndarray) -> None:
                for changed in change(name, value):
                    note(*changed)

            return super().vision(*arguments, note=told if note else None, **named)

    return Built(model.config, Renoted(model.config, model.weights))


def pixels_of(model: RandomModel) -> dict[str, Any]:
    return {"pixel_values": inputs_of(model)["pixel_values"]}


# --- how it works --------------------------------------------------------------------------------------------------


def test_the_tolerance_can_be_given() -> None:
    model = model_of("clip")
    single = Built(model.config, NumpyBackend().build(model.config, model.weights, dtype="float32"))
    assert first_divergence(truth(model), single, inputs_of(model)) is None
    found = first_divergence(truth(model), single, inputs_of(model), tolerance=1e-12)
    assert found is not None
    assert (found.tower, found.step) == ("text", "embeddings")
    broken = Built(model.config, BrokenBackend("no bias in q").build(model.config, model.weights))
    assert first_divergence(truth(model), broken, inputs_of(model), tolerance=1e6) is None


def test_float64_is_held_to_more_than_float32() -> None:
    model = model_of("clip")
    reference = truth(model)
    rough = Built(model.config, NumpyTowers(model.config, model.weights.astype("float64")))
    almost = renoted(model, lambda n, v: [(n, (v * (1 + 1e-7)).astype(np.float64))])
    almost = Built(model.config, type(almost.towers)(model.config, rough.towers.weights))  # type: ignore[attr-defined]
    assert first_divergence(reference, rough, pixels_of(model)) is None
    assert first_divergence(reference, almost, pixels_of(model)) is not None


def test_a_crash_comes_through_with_the_step_before_it() -> None:
    model = model_of("clip")

    def crash(name: str, value: np.ndarray) -> list[tuple[str, np.ndarray]]:
        if name == "layers.1.v":
            raise ZeroDivisionError("in the middle")
        return [(name, value)]

    with pytest.raises(ZeroDivisionError) as caught:
        first_divergence(truth(model), renoted(model, crash), pixels_of(model))
    assert caught.value.__notes__ == ["raised in the second model, after layers.1.k"]


def test_only_towers_that_are_given_something_are_run() -> None:
    model = model_of("clip")
    broken = Built(model.config, BrokenBackend("no bias in q").build(model.config, model.weights))
    found = first_divergence(truth(model), broken, inputs_of(model))
    assert found is not None
    assert found.tower == "text"
    found = first_divergence(truth(model), broken, pixels_of(model))
    assert found is not None
    assert found.tower == "vision"
    with pytest.raises(ValueError, match="nothing to compare: the models share text and vision tower"):
        first_divergence(truth(model), broken, {"attention_mask": np.ones((1, 2))})
    with pytest.raises(ValueError, match="unknown input 'pixels'"):
        first_divergence(truth(model), broken, {"pixels": 1})


# --- probe ---------------------------------------------------------------------------------------------------------


@given(st.one_of(configs(), single_towers()))
def test_a_probe_is_something_that_the_model_accepts(config: Config) -> None:
    model: Any = SimpleNamespace(config=config, source="random")
    given = probe(model)
    assert ("input_ids" in given, "pixel_values" in given) == tuple(t in config.towers for t in ("text", "vision"))
    text = config.text_config
    if text is not None and "text" in config.towers:
        ids = text_inputs(config, input_ids=given["input_ids"]).input_ids
        assert ids.shape[1] == min(16, text.context_length)
        if not isinstance(text, RobertaConfig):
            assert given["attention_mask"][[0, 1], end_of_text(ids, text)].all()


def test_a_probe_takes_a_picture_and_a_text(miniature: Path) -> None:
    from minclip.loading import load

    model = load(miniature)
    picture: Any = Image.new("RGB", (40, 30), "red")
    given = probe(model, image=picture, text="a red circle")
    expected = model.processor(text="a red circle", images=picture)
    assert all(np.array_equal(given[name], expected[name]) for name in expected)


def test_a_probe_of_an_absent_tower_is_refused() -> None:
    config = Config.from_dict({"model_type": "clip_vision_model"})
    model: Any = SimpleNamespace(config=config, source="vision-only")
    with pytest.raises(ValueError, match="vision-only has no text tower to compare on the 'a cat'"):
        probe(model, text="a cat")


# --- what cannot be seen -------------------------------------------------------------------------------------------


class WithoutNote(BrokenBackend):
    """Towers that take no `note`, and give hidden states or not."""

    def __init__(self, bug: str | None = None, layer: int = 0, *, states: bool) -> None:
        super().__init__(bug, layer)
        self.states = states

    def build(self, *given: Any, **options: Any) -> Any:
        towers = super().build(*given, **options)
        if self.states:
            return SimpleNamespace(
                to_numpy=towers.to_numpy,
                vision=lambda inputs, *, output_hidden_states=False: towers.vision(
                    inputs, output_hidden_states=output_hidden_states
                ),
            )
        return SimpleNamespace(to_numpy=towers.to_numpy, vision=lambda inputs: towers.vision(inputs))


@pytest.mark.parametrize(
    ("states", "place", "compared"),
    [
        (True, (1, "output"), "hidden states and outputs were compared"),
        (False, (None, "last_hidden_state"), "outputs alone were compared"),
    ],
)
def test_towers_without_note_are_compared_on_what_they_give(states: bool, place: Any, compared: str) -> None:
    model = model_of("clip")
    right, wrong = (
        WithoutNote(bug, 1, states=states).build(model.config, model.weights) for bug in (None, "scale 1/k")
    )
    found = compare(truth(model), Built(model.config, right), pixels_of(model))
    assert found.divergence is None
    assert compared in str(found)
    found = compare(truth(model), Built(model.config, wrong), pixels_of(model))
    assert found.divergence is not None
    assert (found.divergence.layer, found.divergence.step) == place
    assert compared in str(found)


@pytest.mark.parametrize("kind", [NotImplementedError, BackendError])
def test_an_absent_tower_is_named_and_the_other_compared(kind: type[Exception]) -> None:
    model = model_of("clip")

    class TextOnly(NumpyTowers):
        def vision(self, inputs: Any, **record: Any) -> Any:
            raise kind("there is only a text tower")

    partial = Built(model.config, TextOnly(model.config, model.weights))
    found = compare(truth(model), partial, inputs_of(model))
    assert (found.divergence, found.missing) == (None, ("vision",))
    assert "the vision tower was not compared: there is only a text tower" in str(found)
    with pytest.raises(kind, match="only a text tower"):
        compare(truth(model), partial, pixels_of(model))


def test_the_worst_error_is_shown_with_what_was_allowed() -> None:
    model = model_of("clip")
    single = Built(model.config, NumpyBackend().build(model.config, model.weights, dtype="float32"))
    found = compare(truth(model), single, inputs_of(model))
    assert found.worst is not None
    assert 0 < found.worst.error < found.worst.tolerance == 2e-5
    assert str(found).startswith(f"agrees at {found.steps} steps; worst error {found.worst.error:.2g} of 2e-05 allowed")
