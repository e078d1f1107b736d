"""SentencePiece (Kudo and Richardson 2018): text to the ids of its pieces and back, from the model file alone.

    text --normalizer.py--> "▁a▁photo" --segmentation.py--> ["▁a", "▁pho", "to"] --> ids

A unigram model (Kudo 2018) takes the most probable cut; a BPE model (Sennrich et al. 2016) merges the best-scored pair
of neighbours again and again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np

from minclip.errors import TokenizerError
from minclip.tokenizers.memory import Memory
from minclip.tokenizers.normalizer import SPACE, Normalizer
from minclip.tokenizers.segmentation import (
    REBASE,
    Lexicon,
    Span,
    byte_ids,
    byte_token,
    first_tokens,
    joined,
    merge_pairs,
    runner_up_gap,
    viterbi,
)
from minclip.tokenizers.sentencepiece_file import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, ModelFile

_UNKNOWN_PENALTY = np.float32(10)
_NEAR = 64  # characters a token; more of a text is not looked at where only so many tokens are wanted
_HALF_ULP = 2.0**-24  # relative rounding error of a float32


class SentencePieceModel:
    """A model as the trainer wrote it, ids as in the file.

    pieces: by id. model_type: "unigram" or "bpe".
    """

    def __init__(self, file: ModelFile) -> None:
        """Raises TokenizerError, naming file and byte, for a vocabulary that is not one."""
        self.file = file
        self.pieces, self.types = file.pieces, file.types
        kinds = {1: "unigram", 2: "bpe"}
        if file.trainer.model_type not in kinds:
            raise TokenizerError(
                f"{file.name}: model type {file.trainer.model_type} (word or character) is not known; "
                "minclip reads unigram (1) and BPE (2)"
            )
        self.model_type = kinds[file.trainer.model_type]
        reserved = np.isin(np.frombuffer(file.types, np.uint8), (UNKNOWN, CONTROL, BYTE))  # what no text is cut into
        self._reserved = _numbered(file, np.flatnonzero(reserved).tolist())
        self._ids = _numbered(file, np.flatnonzero(~reserved).tolist())
        self.unknown = _only_unknown(file)
        self.byte_ids = _byte_ids(file, self._reserved)
        self._symbols = Lexicon({symbol: self._ids[symbol] for symbol in self._of_type(USER_DEFINED)})
        suffix = file.trainer.treat_whitespace_as_suffix
        self.normalizer = Normalizer(file.normalizer, file.name, self._symbols, whitespace_as_suffix=suffix)
        self._denormalizer = None
        if file.denormalizer is not None and file.denormalizer.precompiled_charsmap:
            self._denormalizer = Normalizer(file.denormalizer, file.name, Lexicon({}), whitespace_as_suffix=False)
        self._words = _word_splitter(file.pieces)
        self._longest = max(map(len, file.pieces))
        self._remembered: Memory[tuple[list[int], float]] = Memory()
        if self.model_type == "unigram":
            self._prepare_unigram()

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "model") -> SentencePieceModel:
        """Read a model file's content; `name` is how errors call it."""
        return cls(ModelFile.from_bytes(data, name))

    @classmethod
    def from_file(cls, path: str | Path) -> SentencePieceModel:
        """Read a model file."""
        try:
            return cls.from_bytes(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise TokenizerError(
                f"{path}: cannot be read ({error.strerror}); give a SentencePiece model file"
            ) from None

    def __len__(self) -> int:
        return len(self.pieces)

    def _of_type(self, kind: int) -> list[str]:
        return [self.pieces[i] for i in np.flatnonzero(np.frombuffer(self.types, np.uint8) == kind).tolist()]

    def piece_to_id(self, piece: str) -> int:
        """The id of a piece, the unknown's id for a string that is none."""
        return self._reserved.get(piece, self._ids.get(piece, self.unknown))

    def _prepare_unigram(self) -> None:
        """Scores as the search uses them: the unknown's, and a bonus by which user-defined symbols win.

        The bonus is sentencepiece 0.2.3's, a tenth for every byte but the first; versions before took the file's best
        score for a tenth. Vocabularies without such symbols, as XLM-R's, are cut alike by all.
        """
        scores = list(self.file.scores)
        for piece, i in self._symbols.ids.items():
            scores[i] = float(np.float32(len(piece.encode()) * 0.1 - 0.1))
        self._scores = scores
        known = np.array(scores, np.float32)
        lowest = known[np.frombuffer(self.types, np.uint8) == NORMAL].min(initial=np.finfo(np.float32).max)
        self._unknown_score = float(lowest - _UNKNOWN_PENALTY)
        self._steepest = max(float(np.abs(known).max()), abs(self._unknown_score))
        unused = set(self._of_type(UNUSED))
        self._lexicon = Lexicon({p: i for p, i in self._ids.items() if p not in unused} if unused else self._ids)

    def normalize(self, text: str) -> str:
        """The text that is cut into pieces."""
        return self.normalizer.normalize(text)[0]

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of a text; with a limit, of a long text perhaps no more than that many."""

        def cut(part: str) -> list[Span]:
            return self._spell(part, self._cut(part))

        def beginning(size: int) -> tuple[str, bool]:
            return self.normalizer.beginning(text, size)

        if limit is None or len(text) <= _NEAR * (limit + 1):
            normalized, whole = self.normalizer.normalize(text)[0], True
        else:
            normalized, whole = beginning(_NEAR * (limit + 1))
        words = self._words(normalized) if normalized else []
        ids = self._encode_words(words if whole else words[:-1], len(normalized))
        if ids is not None and (whole or limit is None or len(ids) >= limit):
            return ids
        spans = cut(normalized) if whole or limit is None else first_tokens(beginning, cut, limit, self._longest)
        return [piece for piece, _, _ in spans]

    def _encode_words(self, words: list[str], size: int) -> list[int] | None:
        """The ids of words that make up a text of `size` characters; None where they do not stand for themselves."""
        ids: list[int] = []
        for word in words:
            word_ids, trust = self._remembered.get(word) or self._remembered.keep(word, self._encode_word(word))
            if size > trust and ids:
                return None
            if ids and word_ids[0] == self.unknown == ids[-1]:
                ids += word_ids[1:]
            else:
                ids += word_ids
        return ids

    def _encode_word(self, word: str) -> tuple[list[int], float]:
        """The ids of a word that stands first, and how long a text may be in which they are the same anywhere.

        Words are what `_word_splitter` cuts out: no piece reaches over their ends, so every cut of the text is a cut of
        each of its words. BPE merges then never meet across words, and inside one they happen in the same order: equal
        anywhere. In a unigram model the best cut of the text is the best cut of each word too, but the running sum is
        rounded to float32, so a cut that is better by little may lose in a longer text. Rounding M moves it by at most
        M * 2^-24 and keeps order. So the kept sum at a word's end is at most k such steps below the exact best, and
        that of the cut that it stands for at most k above what it is worth, k being the pieces in the word: a cut that
        beats all others by more than 2k * M * 2^-24 is found. k is at most the word's length, M at most (characters of
        the text) * (steepest score). Below -REBASE sums are shifted, which rounds once more: nothing is trusted there.
        """
        spans = self._cut(word)
        ids = [piece for piece, _, _ in self._spell(word, spans)]
        trust = float("inf")
        if self.model_type == "unigram":
            gap = runner_up_gap(word, self._lexicon, self._scores, self._unknown_score, spans)
            trust = min(0.99 * gap / (2 * len(word) * _HALF_ULP), REBASE) / self._steepest
        return ids, trust

    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of a text's pieces; start and end count characters of `text`.

        A piece covers what it was normalized from. Bytes of an unknown character: the last covers it, the others are
        empty. Added white space is empty too, or goes with the piece that it is part of.
        """
        normalized, origins = self.normalizer.normalize(text)
        return [(i, origins[a], origins[b]) for i, a, b in self._spell(normalized, self._cut(normalized))]

    def _cut(self, text: str) -> list[Span]:
        """The pieces of a normalized text, unknown characters one by one."""
        if self.model_type == "unigram":
            return viterbi(text, self._lexicon, self._scores, self.unknown, self._unknown_score, "f")
        return self._merge(text)

    def _merge(self, text: str) -> list[Span]:
        """BPE: start from characters and user-defined symbols; a pair's rank is its score."""
        symbols: list[str] = []
        starts: list[int] = []
        place = 0
        while place < len(text):
            starts.append(place)
            place = self._symbols.longest(text, place) or place + 1
            symbols.append(text[starts[-1] : place])
        made_of: dict[str, tuple[str, str]] = {}

        def rank(pair: tuple[str, str]) -> float | None:
            piece = self._ids.get("".join(pair))
            if piece is None or not self._symbols.ids.keys().isdisjoint(pair):
                return None
            if self.types[piece] == UNUSED:
                made_of[self.pieces[piece]] = pair
            return -self.file.scores[piece]

        spans: list[Span] = []
        for symbol, first, _ in merge_pairs(symbols, rank):
            self._undo_unused(symbol, starts[first], made_of, spans)
        return spans

    def _undo_unused(self, symbol: str, start: int, made_of: dict[str, tuple[str, str]], spans: list[Span]) -> None:
        """Add a symbol to the spans; one that may not be used is taken apart again as it was merged."""
        stack = [symbol]
        while stack:
            part = stack.pop()
            piece = self.piece_to_id(part)
            if self.types[piece] == UNUSED and part in made_of:
                left, right = made_of[part]
                stack += [right, left]
            else:
                spans.append((piece, start, start + len(part)))
                start += len(part)

    def _spell(self, text: str, spans: Iterable[Span]) -> list[Span]:
        """Unknown characters as their bytes, or a run of them as one unknown piece."""
        if not self.byte_ids:
            return joined(spans, self.unknown)
        result: list[Span] = []
        for piece, start, end in spans:
            if piece == self.unknown:
                *first, last = text[start:end].encode()
                result += [(self.byte_ids[byte], start, start) for byte in first]
                piece = self.byte_ids[last]
            result.append((piece, start, end))
        return result

    def decode(self, ids: Iterable[int], *, at_start: bool = True) -> str:
        """The text of ids: control pieces are dropped, the unknown is shown as the model says (` ⁇ `).

        at_start: whether a text begins here, so that the space that encoding puts there goes away.
        """
        spec = self.file.normalizer
        text, raw = "", bytearray()
        fresh, seen_space = at_start, False
        for index in ids:
            if not 0 <= index < len(self.pieces):
                raise TokenizerError(f"id {index} is not in the vocabulary; ids go from 0 to {len(self.pieces) - 1}")
            piece = self.pieces[index]
            index = self.piece_to_id(piece)
            kind = self.types[index]
            if kind == BYTE:
                raw.append(int(piece[3:5], 16))
                continue
            text, raw = text + decode_utf8(raw), bytearray()
            fresh = fresh and not seen_space and not text
            seen_space = False
            if kind == UNKNOWN:
                text += self.file.trainer.unk_surface
            elif kind != CONTROL:
                if fresh and (spec.add_dummy_prefix or spec.remove_extra_whitespaces) and piece.startswith(SPACE):
                    piece = piece[1:]
                    seen_space = not spec.remove_extra_whitespaces
                text += piece.replace(SPACE, " ")
        text += decode_utf8(raw)
        return self._denormalizer.normalize(text)[0] if self._denormalizer else text


