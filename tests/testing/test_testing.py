"""The kit passes what is right, however it is written, and catches every bug it is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from broken_backend import BrokenBackend
from hypothesis import given
from hypothesis import strategies as st

from minclip.config import Config, RobertaConfig, TextConfig
from minclip.families import FAMILIES
from minclip.inputs import checked_inputs
from minclip.testing import (
    BackendConformance,
    Case,
    RandomModel,
    cases,
    classifiers,
    configs,
    inputs,
    single_towers,
    weights,
)
from minclip.testing.truth import Built, truth
from minclip.towers import end_of_text
from minclip.weights import Weights


class TestAnother(BackendConformance):
    """A second implementation without a bug passes: the kit asks for the semantics, not for the reference's code."""

    backend = BrokenBackend()


BUGS = (
    "a hidden state missing", "another activation",
    "another answer every time", "batch normalized", "causal", "class token in the mean", "distances backwards",
    "fast path not causal", "half precision out", "head mask ignored", "heads interleaved", "heads reversed",
    "inputs overwritten", "interpolation on its side", "keys blind to distance", "last end pooled", "last token pooled",
    "mask too weak", "no bias in fc1", "no bias in fc2", "no bias in out", "no bias in q", "no bias in v",
    "no pre_layrnorm", "no residual", "norm after, not before", "norm before, not after", "not causal",
    "not normalized", "old configs pooled by eos", "options are swallowed", "padding mask ignored",
    "patches column by column", "positions off by one", "probabilities transposed", "projection transposed",
    "queries and keys swapped", "resized twice", "scale 1/k", "scale of the whole width", "token types ignored",
    "wrong epsilon", "wrong epsilon in LayerNorm", "wrong epsilon in final_layer_norm",
    "wrong epsilon in post_layernorm", "wrong epsilon in pre_LN", "wrong epsilon in pre_layrnorm",
    "wrong second epsilon",
)  # fmt: skip


# Which claims to try first: most bugs show in the embeddings, and looking there for the others takes a minute.
CAUGHT_BY = {
    "a hidden state missing": "classifiers_agree",
    "another answer every time": "same_bits",
    "class token in the mean": "classifiers_agree",
    "head mask ignored": "optional_text_inputs",
    "interpolation on its side": "interpolated_positions",
    "options are swallowed": "unknown_option",
    "probabilities transposed": "classifiers_agree",
    "resized twice": "pictures_become",
}


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # a bug makes vectors of length 0
@pytest.mark.parametrize("bug", BUGS)
def test_the_kit_catches(bug: str) -> None:
    class Conformance(BackendConformance):
        backend = BrokenBackend(bug)
        shrink = False

    first = CAUGHT_BY.get(bug, "embeddings_agree")
    claims = sorted(Conformance().claims(), key=lambda claim: first not in claim[0])
    caught = next(filter(None, (failure(check) for _, check in claims)), None)
    assert isinstance(caught, AssertionError | ExceptionGroup)


def test_no_bias_of_keys_is_no_bug() -> None:
    """It shifts all scores of a query alike, which softmax takes back: the kit is right not to catch it in the end,
    and right to name it among the steps."""

    class Conformance(BackendConformance):
        backend = BrokenBackend("no bias in k")
        shrink = False

    kit = Conformance()
    assert failure(lambda: kit.test_more_padding_changes_nothing("clip")) is None
    assert failure(lambda: kit.test_unit_embeddings_agree_with_float64("clip", "float32")) is None
    steps = kit.test_steps_are_noted_in_the_order_and_with_the_values_of_the_reference
    assert "layer 0, step k: off by" in str(failure(lambda: steps("clip")))


def failure(check: Any) -> BaseException | None:
    try:
        check()
    except Exception as error:
        return error
    return None


def test_a_failure_names_the_first_divergence() -> None:
    class Conformance(BackendConformance):
        backend = BrokenBackend("scale 1/k")
        shrink = False

    error = failure(lambda: Conformance().test_unit_embeddings_agree_with_float64("metaclip_2", "float32"))
    assert error is not None
    assert "layer 0, step scores: off by" in str(error).splitlines()[0]


def test_subclasses_share_no_state() -> None:
    """Neither hypothesis' check for one property under two classes nor the number of examples crosses over."""
    seen: list[str] = []

    class Counting(BrokenBackend):
        def build(self, *given: Any, **options: Any) -> Any:
            seen.append("built")
            return super().build(*given, **options)

    class Few(BackendConformance):
        backend = Counting()
        examples: ClassVar[int] = 3

    class Many(Few):
        examples: ClassVar[int] = 9

    counts = []
    for kit in (Few(), Many(), Few()):
        seen.clear()
        kit.test_embeddings_have_unit_length("float32")
        counts.append(len(seen))
    assert counts == [3, 9, 3]


def test_claims_are_tried_for_every_family_and_dtype() -> None:
    class Conformance(BackendConformance):
        dtypes = ("float32", "bfloat16")

    labels = [label for label, _ in Conformance().claims()]
    wanted = {
        f"test_unit_embeddings_agree_with_float64[{family}][{dtype}]"
        for family in FAMILIES
        for dtype in Conformance.dtypes
    }
    assert wanted < set(labels)
    assert len(labels) == len(set(labels))


def test_nothing_else_imports_hypothesis() -> None:
    code = "import sys, minclip.testing.divergence, minclip.commands.cli; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is drawn -------------------------------------------------------------------------------------------------


