"""Inputs to compare two models on, made from a config. Part of `minclip.testing`."""

from __future__ import annotations

import numpy as np

from minclip.config import Config
from minclip.images import ImageSource
from minclip.model import Model


def probe(model: Model, *, image: ImageSource | None = None, text: str | None = None) -> dict[str, np.ndarray]:
    """Inputs for every tower of a model: the image and the text, or noise and two padded rows of random ids.

    Raises ValueError for an image or a text whose tower is absent; ImageError, TokenizerError as the processor does.
    """
    for given, tower in ((image, "vision"), (text, "text")):
        if given is not None and tower not in model.config.towers:
            raise ValueError(f"{model.source} has no {tower} tower to compare on the {given!r:.60} that was given")
    rng, config = np.random.default_rng(2021), model.config
    inputs: dict[str, np.ndarray] = {}
    if text is not None:
        inputs |= model.processor(text=text)
    elif "text" in config.towers and config.text_config is not None:
        t = min(16, config.text_config.context_length)
        real = np.arange(t) < np.array([[t], [(t + 1) // 2]])  # (2, t)
        ids = random_ids(config, rng, real)
        inputs |= {"input_ids": ids, "attention_mask": real.astype(np.int64)}
    if image is not None:
        inputs |= model.processor(images=image)
    elif "vision" in config.towers and config.vision_config is not None:
        vision = config.vision_config
        shape = (1, vision.num_channels, vision.image_size, vision.image_size)
        inputs["pixel_values"] = rng.standard_normal(shape, dtype=np.float32)
    return inputs


def random_ids(config: Config, rng: np.random.Generator, real: np.ndarray, *, pad_with_end: bool = False) -> np.ndarray:
    """Ids (b, t) that end each row's run of real tokens (b, t) with the end-of-text id, and nowhere before.

    What is not real is padding: any ids but the end's, or that everywhere after the end; where the family has no rule
    for the end of a text, the padding's.
    """
    text = config.text_config
    assert text is not None
    b, t = real.shape
    last = t - 1 - real[:, ::-1].argmax(axis=1)
    end = text.vocab_size - 1 if getattr(text, "pools_largest_id", False) else int(np.min(text.eos_token_id))
    if config.family.ends is None:
        ids = np.where(real, rng.integers(0, text.vocab_size, (b, t)), text.pad_token_id)
        ids[np.arange(b), last] = end
        return ids
    ids = rng.integers(0, text.vocab_size - 1, (b, t))
    ids += ids >= end  # any id but the end's
    ids[np.arange(b), last] = end
    after = np.arange(t) > last[:, None]
    return np.where(after & pad_with_end, end, ids)
