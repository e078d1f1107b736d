"""The one object users hold: a checkpoint's config, its processor, and its towers on some backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from minclip import checkpoints
from minclip.backend import Towers, get_backend
from minclip.checkpoints import sources
from minclip.config import Config, TextConfig
from minclip.contrastive import contrastive_loss, logits_per_image, probabilities, unit
from minclip.errors import BackendError, CheckpointError, ConfigError, ImageError
from minclip.images.image import ImageSource
from minclip.inputs import IMAGE_INPUTS, TEXT_INPUTS, checked_pixels, checked_text, inputs_of
from minclip.notice import announce_bundled
from minclip.pipeline import Progress, batched
from minclip.processor import Processor, prepared
from minclip.ranking import Ranking, checked_labels, checked_templates, rank, templated
from minclip.towers import TowerOutput
from minclip.weights import Weights


@dataclass(frozen=True)
class ModelOutput:
    """b images, n texts, p width of the shared space. All arrays are NumPy's.

    image_embeds (b, p) and text_embeds (n, p) have unit length. loss only where it was asked for.
    """

    logits_per_image: np.ndarray  # (b, n)
    logits_per_text: np.ndarray  # (n, b)
    image_embeds: np.ndarray
    text_embeds: np.ndarray
    vision_model_output: TowerOutput
    text_model_output: TowerOutput
    loss: float | None = None


class Model:
    """A loaded checkpoint. Get one with `minclip.load`."""

    def __init__(self, config: Config, weights: Weights, processor: Processor, towers: Towers, source: str) -> None:
        self.config = config
        self.weights = weights
        self.processor = processor
        self.towers = towers
        self.source = source

    def __repr__(self) -> str:
        return f"<minclip.Model {self.source}: {self.config.model_type}, {' and '.join(self.config.towers)} tower>"

    # --- answers ---------------------------------------------------------------------------------------------------

    def zero_shot(
        self,
        image: ImageSource | Sequence[ImageSource],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] | None = None,
        top_k: int | None = None,
        batch_size: int = 32,
    ) -> Any:
        """Rank labels for an image, best first, by softmax over the scaled cosines (Radford et al. 2021, section 3.1).

        image: anything `minclip.images` opens gives a `Ranking`, a list of them a list of those. labels: used as they
        stand, in any language the checkpoint knows. template: a string with one `{}` for the label, "a photo of a {}."
        for class names with CLIP, or several, whose unit vectors are averaged. top_k: keep that many.
        Raises ValueError for no labels, no image, or a template without `{}`; ImageError for an unreadable image.
        """
        found = checked_labels(labels)
        label_embeds = self.label_embeds(found, template)
        rankings = self.rank(self.encode_image(image, batch_size=batch_size), found, label_embeds, top_k=top_k)
        return rankings if _is_batch(image) else rankings[0]

    def label_embeds(self, labels: Sequence[str], template: str | Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors of the labels (n, p): of each the mean over the templates, renormalized."""
        found, templates = checked_labels(labels), checked_templates(template)
        embeds = self.encode_text(templated(templates, found)).reshape(len(templates), len(found), -1)
        return embeds[0] if len(templates) == 1 else unit(embeds.mean(axis=0))

    def rank(
        self, image_embeds: np.ndarray, labels: Sequence[str], label_embeds: np.ndarray, *, top_k: int | None = None
    ) -> list[Ranking]:
        """A ranking of the labels for each image, from unit vectors (b, p) and (n, p): what zero_shot ends with."""
        scores = probabilities(logits_per_image(image_embeds, label_embeds, self.logit_scale))  # (b, n)
        return [rank(labels, row, top_k) for row in scores]

    def classify(
        self, images: ImageSource | Sequence[ImageSource], *, top_k: int | None = None, batch_size: int = 32
    ) -> Any:
        """Rank the classes of the checkpoint's own image-classification head: a `Ranking`, or a list of them.

        Raises CheckpointError where the checkpoint has no such head.
        """
        if not self.config.is_classifier:
            raise CheckpointError(f"{self.source} has no image-classification head; use zero_shot with labels of yours")
        rows = self._encode_images(images, lambda out: out.logits, batch_size=batch_size, progress=False)
        labels = [self.config.id2label.get(i, f"LABEL_{i}") for i in range(rows.shape[1])]
        rankings = [rank(labels, row, top_k) for row in probabilities(rows)]
        return rankings if _is_batch(images) else rankings[0]

    def encode_image(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        batch_size: int = 32,
        progress: bool = False,
        workers: int | None = None,
        resize_on_device: bool = False,
        on_error: Callable[[int, ImageError], None] | None = None,
        native: bool = False,
    ) -> Any:
        """Embed images: float32 (n, projection_dim), unit length, in the order given; float64 where computed in it.

        Pictures are decoded and resized in `workers` threads ahead of the towers; resize_on_device leaves the resize
        to the backend (the same bytes, for a device faster at it than the threads). on_error: told the index of an
        image that cannot be read and why; that image is left out and the rest goes on. Without it the first ImageError
        is raised. native: return the backend's own array, left where it is, instead of NumPy's.
        Where the device runs out of memory, the BackendError's `finished` holds the rows of the batches done before.
        """
        return self._encode_images(
            images,
            lambda out: self.towers.unit(self._embeds(out, "image")),
            batch_size=batch_size,
            progress=progress,
            workers=workers,
            resize_on_device=resize_on_device,
            on_error=on_error,
            native=native,
        )

    def encode_text(
        self, texts: str | Sequence[str], *, batch_size: int = 256, progress: bool = False, native: bool = False
    ) -> Any:
        """Embed texts: float32 (n, projection_dim), unit length. `native` as for `encode_image`."""
        self._require("text")
        batch = [texts] if isinstance(texts, str) else list(texts)
        if not batch:
            raise ValueError("texts is empty; pass at least one text")
        _check_batch_size(batch_size)

        def embed(part: Sequence[str]) -> Any:
            inputs = self.processor(text=part)
            if isinstance(self.config.text_config, TextConfig):
                del inputs["attention_mask"]  # the padding is on the right, where a causal tower never looks
            return self.towers.unit(self._embeds(self._text(**inputs), "text"))

        bar = Progress("texts", len(batch), show=progress)
        return self._collect(map(embed, batched(batch, batch_size)), bar, native)

    # --- the towers, as they are -----------------------------------------------------------------------------------

    def __call__(
        self,
        *,
        return_loss: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Any,
    ) -> ModelOutput:
        """Run both towers on what `processor` made: pixel_values (b, 3, h, w), input_ids and attention_mask (n, t).

        Also position_ids, token_type_ids and interpolate_pos_encoding (images of other sizes than the config's).
        return_loss: the contrastive loss, of as many texts as images. Raises ValueError naming what does not fit.
        """
        record = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        pixels, texts = inputs_of(inputs, IMAGE_INPUTS), inputs_of(inputs, TEXT_INPUTS)
        if "input_ids" not in texts and "inputs_embeds" not in texts:  # said before the other tower has run for nothing
            raise ValueError("input_ids is missing; make them with model.processor(text=...)")
        vision = self._vision(**pixels, **record)
        text = self._text(**texts, **record)
        embeds = [self.towers.unit(self._embeds(out, kind)) for out, kind in ((vision, "image"), (text, "text"))]
        image_embeds, text_embeds = map(self.towers.to_numpy, embeds)
        logits = logits_per_image(image_embeds, text_embeds, self.logit_scale)
        return ModelOutput(
            logits_per_image=logits,
            logits_per_text=logits.T,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            vision_model_output=self._as_numpy(vision),
            text_model_output=self._as_numpy(text),
            loss=contrastive_loss(logits) if return_loss else None,
        )

    def get_image_features(self, **inputs: Any) -> np.ndarray:
        """The projected image embeddings (b, p), not normalized. Text inputs beside them are left aside."""
        return self.towers.to_numpy(self._embeds(self._vision(**inputs_of(inputs, IMAGE_INPUTS)), "image"))

    def get_text_features(self, **inputs: Any) -> np.ndarray:
        """The projected text embeddings (n, p), not normalized. Image inputs beside them are left aside."""
        return self.towers.to_numpy(self._embeds(self._text(**inputs_of(inputs, TEXT_INPUTS)), "text"))

    def vision_tower(self, **inputs: Any) -> TowerOutput:
        """The vision tower alone, projection or not. Takes what `__call__` takes of images; NumPy arrays."""
        return self._as_numpy(self._vision(**inputs))

    def text_tower(self, **inputs: Any) -> TowerOutput:
        """The text tower alone, projection or not. Takes what `__call__` takes of texts; NumPy arrays."""
        return self._as_numpy(self._text(**inputs))

    @property
    def logit_scale(self) -> float:
        """The logarithm of the factor that cosines are multiplied by."""
        if "logit_scale" not in self.weights:
            raise CheckpointError(f"{self.source} is not a whole model, so it cannot compare images with texts")
        return float(self.weights["logit_scale"].reshape(()))

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint folder that minclip and Transformers open: config, weights as stored, processor files."""
        checkpoints.save(folder, self.config, self.weights)
        self.processor.save(folder)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _vision(self, pixel_values: Any = None, interpolate_pos_encoding: bool = False, **record: Any) -> TowerOutput:
        self._require("vision")
        pixels = checked_pixels(pixel_values, self.config, interpolate_pos_encoding)
        return self.towers.vision(pixels, interpolate_pos_encoding=interpolate_pos_encoding, **record)

    def _text(self, **inputs: Any) -> TowerOutput:
        self._require("text")
        record = {name: inputs.pop(name) for name in tuple(inputs) if name not in TEXT_INPUTS}
        checked = {"input_ids": None, **checked_text(inputs, self.config)}
        return self.towers.text(**checked, **record)

    def _require(self, tower: str) -> None:
        if tower not in self.config.towers:
            raise CheckpointError(
                f"{self.source} holds no {tower} tower, only {' and '.join(self.config.towers)}; "
                "load a checkpoint of the whole model"
            )

    def _embeds(self, output: TowerOutput, kind: str) -> Any:
        if output.embeds is None:
            raise CheckpointError(
                f"{self.source} has no {kind} projection, so there are no {kind} embeddings; "
                "its tower's own output is there with model.vision_tower(...) or model.text_tower(...)"
            )
        return output.embeds

    def _encode_images(
        self,
        images: ImageSource | Sequence[ImageSource],
        head: Callable[[TowerOutput], Any],
        *,
        batch_size: int,
        progress: bool,
        workers: int | None = None,
        resize_on_device: bool = False,
        on_error: Callable[[int, ImageError], None] | None = None,
        native: bool = False,
    ) -> Any:
        """Decode ahead, run batch by batch, convert once at the end."""
        self._require("vision")
        batch: Sequence[ImageSource] = images if _is_batch(images) else [images]  # type: ignore[assignment, list-item]
        if not len(batch):
            raise ValueError("images is empty; pass at least one image")
        _check_batch_size(batch_size)
        bar = Progress("images", len(batch), show=progress)
        processor = self.processor.image_processor

        def embed_all() -> Iterator[Any]:
            pending: list[np.ndarray] = []
            depth = 0 if resize_on_device else 2 * batch_size  # whole photographs are too large to hold many
            for index, pixels in prepared(batch, processor, workers=workers, depth=depth, resize=not resize_on_device):
                if isinstance(pixels, np.ndarray):
                    pending.append(pixels)
                elif on_error is not None:
                    on_error(index, pixels)
                    bar.advance(1)
                else:
                    raise ImageError(f"images[{index}]: {pixels}") if len(batch) > 1 else pixels
                if pending and (len(pending) == batch_size or index == len(batch) - 1):
                    values = self.towers.pixel_values(pending, processor, resized=not resize_on_device)
                    self._check_processor(tuple(values.shape[2:]))
                    yield head(self._vision(values))
                    pending = []

        return self._collect(embed_all(), bar, native)

    def _check_processor(self, made: tuple[int, ...]) -> None:
        """Raises ConfigError where the image processor makes pictures that the vision tower does not take."""
        side = self.config.vision_config.image_size if self.config.vision_config else 0
        if made != (side, side):
            raise ConfigError(
                f"{self.source}: preprocessor_config.json makes images of {made[0]}x{made[1]}, the vision tower takes "
                f"{side}x{side}; mend its crop_size, or call the model itself with interpolate_pos_encoding=True"
            )

    def _collect(self, parts: Iterable[Any], bar: Progress, native: bool) -> Any:
        """Gather the batches' rows; where one fails for want of memory, hand out those before it with the error."""
        done: list[Any] = []
        try:
            for part in parts:
                done.append(part)
                bar.advance(len(part))
        except BackendError as error:
            error.finished = self.towers.to_numpy(self.towers.join(done)) if done else None
            raise
        finally:
            bar.close()
        if not done:  # every image was left out
            return np.zeros((0, self.config.projection_dim), np.float32)
        rows = self.towers.join(done)
        return rows if native else self.towers.to_numpy(rows)

    def _as_numpy(self, output: TowerOutput) -> TowerOutput:
        def convert(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(convert, value))
            return None if value is None else self.towers.to_numpy(value)

        return replace(output, **{name: convert(value) for name, value in vars(output).items()})


