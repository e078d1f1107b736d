"""What a checkpoint's config.json says, as dataclasses with the field's names and defaults.

Three families share one shape: a text tower, a vision tower, a space that both are projected into. `Family` lists what
differs between them; `minclip.families` has a row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from minclip.checks import check_choice, check_number, check_positive, check_tower
from minclip.errors import ConfigError
from minclip.files import read_json

ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "selu", "silu")
POSITION_TYPES = ("absolute", "relative_key", "relative_key_query")


# --- towers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The causal text tower of CLIP. Sizes in tokens and channels. Raises ConfigError for values that contradict."""

    model_type: str = "clip_text_model"
    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    pad_token_id: int = 1
    bos_token_id: int = 49406
    eos_token_id: int | tuple[int, ...] = 49407
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tower(self, ACTIVATIONS)

    @property
    def pools_largest_id(self) -> bool:
        """CLIP's first configs say eos 2, which is wrong; the end-of-text token of such a checkpoint is the largest id.

        Source: `CLIPTextModel` in Transformers, which keeps this rule for old checkpoints.
        """
        return self.eos_token_id == 2

    @property
    def context_length(self) -> int:
        """The most tokens a text may have."""
        return self.max_position_embeddings

    @property
    def output_dim(self) -> int:
        """Width of the pooled output."""
        return self.hidden_size


@dataclass(frozen=True, kw_only=True)
class MetaClip2TextConfig(TextConfig):
    """The causal text tower of MetaCLIP 2: CLIP's, but 2 is a real end-of-text id."""

    model_type: str = "metaclip_2_text_model"

    @property
    def pools_largest_id(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, kw_only=True)
class RobertaConfig:
    """The bidirectional text tower of AltCLIP (XLM-R). Positions are counted from `pad_token_id + 1`."""

    model_type: str = "altclip_text_model"
    vocab_size: int = 250002
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 514
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 0.02
    type_vocab_size: int = 1
    position_embedding_type: str = "absolute"
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int | tuple[int, ...] = 2
    project_dim: int = 768
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tower(self, ACTIVATIONS)
        check_choice(self, "position_embedding_type", POSITION_TYPES)
        last = self.max_position_embeddings - 1
        if not 0 <= self.pad_token_id < last:
            raise ConfigError(
                f"{self.model_type}: pad_token_id {self.pad_token_id} leaves no position; it must be at least 0 "
                f"and below max_position_embeddings - 1 = {last}"
            )

    @property
    def context_length(self) -> int:
        """The most tokens a text may have: absolute positions up to the padding's own are never a token's."""
        absolute = self.position_embedding_type == "absolute"
        return self.max_position_embeddings - (self.pad_token_id + 1 if absolute else 0)

    @property
    def output_dim(self) -> int:
        """Width of the pooled output."""
        return self.project_dim


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision transformer of all three families. `image_size` and `patch_size` in pixels."""

    model_type: str = "clip_vision_model"
    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tower(self, ACTIVATIONS)
        if self.patch_size > self.image_size:
            raise ConfigError(
                f"{self.model_type}: patch_size {self.patch_size} is larger than image_size {self.image_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side. Pixels that do not fill a patch are left out, as a strided convolution does."""
        return self.image_size // self.patch_size


AnyTextConfig = TextConfig | RobertaConfig
AnyTowerConfig = TextConfig | RobertaConfig | VisionConfig


# --- families ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Family:
    """What sets a family apart. Code outside this row never asks which family it has before it.

    class_prefix: how Transformers' class names begin. text_config: the dataclass of its text tower. text_tower:
    (TextInputs, Weights, text config, pool=, note=) -> last hidden state (b, t, d), pooled (b, d). text_shapes: the
    tensors of that tower by name. pool: (state, TextInputs) -> pooled. ends: (input_ids, text config) -> (b,), the
    token at which each text ends, checked where inputs come in; None where any ids will do. causal: whether a token
    sees only those before it. projection_dim: the default width of the shared space. tokenizer_files: what to put
    beside the weights. heads_alone: whether Transformers has classes for a lone tower with projection or classifier.
    bare_text_names: replacements, in order, from our tensor names to those of a lone text tower's file.
    """

    class_prefix: str
    text_config: type[TextConfig] | type[RobertaConfig]
    text_tower: Callable[..., tuple[np.ndarray, np.ndarray]]
    text_shapes: Callable[[Any], dict[str, tuple[int, ...]]]
    pool: Callable[..., np.ndarray]
    ends: Callable[[np.ndarray, Any], np.ndarray] | None = None
    causal: bool = True
    projection_dim: int = 512
    tokenizer_files: str = "vocab.json and merges.txt, or tokenizer.json"
    heads_alone: bool = True
    bare_text_names: tuple[tuple[str, str], ...] = ()


