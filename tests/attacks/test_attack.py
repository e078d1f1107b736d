"""The harness itself: each part of its claim can be broken."""

from __future__ import annotations

import time
from typing import Any

import attack as harness
import numpy as np
import pytest
from attack import MEASURED, TooSlow, attack, needs_timer

from minclip.errors import ImageError, MinclipError, TokenizerError


def two_lines(_: Any) -> None:
    raise MinclipError("a\nb")


def no_word(_: Any) -> None:
    raise MinclipError(" ")


def another_exception(_: Any) -> None:
    raise TypeError("a")


def a_value_error_of_another(_: Any) -> None:
    int("a")


def wrong(_: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize("use", [two_lines, no_word, another_exception, a_value_error_of_another, wrong])
def test_what_breaks_the_claim_is_raised_with_what_was_given(use: Any) -> None:
    with pytest.raises((AssertionError, TypeError, ValueError)) as caught:
        attack(use, [b"given"])
    assert caught.value.__notes__ == ["attacked with b'given'"]


def test_a_refusal_may_have_to_be_of_one_kind() -> None:
    def refuse(_: Any) -> None:
        raise TokenizerError("a")

    assert attack(refuse, [b"", b""]) == {"refused": 2}
    with pytest.raises(TokenizerError):
        attack(refuse, [b""], ImageError)


@needs_timer
def test_what_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.05)
    with pytest.raises(TooSlow):
        attack(lambda _: time.sleep(30), [b""])


@pytest.mark.skipif(not MEASURED, reason="the kernel here does not measure the highest use of memory")
def test_what_grows_is_found() -> None:
    with pytest.raises(AssertionError):
        attack(lambda _: np.ones((harness.MEGABYTES + 50, 1 << 17)), [b""])
