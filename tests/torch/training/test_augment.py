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


def kinds(count: int) -> Tensor:
    """Every third one a photograph."""
    return torch.arange(count) % 3 == 1


@given(count=st.integers(1, 20), source=st.integers(2, 24), side=st.integers(2, 24), seed=st.integers(0, 2**32))
def test_what_comes_out_is_a_picture(count: int, source: int, side: int, seed: int) -> None:
    before = pictures(count, source, seed)
    given_ = before.clone()
    found = augment.augment(given_, some(count), kinds(count), draws(count, seed), side)
    assert found.shape == (count, 3, side, side)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(given_, before)  # the data set's own bytes


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_the_ends_of_every_range_are_pictures_too(extreme: float) -> None:
    at_the_end = {name: torch.full_like(value, extreme) for name, value in draws(6).items()}
    found = augment.augment(pictures(6, 20), some(6), kinds(6), at_the_end, 16)
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


@given(count=st.integers(2, 24), seed=st.integers(0, 2**32), data=st.data())
def test_a_row_does_not_depend_on_the_rest_of_its_batch(count: int, seed: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count - 1))
    part = slice(first, data.draw(st.integers(first + 1, count)))
    pixels, mirror, kind, drawn = pictures(count, 20, seed), some(count), kinds(count), draws(count, seed)
    whole = augment.augment(pixels, mirror, kind, drawn, 16)
    mine = {name: value[part] for name, value in drawn.items()}
    alone = augment.augment(pixels[part], mirror[part], kind[part], mine, 16)
    assert torch.equal(alone, whole[part])


def test_draws_follow_from_the_generator() -> None:
    for name, value in draws(4, seed=7).items():
        assert torch.equal(value, draws(4, seed=7)[name])
        assert not torch.equal(value, draws(4, seed=8)[name])


def test_no_two_pictures_of_a_batch_are_changed_alike() -> None:
    same = pictures(1, 20).expand(30, -1, -1, -1)
    found = augment.augment(same, some(30), kinds(30), draws(30), 16).flatten(1)
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
        augment.drawings(pictures(2000, 4), allowed, draws(2000), 4)
    assert not seen[0][~allowed].any()
    assert 0.45 < seen[0][allowed].float().mean() < 0.55


def test_a_picture_of_nothing_shows_the_background_whatever_colour_hides_in_it() -> None:
    nothing, something = pictures(60, 20, seed=1), pictures(60, 20, seed=2)
    for pixels in (nothing, something):
        pixels[:, 3] = 0
    mirror, drawn = some(60), draws(60)
    found = augment.drawings(nothing, mirror, drawn, 16)
    assert torch.equal(found, augment.drawings(something, mirror, drawn, 16))
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


# --- drawings and photographs in one batch ------------------------------------------------------------------------


def test_a_drawing_comes_out_as_it_did_before_there_were_photographs() -> None:
    """The means of six rows, as computed when this function knew of drawings alone."""
    found = augment.augment(pictures(6, 20), some(6), torch.zeros(6, dtype=torch.bool), draws(6), 16)
    expected = torch.tensor([0.722764, 0.709162, 0.622826, 0.464752, 0.496489, 0.219768])
    torch.testing.assert_close(found.mean((1, 2, 3)), expected, atol=1e-5, rtol=0)


def test_each_row_is_changed_as_its_kind_is_whatever_lies_beside_it() -> None:
    pixels, mirror, drawn, kind = pictures(30, 20), some(30), draws(30), kinds(30)
    found = augment.augment(pixels, mirror, kind, drawn, 16)
    assert torch.equal(found[~kind], augment.drawings(pixels, mirror, drawn, 16)[~kind])
    assert torch.equal(found[kind], augment.photographs(pixels, mirror, drawn, 16)[kind])


# --- photographs ---------------------------------------------------------------------------------------------------


def place(count: int, side: int) -> Tensor:
    """Pictures that hold each pixel's own place, (count, 2, side, side): across and down, from -1 to 1."""
    line = (torch.arange(side) * 2 + 1) / side - 1
    return torch.stack([line.expand(side, side), line[:, None].expand(side, side)]).expand(count, -1, -1, -1)


def crops(count: int, flips: Tensor) -> Tensor:
    return augment._crop(place(count, 80), flips, augment._uniforms(draws(count)["u"]), 64)


def test_a_crop_is_a_part_of_the_picture_of_no_odd_shape() -> None:
    found = crops(500, torch.zeros(500, dtype=torch.bool))
    across = (found[:, 0, 0, -1] - found[:, 0, 0, 0]) / 2 * 64 / 63  # the part of the picture's width that is seen
    down = (found[:, 1, -1, 0] - found[:, 1, 0, 0]) / 2 * 64 / 63
    area, ratio = across * down, across / down
    assert area.min() > 0.39 - 0.04  # the picture's rim is half a pixel that repeats itself
    assert area.max() < 1.02
    assert area.min() < 0.5
    assert area.max() > 0.9
    assert ratio.min() > 3 / 4 - 0.04
    assert ratio.max() < 4 / 3 + 0.04
    assert found.abs().max() <= 1  # no ground of another colour comes in from outside
    assert found[:, 0, 0].diff(dim=1).min() > 1e-6  # and the rim is not drawn out
    assert found[:, 1, :, 0].diff(dim=1).min() > 1e-6


def test_a_crop_lies_anywhere_in_the_picture() -> None:
    found = crops(500, torch.zeros(500, dtype=torch.bool))
    middles = found.mean((2, 3))
    assert middles.mean(0).abs().max() < 0.03
    assert middles.amax(0).min() > 0.25
    assert middles.amin(0).max() < -0.25


def test_a_mirrored_crop_is_the_same_crop_turned_round() -> None:
    ahead, mirrored = (crops(50, torch.full((50,), flip)) for flip in (False, True))
    torch.testing.assert_close(mirrored, ahead.flip(3), atol=1e-5, rtol=0)


def test_a_photograph_is_mirrored_only_where_it_may_be() -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor, flip: Tensor, uniform: augment.Uniform, side: int) -> Tensor:
        seen.append(flip)
        return crop(x, flip, uniform, side)

    crop = augment._crop
    allowed = some(2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "_crop", spy)
        augment.photographs(pictures(2000, 4), allowed, draws(2000), 4)
    assert not seen[0][~allowed].any()
    assert 0.45 < seen[0][allowed].float().mean() < 0.55


def test_light_keeps_the_order_of_greys_and_the_colour_of_strong_colours() -> None:
    """No posterizing and no drawn edges: a ramp of grey stays one; and red stays red, unless all is grey."""
    ramp = torch.linspace(0, 1, 64).expand(200, 3, 1, 64)
    found = augment._relight(ramp, augment._uniforms(draws(200)["u"]))
    assert (found.diff(dim=3) >= -1e-6).all()
    red = torch.tensor([0.8, 0.15, 0.15]).view(1, 3, 1, 1).expand(200, -1, 1, 1)
    r, g, b = augment._relight(red, augment._uniforms(draws(200)["u"]))[:, :, 0, 0].unbind(1)
    assert (r > torch.maximum(g, b) + 0.1).float().mean() > 0.88


def test_photographs_differ_in_light() -> None:
    grey = torch.full((200, 3, 1, 1), 0.5)
    found = augment._relight(grey, augment._uniforms(draws(200)["u"]))[:, :, 0, 0]
    assert 0.05 < found.mean(1).std() < 0.2
    assert 0.02 < (found[:, 0] - found[:, 2]).std() < 0.15  # white balance
