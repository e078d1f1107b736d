"""Text normalization as a SentencePiece model prescribes it: a character map, and the rules for white space.

The map is a double-array trie (Aoe 1989) in the units of Darts-clone, over the UTF-8 bytes of the strings to replace:

    uint32 size | size/4 uint32 units | replacements, each ended by a NUL                       (all little-endian)

A unit's low byte is its label, bit 8 says that a key ends here, bits 10 to 30 (shifted by 8 more where bit 9 is set)
are its offset: the child of the unit at `p` along byte `c` lies at `p ^ offset ^ c`, the key's value at `p ^ offset`. A
value has bit 31 set and says where the replacement starts.
"""

from __future__ import annotations

import struct

import numpy as np

from minclip.errors import TokenizerError
from minclip.tokenizers.memory import Memory
from minclip.tokenizers.segmentation import Lexicon
from minclip.tokenizers.sentencepiece_file import NormalizerSpec

SPACE = "\u2581"  # LOWER ONE EIGHTH BLOCK, how the vocabulary spells a space

_LONGEST_KEY = 64  # bytes; the maps that the trainer ships have keys of up to 12


class CharacterMap:
    """A precompiled character map. name and offset (of the blob in its file) are for the errors."""

    def __init__(self, blob: bytes, name: str, offset: int = 0) -> None:
        """Check the blob. TokenizerError where it is cut, or its trie leaves the array or runs in circles."""
        size = struct.unpack_from("<I", blob)[0] if len(blob) > 4 else 0
        if size % 4 or not 4 <= size < len(blob) - 4:
            raise TokenizerError(f"{name}: byte {offset}: the character map is cut short; get the file again")
        units = np.zeros(-(-size // 1024) * 256, np.int64)  # whole blocks, so that no byte leads out of the array
        units[: size // 4] = np.frombuffer(blob, "<u4", size // 4, 4)
        self._replacements = blob[4 + size :]
        self._base = np.arange(len(units)) ^ ((units >> 10) << ((units & 0x200) >> 6))
        self._label = units & 0x800000FF
        self._ends = (units & 0x100) != 0
        self._units = units
        fault = self._fault()
        if fault is not None:
            unit, what = fault
            raise TokenizerError(
                f"{name}: byte {offset + 4 + 4 * unit}: {what} in the character map; get the file again"
            )
        self.base: list[int] = self._base.tolist()
        self.label: list[int] = self._label.tolist()
        self.ends: list[bool] = self._ends.tolist()
        self._pairs: Memory[tuple[tuple[str, int], bool]] = Memory()

    def _fault(self) -> tuple[int, str] | None:
        """Follow every branch from the root at once, a byte a step; the first fault, as unit and words.

        Branches may join (equal endings of keys with equal values are stored once), so a branch that comes back to
        where it was is only told by its length.
        """
        base, label, size = self._base, self._label, len(self._units)
        try:
            self._replacements.decode()
        except UnicodeDecodeError as error:
            return size + error.start // 4, "a replacement that is not UTF-8"
        inner = np.flatnonzero((label > 0) & (label < 0x100))
        inner = inner[np.argsort(inner ^ label[inner], kind="stable")]
        home = inner ^ label[inner]  # the base of a unit's parents
        front = np.zeros(1, np.int64)
        for _ in range(_LONGEST_KEY):
            outside = front[base[front] >= size]
            if len(outside):
                return int(outside[0]), "a branch out of the trie"
            wrong = self._wrong_value(front[self._ends[front]])
            if wrong is not None:
                return wrong, "a value that is no replacement"
            homes = np.unique(base[front])
            first, last = np.searchsorted(home, homes), np.searchsorted(home, homes, "right")
            count = last - first
            front = inner[np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())]
            if not len(front):
                return None
        return int(front[0]), f"a cycle or a key of more than {_LONGEST_KEY} bytes"

    def _wrong_value(self, ends: np.ndarray) -> int | None:
        """The first of the units at which a key ends whose value does not point at the start of a character."""
        table = np.frombuffer(self._replacements, np.uint8)
        value = self._units[self._base[ends]] - (1 << 31)
        inside = (value >= 0) & (value < len(table))
        good = inside & ((table[np.where(inside, value, 0)] & 0xC0) != 0x80)
        return None if good.all() else int(ends[~good][0])

    def replacement(self, node: int) -> str:
        """What the key that ends at unit `node` becomes."""
        start = int(self._units[self.base[node]]) & 0x7FFFFFFF
        stop = self._replacements.find(b"\0", start)
        return self._replacements[start : stop if stop >= 0 else None].decode()

    def longest_prefix(self, text: str, start: int) -> tuple[str, int]:
        """Apply the longest key that `text` has at `start`: the replacement and how many characters it stands for.

        Without a key the character stands for itself.
        """
        pair = text[start : start + 2]
        found, is_sure = self._pairs.get(pair) or self._pairs.keep(pair, self._walk(pair))
        return found if is_sure else self._walk(text[start : start + _LONGEST_KEY])[0]

    def _walk(self, text: str) -> tuple[tuple[str, int], bool]:
        """The longest prefix, and whether it is the same whatever comes after the text."""
        best = (text[0], 1)
        node = 0
        for read, character in enumerate(text, 1):
            for byte in character.encode():
                node = self.base[node] ^ byte
                if byte == 0 or self.label[node] != byte:
                    return best, True
            if self.ends[node]:
                best = (self.replacement(node), read)
        return best, False

    def shortest_prefix(self, text: str) -> str | None:
        """The replacement of the shortest key that `text` starts with, or None."""
        node = 0
        for byte in text.encode():
            node = self.base[node] ^ byte
            if byte == 0 or self.label[node] != byte:
                return None
            if self.ends[node]:
                return self.replacement(node)
        return None


class Normalizer:
    """Raw text to the text that is cut into pieces."""

    def __init__(self, spec: NormalizerSpec, name: str, symbols: Lexicon, *, whitespace_as_suffix: bool) -> None:
        """symbols: what is left as it is. TokenizerError for a broken character map."""
        self.spec = spec
        self.symbols = symbols
        self.suffix = whitespace_as_suffix
        blob = spec.precompiled_charsmap
        self.map = CharacterMap(blob, name, spec.charsmap_offset) if blob else None
        self.space = SPACE if spec.escape_whitespaces else " "

    def _prefix(self, text: str, start: int) -> tuple[str, int]:
        """What the text at `start` becomes, and how many characters that uses up."""
        if end := self.symbols.longest(text, start):
            return text[start:end], end - start
        return self.map.longest_prefix(text, start) if self.map else (text[start], 1)

    def beginning(self, text: str, size: int) -> tuple[str, bool]:
        """About the first `size` characters of the normalized text, and whether that is all of it."""
        read = made = 0
        while read < len(text) and made < size:
            chunk, length = self._prefix(text, read)
            read, made = read + length, made + len(chunk)
        if read == len(text):
            return self.normalize(text)[0], True
        return self.normalize(text[:read])[0].rstrip(self.space), False  # what follows may take white space away

    def normalize(self, text: str) -> tuple[str, list[int]]:
        """The normalized text of n characters and, for each of them and for its end, its origin in `text` (n + 1)."""
        squeeze, space, end = self.spec.remove_extra_whitespaces, self.space, len(text)
        start = 0
        while squeeze and start < end:
            chunk, length = self._prefix(text, start)
            if chunk != " ":
                break
            start += length
        if start >= end:
            return "", [start]
        chunks: list[str] = []
        origins: list[int] = []
        if self.spec.add_dummy_prefix and not self.suffix:
            chunks.append(space)
            origins.append(start)
        after_space = squeeze
        while start < end:
            chunk, length = self._prefix(text, start)
            if after_space:
                chunk = chunk.lstrip(" ")
            if chunk:
                after_space = squeeze and chunk[-1] == " "
                chunks.append(chunk)
                origins += [start] * len(chunk)
            start += length
        result = "".join(chunks)
        if self.spec.escape_whitespaces:
            result = result.replace(" ", SPACE)
        if squeeze and result.endswith(space):
            result = result.rstrip(space)
            start = origins[len(result)]
            del origins[len(result) :]
        if self.spec.add_dummy_prefix and self.suffix:
            result += space
            origins.append(start)
        origins.append(start)
        return result, origins
