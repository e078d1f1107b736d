"""Packages of Debian: what is fetched and unpacked, with stand-ins for apt-get, and what is said where it is not."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from minclip_torch.training.miniatures.debian import Package
from minclip_torch.training.miniatures.packages import PicturesError

PACKAGE = Package("x", "1:2-3", hashlib.sha256(b"the package").hexdigest(), Path("usr/share/x"))
FILE = "x_1%3a2-3_all.deb"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


def apt(tmp_path: Path, script: str, patch: pytest.MonkeyPatch) -> Path:
    """Make `script` the apt-get on the PATH; the folder to fetch into."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin/apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/apt-get").chmod(0o755)
    patch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}")
    return tmp_path / "packages"


def test_a_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = apt(tmp_path, 'test "$*" = "download x=1:2-3" && printf "the package" > any.deb', monkeypatch)
    assert PACKAGE.fetch(folder) == folder / FILE
    apt(tmp_path, "exit 9", monkeypatch)
    assert PACKAGE.fetch(folder).read_bytes() == b"the package"
    assert [path.name for path in folder.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'W: odd' >&2; echo 'E: no network' >&2; exit 100",
            r"apt-get could not fetch x 1:2-3 \(E: no network\): is there a network\? Otherwise put x_1%3a2-3_all\.deb",
        ),
        ("exit 3", r"apt-get could not fetch x 1:2-3 \(it ended with 3\)"),
        ("exit 0", r"apt-get could not fetch x 1:2-3 \(it ended with 0\)"),
        ("echo none > x.deb", r"_all\.deb is not what apt-get should fetch as x 1:2-3: delete it and run again"),
    ],
)
def test_what_apt_cannot_fetch_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    with pytest.raises(PicturesError, match=message) as error:
        PACKAGE.fetch(apt(tmp_path, script, monkeypatch))
    assert "\n" not in str(error.value)


def test_where_there_is_no_apt_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PicturesError, match=r"^apt-get is not installed: install it, or put x_1%3a2-3_all\.deb into "):
        PACKAGE.fetch(tmp_path / "packages")


@needs_dpkg
def test_a_deb_is_opened_as_its_folder_is(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    (tree / PACKAGE.inside).mkdir(parents=True)
    (tree / PACKAGE.inside / "a.txt").write_text("a")
    subprocess.run(["dpkg-deb", "-b", tree, tmp_path / "x.deb"], check=True, capture_output=True)
    for path in (tmp_path / "x.deb", tree / PACKAGE.inside):
        with PACKAGE.opened(path) as folder:
            assert (folder / "a.txt").read_text() == "a"
    assert folder.exists()  # what was there already stays


@needs_dpkg
def test_a_deb_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"none")
    with (
        pytest.raises(PicturesError, match=r"x\.deb cannot be unpacked \(dpkg-deb: .*: delete it and run") as error,
        PACKAGE.opened(tmp_path / "x.deb"),
    ):
        pass
    assert "\n" not in str(error.value)


def test_without_dpkg_deb_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.deb").write_bytes(b"none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(
            PicturesError, match=r"^dpkg-deb is not installed: unpack .*x\.deb and name its folder usr/share/x$"
        ),
        PACKAGE.opened(tmp_path / "x.deb"),
    ):
        pass


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(PicturesError, match=r"absent is not there: name y's \.deb, or its folder usr/share/x$"),
        replace(PACKAGE, name="y").opened(tmp_path / "absent"),
    ):
        pass
