"""A small CLIP checkpoint made on the spot, without training: random towers, projections solved by least squares.

Random features carry much of what distinguishes simple pictures (Rahimi and Recht 2007), so it is enough to fit the two
projections: each caption is given a random direction in the shared space, and ridge regression maps the towers' pooled
outputs onto it, for the captions and for drawings of what they say. The result is an ordinary checkpoint folder that
tells apart the colours below nearly always and the shapes below most of the time, drawn as here, and knows nothing else
in the world.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from minclip import checkpoints
from minclip.backend import NumpyTowers
from minclip.config import Config
from minclip.images import ImageProcessor
from minclip.inputs import ImageInputs, text_inputs
from minclip.shapes import expected_shapes
from minclip.tokenizers.bpe import BPETokenizer
from minclip.weights import Weights

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "yellow": (240, 210, 50)}
SHAPES = ("circle", "square", "triangle")
SIDE, PATCH, DIM = 32, 16, 32


def captions() -> list[str]:
    """Everything there is: "a red circle", ..."""
    return [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


def draw(caption: str, rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """A picture of a caption, at a random place and size on a random light grey, `side` pixels square."""
    _, colour, shape = caption.split()
    grey = int(rng.integers(170, 256))
    picture = Image.new("RGB", (side, side), (grey, grey, grey))
    pen = ImageDraw.Draw(picture)
    radius = side * rng.uniform(0.28, 0.42)
    x, y = rng.uniform(radius, side - radius, size=2)
    box = (x - radius, y - radius, x + radius, y + radius)
    fill = tuple(int(c) for c in np.clip(np.array(COLOURS[colour]) + rng.integers(-20, 21, 3), 0, 255))
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        pen.rectangle(box, fill=fill)
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    return picture


def make(folder: str | Path, *, drawings: int = 4000, seed: int = 0) -> Path:
    """Write the checkpoint (config, weights, tokenizer, preprocessor_config.json) to `folder`, which is made.

    drawings: how many pictures the image projection is fitted to. The same seed gives the same file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tokenizer = BPETokenizer.train(captions(), vocab_size=560)
    config = _config(tokenizer)
    processor = ImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    tensors = _random_tensors(config, rng)
    towers = NumpyTowers(config, Weights(tensors))

    texts = captions()
    directions = rng.normal(size=(len(texts), DIM)).astype(np.float32)
    features = towers.text(text_inputs(config, input_ids=tokenizer(texts)["input_ids"])).pooler_output  # (n, d)
    tensors["text_projection.weight"] = _ridge(features, directions).astype(np.float32)
    which = rng.integers(len(texts), size=drawings)
    pixels = np.stack([processor.pixels(draw(texts[i], rng)) for i in which])
    features = towers.vision(ImageInputs(processor.normalize(pixels))).pooler_output  # (drawings, d)
    tensors["visual_projection.weight"] = _ridge(features, directions[which]).astype(np.float32)

    checkpoints.save(folder, config, Weights(tensors))
    tokenizer.save(folder)
    processor.save(folder)
    return folder


def _config(tokenizer: BPETokenizer) -> Config:
    shared = {"num_hidden_layers": 1, "num_attention_heads": 4}
    text = {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": 64,
        "intermediate_size": 128,
    }
    vision = {"hidden_size": 512, "intermediate_size": 256, "image_size": SIDE, "patch_size": PATCH}
    return Config.from_dict(
        {
            "model_type": "clip",
            "projection_dim": DIM,
            "logit_scale_init_value": 3.0,
            "text_config": {**shared, **text},
            "vision_config": {**shared, **vision},
        }
    )


def _random_tensors(config: Config, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Norms that do nothing, matrices that keep the length of what they multiply, the rest small."""
    tensors = {}
    for name, shape in expected_shapes(config).items():
        if len(shape) > 1:
            fan_in = 1 if "embedding.weight" in name and "patch" not in name else int(np.prod(shape[1:]))
            value = rng.normal(scale=fan_in**-0.5, size=shape)
        elif name.endswith("weight"):
            value = np.ones(shape)
        elif name == "logit_scale":
            value = np.array(config.logit_scale_init_value)
        else:
            value = rng.normal(scale=0.1, size=shape)
        tensors[name] = value.astype(np.float32)
    return tensors


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float = 1e-3) -> np.ndarray:
    """The matrix W (p, d) for which x W^T comes closest to y, large weights penalized. x (n, d), y (n, p)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    gram = x.T @ x / len(x)
    return np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y / len(x)).T
