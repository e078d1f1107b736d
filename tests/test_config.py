"""Configs against Transformers' own classes, and every contradiction refused in one line."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from minclip.config import ACTIVATIONS, Config, RobertaConfig, TextConfig, VisionConfig, read_config
from minclip.errors import ConfigError
from minclip.families import FAMILIES

RELEASED = Path(__file__).parents[2] / "shared" / "data" / "clip-vit-base-patch32"

PEERS = {
    "clip": (transformers.CLIPConfig, transformers.CLIPTextConfig, transformers.CLIPVisionConfig),
    "altclip": (transformers.AltCLIPConfig, transformers.AltCLIPTextConfig, transformers.AltCLIPVisionConfig),
    "metaclip_2": (transformers.MetaClip2Config, transformers.MetaClip2TextConfig, transformers.MetaClip2VisionConfig),
}
families = st.sampled_from(sorted(PEERS))


def assert_same_fields(tower: Any, peer: Any) -> None:
    """Every field of ours, the name of the kind included, has the peer's value; it forgot position types by now."""
    for field in fields(tower):
        if field.name not in ("extra", "position_embedding_type"):
            found = getattr(tower, field.name)
            assert found == getattr(peer, field.name), (
                f"{field.name} is {found}, the peer's {getattr(peer, field.name)}"
            )


def assert_same_config(config: Config, peer: Any) -> None:
    assert config.model_type == peer.model_type
    assert config.projection_dim == peer.projection_dim
    assert config.logit_scale_init_value == peer.logit_scale_init_value
    assert_same_fields(config.text_config, peer.text_config)
    assert_same_fields(config.vision_config, peer.vision_config)


# --- drawn files ---------------------------------------------------------------------------------------------------

unknown = st.dictionaries(
    st.text("abcdefgh_", min_size=1).map("x_".__add__),
    st.none() | st.integers() | st.text(max_size=5) | st.lists(st.booleans(), max_size=2),
    max_size=3,
)


@st.composite
def tower_fields(draw: st.DrawFn, kind: type) -> dict[str, Any]:
    """Some fields of a tower; the sizes are such that any of them go together."""
    size, count = st.sampled_from([96, 192, 768, 1536]), st.integers(1, 100)
    values = {
        "hidden_size": size,
        "num_attention_heads": st.sampled_from([1, 2, 4, 8, 16]),
        "hidden_act": st.sampled_from(ACTIVATIONS),
        "layer_norm_eps": st.sampled_from([1e-5, 1e-6, 0.5]),
        "attention_dropout": st.sampled_from([0.0, 0.25]),
        "initializer_range": st.sampled_from([0.02, 0.1]),
        "initializer_factor": st.sampled_from([1.0, 0.5]),
        "hidden_dropout_prob": st.sampled_from([0.0, 0.25]),
        "attention_probs_dropout_prob": st.sampled_from([0.0, 0.25]),
        "max_position_embeddings": st.integers(200, 600),
        "image_size": st.integers(100, 600),
        "patch_size": st.integers(1, 100),
        **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], st.integers(0, 99)),
    }
    names = [field.name for field in fields(kind) if field.name not in ("extra", "model_type")]
    names = [name for name in names if name != "position_embedding_type" and draw(st.booleans())]
    return {name: draw(values.get(name, count)) for name in names}


@st.composite
def whole_files(draw: st.DrawFn, legacy: bool = False) -> dict[str, Any]:
    """A whole model's config.json; legacy: with towers' fields also where the oldest files had them."""
    family = draw(families)
    given = {"model_type": family, **draw(st.fixed_dictionaries({}, optional={"projection_dim": st.integers(1, 99)}))}
    for name, kind in (("text_config", FAMILIES[family].text_config), ("vision_config", VisionConfig)):
        for key in (name, f"{name}_dict") if legacy else (name,):
            if draw(st.booleans()):
                given[key] = draw(tower_fields(kind))
    return given


