"""Cleaning, splitting and added tokens: each rule against Oniguruma, Rust or ftfy, whoever it is taken from."""

from __future__ import annotations

import html
import unicodedata

import ftfy
import pytest
import regex
import tokenizers
from bpe_peers import (
    ALL_CHARACTERS,
    MANY,
    RUST_NFC,
    hostile_texts,
    left_in_place_by_rust,
    newly_assigned,
    oniguruma_class,
    texts_of_every_unicode,
)
from hypothesis import given
from hypothesis import strategies as st

from minclip.errors import TokenizerError
from minclip.tokenizers import cleaning
from minclip.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from minclip.tokenizers.cleaning import clean, clean_stretches, is_plain, split_words


def words_of(text, kind):
    return [word for word, _ in split_words(text, kind)]


def cutter(tokens, ids, normalize=lambda content: content):
    """A function that cuts a text: what lies between the added tokens as it stands, the tokens as their ids."""
    finder = AddedTokenFinder((normalize(token.content), ids[token.content], token) for token in tokens)
    return lambda text: [text[start:end] if i is None else i for i, start, end in finder.split(text)]


PRINTABLE = st.text(st.sampled_from([chr(code) for code in range(32, 127) if chr(code) != "&"]), max_size=60)
MARKS = st.deferred(lambda: st.sampled_from(sorted(left_in_place_by_rust())))
NFC = tokenizers.normalizers.Sequence(
    [
        RUST_NFC,
        tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
        tokenizers.normalizers.Lowercase(),
    ]
)


@given(PRINTABLE)
@MANY
def test_both_cleanings_change_only_space_and_case_of_plain_text(text):
    assert is_plain(text)
    assert html.unescape(html.unescape(ftfy.fix_text(text))) == text == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("text", ["a & b", "a\tb", "é", "\x7f", "a\n", "\x1b[0m"])
def test_a_text_that_a_cleaning_might_change_is_not_plain(text):
    assert not is_plain(text)


@given(hostile_texts)
@MANY
def test_ftfy_cleaning_is_what_openai_does_before_splitting(text):
    repaired = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    assert clean(text, "ftfy") == regex.sub(r"\s+", " ", repaired).strip().lower()


@given(texts_of_every_unicode)
@MANY
def test_nfc_cleaning_is_the_normalizer_of_tokenizer_json(text):
    assert clean(text, "nfc") == NFC.normalize_str(text)


def test_a_final_sigma_is_python_s_idea_and_not_rust_s():
    assert clean("ΌΔΟΣ", "ftfy") == "όδος"
    assert clean("ΌΔΟΣ", "nfc") == NFC.normalize_str("ΌΔΟΣ") == "όδοσ"


def test_nfc_cleaning_differs_from_the_peer_in_newly_assigned_characters_only():
    different = {char for char in ALL_CHARACTERS if clean(char, "nfc") != NFC.normalize_str(char)}
    assert different <= newly_assigned()


@given(
    st.lists(st.sampled_from(["a", "e", "\u0301", "\u0334", "\u0345", "\u05c2", "\U00011935"]) | MARKS, max_size=8).map(
        "".join
    )
)
@MANY
def test_composition_differs_from_rust_s_in_that_later_marks_stay_in_place_there(text):
    # as if each of those marks were a letter: what is left and right of it is composed by itself
    parts = regex.split("([" + "".join(left_in_place_by_rust()) + "])", text)
    assert RUST_NFC.normalize_str(text) == "".join(unicodedata.normalize("NFC", part) for part in parts)


@pytest.mark.parametrize("kind", [r"\p{L}", r"\p{N}", r"\s", r"[^\s\p{L}\p{N}]"])
def test_classes_of_characters_differ_from_the_peer_in_newly_assigned_ones_only(kind):
    ours = set(regex.findall(kind, ALL_CHARACTERS))
    assert ours ^ oniguruma_class(kind) <= newly_assigned()


def test_ignoring_case_widens_the_split_by_the_long_s_and_the_iota_below_alone():
    wider = [c for c in ALL_CHARACTERS if words_of(f"a{c}b", "ftfy") != words_of(f"a{c}b", "nfc")]
    assert wider == ["\u0345"]
    assert words_of("it'ſ", "ftfy") == ["it", "'ſ"]
    assert words_of("it'ſ", "nfc") == ["it", "'", "ſ"]


@given(texts_of_every_unicode)
@MANY
def test_nfc_words_are_the_peer_s_pre_tokenizer_s(text):
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    peer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="removed", invert=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    text = NFC.normalize_str(text)
    spans = [span for _, span in peer.pre_tokenize_str(text)]
    assert [(start, start + len(word)) for word, start in split_words(text, "nfc")] == spans
    assert words_of(text, "nfc") == [text[start:end] for start, end in spans]


