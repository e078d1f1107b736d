"""Whatever is done to the files, an index answers as a dictionary of their contents would."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from miniature import captions, draw

import minclip
from minclip.search.build import build
from minclip.search.index import Index

NAMES = st.sampled_from(["a.png", "b.png", "c.PNG", "d/a.png", "d/e/f.png", "ü.png", "\udcff.png"])
CONTENTS = st.sampled_from([*range(5), -1])  # -1 is no picture
ROUNDING = 1e-5  # batches of other sizes are summed in another order


class Photos(RuleBasedStateMachine):
    """disk: what each file holds; indexed: what the index should know. Both by path, as numbers of CONTENTS."""

    model: minclip.Model
    pictures: list[bytes]
    vectors: np.ndarray

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.folder, self.target = self.place / "photos", self.place / "p.idx"
        self.folder.mkdir()
        self.disk: dict[str, int] = {}
        self.indexed: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "place"):
            shutil.rmtree(self.place)

    @rule(files=st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=5))
    def write(self, files: dict[str, int]) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.pictures[content])
            self.disk[str(path)] = content

    @precondition(lambda self: self.disk)
    @rule(data=st.data(), name=NAMES)
    def rename(self, data: st.DataObject, name: str) -> None:
        old, new = data.draw(st.sampled_from(sorted(self.disk))), self.folder / name
        new.parent.mkdir(parents=True, exist_ok=True)
        os.rename(old, new)
        self.disk[str(new)] = self.disk.pop(old)

    @precondition(lambda self: len(self.disk) > 1)
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        a, b = data.draw(st.permutations(sorted(self.disk)))[:2]
        os.rename(a, self.place / "aside")
        os.rename(b, a)
        os.rename(self.place / "aside", b)
        self.disk[a], self.disk[b] = self.disk[b], self.disk[a]

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.disk)))
        os.unlink(path)
        del self.disk[path]

    @precondition(lambda self: self.disk)  # else it is refused, as test_index.py shows
    @rule(batch_size=st.integers(1, 3))
    def index(self, batch_size: int) -> None:
        changes = build(self.folder, self.target, model=self.model, batch_size=batch_size)
        readable = {path: content for path, content in self.disk.items() if content >= 0}
        old, new = self.indexed, readable
        assert sorted(changes.unreadable) == sorted(self.disk.keys() - readable.keys())
        assert changes.unchanged == sum(old.get(path) == content for path, content in new.items())
        assert changes.changed == sum(path in old and old[path] != content for path, content in new.items())
        assert changes.added + changes.renamed == len(new.keys() - old.keys())
        assert changes.removed + changes.renamed == len(old.keys() - self.disk.keys())
        self.indexed = readable

    @invariant()
    def it_holds_what_was_indexed(self) -> None:
        if not getattr(self, "indexed", None):
            return
        index = Index.open(self.target)
        assert index.paths == sorted(self.indexed, key=os.fsencode)
        rows = {os.fsdecode(picture.path): picture.row for picture in index.store.pictures()}
        for path, content in self.indexed.items():
            assert np.abs(index.store.vectors()[rows[path]] - self.vectors[content]).max() < ROUNDING
        index.close()

    @precondition(lambda self: self.indexed)
    @rule(query=st.integers(0, 4), top_k=st.integers(1, 9))
    def search(self, query: int, top_k: int) -> None:
        found = Index.open(self.target).nearest(self.vectors[query], top_k)
        cosines = {path: float(self.vectors[content] @ self.vectors[query]) for path, content in self.indexed.items()}
        assert [match.score for match in found] == pytest.approx(
            sorted(cosines.values(), reverse=True)[:top_k], abs=ROUNDING
        )
        assert len({match.path for match in found}) == len(found)
        for match in found:
            assert match.score == pytest.approx(cosines[match.path], abs=ROUNDING)


@pytest.mark.parametrize("examples", [40, pytest.param(300, marks=pytest.mark.long)])
def test_an_index_answers_as_a_dictionary_would(examples: int, miniature: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        draw(captions()[number], np.random.default_rng(number)).save(path)
    Photos.model = minclip.load(miniature)
    Photos.vectors = Photos.model.encode_image(paths)
    Photos.pictures = [*(path.read_bytes() for path in paths), b"no picture"]
    run_state_machine_as_test(Photos, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))
