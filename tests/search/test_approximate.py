"""The inverted file finds nearly all that the exact answer has, and never a wrong score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import captions, draw

import minclip
from minclip.errors import SearchError
from minclip.search import approximate
from minclip.search.build import build
from minclip.search.index import Index
from minclip.search.store import Picture, Store

WIDTH, ROWS = 32, 20_000


def clustered(count: int, seed: int) -> np.ndarray:
    """Unit vectors around 200 centres, as embeddings of pictures are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(200, WIDTH))
    vectors = centres[rng.integers(200, size=count)] + 0.5 * rng.normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def grown(folder: Path, model: minclip.Model, count: int, seed: int = 1) -> Store:
    """An index of so many pictures that nobody has drawn."""
    from minclip.fingerprint import fingerprint

    folder.mkdir(exist_ok=True)
    facts = {"model": model.source, "fingerprint": fingerprint(model), "width": str(WIDTH)}
    store = Store.create(folder, facts)
    vectors = clustered(count, seed)
    store.write_vectors(range(count), vectors)
    store.commit([Picture(f"/nowhere/{row:06}.png", 1, 1, b"%d" % row, row) for row in range(count)], [])
    return store


@pytest.fixture
def store(miniature: Path, tmp_path: Path) -> Store:
    pytest.importorskip("faiss", reason="needs the extra faiss")
    return grown(tmp_path / "p.idx", minclip.load(miniature), ROWS)


def test_the_recall_is_measured_and_true(store: Store) -> None:
    facts = approximate.build(store)
    assert facts.recall >= approximate.RECALL
    index = Index.open(store.folder)
    assert index.approximate is not None
    assert index.approximate.cells.nprobe == facts.probes < index.approximate.cells.nlist
    found = []
    for query in clustered(100, seed=2):
        exact, fast = index.nearest(query, exact=True), index.nearest(query)
        cosines = store.vectors() @ query
        assert all(match.score == pytest.approx(cosines[int(Path(match.path).stem)], abs=1e-6) for match in fast)
        assert [match.score for match in fast] == sorted((match.score for match in fast), reverse=True)
        found.append(len({match.path for match in exact} & {match.path for match in fast}) / 10)
    assert np.mean(found) >= approximate.RECALL - 0.05  # other queries than those that the probes were chosen by


def test_new_pictures_are_found_before_the_cells_are_made_anew(
    store: Store, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "FROM", 1000)
    assert approximate.is_due(store)
    approximate.build(store)
    assert not approximate.is_due(store)
    store.commit([], ["/nowhere/000007.png"])  # leaves a row that must not be taken: its cell is another's
    photos, model = tmp_path / "photos", minclip.load(miniature)
    photos.mkdir()
    for number in range(3):
        draw(captions()[number], np.random.default_rng(number)).save(photos / f"{number}.png")
    build(photos, store.folder, model=model)
    index = Index.open(store.folder)
    for number in range(3):
        path = str(photos / f"{number}.png")
        assert index.search(path, 1, model=model)[0] == (path, pytest.approx(1, abs=1e-5))
    assert {picture.row for picture in index.store.pictures() if "photos" in picture.path} == {
        ROWS,
        ROWS + 1,
        ROWS + 2,
    }


def test_pictures_that_are_gone_are_not_found(store: Store) -> None:
    approximate.build(store)
    index = Index.open(store.folder)
    query = clustered(1, seed=3)[0]
    before = index.nearest(query, 30, exact=True)
    store.commit([], [match.path for match in before[:20]])
    assert len(found := index.nearest(query)) == 10
    assert not {match.path for match in found} & {match.path for match in before[:20]}


def test_the_cells_are_made_anew_when_much_is_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "FROM", 1000)
    approximate.build(store)
    extra = ROWS // 5
    store.write_vectors(range(ROWS, ROWS + extra), clustered(extra, seed=5))
    store.commit([Picture(f"/more/{row}", 1, 1, b"m%d" % row, row) for row in range(ROWS, ROWS + extra)], [])
    assert approximate.is_due(store)


def test_a_damaged_file_is_one_line(store: Store) -> None:
    approximate.build(store)
    (store.folder / approximate.FILE).write_bytes(b"nothing")
    with pytest.raises(SearchError, match="cannot be read; delete it"):
        Index.open(store.folder).nearest(clustered(1, 1)[0])


def test_without_faiss_the_answer_is_exact(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    store = grown(tmp_path / "p.idx", minclip.load(miniature), 500)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SearchError, match=r"pip install minclip\[faiss\]"):
        approximate.build(store)
    query = clustered(1, seed=3)[0]
    cosines = store.vectors() @ query
    found = Index.open(store.folder).nearest(query)
    assert [match.score for match in found] == pytest.approx(np.sort(cosines)[::-1][:10].tolist(), abs=1e-6)
