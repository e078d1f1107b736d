"""The models (Unigram, BPE) and decoders of a tokenizer.json."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from minclip.errors import TokenizerError
from minclip.tokenizers.added_tokens import LARGEST_ID
from minclip.tokenizers.segmentation import Lexicon, Span, byte_ids, byte_token, joined, merge_pairs, viterbi
from minclip.tokenizers.sentencepiece_model import decode_utf8

Decoder = Callable[[list[str]], list[str]]

_UNKNOWN_PENALTY = 10.0


class JSONModel(Protocol):
    """ids: the vocabulary. cut: the tokens of one word as (id, start, end)."""

    ids: dict[str, int]

    @abstractmethod
    def cut(self, word: str) -> list[Span]: ...


def make_model(spec: dict[str, Any], name: str) -> JSONModel:
    """The model that the file describes; name is how errors call the file."""
    kind = spec.get("type") or ("BPE" if "merges" in spec else "Unigram")  # old files do not say
    if kind == "Unigram":
        return _Unigram(spec, name)
    if kind == "BPE":
        return _BPE(spec, name)
    raise TokenizerError(f"{name}: model type {kind!r} is not known; minclip reads Unigram and BPE")


class _Unigram:
    """The best-scoring cut of a word, in float64; runs of unknown characters are one token."""

    def __init__(self, spec: dict[str, Any], name: str) -> None:
        vocab = spec["vocab"]
        if not vocab:
            raise TokenizerError(f"{name}: the vocabulary is empty; get the file again")
        wrong = TokenizerError(f"{name}: a vocabulary entry is not [piece, score]; get the file again")
        if set(map(type, vocab)) != {list} or set(map(len, vocab)) != {2}:
            raise wrong
        pieces, scores = [entry[0] for entry in vocab], [entry[1] for entry in vocab]
        if set(map(type, pieces)) != {str} or not set(map(type, scores)) <= {float, int}:
            raise wrong
        self.ids = dict(zip(pieces, range(len(pieces)), strict=True))
        self._scores = list(map(float, scores))
        if not all(map(math.isfinite, self._scores)):
            raise TokenizerError(f"{name}: a score is not a finite number; get the file again")
        self._unknown = spec.get("unk_id")
        if self._unknown is not None and not (type(self._unknown) is int and 0 <= self._unknown < len(pieces)):
            raise TokenizerError(f"{name}: unk_id {self._unknown!r} is not in the vocabulary; get the file again")
        self._unknown_score = min(self._scores) - _UNKNOWN_PENALTY
        self._byte_ids = byte_ids(self.ids) if spec.get("byte_fallback") else {}
        self._lexicon = Lexicon({piece: i for piece, i in self.ids.items() if piece} if "" in self.ids else self.ids)

    def cut(self, word: str) -> list[Span]:
        """The best-scored cut of a word (Viterbi): (id, start, end) of each piece, a run of unknowns being one."""
        unknown = -1 if self._unknown is None else self._unknown
        spans: list[Span] = []
        for piece, start, end in joined(
            viterbi(word, self._lexicon, self._scores, unknown, self._unknown_score, "d"), unknown
        ):
            spans += self._spell(word, start, end) if piece == unknown else [(piece, start, end)]
        return spans

    def _spell(self, word: str, start: int, end: int) -> list[Span]:
        """The tokens of a run of characters of which none is a piece."""
        known = self.ids.get(word[start:end])
        if known is not None:
            return [(known, start, end)]
        data = word[start:end].encode()
        if self._byte_ids.keys() >= set(data):
            return [(self._byte_ids[byte], start, end) for byte in data]
        if self._unknown is None:
            raise TokenizerError(f"{word[start:end]!r} is not in the vocabulary, which has no unknown token")
        return [(self._unknown, start, end)]


class _BPE:
    """Merges by rank, from characters, or the bytes of characters that are not in the vocabulary."""

    def __init__(self, spec: dict[str, Any], name: str) -> None:
        for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if spec.get(option):
                raise TokenizerError(f"{name}: BPE with {option} is not known here; minclip reads SentencePiece's kind")
        self.ids = spec["vocab"]
        ids = self.ids.values()
        if not self.ids or set(map(type, ids)) != {int} or len(set(ids)) != len(ids) or max(ids) > LARGEST_ID:
            raise TokenizerError(
                f"{name}: the vocabulary does not give each token an id of its own; get the file again"
            )
        self._ranks: dict[tuple[str, str], int] = {}
        for rank, merge in enumerate(spec["merges"]):
            left, right = merge.split(" ") if isinstance(merge, str) and merge.count(" ") == 1 else merge
            for token in (left, right, left + right):
                if token not in self.ids:
                    raise TokenizerError(f"{name}: merge {rank} needs {token!r}, not in the vocabulary; get it again")
            self._ranks[left, right] = rank
        self._unknown = spec.get("unk_token")
        if self._unknown is not None and self._unknown not in self.ids:
            raise TokenizerError(f"{name}: unk_token {self._unknown!r} is not in the vocabulary; get the file again")
        self._fuse, self._whole = bool(spec.get("fuse_unk")), bool(spec.get("ignore_merges"))
        self._byte_ids = byte_ids(self.ids) if spec.get("byte_fallback") else {}

    def cut(self, word: str) -> list[Span]:
        """A word's characters, merged by rank: (id, start, end) of each piece."""
        if self._whole and word in self.ids:
            return [(self.ids[word], 0, len(word))]
        symbols: list[tuple[str, int, int]] = []
        waiting: list[tuple[str, int, int]] = []  # an unknown token, put down when the next token but bytes comes
        for place, character in enumerate(word):
            if character in self.ids:
                symbols += [*waiting, (character, place, place + 1)]
                waiting = []
            elif self._byte_ids.keys() >= set(data := character.encode()):
                symbols += [(byte_token(byte), place, place + 1) for byte in data]
            elif self._unknown is not None:  # without an unknown token the character is dropped
                if waiting and self._fuse:
                    waiting = [(self._unknown, waiting[0][1], place + 1)]
                else:
                    symbols += waiting
                    waiting = [(self._unknown, place, place + 1)]
        symbols += waiting
        merged = merge_pairs([symbol for symbol, _, _ in symbols], self._ranks.get)
        return [(self.ids[piece], symbols[first][1], symbols[last - 1][2]) for piece, first, last in merged]


