"""The face that every tokenizer shows: one text or many in, one rectangle of ids out.

A tokenizer of its own kind supplies `encode_text` (text to ids, without the tokens that frame it) and `decode`;
framing, truncation, padding and the masks are the same for all and live here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from minclip.errors import TokenizerError

Padding = Literal["longest", "max_length"] | bool


class Tokenizer(ABC):
    """Texts to ids and back; the base of `BPETokenizer` and `SentencePieceTokenizer`.

    max_length: the most ids a text may have, framing included (77 for CLIP, 512 for XLM-R).
    """

    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_length: int

    @abstractmethod
    def encode_text(self, text: str) -> list[int]:
        """The ids of one text, unframed and untruncated."""

    @abstractmethod
    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for. An id outside the vocabulary raises TokenizerError."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the files from which this tokenizer, and Transformers' of the same kind, are loaded again."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many ids there are; the largest id is `vocab_size - 1`."""

    @property
    @abstractmethod
    def special_ids(self) -> frozenset[int]:
        """The ids that frame, pad or otherwise do not stand for text."""

    def encode(
        self, text: str, *, add_special_tokens: bool = True, truncation: bool = False, max_length: int | None = None
    ) -> list[int]:
        """Ids of one text: begin token, text, end token.

        Truncation cuts the text, never the end token, so that the result has at most `max_length` ids.
        Raises TokenizerError where `truncation` is off and `max_length` is given but too short.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"a text must be a str, not {type(text).__name__}: {text!r:.80}")
        ids = self.encode_text(text)
        frame = 2 if add_special_tokens else 0
        if max_length is None and truncation:
            max_length = self.max_length
        limit = None if max_length is None else max_length - frame
        if limit is not None and limit < 0:
            raise TokenizerError(f"max_length={max_length} has no room for the {frame} framing tokens; use at least 2")
        if limit is not None and len(ids) > limit:
            if not truncation:
                raise TokenizerError(
                    f"text of {len(ids) + frame} tokens is longer than {limit + frame}; "
                    f"shorten it or pass truncation=True: {text[:60]!r}"
                )
            ids = ids[:limit]
        return [self.bos_token_id, *ids, self.eos_token_id] if add_special_tokens else ids

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        padding: Padding = "longest",
        truncation: bool = True,
        max_length: int | None = None,
        return_special_tokens_mask: bool = False,
    ) -> dict[str, np.ndarray]:
        """Encode a text or a batch of them into a rectangle.

        padding: "longest" pads to the longest text of the batch, "max_length" to `max_length`; False refuses texts
        of different lengths. Padding goes on the right, with `pad_token_id`.
        Returns input_ids and attention_mask (1 for a token, 0 for padding), both (b, t) int64, and on request
        special_tokens_mask (b, t), 1 where the id does not stand for text.
        Raises TokenizerError for an empty batch, for something that is no text, or for a text longer than
        `max_length` where `truncation` is off.
        """
        if padding not in ("longest", "max_length", True, False):
            raise TokenizerError(f"padding={padding!r} is not one of 'longest', 'max_length', True, False")
        if not isinstance(texts, str | Iterable) or isinstance(texts, bytes):
            raise TokenizerError(
                f"texts must be a str or a sequence of them, not {type(texts).__name__}: {texts!r:.80}"
            )
        batch = [texts] if isinstance(texts, str) else list(texts)
        if not batch:
            raise TokenizerError("texts is empty; pass at least one text")
        limit = self.max_length if max_length is None else max_length
        rows = [self.encode(text, truncation=truncation, max_length=limit) for text in batch]
        width = limit if padding == "max_length" else max(map(len, rows))
        if padding is False and any(len(row) != width for row in rows):
            raise TokenizerError("texts differ in length and padding=False; use padding='longest'")
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(width) < lengths[:, None]  # (b, t)
        input_ids = np.full((len(rows), width), self.pad_token_id, dtype=np.int64)
        input_ids[mask] = [i for row in rows for i in row]
        result = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
        if return_special_tokens_mask:
            special = ~mask | np.isin(input_ids, list(self.special_ids))
            result["special_tokens_mask"] = special.astype(np.int64)
        return result
