"""From a picture to `pixel_values`: open, to RGB, resize, center crop, rescale, normalize.

The first four steps keep 8-bit pixels and are exact; the last two are a table of 256 numbers per channel. Which steps
are done, and to which size, stands in the checkpoint's `preprocessor_config.json`, read by `ImageProcessor`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from minclip.errors import ConfigError, ImageError
from minclip.images.resize import resize_picture, resized_size

ImageSource: TypeAlias = str | os.PathLike[str] | IO[bytes] | Image.Image | np.ndarray

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def open_image(source: ImageSource) -> Image.Image:
    """The picture behind a path, a binary file object, a PIL.Image or a uint8 array, decoded, in its own mode.

    Paths and file objects are turned upright by their EXIF orientation; of an animation the first frame is taken. A
    PIL.Image is taken as it stands. Arrays: see `array_picture`. Files are closed, file objects left open.
    Raises ImageError for a file that is missing, no image, damaged, or larger than Pillow's limit.
    """
    if isinstance(source, Image.Image):
        return loaded(source, name_of(source))
    if isinstance(source, str | os.PathLike):
        try:
            file = open(source, "rb")  # noqa: SIM115 - closed below; a file not there is not a file not read
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"cannot open image {source}: {reason}; expected the path of an image file") from error
        with file:
            return decode(file, name_of(source))
    if isinstance(source, io.TextIOBase):
        raise ImageError(f"{name_of(source)} is open as text; open it with mode 'rb'")
    if hasattr(source, "__array__"):
        return array_picture(np.asarray(source))
    if hasattr(source, "read"):
        return decode(source, name_of(source))
    raise ImageError(
        f"an image must be a path, a binary file object, a PIL.Image or an array, not {type(source).__name__}"
    )


def name_of(source: Any) -> str:
    """What errors call an image: the path of its file, where there is one."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", "") or getattr(source, "filename", "") or f"{type(source).__name__} object")


def decode(file: IO[bytes], name: str) -> Image.Image:
    """The first picture in a binary file, all of it, upright."""
    try:
        # Reads the header only, and refuses there what has more than twice Image.MAX_IMAGE_PIXELS.
        picture: Image.Image = Image.open(file)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image, or of a format that this Pillow cannot read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name} is too large: {one_line(error)} Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except Exception as error:  # a decoder that is fed a damaged file raises anything
        raise ImageError(f"{name} cannot be read as an image: {one_line(error)}") from error
    picture = loaded(picture, name)
    with contextlib.suppress(Exception):  # broken EXIF tells no orientation, and the pixels are sound
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def loaded(picture: Image.Image, name: str) -> Image.Image:
    """The same picture, surely decoded and not empty. (Never with `draft`, which lets JPEG decode other pixels.)"""
    if 0 in picture.size:
        raise ImageError(f"{name} has no pixels: its size is {picture.width}x{picture.height}")
    try:
        picture.load()
    except Exception as error:  # as in decode
        raise ImageError(f"{name} is damaged, its pixels cannot be decoded: {one_line(error)}") from error
    return picture


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def array_picture(array: np.ndarray) -> Image.Image:
    """uint8 (h, w), (h, w, 1|3|4) or (1|3|4, h, w), as a grey, RGB or RGBA picture.

    Where both readings fit, as for (3, 5, 3), the channels are last: so an array means the same as the picture that it
    was made from, whatever its size. (Transformers takes them to be first.)
    """
    if array.dtype != np.uint8:
        nan = "contains NaN and " if array.dtype.kind == "f" and np.isnan(array).any() else ""
        way_out = {
            "f": "if it runs from 0 to 1, pass (array * 255).round().astype('uint8')",
            "b": "pass array.astype('uint8') * 255",
            "u": "if it runs to 65535, pass (array >> 8).astype('uint8')",
        }.get(array.dtype.kind, "if it runs from 0 to 255, pass array.astype('uint8')")
        raise ImageError(f"image array of shape {array.shape} {nan}is {array.dtype}, expected uint8; {way_out}")
    if array.size == 0:
        raise ImageError(f"image array of shape {array.shape} has no pixels")
    channels = (1, 3, 4)
    if array.ndim == 3 and array.shape[-1] not in channels and array.shape[0] in channels:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[-1] not in channels):
        raise ImageError(f"image array has shape {array.shape}, expected (h, w), (h, w, 3|4) or (3, h, w)")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def to_rgb(picture: Image.Image, name: str = "picture") -> Image.Image:
    """The picture in RGB, as one sees it. name: what an error calls it.

    Transparency is laid over white, as Transformers does in version 5; older ones and the training code dropped the
    alpha channel, which brings to light whatever colour hid there. 16-bit grey, mode I included, keeps its high byte,
    as Pillow does for 16-bit colour; Pillow's own conversion of grey turns all above level 255 of 65535 white.
    Raises ImageError for mode F, whose range is anybody's guess, and for a mode I picture beyond 16 bits.
    """
    if picture.mode == "F":
        raise ImageError(f"{name} is of mode F, which has no defined range; scale it to 0..255 and pass it as uint8")
    if picture.mode.startswith("I"):
        grey = np.asarray(picture)  # (h, w)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            found = f"mode {picture.mode} from {grey.min()} to {grey.max()}"
            raise ImageError(f"{name} is of {found}, expected 0..65535; scale it to 0..255 and pass it as uint8")
        picture = Image.fromarray((grey >> 8).astype(np.uint8))
    if picture.mode == "La":  # premultiplied; Pillow knows one way out of it
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def center_crop(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of uint8 (h, w, c), as (*size, c); zeros around it where it is too small.

    The offset is half the difference, rounded down, also where it is negative.
    """
    (height, width), (out_height, out_width) = pixels.shape[:2], size
    top, left = (height - out_height) // 2, (width - out_width) // 2
    inside = pixels[max(top, 0) : top + out_height, max(left, 0) : left + out_width]
    if inside.shape[:2] == size:
        return inside
    padded = np.zeros((*size, pixels.shape[2]), dtype=pixels.dtype)
    y, x = max(-top, 0), max(-left, 0)
    padded[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return padded


def check_affordable(height: int, width: int, what: str) -> None:
    """A strip of 1 x 30000 pixels, resized to a short edge of 224, would fill gigabytes: Pillow's limit holds there."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise ImageError(
            f"{what} to {width}x{height} exceeds {2 * limit} pixels; crop it, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def check_same_size(shapes: Sequence[Sequence[int]]) -> None:
    """Raises ImageError where pictures (h, w, c) of one batch differ in size."""
    if len(sizes := {tuple(shape[:2]) for shape in shapes}) > 1:
        found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:5])
        raise ImageError(f"images differ in size (height x width: {found}); turn do_resize and do_center_crop on")


