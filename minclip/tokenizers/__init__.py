"""Texts to ids: `find_tokenizer` tells from a checkpoint's files which kind they are for."""

from __future__ import annotations

import json
from pathlib import Path

from minclip.errors import TokenizerError
from minclip.tokenizers.batch import Tokenizer


def find_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer whose files lie in `folder`, or None where there are none.

    A SentencePiece `.model` or a tokenizer.json with a unigram model is XLM-R's kind; vocab.json with merges.txt, or a
    tokenizer.json whose merges end words in `</w>`, is CLIP's. Raises TokenizerError where the files are broken.
    """
    folder = Path(folder)
    pair = (folder / "vocab.json").is_file() + (folder / "merges.txt").is_file()
    if pair == 2:
        return _bpe(folder)
    if any(folder.glob("*.model")):
        return _sentencepiece(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        return _bpe(folder) if pair else None  # which says what is missing
    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        clip = model.get("end_of_word_suffix") == "</w>"
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise TokenizerError(
            f"{path} is not the file of a tokenizer ({type(error).__name__}); fetch it again"
        ) from None
    return _bpe(folder) if clip else _sentencepiece(folder)


# imported where they are needed: each costs a start-up that the other kind of checkpoint need not pay


def _bpe(folder: Path) -> Tokenizer:
    from minclip.tokenizers.bpe import BPETokenizer

    return BPETokenizer.from_folder(folder)


def _sentencepiece(folder: Path) -> Tokenizer:
    from minclip.tokenizers.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer.from_folder(folder)
