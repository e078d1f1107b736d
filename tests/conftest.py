"""How hard hypothesis searches: HYPOTHESIS_PROFILE=long tries many more examples, drawn afresh; quick, a few."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minclip.checkpoints import sources

slow_draws = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=slow_draws
)
settings.register_profile("quick", settings.get_profile("default"), max_examples=5)
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
    """One thread of torch's and one of NumPy's for each of pytest's parallel workers: more would fight over the cores.

    Signals that whoever started pytest ignores (nohup, a shell's `&`) are heeded again: commands under test inherit it.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if getattr(config.option, "numprocesses", None):  # read by the workers' NumPy, which is not imported yet
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)
