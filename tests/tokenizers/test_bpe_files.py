"""Tokenizer files: every combination that checkpoints come with, what Transformers makes of it, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
import shutil

import pytest
from bpe_peers import (
    FOLDER,
    FRAGMENTS,
    MANY,
    OPENAI_MERGES,
    SENTENCES,
    needs_data,
    seen_differently,
    texts_of_every_unicode,
)
from hypothesis import given

from minclip.errors import TokenizerError
from minclip.tokenizers.added_tokens import AddedToken
from minclip.tokenizers.bpe import BPETokenizer
from minclip.tokenizers.bpe_files import BPEVocabulary, base_symbols, byte_symbols

FRAMES = ["<|startoftext|>", "<|endoftext|>"]
MERGES = [["c", "a"], ["ca", "t</w>"], ["d", "o"]]
PAIRS = [tuple(pair) for pair in MERGES]
VOCAB = {token: n for n, token in enumerate([*base_symbols(), *map("".join, MERGES), *FRAMES])}
MERGE_LINES = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
TEXTS = [
    *[
        "cat!",
        "a <img> cat",
        "x<IMG>y",
        "a <New> dog",
        "<new>",
        "oneword",
        "one word",
        "<pad>cat",
        "CAT<|endoftext|>do",
        "!<|startoftext|>!",
    ],
    *(text for text in SENTENCES + FRAGMENTS if not seen_differently() & set(text)),
]


def transformers_tokenizer(folder):
    return pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(folder)


def assert_same_as_transformers(folder, texts=TEXTS):
    ours, peer = BPETokenizer.from_folder(folder, cleaning="nfc"), transformers_tokenizer(folder)
    for text in texts:
        assert ours.encode(text) == peer(text)["input_ids"], text
    assert (ours.bos_token_id, ours.eos_token_id) == (peer.bos_token_id, peer.eos_token_id)
    assert (ours.pad_token_id, ours.unk_token_id) == (peer.pad_token_id, peer.unk_token_id)
    assert ours.vocab_size == len(peer)
    return ours


def write(folder, **files):
    """A folder of vocab.json and merges.txt and these further files; None leaves one out. `_` stands for the dot."""
    contents = {"vocab_json": VOCAB, "merges_txt": "\n".join(MERGE_LINES), **files}
    for name, content in contents.items():
        path = folder / ".".join(name.rsplit("_", 1))
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def whole(**changes):
    """A tokenizer.json, as far as it concerns us."""
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "unk_token": FRAMES[1], "vocab": VOCAB, "merges": MERGES}
    return {"added_tokens": [], "model": {**model, **changes}}


def entry(content, **flags):
    off = dict.fromkeys(["lstrip", "rstrip", "single_word", "normalized", "special"], False)
    return {"content": content, **off, **flags}


# What is read -------------------------------------------------------------------------------------------------------


@needs_data
def test_vocab_and_merges_give_the_tokenizer_of_tokenizer_json_alone(tmp_path):
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    alone, both = BPETokenizer.from_folder(tmp_path), BPETokenizer.from_folder(FOLDER)
    assert alone.vocab == both.vocab
    assert alone.merges == both.merges
    assert alone.added_tokens == both.added_tokens
    assert alone.max_length == both.max_length == 77


@needs_data
def test_the_published_folder_reads_as_in_transformers():
    assert_same_as_transformers(FOLDER)


def test_line_ends_of_any_system_and_a_missing_version_line_are_read(tmp_path):
    for lines in ("\r\n".join(MERGE_LINES), "\n".join(MERGE_LINES[1:]), "\n".join(MERGE_LINES[:-1])):
        (tmp_path / "merges.txt").unlink(missing_ok=True)
        write(tmp_path, merges_txt=None)
        (tmp_path / "merges.txt").write_bytes(lines.encode())
        assert BPETokenizer.from_folder(tmp_path).merges == [tuple(pair) for pair in MERGES]


@pytest.mark.parametrize("merges", [MERGES, [" ".join(pair) for pair in MERGES]])
def test_merges_in_tokenizer_json_are_pairs_or_lines(tmp_path, merges):
    write(tmp_path, vocab_json=None, merges_txt=None, tokenizer_json=whole(merges=merges))
    assert BPETokenizer.from_folder(tmp_path).merges == [tuple(pair) for pair in MERGES]


def test_a_folder_of_vocab_and_merges_alone_reads_as_in_transformers(tmp_path):
    assert_same_as_transformers(write(tmp_path))


@pytest.mark.parametrize("pad", ["!", "<pad>"])
def test_another_pad_token_reads_as_in_transformers(tmp_path, pad):
    vocab = VOCAB if pad in VOCAB else {**VOCAB, pad: len(VOCAB)}
    ours = assert_same_as_transformers(write(tmp_path, vocab_json=vocab, tokenizer_config_json={"pad_token": pad}))
    assert ours(["cat", "a cat"])["input_ids"][0, -1] == vocab[pad]


EXTRA = {
    "515": entry(FRAMES[0], normalized=True, special=True),
    "516": entry(FRAMES[1], special=True),
    "517": entry("<img>", lstrip=True, rstrip=True, special=True),
    "518": entry("<New>", normalized=True),
    "519": entry("word", single_word=True),
}


def test_the_added_tokens_of_tokenizer_config_read_as_in_transformers(tmp_path):
    ours = assert_same_as_transformers(write(tmp_path, tokenizer_config_json={"added_tokens_decoder": EXTRA}))
    assert ours.special_ids == {515, 516, 517}


def test_the_files_of_old_folders_read_as_in_transformers(tmp_path):
    bos = {"content": FRAMES[0], "lstrip": False, "rstrip": False, "normalized": True, "single_word": False}
    write(
        tmp_path,
        tokenizer_config_json={"additional_special_tokens": ["<img>"], "pad_token": FRAMES[1]},
        special_tokens_map_json={"pad_token": "!", "bos_token": bos},
        added_tokens_json={"<img>": 517, "<New>": 518},
    )
    assert_same_as_transformers(tmp_path)
    serialized = whole()
    serialized["added_tokens"] = [{**token, "id": int(n)} for n, token in EXTRA.items()]
    assert_same_as_transformers(write(tmp_path, tokenizer_json=serialized))


def test_a_folder_that_transformers_saved_reads_the_same(tmp_path):
    write(tmp_path, tokenizer_config_json={"added_tokens_decoder": EXTRA, "pad_token": "!", "model_max_length": 40})
    transformers_tokenizer(tmp_path).save_pretrained(tmp_path / "again")
    assert assert_same_as_transformers(tmp_path / "again").max_length == 40


@pytest.mark.parametrize(
    ("said", "meant"), [(40, 40), (1e30, 77), (10**30, 77), (None, 77), (0, 77), ("77", 77), (64.0, 64)]
)
def test_a_model_max_length_beyond_reason_falls_back_to_77(tmp_path, said, meant):
    write(tmp_path, tokenizer_config_json={"model_max_length": said})
    assert BPETokenizer.from_folder(tmp_path).max_length == meant


def test_the_bytes_of_text_have_256_printable_symbols():
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert all(symbol.isprintable() and not symbol.isspace() for symbol in symbols)
    assert all(symbols[ord(char)] == char for char in "!az~¡ÿ")


# What is written ----------------------------------------------------------------------------------------------------

ADDED = [
    AddedToken("<img>", lstrip=True, rstrip=True),
    AddedToken("<New>", normalized=True, special=False),
    AddedToken("word", single_word=True, special=False),
    AddedToken("<pad>"),
    AddedToken("<|startoftext|>", normalized=True),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    vocabulary = BPEVocabulary(VOCAB, PAIRS, pad_token="<pad>", added_tokens=ADDED, max_length=12)
    tokenizer = BPETokenizer(vocabulary, cleaning="nfc")
    tokenizer.save(folder)
    return tokenizer, BPETokenizer.from_folder(folder, cleaning="nfc"), transformers_tokenizer(folder)


@given(text=texts_of_every_unicode)
@MANY
def test_a_saved_tokenizer_gives_the_same_ids_here_and_in_transformers(text, saved):
    tokenizer, again, peer = saved
    for piece in (text, f"{text}word {text} <img> {text}<NEW>"):
        assert tokenizer.encode(piece) == again.encode(piece) == peer(piece)["input_ids"]


def test_saving_keeps_all_that_a_tokenizer_is(saved):
    tokenizer, again, peer = saved
    for name in ("vocab", "merges", "added_tokens", "max_length", "special_ids", "pad_token_id", "unk_token_id"):
        assert getattr(tokenizer, name) == getattr(again, name)
    assert peer.model_max_length == 12
    assert peer.pad_token_id == tokenizer.pad_token_id
    assert peer.decode([517, 520, 3], skip_special_tokens=True) == tokenizer.decode(
        [517, 520, 3], skip_special_tokens=True
    )


def test_added_tokens_keep_ids_that_leave_a_gap(tmp_path):
    tokenizer = BPETokenizer(BPEVocabulary(VOCAB, PAIRS, added_tokens=[AddedToken("<far>", id=900)]))
    tokenizer.save(tmp_path)
    assert BPETokenizer.from_folder(tmp_path).encode_text("<far>") == [900]
    assert transformers_tokenizer(tmp_path)("<far>")["input_ids"][1:-1] == [900]


def test_saving_beside_files_that_would_be_read_for_it_is_refused_and_changes_nothing(tmp_path):
    write(tmp_path, tokenizer_json=whole(vocab={"x": 0}, merges=[]), added_tokens_json={"<old>": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TokenizerError, match=r"holds tokenizer\.json and added_tokens\.json of another tokenizer"):
        BPETokenizer(BPEVocabulary(VOCAB, PAIRS)).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saving_replaces_its_own_files_and_touches_no_other(tmp_path):
    others = {"tokenizer.json": json.dumps(whole()), "word2vec.model": "a", "vocab.txt": "b", "added_tokens.json": "{}"}
    for name, content in {**others, "merges.txt": "old", "vocab.json": "{}"}.items():
        (tmp_path / name).write_text(content)
    tokenizer = BPETokenizer(BPEVocabulary(VOCAB, PAIRS))
    tokenizer.save(tmp_path)
    names = {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}
    assert set(tokenizer.files()) == names
    assert {path.name for path in tmp_path.iterdir()} == names | set(others)
    assert all((tmp_path / name).read_text() == content for name, content in others.items())
    assert all((tmp_path / name).read_bytes() == content for name, content in tokenizer.files().items())
    assert BPETokenizer.from_folder(tmp_path).vocab == VOCAB


def test_a_token_that_no_file_can_hold_is_refused_before_anything_is_written(tmp_path):
    folder = write(tmp_path, tokenizer_config_json={"added_tokens_decoder": {"600": entry("<\ud800>")}})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TokenizerError, match="half of a surrogate pair"):
        BPETokenizer.from_folder(folder).save(folder)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@needs_data
def test_the_published_tokenizer_writes_the_published_files(tmp_path):
    BPETokenizer.from_openai(OPENAI_MERGES).save(tmp_path)
    assert json.loads((tmp_path / "vocab.json").read_bytes()) == json.loads((FOLDER / "vocab.json").read_bytes())
    assert (tmp_path / "merges.txt").read_text("utf-8") == (FOLDER / "merges.txt").read_text("utf-8")


# What is refused ----------------------------------------------------------------------------------------------------


def refused(folder, *words):
    """The message of the refusal: one line, with these words in it."""
    with pytest.raises(TokenizerError) as caught:
        BPETokenizer.from_folder(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_missing_files_are_named(tmp_path):
    refused(tmp_path, str(tmp_path), "vocab.json", "merges.txt", "tokenizer.json")
    refused(tmp_path / "nowhere", "nowhere")
    refused(write(tmp_path, merges_txt=None), "only vocab.json is there")


@pytest.mark.parametrize(
    "name", ["vocab_json", "tokenizer_config_json", "special_tokens_map_json", "added_tokens_json"]
)
@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, '{"a": 1' + "0" * 10_000 + "}"])
def test_a_file_that_is_no_json_object_is_named(tmp_path, name, content):
    refused(write(tmp_path, **{name: content}), ".".join(name.rsplit("_", 1)))


def test_a_file_that_is_no_utf8_is_named(tmp_path):
    (write(tmp_path) / "merges.txt").write_bytes(b"\xff\xfe")
    refused(tmp_path, "merges.txt", "UTF-8")


@pytest.mark.parametrize("line", ["a", "a b c", "", "a  b"])
def test_a_line_that_is_no_merge_is_named(tmp_path, line):
    refused(write(tmp_path, merges_txt="\n".join([*MERGE_LINES[:2], line, "d o"])), "merges.txt line 3", "two tokens")


def test_a_merge_that_does_not_fit_the_vocabulary_is_named_with_its_line(tmp_path):
    write(tmp_path, merges_txt="\n".join([*MERGE_LINES[:-1], "d qq"]))
    refused(tmp_path, "merges.txt line 5", "'d qq'", "'qq'")
    write(tmp_path, merges_txt="\n".join([*MERGE_LINES[1:-1], "d a"]))
    refused(tmp_path, "merges.txt line 4", "'d a'", "'da'")
    (tmp_path / "vocab.json").unlink()
    refused(
        write(tmp_path, vocab_json=None, tokenizer_json=whole(merges=[["c", "zz"]])), "tokenizer.json merge 1", "'zz'"
    )


@pytest.mark.parametrize(
    ("vocab", "words"),
    [
        ({**VOCAB, "<|endoftext|>": 0}, ["share the id 0", "'!'", "'<|endoftext|>'"]),
        ({**VOCAB, "a": 1.5}, ["'a'", "1.5"]),
        ({**VOCAB, "a": None}, ["'a'", "None"]),
        ({token: n for token, n in VOCAB.items() if token not in FRAMES}, ["'<|startoftext|>' has no id"]),
        ({}, ["merges.txt line 2"]),
        ({**VOCAB, "a": 2**63}, ["'a'", str(2**63)]),
        ({**VOCAB, "lost": 600}, ["1 tokens of the vocabulary, 'lost' the first", "merges.txt"]),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(tmp_path, vocab, words):
    refused(write(tmp_path, vocab_json=vocab), str(tmp_path), *words)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": []},
        whole(type="Unigram"),
        whole(end_of_word_suffix=None),
        whole(vocab=[]),
        whole(merges=None),
        whole(merges=[3]),
        {**whole(), "added_tokens": 5},
        {**whole(), "added_tokens": {"a": 1}},
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(tmp_path, content):
    refused(write(tmp_path, vocab_json=None, merges_txt=None, tokenizer_json=content), "tokenizer.json")


@pytest.mark.parametrize(
    "config",
    [
        {"added_tokens_decoder": []},
        {"added_tokens_decoder": {"x": entry("<a>")}},
        {"added_tokens_decoder": {"517": {}}},
        {"added_tokens_decoder": {"3": entry("<a>")}},
        {"added_tokens_decoder": {"900": entry("cat</w>")}},
        {"pad_token": 3},
        {"pad_token": {"content": None}},
        {"pad_token": "<pad>"},
        {"extra_special_tokens": [3]},
        {"extra_special_tokens": 3},
        {"added_tokens_decoder": {str(2**31): entry("<a>")}},
        {"added_tokens_decoder": {"9" * 5000: entry("<a>")}},
    ],
)
def test_special_tokens_that_cannot_be_are_refused(tmp_path, config):
    refused(write(tmp_path, tokenizer_config_json=config), "token")


@needs_data
@pytest.mark.parametrize("cut", ["nothing there", "no gzip", "truncated", "no checksum", "too few", "no merges"])
def test_openai_s_file_is_refused_unless_whole(tmp_path, cut):
    path = tmp_path / "bpe.txt.gz"
    whole_file = OPENAI_MERGES.read_bytes()
    lines = gzip.decompress(whole_file).decode().split("\n")
    contents = {
        "no gzip": b"#version: 0.2\ni n\n",
        "truncated": whole_file[:100_000],
        "no checksum": whole_file[:-8] + bytes(8),
        "too few": gzip.compress("\n".join(lines[:1000]).encode()),
        "no merges": gzip.compress(("x\n" * 60_000).encode()),
    }
    if cut in contents:
        path.write_bytes(contents[cut])
    with pytest.raises(TokenizerError, match=r"bpe\.txt\.gz"):
        BPETokenizer.from_openai(path)


def test_merges_cut_anywhere_are_refused(tmp_path):
    """At every character of a small file; with the last line end alone missing, all the merges are there."""
    content = "\n".join(MERGE_LINES)
    for end in range(len(content) - 1):
        refused(write(tmp_path, merges_txt=content[:end]), "merges.txt")


@needs_data
def test_the_published_merges_cut_anywhere_are_refused(tmp_path):
    write(tmp_path, vocab_json=(FOLDER / "vocab.json").read_text("utf-8"))
    content = (FOLDER / "merges.txt").read_bytes()
    rng = random.Random(6)
    line_ends = [i for i, byte in enumerate(content) if byte == 10]
    cuts = [0, *(rng.randrange(len(content)) for _ in range(12)), *rng.sample(line_ends[:-1], 12), line_ends[-2]]
    for end in [*cuts, len(content.rstrip()) - 1]:
        (tmp_path / "merges.txt").write_bytes(content[:end])
        refused(tmp_path, "merges.txt")


def test_a_vocabulary_without_all_bytes_may_have_tokens_that_no_merge_makes(tmp_path):
    """As the tests of Transformers have one."""
    vocab = {token: n for n, token in enumerate(["l", "o", "w</w>", "lo", "lower", *FRAMES])}
    folder = write(tmp_path, vocab_json=vocab, merges_txt="#version: 0.2\nl o\n")
    assert BPETokenizer.from_folder(folder).encode_text("lolow")[0] == vocab["lo"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenizerError, match=r"cannot write the tokenizer to .*file"):
        BPETokenizer(BPEVocabulary(VOCAB, PAIRS)).save(tmp_path / "file")
