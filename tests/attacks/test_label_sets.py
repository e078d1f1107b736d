"""Damaged files of label sets: the very set, or one line; behind right checksums, a set that ranks, or one line."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from attack import attack, counts, needs_timer
from miniature import captions
from mutators import BYTES, ZIP, all_cuts, at_the_end, mutated

import minclip
from minclip.errors import LabelSetError
from minclip.label_set import LabelSet

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(miniature: Path) -> minclip.Model:
    return minclip.load(miniature)


@pytest.fixture(scope="module")
def known(model: minclip.Model) -> LabelSet:
    return model.label_set([*captions()[:4], "猫 été"], ["{}", "a {} here"])


def opened(path: Path) -> LabelSet:
    with warnings.catch_warnings(action="error"):  # a refusal is a line, without a warning of NumPy's
        return LabelSet.open(path)


@needs_timer
@counts(200, 500)
@pytest.mark.parametrize("damage", ["bytes", "cuts"])
def test_a_damaged_file_is_the_same_set_or_is_refused(damage: str, count: int, known: LabelSet, tmp_path: Path) -> None:
    path, rng = tmp_path / "set.npz", random.Random(f"{damage} {count}")
    known.save(path)
    whole = path.read_bytes()

    def use(data: bytes) -> None:
        path.write_bytes(data)
        found = opened(path)
        assert np.array_equal(found.embeds, known.embeds)
        for name in ("labels", "templates", "model", "fingerprint"):
            assert getattr(found, name) == getattr(known, name)

    use(whole)
    table = [*BYTES, *map(at_the_end, BYTES)]
    bad = all_cuts(whole, count, rng) if damage == "cuts" else (mutated(whole, table, rng) for _ in range(count))
    found = attack(use, bad, LabelSetError)
    print(f"{damage}: {found}")
    assert found["refused"] > count // 2
    assert damage == "bytes" or not found["answered"]


@needs_timer
@counts(300, 500)
def test_damage_behind_right_checksums_makes_a_set_that_ranks_or_is_refused(
    count: int, model: minclip.Model, known: LabelSet, tmp_path: Path
) -> None:
    path, rng = tmp_path / "set.npz", random.Random(f"zip {count}")
    known.save(path)
    whole = path.read_bytes()

    def use(data: bytes) -> None:
        path.write_bytes(data)
        found = opened(path)
        ranking = model.zero_shot(PICTURE, found)
        assert sorted(p.label for p in ranking) == sorted(found.labels)
        assert sum(p.score for p in ranking) == pytest.approx(1, abs=1e-5)

    use(whole)
    found = attack(use, (mutated(whole, ZIP, rng) for _ in range(count)), LabelSetError)
    print(f"behind checksums: {found}")
    assert found["refused"] > count // 3
    assert found["answered"] > 1