FAMILIES: dict[str, Family] = {}


def families() -> dict[str, Family]:
    """The table, a row for each `model_type`. `minclip.families` fills it, which is imported when it is asked for."""
    import_module("minclip.families")
    return FAMILIES


# --- checkpoints ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checkpoint's config: its family (`model_type`), its towers and the space they share.

    A single-tower checkpoint has the other tower's config None; with neither given, both have their defaults.
    projection_dim: None is the tower's own for a single tower, else the family's default. `architectures` names the
    model class that wrote the file, as Transformers spells it, which says what heads there are. Fields unknown here
    are in `extra`. Raises ConfigError, one line, for what contradicts itself.
    """

    model_type: str = "clip"
    text_config: AnyTextConfig | None = None
    vision_config: VisionConfig | None = None
    projection_dim: int = None  # type: ignore[assignment]  # an int once it is built
    logit_scale_init_value: float = 2.6592
    initializer_factor: float = 1.0
    architectures: tuple[str, ...] = ()
    id2label: dict[int, str] = field(default_factory=dict)
    problem_type: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        family = self.family
        put = partial(object.__setattr__, self)  # the one moment at which a frozen dataclass is set
        if self.text_config is None and self.vision_config is None:
            put("text_config", family.text_config(model_type=f"{self.model_type}_text_model"))
            put("vision_config", VisionConfig(model_type=f"{self.model_type}_vision_model"))
        if self.projection_dim is None:
            alone = (self.text_config or self.vision_config) if None in (self.text_config, self.vision_config) else None
            put("projection_dim", getattr(alone, "projection_dim", family.projection_dim))
        check_positive(self, ("projection_dim",))
        for name in ("logit_scale_init_value", "initializer_factor"):
            check_number(self, name)
        check_choice(self, "problem_type", (None, *PROBLEM_TYPES))

    @classmethod
    def from_text_vision_configs(
        cls, text_config: AnyTextConfig, vision_config: VisionConfig, *, projection_dim: int | None = None
    ) -> Config:
        """A whole model of the text tower's family, as Transformers' method of that name builds one."""
        family = text_config.model_type.removesuffix("_text_model")
        vision = replace(vision_config, model_type=f"{family}_vision_model")
        dim: Any = projection_dim  # None: the family's own
        return cls(model_type=family, text_config=text_config, vision_config=vision, projection_dim=dim)

    @property
    def family(self) -> Family:
        """The row of the table that this checkpoint's family has."""
        found = families().get(self.model_type)
        if found is None:
            raise ConfigError(f"model_type is {self.model_type!r}; minclip knows {', '.join(families())}")
        return found

    @property
    def is_classifier(self) -> bool:
        """Whether the checkpoint is a vision tower with an image-classification head."""
        return any(name.endswith("ForImageClassification") for name in self.architectures)

    @property
    def num_labels(self) -> int:
        """How many classes a classifier has; files leave the names out where there are two."""
        return len(self.id2label) or 2

    @property
    def is_whole(self) -> bool:
        """Whether both towers, both projections and the logit scale are there."""
        return self.text_config is not None and self.vision_config is not None and not self.is_classifier

    @property
    def towers(self) -> tuple[str, ...]:
        """Which of "text" and "vision" the checkpoint holds."""
        text = self.text_config is not None and not self.is_classifier
        return (*(("text",) if text else ()), *(("vision",) if self.vision_config is not None else ()))

    @property
    def has_projection(self) -> bool:
        """Whether the towers are followed by a projection; a bare single tower is not."""
        return self.is_whole or any(name.endswith("WithProjection") for name in self.architectures)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], source: str = "config.json") -> Config:
        """Read the content of a config.json. Raises ConfigError, one line that begins with `source`."""
        if not isinstance(given, Mapping):
            raise ConfigError(f"{source}: expected a JSON object, found {type(given).__name__}")
        model_type = given.get("model_type")
        try:
            if model_type in tuple(families()):  # not a hash lookup: the file may hold anything here
                return _whole(dict(given))
            for name in families():
                if model_type in (f"{name}_text_model", f"{name}_vision_model"):
                    return _single_tower(name, dict(given))
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        known = ", ".join(f"{name}, {name}_text_model, {name}_vision_model" for name in families())
        raise ConfigError(f"{source}: model_type is {model_type!r}; minclip knows {known}")

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that `from_dict` and Transformers read back."""
        top: dict[str, Any] = {"architectures": list(self.architectures)} if self.architectures else {}
        if self.id2label:
            top["id2label"] = {str(key): label for key, label in self.id2label.items()}
            top["label2id"] = {label: key for key, label in self.id2label.items()}
        if self.problem_type is not None:
            top["problem_type"] = self.problem_type
        towers = {"text_config": self.text_config, "vision_config": self.vision_config}
        present = {name: _tower_dict(tower) for name, tower in towers.items() if tower is not None}
        if len(present) == 1 and not self.is_classifier:  # a classifier's is expected inside a whole config
            (tower,) = present.values()
            return {**self.extra, **top, **tower}
        shared = ("model_type", "projection_dim", "logit_scale_init_value", "initializer_factor")
        return {**self.extra, **top, **{name: getattr(self, name) for name in shared}, **present}


PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def read_config(folder: str | Path) -> Config:
    """Read `folder/config.json`. Raises ConfigError, one line, where it is absent or does not hold together."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ConfigError(f"{path} does not exist; a checkpoint folder holds config.json beside its weights")
    return Config.from_dict(read_json(path, ConfigError), str(path))