def make_decoder(spec: dict[str, Any] | None, name: str) -> Decoder:
    """A function from tokens to the parts of the text."""
    if spec is None:
        return lambda tokens: [" ".join(tokens)]
    kind = spec["type"]
    if kind == "Sequence":
        steps = [make_decoder(step, name) for step in spec["decoders"]]

        def run(tokens: list[str]) -> list[str]:
            for step in steps:
                tokens = step(tokens)
            return tokens

        return run
    if kind == "Metaspace":
        symbol = spec["replacement"]
        scheme = spec.get("prepend_scheme", "always" if spec.get("add_prefix_space", True) else "never")
        first = "" if scheme != "never" else " "
        return lambda tokens: [token.replace(symbol, " " if i else first) for i, token in enumerate(tokens)]
    if kind == "Replace" and "String" in spec["pattern"]:
        old, new = spec["pattern"]["String"], spec["content"]
        return lambda tokens: [token.replace(old, new) for token in tokens]
    if kind == "Fuse":
        return lambda tokens: ["".join(tokens)]
    if kind == "ByteFallback":
        return _join_bytes
    if kind == "Strip":
        content, start, stop = spec["content"], int(spec["start"]), int(spec["stop"])
        if len(content) != 1:
            raise TokenizerError(f"{name}: decoder Strip takes one character, not {content!r}; get the file again")
        return lambda tokens: [_strip(token, content, start, stop) for token in tokens]
    raise TokenizerError(f"{name}: decoder {kind!r} is not known; minclip reads what XLM-R-like checkpoints ship")


def _strip(token: str, content: str, start: int, stop: int) -> str:
    """Take up to `start` times `content` from the front of a token and up to `stop` from its end."""
    while start and token.startswith(content):
        token, start = token[1:], start - 1
    while stop and token.endswith(content):
        token, stop = token[:-1], stop - 1
    return token


def _join_bytes(tokens: list[str]) -> list[str]:
    """Each run of byte tokens as the characters that it spells, one U+FFFD a byte where it spells none."""
    parts: list[str] = []
    raw = bytearray()
    for token in [*tokens, ""]:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                raw.append(int(token[3:5], 16))
                continue
            except ValueError:
                pass
        if raw:
            text = decode_utf8(raw)
            parts += [text] if text.encode() == raw else ["\ufffd"] * len(raw)
            raw = bytearray()
        parts.append(token)
    return parts[:-1]