def decode_utf8(raw: bytes | bytearray) -> str:
    """UTF-8 in which every byte that is part of no character becomes U+FFFD (Python makes one of several)."""
    return re.sub("[\udc80-\udcff]", "\ufffd", raw.decode(errors="surrogateescape"))


def _numbered(file: ModelFile, ids: list[int]) -> dict[str, int]:
    """These ids by piece. No piece may occur twice among them."""
    found = dict(zip(map(file.pieces.__getitem__, ids), ids, strict=True))
    if len(found) < len(ids):
        first: dict[str, int] = {}
        again = next(i for i in ids if first.setdefault(file.pieces[i], i) != i)
        file.fail(again, f"repeats piece {first[file.pieces[again]]}, {file.pieces[again]!r}")
    return found


def _only_unknown(file: ModelFile) -> int:
    """The id of the one unknown piece."""
    first = file.types.find(UNKNOWN)
    second = file.types.find(UNKNOWN, first + 1)
    if first < 0:
        _lacks(file, "unknown piece")
    if second >= 0:
        file.fail(second, f"is a second unknown piece, after {first}")
    return first


def _byte_ids(file: ModelFile, reserved: dict[str, int]) -> dict[int, int]:
    """The ids of the 256 bytes where the model has byte fallback, or nothing."""
    found = byte_ids({piece: i for piece, i in reserved.items() if file.types[i] == BYTE})
    for i in range(len(file.types)) if BYTE in file.types else ():
        if file.types[i] == BYTE and not file.trainer.byte_fallback:
            file.fail(i, "is a byte in a model without byte fallback")
        if file.types[i] == BYTE and i not in found.values():
            file.fail(i, f"is called {file.pieces[i]!r}, which is no byte")
    for byte in range(256) if file.trainer.byte_fallback else ():
        if byte not in found:
            _lacks(file, f"piece {byte_token(byte)}")
    return found


def _lacks(file: ModelFile, what: str) -> NoReturn:
    raise TokenizerError(f"{file.name}: byte {file.offsets[-1]}: the last piece, and no {what} among them all")


def _word_splitter(pieces: list[str]) -> Callable[[str], list[str]]:
    """A function that cuts normalized text into words over whose ends no piece reaches.

    A piece can only reach over the place before a "▁" if it has a "▁" after the same character inside; the text is cut
    before every "▁" that follows none of those characters. Usual vocabularies have no such piece.
    """
    joined = "\0".join(["", *pieces])
    inside = joined.count(SPACE) - joined.count(f"\0{SPACE}")  # counted, which is faster than searched for
    before_space = set(re.findall(f"[^\0](?={SPACE})", joined)) if inside else ()
    if not before_space:
        return re.compile(f"{SPACE}?[^{SPACE}]+|{SPACE}").findall
    outside = "".join(map(re.escape, sorted(before_space)))
    return re.compile(f"(?<=[^{outside}])(?={SPACE})").split
