"""CLIP's byte-level BPE: words spelt in bytes, then glued together, pair by pair, in the order that training found.

Sennrich et al. 2016 (arXiv:1508.07909) for the merges, Radford et al. 2019 (GPT-2) for the bytes; CLIP marks the end
of a word with `</w>` on its last symbol. Read in order: `spell` and `merge`, which are the whole idea; `train_merges`,
where merges come from; then the tokenizer, which adds cleaning, special tokens and a memory of words.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from math import inf
from pathlib import Path

import regex

from minclip.errors import TokenizerError
from minclip.tokenizers import memory
from minclip.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from minclip.tokenizers.batch import Tokenizer, checked_ids, checked_text, checked_unicode, unknown_id
from minclip.tokenizers.bpe_files import (
    END_OF_WORD,
    MAX_LENGTH,
    ROLES,
    BPEVocabulary,
    Pair,
    base_symbols,
    byte_symbols,
    file_contents,
    leftovers,
    read_folder,
    read_openai,
)
from minclip.tokenizers.cleaning import FRAMES, Cleaning, clean, clean_stretches, is_plain, split_words
from minclip.tokenizers.memory import Memory
from minclip.tokenizers.offsets import clean_with_places
from minclip.tokenizers.segmentation import Span, first_tokens, merge_pairs

BYTE_SYMBOLS = byte_symbols()
BYTE_OF_SYMBOL = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


def spell(word: str) -> list[str]:
    """The word as one symbol a byte of its UTF-8, the last one marked: "né" -> ["n", "Ã", "©</w>"]."""
    symbols = [BYTE_SYMBOLS[byte] for byte in word.encode("utf-8")]
    symbols[-1] += END_OF_WORD
    return symbols


def merge(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Merge the neighbours that were merged earliest in training, the leftmost of them first, until none is left.

    The tokenizer merges by `segmentation.merge_pairs`, which gives the same in n log n steps instead of n squared.
    """
    symbols = list(symbols)
    while len(symbols) > 1:
        rank, i = min((ranks.get(pair, inf), i) for i, pair in enumerate(pairwise(symbols)))
        if rank == inf:
            break
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    return symbols


def glue(symbols: Sequence[str], pair: Pair) -> list[str]:
    """The symbols with the pair made one wherever it occurs, from left to right."""
    glued: list[str] = []
    after_left = False
    for symbol in symbols:
        if after_left and symbol == pair[1]:
            glued[-1] += symbol
            after_left = False
        else:
            glued.append(symbol)
            after_left = symbol == pair[0]
    return glued


def train_merges(words: Mapping[str, int], count: int) -> list[Pair]:
    """Learn up to `count` merges from words and how often each occurs (Sennrich et al. 2016, algorithm 1).

    Again and again the pair of neighbouring symbols that occurs most often (of equals, the first in code point order)
    becomes one symbol. Ends early when no pair occurs twice. No token comes about in two ways: where a merge could have
    made it, that merge has. Counts are kept up to date in the words that hold the merged pair, and only there.
    """
    spellings = [(spell(word), times) for word, times in words.items()]
    counts: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)  # the spellings in which a pair occurs, or once did
    for n, (symbols, times) in enumerate(spellings):
        for pair in pairwise(symbols):
            counts[pair] += times
            holders[pair].add(n)
    heap = [(-times, pair) for pair, times in counts.items() if times > 1]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < count:
        times, best = heapq.heappop(heap)
        if -times != counts[best]:
            continue  # the count has changed since: an entry with the new one is in the heap
        merges.append(best)
        changed: set[Pair] = set()
        for n in holders.pop(best):
            symbols, frequency = spellings[n]
            glued = glue(symbols, best)
            for pair in pairwise(symbols):
                counts[pair] -= frequency
            for pair in pairwise(glued):
                counts[pair] += frequency
                holders[pair].add(n)
            changed.update(pairwise(symbols), pairwise(glued))
            spellings[n] = glued, frequency
        for pair in changed:
            if counts[pair] > 1:
                heapq.heappush(heap, (-counts[pair], pair))
    return merges