def load(
    source: str | Path | None = None,
    *,
    backend: str = "numpy",
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Model:
    """Load a checkpoint.

    source: a checkpoint folder, a hub id "org/name" (only then is the network touched; needs `minclip[hub]`), or a
    bundled name; None is the bundled "mini-metaclip-2". backend, device, dtype: see `minclip.backends()`; None is the
    backend's default. NumPy computes in "float32" or "float64", and with None leaves half-precision weights at half
    the memory. options: the backend's own.
    Raises CheckpointError, ConfigError, TokenizerError or BackendError, one line each; never a partial model.

    The bundled models know drawn pictures, not photographs. The first one loaded in a process says so in one line on
    stderr, by way of the logger "minclip": `logging.getLogger("minclip").setLevel("ERROR")` silences it.
    """
    factory = get_backend(backend)
    path = checkpoints.locate(source)
    config, weights = checkpoints.read(path)
    folder = path if path.is_dir() else path.parent
    processor = Processor.from_folder(folder, config)
    towers = factory.build(config, weights, device=device, dtype=dtype, **options)
    if folder.parent == sources.BUNDLED:
        announce_bundled(folder.name)
    return Model(config, weights, processor, towers, str(source or sources.DEFAULT))


@lru_cache(maxsize=1)
def _load_once(source: str | Path | None, state: object, backend: str, device: str | None, dtype: str | None) -> Model:
    """`load`, remembered while `state` stays as it is."""
    return load(source, backend=backend, device=device, dtype=dtype)


def _state(source: str | Path | None) -> object:
    """Which folder a source names now, and when its files were written; None for what is no folder."""
    folder = sources.BUNDLED / sources.DEFAULT if source is None else source
    if not os.path.isdir(folder):
        return None
    return os.path.realpath(folder), tuple(sorted((file.name, file.stat().st_mtime_ns) for file in os.scandir(folder)))


def zero_shot(
    image: ImageSource | Sequence[ImageSource],
    labels: Sequence[str],
    *,
    model: str | Path | Model | None = None,
    template: str | Sequence[str] | None = None,
    top_k: int | None = None,
    backend: str = "numpy",
    device: str | None = None,
    dtype: str | None = None,
) -> Any:
    """Rank labels for an image, best first, or for each of a list: `load(model, ...).zero_shot(image, labels, ...)`.

    model: as for `load`, which says what the bundled default knows; or a Model. The model loaded last is kept, so that
    calls in a row load it once; a folder that has changed is loaded again.
    """
    if not isinstance(model, Model):
        model = _load_once(model, _state(model), backend, device, dtype)
    return model.zero_shot(image, labels, template=template, top_k=top_k)


def _is_batch(images: Any) -> bool:
    return isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
