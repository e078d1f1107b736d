"""Imports go one way, down: the contracts in pyproject.toml hold, and can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(root), str(root / "backends")])
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_go_one_way() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("minclip/layers.py", "import minclip.model", "minclip.layers"),
        ("minclip/files.py", "import torch", "torch"),
        ("minclip/model.py", "import minclip_torch", "minclip_torch"),
        ("backends/minclip_torch/modules.py", "import minclip_torch.training", "minclip_torch.modules"),
    ],
)
def test_an_import_that_runs_up_is_found(tmp_path: Path, file: str, line: str, broken: str) -> None:
    for name in ("minclip", "backends"):
        ignored = shutil.ignore_patterns("bundled", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as f:
        f.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken in done.stdout
