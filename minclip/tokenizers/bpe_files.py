"""The files of a CLIP tokenizer, read and written: vocab.json + merges.txt, tokenizer.json, OpenAI's merges."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from minclip.errors import TokenizerError
from minclip.files import read_json
from minclip.tokenizers.added_tokens import LARGEST_ID, AddedToken
from minclip.tokenizers.cleaning import FRAMES
from minclip.tokenizers.side_files import max_length, read_side_files

Pair = tuple[str, str]

END_OF_WORD = "</w>"
OPENAI_MERGES = 49152 - 256 - 2  # how many of the published merges OpenAI's code takes
MAX_LENGTH = 77
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass
class BPEVocabulary:
    """What the files of one tokenizer say.

    vocab: token to id. merges: pairs of tokens, the earliest learnt first. added_tokens: what is found in a text
    before any merging. merges_at, first_merge: where the merges stand, for error messages.
    """

    vocab: dict[str, int]
    merges: list[Pair]
    bos_token: str = FRAMES[0]
    eos_token: str = FRAMES[1]
    pad_token: str = FRAMES[1]
    unk_token: str = FRAMES[1]
    added_tokens: Sequence[AddedToken] = field(default_factory=list)
    max_length: int = MAX_LENGTH
    merges_at: str = "merge"
    first_merge: int = 1

    def check(self) -> None:
        """Raise TokenizerError where ids repeat or are none, or vocabulary and merges are not of one tokenizer."""
        vocab, ids = self.vocab, self.vocab.values()
        if set(map(type, ids)) - {int} or min(ids, default=0) < 0 or max(ids, default=0) > LARGEST_ID:
            token, bad = next((t, i) for t, i in vocab.items() if type(i) is not int or not 0 <= i <= LARGEST_ID)
            raise TokenizerError(
                f"the id of token {token!r:.80} is {bad!r:.40}; expected a whole number from 0 to {LARGEST_ID}"
            )
        if len(set(ids)) < len(vocab):
            seen: dict[int, str] = {}
            token, other = next((t, seen[i]) for t, i in vocab.items() if seen.setdefault(i, t) != t)
            problem = f"tokens {other!r} and {token!r} share the id {vocab[token]}"
            raise TokenizerError(f"{problem}; every token needs its own")
        made = set(map("".join, self.merges))
        if not (made <= vocab.keys() and vocab.keys() >= set(chain.from_iterable(self.merges))):
            self._refuse_merge()
        self._check_that_merges_are_all_there(made)

    def _refuse_merge(self) -> None:
        for index, (left, right) in enumerate(self.merges):
            for token in (left, right, left + right):
                if token not in self.vocab:
                    problem = f"merge '{left} {right}' needs the token {token!r}, which is not in the vocabulary"
                    raise TokenizerError(
                        f"{self.merges_at} {self.first_merge + index}: {problem}; take both from the same tokenizer"
                    )

    def _check_that_merges_are_all_there(self, made: set[str]) -> None:
        """Every token must be a byte's, made by a merge, or special; else the file of the merges was cut short.

        Vocabularies without all the bytes, as are made by hand for tests, are not held to it.
        """
        base = set(base_symbols())
        if not base <= self.vocab.keys():
            return
        special = {token.content for token in self.added_tokens} | {getattr(self, role) for role in ROLES} | set(FRAMES)
        lost = self.vocab.keys() - base - made - special
        if lost:
            first = min(lost, key=self.vocab.__getitem__)
            raise TokenizerError(
                f"{len(lost)} tokens of the vocabulary, {first!r:.80} the first, are made by none of the "
                f"{len(self.merges)} merges ({self.merges_at.removesuffix(' line').removesuffix(' merge')}); "
                "the merges are not all there: get the file again"
            )


def byte_symbols() -> list[str]:
    """One printable character for each of the 256 bytes, in byte order (Radford et al. 2019, GPT-2's encoder).

    Printable Latin-1 stands for itself; the other bytes take the characters from U+0100 on. So a vocabulary of bytes
    can be written as text, without a space or a line end in it.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    shift = {byte: 256 + n for n, byte in enumerate(others)}
    return [chr(shift.get(byte, byte)) for byte in range(256)]


def base_symbols() -> list[str]:
    """CLIP's first 512 tokens: each byte inside a word, each byte at its end. Printable bytes come first."""
    symbols = sorted(byte_symbols())
    return symbols + [symbol + END_OF_WORD for symbol in symbols]


def read_folder(folder: str | Path) -> BPEVocabulary:
    """Gather the tokenizer of a checkpoint folder: vocab.json + merges.txt, otherwise tokenizer.json.

    Raises TokenizerError naming the file that is missing or broken.
    """
    folder = Path(folder)
    vocab_file, merges_file, whole_file = (folder / n for n in ("vocab.json", "merges.txt", "tokenizer.json"))
    if vocab_file.is_file() and merges_file.is_file():
        result = _read_merges(merges_file, read_json(vocab_file, TokenizerError))
        serialized = read_json(whole_file, TokenizerError) if whole_file.is_file() and _is_old(folder) else None
    elif whole_file.is_file():
        serialized = read_json(whole_file, TokenizerError)
        result = _serialized_bpe(serialized, whole_file)
    else:
        present = [p.name for p in (vocab_file, merges_file) if p.is_file()]
        only = f" (only {present[0]} is there)" if present else ""
        raise TokenizerError(
            f"no tokenizer in {folder}: looked for vocab.json with merges.txt, or tokenizer.json{only}"
        )
    config, added = read_side_files(folder, serialized)
    named = {role for role in ROLES if config.get(role) is not None}
    for role in named:
        setattr(result, role, AddedToken.from_json(config[role], special=True).content)
    # a named token that is nowhere given an id stays out, so that the tokenizer refuses it instead of making one up
    names = {getattr(result, role) for role in named}
    result.added_tokens = [t for t in added if t.id is not None or t.content in result.vocab or t.content not in names]
    result.max_length = max_length(config, MAX_LENGTH)
    return result


def read_openai(path: str | Path) -> BPEVocabulary:
    """The vocabulary that OpenAI's code builds from its published merges (bpe_simple_vocab_16e6.txt.gz).

    The file holds 262,144 merges, of which CLIP uses the first 48,894; it is read to its end, where its checksum
    stands. Ids in order: 256 bytes, 256 bytes at the end of a word, one token a merge, the two frames.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        raise TokenizerError(f"no merges file at {path}; expected OpenAI's bpe_simple_vocab_16e6.txt.gz") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} is no readable gzip of merges ({error}); fetch it again") from None
    merges = [tuple(line.split()) for line in lines[1 : OPENAI_MERGES + 1]]  # the first line is a header
    if len(merges) < OPENAI_MERGES or set(map(len, merges)) != {2}:
        good = sum(len(merge) == 2 for merge in merges)
        raise TokenizerError(f"{path} holds {good} merges where {OPENAI_MERGES} were expected; fetch it again")
    tokens = [*base_symbols(), *map("".join, merges), *FRAMES]
    vocab = {token: n for n, token in enumerate(tokens)}
    return BPEVocabulary(vocab, merges, merges_at=f"{path} line", first_merge=2)  # type: ignore[arg-type]


def file_contents(vocabulary: BPEVocabulary) -> dict[str, bytes]:
    """vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    vocab.json lists the added tokens too, so that every reader gives them these ids. Raises TokenizerError for a token
    with a lone surrogate, which no file can hold.
    """
    named = {role: getattr(vocabulary, role) for role in ROLES}
    tokens = {token.content: token for token in vocabulary.added_tokens}
    extra = [t.content for t in vocabulary.added_tokens if t.special and t.content not in named.values()]
    config = {
        "added_tokens_decoder": {str(token.id): token.to_json() for token in vocabulary.added_tokens},
        **({"additional_special_tokens": extra} if extra else {}),
        "clean_up_tokenization_spaces": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": vocabulary.max_length,
        "tokenizer_class": "CLIPTokenizer",
        **named,
    }
    special_map = {name: tokens[content].to_json() for name, content in named.items()}
    contents = {
        "vocab.json": json.dumps(vocabulary.vocab, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in vocabulary.merges), ""]),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        "special_tokens_map.json": json.dumps(special_map, indent=2, ensure_ascii=False) + "\n",
    }
    try:
        return {name: content.encode() for name, content in contents.items()}
    except UnicodeEncodeError as error:
        token = next(t for t in vocabulary.vocab if error.object[error.start] in t)
        raise TokenizerError(f"token {token!r:.80} holds half of a surrogate pair, which no file can hold") from None


def leftovers(folder: Path, vocabulary: BPEVocabulary) -> list[str]:
    """Files of another tokenizer in a folder that Transformers would read instead of those of `vocabulary`."""
    found = []
    try:
        if (path := folder / "tokenizer.json").is_file():
            other = _serialized_bpe(read_json(path, TokenizerError), path)
            same = other.merges == vocabulary.merges and other.vocab.items() <= vocabulary.vocab.items()
            found += [] if same else [path.name]
    except TokenizerError:
        found.append(path.name)
    try:
        if (path := folder / "added_tokens.json").is_file():
            same = read_json(path, TokenizerError).items() <= vocabulary.vocab.items()
            found += [] if same else [path.name]
    except (TokenizerError, TypeError):
        found.append(path.name)
    return found


def _is_old(folder: Path) -> bool:
    """Whether tokenizer_config.json leaves it to the other files to say which tokens were added."""
    path = folder / "tokenizer_config.json"
    return not path.is_file() or "added_tokens_decoder" not in read_json(path, TokenizerError)


def _read_merges(path: Path, vocab: dict[str, int]) -> BPEVocabulary:
    """A vocabulary with the merges, best first, of merges.txt. Its version line is optional, as in the peers."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")  # reading makes CRLF a line feed
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read {path} ({error}); expected a UTF-8 text file") from None
    first = 2 if lines[0].startswith("#version") else 1
    lines = [] if lines[first - 1 :] == [""] else lines[first - 1 :]
    return BPEVocabulary(vocab, _pairs(lines, f"{path} line", first), merges_at=f"{path} line", first_merge=first)


