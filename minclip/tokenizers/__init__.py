"""Texts to ids: `find_tokenizer` tells from a checkpoint's files which kind they are for."""

from __future__ import annotations

import re
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
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            # searched, not parsed: a file may have 60 MB. Inside a string the quotes would be escaped
            clip = re.search(rb'"end_of_word_suffix"\s*:\s*"</w>"', path.read_bytes())
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}; fetch it again") from None
        return _bpe(folder) if clip else _sentencepiece(folder)
    if any(folder.glob("*.model")):
        return _sentencepiece(folder)
    return _bpe(folder) if pair else None  # which says what is missing


# imported where they are needed: each costs a start-up that the other kind of checkpoint need not pay


def _bpe(folder: Path) -> Tokenizer:
    from minclip.tokenizers.bpe import BPETokenizer

    return BPETokenizer.from_folder(folder)


def _sentencepiece(folder: Path) -> Tokenizer:
    from minclip.tokenizers.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer.from_folder(folder)
