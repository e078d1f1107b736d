"""The trainer: steps, frozen towers, teachers, fine-tuning, three families, and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from training import FAMILIES, SIDE, entries, metrics, recipe, write_data, write_start

import minclip
from minclip import checkpoints
from minclip.errors import CheckpointError, ImageError, MinclipError
from minclip_torch.training import train as module
from minclip_torch.training.recipe import Recipe, RecipeError
from minclip_torch.training.train import Run, TrainingError, main, train

transformers.utils.logging.disable_progress_bar()
HALF = 4e-3  # how far unit vectors may move when weights are rounded to half precision


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl with its pictures, and a start folder for each family."""
    made = tmp_path_factory.mktemp("training")
    write_data(made)
    for family in FAMILIES:
        write_start(made / family, family)
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A small CLIP, a few steps on its way."""
    return go(folder, folder / "trained", recipe(steps=5, learning_rate=0.01, average=0.5)) / "model"


def go(folder: Path, run: Path, made: Recipe, start: str | Path = "clip", **options: Any) -> Path:
    train(folder / start, folder / "data.jsonl", run, made, progress=False, **options)
    return run


def begun(folder: Path, run: Path, made: Recipe, start: str | Path = "clip") -> Run:
    return Run(folder / start, folder / "data.jsonl", run, made)


def weights(run: Run) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in run.named.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(value, b[name]) for name, value in a.items())


# --- one step ------------------------------------------------------------------------------------------------------


def test_a_run_that_could_not_begin_leaves_its_folder_free(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(MinclipError, match=r"config\.json does not exist"):
        begun(folder, run, recipe(), "nowhere")
    assert not run.exists()
    assert begun(folder, run, recipe(steps=5)).step == 0


def test_a_seed_may_be_of_any_size(folder: Path, tmp_path: Path) -> None:
    assert math.isfinite(begun(folder, tmp_path / "run", recipe(seed=1 << 64)).advance()["loss"])


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_change_memory_and_no_gradient(folder: Path, tmp_path: Path, family: str) -> None:
    found = []
    for chunk in (0, 3):
        run = begun(folder, tmp_path / str(chunk), recipe(chunk_size=chunk), family)
        run.model.eval()  # no dropout, which falls elsewhere in another chunk
        told = run.advance()
        found.append((told, {name: p.grad for name, p in run.named.items()}))
    (whole, expected), (cut, gradients) = found
    assert cut == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-4)


def test_a_seed_decides_everything(folder: Path, tmp_path: Path) -> None:
    def after(name: str, **settings: Any) -> dict[str, Tensor]:
        run = begun(folder, tmp_path / name, recipe(drop_patches=0.5, drop_path=0.2, dtype="bfloat16", **settings))
        run.advance()
        run.advance()
        return weights(run)

    torch.manual_seed(99)
    first = after("a", seed=1)
    torch.manual_seed(98)
    assert equal(first, after("b", seed=1))
    assert not equal(first, after("c", seed=2))
    assert not equal(first, after("d", seed=2**60))


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    run = begun(folder, tmp_path, recipe(steps=40, batch_size=12, learning_rate=3e-3, augment=False, optimizer="muon"))
    losses = [run.advance()["loss"] for _ in range(40)]
    assert np.mean(losses[-5:]) < math.log(12) - 0.5  # what chance would have, and more


def test_the_temperature_stays_in_its_bounds(folder: Path, tmp_path: Path) -> None:
    run = begun(folder, tmp_path, recipe(max_scale=2.0))
    assert run.advance()["scale"] == pytest.approx(2.0)
    with torch.no_grad():
        run.model.logit_scale.fill_(-3)
    assert run.advance()["scale"] >= 1


def test_gradients_are_clipped_to_the_norm(folder: Path, tmp_path: Path) -> None:
    run = begun(folder, tmp_path, recipe(clip_norm=0.01))
    told = run.advance()
    gradients = [p.grad.flatten() for p in run.named.values() if p.grad is not None]
    assert told["gradient"] > 0.1  # as it was found
    assert float(torch.cat(gradients).norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_the_weights_the_faster_the_younger_it_is(folder: Path, tmp_path: Path) -> None:
    run = begun(folder, tmp_path, recipe(average=0.15))
    expected = weights(run)
    for step in (1, 2, 3):
        run.advance()
        keep = min(0.15, step / (step + 10))
        for name, value in weights(run).items():
            expected[name] = keep * expected[name] + (1 - keep) * value
    torch.testing.assert_close(run.average, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_have_no_state_but_their_parameters(folder: Path, tmp_path: Path, family: str) -> None:
    """So that the average of the parameters is the average of the model."""
    assert list(begun(folder, tmp_path, recipe(), family).model.buffers()) == []


def test_patches_are_dropped_until_the_last_part_of_the_run(folder: Path, tmp_path: Path) -> None:
    run = begun(folder, tmp_path, recipe(drop_patches=0.5, drop_patches_until=0.5))
    seen: list[int] = []
    run.model.vision_model.pre_layrnorm.register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[1])
    )
    for _ in range(4):
        run.advance()
    assert seen == [3, 3, 5, 5]  # the class token, and two or four patches


@pytest.mark.parametrize("poison", ["weight", "logit_scale"])
def test_a_loss_that_is_no_number_ends_the_run_at_the_last_good_state(
    folder: Path, tmp_path: Path, poison: str
) -> None:
    run = begun(folder, tmp_path, recipe())
    run.advance()
    run.save()
    state = (tmp_path / "state.pt").read_bytes()
    with torch.no_grad():
        target = run.model.logit_scale if poison == "logit_scale" else run.model.text_projection.weight
        target.fill_(math.nan)
    before = weights(run)
    with pytest.raises(TrainingError) as caught:
        run.go(every=1, progress=False)
    assert str(caught.value).startswith("the loss is nan and its gradient nan at step 1; the last good state is ")
    assert str(tmp_path / "state.pt") in str(caught.value)
    assert (tmp_path / "state.pt").read_bytes() == state
    torch.testing.assert_close(weights(run), before, equal_nan=True, atol=0, rtol=0)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_compiling_without_a_compiler_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match=r"no.*ne here: install g\+\+, or pass --no-compile"):
        begun(folder, tmp_path / "run", recipe(compile=True))
    assert not (tmp_path / "run").exists()


def test_running_out_of_memory_names_a_way_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(folder, tmp_path, recipe())

    def fails(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n 3 GiB")

    monkeypatch.setattr(run.model, "embed_images", fails)
    with pytest.raises(TrainingError, match=r"^cpu ran out of memory at step 0; .* chunk_size below 8 .*$"):
        run.advance()


# --- frozen towers and teachers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["clip", "altclip"])
@pytest.mark.parametrize(("frozen", "moved"), [("vision", "text"), ("text", "vision")])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_frozen_tower_keeps_its_bits_and_the_other_learns(
    folder: Path, tmp_path: Path, family: str, frozen: str, moved: str, optimizer: str
) -> None:
    made = recipe(freeze=(frozen,), optimizer=optimizer, chunk_size=5)
    run = begun(folder, tmp_path, made, family)
    before = weights(run)
    run.test = None
    run.advance()
    run.advance()
    projections = {"vision": "visual_projection", "text": "text_projection"}
    for name, value in weights(run).items():
        if name.startswith((f"{frozen}_model", projections[frozen])):
            assert torch.equal(value, before[name]), name
            assert torch.equal(run.average[name], before[name]), name
        elif name.startswith((f"{moved}_model", projections[moved])) and "relative" not in name:
            unused = "token_type" in name or name.endswith("k_proj.bias")
            assert unused or not torch.equal(value, before[name]), name


def test_a_frozen_tower_is_as_it_will_be_used(folder: Path, tmp_path: Path) -> None:
    """Its dropout is off, in training and after an evaluation."""
    run = begun(folder, tmp_path, recipe(freeze=("text",)), "altclip")
    data = folder / "data.jsonl"
    run.test = module.HeldOut(data, None, run.processor, SIDE)
    for _ in range(2):
        assert not any(part.training for part in run.model.text_model.modules())
        assert all(part.training for part in run.model.vision_model.modules())
        run.evaluate()


@pytest.fixture
def blind(folder: Path, tmp_path: Path) -> Path:
    """A data set whose pictures are not there."""
    path = tmp_path / "blind" / "data.jsonl"
    path.parent.mkdir()
    path.write_text((folder / "data.jsonl").read_text())
    return path


# --- checkpoints ---------------------------------------------------------------------------------------------------


def names(language: str) -> list[str]:
    return [line["captions"][language][0] for line in entries()]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_to_a_checkpoint_that_answers_as_the_averaged_module(
    folder: Path, tmp_path: Path, family: str
) -> None:
    made = recipe(steps=5, learning_rate=0.02, average=0.9, dtype="bfloat16", drop_patches=0.5, optimizer="muon")
    go(folder, tmp_path, made, family, test=folder / "data.jsonl", every=3)
    run = begun(folder, tmp_path, made, family)  # at its last state
    assert run.step == 5
    texts, images = names("en") + names("fr"), [str(folder / line["images"][0]) for line in entries()]
    ids, mask = run._tokens(texts)
    pixels = torch.from_numpy(run.processor.image_processor(images))
    with run._averaged(), torch.no_grad():
        run.model.eval()
        text, image = run.model.embed_texts(ids, mask).numpy(), run.model.embed_images(pixels).numpy()
    model = minclip.load(tmp_path / "model")
    np.testing.assert_allclose(model.encode_text(texts), text, atol=HALF)
    np.testing.assert_allclose(model.encode_image(images), image, atol=HALF)

    peer = getattr(transformers, f"{FAMILIES[family]}Model").from_pretrained(tmp_path / "model", dtype=torch.float32)
    found = model.processor(text=texts, images=images)
    with torch.no_grad():
        outputs = peer.eval()(**{name: torch.from_numpy(value) for name, value in found.items()})
    np.testing.assert_allclose(outputs.text_embeds.numpy(), text, atol=HALF)
    np.testing.assert_allclose(outputs.image_embeds.numpy(), image, atol=HALF)


def test_every_tensor_of_the_checkpoint_is_the_average_in_half_precision(folder: Path, tmp_path: Path) -> None:
    run = begun(folder, tmp_path, recipe(average=0.9, learning_rate=0.05))
    for _ in range(3):
        run.advance()
    own = weights(run)
    run.export(tmp_path / "model")
    assert equal(weights(run), own)  # training could go on
    _, found = checkpoints.read(tmp_path / "model")
    with run._averaged():
        for name, value in run.model.state_dict().items():
            np.testing.assert_array_equal(found[name], value.half().float().numpy().reshape(found[name].shape))


# --- fine-tuning ---------------------------------------------------------------------------------------------------


def test_training_goes_on_from_the_weights_of_the_start(folder: Path, tmp_path: Path, trained: Path) -> None:
    made = recipe(steps=1, learning_rate=0.0, augment=False)
    go(folder, tmp_path, made, trained)
    _, before = checkpoints.read(trained)
    _, after = checkpoints.read(tmp_path / "model")
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_without_weights_training_begins_with_the_seeds(folder: Path, tmp_path: Path) -> None:
    first = begun(folder, tmp_path / "a", recipe(seed=1))
    assert equal(weights(first), weights(begun(folder, tmp_path / "b", recipe(seed=1))))
    assert not equal(weights(first), weights(begun(folder, tmp_path / "c", recipe(seed=2))))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors.index.json", "model.safetensors"])
def test_weights_that_cannot_be_read_are_not_passed_over(folder: Path, tmp_path: Path, name: str) -> None:
    start = write_start(tmp_path / "start")
    (start / name).write_bytes(b"{}")
    with pytest.raises(CheckpointError):
        begun(folder, tmp_path / "run", recipe(), start)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_missing_picture_is_named(folder: Path, tmp_path: Path, blind: Path) -> None:
    with pytest.raises(ImageError, match=r"red-disc-0\.png"):
        Run(folder / "clip", blind, tmp_path / "run", recipe())


def test_a_start_without_tokenizer_is_refused_at_once(folder: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "start")
    for name in ("vocab.json", "merges.txt"):
        (start / name).unlink()
    with pytest.raises(MinclipError, match="no tokenizer files"):
        begun(folder, tmp_path / "run", recipe(), start)


def test_a_single_tower_cannot_be_trained(folder: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "start")
    config = json.loads((start / "config.json").read_text())["text_config"]
    (start / "config.json").write_text(json.dumps({**config, "model_type": "clip_text_model"}))
    with pytest.raises(RecipeError, match="holds a single tower"):
        begun(folder, tmp_path / "run", recipe(), start)


# --- the command line ----------------------------------------------------------------------------------------------

SMALL = ["--steps", "2", "--batch-size", "4", "--dtype", "float32"]


def said(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    """What the command says in its one line."""
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().err.strip()


def test_the_command_trains(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, 0, folder / "clip", folder / "data.jsonl", tmp_path / "run", *SMALL, "--languages", "en")
    kept = Recipe.read(tmp_path / "run" / "recipe.json")
    assert kept == Recipe(steps=2, batch_size=4, dtype="float32", languages=("en",))
    assert (tmp_path / "run" / "model" / "config.json").exists()
    assert [line["step"] for line in metrics(tmp_path / "run")] == [2]


def test_every_setting_has_a_flag_and_flags_win_over_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "train", lambda **options: asked.append(options))
    file = tmp_path / "recipe.json"
    file.write_text(Recipe(steps=3, seed=4).to_json())
    wanted = recipe(
        steps=9, seed=4, chunk_size=2, compile=True, augment=False, languages=("en", "fr"), freeze=("vision",),
        teacher="t", templates=("a {}", "the {}"), learning_rate=0.5, first_language=0.3, max_scale=70.0,
    )  # fmt: skip
    flags: list[str] = []
    for name, value in wanted.__dict__.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name}")
        elif name != "seed":
            flags += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    places = ["start", "data", "run"]
    assert main([*places, "--recipe", str(file), "--every", "7", "--device", "mps", "--test", "t.jsonl", *flags]) == 0
    paths = {name: Path(name) for name in places}
    assert asked == [{**paths, "recipe": wanted, "every": 7, "device": "mps", "test": Path("t.jsonl")}]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": "nowhere"}, "config.json does not exist"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
        ({"data": "clip/config.json"}, "config.json, line 1: expected an object with images and captions"),
        ({"run": "data.jsonl"}, "data.jsonl"),
        ({"--recipe": "clip/config.json"}, "is no setting; there are"),
        ({"--recipe": "nowhere.json"}, "nowhere.json cannot be read"),
        ({"--test": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
        ({"--languages": "de"}, "needs at least one image and one caption in de"),
        ({"--device": "cuda:99"}, "no device 'cuda:99' here; there are "),
        ({"--device": "gpu"}, "no device 'gpu' here; there are "),
        ({"--every": "0"}, "every must be at least 1 step, not 0"),
        ({"--steps": "0"}, "the command line: steps must be at least 1, not 0"),
        ({"--teacher": "nowhere"}, "teacher nowhere is no folder; name that of a checkpoint"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], message: str
) -> None:
    places = {"start": folder / "clip", "data": folder / "data.jsonl", "run": tmp_path / "run"}
    flags: list[object] = []
    for name, value in changed.items():
        if name in places:
            places[name] = folder / value
        else:
            flags += [name, folder / value if "." in value else value]
    line = said(capsys, 1, *places.values(), *SMALL, *flags)
    assert line.startswith("minclip: ")
    assert message in line
    assert "\n" not in line


def test_an_interrupt_says_how_to_go_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Run) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "advance", interrupted)
    line = said(capsys, 130, folder / "clip", folder / "data.jsonl", tmp_path / "run", *SMALL)
    assert line == "minclip: stopped; the same command goes on from the last saved state"


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_encoders_learn_what_plain_ones_do(folder: Path, tmp_path: Path, family: str) -> None:
    losses = []
    for compiled in (False, True):
        made = recipe(compile=compiled, augment=False)
        start = folder / family
        run = Run(start, folder / "data.jsonl", tmp_path / str(compiled), made, test=folder / "data.jsonl")
        losses.append([run.advance()["loss"] for _ in range(3)] if family != "altclip" else [])
        run.model.eval()  # dropout draws otherwise when compiled
        losses[-1].append(run.advance()["loss"] if family == "altclip" else 0.0)
        assert run.evaluate()
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
