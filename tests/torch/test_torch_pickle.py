"""Models on torch can be sent to another process."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import minclip

TEXTS = ["a red disc", "a blue box"]


def embedded(model: minclip.Model) -> np.ndarray:
    found: np.ndarray = model.encode_text(TEXTS)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_model_that_was_pickled_answers_to_the_bit(miniature: Path, dtype: str) -> None:
    model = minclip.load(miniature, backend="torch", device="cpu", dtype=dtype)
    data = pickle.dumps(model)
    again = pickle.loads(data)
    image = np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3)
    np.testing.assert_array_equal(again.encode_text(TEXTS), embedded(model))
    np.testing.assert_array_equal(again.encode_image(image), model.encode_image(image))
    assert (again.towers.device, again.towers.dtype) == (model.towers.device, model.towers.dtype)
    weights = sum(model.weights.stored(name).nbytes for name in model.weights)
    assert len(data) < 1.2 * weights + 200_000  # they are in it once


def test_compiled_towers_stay_compiled(miniature: Path) -> None:
    model = minclip.load(miniature, backend="torch", device="cpu")
    towers = type(model.towers)(model.config, model.weights, model.towers.device, model.towers.dtype, compiled=True)
    again = pickle.loads(pickle.dumps(towers))
    assert again._text != again._run_text  # what torch.compile returned


def test_a_model_goes_to_a_worker_process(miniature: Path) -> None:
    model = minclip.load(miniature, backend="torch", device="cpu")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(embedded, model).result()
    np.testing.assert_allclose(found, embedded(model), atol=1e-6)
