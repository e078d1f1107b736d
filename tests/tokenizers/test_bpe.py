"""BPE: the ids of OpenAI's published rules and of Transformers, on any text; and how merges come about."""

from __future__ import annotations

import pickle
import random
import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tokenizers
from bpe_peers import (
    FOLDER,
    FRAGMENTS,
    MANY,
    OPENAI_MERGES,
    SENTENCES,
    hostile_texts,
    needs_data,
    openai_tokenizer,
    seen_differently,
    texts_of_every_unicode,
)
from hypothesis import given
from hypothesis import strategies as st

from minclip.errors import TokenizerError
from minclip.tokenizers import memory
from minclip.tokenizers.added_tokens import AddedToken
from minclip.tokenizers.bpe import BPETokenizer, merge, spell, train_merges
from minclip.tokenizers.bpe_files import BPEVocabulary, base_symbols
from minclip.tokenizers.cleaning import clean, is_plain, split_words
from minclip.tokenizers.segmentation import merge_pairs

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@pytest.fixture(scope="module")
def ftfy_tokenizer():
    return BPETokenizer.from_folder(FOLDER, cleaning="ftfy")


@pytest.fixture(scope="module")
def nfc_tokenizer():
    return BPETokenizer.from_folder(FOLDER, cleaning="nfc")


@pytest.fixture(scope="module")
def openai():
    return openai_tokenizer()


@pytest.fixture(scope="module")
def rust():
    return tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def transformers_tokenizer():
    return pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(FOLDER)


def tiny(cleaning="ftfy", **options):
    """A whole byte vocabulary and three merges, to be built at once."""
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o")]
    tokens = [*base_symbols(), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return BPETokenizer(BPEVocabulary({token: n for n, token in enumerate(tokens)}, merges, **options), cleaning)


# The ids ------------------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("text", SENTENCES + FRAGMENTS)
def test_ids_equal_the_peers_on_real_sentences_and_known_troubles(text, ftfy_tokenizer, nfc_tokenizer, openai, rust):
    assert ftfy_tokenizer.encode_text(text) == openai(text)
    assert nfc_tokenizer.encode(text) == rust.encode(text).ids


@needs_data
@given(text=hostile_texts)
@MANY
def test_ftfy_ids_equal_openai_s_on_hostile_text(text, ftfy_tokenizer, openai):
    assert ftfy_tokenizer.encode_text(text) == openai(text)


@needs_data
@given(text=texts_of_every_unicode)
@MANY
def test_nfc_ids_equal_tokenizer_json_s_on_hostile_text(text, nfc_tokenizer, rust):
    assert nfc_tokenizer.encode(text) == rust.encode(text).ids


@needs_data
@given(text=PRINTABLE)
@MANY
def test_the_fast_path_for_plain_text_gives_the_ids_of_the_full_one(text, ftfy_tokenizer, nfc_tokenizer):
    for tokenizer in (ftfy_tokenizer, nfc_tokenizer):
        assert tokenizer.encode_text(text) == tokenizer._encode_any(text)


@needs_data
@pytest.mark.long
def test_ids_equal_the_peers_on_four_hundred_thousand_strings(ftfy_tokenizer, nfc_tokenizer, openai, rust):
    rng = random.Random(77)
    words = [word for sentence in SENTENCES for word in sentence.split()]
    ranges = [
        (0, 0x250),
        (0x300, 0x370),
        (0x370, 0x600),
        (0x900, 0xE00),
        (0x1E00, 0x2FFF),
        (0x3000, 0xD7FF),
        (0xE000, 0x1FFFF),
    ]

    def piece():
        kind = rng.randrange(4)
        if kind == 3:
            return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randrange(5)))
        return rng.choice((FRAGMENTS, words, [" "])[kind])

    for _ in range(200):
        texts = ["".join(piece() for _ in range(rng.randrange(12))) for _ in range(2000)]
        for text in texts[::4]:
            assert ftfy_tokenizer.encode_text(text) == openai(text), ascii(text)
        known = ["".join(char for char in text if char not in seen_differently()) for text in texts]
        for text, peer in zip(known, rust.encode_batch(known), strict=True):
            assert nfc_tokenizer.encode(text) == peer.ids, ascii(text)


@needs_data
def test_openai_s_published_merges_are_the_vocabulary_of_the_checkpoint(ftfy_tokenizer):
    published = BPETokenizer.from_openai(OPENAI_MERGES)
    assert published.vocab == ftfy_tokenizer.vocab
    assert published.merges == ftfy_tokenizer.merges


