"""One safetensors file: eight bytes that say how long the header is, a JSON header, and the tensors one after another.

The header maps each name to a type, a shape and the place of its bytes. Reading maps the file into memory and hands out
views of it, so that a tensor nobody asks for never leaves the disk. The format's own library is not needed: what it
refuses is refused here, and the tests compare the two on damaged files.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minclip.errors import CheckpointError
from minclip.files import one_line, open_regular
from minclip.weights import BFLOAT16, widen

DTYPES: dict[str, np.dtype] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16}
STORED_AS = ("float32", "float16", "bfloat16")
LARGEST_HEADER = 100_000_000  # bytes, as the format says
MOST_AXES = 64  # of an array of NumPy's


# --- reading -------------------------------------------------------------------------------------------------------


def read_tensors(path: Path, skip: Callable[[str], bool] = lambda name: False) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as read-only views of its memory map; those that `skip` names are left out.

    A bfloat16 tensor comes as an array of `BFLOAT16`. Raises CheckpointError, naming the file, where it is absent or
    not a whole safetensors file, and naming the tensor, where its type is no floating type of 16 bits or more.
    """
    try:
        with open_regular(path) as file:  # a module trained on views of the copy-on-write map never writes the file
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        header, start = _header(mapping)
        _check_places(header, len(mapping) - start)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({one_line(error)}); download or save it again"
        ) from None
    data = np.frombuffer(mapping, np.uint8)[start:]
    data.flags.writeable = False
    tensors = {}
    for name, entry in header.items():
        if skip(name):
            continue
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(
                f"{path}: tensor {name} is stored as {entry['dtype']}, and minclip reads {', '.join(DTYPES)}; "
                "save the weights in one of these types"
            )
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def _header(mapping: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the data begins. Raises ValueError where it is none."""
    length = int.from_bytes(mapping[:8], "little")
    if length > min(LARGEST_HEADER, len(mapping) - 8):
        raise ValueError(f"its header of {length} bytes does not fit into {len(mapping)}")
    header = json.loads(mapping[8 : 8 + length].decode(), object_pairs_hook=_no_repeats)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not a JSON object of texts")
    return header, 8 + length


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ; the format's library lets a repeated name pass where the offsets agree."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        name.encode()  # raises a ValueError for half of a surrogate pair, which JSON can write
        if name in content:
            raise ValueError(f"{name} is in the header twice")
        content[name] = value
    return content


def _check_places(header: dict[str, Any], size: int) -> None:
    """Raises ValueError where the tensors do not cover the `size` bytes of the data one after the other, without gaps.

    A tensor of a type that minclip does not read may have any length.
    """
    for name, entry in header.items():
        if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{name:.80} has not a dtype, a shape and data_offsets")
        shape, place = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or not _are_counts(shape) or not _are_counts(place) or len(place) != 2:
            raise ValueError(f"{name:.80} has not a type's name, a list of lengths and two places")
        width = DTYPES[entry["dtype"]].itemsize if entry["dtype"] in DTYPES else 0
        if width and math.prod(shape) * width != place[1] - place[0]:
            raise ValueError(f"{name:.80} has shape {shape} and {place[1] - place[0]} bytes")
        if math.prod(filter(None, shape)) * width > sys.maxsize:  # with a 0 among them, but NumPy has no such array
            raise ValueError(f"{name:.80} has shape {shape}, which is too large")
    reached = 0
    for begin, end in sorted(entry["data_offsets"] for entry in header.values()):
        if begin != reached or end < begin:
            raise ValueError(f"a tensor begins at byte {begin} of the data, expected {reached}")
        reached = end
    if reached != size:
        raise ValueError(f"its tensors have {reached} bytes, the file {size}")


def _are_counts(value: Any) -> bool:
    """Whether a value of JSON is a list of whole numbers from 0, no more of them than an array has axes."""
    if not isinstance(value, list) or len(value) > MOST_AXES:
        return False
    return all(type(number) is int and 0 <= number < 1 << 63 for number in value)


# --- writing -------------------------------------------------------------------------------------------------------


def write_tensors(file: BinaryIO, tensors: Mapping[str, np.ndarray], dtype: str | None = None) -> None:
    """Write a safetensors file, each tensor converted to `dtype` (see `convert`) as it is written.

    The widest types come first, which keeps every tensor aligned to its own width. The metadata's `format: pt` is
    what Transformers asks for.
    """
    kinds = {kind: name for name, kind in DTYPES.items()}
    types = {name: _type_after(array.dtype, dtype) for name, array in tensors.items()}
    if foreign := sorted(name for name, kind in types.items() if kind not in kinds):
        raise CheckpointError(f"tensor {foreign[0]} is of type {types[foreign[0]]}; convert it to one of {STORED_AS}")
    order = sorted(tensors, key=lambda name: (-types[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].size * types[name].itemsize
        header[name] = {"dtype": kinds[types[name]], "shape": tensors[name].shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        try:
            array = convert(tensors[name], dtype)
        except FloatingPointError:
            raise CheckpointError(f"tensor {name} has numbers too large for {dtype}; save as bfloat16") from None
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def convert(array: np.ndarray, dtype: str | None) -> np.ndarray:
    """A tensor as float32, float16 or bfloat16 (in `BFLOAT16`), rounded to the nearest; None leaves it as it is.

    Raises FloatingPointError where a finite number has no finite neighbour in the new type.
    """
    if dtype is None or array.dtype == _type_after(array.dtype, dtype):
        return array
    with np.errstate(over="raise"):
        return round_to_bfloat16(widen(array)) if dtype == "bfloat16" else widen(array, dtype)


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 to `BFLOAT16`, ties to even: add half of what is cut off, less one where the kept part is even.

    What overflows becomes infinite, as IEEE 754 has it; a NaN stays one, made quiet.
    """
    bits = x.view(np.uint32)
    kept = bits >> 16
    kept &= 1
    kept += bits
    kept += 0x7FFF
    kept >>= 16
    return np.where(np.isnan(x), bits >> 16 | 0x40, kept).astype("<u2").view(BFLOAT16)


def _type_after(kind: np.dtype, dtype: str | None) -> np.dtype:
    """What `convert` makes of a tensor of type `kind`."""
    if dtype is None:
        return kind
    return BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