# --- the peer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PEERS)
def test_defaults_are_the_peers(family: str) -> None:
    assert_same_config(Config.from_dict({"model_type": family}), PEERS[family][0]())


def test_the_dataclasses_alone_have_the_peers_defaults_too() -> None:
    assert_same_fields(TextConfig(), transformers.CLIPTextConfig())
    assert_same_fields(RobertaConfig(), transformers.AltCLIPTextConfig())
    assert_same_fields(VisionConfig(), transformers.CLIPVisionConfig())
    assert RobertaConfig().position_embedding_type == "absolute"
    assert Config().projection_dim == transformers.CLIPConfig().projection_dim


@given(whole_files())
def test_a_whole_file_means_what_it_means_to_the_peer(given: dict[str, Any]) -> None:
    assert_same_config(Config.from_dict(given), PEERS[given["model_type"]][0].from_dict(given))


@given(whole_files(legacy=True))
def test_text_config_dict_means_what_it_means_to_the_peer(given: dict[str, Any]) -> None:
    """It wins over text_config, with its own defaults for what it leaves out."""
    peer = PEERS[given["model_type"]][0].from_dict(json.loads(json.dumps(given)))
    assert_same_config(Config.from_dict(given), peer)


@given(families, st.data())
def test_a_single_towers_file_means_what_it_means_to_the_peer(family: str, data: st.DataObject) -> None:
    _, text_class, vision_class = PEERS[family]
    for kind, peer_class in ((FAMILIES[family].text_config, text_class), (VisionConfig, vision_class)):
        given = {**data.draw(tower_fields(kind)), "model_type": peer_class.model_type}
        config = Config.from_dict(given)
        is_text = kind is not VisionConfig
        assert config.model_type == family
        assert config.towers == (("text",) if is_text else ("vision",))
        assert (config.vision_config if is_text else config.text_config) is None
        assert_same_fields(config.text_config if is_text else config.vision_config, peer_class.from_dict(given))


