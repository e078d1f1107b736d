"""The one object users hold: a checkpoint's config, its processor, and its towers on some backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minclip import checkpoint
from minclip.backend import Towers, get_backend
from minclip.config import Config, TextConfig
from minclip.contrastive import contrastive_loss, logits_per_image, probabilities, unit
from minclip.errors import BackendError, CheckpointError, ImageError
from minclip.image import ImageSource
from minclip.inputs import IMAGE_INPUTS, TEXT_INPUTS, checked_ids, checked_pixels, checked_rows, inputs_of
from minclip.pipeline import Progress, ahead, batched, default_workers
from minclip.processor import Processor
from minclip.towers import TowerOutput
from minclip.weights import Weights

__all__ = ["Model", "ModelOutput", "Prediction", "Ranking", "load", "zero_shot"]


class Prediction(NamedTuple):
    """A label and how probable it is among the labels it was ranked with."""

    label: str
    score: float


Ranking: TypeAlias = list[Prediction]
"""Best first."""


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

        image: anything `minclip.image` opens gives a `Ranking`, a list of them a list of those. labels: used as they
        stand, in any language the checkpoint knows. template: a string with one `{}` for the label, "a photo of a {}."
        for class names with CLIP, or several, whose unit vectors are averaged. top_k: keep that many.
        Raises ValueError for no labels, no image, or a template without `{}`; ImageError for an unreadable image.
        """
        if isinstance(labels, str) or not len(labels):
            raise ValueError(f"labels must be a list of at least one text, not {labels!r}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        text_embeds = self._label_embeds(labels, template)
        image_embeds = self.encode_image(image, batch_size=batch_size)
        scores = probabilities(logits_per_image(image_embeds, text_embeds, self.logit_scale))  # (b, n)
        rankings = [_rank(labels, row, top_k) for row in scores]
        return rankings if _is_batch(image) else rankings[0]

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
        rankings = [_rank(labels, row, top_k) for row in probabilities(rows)]
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
        """Embed images: float32 (n, projection_dim), unit length, in the order given.

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
        text = self._text(**inputs_of(inputs, TEXT_INPUTS), **record)
        vision = self._vision(**inputs_of(inputs, IMAGE_INPUTS), **record)
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
        checkpoint.save(folder, self.config, self.weights)
        self.processor.save(folder)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _vision(self, pixel_values: Any = None, interpolate_pos_encoding: bool = False, **record: Any) -> TowerOutput:
        self._require("vision")
        if pixel_values is None:
            raise ValueError("pixel_values is missing; make them with model.processor(images=...)")
        if isinstance(pixel_values, np.ndarray | list):
            pixel_values = checked_pixels(np.asarray(pixel_values), self.config, interpolate_pos_encoding)
        return self.towers.vision(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **record)

    def _text(self, input_ids: Any = None, attention_mask: Any = None, **rest: Any) -> TowerOutput:
        self._require("text")
        if input_ids is None and (rest.get("inputs_embeds") is None or isinstance(self.config.text_config, TextConfig)):
            raise ValueError("input_ids is missing; make them with model.processor(text=...)")
        if isinstance(input_ids, np.ndarray | list):
            input_ids = checked_ids(np.asarray(input_ids), self.config)
        for name in ("position_ids", "token_type_ids"):
            if rest.get(name) is not None:
                rest[name] = checked_rows(name, rest[name], self.config)
        shape = tuple((rest["inputs_embeds"] if input_ids is None else input_ids).shape[:2])
        if attention_mask is not None and tuple(attention_mask.shape) != shape:
            raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)}, the texts have {shape}")
        return self.towers.text(input_ids, attention_mask, **rest)

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

    def _label_embeds(self, labels: Sequence[str], template: str | Sequence[str] | None) -> np.ndarray:
        """Unit vectors of the labels (n, p): each the mean over the templates, renormalized."""
        templates = ["{}"] if template is None else [template] if isinstance(template, str) else list(template)
        for form in templates:
            if form.count("{}") != 1:
                raise ValueError(f"template {form!r} must hold one {{}} for the label, as in 'a photo of a {{}}.'")
        if not templates:
            raise ValueError("template is an empty list; leave it out to use the labels as they stand")
        texts = [form.replace("{}", label) for form in templates for label in labels]
        embeds = self.encode_text(texts).reshape(len(templates), len(labels), -1)  # (templates, n, p)
        return embeds[0] if len(templates) == 1 else unit(embeds.mean(axis=0))

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

        def prepare(numbered: tuple[int, ImageSource]) -> tuple[int, np.ndarray | ImageError]:
            index, image = numbered
            try:
                return index, np.asarray(processor.picture(image)) if resize_on_device else processor.pixels(image)
            except ImageError as error:
                return index, ImageError(f"images[{index}]: {error}") if len(batch) > 1 else error

        def embed_all() -> Iterator[Any]:
            threads = workers or default_workers()
            pending: list[np.ndarray] = []
            for index, pixels in ahead(prepare, enumerate(batch), workers=threads, depth=2 * batch_size + threads):
                if isinstance(pixels, np.ndarray):
                    pending.append(pixels)
                elif on_error is None:
                    raise pixels
                else:
                    on_error(index, pixels)
                    bar.advance(1)
                if pending and (len(pending) == batch_size or index == len(batch) - 1):
                    values = self.towers.pixel_values(pending, processor, resized=not resize_on_device)
                    yield head(self._vision(values))
                    pending = []

        return self._collect(embed_all(), bar, native)

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
    bundled name. backend, device, dtype: see `minclip.backends()`; None is the backend's default. NumPy computes in
    "float32" or "float64", and with None leaves half-precision weights at half the memory. options: the backend's own.
    Raises CheckpointError, ConfigError, TokenizerError or BackendError, one line each; never a partial model.
    """
    if source is None:
        raise CheckpointError(
            "no model was named and none is bundled; name a checkpoint folder or a hub id such as "
            "openai/clip-vit-large-patch14"
        )
    factory = get_backend(backend)
    folder = checkpoint.locate(source)
    config, weights = checkpoint.read(folder)
    processor = Processor.from_folder(folder, config)
    towers = factory.build(config, weights, device=device, dtype=dtype, **options)
    return Model(config, weights, processor, towers, str(source or folder))


_load_once = lru_cache(maxsize=1)(load)


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

    The model loaded last is kept, so that calls in a row load it once.
    """
    if not isinstance(model, Model):
        model = _load_once(model, backend=backend, device=device, dtype=dtype)
    return model.zero_shot(image, labels, template=template, top_k=top_k)


def _is_batch(images: Any) -> bool:
    return isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)


def _rank(labels: Sequence[str], scores: np.ndarray, top_k: int | None) -> Ranking:
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [Prediction(labels[i], float(scores[i])) for i in order]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
