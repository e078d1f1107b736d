import json
from pathlib import Path

import folders
import pytest
import torch
from safetensors.torch import load_file

from minclip import checkpoints
from minclip.config import Config
from minclip.shapes import expected_shapes


@pytest.mark.parametrize("kind", folders.KINDS)
def test_the_expected_tensors_are_those_of_transformers(kind: str) -> None:
    model = folders.peer(kind)
    config = Config.from_dict(json.loads(model.config.to_json_string(use_diff=False)) | {"architectures": [kind]})
    assert expected_shapes(config) == {name: array.shape for name, array in folders.tensors(model).items()}


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_relative_positions_have_a_table_of_distances_in_every_layer(kind: str) -> None:
    """Shaw et al. 2018: 2 n - 1 distances between n positions, each as wide as a head."""
    text = {**folders.TEXT, "position_embedding_type": kind}
    config = Config.from_dict({"model_type": "altclip_text_model", **text})
    plain = Config.from_dict({"model_type": "altclip_text_model", **folders.TEXT})
    added = {name: s for name, s in expected_shapes(config).items() if name not in expected_shapes(plain)}
    table = "text_model.roberta.encoder.layer.{}.attention.self.distance_embedding.weight"
    assert added == {table.format(i): (2 * 12 - 1, 16 // 2) for i in range(2)}


# --- other versions of Transformers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPVisionModel", "MetaClip2TextModel", "AltCLIPVisionModel"])
def test_a_bare_tower_with_its_prefix_loads(tmp_path: Path, kind: str) -> None:
    """As version 4 saves it, and with the buffer that older files carry."""
    model = folders.peer(kind)
    model.save_pretrained(tmp_path)
    prefix = "text_model." if "Text" in kind else "vision_model."

    def version_4(state: folders.State) -> folders.State:
        buffer = {f"{prefix}embeddings.position_ids": torch.arange(12)[None]}
        return {f"{prefix}{name.removeprefix(prefix)}": tensor for name, tensor in state.items()} | buffer

    folders.rewrite(tmp_path, version_4)
    assert any(name.startswith(prefix) for name in load_file(tmp_path / "model.safetensors"))
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPVisionModel", "MetaClip2TextModel", "AltCLIPVisionModel"])
def test_a_bare_tower_without_its_prefix_loads(tmp_path: Path, kind: str) -> None:
    model = folders.peer(kind)
    model.save_pretrained(tmp_path)
    folders.rewrite(tmp_path, lambda state: {name.split("_model.")[-1]: tensor for name, tensor in state.items()})
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


@pytest.mark.parametrize("kind", ["AltCLIPModel", "AltCLIPTextModel"])
@pytest.mark.parametrize(("old", "new"), [("encoder.layer.", "encoder.layers."), ("encoder.layers.", "encoder.layer.")])
def test_altclip_layers_load_in_the_singular_and_the_plural(tmp_path: Path, kind: str, old: str, new: str) -> None:
    model = folders.peer(kind)
    model.save_pretrained(tmp_path)
    buffers = {
        "text_model.roberta.embeddings.position_ids": torch.arange(12)[None],
        "text_model.roberta.embeddings.token_type_ids": torch.zeros(1, 12, dtype=torch.long),
    }
    folders.rewrite(tmp_path, lambda state: {name.replace(old, new): t for name, t in state.items()} | buffers)
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))
