"""A checkpoint's image processor: from image sources to `pixel_values`, as its preprocessor_config.json says.

Open, to RGB, resize, center crop: these keep 8-bit pixels and are exact. Rescale, normalize: a table of 256 numbers per
channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minclip.errors import ConfigError, ImageError
from minclip.files import json_bytes, read_json, write_together
from minclip.images.arrays import channels_last, check_layout, float_pixels, is_array, to_array
from minclip.images.crop import ROUNDINGS, center_crop
from minclip.images.fields import edges, number, per_channel, shown
from minclip.images.opening import ImageSource, decoding, is_batch, name_of, open_image
from minclip.images.resize import resize_picture, resized_size
from minclip.images.rgb import to_rgb
from minclip.images.sizes import check_affordable, check_same_size, stack

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, repr=False)
class ImageProcessor:
    """The steps from image sources to `pixel_values`, with the fields of a preprocessor_config.json. Defaults: CLIP's.

    size: {"shortest_edge": s} or {"height": h, "width": w}; a single number is a shortest edge.
    crop_size: {"height": h, "width": w}; a single number is a square.
    resample: Pillow's number, see minclip.images.resize. do_convert_rgb: where false, pictures must be RGB already.
    rescale_factor, image_mean, image_std: (pixel * rescale_factor - mean) / std, per channel.
    crop_rounding: "floor" or "half_even", see minclip.images.crop; not Transformers', saved only if not "floor".
    draft: decode JPEG files at 1/2, 1/4 or 1/8 of their size where that is not below `size`: faster, other pixels (see
    `Model.encode_image`); not Transformers', saved only if true. PIL images and arrays are there already.
    extra: fields of the file that are unknown here, kept for saving.
    Raises ConfigError naming the field for a value that cannot be.
    """

    do_resize: bool = True
    size: dict[str, int] = field(default_factory=lambda: {"shortest_edge": 224})
    resample: int = 3
    do_center_crop: bool = True
    crop_size: dict[str, int] = field(default_factory=lambda: {"height": 224, "width": 224})
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD
    do_convert_rgb: bool = True
    crop_rounding: str = "floor"
    draft: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = {
            "size": edges("size", self.size, ("shortest_edge",)),
            "crop_size": edges("crop_size", self.crop_size, ("height", "width")),
            "rescale_factor": number("rescale_factor", self.rescale_factor, positive=True),
            "image_mean": per_channel("image_mean", self.image_mean),
            "image_std": per_channel("image_std", self.image_std, positive=True),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the one moment at which a frozen dataclass is set
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "draft"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {shown(getattr(self, name))}, expected true or false")
        if self.resample not in range(6) or isinstance(self.resample, bool):
            raise ConfigError(f"resample is {shown(self.resample)}, expected a number from 0 to 5 (3 is bicubic)")
        object.__setattr__(self, "resample", int(self.resample))  # an enum of Pillow's, perhaps
        if self.crop_rounding not in ROUNDINGS:
            raise ConfigError(f"crop_rounding is {shown(self.crop_rounding)}, expected {' or '.join(ROUNDINGS)}")
        with np.errstate(all="ignore"):
            if not np.isfinite(self._table()).all():
                raise ConfigError("rescale_factor, image_mean and image_std give pixel values that float32 cannot hold")

    def __repr__(self) -> str:
        size, crop = ("x".join(map(str, edge.values())) for edge in (self.size, self.crop_size))
        shortest = "shortest edge to " if "shortest_edge" in self.size else ""
        steps = {
            "draft": self.draft,
            "RGB": self.do_convert_rgb,
            f"{shortest}{size} {Image.Resampling(self.resample).name.lower()}": self.do_resize,
            f"center crop {crop}": self.do_center_crop,
            "rescale": self.do_rescale,
            "normalize": self.do_normalize,
        }
        return f"<minclip.ImageProcessor {', '.join(step for step, done in steps.items() if done)}>"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImageProcessor:
        """From the content of a preprocessor_config.json, old or new. A field that is null has its default."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"an image processor is a JSON object, not {shown(data)}")
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        types = {"image_processor_type", "feature_extractor_type"}  # to_dict writes its own
        given = {name: value for name, value in data.items() if name in known and value is not None}
        return cls(**given, extra={name: value for name, value in data.items() if name not in known | types})

    @classmethod
    def from_folder(cls, folder: str | Path) -> ImageProcessor:
        """From processor_config.json where that has an image processor in it, else from preprocessor_config.json.

        Transformers 5 writes the first when it saves a whole processor, and prefers it, too, when it reads.
        """
        path = Path(folder) / "processor_config.json"
        data = read_json(path, ConfigError).get("image_processor") if path.is_file() else None
        if data is None:
            path = Path(folder) / "preprocessor_config.json"
            if not path.is_file():
                raise ConfigError(f"{folder} has no preprocessor_config.json; copy it from the checkpoint's origin")
            data = read_json(path, ConfigError)
        try:
            return cls.from_dict(data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json, which Transformers reads as the same processor."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        if self.crop_rounding == "floor":
            del fields["crop_rounding"]
        if not self.draft:
            del fields["draft"]
        lists = {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return {**self.extra, **fields, **lists, "image_processor_type": "CLIPImageProcessor"}

    def files(self, folder: str | Path) -> dict[str, bytes]:
        """Name and content of what `save` writes into a folder: preprocessor_config.json, and the folder's own
        processor_config.json with this image processor, if it has one with an image processor, which would outrank it.
        """
        files = {"preprocessor_config.json": json_bytes(self.to_dict())}
        whole = Path(folder) / "processor_config.json"
        if whole.is_file() and "image_processor" in (data := read_json(whole, ConfigError)):
            files[whole.name] = json_bytes({**data, "image_processor": self.to_dict()})
        return files

    def save(self, folder: str | Path) -> None:
        """Write `files` into a folder, all of them or none."""
        write_together(folder, self.files(folder))

    def replace(self, **overrides: Any) -> ImageProcessor:
        """The same processor with other values in some fields, checked as any others."""
        known = [f.name for f in dataclasses.fields(self)]
        if unknown := overrides.keys() - known:
            raise TypeError(f"{min(unknown)!r} is no field of ImageProcessor; there are {', '.join(known)}")
        return dataclasses.replace(self, **overrides) if overrides else self

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        input_data_format: str | None = None,
        **overrides: Any,
    ) -> np.ndarray:
        """One image source, or a list of them, to pixel_values float32 (b, 3, h, w).

        input_data_format: "channels_first" or "channels_last", for arrays that can be read as either. overrides:
        fields, for this call. With do_rescale=False arrays of floats in 0..1 are taken, too, and stay in 0..1 before
        they are normalized; to be resized they are rounded to bytes, as everything is that a model was trained on.
        """
        check_layout(input_data_format)
        processor = self.replace(**overrides)
        rows = for_each(images, lambda source: processor._bytes_or_floats(source, input_data_format))
        check_same_size([row.shape for row in rows])
        if len({row.dtype for row in rows}) == 1:
            return processor.normalize(np.stack(rows))
        return np.concatenate([processor.normalize(row[None]) for row in rows])

    def batch(self, images: ImageSource | Sequence[ImageSource]) -> np.ndarray:
        """`pixels` of one image source or of each in a list (or array (b, ...)): uint8 (b, h, w, 3).

        Raises ImageError for an empty list, for sizes that differ, and, with its index, for the first bad image.
        """
        return stack(for_each(images, self.pixels))

    def pixels(self, image: ImageSource, input_data_format: str | None = None) -> np.ndarray:
        """Open, to RGB, resize, center crop: uint8 (h, w, 3)."""
        return self.resize_and_crop(self.picture(image, input_data_format))

    def picture(self, image: ImageSource, input_data_format: str | None = None) -> Image.Image:
        """Open, to RGB. Raises ImageError also where the steps to come would make a picture beyond Pillow's limit."""
        name = name_of(image)
        drafted = self.draft and self.do_resize
        picture = open_image(image, input_data_format, partial(resized_size, self.size) if drafted else None)
        if self.do_convert_rgb:
            with decoding(f"{name} cannot be converted to RGB"):
                picture = to_rgb(picture, name)
        elif picture.mode != "RGB":
            raise ImageError(f"{name} is of mode {picture.mode}, expected RGB; turn do_convert_rgb on")
        self._check_affordable(picture.height, picture.width, name)
        return picture

    def resize_and_crop(self, picture: Image.Image) -> np.ndarray:
        """An RGB picture, as `picture` gives it, to uint8 (h, w, 3)."""
        if self.do_resize:
            size = resized_size(self.size, picture.height, picture.width)
            picture = resize_picture(picture, size, self.resample)
        return self._crop(np.asarray(picture))  # (h, w, 3)

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Rescale and normalize: uint8 (b, h, w, 3), or without do_rescale float32, -> float32 (b, 3, h, w).

        A byte has 256 values: the arithmetic is done on those, in the precisions of Transformers, and looked up.
        """
        accepted = (np.uint8,) if self.do_rescale else (np.uint8, np.float32)
        if pixels.dtype not in accepted or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise ImageError(f"pixels are {pixels.dtype} of shape {pixels.shape}, expected uint8 (b, h, w, 3)")
        if pixels.dtype == np.float32:
            floats = np.moveaxis(pixels, -1, 0).reshape(3, -1)  # (3, b * h * w)
            return np.moveaxis(self._normalized(floats).reshape(3, *pixels.shape[:3]), 0, 1).copy()
        table = self._table()
        values = np.empty((len(pixels), 3, *pixels.shape[1:3]), dtype=np.float32)
        for image, planes in zip(pixels, values, strict=True):
            for channel in range(3):  # mode="clip" skips a check that uint8 cannot fail
                np.take(table[channel], image[..., channel], out=planes[channel], mode="clip")
        return values

    def _table(self) -> np.ndarray:
        """What each of the 256 values of a byte becomes, per channel: float32 (3, 256)."""
        levels = np.arange(256) * (self.rescale_factor if self.do_rescale else 1.0)
        return self._normalized(np.tile(levels.astype(np.float32), (3, 1)))

    def _normalized(self, values: np.ndarray) -> np.ndarray:
        """float32 (3, n) -> (3, n)"""
        if not self.do_normalize:
            return values
        mean, std = (np.array(v, dtype=np.float32)[:, None] for v in (self.image_mean, self.image_std))
        return (values - mean) / std

    def _bytes_or_floats(self, image: ImageSource, input_data_format: str | None) -> np.ndarray:
        """`pixels`; of an array of floats, which stands in 0..1 already, the same as float32 (h, w, 3) in 0..1."""
        array = to_array(image) if is_array(image) and not self.do_rescale else None
        if array is None or array.dtype.kind != "f":
            return self.pixels(image, input_data_format)
        if not self.do_convert_rgb and channels_last(array, input_data_format).shape[2] != 3:
            raise ImageError(f"image array of shape {array.shape} is not RGB; turn do_convert_rgb on")
        floats = float_pixels(array, input_data_format)
        self._check_affordable(floats.shape[0], floats.shape[1], name_of(image))
        if not self.do_resize:
            return self._crop(floats)
        rounded = Image.fromarray(np.rint(floats * 255).astype(np.uint8))
        return (self.resize_and_crop(rounded) * (1 / 255)).astype(np.float32)

    def _crop(self, pixels: np.ndarray) -> np.ndarray:
        if not self.do_center_crop:
            return pixels
        return center_crop(pixels, (self.crop_size["height"], self.crop_size["width"]), self.crop_rounding)

    def _check_affordable(self, height: int, width: int, name: str) -> None:
        if self.do_resize:
            out_height, out_width = resized_size(self.size, height, width)
            tallest = max(height, out_height)  # between the two passes
            check_affordable(tallest, out_width, f"{name}: resizing {width}x{height}")
        if self.do_center_crop:
            check_affordable(self.crop_size["height"], self.crop_size["width"], f"{name}: cropping")


def for_each(
    images: ImageSource | Sequence[ImageSource], read: Callable[[ImageSource], np.ndarray]
) -> list[np.ndarray]:
    """What `read` makes of one image source or of each of a batch.

    Raises ImageError for an empty batch and, with its index, for the first bad image.
    """
    many = is_batch(images)
    sources: Sequence[Any] = images if many else [images]  # type: ignore[assignment]
    if len(sources) == 0:
        raise ImageError("images is empty; pass at least one image")
    rows = []
    for i, source in enumerate(sources):
        try:
            rows.append(read(source))
        except ImageError as error:
            raise ImageError(f"images[{i}]: {error}" if many else str(error)) from error
    return rows
