"""What the training set is made of: drawings of things as their sources give them, and the things themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Line = dict[str, Any]  # of a data set's file (see `minclip_torch.training.entries`)
Annotations: TypeAlias = Mapping[str, Mapping[str, list[str]]]  # CLDR's: emoji -> {"tts": [name], "default": keywords}


@dataclass(frozen=True)
class Drawn:
    """A drawing by an artist.

    artist: the set or collection it is from, fit for a folder's name; key: its name within that set, unique there;
    names: the thing's name, then keywords, English, lower case, plain words; svg: a whole SVG document.
    """

    artist: str
    key: str
    names: tuple[str, ...]
    svg: str


@dataclass
class Concept:
    """One thing. An emoji of the Unicode standard has code points ("1F436") and a category, another thing neither."""

    code: str
    emoji: str
    category: str
    captions: dict[str, list[str]]  # language -> the name, then keywords
    drawings: dict[str, str] = field(default_factory=dict)  # artist -> SVG; of an emoji
    further: list[Drawn] = field(default_factory=list)  # trained on, and no part of the evaluation
    weight: float = 1.0
