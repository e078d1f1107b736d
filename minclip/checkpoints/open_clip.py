"""All that open_clip and OpenAI's own code do differently from Transformers: tensor names, configs, image processing.

Their attention fuses queries, keys and values into one matrix, and their projections multiply from the right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minclip.config import Config
from minclip.errors import ConfigError
from minclip.files import read_json

CONFIG = "open_clip_config.json"


def alone_describes(folder: Path) -> bool:
    """Whether only open_clip's config says what the model in a folder is; a config.json without a type is timm's."""
    if not (folder / CONFIG).exists():
        return False
    config = folder / "config.json"
    return not config.exists() or "model_type" not in read_json(config, ConfigError)


# --- tensor names --------------------------------------------------------------------------------------------------

NAMES = re.compile(
    r"visual\.|(text\.)?(transformer\.resblocks\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection$)"
)
TEXT_NAMES = {
    "token_embedding.": "embeddings.token_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.": "final_layer_norm.",
}
VISION_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.": "embeddings.patch_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.": "pre_layrnorm.",
    "ln_post.": "post_layernorm.",
}
LAYER_NAMES = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def translated(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A tensor under minclip's names: a fused projection split in three, one from the right transposed, all as views.

    A name that is none of theirs stays as it is.
    """
    rest, tower, names = name.removeprefix("text."), "text", TEXT_NAMES
    if name.startswith("visual."):
        rest, tower, names = name.removeprefix("visual."), "vision", VISION_NAMES
    prefix = f"{tower}_model"
    if layer := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", rest):
        prefix, rest, names = f"{prefix}.encoder.layers.{layer[1]}", layer[2], LAYER_NAMES
        if rest in ("attn.in_proj_weight", "attn.in_proj_bias") and array.ndim:
            third = len(array) // 3
            for i, which in enumerate("qkv"):
                piece = array[i * third : (i + 1) * third if i < 2 else None]
                yield f"{prefix}.self_attn.{which}_proj.{rest.removeprefix('attn.in_proj_')}", piece
            return
    elif rest == "proj" or rest == "text_projection":
        yield f"{'visual' if tower == 'vision' else 'text'}_projection.weight", array.T
        return
    new = next((new + rest.removeprefix(old) for old, new in names.items() if rest.startswith(old)), None)
    yield name if new is None else f"{prefix}.{new}", array


# --- config --------------------------------------------------------------------------------------------------------

MODEL_DEFAULTS: dict[str, Any] = {"quick_gelu": False, "custom_text": False}
VISION_DEFAULTS: dict[str, Any] = {
    "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224,
}  # fmt: skip
TEXT_DEFAULTS: dict[str, Any] = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
    "pool_type": "argmax", "eos_id": 2, "hf_tokenizer_name": None, "tokenizer_kwargs": None,
}  # fmt: skip
# options that matter to training or to how results are handed out, not to the numbers
IGNORED = {"patch_dropout", "output_tokens", "output_dict", "init_logit_scale", "nonscalar_logit_scale", "cast_dtype"}
# what other options say where they ask for the plain architecture, or qualify an option that is off
PLAIN: dict[str, tuple[Any, ...]] = {
    "proj_type": ("linear",), "pos_embed_type": ("learnable",), "attn_pooler_queries": (256,),
    "attn_pooler_heads": (8,), "timm_model_pretrained": (True,), "timm_pool": ("avg", "token", "map"),
    "timm_proj": ("linear", "mlp"), "hf_model_pretrained": (True,), "hf_proj_type": ("linear", "mlp"),
    "hf_pooler_type": ("mean_pooler", "cls_pooler", "max_pooler"),
}  # fmt: skip


