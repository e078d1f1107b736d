"""Changes that break readers, in a table for each kind of file: a mutator makes one change to a file's content.

Most damage that bytes alone do is refused at the first check (a checksum, a bracket). The tables for JSON, protobuf,
safetensors and zip therefore know the format, and put the damage behind those checks.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]


def mutated(content: bytes, table: Sequence[Mutator], rng: random.Random) -> bytes:
    """One to four changes, one of them often."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        content = rng.choice(table)(content, rng)
    return content


# --- any file ------------------------------------------------------------------------------------------------------

COUNTS = [
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    bytes(4),
    b"\0\0\0\x01",
    b"\xff\xff",
    b"\x80\0",
    b"\0\x80",
    b"\x01\0",
]


def place(content: bytes, rng: random.Random) -> int:
    """Somewhere, the header more often: the rest is mostly numbers that may be anything."""
    top = len(content) if rng.random() < 0.4 else min(len(content), 128)
    return rng.randrange(max(1, top))


def flip_a_bit(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in content[at : at + 1]) + content[at + 1 :]


def change_a_byte(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + rng.randbytes(1) + content[at + 1 :]


def put_a_count(content: bytes, rng: random.Random) -> bytes:
    at, count = place(content, rng), rng.choice(COUNTS)
    return content[:at] + count + content[at + len(count) :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: place(content, rng)]


def lose_a_part(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + content[at + rng.choice([1, 3, 16, 100]) :]


def repeat_a_part(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + content[at : at + rng.randrange(1, 64)] * rng.randrange(1, 9) + content[at:]


def insert_noise(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + rng.randbytes(rng.randrange(1, 16)) + content[at:]


def end_in_zeros(content: bytes, rng: random.Random) -> bytes:
    """As a file system leaves a file whose last blocks never reached the disk."""
    at = place(content, rng)
    return content[:at] + bytes(len(content) - at)


BYTES: list[Mutator] = [
    flip_a_bit, change_a_byte, put_a_count, cut, lose_a_part, repeat_a_part, insert_noise, end_in_zeros,
]  # fmt: skip


def at_the_end(mutate: Mutator) -> Mutator:
    """For formats whose header comes last."""
    return lambda content, rng: mutate(content[::-1], rng)[::-1]


PARQUET: list[Mutator] = [*BYTES, *map(at_the_end, BYTES)]


# --- text ----------------------------------------------------------------------------------------------------------

ODD_TEXT = ["", " ", "\0", "\ud800", "\ufeff", "</w>", "<s>", "\u2028", "e\u0301", "猫", "#version: 0.2", "a b c", "▁"]


def by_lines(change: Callable[[list[bytes], random.Random], None]) -> Mutator:
    """A mutator that changes a list of lines in place."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, rng)
        return b"\n".join(lines)

    return mutate


def swap(items: list[Any], rng: random.Random) -> None:
    a, b = rng.randrange(len(items)), rng.randrange(len(items))
    items[a], items[b] = items[b], items[a]


def lose_one(items: list[Any], rng: random.Random) -> None:
    del items[rng.randrange(len(items))]


def repeat_one(items: list[Any], rng: random.Random) -> None:
    items.insert(rng.randrange(len(items) + 1), rng.choice(items))


def lose_the_rest(items: list[Any], rng: random.Random) -> None:
    del items[rng.randrange(len(items)) :]


def odd_line(lines: list[bytes], rng: random.Random) -> None:
    lines[rng.randrange(len(lines))] = rng.choice(ODD_TEXT).encode(errors="surrogatepass")


LINES = [by_lines(change) for change in (swap, lose_one, repeat_one, lose_the_rest, odd_line)]
TEXT: list[Mutator] = [*BYTES, *LINES]


# --- JSON ----------------------------------------------------------------------------------------------------------

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 0.5, 1e-300, 1e300, float("nan"), float("inf"), 2**31, 2**63, 10**400, *ODD_TEXT,
    "1", "224", [], [[]], [0], [None], ["a", "b"], {}, {"a": 1}, {"type": "Sequence"}, "x" * 10_000, "9" * 5000,
]  # fmt: skip


def by_value(change: Callable[[Any, Any, random.Random], None]) -> Mutator:
    """A mutator that changes one object or list, at any depth, in place: called with it and the key of an item."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        try:
            root = json.loads(content)
        except (ValueError, RecursionError):  # damaged already
            return change_a_byte(content, rng)
        parent, key, at = None, None, root
        while isinstance(at, dict | list) and at and (parent is None or rng.random() < 0.7):
            parent, key = at, rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            at = parent[key]
        if parent is not None:
            change(parent, key, rng)
        return json.dumps(root).encode()

    return mutate


def another_value(parent: Any, key: Any, rng: random.Random) -> None:
    parent[key] = rng.choice(ODD_VALUES)


def a_near_value(parent: Any, key: Any, rng: random.Random) -> None:
    value = parent[key]
    if isinstance(value, str):
        parent[key] = value[: rng.randrange(len(value) + 1)] + rng.choice(ODD_TEXT)
    elif isinstance(value, int | float):
        parent[key] = rng.choice([value + 1, value - 1, -value, value * 2, [value], repr(value)[:40]])
    else:
        parent[key] = [value]


def lose_a_value(parent: Any, key: Any, rng: random.Random) -> None:
    del parent[key]


def another_key(parent: Any, key: Any, rng: random.Random) -> None:
    if isinstance(parent, dict):
        parent[rng.choice([*ODD_TEXT, repr(key)[:40].upper(), f"{key}_"])] = parent.pop(key)
    else:
        parent.append(parent[key])


def swap_values(parent: Any, key: Any, rng: random.Random) -> None:
    other = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key], parent[other] = parent[other], parent[key]


def deep(parent: Any, key: Any, rng: random.Random) -> None:
    for _ in range(rng.choice([2, 50, 400])):
        parent[key] = [parent[key]]


VALUES = [by_value(c) for c in (another_value, a_near_value, lose_a_value, another_key, swap_values, deep)]
JSON: list[Mutator] = [*VALUES, *VALUES, *BYTES]


# --- protobuf ------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """The tag of each field and what follows it, without the length. Raises ValueError or IndexError for others."""
    found, at = [], 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            _, end = read_varint(data, at)
        elif tag & 7 == 2:
            length, at = read_varint(data, at)
            end = at + length
        else:
            end = at + {1: 8, 5: 4}[tag & 7]
        if end > len(data):
            raise ValueError("cut short")
        found.append((tag, data[at:end]))
        at = end
    return found


def joined(found: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(varint(tag) + (varint(len(data)) if tag & 7 == 2 else b"") + data for tag, data in found)


def by_fields(change: Callable[[list[Any], random.Random], None]) -> Mutator:
    """A mutator that changes the list of a message's fields in place, or that of a message inside it."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        try:
            found = fields(content)
        except (ValueError, IndexError, KeyError):  # damaged already, or a string
            return change_a_byte(content, rng)
        at = rng.choice([rng.randrange(len(found)), len(found) - 1]) if found else 0  # the settings come last
        if found and found[at][0] & 7 == 2 and rng.random() < 0.6:
            found[at] = (found[at][0], mutate(found[at][1], rng))
        elif found:
            change(found, rng)
        return joined(found)

    return mutate


def another_tag(found: list[tuple[int, bytes]], rng: random.Random) -> None:
    at = rng.randrange(len(found))
    found[at] = (rng.choice([rng.randrange(1, 300), found[at][0] ^ 1, found[at][0] + 8]), found[at][1])


def another_number(found: list[tuple[int, bytes]], rng: random.Random) -> None:
    at = rng.randrange(len(found))
    number = rng.choice([varint(2**63), varint(0), varint(rng.randrange(300)), struct.pack("<f", float("nan")), b""])
    found[at] = (found[at][0], number)


FIELDS = [by_fields(c) for c in (swap, lose_one, repeat_one, lose_the_rest, another_tag, another_number)]
PROTOBUF: list[Mutator] = [*FIELDS, *FIELDS, *BYTES]


# --- safetensors ---------------------------------------------------------------------------------------------------


def in_header(mutate: Mutator) -> Mutator:
    """The change inside a safetensors file's header, whose length is then right."""

    def change(content: bytes, rng: random.Random) -> bytes:
        end = 8 + int.from_bytes(content[:8], "little")
        header = mutate(content[8:end], rng)
        return len(header).to_bytes(8, "little") + header + content[end:]

    return change


SAFETENSORS: list[Mutator] = [*map(in_header, JSON), *BYTES]


# --- zip archives --------------------------------------------------------------------------------------------------


def in_entries(change: Callable[[list[Any], random.Random], None]) -> Mutator:
    """A mutator that changes an archive's list of (name, content) in place; checksums and places are right again."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = [(name, archive.read(name)) for name in archive.namelist()]
            change(entries, rng)
        except Exception:  # damaged already: the module raises all kinds
            return change_a_byte(content, rng)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED])) as archive:
            archive._didModify = True  # type: ignore[attr-defined]  # an archive of nothing is written, too
            for name, data in entries:
                archive.writestr(zipfile.ZipInfo(name), data)
        return file.getvalue()

    return mutate


def in_one(mutate: Mutator) -> Callable[[list[Any], random.Random], None]:
    """The change inside one entry, the pickle (which is small) more often."""

    def change(entries: list[tuple[str, bytes]], rng: random.Random) -> None:
        pickles = [at for at, (name, _) in enumerate(entries) if name.endswith(".pkl")]
        at = rng.choice(pickles if pickles and rng.random() < 0.7 else range(len(entries)))
        entries[at] = (entries[at][0], mutate(entries[at][1], rng))

    return change


def rename_one(entries: list[tuple[str, bytes]], rng: random.Random) -> None:
    at = rng.randrange(len(entries))
    entries[at] = (rng.choice(["data.pkl", "../x", "", "archive/data/0", entries[0][0]]), entries[at][1])


ZIP: list[Mutator] = [
    *map(in_entries, (*map(in_one, BYTES), swap, lose_one, lose_the_rest, rename_one)), *BYTES
]  # fmt: skip


# --- pictures ------------------------------------------------------------------------------------------------------


def with_checksums(data: bytes) -> bytes:
    """The chunks of a PNG with the checksums that they should have, so that damage gets past them."""
    fixed, at = bytearray(data), 8
    while fixed[:4] == b"\x89PNG" and at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4])
        if end + 4 <= len(fixed):
            fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def checked(mutate: Mutator) -> Mutator:
    return lambda content, rng: with_checksums(mutate(content, rng))


PICTURE: list[Mutator] = [*BYTES, *map(checked, BYTES), *map(checked, BYTES)]


def ends_of(others: Sequence[bytes]) -> Mutator:
    """The end of another file in place of one's own."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        at = place(content, rng)
        return content[:at] + rng.choice(others)[at:]

    return mutate


def all_cuts(content: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """The content cut at `count` places, all ends of lines and of fields among them where there are few."""
    lines = [at for at, byte in enumerate(content) if byte == 10]
    places = rng.sample(range(len(content)), min(count, len(content))) + rng.sample(lines, min(count, len(lines)))
    yield from (content[:at] for at in places)