@needs_data
def test_every_published_merge_glues_what_earlier_ones_made(ftfy_tokenizer):
    # then it is no matter whether all places of the best pair are merged at once (OpenAI) or one by one (Rust, here)
    made = set(base_symbols())
    for left, right in ftfy_tokenizer.merges:
        assert left in made
        assert right in made
        assert left + right not in made
        made.add(left + right)


def test_frames_in_the_text_become_their_ids_in_both_cleanings():
    for cleaning in ("ftfy", "nfc"):
        tokenizer = tiny(cleaning=cleaning)
        cat = tokenizer.encode_text("cat")
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        assert tokenizer.encode_text("cat<|startoftext|>cat <|endoftext|>") == [*cat, bos, *cat, eos]


def test_an_entity_may_spell_a_frame_for_the_training_code():
    assert tiny(cleaning="ftfy").encode_text("&lt;|endoftext|&gt;") == [tiny().eos_token_id]


def test_half_of_a_surrogate_pair_is_repaired_by_ftfy_and_refused_by_nfc():
    assert tiny(cleaning="ftfy").encode_text("\ud800") == tiny().encode_text("\N{REPLACEMENT CHARACTER}")
    with pytest.raises(TokenizerError, match=r"U\+D800"):
        tiny(cleaning="nfc").encode_text("cat \ud800")


def test_a_byte_that_the_vocabulary_lacks_becomes_the_unknown_token_as_in_the_peer():
    vocab = {"l": 0, "o": 1, "w</w>": 2, "lo": 3, "<|startoftext|>": 4, "<|endoftext|>": 5, "<unk>": 6}
    peer = pytest.importorskip("transformers").CLIPTokenizer(vocab=vocab, merges=[("l", "o")], unk_token="<unk>")
    ours = BPETokenizer(BPEVocabulary(vocab, [("l", "o")], unk_token="<unk>"), cleaning="nfc")
    for text in ("low", "lo", "lower é", "w", "lolo"):
        assert ours.encode(text) == peer(text)["input_ids"]
    assert ours.encode_text("éw") == [6, 6, 2]


# Batches ------------------------------------------------------------------------------------------------------------


@needs_data
@given(
    texts=st.lists(texts_of_every_unicode, min_size=1, max_size=4), padding=st.sampled_from(["longest", "max_length"])
)
@MANY
def test_batches_equal_transformers(texts, padding, nfc_tokenizer, transformers_tokenizer):
    for limit in (77, 5, 2):
        ours = nfc_tokenizer(texts, padding=padding, max_length=limit)
        peer = transformers_tokenizer(texts, padding=padding, truncation=True, max_length=limit, return_tensors="np")
        np.testing.assert_array_equal(ours["input_ids"], peer["input_ids"])
        np.testing.assert_array_equal(ours["attention_mask"], peer["attention_mask"])


# Back to text -------------------------------------------------------------------------------------------------------


@needs_data
@given(
    ids=st.lists(st.integers(0, 49407) | st.integers(0, 511) | st.integers(49400, 49407), max_size=30),
    skip=st.booleans(),
)
@MANY
def test_decoding_any_ids_equals_transformers_broken_utf8_included(ids, skip, nfc_tokenizer, transformers_tokenizer):
    peer = transformers_tokenizer.decode(ids, skip_special_tokens=skip)
    assert nfc_tokenizer.decode(np.array(ids), skip_special_tokens=skip) == peer


@given(words=st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=8), max_size=6))
def test_words_of_letters_survive_a_round_trip(words):
    tokenizer = tiny(cleaning="nfc")
    cleaned = [word for text in words for word, _ in split_words(clean(text, "nfc"), "nfc")]
    assert tokenizer.decode(tokenizer.encode_text(" ".join(cleaned))) == " ".join(cleaned)


@given(text=hostile_texts)
@MANY
def test_decoding_gives_the_cleaned_text_back_but_for_spaces(text):
    tokenizer = tiny(cleaning="nfc")
    decoded = tokenizer.decode(tokenizer.encode_text(text))
    assert "".join(decoded.split()) == "".join(clean(text, "nfc").split())


def test_special_tokens_are_shown_or_dropped_in_decoding():
    tokenizer = tiny()
    ids = tokenizer.encode("Cat do")
    assert tokenizer.decode(ids) == "<|startoftext|>cat do <|endoftext|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "cat do"


@pytest.mark.parametrize("bad", [517, -1, 10**9])
def test_an_id_outside_the_vocabulary_is_named(bad):
    assert tiny().vocab_size == 517
    with pytest.raises(TokenizerError, match=f"id {bad} is not in the vocabulary; ids go from 0 to 516"):
        tiny().decode([0, bad])


