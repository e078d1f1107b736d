"""Where commands take pictures from, and what is said of those left out."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from command_line import run

from minclip.commands import common


def test_only_files_that_can_be_decoded_are_taken_for_pictures(tmp_path: Path) -> None:
    no_pictures = ["a.h5", "a.grib", "a.bufr", "a.mpg", "a.wmf", "a.emf", "a.ps", "a.pdf"]
    for name in [*no_pictures, "b.JPG", "b.webp", "b.gif"]:
        (tmp_path / name).touch()
    assert common.Pictures([str(tmp_path)]).paths == [str(tmp_path / name) for name in ("b.JPG", "b.gif", "b.webp")]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_paths_are_read_from_stdin(
    separator: bytes, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [b"a b.png", b"\xff.png", os.fsencode(pictures), b"http://host/x.png", "猫.png".encode()]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(separator.join(names) + separator)))
    found = common.Pictures(["first.png", "-"]).paths
    inside = [str(pictures / "blue.png"), str(pictures / "red.png")]
    assert found == ["first.png", "a b.png", "\udcff.png", *inside, "http://host/x.png", "猫.png"]


def test_nothing_on_stdin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(ValueError, match="no picture was named"):
        common.Pictures(["-"])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="stdin is closed"):
        common.Pictures(["-"])


def test_links_to_folders_are_named_and_links_to_files_are_followed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "circle").symlink_to(tmp_path)
    (tmp_path / "folder").symlink_to(pictures)
    (tmp_path / "linked.png").symlink_to(pictures / "red.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = common.Pictures([str(tmp_path)])
    assert found.paths == [str(tmp_path / "broken.png"), str(tmp_path / "linked.png")]
    err = capsys.readouterr().err
    assert f"{tmp_path / 'folder'} is a link to a folder" in err
    assert f"{tmp_path / 'below' / 'circle'} is a link to a folder" in err
    assert found.exit_code() == 0


def test_an_unreadable_folder_is_named_and_counted(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "red.png").write_bytes((pictures / "red.png").read_bytes())
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    words = "zero-shot", tmp_path, "--labels", "a", "b", "--model", miniature
    out, err = run(*words, code=1, capsys=capsys)
    assert len(out.splitlines()) == 2
    assert err.splitlines() == [
        f"minclip: left out: folder {tmp_path / 'closed'} cannot be read: Permission denied",
        "minclip: 1 folders could not be read",
    ]