class BPETokenizer(Tokenizer):
    """CLIP's tokenizer: `tokenizer(["a photo of a cat"])` gives input_ids and attention_mask, framed and padded.

    vocabulary: tokens, merges and special tokens, as the files have them. cleaning: see `minclip.tokenizers.cleaning`.
    The special tokens need ids, in `vocab` or in `added_tokens`. A byte that the vocabulary lacks, as small ones in
    tests do, becomes unk_token, one for each.

    Special and added tokens in a text become their ids. With "ftfy" the two frames are found as the training code
    found them, as words of the cleaned text, and a pad token that is an ordinary symbol ("!" in some checkpoints)
    stays text; with "nfc" all are cut out beforehand, wherever they stand, as Transformers does.

    Raises TokenizerError where ids repeat, merges and vocabulary do not fit, or a special token has no id.
    """

    def __init__(self, vocabulary: BPEVocabulary, cleaning: Cleaning = "ftfy") -> None:
        if cleaning not in ("ftfy", "nfc"):
            raise TokenizerError(f"cleaning={cleaning!r} is not one of 'ftfy', 'nfc'")
        vocabulary.check()
        self.cleaning: Cleaning = cleaning
        self.added_tokens = with_ids(vocabulary)
        self.vocab = vocabulary.vocab | {token.content: token.id for token in self.added_tokens if token.id is not None}
        self.merges, self.max_length = vocabulary.merges, vocabulary.max_length
        self.vocabulary = replace(vocabulary, vocab=self.vocab, added_tokens=self.added_tokens)
        self.bos_token_id, self.eos_token_id, self.pad_token_id, self.unk_token_id = (
            self.vocab[getattr(vocabulary, role)] for role in ROLES
        )
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._longest = max(map(len, self.vocab))
        self._special_ids = frozenset(self.vocab[token.content] for token in self.added_tokens if token.special)
        # with "ftfy" the frames, and an ordinary symbol that pads, are left in the text, to be met as words
        stay = {*FRAMES, *({vocabulary.pad_token} & set(base_symbols()))} if cleaning == "ftfy" else set()
        cut = [(token.content, self.vocab[token.content], token) for token in self.added_tokens]
        cut = [(content, index, token) for content, index, token in cut if content not in stay]
        self._raw = AddedTokenFinder(found for found in cut if not found[2].normalized)
        self._cleaned = AddedTokenFinder((clean(c, cleaning), i, token) for c, i, token in cut if token.normalized)
        self._runs_are_whole = not any(regex.search(r"\s", content) for content, _, _ in cut)
        self._run_ids: Memory[list[int]] = Memory()
        self._word_ids: Memory[list[int]] = Memory()

    @classmethod
    def from_folder(cls, folder: str | Path, cleaning: Cleaning = "ftfy") -> BPETokenizer:
        """Read vocab.json + merges.txt, or tokenizer.json, and what the small files beside them add."""
        try:
            return cls(read_folder(folder), cleaning)
        except TokenizerError as error:
            raise error if str(folder) in str(error) else TokenizerError(f"{folder}: {error}") from None

    @classmethod
    def from_openai(cls, path: str | Path, cleaning: Cleaning = "ftfy") -> BPETokenizer:
        """Build the vocabulary from OpenAI's published merges, bpe_simple_vocab_16e6.txt.gz.

        OpenAI's code pads with id 0, this tokenizer with the end token: no position before the padding can tell.
        """
        return cls(read_openai(path), cleaning)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, cleaning: Cleaning = "ftfy", max_length: int = MAX_LENGTH
    ) -> BPETokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens from texts: 512 byte symbols, merges, the two frames."""
        base = base_symbols()
        room = vocab_size - len(base) - len(FRAMES)
        if room < 0:
            raise TokenizerError(f"vocab_size={vocab_size} is too small; bytes and frames alone take {len(base) + 2}")
        words = Counter(word for text in texts for word, _ in split_words(clean(text, cleaning), cleaning))
        merges = train_merges({word: n for word, n in words.items() if word not in FRAMES}, room)
        tokens = [*base, *map("".join, merges), *FRAMES]
        return cls(BPEVocabulary({t: n for n, t in enumerate(tokens)}, merges, max_length=max_length), cleaning)

    @property
    def vocab_size(self) -> int:
        return max(self.vocab.values()) + 1

    @property
    def special_ids(self) -> frozenset[int]:
        return self._special_ids

    def encode_text(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of one text, unframed. A lone surrogate raises TokenizerError with "nfc"."""
        if not (self._runs_are_whole and is_plain(text)):
            return self._encode_any(text, limit)
        # The fast path: nothing reaches across a space in plain text, so each run between spaces is encoded once.
        # Equal to `_encode_any(text)`, and tested to be. Every run has an id or more, so `limit` runs are enough.
        ids: list[int] = []
        known = self._run_ids.get
        for run in text.split() if limit is None else text.split(maxsplit=limit)[:limit]:
            ids += known(run) or self._run_ids.keep(run, self._encode_any(run, limit))
        return ids

    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of each token of one text, unframed; start and end count characters of `text`.

        A token of part of a character covers the character; what cleaning made of several characters covers them all.
        """
        spans: list[Span] = []
        for index, start, end in self._raw.split(checked_text(text)):
            if index is not None:
                spans.append((index, start, end))
                continue
            cleaned, places = clean_with_places(text[start:end], lambda part: clean(part, self.cleaning))
            for inner, a, b in self._cleaned.split(cleaned):
                if inner is not None:
                    spans.append((inner, start + places[a][0], start + places[b - 1][1]))
                    continue
                for word, first in split_words(cleaned[a:b], self.cleaning):
                    origins = places[a + first : a + first + len(word)]
                    # where each byte of the word comes from: a token has as many symbols as bytes
                    bytes_from = [origin for origin, letter in zip(origins, word, strict=True) for _ in letter.encode()]
                    done = 0
                    tokens = self._tokens_of(word)
                    for n, token in enumerate(tokens, 1):
                        stop = len(bytes_from) if n == len(tokens) else done + len(token)
                        span = (start + bytes_from[done][0], start + bytes_from[stop - 1][1])
                        spans.append((self.vocab.get(token, self.unk_token_id), *span))
                        done = stop
        return spans

    def id_to_token(self, index: int) -> str:
        """The token as the vocabulary spells it: "cat</w>". An id outside the vocabulary raises TokenizerError."""
        if index not in self._token_of_id:
            raise unknown_id(index, self.vocab_size)
        return self._token_of_id[index]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for, a space after each word; bytes that are no UTF-8 become U+FFFD.

        Raises TokenizerError for an id outside the vocabulary.
        """
        dropped = self._special_ids if skip_special_tokens else frozenset()
        tokens = [self.id_to_token(index) for index in checked_ids(ids) if index not in dropped]
        data = b"".join(map(bytes_of, tokens))
        return data.decode("utf-8", errors="replace").replace(END_OF_WORD, " ").strip()

    def files(self) -> dict[str, bytes]:
        """vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, as Transformers reads them too.

        They do not record the cleaning: name it when loading.
        """
        return file_contents(self.vocabulary)

    def leftovers(self, folder: Path) -> list[str]:
        """Names of files in `folder` that Transformers would read instead of or beside this tokenizer's own."""
        return leftovers(folder, self.vocabulary)

    @cached_property
    def _token_of_id(self) -> dict[int, str]:
        return {index: token for token, index in self.vocab.items()}

    def _encode_any(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of a text, whatever it holds: cut raw, clean, cut clean, split, spell, merge."""
        ids: list[int] = []
        for word in self._words(text):
            if isinstance(word, int):
                ids.append(word)
            else:
                ids += self._word_ids.get(word) or self._word_ids.keep(word, self._encode_word(word, limit))
            if limit is not None and len(ids) >= limit:
                break
        return ids

    def _words(self, text: str) -> Iterator[str | int]:
        """The words of a text in order, and the ids of the added tokens between them."""
        if self.cleaning == "nfc":
            checked_unicode(text)
        for index, start, end in self._raw.split(text):
            if index is not None:
                yield index
                continue
            raw = text[start:end]
            for cleaned in clean_stretches(raw, self.cleaning) if self._runs_are_whole else [clean(raw, self.cleaning)]:
                for index, a, b in self._cleaned.split(cleaned):
                    if index is not None:
                        yield index
                    else:
                        yield from (word for word, _ in split_words(cleaned[a:b], self.cleaning))

    def _encode_word(self, word: str, limit: int | None = None) -> list[int]:
        return [self.vocab.get(token, self.unk_token_id) for token in self._tokens_of(word, limit)]

    def _tokens_of(self, word: str, limit: int | None = None) -> list[str]:
        """The tokens of a word; with a limit, of a long word perhaps no more than that many."""
        if self.cleaning == "ftfy" and word in FRAMES and word in self.vocab:
            return [word]
        if limit is None or len(word) <= memory.LETTERS:
            return self._merge(spell(word))

        def beginning(size: int) -> tuple[list[str], bool]:
            symbols = spell(word[:size])
            if size < len(word):
                symbols[-1] = symbols[-1].removesuffix(END_OF_WORD)
            return symbols, size >= len(word)

        return first_tokens(beginning, self._merge, limit, self._longest)

    def _merge(self, symbols: Sequence[str]) -> list[str]:
        return [token for token, _, _ in merge_pairs(symbols, self._ranks.get)]


def bytes_of(token: str) -> bytes:
    """What a token decodes to; an added token with letters outside the 256 symbols stands for its own UTF-8."""
    try:
        return bytes([BYTE_OF_SYMBOL[symbol] for symbol in token])
    except KeyError:
        return token.encode("utf-8", errors="replace")


def with_ids(vocabulary: BPEVocabulary) -> list[AddedToken]:
    """The added and the named special tokens, each with an id: its own, the vocabulary's, or the next free one."""
    roles: dict[str, str] = {}
    for role in ROLES:
        roles.setdefault(getattr(vocabulary, role), role.removesuffix("_token"))
    added = {token.content: token for token in vocabulary.added_tokens}
    tokens = {**{content: AddedToken(content) for content in roles}, **added}
    owners = {index: content for content, index in vocabulary.vocab.items()}
    free = max([*owners, *(token.id for token in added.values() if token.id is not None)], default=-1) + 1
    result = []
    for content, token in sorted(tokens.items(), key=lambda item: inf if item[1].id is None else item[1].id):
        known = vocabulary.vocab.get(content)
        index = known if token.id is None else token.id
        if index is None:
            if content in roles and content not in added:
                raise TokenizerError(
                    f"the {roles[content]} token {content!r} has no id; add it to the vocabulary or name another"
                )
            index, free = free, free + 1
        if known not in (None, index) or owners.setdefault(index, content) != content:
            taken = f"{content!r} is {known}" if known is not None else f"{index} is {owners[index]!r}"
            raise TokenizerError(f"added token {content!r} wants the id {index}, but in the vocabulary {taken}")
        result.append(replace(token, id=index, special=token.special or content in roles))
    return result
