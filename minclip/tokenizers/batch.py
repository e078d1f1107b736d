"""What every tokenizer does: one text or many in, one rectangle of ids out.

A tokenizer of its own kind supplies `encode_text` (text to ids, without the tokens that frame it), the tokens by id and
its files; framing, truncation, padding and the masks are the same for all and live here.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minclip.errors import TokenizerError
from minclip.files import write_together
from minclip.tokenizers.segmentation import Span

Padding = Literal["longest", "max_length"] | bool

COUNTED = 100_000  # characters; of a longer text that does not fit, an error does not count the tokens


class Tokenizer(ABC):
    """Texts to ids and back; the base of `BPETokenizer` and `SentencePieceTokenizer`.

    max_length: the most ids a text may have, framing included (77 for CLIP, 512 for XLM-R).
    """

    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_length: int

    # --- what each kind supplies -----------------------------------------------------------------------------------

    @abstractmethod
    def encode_text(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of one text, unframed. With a limit the rest of a long text may be left unread.

        The first `limit` ids are then the same; how many more there are, if any, is left open.
        """

    @abstractmethod
    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of each token of one text, unframed; start and end count characters of `text`."""

    @abstractmethod
    def id_to_token(self, index: int) -> str:
        """The token as the vocabulary spells it. An id outside the vocabulary raises TokenizerError."""

    @abstractmethod
    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for. An id outside the vocabulary raises TokenizerError."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files from which this tokenizer, and Transformers' of the same kind, are loaded again: name to content.

        Raises TokenizerError where a token cannot be written as text.
        """

    @abstractmethod
    def leftovers(self, folder: Path) -> list[str]:
        """Names of files in `folder` that would be read instead of or beside this tokenizer's own, if saved there."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many ids there are; the largest id is `vocab_size - 1`."""

    @property
    @abstractmethod
    def special_ids(self) -> frozenset[int]:
        """The ids that frame, pad or otherwise do not stand for text."""

    # --- what all do alike -----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size:,} tokens, texts of up to {self.max_length})"

    def tokenize(self, text: str) -> list[str]:
        """The tokens of one text, unframed, as the vocabulary spells them."""
        return [self.id_to_token(index) for index in self.encode_text(checked_text(text))]

    def batch_decode(self, rows: Iterable[Iterable[int]], *, skip_special_tokens: bool = False) -> list[str]:
        """The texts of many rows of ids; see `decode`."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]

    def encode(
        self, text: str, *, add_special_tokens: bool = True, truncation: bool = False, max_length: int | None = None
    ) -> list[int]:
        """Ids of one text: begin token, text, end token.

        Truncation cuts the text, never the end token, so that the result has at most `max_length` ids.
        Raises TokenizerError where `truncation` is off and `max_length` is given but too short.
        """
        if max_length is None and truncation:
            max_length = self.max_length
        frame = 2 if add_special_tokens else 0
        limit = None if max_length is None else _room(max_length, frame)
        ids = self._ids(text, limit, truncation, frame)
        return [self.bos_token_id, *ids, self.eos_token_id] if add_special_tokens else ids

    def _ids(self, text: str, limit: int | None, truncation: bool, frame: int) -> list[int]:
        """The ids of a text, at most `limit` of them besides the `frame` framing ones; see `encode`."""
        checked_text(text)
        counted = len(text) <= COUNTED and not truncation  # so that an error can tell how many there are
        if limit is None or len(text) <= limit or counted:  # few characters are read faster than reading is stopped
            ids = self.encode_text(text)
        else:
            ids = self.encode_text(text, limit + 1)
        if limit is None or len(ids) <= limit:
            return ids
        if not truncation:
            count = len(ids) + frame if counted else "many"
            raise TokenizerError(
                f"text of {count} tokens is longer than {limit + frame}; "
                f"shorten it or pass truncation=True: {text[:60]!r}"
            )
        return ids[:limit]

    def __call__(
        self,
        texts: str | Iterable[str],
        *,
        padding: Padding = "longest",
        truncation: bool = True,
        max_length: int | None = None,
        return_special_tokens_mask: bool = False,
    ) -> dict[str, np.ndarray]:
        """Encode a text or a batch of them into a rectangle.

        padding: "longest" or True pads to the longest text of the batch, "max_length" to `max_length`; False refuses
        texts of different lengths. Padding goes on the right, with `pad_token_id`.
        Returns input_ids and attention_mask (1 for a token, 0 for padding), both (b, t) int64, and on request
        special_tokens_mask (b, t), 1 for the tokens that frame and pad; a special token in the text itself counts as
        text there, as in Transformers.
        Raises TokenizerError for an empty batch, for something that is no text, or for a text longer than
        `max_length` where `truncation` is off.
        """
        if not isinstance(padding, bool) and padding not in ("longest", "max_length"):
            raise TokenizerError(f"padding={padding!r} is not one of True, False, 'longest', 'max_length'")
        if not isinstance(texts, str | Iterable) or isinstance(texts, bytes):
            raise TokenizerError(
                f"texts must be a str or a sequence of them, not {type(texts).__name__}: {texts!r:.80}"
            )
        batch = [texts] if isinstance(texts, str) else list(texts)
        if not batch:
            raise TokenizerError("texts is empty; pass at least one text")
        limit = self.max_length if max_length is None else max_length
        room, bos, eos = _room(limit, 2), self.bos_token_id, self.eos_token_id
        rows = [[bos, *self._ids(text, room, truncation, 2), eos] for text in batch]
        width = limit if padding == "max_length" else max(map(len, rows))
        if padding is False and any(len(row) != width for row in rows):
            raise TokenizerError("texts differ in length and padding=False; use padding=True")
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(width) < lengths[:, None]  # (b, t)
        input_ids = np.full((len(rows), width), self.pad_token_id, dtype=np.int64)
        input_ids[mask] = [i for row in rows for i in row]
        result = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
        if return_special_tokens_mask:
            text_begins, text_ends = 1, lengths[:, None] - 1
            place = np.arange(width)
            result["special_tokens_mask"] = ((place < text_begins) | (place >= text_ends)).astype(np.int64)
        return result

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise TokenizerError where a model with embeddings for `vocab_size` ids cannot be this tokenizer's."""
        frame = max(self.bos_token_id, self.eos_token_id, self.pad_token_id)
        if frame >= vocab_size:
            raise TokenizerError(
                f"the tokenizer frames texts with id {frame}, and config.json says vocab_size {vocab_size}; "
                "these files are not of one checkpoint"
            )

    def check_folder(self, folder: str | Path) -> None:
        """Raise TokenizerError where files in `folder` would make it unclear which tokenizer was saved there."""
        if found := self.leftovers(Path(folder)):
            raise TokenizerError(
                f"{folder} holds {' and '.join(found)} of another tokenizer, which would be read for this one; "
                "save to another folder or move them away"
            )

    def save(self, folder: str | Path) -> None:
        """Write `files()` into a folder, all of them or none; no other file there is touched.

        Raises TokenizerError, before anything is written, as `files` and `check_folder` do.
        """
        contents = self.files()
        self.check_folder(folder)
        try:
            write_together(folder, contents)
        except OSError as error:
            raise TokenizerError(f"cannot write the tokenizer to {folder}: {error.strerror or error}") from None


