"""Packing lays weights out anew one after the other, and keeps no layer that it has replaced."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from minclip_torch import packed
from minclip_torch.packed import PackedLinear, pack


@pytest.mark.parametrize("always", [True, None])
def test_a_layer_is_gone_before_the_next_is_packed(always: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(5))).requires_grad_(False)
    weights = [weakref.ref(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear)]
    alive = []

    class Watched(PackedLinear):
        def __init__(self, linear: nn.Linear) -> None:
            alive.append(sum(weight() is not None for weight in weights))
            super().__init__(linear)

    monkeypatch.setattr(packed, "packed_is_faster", lambda *sizes: True)
    monkeypatch.setattr(packed, "PackedLinear", Watched)
    x = torch.randn(3, 64)
    expected = module(x)
    if not pack(module, always):
        pytest.skip("this torch has no oneDNN")
    assert alive == [5, 4, 3, 2, 1]
    torch.testing.assert_close(module(x), expected)
