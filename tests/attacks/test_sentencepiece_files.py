"""SentencePiece files of both kinds and several settings, damaged: a model that can be used, or one line."""

from __future__ import annotations

import random

import pytest
from attack import attack, counts, needs_timer
from mutators import PROTOBUF, mutated
from sentencepiece_corpus import random_text, train

from minclip.errors import TokenizerError
from minclip.tokenizers.sentencepiece_model import SentencePieceModel


@needs_timer
@counts(30, 150)
@pytest.mark.parametrize("setting", ["plain", "symbols", "bytes", "identity"])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_damaged_file_loads_and_cuts_texts_or_is_refused_by_name(kind: str, setting: str, count: int) -> None:
    rng, whole = random.Random(f"{kind} {setting} {count}"), train(kind, setting)

    def use(data: bytes) -> None:
        try:
            model = SentencePieceModel.from_bytes(data, "spm.model")
        except TokenizerError as error:
            assert "spm.model" in str(error)  # noqa: PT017
            raise
        for text in (random_text(rng), "e\u0301\u0323a photo of a cat ＡＢＣ"):
            ids = model.encode(text)
            assert all(0 <= index < len(model) for index in ids)
            model.decode(ids)
            spans = model.encode_with_offsets(text)
            assert [index for index, _, _ in spans] == ids
            assert all(0 <= start <= end <= len(text) for _, start, end in spans)

    use(whole)
    found = attack(use, (mutated(whole, PROTOBUF, rng) for _ in range(count)), TokenizerError)
    print(f"{kind}, {setting}: {found}")
    assert found["answered"] > 0
    assert found["refused"] > 0
