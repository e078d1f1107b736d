"""What a source names: a folder, a lone weight file, a bundled model, a model on the hub."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest

from minclip import checkpoints
from minclip.checkpoints import sources
from minclip.errors import CheckpointError


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoints.locate(tmp_path) == tmp_path
    assert checkpoints.locate(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoints.locate("~") == tmp_path


def test_a_folder_that_looks_like_a_hub_id_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openai" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert checkpoints.locate("openai/clip").resolve() == tmp_path / "openai" / "clip"


def test_a_bundled_model_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    monkeypatch.setattr(sources, "BUNDLED", tmp_path)
    assert checkpoints.bundled_names() == ["tiny"]
    assert checkpoints.locate("tiny") == tmp_path / "tiny"
    with pytest.raises(CheckpointError, match=r"'tony' and no bundled model of that name \(tiny\)"):
        checkpoints.locate("tony")


def test_a_weight_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert checkpoints.locate(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"


NO_IDS = ["", "nothing", "./x/y", "/x/y", "../x", "x/y/z", "x/", "~/nowhere/at", "x\\y", "a b/c", "n\0", "n" * 5000]


@pytest.mark.parametrize("source", NO_IDS)
def test_what_is_no_hub_id_is_a_path_that_is_not_there(source: str) -> None:
    with pytest.raises(CheckpointError, match=r"no folder or file .* a checkpoint folder or a hub id") as caught:
        checkpoints.locate(source)
    assert "\n" not in str(caught.value)


def test_a_path_object_is_never_a_hub_id() -> None:
    with pytest.raises(CheckpointError, match="no folder or file 'openai/clip'"):
        checkpoints.locate(Path("openai/clip"))


def test_without_the_hub_package_a_hub_id_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"no folder 'openai/clip'; .*pip install 'minclip\[hub\]'"):
        checkpoints.locate("openai/clip")


def test_the_hub_package_is_loaded_for_nothing_but_a_hub_id(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    program = f"""
import sys
from minclip import checkpoints, errors
checkpoints.read(checkpoints.locate({str(tmp_path)!r}))
try:
    checkpoints.locate("nothing")
except errors.CheckpointError:
    print(sorted({{"huggingface_hub", "torch", "requests", "httpx", "httpx2", "ssl"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("source", [5, 2.5, b"mini-clip", ["mini-clip"], object(), True])
def test_what_is_no_name_is_refused_in_one_line(source: Any) -> None:
    with pytest.raises(CheckpointError, match="a model is named by a str or a path, not by ") as caught:
        checkpoints.locate(source)
    assert "\n" not in str(caught.value)
    assert checkpoints.state_of(source) is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "picture.png", "weights.h5"])
def test_a_file_of_another_kind_is_refused_with_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{name} is no weight file \(.*the folder of a checkpoint: {tmp_path}"):
        checkpoints.locate(tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_a_pipe_or_a_device_is_no_weight_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no weight file"):
        checkpoints.locate(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/clip", ("org/clip", None)),
        ("org/clip@v2", ("org/clip", "v2")),
        ("org/clip@refs/pr/3", ("org/clip", "refs/pr/3")),
        ("hf-hub:org/clip@v2", ("org/clip", "v2")),
        ("https://huggingface.co/org/clip", ("org/clip", None)),
        ("http://hf.co/org/clip/tree/refs%2Fpr%2F3", ("org/clip", "refs/pr/3")),
        ("ViT-L/14@336px", ("openai/clip-vit-large-patch14-336", None)),
        ("https://example.org/org/clip", None),
        ("https://huggingface.co/org", None),
        ("https://huggingface.co/docs/org/clip/page", None),
        ("http://[org/clip", None),
        ("hf-hub:clip", None),
    ],
)
def test_the_spellings_of_a_model_on_the_hub(name: str, expected: tuple[str, str | None] | None) -> None:
    assert sources.on_hub(name) == expected


def test_a_trailing_slash_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    assert checkpoints.locate(f"{tmp_path}/tiny/") == tmp_path / "tiny"
    monkeypatch.setattr(sources, "BUNDLED", tmp_path)
    assert checkpoints.locate("tiny/") == tmp_path / "tiny"


# --- how its files are ---------------------------------------------------------------------------------------------


def restored(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file, and set its times back to what they were."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(path: Path) -> None:
    """Another file of the same size in its place."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    other.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "weights replaced": lambda f: restored(f / "model.safetensors", swap),
    "weights rewritten": lambda f: restored(f / "model.safetensors", lambda p: p.write_bytes(p.read_bytes()[::-1])),
    "config rewritten": lambda f: restored(f / "config.json", lambda p: p.write_bytes(p.read_bytes()[::-1])),
    "a tokenizer more": lambda f: (f / "vocab.json").write_text("{}"),
    "weights removed": lambda f: (f / "model.safetensors").unlink(),
    "folder replaced": lambda f: (shutil.copytree(f, f"{f}2"), f.rename(f"{f}3"), Path(f"{f}2").rename(f)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("lone", [False, True])
def test_a_change_is_seen_though_times_are_set_back(tmp_path: Path, change: str, lone: bool) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{ }")
    (folder / "model.safetensors").write_bytes(bytes(range(100)))
    source = folder / "model.safetensors" if lone else folder
    before = checkpoints.state_of(source)
    assert before == checkpoints.state_of(str(source))
    (folder / "notes.txt").write_text("no part of the checkpoint")
    assert before == checkpoints.state_of(source)
    CHANGES[change](folder)
    assert before != checkpoints.state_of(source)


def test_the_state_of_a_bundled_model_is_that_of_its_folder(box: Path) -> None:
    state = checkpoints.state_of(None)
    assert state is not None
    assert state == checkpoints.state_of(sources.DEFAULT) == checkpoints.state_of(box / sources.DEFAULT)


@pytest.mark.parametrize("source", ["org/clip", "nowhere", "n\0", "", "n" * 5000, "https://huggingface.co/org/clip"])
def test_what_lies_nowhere_here_has_no_state(source: str) -> None:
    assert checkpoints.state_of(source) is None