# Special and added tokens -------------------------------------------------------------------------------------------


def test_added_tokens_get_the_next_free_ids_and_count_as_special_if_they_say_so():
    tokenizer = tiny(added_tokens=[AddedToken("<img>"), AddedToken("<word>", special=False), AddedToken("<z>", id=600)])
    assert tokenizer.encode_text("a<img>cat<word>") == [*tiny().encode_text("a"), 601, *tiny().encode_text("cat"), 602]
    assert tokenizer.vocab_size == 603
    assert tokenizer.special_ids == {515, 516, 600, 601}
    assert tokenizer.decode([601, 602], skip_special_tokens=True) == "<word>"


def test_an_added_token_with_a_space_in_it_is_found_in_plain_text():
    tokenizer = tiny(added_tokens=[AddedToken("a cat")])
    assert is_plain("do a cat")
    assert tokenizer.encode_text("do a cat") == [*tiny().encode_text("do"), 517]


def test_a_token_with_a_role_is_special_whatever_its_entry_says():
    tokenizer = tiny(pad_token="<pad>", added_tokens=[AddedToken("<pad>", special=False)])
    assert tokenizer.pad_token_id in tokenizer.special_ids


def test_an_ordinary_symbol_named_as_pad_stays_text_with_ftfy_and_is_cut_with_nfc():
    assert tiny(cleaning="ftfy", pad_token="!").encode_text("cat!") == tiny().encode_text("cat!")
    assert tiny(cleaning="nfc", pad_token="!").encode_text("cat!") == [*tiny().encode_text("cat"), 0]
    assert tiny(pad_token="!")(["cat", "a cat"])["input_ids"][0, -1] == 0


@pytest.mark.parametrize("role", ["bos", "eos", "pad", "unk"])
def test_a_special_token_without_an_id_is_refused(role):
    with pytest.raises(TokenizerError, match=f"the {role} token '<none>' has no id"):
        tiny(**{f"{role}_token": "<none>"})


@pytest.mark.parametrize("token", [AddedToken("<x>", id=5), AddedToken("cat</w>", id=900)])
def test_an_added_token_that_contradicts_the_vocabulary_is_refused(token):
    with pytest.raises(TokenizerError, match="wants the id"):
        tiny(added_tokens=[token])


def test_an_unknown_cleaning_is_refused():
    with pytest.raises(TokenizerError, match="cleaning='nfkc'"):
        tiny(cleaning="nfkc")


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"a": 0, "b": 0}, "'a' and 'b' share the id 0"),
        ({"a": "0"}, "'a'.*'0'"),
        ({"a": -1}, "-1"),
        ({"a": True}, "True"),
        ({"a": 2**63}, str(2**63)),
    ],
)
def test_ids_that_repeat_or_are_none_are_refused(vocab, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer(BPEVocabulary(vocab, []))


@pytest.mark.parametrize("pair", [("a", "q9"), ("q9", "a"), ("a", "b")])
def test_a_merge_that_does_not_fit_the_vocabulary_is_named(pair):
    good = tiny()
    with pytest.raises(TokenizerError, match=f"merge '{pair[0]} {pair[1]}' needs the token"):
        BPETokenizer(BPEVocabulary(good.vocab, [*good.merges, pair]))


# Merging ------------------------------------------------------------------------------------------------------------

LETTERS = "abc"
RANKS = st.lists(st.tuples(*[st.text(LETTERS, min_size=1, max_size=3)] * 2), max_size=25, unique_by="".join).map(
    lambda pairs: {pair: rank for rank, pair in enumerate(pairs)}
)


@given(st.text(LETTERS, min_size=1, max_size=120).map(list), RANKS)
@MANY
def test_the_heap_merges_as_the_plain_loop_does(symbols, ranks):
    assert [symbol for symbol, _, _ in merge_pairs(symbols, ranks.get)] == merge(symbols, ranks)


@needs_data
def test_a_word_of_a_hundred_thousand_letters_has_the_peer_s_ids(nfc_tokenizer, rust):
    rng = random.Random(1)
    for word in ("a" * 100_000, "".join(rng.choices("aeionrst", k=100_000)), "漢" * 30_000, "!" * 100_000):
        assert nfc_tokenizer.encode(word) == rust.encode(word).ids


class CountedRanks(dict):
    looked_up = 0

    def get(self, pair, default=None):
        self.looked_up += 1
        return super().get(pair, default)


@needs_data
@pytest.mark.parametrize("letters", ["a", "aeionrst"])
def test_merging_a_long_word_takes_steps_in_proportion_to_its_length(letters, ftfy_tokenizer):
    rng, steps = random.Random(2), []
    for size in (10_000, 40_000):
        ranks = CountedRanks(ftfy_tokenizer._ranks)
        merge_pairs(spell("".join(rng.choices(letters, k=size))), ranks.get)
        steps.append(ranks.looked_up)
    assert 0 < steps[1] < 5 * steps[0]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "WORDS", 10)
    tokenizer = tiny()
    for n in range(100):
        tokenizer([f"{n}{'x' * n}", f"é{n} {'y' * n}"])
    for words in (tokenizer._run_ids, tokenizer._word_ids):
        assert 0 < len(words) <= 10
        assert max(map(len, words)) <= memory.LETTERS


