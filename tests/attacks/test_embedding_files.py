"""Damaged files of shards, labels and captions: what was written, or one line."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from attack import attack, counts, needs_timer
from miniature import captions, draw
from mutators import PARQUET, TEXT, mutated

import minclip
from minclip.commands.common import labels
from minclip.commands.evaluate import COLUMNS, read_csv
from minclip.errors import SearchError
from minclip.search import shards
from minclip.search.index import Index


def content(index: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """The facts of an index, and the vector of each picture."""
    store = Index.open(index).store
    return store.facts, {os.fsdecode(p.path): store.vectors()[p.row].tobytes() for p in store.pictures()}


@pytest.fixture(scope="module")
def shard(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of six pictures, one of which is a copy and one of which is broken."""
    pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    base = tmp_path_factory.mktemp("shard")
    for number, caption in enumerate(captions()[:4]):
        draw(caption, np.random.default_rng(number), side=32).save(base / f"{number}.png")
    shutil.copy(base / "0.png", base / "copy.png")
    (base / "broken.png").write_bytes(b"no picture")
    (block,) = shards.blocks(shards.entries([str(base)]), 1)
    shards.make(base / "out", block, minclip.load(miniature))
    return base / "out"


@needs_timer
@counts(25, 500)
@pytest.mark.parametrize("name", ["img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"])
def test_a_damaged_shard_gives_the_index_of_the_whole_one_or_is_refused(
    name: str, count: int, shard: Path, tmp_path: Path
) -> None:
    path, target, rng = shard / name, tmp_path / "a.idx", random.Random(f"{name} {count}")
    whole = path.read_bytes()

    def index() -> tuple[dict[str, str], dict[str, bytes]]:
        shutil.rmtree(target, ignore_errors=True)
        assert shards.index_shards(shard, target) == 5
        return content(target)

    expected = index()

    def use(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        assert index() == expected

    try:
        found = attack(use, (mutated(whole, PARQUET, rng) for _ in range(count)), SearchError)
    finally:
        path.write_bytes(whole)
    print(f"{name}: {found}")
    assert found["refused"] > count // 2


def captions_of(path: Path) -> list[tuple[str, str]]:
    known = read_csv(path)
    assert known.kind in COLUMNS
    return list(zip(known.paths, known.answers, strict=True))


def labels_of(path: Path) -> list[str]:
    return labels(SimpleNamespace(labels=[], labels_file=str(path)))  # type: ignore[arg-type]


@needs_timer
@counts(100, 500)
@pytest.mark.parametrize(
    ("read", "name", "sound"),
    [
        (captions_of, "captions.csv", 'path,caption\na.png,a dog\nb.png,"a cat, asleep"\nc.png,Straße\n'),
        (captions_of, "labels.csv", "path,label\na.png,a dog\nb.png,a cat\n"),
        (labels_of, "labels.txt", "a dog\na cat\nein Straßenhund\n猫\n"),
    ],
)
def test_a_damaged_text_file_gives_texts_or_one_line(
    read: Callable[[Path], list[object]], name: str, sound: str, count: int, tmp_path: Path
) -> None:
    path, rng = tmp_path / name, random.Random(f"{name} {count}")

    def use(data: bytes) -> None:
        path.write_bytes(data)
        found = read(path)
        assert found
        assert len(set(map(str, found))) == len(found)
        for item in found:
            assert all(text.strip() for text in ([item] if isinstance(item, str) else item))  # type: ignore[attr-defined]

    use(sound.encode())
    found = attack(use, (mutated(sound.encode(), TEXT, rng) for _ in range(count)))
    print(f"{name}: {found}")
    assert found.total() == count
    assert found["refused"] > count // 10
