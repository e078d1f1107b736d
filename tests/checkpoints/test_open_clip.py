"""The names, configs and image processing of OpenAI's code and open_clip."""

import json
from pathlib import Path
from typing import Any

import folders
import pytest
import torch
from safetensors.torch import save_file

from minclip import checkpoints
from minclip.checkpoints import open_clip
from minclip.errors import CheckpointError, ConfigError

BUFFERS = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}


@pytest.mark.parametrize("text", ["", "text."])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_openai_names_load(tmp_path: Path, text: str, shape: tuple[int, ...]) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path)

    def convert(state: folders.State) -> folders.State:
        scale = {"logit_scale": state["logit_scale"].reshape(shape)}
        return folders.as_openai(state, text) | BUFFERS | {f"{text}attn_mask": torch.zeros(12, 12)} | scale

    folders.rewrite(tmp_path, convert)
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


def test_openai_names_are_views_of_the_file_too(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    folders.rewrite(tmp_path, folders.as_openai)
    _, weights = checkpoints.read(tmp_path)
    assert not any(array.flags.owndata or array.flags.writeable for array in weights.values())
    layer = weights.at("vision_model.encoder.layers.0.self_attn")
    q, v = layer["q_proj.weight"], layer["v_proj.weight"]
    assert v.ctypes.data - q.ctypes.data == 2 * q.nbytes


def test_a_fused_projection_of_a_wrong_height_is_refused(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    fused = "transformer.resblocks.0.attn.in_proj_weight"
    folders.rewrite(tmp_path, lambda state: folders.as_openai(state) | {fused: torch.zeros(49, 16)})
    with pytest.raises(CheckpointError, match=r"v_proj\.weight \(17, 16\) in model\.safetensors instead of \(16, 16\)"):
        checkpoints.read(tmp_path)


def test_an_open_clip_folder_loads_without_a_config_of_transformers(tmp_path: Path) -> None:
    model = folders.peer("CLIPModel")
    folders.save_open_clip(tmp_path, folders.OPEN_CLIP_MODEL, model)
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


def test_an_open_clip_folder_loads_beside_timm_files(tmp_path: Path) -> None:
    """The hub's timm repositories hold the vision tower a second time, in timm's own config and names."""
    model = folders.peer("CLIPModel")
    folders.save_open_clip(tmp_path, folders.OPEN_CLIP_MODEL, model)
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny", "num_classes": 9}')
    save_file({"cls_token": torch.ones(1, 1, 24)}, tmp_path / "model.safetensors")
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


def test_open_clip_defaults_are_its_own() -> None:
    """gelu where quick_gelu is not asked for, heads 64 wide, eos as `argmax` pooling has it."""
    config = open_clip.config_from_dict({"model_cfg": {"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}}, "x")
    assert (config.model_type, config.projection_dim) == ("clip", 512)
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_act, vision.hidden_size, vision.num_attention_heads) == ("gelu", 768, 12)
    assert (text.hidden_act, text.hidden_size, text.num_attention_heads) == ("gelu", 512, 8)
    assert (vision.patch_size, vision.intermediate_size, text.intermediate_size) == (16, 3072, 2048)
    assert text.pools_largest_id


def test_open_clip_options_reach_the_config() -> None:
    text = {"pool_type": "eos", "eos_id": 2, "vocab_size": 901629, "hf_tokenizer_name": "facebook/xlm-v-base"}
    model = {"embed_dim": 512, "quick_gelu": True, "custom_text": True, "vision_cfg": {}, "text_cfg": text}
    config = open_clip.config_from_dict({"model_cfg": model}, "x")
    assert config.model_type == "metaclip_2"
    assert (config.text_config.hidden_act, config.vision_config.hidden_act) == ("quick_gelu", "quick_gelu")
    assert (config.text_config.eos_token_id, config.text_config.pools_largest_id) == (2, False)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small model's config with another value in one place."""
    model: dict[str, Any] = json.loads(json.dumps(folders.OPEN_CLIP_MODEL))
    *outer, last = path.split(".")
    (model[outer[0]] if outer else model)[last] = value
    return model


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("vision_cfg.timm_model_name", "vit_tiny", "timm_model_name"),
        ("vision_cfg.layers", [3, 4, 6, 3], "num_hidden_layers"),
        ("vision_cfg.head_width", 0, "head_width"),
        ("vision_cfg.width", "wide", "numbers"),
        ("text_cfg.hf_model_name", "xlm-roberta-base", "hf_model_name"),
        ("text_cfg.pool_type", "last", "'last'"),
        ("init_logit_bias", -10, "init_logit_bias"),
        ("text_cfg", None, "JSON object"),
        ("embed_dim", 0, "projection_dim"),
    ],
)
def test_an_open_clip_architecture_that_is_not_ours_is_refused_by_name(path: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^here: .*{words}"):
        open_clip.config_from_dict({"model_cfg": changed(path, value)}, "here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vision_cfg.patch_dropout", 0.5),
        ("vision_cfg.output_tokens", True),
        ("vision_cfg.pool_type", "tok"),
        ("vision_cfg.pos_embed_type", "learnable"),
        ("vision_cfg.attentional_pool", False),
        ("vision_cfg.attn_pooler_queries", 256),
        ("vision_cfg.timm_model_name", None),
        ("vision_cfg.timm_proj", "linear"),
        ("text_cfg.output_tokens", True),
        ("text_cfg.proj_type", "linear"),
        ("text_cfg.act_kwargs", {}),
        ("init_logit_scale", 2.3),
        ("init_logit_bias", None),
        ("nonscalar_logit_scale", True),
        ("output_dict", True),
        ("cast_dtype", "bf16"),
    ],
)
def test_options_that_leave_the_numbers_as_they_are_are_accepted(path: str, value: Any) -> None:
    assert open_clip.config_from_dict({"model_cfg": changed(path, value)}, "x") == open_clip.config_from_dict(
        {"model_cfg": folders.OPEN_CLIP_MODEL}, "x"
    )


NUMBERS = [10**400, -(10**400), float("inf"), float("nan"), 1e308, -1, 0, "3", [3], {}, None, True, 2.5]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: str(value)[:10])
@pytest.mark.parametrize(
    "path",
    [
        f"{tower}.{name}"
        for tower, names in (
            ("vision_cfg", ("width", "layers", "head_width", "mlp_ratio", "patch_size", "image_size")),
            ("text_cfg", ("width", "layers", "heads", "mlp_ratio", "context_length", "vocab_size", "eos_id")),
        )
        for name in names
    ],
)
def test_a_number_of_any_kind_is_taken_or_refused_in_one_line(path: str, value: Any) -> None:
    message = "here: taken"
    try:
        open_clip.config_from_dict({"model_cfg": changed(path, value)}, "here")
    except ConfigError as error:
        message = str(error)
    assert message.startswith("here: ")
    assert "\n" not in message


