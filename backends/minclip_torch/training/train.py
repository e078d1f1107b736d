"""Train, or fine-tune, a checkpoint of any of the three families.

    python -m minclip_torch.training.train START DATA RUN [--steps 5000 --batch-size 256 ...]

START is a checkpoint folder: config.json, tokenizer files, preprocessor_config.json, and weights where training goes on
from them. DATA is a file of JSON lines (`minclip_torch.training.dataset`). RUN receives recipe.json, metrics.jsonl,
state.pt, and in the end model/, a checkpoint like any other. The same command once more goes on where a run was cut
off, to the same weights. Under torchrun, the processes share the batch and every one's negatives.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minclip import checkpoints
from minclip.config import read_config
from minclip.errors import BackendError
from minclip.processor import Processor
from minclip.weights import Weights
from minclip_torch.backend import TorchBackend
from minclip_torch.modules import Clip, RobertaTextTower
from minclip_torch.training import objective
from minclip_torch.training.command import exit_code
from minclip_torch.training.dataset import read_entries
from minclip_torch.training.heldout import HeldOut
from minclip_torch.training.lessons import SEEDS, Contrast, Imitation
from minclip_torch.training.optimizer import optimizers
from minclip_torch.training.processes import everyone, joined, processes, rank, together
from minclip_torch.training.recipe import Recipe, RecipeError, drop_layers, drop_patches, learning_rate
from minclip_torch.training.run_folder import RunFolder, TrainingError

GOES_ON = "the same command goes on from the last saved state"
TOWERS = {"vision": ("vision_model", "visual_projection"), "text": ("text_model", "text_projection")}


def train(
    start: Path,
    data: Path,
    run: Path,
    recipe: Recipe,
    *,
    test: Path | None = None,
    every: int = 200,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Train to the recipe's last step and write run/model; the last line of metrics.

    every: steps between evaluations on `test` (the first language's names), metrics lines and saved states.
    Raises RecipeError where `run` holds a run of another recipe, TrainingError where the loss is not finite.
    """
    if every < 1:
        raise TrainingError(f"every must be at least 1 step, not {every}")
    with joined(device):
        return Run(start, data, run, recipe, test=test, device=device).go(every, progress)


