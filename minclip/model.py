"""The one object users hold: a checkpoint's config, its processor, and its towers on some backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from minclip import checkpoints, classification
from minclip.arguments import EncodeImageOptions, ModelInputs, ZeroShotOptions
from minclip.backend import BackendArray, GivesEmbeds, Towers, get_backend
from minclip.config import Config
from minclip.contrastive import contrastive_loss, logits_per_image, probabilities
from minclip.encoding import (
    check_batch_size,
    checked_texts,
    finite,
    gathered,
    label_rows,
    pixel_batches,
    text_rows,
    unit_rows,
)
from minclip.errors import CheckpointError, ConfigError, ImageError
from minclip.fingerprint import fingerprint, origin
from minclip.images import ImageSource, is_batch
from minclip.initialization import initial_weights
from minclip.inputs import ImageInputs, TextInputs, as_numpy, image_inputs, split_inputs, text_inputs
from minclip.label_set import Labels, LabelSet
from minclip.outputs import ClassifierOutput, ModelOutput, TowerOutput
from minclip.pipeline import Progress
from minclip.processor import Processor
from minclip.ranking import Ranking, checked_labels, checked_templates, rank
from minclip.threads import library_on_one_thread
from minclip.weights import Weights

Source = TypeVar("Source", bound=ImageSource)


class Model:
    """A loaded checkpoint. Get one with `minclip.load`, or with random weights from `Model.from_config`."""

    def __init__(self, config: Config, weights: Weights, processor: Processor, towers: Towers, source: str) -> None:
        self.config = config
        self.weights = weights
        self.processor = processor
        self.towers = towers
        self.source = source
        self._fingerprint: str | None = None
        self._last_labels: tuple[object, np.ndarray] | None = None  # what they were, and their unit vectors

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        seed: int = 0,
        backend: str = "numpy",
        device: str | None = None,
        dtype: str | None = None,
        **options: object,
    ) -> Model:
        """A model with random weights, drawn as the config's initializer_range and initializer_factor say.

        It has CLIP's image processor and no tokenizer. backend, device, dtype, options: as for `minclip.load`.
        """
        weights = initial_weights(config, seed)
        towers = get_backend(backend).build(config, weights, device=device, dtype=dtype, **options)
        return cls(config, weights, Processor.for_config(config), towers, f"<{config.model_type}, random weights>")

    def __repr__(self) -> str:
        towers = " and ".join(self.config.towers)
        return f"<minclip.Model {self.source}: {self.config.model_type}, {towers} tower, {type(self.towers).__name__}>"

    # --- answers ---------------------------------------------------------------------------------------------------

    @overload
    def zero_shot(self, image: Source, labels: Labels, **options: Unpack[ZeroShotOptions]) -> Ranking: ...
    @overload
    def zero_shot(
        self, image: list[Source] | tuple[Source, ...], labels: Labels, **options: Unpack[ZeroShotOptions]
    ) -> list[Ranking]: ...
    def zero_shot(
        self,
        image: ImageSource | Sequence[ImageSource],
        labels: Labels,
        *,
        template: str | Sequence[str] | None = None,
        top_k: int | None = None,
        batch_size: int = 32,
    ) -> Ranking | list[Ranking]:
        """Rank labels for an image, best first, by softmax over the scaled cosines (Radford et al. 2021, section 3.1).

        image: anything `minclip.images` opens gives a `Ranking`, a list of them a list of those. labels: used as they
        stand, in any language the checkpoint knows; or a `LabelSet`, which has its templates. template: a string with
        one `{}` for the label, "a photo of a {}." for class names with CLIP, or several, whose unit vectors are
        averaged. top_k: keep that many. Labels are not encoded again where the call before had the same.
        Raises ValueError for no labels, no image, or a template without `{}`; ImageError for an unreadable image;
        LabelSetError for a set of another model.
        """
        found, label_embeds = self.encoded_labels(labels, template)
        image_embeds = self.encode_image(image, batch_size=batch_size)
        rankings = self.rank(image_embeds, found, label_embeds, top_k=top_k)
        return rankings if is_batch(image) else rankings[0]

    def label_set(
        self,
        labels: Sequence[str],
        template: str | Sequence[str] | None = None,
        *,
        batch_size: int = 256,
        progress: bool = False,
    ) -> LabelSet:
        """The labels, encoded once, to be given wherever labels are taken, and saved. template: see `zero_shot`."""
        found, templates = checked_labels(labels), checked_templates(template)
        check_batch_size(batch_size)
        embeds = self._label_rows(found, templates, batch_size, progress)
        return LabelSet(found, templates, embeds, origin(self), self.fingerprint)

    def label_embeds(self, labels: Labels, template: str | Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors of the labels (n, p), read-only: of each the mean over the templates, renormalized."""
        return self.encoded_labels(labels, template)[1]

    def encoded_labels(
        self, labels: Labels, template: str | Sequence[str] | None = None
    ) -> tuple[Sequence[str], np.ndarray]:
        """The labels and their `label_embeds`: a set's own, those of the call before, or made now."""
        self._ready("text")
        if isinstance(labels, LabelSet):
            labels.check(self, template)
            return labels.labels, labels.embeds
        found, templates = checked_labels(labels), checked_templates(template)
        key, last = (found, templates, self.towers, self.processor), self._last_labels
        if last is None or last[0] != key:
            last = key, self._label_rows(found, templates)
            last[1].flags.writeable = False
            self._last_labels = last if self.weights.read_only else None  # others may be trained between two calls
        return found, last[1]

    def rank(
        self, image_embeds: np.ndarray, labels: Sequence[str], label_embeds: np.ndarray, *, top_k: int | None = None
    ) -> list[Ranking]:
        """A ranking of the labels for each image, from unit vectors (b, p) and (n, p): what zero_shot ends with."""
        with library_on_one_thread():
            scores = probabilities(logits_per_image(image_embeds, label_embeds, self.logit_scale))  # (b, n)
        return [rank(labels, row, top_k) for row in finite(self.source, "probabilities", scores)]

    @overload
    def classify(
        self, images: Source, *, top_k: int | None = None, batch_size: int = 32, draft: bool = False
    ) -> Ranking: ...
    @overload
    def classify(
        self,
        images: list[Source] | tuple[Source, ...],
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        draft: bool = False,
    ) -> list[Ranking]: ...
    def classify(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        draft: bool = False,
    ) -> Ranking | list[Ranking]:
        """Rank the classes of the checkpoint's own image-classification head: a `Ranking`, or a list of them.

        Scores by the config's problem_type: softmax for one label of many, the sigmoid of each for several or for a
        single class, the number itself for regression. draft: as for `encode_image`. Raises CheckpointError where there
        is no such head.
        """
        if not self.config.is_classifier:
            raise CheckpointError(f"{self.source} has no image-classification head; use zero_shot with labels of yours")

        def run(given: ImageInputs[Any]) -> BackendArray:
            return self.towers.vision(given).logits

        parts = self._encode_images(images, run, batch_size=batch_size, draft=draft)
        logits = finite(self.source, "logits", self.towers.to_numpy(self.towers.join(parts)))
        rows = classification.scores(logits, self.config.problem_type)  # a sigmoid makes 0 or 1 of an infinity
        labels = [self.config.id2label.get(i, f"LABEL_{i}") for i in range(rows.shape[1])]
        rankings = [rank(labels, row, top_k) for row in rows]
        return rankings if is_batch(images) else rankings[0]

    @overload
    def encode_image(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        native: Literal[False] = False,
        **options: Unpack[EncodeImageOptions],
    ) -> np.ndarray: ...
    @overload
    def encode_image(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        native: Literal[True],
        **options: Unpack[EncodeImageOptions],
    ) -> BackendArray: ...
    def encode_image(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        batch_size: int = 32,
        progress: bool = False,
        workers: int | None = None,
        resize_on_device: bool = False,
        draft: bool = False,
        on_error: Callable[[int, ImageError], None] | None = None,
        native: bool = False,
    ) -> np.ndarray | BackendArray:
        """Embed images: float32 (n, projection_dim), unit length, in the order given; float64 where computed in it.

        Images are decoded and resized in `workers` threads ahead of the towers; resize_on_device leaves the resize
        to the backend (the same bytes, for a device faster at it than the threads). on_error: called with the index of
        an image that cannot be read and the reason; that image is left out and the rest goes on. Without it the first
        ImageError is raised. native: return the backend's own array, left where it is, instead of NumPy's (unless
        every image was left out). Raises CheckpointError where a row has no length: NaN, infinity, 0.
        Where the device runs out of memory, the BackendError's `finished` holds the rows of the batches done before.

        draft: decode JPEG files at 1/2, 1/4 or 1/8 of their size, the smallest that is not below what they are resized
        to. Measured at 224 x 224: decoding and resizing takes 5.6 -> 3.3 ms for 512 x 512 pixels, 239 -> 49 ms for 12
        megapixels. The pixels are others, by one or two of 256 levels on average. Of 512 photographs embedded by the
        bundled models (64 x 64) the cosine with the exact embedding was 0.9997 or more on average and 0.998 at least,
        where two photographs have 0.73 on average.
        """
        parts = self._encode_images(
            images,
            self._unit_image_embeds,
            batch_size=batch_size,
            progress=progress,
            workers=workers,
            resize_on_device=resize_on_device,
            draft=draft,
            on_error=on_error,
        )
        if not parts:  # every image was left out
            return np.zeros((0, self.config.projection_dim), np.float32)
        rows = unit_rows(self.source, "image", parts, self.towers)
        return rows if native else self.towers.to_numpy(rows)

    @overload
    def encode_text(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 256,
        progress: bool = False,
        native: Literal[False] = False,
    ) -> np.ndarray: ...
    @overload
    def encode_text(
        self, texts: str | Sequence[str], *, batch_size: int = 256, progress: bool = False, native: Literal[True]
    ) -> BackendArray: ...
    def encode_text(
        self, texts: str | Sequence[str], *, batch_size: int = 256, progress: bool = False, native: bool = False
    ) -> np.ndarray | BackendArray:
        """Embed texts: float32 (n, projection_dim), unit length. `native` as for `encode_image`.

        Equal texts are computed once, and texts of like length together where there are several batches.
        """
        batch = checked_texts(texts)
        check_batch_size(batch_size)
        with closing(Progress("texts", len(batch), show=progress)) as bar:
            rows = self._encode_texts(batch, batch_size, bar)
        return rows if native else self.towers.to_numpy(rows)

    # --- the towers, as they are -----------------------------------------------------------------------------------

    @overload
    def __call__(self, *, labels: None = None, **inputs: Unpack[ModelInputs]) -> ModelOutput: ...
    @overload
    def __call__(self, *, labels: ArrayLike, **inputs: Unpack[ModelInputs]) -> ClassifierOutput: ...
    def __call__(
        self,
        *,
        input_ids: ArrayLike | None = None,
        pixel_values: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        inputs_embeds: ArrayLike | None = None,
        head_mask: ArrayLike | None = None,
        interpolate_pos_encoding: bool = False,
        labels: ArrayLike | None = None,
        return_loss: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput | ClassifierOutput:
        """Run both towers on what `processor` makes, and compare them: a `ModelOutput`.

        A classifier runs its only tower and gives a `ClassifierOutput`, with or without labels.

        b images, n texts, t tokens, d width of the text tower. pixel_values (b, 3, height, width) floats; input_ids
        (n, t) integers; attention_mask (n, t), 1 for a token and 0 for padding; position_ids (t,) or (n, t);
        token_type_ids (n, t); inputs_embeds (n, t, d); head_mask (layers, heads) or (heads,).
        interpolate_pos_encoding: take images of another size than the config's. labels: of a classifier, see
        `minclip.classification.loss`. return_loss: the contrastive loss, of as many texts as images.
        Raises ValueError naming what does not fit.
        """
        record: dict[str, Any] = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        pixels: dict[str, Any] = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
        texts = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            "head_mask": head_mask,
        }
        if self.config.is_classifier:
            given = _only(split_inputs(texts | pixels), 1)
            return self._classified(self._vision(given, **record).converted(self.towers.to_numpy), labels)
        if labels is not None:
            raise ValueError(f"labels are for image classifiers, which {self.source} is not; pass return_loss=True")
        self._ready("vision", "text")
        text_given, image_given = text_inputs(self.config, **texts), image_inputs(self.config, **pixels)
        vision, text = self.towers.vision(image_given, **record), self.towers.text(text_given, **record)
        image_embeds, text_embeds = (
            self.towers.to_numpy(
                unit_rows(self.source, kind, [self.towers.unit(self._present(output.embeds, kind))], self.towers)
            )
            for kind, output in (("image", vision), ("text", text))
        )
        with library_on_one_thread():
            logits = logits_per_image(image_embeds, text_embeds, self.logit_scale)
        return ModelOutput(
            logits_per_image=logits,
            logits_per_text=logits.T,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            vision_model_output=vision.converted(self.towers.to_numpy),
            text_model_output=text.converted(self.towers.to_numpy),
            loss=contrastive_loss(logits) if return_loss else None,
        )

    def get_image_features(
        self, *, output_hidden_states: bool = False, output_attentions: bool = False, **inputs: ArrayLike
    ) -> np.ndarray | TowerOutput:
        """The projected image embeddings (b, p), not normalized, of pixel_values. Text inputs beside them are ignored.

        Where hidden states or attentions are asked for, the whole `TowerOutput`, whose `embeds` these are.
        """
        given = split_inputs(inputs)[1]
        if output_hidden_states or output_attentions:
            return self._features(self._vision(given, output_hidden_states, output_attentions), "image")
        self._ready("vision")
        rows = self._image_embeds(image_inputs(self.config, **given))
        return finite(self.source, "image features", self.towers.to_numpy(rows))

    def get_text_features(
        self, *, output_hidden_states: bool = False, output_attentions: bool = False, **inputs: ArrayLike
    ) -> np.ndarray | TowerOutput:
        """The projected text embeddings (n, p), not normalized, of input_ids. Image inputs beside them are ignored.

        Where hidden states or attentions are asked for, the whole `TowerOutput`, whose `embeds` these are.
        """
        given = split_inputs(inputs)[0]
        if output_hidden_states or output_attentions:
            return self._features(self._text(given, output_hidden_states, output_attentions), "text")
        self._ready("text")
        rows = self._text_embeds(text_inputs(self.config, **given))
        return finite(self.source, "text features", self.towers.to_numpy(rows))

    def vision_tower(
        self, *, output_hidden_states: bool = False, output_attentions: bool = False, **inputs: ArrayLike
    ) -> TowerOutput:
        """The vision tower alone, projection or not. Takes what `__call__` takes of images; NumPy arrays."""
        given = _only(split_inputs(dict(inputs)), 1)
        return self._vision(given, output_hidden_states, output_attentions).converted(self.towers.to_numpy)

    def text_tower(
        self, *, output_hidden_states: bool = False, output_attentions: bool = False, **inputs: ArrayLike
    ) -> TowerOutput:
        """The text tower alone, projection or not. Takes what `__call__` takes of texts; NumPy arrays."""
        given = _only(split_inputs(dict(inputs)), 0)
        return self._text(given, output_hidden_states, output_attentions).converted(self.towers.to_numpy)

    @property
    def fingerprint(self) -> str:
        """Which model this is, see `minclip.fingerprint`; found once where the weights cannot change."""
        if self._fingerprint is None or not self.weights.read_only:
            self._fingerprint = fingerprint(self)
        return self._fingerprint

    @property
    def logit_scale(self) -> float:
        """The logarithm of the factor that cosines are multiplied by."""
        if "logit_scale" not in self.weights:
            raise CheckpointError(f"{self.source} is not a whole model, so it cannot compare images with texts")
        return float(self.weights["logit_scale"].reshape(()))

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint folder that minclip and Transformers open: config, weights as stored, processor files.

        All files take their places together, and no other file is touched. Raises CheckpointError or TokenizerError
        where the folder holds parts of another checkpoint, or writing fails.
        """
        checkpoints.save(folder, self.config, self.weights, self.processor.files(folder))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _vision(
        self, given: dict[str, Any], output_hidden_states: bool = False, output_attentions: bool = False
    ) -> TowerOutput:
        self._ready("vision")
        inputs = image_inputs(self.config, **given)
        return self.towers.vision(
            inputs, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )

    def _text(
        self, given: dict[str, Any], output_hidden_states: bool = False, output_attentions: bool = False
    ) -> TowerOutput:
        self._ready("text")
        inputs: TextInputs[np.ndarray] = text_inputs(self.config, **given)
        return self.towers.text(inputs, output_hidden_states=output_hidden_states, output_attentions=output_attentions)

    def _encode_texts(self, texts: Sequence[str], batch_size: int, bar: Progress) -> BackendArray:
        """The unit vectors (n, p) of texts, batch by batch."""
        self._ready("text")

        def embed(part: Sequence[str]) -> BackendArray:
            inputs = self.processor(text=part)
            if self.config.family.causal:
                del inputs["attention_mask"]  # the padding is on the right, where a causal tower never looks
            return self.towers.unit(self._text_embeds(text_inputs(self.config, **inputs)))

        return unit_rows(self.source, "text", [text_rows(texts, embed, self.towers, batch_size, bar)], self.towers)

    def _label_rows(
        self, labels: list[str], templates: list[str], batch_size: int = 256, progress: bool = False
    ) -> np.ndarray:
        with closing(Progress("texts", len(templates) * len(labels), show=progress)) as bar:
            return label_rows(
                labels, templates, lambda texts: self.towers.to_numpy(self._encode_texts(texts, batch_size, bar))
            )

    def _classified(self, output: TowerOutput, labels: ArrayLike | None) -> ClassifierOutput:
        logits = finite(self.source, "logits", output.logits)
        loss = None
        if labels is not None:
            loss = classification.loss(logits, as_numpy("labels", labels), self.config.problem_type)
        return ClassifierOutput(logits, loss, output.hidden_states, output.attentions)

    def _ready(self, *towers: str) -> None:
        """Raises CheckpointError where a tower is not there, or the mapped weights have changed since loading."""
        self.weights.check_unchanged()
        for tower in towers:
            if tower not in self.config.towers:
                raise CheckpointError(
                    f"{self.source} holds no {tower} tower, only {' and '.join(self.config.towers)}; "
                    "load a checkpoint of the whole model"
                )

    def _image_embeds(self, inputs: ImageInputs[Any]) -> BackendArray:
        if isinstance(self.towers, GivesEmbeds):
            return self._present(self.towers.image_embeds(inputs), "image")
        return self._present(self.towers.vision(inputs).embeds, "image")

    def _text_embeds(self, inputs: TextInputs[np.ndarray]) -> BackendArray:
        if isinstance(self.towers, GivesEmbeds):
            return self._present(self.towers.text_embeds(inputs), "text")
        return self._present(self.towers.text(inputs).embeds, "text")

    def _present(self, embeds: BackendArray | None, kind: str) -> BackendArray:
        if embeds is None:
            raise CheckpointError(
                f"{self.source} has no {kind} projection, so there are no {kind} embeddings; "
                "its tower's own output is there with model.vision_tower(...) or model.text_tower(...)"
            )
        return embeds

    def _features(self, output: TowerOutput, kind: str) -> TowerOutput:
        finite(self.source, f"{kind} features", self.towers.to_numpy(self._present(output.embeds, kind)))
        return output.converted(self.towers.to_numpy)

    def _unit_image_embeds(self, inputs: ImageInputs[Any]) -> BackendArray:
        return self.towers.unit(self._image_embeds(inputs))

    def _encode_images(
        self,
        images: ImageSource | Sequence[ImageSource],
        run: Callable[[ImageInputs[Any]], BackendArray],
        *,
        batch_size: int,
        progress: bool = False,
        workers: int | None = None,
        resize_on_device: bool = False,
        draft: bool = False,
        on_error: Callable[[int, ImageError], None] | None = None,
    ) -> list[BackendArray]:
        """Decode ahead, run batch by batch; the rows of each batch."""
        self._ready("vision")
        batch: Sequence[ImageSource] = images if is_batch(images) else [images]  # type: ignore[assignment, list-item]
        if not len(batch):
            raise ValueError("images is empty; pass at least one image")
        check_batch_size(batch_size)
        bar = Progress("images", len(batch), show=progress)

        def failed(index: int, error: ImageError) -> None:
            if on_error is None:
                raise ImageError(f"images[{index}]: {error}") if len(batch) > 1 else error
            on_error(index, error)
            bar.advance(1)

        def embed(values: BackendArray) -> BackendArray:
            self._check_processor(tuple(values.shape[2:]))
            return run(ImageInputs(values))

        processor = self.processor.image_processor
        batches = pixel_batches(
            batch,
            processor.replace(draft=True) if draft else processor,
            self.towers,
            failed,
            batch_size=batch_size,
            workers=workers,
            resize_on_device=resize_on_device,
        )
        with closing(batches), closing(bar):
            return gathered(map(embed, batches), self.towers, bar)

    def _check_processor(self, made: tuple[int, ...]) -> None:
        """Raises ConfigError where the image processor makes images that the vision tower does not take."""
        side = self.config.vision_config.image_size if self.config.vision_config else 0
        if made != (side, side):
            raise ConfigError(
                f"{self.source}: preprocessor_config.json makes images of {made[0]}x{made[1]}, the vision tower takes "
                f"{side}x{side}; correct its crop_size, or call the model itself with interpolate_pos_encoding=True"
            )


def _only(split: tuple[dict[str, Any], dict[str, Any]], tower: int) -> dict[str, Any]:
    """One tower's share of the inputs. Raises ValueError where there is something for the other."""
    if split[1 - tower]:
        raise ValueError(f"this tower takes no {', '.join(split[1 - tower])}")
    return split[tower]
