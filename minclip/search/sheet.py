"""A contact sheet: the pictures found, on one HTML page that needs no network and no file beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from minclip.errors import ImageError
from minclip.images import open_image, to_rgb
from minclip.pipeline import ahead, default_workers
from minclip.search.index import Match
from minclip.search.query import Term
from minclip.search.store import printable

LARGE, SMALL = 480, 96  # pixels of the longer edge: of a picture found, of one in the query
STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --ink: #1c1d21; --soft: #6d7078; --line: #e4e4e0;
  --plus: #1f7a5c; --minus: #b4483c }
@media (prefers-color-scheme: dark) { :root { --paper: #131417; --card: #1d1f24; --ink: #ecedf0; --soft: #9a9da6;
  --line: #2c2f36; --plus: #63c7a3; --minus: #e58a7d } }
* { box-sizing: border-box }
body { margin: 0; padding: 40px clamp(16px, 4vw, 64px) 56px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 10px; margin-bottom: 28px }
header p { margin: 0; flex-basis: 100%; color: var(--soft) }
.term { display: inline-flex; align-items: center; gap: 10px; font-size: 26px; font-weight: 600 }
.term img { height: 52px; border-radius: 8px; display: block }
.sign { color: var(--plus); font-weight: 500 } .minus .sign { color: var(--minus) }
.weight { font-size: 15px; color: var(--soft); font-weight: 500 }
main { display: flex; flex-wrap: wrap; gap: 14px }
main::after { content: ""; flex: 1e9 1 0 }
a { flex: var(--ratio) 1 calc(var(--ratio) * 210px); max-width: calc(var(--ratio) * 330px); color: inherit;
  text-decoration: none; background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  transition: transform .12s, box-shadow .12s }
a:hover, a:focus-visible { transform: translateY(-2px); box-shadow: 0 6px 22px #0003 }
a > img, .gone { display: block; width: 100%; aspect-ratio: var(--ratio); object-fit: cover; background: var(--line) }
.gone { display: grid; place-items: center; color: var(--soft); font-size: 13px }
.bar { display: block; height: 3px; background: var(--line) }
.bar i { display: block; height: 100%; background: var(--plus) }
.line { display: flex; gap: 8px; padding: 8px 12px 9px; font-size: 13px; min-width: 0 }
.line b { font-weight: 500; flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.line span { color: var(--soft); font-variant-numeric: tabular-nums }
"""


def contact_sheet(title: str, query: Sequence[Term], found: Sequence[Match], note: str) -> str:
    """The page. note: a line below the query, such as how many pictures were searched. Scores are cosines."""
    terms = "".join(show_term(term, first=not place) for place, term in enumerate(query))
    best, least = (found[0].score, min(0.0, found[-1].score)) if found else (1.0, 0.0)
    numbered = [(place, match, (match.score - least) / max(best - least, 1e-9)) for place, match in enumerate(found, 1)]
    cards = ahead(lambda one: card(*one), numbered, workers=default_workers(), depth=32)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(printable(title))}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>\n'
        f"<header>{terms}<p>{escape(printable(note))}</p></header>\n<main>\n{''.join(cards)}</main></html>\n"
    )


def card(place: int, match: Match, share: float) -> str:
    """A picture with its bar, name and score; it links to the file."""
    path = Path(match.path)
    try:
        data, width, height = thumbnail(match.path, LARGE)
        picture = f'<img src="{data}" alt="" loading="lazy">'
    except ImageError:
        (width, height), picture = (1, 1), '<span class="gone">no longer there</span>'
    ratio = min(max(width / height, 0.5), 2.5)
    name = escape(printable(path.name))
    return (
        f'<a href="{escape(path.as_uri())}" title="{escape(printable(match.path))}" '
        f'style="--ratio:{ratio:.3f}">{picture}<span class="bar"><i style="width:{share:.0%}"></i></span>'
        f'<span class="line"><span>{place}</span><b>{name}</b><span>{match.score:.3f}</span></span></a>\n'
    )


def show_term(term: Term, *, first: bool) -> str:
    """A term of the query with its sign and weight."""
    weight = f'<span class="weight">{abs(term.weight):g} ×</span>' if abs(term.weight) != 1 else ""
    sign = "" if first and term.weight > 0 else f'<span class="sign">{"−" if term.weight < 0 else "+"}</span>'
    if term.is_picture:
        name = escape(printable(Path(str(term.content)).name))
        content = f'<img src="{thumbnail(term.content, SMALL)[0]}" alt="{name}">'
    else:
        content = f"<span>{escape(printable(term.content))}</span>"
    return f'<span class="term{" minus" if term.weight < 0 else ""}">{sign}{weight}{content}</span>'


def thumbnail(source: Any, edge: int) -> tuple[str, int, int]:
    """A picture made small: a data URI of a JPEG, its width and height. Raises ImageError where it cannot be read."""
    picture = to_rgb(open_image(source))
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", *picture.size
