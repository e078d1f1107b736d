"""What a tower has to do: counted by hand, by torch on the peer's model, and from the shapes of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from folders import KINDS, peer
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from minclip.bench import machine, random_models
from minclip.bench.flops import Work, image_work, text_work
from minclip.config import Config
from minclip.shapes import expected_shapes

TOKENS = 7


def config_of(model: Any) -> Config:
    return Config.from_dict({**model.config.to_dict(), "architectures": [type(model).__name__]})


def test_vit_b_32_by_hand() -> None:
    """49 patches of 3072 numbers; 12 layers of 50 tokens, 768 wide, 3072 inside; 768 to 512."""
    layer = 2 * 50 * 768 * 768 * 4 + 2 * (2 * 50 * 50 * 768) + 2 * (2 * 50 * 768 * 3072)
    flops = 2 * 49 * 3072 * 768 + 12 * layer + 2 * 768 * 512
    weights = 3072 * 768 + 12 * (4 * 768 * 768 + 2 * 768 * 3072) + 768 * 512
    assert image_work(random_models.small(9)) == Work(flops, weights)
    assert round(flops / 1e9, 1) == 8.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_is_torchs_own_on_the_peers_model(kind: str) -> None:
    model = peer(kind)
    model.set_attn_implementation("eager")  # products that the counter sees
    config = config_of(model)
    ids = torch.randint(2, 10, (1, TOKENS))
    ids[:, -1] = 19
    pixels = torch.zeros(1, 3, 11, 11)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        if config.is_whole:
            model.get_image_features(pixel_values=pixels)
            model.get_text_features(input_ids=ids)
        else:
            model(pixels) if "vision" in config.towers else model(ids)
    expected = 0
    if "vision" in config.towers:
        expected += image_work(config).flops
    if "text" in config.towers:
        expected += text_work(config, TOKENS).flops
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_the_checkpoints_matrices(kind: str) -> None:
    config = config_of(peer(kind))
    shapes = expected_shapes(config)
    matrices = sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if len(shape) > 1 and ("embeddings." not in name or "patch_embedding" in name)
    )
    works = [image_work(config)] if "vision" in config.towers else []
    works += [text_work(config, TOKENS)] if "text" in config.towers else []
    assert sum(work.weights for work in works) == matrices


@given(side=st.integers(1, 40))
def test_a_side_is_counted_in_whole_patches(side: int) -> None:
    config = random_models.vision_model("ViT-L/14")
    assert image_work(config, 14 * side + 13) == image_work(config, 14 * side)
    assert image_work(config, 14 * side + 14).flops > image_work(config, 14 * side).flops
    assert image_work(config, 224) == image_work(config)


def test_the_limit_is_the_longer_of_computing_and_reading() -> None:
    work = Work(flops=8 * 10**9, weights=10**8)
    assert machine.limit(work, 32, flops=4e11, bandwidth=2e10, number_bytes=4) == pytest.approx(50)
    assert machine.limit(work, 1, flops=4e12, bandwidth=2e10, number_bytes=4) == pytest.approx(50)  # 400 MB in 20 ms
    small = Work(flops=8 * 10**6, weights=10**5)  # which stays in a cache
    assert machine.limit(small, 1, flops=4e11, bandwidth=1, number_bytes=4) == pytest.approx(50_000)
