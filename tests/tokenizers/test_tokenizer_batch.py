"""The face of every tokenizer: framing, truncation, padding and masks, shown on a tokenizer of one id a letter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minclip.errors import TokenizerError
from minclip.tokenizers.batch import Tokenizer

BOS, EOS, PAD = 1, 2, 3


class Letters(Tokenizer):
    bos_token_id, eos_token_id, pad_token_id, max_length = BOS, EOS, PAD, 8
    vocab_size = 0x110000
    special_ids = frozenset({BOS, EOS, PAD})

    def encode_text(self, text, limit=None):
        return [ord(letter) for letter in text]

    def encode_with_offsets(self, text):
        return [(ord(letter), i, i + 1) for i, letter in enumerate(text)]

    def id_to_token(self, index):
        return chr(index)

    def decode(self, ids, *, skip_special_tokens=False):
        return "".join(map(chr, ids))

    def files(self):
        return {"letters.txt": b"all of them", "more.txt": b"none"}

    def leftovers(self, folder):
        return [name for name in ("words.txt",) if (folder / name).exists()]


TOKENIZER = Letters()
TEXTS = st.lists(st.text("abcé", max_size=12), min_size=1, max_size=5)


@given(TEXTS)
def test_a_batch_is_its_texts_one_by_one_padded_on_the_right(texts):
    batch = TOKENIZER(texts)
    for text, ids, mask in zip(texts, batch["input_ids"], batch["attention_mask"], strict=True):
        alone = TOKENIZER.encode(text, truncation=True)
        assert ids.tolist() == alone + [PAD] * (len(ids) - len(alone))
        assert mask.tolist() == [1] * len(alone) + [0] * (len(ids) - len(alone))
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == np.int64


@given(TEXTS, st.integers(2, 20))
def test_the_paddings_differ_in_width_alone(texts, limit):
    longest = TOKENIZER(texts, max_length=limit)["input_ids"]
    full = TOKENIZER(texts, padding="max_length", max_length=limit)["input_ids"]
    assert longest.shape[1] == min(limit, max(map(len, texts)) + 2)
    assert full.shape[1] == limit
    np.testing.assert_array_equal(full[:, : longest.shape[1]], longest)
    assert (full[:, longest.shape[1] :] == PAD).all()


@given(st.text("ab", max_size=12), st.integers(2, 12))
def test_truncation_keeps_the_end_token(text, limit):
    ids = TOKENIZER.encode(text, truncation=True, max_length=limit)
    assert ids == [BOS, *TOKENIZER.encode_text(text)[: limit - 2], EOS]


def test_without_a_limit_encode_keeps_everything():
    assert TOKENIZER.encode("a" * 20) == [BOS, *[ord("a")] * 20, EOS]
    assert TOKENIZER.encode("a" * 20, truncation=True) == [BOS, *[ord("a")] * 6, EOS]
    assert TOKENIZER.encode("ab", add_special_tokens=False, truncation=True, max_length=1) == [ord("a")]
    assert TOKENIZER.encode("ab", add_special_tokens=False, truncation=True, max_length=0) == []


def test_a_long_text_is_refused_where_truncation_is_off():
    with pytest.raises(TokenizerError, match=r"text of 9 tokens is longer than 8; .*'aaaaaaa'"):
        TOKENIZER(["a", "a" * 7], truncation=False)


def test_one_text_is_a_batch_of_one():
    assert TOKENIZER("ab")["input_ids"].tolist() == TOKENIZER(["ab"])["input_ids"].tolist()


def test_texts_may_come_from_any_iterable():
    expected = TOKENIZER(["a", "bc"])["input_ids"].tolist()
    for texts in (("a", "bc"), iter(["a", "bc"]), np.array(["a", "bc"])):
        assert TOKENIZER(texts)["input_ids"].tolist() == expected


def test_the_special_tokens_mask_marks_what_frames_and_pads():
    mask = TOKENIZER(["a\x02b", ""], return_special_tokens_mask=True)["special_tokens_mask"]
    assert mask.tolist() == [[1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert "special_tokens_mask" not in TOKENIZER("a")


def test_no_padding_takes_texts_of_one_length_only():
    assert TOKENIZER(["ab", "cd"], padding=False)["input_ids"].shape == (2, 4)
    with pytest.raises(TokenizerError, match="differ in length"):
        TOKENIZER(["ab", "c"], padding=False)


def test_padding_true_is_to_the_longest():
    np.testing.assert_array_equal(
        TOKENIZER(["ab", "c"], padding=True)["input_ids"], TOKENIZER(["ab", "c"])["input_ids"]
    )


@pytest.mark.parametrize("limit", [0, 1, -5])
def test_a_limit_without_room_for_the_frame_is_refused(limit):
    for call in (TOKENIZER, TOKENIZER.encode):
        with pytest.raises(TokenizerError, match=f"max_length={limit} has no room"):
            call("a", truncation=True, max_length=limit)


@pytest.mark.parametrize("texts", [None, 3, [3], ["a", None], b"ab", [b"a"], [["a"]]])
def test_what_is_no_text_is_refused(texts):
    with pytest.raises(TokenizerError, match="must be a str"):
        TOKENIZER(texts)


def test_an_empty_batch_and_an_unknown_padding_are_refused():
    with pytest.raises(TokenizerError, match="texts is empty"):
        TOKENIZER([])
    for padding in ("left", 1, None, []):
        with pytest.raises(TokenizerError, match="padding="):
            TOKENIZER("a", padding=padding)


@pytest.mark.parametrize("limit", ["3", 3.0, True, float("nan")])
def test_a_limit_that_is_no_whole_number_is_refused(limit):
    for call in (TOKENIZER, TOKENIZER.encode):
        with pytest.raises(TokenizerError, match=r"max_length=.* is not a whole number"):
            call("a", max_length=limit)


def test_tokens_and_batches_of_ids_come_back_as_text():
    assert TOKENIZER.tokenize("ab") == ["a", "b"]
    assert TOKENIZER.batch_decode(np.array([[97, 98], [99, 100]])) == ["ab", "cd"]


def test_a_tokenizer_shows_its_kind_and_size():
    assert repr(TOKENIZER) == "Letters(1,114,112 tokens, texts of up to 8)"


def test_a_long_text_that_does_not_fit_is_refused_without_counting_it():
    with pytest.raises(TokenizerError, match="text of many tokens is longer than 8"):
        TOKENIZER("a" * 200_000, truncation=False)


def test_saving_writes_the_files_and_refuses_a_folder_that_would_be_ambiguous(tmp_path):
    TOKENIZER.save(tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == TOKENIZER.files()
    (tmp_path / "words.txt").write_text("mine")
    with pytest.raises(TokenizerError, match=r"holds words\.txt of another tokenizer"):
        TOKENIZER.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"words.txt", "new"}


def test_a_model_with_fewer_ids_than_the_frame_needs_is_refused():
    TOKENIZER.check_vocabulary(4)
    with pytest.raises(TokenizerError, match=r"frames texts with id 3, and config\.json says vocab_size 3"):
        TOKENIZER.check_vocabulary(3)
