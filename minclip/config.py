"""What a checkpoint's config.json says, as dataclasses with the field's names and defaults.

Three families share one shape: a text tower, a vision tower, a space that both are projected into. `FAMILIES` is
the table of what differs; a new family is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from minclip.errors import ConfigError
from minclip.files import read_json

ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "selu", "silu")
POSITION_TYPES = ("absolute", "relative_key", "relative_key_query")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The causal text tower of CLIP and MetaCLIP 2. Sizes in tokens and channels."""

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
    pad_token_id: int = 1
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def pools_largest_id(self) -> bool:
        """CLIP configs written before the field was mended say eos 2; their end-of-text token is the largest id."""
        return self.model_type == "clip_text_model" and self.eos_token_id == 2

    @property
    def context_length(self) -> int:
        """The most tokens a text may have."""
        return self.max_position_embeddings

    @property
    def output_dim(self) -> int:
        """Width of the pooled output."""
        return self.hidden_size


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
    type_vocab_size: int = 1
    position_embedding_type: str = "absolute"
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2
    project_dim: int = 768
    extra: dict[str, Any] = field(default_factory=dict)

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
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> int:
        """Patches along one side; a rest narrower than a patch is left out, as a strided convolution does."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class Family:
    """What sets a family apart: its text tower's config, its default width, its name in "architectures"."""

    text: Callable[..., TextConfig | RobertaConfig]
    projection_dim: int
    model_prefix: str


