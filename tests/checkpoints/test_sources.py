"""What a source names: a folder, a lone weight file, a bundled model, a model on the hub."""

import subprocess
import sys
from pathlib import Path

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