def is_batch(images: object) -> bool:
    """Whether this is many images: a list, a tuple, or an array (b, ...)."""
    return isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4


def stack(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Pixels (h, w, 3) of one size as one array (b, h, w, 3). Raises ImageError where they differ."""
    check_same_size([row.shape for row in pixels])
    return np.stack(pixels)


@dataclass(frozen=True)
class ImageProcessor:
    """What a checkpoint's `preprocessor_config.json` says, and the doing of it. The defaults are CLIP's.

    size: {"shortest_edge": s} or {"height": h, "width": w}; a single number is a shortest edge.
    crop_size: {"height": h, "width": w}; a single number is a square.
    resample: Pillow's number, see minclip.images.resize. do_convert_rgb: where false, pictures must be RGB already.
    rescale_factor, image_mean, image_std: (pixel * rescale_factor - mean) / std, per channel.
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
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected true or false")
        if self.resample not in range(6) or isinstance(self.resample, bool):
            raise ConfigError(f"resample is {self.resample!r}, expected a number from 0 to 5 (3 is bicubic)")
        object.__setattr__(self, "resample", int(self.resample))  # an enum of Pillow's, perhaps

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImageProcessor:
        """From the content of a preprocessor_config.json, old or new. A field that is null has its default."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"an image processor is a JSON object, not {data!r:.40}")
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
        data = read_json(path).get("image_processor") if path.is_file() else None
        if data is None:
            path = Path(folder) / "preprocessor_config.json"
            if not path.is_file():
                raise ConfigError(f"{folder} has no preprocessor_config.json; copy it from the checkpoint's origin")
            data = read_json(path)
        try:
            return cls.from_dict(data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json, which Transformers reads as the same processor."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        lists = {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return {**self.extra, **fields, **lists, "image_processor_type": "CLIPImageProcessor"}

    def save(self, folder: str | Path) -> None:
        """Write preprocessor_config.json, and the same into the folder's processor_config.json, if that outranks it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "preprocessor_config.json", self.to_dict())
        whole = folder / "processor_config.json"
        if whole.is_file() and "image_processor" in (data := read_json(whole)):
            write_json(whole, {**data, "image_processor": self.to_dict()})

    def replace(self, **overrides: Any) -> ImageProcessor:
        """The same processor with other values in some fields, checked as any others."""
        known = [f.name for f in dataclasses.fields(self)]
        if unknown := overrides.keys() - known:
            raise TypeError(f"{min(unknown)!r} is no field of ImageProcessor; there are {', '.join(known)}")
        return dataclasses.replace(self, **overrides) if overrides else self

    def __call__(self, images: ImageSource | Sequence[ImageSource], **overrides: Any) -> np.ndarray:
        """One image, or a list of them, to pixel_values float32 (b, 3, h, w). overrides: fields, for this call."""
        processor = self.replace(**overrides)
        return processor.normalize(processor.batch(images))

    def batch(self, images: ImageSource | Sequence[ImageSource]) -> np.ndarray:
        """`pixels` of one image or of each in a list (or array (b, ...)): uint8 (b, h, w, 3).

        Raises ImageError for an empty list, for sizes that differ, and, with its index, for the first bad image.
        """
        many = is_batch(images)
        sources: Sequence[Any] = images if many else [images]  # type: ignore[assignment]
        if len(sources) == 0:
            raise ImageError("images is empty; pass at least one image")
        rows = []
        for i, source in enumerate(sources):
            try:
                rows.append(self.pixels(source))
            except ImageError as error:
                raise ImageError(f"images[{i}]: {error}" if many else str(error)) from error
        return stack(rows)

    def picture(self, image: ImageSource) -> Image.Image:
        """Open, to RGB. Raises ImageError also where the steps to come would make a picture beyond Pillow's limit."""
        picture, name = open_image(image), name_of(image)
        if self.do_convert_rgb:
            picture = to_rgb(picture, name)
        elif picture.mode != "RGB":
            raise ImageError(f"{name} is of mode {picture.mode}, expected RGB; turn do_convert_rgb on")
        if self.do_resize:
            height, width = resized_size(self.size, picture.height, picture.width)
            tallest = max(height, picture.height)  # between the two passes
            check_affordable(tallest, width, f"{name}: resizing {picture.width}x{picture.height}")
        if self.do_center_crop:
            check_affordable(self.crop_size["height"], self.crop_size["width"], f"{name}: cropping")
        return picture

    def pixels(self, image: ImageSource) -> np.ndarray:
        """Open, to RGB, resize, center crop: uint8 (h, w, 3)."""
        picture = self.picture(image)
        if self.do_resize:
            size = resized_size(self.size, picture.height, picture.width)
            picture = resize_picture(picture, size, self.resample)
        pixels = np.asarray(picture)  # (h, w, 3)
        if self.do_center_crop:
            pixels = center_crop(pixels, (self.crop_size["height"], self.crop_size["width"]))
        return pixels

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Rescale and normalize: uint8 (b, h, w, 3) -> float32 (b, 3, h, w).

        A pixel has 256 values: the arithmetic is done on those, in the precisions of Transformers, and looked up.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise ImageError(f"pixels are {pixels.dtype} of shape {pixels.shape}, expected uint8 (b, h, w, 3)")
        levels = np.arange(256) * (self.rescale_factor if self.do_rescale else 1.0)
        table = np.tile(levels.astype(np.float32), (3, 1))  # (3, 256)
        if self.do_normalize:
            mean, std = (np.array(v, dtype=np.float32)[:, None] for v in (self.image_mean, self.image_std))
            table = (table - mean) / std
        values = np.empty((len(pixels), 3, *pixels.shape[1:3]), dtype=np.float32)
        for image, planes in zip(pixels, values, strict=True):
            for channel in range(3):  # mode="clip" skips a check that uint8 cannot fail
                np.take(table[channel], image[..., channel], out=planes[channel], mode="clip")
        return values


def edges(name: str, value: Any, lone: tuple[str, ...]) -> dict[str, int]:
    """A size field in full. lone: the keys that a single number stands for."""
    if isinstance(value, Integral):
        value = dict.fromkeys(lone, value)
    forms = [("height", "width"), lone]
    full = {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else {}
    if tuple(sorted(full)) not in forms:
        expected = " or ".join(" and ".join(keys) for keys in dict.fromkeys(forms))
        raise ConfigError(f"{name} is {value!r}, expected {expected}")
    if not all(isinstance(v, Integral) and not isinstance(v, bool) and int(v) >= 1 for v in full.values()):
        raise ConfigError(f"{name} is {value!r}, expected whole numbers of pixels, at least 1")
    return {key: int(edge) for key, edge in full.items()}


def per_channel(name: str, value: Any, *, positive: bool = False) -> tuple[float, ...]:
    """Three numbers; a single one stands for all channels."""
    values = value if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise ConfigError(f"{name} has {len(values)} numbers, expected 3: red, green, blue")
    return tuple(number(name, v, positive=positive) for v in values)


def number(name: str, value: Any, *, positive: bool = False) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or (positive and value <= 0):
        raise ConfigError(f"{name} has {value!r}, expected a finite number{' above 0' if positive else ''}")
    return float(value)


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
