"""Shards by hand: every picture once, whole files only, and the same index as without them."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import captions, draw

import minclip
from minclip.commands.cli import main
from minclip.errors import SearchError
from minclip.search import shards
from minclip.search.index import Index

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")

ROUNDING = 1e-5  # batches of other sizes are summed in another order


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve drawings, a copy, and a file that is no picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, caption in enumerate(captions()):
        draw(caption, np.random.default_rng(number), side=48).save(folder / f"{caption}.png")
    shutil.copy(folder / f"{captions()[0]}.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().err


def rows(folder: Path) -> dict[str, np.ndarray]:
    """The vector of each picture in all shards; fails where one is there twice."""
    found: dict[str, np.ndarray] = {}
    for path in (folder / "metadata").glob("*.parquet"):
        number = path.stem.removeprefix("metadata_")
        vectors = np.load(folder / "img_emb" / f"img_emb_{number}.npy")
        table = pyarrow.parquet.read_table(path).to_pylist()
        assert len(table) == len(vectors)
        for row, vector in zip(table, vectors, strict=True):
            assert row["image_path"] not in found
            assert (row["error"] is not None) == (not vector.any())
            found[row["image_path"]] = vector
    return found


def content(index: Index) -> dict[str, np.ndarray]:
    return {os.fsdecode(p.path): index.store.vectors()[p.row] for p in index.store.pictures()}


def test_shards_by_hand_make_the_index_that_one_run_makes(
    photos: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (2, 0, 1):
        words = ("embed", photos, "-o", tmp_path / "out", "--shard", f"{number}/3", "--model", miniature)
        run(*words, code=1 if number == 2 else 0, capsys=capsys)  # which has broken.png
    found = rows(tmp_path / "out")
    assert set(found) == {str(path) for path in photos.iterdir()}
    run("index", "--from", tmp_path / "out", "-o", tmp_path / "a.idx", capsys=capsys)
    expected = content(Index.build(photos, tmp_path / "b.idx", model=miniature))
    mine = content(Index.open(tmp_path / "a.idx"))
    assert mine.keys() == expected.keys()
    assert max(np.abs(mine[path] - expected[path]).max() for path in mine) < ROUNDING
    assert Index.open(tmp_path / "a.idx").search("a red circle", 3)
    shards.index_shards(tmp_path / "out", tmp_path / "a.idx")  # again, which changes nothing
    assert content(Index.open(tmp_path / "a.idx")).keys() == expected.keys()
    assert len(Index.open(tmp_path / "a.idx").store.vectors()) == 12


def test_a_shard_that_is_there_is_not_made_again(
    photos: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("embed", photos, "-o", tmp_path / "out", "--shard", "0/2", "--model", miniature)
    main([str(word) for word in words])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    capsys.readouterr()
    assert run(*words, capsys=capsys) == ""
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} == before


def test_a_shard_of_other_pictures_is_not_taken_for_ours(
    photos: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", photos, "-o", tmp_path / "out", "--model", miniature, "--shard"]
    main([str(word) for word in [*words, "0/2"]])
    capsys.readouterr()
    assert "was made of other pictures" in run(*words, "0/3", code=2, capsys=capsys)
    (photos / "copy.png").unlink()
    assert "was made of other pictures" in run(*words, "0/2", code=2, capsys=capsys)


def test_a_shard_is_written_whole_or_not_at_all(
    photos: Path, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = shards.blocks(shards.entries([str(photos)]), 1)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", fail)
    with pytest.raises(SearchError, match="cannot be written: No space left on device"):
        shards.make(tmp_path / "out", shard, minclip.load(miniature))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_tar_is_its_pictures(photos: Path, miniature: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "web.tar", "w") as tar:
        for path in sorted(photos.iterdir()):
            tar.add(path, path.name)
            note = tarfile.TarInfo(f"{path.stem}.txt")
            tar.addfile(note, io.BytesIO())
    model = minclip.load(miniature)
    (shard,) = shards.blocks(shards.entries([str(tmp_path / "web.tar")]), 1)
    assert shards.make(tmp_path / "tar", shard, model) == (14, 1)
    (plain,) = shards.blocks(shards.entries([str(photos)]), 1)
    assert shards.make(tmp_path / "plain", plain, model) == (14, 1)
    packed = {Path(name).name: vector for name, vector in rows(tmp_path / "tar").items()}
    for name, vector in rows(tmp_path / "plain").items():
        assert np.abs(packed[Path(name).name] - vector).max() < ROUNDING


def test_a_tar_cut_short_keeps_what_was_read(photos: Path, miniature: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "web.tar", "w") as tar:
        for path in sorted(photos.glob("a*.png")):
            tar.add(path, path.name)
    os.truncate(tmp_path / "web.tar", 5000)
    (shard,) = shards.blocks([str(tmp_path / "web.tar")], 1)
    pictures, broken = shards.make(tmp_path / "out", shard, minclip.load(miniature))
    assert broken == 1
    assert pictures > 1


def test_what_is_exported_is_read_back(photos: Path, miniature: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(photos) + b"/\xff.png")
    (photos / "copy.png").rename(odd)
    index = Index.build(photos, tmp_path / "a.idx", model=miniature)
    assert main(["index", "-o", str(tmp_path / "a.idx"), "--export", str(tmp_path / "out")]) == 0
    assert len(np.load(tmp_path / "out" / "img_emb" / "img_emb_0.npy")) == len(index)
    shards.index_shards(tmp_path / "out", tmp_path / "b.idx")
    again = Index.open(tmp_path / "b.idx")
    assert again.paths == index.paths
    assert odd in again.paths
    assert all(np.array_equal(content(again)[path], vector) for path, vector in content(index).items())
    assert minclip.search.build.build(photos, tmp_path / "b.idx").unchanged == 13


def test_shards_of_two_models_are_not_mixed(photos: Path, miniature: Path, tmp_path: Path) -> None:
    first, second = shards.blocks(shards.entries([str(photos)]), 2)
    shards.make(tmp_path / "out", first, minclip.load(miniature))
    shards.make(tmp_path / "out", second, minclip.load("mini-clip"))
    with pytest.raises(SearchError, match="two models"):
        shards.index_shards(tmp_path / "out", tmp_path / "p.idx")


def test_shards_of_broken_pictures_alone_make_no_index(miniature: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (shard,) = shards.blocks(shards.entries([str(tmp_path / "broken.png")]), 1)
    assert shards.make(tmp_path / "out", shard, minclip.load(miniature)) == (1, 1)
    with pytest.raises(SearchError, match="no picture of the shards"):
        shards.index_shards(tmp_path / "out", tmp_path / "p.idx")
    assert not (tmp_path / "p.idx").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["embed", "photos", "-o", "out", "--shard", "2/2"], "--shard 2/2 must be I/N"),
        (["embed", "photos", "-o", "out", "--shard", "0/99"], "cannot make 99 shards"),
        (["embed", "https://example.org/a.png", "-o", "out", "--shard", "0/1"], "a.png is an address"),
        (["embed", "none.parquet", "-o", "out", "--shard", "0/1"], "none.parquet cannot be read"),
        (["index", "--from", "photos", "-o", "p.idx"], "photos holds no shards"),
        (["index", "photos", "--from", "photos", "-o", "p.idx"], "one of the three"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], line: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    err = run(*words, code=2, capsys=capsys)
    assert line in err
    assert err.count("\n") == 1


def test_a_parquet_file_names_the_pictures(photos: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(photos.iterdir())]
    pyarrow.parquet.write_table(pyarrow.table({"image_path": paths}), tmp_path / "list.parquet")
    assert shards.entries([str(tmp_path / "list.parquet")]) == paths
    assert json.dumps(shards.entries([str(photos)])) == json.dumps(paths)


def test_a_folder_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures would be missing from the shards of this machine, in silence."""
    (tmp_path / "closed").mkdir()
    for place in (tmp_path, tmp_path / "closed"):
        (place / "a.png").touch()
    scandir = os.scandir

    def refused(path: str) -> Any:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    assert len(shards.entries([str(tmp_path)])) == 2
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(SearchError, match="closed cannot be read: Permission denied"):
        shards.entries([str(tmp_path)])
