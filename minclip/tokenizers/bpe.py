"""CLIP's byte-level BPE: words spelt in bytes, then glued together, pair by pair, in the order that training found.

Sennrich et al. 2016 (arXiv:1508.07909) for the merges, Radford et al. 2019 (GPT-2) for the bytes; CLIP marks the end
of a word with `</w>` on its last symbol. Read in order: `spell`, `merge`, `train_merges`, then the tokenizer.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, pairwise
from math import inf
from pathlib import Path

import regex

from minclip.errors import TokenizerError
from minclip.tokenizers.added_tokens import AddedToken
from minclip.tokenizers.batch import Tokenizer
from minclip.tokenizers.bpe_files import (
    END_OF_WORD,
    MAX_LENGTH,
    BPEFiles,
    MergeError,
    base_symbols,
    byte_symbols,
    check_fit,
    read_folder,
    read_openai,
    write_folder,
)
from minclip.tokenizers.cleaning import FRAMES, AddedTokenCutter, Cleaning, clean, is_plain, split_words

Pair = tuple[str, str]

BYTE_SYMBOLS = byte_symbols()
BYTE_OF_SYMBOL = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}
LONG_WORD = 48  # symbols; from here on `merge_long` is the faster of the two
REMEMBERED = 65_536  # words and runs whose ids are kept; ordinary English needs a fraction of it
REMEMBERED_LETTERS = 64  # a longer word is not kept, so that a hostile text cannot fill the memory


def spell(word: str) -> list[str]:
    """The word as one symbol a byte of its UTF-8, the last one marked: "né" -> ["n", "Ã", "©</w>"]."""
    symbols = [BYTE_SYMBOLS[byte] for byte in word.encode("utf-8")]
    symbols[-1] += END_OF_WORD
    return symbols


def merge(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Glue the neighbours that were merged earliest in training, the leftmost of them first, until none is left."""
    symbols = list(symbols)
    while len(symbols) > 1:
        rank, i = min((ranks.get(pair, inf), i) for i, pair in enumerate(pairwise(symbols)))
        if rank == inf:
            break
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    return symbols


