"""A made-up fourth family, CLIP whose text vector is the mean of its tokens, is a row here and a line in a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minclip
from minclip.backend import NumpyBackend
from minclip.families import FAMILIES
from minclip.testing import BackendConformance
from minclip_torch import TorchBackend
from minclip_torch.modules import TEXT_TOWERS, CausalTextTower


def pool_mean(x: np.ndarray, inputs: Any) -> np.ndarray:
    real = np.ones(x.shape[:2]) if inputs.attention_mask is None else inputs.attention_mask
    return (x * (real / real.sum(axis=1, keepdims=True)).astype(x.dtype)[:, :, None]).sum(axis=1)


class MeanTextTower(CausalTextTower):
    def pool(self, x: Any, inputs: Any) -> Any:
        real = x.new_ones(x.shape[:2]) if inputs.attention_mask is None else inputs.attention_mask.to(x.dtype)
        return (x * (real / real.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)


@pytest.fixture(autouse=True)
def mean_clip(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    row = replace(FAMILIES["clip"], class_prefix="MeanCLIP", pool=pool_mean, ends=None)
    monkeypatch.setitem(FAMILIES, "mean_clip", row)
    monkeypatch.setitem(TEXT_TOWERS, "mean_clip", MeanTextTower)


@pytest.mark.parametrize("backend", [NumpyBackend(), TorchBackend()], ids=["numpy", "torch"])
def test_the_kit_proves_a_fourth_family(backend: Any) -> None:
    attributes = {"backend": backend, "device": "cpu", "families": ("mean_clip",), "examples": 5}
    for _, check in type("Conformance", (BackendConformance,), attributes)().claims():
        check()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_fourth_family_is_loaded_and_saved(backend: str, miniature: Path, tmp_path: Path) -> None:
    clip = minclip.load(miniature)
    config = replace(clip.config, model_type="mean_clip", architectures=("MeanCLIPModel",))
    minclip.Model(config, clip.weights, clip.processor, clip.towers, "mean").save(tmp_path / "one")
    model = minclip.load(tmp_path / "one", backend=backend, device="cpu")
    model.save(tmp_path / "two")
    texts = ["a red circle", "a blue square with more words"]
    found = minclip.load(tmp_path / "two").encode_text(texts)
    np.testing.assert_allclose(found, model.encode_text(texts), atol=2e-5)
    assert np.abs(found - clip.encode_text(texts)).max() > 0.01
