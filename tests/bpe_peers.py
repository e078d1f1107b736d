"""What the tokenizer tests share: the published files, a slow tokenizer from OpenAI's rules, and hostile texts."""

from __future__ import annotations

import gzip
import html
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import ftfy
import pytest
import regex
import tokenizers
from hypothesis import settings
from hypothesis import strategies as st

DATA = Path(__file__).parents[2] / "shared" / "data"
FOLDER = DATA / "clip-vit-base-patch32"
OPENAI_MERGES = DATA / "bpe_simple_vocab_16e6.txt.gz"
needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the published tokenizer files are not beside the repository"
)

MANY = settings(max_examples=10 * settings.default.max_examples)

SENTENCES = [
    "A photo of a cat, isn't it? I've seen 12 of them; they're O'Brien's!",
    "Ein Foto von zwölf Mäusen auf der Straße - größer, als man glaubt.",
    "L'été dernier, nous avons mangé des crêpes à Besançon : 3,50 €.",
    "El niño comió piñas en un café de Zürich. ¿Y tú qué hiciste?",
    "Ένας σκύλος τρέχει στους ΔΡΟΜΟΥΣ ΤΗΣ ΠΟΛΗΣ.",
    "Рыжая кошка спит на ЖЁЛТОМ диване.",
    "一只黑白相间的猫坐在窗台上，看着外面的雨。",
    "赤い自転車に乗っている犬の写真です。ﾊﾟﾝﾀﾞもいます。",
    "빨간 우산을 쓴 고양이 사진",
    "صورة لقطة بيضاء تنام على السرير، العدد ٣.",
    "תמונה של שָׁלוֹם בגינה",
    "बिल्ली की एक तस्वीर जो खिड़की पर बैठी है",
    "ภาพถ่ายของแมวสีส้มบนโซฟา",
    "İstanbul'da IŞIKLI bir gece, ılık çay",
    "Một con mèo đang ngủ trên ghế đỏ ở Hà Nội",
    "ፎቶ ድመት · ფოტო კატა · ფოტო · Լուսանկար",
]

FRAGMENTS = [
    *["'s", "'S", "'LL", "'ſ", "n't", "’s", "''re", "'d'", "I'VE", "it's's"],
    *["&amp;", "&amp;lt;", "&lt;|endoftext|&gt;", "&#39;s", "&eacute", "&#xD800;", "&#28;", "&nbsp;", "&AMP;amp;", "&"],
    *["<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "!<|startoftext|>!!", "<|ſtartoftext|>"],
    *["schÃ¶n", "l’humanitÃ©", "â€œquotedâ€\x9d", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "ï¬ﬁﬅ", "ＦＵＬＬ－ｗｉｄｔｈ", "“curly” ‘ones’"],
    *[
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👍🏽",
        "❤️",
        "e\u0301",
        "a\u0323\u0307",
        "\u1100\u1161\u11a8",
        "Å\u212b",
        "\u0345",
        "ΑΣ",
        "Σ\u0301",
    ],
    *[
        "\x00",
        "\x1b[31mred\x1b[0m",
        "\x85",
        "\u2028",
        "\xa0",
        "\u200b",
        "\ufeff",
        "\x1c",
        "\r\n",
        "\t",
        "\x7f",
        "\u202e",
    ],
    *["²", "½", "Ⅷ", "٣", "१२", "𝟘", "İ", "ß", "ẞ", "ŉ", "\ufb05", "\uac00", "\U0001d400", "</w>", "a</w>", "#version"],
]


ALL_CHARACTERS = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)


@cache
def oniguruma_class(pattern: str) -> frozenset[str]:
    """The characters that a class stands for in the regular expressions of Transformers' tokenizers."""
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern + "+"), behavior="removed", invert=True)
    return frozenset(chain.from_iterable(run for run, _ in split.pre_tokenize_str(ALL_CHARACTERS)))


RUST_NFC = tokenizers.normalizers.NFC()


@cache
def newly_assigned() -> frozenset[str]:
    """Characters that one of Python, the regex package and Oniguruma knows and another does not."""
    python = {char for char in ALL_CHARACTERS if unicodedata.category(char) == "Cn"}
    package, oniguruma = set(regex.findall(r"\p{Cn}", ALL_CHARACTERS)), oniguruma_class(r"\p{Cn}")
    return frozenset((python | package | oniguruma) - (python & package & oniguruma))


@cache
def left_in_place_by_rust() -> frozenset[str]:
    """Marks that Rust's composition, made for Unicode 9, neither reorders nor composes: it takes them for letters."""

    def stays(mark: str) -> bool:
        contexts = (f"a{mark}\u0334", f"a\u0345{mark}", f"a\u05c2{mark}", f"\U00011935{mark}")
        return any(RUST_NFC.normalize_str(text) != unicodedata.normalize("NFC", text) for text in contexts)

    marks = (char for char in ALL_CHARACTERS if unicodedata.category(char) in ("Mn", "Mc"))
    return frozenset(filter(stays, marks)) - newly_assigned()


@cache
def seen_differently() -> frozenset[str]:
    """Where the peers' Unicode is of another age; here, and here only, nobody's tokens can equal everybody's."""
    return newly_assigned() | left_in_place_by_rust()


characters = st.characters(exclude_categories=["Cs"])
fragments = st.sampled_from(FRAGMENTS) | st.sampled_from(SENTENCES).flatmap(lambda s: st.sampled_from(s.split()))
hostile_texts = st.lists(
    fragments
    | st.text(characters, max_size=6)
    | st.text(st.characters(max_codepoint=0x2FF), max_size=6)
    | st.just(" "),
    max_size=12,
).map("".join)
texts_of_every_unicode = hostile_texts.map(
    lambda text: "".join(char for char in text if char not in seen_differently())
)


def openai_tokenizer() -> Callable[[str], list[int]]:
    """CLIP's tokenizer from its published rules: simple, slow, and nothing of minclip in it."""
    printable = [b for b in range(256) if chr(b).isprintable() and not chr(b).isspace()]
    letters = {b: chr(b) for b in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printable)))
    lines = gzip.decompress(OPENAI_MERGES.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    base = list(letters.values())
    tokens = base + [b + "</w>" for b in base] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    ids, ranks = {t: n for n, t in enumerate(tokens)}, {m: n for n, m in enumerate(merges)}
    words = regex.compile(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
    )

    def bpe(word: str) -> list[str]:
        parts = [letters[b] for b in word.encode()]
        parts[-1] += "</w>"
        while known := [pair for pair in pairwise(parts) if pair in ranks]:
            best, glued = min(known, key=ranks.__getitem__), []
            while parts:
                both = tuple(parts[:2]) == best
                glued.append("".join(parts[: 1 + both]))
                parts = parts[1 + both :]
            parts = glued
        return parts

    def encode(text: str) -> list[int]:
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = regex.sub(r"\s+", " ", text).strip().lower()
        found = []
        for word in words.findall(text):
            whole = word in ("<|startoftext|>", "<|endoftext|>")
            found += [ids[part] for part in ([word] if whole else bpe(word))]
        return found

    return encode