def merge_long(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """What `merge` gives, in n log n steps instead of n squared: a heap of pairs over a linked list of symbols."""
    symbols = list(symbols)
    end = len(symbols)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, i = heapq.heappop(heap)
        j = after[i]
        if j == end or ranks.get((symbols[i], symbols[j])) != rank:
            continue  # one of the two was glued to another symbol in the meantime
        symbols[i] += symbols[j]
        symbols[j] = ""
        after[i] = after[j]
        if after[i] < end:
            before[after[i]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right < end and (rank_here := ranks.get((symbols[left], symbols[right]))) is not None:
                heapq.heappush(heap, (rank_here, left))
    return [symbol for symbol in symbols if symbol]


def merge_word(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """`merge`, whichever way is the faster for a word of this length."""
    return merge(symbols, ranks) if len(symbols) <= LONG_WORD else merge_long(symbols, ranks)


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

    vocab: token to id. merges: pairs of tokens, the earliest learnt first. cleaning: see `minclip.tokenizers.cleaning`.
    The special tokens need ids, in `vocab` or in `added_tokens`; pad_token and unk_token are eos_token unless given.
    A byte that the vocabulary lacks, as small ones in tests do, becomes unk_token, one for each.

    Special and added tokens in a text become their ids. With "ftfy" the two frames are found as the training code
    found them, as words of the cleaned text, and a pad token that is an ordinary symbol ("!" in some checkpoints)
    stays text; with "nfc" all are cut out beforehand, wherever they stand, as Transformers does.

    Raises TokenizerError where ids repeat, a merge does not fit the vocabulary, or a special token has no id.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[Pair],
        *,
        cleaning: Cleaning = "ftfy",
        bos_token: str = "<|startoftext|>",
        eos_token: str = "<|endoftext|>",
        pad_token: str | None = None,
        unk_token: str | None = None,
        added_tokens: Sequence[AddedToken] = (),
        max_length: int = MAX_LENGTH,
    ) -> None:
        if cleaning not in ("ftfy", "nfc"):
            raise TokenizerError(f"cleaning={cleaning!r} is not one of 'ftfy', 'nfc'")
        check_fit(vocab, merges)
        self.cleaning: Cleaning = cleaning
        self.max_length = max_length
        self.vocab, self.merges = dict(vocab), list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.bos_token, self.eos_token = bos_token, eos_token
        self.pad_token, self.unk_token = pad_token or eos_token, unk_token or eos_token
        self.added_tokens = self._give_ids(added_tokens)
        self.vocab.update((token.content, token.id) for token in self.added_tokens if token.id is not None)
        self.bos_token_id, self.eos_token_id = self.vocab[bos_token], self.vocab[eos_token]
        self.pad_token_id, self.unk_token_id = self.vocab[self.pad_token], self.vocab[self.unk_token]
        self._size = max(self.vocab.values()) + 1
        self._special_ids = frozenset(self.vocab[token.content] for token in self.added_tokens if token.special)
        cut = [token for token in self.added_tokens if token.content not in self._left_in_text()]
        self._cut_raw = AddedTokenCutter((token for token in cut if not token.normalized), self.vocab)
        self._cut_clean = AddedTokenCutter((token for token in cut if token.normalized), self.vocab, cleaning)
        self._runs_are_whole = not any(regex.search(r"\s", token.content) for token in cut)
        self._run_ids: dict[str, list[int]] = {}
        self._word_ids: dict[str, list[int]] = {}

    @classmethod
    def from_folder(cls, folder: str | Path, cleaning: Cleaning = "ftfy") -> BPETokenizer:
        """Read vocab.json + merges.txt, or tokenizer.json, and what the small files beside them add."""
        return cls._from_files(read_folder(folder), cleaning, folder)

    @classmethod
    def from_openai(cls, path: str | Path, cleaning: Cleaning = "ftfy") -> BPETokenizer:
        """Build the vocabulary from OpenAI's published merges, bpe_simple_vocab_16e6.txt.gz.

        OpenAI's code pads with id 0, this tokenizer with the end token: no position before the padding can tell.
        """
        return cls._from_files(read_openai(path), cleaning, path)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, cleaning: Cleaning = "ftfy", max_length: int = MAX_LENGTH
    ) -> BPETokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens from texts: 512 byte symbols, merges, the two frames."""
        base = base_symbols()
        room = vocab_size - len(base) - len(FRAMES)
        if room < 0:
            raise TokenizerError(f"vocab_size={vocab_size} is too small; bytes and frames alone take {len(base) + 2}")
        words = Counter(chain.from_iterable(split_words(clean(text, cleaning), cleaning) for text in texts))
        merges = train_merges({word: n for word, n in words.items() if word not in FRAMES}, room)
        tokens = [*base, *map("".join, merges), *FRAMES]
        return cls({t: n for n, t in enumerate(tokens)}, merges, cleaning=cleaning, max_length=max_length)

    @property
    def vocab_size(self) -> int:
        return self._size

    @property
    def special_ids(self) -> frozenset[int]:
        return self._special_ids

    def encode_text(self, text: str) -> list[int]:
        """The ids of one text, unframed and untruncated. A lone surrogate raises TokenizerError with "nfc"."""
        if not (self._runs_are_whole and is_plain(text)):
            return self._encode_any(text)
        # The fast path: nothing reaches across a space in plain text, so each run between spaces is encoded once.
        # Equal to `_encode_any(text)`, and tested to be.
        ids: list[int] = []
        for run in text.split():
            ids += self._run_ids.get(run) or self._remember(self._run_ids, run, self._encode_any)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for, a space after each word; bytes that are no UTF-8 become U+FFFD.

        Raises TokenizerError for an id outside the vocabulary.
        """
        dropped = self._special_ids if skip_special_tokens else frozenset()
        try:
            pieces = [self._bytes_of_id[i] for i in map(int, ids) if i not in dropped]
        except KeyError as error:
            raise TokenizerError(f"id {error} stands for no token; ids go from 0 to {self._size - 1}") from None
        return b"".join(pieces).decode("utf-8", errors="replace").replace(END_OF_WORD, " ").strip()

    def save(self, folder: str | Path) -> None:
        """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

        Transformers' CLIPTokenizer opens the folder too. The files do not record the cleaning: name it when loading.
        """
        names = {n: getattr(self, n) for n in ("bos_token", "eos_token", "pad_token", "unk_token", "max_length")}
        write_folder(folder, BPEFiles(self.vocab, self.merges, added_tokens=self.added_tokens, **names))

    @classmethod
    def _from_files(cls, files: BPEFiles, cleaning: Cleaning, source: str | Path) -> BPETokenizer:
        """The tokenizer of these files; an error names them, and for a merge its line."""
        try:
            return cls(
                files.vocab,
                files.merges,
                cleaning=cleaning,
                bos_token=files.bos_token,
                eos_token=files.eos_token,
                pad_token=files.pad_token,
                unk_token=files.unk_token,
                added_tokens=files.added_tokens,
                max_length=files.max_length,
            )
        except MergeError as error:
            raise TokenizerError(f"{files.merges_at} {files.first_merge + error.index}: {error}") from None
        except TokenizerError as error:
            raise TokenizerError(f"{source}: {error}") from None

    def _left_in_text(self) -> set[str]:
        """The special tokens that are not cut out of a text, but met as words when it is split; see the class."""
        if self.cleaning == "nfc":
            return set()
        return {*FRAMES, *({self.pad_token} & set(base_symbols()))}

    def _give_ids(self, added_tokens: Sequence[AddedToken]) -> list[AddedToken]:
        """The added and the named special tokens, each with an id: its own, the vocabulary's, or the next free one."""
        named = {"bos": self.bos_token, "eos": self.eos_token, "pad": self.pad_token, "unk": self.unk_token}
        tokens = {**{t: AddedToken(t) for t in named.values()}, **{t.content: t for t in added_tokens}}
        owners = {token_id: content for content, token_id in self.vocab.items()}
        free = max([*owners, *(token.id for token in added_tokens if token.id is not None)], default=-1) + 1
        result = []
        for token in sorted(tokens.values(), key=lambda token: inf if token.id is None else token.id):
            content, known = token.content, self.vocab.get(token.content)
            roles = [role for role, name in named.items() if name == content]
            token_id = known if token.id is None else token.id
            if token_id is None:
                if roles and token not in added_tokens:
                    problem = f"the {roles[0]} token {content!r} has no id"
                    raise TokenizerError(f"{problem}; add it to the vocabulary or name another")
                token_id, free = free, free + 1
            if known not in (None, token_id) or owners.setdefault(token_id, content) != content:
                taken = f"{content!r} is {known}" if known is not None else f"{token_id} is {owners[token_id]!r}"
                raise TokenizerError(f"added token {content!r} wants the id {token_id}, but in the vocabulary {taken}")
            result.append(replace(token, id=token_id, special=token.special or bool(roles)))
        return result

    @cached_property
    def _bytes_of_id(self) -> dict[int, bytes]:
        """What each id decodes to; an added token with letters outside the 256 symbols stands for its own UTF-8."""

        def bytes_of(token: str) -> bytes:
            try:
                return bytes([BYTE_OF_SYMBOL[symbol] for symbol in token])
            except KeyError:
                return token.encode("utf-8", errors="replace")

        return {token_id: bytes_of(token) for token, token_id in self.vocab.items()}

    def _encode_any(self, text: str) -> list[int]:
        """The ids of a text, whatever it holds: cut raw, clean, cut clean, split, spell, merge."""
        ids: list[int] = []
        for piece in self._cut_raw(text):
            for part in self._cut_clean(clean(piece, self.cleaning)) if isinstance(piece, str) else [piece]:
                if isinstance(part, int):
                    ids.append(part)
                    continue
                for word in split_words(part, self.cleaning):
                    ids += self._word_ids.get(word) or self._remember(self._word_ids, word, self._encode_word)
        return ids

    def _encode_word(self, word: str) -> list[int]:
        if self.cleaning == "ftfy" and word in FRAMES and word in self.vocab:
            return [self.vocab[word]]
        try:
            symbols = spell(word)
        except UnicodeEncodeError as error:
            code = ord(word[error.start])
            raise TokenizerError(f"the text holds U+{code:04X}, half of a surrogate pair; decode it properly") from None
        known = [symbol if symbol in self.vocab else self.unk_token for symbol in symbols]
        return [self.vocab[symbol] for symbol in merge_word(known, self._ranks)]

    @staticmethod
    def _remember(memory: dict[str, list[int]], text: str, encode: Callable[[str], list[int]]) -> list[int]:
        ids = encode(text)
        if len(text) <= REMEMBERED_LETTERS:
            if len(memory) >= REMEMBERED:
                memory.clear()
            memory[text] = ids
        return ids