class Run:
    """One training run in memory: the model, its optimizer, the average of its weights, and the data.

    Where its folder holds a saved state, the run is at that step. Raises RecipeError, TrainingError, or what reading
    the checkpoint and the data raises: in all processes, if in one.
    """

    def __init__(
        self, start: Path, data: Path, run: Path, recipe: Recipe, *, test: Path | None = None, device: str = "cpu"
    ) -> None:
        self.recipe, self.folder, self.step = recipe, RunFolder(run), 0
        with together():
            self.device = _device(device)
            self.rows = _share(recipe.batch_size)
            _check_machine(recipe)
            self.folder.check(recipe)
        with together():
            self._build(start)
            self._read(data, test)
            self._resume()
        with together():
            if rank() == 0:
                self.folder.claim(recipe)
        steps = everyone(self.step)
        if len(set(steps)) > 1:
            raise TrainingError(f"the processes found states of steps {steps}: {run} must be one folder for them all")
        if rank() == 0:
            self.folder.forget_after(self.step)

    def _build(self, start: Path) -> None:
        """The model with its first weights, its optimizer, and the average."""
        recipe = self.recipe
        self.config = read_config(start)
        if self.config.vision_config is None or not self.config.is_whole:
            raise RecipeError(f"{start} holds a single tower; training takes a whole model")
        self.side = self.config.vision_config.image_size
        self.processor = Processor.from_folder(start, self.config)
        self.tokenizer = self.processor.tokenizer
        torch.manual_seed(recipe.seed % SEEDS)
        self.model = Clip(self.config)
        if checkpoints.has_weights(start):
            self.model.load_state_dict(_tensors(start))
        self.model.to(self.device)
        self._train_mode()
        self._regularize()
        if recipe.compile:
            text = self.model.text_model
            self.model.vision_model.encoder.compile()
            (text.roberta if isinstance(text, RobertaTextTower) else text).encoder.compile(dynamic=True)
        self.named = dict(self.model.named_parameters())
        self.optimizer = optimizers(self.model, recipe)
        self.average = {name: p.detach().clone() for name, p in self.named.items()}

    def _read(self, data: Path, test: Path | None) -> None:
        """What is learned from, and what is held out."""
        recipe, languages = self.recipe, self.recipe.languages or None
        entries = read_entries(data, languages)
        common = (recipe, entries, self.rows, self.model, self._tokens)
        self.test = None if test is None else HeldOut(test, languages, self.processor, self.side)
        self.lesson: Contrast | Imitation
        if recipe.teacher:
            self.lesson = Imitation(*common)
        else:
            self.lesson = Contrast(*common, self.processor.image_processor, self.side)

    def _train_mode(self) -> None:
        """Dropout where the recipe trains; a frozen tower is as it will be used."""
        self.model.train()
        for tower in self.recipe.freeze:
            for name in TOWERS[tower]:
                self.model.get_submodule(name).requires_grad_(False).eval()

    def _regularize(self) -> None:
        recipe = self.recipe
        self.patches = None
        if "vision" not in recipe.freeze and not recipe.teacher:
            if recipe.drop_path:
                drop_layers(self.model.get_submodule("vision_model.encoder.layers").children(), recipe.drop_path)
            if recipe.drop_patches:
                self.patches = drop_patches(self.model.vision_model.embeddings, recipe.drop_patches)

    # --- one step --------------------------------------------------------------------------------------------------

    def advance(self) -> dict[str, float]:
        """Take one step. Returns loss, learning rate, temperature, gradient norm.

        Raises TrainingError, the weights left as they were, where the loss or its gradient is not finite.
        """
        recipe = self.recipe
        if self.patches is not None and self.step >= recipe.drop_patches_until * recipe.steps:
            self.patches.remove()
        self.optimizer.zero_grad()
        try:
            loss = self._learn()
        except torch.OutOfMemoryError:
            way_out = f"go on with a chunk_size below {self._chunk()} in a new run: every negative is still seen"
            raise TrainingError(f"{self.device} ran out of memory at step {self.step}; {way_out}") from None
        objective.reduce_gradients(list(self.named.values()), [self.model.logit_scale])
        norm = float(torch.nn.utils.clip_grad_norm_(self.named.values(), recipe.clip_norm))
        value = float(loss)
        if not (math.isfinite(value) and math.isfinite(norm)):
            state = self.folder.state
            kept = f"the last good state is {state}" if state.exists() else "no state was saved yet"
            raise TrainingError(f"the loss is {value} and its gradient {norm} at step {self.step}; {kept}")
        rate = learning_rate(recipe, self.step)
        self.optimizer.step(rate)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(recipe.max_scale))
        self.step += 1
        amount = min(recipe.average, self.step / (self.step + 10))  # young averages forget faster
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.named.values()], 1 - amount)
        return {"loss": value, "rate": rate, "scale": float(self.model.logit_scale.detach().exp()), "gradient": norm}

    def _chunk(self) -> int:
        """How many of this process's rows go through the towers at once."""
        return self.recipe.chunk_size or self.rows.stop - self.rows.start

    def _learn(self) -> Tensor:
        """Add the step's gradients to the parameters, chunk by chunk; the loss."""
        embed_rows, loss = self.lesson(self.step)
        share, chunk = self.rows.stop - self.rows.start, self._chunk()

        def embed(i: int) -> tuple[Tensor, ...]:
            with self._arithmetic(i):
                return embed_rows(slice(i * chunk, (i + 1) * chunk))

        return objective.backward(embed, math.ceil(share / chunk), loss)

    @contextlib.contextmanager
    def _arithmetic(self, chunk: int) -> Iterator[None]:
        """The recipe's precision, and random numbers that follow from the step and the chunk."""
        seed = ((self.recipe.seed * 1_000_003 + self.step) * 1009 + rank()) * 1009 + chunk
        torch.manual_seed(seed % SEEDS)
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.dtype == "bfloat16")
        # the CPU's flash kernel takes 8 times as long backwards as two plain products on rows this short
        plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else contextlib.nullcontext()
        with half, plain:
            yield

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """input_ids (b, t), and the mask (b, t) that is 1 where text is."""
        found = self.tokenizer(texts, padding="longest", truncation=True, max_length=self.processor.context_length)
        ids, mask = (torch.from_numpy(found[name]).to(self.device) for name in ("input_ids", "attention_mask"))
        return ids, mask

    # --- the whole run ---------------------------------------------------------------------------------------------

    def go(self, every: int, progress: bool) -> dict[str, Any]:
        """Step until the recipe is done; evaluate, log and save on the way. Returns the last line of metrics."""
        first, began, line = self.step, time.perf_counter(), {}
        while self.step < self.recipe.steps:
            told = self.advance()
            if self.step % every == 0 or self.step == self.recipe.steps:
                pace = (time.perf_counter() - began) / (self.step - first)
                line = {"step": self.step, **told, "seconds_per_step": round(pace, 4), **self.evaluate()}
                if rank() == 0:
                    self.folder.log(line)  # before the state: a line too many is dropped, one too few stays away
                    self.save()
            if progress and rank() == 0:
                _bar(self.step, self.recipe.steps, told["loss"], line.get("top1"))
        if rank() == 0:
            self.export(self.folder.path / "model")
        return line or next(reversed(self.folder.lines()), {})

    def evaluate(self) -> dict[str, float]:
        """Zero-shot accuracy of the averaged weights on the test set, in the first language."""
        if self.test is None:
            return {}
        with self._averaged(), torch.compiler.set_stance("force_eager"):
            self.model.eval()
            found = self.test.accuracy(self.model, self._tokens)
        self._train_mode()
        return found

    def export(self, folder: Path) -> None:
        """Write the averaged weights as a checkpoint in half precision."""
        folder.mkdir(exist_ok=True)
        with self._averaged():  # the arrays are views of the parameters
            tensors = {name: value.detach().cpu().numpy() for name, value in self.model.state_dict().items()}
            checkpoints.save(folder, self.config, Weights(tensors), dtype="float16")
        self.processor.save(folder)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the average of its weights in their place."""
        own = {name: p.detach().clone() for name, p in self.named.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, p in self.named.items():
            p.copy_(values[name])

    def save(self) -> None:
        """Write state.pt, all of it or none."""
        optimizer = self.optimizer.state_dict()
        self.folder.save(
            {"step": self.step, "model": dict(self.named), "average": self.average, "optimizer": optimizer}
        )

    def _resume(self) -> None:
        """Go on from state.pt where there is one."""
        state = self.folder.load(self.device)
        if state is None:
            return
        if set(state) != {"step", "model", "average", "optimizer"}:
            raise TrainingError(f"{self.folder.state} is no state of a run; delete it to start anew")
        shapes = {name: p.shape for name, p in self.named.items()}
        for part in ("model", "average"):
            if {name: value.shape for name, value in state[part].items()} != shapes:
                raise TrainingError(
                    f"{self.folder.state} is of another model than the start folder's; name another run"
                )
        self.step = state["step"]
        self._put(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


def _device(name: str) -> torch.device:
    """Where to compute. Raises BackendError where there is no such device."""
    devices = TorchBackend().devices()
    if name not in devices and not (name == "cuda" and "cuda:0" in devices):
        raise BackendError(f"no device {name!r} here; there are {', '.join(devices)}")
    return torch.device(name)


def _check_machine(recipe: Recipe) -> None:
    """Raises RecipeError where the recipe asks for what is not here."""
    if recipe.teacher and not Path(recipe.teacher).is_dir():
        raise RecipeError(f"teacher {recipe.teacher} is no folder; name that of a checkpoint")
    if recipe.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise RecipeError("compile needs a C++ compiler, and there is none here: install g++, or pass --no-compile")


def _share(batch_size: int) -> slice:
    """The rows of a batch that are this process's. Raises RecipeError where they do not come out even."""
    share, rest = divmod(batch_size, processes())
    if rest:
        raise RecipeError(f"batch_size {batch_size} does not split over {processes()} processes; take a multiple")
    return slice(rank() * share, (rank() + 1) * share)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """A checkpoint's weights in float32, under the modules' names."""
    _, weights = checkpoints.read(folder)
    return {name: torch.from_numpy(np.array(weights[name], dtype=np.float32)) for name in weights}


