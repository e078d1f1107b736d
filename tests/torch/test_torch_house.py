"""What the torch plugin imports, and when: each claim in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def imported(code: str) -> set[str]:
    """The modules that are loaded after some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_backend_imports_none_of_the_trainer() -> None:
    found = imported("from minclip_torch import TorchBackend; import minclip_torch.backend")
    assert "torch" in found
    assert not [name for name in found if name.startswith("minclip_torch.training")]


def test_finding_the_backend_through_its_entry_point_imports_none_of_the_trainer() -> None:
    found = imported("from minclip.backend import get_backend; assert get_backend('torch').name == 'torch'")
    assert "minclip_torch.backend" in found
    assert not [name for name in found if name.startswith("minclip_torch.training")]


@pytest.mark.parametrize(
    "code",
    [
        "import minclip_torch; dir(minclip_torch)",
        "from minclip_torch.training.miniatures import drawing, pictures",
        "import runpy, sys; sys.argv = ['pictures', '--help']\n"
        "try: runpy.run_module('minclip_torch.training.miniatures.pictures', run_name='__main__')\n"
        "except SystemExit: pass",
    ],
    ids=["the package", "the drawings", "the command"],
)
def test_drawing_emoji_imports_no_torch(code: str) -> None:
    assert "torch" not in imported(code)


def test_the_package_has_its_names_and_no_others() -> None:
    import minclip_torch
    from minclip_torch.backend import TorchBackend
    from minclip_torch.modules import Clip

    assert minclip_torch.TorchBackend is TorchBackend
    assert minclip_torch.Clip is Clip
    for name in minclip_torch.__all__:
        assert name in dir(minclip_torch)
        assert getattr(minclip_torch, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'minclip_torch' has no attribute 'Trainer'"):
        _ = minclip_torch.Trainer


@pytest.mark.parametrize(
    "name", ["training", "training.evaluate", "training.miniatures.pictures", "training.miniatures"]
)
def test_the_help_of_a_command_is_what_was_typed(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    words = [sys.executable, "-m", f"minclip_torch.{name}", "--help"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: python -m minclip_torch.{name} ")