FAMILIES = {
    "clip": Family(TextConfig, 512, "CLIP"),
    "altclip": Family(RobertaConfig, 768, "AltCLIP"),
    "metaclip_2": Family(TextConfig, 512, "MetaClip2"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checkpoint's config: its family (`model_type`), its towers and the space they share.

    A single-tower checkpoint has the other tower's config None. `architectures` names the model class that wrote
    the file, as Transformers spells it, and so tells which heads there are. Fields unknown here are in `extra`.
    """

    model_type: str = "clip"
    text_config: TextConfig | RobertaConfig | None = None
    vision_config: VisionConfig | None = None
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    architectures: tuple[str, ...] = ()
    id2label: dict[int, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

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
        if model_type in tuple(FAMILIES):  # not a hash lookup: the file may hold anything here
            return _whole(dict(given), source)
        for name in FAMILIES:
            if model_type in (f"{name}_text_model", f"{name}_vision_model"):
                return _single_tower(name, dict(given), source)
        known = ", ".join(f"{name}, {name}_text_model, {name}_vision_model" for name in FAMILIES)
        raise ConfigError(f"{source}: model_type is {model_type!r}; minclip knows {known}")

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that `from_dict` and Transformers read back."""
        top: dict[str, Any] = {"architectures": list(self.architectures)} if self.architectures else {}
        if self.id2label:
            top["id2label"] = {str(key): label for key, label in self.id2label.items()}
            top["label2id"] = {label: key for key, label in self.id2label.items()}
        towers = {"text_config": self.text_config, "vision_config": self.vision_config}
        present = {name: _tower_dict(tower) for name, tower in towers.items() if tower is not None}
        if len(present) == 1:
            (tower,) = present.values()
            return {**self.extra, **top, **tower}
        shared = {"projection_dim": self.projection_dim, "logit_scale_init_value": self.logit_scale_init_value}
        return {**self.extra, **top, "model_type": self.model_type, **shared, **present}


def read_config(folder: str | Path) -> Config:
    """Read `folder/config.json`. Raises ConfigError, one line, where it is absent or does not hold together."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ConfigError(f"{path} does not exist; a checkpoint folder holds config.json beside its weights")
    return Config.from_dict(read_json(path, ConfigError), str(path))


def _whole(given: dict[str, Any], source: str) -> Config:
    model_type = given.pop("model_type")
    family = FAMILIES[model_type]
    text = _tower(family.text, f"{model_type}_text_model", _nested(given, "text_config", family.text, source), source)
    vision_given = _nested(given, "vision_config", VisionConfig, source)
    vision = _tower(VisionConfig, f"{model_type}_vision_model", vision_given, source)
    dim = given.pop("projection_dim", None)
    scale = given.pop("logit_scale_init_value", None)
    config = Config(
        model_type=model_type,
        text_config=text,
        vision_config=vision,
        projection_dim=family.projection_dim if dim is None else dim,
        logit_scale_init_value=2.6592 if scale is None else scale,
        architectures=_architectures(given, source) or (f"{family.model_prefix}Model",),
        id2label=_labels(given, source),
        extra=given,
    )
    _check_positive(config, ("projection_dim",), source)
    if not isinstance(config.logit_scale_init_value, int | float):
        raise ConfigError(f"{source}: logit_scale_init_value must be a number, found {scale!r}")
    return config


def _single_tower(family: str, given: dict[str, Any], source: str) -> Config:
    """A flat config.json: the fields of one tower."""
    architectures = _architectures(given, source)
    labels = _labels(given, source)
    text, vision = None, None
    if given["model_type"] == f"{family}_text_model":
        text = _tower(FAMILIES[family].text, given["model_type"], given, source)
        dim = getattr(text, "projection_dim", FAMILIES[family].projection_dim)
    else:
        vision = _tower(VisionConfig, given["model_type"], given, source)
        dim = vision.projection_dim
    return Config(
        model_type=family,
        text_config=text,
        vision_config=vision,
        projection_dim=dim,
        architectures=architectures,
        id2label=labels,
    )


def _nested(given: dict[str, Any], name: str, kind: Callable[..., Any], source: str) -> dict[str, Any]:
    """A tower's fields. The oldest files repeat them in `text_config_dict`, which wins, its own defaults included."""
    tower, legacy = given.pop(name, None) or {}, given.pop(f"{name}_dict", None)
    for key, value in ((name, tower), (f"{name}_dict", legacy)):
        if not isinstance(value, Mapping | None):
            raise ConfigError(f"{source}: {key} must be a JSON object, not {type(value).__name__}")
    if legacy is None:
        return dict(tower)
    defaults = asdict(kind())
    return {**tower, **{key: defaults[key] for key in defaults if key not in ("extra", "model_type")}, **legacy}


def _architectures(given: dict[str, Any], source: str) -> tuple[str, ...]:
    names = given.pop("architectures", None) or []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{source}: architectures must be a list of class names, found {names!r:.60}")
    return tuple(names)


def _labels(given: dict[str, Any], source: str) -> dict[int, str]:
    given.pop("label2id", None)
    labels = given.pop("id2label", None) or {}
    try:
        return {int(key): str(label) for key, label in labels.items()}
    except (AttributeError, ValueError):
        raise ConfigError(f"{source}: id2label must map numbers to names, found {labels!r:.60}") from None


TowerConfig = TypeVar("TowerConfig", bound=TextConfig | RobertaConfig | VisionConfig)


def _tower(kind: Callable[..., TowerConfig], model_type: str, given: Mapping[str, Any], source: str) -> TowerConfig:
    """Fill the dataclass; null counts as left out, unknown fields go to `extra`, contradictions are refused."""
    types = {f.name: f.type for f in fields(kind()) if f.name != "extra"}
    known = {name: value for name, value in given.items() if name in types and value is not None}
    known["model_type"] = model_type
    for name in ("image_size", "patch_size"):  # newer files may spell a square as a pair
        side = known.get(name)
        if isinstance(side, list | tuple) and len(side) == 2 and side[0] == side[1]:
            known[name] = side[0]
    for name, value in known.items():
        wanted = {"int": int, "float": (int, float), "str": str}[str(types[name])]
        if not isinstance(value, wanted) or isinstance(value, bool):  # type: ignore[arg-type]
            raise ConfigError(f"{source}: {name} of {model_type} must be of type {types[name]}, found {value!r}")
    tower = kind(**known, extra={name: value for name, value in given.items() if name not in types})
    _check_tower(tower, f"{source}: {model_type}")
    return tower


def _check_tower(tower: TextConfig | RobertaConfig | VisionConfig, where: str) -> None:
    signed = ("pad_token_id", "bos_token_id", "eos_token_id", "extra")
    _check_positive(tower, tuple(f.name for f in fields(tower) if f.type == "int" and f.name not in signed), where)
    if tower.hidden_size % tower.num_attention_heads:
        raise ConfigError(
            f"{where}: hidden_size {tower.hidden_size} cannot be split among "
            f"{tower.num_attention_heads} attention heads; it must be a multiple"
        )
    if tower.hidden_act not in ACTIVATIONS:
        raise ConfigError(f"{where}: hidden_act {tower.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
    if not 0 < tower.layer_norm_eps < 1:
        raise ConfigError(f"{where}: layer_norm_eps must lie between 0 and 1, found {tower.layer_norm_eps}")
    if isinstance(tower, VisionConfig) and tower.patch_size > tower.image_size:
        raise ConfigError(f"{where}: patch_size {tower.patch_size} is larger than image_size {tower.image_size}")
    if isinstance(tower, RobertaConfig):
        if tower.position_embedding_type not in POSITION_TYPES:
            raise ConfigError(
                f"{where}: position_embedding_type {tower.position_embedding_type!r} is not one of "
                f"{', '.join(POSITION_TYPES)}"
            )
        if not 0 <= tower.pad_token_id < tower.max_position_embeddings - 1:
            raise ConfigError(
                f"{where}: pad_token_id {tower.pad_token_id} leaves no position; it must be at least 0 "
                f"and below max_position_embeddings - 1 = {tower.max_position_embeddings - 1}"
            )


def _check_positive(config: object, names: tuple[str, ...], where: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{where}: {name} must be a whole number of at least 1, found {value!r}")


def _tower_dict(tower: TextConfig | RobertaConfig | VisionConfig) -> dict[str, Any]:
    known = asdict(tower)
    return {**known.pop("extra"), **known}
