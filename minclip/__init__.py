"""One readable NumPy definition of the CLIP family, and backends proven equal to it.

import minclip
minclip.zero_shot("drawing.png", ["a cat", "a dog"])  # with a bundled model, which knows drawn pictures
minclip.zero_shot("photo.jpg", ["a cat", "a dog"], model="openai/clip-vit-large-patch14")
"""

from minclip import families as families  # fills the table of families, before anything is read
from minclip.backend import backends
from minclip.config import Config, RobertaConfig, TextConfig, VisionConfig
from minclip.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    ImageError,
    MinclipError,
    TokenizerError,
)
from minclip.loading import load, zero_shot
from minclip.model import Model
from minclip.outputs import ClassifierOutput, ModelOutput, TowerOutput
from minclip.ranking import Prediction

__all__ = [
    "BackendError",
    "CheckpointError",
    "ClassifierOutput",
    "Config",
    "ConfigError",
    "ImageError",
    "MinclipError",
    "Model",
    "ModelOutput",
    "Prediction",
    "RobertaConfig",
    "TextConfig",
    "TokenizerError",
    "TowerOutput",
    "VisionConfig",
    "backends",
    "load",
    "zero_shot",
]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    """What a user uses; the modules are there all the same."""
    return [*__all__, "__version__"]
