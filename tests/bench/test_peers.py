"""Peers answer as minclip does; one that is not there, fails, or answers otherwise is left out by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import KINDS, peer

import minclip
from minclip.bench.peers import NAMES, Peers, quiet
from minclip.bench.sections import agreeing, embed_with, tower_inputs


def peers_of(folder: Path, scratch: Path, names: tuple[str, ...] = NAMES) -> Peers:
    return Peers(names, folder, minclip.load(folder).config, scratch, {})


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_minclips_embeddings_of_every_kind_of_checkpoint(kind: str, tmp_path: Path) -> None:
    with quiet():
        peer(kind).save_pretrained(tmp_path)
    model, found = minclip.load(tmp_path), peers_of(tmp_path, tmp_path)
    for tower in ("vision", "text"):
        if tower in model.config.towers:
            inputs = tower_inputs(model.config, tower, 3)
            embed = found.make("transformers", tower, inputs[:1], "float32")
            assert embed is not None, found.left_out
            ours = embed_with(model, tower)(inputs)
            assert ours.shape == embed(inputs).shape
            assert agreeing({"transformers": embed}, ours, inputs, found, tower, "float32"), found.left_out
    assert found.left_out == {}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that towers are exported to, once for both that run them."""
    return tmp_path_factory.mktemp("exported")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_exported_tower_gives_minclips_embeddings_of_any_batch(name: str, miniature: Path, exported: Path) -> None:
    pytest.importorskip(name)
    pytest.importorskip("onnxscript")
    model, found = minclip.load(miniature), peers_of(miniature, exported)
    for tower in ("vision", "text"):
        inputs = tower_inputs(model.config, tower, 5)
        embed = found.make(name, tower, inputs[:1], "float32")
        assert embed is not None, found.left_out
        for part in (inputs[:1], inputs):
            np.testing.assert_allclose(embed(part), embed_with(model, tower)(part), atol=1e-3)


def test_a_signal_after_openvino_is_handled(tmp_path: Path) -> None:
    """Two cores of it, gone in the order in which they came, leave the handlers a stack that is gone, too."""
    pytest.importorskip("openvino")
    code = (
        "import gc, os, signal, sys, numpy as np, openvino\n"
        "from openvino import opset13 as ops\n"
        "from pathlib import Path\n"
        "from minclip.bench.peers import Peers\n"
        "from minclip.config import Config\n"
        "x = ops.parameter([1, 4], np.float32)\n"
        "openvino.save_model(openvino.Model([ops.relu(x)], [x]), 'relu.xml')\n"
        "peers = Peers(['openvino'], Path(), Config(), Path(), {})\n"
        "peers._exported = lambda tower, example: 'relu.xml'\n"
        "ones = np.ones((1, 4), np.float32)\n"
        "embeds = [peers.make('openvino', tower, ones, 'float32') for tower in ('vision', 'text')]\n"
        "assert all((embed(ones) == 1).all() for embed in embeds)\n"
        "while embeds:\n"
        "    del embeds[0]\n"
        "    gc.collect()\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 3, done.stderr.decode()


def test_peers_that_are_not_installed_are_named(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in NAMES:
        monkeypatch.setitem(sys.modules, module, None)  # which is how Python marks what cannot be imported
    found = peers_of(miniature, tmp_path)
    example = tower_inputs(found.config, "vision", 1)
    assert [found.make(name, "vision", example, "float32") for name in found.contestants()] == [None] * 4
    assert found.tokenizer() is None
    assert found.image_processor() is None
    assert set(found.left_out) == {*NAMES, "transformers compiled"}
    assert all(reason.startswith("not installed") and "minclip[bench]" in reason for reason in found.left_out.values())


def test_an_export_that_fails_is_named_and_leaves_no_file(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*given: Any, **_: Any) -> None:
        Path(given[2]).write_bytes(b"half a file")
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    found = peers_of(miniature, tmp_path)
    example = tower_inputs(found.config, "text", 1)
    for name in ("onnxruntime", "openvino"):
        if find_spec(name):
            assert found.make(name, "text", example, "float32") is None
            assert found.left_out[f"{name}, text tower in float32"] == "no such operator"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[:, ::-1], "embeddings differ from minclip's by"),
        (lambda rows: rows * np.nan, "embeddings differ from minclip's by nan"),
        (lambda rows: rows[:, 1:], "embeddings have shape (2, 31), minclip's (2, 32)"),
        (lambda rows: rows.reshape(7, 11), "cannot reshape"),
    ],
)
def test_a_peer_that_answers_otherwise_is_named(
    spoil: Callable[[np.ndarray], np.ndarray], said: str, miniature: Path, tmp_path: Path
) -> None:
    model, found = minclip.load(miniature), peers_of(miniature, tmp_path)
    embed, inputs = embed_with(model, "vision"), tower_inputs(model.config, "vision", 2)
    theirs = {"right": embed, "wrong": lambda given: spoil(embed(given))}
    left = agreeing(theirs, embed(inputs), inputs, found, "vision", "float32")
    assert list(left) == ["right"]
    assert said in found.left_out["wrong, image tower in float32, batch 2"]


def test_what_a_peer_does_not_compute_in_is_named(miniature: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = peers_of(miniature, tmp_path)
    assert found.make("onnxruntime", "vision", tower_inputs(found.config, "vision", 1), "bfloat16") is None
    assert found.left_out == {"onnxruntime, vision tower in bfloat16": "it computes in float32"}


def test_what_peers_print_warn_of_and_log_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    import logging
    import warnings

    with quiet():
        print("a table of layers")
        print("50%", file=sys.stderr)
        warnings.warn("deprecated", stacklevel=1)
        logging.getLogger("transformers").error("unused weights")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("minclip").isEnabledFor(logging.ERROR)
