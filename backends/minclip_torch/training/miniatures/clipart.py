"""Clip art of the Open Clip Art Library: some thousand things by hundreds of artists, all in the public domain.

    archive = PACKAGE.fetch(folder)                 Debian's package of the library's release 0.18
    for drawn in clip_art(archive, nouns): ...      the drawings that show a thing with an English name

Licence: public domain (Creative Commons Public Domain Dedication); Open Clip Art Library, openclipart.org.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from minclip_torch.training.miniatures.clipart_names import names
from minclip_torch.training.miniatures.debian import Package
from minclip_torch.training.miniatures.drawing import SVG, pixels, redraw
from minclip_torch.training.miniatures.packages import PicturesError
from minclip_torch.training.miniatures.things import Drawn
from minclip_torch.training.miniatures.wordnet import Nouns

ARTIST = "clip-art"
PACKAGE = Package(
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    Path("usr/share/openclipart/svg"),
)
LARGEST = 300_000  # bytes of a file
MOST = 1500  # elements of a drawing: more take seconds to rasterize
LOOK = 96  # pixels a side, at which a drawing is looked at
MARGIN = 0.04  # of the side, left around what is drawn
FULL = 0.85  # of the side: what fills less is cropped
FAINTEST = 0.004  # share of the pixels that a drawing must ink
DC, RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XLINK = "http://www.w3.org/1999/xlink"
UNITS = {"": 1.0, "px": 1.0, "pt": 1.25, "pc": 15.0, "mm": 3.5433, "cm": 35.433, "in": 90.0}  # in pixels, SVG 1.1
LENGTH = re.compile(r"\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*([a-z]*)\s*$", re.IGNORECASE)
NOT_DRAWN = ("}metadata", "}title", "}desc", "}script", "}foreignObject")
WIDTH = re.compile(r"stroke-width:\s*([^;]+)")
ElementTree.register_namespace("xlink", XLINK)


class UnfitError(Exception):
    """A drawing that is left out; the message is the reason."""


def clip_art(path: Path, nouns: Nouns, dropped: Counter[str] | None = None) -> Iterator[Drawn]:
    """The drawings that show a thing and have a name, sorted by their places.

    path: the folder with the drawings, or Debian's package; dropped: counts those left out, by reason. Raises
    PicturesError where `path` is neither, or holds no drawing.
    """
    with PACKAGE.opened(path) as folder:
        yield from _folder(folder, nouns, Counter() if dropped is None else dropped)


def _folder(folder: Path, nouns: Nouns, dropped: Counter[str]) -> Iterator[Drawn]:
    places = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.svg"))
    if not places:
        raise PicturesError(f"{folder} holds no SVG: name {PACKAGE.name}'s .deb, or its folder {PACKAGE.inside}")
    seen: set[str] = set()
    taken: Counter[str] = Counter()
    for place in places:
        try:
            drawn = _drawn(folder, place, nouns, seen)
        except UnfitError as reason:
            dropped[str(reason)] += 1
            continue
        taken[drawn.key] += 1
        key = drawn.key if taken[drawn.key] == 1 else f"{drawn.key}--{taken[drawn.key]}"
        yield Drawn(ARTIST, key, drawn.names, drawn.svg)


def _drawn(folder: Path, place: str, nouns: Nouns, seen: set[str]) -> Drawn:
    """One file as a drawing with its names. seen: digests of the drawings before. Raises UnfitError."""
    path = folder / place
    if path.is_symlink() or not path.is_file():
        raise UnfitError("another's copy")
    if path.stat().st_size > LARGEST:
        raise UnfitError("too large")
    root = read(path.read_bytes())
    title, keywords, creator = described(root)
    called = names(place, title, keywords, creator, nouns)
    if not called:
        raise UnfitError("no thing with a name")
    svg = cleaned(root)
    digest = hashlib.sha256(svg.encode()).hexdigest()
    if digest in seen:
        raise UnfitError("another's copy")
    seen.add(digest)
    return Drawn(ARTIST, re.sub(r"[^a-z0-9]+", "-", Path(place).stem.lower()).strip("-") or "drawing", called, svg)


def read(data: bytes) -> ElementTree.Element:
    """The document's root. Raises UnfitError where it is no SVG, or declares entities, which can grow without end."""
    if b"<!ENTITY" in data:
        raise UnfitError("declares entities")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise UnfitError("broken XML") from None
    if root.tag == "svg":  # old drawings declare no namespace
        for element in root.iter():
            element.tag = element.tag if element.tag.startswith("{") else f"{{{SVG}}}{element.tag}"
    if root.tag != f"{{{SVG}}}svg":
        raise UnfitError("no SVG")
    return root


