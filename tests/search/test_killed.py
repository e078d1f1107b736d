"""Killed at any moment and run again, an index is what it would have been."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from itertools import combinations, count
from pathlib import Path

import numpy as np
import pytest
from miniature import captions, draw

import minclip
from minclip.search import build, store
from minclip.search.index import Index

ROUNDING = 1e-5  # batches of other sizes are summed in another order


def content(index: Index) -> dict[str, np.ndarray]:
    return {os.fsdecode(p.path): index.store.vectors()[p.row] for p in index.store.pictures()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.abs(a[path] - b[path]).max() < ROUNDING for path in a)


def killed_after(seconds: float, photos: Path, target: Path, model: minclip.Model) -> bool:
    """Index in a child process that is killed after a time. Whether the child was still at it."""
    child = os.fork()
    if child == 0:
        try:
            build.STEP_SECONDS = 0.0  # so that there are many steps
            build.build(photos, target, model=model, batch_size=2)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"what a kill left in {target} cannot be gone on with"
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("times", [5, pytest.param(100, marks=pytest.mark.long)])
def test_killing_at_random_moments_loses_nothing(times: int, miniature: Path, tmp_path: Path) -> None:
    model, photos, names = minclip.load(miniature), tmp_path / "photos", captions()
    photos.mkdir()
    for number in range(24):
        draw(names[number % 12], np.random.default_rng(number)).save(photos / f"{number:02}.png")
    old = content(Index.build(photos, tmp_path / "old.idx", model=model))
    for number in range(6):
        (photos / f"{number:02}.png").unlink()
        draw(names[number], np.random.default_rng(100 + number)).save(photos / f"{number + 6:02}.png")
        (photos / f"{number + 12:02}.png").rename(photos / f"renamed{number}.png")
        draw(names[number], np.random.default_rng(200 + number)).save(photos / f"new{number}.png")
    new = content(Index.build(photos, tmp_path / "never_killed.idx", model=model))

    shutil.copytree(tmp_path / "old.idx", tmp_path / "timed.idx")
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "STEP_SECONDS", 0.0)
        build.build(photos, tmp_path / "timed.idx", model=model, batch_size=2)
    duration = time.monotonic() - start

    moments = random.Random(0)
    interrupted = 0
    for trial in range(times):
        target = tmp_path / f"{trial}.idx"
        if trial % 2:  # and every other time from nothing
            shutil.copytree(tmp_path / "old.idx", target)
        for attempt in count(1):  # given more and more time, so that it ends on a machine that has become busy, too
            if not killed_after(moments.uniform(0, 1.2 * duration) * (1 + attempt / 50), photos, target, model):
                break
            interrupted += 1
            if not store.Store.begun(target):
                continue
            for path, vector in content(Index.open(target)).items():  # each picture's vector is its old or its new one
                states = [known[path] for known in (old, new) if path in known]
                assert min(np.abs(vector - state).max() for state in states) < ROUNDING
        index = Index.open(target)
        assert same(content(index), new)
        assert len(index.store.vectors()) <= len(old) + len(new)
        shutil.rmtree(target)
    assert interrupted >= times // 3  # else the moments were not spread over the run


def test_whatever_a_killed_beginning_leaves_is_gone_on_with(miniature: Path, tmp_path: Path) -> None:
    model, photos = minclip.load(miniature), tmp_path / "photos"
    photos.mkdir()
    draw(captions()[0], np.random.default_rng(0)).save(photos / "0.png")
    left = [store.LOCK, f"{store.LOCK}-journal", f".{'0a' * 8}.tmp"]
    for number, names in enumerate(names for size in range(4) for names in combinations(left, size)):
        target = tmp_path / f"{number}.idx"
        target.mkdir()
        for name in names:
            (target / name).touch()
        assert len(Index.build(photos, target, model=model)) == 1, names


def test_killed_between_vectors_and_commit_it_keeps_what_was_there(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, photos = minclip.load(miniature), tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        draw(captions()[number], np.random.default_rng(number)).save(photos / f"{number}.png")
    before = content(Index.build(photos, tmp_path / "p.idx", model=model))
    (photos / "0.png").unlink()
    build.build(photos, tmp_path / "p.idx", model=model)  # leaves a row that the next picture may take
    draw("a blue circle", np.random.default_rng(9)).save(photos / "new.png")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            build.build(photos, tmp_path / "p.idx", model=model)
    index = Index.open(tmp_path / "p.idx")
    assert same(content(index), {path: vector for path, vector in before.items() if not path.endswith("0.png")})
    assert len(index.search(photos / "new.png", 10, model=model)) == 3
