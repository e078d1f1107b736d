"""Pictures beside their labels: a sheet of cards as an image, and thumbnails made of coloured half blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minclip.images.image import open_image

if TYPE_CHECKING:
    from minclip.commands.demo import Answer

THUMBNAIL = 18  # characters; each is a pixel wide and two pixels high

COLUMNS, SCALE = 4, 2  # cards in a row; pixels to a unit of the measures below
MARGIN, WIDTH, PICTURE, TITLE, LINE, GAP = 20, 200, 128, 22, 24, 4
INK, GREY, PAPER, TILE, TRACK = "#1f2937", "#6b7280", "#ffffff", "#f5f7fa", "#f1f3f6"
FIRST, OTHERS = "#a7d8c0", "#d5dce6"  # the bar of the best label, and of the others


class Fonts:
    """Fonts by preference, Pillow's own last. Raises ValueError for a file that is none."""

    def __init__(self, files: Sequence[str], size: int = 13 * SCALE) -> None:
        try:
            fonts = [ImageFont.truetype(file, size) for file in files]
        except OSError as error:
            raise ValueError(f"--font {', '.join(files)}: {error}; name a TrueType or OpenType file") from None
        self._fonts = [*fonts, cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))]
        self._unshaped = [font.font_variant(layout_engine=ImageFont.Layout.BASIC) for font in self._fonts]

    def can_draw(self, text: str) -> bool:
        """Whether there is a font that has the whole text."""
        return any(has_glyphs(font, text) for font in self._unshaped)

    def of(self, text: str) -> ImageFont.FreeTypeFont:
        """The first font that has the whole text, else the last one."""
        pairs = zip(self._fonts, self._unshaped, strict=True)
        return next((font for font, unshaped in pairs if has_glyphs(unshaped, text)), self._fonts[-1])


def has_glyphs(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether a font draws each character as something other than the box that stands for an unknown one."""
    unknown = bytes(font.getmask("\U0010ffff"))
    return all(bytes(font.getmask(char)) != unknown for char in set(text) if not char.isspace())


def sheet(answers: Sequence[Answer], fonts: Fonts) -> Image.Image:
    """The cards of all answers on white, `COLUMNS` in a row."""
    columns = min(COLUMNS, len(answers))
    rows = -(-len(answers) // columns)
    height = PICTURE + 2 * GAP + TITLE + LINE * max(len(answer.ranking) for answer in answers)
    size = (columns * (WIDTH + MARGIN) + MARGIN, rows * (height + MARGIN) + MARGIN)
    canvas = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    for index, answer in enumerate(answers):
        row, column = divmod(index, columns)
        draw_card(canvas, MARGIN + column * (WIDTH + MARGIN), MARGIN + row * (height + MARGIN), answer, fonts)
    return canvas.quantize(256, dither=Image.Dither.NONE)


def draw_card(canvas: Image.Image, x: int, y: int, answer: Answer, fonts: Fonts) -> None:
    """A tile with the picture, its title, and a bar with each label on it, from (x, y) down."""
    pen = ImageDraw.Draw(canvas)

    def box(left: float, top: float, right: float, bottom: float, colour: str, radius: int) -> None:
        corners = [round(value * SCALE) for value in (left, top, right, bottom)]
        pen.rounded_rectangle(corners, radius * SCALE, fill=colour)

    def write(left: float, middle: float, text: str, colour: str, anchor: str, room: int = WIDTH) -> None:
        font = fonts.of(text)
        while len(text) > 1 and font.getlength(text) > room * SCALE:
            text = text[:-2] + "…"
        pen.text((left * SCALE, middle * SCALE), text, fill=colour, font=font, anchor=anchor)

    box(x, y, x + WIDTH, y + PICTURE + 2 * GAP, TILE, 10)
    picture = open_image(answer.path).convert("RGBA")
    side = (PICTURE - 2 * GAP) * SCALE
    factor = side / max(picture.size)
    picture = picture.resize([max(1, round(length * factor)) for length in picture.size], Image.Resampling.LANCZOS)
    corner = ((x + WIDTH / 2) * SCALE - picture.width / 2, (y + PICTURE / 2 + GAP) * SCALE - picture.height / 2)
    canvas.paste(picture, (round(corner[0]), round(corner[1])), picture)
    y += PICTURE + 2 * GAP
    write(x + WIDTH / 2, y + TITLE / 2 + 1, answer.language or answer.path.name, GREY, "mm")
    y += TITLE
    for place, (label, score) in enumerate(answer.ranking):
        top, bottom = y + place * LINE, y + (place + 1) * LINE - 3
        box(x, top, x + WIDTH, bottom, TRACK, 4)
        if WIDTH * score >= 8:  # a narrower bar has no room for its round corners
            box(x, top, x + WIDTH * score, bottom, OTHERS if place else FIRST, 4)
        write(x + 8, (top + bottom) / 2, label, INK, "lm", room=WIDTH - 56)
        write(x + WIDTH - 8, (top + bottom) / 2, f"{score:.0%}", GREY if place else INK, "rm")


def thumbnail(path: Path) -> list[str]:
    """The picture as lines of half blocks, each character a pixel above another; transparent where the picture is."""
    picture = open_image(path).convert("RGBA")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    whole = Image.new("RGBA", (THUMBNAIL, THUMBNAIL))
    whole.paste(picture, ((THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2))
    pixels = np.asarray(whole)
    return [
        "".join(half_blocks(above, below) for above, below in zip(pixels[row], pixels[row + 1], strict=True))
        for row in range(0, THUMBNAIL, 2)
    ]


def half_blocks(above: np.ndarray, below: np.ndarray) -> str:
    """One character for two RGBA pixels, one above the other."""
    colour = [";".join(map(str, pixel[:3])) if pixel[3] >= 96 else "" for pixel in (above, below)]
    if colour[0] and colour[1]:
        return f"\x1b[38;2;{colour[0]};48;2;{colour[1]}m▀\x1b[0m"
    if colour[0] or colour[1]:
        return f"\x1b[38;2;{colour[0] or colour[1]}m{'▀' if colour[0] else '▄'}\x1b[0m"
    return " "