ADDED = st.builds(
    AddedToken,
    st.sampled_from(["<a>", "<A>", "<a>b", "b", " c", "é", "E\u0301", "<two words>", "ΑΣ", "!"]),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    single_word=st.booleans(),
    normalized=st.booleans(),
    special=st.booleans(),
)
AROUND_ADDED = st.lists(
    st.sampled_from(
        [
            "<a>",
            "<A>",
            "<a>b",
            "b",
            "c",
            " ",
            "  ",
            "\u00a0",
            "é",
            "E\u0301",
            "\u0301",
            "<two  words>",
            "ας",
            "ΑΣ",
            "!",
            "_",
            "x",
        ]
    ),
    max_size=12,
).map("".join)


@given(st.lists(ADDED, max_size=4, unique_by=lambda token: NFC.normalize_str(token.content)), AROUND_ADDED)
@MANY
def test_added_tokens_are_cut_where_rust_cuts_them(tokens, text):
    # of two tokens alike once cleaned, which one Rust finds is its own secret: the strategy draws none such
    unknown = 0
    peer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": unknown}, unk_token="<unk>"))
    peer.normalizer = NFC
    flags = [{k: v for k, v in t.to_json().items() if k not in ("content", "special")} for t in tokens]
    peer.add_tokens([tokenizers.AddedToken(t.content, **f) for t, f in zip(tokens, flags, strict=True)])
    ids = {token.content: peer.token_to_id(token.content) for token in tokens}
    raw = cutter((t for t in tokens if not t.normalized), ids)
    cleaned = cutter((t for t in tokens if t.normalized), ids, lambda content: clean(content, "nfc"))
    pieces = [p for r in raw(text) for p in ([r] if isinstance(r, int) else cleaned(clean(r, "nfc")))]
    assert [p if isinstance(p, int) else unknown for p in pieces] == peer.encode(text).ids


def test_single_word_and_strip_see_rust_s_classes_of_characters():
    peer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    word, strip = AddedToken("<w>", single_word=True), AddedToken("<s>", lstrip=True)
    peer.add_tokens([tokenizers.AddedToken("<w>", single_word=True, normalized=False)])
    peer.add_tokens([tokenizers.AddedToken("<s>", lstrip=True, normalized=False)])
    cut = cutter([word, strip], {"<w>": 1, "<s>": 2})
    for char in ALL_CHARACTERS[:0x3100]:
        text = f"{char}<w>{char}<s>"
        if char not in newly_assigned():
            assert [p if isinstance(p, int) else 0 for p in cut(text)] == peer.encode(text).ids, hex(ord(char))


def test_cutting_a_hostile_text_takes_steps_in_proportion_to_its_length():
    cut = cutter([AddedToken("<a>", lstrip=True, rstrip=True)], {"<a>": 0})
    assert cut(" " * 200_000 + "x" + "<a>  " * 50_000) == [" " * 200_000 + "x", *[0] * 50_000]


MANY_OF_ONE_KIND = st.tuples(
    st.sampled_from(["\u0301", "\u0327", "\u0344", "\u0f73", "\u0f71", "\u0345", "amp;", "AMP;", "#38;", "#x26;", "1"]),
    st.integers(0, 40),
).map(lambda many: many[0] * many[1])
TROUBLE = st.lists(
    MANY_OF_ONE_KIND
    | st.sampled_from(
        ["&", "&#", "<", "Ã", "©", "copy;", "eacute;", "lt;", "gt;", "e", "\n", " ", "\u0130", "Σ", "\x1b[", "m"]
    ),
    max_size=14,
).map("".join)


@given(TROUBLE)
@MANY
def test_texts_that_are_made_shorter_to_be_cleaned_are_cleaned_to_the_same(text):
    """Runs of marks out of order and entities in entities, which cost ftfy and Unicode's composition n squared."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert clean(text, "ftfy") == regex.sub(r"\s+", " ", repaired).strip().lower()
    composed = regex.sub(r"\s+", " ", unicodedata.normalize("NFC", text))
    assert clean(text, "nfc") == composed.replace("Σ", "σ").lower()


@given(hostile_texts | TROUBLE, st.sampled_from(["ftfy", "nfc"]))
@MANY
def test_the_words_of_a_text_are_those_of_its_stretches(text, kind):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaning, "STRETCH", 1)
        stretches = list(clean_stretches(text, kind))
    assert [word for stretch in stretches for word in words_of(stretch, kind)] == words_of(clean(text, kind), kind)


@pytest.mark.parametrize("digits", ["9" * 5000, "0" * 5000 + "65", "0" * 5000, "1114112", "00000000065"])
def test_a_number_of_any_length_is_a_character_or_none(digits):
    value = int(digits.lstrip("0")[:20] or 0)
    expected = html.unescape(f"&#{value};")
    for text in (f"x&#{digits};", f"x&amp;#{digits};"):
        assert clean(text, "ftfy") == f"x{expected}".lower()


@pytest.mark.parametrize("entry", [None, 3, {}, {"content": ""}, {"content": 1}, ["x"], ""])
def test_an_entry_that_is_no_token_is_refused(entry):
    with pytest.raises(TokenizerError, match="added token must be"):
        AddedToken.from_json(entry)


def test_a_token_survives_its_own_json():
    token = AddedToken("<x>", 7, lstrip=True, normalized=True, special=False)
    assert AddedToken.from_json(token.to_json(), id=7) == token