# --- reading -------------------------------------------------------------------------------------------------------


def _whole(given: dict[str, Any]) -> Config:
    model_type = given.pop("model_type")
    kind = families()[model_type].text_config
    text = _tower(kind, f"{model_type}_text_model", _nested(given, "text_config", kind))
    vision = _tower(VisionConfig, f"{model_type}_vision_model", _nested(given, "vision_config", VisionConfig))
    class_name = f"{families()[model_type].class_prefix}Model"
    heads = {"architectures": (class_name,), **_heads(given)}
    names = ("projection_dim", "logit_scale_init_value", "initializer_factor")
    shared = {name: given.pop(name) for name in names if name in given}
    shared = {name: value for name, value in shared.items() if value is not None}
    return Config(model_type=model_type, text_config=text, vision_config=vision, **heads, **shared, extra=given)


def _single_tower(family: str, given: dict[str, Any]) -> Config:
    """A flat config.json: the fields of one tower."""
    heads = _heads(given)
    if given["model_type"] == f"{family}_text_model":
        text = _tower(families()[family].text_config, given["model_type"], given)
        return Config(model_type=family, text_config=text, **heads)
    return Config(model_type=family, vision_config=_tower(VisionConfig, given["model_type"], given), **heads)


def _nested(given: dict[str, Any], name: str, kind: Callable[..., AnyTowerConfig]) -> dict[str, Any]:
    """A tower's fields. The oldest files repeat them in `text_config_dict`, which wins, its own defaults included."""
    tower, legacy = given.pop(name, None) or {}, given.pop(f"{name}_dict", None)
    for key, value in ((name, tower), (f"{name}_dict", legacy)):
        if not isinstance(value, Mapping | None):
            raise ConfigError(f"{key} must be a JSON object, not {type(value).__name__}")
    if legacy is None:
        return dict(tower)
    defaults = asdict(kind())
    return {**tower, **{key: defaults[key] for key in defaults if key not in ("extra", "model_type")}, **legacy}


def _heads(given: dict[str, Any]) -> dict[str, Any]:
    """What a file says of its model class and of a classifier's labels, taken out of `given`; absent is left out."""
    given.pop("label2id", None)
    names, labels = given.pop("architectures", None) or [], given.pop("id2label", None) or {}
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"architectures must be a list of class names, found {names!r:.60}")
    try:
        labels = {int(key): str(label) for key, label in labels.items()}
    except (AttributeError, ValueError):
        raise ConfigError(f"id2label must map numbers to names, found {labels!r:.60}") from None
    heads = {"architectures": tuple(names), "id2label": labels, "problem_type": given.pop("problem_type", None)}
    return {name: value for name, value in heads.items() if value}


def _tower(kind: Callable[..., Any], model_type: str, given: Mapping[str, Any]) -> Any:
    """Fill the dataclass; null counts as left out, fields unknown here go to `extra`."""
    names = {f.name for f in fields(kind())} - {"extra"}
    known = {name: value for name, value in given.items() if name in names and value is not None}
    for name in ("image_size", "patch_size"):  # newer files may spell a square as a pair
        side = known.get(name)
        if isinstance(side, list | tuple) and len(side) == 2 and side[0] == side[1]:
            known[name] = side[0]
    known["model_type"] = model_type
    return kind(**known, extra={name: value for name, value in given.items() if name not in names})


def _tower_dict(tower: AnyTowerConfig) -> dict[str, Any]:
    known = asdict(tower)
    return {**known.pop("extra"), **known}
