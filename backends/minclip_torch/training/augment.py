"""Image augmentation: of drawings by affine moves, colour changes, drawn edges and outlines, backgrounds, blur and
erasing; of photographs by crops, light and colour, blur and erasing.

All random numbers are drawn first (`draw`), for the whole batch and from one generator; `augment` is a function of
them and of the rows that it is given. So each row comes out the same however a batch is split over processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
UNIFORMS = 40  # random numbers for each image; another number here changes every run
NOISE = 9  # cells along each side of a background of noise

Draws: TypeAlias = dict[str, Tensor]
Uniform: TypeAlias = Callable[..., Tensor]  # (low, high) -> (b,), the next random number of each image


def draw(count: int, generator: torch.Generator) -> Draws:
    """The random numbers for `count` images: "u" (count, 40) and "noise" (count, 3, 9, 9), uniform from 0 to 1."""
    return {
        "u": torch.rand(count, UNIFORMS, generator=generator),
        "noise": torch.rand(count, 3, NOISE, NOISE, generator=generator),
    }


def over_white(pixels: Tensor) -> Tensor:
    """RGBA bytes (b, 4, h, w) -> (b, 3, h, w) in 0 to 1, laid over white."""
    x = pixels.float() / 255
    return x[:, :3] * x[:, 3:] + 1 - x[:, 3:]


def augment(pixels: Tensor, mirror: Tensor, photograph: Tensor, draws: Draws, side: int) -> Tensor:
    """RGBA bytes (b, 4, s, s) -> (b, 3, side, side) in 0 to 1, augmented, without transparency.

    mirror (b): which images may be mirrored. photograph (b): which are photographs; the others are drawings.
    """
    found = torch.empty(len(pixels), 3, side, side)
    for change, kind in ((drawings, ~photograph), (photographs, photograph)):
        rows = kind.nonzero()[:, 0]
        if len(rows):
            mine = {name: value[rows] for name, value in draws.items()}
            found[rows] = change(pixels[rows], mirror[rows], mine, side)
    return found


def drawings(pixels: Tensor, mirror: Tensor, draws: Draws, side: int) -> Tensor:
    """Rows of drawings: turned, recoloured, redrawn, and laid on a background."""
    uniform = _uniforms(draws["u"])
    x = pixels.float() / 255
    x[:, :3] *= x[:, 3:]  # premultiplied, so that the colour of transparent pixels does not bleed in
    flip = mirror & (uniform() < 0.5)
    x = _move(x, flip, uniform, side)
    colour, alpha = x[:, :3], x[:, 3:]
    colour = _where(uniform() < 0.2, _posterize, colour, alpha, uniform(2, 6))
    colour = _recolour(colour, alpha, uniform)
    colour = _where(uniform() < 0.25, _edges, colour, alpha, uniform(4, 12))
    colour, alpha = _outline(colour, alpha, uniform)
    x = colour + (1 - alpha) * _background(draws["noise"], uniform, side)
    x = _where(uniform() < 0.25, _blur, x, alpha, uniform(0.3, 1.0))
    x = _erase(x, uniform)
    return x.clamp_(0, 1)


def photographs(pixels: Tensor, mirror: Tensor, draws: Draws, side: int) -> Tensor:
    """Rows of photographs: cropped within the picture, in another light."""
    uniform = _uniforms(draws["u"])
    flip = mirror & (uniform() < 0.5)
    x = _crop(over_white(pixels), flip, uniform, side)
    x = _relight(x, uniform)
    x = _where(uniform() < 0.2, _blur, x, x, uniform(0.2, 0.8))
    x = _erase(x, uniform)
    return x.clamp_(0, 1)


def _uniforms(u: Tensor) -> Uniform:
    """A function that returns the columns of u (b, n) one after the other, scaled from 0..1 to low..high."""
    columns = iter(u.unbind(1))

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * next(columns)

    return uniform


def _where(
    where: Tensor, change: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, alpha: Tensor, by: Tensor
) -> Tensor:
    """Apply `change` to the rows where `where` is True, computing those alone. where, by (b); x (b, c, h, w)."""
    rows = where.nonzero()[:, 0]
    return x.index_copy(0, rows, change(x[rows], alpha[rows], by[rows].view(-1, 1, 1, 1))) if len(rows) else x


def _move(x: Tensor, flip: Tensor, uniform: Uniform, side: int) -> Tensor:
    """Rotate, shear, stretch, scale and shift; what lies outside the image is transparent."""
    bell = (uniform(-1, 1) + uniform(-1, 1) + uniform(-1, 1)) / 3
    angle, shear = bell * math.radians(40), uniform(-0.12, 0.12)
    size = uniform(0.6, 1.12)
    stretch = torch.exp(uniform(-0.15, 0.15))
    room = (1 - size).abs() + 0.12
    dx, dy = uniform(-1, 1) * room, uniform(-1, 1) * room
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    sign = torch.where(flip, -1.0, 1.0)
    a, b = cos * stretch * sign, (shear * cos - sin) / stretch
    c, d = sin * stretch * sign, (shear * sin + cos) / stretch
    theta = torch.stack([torch.stack([a, b, -(a * dx + b * dy)], 1), torch.stack([c, d, -(c * dx + d * dy)], 1)], 1)
    grid = F.affine_grid(theta, [len(x), 4, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _crop(x: Tensor, flip: Tensor, uniform: Uniform, side: int) -> Tensor:
    """Random resized crop (Szegedy et al. 2015): 0.4 to 1 of the area, 3:4 to 4:3, nowhere beyond the edges."""
    area, ratio = uniform(0.4, 1.0), torch.exp(uniform(-1, 1) * math.log(4 / 3))
    width, height = ((area * r).sqrt().clamp_max(1) for r in (ratio, 1 / ratio))
    left, top = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)  # of the crop's centre, from the middle
    zero, across = torch.zeros_like(area), torch.where(flip, -width, width)
    theta = torch.stack([torch.stack([across, zero, left], 1), torch.stack([zero, height, top], 1)], 1)
    grid = F.affine_grid(theta, [len(x), 3, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _relight(x: Tensor, uniform: Uniform) -> Tensor:
    """Hue, slightly, saturation (6 in 100 become grey), white balance, contrast and brightness."""
    hue = (uniform(-1, 1) + uniform(-1, 1)) * 0.06
    saturation = torch.where(uniform() < 0.06, torch.zeros_like(hue), uniform(0.7, 1.3))
    mixed = (_turn(hue, saturation) @ x.flatten(2)).view_as(x)
    warm, green = uniform(-0.1, 0.1), uniform(-0.05, 0.05)
    light = torch.stack([1 + warm, 1 + green, 1 - warm], 1) * uniform(0.75, 1.3)[:, None]
    contrast = uniform(0.75, 1.25).view(-1, 1, 1, 1)
    return ((mixed * light[:, :, None, None] - 0.5) * contrast + 0.5).clamp_(0, 1)


def _posterize(colour: Tensor, alpha: Tensor, levels: Tensor) -> Tensor:
    """Few levels per channel: flat colours instead of shading."""
    levels = levels.round()
    plain = colour / alpha.clamp_min(1e-3)
    return (plain * levels).round() / levels * alpha


def _recolour(colour: Tensor, alpha: Tensor, uniform: Uniform) -> Tensor:
    """Hue, saturation (8 in 100 become grey), contrast and brightness: one 3 x 3 matrix for each image."""
    hue = (uniform(-1, 1) + uniform(-1, 1)) * 0.3
    saturation = torch.where(uniform() < 0.08, torch.zeros_like(hue), uniform(0.5, 1.5))
    contrast, brightness = uniform(0.65, 1.35), uniform(-0.15, 0.15)
    matrix = _turn(hue, saturation) * contrast.view(-1, 1, 1)
    mixed = (matrix @ colour.flatten(2)).view_as(colour)
    shift = (0.5 - 0.5 * contrast + brightness).view(-1, 1, 1, 1)
    return torch.minimum((mixed + shift * alpha).clamp_min_(0), alpha)


def _turn(hue: Tensor, saturation: Tensor) -> Tensor:
    """The matrices (b, 3, 3) that turn the hue of RGB by an angle (b) and multiply its saturation by a factor (b)."""
    cos, sin = torch.cos(hue) * saturation, torch.sin(hue) * saturation
    zero, one = torch.zeros_like(hue), torch.ones_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    return torch.linalg.inv(TO_YIQ) @ turn @ TO_YIQ


def _edges(colour: Tensor, alpha: Tensor, strength: Tensor) -> Tensor:
    """Dark lines where colours meet, as a pen would draw them."""
    grey = (colour * LUMA).sum(dim=1, keepdim=True) / alpha.clamp_min(1e-3)
    high, low = F.max_pool2d(grey, 3, 1, 1), -F.max_pool2d(-grey, 3, 1, 1)
    return colour * (1 - ((high - low - 0.12) * strength).clamp(0, 1))


def _outline(colour: Tensor, alpha: Tensor, uniform: Uniform) -> tuple[Tensor, Tensor]:
    """A dark outline, one or two pixels wide, around three images in ten. Returns colour and alpha with it."""
    rows = (uniform() < 0.3).nonzero()[:, 0]
    thick, ink = uniform()[rows] < 0.4, uniform(0.0, 0.25)[rows]
    inside = alpha[rows]
    rim = F.max_pool2d(inside, 3, 1, 1)
    wide = thick.nonzero()[:, 0]
    rim = rim.index_copy(0, wide, F.max_pool2d(rim[wide], 3, 1, 1))
    drawn = colour[rows] + (rim - inside).clamp_min(0) * ink.view(-1, 1, 1, 1)
    return colour.index_copy(0, rows, drawn), alpha.index_copy(0, rows, rim)


def _background(noise: Tensor, uniform: Uniform, side: int) -> Tensor:
    """Backgrounds (b, 3, side, side): white for half of the images, one colour, a gradient, or smooth noise."""
    kind = uniform().view(-1, 1, 1, 1)
    single = noise[:, :, :1, :1].expand(-1, -1, 2, 2)
    corners = torch.where(kind < 0.5, torch.ones_like(single), torch.where(kind < 0.75, single, noise[:, :, 1:3, 1:3]))
    smooth = F.interpolate(corners, (side, side), mode="bilinear", align_corners=True)
    rows = (kind.flatten() > 0.9).nonzero()[:, 0]
    blotches = F.interpolate(noise[rows], (side, side), mode="bilinear", align_corners=True)
    return smooth.index_copy(0, rows, blotches)


def _blur(x: Tensor, alpha: Tensor, amount: Tensor) -> Tensor:
    """Towards the mean of each pixel's neighbourhood."""
    return torch.lerp(x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), amount)


def _erase(x: Tensor, uniform: Uniform) -> Tensor:
    """Random erasing (Zhong et al. 2020): a rectangle of one grey over a quarter of the images."""
    side = x.shape[-1]
    rows = (uniform() < 0.25).nonzero()[:, 0]
    top, left, height, width = uniform(0, 0.8), uniform(0, 0.8), uniform(0.1, 0.35), uniform(0.1, 0.35)
    grey = uniform()
    line = torch.arange(side) / side
    down = (line >= top[rows, None]) & (line < (top + height)[rows, None])
    across = (line >= left[rows, None]) & (line < (left + width)[rows, None])
    inside = (down[:, :, None] & across[:, None, :])[:, None]
    return x.index_copy(0, rows, torch.where(inside, grey[rows].view(-1, 1, 1, 1), x[rows]))