def test_what_is_remembered_cannot_be_changed_through_a_result():
    tokenizer = tiny()
    for text in ("cat", "é"):
        before = tokenizer.encode_text(text)
        tokenizer.encode_text(text).append(3)
        assert tokenizer.encode_text(text) == before


# Training -----------------------------------------------------------------------------------------------------------


def slow_merges(words, count):
    """Every count anew for every merge, all places of the pair at once: the algorithm as the paper prints it."""
    spellings = {word: spell(word) for word in words}
    merges = []
    while len(merges) < count:
        counts = Counter()
        for word, times in words.items():
            for pair in pairwise(spellings[word]):
                counts[pair] += times
        best = min((pair for pair in counts if counts[pair] > 1), key=lambda p: (-counts[p], p), default=None)
        if best is None:
            break
        merges.append(best)
        for word, symbols in spellings.items():
            spellings[word] = glue_everywhere(symbols, best)
    return merges


def glue_everywhere(symbols, pair):
    glued = []
    while symbols:
        both = tuple(symbols[:2]) == pair
        glued.append("".join(symbols[: 1 + both]))
        symbols = symbols[1 + both :]
    return glued


@given(st.dictionaries(st.text("abé", min_size=1, max_size=12), st.integers(1, 5), max_size=12), st.integers(0, 30))
@MANY
def test_training_learns_the_merges_of_the_slow_algorithm(words, count):
    assert train_merges(words, count) == slow_merges(words, count)


@given(st.lists(st.text("ab", min_size=1, max_size=40), min_size=1, max_size=8))
@MANY
def test_no_token_is_learnt_twice(words):
    made = [*base_symbols(), *map("".join, train_merges(Counter(words), 60))]
    assert len(set(made)) == len(made)


def test_a_trained_tokenizer_spells_its_most_frequent_word_in_one_token():
    tokenizer = BPETokenizer.train(["a cat, a cat <|endoftext|>", "A CAT and a caterpillar's dog"], 600)
    assert len(tokenizer.encode_text("cat")) == 1
    assert tokenizer.vocab_size == 514 + len(tokenizer.merges) < 600
    assert tokenizer.decode(tokenizer.encode_text("猫 cat")) == "猫 cat"


def test_a_trained_tokenizer_encodes_as_rust_does_with_the_same_merges(tmp_path):
    trained = BPETokenizer.train(SENTENCES * 3, 700, cleaning="nfc")
    trained.save(tmp_path)
    peer = pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(tmp_path)
    for text in SENTENCES + FRAGMENTS:
        if not seen_differently() & set(text):
            assert trained.encode(text) == peer(text)["input_ids"]


@pytest.mark.parametrize("texts", [[], [""], ["<|startoftext|>"], ["ab"]])
def test_training_on_nothing_to_merge_leaves_the_bytes(texts):
    assert BPETokenizer.train(texts, 514).vocab_size == BPETokenizer.train(texts, 9_999).vocab_size == 514


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(TokenizerError, match=r"vocab_size=513.*514"):
        BPETokenizer.train(["a cat"], 513)


# Long texts ---------------------------------------------------------------------------------------------------------

LONG_RUNS = st.lists(
    st.tuples(
        st.sampled_from(
            ["a", "ab", "ha", "1", "!?", "é", "猫犬", "cat ", "Σ", "e\u0301\u0327", "&amp;", "<|endoftext|>", "\n", "."]
        ),
        st.integers(1, 60),
    ).map(lambda many: many[0] * many[1])
    | st.text("abcdeinorst", max_size=200),
    max_size=8,
).map("".join)


