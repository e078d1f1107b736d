"""Text normalization as a SentencePiece model prescribes it: a character map, and the rules for white space.

The map is a double-array trie (Aoe 1989) in the units of Darts-clone, over the UTF-8 bytes of the strings to replace:

    uint32 size | size/4 uint32 units | replacements, each ended by a NUL                       (all little-endian)

A unit's low byte is its label, bit 8 says that a key ends here, bits 10 to 30 (shifted by 8 more where bit 9 is set)
are its offset: the child of the unit at `p` along byte `c` lies at `p ^ offset ^ c`, the key's value at `p ^ offset`. A
value has bit 31 set and says where the replacement starts.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from minclip.errors import TokenizerError
from minclip.tokenizers.sentencepiece_file import NormalizerSpec

SPACE = "\u2581"  # LOWER ONE EIGHTH BLOCK, how the vocabulary spells a space

_LONGEST_KEY = 64  # bytes; the maps that the trainer ships have keys of up to 12
_MEMORY = 1 << 16  # pairs of characters remembered


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
        self._pairs: dict[str, tuple[str, int]] = {}

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
        known = self._pairs.get(pair)
        if known is not None:
            return known
        found, read = self._walk(text, start)
        if read <= 2:  # no third character could change the outcome
            if len(self._pairs) >= _MEMORY:
                self._pairs.clear()
            self._pairs[pair] = found
        return found

    def _walk(self, text: str, start: int) -> tuple[tuple[str, int], int]:
        """The longest prefix, and how many characters (the text's end counts as one) were looked at to be sure."""
        best = (text[start], 1)
        node = 0
        for read in range(1, len(text) - start + 1):
            node = self.step(node, text[start + read - 1])
            if node < 0:
                return best, read
            if self.ends[node]:
                best = (self.replacement(node), read)
        return best, len(text) - start + 1

    def step(self, node: int, character: str) -> int:
        """The unit that one more character leads to, or -1."""
        for byte in character.encode():
            node = self.base[node] ^ byte
            if byte == 0 or self.label[node] != byte:
                return -1
        return node

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


class PrefixMatcher:
    """Finds the longest of some strings at a place in a text; the user-defined symbols of a model."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = frozenset(symbols)
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for symbol in self.symbols:
            lengths[symbol[0]].add(len(symbol))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def match(self, text: str, start: int) -> int:
        """The length of the longest symbol at `start`, 0 where there is none."""
        for length in self._lengths.get(text[start], ()):
            # at the text's end a slice is shorter than asked for, and may be another symbol
            if start + length <= len(text) and text[start : start + length] in self.symbols:
                return length
        return 0


class Normalizer:
    """Raw text to the text that is cut into pieces."""

    def __init__(self, spec: NormalizerSpec, name: str, matcher: PrefixMatcher, *, whitespace_as_suffix: bool) -> None:
        """matcher: the symbols that are left as they are. TokenizerError for a broken character map."""
        self.spec = spec
        self.matcher = matcher
        self.suffix = whitespace_as_suffix
        blob = spec.precompiled_charsmap
        self.map = CharacterMap(blob, name, spec.charsmap_offset) if blob else None
        self.space = SPACE if spec.escape_whitespaces else " "

    def _prefix(self, text: str, start: int) -> tuple[str, int]:
        """What the text at `start` becomes, and how many characters that uses up."""
        if self.matcher.symbols and (length := self.matcher.match(text, start)):
            return text[start : start + length], length
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
