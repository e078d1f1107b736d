"""The settings of a training run, and what follows from them: learning rate, dropped layers, dropped patches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minclip.errors import MinclipError
from minclip.files import read_json
from minclip_torch.modules import VisionEmbeddings


class RecipeError(MinclipError):
    """A recipe that cannot be run here, or not in this run folder: the setting, its value and what it may be."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run. A run folder keeps its own as recipe.json; `miniatures/recipes.py` has the bundled models'.

    Rates are fractions, `steps` and `warmup` optimizer steps, `batch_size` pairs over all processes, `chunk_size`
    pairs that go through the towers at once (0: all of a process's). Raises RecipeError naming the setting that is
    of the wrong type or out of its range.
    """

    steps: int = 5000
    batch_size: int = 256
    chunk_size: int = 0
    seed: int = 0
    dtype: str = "bfloat16"  # of the towers' arithmetic; weights and optimizer stay float32
    compile: bool = False  # the encoders: needs a C++ compiler and a minute, then 1.6 times the steps per second
    optimizer: str = "muon"  # or "adamw"
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1
    beta2: float = 0.98
    clip_norm: float = 1.0
    max_scale: float = 50.0  # cosines are multiplied by no more than this (CLIP: 100)
    average: float = 0.998  # decay, per step, of the moving average of the weights, which is evaluated and exported
    drop_path: float = 0.0  # the last layer's probability of being skipped; earlier ones' are in proportion
    drop_patches: float = 0.5
    drop_patches_until: float = 0.9  # of the steps; the last ones see whole images, as inference does
    near_synonyms: float = 0.1  # of each target
    augment: bool = True
    languages: tuple[str, ...] = ()  # () for all; templates and evaluation use an entry's first language
    first_language: float = 0.2
    captions: int = 1  # of each image in a step; the loss is the mean over them
    names: float = 0.85
    keywords: float = 0.05
    framed: float = 0.5  # of the names and keywords: in a phrase of their language, as in "a dog" (training/frames.py)
    templates: tuple[str, ...] = ()  # "a sketch of {}": instead of those phrases around the first language's captions
    freeze: tuple[str, ...] = ()  # "vision", "text"
    teacher: str = ""  # a checkpoint folder whose text tower is distilled; no images are read

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f.name, getattr(self, f.name), f.default)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise RecipeError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")
        for template in self.templates:
            if template.count("{}") != 1:
                raise RecipeError(f"template {template!r} must hold one {{}} for the caption")
        if not set(self.freeze) <= {"vision", "text"}:
            raise RecipeError(f"freeze takes vision and text, not {', '.join(self.freeze)}")
        if "text" in self.freeze and ("vision" in self.freeze or self.teacher):
            setting = f"teacher {self.teacher}" if self.teacher else f"freeze {', '.join(self.freeze)}"
            raise RecipeError(f"{setting} with the text tower frozen leaves nothing to learn: leave text out of freeze")

    def to_json(self) -> str:
        """The content of a recipe.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe.json. Raises RecipeError naming the file, and the setting that is unknown or wrong."""
        return cls.from_dict(read_json(path, RecipeError), str(path))

    @classmethod
    def from_dict(cls, given: dict[str, Any], source: str) -> Recipe:
        """Settings by name; those left out keep their defaults. Raises RecipeError that begins with `source`."""
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise RecipeError(f"{source}: {name!r} is no setting; there are {', '.join(sorted(known))}")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        try:
            return cls(**settings)
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from None

    def differences(self, other: Recipe) -> list[str]:
        """The settings in which the other recipe differs, "steps 100, not 200" where this one says 200."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name} {theirs[name]}, not {mine[name]}" for name in mine if mine[name] != theirs[name]]


# The ranges of numbers: at least this; 0 <= x < 1; 0 <= x <= 1.
LEAST = {
    "steps": 1, "batch_size": 1, "captions": 1, "chunk_size": 0, "seed": 0, "warmup": 0, "learning_rate": 0.0,
    "weight_decay": 0.0, "clip_norm": 1e-9, "max_scale": 1.0,
}  # fmt: skip
BELOW_ONE = ("beta2", "average", "drop_path", "drop_patches", "near_synonyms")
CHOICES = {"dtype": ("float32", "bfloat16"), "optimizer": ("adamw", "muon")}
FRACTIONS = ("drop_patches_until", "first_language", "names", "keywords", "framed")


def _check(name: str, value: Any, default: Any) -> None:
    """One setting by itself: of its default's type, a number in its range. Raises RecipeError naming it."""
    if isinstance(default, tuple):
        if not (isinstance(value, tuple) and all(isinstance(item, str) for item in value)):
            raise RecipeError(f"{name} must be a list of texts, not {value!r:.60}")
        return
    accepted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, accepted) or isinstance(value, bool) != isinstance(default, bool):
        raise RecipeError(f"{name} must be of type {type(default).__name__}, not {value!r:.60}")
    if name in LEAST and not LEAST[name] <= value < math.inf:
        raise RecipeError(f"{name} must be at least {LEAST[name]}, not {value}")
    if (name in BELOW_ONE and not 0 <= value < 1) or (name in FRACTIONS and not 0 <= value <= 1):
        raise RecipeError(f"{name} must lie between 0 and 1, not {value}")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the recipe's rate (Loshchilov and Hutter 2017)."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def drop_layers(layers: Iterable[nn.Module], rate: float) -> None:
    """Stochastic depth (Huang et al. 2016): in training, each row of a batch skips a layer with some probability.

    The probability grows linearly with depth, to `rate` at the last layer. layers: modules from (b, t, d) to the same
    shape. What a layer adds to the rows that do not skip it is divided by their probability, so that the expected
    output stays the same.
    """
    layers = list(layers)

    def hook(keep: float) -> Any:
        def skip(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            if not module.training:
                return output
            kept = (torch.rand(len(output), 1, 1, device=output.device) < keep).to(output.dtype) / keep  # (b, 1, 1)
            return torch.addcmul(inputs[0], output - inputs[0], kept)

        return skip

    for i, layer in enumerate(layers, start=1):
        layer.register_forward_hook(hook(1 - rate * i / len(layers)))


def drop_patches(embeddings: VisionEmbeddings, rate: float) -> Any:
    """In training, drop that share of every image's patches, drawn anew in each step (Li et al. 2023, FLIP).

    embeddings: the module that returns (b, 1 + patches, d), the class token first, which is always kept. Returns a
    handle whose `remove()` ends the dropping.
    """

    def hook(module: nn.Module, inputs: Any, x: Tensor) -> Tensor:
        if not module.training:
            return x
        b, t, d = x.shape
        kept = max(1, round((t - 1) * (1 - rate)))
        order = torch.rand(b, t - 1, device=x.device).topk(kept, dim=1).indices + 1
        patches = x.gather(1, order[:, :, None].expand(-1, -1, d))
        return torch.cat([x[:, :1], patches], dim=1)

    return embeddings.register_forward_hook(hook)
