"""One readable NumPy definition of the CLIP family, and backends proven equal to it.

import minclip
minclip.zero_shot("drawing.png", ["a cat", "a dog"])  # with a bundled model, which knows drawn pictures
minclip.zero_shot("photo.jpg", ["a cat", "a dog"], model="openai/clip-vit-large-patch14")
"""

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would cost each start milliseconds
if TYPE_CHECKING:
    from minclip import gradients
    from minclip.api import (
        BackendError,
        CheckpointError,
        ClassifierOutput,
        Config,
        ConfigError,
        ImageError,
        MetaClip2TextConfig,
        MinclipError,
        Model,
        ModelOutput,
        Prediction,
        RobertaConfig,
        TextConfig,
        TokenizerError,
        TowerOutput,
        VisionConfig,
        backends,
        load,
        zero_shot,
    )
    from minclip.explanations import Explanation, explain

__all__ = [
    "BackendError",
    "CheckpointError",
    "ClassifierOutput",
    "Config",
    "ConfigError",
    "Explanation",
    "ImageError",
    "MetaClip2TextConfig",
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
    "explain",
    "gradients",
    "load",
    "zero_shot",
]
__version__ = "0.1.0"
LEAVES = {"Explanation": "minclip.explanations", "explain": "minclip.explanations", "gradients": "minclip.gradients"}


def __getattr__(name: str) -> object:
    """The names above, imported when the first of them is asked for: `minclip --help` need not wait for NumPy."""
    if name not in __all__:
        raise AttributeError(f"module 'minclip' has no attribute {name!r}")
    from importlib import import_module

    if name in LEAVES:  # what few programs use is imported by itself
        leaf = import_module(LEAVES[name])
        globals()[name] = getattr(leaf, name, leaf)
        return globals()[name]
    api = import_module("minclip.api")
    globals().update({public: getattr(api, public) for public in __all__ if public not in LEAVES})
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
