"""A tokenizer.json with a unigram or BPE model over SentencePiece's pieces, run as Hugging Face's `tokenizers` runs it.

    text --added tokens--> parts --normalizer--> text --pre_tokenizer--> words --model--> ids

`tokenizers` is not sentencepiece: its character map looks at grapheme clusters and takes the shortest key, scores are
float64, every word is cut by itself. A file is followed as the program does that it was written for.
"""

from __future__ import annotations

import base64
import binascii
import gc
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NoReturn

import regex

from minclip.errors import TokenizerError
from minclip.files import parse_json
from minclip.tokenizers import memory
from minclip.tokenizers.added_tokens import WHITE_SPACE, AddedToken, AddedTokenFinder, token_id
from minclip.tokenizers.batch import unknown_id
from minclip.tokenizers.memory import Memory
from minclip.tokenizers.normalizer import CharacterMap
from minclip.tokenizers.offsets import CLUSTER
from minclip.tokenizers.segmentation import Span, first_tokens
from minclip.tokenizers.tokenizer_json_models import make_decoder, make_model

Spans = list[tuple[int, int]]
Edits = Iterable[tuple[str, int]]  # a text's edited form: a string, and how many characters of the text it stands for

_NEAR = 64  # characters a token; more of a text is not looked at where only so many tokens are wanted
_WORD_END = regex.compile("(?<=[A-Za-z0-9])(?= )")


