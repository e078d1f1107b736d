"""Augmentation: what comes out is a picture, of the same thing, whatever the batch it was in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from minclip.images import to_rgb
from minclip_torch.training import augment


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    """RGBA noise in blocks, partly transparent."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (count, 4, 5, 5), generator=generator, dtype=torch.uint8)
    return torch.nn.functional.interpolate(blocks, (side, side))


def draws(count: int, seed: int = 0) -> augment.Draws:
    return augment.draw(count, torch.Generator().manual_seed(seed))


def some(count: int, probability: float = 0.5) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(5)) < probability


@given(count=st.integers(1, 20), source=st.integers(2, 24), side=st.integers(2, 24), seed=st.integers(0, 2**32))
def test_what_comes_out_is_a_picture(count: int, source: int, side: int, seed: int) -> None:
    before = pictures(count, source, seed)
    given_ = before.clone()
    found = augment.augment(given_, some(count), draws(count, seed), side)
    assert found.shape == (count, 3, side, side)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(given_, before)  # the data set's own bytes


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_the_ends_of_every_range_are_pictures_too(extreme: float) -> None:
    at_the_end = {name: torch.full_like(value, extreme) for name, value in draws(3).items()}
    found = augment.augment(pictures(3, 20), some(3), at_the_end, 16)
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


@given(count=st.integers(2, 24), seed=st.integers(0, 2**32), data=st.data())
def test_a_row_does_not_depend_on_the_rest_of_its_batch(count: int, seed: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count - 1))
    part = slice(first, data.draw(st.integers(first + 1, count)))
    pixels, mirror, drawn = pictures(count, 20, seed), some(count), draws(count, seed)
    whole = augment.augment(pixels, mirror, drawn, 16)
    alone = augment.augment(pixels[part], mirror[part], {name: value[part] for name, value in drawn.items()}, 16)
    assert torch.equal(alone, whole[part])


def test_draws_follow_from_the_generator() -> None:
    for name, value in draws(4, seed=7).items():
        assert torch.equal(value, draws(4, seed=7)[name])
        assert not torch.equal(value, draws(4, seed=8)[name])


def test_no_two_pictures_of_a_batch_are_changed_alike() -> None:
    same = pictures(1, 20).expand(30, -1, -1, -1)
    found = augment.augment(same, some(30), draws(30), 16).flatten(1)
    assert (torch.cdist(found, found) + torch.eye(30) > 1e-3).all()


def turned(x: Tensor) -> Tensor:
    """Which way round red, green and blue spots lie (b): the sign of the triangle between their centres."""
    side = x.shape[-1]
    at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).float()  # (2, s, s)
    weight = x[:, :3] / x[:, :3].sum((2, 3), keepdim=True)
    centres = torch.einsum("bchw,dhw->bcd", weight, at)  # (b, 3, 2)
    across, down = centres[:, 1] - centres[:, 0], centres[:, 2] - centres[:, 0]
    return torch.sign(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])


def spots(count: int) -> Tensor:
    """Red, green and blue in three corners of the middle, premultiplied (b, 4, 32, 32)."""
    x = torch.zeros(count, 4, 32, 32)
    for channel, (top, left) in enumerate([(10, 10), (10, 19), (19, 10)]):
        x[:, channel, top : top + 3, left : left + 3] = x[:, 3, top : top + 3, left : left + 3] = 1
    return x


def test_only_a_picture_that_may_be_mirrored_ever_is() -> None:
    count = 400
    x = spots(count)
    flips = torch.arange(count) % 2 == 0
    moved = augment._move(x, flips, augment._uniforms(draws(count)["u"]), 32)
    assert torch.equal(turned(moved) != turned(x), flips)


def test_mirroring_is_asked_for_by_half_of_those_that_may_be() -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor, flip: Tensor, uniform: augment.Uniform, side: int) -> Tensor:
        seen.append(flip)
        return move(x, flip, uniform, side)

    move = augment._move
    allowed = some(2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "_move", spy)
        augment.augment(pictures(2000, 4), allowed, draws(2000), 4)
    assert not seen[0][~allowed].any()
    assert 0.45 < seen[0][allowed].float().mean() < 0.55


def test_a_picture_of_nothing_shows_the_background_whatever_colour_hides_in_it() -> None:
    nothing, something = pictures(60, 20, seed=1), pictures(60, 20, seed=2)
    for pixels in (nothing, something):
        pixels[:, 3] = 0
    mirror, drawn = some(60), draws(60)
    found = augment.augment(nothing, mirror, drawn, 16)
    assert torch.equal(found, augment.augment(something, mirror, drawn, 16))
    assert (found > 1 - 1e-5).flatten(1).all(1).any()  # half of the backgrounds are white


def test_an_opaque_white_picture_stays_neutral_in_colour() -> None:
    """Turning hue and saturation moves no grey: what is drawn of a white picture has three equal channels."""
    white = torch.full((50, 3, 8, 8), 1.0)
    colour = augment._recolour(white, torch.ones(50, 1, 8, 8), augment._uniforms(draws(50)["u"]))
    spread = colour.amax(1) - colour.amin(1)
    assert spread.max() < 0.02


@pytest.mark.parametrize("levels", [2, 5])
def test_posterized_colours_are_few(levels: int) -> None:
    colour = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    found = augment._posterize(colour, torch.ones(1, 1, 30, 30), torch.full((1, 1, 1, 1), levels + 0.2))
    assert len(found.unique()) == levels + 1


def test_over_white_is_the_reference_s_own_way() -> None:
    pixels = pictures(3, 10)
    for row, found in zip(pixels, augment.over_white(pixels), strict=True):
        reference = torch.from_numpy(np.array(to_rgb(Image.fromarray(row.permute(1, 2, 0).numpy()))))
        torch.testing.assert_close(found.permute(1, 2, 0) * 255, reference.float(), atol=1.0, rtol=0)
