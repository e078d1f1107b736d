"""CLIP trained from nothing, in NumPy, in seconds: eight drawings and their names.

    python -m minclip.lesson

A random model of 70,000 numbers sees the bundled drawings and learns which name is whose. That is all that the large
models did, with a hundred million times as many pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minclip.config import Config
from minclip.contrastive import logits_per_image, probabilities, unit
from minclip.gradients.passes import forward
from minclip.gradients.training import AdamW, train
from minclip.images import ImageProcessor
from minclip.shapes import expected_shapes
from minclip.tokenizers.bpe import BPETokenizer
from minclip.weights import Weights

PICTURES = Path(__file__).parent / "bundled" / "pictures"
NAMES = ("apple", "bicycle", "dog", "fish", "guitar", "rocket", "snowman", "umbrella")
SIDE = 32


def pairs() -> tuple[dict[str, np.ndarray], BPETokenizer]:
    """The batch of eight pairs: input_ids, attention_mask and pixel_values; and the tokenizer made for the names."""
    tokenizer = BPETokenizer.train(NAMES, vocab_size=540)
    square = {"height": SIDE, "width": SIDE}
    processor = ImageProcessor(size=square, crop_size=square)
    pixels = np.stack([processor.pixels(PICTURES / f"{name}.png") for name in NAMES])
    return {**tokenizer(NAMES), "pixel_values": processor.normalize(pixels)}, tokenizer


def tiny(tokenizer: BPETokenizer, *, seed: int = 0, dtype: str = "float32") -> Any:
    """A CLIP of two narrow towers with random weights: its config and its weights.

    Matrices keep the length of what they multiply, gains are 1, biases 0, and tables are small.
    """
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 16}
    vision = {"image_size": SIDE, "patch_size": 8}
    config = Config.from_dict(
        {
            "model_type": "clip",
            "projection_dim": 32,
            "text_config": {**sizes, **text},
            "vision_config": {**sizes, **vision},
        }
    )
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        spread = 0.02 if "embedding" in name and "patch" not in name else float(np.prod(shape[1:])) ** -0.5
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        tensors[name] = start + (spread * rng.standard_normal(shape) if len(shape) > 1 else np.zeros(shape))
    tensors["vision_model.embeddings.class_embedding"] += 0.02 * rng.standard_normal(sizes["hidden_size"])
    tensors["logit_scale"] += config.logit_scale_init_value
    weights = Weights({name: np.array(tensor, dtype) for name, tensor in tensors.items()}, dtype)
    return SimpleNamespace(config=config, weights=weights, towers=None, source="the lesson's model")


def learn(steps: int = 60) -> Iterator[tuple[float, np.ndarray]]:
    """The loss before each step, and then the chances (8, 8) that the model gives each picture's names."""
    batch, tokenizer = pairs()
    model = tiny(tokenizer)
    for loss in train(model, [batch] * steps, AdamW(learning_rate=2e-3)):
        yield loss, chances(model, batch)


def chances(model: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    """How a model shares out each picture's certainty among the names (pictures, names)."""
    image, text = (unit(forward(kind, model.weights, model.config, batch).embeds) for kind in ("vision", "text"))
    return probabilities(logits_per_image(image, text, float(model.weights["logit_scale"])))


def main() -> None:
    """Print the loss on the way, and at the end what the model thinks of each picture."""
    for step, (loss, shares) in enumerate(learn()):
        if step % 10 == 0:
            print(
                f"step {step:3}  loss {loss:.3f}  right {(shares.argmax(axis=1) == np.arange(len(NAMES))).sum()} of 8"
            )
    for name, row in zip(NAMES, shares, strict=True):
        print(f"{name:>10}  {row[NAMES.index(name)]:6.1%} {NAMES[row.argmax()]}")


if __name__ == "__main__":
    main()