def config_from_dict(given: Any, source: str) -> Config:
    """The config that an open_clip_config.json describes, its fields and defaults being open_clip's.

    Pooling at the largest id is CLIP's old convention (eos 2), at the first end-of-text id it is MetaCLIP 2's.
    Raises ConfigError, one line that begins with `source`, for anything but the plain architecture.
    """
    model = given.get("model_cfg") if isinstance(given, Mapping) else None
    m = _fill(model, MODEL_DEFAULTS, f"{source}: model_cfg", ("embed_dim", "vision_cfg", "text_cfg"))
    v = _fill(m["vision_cfg"], VISION_DEFAULTS, f"{source}: vision_cfg", plain={"pool_type": ("tok",)})
    t = _fill(m["text_cfg"], TEXT_DEFAULTS, f"{source}: text_cfg")
    if t["pool_type"] not in ("argmax", "eos"):
        raise ConfigError(f"{source}: text_cfg pools by {t['pool_type']!r}; minclip knows 'argmax' and 'eos'")
    family = "metaclip_2" if t["pool_type"] == "eos" else "clip"
    activation = "quick_gelu" if m["quick_gelu"] else "gelu"
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
    except (TypeError, ValueError, ArithmeticError):  # ArithmeticError: a division by 0, or a number past all floats
        raise ConfigError(f"{source}: widths, head_width and mlp_ratio must be finite numbers above 0") from None
    top = {"model_type": family, "projection_dim": m["embed_dim"], "text_config": text, "vision_config": vision}
    return Config.from_dict(top, source)


def _blocks(tower: dict[str, Any], activation: str) -> dict[str, Any]:
    width, layers = tower["width"], tower["layers"]
    ffn = int(width * tower["mlp_ratio"])
    return {"hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": layers, "hidden_act": activation}


def _fill(
    given: Any,
    defaults: dict[str, Any],
    where: str,
    required: tuple[str, ...] = (),
    plain: Mapping[str, tuple[Any, ...]] = {},
) -> dict[str, Any]:
    """The fields with their defaults; a field that would change the architecture otherwise is refused by name."""
    if not isinstance(given, Mapping) or any(name not in given for name in required):
        raise ConfigError(f"{where} must be a JSON object{' with ' + ' and '.join(required) if required else ''}")
    known = {*defaults, *required, *IGNORED}
    plain = {**PLAIN, **plain}
    foreign = sorted(
        name for name, value in given.items() if name not in known and value and value not in plain.get(name, ())
    )
    if foreign:
        raise ConfigError(f"{where} asks for {', '.join(foreign)}, which minclip's towers do not have")
    return {**defaults, **given}


# --- images --------------------------------------------------------------------------------------------------------

RESAMPLE = {"bicubic": 3, "bilinear": 2}  # Pillow's numbers, as preprocessor_config.json has them


def image_processor_fields(path: Path, side: int) -> dict[str, Any]:
    """What OpenAI's and open_clip's transform does differently from the image processor that is CLIP's own.

    path: a checkpoint folder or a lone weight file. side: that of the images which the vision tower takes. Returns
    fields of `ImageProcessor`: `crop_rounding`, and where there is an open_clip_config.json, what its `preprocess_cfg`
    asks for; nothing where a config.json alone describes the model. Raises ConfigError, naming the file, for a resize
    that minclip does not have.
    """
    folder = path if path.is_dir() else path.parent
    rounding = {"crop_rounding": "half_even"}  # torchvision's CenterCrop, by Python's round()
    file = folder / CONFIG
    if not file.exists():
        return {} if path.is_dir() or (folder / "config.json").exists() else rounding
    content = read_json(file, ConfigError)
    given = content.get("preprocess_cfg") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{file}: preprocess_cfg must be a JSON object, not {type(given).__name__}")
    mode, interpolation = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in ("bicubic", "bilinear"):
        raise ConfigError(f"{file}: resize_mode {mode!r} with interpolation {interpolation!r} is not supported")
    square = {"height": side, "width": side}
    return {
        "size": square if mode == "squash" else {"shortest_edge": side},
        "crop_size": square,
        "resample": RESAMPLE[interpolation],
        **{f"image_{name}": given[name] for name in ("mean", "std") if name in given},
        **rounding,
    }
