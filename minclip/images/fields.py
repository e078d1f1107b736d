"""The checks of what a preprocessor_config.json holds: sizes, numbers per channel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from minclip.errors import ConfigError

LONGEST_EDGE = 1_000_000  # pixels; far beyond any model, and products of such edges are exact in floats


def edges(name: str, value: Any, single: tuple[str, ...]) -> dict[str, int]:
    """A size field in full. single: the keys that a single number stands for."""
    if isinstance(value, Integral):
        value = dict.fromkeys(single, value)
    forms = [("height", "width"), single]
    full = {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else {}
    if tuple(sorted(full, key=str)) not in forms:
        expected = " or ".join(" and ".join(keys) for keys in dict.fromkeys(forms))
        raise ConfigError(f"{name} is {shown(value)}, expected {expected}")
    if not all(
        isinstance(v, Integral) and not isinstance(v, bool) and 1 <= int(v) <= LONGEST_EDGE for v in full.values()
    ):
        raise ConfigError(f"{name} is {shown(value)}, expected whole numbers of pixels from 1 to {LONGEST_EDGE}")
    return {key: int(edge) for key, edge in full.items()}


def per_channel(name: str, value: Any, *, positive: bool = False) -> tuple[float, ...]:
    """Three numbers; a single one stands for all channels."""
    values = value if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise ConfigError(f"{name} has {len(values)} numbers, expected 3: red, green, blue")
    return tuple(number(name, v, positive=positive) for v in values)


def number(name: str, value: Any, *, positive: bool = False) -> float:
    """A finite number; a positive one must not vanish in float32, where it may be divided by."""
    expected = f"a finite number{' above 0' if positive else ''}"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ConfigError(f"{name} has {shown(value)}, expected {expected}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    limits = np.finfo(np.float32)
    if not abs(found) <= float(limits.max) or (positive and found < float(limits.tiny)):
        raise ConfigError(f"{name} has {shown(value)}, expected {expected} in the range of float32")
    return found


def shown(value: Any) -> str:
    """A value as an error shows it, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no whole number of thousands of digits
        return "a number too long to print"
    return text if len(text) <= 80 else f"{text[:60]}..."
