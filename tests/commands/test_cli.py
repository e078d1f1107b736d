"""The command line, called as a user calls it."""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import json
import os
import pty
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import captions, draw
from PIL import Image

import minclip
import minclip.__main__
import minclip.commands
from minclip import checkpoints
from minclip.checkpoints import sources
from minclip.commands import cli
from minclip.commands.cli import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for colour in ("red", "blue"):
        draw(f"a {colour} circle", rng, side=64).save(folder / f"{colour}.png")
    return folder


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out, err


def test_zero_shot_prints_clean_lines_when_piped(
    miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run(
        "zero-shot", pictures / "red.png", "--labels", *captions(), "--model", miniature, "--top-k", 2, capsys=capsys
    )
    rows = [line.split("\t") for line in out.splitlines()]
    expected = minclip.zero_shot(pictures / "red.png", captions(), model=miniature, top_k=2)
    assert [(row[0], row[2]) for row in rows] == [(str(pictures / "red.png"), p.label) for p in expected]
    assert [float(row[1]) for row in rows] == pytest.approx([p.score for p in expected], abs=1e-6)
    assert err == ""


def test_zero_shot_speaks_json(miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [pictures / "red.png", pictures / "blue.png"]
    words = ["a red circle", "a blue circle"]
    out, _ = run("zero-shot", *images, "--labels", *words, "--model", miniature, "--json", capsys=capsys)
    best = [json.loads(line)["predictions"][0]["label"] for line in out.splitlines()]
    assert best == words


def test_templates_are_applied(miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(
        "zero-shot", pictures / "red.png", "--labels", "red", "blue", "--template", "a {} circle", "--model", miniature,
        "--json", capsys=capsys,
    )  # fmt: skip
    expected = minclip.zero_shot(pictures / "red.png", ["red", "blue"], model=miniature, template="a {} circle")
    assert json.loads(out)["predictions"][0]["label"] == expected[0].label == "red"


def test_a_person_sees_bars(miniature: Path, pictures: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "minclip", "zero-shot", str(pictures / "red.png"), "--labels", "a red circle"]
    subprocess.run([*command, "a blue circle", "--model", str(miniature)], stdout=follower, check=True, timeout=60)
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "█" in shown
    assert "a red circle" in shown.splitlines()[1]


def test_an_unreadable_picture_is_reported_and_the_rest_goes_on(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    images = [tmp_path / "broken.png", pictures / "red.png"]
    out, err = run("zero-shot", *images, "--labels", "a", "b", "--model", miniature, code=1, capsys=capsys)
    assert len(out.splitlines()) == 2
    assert "broken.png" in err
    assert "1 of 2" in err


def test_pictures_are_ranked_in_chunks_as_one_by_one_and_labels_are_embedded_once(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = []
    encode_text = minclip.Model.encode_text
    monkeypatch.setattr(
        minclip.Model, "encode_text", lambda self, texts, **kw: embedded.append(texts) or encode_text(self, texts, **kw)
    )
    monkeypatch.setattr(cli, "AT_A_TIME", 2)
    missing = tmp_path / "missing.png"
    images = [pictures / "red.png", missing, missing, missing, pictures / "blue.png", pictures / "red.png"]
    words = ["a red circle", "a blue circle"]
    out, err = run("zero-shot", *images, "--labels", *words, "--model", miniature, "--json", code=1, capsys=capsys)
    assert embedded == [words]
    ranked = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in ranked] == [str(path) for path in images if path != missing]
    for line in ranked:
        expected = minclip.zero_shot(line["image"], words, model=miniature)
        assert [p["label"] for p in line["predictions"]] == [p.label for p in expected]
        assert [p["score"] for p in line["predictions"]] == pytest.approx([p.score for p in expected], abs=1e-6)
    assert [str(missing) in line for line in err.splitlines()] == [True, True, True, False]
    assert "3 of 6" in err


def with_streams_in(encoding: str, *words: object) -> subprocess.CompletedProcess[bytes]:
    """minclip as a command of its own, whose standard streams have an encoding."""
    command = [sys.executable, "-m", "minclip", *map(str, words)]
    return subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=60)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_labels_that_stdout_cannot_encode_are_escaped(encoding: str, miniature: Path, pictures: Path) -> None:
    words = "zero-shot", pictures / "red.png", "--labels", "猫é😀", "--model", miniature
    done = with_streams_in(encoding, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.rstrip().endswith("猫é😀".encode(encoding, errors="backslashreplace"))
    spoken = with_streams_in(encoding, *words, "--json")
    assert json.loads(spoken.stdout.decode(encoding))["predictions"][0]["label"] == "猫é😀"


def test_a_large_picture_raises_no_warning(
    miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    command = "zero-shot", pictures / "red.png", "--labels", "a", "--model", miniature
    run(*command, capsys=capsys)
    assert not [w for w in recwarn if w.category is Image.DecompressionBombWarning]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    _, err = run(*command, code=2, capsys=capsys)
    assert "too large" in err


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


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "minclip", "embed", str(pictures / "red.png"), str(broken)]
    command += ["-o", str(tmp_path / "out.npz"), "--model", str(miniature)]
    assert subprocess.run(command, stderr=follower, timeout=60).returncode == 1
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert f"\r\x1b[Kminclip: skipped: {broken}" in shown
    assert "\r\n\r\n" not in shown


@pytest.mark.parametrize(
    ("name", "said"),
    [("folder", "is a folder"), ("pipe", "is no file"), ("x" * 250, "cannot be written")],
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
    vision = minclip.Model._vision
    calls = []

    def second_fails(self: minclip.Model, *given: object, **named: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise minclip.BackendError("out of memory")
        return vision(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(minclip.Model, "_vision", second_fails)
    out = tmp_path / "out.npz"
    command = "embed", pictures, "--batch-size", 1, "-o", out, "--model", miniature
    _, err = run(*command, code=2, capsys=capsys)
    assert err.splitlines()[-1] == "minclip: out of memory"
    with np.load(out) as saved:
        assert list(saved["paths"]) == [str(pictures / "blue.png")]
        assert saved["embeds"].shape[0] == 1


def test_only_files_that_can_be_decoded_are_taken_for_pictures(tmp_path: Path) -> None:
    no_pictures = ["a.h5", "a.grib", "a.bufr", "a.mpg", "a.wmf", "a.emf", "a.ps", "a.pdf"]
    for name in [*no_pictures, "b.JPG", "b.webp", "b.gif"]:
        (tmp_path / name).touch()
    assert cli.pictures([str(tmp_path)]) == [str(tmp_path / name) for name in ("b.JPG", "b.gif", "b.webp")]


def test_info_counts_the_parameters(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("info", miniature, capsys=capsys)
    total = sum(tensor.size for tensor in minclip.load(miniature).weights.values())
    assert f"{total:,}, stored as float32" in out
    listed = set(re.findall(r"  file        (\S+), [\d.,]+ [KM]iB\n", out))
    assert listed == left_in(miniature)
    assert "text        1 layer, " in out
    assert f"{minclip.load(miniature).processor.context_length} tokens at most" in out


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_info_tells_the_stored_type(
    dtype: str, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(tmp_path, *checkpoints.read(miniature), dtype=dtype)
    out, _ = run("info", tmp_path, capsys=capsys)
    assert f"stored as {dtype};" in out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"minclip {minclip.__version__}\n"
    assert importlib.metadata.version("minclip") == minclip.__version__


def test_an_interrupted_start_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname == "minclip.commands.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "minclip.commands.cli")
    monkeypatch.delattr(minclip.commands, "cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert minclip.__main__.main() == 130
    assert capsys.readouterr() == ("", "")


def test_backends_lists_numpy_and_torch(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("backends", capsys=capsys)
    listed = {line.split()[0]: line for line in out.splitlines()}
    assert listed["numpy"].split()[1] == "cpu"
    assert "cpu" in listed["torch"]


def test_every_command_uses_the_default_model_where_none_is_named(
    miniature: Path, box: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "zero-shot", pictures / "red.png", "--labels", *captions()
    assert run(*words, capsys=capsys) == run(*words, "--model", miniature, capsys=capsys)
    out, _ = run("info", capsys=capsys)
    assert out.splitlines()[0] == str(box / sources.DEFAULT)
    assert out.splitlines()[1:] == run("info", miniature, capsys=capsys)[0].splitlines()[1:]
    assert "agrees" in run("diff", "--device", "cpu", capsys=capsys)[0]
    run("embed", pictures, "-o", tmp_path / "out.npz", capsys=capsys)
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["embeds"], minclip.load(miniature).encode_image(list(saved["paths"])))


def test_models_lists_the_box(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (box / "no model").mkdir()
    (line,) = run("models", capsys=capsys)[0].splitlines()
    assert line.startswith(sources.DEFAULT)
    assert line.endswith(f"MiB  {box / sources.DEFAULT} (default)")
    assert "25 languages" in line


@pytest.mark.parametrize("words", ["zero-shot x.png --labels a", "info", "diff", "demo", "models"])
def test_a_broken_installation_is_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "BUNDLED", tmp_path)
    _, err = run(*words.split(), code=2, capsys=capsys)
    assert err.startswith(f"minclip: {tmp_path} lacks {sources.DEFAULT}")
    assert len(err.splitlines()) == 1


def test_diff_finds_no_difference_to_torch(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("diff", miniature, "--backend", "torch", "--device", "cpu", "--text", "a red circle", capsys=capsys)
    assert "agrees" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("info", "no/such/folder/here"), "no/such/folder/here"),
        (("info", "nowhere"), "nowhere"),
        (("zero-shot", "--labels", "cat", "dog", "x.png"), "pictures come before --labels"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--backend", "abacus"), "no backend 'abacus'"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--device", "cuda"), "no device 'cuda'"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--dtype", "int8"), "'int8'"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--template", "photo"), "template 'photo'"),
        (("embed", "EMPTY", "-o", "out.npz", "--model", "MINIATURE"), "holds no picture files"),
        (("embed", "x.png", "-o", "no/folder/out.npz", "--model", "MINIATURE"), "not a folder"),
    ],
)
def test_errors_are_one_line(
    words: tuple[str, ...], said: str, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = {"MINIATURE": str(miniature), "EMPTY": str(tmp_path)}
    _, err = run(*(real.get(word, word) for word in words), code=2, capsys=capsys)
    assert said in err
    assert err.startswith("minclip: ")
    assert len(err.splitlines()) == 1
