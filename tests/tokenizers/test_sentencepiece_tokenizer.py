"""The tokenizer of the multilingual families, from folders of both kinds, against Transformers and sentencepiece."""

import itertools
import json
import pickle
import random

import numpy as np
import pytest
import sentencepiece as spm
from sentencepiece_corpus import SENTENCES, random_text, train

from minclip.errors import TokenizerError
from minclip.tokenizers import find_tokenizer
from minclip.tokenizers.sentencepiece import SentencePieceTokenizer
from minclip.tokenizers.sentencepiece_file import ModelFile

transformers = pytest.importorskip("transformers")

LABELS = [
    "a photo of a cat",
    "une photo d'un chat",
    "一只猫睡在红色沙发上",
    "صورة لقطة نائمة",
    "सोती हुई बिल्ली की तस्वीर",
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A checkpoint as fairseq's conversion left it: the SentencePiece model alone."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "sentencepiece.bpe.model").write_bytes(train("unigram"))
    return folder


@pytest.fixture(scope="module")
def json_folder(model_folder, tmp_path_factory):
    """The same vocabulary as Transformers saves it."""
    folder = tmp_path_factory.mktemp("json")
    peer = transformers.XLMRobertaTokenizer.from_pretrained(model_folder, model_max_length=77)
    peer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["model_folder", "json_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


def test_ordinary_text_gets_transformers_ids(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    peer = transformers.XLMRobertaTokenizer.from_pretrained(folder)
    assert ours.vocab_size == len(peer)
    assert (ours.bos_token_id, ours.pad_token_id, ours.eos_token_id) == (0, 1, 2)
    for text in [*SENTENCES, *LABELS, "", "<s>", "a <mask> of a<pad> cat</s>", "x<unk>y", "<mask><mask>"]:
        assert ours.encode(text) == peer(text)["input_ids"], repr(text)
        assert ours.tokenize(text) == peer.convert_ids_to_tokens(ours.encode_text(text))
        assert [i for i, _, _ in ours.encode_with_offsets(text)] == ours.encode_text(text)


def test_batches_are_transformers_batches(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    peer = transformers.XLMRobertaTokenizer.from_pretrained(folder)
    batch = peer(LABELS, padding="max_length", truncation=True, max_length=12, return_tensors="np")
    result = ours(LABELS, padding="max_length", truncation=True, max_length=12)
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(result[name], batch[name])


def test_ids_decode_to_transformers_text(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    peer = transformers.XLMRobertaTokenizer.from_pretrained(folder)
    rng = random.Random(2)
    samples = [ours.encode(text) for text in [*SENTENCES, "a <mask> of a cat", ""]]
    samples += [[rng.randrange(4, ours.vocab_size) for _ in range(5)] for _ in range(30)]
    for ids in samples:
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == peer.decode(ids, skip_special_tokens=skip), ids


def test_the_model_file_is_cut_as_sentencepiece_cuts_it(model_folder):
    """Between special tokens, on any text: the ids of the package, moved to fairseq's places."""
    ours = SentencePieceTokenizer.from_folder(model_folder)
    peer = spm.SentencePieceProcessor(model_proto=train("unigram"))
    rng = random.Random(4)
    for _ in range(500):
        left, right = random_text(rng), random_text(rng)
        if any(token in left + right for token in ("<s>", "</s>", "<unk>", "<mask>", "<pad>")):
            continue
        expected = [[i + 1 if i else 3 for i in peer.encode(part)] for part in (left, right)]
        assert ours.encode_text(f"{left}<mask>{right}") == [*expected[0], len(peer) + 1, *expected[1]]


@pytest.mark.parametrize("token", ["<mask>", "<s>"])
def test_offsets_point_into_the_text(folder, token):
    ours = SentencePieceTokenizer.from_folder(folder)
    text = f"a photo{token}猫 ＡＢ cat"
    spans = ours.encode_with_offsets(text)
    assert [i for i, _, _ in spans] == ours.encode_text(text)
    special = [(start, end) for i, start, end in spans if i in ours.special_ids - {3}]
    assert [text[start:end] for start, end in special] == [token]
    assert all(a[2] <= b[2] for a, b in itertools.pairwise(spans))


def test_max_length_is_the_files(json_folder, model_folder):
    assert SentencePieceTokenizer.from_folder(json_folder).max_length == 77
    assert SentencePieceTokenizer.from_folder(model_folder).max_length == 512


def test_special_ids_are_the_framing_ones(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    assert ours.special_ids == {0, 1, 2, 3, ours.vocab_size - 1}
    texts = ["cat", "a photo of a <mask> cat<s>\u4dff", ""]
    peer = transformers.XLMRobertaTokenizer.from_pretrained(folder)
    expected = peer(texts, padding=True, return_special_tokens_mask=True)["special_tokens_mask"]
    result = ours(texts, padding=True, return_special_tokens_mask=True)
    assert result["special_tokens_mask"].tolist() == expected


def test_saved_files_are_the_loaded_bytes_and_open_in_transformers(folder, tmp_path):
    ours = SentencePieceTokenizer.from_folder(folder)
    ours.save(tmp_path / "saved")
    for path in folder.iterdir():
        assert (tmp_path / "saved" / path.name).read_bytes() == path.read_bytes()
    again = SentencePieceTokenizer.from_folder(tmp_path / "saved")
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.max_length == ours.max_length == peer.model_max_length
    for text in LABELS:
        assert again.encode(text) == ours.encode(text) == peer(text)["input_ids"]


def test_a_mask_that_strips_takes_the_space_before_it(tmp_path):
    """Old checkpoints say `lstrip` in special_tokens_map.json or in added_tokens_decoder."""
    (tmp_path / "sentencepiece.bpe.model").write_bytes(train("unigram"))
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": mask}))
    strips = SentencePieceTokenizer.from_folder(tmp_path)
    text = "a photo  <mask> cat"
    (start, end) = next((a, b) for i, a, b in strips.encode_with_offsets(text) if i == strips.vocab_size - 1)
    assert text[start:end] == "  <mask>"
    index = strips.vocab_size - 1
    (tmp_path / "special_tokens_map.json").unlink()
    config = {"added_tokens_decoder": {str(index): {**mask, "special": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert SentencePieceTokenizer.from_folder(tmp_path).encode_with_offsets(text) == strips.encode_with_offsets(text)


def test_a_model_file_alone_has_xlm_rs_own_mask(model_folder):
    ours = SentencePieceTokenizer.from_folder(model_folder)
    (span,) = [(a, b) for i, a, b in ours.encode_with_offsets("a  <mask> b") if i == ours.vocab_size - 1]
    assert span == (1, 9)


def test_saving_beside_files_that_would_be_read_for_it_is_refused(model_folder, json_folder, tmp_path):
    for name in ("tokenizer.json", "special_tokens_map.json", "added_tokens.json"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(TokenizerError, match=f"holds {name} of another tokenizer"):
            SentencePieceTokenizer.from_folder(model_folder).save(folder)
        assert [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "other.model").write_text("a")
    SentencePieceTokenizer.from_folder(model_folder).save(tmp_path)
    assert (tmp_path / "vocab.json").read_text() == "{}"
    assert (tmp_path / "other.model").read_text() == "a"
    assert type(find_tokenizer(tmp_path)) is SentencePieceTokenizer
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(TokenizerError, match=r"holds vocab\.json and merges\.txt of another tokenizer"):
        SentencePieceTokenizer.from_folder(json_folder).save(tmp_path)


def test_a_pickled_tokenizer_gives_the_same_ids(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    again = pickle.loads(pickle.dumps(ours))
    assert [again.encode(text) for text in SENTENCES] == [ours.encode(text) for text in SENTENCES]
    assert again.files() == ours.files()


def test_half_of_a_surrogate_pair_is_refused(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    for call in (ours, ours.encode, ours.encode_text, ours.encode_with_offsets, ours.tokenize):
        with pytest.raises(TokenizerError, match=r"holds U\+D800, half of a surrogate pair"):
            call("cat \ud800")


def test_a_model_cut_at_the_end_of_a_piece_is_refused(model_folder, tmp_path):
    data = (model_folder / "sentencepiece.bpe.model").read_bytes()
    offsets = ModelFile.from_bytes(data).offsets
    for end in [*offsets[4::97], offsets[-1]]:
        (tmp_path / "sentencepiece.bpe.model").write_bytes(data[:end])
        with pytest.raises(TokenizerError, match=r"sentencepiece\.bpe\.model.*cut short"):
            SentencePieceTokenizer.from_folder(tmp_path)


def test_a_model_cut_anywhere_is_refused_or_whole_to_the_tokenizer(model_folder, tmp_path):
    data = (model_folder / "sentencepiece.bpe.model").read_bytes()
    whole = SentencePieceTokenizer.from_folder(model_folder)
    rng = random.Random(3)
    refused = 0
    for end in [*(rng.randrange(len(data)) for _ in range(60)), *range(len(data) - 40, len(data))]:
        (tmp_path / "sentencepiece.bpe.model").write_bytes(data[:end])
        try:
            cut = SentencePieceTokenizer.from_folder(tmp_path)
        except TokenizerError:
            refused += 1
        else:
            assert [cut.encode(text) for text in SENTENCES] == [whole.encode(text) for text in SENTENCES], end
    assert refused >= 60


def test_a_model_with_fewer_pieces_than_the_config_says_is_refused(model_folder):
    ours = SentencePieceTokenizer.from_folder(model_folder)
    ours.check_vocabulary(ours.vocab_size)
    ours.check_vocabulary(ours.vocab_size + 63)  # embeddings rounded up
    with pytest.raises(TokenizerError, match="the file is not of this checkpoint or not whole"):
        ours.check_vocabulary(ours.vocab_size + 500)


def broken_folder(tmp_path, name, content, model=None):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(train("unigram") if model is None else model)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", b"{", "tokenizer_config.json cannot be read as JSON"),
        ("tokenizer_config.json", [], "must hold a JSON object, not list"),
        ("tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"}, "tokenizer_class T5Tokenizer is not known"),
        ("added_tokens.json", {"<mask>": 5}, "give '<mask>' id 5, where the XLM-R layout has"),
        ("added_tokens.json", {"<mask>": "x"}, "gives token '<mask>' the id 'x'"),
        ("added_tokens.json", {"<new>": 2**70}, "gives token '<new>' the id 1180"),
        ("tokenizer_config.json", {"mask_token": 7}, "an added token must be"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"0": {"content": "<pad>"}}},
            "id 0, where the XLM-R layout",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "added_tokens_decoder"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json cannot be read as JSON: .*position 0"),
    ],
)
def test_files_that_contradict_or_do_not_parse_are_named(tmp_path, name, content, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        SentencePieceTokenizer.from_folder(broken_folder(tmp_path, name, content))
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_fairseqs_first_pieces_is_refused(tmp_path):
    """Transformers drops the first three pieces whatever they are."""
    model = train("unigram").replace(b"\n\x03<s>", b"\n\x03<x>", 1)
    with pytest.raises(TokenizerError, match="no XLM-R vocabulary"):
        SentencePieceTokenizer.from_folder(broken_folder(tmp_path, "added_tokens.json", {}, model))


def test_an_empty_folder_is_refused_in_one_line(tmp_path):
    with pytest.raises(TokenizerError, match=r"found neither tokenizer\.json nor sentencepiece\.bpe\.model"):
        SentencePieceTokenizer.from_folder(tmp_path)


def test_ids_outside_the_vocabulary_are_refused(folder):
    ours = SentencePieceTokenizer.from_folder(folder)
    for index in (-1, ours.vocab_size):
        with pytest.raises(TokenizerError, match=f"id {index} is not in the vocabulary"):
            ours.decode([index])
