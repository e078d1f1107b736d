"""What is searched for: a text, a picture, or a sum of both with weights, as one unit vector.

A sum is written as a list: `["2:golden retriever", "+", "pool.jpg", "-", "fruit"]`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minclip.contrastive import unit
from minclip.errors import SearchError
from minclip.images import ImageSource, image_suffixes
from minclip.model import Model

Query: TypeAlias = str | ImageSource | Sequence[str | ImageSource]
WEIGHTED = re.compile(r"(\d+(?:\.\d+)?|\.\d+):(?=.)(.*)", re.DOTALL)
LOCATED = re.compile(r"(~|\.{0,2})[/\\]|https?://|[A-Za-z]:[/\\]")  # how a path or a URL begins, of text nobody would


class Term(NamedTuple):
    """A text or a picture, and how often it counts; negative where it is subtracted."""

    weight: float
    content: Any
    is_picture: bool


def terms(query: Query) -> list[Term]:
    """The terms of a query. Raises SearchError for an empty one, and for a sign without a term beside it.

    A word is a picture where it begins as a path or URL does or ends as picture files do; what lies in the folder does
    not change what it means. Words without a sign between them are one text. `2:` before a term is its weight.
    """
    words = list(query) if isinstance(query, list | tuple) else [query]
    groups: list[tuple[int, list[Any]]] = [(1, [])]
    for word in words:
        if isinstance(word, str) and word in ("+", "-"):
            groups.append((1 if word == "+" else -1, []))
        else:
            groups[-1][1].append(word)
    if not groups[0][1] and len(groups) > 1:  # it begins with a sign
        del groups[0]
    return [_term(sign, parts, query) for sign, parts in groups]


def _term(sign: int, parts: list[Any], query: Query) -> Term:
    weight, content = 1.0, parts[0] if len(parts) == 1 else None
    if all(isinstance(part, str) for part in parts):
        content = " ".join(parts).strip()
        if match := WEIGHTED.fullmatch(content):
            weight, content = float(match[1]), match[2].strip()
    if content is None:
        raise SearchError(f"query {query!r:.200} has a picture without a sign beside it; put '+' or '-' between terms")
    if isinstance(content, str) and not content:
        raise SearchError(f"query {query!r:.200} has an empty term; write a text or name a picture there")
    is_picture = not isinstance(content, str) or names_picture(content)
    if is_picture and isinstance(content, str):
        content = os.path.expanduser(content)
    return Term(sign * weight, content, is_picture)


def names_picture(word: str) -> bool:
    ending = PurePath(word).suffix.lower()  # of most texts none: asking Pillow for its formats would take a moment
    return bool(LOCATED.match(word)) or (ending != "" and ending in image_suffixes())


def query_vector(query: Query, model: Model, *, draft: bool = False) -> np.ndarray:
    """The unit vector (p,) of the sum of the terms' unit vectors, each times its weight.

    draft: as for `Model.encode_image`; as the index was made, so that a picture in it finds itself.
    Raises SearchError where the terms cancel out; ImageError for a picture that cannot be read; CheckpointError for a
    text where the model has no text tower.
    """
    total = np.zeros(model.config.projection_dim)
    for weight, content, is_picture in terms(query):
        embed = model.encode_image([content], draft=draft) if is_picture else model.encode_text([content])
        total += weight * embed[0]
    if not np.linalg.norm(total) > 1e-4:
        raise SearchError(f"the terms of query {query!r:.200} cancel out; weigh them differently")
    return unit(total[None].astype(np.float32))[0]
