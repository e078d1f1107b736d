from pathlib import Path

import numpy as np
import pytest
from miniature import draw


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with blue.png and red.png, circles that the miniature knows."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for colour in ("red", "blue"):
        draw(f"a {colour} circle", rng, side=64).save(folder / f"{colour}.png")
    return folder