@needs_data
@given(text=LONG_RUNS | hostile_texts, limit=st.integers(0, 40))
@MANY
def test_reading_no_more_of_a_text_than_is_wanted_changes_no_id(text, limit, ftfy_tokenizer, nfc_tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minclip.tokenizers.cleaning.STRETCH", 1)
        patch.setattr(memory, "LETTERS", 4)
        for tokenizer in (ftfy_tokenizer, nfc_tokenizer):
            assert tokenizer.encode_text(text, limit)[:limit] == tokenizer.encode_text(text)[:limit]


@needs_data
@pytest.mark.parametrize("text", ["a" * 200_000, "ha" * 100_000, "漢" * 30_000, "x1!é" * 10_000, "a b\n" * 30_000])
def test_a_long_text_cut_to_the_context_has_the_first_of_the_peer_s_ids(text, nfc_tokenizer, transformers_tokenizer):
    peer = transformers_tokenizer(text, truncation=True, max_length=77)["input_ids"]
    assert nfc_tokenizer(text)["input_ids"][0].tolist() == peer


# Offsets ------------------------------------------------------------------------------------------------------------


@needs_data
@given(text=texts_of_every_unicode)
@MANY
def test_offsets_are_the_peer_s_and_cover_all_that_was_composed(text, nfc_tokenizer, rust):
    """The peer's spans end after the first of several characters made one; ours after the last."""
    spans = nfc_tokenizer.encode_with_offsets(text)
    peer = rust.encode(text, add_special_tokens=False)
    assert [index for index, _, _ in spans] == peer.ids
    if unicodedata.normalize("NFC", text) == text and "\u0130" not in text:
        assert [(start, end) for _, start, end in spans] == peer.offsets
    else:
        assert all(0 <= start < end <= len(text) for _, start, end in spans)
        assert all(a[1] <= b[1] and a[2] <= b[2] for a, b in pairwise(spans))


@needs_data
@given(text=hostile_texts)
@MANY
def test_offsets_with_ftfy_point_into_the_text_in_order(text, ftfy_tokenizer):
    spans = ftfy_tokenizer.encode_with_offsets(text)
    assert [index for index, _, _ in spans] == ftfy_tokenizer.encode_text(text)
    assert all(0 <= start < end <= len(text) for _, start, end in spans)
    assert all(a[1] <= b[1] and a[2] <= b[2] for a, b in pairwise(spans))


@needs_data
@given(text=PRINTABLE)
@MANY
def test_offsets_of_plain_text_are_the_peer_s_whatever_the_cleaning(text, ftfy_tokenizer, rust):
    if "&" not in text:
        peer = rust.encode(text, add_special_tokens=False)
        if [index for index, _, _ in ftfy_tokenizer.encode_with_offsets(text)] == peer.ids:
            assert [(start, end) for _, start, end in ftfy_tokenizer.encode_with_offsets(text)] == peer.offsets


@needs_data
def test_offsets_of_what_ftfy_rewrites_cover_what_was_rewritten(ftfy_tokenizer):
    text = "  a schÃ¶n &eacute; ＦＵＬＬ  “cat” <|endoftext|>"
    found = [text[start:end] for _, start, end in ftfy_tokenizer.encode_with_offsets(text)]
    assert found[0] == "a"
    assert {"&eacute;", "ＦＵＬＬ", "“", "cat", "”", "<|endoftext|>"} <= set(found)
    assert all(piece in "schÃ¶n" for piece in found[1 : found.index("&eacute;")])


@needs_data
@given(text=texts_of_every_unicode)
@MANY
def test_tokens_and_the_special_tokens_mask_are_transformers(text, nfc_tokenizer, transformers_tokenizer):
    assert nfc_tokenizer.tokenize(text) == transformers_tokenizer.tokenize(text)
    texts = [text, f"cat <|endoftext|> {text}", ""]
    options = {"padding": True, "truncation": True, "max_length": 20, "return_special_tokens_mask": True}
    expected = transformers_tokenizer(texts, **options)["special_tokens_mask"]
    assert nfc_tokenizer(texts, **options)["special_tokens_mask"].tolist() == expected


@needs_data
def test_a_pickled_tokenizer_gives_the_same_ids(ftfy_tokenizer):
    again = pickle.loads(pickle.dumps(ftfy_tokenizer))
    for text in SENTENCES + FRAGMENTS:
        assert again.encode(text) == ftfy_tokenizer.encode(text)
        assert again.decode(again.encode(text)) == ftfy_tokenizer.decode(again.encode(text))


@pytest.mark.parametrize("ids", [["a"], [1.5], [None], 5, "ab"])
def test_what_are_no_ids_is_refused_in_decoding(ids):
    with pytest.raises(TokenizerError, match="whole numbers"):
        tiny().decode(ids)
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        tiny().decode([2**70])
