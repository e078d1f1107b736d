"""The kit for backend authors: what a backend must agree with, and where it first does not.

`BackendConformance` is a pytest class to subclass (needs hypothesis and pytest); `first_divergence` compares two
loaded models step by step and needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minclip.testing.conformance import BackendConformance
    from minclip.testing.divergence import Divergence, first_divergence

__all__ = ["BackendConformance", "Divergence", "first_divergence"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the debugger works without hypothesis."""
    if name == "BackendConformance":
        from minclip.testing import conformance

        return conformance.BackendConformance
    if name in __all__:
        from minclip.testing import divergence

        return getattr(divergence, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
