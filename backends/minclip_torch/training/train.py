"""The training run: steps, evaluation, saved states, and the checkpoint at the end. `__main__.py` is the command."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minclip import checkpoints
from minclip.config import read_config
from minclip.errors import BackendError
from minclip.files import one_line
from minclip.processor import Processor
from minclip.weights import Weights
from minclip_torch.backend import TorchBackend
from minclip_torch.modules import Clip, Encoder
from minclip_torch.training import objective
from minclip_torch.training.distributed import all_gather, all_or_none, process_group, rank, world_size
from minclip_torch.training.entries import read_entries
from minclip_torch.training.heldout import HeldOut
from minclip_torch.training.memory import check_batch, out_of_memory
from minclip_torch.training.optimizer import optimizers
from minclip_torch.training.recipe import Recipe, RecipeError, drop_layers, drop_patches, learning_rate
from minclip_torch.training.run_folder import RunFolder, TrainingError
from minclip_torch.training.tasks import MARGIN, SEEDS, Contrastive, Distillation

RESUME = "the same command resumes from the last saved state"
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
    """Train to the recipe's last step and write run/model. Returns the last line of metrics.

    every: steps between evaluations on `test` (names in the first language), metrics lines and saved states.
    Raises RecipeError where `run` holds a run of another recipe, TrainingError where the loss is not finite.
    """
    if every < 1:
        raise TrainingError(f"every must be at least 1 step, not {every}")
    with process_group(device), contextlib.closing(Run(start, data, run, recipe, test=test, device=device)) as begun:
        return begun.finish(every, progress)


class Run:
    """One training run in memory: the model, its optimizer, the average of its weights, and the data.

    A run folder with a saved state is resumed at that step, and reserved until `close`. Raises RecipeError,
    TrainingError, or an error of the checkpoint or the data: in all processes, if in one.
    """

    def __init__(
        self, start: Path, data: Path, run: Path, recipe: Recipe, *, test: Path | None = None, device: str = "cpu"
    ) -> None:
        self.recipe, self.folder, self.step = recipe, RunFolder(run), 0
        try:
            self._begin(start, data, test, device)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes train in the run folder."""
        self.folder.unlock()

    def _begin(self, start: Path, data: Path, test: Path | None, device: str) -> None:
        """Build everything and resume; the run folder is made, or changed, only when nothing is wrong."""
        recipe, folder = self.recipe, self.folder
        with all_or_none():
            self.device = _device(device)
            self.rows = _share(recipe.batch_size)
            _check_machine(recipe)
            if rank() == 0 and folder.path.is_dir():
                folder.lock()
            folder.check(recipe)
        with all_or_none():
            self._build(start)
            self._read(data, test)
        with all_or_none():
            if rank() == 0:
                folder.lock()
            folder.check(recipe)
            self._resume()
        with all_or_none():
            if rank() == 0:
                folder.claim(recipe)
        steps = all_gather(self.step)
        if len(set(steps)) > 1:
            raise TrainingError(
                f"the processes found states of steps {steps}: {folder.path} must be one folder for them all"
            )
        if rank() == 0:
            folder.forget_after(self.step)

    def _build(self, start: Path) -> None:
        """The model with its first weights, its optimizer, and the average."""
        recipe = self.recipe
        self.config = read_config(start)
        if self.config.vision_config is None or not self.config.is_whole:
            raise RecipeError(f"{start} holds a single tower; training takes a whole model")
        self.side = self.config.vision_config.image_size
        self.processor = Processor.from_checkpoint(start, self.config)
        self.tokenizer = self.processor.tokenizer
        torch.manual_seed(recipe.seed % SEEDS)
        self.model = Clip(self.config)
        if checkpoints.has_weights(start):
            self.model.load_state_dict(_tensors(start))
        self.model.to(self.device)
        self._train_mode()
        self._regularize()
        if recipe.compile:
            for name, module in self.model.named_modules():
                if isinstance(module, Encoder):  # texts are of many lengths, images all of one size
                    module.compile(dynamic=True if name.startswith("text_model") else None)
        self.named = dict(self.model.named_parameters())
        self.optimizer = optimizers(self.model, recipe)
        self.average = {name: p.detach().clone() for name, p in self.named.items()}

    def _read(self, data: Path, test: Path | None) -> None:
        """The training task with its data, and the held-out set."""
        recipe, languages = self.recipe, self.recipe.languages or None
        share = self.rows.stop - self.rows.start
        if not recipe.teacher:
            check_batch(recipe.batch_size, share, self.side, int(self.side * MARGIN), self.device)
        self.chunk = recipe.chunk_size or share  # rows that go through the towers at once
        entries = read_entries(data, languages)
        common = (recipe, entries, self.rows, self.model, self._tokenize)
        self.test = None if test is None else HeldOut(test, languages, self.processor, self.side)
        self.task: Contrastive | Distillation
        if recipe.teacher:
            self.task = Distillation(*common)
        else:
            self.task = Contrastive(*common, self.processor.image_processor, self.side)

    def _train_mode(self) -> None:
        """Dropout where the recipe trains; a frozen tower computes as in inference."""
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
        with out_of_memory(self.device, self.step, self.chunk):
            loss = self._compute_gradients()
        objective.reduce_gradients(list(self.named.values()), [self.model.logit_scale])
        norm = float(torch.nn.utils.clip_grad_norm_(self.named.values(), recipe.clip_norm))
        value = float(loss)
        if not (math.isfinite(value) and math.isfinite(norm)):
            state = self.folder.state
            kept = f"the last good state is {state}" if state.exists() else "no state was saved yet"
            raise TrainingError(f"the loss is {value} and its gradient {norm} at step {self.step}; {kept}")
        rate = learning_rate(recipe, self.step)
        with out_of_memory(self.device, self.step, self.chunk):
            self.optimizer.step(rate)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(recipe.max_scale))
        self.step += 1
        amount = min(recipe.average, self.step / (self.step + 10))  # young averages forget faster
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.named.values()], 1 - amount)
        return {"loss": value, "rate": rate, "scale": float(self.model.logit_scale.detach().exp()), "gradient": norm}

    def _compute_gradients(self) -> Tensor:
        """Add the step's gradients to the parameters, chunk by chunk; the loss."""
        embed_rows, loss = self.task(self.step)
        share, chunk = self.rows.stop - self.rows.start, self.chunk

        def embed(i: int) -> tuple[Tensor, ...]:
            with self._arithmetic(i):
                return embed_rows(slice(i * chunk, (i + 1) * chunk))

        return objective.backward(embed, math.ceil(share / chunk), loss)

    @contextlib.contextmanager
    def _arithmetic(self, chunk: int) -> Iterator[None]:
        """The recipe's precision, and random numbers that depend on the step and the chunk alone."""
        seed = ((self.recipe.seed * 1_000_003 + self.step) * 1009 + rank()) * 1009 + chunk
        torch.manual_seed(seed % SEEDS)
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.dtype == "bfloat16")
        # the CPU's flash kernel takes 8 times as long backwards as two plain products on rows this short
        plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else contextlib.nullcontext()
        with half, plain:
            yield

    def _tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """input_ids (b, t) and mask (b, t), which is 1 for text and 0 for padding."""
        found = self.tokenizer(texts, padding="longest", truncation=True, max_length=self.processor.context_length)
        ids, mask = (torch.from_numpy(found[name]).to(self.device) for name in ("input_ids", "attention_mask"))
        return ids, mask

    # --- the whole run ---------------------------------------------------------------------------------------------

    def finish(self, every: int, progress: bool) -> dict[str, Any]:
        """Step to the recipe's end; evaluate, log and save every few steps. Returns the last line of metrics."""
        first, began, line = self.step, time.perf_counter(), {}
        while self.step < self.recipe.steps:
            metrics = self.advance()
            if self.step % every == 0 or self.step == self.recipe.steps:
                pace = (time.perf_counter() - began) / (self.step - first)
                line = {"step": self.step, **metrics, "seconds_per_step": round(pace, 4), **self.evaluate()}
                if rank() == 0:
                    self.folder.log(line)  # before the state: a line too many is dropped when resuming
                    self.save()
            if progress and rank() == 0:
                _bar(self.step, self.recipe.steps, metrics["loss"], line.get("top1"))
        if rank() == 0:
            self.export(self.folder.path / "model")
        return line or next(reversed(self.folder.lines()), {})

    def evaluate(self) -> dict[str, float]:
        """Zero-shot accuracy of the averaged weights on the test set, in the first language."""
        if self.test is None:
            return {}
        with self._averaged(), torch.compiler.set_stance("force_eager"):
            self.model.eval()
            found = self.test.accuracy(self.model, self._tokenize)
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
        self._assign(self.average)
        try:
            yield
        finally:
            self._assign(own)

    @torch.no_grad()
    def _assign(self, values: dict[str, Tensor]) -> None:
        for name, p in self.named.items():
            p.copy_(values[name])

    def save(self) -> None:
        """Write state.pt, all of it or none."""
        optimizer = self.optimizer.state_dict()
        self.folder.save(
            {"step": self.step, "model": dict(self.named), "average": self.average, "optimizer": optimizer}
        )

    def _resume(self) -> None:
        """Continue from state.pt where there is one. Raises TrainingError where it is not a state of this run."""
        state = self.folder.load(self.device)
        if state is None:
            return
        try:
            self._restore(**state)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            reason = one_line(error)[:120]
            raise TrainingError(
                f"{self.folder.state} is no state of this run ({reason}); delete it to start anew, or name another run"
            ) from None

    @torch.no_grad()
    def _restore(
        self, *, step: int, model: dict[str, Tensor], average: dict[str, Tensor], optimizer: list[dict[str, Any]]
    ) -> None:
        """Take over what `save` wrote. Raises ValueError, or what else goes wrong with values of other types."""
        if type(step) is not int or not 0 <= step <= self.recipe.steps:
            raise ValueError(f"its step is {step!r}")
        shapes = {name: (p.shape, p.dtype) for name, p in self.named.items()}
        for part in (model, average):
            if {name: (value.shape, value.dtype) for name, value in part.items()} != shapes:
                raise ValueError("its model is not the start folder's")
            if not all(value.isfinite().all() for value in part.values()):
                raise ValueError("its model holds NaN or infinity")
        self.optimizer.load_state_dict(optimizer)
        self._assign(model)
        for name, value in self.average.items():
            value.copy_(average[name])
        self.step = step


def _device(name: str) -> torch.device:
    """Where to compute. Raises BackendError where there is no such device."""
    devices = TorchBackend().devices()
    if name not in devices and not (name == "cuda" and "cuda:0" in devices):
        raise BackendError(f"no device {name!r} here; there are {', '.join(devices)}")
    return torch.device(name)


def _check_machine(recipe: Recipe) -> None:
    """Raises RecipeError where the recipe needs a folder or a program that is missing."""
    if recipe.teacher and not Path(recipe.teacher).is_dir():
        raise RecipeError(f"teacher {recipe.teacher} is no folder; name that of a checkpoint")
    if recipe.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise RecipeError("compile needs a C++ compiler, and there is none here: install g++, or pass --no-compile")


def _share(batch_size: int) -> slice:
    """The rows of a batch that are this process's. Raises RecipeError where the processes cannot get equally many."""
    share, rest = divmod(batch_size, world_size())
    if rest:
        raise RecipeError(f"batch_size {batch_size} does not split over {world_size()} processes; take a multiple")
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


if __name__ == "__main__":
    sys.exit("minclip: the command is python -m minclip_torch.training")
