"""The PyTorch backend: the conformance kit, exchange with Transformers, training, the device's own resize."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from command_line import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import captions, draw
from PIL import Image
from torch.nn import functional as F  # noqa: N812

import minclip
from minclip.backend import NumpyBackend
from minclip.config import Config
from minclip.images import ImageProcessor
from minclip.images.resize import resize
from minclip.inputs import ImageInputs
from minclip.testing import BackendConformance
from minclip.testing.strategies import weights
from minclip_torch import Clip, TorchBackend
from minclip_torch.backend import load_weights, out_of_memory
from minclip_torch.packed import PackedLinear
from minclip_torch.pixels import resize as resize_on_device

transformers.logging.disable_progress_bar()


class TestCpu(BackendConformance):
    backend = TorchBackend()
    device = "cpu"
    dtypes = ("float32", "bfloat16", "float16")


@pytest.mark.long
class TestCpuLong(TestCpu):
    examples = 100


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here; tests/gpu.py runs this where there is")
class TestCuda(BackendConformance):
    backend = TorchBackend()
    device = "cuda"
    dtypes = ("float32", "bfloat16", "float16")


SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {"clip": "CLIP", "altclip": "AltCLIP", "metaclip_2": "MetaClip2"}


def small_config(family: str, **text: Any) -> Config:
    """A whole model of a family with two layers."""
    ids = {"vocab_size": 30, "bos_token_id": 0, "eos_token_id": 29, "max_position_embeddings": 12}
    width = {"project_dim": 8} if family == "altclip" else {}
    return Config.from_dict(
        {
            "model_type": family,
            "projection_dim": 8,
            "text_config": {**SMALL, **ids, **width, **text},
            "vision_config": {**SMALL, "image_size": 8, "patch_size": 4},
        }
    )


def text_batch(config: Config, b: int = 4, t: int = 7) -> torch.Tensor:
    ids = torch.randint(3, 28, (b, t), generator=torch.Generator().manual_seed(1))
    ids[:, 0], ids[:, -1] = 0, 29
    return ids


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dicts_pass_both_ways_between_clip_and_the_peer(family: str) -> None:
    config = small_config(family)
    settings_ = getattr(transformers, f"{FAMILIES[family]}Config")(**config.to_dict())
    peer = getattr(transformers, f"{FAMILIES[family]}Model")(settings_).eval()

    def spelled(state: dict[str, torch.Tensor], ours: str, theirs: str) -> dict[str, torch.Tensor]:
        # in memory the peer says `layers` where its own files, and minclip, say `layer`
        return {name.replace(f"roberta.encoder.{ours}.", f"roberta.encoder.{theirs}."): t for name, t in state.items()}

    module = Clip(config).eval()
    module.load_state_dict(spelled(peer.state_dict(), "layers", "layer"))
    ids, pixels = text_batch(config), torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        image, text = module(ids, pixels)
        expected = peer(input_ids=ids, pixel_values=pixels)
    torch.testing.assert_close(image, expected.image_embeds, atol=2e-5, rtol=0)
    torch.testing.assert_close(text, expected.text_embeds, atol=2e-5, rtol=0)

    fresh = Clip(config)
    peer.load_state_dict(spelled(fresh.state_dict(), "layer", "layers"))
    with torch.inference_mode():
        torch.testing.assert_close(fresh.eval()(ids, pixels)[0], peer(input_ids=ids, pixel_values=pixels).image_embeds)


def test_a_state_dict_can_be_written_to_a_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    module = Clip(small_config("clip"))
    save_file(module.state_dict(), tmp_path / "model.safetensors")  # refuses tensors that share memory
    again = Clip(small_config("clip"))
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(again.state_dict(), module.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modules_learn(family: str) -> None:
    torch.manual_seed(0)
    config = small_config(family)
    module = Clip(config).train()
    begin, end = torch.zeros(4, 1, dtype=torch.int64), torch.full((4, 1), 29)
    ids, pixels = torch.cat([begin, torch.arange(4, 8)[:, None], end], dim=1), torch.randn(4, 3, 8, 8)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        image, text = module(ids, pixels)
        logits = image @ text.T * module.logit_scale.exp()
        loss = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for name, p in module.named_parameters() if "token_type" not in name)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_peers(family: str) -> None:
    config = small_config(family)
    if family == "altclip":
        config = small_config(family, hidden_dropout_prob=0.0)
    peer = getattr(transformers, f"{FAMILIES[family]}Model")(
        getattr(transformers, f"{FAMILIES[family]}Config")(**config.to_dict())
    )
    module = Clip(config)
    state = {
        name.replace("roberta.encoder.layers.", "roberta.encoder.layer."): t for name, t in peer.state_dict().items()
    }
    module.load_state_dict(state)
    ids, pixels = text_batch(config), torch.randn(4, 3, 8, 8)
    image, text = module(ids, pixels)
    (image @ text.T).sum().backward()
    out = peer(input_ids=ids, pixel_values=pixels)
    (out.image_embeds @ out.text_embeds.T).sum().backward()
    ours, theirs = dict(module.named_parameters()), dict(peer.named_parameters())
    for name in ("visual_projection.weight", "vision_model.embeddings.class_embedding", "text_projection.weight"):
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, atol=1e-5, rtol=1e-4)
    fused = ours["vision_model.encoder.layers.0.self_attn.qkv.weight"].grad
    apart = [theirs[f"vision_model.encoder.layers.0.self_attn.{name}_proj.weight"].grad for name in "qkv"]
    torch.testing.assert_close(fused, torch.cat(apart), atol=1e-5, rtol=1e-4)  # type: ignore[arg-type]


def test_dropout_is_on_in_training_and_off_in_eval() -> None:
    config = small_config("clip", attention_dropout=0.5)
    module, ids, pixels = Clip(config), text_batch(config), torch.randn(4, 3, 8, 8)
    module.train()
    assert not torch.equal(module(ids, pixels)[1], module(ids, pixels)[1])
    module.eval()
    torch.testing.assert_close(module(ids, pixels)[1], module(ids, pixels)[1])
    roberta = Clip(small_config("altclip", hidden_dropout_prob=0.5)).train()
    assert not torch.equal(roberta(ids, pixels)[1], roberta(ids, pixels)[1])


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    config = small_config("clip")
    module, ids, pixels = Clip(config).train(), text_batch(config), torch.randn(4, 3, 8, 8)
    gradients = []
    for on in (False, True):
        module.gradient_checkpointing = on
        assert module.gradient_checkpointing is on
        module.zero_grad()
        image, text = module(ids, pixels)
        (image @ text.T).sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0])


@settings(max_examples=150)
@given(data=st.data())
def test_the_devices_resize_is_the_references(data: st.DataObject) -> None:
    sizes = st.integers(1, 90)
    h, w, height, width = (data.draw(sizes) for _ in range(4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    batch = rng.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    if data.draw(st.booleans()):
        batch = np.where(batch > 127, 255, 0).astype(np.uint8)
    resample = data.draw(st.integers(0, 5))
    found = resize_on_device(torch.from_numpy(batch), (height, width), resample).numpy()
    for picture, expected in zip(found, batch, strict=True):
        np.testing.assert_array_equal(picture, resize(expected, (height, width), resample))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [draw(label, rng, side=int(rng.integers(20, 150))) for label in captions()]


def test_answers_are_the_references_end_to_end(miniature: Path, pictures: list[Image.Image]) -> None:
    reference, model = minclip.load(miniature), minclip.load(miniature, backend="torch", device="cpu")
    for ours, expected in zip(
        model.zero_shot(pictures, captions()), reference.zero_shot(pictures, captions()), strict=True
    ):
        assert [p.label for p in ours][:2] == [p.label for p in expected][:2]
        np.testing.assert_allclose([p.score for p in ours], [p.score for p in expected], atol=1e-4)
    np.testing.assert_array_equal(
        model.encode_image(pictures, resize_on_device=True, batch_size=5), model.encode_image(pictures, batch_size=5)
    )


@pytest.mark.parametrize("packed", [True, False])
def test_whichever_layers_are_faster_here_the_answers_are_the_references(
    packed: bool, miniature: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minclip_torch.packed.packed_is_faster", lambda *_: packed)
    model = minclip.load(miniature, backend="torch", device="cpu")
    kinds = {type(module) for module in model.towers.module.modules()}  # type: ignore[attr-defined]
    if torch.backends.mkldnn.is_available():
        assert (PackedLinear in kinds) == packed
    expected = minclip.load(miniature).encode_image(pictures)
    np.testing.assert_allclose(model.encode_image(pictures), expected, atol=1e-5)


def test_native_embeddings_stay_tensors(miniature: Path, pictures: list[Image.Image]) -> None:
    model = minclip.load(miniature, backend="torch", device="cpu")
    native = model.encode_image(pictures, native=True)
    assert isinstance(native, torch.Tensor)
    np.testing.assert_array_equal(native.numpy(), model.encode_image(pictures))
    assert isinstance(model.encode_text(captions(), native=True), torch.Tensor)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("number", "said"),
    [(np.nan, "hold NaN or infinity"), (np.inf, "hold NaN or infinity"), (1e38, "are 0, or too large")],
)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_rows_that_have_no_length_are_no_answer(
    backend: str, number: float, said: str, native: bool, miniature: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    """A lone weight, so that most numbers of a row are sound."""
    model = minclip.load(damaged(miniature, tmp_path / "damaged", number), backend=backend)
    for kind, encode in (
        ("image", lambda: model.encode_image(pictures, native=native)),
        ("text", lambda: model.encode_text(captions(), native=native)),
    ):
        with pytest.raises(minclip.CheckpointError, match=f"the {kind} embeddings of row 0 {said}"):
            encode()


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_images_that_are_all_left_out_leave_no_rows(backend: str, native: bool, miniature: Path) -> None:
    model, errors = minclip.load(miniature, backend=backend), {}
    rows = model.encode_image([b"", b"no picture"], native=native, on_error=errors.__setitem__)
    assert rows.shape == (0, model.config.projection_dim)
    assert errors.keys() == {0, 1}


def test_native_inputs_are_taken_without_a_copy(miniature: Path) -> None:
    model = minclip.load(miniature, backend="torch", device="cpu")
    pixels = torch.randn(2, 3, 32, 32)
    seen: list[int] = []
    hook = model.towers.module.vision_model.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda module, given: seen.append(given[0].pixel_values.data_ptr())
    )
    model.get_image_features(pixel_values=pixels)
    hook.remove()
    assert seen == [pixels.data_ptr()]


def test_compiled_towers_say_the_same(miniature: Path, pictures: list[Image.Image]) -> None:
    plain = minclip.load(miniature, backend="torch", device="cpu")
    compiled = minclip.load(miniature, backend="torch", device="cpu", compile=True)
    np.testing.assert_allclose(compiled.encode_image(pictures), plain.encode_image(pictures), atol=2e-5)
    np.testing.assert_allclose(compiled.encode_text(captions()), plain.encode_text(captions()), atol=2e-5)


def test_weights_are_views_of_the_file_where_the_type_allows(miniature: Path) -> None:
    model = minclip.load(miniature)
    module = Clip(model.config)
    load_weights(module, model.weights)
    name = "vision_model.embeddings.patch_embedding.weight"
    assert dict(module.named_parameters())[name].data_ptr() == model.weights[name].ctypes.data


def test_training_a_loaded_checkpoint_leaves_its_file_alone(miniature: Path) -> None:
    before = (miniature / "model.safetensors").read_bytes()
    model = minclip.load(miniature)
    module = Clip(model.config)
    load_weights(module, model.weights)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ids = torch.from_numpy(model.processor(text=captions())["input_ids"])
    image, text = module(ids, torch.randn(len(ids), 3, 32, 32))
    F.cross_entropy(image @ text.T, torch.arange(len(ids))).backward()
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    untrained = dict(module.named_parameters())[name].detach().clone()
    optimizer.step()
    assert not torch.equal(dict(module.named_parameters())[name], untrained)
    assert (miniature / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float64"])
def test_stored_types_are_widened_as_the_reference_does(stored: str) -> None:
    config = small_config("clip")
    tensors = weights(config, seed=0, stored=stored) if stored != "float64" else weights(config, seed=0)
    reference = NumpyBackend().build(config, tensors, dtype="float64")
    towers = TorchBackend().build(config, tensors, device="cpu", dtype="float64")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    inputs = ImageInputs(pixels)
    found, expected = towers.vision(inputs), reference.vision(inputs)
    np.testing.assert_allclose(
        towers.to_numpy(found.embeds), expected.embeds, atol=1e-9 * np.abs(expected.embeds).max()
    )


def test_running_out_of_memory_suggests_a_batch_size() -> None:
    with (
        pytest.raises(minclip.BackendError, match=r"cuda:0 ran out of memory with 64 images; try batch_size=32"),
        out_of_memory("cuda:0", "images", 64),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(minclip.BackendError, match="smaller dtype"), out_of_memory("cpu", "images", 1):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), out_of_memory("cpu", "images", 1):
        torch.randn(2, 3) @ torch.randn(2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "cuda:99"}, "no device 'cuda:99' here; it has .*cpu"),
        ({"device": "cpu", "dtype": "int8"}, "does not compute in 'int8' on cpu; it does in float32"),
        ({"device": "cpu", "fast": True}, "no option fast; it takes compile"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(miniature: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(minclip.BackendError, match=words):
        minclip.load(miniature, backend="torch", **arguments)


def test_without_torch_the_error_has_the_install_line(miniature: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import minclip\n"
        "assert 'torch' not in minclip.backends()\n"
        f"try: minclip.load({str(miniature)!r}, backend='torch')\n"
        "except minclip.BackendError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "pip install 'minclip[torch]'" in said
    assert len(said.splitlines()) == 1


def test_the_reference_never_imports_torch(miniature: Path, tmp_path: Path) -> None:
    draw("a red circle", np.random.default_rng(0)).save(tmp_path / "x.png")
    code = (
        "import sys, minclip\n"
        f"minclip.zero_shot({str(tmp_path / 'x.png')!r}, ['a', 'b'], model={str(miniature)!r})\n"
        "heavy = {'torch', 'transformers', 'scipy', 'huggingface_hub', 'hypothesis', 'minclip_torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("crop", [{"height": 25, "width": 16}, {"height": 17, "width": 31}])
@pytest.mark.parametrize("rounding", ["floor", "half_even"])
def test_image_processor_of_other_sizes_on_the_device(crop: dict[str, int], rounding: str) -> None:
    size = {"height": 20, "width": 30}
    processor = ImageProcessor(size=size, crop_size=crop, resample=1, crop_rounding=rounding)
    towers = TorchBackend().build(small_config("clip"), weights(small_config("clip"), seed=0), device="cpu")
    rng = np.random.default_rng(0)
    given = [rng.integers(0, 256, (int(h), int(w), 3), dtype=np.uint8) for h, w in rng.integers(1, 200, (9, 2))]
    found = towers.to_numpy(towers.pixel_values(given, processor, resized=False))
    np.testing.assert_allclose(found, processor(given), atol=1e-6)
