"""Hostile texts to tokenizers of every kind: the peer's ids, or one line for a text that no peer takes."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
import sentencepiece_corpus
import tokenizers
import transformers
from attack import attack, counts, needs_timer
from bpe_peers import FOLDER, FRAGMENTS, SENTENCES, needs_data, openai_tokenizer, seen_differently
from mutators import ODD_TEXT

from minclip.tokenizers.batch import checked_unicode
from minclip.tokenizers.bpe import BPETokenizer
from minclip.tokenizers.sentencepiece_model import SentencePieceModel
from minclip.tokenizers.tokenizer_json import TokenizerJSON

WORDS = [word for sentence in SENTENCES for word in sentence.split()]
Encode = Callable[[str], list[int]]


def hostile(rng: random.Random) -> str:
    """Words, markup, odd and random characters, special tokens; now and then half a surrogate pair or a long word."""
    if rng.random() < 0.002:
        return sentencepiece_corpus.long_texts(rng, 1)[0]
    parts: list[str] = []
    for _ in range(rng.randrange(10)):
        match rng.randrange(7):
            case 0:
                parts.append(rng.choice(FRAGMENTS))
            case 1:
                parts.append(rng.choice(WORDS))
            case 2:
                parts.append(sentencepiece_corpus.random_text(rng))
            case 3:
                parts.append("".join(sentencepiece_corpus.any_character(rng) for _ in range(rng.randrange(6))))
            case 4:
                parts.append("".join(chr(rng.randrange(0x300)) for _ in range(rng.randrange(6))))
            case 5:
                parts.append(rng.choice(["", " ", rng.choice(ODD_TEXT)]))
            case _:
                parts.append(" ")
    return "".join(parts)


def refusing(encode: Encode) -> Encode:
    """As `SentencePieceTokenizer` calls it: with texts that are Unicode only."""
    return lambda text: encode(checked_unicode(text))


def bpe_ftfy(_: Path) -> tuple[Encode, Encode]:
    return BPETokenizer.from_folder(FOLDER, cleaning="ftfy").encode_text, openai_tokenizer()


def bpe_nfc(_: Path) -> tuple[Encode, Encode]:
    peer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    return BPETokenizer.from_folder(FOLDER, cleaning="nfc").encode, lambda text: peer.encode(text).ids


def model_file(data: bytes) -> tuple[Encode, Encode]:
    peer = sentencepiece.SentencePieceProcessor(model_proto=data)
    return refusing(SentencePieceModel.from_bytes(data).encode), peer.encode


def unigram_model(_: Path) -> tuple[Encode, Encode]:
    return model_file(sentencepiece_corpus.train("unigram"))


def bpe_model(_: Path) -> tuple[Encode, Encode]:
    return model_file(sentencepiece_corpus.train("bpe", "bytes"))


def serialized(folder: Path) -> tuple[Encode, Encode]:
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_corpus.train("unigram"))
    peer = transformers.XLMRobertaTokenizer.from_pretrained(folder).backend_tokenizer
    ours = TokenizerJSON(peer.to_str().encode(), "tokenizer.json")
    return refusing(ours.encode), lambda text: peer.encode(text, add_special_tokens=False).ids


PAIRS = {
    "BPE, ftfy": bpe_ftfy, "BPE, NFC": bpe_nfc, "unigram .model": unigram_model, "BPE .model": bpe_model,
    "tokenizer.json": serialized,
}  # fmt: skip


@cache
def elsewhere() -> frozenset[str]:
    """Characters that the peers' Unicode does not know, or knows otherwise."""
    return seen_differently()


def known(text: str) -> str:
    """The text without characters whose properties depend on the age of whoever looks."""
    return "".join(c for c in text if c not in elsewhere() and unicodedata.category(c) not in ("Cn", "Co"))


@needs_timer
@needs_data
@counts(400, 10_000)
@pytest.mark.parametrize("kind", PAIRS)
def test_hostile_texts_get_the_peers_ids_or_one_line(kind: str, count: int, tmp_path: Path) -> None:
    ours, peer = PAIRS[kind](tmp_path)
    rng = random.Random(f"{kind} {count}")

    def use(text: str) -> None:
        found = ours(text)
        assert found == peer(text)

    texts = (hostile(rng) for _ in range(count))
    if kind in ("BPE, NFC", "tokenizer.json"):
        texts = (known(text) for text in texts)
    use(next(texts).encode(errors="ignore").decode())
    found = attack(use, texts)
    print(f"{kind}: {found}")
    assert found["answered"] > 0.8 * (count - 1)
