"""Recipes: what they refuse, how they are kept, and the formulas of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from training import recipe

from minclip_torch.training.recipe import Recipe, RecipeError, drop_layers, drop_patches, learning_rate

# --- settings ------------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps must be at least 1, not 0"),
    ({"steps": "many"}, "steps must be of type int, not 'many'"),
    ({"steps": 2.5}, "steps must be of type int, not 2.5"),
    ({"batch_size": True}, "batch_size must be of type int, not True"),
    ({"batch_size": -8}, "batch_size must be at least 1, not -8"),
    ({"chunk_size": -1}, "chunk_size must be at least 0, not -1"),
    ({"seed": -1}, "seed must be at least 0, not -1"),
    ({"compile": 1}, "compile must be of type bool, not 1"),
    ({"dtype": "float16"}, "dtype 'float16' is not one of float32, bfloat16"),
    ({"optimizer": "sgd"}, "optimizer 'sgd' is not one of adamw, muon"),
    ({"learning_rate": float("nan")}, "learning_rate must be at least 0.0, not nan"),
    ({"learning_rate": float("inf")}, "learning_rate must be at least 0.0, not inf"),
    ({"warmup": -1}, "warmup must be at least 0, not -1"),
    ({"beta2": 1.0}, "beta2 must lie between 0 and 1, not 1.0"),
    ({"max_scale": 0.5}, "max_scale must be at least 1.0, not 0.5"),
    ({"average": 1}, "average must lie between 0 and 1, not 1"),
    ({"drop_patches": 1.0}, "drop_patches must lie between 0 and 1, not 1.0"),
    ({"names": 1.5}, "names must lie between 0 and 1, not 1.5"),
    ({"framed": 1.5}, "framed must lie between 0 and 1, not 1.5"),
    ({"languages": "en"}, "languages must be a list of texts, not 'en'"),
    ({"languages": (1,)}, "languages must be a list of texts, not (1,)"),
    ({"templates": ("a picture",)}, "template 'a picture' must hold one {} for the caption"),
    ({"templates": ("{} {}",)}, "template '{} {}' must hold one {} for the caption"),
    ({"freeze": ("image",)}, "freeze takes vision and text, not image"),
    ({"freeze": ("vision", "text")}, "freeze vision, text with the text tower frozen leaves nothing to learn"),
    ({"freeze": ("text",), "teacher": "clip"}, "teacher clip with the text tower frozen leaves nothing to learn"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_whole_numbers_serve_as_fractions() -> None:
    assert Recipe(learning_rate=1, drop_path=0).learning_rate == 1


def test_the_defaults_are_allowed() -> None:
    assert Recipe().differences(Recipe()) == []


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    for made in (Recipe(), recipe(languages=("en", "zh"), templates=("« {} »",), freeze=("vision",), seed=3)):
        path.write_text(made.to_json(), encoding="utf-8")
        assert Recipe.read(path) == made


def test_settings_left_out_of_a_file_keep_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"steps": 7}')
    assert Recipe.read(path) == Recipe(steps=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "must hold a JSON object, not list"),
        ('{"stpes": 7}', "'stpes' is no setting; there are augment, average, "),
        ('{"steps": 0}', "steps must be at least 1, not 0"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_with_its_name(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "recipe.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [f.name for f in fields(Recipe)])
def test_every_setting_that_differs_is_named_with_both_values(name: str) -> None:
    other: dict[str, Any] = {"dtype": "float32", "optimizer": "adamw", "freeze": ("vision",), "templates": ("{}!",)}
    default = getattr(Recipe(), name)
    changes = {bool: lambda: not default, int: lambda: default + 1, float: lambda: default / 2 + 0.01}
    value = other.get(name) or changes.get(type(default), lambda: ("de",) if default == () else "there")()
    assert Recipe(**{name: value}).differences(Recipe()) == [f"{name} {default}, not {value}"]


def test_recipes_are_plain_json() -> None:
    assert set(json.loads(Recipe().to_json())) == set(asdict(Recipe()))


# --- formulas ------------------------------------------------------------------------------------------------------


def test_the_rate_climbs_in_a_line_to_its_peak_and_falls_along_a_cosine() -> None:
    made = recipe(steps=110, warmup=10, learning_rate=2.0)
    rates = [learning_rate(made, step) for step in range(made.steps + 1)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2.0 * 0.505)  # half way down
    assert rates[110] == pytest.approx(0.02)
    assert 0.02 < rates[109] < 0.021  # the last one taken
    assert rates[10:] == sorted(rates[10:], reverse=True)


@given(steps=st.integers(1, 50), warmup=st.integers(0, 60))
def test_every_step_has_a_rate(steps: int, warmup: int) -> None:
    made = recipe(steps=steps, warmup=warmup, learning_rate=1.0)
    assert all(0.01 <= learning_rate(made, step) <= 1 for step in range(steps) if step >= warmup)
    assert all(0 < learning_rate(made, step) <= 1 for step in range(steps))


class Double(nn.Module):
    """(b, t, d) -> twice that, as a layer of one of the encoders is called."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return 2 * x


