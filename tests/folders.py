"""Small checkpoint folders as Transformers saves them: three families, whole and in parts, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.utils.logging.disable_progress_bar()

TEXT = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 0,
    "eos_token_id": 19,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 11,
    "patch_size": 4,
}
PREFIXES = {"clip": "CLIP", "altclip": "AltCLIP", "metaclip_2": "MetaClip2"}
HEADS = ("TextModelWithProjection", "VisionModelWithProjection", "ForImageClassification")
KINDS = [
    f"{prefix}{part}"
    for prefix in PREFIXES.values()
    for part in ("Model", "TextModel", "VisionModel", *(HEADS if prefix != "AltCLIP" else ()))
]
State = dict[str, torch.Tensor]
ALTCLIP_TEXT = "text_model.roberta.encoder.layer."


def peer(kind: str, labels: int = 3, seed: int = 0) -> Any:
    """A small model of the class `kind` with random weights."""
    family, prefix = next(item for item in PREFIXES.items() if kind.startswith(item[1]))
    text = {**TEXT, "project_dim": 10} if family == "altclip" else {**TEXT, "projection_dim": 9}
    config = getattr(transformers, f"{prefix}Config")(
        text_config=text, vision_config={**VISION, "projection_dim": 9}, projection_dim=9, num_labels=labels
    )
    if "TextModel" in kind:
        config = config.text_config
    elif "VisionModel" in kind:
        config = config.vision_config
    torch.manual_seed(seed)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's tensors in float32, under the names that a whole model has."""
    kind = type(model).__name__
    bare = {"TextModel": "text_model.", "VisionModel": "vision_model."}
    prefix = next((prefix for end, prefix in bare.items() if kind.endswith(end)), "")
    state = {f"{prefix}{name}": tensor.float().numpy() for name, tensor in model.state_dict().items()}
    return {name.replace("text_model.roberta.encoder.layers.", ALTCLIP_TEXT): t for name, t in state.items()}


def assert_equal(weights: Mapping[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The very tensors, no more and no less."""
    assert set(weights) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def rewrite(folder: Path, change: Any) -> None:
    """Put `change(tensors)` in place of the tensors of a folder's model.safetensors."""
    path = folder / "model.safetensors"
    changed = change(load_file(path))
    save_file({name: tensor.contiguous() for name, tensor in changed.items()}, path, {"format": "pt"})


def edit_config(folder: Path, **fields: Any) -> None:
    """Set fields of a folder's config.json; None takes one out."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def save_torch_shards(folder: Path, model: Any) -> None:
    """The model's tensors in two files as Transformers wrote them before safetensors."""
    state = model.state_dict()
    shards = {name: f"pytorch_model-0000{1 + (i > len(state) // 2)}-of-00002.bin" for i, name in enumerate(state)}
    for shard in set(shards.values()):
        torch.save({name: tensor for name, tensor in state.items() if shards[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))


# --- OpenAI and open_clip ------------------------------------------------------------------------------------------

OPENAI_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OPENAI = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "logit_scale": "logit_scale",
}


def as_openai(state: State, text: str = "") -> State:
    """A whole model's tensors as OpenAI's code has them; `text` goes before the names of the text tower."""
    result = {OPENAI[name]: tensor for name, tensor in state.items() if name in OPENAI}
    result |= {"visual.proj": state["visual_projection.weight"].T, "text_projection": state["text_projection.weight"].T}
    for tower, new, n in (("text_model", "", 2), ("vision_model", "visual.", 3)):
        for i in range(n):
            layer, block = f"{tower}.encoder.layers.{i}", f"{new}transformer.resblocks.{i}"
            for end in ("weight", "bias"):
                qkv = [state[f"{layer}.self_attn.{which}_proj.{end}"] for which in "qkv"]
                result[f"{block}.attn.in_proj_{end}"] = torch.cat(qkv)
                for theirs, ours in OPENAI_LAYER.items():
                    result[f"{block}.{ours}.{end}"] = state[f"{layer}.{theirs}.{end}"]
    return {name if name.startswith(("visual.", "logit")) else f"{text}{name}": t for name, t in result.items()}


OPEN_CLIP_MODEL: dict[str, Any] = {
    "embed_dim": 9,
    "vision_cfg": {"image_size": 11, "layers": 3, "width": 24, "head_width": 8, "patch_size": 4, "mlp_ratio": 1.6667},
    "text_cfg": {"context_length": 12, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 1.5},
}


def save_open_clip(folder: Path, model_cfg: dict[str, Any], model: Any) -> None:
    """A folder as open_clip pushes it to the hub."""
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    state = as_openai(model.state_dict())
    save_file({name: t.contiguous().clone() for name, t in state.items()}, folder / "open_clip_model.safetensors")
