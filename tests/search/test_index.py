"""An index on disk: what a run changes, what it keeps, what it refuses."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from miniature import captions, draw

import minclip
from minclip.errors import CheckpointError, ImageError, SearchError
from minclip.search import store
from minclip.search.build import Changes, build
from minclip.search.index import Index

NAMES = captions()[:6]
ROUNDING = 1e-5  # batches of other sizes are summed in another order


@pytest.fixture(scope="module")
def model(miniature: Path) -> minclip.Model:
    return minclip.load(miniature)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six different drawings, one of them in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, caption in enumerate(NAMES):
        place = folder / "more" if number == 5 else folder
        draw(caption, np.random.default_rng(number), side=48).save(place / f"{caption}.png")
    return folder


def counts(changes: Changes) -> tuple[int, int, int, int, int]:
    return changes.added, changes.changed, changes.renamed, changes.removed, changes.unchanged


def vectors(index: Index) -> dict[str, np.ndarray]:
    return {os.fsdecode(p.path): index.store.vectors()[p.row] for p in index.store.pictures()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != store.LOCK}


def test_the_scores_are_the_cosines_of_the_models_own_embeddings(
    photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    assert index.paths == sorted(str(path) for path in photos.rglob("*.png"))
    assert len(index) == 6
    cosines = model.encode_image(index.paths) @ model.encode_text(NAMES[0])[0]
    found = index.search(NAMES[0], top_k=10)
    assert [match.path for match in found] == [index.paths[i] for i in np.argsort(-cosines)]
    assert [match.score for match in found] == pytest.approx(sorted(cosines, reverse=True), abs=1e-6)
    assert index.search(NAMES[0], top_k=2) == found[:2]


def test_the_index_finds_its_own_model(photos: Path, miniature: Path, tmp_path: Path) -> None:
    Index.build(photos, tmp_path / "p.idx", model=miniature)
    assert Index.open(tmp_path / "p.idx").search(photos / "a red circle.png", 1)[0].score == pytest.approx(1, abs=1e-5)


def test_a_second_run_reads_only_what_is_new_or_changed(
    photos: Path, model: minclip.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    encode = minclip.Model.encode_image
    monkeypatch.setattr(
        minclip.Model, "encode_image", lambda self, paths, **rest: embedded.extend(paths) or encode(self, paths, **rest)
    )
    target = tmp_path / "p.idx"
    assert counts(build(photos, target, model=model)) == (6, 0, 0, 0, 0)
    embedded.clear()
    os.utime(photos / f"{NAMES[0]}.png", (1, 1))  # touched: read, hashed, and found to be the same
    (photos / f"{NAMES[1]}.png").rename(photos / "more" / "renamed.png")
    shutil.copy(photos / f"{NAMES[2]}.png", photos / "copy.png")
    (photos / f"{NAMES[3]}.png").unlink()
    draw(NAMES[3], np.random.default_rng(77)).save(photos / f"{NAMES[4]}.png")
    assert counts(build(photos, target, model=model)) == (1, 1, 1, 1, 3)
    assert embedded == [str(photos / f"{NAMES[4]}.png")]
    fresh = Index.build(photos, tmp_path / "fresh.idx", model=model)
    mine, expected = vectors(Index.open(target)), vectors(fresh)
    assert mine.keys() == expected.keys()
    assert max(np.abs(mine[path] - expected[path]).max() for path in mine) < ROUNDING


def test_rows_of_what_is_gone_are_used_again(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    build(photos, tmp_path / "p.idx", model=model)
    for seed in range(5):
        draw(NAMES[0], np.random.default_rng(100 + seed)).save(photos / f"{NAMES[0]}.png")
        build(photos, tmp_path / "p.idx", model=model)
    assert len(Index.open(tmp_path / "p.idx").store.vectors()) <= 7


def test_pictures_of_other_folders_stay(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    other = tmp_path / "photos2"  # whose name begins as the other's does
    other.mkdir()
    draw(NAMES[0], np.random.default_rng(9)).save(other / "a.png")
    build([photos, photos / "more"], tmp_path / "p.idx", model=model)
    assert counts(build(other, tmp_path / "p.idx")) == (1, 0, 0, 0, 0)
    assert len(Index.open(tmp_path / "p.idx")) == 7


def test_copies_are_all_found(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copy(photos / f"{NAMES[0]}.png", photos / f"copy{number}.png")
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    found = index.search(photos / f"{NAMES[0]}.png", 4)
    assert {match.path for match in found} == {str(photos / f"{n}.png") for n in (NAMES[0], "copy0", "copy1", "copy2")}
    assert len(index.store.vectors()) == 6


def test_an_open_index_sees_what_another_process_adds(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    draw("a blue square", np.random.default_rng(50)).save(photos / "new.png")
    build(photos, tmp_path / "p.idx", model=model)
    assert index.search(photos / "new.png", 1, model=model)[0].path == str(photos / "new.png")


def test_what_cannot_be_read_is_reported_and_left_out(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "same.png").write_bytes(b"no picture")
    (photos / "dangling.png").symlink_to("nowhere")
    (photos / f"{NAMES[0]}.png").write_bytes(b"was one")
    lines: list[str] = []
    changes = build(photos, tmp_path / "p.idx", model=model, on_error=lines.append)
    bad = {str(photos / name) for name in ("broken.png", "same.png", "dangling.png", f"{NAMES[0]}.png")}
    assert set(changes.unreadable) == bad
    assert changes.added == 5
    assert len(lines) == 4
    assert all("\n" not in line for line in lines)


def test_a_picture_that_breaks_leaves_the_index(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    build(photos, tmp_path / "p.idx", model=model)
    (photos / f"{NAMES[0]}.png").write_bytes(b"was one")
    build(photos, tmp_path / "p.idx", model=model)
    assert str(photos / f"{NAMES[0]}.png") not in Index.open(tmp_path / "p.idx").paths


def test_names_that_are_no_utf8_are_names(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    odd = os.fsencode(photos) + b"/\xff\xfe.png"
    os.rename(photos / f"{NAMES[0]}.png", odd)
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    assert os.fsdecode(odd) in index.paths
    assert index.search(Path(os.fsdecode(odd)), 1)[0].path == os.fsdecode(odd)


def test_a_folder_that_cannot_be_read_loses_nothing(
    photos: Path, model: minclip.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, tmp_path / "p.idx", model=model)
    scandir = os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry]:
        if path == str(photos / "more"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    lines: list[str] = []
    changes = build(photos, tmp_path / "p.idx", model=model, on_error=lines.append)
    assert lines == [f"{photos / 'more'} cannot be read: Permission denied"]
    assert (changes.removed, len(Index.open(tmp_path / "p.idx"))) == (0, 6)


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_folder_that_is_missing_or_empty_changes_nothing(
    how: str, photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    build(photos, tmp_path / "p.idx", model=model)
    before = files(tmp_path / "p.idx")
    shutil.rmtree(photos)
    if how == "empty":
        photos.mkdir()
    with pytest.raises(SearchError, match="is not a folder" if how == "missing" else "holds no picture files"):
        build(photos, tmp_path / "p.idx", model=model)
    assert files(tmp_path / "p.idx") == before


def test_a_run_that_reads_nothing_leaves_no_index(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    build(tmp_path / "bad", tmp_path / "p.idx", model=model)
    assert not (tmp_path / "p.idx").exists()


def test_a_model_without_pictures_leaves_no_index(photos: Path, miniature: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no vision tower"):
        build(photos, tmp_path / "p.idx", model=text_only(miniature, tmp_path / "text"))
    assert not (tmp_path / "p.idx").exists()


def part(miniature: Path, folder: Path, kind: str) -> Path:
    """One tower of the miniature, as a checkpoint of its own."""
    import transformers

    whole = transformers.CLIPModel.from_pretrained(miniature)
    config = getattr(whole.config, f"{kind.lower()}_config")
    config.projection_dim = whole.config.projection_dim
    tower = getattr(transformers, f"CLIP{kind}ModelWithProjection")(config)
    tower.load_state_dict(whole.state_dict(), strict=False)
    tower.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "preprocessor_config.json"):
        if (miniature / name).exists():
            shutil.copy(miniature / name, folder)
    return folder


def text_only(miniature: Path, folder: Path) -> Path:
    return part(miniature, folder, "Text")


def test_a_vision_model_answers_pictures_and_refuses_texts(photos: Path, miniature: Path, tmp_path: Path) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=part(miniature, tmp_path / "vision", "Vision"))
    assert index.search(photos / f"{NAMES[0]}.png", 1)[0].path == str(photos / f"{NAMES[0]}.png")
    with pytest.raises(CheckpointError, match="no text tower"):
        index.search("a red circle")


def test_another_model_is_refused(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    other = minclip.load("mini-clip")
    with pytest.raises(SearchError, match="is another model"):
        index.search("a dog", model=other)
    with pytest.raises(SearchError, match="is another model"):
        build(photos, tmp_path / "p.idx", model=other)


def test_a_model_that_was_trained_on_is_another_one(photos: Path, miniature: Path, tmp_path: Path) -> None:
    shutil.copytree(miniature, tmp_path / "mine")
    index = Index.build(photos, tmp_path / "p.idx", model=tmp_path / "mine")
    assert index.search("a red circle", model=miniature)  # the same in another folder
    with open(tmp_path / "mine" / "model.safetensors", "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(SearchError, match="is another model"):
        Index.open(tmp_path / "p.idx").search("a red circle")


def damage(how: str, folder: Path) -> None:
    database, vectors = folder / store.PICTURES, folder / store.VECTORS
    if how == "no index":
        shutil.rmtree(folder)
    elif how == "a file":
        shutil.rmtree(folder)
        folder.write_bytes(b"x")
    elif how == "vectors cut short":
        os.truncate(vectors, vectors.stat().st_size - 1)
    elif how == "no vectors":
        vectors.unlink()
    elif how == "database cut short":
        os.truncate(database, 5000)
    elif how == "no database":
        database.write_bytes(b"not SQLite at all, " * 500)
    elif how == "another database":
        database.unlink()
        with sqlite3.connect(database) as other:
            other.execute("CREATE TABLE facts (a)")
    elif how == "a later layout":
        with sqlite3.connect(database) as later:
            later.execute("PRAGMA user_version = 99")


DAMAGES = (
    "no index",
    "a file",
    "vectors cut short",
    "no vectors",
    "database cut short",
    "no database",
    "another database",
    "a later layout",
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_or_foreign_index_is_one_line(how: str, photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    build(photos, tmp_path / "p.idx", model=model)
    damage(how, tmp_path / "p.idx")
    with pytest.raises(SearchError, match=str(tmp_path / "p.idx")) as caught:
        Index.open(tmp_path / "p.idx").search("a red circle", model=model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "no index"])
def test_a_damaged_or_foreign_index_is_not_written_over(
    how: str, photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    target = tmp_path / "p.idx"
    build(photos, target, model=model)
    damage(how, target)
    before = files(target) if target.is_dir() else target.read_bytes()
    with pytest.raises(SearchError):
        build(photos, target, model=model)
    assert (files(target) if target.is_dir() else target.read_bytes()) == before


def test_a_folder_of_something_else_is_not_written_to(photos: Path, model: minclip.Model) -> None:
    with pytest.raises(SearchError, match="folder of something else"):
        build(photos, photos, model=model)
    assert not (photos / store.PICTURES).exists()


def test_the_second_of_two_writers_is_refused(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    build(photos, tmp_path / "p.idx", model=model)
    program = (
        "import sys; from pathlib import Path; from minclip.search.store import one_writer\n"
        "with one_writer(Path(sys.argv[1])): print('writing', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "p.idx")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        with pytest.raises(SearchError, match="is being written by another process"):
            build(photos, tmp_path / "p.idx", model=model)
        assert Index.open(tmp_path / "p.idx").search("a red circle", model=model)  # reading goes on
        other.kill()
    assert counts(build(photos, tmp_path / "p.idx", model=model)) == (0, 0, 0, 0, 6)


def test_two_threads_do_not_write_either(tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def write() -> None:
        try:
            with store.one_writer(tmp_path / "p.idx"):
                pass
        except SearchError as error:
            refused.append(error)

    with store.one_writer(tmp_path / "p.idx"):
        second = threading.Thread(target=write)
        second.start()
        second.join()
    assert len(refused) == 1


def test_a_full_disk_is_one_line_and_what_was_there_stays(
    photos: Path, model: minclip.Model, miniature: Path, tmp_path: Path
) -> None:
    target = tmp_path / "p.idx"
    index = Index.build(photos, target, model=model)
    before = index.paths, index.search("a red circle", model=model)
    size = max((target / name).stat().st_size for name in (store.PICTURES, store.VECTORS))
    for number in range(400):
        draw(NAMES[number % 6], np.random.default_rng(1000 + number)).save(photos / f"{number:03}.png")
    program = (
        "import sys; from minclip.search import build\n"
        "try: build.build(sys.argv[1], sys.argv[2], model=sys.argv[3])\n"
        "except build.SearchError as error: print(error)"
    )
    limit = size + 8192  # beyond which the child cannot let a file grow
    done = subprocess.run(
        [sys.executable, "-c", program, str(photos), str(target), str(miniature)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.stdout.startswith(f"{target} cannot be written: ")
    assert done.stdout.count("\n") == 1
    after = Index.open(target)
    assert set(before[0]) <= set(after.paths)
    assert after.search("a red circle", 500, model=model)
    kept = len(after)
    assert build(photos, target, model=model).added == 406 - kept
    assert len(after) == 406


def test_an_index_on_a_read_only_disk_is_searched(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    expected = index.search("a red circle")
    for path in (tmp_path / "p.idx").iterdir():
        path.chmod(0o444)
    (tmp_path / "p.idx").chmod(0o555)
    assert Index.open(tmp_path / "p.idx").search("a red circle", model=model) == expected


@pytest.mark.parametrize("top_k", [0, -1, 2.5])
def test_top_k_is_a_number_from_one(top_k: int, photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="top_k"):
        Index.build(photos, tmp_path / "p.idx", model=model).search("a", top_k)


def test_a_query_picture_that_is_missing_is_named(photos: Path, model: minclip.Model, tmp_path: Path) -> None:
    index = Index.build(photos, tmp_path / "p.idx", model=model)
    with pytest.raises(ImageError, match=r"cannot open image pool\.jpg"):
        index.search(["water", "+", "pool.jpg"])


def test_an_index_whose_pictures_all_broke_takes_nothing_else_with_it(
    photos: Path, model: minclip.Model, tmp_path: Path
) -> None:
    """An index without pictures is none, and is removed: its own files, not what somebody has put beside them."""
    target = tmp_path / "p.idx"
    build(photos, target, model=model)
    (target / "notes.txt").write_text("mine")
    for picture in photos.rglob("*.png"):
        picture.write_bytes(b"no picture any more")
    changes = build(photos, target, model=model)
    assert len(changes.unreadable) == len(NAMES)
    assert files(target) == {"notes.txt": b"mine"}