@pytest.mark.parametrize("content", [[], {}, {"model_cfg": 3}, {"model_cfg": {"embed_dim": 3}}])
def test_an_open_clip_config_without_a_model_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match="here: model_cfg must be a JSON object"):
        open_clip.config_from_dict(content, "here")


# --- images --------------------------------------------------------------------------------------------------------


def with_preprocessing(folder: Path, **fields: Any) -> Path:
    content = {"model_cfg": folders.OPEN_CLIP_MODEL, "preprocess_cfg": fields}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


def test_open_clip_images_are_resized_by_the_shorter_side_and_cropped_half_to_even(tmp_path: Path) -> None:
    assert open_clip.image_processor_fields(with_preprocessing(tmp_path), 11) == {
        "size": {"shortest_edge": 11},
        "crop_size": {"height": 11, "width": 11},
        "resample": 3,
        "crop_rounding": "half_even",
    }


def test_open_clip_options_for_images_reach_the_image_processor(tmp_path: Path) -> None:
    given = {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "interpolation": "bilinear", "resize_mode": "squash"}
    found = open_clip.image_processor_fields(with_preprocessing(tmp_path, **given), 11)
    assert found["size"] == {"height": 11, "width": 11}
    assert (found["image_mean"], found["image_std"], found["resample"]) == ([0.1, 0.2, 0.3], [1, 2, 3], 2)


def test_a_lone_file_is_cropped_as_openai_does_and_a_folder_of_transformers_is_not(tmp_path: Path) -> None:
    (tmp_path / "ViT-B-32.pt").write_bytes(b"")
    assert open_clip.image_processor_fields(tmp_path / "ViT-B-32.pt", 224) == {"crop_rounding": "half_even"}
    assert open_clip.image_processor_fields(tmp_path, 224) == {}
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert open_clip.image_processor_fields(tmp_path / "ViT-B-32.pt", 224) == {}


@pytest.mark.parametrize(
    "given", [{"resize_mode": "longest"}, {"interpolation": "random"}, {"resize_mode": [1]}, {"interpolation": {}}]
)
def test_a_resize_that_minclip_does_not_have_is_refused_by_name(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"open_clip_config\.json: resize_mode .* is not supported"):
        open_clip.image_processor_fields(with_preprocessing(tmp_path, **given), 224)


def test_preprocessing_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": [1]}')
    with pytest.raises(ConfigError, match="preprocess_cfg must be a JSON object, not list"):
        open_clip.image_processor_fields(tmp_path, 224)
