"""How the claims of the kit are tried, and how a failing one is reported. Part of `minclip.testing`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from minclip.backend import Backend
from minclip.families import FAMILIES
from minclip.testing.strategies import Case, RandomModel, cases, inputs
from minclip.testing.truth import TOLERANCES, Built, part

WIDTHS = {"float64": 8, "float32": 8, "bfloat16": 32, "float16": 32}
"""The least width of towers and embeddings by dtype. The tolerances are those of real models, where a unit vector has
hundreds of channels. Measured with the torch backend, 250 to 800 random models each: bfloat16 is off by at most 0.037
at widths 8 to 16, 0.013 at 16 to 32 and 0.0093 at 32 to 64; float16 by a tenth of that. Sharp attention and tiny
variances make it no worse, so that half precision is tried with the same weights as float32."""


def needs(*towers: str) -> Callable[[Any], Any]:
    """A claim about these towers; it is skipped for a backend without one of them."""

    def mark(claim: Any) -> Any:
        @wraps(claim)
        def tried(self: Claims, *arguments: Any, **named: Any) -> None:
            __tracebackhide__ = True
            if missing := sorted(set(towers) - set(self.towers)):
                raise SkipTest(f"the backend has no {' and no '.join(missing)} tower")
            claim(self, *arguments, **named)

        tried.needs = towers  # type: ignore[attr-defined]
        return tried

    return mark


class Claims:
    """What a subclass sets, and how its methods called test_... are run.

    device: passed to `build`. dtypes: which to prove; the first is the one that most claims are tried in. options:
    further arguments of `build`. families, towers: those that the backend has; the claims touch no others, and None is
    every family. examples: random models per claim (and family, and dtype). shrink: whether hypothesis looks for a
    smaller failing case. Override `native` where the backend has arrays of its own.

    The methods are plain functions that make their hypothesis property when they are called, so that any number of
    subclasses share nothing.
    """

    backend: ClassVar[Backend]
    device: ClassVar[str | None] = None
    dtypes: ClassVar[Sequence[str]] = ("float32",)
    options: ClassVar[dict[str, Any]] = {}
    families: ClassVar[Sequence[str] | None] = None
    towers: ClassVar[Sequence[str]] = ("text", "vision")
    examples: ClassVar[int] = 25
    shrink: ClassVar[bool] = True

    def native(self, array: np.ndarray) -> Any:
        """An array of NumPy's as the backend's own."""
        return array

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """pytest's hook: a claim about a family or a dtype is a test for each."""
        for name, values in self._parameters().items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    def claims(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Each claim, for each family and dtype it is about, with the function that tries it."""
        for name in (name for name in dir(self) if name.startswith("test_")):
            claim = getattr(self, name)
            if not set(getattr(claim, "needs", ())) <= set(self.towers):
                continue
            calls: list[tuple[str, dict[str, str]]] = [(name, {})]
            for parameter in inspect.signature(claim).parameters:
                values = self._parameters()[parameter]
                calls = [(f"{label}[{value}]", {**call, parameter: value}) for label, call in calls for value in values]
            yield from ((label, partial(claim, **call)) for label, call in calls)

    def _parameters(self) -> dict[str, Sequence[str]]:
        chosen = sorted(FAMILIES if self.families is None else self.families)
        causal = [name for name in chosen if FAMILIES[name].causal and FAMILIES[name].ends is not None]
        return {"family": chosen, "causal_family": causal, "dtype": self.dtypes}

    def cases(self, config: st.SearchStrategy[Any], of: Any = inputs, **limits: Any) -> st.SearchStrategy[Case]:
        """Random cases (see `strategies.cases`) whose inputs are those of the backend's towers."""

        def restricted(case: Case) -> Case:
            return Case(case.model, {n: x for tower in self.towers for n, x in part(tower, case.inputs).items()})

        return cases(config, of, **limits).map(restricted)

    def for_all(self, strategy: st.SearchStrategy[Any], claim: Callable[[Any], None]) -> None:
        """Try a claim on random examples. Raises a short AssertionError for the smallest one that fails."""
        __tracebackhide__ = True
        phases = [phase for phase in Phase if phase is not Phase.explain and (self.shrink or phase is not Phase.shrink)]
        slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        limits = settings(
            max_examples=self.examples,
            deadline=None,
            phases=phases,
            suppress_health_check=slow,
            report_multiple_bugs=False,
        )
        failed: list[tuple[Exception, Any]] = []  # the last one is the smallest

        def watched(drawn: Any) -> None:
            try:
                claim(drawn)
            except Exception as error:
                failed[:] = [(error, drawn)]
                raise

        try:
            limits(given(strategy)(watched))()
        except Exception as error:
            found, drawn = failed[0] if failed else (error, None)
            flaky = "\n(not every time)" if isinstance(error, Flaky) else ""
            if not isinstance(found, AssertionError):  # of the backend's own: its traceback says where
                error.__notes__ = [described(drawn)]
                raise
            failure = f"{found}\n{described(drawn)}{flaky}"
        else:
            return
        raise ClaimError(failure) from None

    def build(self, model: RandomModel, dtype: str | None = None) -> Built:
        """The model on the backend under test."""
        dtype = self.dtypes[0] if dtype is None else dtype
        return Built(
            model.config,
            self.backend.build(model.config, model.weights, device=self.device, dtype=dtype, **self.options),
        )

    @property
    def tolerance(self) -> float:
        """Of the first dtype, in which invariants are tried."""
        return TOLERANCES[self.dtypes[0]]

    @property
    def width(self) -> int:
        """The least width of random models. In half precision, where an error is one of many channels, it is larger."""
        return WIDTHS[self.dtypes[0]]


try:
    import pytest
except ImportError:  # another test runner

    class ClaimError(AssertionError):
        """A claim that is not borne out."""

else:

    class ClaimError(AssertionError, pytest.fail.Exception):  # type: ignore[no-redef,misc,name-defined]
        """A claim that is not borne out. pytest shows its message alone, no traceback of the kit."""

        def __init__(self, message: str) -> None:
            pytest.fail.Exception.__init__(self, message, pytrace=False)


def described(drawn: Any) -> str:
    """What a claim failed on, in a few lines: the model, and the inputs, written out where they are short."""
    case = next((one for one in (drawn if isinstance(drawn, tuple) else (drawn,)) if isinstance(one, Case)), None)
    if case is None:
        return f"on {drawn!r:.400}"
    shown = []
    for name, value in case.inputs.items():
        if isinstance(value, np.ndarray) and value.size > 24:
            shown.append(f"{name}: {value.dtype} {value.shape}")
        else:
            shown.append(f"{name}: {value.tolist() if isinstance(value, np.ndarray) else value}")
    further = [f"with {one}" for one in drawn if one is not case] if isinstance(drawn, tuple) else []
    return "\n".join([f"on {case.model!r}", *shown, *further])
