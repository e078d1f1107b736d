"""tokenizer.json against `tokenizers`: every part that is read, in many combinations, on any text."""

import functools
import json
import pickle
import random
import unicodedata

import pytest
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as pb
from sentencepiece_corpus import SENTENCES, long_texts, random_text, train
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from minclip.errors import TokenizerError
from minclip.tokenizers import memory, tokenizer_json
from minclip.tokenizers.tokenizer_json import TokenizerJSON

FRAME = ["<s>", "<pad>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@functools.cache
def proto(kind):
    return pb.ModelProto.FromString(train(kind, "bytes" if kind == "bpe" else "plain"))


@functools.cache
def model(name):
    pieces = [(piece.piece, piece.score) for piece in proto("unigram").pieces[3:]]
    extra = [(byte, -20.0) for byte in BYTES] if name == "unigram bytes" else []
    if name.startswith("unigram"):
        vocab = [(token, 0.0) for token in FRAME] + pieces + extra + [("<mask>", 0.0)]
        return models.Unigram(vocab, 3, bool(extra))
    vocab = {piece.piece: i for i, piece in enumerate(proto("bpe").pieces)}
    found = [
        (-piece.score, vocab[piece.piece[:cut]], vocab[piece.piece[cut:]], piece.piece[:cut], piece.piece[cut:])
        for piece in proto("bpe").pieces
        for cut in range(1, len(piece.piece))
        if piece.type == 1 and piece.piece[:cut] in vocab and piece.piece[cut:] in vocab
    ]
    merges = [(left, right) for *_, left, right in sorted(found)]
    options = {"bpe": {"fuse_unk": True, "byte_fallback": True}, "bpe plain": {"fuse_unk": True}}
    options["bpe whole"] = {"fuse_unk": False, "ignore_merges": True}
    return models.BPE(vocab, merges, unk_token="<unk>", **options[name])


CHARSMAP = proto("unigram").normalizer_spec.precompiled_charsmap
NORMALIZERS = {
    "XLM-R": lambda: normalizers.Precompiled(CHARSMAP),
    "none": lambda: None,
    "one space": lambda: normalizers.Sequence(
        [normalizers.Precompiled(CHARSMAP), normalizers.Replace(Regex(" {2,}"), " ")]
    ),
    "strip right": lambda: normalizers.Sequence(
        [normalizers.Precompiled(CHARSMAP), normalizers.Strip(False, True), normalizers.Replace(Regex(" {2,}"), "▁")]
    ),
    "Llama": lambda: normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "lower": lambda: normalizers.Sequence(
        [normalizers.Strip(), normalizers.Lowercase(), normalizers.Precompiled(CHARSMAP)]
    ),
}
PRE_TOKENIZERS = {
    "XLM-R": lambda: pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    "always": lambda: pre_tokenizers.Metaspace(),
    "first": lambda: pre_tokenizers.Metaspace(prepend_scheme="first"),
    "never": lambda: pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
    "first, whole": lambda: pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
    "white space": lambda: pre_tokenizers.WhitespaceSplit(),
    "none": lambda: None,
}
DECODERS = [
    lambda: decoders.Metaspace(),
    lambda: decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    lambda: None,
]


def build(model_name="unigram", normalizer="XLM-R", pre_tokenizer="XLM-R", decoder=0):
    peer = tokenizers.Tokenizer(model(model_name))
    for attribute, made in (
        ("normalizer", NORMALIZERS[normalizer]()),
        ("pre_tokenizer", PRE_TOKENIZERS[pre_tokenizer]()),
        ("decoder", DECODERS[decoder]()),
    ):
        if made is not None:
            setattr(peer, attribute, made)
    peer.add_special_tokens(["<s>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    peer.add_tokens(
        [AddedToken("<sep>", normalized=True, rstrip=True), AddedToken("cat", single_word=True, normalized=False)]
    )
    frame = [(token, peer.token_to_id(token)) for token in ("<s>", "</s>")]
    peer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=frame)
    return peer, TokenizerJSON(peer.to_str().encode(), "tokenizer.json")


def settled(text):
    """Without code points newer than Python's Unicode: there `tokenizers` and `regex` know different properties."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Cn", "Co"))


def random_texts(seed, count):
    rng = random.Random(seed)
    odd = [
        "".join(rng.choice("<mask><s> \u3000\x1c") for _ in range(5)) + " <mask> x <sep>  ycat cat" for _ in range(5)
    ]
    return [settled(random_text(rng)) for _ in range(count)] + odd


COMBINATIONS = [(a, b) for a in NORMALIZERS for b in PRE_TOKENIZERS if not (a == "lower" and b.startswith("first"))]


@pytest.mark.parametrize(("normalizer", "pre_tokenizer"), COMBINATIONS)
@pytest.mark.parametrize("model_name", ["unigram", "unigram bytes", "bpe", "bpe plain", "bpe whole"])
def test_every_combination_gets_the_peers_ids_and_text(model_name, normalizer, pre_tokenizer):
    peer, ours = build(model_name, normalizer, pre_tokenizer, len(normalizer + pre_tokenizer) % 3)
    for text in [*SENTENCES[::9], *random_texts(f"{model_name} {normalizer} {pre_tokenizer}", 60)]:
        expected = peer.encode(text, add_special_tokens=False)
        assert ours.encode(text) == expected.ids, repr(text)
        assert [i for i, _, _ in ours.encode_with_offsets(text)] == expected.ids, repr(text)
        for skip in (False, True):
            assert ours.decode(expected.ids, skip_special_tokens=skip) == peer.decode(
                expected.ids, skip_special_tokens=skip
            )


@pytest.mark.parametrize("normalizer", ["none", "Llama"])
@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
def test_offsets_are_the_peers(normalizer, pre_tokenizer):
    """Not behind a character map: after one that deletes a character the peer's offsets are off by one."""
    peer, ours = build("unigram", normalizer, pre_tokenizer)
    for text in [*SENTENCES[::5], *random_texts(f"offsets {pre_tokenizer}", 60)]:
        expected = peer.encode(text, add_special_tokens=False).offsets
        assert [(start, end) for _, start, end in ours.encode_with_offsets(text)] == expected, repr(text)


def test_offsets_behind_a_character_map_are_right():
    _, ours = build()
    text = "\x01\x02ﬁne Ａ"
    spans = {ours.tokens[i]: text[start:end] for i, start, end in ours.encode_with_offsets(text)}
    assert "".join(spans).replace("▁", "") == "fineA"
    assert text[ours.encode_with_offsets(text)[0][1]] == "ﬁ"


def test_the_character_map_takes_the_shortest_key_of_a_cluster():
    """`tokenizers` loses the dot below of ạ́; sentencepiece, longest key first, keeps it."""
    peer, ours = build()
    text = "a\u0301\u0323"
    assert ours.encode(text) == peer.encode(text, add_special_tokens=False).ids
    assert ours._normalize(text)[0] == peer.normalizer.normalize_str(text) == "á"


def test_a_prefix_for_the_first_word_only_is_refused_where_the_start_may_be_stripped():
    """`tokenizers` gives no prefix to a text that began with white space; that is not followed here."""
    with pytest.raises(TokenizerError, match='"first" after something that strips'):
        build(normalizer="lower", pre_tokenizer="first")


def test_the_frame_is_the_templates():
    _, ours = build()
    assert ours.frame == (0, 2)


def document():
    return json.loads(build()[0].to_str())


def changed(*path, value):
    whole = document()
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return whole


BROKEN = {
    "not JSON": (b"{", "cannot be read as JSON"),
    "deep": (b"[" * 100_000, "cannot be read as JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "cannot be read as JSON: .utf-8. codec"),
    "a list": ([], "must hold a JSON object"),
    "no model": ({}, "not laid out as a tokenizer.json"),
    "word piece": (changed("model", "type", value="WordPiece"), "model type 'WordPiece' is not known"),
    "empty vocabulary": (changed("model", "vocab", value=[]), "vocabulary is empty"),
    "entry of three": (changed("model", "vocab", 5, value=["a", 1, 2]), r"not \[piece, score\]"),
    "score as text": (changed("model", "vocab", 5, value=["a", "b"]), r"not \[piece, score\]"),
    "NaN score": (changed("model", "vocab", 5, value=["a", float("nan")]), "finite"),
    "unknown outside": (changed("model", "unk_id", value=10**6), "unk_id 1000000 is not in the vocabulary"),
    "normalizer": (changed("normalizer", value={"type": "BertNormalizer"}), "BertNormalizer.* is not known"),
    "regex": (
        changed("normalizer", value={"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": ""}),
        "Replace.* is not known",
    ),
    "empty pattern": (
        changed("normalizer", value={"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
        "Replace replaces an empty string",
    ),
    "character map": (changed("normalizer", "precompiled_charsmap", value="QUJD"), "character map is cut short"),
    "base64": (changed("normalizer", "precompiled_charsmap", value="é"), "not base64"),
    "pre_tokenizer": (changed("pre_tokenizer", value={"type": "ByteLevel"}), "ByteLevel is not known"),
    "decoder": (changed("decoder", value={"type": "WordPiece"}), "decoder 'WordPiece' is not known"),
    "no frame": (changed("post_processor", value=None), "one begin token and one end token"),
    "id taken": (changed("added_tokens", 0, "content", value="<new>"), "'<new>' has id 0, which is another token"),
    "id too large": (changed("added_tokens", 0, "id", value=2**70), "gives token '<s>' the id 1180"),
    "added tokens": (changed("added_tokens", value=5), "added_tokens is 5, not a list"),
    "frame outside": (
        changed("post_processor", value={"type": "RobertaProcessing", "cls": ["a", 10**7], "sep": ["b", 2]}),
        "ids .10000000, 2. around a text",
    ),
    "decoder option": (changed("decoder", "replacement", value=3), "not laid out as a tokenizer.json"),
    "endless strip": (
        changed("decoder", value={"type": "Strip", "content": "", "start": 10**30, "stop": 0}),
        "Strip takes one character",
    ),
    "added token": (changed("added_tokens", 0, "id", value=77), "has id 77, the vocabulary 0"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_or_unknown_is_refused_in_one_line(fault):
    content, message = BROKEN[fault]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(TokenizerError, match=message) as caught:
        TokenizerJSON(data, "tokenizer.json")
    assert str(caught.value).startswith("tokenizer.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 255, 64, 200])
@pytest.mark.parametrize("model_name", ["unigram bytes", "bpe"])
@pytest.mark.parametrize("fuse", [True, False])
def test_a_vocabulary_with_some_of_the_bytes_falls_back_as_the_peer_does(model_name, kept, fuse):
    """A character whose bytes are all there becomes bytes, any other is unknown; "é" is C3 A9."""
    whole = json.loads(build(model_name)[0].to_str())
    keep = {*BYTES[:kept], "<0xC3>", "<0xA9>", "<0xE1>", "<0x88>"}
    vocab = whole["model"]["vocab"]
    for token in set(BYTES) - keep:  # renamed, so that ids stay where they are
        if isinstance(vocab, dict):
            vocab[f"no {token}"] = vocab.pop(token)
        else:
            place = next(i for i, (piece, _) in enumerate(vocab) if piece == token)
            vocab[place][0] = f"no {token}"
    whole["model"]["byte_fallback"] = True
    if model_name == "bpe":
        whole["model"]["fuse_unk"] = fuse
        merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in whole["model"]["merges"]]
        whole["model"]["merges"] = [merge for merge in merges if "\u00e9" not in "".join(merge)]
        vocab["no \u00e9"] = vocab.pop("\u00e9")
    data = json.dumps(whole).encode()
    peer, ours = tokenizers.Tokenizer.from_str(data.decode()), TokenizerJSON(data, "tokenizer.json")
    odd = ["\u00e9", "x\u4dff\u00e9y", "\u00e9\u4dff", "\u4dff\u4dfe\u00e9\u00e9\u4dfd a", "\u1208\u4dff \u1208\u1208z"]
    for text in [*odd, *SENTENCES[::6], *random_texts(f"bytes {kept}", 60)]:
        assert ours.encode(text) == peer.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize(("pattern", "content"), [("a", ""), (" ", "\u2581"), ("a b", "c")])
def test_replacing_a_string_is_the_peers(pattern, content):
    whole = json.loads(build(normalizer="none")[0].to_str())
    whole["normalizer"] = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    data = json.dumps(whole).encode()
    peer, ours = tokenizers.Tokenizer.from_str(data.decode()), TokenizerJSON(data, "tokenizer.json")
    for text in ["", "a photo a b c", *SENTENCES[::9]]:
        expected = peer.encode(text, add_special_tokens=False)
        assert ours.encode(text) == expected.ids
        if len(content) == len(pattern):  # otherwise the peer's do not cover all that was replaced
            assert [(start, end) for _, start, end in ours.encode_with_offsets(text)] == expected.offsets


@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
@pytest.mark.parametrize("model_name", ["unigram", "unigram bytes", "bpe", "bpe plain", "bpe whole"])
def test_a_pickled_tokenizer_gives_the_same_ids(model_name, pre_tokenizer):
    _, ours = build(model_name, "XLM-R", pre_tokenizer)
    again = pickle.loads(pickle.dumps(ours))
    for text in [*SENTENCES[::9], *random_texts("pickle", 10)]:
        assert again.encode(text) == ours.encode(text)
        assert again.decode(ours.encode(text)) == ours.decode(ours.encode(text))


@pytest.mark.parametrize(("normalizer", "pre_tokenizer"), COMBINATIONS)
@pytest.mark.parametrize("model_name", ["unigram", "unigram bytes", "bpe", "bpe whole"])
def test_reading_no_more_of_a_text_than_is_wanted_changes_no_id(model_name, normalizer, pre_tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer_json, "_NEAR", 1)
    monkeypatch.setattr(memory, "LETTERS", 3)
    _, ours = build(model_name, normalizer, pre_tokenizer)
    rng = random.Random(f"early {model_name} {normalizer} {pre_tokenizer}")
    for text in [*random_texts(rng.random(), 12), *long_texts(rng, 6)]:
        whole = ours.encode(text)
        for limit in (0, 1, 2, rng.randrange(40), len(whole)):
            assert ours.encode(text, limit)[:limit] == whole[:limit], repr(text)


def test_what_is_remembered_is_bounded():
    _, ours = build()
    for n in range(50):
        ours.encode("".join(chr(0x4E00 + (7 * i + n) % 5000) for i in range(2000)) + f" e{chr(0x301) * 100}{n}")
    assert all(len(word) <= 64 for word in ours._words)


@pytest.mark.long
def test_a_hundred_thousand_random_strings_agree():
    for model_name in ("unigram", "unigram bytes", "bpe"):
        for normalizer in NORMALIZERS:
            peer, ours = build(model_name, normalizer)
            for text in random_texts(f"long {model_name} {normalizer}", 6_000):
                assert ours.encode(text) == peer.encode(text, add_special_tokens=False).ids, repr(text)
