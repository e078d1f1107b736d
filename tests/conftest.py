"""How hard hypothesis searches: HYPOTHESIS_PROFILE=long for many more examples, drawn afresh every time."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minclip.checkpoints import sources

slow_draws = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=slow_draws
)
settings.register_profile("long", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=slow_draws)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small checkpoint folder, tokenizer and all, that answers sensibly (`tests/miniature.py`)."""
    from miniature import make

    return make(tmp_path_factory.mktemp("miniature"))


@pytest.fixture
def box(miniature: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled models in which the miniature stands for the default one."""
    folder = tmp_path_factory.mktemp("bundled")
    (folder / sources.DEFAULT).symlink_to(miniature)
    monkeypatch.setattr(sources, "BUNDLED", folder)
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """One thread of torch's for each of pytest's parallel workers: more would fight over the cores."""
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)
