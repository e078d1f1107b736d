"""The tokenizer of AltCLIP (XLM-R) and MetaCLIP 2 (XLM-V), from the files of a checkpoint.

Two files can say how text is cut: `tokenizer.json`, which is followed as Hugging Face's `tokenizers` does, or, where
that is missing, the SentencePiece model `sentencepiece.bpe.model`, which is followed as sentencepiece does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from minclip.errors import TokenizerError
from minclip.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from minclip.tokenizers.batch import Tokenizer
from minclip.tokenizers.segmentation import Span
from minclip.tokenizers.sentencepiece_model import SentencePieceModel
from minclip.tokenizers.tokenizer_json import TokenizerJSON

_MODEL = "sentencepiece.bpe.model"
_SMALL_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_MAX_LENGTH = 512  # XLM-R's, where the files do not say
_UNLIMITED = 1_000_000  # a model_max_length beyond this is a file's way to say "unknown" (Transformers writes 1e30)
_NAMES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}

Config = dict[str, Any]


class _Vocabulary(Protocol):
    """What the tokenizer asks of either kind of file."""

    special_ids: frozenset[int]
    frame: tuple[int, int]

    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_with_offsets(self, text: str) -> list[Span]: ...
    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str: ...


class SentencePieceTokenizer(Tokenizer):
    """Texts to ids and back for the multilingual families; see `Tokenizer` for batches."""

    def __init__(self, vocabulary: _Vocabulary, pad_token_id: int, max_length: int, files: dict[str, bytes]) -> None:
        """files: what `save` writes, by name. `from_folder` is the usual way in."""
        self.vocabulary = vocabulary
        self.bos_token_id, self.eos_token_id = vocabulary.frame
        self.pad_token_id = pad_token_id
        self.max_length = max_length
        self._files = files

    @classmethod
    def from_folder(cls, folder: str | Path) -> SentencePieceTokenizer:
        """Read a checkpoint's tokenizer files.

        tokenizer.json goes before the SentencePiece model, as in Transformers. tokenizer_config.json,
        special_tokens_map.json and added_tokens.json say the rest where they are there: names and ids of the special
        tokens, and the longest text. TokenizerError where a file is missing or broken, or two contradict each other.
        """
        folder = Path(folder)
        files = {name: _read(folder / name) for name in _SMALL_FILES if (folder / name).is_file()}
        config: Config = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            config |= _json_object(files[name], folder / name) if name in files else {}
        added = (
            _json_object(files["added_tokens.json"], folder / "added_tokens.json") if _SMALL_FILES[2] in files else {}
        )
        path = _find(folder)
        files[path.name] = _read(path)
        if path.name == "tokenizer.json":
            document = TokenizerJSON(files[path.name], str(path))
            vocabulary: _Vocabulary = document
            pad = _content(config.get("pad_token", _NAMES["pad_token"]))
            if pad not in document.ids:
                raise TokenizerError(
                    f"{path}: padding token {pad!r} is not in the vocabulary; name one in tokenizer_config.json"
                )
            pad_id = document.ids[pad]
        else:
            model = SentencePieceModel.from_bytes(files[path.name], str(path))
            vocabulary = FairseqVocabulary(model, config, added)
            pad_id = FairseqVocabulary.PAD
        files.setdefault("tokenizer_config.json", _default_config(vocabulary, config))
        return cls(vocabulary, pad_id, _max_length(config), files)

    def encode_text(self, text: str) -> list[int]:
        """The ids of one text, unframed and untruncated."""
        return self.vocabulary.encode(text)

    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of each token of one text, unframed; start and end count characters of `text`."""
        return self.vocabulary.encode_with_offsets(text)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for. An id outside the vocabulary raises TokenizerError."""
        return self.vocabulary.decode((int(i) for i in ids), skip_special_tokens=skip_special_tokens)

    def save(self, folder: str | Path) -> None:
        """Write the files that were loaded, byte for byte; Transformers opens them too."""
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, data in self._files.items():
                (Path(folder) / name).write_bytes(data)
            stale = [
                "vocab.json",
                "merges.txt",
                "tokenizer.json",
                *(path.name for path in Path(folder).glob("*.model")),
            ]
            for name in set(stale) - set(self._files):  # another tokenizer's, which would speak for this one
                (Path(folder) / name).unlink(missing_ok=True)
        except OSError as error:
            raise TokenizerError(f"{folder}: cannot be written ({error.strerror}); save to another folder") from None

    @property
    def vocab_size(self) -> int:
        """How many ids there are; the largest id is `vocab_size - 1`."""
        return len(self.vocabulary)

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that frame, pad or otherwise do not stand for text."""
        return self.vocabulary.special_ids


