"""What the fields of a config must be. Each check raises ConfigError, one line that begins with the model_type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from minclip.errors import ConfigError

if TYPE_CHECKING:  # the configs import their checks
    from minclip.config import AnyTowerConfig, Config


TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
SIGNED = ("pad_token_id", "bos_token_id", "eos_token_id")  # may be -1 where there is no such token


def check_tower(tower: AnyTowerConfig, activations: Sequence[str]) -> None:
    """The types of all fields, and what sizes must be to fit one another."""
    where = tower.model_type
    for f in fields(tower):
        value = getattr(tower, f.name)
        if f.name == "eos_token_id" and isinstance(value, list | tuple) and value:  # newer files list several
            object.__setattr__(tower, f.name, value[0] if len(value) == 1 else tuple(value))
            values, kind = list(value), "int"
        else:
            values, kind = [value], str(f.type).split(" ")[0]
        if kind in TYPES and not all(isinstance(v, TYPES[kind]) and not isinstance(v, bool) for v in values):
            raise ConfigError(f"{where}: {f.name} must be of type {kind}, found {value!r}")
    check_positive(tower, (f.name for f in fields(tower) if f.type == "int" and f.name not in SIGNED))
    if tower.hidden_size % tower.num_attention_heads:
        raise ConfigError(
            f"{where}: hidden_size {tower.hidden_size} cannot be split among "
            f"{tower.num_attention_heads} attention heads; it must be a multiple"
        )
    check_choice(tower, "hidden_act", activations)
    if not 0 < tower.layer_norm_eps < 1:
        raise ConfigError(f"{where}: layer_norm_eps must lie between 0 and 1, found {tower.layer_norm_eps}")


def check_positive(config: AnyTowerConfig | Config, names: Iterable[str]) -> None:
    """Whole numbers of at least 1."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{config.model_type}: {name} must be a whole number of at least 1, found {value!r}")


def check_number(config: AnyTowerConfig | Config, name: str) -> None:
    """Any number."""
    value = getattr(config, name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{config.model_type}: {name} must be a number, found {value!r}")


def check_choice(config: AnyTowerConfig | Config, name: str, choices: Sequence[str | None]) -> None:
    """One of a few words."""
    value = getattr(config, name)
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise ConfigError(f"{config.model_type}: {name} {value!r} is not one of {listed}")