class TokenizerJSON:
    """The pipeline of one file. special_ids, frame: ids that do not stand for text; the begin and the end token's."""

    def __init__(self, data: bytes, name: str) -> None:
        """Raises TokenizerError, naming the file, where it is broken or has a part that minclip does not know."""
        self.name, self._data = name, data
        try:
            with _no_collection():
                self._build(parse_json(data, name, TokenizerError))
        except TokenizerError:
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
            raise TokenizerError(f"{name}: not laid out as a tokenizer.json ({error!r}); get the file again") from None

    def _build(self, document: dict[str, Any]) -> None:
        self._strips_left, self._ends_at_spaces = False, True
        self._normalizers = list(self._make_normalizers(document.get("normalizer")))
        self._whitespace_split, self._metaspace = self._read_pre_tokenizer(document.get("pre_tokenizer"))
        self._model = make_model(document["model"], self.name)
        self._decode = make_decoder(document.get("decoder"), self.name)
        self._words: Memory[list[Span]] = Memory()
        added = document.get("added_tokens") or []
        if not isinstance(added, list):
            self._refuse(f"added_tokens is {added!r:.40}, not a list")
        tokens = [(token_id(entry["id"], entry["content"], self.name), AddedToken.from_json(entry)) for entry in added]
        grows = any(token.content not in self._model.ids for _, token in tokens)  # else nothing large is copied
        self.ids: dict[str, int] = dict(self._model.ids) if grows else self._model.ids
        taken = {index: content for content, index in self.ids.items()} if grows else {}
        for index, token in tokens:
            if token.content not in self.ids and taken.setdefault(index, token.content) != token.content:
                self._refuse(f"added token {token.content!r} has id {index!r}, which is another token's")
            if self.ids.setdefault(token.content, index) != index:
                self._refuse(f"added token {token.content!r} has id {index}, the vocabulary {self.ids[token.content]}")
        self._spelled = {index: self._normalize(token.content)[0] for index, token in tokens if token.normalized}
        self._size = max(self.ids.values()) + 1
        self.special_ids = frozenset(index for index, token in tokens if token.special)
        self._raw = AddedTokenFinder((t.content, i, t) for i, t in tokens if not t.normalized)
        self._normalized = AddedTokenFinder((self._normalize(t.content)[0], i, t) for i, t in tokens if t.normalized)
        # whether a word ends before a space, whatever follows: then the start of a long text can be had alone
        splits = self._whitespace_split or (self._metaspace is not None and self._metaspace[2])
        self._ends_at_spaces &= splits and not any(regex.search("[\\s▁]", t.content) for _, t in tokens if t.normalized)
        self._longest = max(map(len, self.ids))
        self.frame = self._read_frame(document.get("post_processor"))
        if not {*self.frame} <= {index for index, _ in tokens} and not {*self.frame} <= {*self.ids.values()}:
            self._refuse(f"post_processor puts ids {self.frame} around a text, which are not in the vocabulary")
        "".join(self._decode(["▁a", "b"]))  # options of a wrong type show here, not at the first use

    def __reduce__(self) -> tuple[type[TokenizerJSON], tuple[bytes, str]]:
        return TokenizerJSON, (self._data, self.name)  # a pickle holds the file, and is built anew from it

    def _refuse(self, what: str) -> NoReturn:
        raise TokenizerError(f"{self.name}: {what}; minclip reads what XLM-R-like checkpoints ship")

    def __len__(self) -> int:
        return self._size

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The tokens by id, as `decode` spells them: `tokenizers` shows one found in normalized text normalized."""
        return self._contents | self._spelled

    @cached_property
    def _contents(self) -> dict[int, str]:
        return {index: token for token, index in self.ids.items()}

    # --- text to ids ---------------------------------------------------------------------------------------------

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of a text, unframed; with a limit, of a long text perhaps no more than that many."""
        ids: list[int] = []
        for index, start, end in self._raw.split(text):
            if index is not None:
                ids.append(index)
            elif limit is None:
                ids += self._encode_part(text[start:end], start == 0, None)
            else:
                ids += self._encode_beginning(text[start:end], start == 0, limit - len(ids))
            if limit is not None and len(ids) >= limit:
                break
        return ids

    def _encode_beginning(self, text: str, at_start: bool, limit: int) -> list[int]:
        """At least the first `limit` ids of a text between raw added tokens, or all that there are."""
        size = _NEAR * (limit + 1)
        while self._ends_at_spaces and size < len(text) and (end := _WORD_END.search(text, size)):
            ids = self._encode_part(text[: end.start()], at_start, limit)
            if len(ids) >= limit:
                return ids
            size *= 8
        return self._encode_part(text, at_start, limit)

    def _encode_part(self, text: str, at_start: bool, limit: int | None) -> list[int]:
        text = self._normalize(text)[0]
        ids: list[int] = []
        for index, start, end in self._normalized.split(text):
            if index is not None:
                ids.append(index)
                continue
            for word, _ in self._pre_tokenize(text[start:end], None, at_start and start == 0):
                ids += [piece for piece, _, _ in self._cut(word, limit)]
                if limit is not None and len(ids) >= limit:
                    return ids
        return ids

    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of a text's tokens; start and end count characters of `text`."""
        result: list[Span] = []
        for index, start, end in self._raw.split(text):
            if index is not None:
                result.append((index, start, end))
                continue
            spans: Spans | None = [(i, i + 1) for i in range(start, end)]
            part, spans = self._normalize(text[start:end], spans)
            assert spans is not None
            for inner, a, b in self._normalized.split(part):
                if inner is not None:
                    result.append((inner, *_cover(spans, a, b)))
                    continue
                for word, word_spans in self._pre_tokenize(part[a:b], spans[a:b], start == 0 and a == 0):
                    assert word_spans is not None
                    result += [(piece, *_cover(word_spans, c, d)) for piece, c, d in self._cut(word)]
        return result

    def _normalize(self, text: str, spans: Spans | None = None) -> tuple[str, Spans | None]:
        for normalizer in self._normalizers:
            text, spans = _edit(normalizer(text), spans)
        return text, spans

    def _pre_tokenize(self, text: str, spans: Spans | None, at_start: bool) -> list[tuple[str, Spans | None]]:
        """Words, each with the spans of its characters."""
        words = [(text, spans)]
        if self._whitespace_split:
            words = [
                (match.group(), spans[match.start() : match.end()] if spans else None)
                for match in regex.finditer(f"[^{WHITE_SPACE}]+", text)
            ]
        if self._metaspace is None:
            return [word for word in words if word[0]]
        symbol, scheme, split = self._metaspace
        result: list[tuple[str, Spans | None]] = []
        for word, word_spans in words:
            word = word.replace(" ", symbol)
            if word and word[0] != symbol and (scheme == "always" or (scheme == "first" and at_start)):
                word, word_spans = _edit([(symbol, 0), (word, len(word))], word_spans)
            if not split:
                result.append((word, word_spans))
                continue
            result += [
                (match.group(), word_spans[match.start() : match.end()] if word_spans else None)
                for match in regex.finditer(f"{symbol}?[^{symbol}]+|{symbol}", word)
            ]
        return [word for word in result if word[0]]

    def _cut(self, word: str, limit: int | None = None) -> list[Span]:
        if limit is not None and len(word) > memory.LETTERS:
            return first_tokens(lambda n: (word[:n], n >= len(word)), self._model.cut, limit, self._longest)
        return self._words.get(word) or self._words.keep(word, self._model.cut(word))

    # --- ids to text ---------------------------------------------------------------------------------------------

    def id_to_token(self, index: int) -> str:
        """The token with this id. TokenizerError where there is none."""
        if index not in self._contents:
            raise unknown_id(index, len(self))
        return self._contents[index]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids. TokenizerError for one outside the vocabulary."""
        tokens = []
        for index in ids:
            self.id_to_token(index)
            if not (skip_special_tokens and index in self.special_ids):
                tokens.append(self.tokens[index])
        return "".join(self._decode(tokens))

    # --- the file's parts ----------------------------------------------------------------------------------------

    def _make_normalizers(self, spec: dict[str, Any] | None) -> Iterable[Callable[[str], Edits]]:
        """The steps of the normalizer, each from a text to its edits."""
        kind = spec["type"] if spec else None
        if spec is None:
            return
        if kind == "Sequence":
            for step in spec["normalizers"]:
                yield from self._make_normalizers(step)
        elif kind == "Precompiled":
            try:
                blob = base64.b64decode(spec["precompiled_charsmap"] or "", validate=True)
            except (binascii.Error, ValueError):
                self._refuse("precompiled_charsmap is not base64")
            if blob:
                yield _by_grapheme(CharacterMap(blob, f"{self.name} (precompiled_charsmap)"))
        elif kind == "Strip":
            self._strips_left |= bool(spec["strip_left"])
            yield _strip(bool(spec["strip_left"]), bool(spec["strip_right"]))
        elif kind == "Prepend":
            prefix = str(spec["prepend"])
            yield lambda text: [(prefix, 0), (text, len(text))] if text else []
        elif kind == "Lowercase":
            yield lambda text: [(character.lower(), 1) for character in text]
        elif kind == "Replace" and "String" in spec["pattern"]:
            pattern = str(spec["pattern"]["String"])
            if not pattern:
                self._refuse("normalizer Replace replaces an empty string")
            self._ends_at_spaces &= not pattern.strip(" ") or " " not in pattern
            yield _replace(regex.escape(pattern), str(spec["content"]))
        elif kind == "Replace" and spec["pattern"].get("Regex") == " {2,}":
            yield _replace(" {2,}", str(spec["content"]))
        else:
            self._refuse(f"normalizer {json.dumps(spec)[:80]} is not known")

    def _read_pre_tokenizer(self, spec: dict[str, Any] | None) -> tuple[bool, tuple[str, str, bool] | None]:
        """Whether white space separates words, and Metaspace's symbol, scheme and split."""
        if spec is None:
            return False, None
        steps = spec["pretokenizers"] if spec["type"] == "Sequence" else [spec]
        kinds = [step["type"] for step in steps]
        if kinds not in (["WhitespaceSplit"], ["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
            self._refuse(f"pre_tokenizer {' + '.join(map(str, kinds))} is not known")
        if kinds == ["WhitespaceSplit"]:
            return True, None
        metaspace = steps[-1]
        scheme = metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never")
        symbol = metaspace["replacement"]
        if not isinstance(symbol, str) or len(symbol) != 1 or symbol in "^]\\-":
            self._refuse(f"Metaspace replacement {symbol!r} is not one character")
        if scheme not in ("always", "never", "first"):
            self._refuse(f"Metaspace prepend_scheme {scheme!r} is not known")
        if scheme == "first" and (len(steps) > 1 or self._strips_left):
            self._refuse('Metaspace prepend_scheme "first" after something that strips the start is not known')
        return len(steps) > 1, (symbol, scheme, bool(metaspace.get("split", True)))

    def _read_frame(self, spec: dict[str, Any] | None) -> tuple[int, int]:
        """The ids of the begin and the end token that the post-processor puts around a text."""
        kind = spec["type"] if spec else None
        if spec and kind in ("RobertaProcessing", "BertProcessing"):
            return int(spec["cls"][1]), int(spec["sep"][1])
        if spec and kind == "TemplateProcessing":
            names = [step["SpecialToken"]["id"] if "SpecialToken" in step else None for step in spec["single"]]
            if len(names) == 3 and names[1] is None and names[0] is not None and names[2] is not None:
                first, last = (spec["special_tokens"][names[place]]["ids"] for place in (0, 2))
                if len(first) == len(last) == 1:
                    return int(first[0]), int(last[0])
        return self._refuse("post_processor does not put one begin token and one end token around a text")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Within, no garbage is looked for: among the 900,000 lists of a vocabulary that doubles the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _cover(spans: Spans, start: int, end: int) -> tuple[int, int]:
    """From the first to the last place in the original that the characters came from."""
    return min(a for a, _ in spans[start:end]), max(b for _, b in spans[start:end])


def _edit(edits: Edits, spans: Spans | None) -> tuple[str, Spans | None]:
    """The edited text; with spans, each of its characters has its own where the number stays, else all have the whole.

    What is put in before a character shares that one's span.
    """
    if spans is None:
        return "".join(chunk for chunk, _ in edits), None
    edits = list(edits)
    text = "".join([chunk for chunk, _ in edits])
    result: Spans = []
    place = 0
    for chunk, length in edits:
        if length == len(chunk):
            result += spans[place : place + length]
        elif length:
            result += [(spans[place][0], spans[place + length - 1][1])] * len(chunk)
        else:
            result += [spans[place]] * len(chunk)
        place += length
    return text, result


def _by_grapheme(table: CharacterMap) -> Callable[[str], Edits]:
    """The character map as `tokenizers` applies it.

    A grapheme cluster of fewer than six bytes becomes, whole, the replacement of the shortest key that it starts with:
    what comes after that key in it is lost. Otherwise that rule holds for each of its characters.
    """
    known: Memory[str] = Memory()

    def replace(grapheme: str) -> str:
        found = table.shortest_prefix(grapheme) if len(grapheme.encode()) < 6 else None
        if found is None:
            parts = [(character, table.shortest_prefix(character)) for character in grapheme]
            found = "".join([character if part is None else part for character, part in parts])
        return known.keep(grapheme, found)

    def apply(text: str) -> Edits:
        graphemes = (match.group() for match in CLUSTER.finditer(text))
        return ((known[g] if g in known else replace(g), len(g)) for g in graphemes)

    return apply


def _strip(left: bool, right: bool) -> Callable[[str], Edits]:
    leading, trailing = regex.compile(f"[{WHITE_SPACE}]*"), regex.compile(f"(?r)[{WHITE_SPACE}]*")

    def apply(text: str) -> Edits:
        start = leading.match(text).end() if left else 0
        end = trailing.match(text, start).start() if right else len(text)
        return [("", start), (text[start:end], end - start), ("", len(text) - end)]

    return apply


def _replace(pattern: str, content: str) -> Callable[[str], Edits]:
    find = regex.compile(pattern).finditer

    def apply(text: str) -> Edits:
        edits, done = [], 0
        for match in find(text):
            edits += [(text[done : match.start()], match.start() - done), (content, match.end() - match.start())]
            done = match.end()
        return [*edits, (text[done:], len(text) - done)]

    return apply