def checked_text(text: str) -> str:
    """The text itself. TokenizerError where it is none."""
    if not isinstance(text, str):
        raise TokenizerError(f"a text must be a str, not {type(text).__name__}: {text!r:.80}")
    return text


def checked_unicode(text: str) -> str:
    """The text itself. TokenizerError where it holds half of a surrogate pair, which has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TokenizerError(f"the text holds U+{code:04X}, half of a surrogate pair; decode it properly") from None
    return text


def checked_ids(ids: Iterable[int]) -> list[int]:
    """The ids as Python's ints. TokenizerError where one is no whole number."""
    try:
        return [operator.index(index) for index in ids]
    except TypeError as error:
        raise TokenizerError(f"ids must be a sequence of whole numbers: {error}") from None


def unknown_id(index: int, vocab_size: int) -> TokenizerError:
    """The error for an id outside the vocabulary."""
    return TokenizerError(f"id {index} is not in the vocabulary; ids go from 0 to {vocab_size - 1}")


def _room(max_length: Any, frame: int) -> int:
    """How many ids of text fit beside the framing ones. Raises TokenizerError for none, or what is no number."""
    if isinstance(max_length, bool) or not isinstance(max_length, int | np.integer):
        raise TokenizerError(f"max_length={max_length!r:.40} is not a whole number")
    if max_length < frame:
        raise TokenizerError(f"max_length={max_length} has no room for the {frame} framing tokens; use at least 2")
    return int(max_length) - frame
