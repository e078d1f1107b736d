"""Pictures of bytes to `pixel_values` on the device: resize, crop and normalize, with the bytes of `minclip.images`.

The resize is the reference's: horizontal pass first, weights with 22 fractional bits, rounded to 8 bits in between.
Its sums are whole numbers below 2^53, so that a float64 matrix product computes them exactly, whatever the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minclip.images import ImageProcessor, check_same_size
from minclip.images.crop import crop_start
from minclip.images.resize import FRACTION_BITS, filter_bank, resized_size


def upload(pixels: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Pictures of one size (h, w, 3) as a uint8 tensor (b, h, w, 3) on the device.

    Towards CUDA through page-locked memory, without waiting for the copy to end.
    """
    check_same_size([picture.shape for picture in pixels])
    pinned = device.type == "cuda"
    batch = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=pinned)
    np.stack(pixels, out=batch.numpy())
    return batch.to(device, non_blocking=pinned)


AT_ONCE = 1 << 24  # pixels resized in one go: in float64 their channels take 400 MB of the device


@lru_cache(maxsize=32)
def resize_matrix(n_in: int, n_out: int, resample: int, device: torch.device) -> Tensor:
    """One pass as a matrix (n_out, n_in), float64, in units of 2^-22."""
    starts, weights = filter_bank(n_in, n_out, resample)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out)[:, None], starts[:, None] + np.arange(weights.shape[1])), weights)
    return torch.from_numpy(matrix).to(device)


def resize(pixels: Tensor, size: tuple[int, int], resample: int) -> Tensor:
    """uint8 (b, h, w, c) -> uint8 (b, *size, c): bit for bit `minclip.images.resize.resize` of each."""
    height, width = size
    x = pixels
    if x.shape[2] != width:
        x = _rounded(torch.einsum("ow,bhwc->bhoc", resize_matrix(x.shape[2], width, resample, x.device), x.double()))
    if x.shape[1] != height:
        x = _rounded(torch.einsum("oh,bhwc->bowc", resize_matrix(x.shape[1], height, resample, x.device), x.double()))
    return x


def _rounded(sums: Tensor) -> Tensor:
    """Fixed-point sums to bytes: half up, clipped."""
    return ((sums + 2 ** (FRACTION_BITS - 1)) / 2**FRACTION_BITS).floor_().clamp_(0, 255).to(torch.uint8)


def resize_and_crop(pixels: Sequence[np.ndarray], processor: ImageProcessor, device: torch.device) -> Tensor:
    """Pictures of mixed sizes (h, w, 3) -> uint8 (b, h', w', 3), those of one size together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pixels):
        groups.setdefault(picture.shape, []).append(i)
    done: list[Tensor | None] = [None] * len(pixels)
    for (height, width, _), members in groups.items():
        at_once = max(1, AT_ONCE // (height * width))
        for part in (members[i : i + at_once] for i in range(0, len(members), at_once)):
            batch = upload([pixels[i] for i in part], device)
            if processor.do_resize:
                batch = resize(batch, resized_size(processor.size, height, width), processor.resample)
            if processor.do_center_crop:
                batch = center_crop(batch, processor)
            for i, picture in zip(part, batch, strict=True):
                done[i] = picture
    finished = [picture for picture in done if picture is not None]
    check_same_size([tuple(picture.shape) for picture in finished])
    return torch.stack(finished)


def center_crop(pixels: Tensor, processor: ImageProcessor) -> Tensor:
    """(b, h, w, c) -> (b, *crop_size, c): the middle, padded with zeros where it is too small."""
    height, width = processor.crop_size["height"], processor.crop_size["width"]
    top = crop_start(pixels.shape[1], height, processor.crop_rounding)
    left = crop_start(pixels.shape[2], width, processor.crop_rounding)
    bottom, right = pixels.shape[1] - height - top, pixels.shape[2] - width - left
    return F.pad(pixels, (0, 0, -left, -right, -top, -bottom))  # negative padding cuts


def normalize(pixels: Tensor, processor: ImageProcessor, dtype: torch.dtype) -> Tensor:
    """uint8 (b, h, w, 3) -> (b, 3, h, w): rescale and normalize, in float32, then `dtype`."""
    x = pixels.permute(0, 3, 1, 2).float()
    if processor.do_rescale:
        x *= processor.rescale_factor
    if processor.do_normalize:
        mean, std = (
            torch.tensor(v, device=x.device).view(3, 1, 1) for v in (processor.image_mean, processor.image_std)
        )
        x -= mean
        x /= std
    return x.to(dtype)
