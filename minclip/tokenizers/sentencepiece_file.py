"""The SentencePiece model file, read by hand.

The file is one protocol buffer message, `ModelProto` of sentencepiece_model.proto. By protobuf's encoding a message
is a row of fields; a field is a varint key, `number << 3 | wire type`, and a value: of wire type 0 a varint, of 1 eight
bytes, of 2 a length and as many bytes, of 5 four bytes.

    ModelProto  1 pieces (repeated: 1 piece, 2 score, 3 type)  2 trainer_spec   3 normalizer_spec   5 denormalizer_spec
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from minclip.errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class TrainerSpec:
    """What the model's user needs of the trainer's settings; defaults as in the .proto."""

    model_type: int = 1
    treat_whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    unk_surface: str = " \u2047 "


@dataclass
class NormalizerSpec:
    """How text is prepared; defaults as in the .proto. charsmap_offset: where the map starts in the file."""

    name: str = ""
    precompiled_charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    charsmap_offset: int = 0


_TRAINER_FIELDS = {3: "model_type", 24: "treat_whitespace_as_suffix", 35: "byte_fallback", 44: "unk_surface"}
_NORMALIZER_FIELDS = {
    1: "name",
    2: "precompiled_charsmap",
    3: "add_dummy_prefix",
    4: "remove_extra_whitespaces",
    5: "escape_whitespaces",
}


@dataclass
class ModelFile:
    """A parsed model file.

    pieces, scores (float32 values), types (one byte each) and offsets (byte position in the file) run in parallel; the
    place of a piece is its id. name: how errors call the file. fields: the numbers of those beside the pieces.
    """

    name: str
    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: bytes = b""
    offsets: list[int] = field(default_factory=list)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    normalizer: NormalizerSpec = field(default_factory=NormalizerSpec)
    denormalizer: NormalizerSpec | None = None
    fields: set[int] = field(default_factory=set)

    @property
    def has_settings(self) -> bool:
        """Whether the trainer's and the normalizer's settings are there, which a trainer writes behind the pieces."""
        return {2, 3} <= self.fields

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "model") -> ModelFile:
        """Parse the message. TokenizerError names the file and the byte where it stops to be one."""
        model = cls(name)
        _read_top_level(model, data)
        start, stop, scores, types = _read_pieces(model, data)
        model.types = types.tobytes()
        model.pieces = _decode_pieces(model, data, start, stop)
        if not np.isfinite(scores).all():
            model.fail(int(np.flatnonzero(~np.isfinite(scores))[0]), "has a score that is not a finite number")
        model.scores = scores.tolist()
        return model

    def fail(self, piece: int, what: str) -> NoReturn:
        """Refuse the file for what is wrong with one piece."""
        raise TokenizerError(f"{self.name}: byte {self.offsets[piece]}: piece {piece} {what}; get the file again")


def _broken(name: str, offset: int, what: str) -> TokenizerError:
    return TokenizerError(f"{name}: byte {offset}: {what}; this is no intact SentencePiece model, get the file again")


def _read_top_level(model: ModelFile, data: bytes) -> None:
    """Walk the file's fields: note where each piece is, which is nearly all of it, and read the others."""
    offsets, position, size = model.offsets, 0, len(data)
    while position < size:
        if data[position] != 0x0A:  # not a piece
            position = _read_other(model, data, position)
            continue
        start = position + 2
        if start <= size and data[start - 1] < 0x80:
            stop = start + data[start - 1]
        else:
            length, start = _varint(model.name, data, position + 1, size)
            stop = start + length
        if stop > size:
            raise _broken(model.name, position, f"a piece of {stop - start} bytes runs past the end of the file")
        offsets.append(position)
        position = stop
    if not offsets:
        raise _broken(model.name, size, "the file ends without a single piece")


