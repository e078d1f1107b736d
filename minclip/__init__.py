"""One readable NumPy definition of the CLIP family, and backends proven equal to it.

import minclip
minclip.zero_shot("drawing.png", ["a cat", "a dog"])  # with a bundled model, which knows drawn pictures
minclip.zero_shot("photo.jpg", ["a cat", "a dog"], model="openai/clip-vit-large-patch14")
"""

from minclip.backend import backends
from minclip.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    ImageError,
    MinclipError,
    TokenizerError,
)
from minclip.model import Model, ModelOutput, load, zero_shot
from minclip.ranking import Prediction

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "ImageError",
    "MinclipError",
    "Model",
    "ModelOutput",
    "Prediction",
    "TokenizerError",
    "backends",
    "load",
    "zero_shot",
]
__version__ = "0.1.0"
