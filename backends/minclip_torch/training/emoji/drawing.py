"""One drawing in other hands: the shapes of an SVG kept, the way they are drawn changed.

What a picture shows does not depend on its gradients, its shading or whether its shapes are outlined. Redrawing a
vector picture says so to a model more plainly than any change to its pixels can:

    plain    as the artist drew it
    ink      flat colours, black outlines
    line     black outlines on white, dark shapes kept, and the colours that a shape inherits from its group

`pixels` rasterizes (resvg, the extra `train`).
"""

from __future__ import annotations

import io
import random
import re
from xml.etree import ElementTree

import numpy as np
from PIL import Image

STYLES = ("plain", "ink", "line")
SVG = "http://www.w3.org/2000/svg"
SHAPES = {f"{{{SVG}}}{name}" for name in ("path", "circle", "ellipse", "rect", "polygon", "polyline")}
LINK = "{http://www.w3.org/1999/xlink}href"
NAMES = {"black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0)}
ElementTree.register_namespace("", SVG)

Colour = tuple[int, int, int]


def document(body: str, left: float, top: float, width: float, height: float) -> str:
    """A whole SVG around the elements `body`, which lie in the given rectangle."""
    spaces = f'xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{left} {top} {width} {height}">{body}</svg>'


def pixels(svg: str, size: int) -> Image.Image:
    """The drawing as an RGBA image, size x size. Raises ValueError where it is no SVG, ImportError without resvg."""
    try:
        import resvg_py
    except ImportError:
        raise ImportError("resvg_py, which rasterizes drawings, is not installed: pip install minclip[train]") from None

    data = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def redraw(svg: str, style: str, seed: int) -> str:
    """The drawing in one of `STYLES`. `seed` decides the pen's width and how much of the shading stays.

    Raises ValueError for another style, or where `svg` is no SVG with a viewBox and plain numbers.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r} is not one of {', '.join(STYLES)}")
    if style == "plain":
        return svg
    rng = random.Random(seed)
    try:
        root = ElementTree.fromstring(svg)
        span = float(root.attrib["viewBox"].split()[2])
    except (ElementTree.ParseError, KeyError, IndexError) as error:
        raise ValueError(f"no SVG with a viewBox ({error!r})") from None
    gradients = _gradients(root)
    pen = rng.uniform(0.012, 0.034) * span
    shading = rng.uniform(0.0, 0.6)  # how much of what merely models a surface is kept
    for parent in root.iter():
        if not parent.tag.endswith(("defs", "clipPath", "mask")):
            parent.attrib.pop("filter", None)
            _redraw_shapes(parent, gradients, style, pen, shading, rng)
    return ElementTree.tostring(root, encoding="unicode")


def _redraw_shapes(
    parent: ElementTree.Element,
    gradients: dict[str, Colour | None],
    style: str,
    pen: float,
    shading: float,
    rng: random.Random,
) -> None:
    """Outline the shapes right below `parent`; take out some of those that are faint or like the one under them."""
    before: Colour | None = None
    for child in list(parent):
        if child.tag not in SHAPES:
            continue
        colour = _colour(child.attrib.get("fill"), gradients)
        faint = float(child.attrib.get("opacity", 1)) * float(child.attrib.get("fill-opacity", 1)) < 0.7
        near = before is not None and colour is not None and _distance(colour, before) < 45
        glow = colour is None and "stroke" not in child.attrib and child.attrib.get("fill", "").startswith("url")
        if glow or ((faint or near) and rng.random() > shading):
            parent.remove(child)
            continue
        before = colour or before
        _ink(child, colour, style, pen)


def _ink(shape: ElementTree.Element, colour: Colour | None, style: str, pen: float) -> None:
    """Outline `shape` in black and fill it flat."""
    fill = shape.attrib.get("fill")
    stroked = shape.attrib.get("stroke", "none") != "none"
    for name in ("filter", "opacity", "fill-opacity", "style"):
        shape.attrib.pop(name, None)
    if colour is not None:
        if style == "line":
            colour = (0, 0, 0) if max(colour) < 90 else (255, 255, 255)
        shape.attrib["fill"] = "#{:02x}{:02x}{:02x}".format(*colour)
    if stroked and (fill == "none" or colour is None):  # a line already: only its colour is at stake
        if style == "line":
            shape.attrib["stroke"] = "#000"
        return
    shape.attrib.update(
        {"stroke": "#000", "stroke-width": f"{pen:.3f}", "stroke-linejoin": "round", "stroke-linecap": "round"}
    )


def _colour(value: str | None, gradients: dict[str, Colour | None]) -> Colour | None:
    """A fill as red, green, blue; None where there is none, or where it is inherited."""
    if value is None or value in ("none", "currentColor"):
        return None
    if value.startswith("url("):
        return gradients.get(value[4:-1].strip("'\" #"))
    if value in NAMES:
        return NAMES[value]
    digits = value.removeprefix("#")
    if not re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", digits):
        return None
    if len(digits) == 3:
        digits = "".join(2 * d for d in digits)
    return (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16))


def _gradients(root: ElementTree.Element) -> dict[str, Colour | None]:
    """Each gradient's mean colour; None for one that is mostly transparent."""
    stops: dict[str, list[tuple[Colour, float]]] = {}
    links: dict[str, str] = {}
    for element in root.iter():
        if element.tag.endswith(("linearGradient", "radialGradient")):
            name = element.attrib.get("id", "")
            stops[name] = [
                (_colour(stop.attrib.get("stop-color"), {}) or (0, 0, 0), float(stop.attrib.get("stop-opacity", 1)))
                for stop in element
                if stop.tag.endswith("stop")
            ]
            links[name] = (element.attrib.get(LINK) or element.attrib.get("href", "")).lstrip("#")
    means: dict[str, Colour | None] = {}
    for name, own in stops.items():
        found = own or stops.get(links[name], [])
        weight = sum(opacity for _, opacity in found)
        if not found or weight / len(found) < 0.7:
            means[name] = None
            continue
        mean = np.sum([np.array(colour) * opacity for colour, opacity in found], axis=0) / weight
        means[name] = (int(mean[0]), int(mean[1]), int(mean[2]))
    return means


def _distance(a: Colour, b: Colour) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))
