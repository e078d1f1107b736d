"""`minclip embed`: what is in the file, and that no other file is lost for it."""

from __future__ import annotations

import io
import os
import resource
import signal
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from command_line import command, damaged, left_in, on_terminal, run
from miniature import draw

import minclip
from minclip.backend import NumpyTowers
from minclip.commands.cli import main
from minclip.fingerprint import fingerprint


def test_embed_writes_what_encode_image_gives(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("not even named like one")
    out = tmp_path / "out.npz"
    _, err = run("embed", pictures, tmp_path, "-o", out, "--model", miniature, code=1, capsys=capsys)
    with np.load(out) as saved:
        paths, embeds = list(saved["paths"]), saved["embeds"]
    assert paths == [str(pictures / "blue.png"), str(pictures / "red.png")]
    np.testing.assert_array_equal(embeds, minclip.load(miniature).encode_image(paths))
    assert f"skipped: {tmp_path / 'broken.jpg'}" in err
    assert "notes.txt" not in err
    assert left_in(tmp_path) == {"broken.jpg", "notes.txt", "out.npz"}


def test_embed_with_draft_writes_what_encode_image_gives_with_it(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "photo.jpg", tmp_path / "out.npz"
    draw("a red circle", np.random.default_rng(0), side=100).save(photo)
    run("embed", photo, "-o", out, "--model", miniature, "--draft", capsys=capsys)
    model = minclip.load(miniature)
    with np.load(out) as saved:
        np.testing.assert_array_equal(saved["embeds"], model.encode_image(photo, draft=True))
        assert (saved["embeds"] != model.encode_image(photo)).any()


def test_embed_of_nothing_readable_writes_nothing(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    _, err = run("embed", tmp_path, "-o", tmp_path / "out.npz", "--model", miniature, code=2, capsys=capsys)
    assert "none of the 1 pictures" in err
    assert left_in(tmp_path) == {"broken.jpg"}


def test_embed_reports_a_picture_on_the_line_of_the_bar(miniature: Path, tmp_path: Path, pictures: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    words = "embed", pictures / "red.png", broken, "-o", tmp_path / "out.npz", "--model", miniature
    shown = on_terminal(*words, stream="stderr", code=1)
    assert f"\r\x1b[Kminclip: skipped: {broken}" in shown
    assert "\r\n\r\n" not in shown


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "is a folder"),
        ("pipe", "is no file"),
        ("x" * 256 + ".npz", "cannot be written"),
        ("out.csv", "must end in .npz, the format that is written; name it out.npz"),
        ("out", "must end in .npz"),
    ],
)
def test_embed_finds_a_bad_output_before_it_works(
    name: str, said: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    _, err = run("embed", pictures, "-o", tmp_path / name, "--model", "never/looked/for", code=2, capsys=capsys)
    assert err.startswith(f"minclip: {tmp_path / name} {said}")
    assert len(err.splitlines()) == 1
    assert left_in(tmp_path) == {"folder", "pipe"}


def test_a_full_disk_leaves_the_old_output_and_nothing_else(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # no file may grow beyond 100 bytes
    try:
        code = main(["embed", str(pictures), "-o", str(out), "--model", str(miniature)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert capsys.readouterr().err == f"minclip: {out} cannot be written: File too large\n"
    assert out.read_bytes() == b"old"
    assert left_in(tmp_path) == {"out.npz"}


def test_embed_keeps_what_was_done_before_the_memory_ran_out(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = NumpyTowers.image_embeds
    calls = []

    def second_fails(self: NumpyTowers, *given: object, **named: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise minclip.BackendError("out of memory")
        return vision(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(NumpyTowers, "image_embeds", second_fails)
    out = tmp_path / "out.npz"
    command = "embed", pictures, "--batch-size", 1, "-o", out, "--model", miniature
    _, err = run(*command, code=2, capsys=capsys)
    assert err.splitlines()[-1] == "minclip: out of memory"
    with np.load(out) as saved:
        assert list(saved["paths"]) == [str(pictures / "blue.png")]
        assert saved["embeds"].shape[0] == 1


def test_embed_of_texts_writes_what_encode_text_gives(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out.npz", tmp_path / "texts.txt"
    file.write_text("a green circle\na blue square\n", encoding="utf-8")
    words = "--text", "a red circle", "a red square", "--text", "猫", "--text-file", file
    run("embed", *words, "-o", out, "--model", miniature, capsys=capsys)
    texts = ["a red circle", "a red square", "猫", "a green circle", "a blue square"]
    with np.load(out) as saved:
        assert list(saved["texts"]) == texts
        np.testing.assert_array_equal(saved["embeds"], minclip.load(miniature).encode_text(texts))


def test_the_output_names_its_model(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ((pictures,), ("--text", "a")):
        run("embed", *given, "-o", tmp_path / "out.npz", "--model", miniature, capsys=capsys)
        with np.load(tmp_path / "out.npz") as saved:
            assert str(saved["model"]) == str(miniature)
            assert str(saved["fingerprint"]) == fingerprint(minclip.load(miniature))


@pytest.mark.parametrize("how", ["itself", "link", "hard link"])
def test_embed_never_overwrites_its_own_input(
    how: str, miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.npz"
    picture.write_bytes((pictures / "red.png").read_bytes())
    out = {"itself": picture, "link": tmp_path / "link.npz", "hard link": tmp_path / "hard.npz"}[how]
    if how == "link":
        out.symlink_to(picture)
    if how == "hard link":
        out.hardlink_to(picture)
    _, err = run("embed", picture, "-o", out, "--model", miniature, code=2, capsys=capsys)
    assert err == f"minclip: {out} is one of the pictures; name another file to write\n"
    assert picture.read_bytes() == (pictures / "red.png").read_bytes()


def test_the_output_may_be_a_link_whose_file_is_then_replaced(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.npz", tmp_path / "link.npz"
    real.write_bytes(b"old")
    link.symlink_to(real)
    run("embed", pictures, "-o", link, "--model", miniature, capsys=capsys)
    assert link.is_symlink()
    with np.load(real) as saved:
        assert saved["embeds"].shape[0] == 2
    assert left_in(tmp_path / "elsewhere") == {"real.npz"}


def test_the_output_keeps_its_mode(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    out.chmod(0o600)
    run("embed", pictures, "-o", out, "--model", miniature, capsys=capsys)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_read_only_output_is_refused(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    out.chmod(0o400)
    _, err = run("embed", pictures, "-o", out, "--model", miniature, code=2, capsys=capsys)
    assert str(out) in err
    assert len(err.splitlines()) == 1
    assert out.read_bytes() == b"old"


def test_the_output_may_have_the_longest_name(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("x" * 251 + ".npz")
    run("embed", pictures, "-o", out, "--model", miniature, capsys=capsys)
    assert left_in(tmp_path) == {out.name}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_old_output_and_nothing_else(
    number: signal.Signals, miniature: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: minclip.Model, *given: object, **named: object) -> None:
        assert left_in(tmp_path) >= {"out.npz"}
        os.kill(os.getpid(), number)

    monkeypatch.setattr(minclip.Model, "encode_image", interrupted)
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    others = signal.signal(number, own)  # a library that ran in this process may have set one
    try:
        code = main(["embed", str(pictures), "-o", str(out), "--model", str(miniature)])
    except SystemExit as ended:
        code = ended.code
    finally:
        after = signal.signal(number, own if others is None else others)
    assert code == 128 + number
    assert after is own
    assert out.read_bytes() == b"old"
    assert left_in(tmp_path) == {"out.npz"}


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e38])
def test_rows_that_have_no_length_are_not_written(
    number: float, miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = damaged(miniature, tmp_path / "damaged", number)
    for given in ((pictures,), ("--text", "a")):
        _, err = run("embed", *given, "-o", tmp_path / "out.npz", "--model", folder, code=2, capsys=capsys)
        assert f"minclip info --check {folder}" in err
        assert len(err.splitlines()) == 1
        assert left_in(tmp_path) == {"damaged"}


def test_numpy_adds_no_warning_to_the_line_of_a_refusal(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def multiply_infinities(*_: object, **__: object) -> None:
        infinities = np.array([[np.inf, -np.inf]], np.float32)
        infinities @ np.ones((2, 1), np.float32)
        infinities * np.float32(0)
        raise minclip.CheckpointError("refused")

    monkeypatch.setattr(minclip.Model, "encode_text", multiply_infinities)
    words = "embed", "--text", "a", "-o", tmp_path / "out.npz", "--model", miniature
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(*words, code=2, capsys=capsys)
    assert not [warning for warning in warned if warning.category is RuntimeWarning]


def test_any_bytes_may_name_a_picture(miniature: Path, pictures: Path, tmp_path: Path) -> None:
    for name in (b"\xff\xfe.png", "猫 \n\t😀.png".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes((pictures / "red.png").read_bytes())
    out = tmp_path / "out.npz"
    done = subprocess.run(command("embed", tmp_path, "-o", out, "--model", miniature), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with np.load(out) as saved:
        assert {os.path.basename(os.fsencode(path)) for path in saved["paths"]} == set(
            os.listdir(os.fsencode(tmp_path))
        ) - {b"out.npz"}
    words = "zero-shot", tmp_path, "--labels", "a", "b", "--model", miniature
    for further in ((), ("--json",)):
        done = subprocess.run(command(*words, *further), capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\udcff\\udcfe.png" in done.stdout
        assert len(done.stdout.splitlines()) == (2 if further else 4)


@pytest.mark.parametrize("words", [(), ("x.png", "--text", "a")])
def test_embed_takes_pictures_or_texts(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run("embed", *words, "-o", tmp_path / "out.npz", code=2, capsys=capsys)
    assert "one of the two" in err
    assert len(err.splitlines()) == 1


def test_many_unreadable_pictures_cost_no_more_than_one_each(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def skip_all_but_the_last(self: minclip.Model, paths: list[str], **named: object) -> np.ndarray:
        for index in range(len(paths) - 1):
            named["on_error"](index, minclip.ImageError("unreadable"))  # type: ignore[operator]
        return np.ones((1, 4), np.float32)

    monkeypatch.setattr(minclip.Model, "encode_image", skip_all_but_the_last)
    names = b"".join(b"%d.png\0" % number for number in range(40_000))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
    started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    _, err = run("embed", "-", "-o", tmp_path / "out.npz", "--model", miniature, code=1, capsys=capsys)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - started < 5  # where each was looked up in a list: 20
    assert "39999 of 40000" in err
    with np.load(tmp_path / "out.npz") as saved:
        assert list(saved["paths"]) == ["39999.png"]