def _bar(step: int, steps: int, loss: float, top1: float | None) -> None:
    if sys.stderr.isatty() or step == steps:
        done = "#" * (30 * step // steps)
        tested = "" if top1 is None else f"  top-1 {top1:.1%}"
        end = "\n" if step == steps else ""
        print(f"\r[{done:<30}] {step}/{steps}  loss {loss:.3f}{tested} ", end=end, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The options: a flag for every setting of a recipe, and what is none."""
    made = argparse.ArgumentParser(
        prog="python -m minclip_torch.training.train", description=(__doc__ or "").split("\n\n")[0]
    )
    made.add_argument("start", type=Path, help="checkpoint folder to begin with")
    made.add_argument("data", type=Path, help="JSON lines of pictures and captions")
    made.add_argument("run", type=Path, help="folder to write, or to go on from")
    made.add_argument("--recipe", type=Path, help="a JSON file of settings; flags win over it")
    made.add_argument("--test", type=Path, help="JSON lines of a held-out set")
    made.add_argument("--every", type=int, default=200, help="steps between evaluations, log lines and saved states")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or mps (default cpu)")
    for name, default in asdict(Recipe()).items():
        flag, told = f"--{name.replace('_', '-')}", f"(default {default!r})"
        if isinstance(default, bool):
            made.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=told)
        elif isinstance(default, tuple):
            made.add_argument(flag, nargs="*", default=None, help=f"(default: {' | '.join(default) or 'none'})")
        else:
            made.add_argument(flag, type=type(default), default=None, help=told)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Train as asked. Returns the exit code: 0, 1 where something is wrong, 130 where it was stopped."""
    options = vars(parser().parse_args(arguments))
    given = {name: options.pop(name) for name in asdict(Recipe())}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    file = options.pop("recipe")

    def body() -> None:
        settings = {} if file is None else asdict(Recipe.read(file))
        train(recipe=Recipe.from_dict(settings | given, "the command line"), **options)

    return exit_code(body, stopped=GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
