"""The files of a CLIP tokenizer, read and written: vocab.json + merges.txt, tokenizer.json, OpenAI's merges.

What the small files beside them say (tokenizer_config.json, special_tokens_map.json, added_tokens.json) is gathered
by Transformers' rules: `added_tokens_decoder` in tokenizer_config.json says it all; where an old folder has none, the
other files are read in turn, the later over the earlier.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from minclip.errors import TokenizerError
from minclip.tokenizers.added_tokens import AddedToken

END_OF_WORD = "</w>"
OPENAI_MERGES = 49152 - 256 - 2  # how many of the published merges OpenAI's code takes
MAX_LENGTH = 77
LONGEST = 1_000_000  # a model_max_length beyond this is a file's way to say "unknown" (Transformers writes 1e30)


class MergeError(TokenizerError):
    """A merge that does not fit the vocabulary; `index` counts from 0, so that a reader can name the line."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(problem)
        self.index = index


@dataclass
class BPEFiles:
    """What the files of one tokenizer say. merges_at, first_merge: where the first merge stands, for error messages."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    bos_token: str = "<|startoftext|>"
    eos_token: str = "<|endoftext|>"
    pad_token: str = "<|endoftext|>"
    unk_token: str = "<|endoftext|>"
    added_tokens: list[AddedToken] = field(default_factory=list)
    max_length: int = MAX_LENGTH
    merges_at: str = "merge"
    first_merge: int = 1


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


def check_fit(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
    """Raise TokenizerError where ids repeat or are none, and MergeError at the first merge with a token unknown."""
    if set(map(type, vocab.values())) - {int} or min(vocab.values(), default=0) < 0:
        token, bad = next((t, i) for t, i in vocab.items() if type(i) is not int or i < 0)
        raise TokenizerError(
            f"the id of token {token!r} in the vocabulary is {bad!r}; expected a whole number from 0 on"
        )
    if len(set(vocab.values())) < len(vocab):
        seen: dict[int, str] = {}
        token, other = next((t, seen[i]) for t, i in vocab.items() if seen.setdefault(i, t) != t)
        raise TokenizerError(f"tokens {other!r} and {token!r} share the id {vocab[token]}; every token needs its own")
    if all(map(vocab.__contains__, chain(chain.from_iterable(merges), map("".join, merges)))):
        return
    for index, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in vocab:
                problem = f"merge '{left} {right}' needs the token {token!r}, which is not in the vocabulary"
                raise MergeError(index, f"{problem}; take both from the same tokenizer")


def read_folder(folder: str | Path) -> BPEFiles:
    """Gather the tokenizer of a checkpoint folder: vocab.json + merges.txt, otherwise tokenizer.json.

    Raises TokenizerError naming the file that is missing or broken.
    """
    folder = Path(folder)
    vocab_file, merges_file, whole_file = (folder / n for n in ("vocab.json", "merges.txt", "tokenizer.json"))
    whole = None
    if vocab_file.is_file() and merges_file.is_file():
        vocab = _read_json(vocab_file)
        merges, first_merge = _read_merges(merges_file)
        merges_at = f"{merges_file} line"
    elif whole_file.is_file():
        whole = _read_json(whole_file)
        vocab, merges = _bpe_of(whole, whole_file)
        first_merge, merges_at = 1, f"{whole_file} merge"
    else:
        present = [p.name for p in (vocab_file, merges_file) if p.is_file()]
        only = f" (only {present[0]} is there)" if present else ""
        raise TokenizerError(
            f"no tokenizer in {folder}: looked for vocab.json with merges.txt, or tokenizer.json{only}"
        )
    config, added = _special_tokens(folder, whole)
    named = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if config.get(name) is not None:
            named[name] = AddedToken.from_json(config[name], special=True).content
    # a named token that is nowhere given an id stays out, so that the tokenizer refuses it instead of making one up
    tokens = [t for t in added.values() if t.id is not None or t.content in vocab or t.content not in named.values()]
    files = BPEFiles(vocab, merges, added_tokens=tokens, max_length=_max_length(config))
    files.merges_at, files.first_merge = merges_at, first_merge
    for name, token in named.items():
        setattr(files, name, token)
    return files


def read_openai(path: str | Path) -> BPEFiles:
    """The vocabulary that OpenAI's code builds from its published merges (bpe_simple_vocab_16e6.txt.gz).

    The file holds 262,144 merges, of which CLIP uses the first 48,894. Ids in order: 256 bytes, 256 bytes at the end
    of a word, one token a merge, the two frames.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            merges = [tuple(line.split()) for line in islice(lines, 1, OPENAI_MERGES + 1)]  # the first line is a header
    except FileNotFoundError:
        raise TokenizerError(f"no merges file at {path}; expected OpenAI's bpe_simple_vocab_16e6.txt.gz") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} is no readable gzip of merges ({error}); fetch it again") from None
    if len(merges) < OPENAI_MERGES or set(map(len, merges)) != {2}:
        good = sum(len(merge) == 2 for merge in merges)
        raise TokenizerError(f"{path} holds {good} merges where {OPENAI_MERGES} were expected; fetch it again")
    tokens = [*base_symbols(), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: n for n, token in enumerate(tokens)}
    return BPEFiles(vocab, merges, merges_at=f"{path} line", first_merge=2)  # type: ignore[arg-type]


