"""What the tensors of a checkpoint are called.

minclip's names are those of a whole model in Transformers. Translated are the names of single towers and of other
versions of Transformers, which differ in prefixes, and those of OpenAI and open_clip. No translation copies a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from minclip.checkpoints import open_clip
from minclip.config import Config, RobertaConfig

BUFFER = re.compile(r"(.*\.)?(position_ids|token_type_ids|attn_mask)|input_resolution|context_length|vocab_size")
TOP = re.compile(r"(text_model|vision_model|text_projection|visual_projection|classifier)\.|logit_scale$")


def is_buffer(name: str) -> bool:
    """Whether a tensor is no weight but a constant that old files carry along, whatever its type."""
    return BUFFER.fullmatch(name) is not None


def canonical(tensors: Mapping[str, np.ndarray], config: Config) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a file under minclip's names; a name that nobody knows stays as it is."""
    for name, array in tensors.items():
        if open_clip.NAMES.match(name):
            yield from open_clip.translated(name, array)
        elif name == "logit_scale" and array.shape == (1,):
            yield name, array.reshape(())
        else:
            name = _with_prefix(name, config)
            yield name, _channels_first(array, config) if name.endswith("patch_embedding.weight") else array


def _with_prefix(name: str, config: Config) -> str:
    """Give a bare tower its prefix, and the layers the plural that a whole model of version 4 has."""
    if not TOP.match(name) and len(config.towers) == 1:
        name = f"{config.towers[0]}_model.{name}"
    name = re.sub(r"^text_model\.roberta\.encoder\.layers\.", "text_model.roberta.encoder.layer.", name)
    return re.sub(r"^(text_model|vision_model)\.encoder\.layer\.", r"\1.encoder.layers.", name)


def _channels_first(array: np.ndarray, config: Config) -> np.ndarray:
    """The patch convolution (d, c, patch, patch), of which MLX has the channels last."""
    vision = config.vision_config
    if vision is not None and array.shape[1:] == (vision.patch_size, vision.patch_size, vision.num_channels):
        return np.moveaxis(array, -1, 1) if vision.patch_size != vision.num_channels else array
    return array


def saved_name(name: str, config: Config) -> str:
    """The name under which Transformers looks for a tensor: minclip's own, but for a bare text tower of AltCLIP."""
    if config.towers == ("text",) and isinstance(config.text_config, RobertaConfig):
        return name.removeprefix("text_model.").replace("roberta.encoder.layer.", "roberta.encoder.layers.")
    return name
