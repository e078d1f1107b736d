"""Full-size architectures with random weights, on which speed does not depend, written as checkpoint folders.

`python -m minclip.bench.random_models NAME FOLDER DTYPE` writes one, in a process whose memory is then free.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minclip import checkpoints
from minclip.config import Config, MetaClip2TextConfig, TextConfig, VisionConfig
from minclip.errors import CheckpointError
from minclip.images import ImageProcessor
from minclip.initialization import initial_weights
from minclip.tokenizers import find_tokenizer

TOKENIZER = "mini-clip"  # the bundled model whose tokenizer the random ViT-B/32 has: CLIP's own is not bundled
SMALL = "ViT-B/32"
HUGE = "MetaCLIP 2 huge"


def _size(width: int, *, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


# the released sizes, from smallest to largest (Radford et al. 2021, table 20; Cherti et al. 2023, table 1)
_LARGE, _HUGE = _size(1024, layers=24, heads=16), _size(1280, layers=32, heads=16)
VISION: dict[str, Callable[[], VisionConfig]] = {
    "ViT-B/32": lambda: VisionConfig(),
    "ViT-B/16": lambda: VisionConfig(patch_size=16),
    "ViT-L/14": lambda: VisionConfig(**_LARGE, patch_size=14, projection_dim=768),
    "ViT-H/14": lambda: VisionConfig(**_HUGE, patch_size=14, projection_dim=1024, hidden_act="gelu"),
}


def vision_model(name: str) -> Config:
    """The vision tower of one of the released sizes, with its projection."""
    return Config(vision_config=VISION[name](), architectures=("CLIPVisionModelWithProjection",))


def small(eos_token_id: int) -> Config:
    """ViT-B/32, for a tokenizer that ends texts with this id."""
    text = TextConfig(eos_token_id=eos_token_id, bos_token_id=eos_token_id - 1, pad_token_id=eos_token_id)
    return Config(text_config=text, vision_config=VISION[SMALL](), architectures=("CLIPModel",))


def huge() -> Config:
    """MetaCLIP 2 huge: 1.9 billion parameters, half of them in the table of 901,629 tokens (Chuang et al. 2025)."""
    text = MetaClip2TextConfig(**_LARGE, vocab_size=901629, bos_token_id=0, eos_token_id=2, projection_dim=1024)
    vision = VisionConfig(**_HUGE, model_type="metaclip_2_vision_model", patch_size=14, projection_dim=1024)
    return Config(
        model_type="metaclip_2",
        text_config=text,
        vision_config=vision,
        projection_dim=1024,
        architectures=("MetaClip2Model",),
    )


def write(name: str, folder: Path, dtype: str = "float32") -> None:
    """Write SMALL, with a tokenizer and an image processor, or HUGE, without."""
    files: dict[str, bytes] = {}
    if name == SMALL:
        tokenizer = find_tokenizer(checkpoints.locate(TOKENIZER))
        assert tokenizer is not None
        config = small(tokenizer.eos_token_id)
        files = tokenizer.files() | ImageProcessor().files(folder)
    else:
        config = huge()
    checkpoints.save(folder, config, initial_weights(config), files, dtype=dtype)


def write_in_a_process(name: str, folder: Path, dtype: str = "float32") -> None:
    """`write` in a process of its own. Raises CheckpointError with what it said where it failed."""
    command = [sys.executable, "-m", "minclip.bench.random_models", name, str(folder), dtype]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CheckpointError(f"{name} with random weights could not be written to {folder}: {''.join(said[-1:])}")


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
