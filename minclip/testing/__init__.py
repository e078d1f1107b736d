"""The kit for backend authors: what a backend must agree with, and where it first does not.

`BackendConformance` is a pytest class to subclass; the strategies draw random models and inputs for further tests of
your own. Both need hypothesis. `first_divergence` compares two loaded models step by step and does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minclip.testing.conformance import BackendConformance
    from minclip.testing.divergence import STEP_TOLERANCES, Comparison, Divergence, compare, first_divergence
    from minclip.testing.strategies import (
        Case,
        RandomModel,
        cases,
        classifiers,
        configs,
        image_inputs,
        inputs,
        models,
        single_towers,
        text_inputs,
        weights,
    )
    from minclip.testing.truth import TOLERANCES

__all__ = [
    "STEP_TOLERANCES", "TOLERANCES", "BackendConformance", "Case", "Comparison", "Divergence", "RandomModel", "cases",
    "classifiers", "compare", "configs", "first_divergence", "image_inputs", "inputs", "models", "single_towers",
    "text_inputs", "weights",
]  # fmt: skip

HOMES = {"BackendConformance": "conformance", "TOLERANCES": "truth"} | dict.fromkeys(
    ("STEP_TOLERANCES", "Comparison", "Divergence", "compare", "first_divergence"), "divergence"
)


def __getattr__(name: str) -> Any:
    """Import each name from its module on first use, so that the debugger works without hypothesis."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES.get(name, 'strategies')}"), name)
