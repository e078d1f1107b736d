"""What the tensors of a checkpoint are called.

minclip's names are those of a whole model in Transformers. Two other spellings are translated: single towers and
other versions of Transformers, which differ in prefixes, and the one of OpenAI's code and open_clip, which fuses
queries, keys and values and multiplies projections from the right. No translation copies a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minclip.config import Config
from minclip.errors import ConfigError

# --- names ---------------------------------------------------------------------------------------------------------

BUFFER = re.compile(r"(.*\.)?(position_ids|token_type_ids|attn_mask)|input_resolution|context_length|vocab_size")
TOP = re.compile(r"(text_model|vision_model|text_projection|visual_projection|classifier)\.|logit_scale$")
OPEN_CLIP = re.compile(
    r"visual\.|(text\.)?(transformer\.resblocks\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection$)"
)
OPEN_CLIP_TEXT = {
    "token_embedding.": "embeddings.token_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.": "final_layer_norm.",
}
OPEN_CLIP_VISION = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.": "embeddings.patch_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.": "pre_layrnorm.",
    "ln_post.": "post_layernorm.",
}
OPEN_CLIP_LAYER = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def is_buffer(name: str) -> bool:
    """Whether a tensor is no weight but a constant that old files carry along, whatever its type."""
    return BUFFER.fullmatch(name) is not None


def canonical(tensors: Mapping[str, np.ndarray], config: Config) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a file under minclip's names; a name that nobody knows stays as it is."""
    for name, array in tensors.items():
        if OPEN_CLIP.match(name):
            yield from _open_clip_tensor(name, array)
        elif name == "logit_scale" and array.shape == (1,):
            yield name, array.reshape(())
        else:
            yield _transformers_name(name, config), array


def _transformers_name(name: str, config: Config) -> str:
    """Give a bare tower its prefix, and the layers the plural that a whole model of version 4 has."""
    if not TOP.match(name) and len(config.towers) == 1:
        name = f"{config.towers[0]}_model.{name}"
    name = re.sub(r"^text_model\.roberta\.encoder\.layers\.", "text_model.roberta.encoder.layer.", name)
    return re.sub(r"^(text_model|vision_model)\.encoder\.layer\.", r"\1.encoder.layers.", name)


def _open_clip_tensor(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A tensor of OpenAI's code or open_clip: renamed, a fused projection split, a projection from the right turned."""
    rest, tower, table = name.removeprefix("text."), "text", OPEN_CLIP_TEXT
    if name.startswith("visual."):
        rest, tower, table = name.removeprefix("visual."), "vision", OPEN_CLIP_VISION
    if layer := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", rest):
        prefix, part = f"{tower}_model.encoder.layers.{layer[1]}", layer[2]
        if part in ("attn.in_proj_weight", "attn.in_proj_bias") and array.ndim:
            third = len(array) // 3
            for i, which in enumerate("qkv"):
                piece = array[i * third : (i + 1) * third if i < 2 else None]
                yield f"{prefix}.self_attn.{which}_proj.{part.removeprefix('attn.in_proj_')}", piece
            return
        rest, table = part, OPEN_CLIP_LAYER
    elif rest == "proj" or rest == "text_projection":
        yield f"{'visual' if tower == 'vision' else 'text'}_projection.weight", array.T
        return
    else:
        prefix = f"{tower}_model"
    new = next((new + rest.removeprefix(old) for old, new in table.items() if rest.startswith(old)), None)
    yield name if new is None else f"{prefix}.{new}", array


def saved_name(name: str, config: Config) -> str:
    """The name under which Transformers looks for a tensor: minclip's own, but for some bare text towers."""
    if config.towers == ("text",):
        for ours, theirs in config.family.bare_text_names:
            name = name.replace(ours, theirs)
    return name


# --- open_clip's config --------------------------------------------------------------------------------------------

OPEN_CLIP_MODEL_DEFAULTS: dict[str, Any] = {"quick_gelu": False, "custom_text": False}
OPEN_CLIP_VISION_DEFAULTS: dict[str, Any] = {
    "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224,
}  # fmt: skip
OPEN_CLIP_TEXT_DEFAULTS: dict[str, Any] = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
    "pool_type": "argmax", "eos_id": 2, "hf_tokenizer_name": None, "tokenizer_kwargs": None,
}  # fmt: skip


def from_open_clip(given: Any, source: str) -> Config:
    """The config that an open_clip_config.json describes, its fields and defaults being open_clip's.

    Pooling at the largest id is CLIP's old convention (eos 2), at the first end-of-text id it is MetaCLIP 2's.
    Raises ConfigError, one line that begins with `source`, for anything but the plain architecture.
    """
    model = given.get("model_cfg") if isinstance(given, Mapping) else None
    m = _fill(model, OPEN_CLIP_MODEL_DEFAULTS, f"{source}: model_cfg", ("embed_dim", "vision_cfg", "text_cfg"))
    v = _fill(m["vision_cfg"], OPEN_CLIP_VISION_DEFAULTS, f"{source}: vision_cfg")
    t = _fill(m["text_cfg"], OPEN_CLIP_TEXT_DEFAULTS, f"{source}: text_cfg")
    if t["pool_type"] not in ("argmax", "eos"):
        raise ConfigError(f"{source}: text_cfg pools by {t['pool_type']!r}; minclip knows 'argmax' and 'eos'")
    family, activation = (
        "metaclip_2" if t["pool_type"] == "eos" else "clip",
        "quick_gelu" if m["quick_gelu"] else "gelu",
    )
    try:
        vision = {
            "image_size": v["image_size"],
            "patch_size": v["patch_size"],
            "num_attention_heads": v["width"] // v["head_width"],
            **_blocks(v, activation),
        }
        text = {
            "vocab_size": t["vocab_size"],
            "max_position_embeddings": t["context_length"],
            "num_attention_heads": t["heads"],
            "eos_token_id": t["eos_id"] if family == "metaclip_2" else 2,
            **_blocks(t, activation),
        }
    except (TypeError, ZeroDivisionError):
        raise ConfigError(f"{source}: widths, head_width and mlp_ratio must be numbers above 0") from None
    top = {"model_type": family, "projection_dim": m["embed_dim"], "text_config": text, "vision_config": vision}
    return Config.from_dict(top, source)


def _blocks(tower: dict[str, Any], activation: str) -> dict[str, Any]:
    width, layers = tower["width"], tower["layers"]
    ffn = int(width * tower["mlp_ratio"])
    return {"hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": layers, "hidden_act": activation}


def _fill(given: Any, defaults: dict[str, Any], where: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields with their defaults; a field that would change the architecture otherwise is refused by name."""
    if not isinstance(given, Mapping) or any(name not in given for name in required):
        raise ConfigError(f"{where} must be a JSON object{' with ' + ' and '.join(required) if required else ''}")
    foreign = sorted(name for name in given if name not in defaults and name not in required and given[name])
    if foreign:
        raise ConfigError(f"{where} asks for {', '.join(foreign)}, which minclip's towers do not have")
    return {**defaults, **given}