def test_no_layer_is_dropped_outside_training() -> None:
    layers = [Double().eval(), Double().eval()]
    drop_layers(layers, 0.5)
    x = torch.randn(3, 4, 5)
    assert torch.equal(layers[1](layers[0](x)), 4 * x)


@pytest.mark.parametrize(("depth", "expected"), [(0, 0.8), (1, 0.6)])
def test_deeper_layers_are_skipped_oftener_and_the_expected_output_stays(depth: int, expected: float) -> None:
    torch.manual_seed(0)
    layers = [Double(), Double()]
    drop_layers(layers, 0.4)
    x = torch.ones(20_000, 2, 3)
    found = layers[depth](x)
    rows = found.flatten(1)
    assert torch.equal(rows.amin(1), rows.amax(1))  # a row goes through the layer or does not, as a whole
    kept = rows[:, 0] > 1
    assert float(kept.float().mean()) == pytest.approx(expected, abs=0.015)
    torch.testing.assert_close(rows[kept, 0].unique(), torch.tensor([1 + 1 / expected]))
    assert float(found.mean()) == pytest.approx(2.0, abs=0.03)


class Numbered(nn.Module):
    """Embeddings (b, 1 + n, 1) that say which patch they are; the class token is 0."""

    def forward(self, b: int, n: int) -> Tensor:
        return torch.arange(n + 1.0).expand(b, -1)[:, :, None]


def test_no_patch_is_dropped_outside_training_or_after_the_end() -> None:
    module: Any = Numbered()
    handle = drop_patches(module, 0.5)
    assert module.eval()(2, 9).shape == (2, 10, 1)
    assert module.train()(2, 9).shape == (2, 5, 1)
    handle.remove()
    handle.remove()
    assert module(2, 9).shape == (2, 10, 1)


@given(b=st.integers(1, 5), n=st.integers(1, 30), rate=st.floats(0, 0.99))
def test_the_class_token_stays_and_no_patch_is_there_twice(b: int, n: int, rate: float) -> None:
    module: Any = Numbered()
    drop_patches(module, rate)
    found = module(b, n)[:, :, 0].numpy()
    assert found.shape == (b, 1 + max(1, round(n * (1 - rate))))
    assert (found[:, 0] == 0).all()
    assert (found[:, 1:] > 0).all()
    assert all(len(np.unique(row)) == len(row) for row in found)


def test_every_patch_is_dropped_as_often_and_anew_for_each_picture() -> None:
    torch.manual_seed(0)
    module: Any = Numbered()
    drop_patches(module, 0.5)
    found = module(8000, 8)[:, 1:, 0]
    counts = torch.bincount(found.flatten().long())[1:] / 8000
    torch.testing.assert_close(counts, torch.full((8,), 0.5), atol=0.025, rtol=0)
