"""One readable NumPy definition of the CLIP family, and backends proven equal to it.

import minclip
minclip.zero_shot("drawing.png", ["a cat", "a dog"])  # with a bundled model, which knows drawn pictures
minclip.zero_shot("photo.jpg", ["a cat", "a dog"], model="openai/clip-vit-large-patch14")
"""

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would cost each start milliseconds
if TYPE_CHECKING:
    from minclip import gradients as gradients
    from minclip.backend import backends as backends
    from minclip.config import Config as Config
    from minclip.config import MetaClip2TextConfig as MetaClip2TextConfig
    from minclip.config import RobertaConfig as RobertaConfig
    from minclip.config import TextConfig as TextConfig
    from minclip.config import VisionConfig as VisionConfig
    from minclip.errors import BackendError as BackendError
    from minclip.errors import CheckpointError as CheckpointError
    from minclip.errors import ConfigError as ConfigError
    from minclip.errors import ImageError as ImageError
    from minclip.errors import LabelSetError as LabelSetError
    from minclip.errors import MinclipError as MinclipError
    from minclip.errors import SearchError as SearchError
    from minclip.errors import TokenizerError as TokenizerError
    from minclip.explanations import Explanation as Explanation
    from minclip.explanations import explain as explain
    from minclip.label_set import LabelSet as LabelSet
    from minclip.loading import load as load
    from minclip.loading import zero_shot as zero_shot
    from minclip.model import Model as Model
    from minclip.outputs import ClassifierOutput as ClassifierOutput
    from minclip.outputs import ModelOutput as ModelOutput
    from minclip.outputs import TowerOutput as TowerOutput
    from minclip.ranking import Prediction as Prediction
    from minclip.search.index import Index as Index

HOMES = {
    "backend": ("backends",),
    "config": ("Config", "MetaClip2TextConfig", "RobertaConfig", "TextConfig", "VisionConfig"),
    "errors": (
        "BackendError", "CheckpointError", "ConfigError", "ImageError", "LabelSetError", "MinclipError", "SearchError",
        "TokenizerError",
    ),
    "explanations": ("Explanation", "explain"),
    "gradients": ("gradients",),
    "label_set": ("LabelSet",),
    "loading": ("load", "zero_shot"),
    "model": ("Model",),
    "outputs": ("ClassifierOutput", "ModelOutput", "TowerOutput"),
    "ranking": ("Prediction",),
    "search.index": ("Index",),
}  # fmt: skip
"""The module that each public name comes from. It is imported when the name is first asked for: `minclip --help` need
not wait for NumPy, nor who ranks labels for the database of who searches."""

__all__ = sorted(name for names in HOMES.values() for name in names)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """A public name, from its module."""
    for home, names in HOMES.items():
        if name in names:
            from importlib import import_module

            module = import_module(f"minclip.{home}")
            globals()[name] = getattr(module, name, module)
            return globals()[name]
    raise AttributeError(f"module 'minclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What a user uses; the modules are there all the same."""
    return [*__all__, "__version__"]