def write_folder(folder: str | Path, files: BPEFiles) -> None:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    vocab.json lists the added tokens too, so that every reader gives them these ids. A tokenizer.json or
    added_tokens.json left from another tokenizer is removed: Transformers would believe it first.
    """
    named = {name: getattr(files, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    tokens = {token.content: token for token in files.added_tokens}
    extra = [t.content for t in files.added_tokens if t.special and t.content not in named.values()]
    config = {
        "added_tokens_decoder": {str(token.id): token.to_json() for token in files.added_tokens},
        **({"additional_special_tokens": extra} if extra else {}),
        "clean_up_tokenization_spaces": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": files.max_length,
        "tokenizer_class": "CLIPTokenizer",
        **named,
    }
    special_map = {name: tokens[content].to_json() for name, content in named.items()}
    contents = {
        "vocab.json": json.dumps(files.vocab, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in files.merges), ""]),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        "special_tokens_map.json": json.dumps(special_map, indent=2, ensure_ascii=False) + "\n",
    }
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (Path(folder) / name).write_text(content, encoding="utf-8", newline="\n")
        for name in ("tokenizer.json", "added_tokens.json"):
            (Path(folder) / name).unlink(missing_ok=True)
    except OSError as error:
        raise TokenizerError(f"cannot write the tokenizer to {folder}: {error.strerror or error}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read {path} ({error}); expected a UTF-8 text file") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"{path} is not JSON ({error}); fetch or save it again") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def _read_merges(path: Path) -> tuple[list[tuple[str, str]], int]:
    """The merges, best first, and the line of the first one. The version line is optional, as in the peers."""
    lines = _read_text(path).rstrip("\n").split("\n")  # reading made CRLF a line feed already
    first = 2 if lines[0].startswith("#version") else 1
    lines = lines[first - 1 :]
    return _pairs(lines if lines != [""] else [], f"{path} line", first), first


def _pairs(lines: list[str], merges_at: str, first: int) -> list[tuple[str, str]]:
    pairs = [tuple(line.split(" ")) for line in lines]
    if set(map(len, pairs)) - {2}:
        n = next(n for n, pair in enumerate(pairs) if len(pair) != 2)
        raise TokenizerError(
            f"{merges_at} {first + n} is {lines[n]!r:.80}; expected two tokens and a space between them"
        )
    return pairs  # type: ignore[return-value]


def _bpe_of(whole: dict[str, Any], path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges out of a tokenizer.json, whose merges are pairs or, in older files, lines."""
    model = whole.get("model")
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
    return vocab, _pairs(merges, f"{path} merge", 1)


def _special_tokens(folder: Path, whole: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, AddedToken]]:
    """tokenizer_config.json completed by its neighbours, and the added tokens by content."""
    config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    added: dict[str, AddedToken] = {}
    if "added_tokens_decoder" in config:
        entries = _object(config["added_tokens_decoder"], folder / "tokenizer_config.json", "added_tokens_decoder")
        for token_id, entry in entries.items():
            _add(added, entry, token_id, folder / "tokenizer_config.json")
    else:
        if (folder / "special_tokens_map.json").is_file():
            config = {**config, **_read_json(folder / "special_tokens_map.json")}
        if (folder / "added_tokens.json").is_file():
            special = {_content(entry) for entry in _named_tokens(config)}
            for content, token_id in _read_json(folder / "added_tokens.json").items():
                entry = {"content": content, "special": content in special, "normalized": content not in special}
                _add(added, entry, token_id, folder / "added_tokens.json")
        if whole is None and (folder / "tokenizer.json").is_file():
            whole = _read_json(folder / "tokenizer.json")
        for entry in (whole or {}).get("added_tokens") or []:
            _add(added, entry, entry.get("id") if isinstance(entry, dict) else None, folder / "tokenizer.json")
    for entry in _named_tokens(config):
        token = AddedToken.from_json(entry, special=True)
        added.setdefault(token.content, token)
    return config, added


def _object(value: Any, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TokenizerError(f"{name} in {path} is a {type(value).__name__}; expected an object of tokens")
    return value


def _add(added: dict[str, AddedToken], entry: Any, token_id: Any, path: Path) -> None:
    if isinstance(token_id, bool) or not str(token_id).isdecimal():
        raise TokenizerError(
            f"{path} gives the added token {_content(entry)!r:.80} the id {token_id!r}; expected a number"
        )
    token = AddedToken.from_json(entry, id=int(token_id))
    added[token.content] = token


def _named_tokens(config: dict[str, Any]) -> list[Any]:
    """Every entry that names a special token: `..._token` by itself, and the lists of further ones."""
    entries = [value for name, value in config.items() if name.endswith("_token") and isinstance(value, str | dict)]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        further = config.get(name) or []
        if not isinstance(further, list | dict):
            raise TokenizerError(f"{name} is {further!r:.80}; expected a list of tokens, or an object of named ones")
        entries += list(further.values()) if isinstance(further, dict) else list(further)
    return entries


def _content(entry: Any) -> Any:
    return entry.get("content") if isinstance(entry, dict) else entry


def _max_length(config: dict[str, Any]) -> int:
    value = config.get("model_max_length")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 2 <= value <= LONGEST:
        return MAX_LENGTH
    return int(value)
