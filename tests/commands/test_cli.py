"""The command line as a whole: its parser, its start, and how commands end."""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import command, run
from miniature import captions

import minclip
import minclip.__main__
import minclip.commands
from minclip.checkpoints import sources
from minclip.commands import cli
from minclip.commands.cli import main


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
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_helps_and_takes_no_abbreviations(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert cli.COMMANDS[name] in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as ended:
        main([name, "--hel"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_waits_for_nothing_heavy() -> None:
    program = (
        "import sys\nfrom minclip.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: sys.exit(' '.join({'numpy', 'PIL', 'minclip.model'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_imports_no_other_and_nothing_heavy(name: str) -> None:
    others = {f"minclip.commands.{other.replace('-', '_')}" for other in cli.COMMANDS if other != name}
    heavy = {"torch", "transformers", "hypothesis", "huggingface_hub", "sentencepiece"}
    heavy |= set() if name == "explain" else {"minclip.commands.sheet"}
    program = (
        "import sys\nfrom minclip.__main__ import main\n"
        f"try: main()\nexcept SystemExit: sys.exit(' '.join({others | heavy} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, name, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


INTERRUPT = """
import importlib.abc, os, signal, sys

_, module, picture = sys.argv

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

from minclip.__main__ import main

sys.meta_path.insert(0, Interrupting())
sys.argv = ["minclip", "zero-shot", picture, "--labels", "a", "b"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module",
    ["minclip.commands.cli", "argparse", "minclip.commands.zero_shot", "numpy", "numpy.linalg", "PIL", "minclip.model"],
)
def test_an_interrupted_import_says_nothing(module: str, pictures: Path) -> None:
    program = [sys.executable, "-c", INTERRUPT, module, str(pictures / "red.png")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert (done.stdout, done.stderr) == ("", "")


def closed(stream: int, *words: object) -> subprocess.CompletedProcess[str]:
    """minclip as a process in which a standard stream is closed."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=60, preexec_fn=lambda: os.close(stream)
    )


def test_a_closed_stdout_is_one_line(miniature: Path, pictures: Path, tmp_path: Path) -> None:
    done = closed(1, "zero-shot", pictures, "--labels", "a", "b", "--model", miniature)
    assert (done.returncode, done.stderr) == (2, "minclip: stdout is closed, so the answer could not be printed\n")
    done = closed(1, "embed", pictures, "-o", tmp_path / "out.npz", "--model", miniature)
    assert done.returncode == 0
    assert done.stderr.startswith("wrote 2 embeddings")


def test_a_closed_stderr_changes_no_answer(miniature: Path, pictures: Path, tmp_path: Path) -> None:
    words = "zero-shot", pictures, tmp_path / "missing.png", "--labels", "a", "--model", miniature
    whole = subprocess.run(command(*words), capture_output=True, text=True, timeout=60)
    done = closed(2, *words)
    assert (done.returncode, done.stdout) == (whole.returncode, whole.stdout)
    done = closed(2, "info", tmp_path / "missing")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_full_stdout_is_one_line() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("models"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "minclip: No space left on device\n")


def test_a_reader_who_leaves_early_is_no_error() -> None:
    for words in (("models",), ("--help",), ("demo",)):
        process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()  # type: ignore[union-attr]
        err = process.stderr.read()  # type: ignore[union-attr]
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in err
        assert "BrokenPipe" not in err
        process.stderr.close()  # type: ignore[union-attr]