@given(whole_files())
def test_what_the_peer_saves_we_read(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("saved")
    peer = PEERS[given["model_type"]][0].from_dict(given)
    for part in (peer, peer.text_config, peer.vision_config):
        part.save_pretrained(folder)
        config = read_config(folder)
        if part is peer:
            assert_same_config(config, peer)
        else:
            assert_same_fields(config.text_config or config.vision_config, part)


@given(whole_files())
def test_what_we_write_the_peer_reads(given: dict[str, Any]) -> None:
    config = Config.from_dict({**given, "id2label": {"0": "cat", "1": "dog", "2": "eel"}})
    written = json.loads(json.dumps(config.to_dict()))
    peer = PEERS[given["model_type"]][0].from_dict(written)
    assert_same_config(config, peer)
    assert peer.architectures == list(config.architectures)
    assert peer.id2label == config.id2label
    for tower, peer_class in zip((config.text_config, config.vision_config), PEERS[config.model_type][1:], strict=True):
        single = Config(model_type=config.model_type, **{peer_class.base_config_key: tower})
        assert_same_fields(tower, peer_class.from_dict(json.loads(json.dumps(single.to_dict()))))


# --- round trips ---------------------------------------------------------------------------------------------------


@given(whole_files(), unknown, unknown, unknown)
def test_a_file_comes_back_whole_with_fields_unknown_here(
    given: dict[str, Any], top: dict[str, Any], text: dict[str, Any], vision: dict[str, Any]
) -> None:
    given = {**top, **given}
    given["text_config"] = {**text, **given.get("text_config", {})}
    given["vision_config"] = {**vision, **given.get("vision_config", {})}
    before = json.dumps(given)
    config = Config.from_dict(given)
    written = config.to_dict()
    assert json.dumps(given) == before
    assert Config.from_dict(written) == config
    for name, value in given.items():
        if name in ("text_config", "vision_config"):
            assert {key: written[name][key] for key in value} == value
        else:
            assert written[name] == value


@given(families, st.data(), unknown)
def test_a_single_towers_file_comes_back_whole(family: str, data: st.DataObject, extra: dict[str, Any]) -> None:
    for kind, name in ((FAMILIES[family].text_config, "text"), (VisionConfig, "vision")):
        given = {**extra, **data.draw(tower_fields(kind)), "model_type": f"{family}_{name}_model"}
        given["architectures"] = ["Some" + name.title() + "ModelWithProjection"]
        config = Config.from_dict(given)
        written = config.to_dict()
        assert Config.from_dict(written) == config
        assert all(written[key] == value for key, value in given.items())


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released CLIP files are not here")
def test_the_released_config_pools_the_largest_id() -> None:
    config = read_config(RELEASED)
    assert isinstance(config.text_config, TextConfig)
    assert config.text_config.eos_token_id == 2
    assert config.text_config.pools_largest_id
    assert config.is_whole
    assert_same_config(config, transformers.CLIPConfig.from_pretrained(RELEASED))
    assert config.to_dict().items() >= {"torch_dtype": "float32", "initializer_factor": 1.0}.items()


def test_only_clip_pools_the_largest_id() -> None:
    def pools(family: str, eos: int) -> bool:
        text = Config.from_dict({"model_type": family, "text_config": {"eos_token_id": eos}}).text_config
        assert isinstance(text, TextConfig)
        return text.pools_largest_id

    assert pools("clip", 2)
    assert not pools("clip", 49407)
    assert not pools("metaclip_2", 2)


# --- what a checkpoint holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "towers", "whole", "projection", "classifier"),
    [
        ({"model_type": "clip"}, ("text", "vision"), True, True, False),
        ({"model_type": "clip", "architectures": ["CLIPForImageClassification"]}, ("vision",), False, False, True),
        ({"model_type": "clip_text_model"}, ("text",), False, False, False),
        ({"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]}, ("text",), False, False, False),
        (
            {"model_type": "clip_text_model", "architectures": ["CLIPTextModelWithProjection"]},
            ("text",),
            False,
            True,
            False,
        ),
        (
            {"model_type": "metaclip_2_vision_model", "architectures": ["MetaClip2VisionModelWithProjection"]},
            ("vision",),
            False,
            True,
            False,
        ),
        ({"model_type": "altclip_vision_model"}, ("vision",), False, False, False),
    ],
)
def test_the_file_tells_towers_and_heads(
    given: dict[str, Any], towers: tuple[str, ...], whole: bool, projection: bool, classifier: bool
) -> None:
    config = Config.from_dict(given)
    assert config.towers == towers
    assert (config.is_whole, config.has_projection, config.is_classifier) == (whole, projection, classifier)


def test_the_pooled_width_is_the_hidden_one_or_altclips_own() -> None:
    assert TextConfig(hidden_size=48).output_dim == 48
    assert RobertaConfig(hidden_size=48, project_dim=20).output_dim == 20


def test_a_square_may_be_spelled_as_a_pair() -> None:
    given = {"model_type": "clip_vision_model", "image_size": [48, 48], "patch_size": (8, 8)}
    vision = Config.from_dict(given).vision_config
    assert vision is not None
    assert (vision.image_size, vision.patch_size, vision.grid) == (48, 8, 6)


def test_null_counts_as_left_out() -> None:
    nulls = dict.fromkeys(["projection_dim", "logit_scale_init_value", "architectures", "id2label"])
    given = {"model_type": "altclip", **nulls, "text_config": {"hidden_size": None}, "vision_config": None}
    assert Config.from_dict(given) == Config.from_dict({"model_type": "altclip"})


# --- refusals ------------------------------------------------------------------------------------------------------


def clip(**text: Any) -> dict[str, Any]:
    return {"model_type": "clip", "text_config": text}


def alt(**text: Any) -> dict[str, Any]:
    return {"model_type": "altclip", "text_config": text}


def vision(**fields: Any) -> dict[str, Any]:
    return {"model_type": "metaclip_2", "vision_config": fields}


@pytest.mark.parametrize(
    ("given", "culprit", "value"),
    [
        ([], "JSON object", "list"),
        ({}, "model_type", "None"),
        ({"model_type": "bert"}, "model_type", "bert"),
        ({"model_type": ["clip"]}, "model_type", "clip"),
        ({"model_type": "clip", "text_config": 3}, "text_config", "int"),
        ({"model_type": "clip", "vision_config": "x"}, "vision_config", "str"),
        ({"model_type": "clip", "text_config_dict": [1]}, "text_config_dict", "list"),
        ({"model_type": "clip", "projection_dim": 0}, "projection_dim", "0"),
        ({"model_type": "clip", "projection_dim": "wide"}, "projection_dim", "wide"),
        ({"model_type": "clip", "projection_dim": True}, "projection_dim", "True"),
        ({"model_type": "clip", "logit_scale_init_value": "hot"}, "logit_scale_init_value", "hot"),
        ({"model_type": "clip", "architectures": "CLIPModel"}, "architectures", "CLIPModel"),
        ({"model_type": "clip", "architectures": [1]}, "architectures", "1"),
        ({"model_type": "clip", "id2label": ["cat"]}, "id2label", "cat"),
        ({"model_type": "clip", "id2label": {"one": "cat"}}, "id2label", "one"),
        (clip(hidden_size=100, num_attention_heads=3), "hidden_size", "100"),
        (vision(hidden_size=64), "hidden_size", "64"),
        (alt(hidden_size=100), "hidden_size", "100"),
        (clip(hidden_size=0), "hidden_size", "0"),
        (clip(hidden_size="512"), "hidden_size", "512"),
        (clip(hidden_size=512.5), "hidden_size", "512.5"),
        (clip(num_attention_heads=-8), "num_attention_heads", "-8"),
        (clip(eos_token_id=True), "eos_token_id", "True"),
        (clip(num_hidden_layers=True), "num_hidden_layers", "True"),
        (clip(vocab_size=0), "vocab_size", "0"),
        (clip(max_position_embeddings=0), "max_position_embeddings", "0"),
        (clip(eos_token_id=[1, "2"]), "eos_token_id", "[1, '2']"),
        (clip(eos_token_id=[]), "eos_token_id", "[]"),
        ({"model_type": "clip", "problem_type": "guessing"}, "problem_type", "guessing"),
        ({"model_type": "clip", "initializer_factor": "big"}, "initializer_factor", "big"),
        (clip(hidden_act="tanhish"), "hidden_act", "tanhish"),
        (clip(hidden_act=7), "hidden_act", "7"),
        (clip(layer_norm_eps=0.0), "layer_norm_eps", "0"),
        (clip(layer_norm_eps=float("nan")), "layer_norm_eps", "nan"),
        (clip(layer_norm_eps="1e-5"), "layer_norm_eps", "1e-5"),
        (vision(patch_size=0), "patch_size", "0"),
        (vision(patch_size=300), "patch_size", "300"),
        (vision(image_size=[224, 336]), "image_size", "[224, 336]"),
        (vision(image_size=[[224], [224]]), "image_size", "[224]"),
        (vision(num_channels=0), "num_channels", "0"),
        (alt(position_embedding_type="rotary"), "position_embedding_type", "rotary"),
        (alt(pad_token_id=-1), "pad_token_id", "-1"),
        (alt(pad_token_id=513), "pad_token_id", "513"),
        (alt(type_vocab_size=0), "type_vocab_size", "0"),
        (alt(project_dim=0), "project_dim", "0"),
    ],
)
def test_a_contradiction_is_refused_in_one_line_naming_file_field_and_value(
    tmp_path: Path, given: Any, culprit: str, value: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "config.json"))
    assert culprit in message.removeprefix(str(tmp_path))
    assert value in message.removeprefix(str(tmp_path))
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"model_type": "clip"', b"[1, 2"])
def test_a_file_that_is_no_json_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_config_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        read_config(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        read_config(tmp_path)
