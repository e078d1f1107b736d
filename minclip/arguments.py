"""Named arguments that overloads share: written out once in the function itself, and here for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

from numpy.typing import ArrayLike

from minclip.errors import ImageError


class ModelInputs(TypedDict, total=False):
    """Of `Model.__call__`, but for labels."""

    input_ids: ArrayLike | None
    pixel_values: ArrayLike | None
    attention_mask: ArrayLike | None
    position_ids: ArrayLike | None
    token_type_ids: ArrayLike | None
    inputs_embeds: ArrayLike | None
    head_mask: ArrayLike | None
    interpolate_pos_encoding: bool
    return_loss: bool
    output_hidden_states: bool
    output_attentions: bool


class EncodeImageOptions(TypedDict, total=False):
    """Of `Model.encode_image`, but for native."""

    batch_size: int
    progress: bool
    workers: int | None
    resize_on_device: bool
    draft: bool
    on_error: Callable[[int, ImageError], None] | None


class RankingOptions(TypedDict, total=False):
    """Of every zero_shot."""

    template: str | Sequence[str] | None
    top_k: int | None


class ZeroShotOptions(RankingOptions, total=False):
    """Of `Model.zero_shot`."""

    batch_size: int


class LoadAndRankOptions(RankingOptions, total=False):
    """Of `minclip.zero_shot`, but for a Model in place of a name."""

    backend: str
    device: str | None
    dtype: str | None
