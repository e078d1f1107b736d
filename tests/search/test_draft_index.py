"""Indices and shards of JPEG files decoded at a part of their size: they remember it, and nothing mixes the two."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniature import captions, draw

import minclip
from minclip.commands.cli import main
from minclip.errors import SearchError
from minclip.search import shards
from minclip.search.build import build
from minclip.search.index import Index

ROUNDING = 1e-5  # batches of other sizes are summed in another order


@pytest.fixture(scope="module")
def model(miniature: Path) -> minclip.Model:
    return minclip.load(miniature)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, caption in enumerate(captions()[:6]):
        draw(caption, np.random.default_rng(number), side=100).save(folder / f"{number}.jpg")
    return folder


def assert_drafted(index: Index, model: minclip.Model, draft: bool) -> None:
    """The vectors are those of `encode_image` with this `draft`, and surely not those without."""
    found = {os.fsdecode(p.path): index.store.vectors()[p.row] for p in index.store.pictures()}
    vectors = np.stack([found[path] for path in index.paths])
    assert np.abs(vectors - model.encode_image(index.paths, draft=draft)).max() < ROUNDING
    assert np.abs(vectors - model.encode_image(index.paths, draft=not draft)).max() > 10 * ROUNDING


@pytest.mark.parametrize("draft", [False, True])
def test_an_index_goes_on_as_it_was_made(draft: bool, photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    Index.build(photos, tmp_path / "p.idx", model=model, draft=draft)
    draw("a red circle", np.random.default_rng(9), side=100).save(photos / "new.jpg")
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    assert len(index) == 7
    assert_drafted(index, model, draft)
    assert index.search(photos / "3.jpg", 1)[0].score == pytest.approx(1, abs=1e-5)


def test_an_index_is_made_without_draft_unless_it_is_asked_for(
    photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    assert "draft" not in index.store.facts
    assert_drafted(index, model, False)


@pytest.mark.parametrize("draft", [False, True])
def test_an_index_made_otherwise_is_refused_and_stays(
    draft: bool, photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    build(photos, tmp_path / "p.idx", model=model, draft=draft)
    draw("a red circle", np.random.default_rng(9), side=100).save(photos / "new.jpg")
    with pytest.raises(SearchError, match=f"p.idx was made {'with' if draft else 'without'} draft"):
        build(photos, tmp_path / "p.idx", model=model, draft=not draft)
    assert len(Index.open(tmp_path / "p.idx")) == 6


def test_the_commands_index_and_search_with_it(
    photos: Path, miniature: Path, model: minclip.Model, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    target = str(tmp_path / "p.idx")
    assert main(["index", str(photos), "-o", target, "--model", str(miniature), "--draft"]) == 0
    assert main(["index", str(photos), "-o", target]) == 0
    assert_drafted(Index.open(target), model, True)
    assert main(["search", target, str(photos / "2.jpg"), "--top-k", "1", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["score"] == pytest.approx(1, abs=1e-5)
    assert main(["index", "--from", str(tmp_path), "-o", target, "--draft"]) == 2
    assert b"--draft is for folders of pictures" in capfdbinary.readouterr().err


def make_shards(folder: Path, photos: Path, model: minclip.Model, drafts: list[bool]) -> None:
    for number, draft in enumerate(drafts):
        shard = shards.blocks(shards.entries([str(photos)]), len(drafts), draft=draft)[number]
        shards.make(folder, shard, model)


@pytest.mark.parametrize("draft", [False, True])
def test_shards_become_an_index_that_goes_on_with_them_as_they_were_made(
    draft: bool, photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    make_shards(tmp_path / "out", photos, model, [draft, draft])
    shards.index_shards(tmp_path / "out", tmp_path / "p.idx")
    assert_drafted(Index.open(tmp_path / "p.idx"), model, draft)
    shards.export_index(Index.open(tmp_path / "p.idx").store, tmp_path / "again")
    shards.index_shards(tmp_path / "again", tmp_path / "q.idx")
    assert Index.open(tmp_path / "q.idx").store.facts == Index.open(tmp_path / "p.idx").store.facts


MIXED: dict[str, Callable[[Path, Path, minclip.Model], object]] = {
    "a shard that is there": lambda place, photos, model: shards.is_made(
        place / "out", shards.blocks(shards.entries([str(photos)]), 2, draft=False)[1]
    ),
    "two shards": lambda place, photos, model: shards.index_shards(place / "out", place / "p.idx"),
    "a shard and an index": lambda place, photos, model: (
        build(photos, place / "p.idx", model=model, draft=True),
        shards.index_shards(place / "out", place / "p.idx"),
    ),
}


@pytest.mark.parametrize("what", MIXED)
def test_shards_with_and_without_draft_are_not_mixed(
    what: str, photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    make_shards(tmp_path / "out", photos, model, [False, True])
    with pytest.raises(SearchError, match="made with draft"):
        MIXED[what](tmp_path, photos, model)
