"""The tokenizer of AltCLIP (XLM-R) and MetaCLIP 2 (XLM-V), from the files of a checkpoint.

Two files can say how text is cut: `tokenizer.json`, which is followed as Hugging Face's `tokenizers` does, or, where
that is missing, the SentencePiece model `sentencepiece.bpe.model`, which is followed as sentencepiece does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from minclip.errors import TokenizerError
from minclip.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from minclip.tokenizers.batch import Tokenizer, checked_ids, checked_text, checked_unicode, unknown_id
from minclip.tokenizers.segmentation import Span
from minclip.tokenizers.sentencepiece_model import SentencePieceModel
from minclip.tokenizers.side_files import SIDE_FILES, max_length, read_side_files
from minclip.tokenizers.tokenizer_json import TokenizerJSON

_MODEL = "sentencepiece.bpe.model"
_MAX_LENGTH = 512  # XLM-R's, where the files do not say
_PADDING = 128  # a model may have fewer unused ids than this, to make its embeddings a round number
_NAMES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
_ORDER = ("bos_token", "pad_token", "eos_token", "unk_token")  # ids 0 to 3

Config = dict[str, Any]


class _Vocabulary(Protocol):
    """What the tokenizer asks of either kind of file."""

    special_ids: frozenset[int]
    frame: tuple[int, int]

    def __len__(self) -> int: ...
    def encode(self, text: str, limit: int | None = None) -> list[int]: ...
    def encode_with_offsets(self, text: str) -> list[Span]: ...
    def id_to_token(self, index: int) -> str: ...
    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str: ...


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
        config, added = read_side_files(folder)
        path = _find(folder)
        files = {p.name: _read(p) for p in (path, *(folder / name for name in SIDE_FILES)) if p == path or p.is_file()}
        vocabulary: _Vocabulary
        if path.name == "tokenizer.json":
            vocabulary = document = TokenizerJSON(files[path.name], str(path))
            pad = _content(config.get("pad_token") or _NAMES["pad_token"])
            if pad not in document.ids:
                raise TokenizerError(
                    f"{path}: padding token {pad!r} is not in the vocabulary; name one in tokenizer_config.json"
                )
            pad_id = document.ids[pad]
        else:
            model = SentencePieceModel.from_bytes(files[path.name], str(path))
            vocabulary = FairseqVocabulary(model, config, added)
            pad_id = FairseqVocabulary.PAD
        length = max_length(config, _MAX_LENGTH)
        if SIDE_FILES[0] not in files:  # so that Transformers knows the class
            kind = "PreTrainedTokenizerFast" if path.name == "tokenizer.json" else "XLMRobertaTokenizer"
            named = {role: _content(config.get(role) or name) for role, name in _NAMES.items()}
            content = {"tokenizer_class": kind, **named, "model_max_length": length}
            files[SIDE_FILES[0]] = json.dumps(content, indent=2).encode()
        return cls(vocabulary, pad_id, length, files)

    def encode_text(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of one text, unframed. A lone surrogate raises TokenizerError."""
        return self.vocabulary.encode(checked_unicode(text), limit)

    def encode_with_offsets(self, text: str) -> list[Span]:
        """(id, start, end) of each token of one text, unframed; start and end count characters of `text`."""
        return self.vocabulary.encode_with_offsets(checked_unicode(checked_text(text)))

    def id_to_token(self, index: int) -> str:
        """The piece with this id: "▁cat". An id outside the vocabulary raises TokenizerError."""
        return self.vocabulary.id_to_token(index)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for. An id outside the vocabulary raises TokenizerError."""
        return self.vocabulary.decode(checked_ids(ids), skip_special_tokens=skip_special_tokens)

    def files(self) -> dict[str, bytes]:
        """The files that were loaded, byte for byte; Transformers opens them too."""
        return dict(self._files)

    def leftovers(self, folder: Path) -> list[str]:
        """Names of files in `folder` that would be read instead of or beside this tokenizer's own, if saved there."""
        others = ["tokenizer.json", *SIDE_FILES]
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            others += ["vocab.json", "merges.txt"]
        if "tokenizer.json" not in self._files and _MODEL not in self._files:
            others += [path.name for path in folder.glob("*.model")]
        return [name for name in others if name not in self._files and (folder / name).is_file()]

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise TokenizerError where a model with embeddings for `vocab_size` ids cannot be this tokenizer's.

        A SentencePiece model cut short is found by this, too: it has fewer pieces than the model has embeddings.
        """
        super().check_vocabulary(vocab_size)
        if isinstance(self.vocabulary, FairseqVocabulary) and vocab_size - self.vocab_size >= _PADDING:
            raise TokenizerError(
                f"{self.vocabulary.model.file.name} has {self.vocab_size} tokens, and config.json says vocab_size "
                f"{vocab_size}; the file is not of this checkpoint or not whole, get it again"
            )

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

    def __init__(self, model: SentencePieceModel, config: Config, added: Iterable[AddedToken] = ()) -> None:
        """config, added: what `read_side_files` found; they are checked."""
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
        if not model.file.has_settings:
            raise TokenizerError(
                f"{self._name}: the file ends after {len(model)} pieces, without the settings that follow the last; "
                "it was cut short, get it again"
            )
        self._tokens: dict[int, AddedToken] = {}
        for role, index in {**dict(zip(_ORDER, range(4), strict=True)), "mask_token": len(model) + 1}.items():
            entry = config.get(role) or _NAMES[role]
            token = AddedToken.from_json(entry, special=True)
            # of the mask alone, XLM-R's own tokenizer takes the space before it
            self._tokens[index] = replace(token, lstrip=True) if entry == token.content and index > 3 else token
        for token in added:
            self._check(token)
            if token.id is not None and (token.id not in self._tokens or "added_tokens_decoder" in config):
                self._tokens[token.id] = token
        self.special_ids = frozenset(i for i, token in self._tokens.items() if token.special)
        self.frame = self.BOS, self.EOS
        self._finder = AddedTokenFinder((token.content, i, token) for i, token in self._tokens.items())

    def _check(self, token: AddedToken) -> None:
        """The id that the small files give a token must be the one that the layout has there, or be new."""
        known = None if token.id is None else self._tokens.get(token.id)
        expected = known.content if known else None
        if known is None and token.id is not None and 4 <= token.id <= len(self.model):
            expected = self.model.pieces[token.id - 1]
        if expected not in (None, token.content):
            raise TokenizerError(
                f"{self._name}: the files beside it give {token.content!r} id {token.id}, where the XLM-R layout has "
                f"{expected!r}; get the files of one checkpoint"
            )

    def __len__(self) -> int:
        return max(self._tokens) + 1

    def _from_model(self, piece: int) -> int:
        return piece + 1 if piece else self.UNKNOWN

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of a text; what stands between special tokens is encoded by itself."""
        ids: list[int] = []
        for index, start, end in self._finder.split(text):
            if index is None:
                left = None if limit is None else limit - len(ids)
                ids += [piece + 1 if piece else 3 for piece in self.model.encode(text[start:end], left)]
            else:
                ids.append(index)
            if limit is not None and len(ids) >= limit:
                break
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

    def id_to_token(self, index: int) -> str:
        """The piece or special token with this id. TokenizerError where there is none."""
        token = self._tokens.get(index)
        if token is None and not 4 <= index <= len(self.model):
            raise unknown_id(index, len(self))
        return self.model.pieces[index - 1] if token is None else token.content

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids, special tokens by name. TokenizerError for one outside the vocabulary."""
        parts: list[str] = []
        run: list[int] = []
        at_start = True
        for index in ids:
            content, token = self.id_to_token(index), self._tokens.get(index)
            if token is None:
                run.append(index - 1)
            elif not (skip_special_tokens and token.special):
                parts += [self.model.decode(run, at_start=at_start), content]
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


def _content(entry: Any) -> str:
    """A token's text; the files write it as a string or as an object."""
    return AddedToken.from_json(entry, special=True).content