class FairseqVocabulary:
    """A SentencePiece model under the ids that fairseq gave its pieces, as XLM-R and XLM-V use them.

    id    0    1      2     3      4 ...           n + 1
          <s>  <pad>  </s>  <unk>  piece id - 1    <mask>      (n pieces in the model: its first are <unk>, <s>, </s>)
    """

    BOS, PAD, EOS, UNKNOWN = range(4)

    def __init__(self, model: SentencePieceModel, config: Config, added: Config | None = None) -> None:
        """config: tokenizer_config.json over special_tokens_map.json; added: added_tokens.json. Both are checked."""
        self.model = model
        self._name = model.file.name
        kind = config.get("tokenizer_class")
        if kind not in (None, "XLMRobertaTokenizer", "XLMRobertaTokenizerFast"):
            raise TokenizerError(
                f"{self._name}: tokenizer_class {kind} is not known; minclip reads XLMRobertaTokenizer"
            )
        if model.pieces[:3] != ["<unk>", "<s>", "</s>"] or model.unknown != 0:
            raise TokenizerError(
                f"{self._name}: the first pieces are {model.pieces[:3]}, not <unk>, <s>, </s>; "
                "this is no XLM-R vocabulary"
            )
        names = {role: _content(config.get(role) or name) for role, name in _NAMES.items()}
        order = ("bos_token", "pad_token", "eos_token", "unk_token")
        self._tokens = {i: AddedToken(names[role]) for i, role in enumerate(order)}
        self._tokens[len(model) + 1] = AddedToken(names["mask_token"])
        for role, entry in config.items():
            if role in _NAMES and isinstance(entry, dict):
                index = len(model) + 1 if role == "mask_token" else order.index(role)
                self._tokens[index] = AddedToken.from_json(entry, special=True)
        decoder = config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise TokenizerError(f"{self._name}: added_tokens_decoder beside it is no object; get the file again")
        for index, entry in decoder.items():
            self._add(index, AddedToken.from_json(entry))
        known = {token.content: token for token in self._tokens.values()}
        for content, index in (added or {}).items():
            self._add(index, known.get(content, AddedToken(content)))
        self.special_ids = frozenset(i for i, token in self._tokens.items() if token.special)
        self.frame = self.BOS, self.EOS
        self._finder = AddedTokenFinder((token.content, i, token) for i, token in self._tokens.items())

    def _add(self, index: Any, token: AddedToken) -> None:
        """Take in a token that the small files give an id; it must be the one that the layout has there, or be new."""
        number = int(index) if str(index).isdecimal() else -1
        known = self._tokens.get(number)
        expected = known.content if known else None
        if known is None and 4 <= number <= len(self.model):
            expected = self.model.pieces[number - 1]
        if number < 0 or expected not in (None, token.content):
            raise TokenizerError(
                f"{self._name}: the files beside it give {token.content!r} id {index}, where the XLM-R layout has "
                f"{expected!r}; get the files of one checkpoint"
            )
        self._tokens[number] = token

    def __len__(self) -> int:
        return max(self._tokens) + 1

    def _from_model(self, piece: int) -> int:
        return piece + 1 if piece else self.UNKNOWN

    def encode(self, text: str) -> list[int]:
        """The ids of a text; what stands between special tokens is encoded by itself."""
        ids: list[int] = []
        for index, start, end in self._finder.split(text):
            if index is None:
                ids += [piece + 1 if piece else 3 for piece in self.model.encode(text[start:end])]
            else:
                ids.append(index)
        return ids

    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of a text's tokens; start and end count characters of `text`."""
        result: list[Span] = []
        for index, start, end in self._finder.split(text):
            if index is None:
                for piece, a, b in self.model.encode_with_offsets(text[start:end]):
                    result.append((self._from_model(piece), start + a, start + b))
            else:
                result.append((index, start, end))
        return result

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids, special tokens by name. TokenizerError for one outside the vocabulary."""
        parts: list[str] = []
        run: list[int] = []
        at_start = True
        for index in ids:
            token = self._tokens.get(index)
            if token is None:
                if not 4 <= index <= len(self.model):
                    raise TokenizerError(f"id {index} is not in the vocabulary; ids go from 0 to {len(self) - 1}")
                run.append(index - 1)
            elif not (skip_special_tokens and token.special):
                parts += [self.model.decode(run, at_start=at_start), token.content]
                run, at_start = [], False
        return "".join([*parts, self.model.decode(run, at_start=at_start)])


def _find(folder: Path) -> Path:
    """The file that the tokenizer is read from."""
    models = sorted(folder.glob("*.model"))
    for path in (folder / "tokenizer.json", folder / _MODEL):
        if path.is_file():
            return path
    if len(models) == 1:
        return models[0]
    raise TokenizerError(f"{folder}: found neither tokenizer.json nor {_MODEL}; get the checkpoint's tokenizer files")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror}); get the file again") from None


def _json_object(data: bytes, path: Path) -> Config:
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not JSON ({error}); get the file again") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: expected a JSON object, not {type(value).__name__}; get the file again")
    return value


def _content(entry: Any) -> str:
    """A token's text; the files write it as a string or as an object."""
    return AddedToken.from_json(entry, special=True).content


def _max_length(config: Config) -> int:
    """The longest text, of the model where the file says it."""
    length = config.get("model_max_length")
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not 2 <= length <= _UNLIMITED:
        return _MAX_LENGTH
    return int(length)


def _default_config(vocabulary: _Vocabulary, config: Config) -> bytes:
    """A tokenizer_config.json for a folder that came without one, so that Transformers knows the class."""
    kind = "XLMRobertaTokenizer" if isinstance(vocabulary, FairseqVocabulary) else "PreTrainedTokenizerFast"
    named = {role: _content(config.get(role, name)) for role, name in _NAMES.items()}
    return json.dumps({"tokenizer_class": kind, **named, "model_max_length": _max_length(config)}, indent=2).encode()
