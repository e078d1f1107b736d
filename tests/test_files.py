"""Files are read without hanging, and replaced whole or not at all."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from minclip.errors import ConfigError
from minclip.files import open_regular, read_json, replacing, replacing_together


@pytest.fixture(params=["nameless", "named"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write a file beside another: Linux's without a name, and the one for all other systems."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("the system has no files without a name")
    return str(request.param)


def write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_is_replaced_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new" * 100_000)
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" * 100_000
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_writer_that_fails_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(error):  # noqa: PT012, SIM117  (the block is what fails)
        with replacing_together() as begin:
            begin(tmp_path / "x").write(b"new")
            begin(tmp_path / "y").write(b"new")
            raise error
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed at the latest when the last file is brought to the disk."""
    (tmp_path / "x").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012, SIM117  (leaving the block is what fails)
        with replacing_together() as begin:
            begin(tmp_path / "x").write(b"new")
            begin(tmp_path / "y").write(b"new")
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_permissions_of_an_existing_file_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(mode)
    with replacing(path) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode  # before there is anything in it to be read
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_honours_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "x", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_and_the_file_it_names_is_replaced(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "x"
    if exists:
        target.write_bytes(b"old")
    (tmp_path / "second").symlink_to(target)
    (tmp_path / "first").symlink_to("second")
    write(tmp_path / "first", b"new")
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert names(tmp_path / "elsewhere") == ["x"]


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "is a folder, device or pipe"),
    "a pipe": (lambda path: os.mkfifo(path), "is a folder, device or pipe"),
    "a device": (lambda path: path.symlink_to("/dev/null"), "is a folder, device or pipe"),
    "a read-only file": (lambda path: (path.write_bytes(b"old"), path.chmod(0o444)), "is read-only"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_to_be_replaced_is_refused_before_anything_is_written(tmp_path: Path, what: str) -> None:
    make, words = REFUSED[what]
    make(tmp_path / "x")
    before = os.lstat(tmp_path / "x")
    with pytest.raises(OSError, match=words) as caught, replacing(tmp_path / "x"):
        pytest.fail("nothing was refused")
    assert "x" in str(caught.value)
    assert os.lstat(tmp_path / "x").st_ino == before.st_ino
    assert names(tmp_path) == ["x"]


def test_a_name_of_the_greatest_length_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize("path", ["nowhere/x", "x" * 256])
def test_a_path_that_cannot_be_is_named_as_it_was_given(tmp_path: Path, path: str) -> None:
    with pytest.raises(OSError, match=r"No such file|name too long") as caught:
        write(tmp_path / path, b"new")
    assert str(tmp_path / path) in str(caught.value)


def test_two_writers_of_the_same_files_do_not_mix_them(tmp_path: Path) -> None:
    """Fifteen rounds of eight threads: the files are always those of one writer."""
    barrier = Barrier(8)

    def save(content: bytes) -> None:
        barrier.wait()
        with replacing_together() as begin:
            for name in "abcdef":
                begin(tmp_path / name).write(content)

    for _ in range(15):
        threads = [Thread(target=save, args=(bytes([i]) * 1000,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1
        assert names(tmp_path) == list("abcdef")


def test_a_lock_on_the_folder_for_another_purpose_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write(tmp_path / "x", b"new")
    finally:
        os.close(descriptor)
    assert (tmp_path / "x").read_bytes() == b"new"


KILLED = """
import os, sys, pathlib
from minclip.files import replacing_together
if sys.argv[2] == "named":
    del os.O_TMPFILE
folder = pathlib.Path(sys.argv[1])
with replacing_together() as begin:
    for name in "ab":
        begin(folder / name).write(bytes(1_000_000))
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_writer_that_is_killed_leaves_the_old_files(tmp_path: Path, way: str, number: signal.Signals) -> None:
    """And nothing else where files need no name."""
    (tmp_path / "a").write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(tmp_path), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(number)
        assert writer.wait(30) == -number
    assert (tmp_path / "a").read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "a"]
    assert all(name.startswith(".") and name.endswith(".tmp") for name in left)
    assert not left or way == "named"


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "config.json"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda p: os.symlink("/dev/zero", p)}[what](path)
    start = time.monotonic()
    with pytest.raises(OSError, match="is a folder, device or pipe"):
        open_regular(path)
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON: .* is a folder, device or pipe"):
        read_json(path, ConfigError)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b"{} {}"])
def test_broken_json_is_one_line_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.json cannot be read as JSON") as caught:
        read_json(tmp_path / "x.json", ConfigError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"'])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigError, match=r"x\.json must hold a JSON object, not "):
        read_json(tmp_path / "x.json", ConfigError)
