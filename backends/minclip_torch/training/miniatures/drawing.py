"""Redraw an SVG in another style: the same shapes, drawn in another way.

What a drawing shows does not depend on its gradients, its shading, or whether its shapes are outlined. Redrawn vector
drawings teach a model that better than any change to pixels:

    plain    as the artist drew it
    ink      flat colours, black outlines
    line     black outlines on white, dark shapes in black

`pixels` rasterizes (resvg, the extra `train`).
"""

from __future__ import annotations

import copy
import io
import random
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageColor

STYLES = ("plain", "ink", "line")
SVG = "http://www.w3.org/2000/svg"
SHAPES = {f"{{{SVG}}}{name}" for name in ("path", "circle", "ellipse", "rect", "polygon", "polyline")}
HIDDEN = tuple(f"{{{SVG}}}{name}" for name in ("defs", "clipPath", "mask"))  # what is inside is not itself drawn
USE, SYMBOL = f"{{{SVG}}}use", f"{{{SVG}}}symbol"
LINK = "{http://www.w3.org/1999/xlink}href"
# What a shape takes from the groups around it where it has none of its own (SVG 1.1, appendix N).
INHERITED = ("fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "color", "visibility")
FAINT = 0.7  # opacity
NEAR = 45.0  # distance in RGB of two colours, one of which shades the other
DARK = 90  # the largest channel of what stays black in a line drawing
USES = 8  # how deep references may be nested
ElementTree.register_namespace("", SVG)

Colour = tuple[int, int, int]
Properties = dict[str, str]


def document(body: str, left: float, top: float, width: float, height: float) -> str:
    """A whole SVG around the elements `body`, which lie in the given rectangle."""
    spaces = f'xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{left} {top} {width} {height}">{body}</svg>'


def pixels(svg: str, size: int) -> Image.Image:
    """The drawing as an RGBA image, size x size. Raises ValueError where it is no SVG, ImportError without resvg."""
    image = fitted(svg, size)
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def fitted(svg: str, size: int) -> Image.Image:
    """The drawing as an RGBA image whose longer side is `size`; raises as `pixels` does."""
    try:
        import resvg_py
    except ImportError:
        raise ImportError("resvg_py, which rasterizes drawings, is not installed: pip install minclip[train]") from None

    data = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, dpi=96, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def redraw(svg: str, style: str, seed: int) -> str:
    """The drawing in one of `STYLES`. `seed` decides the pen's width and how much of the shading is kept.

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
    expand(root)
    pen, shading = rng.uniform(0.012, 0.034) * span, rng.uniform(0.0, 0.6)
    Redrawing(style, pen, shading, _gradients(root), rng).group(root, {})
    return ElementTree.tostring(root, encoding="unicode")


def expand(root: ElementTree.Element) -> None:
    """Put a copy of what it refers to in the place of every `use`, and attributes in that of `style`; same picture.

    Then every shape that is drawn lies below the groups that it inherits from. Raises ValueError where references are
    nested without end.
    """
    for element in root.iter():
        for declaration in element.attrib.pop("style", "").split(";"):
            name, colon, value = declaration.partition(":")
            if colon:
                element.attrib[name.strip()] = value.strip()
    targets = {element.attrib["id"]: element for element in copy.deepcopy(root).iter() if "id" in element.attrib}
    _expand(root, targets, USES)


def _expand(parent: ElementTree.Element, targets: dict[str, ElementTree.Element], depth: int) -> None:
    for i, child in enumerate(parent):
        if child.tag in HIDDEN:
            continue
        target = targets.get(_reference(child)) if child.tag == USE else None
        if target is not None:
            if not depth:
                raise ValueError("an SVG whose use elements are nested without end")
            parent[i] = child = _copied(child, target)
        _expand(child, targets, depth - (target is not None))


def _copied(use: ElementTree.Element, target: ElementTree.Element) -> ElementTree.Element:
    """A group with the attributes of a `use`, around a copy of what it refers to."""
    placed = {str(name): use.attrib.pop(name) for name in ("x", "y", "width", "height") if name in use.attrib}
    group = ElementTree.Element(f"{{{SVG}}}g", {k: v for k, v in use.attrib.items() if k not in ("id", "href", LINK)})
    if "x" in placed or "y" in placed:
        move = f"translate({placed.pop('x', '0')} {placed.pop('y', '0')})"
        group.attrib["transform"] = f"{group.get('transform', '')} {move}".strip()
    inside = copy.deepcopy(target)
    inside.attrib.pop("id")
    if inside.tag == SYMBOL:
        inside.tag = f"{{{SVG}}}svg"
        inside.attrib.update(placed)
    group.append(inside)
    return group


@dataclass(frozen=True)
class Redrawing:
    """How one drawing is redrawn. pen: width of the outlines; shading: how much of what only models a surface stays."""

    style: str
    pen: float
    shading: float
    gradients: dict[str, Colour | None]
    rng: random.Random

    def group(self, parent: ElementTree.Element, inherited: Properties) -> None:
        """Redraw the shapes right below `parent`, then those of its groups; remove some of the shading."""
        parent.attrib.pop("filter", None)
        inherited = _cascaded(parent, inherited)
        before: Colour | None = None
        for shape in [child for child in parent if child.tag in SHAPES]:
            found = _cascaded(shape, inherited)
            if _is_invisible(found):
                continue
            colour = self.colour(found)
            own = (
                colour if "fill" in shape.attrib else None
            )  # shapes that share their group's fill are parts of one thing
            near = own is not None and before is not None and _distance(own, before) < NEAR
            if self.is_shading(found, colour, near):
                parent.remove(shape)
                continue
            before = own or before
            self.ink(shape, found, colour)
        for child in parent:
            if child.tag not in SHAPES and child.tag not in HIDDEN:
                self.group(child, inherited)

    def colour(self, found: Properties) -> Colour | None:
        """A shape's fill; None where there is none, or none that can be given by one colour."""
        fill = found.get("fill", "black")
        if fill.startswith("url("):
            return self.gradients.get(fill[4:-1].strip("'\" #"))
        return _colour(found.get("color", "black") if fill == "currentColor" else fill)

    def is_shading(self, found: Properties, colour: Colour | None, near: bool) -> bool:
        """Whether to leave a shape out: all glows, and at random what is faint or near in colour to what it lies on."""
        faint = _opacity(found, "fill-opacity") < FAINT
        glow = colour is None and found.get("stroke") is None and found.get("fill", "").startswith("url")
        return glow or ((faint or near) and self.rng.random() > self.shading)

    def ink(self, shape: ElementTree.Element, found: Properties, colour: Colour | None) -> None:
        """Outline a shape in black and fill it flat."""
        for name in ("filter", "opacity", "fill-opacity"):
            shape.attrib.pop(name, None)
        if "fill-opacity" in found:
            shape.attrib["fill-opacity"] = "1"
        if colour is not None:
            if self.style == "line":
                colour = (0, 0, 0) if max(colour) < DARK else (255, 255, 255)
            shape.attrib["fill"] = "#{:02x}{:02x}{:02x}".format(*colour)
        elif found.get("fill", "").startswith("url"):
            shape.attrib["fill"] = "none"  # a glow with an outline
        if colour is None and found.get("stroke", "none") != "none":  # a line already: only its colour is at stake
            if self.style == "line":
                shape.attrib["stroke"] = "#000"
            return
        if "stroke-opacity" in found:
            shape.attrib["stroke-opacity"] = "1"
        outline = {"stroke": "#000", "stroke-width": f"{self.pen:.3f}"}
        shape.attrib.update({**outline, "stroke-linejoin": "round", "stroke-linecap": "round"})


def _cascaded(element: ElementTree.Element, inherited: Properties) -> Properties:
    """The properties of an element: its own attributes, and what it inherits."""
    own = {name: value for name, value in element.attrib.items() if value != "inherit"}
    return {**{name: value for name, value in inherited.items() if name in INHERITED}, **own}


def _is_invisible(found: Properties) -> bool:
    """Whether a shape shows nothing: a frame that keeps a drawing's place, for one."""
    if found.get("display") == "none" or found.get("visibility", "visible") != "visible":
        return True
    filled = found.get("fill") not in ("none", "transparent") and _opacity(found, "fill-opacity") > 0
    stroked = found.get("stroke", "none") not in ("none", "transparent") and _opacity(found, "stroke-opacity") > 0
    return not filled and not (stroked and float(found.get("stroke-width", "1").removesuffix("px")) > 0)


def _opacity(found: Properties, kind: str) -> float:
    return float(found.get("opacity", 1)) * float(found.get(kind, 1))


def _colour(value: str) -> Colour | None:
    """Red, green and blue of a colour as SVG writes it; None for anything else."""
    try:
        red, green, blue = ImageColor.getrgb(value)[:3]
    except ValueError:
        return None
    return red, green, blue


def _reference(element: ElementTree.Element) -> str:
    """The id that an element refers to."""
    return element.attrib.get("href", element.attrib.get(LINK, "")).lstrip("#")


def _gradients(root: ElementTree.Element) -> dict[str, Colour | None]:
    """Each gradient's mean colour; None for one that is mostly transparent."""
    stops: dict[str, list[tuple[Colour, float]]] = {}
    links: dict[str, str] = {}
    for element in root.iter():
        if element.tag.endswith(("linearGradient", "radialGradient")):
            name = element.attrib.get("id", "")
            stops[name] = [
                (
                    _colour(stop.attrib.get("stop-color", "black")) or (0, 0, 0),
                    float(stop.attrib.get("stop-opacity", 1)),
                )
                for stop in element
                if stop.tag.endswith("stop")
            ]
            links[name] = _reference(element)
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
