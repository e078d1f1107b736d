"""`minclip info`, `models` and `backends`: what they say, to people and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import damaged, left_in, run

import minclip
import minclip.backend
from minclip import checkpoints, products
from minclip.checkpoints import sources


def test_info_counts_the_parameters(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("info", miniature, capsys=capsys)
    total = sum(tensor.size for tensor in minclip.load(miniature).weights.values())
    assert f"{total:,}, stored as float32" in out
    listed = set(re.findall(r"  file        (\S+), [\d.,]+ [KM]iB\n", out))
    assert listed == left_in(miniature)
    assert "text        1 layer, " in out
    assert f"{minclip.load(miniature).processor.context_length} tokens at most" in out


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_info_tells_the_stored_type(
    dtype: str, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(tmp_path, *checkpoints.read(miniature), dtype=dtype)
    out, _ = run("info", tmp_path, capsys=capsys)
    assert f"stored as {dtype};" in out


@pytest.mark.parametrize(
    ("kernels", "said"), [(True, "prepack=True is of use"), (False, "prepack=True changes nothing")]
)
def test_info_tells_whether_laying_weights_out_helps_here(
    kernels: bool, said: str, miniature: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(products, "small_kernels", lambda: kernels)
    assert said in run("info", miniature, capsys=capsys)[0]
    assert json.loads(run("info", miniature, "--json", capsys=capsys)[0])["machine"]["prepack"] == kernels


def test_models_lists_the_box(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (box / "no model").mkdir()
    (line,) = run("models", capsys=capsys)[0].splitlines()
    assert line.startswith(sources.DEFAULT)
    assert line.endswith(f"MiB  {box / sources.DEFAULT} (default)")
    assert "25 languages" in line


def test_backends_lists_numpy_and_torch(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("backends", capsys=capsys)
    listed = {line.split()[0]: line for line in out.splitlines()}
    assert listed["numpy"].split()[1] == "cpu"
    assert "cpu" in listed["torch"]


def test_info_as_json_says_what_it_prints(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run("info", miniature, "--json", capsys=capsys)[0])
    weights = minclip.load(miniature).weights
    assert facts["path"] == str(miniature)
    assert facts["parameters"] == sum(tensor.size for tensor in weights.values())
    text = sum(tensor.size for name, tensor in weights.items() if name.startswith("text_model."))
    assert facts["text"]["parameters"] == text
    assert facts["stored_as"] == ["float32"]
    assert facts["files"] == {name: (miniature / name).stat().st_size for name in left_in(miniature)}
    assert "finite" not in facts


def test_info_check_reads_all_weights(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "all of them are finite" in run("info", miniature, "--check", capsys=capsys)[0]
    assert json.loads(run("info", miniature, "--check", "--json", capsys=capsys)[0])["finite"] is True
    folder = damaged(miniature, tmp_path / "damaged")
    run("info", folder, capsys=capsys)
    for dtype in (None, "float16", "bfloat16"):
        checkpoints.save(folder, *checkpoints.read(folder), dtype=dtype)
        out, err = run("info", "--check", folder, code=2, capsys=capsys)
        assert out == ""
        assert "2 tensors hold NaN or infinity: " in err
        assert "text_projection.weight" in err
        assert len(err.splitlines()) == 1


def test_models_as_json(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = map(json.loads, run("models", "--json", capsys=capsys)[0].splitlines())
    assert model["name"] == sources.DEFAULT
    assert model["folder"] == str(box / sources.DEFAULT)
    assert model["default"] is True
    assert model["bytes"] == sum(path.stat().st_size for path in (box / sources.DEFAULT).iterdir())


def fails_with(error: BaseException) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


class Bare:
    """A backend that fails when it is asked for its devices."""

    devices = fails_with(RuntimeError("no driver\nat all"))
    build = devices


PLUGINS = {
    "unimportable": fails_with(ModuleNotFoundError("No module named 'abacus'")),
    "raising": fails_with(RuntimeError("wrong\nversion")),
    "leaving": fails_with(SystemExit("licence expired")),
    "unbuildable": lambda: fails_with(TypeError("takes 3 arguments")),
    "deviceless": lambda: Bare,
}


def test_a_plugin_that_cannot_start_is_named_with_its_reason_and_costs_nobody_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [SimpleNamespace(name=name, load=load, value=f"{name}:Backend") for name, load in PLUGINS.items()]
    monkeypatch.setattr(minclip.backend, "entry_points", lambda **_: points)
    out, err = run("backends", capsys=capsys)
    said = {line.split()[0]: line for line in out.splitlines()}
    assert list(said) == sorted([*PLUGINS, "numpy"])
    assert said["numpy"].split()[1:] == ["cpu"]
    reasons = {
        "unimportable": "abacus", "raising": "wrong version", "leaving": "licence expired",
        "unbuildable": "takes 3 arguments", "deviceless": "no driver at all",
    }  # fmt: skip
    for name, reason in reasons.items():
        assert reason in said[name]
    assert err == ""


def test_info_of_a_lone_file_is_that_of_its_folder(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(run("info", miniature, "--json", capsys=capsys)[0])
    lone = json.loads(run("info", miniature / "model.safetensors", "--json", capsys=capsys)[0])
    assert lone == {**whole, "path": str(miniature / "model.safetensors")}
