"""Twice the text takes about twice the time, whatever it is; and past what a context holds, hardly any."""

from __future__ import annotations

import json
import random
import time
import tracemalloc

import pytest
import tokenizers
from bpe_peers import SENTENCES
from sentencepiece import sentencepiece_model_pb2 as pb
from sentencepiece_corpus import train
from tokenizers import models, normalizers, pre_tokenizers, processors

from minclip.tokenizers.bpe import BPETokenizer
from minclip.tokenizers.sentencepiece import SentencePieceTokenizer

TEXTS = {
    "marks out of order": lambda n: "a" + "\u0301" * n + "\u0327" * n,
    "entities in entities": lambda n: "&" + "amp;" * n,
    "entities of many depths": lambda n: " ".join("&" + "amp;" * depth for depth in range(9, int(n**0.5))),
    "flags": lambda n: "\U0001f1e6" * 2 * n,
    "joined pictures": lambda n: "👩\u200d" * n,
    "one word of one letter": lambda n: "a" * 4 * n,
    "one word of many letters": lambda n: "".join(random.Random(0).choices("abcdefghij", k=4 * n)),
    "one word that is not ASCII": lambda n: "é" * 2 * n,
    "characters without spaces": lambda n: "猫犬" * n,
    "unknown characters": lambda n: "\u4dff" * n,
    "digits and signs": lambda n: "1!" * n,
    "spaces": lambda n: " " * 4 * n + "a",
    "lines": lambda n: "é\n" * n,
    "a document": lambda n: "a photo of a cät " * n,
    "escape sequences": lambda n: "\x1b[" * n + "m" * n,
    "added tokens": lambda n: "<s> <|endoftext|>" * (n // 4),
}


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    """A tokenizer of every kind."""
    found = {kind: BPETokenizer.train(SENTENCES * 3, 900, cleaning=kind) for kind in ("ftfy", "nfc")}
    for kind in ("unigram", "bpe"):
        folder = tmp_path_factory.mktemp(kind)
        (folder / "sentencepiece.bpe.model").write_bytes(train(kind, "bytes" if kind == "bpe" else "plain"))
        found[f"{kind} model"] = SentencePieceTokenizer.from_folder(folder)
    proto = pb.ModelProto.FromString(train("unigram"))
    pieces = [(piece.piece, piece.score) for piece in proto.pieces[3:]]
    peer = tokenizers.Tokenizer(
        models.Unigram([(t, 0.0) for t in ("<s>", "<pad>", "</s>", "<unk>")] + pieces, 3, False)
    )
    peer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    peer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    peer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    peer.add_special_tokens(["<s>", "</s>", "<pad>", "<unk>"])
    folder = tmp_path_factory.mktemp("json")
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(peer.to_str())))
    found["tokenizer.json"] = SentencePieceTokenizer.from_folder(folder)
    return found


def seconds(call, text):
    """Processor time of the fastest of three, so that a busy machine counts little."""
    found = []
    for _ in range(3):
        start = time.process_time()
        call(text)
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.parametrize("kind", ["ftfy", "nfc", "unigram model", "bpe model", "tokenizer.json"])
@pytest.mark.parametrize("shape", TEXTS)
def test_doubling_the_text_takes_less_than_2_6_times_the_time(kind, shape, all_kinds):
    """Doubled twice, so that noise counts less; n squared steps would take 16 times as long."""
    tokenizer = all_kinds[kind]
    shorter, longer = (seconds(tokenizer.encode, TEXTS[shape](n)) for n in (2_000, 8_000))
    assert longer < 2.6**2 * max(shorter, 0.02), f"{shorter:.3f} s, then {longer:.3f} s"


@pytest.mark.parametrize("kind", ["ftfy", "nfc", "unigram model", "bpe model", "tokenizer.json"])
@pytest.mark.parametrize("shape", TEXTS)
def test_cut_to_the_context_doubling_the_text_takes_less_than_2_6_times_the_time(kind, shape, all_kinds):
    tokenizer = all_kinds[kind]
    shorter, longer = (seconds(lambda text: tokenizer(text, max_length=20), TEXTS[shape](n)) for n in (4_000, 16_000))
    assert longer < 2.6**2 * max(shorter, 0.02), f"{shorter:.3f} s, then {longer:.3f} s"


@pytest.mark.parametrize("kind", ["ftfy", "nfc", "unigram model", "bpe model", "tokenizer.json"])
@pytest.mark.parametrize("text", ["a" * 300_000, "a cat " * 50_000], ids=["one word", "many words"])
def test_memory_for_hundreds_of_thousands_of_letters_is_a_few_times_theirs(kind, text, all_kinds):
    tracemalloc.start()
    try:
        all_kinds[kind](text, max_length=77)
        assert tracemalloc.get_traced_memory()[1] < 30 * len(text)
    finally:
        tracemalloc.stop()
