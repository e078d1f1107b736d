"""One readable NumPy definition of the CLIP family, and backends proven equal to it.

import minclip
minclip.zero_shot("drawing.png", ["a cat", "a dog"])  # with a bundled model, which knows drawn pictures
minclip.zero_shot("photo.jpg", ["a cat", "a dog"], model="openai/clip-vit-large-patch14")
"""

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would cost each start milliseconds
if TYPE_CHECKING:
    from minclip.api import (
        BackendError,
        CheckpointError,
        ConfigError,
        ImageError,
        MinclipError,
        Model,
        ModelOutput,
        Prediction,
        SearchError,
        TokenizerError,
        backends,
        load,
        zero_shot,
    )
    from minclip.search.index import Index

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "ImageError",
    "Index",
    "MinclipError",
    "Model",
    "ModelOutput",
    "Prediction",
    "SearchError",
    "TokenizerError",
    "backends",
    "load",
    "zero_shot",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The names above, imported when the first of them is asked for: `minclip --help` need not wait for NumPy."""
    if name not in __all__:
        raise AttributeError(f"module 'minclip' has no attribute {name!r}")
    from importlib import import_module

    if name == "Index":  # with its database: who embeds or ranks does not wait for it
        globals()[name] = import_module("minclip.search.index").Index
    else:
        api = import_module("minclip.api")
        globals().update({public: getattr(api, public) for public in __all__ if public != "Index"})
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