def _read_pieces(model: ModelFile, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the texts of all pieces start and stop in the file, their scores (float32) and types (uint8); each (n,).

    Nearly all have the shape that the trainer writes, and are read at once: 0A length 0A length text 15 score.
    """
    content, at = np.frombuffer(data, np.uint8), np.array(model.offsets)

    def bytes_at(places: np.ndarray) -> np.ndarray:  # places beyond the end are of pieces of another shape
        return content.take(places, mode="clip")

    length, text_length = bytes_at(at + 1).astype(int), bytes_at(at + 3).astype(int)
    start = at + 4
    stop = start + text_length
    usual = (length < 0x80) & (length == text_length + 7) & (bytes_at(at + 2) == 0x0A) & (bytes_at(stop) == 0x15)
    scores = bytes_at(stop[:, None] + np.arange(1, 5)).view("<f4")[:, 0]
    types = np.full(len(at), NORMAL, np.uint8)
    for i in np.flatnonzero(~usual).tolist():
        start[i], stop[i], scores[i], types[i] = _read_piece(model.name, data, model.offsets[i])
    return start, stop, scores, types


def _read_piece(name: str, data: bytes, position: int) -> tuple[int, int, float, int]:
    """Where the text of a piece of any valid shape starts and stops, its score and its type."""
    length, first = _varint(name, data, position + 1, len(data))
    start = stop = first + length
    score, kind = 0.0, NORMAL
    for number, value, offset in _fields(name, data, first, first + length):
        if number == 1 and isinstance(value, bytes):
            start, stop = offset, offset + len(value)
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int) and NORMAL <= value <= BYTE:
            kind = value
        elif number <= 3:
            raise _broken(name, offset, f"field {number} of a piece has no valid value")
    return start, stop, score, kind


def _read_other(model: ModelFile, data: bytes, position: int) -> int:
    """Read the field at `position` that is not a piece; returns where the next one starts."""
    number, value, start, stop = _field(model.name, data, position, len(data))
    model.fields.add(number)
    if number not in (1, 2, 3, 5):
        return stop
    if not isinstance(value, bytes):
        raise _broken(model.name, position, f"field {number} of the model is not a message")
    if number == 2:
        _read_spec(model.name, data, start, stop, model.trainer, _TRAINER_FIELDS)
    elif number == 3:
        _read_spec(model.name, data, start, stop, model.normalizer, _NORMALIZER_FIELDS)
    elif number == 5:
        model.denormalizer = NormalizerSpec()
        _read_spec(model.name, data, start, stop, model.denormalizer, _NORMALIZER_FIELDS)
    else:
        raise _broken(model.name, position, "a piece with an overlong key")
    return stop


def _read_spec(name: str, data: bytes, start: int, stop: int, spec: Any, names: dict[int, str]) -> None:
    """Fill the dataclass `spec` from the fields of a message."""
    for number, value, offset in _fields(name, data, start, stop):
        attribute = names.get(number)
        if attribute is None:
            continue
        kind = type(getattr(spec, attribute))
        if not isinstance(value, bytes if kind in (str, bytes) else int):
            raise _broken(name, offset, f"{attribute} has the wrong wire type")
        try:
            setattr(spec, attribute, value.decode() if kind is str and isinstance(value, bytes) else kind(value))
        except UnicodeDecodeError:
            raise _broken(name, offset, f"{attribute} is not UTF-8") from None
        if attribute == "precompiled_charsmap":
            spec.charsmap_offset = offset


def _fields(name: str, data: bytes, start: int, stop: int) -> Iterator[tuple[int, int | float | bytes, int]]:
    """The fields of one message: number, value, and the byte position of the value."""
    while start < stop:
        number, value, offset, start = _field(name, data, start, stop)
        yield number, value, offset


def _field(name: str, data: bytes, position: int, end: int) -> tuple[int, int | float | bytes, int, int]:
    """One field: number, value, where the value starts, where it stops."""
    key, start = _varint(name, data, position, end)
    number, wire = key >> 3, key & 7
    if number == 0:
        raise _broken(name, position, "a field with number 0")
    if wire == _VARINT:
        value, stop = _varint(name, data, start, end)
        return number, value, start, stop
    if wire == _BYTES:
        length, start = _varint(name, data, start, end)
    elif wire in (_FIXED32, _FIXED64):
        length = 4 if wire == _FIXED32 else 8
    else:
        raise _broken(name, position, f"wire type {wire} is not in use")
    stop = start + length
    if stop > end:
        raise _broken(name, position, f"a field of {length} bytes runs past the end")
    if wire == _FIXED32:
        return number, struct.unpack_from("<f", data, start)[0], start, stop
    return number, data[start:stop], start, stop


def _varint(name: str, data: bytes, position: int, end: int) -> tuple[int, int]:
    """A base-128 number, little end first, of at most ten bytes, and where it stops."""
    value = 0
    for count in range(10):
        if position + count >= end:
            raise _broken(name, position, "the file ends inside a number")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise _broken(name, position, "a number of more than ten bytes")


def _decode_pieces(model: ModelFile, data: bytes, start: np.ndarray, stop: np.ndarray) -> list[str]:
    """The pieces as str. All at once: the texts stay, a NUL after each, and the bytes between them go."""
    content = np.append(np.frombuffer(data, np.uint8), np.uint8(0))
    content[stop] = 0
    edges = np.zeros(len(content) + 1, np.int8)
    edges[start], edges[stop + 1] = 1, -1
    joined = content[edges[:-1].cumsum(dtype=np.int8).view(bool)].tobytes()
    if joined.count(b"\0") != len(start):
        spans = enumerate(zip(start.tolist(), stop.tolist(), strict=True))
        model.fail(next(i for i, (first, end) in spans if 0 in data[first:end]), "contains a NUL character")
    if (start == stop).any():
        model.fail(int((start == stop).argmax()), "is empty")
    try:
        return joined.decode().split("\0")[:-1]
    except UnicodeDecodeError as error:
        model.fail(joined.count(b"\0", 0, error.start), "is not UTF-8")