def described(root: ElementTree.Element) -> tuple[str, list[str], str]:
    """The title, the keywords and the creator that a document's metadata gives; "" or none where it gives none."""
    parents = {child: parent for parent in root.iter() for child in parent}
    work = [e for e in root.iter(f"{DC}title") if not parents[e].tag.endswith("Agent")]  # agents have titles, too
    title = next((e.text.strip() for e in work if e.text and e.text.strip()), "")
    words = [li.text or "" for subject in root.iter(f"{DC}subject") for li in subject.iter(f"{RDF}li")]
    people = [e.text or "" for creator in root.iter(f"{DC}creator") for e in creator.iter(f"{DC}title")]
    return title, [word.strip() for word in words if word.strip()], " ".join(people)


def cleaned(root: ElementTree.Element) -> str:
    """The drawing alone: without metadata and editors' notes, in a square viewBox around what is drawn.

    Raises UnfitError where it cannot be drawn in every style, is blank, or holds a bitmap or styles by class.
    """
    elements = [element.tag for element in root.iter()]
    for tag, reason in (("image", "holds a bitmap"), ("style", "styled by class")):
        if f"{{{SVG}}}{tag}" in elements:
            raise UnfitError(reason)
    if len(elements) > MOST:
        raise UnfitError("too many elements")
    left, top, width, height = _box(root)
    _tidy(root)
    root.attrib.clear()
    side = max(width, height)
    square = (left - (side - width) / 2, top - (side - height) / 2, side)
    try:
        square = _cropped(root, *_cropped(root, *square))  # again, for what was a few pixels large
        svg = _text(root, *square)
        for style in ("ink", "line"):
            pixels(redraw(svg, style, 1), LOOK)
    except (ValueError, KeyError, RecursionError):
        raise UnfitError("cannot be drawn") from None
    return svg


def _box(root: ElementTree.Element) -> tuple[float, float, float, float]:
    """The document's viewBox, or the rectangle of its width and height."""
    try:
        if "viewBox" in root.attrib:
            left, top, width, height = (float(number) for number in re.split(r"[\s,]+", root.attrib["viewBox"].strip()))
        else:
            left, top, width, height = 0.0, 0.0, _length(root.attrib["width"]), _length(root.attrib["height"])
    except (KeyError, ValueError):
        raise UnfitError("has no size") from None
    if not (math.isfinite(left + top + width + height) and width > 0 and height > 0):
        raise UnfitError("has no size")
    return left, top, width, height


def _length(text: str) -> float:
    """A length in pixels. Raises ValueError for per cents and other units."""
    match = LENGTH.match(text)
    if match is None or match[2].lower() not in UNITS:
        raise ValueError(f"{text!r} is no length")
    return float(match[1]) * UNITS[match[2].lower()]


def _tidy(root: ElementTree.Element) -> None:
    """Remove what is not drawn, and give pens their width as a plain number."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not child.tag.startswith(f"{{{SVG}}}") or child.tag.endswith(NOT_DRAWN):
                parent.remove(child)
    for element in root.iter():
        for name in [name for name in element.attrib if name.startswith("{") and XLINK not in name]:
            del element.attrib[name]
        if "style" in element.attrib:
            element.attrib["style"] = WIDTH.sub(lambda m: f"stroke-width:{_pen(m[1])}", element.attrib["style"])
        if "stroke-width" in element.attrib:
            element.attrib["stroke-width"] = _pen(element.attrib["stroke-width"])


def _pen(text: str) -> str:
    try:
        return f"{_length(text):g}"
    except ValueError:
        return text


def _text(root: ElementTree.Element, left: float, top: float, side: float) -> str:
    root.attrib["viewBox"] = f"{left:.6g} {top:.6g} {side:.6g} {side:.6g}"
    return ElementTree.tostring(root, encoding="unicode")


def _cropped(root: ElementTree.Element, left: float, top: float, side: float) -> tuple[float, float, float]:
    """The square around what is drawn, where that fills little of the given one; UnfitError where it is blank."""
    alpha = np.asarray(pixels(_text(root, left, top, side), LOOK))[..., 3] > 16  # (LOOK, LOOK)
    if alpha.mean() < FAINTEST:
        raise UnfitError("is blank")
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    span = max(np.ptp(rows), np.ptp(columns)) + 1
    if span >= FULL * LOOK:
        return left, top, side
    x, y = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2  # the middle of what is drawn
    new = (1 + 2 * MARGIN) * span / LOOK * side
    return left + x / LOOK * side - new / 2, top + y / LOOK * side - new / 2, new
