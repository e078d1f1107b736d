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
KINDS = ["ftfy", "nfc", "unigram model", "bpe model", "tokenizer.json"]
FLOOR = 0.005  # seconds, below which a measurement is mostly noise
ATTEMPTS = 20  # the first that is good ends them: only what is never linear needs all


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
    start = time.process_time()
    call(text)
    return time.process_time() - start


def assert_linear(call, shape, n):
    """Four times the text takes less than 2.6 squared times the time; n squared steps would take 16 times as long.

    Processor time, of each length the fastest of several, measured in turn: a busy machine slows both. What is quicker
    than FLOOR is repeated until it is not, so that the clock's own steps count little.
    """
    texts = [TEXTS[shape](n), TEXTS[shape](4 * n)]
    times = max(1, round(FLOOR / max(min(seconds(call, texts[0]) for _ in range(3)), FLOOR / 20)))

    def repeated(text):
        for _ in range(times):
            call(text)

    best = [float("inf")] * 2
    for _ in range(ATTEMPTS):
        best = [min(known, seconds(repeated, text)) for known, text in zip(best, texts, strict=True)]
        if best[1] < 2.6**2 * best[0]:
            return
    raise AssertionError(f"{shape}: {best[0]:.4f} s, then {best[1]:.4f} s, for {times} calls")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", TEXTS)
def test_doubling_the_text_takes_less_than_2_6_times_the_time(kind, shape, all_kinds):
    assert_linear(all_kinds[kind].encode, shape, 4_000)  # where long sums are rounded as the peers round them, too


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", TEXTS)
def test_cut_to_the_context_doubling_the_text_takes_less_than_2_6_times_the_time(kind, shape, all_kinds):
    assert_linear(lambda text: all_kinds[kind](text, max_length=20), shape, 4_000)


def test_the_ratio_finds_what_grows_with_the_square():
    with pytest.raises(AssertionError, match="digits and signs: "):
        assert_linear(lambda text: [None for _ in text for _ in text], "digits and signs", 200)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a" * 300_000, "a cat " * 50_000], ids=["one word", "many words"])
def test_memory_for_hundreds_of_thousands_of_letters_is_a_few_times_theirs(kind, text, all_kinds):
    tracemalloc.start()
    try:
        all_kinds[kind](text, max_length=77)
        assert tracemalloc.get_traced_memory()[1] < 30 * len(text)
    finally:
        tracemalloc.stop()
