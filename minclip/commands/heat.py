"""Explanations as one picture: what the model saw, and beside it a heat map a label with its tokens shaded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from minclip.commands.sheet import GREY, INK, PAPER, TILE, Fonts
from minclip.explanations import Explanation, coloured

COLUMNS, SCALE = 4, 2  # cards in a row; pixels to a unit of the measures below
MARGIN, PICTURE, PADDING, LINE, BAR = 24, 232, 12, 22, 6
WIDTH = PICTURE + 2 * PADDING
FOOT = 96  # below a picture: its title, the tokens on up to two lines
TOKEN_LINES = 2


def heat_sheet(found: Sequence[Explanation], title: str, against: str | None, fonts: Fonts) -> Image.Image:
    """The cards of a picture and of its explanations on white, `COLUMNS` in a row. title: the picture's name."""
    columns = min(COLUMNS, len(found) + 1)
    rows = -(-(len(found) + 1) // columns)
    height = PADDING + PICTURE + FOOT
    size = (columns * (WIDTH + MARGIN) + MARGIN, rows * (height + MARGIN) + MARGIN)
    canvas = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    for index in range(len(found) + 1):
        row, column = divmod(index, columns)
        card = Card(canvas, MARGIN + column * (WIDTH + MARGIN), MARGIN + row * (height + MARGIN), height, fonts)
        if index == 0:
            card.show(found[0].picture)
            card.write(PADDING, LINE / 2, title, INK, "lm", WIDTH - 2 * PADDING)
            card.legend()
        else:
            card.explain(found[index - 1], against)
    return canvas


class Card:
    """One tile of the sheet, with its corner at (x, y), that draws in units below its picture."""

    def __init__(self, canvas: Image.Image, x: int, y: int, height: int, fonts: Fonts) -> None:
        self.canvas, self.x, self.y, self.fonts = canvas, x, y, fonts
        self.pen = ImageDraw.Draw(canvas)
        self.foot = y + PADDING + PICTURE + 10  # where titles begin
        self.box(x, y, x + WIDTH, y + height, TILE, 12)

    def show(self, picture: Image.Image) -> None:
        """The picture at the card's top, its corners rounded."""
        side = PICTURE * SCALE
        scale = side / max(picture.size)
        picture = picture.resize([max(1, round(edge * scale)) for edge in picture.size], Image.Resampling.LANCZOS)
        shape = Image.new("L", picture.size)
        ImageDraw.Draw(shape).rounded_rectangle((0, 0, picture.width - 1, picture.height - 1), 6 * SCALE, fill=255)
        left = (self.x + PADDING) * SCALE + (side - picture.width) // 2
        top = (self.y + PADDING) * SCALE + (side - picture.height) // 2
        self.canvas.paste(picture, (left, top), shape)

    def explain(self, one: Explanation, against: str | None) -> None:
        """The heat map; the score; the tokens, each on the colour of its share."""
        self.show(one.overlay(PICTURE * SCALE))
        score = f"cosine {one.score:.3f}" if against is None else f"{one.score:+.3f}"
        title = one.text if against is None else f"{one.text}, not {against}"
        self.write(WIDTH - PADDING, LINE / 2, score, GREY, "rm")
        self.write(PADDING, LINE / 2, title, INK, "lm", WIDTH - 2 * PADDING - (100 if against is None else 52))
        most = max((share for _, share in one.tokens), default=0.0) or 1.0
        left, line = float(PADDING), 0
        for index, (characters, share) in enumerate(one.tokens):
            last_line = line == TOKEN_LINES - 1
            shown = characters.strip()
            space = 6 if characters[:1].isspace() and index else 0
            width = self.fonts.of(shown).getlength(shown) / SCALE + 10
            more = 18 if last_line and index < len(one.tokens) - 1 else 0
            if left + space + width + more > WIDTH - PADDING and left > PADDING:
                if last_line:
                    self.write(left + 4, 34 + line * 26, "…", GREY, "lm")
                    return
                left, line, space = float(PADDING), line + 1, 0
            left += space
            level = share / most
            colour = "#" + bytes(coloured(np.array(level))).hex()
            middle = 34 + line * 26
            right = min(left + width, WIDTH - PADDING)
            self.box(self.x + left, self.foot + middle - 10, self.x + right, self.foot + middle + 11, colour, 4)
            self.write(left + 5, middle, shown, PAPER if level > 0.5 else INK, "lm", right - left - 8)
            left = right + 1.5
        if one.truncated:
            self.write(left + 4, 34 + line * 26, "…", GREY, "lm")

    def legend(self) -> None:
        """The colours from little to much."""
        levels = np.tile(np.linspace(0, 1, 256), (BAR * SCALE, 1))
        strip = Image.fromarray(coloured(levels)).resize(((WIDTH - 2 * PADDING) * SCALE, BAR * SCALE))
        shape = Image.new("L", strip.size)
        corners = (0, 0, strip.width - 1, strip.height - 1)
        ImageDraw.Draw(shape).rounded_rectangle(corners, BAR * SCALE // 2, fill=255)
        self.canvas.paste(strip, (round((self.x + PADDING) * SCALE), round((self.foot + 36) * SCALE)), shape)
        self.write(PADDING, 56, "no relevance", GREY, "lm")
        self.write(WIDTH - PADDING, 56, "most", GREY, "rm")

    def box(self, left: float, top: float, right: float, bottom: float, colour: str, radius: int) -> None:
        """A box with round corners, in units of the canvas."""
        corners = [round(value * SCALE) for value in (left, top, right, bottom)]
        self.pen.rounded_rectangle(corners, radius * SCALE, fill=colour)

    def write(self, left: float, middle: float, text: str, colour: str, anchor: str, room: float = WIDTH) -> None:
        """One line of text, in units from the card's left and from its foot, cut where it has no room."""
        font = self.fonts.of(text)
        while len(text) > 1 and font.getlength(text) > room * SCALE:
            text = text[:-2] + "…"
        place = ((self.x + left) * SCALE, (self.foot + middle) * SCALE)
        self.pen.text(place, text, fill=colour, font=font, anchor=anchor)
