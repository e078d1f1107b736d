"""Labels that were encoded once: given wherever labels are taken, and kept in a file that remembers its model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np

from minclip.errors import LabelSetError
from minclip.files import one_line, open_regular, replacing
from minclip.ranking import checked_labels, checked_templates

if TYPE_CHECKING:  # a model makes its label sets
    from minclip.model import Model

ARRAYS = ("embeds", "fingerprint", "labels", "model", "templates")  # of the file, an .npz archive
TEXTS = {"labels": 1, "templates": 1, "model": 0, "fingerprint": 0}  # which of them hold text, and their dimensions
ROUNDING = 1e-3  # of a unit vector's length


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels and their vectors. Get one with `Model.label_set` or `LabelSet.open`.

    labels: n texts. templates: what they were put into. embeds: float32 (n, p), unit vectors, read-only. model: where
    the model was loaded from that made them. fingerprint: which one that is, see `minclip.fingerprint`; the tokenizer
    does not enter.
    """

    labels: Sequence[str]
    templates: Sequence[str]
    embeds: np.ndarray
    model: str
    fingerprint: str

    def __post_init__(self) -> None:
        """Copies what was given, so that nobody else can change it. Raises ValueError where it makes no set."""
        object.__setattr__(self, "labels", tuple(checked_labels(self.labels)))
        object.__setattr__(self, "templates", tuple(checked_templates(self.templates)))
        embeds = np.array(self.embeds, np.float32)
        if embeds.ndim != 2 or len(embeds) != len(self.labels):
            raise LabelSetError(f"embeds have shape {embeds.shape}, and there are {len(self.labels)} labels")
        with np.errstate(over="ignore", invalid="ignore"):
            if not (np.abs((embeds * embeds).sum(axis=1) - 1) < ROUNDING).all():  # of NaN, too, this is false
                raise LabelSetError("embeds are not all of unit length")
        embeds.flags.writeable = False
        object.__setattr__(self, "embeds", embeds)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<minclip.LabelSet: {len(self)} labels, {len(self.templates)} templates, of {self.model}>"

    def check(self, model: Model, template: str | Sequence[str] | None) -> None:
        """Raises ValueError for a template beside the set's own, LabelSetError where another model made the set."""
        if template is not None:
            raise ValueError("template cannot be given with a label set, which has its own; leave it out")
        if model.fingerprint != self.fingerprint or self.embeds.shape[1] != model.config.projection_dim:
            raise LabelSetError(
                f"the label set was made with {self.model} (fingerprint {self.fingerprint[:12]}) and {model.source} is "
                "another model; use that one, or encode the labels anew with this one"
            )

    # --- the file --------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | Path) -> LabelSet:
        """The set that `save` wrote to a file. Raises LabelSetError, naming the file, where it is no whole one."""
        try:
            with open_regular(Path(path)) as file, warnings.catch_warnings(action="ignore"):  # NumPy's, of old headers
                return _read(file)
        except OSError as error:
            raise LabelSetError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
        except Exception as error:  # the readers of zip archives and arrays raise all kinds
            raise LabelSetError(
                f"{path} is not a whole label set ({one_line(error):.200}); make it again with minclip labels"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the set to a file, whole or not at all: an .npz archive of `ARRAYS`, whatever its name.

        Raises LabelSetError where that cannot be written.
        """
        try:
            with replacing(Path(path)) as file:
                self.write(file)
        except OSError as error:
            raise LabelSetError(f"{path} cannot be written: {error.strerror or one_line(error)}") from None

    def write(self, file: BinaryIO) -> None:
        """The file's content. Raises LabelSetError for a text that NumPy's arrays cannot hold."""
        for text in (*self.labels, *self.templates):
            if text.endswith("\0"):
                raise LabelSetError(f"{text!r:.80} ends in a NUL character, which a file of labels cannot hold")
        np.savez(
            file,
            embeds=self.embeds,
            labels=np.array(self.labels),
            templates=np.array(self.templates),
            model=np.array(self.model),
            fingerprint=np.array(self.fingerprint),
        )


Labels: TypeAlias = Sequence[str] | LabelSet
"""What is taken wherever labels are ranked."""


def _read(file: BinaryIO) -> LabelSet:
    """Raises ValueError for what no set has; zipfile and NumPy raise all kinds of errors."""
    import zipfile  # only those who have a set wait for it

    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != [f"{name}.npy" for name in ARRAYS]:
            raise ValueError(f"it must hold the arrays {', '.join(ARRAYS)} and nothing else")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):  # which may hide gigabytes
            raise ValueError("it is compressed")
        arrays = {name: _array(archive.read(f"{name}.npy")) for name in ARRAYS}
    texts = {name: _texts(name, arrays[name], ndim) for name, ndim in TEXTS.items()}
    (model,), (fingerprint,) = texts["model"], texts["fingerprint"]
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise ValueError("fingerprint is none")
    if arrays["embeds"].dtype != np.float32:
        raise ValueError(f"embeds are {arrays['embeds'].dtype}, expected float32")
    return LabelSet(texts["labels"], texts["templates"], arrays["embeds"], model, fingerprint)


def _array(data: bytes) -> np.ndarray:
    """The array that an .npy file's bytes are, no more and no less."""
    from io import BytesIO

    stream = BytesIO(data)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1) or not array.nbytes:
        raise ValueError("an array's size is not what its header says")
    return array


def _texts(name: str, array: np.ndarray, ndim: int) -> list[str]:
    if array.dtype.kind != "U" or array.ndim != ndim:
        raise ValueError(f"{name} are {array.dtype} of shape {array.shape}")
    return [str(text) for text in array.reshape(-1)]