def _serialized_bpe(content: dict[str, Any], path: Path) -> BPEVocabulary:
    """Vocabulary and merges out of a tokenizer.json, whose merges are pairs or, in older files, lines."""
    model = content.get("model")
    if (
        not isinstance(model, dict)
        or model.get("type", "BPE") != "BPE"
        or model.get("end_of_word_suffix") != END_OF_WORD
    ):
        raise TokenizerError(f"{path} is not CLIP's tokenizer: expected a BPE model with end_of_word_suffix '</w>'")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise TokenizerError(f"{path} lacks model.vocab (an object) or model.merges (a list); save it again")
    if merges and isinstance(merges[0], list):
        merges = [" ".join(map(str, merge)) if isinstance(merge, list) else merge for merge in merges]
    if set(map(type, merges)) - {str}:
        raise TokenizerError(f"{path} has a merge that is neither a pair nor a line; save it again")
    return BPEVocabulary(vocab, _pairs(merges, f"{path} merge", 1), merges_at=f"{path} merge")


def _pairs(lines: list[str], merges_at: str, first: int) -> list[Pair]:
    pairs = [tuple(line.split(" ")) for line in lines]
    if set(map(len, pairs)) - {2}:
        n = next(n for n, pair in enumerate(pairs) if len(pair) != 2)
        raise TokenizerError(
            f"{merges_at} {first + n} is {lines[n]!r:.80}; expected two tokens and a space between them"
        )
    return pairs  # type: ignore[return-value]