@given(st.one_of(configs(), single_towers(), classifiers()).flatmap(lambda config: cases(st.just(config))))
def test_inputs_are_ones_that_a_model_accepts(case: Case) -> None:
    config, given = case.model.config, case.inputs
    found = checked_inputs(config, given)
    assert set(found) == set(config.towers)
    if "text" in found:
        ids, text = found["text"].input_ids, config.text_config
        mask = given.get("attention_mask", np.ones_like(ids))
        if isinstance(text, TextConfig):
            assert mask[np.arange(len(ids)), end_of_text(ids, text)].all()
        assert mask.any(axis=1).all()


@given(cases(configs()))
def test_random_models_give_finite_embeddings(case: Case) -> None:
    for embeds in truth(case.model).embed(case.inputs).values():
        assert np.isfinite(embeds).all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_tensor_of_a_loud_model_matters(family: str) -> None:
    """A third of noise on any tensor moves an embedding, but for the keys' biases, which softmax takes back."""
    model = RandomModel(small(family), 7, "loud")
    given = drawn_inputs(model)
    expected = truth(model).embed(given)
    still = set()
    for name in model.weights:
        tensor = model.weights[name]
        noise = 0.3 * np.abs(tensor).max() * np.random.default_rng(1).standard_normal(tensor.shape)
        noisy = Weights({**model.weights, name: (tensor + noise).astype(np.float32)})
        moved = Built(model.config, BrokenBackend().build(model.config, noisy)).embed(given)
        if max(np.abs(moved[tower] - expected[tower]).max() for tower in moved) < 1e-3:
            still.add(name)
    assert still == {"logit_scale"} | {name for name in model.weights if name.endswith(("k_proj.bias", "key.bias"))}


def small(family: str) -> Config:
    """Two layers of three heads; everything else as small as it can be told apart."""
    sizes = {"num_attention_heads": 3, "hidden_size": 12, "intermediate_size": 17, "num_hidden_layers": 2}
    ids = {"vocab_size": 40, "max_position_embeddings": 14, "eos_token_id": 39, "type_vocab_size": 2}
    return Config.from_dict(
        {
            "model_type": family,
            "text_config": {**sizes, **ids, "project_dim": 9},
            "vision_config": {**sizes, "image_size": 9, "patch_size": 3},
            "projection_dim": 11,
        }
    )


def drawn_inputs(model: RandomModel) -> dict[str, Any]:
    """Full rows, so that every position and token type is met."""
    rng, text = np.random.default_rng(3), model.config.text_config
    assert text is not None
    t = 12 if isinstance(text, RobertaConfig) else 14
    ids = rng.integers(2, 38, (16, t))
    ids[:, -1] = 39
    given = {"input_ids": ids, "pixel_values": rng.standard_normal((3, 3, 9, 9)).astype(np.float32)}
    if isinstance(text, RobertaConfig):
        given["token_type_ids"] = rng.integers(0, 2, ids.shape)
    return given


def test_weights_are_the_same_for_the_same_seed() -> None:
    one, same, other = (weights(small("clip"), seed) for seed in (1, 1, 2))
    name = "text_projection.weight"
    assert np.array_equal(one[name], same[name])
    assert not np.array_equal(one[name], other[name])


@given(configs("clip").flatmap(inputs))
def test_inputs_have_both_towers(given: dict[str, Any]) -> None:
    assert {"input_ids", "pixel_values"} <= given.keys()


# --- backends of a part --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", ["text", "vision"])
@pytest.mark.parametrize("families", [("clip",), ("altclip", "metaclip_2")])
def test_a_backend_of_one_tower_is_never_asked_for_the_other(tower: str, families: tuple[str, ...]) -> None:
    seen: set[str] = set()
    other = {"text": "vision", "vision": "text"}[tower]

    def absent(*given: Any, **named: Any) -> Any:
        raise NotImplementedError(f"no {other} tower")

    class Partial(BrokenBackend):
        def build(self, config: Config, *given: Any, **options: Any) -> Any:
            seen.add(config.model_type)
            towers = super().build(config, *given, **options)
            setattr(towers, other, absent)
            return towers

    attributes = {"backend": Partial(), "families": families, "towers": (tower,), "examples": 3}
    claims = list(type("Conformance", (BackendConformance,), attributes)().claims())
    for _, check in claims:
        check()
    assert len(claims) > 10
    assert seen <= {*families, "clip"}  # the edges are tried on one tiny CLIP


def test_a_planted_bug_is_one_short_report_that_begins_with_its_place(tmp_path: Path) -> None:
    """Of pytest itself, in a process of its own: the place, its consequence, the case, and no traceback."""
    lines = [
        "from broken_backend import BrokenBackend",
        "from minclip.testing import BackendConformance",
        "class TestBroken(BackendConformance):",
        "    backend = BrokenBackend('no bias in q')",
    ]
    (tmp_path / "test_broken.py").write_text("\n".join(lines))
    claim = "test_broken.py::TestBroken::test_unit_embeddings_agree_with_float64"
    tests = str(Path(__file__).resolve().parents[1])  # where broken_backend lies
    searched = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{claim}[clip-float32]"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": searched},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = done.stdout.splitlines()
    assert done.returncode == 1
    assert len(shown) < 40
    header = next(i for i, line in enumerate(shown) if "TestBroken.test_unit" in line and line.startswith("__"))
    assert "layer 0, step q: off by" in shown[header + 1]


@given(st.one_of(configs(), single_towers(), classifiers()).flatmap(lambda config: cases(st.just(config))))
def test_a_reported_model_can_be_built_from_its_report(case: Case) -> None:
    again = eval(repr(case.model), {"RandomModel": RandomModel, "Config": Config})
    assert again == case.model
