"""What a source of drawings gives: one drawing of one thing, and what the thing is called."""

from __future__ import annotations

from dataclasses import dataclass


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
