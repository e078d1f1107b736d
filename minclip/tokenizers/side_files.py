"""What the small files beside a vocabulary say: special tokens, added tokens and the longest text.

Gathered by Transformers' rules: `added_tokens_decoder` in tokenizer_config.json says it all; where an old folder has
none, special_tokens_map.json, added_tokens.json and tokenizer.json are read in turn, the later over the earlier.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minclip.errors import TokenizerError
from minclip.files import read_json
from minclip.tokenizers.added_tokens import AddedToken, token_id

SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
UNLIMITED = 1_000_000  # a model_max_length beyond this is a file's way to say "unknown" (Transformers writes 1e30)


def read_side_files(folder: Path, serialized: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[AddedToken]]:
    """tokenizer_config.json completed by its neighbours, and the added tokens.

    serialized: tokenizer.json, for folders in which it is the last to speak. A token that is named (`bos_token` and
    the like) without being given an id has None. TokenizerError names the file that is broken.
    """
    config_file, map_file, added_file = (folder / name for name in SIDE_FILES)
    config = read_json(config_file, TokenizerError) if config_file.is_file() else {}
    added: dict[str, AddedToken] = {}

    def add(entry: Any, index: Any, path: Path) -> None:
        token = AddedToken.from_json(entry)
        added[token.content] = AddedToken.from_json(entry, id=token_id(index, token.content, path))

    if "added_tokens_decoder" in config:
        decoder = config["added_tokens_decoder"]
        if not isinstance(decoder, dict):
            raise TokenizerError(
                f"{config_file}: added_tokens_decoder is {decoder!r:.40}; expected an object of tokens"
            )
        for index, entry in decoder.items():
            add(entry, index, config_file)
    else:
        if map_file.is_file():
            config = {**config, **read_json(map_file, TokenizerError)}
        if added_file.is_file():
            special = {AddedToken.from_json(entry).content for entry in _named_tokens(config)}
            for content, index in read_json(added_file, TokenizerError).items():
                is_special = content in special
                add({"content": content, "special": is_special, "normalized": not is_special}, index, added_file)
        for entry in _list((serialized or {}).get("added_tokens"), f"added_tokens in {folder / 'tokenizer.json'}"):
            add(entry, entry.get("id") if isinstance(entry, dict) else None, folder / "tokenizer.json")
    for entry in _named_tokens(config):
        token = AddedToken.from_json(entry, special=True)
        added.setdefault(token.content, token)
    return config, list(added.values())


def max_length(config: dict[str, Any], default: int) -> int:
    """The longest text, in tokens, where tokenizer_config.json says it."""
    value = config.get("model_max_length")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 2 <= value <= UNLIMITED:
        return default
    return int(value)


def _named_tokens(config: dict[str, Any]) -> list[Any]:
    """Every entry that names a special token: `..._token` by itself, and the lists of further ones."""
    entries = [value for name, value in config.items() if name.endswith("_token") and isinstance(value, str | dict)]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        further = config.get(name)
        entries += _list(list(further.values()) if isinstance(further, dict) else further, name)
    return entries


def _list(value: Any, name: str) -> Iterable[Any]:
    if not isinstance(value or [], list):
        raise TokenizerError(f"{name} is {value!r:.80}; expected a list of tokens")
    return value or []
