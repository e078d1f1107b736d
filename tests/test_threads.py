"""Cores that are ours, the team that shares out work, and NumPy's library kept to one thread meanwhile."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import minclip
from minclip import threads
from minclip.threads import Team


@given(st.integers(1, 20), st.integers(1, 500), st.none() | st.integers(1, 50))
def test_slices_make_up_the_whole_and_are_nearly_equal(size: int, count: int, most: int | None) -> None:
    parts = Team(size).split(count, most)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    assert most is None or max(lengths) <= most
    assert len(parts) == min(size, count) or (most is not None and len(parts) > size)


def test_a_team_works_at_once_and_answers_in_order() -> None:
    meeting = threading.Barrier(3, timeout=60)
    with Team(3).at_work() as team:

        def square(x: int) -> int:
            meeting.wait()  # of three: one alone would wait for ever
            return x * x

        assert team.map(square, range(3)) == [0, 1, 4]
        assert len(set(team.map(lambda _: threading.current_thread().name, range(50)))) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minclip")]


def test_whoever_is_free_takes_what_nobody_has_begun_with() -> None:
    """While a helper is held up by one part, the caller does the others."""
    names: dict[int, str] = {}
    begun = threading.Condition()

    def work(x: int) -> int:
        with begun:
            names[x] = threading.current_thread().name
            begun.notify_all()
            if names[x].startswith("minclip"):
                assert begun.wait_for(lambda: len(names) == 10, timeout=60)
        return -x

    with Team(2).at_work() as team:
        assert team.map(work, range(10)) == [-x for x in range(10)]
    assert sum(name.startswith("minclip") for name in names.values()) <= 1


def test_what_fails_is_raised_when_all_are_done() -> None:
    done = []

    def fail(x: int) -> None:
        done.append(x)
        if x in (0, 2):
            raise ValueError(f"part {x}")

    with Team(2).at_work() as team, pytest.raises(ValueError, match="part 0"):
        team.map(fail, range(4))
    assert sorted(done) == [0, 1, 2, 3]


def test_without_threads_the_caller_does_all_of_it(monkeypatch: pytest.MonkeyPatch, miniature: Path) -> None:
    model = minclip.load(miniature, threads=3)
    monkeypatch.setattr("minclip.fast.SMALL", 0)
    expected = model.encode_text(["a red circle"] * 200)

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with Team(3).at_work() as team:
        assert team.map(lambda x: -x, range(5)) == [0, -1, -2, -3, -4]
    np.testing.assert_allclose(model.encode_text(["a red circle"] * 200), expected, atol=1e-6)


class Library:
    """Stands for one that threadpoolctl found."""

    def __init__(self, count: int) -> None:
        self.num_threads = count

    def set_num_threads(self, count: int) -> None:
        self.num_threads = count

    def info(self) -> dict[str, object]:
        return {"internal_api": "blas", "version": "1.0", "num_threads": self.num_threads}


def test_the_library_has_one_thread_until_the_last_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = Library(4), Library(7)
    monkeypatch.setattr(threads, "_libraries", lambda: libraries)

    def now() -> list[int]:
        return [library.num_threads for library in libraries]

    with Team(2).at_work():
        assert now() == [1, 1]
        with Team(1).at_work():
            assert now() == [1, 1]
        assert now() == [1, 1]
    assert now() == [4, 7]
    with pytest.raises(KeyError), Team(2).at_work() as team:
        team.map({}.__getitem__, "ab")
    assert now() == [4, 7]


def test_no_product_of_a_model_wakes_the_threads_of_the_library(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would keep a core busy, which the next run needs."""
    model = minclip.load(miniature)
    libraries = (Library(4),)
    monkeypatch.setattr(threads, "_libraries", lambda: libraries)
    seen: list[int] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*arguments: Any, **options: Any) -> Any:
            seen.append(libraries[0].num_threads)
            return function(*arguments, **options)

        return inner

    products = "backend.head", "towers.linear", "layers.linear", "model.logits_per_image"
    for product in products:
        module, name = product.split(".")
        place = import_module(f"minclip.{module}")
        monkeypatch.setattr(place, name, watched(getattr(place, name)))
    pictures = [Image.new("RGB", (9, 9), color) for color in ("red", "green")]
    model.zero_shot(pictures, ["a", "b"])
    model(**model.processor(text=["a", "b"], images=pictures))
    assert len(seen) > len(products)
    assert set(seen) == {1}
    assert libraries[0].num_threads == 4


def test_a_model_loaded_during_a_run_has_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = (Library(4),)
    monkeypatch.setattr(threads, "_libraries", lambda: libraries)
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    with Team(2).at_work():
        assert libraries[0].num_threads == 1
        assert Team().size == 4
        assert "4 threads" in threads.linear_algebra()
    assert Team().size == 4


def test_threads_are_the_cores_that_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    else:
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(threads, "_quota", lambda _: float("inf"))
    monkeypatch.setattr(threads, "_libraries", lambda: (Library(64),))
    assert (threads.available_cores(), threads.default_threads()) == (3, 3)
    monkeypatch.setattr(threads, "_quota", lambda _: 1.5)
    assert (threads.available_cores(), threads.default_threads()) == (2, 2)
    monkeypatch.setattr(threads, "_libraries", lambda: (Library(1),))  # OPENBLAS_NUM_THREADS=1
    assert (threads.available_cores(), threads.default_threads()) == (2, 1)
    monkeypatch.setattr(threads, "_libraries", tuple)  # Accelerate
    assert threads.default_threads() == 1
    assert "cannot be set" in threads.linear_algebra()
    assert threads.kernels() == set()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ({"cpu.max": "nonsense"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_a_container_limits_the_cores(files: dict[str, str], cores: float, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert threads._quota(tmp_path) == cores


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True])
def test_a_number_of_threads_that_is_none_is_refused(bad: object, backend: str, miniature: Path) -> None:
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1, not"):
        minclip.load(miniature, backend=backend, threads=bad)  # type: ignore[arg-type]
    small = minclip.load(miniature).config
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1, not"):
        minclip.Model.from_config(small, backend=backend, threads=bad)


def test_models_with_threads_can_be_sent_to_another_process(miniature: Path) -> None:
    model = minclip.load(miniature, threads=2)
    again = pickle.loads(pickle.dumps(model))
    assert (again.encode_text("a red circle") == model.encode_text("a red circle")).all()


def test_what_multiplies_matrices_is_named() -> None:
    assert "thread" in threads.linear_algebra()
