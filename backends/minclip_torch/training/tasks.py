"""The two training tasks: contrastive learning of images and captions, and distillation of a teacher's text tower.

A task, called with the number of a step, returns what `objective.backward` takes: a function that embeds some of this
process's rows, and the loss as a function of all processes' embeddings. Both depend on the recipe and the step alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minclip.images import ImageProcessor
from minclip.loading import load
from minclip_torch.modules import Clip
from minclip_torch.training import augment, objective
from minclip_torch.training.dataset import Batch, Captioner, decode_images, draw_batch, shared_captions
from minclip_torch.training.entries import Entry
from minclip_torch.training.recipe import Recipe, RecipeError

MARGIN = 5 / 4  # images are decoded larger than the tower takes them: augmentation resamples them
SEEDS = 1 << 64  # torch's generators take seeds below this
LENGTH_GROUPS = 4  # padding names in 25 languages to the longest of all took a step from 0.9 s to 1.5 s
Tokenize: TypeAlias = Callable[[list[str]], tuple[Tensor, Tensor]]
EmbedRows: TypeAlias = Callable[[slice], tuple[Tensor, ...]]


class Contrastive:
    """Images against their captions (Radford et al. 2021). Raises ImageError naming a file that cannot be read.

    rows: those of each batch that are this process's. tokenize: texts to input_ids (b, t) and mask (b, t), on the
    model's device.
    """

    def __init__(
        self,
        recipe: Recipe,
        entries: list[Entry],
        rows: slice,
        model: Clip,
        tokenize: Tokenize,
        processor: ImageProcessor,
        side: int,
    ) -> None:
        self.recipe, self.entries, self.rows, self.model, self.tokenize = recipe, entries, rows, model, tokenize
        self.processor, self.side = processor, side
        self.overlap = shared_captions(entries)
        self.captioner = Captioner(
            recipe.first_language, recipe.names, recipe.keywords, recipe.framed, recipe.templates
        )
        self.images = decode_images(entries, int(side * MARGIN))

    def __call__(self, step: int) -> tuple[EmbedRows, objective.Loss]:
        recipe, model = self.recipe, self.model
        batch = draw_batch(self.images, self.entries, self.captioner, recipe.batch_size, recipe.seed, step, self.rows)
        pixels = self.pixel_values(batch, step)
        captions = [batch.texts, *self._more_captions(batch, step)]
        ids, mask = self.tokenize([text for texts in captions for text in texts])
        ids = ids.view(recipe.captions, len(pixels), -1)  # (c, b, t): c captions of each image
        mask = mask.view(ids.shape)
        targets = objective.smoothed(self.overlap(batch.entries), recipe.near_synonyms)
        targets = None if targets is None else targets.to(ids.device)

        def embed(part: slice) -> tuple[Tensor, ...]:
            texts = embed_by_length(model, ids[:, part].flatten(0, 1), mask[:, part].flatten(0, 1))
            return (model.embed_images(pixels[part]), *texts.chunk(recipe.captions))

        def loss(image: Tensor, *texts: Tensor) -> Tensor:
            scale = model.logit_scale.exp()
            return torch.stack([objective.contrastive_loss(image, text, scale, targets) for text in texts]).mean()

        return embed, loss

    def _more_captions(self, batch: Batch, step: int) -> list[list[str]]:
        """Further captions of this process's images, drawn as the first were: recipe.captions - 1 lists (b)."""
        found = []
        for which in range(1, self.recipe.captions):
            rng = np.random.default_rng([self.recipe.seed, step, which])
            texts = [self.captioner(self.entries[entry], rng) for entry in batch.entries]
            found.append(texts[self.rows])
        return found

    def pixel_values(self, batch: Batch, step: int) -> Tensor:
        """The batch's images as the image tower takes them (b, 3, side, side), augmented if the recipe says so."""
        if self.recipe.augment:
            generator = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + step) % SEEDS)
            draws = augment.draw(self.recipe.batch_size, generator)
            mine = {name: value[self.rows] for name, value in draws.items()}
            pixels = augment.augment(batch.pixels, batch.mirror, batch.photograph, mine, self.side)
        else:
            white = augment.over_white(batch.pixels)
            pixels = F.interpolate(white, (self.side, self.side), mode="bilinear", antialias=True)
        if self.processor.do_normalize:
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.processor.image_mean, self.processor.image_std))
            pixels = (pixels - mean) / std
        return pixels.to(self.model.logit_scale.device)


class Distillation:
    """Names in all languages, bare or in a phrase, against a teacher's embeddings of the first language's bare ones
    (Chen et al. 2022, first stage).

    No image is read. Raises RecipeError where the teacher, a checkpoint folder, embeds in another width.
    """

    def __init__(self, recipe: Recipe, entries: list[Entry], rows: slice, model: Clip, tokenize: Tokenize) -> None:
        self.recipe, self.entries, self.rows, self.model, self.tokenize = recipe, entries, rows, model, tokenize
        names = [next(iter(entry.captions.values()))[0] for entry in entries]
        embeds = torch.from_numpy(load(recipe.teacher).encode_text(names))  # (entries, p)
        if embeds.shape[1] != model.config.projection_dim:
            raise RecipeError(
                f"teacher {recipe.teacher} embeds in {embeds.shape[1]} dimensions and the student "
                f"in {model.config.projection_dim}: the projection_dim of their configs must agree"
            )
        self.teacher_embeds = embeds.to(model.logit_scale.device)
        weights = np.array([entry.weight for entry in entries])
        self.shares = weights / weights.sum()

    def __call__(self, step: int) -> tuple[EmbedRows, objective.Loss]:
        recipe, model = self.recipe, self.model
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.choice(len(self.entries), size=recipe.batch_size, p=self.shares)
        names = Captioner(recipe.first_language, 1.0, 0.0, recipe.framed, recipe.templates)
        texts = [names(self.entries[i], rng) for i in chosen]
        ids, mask = self.tokenize(texts[self.rows])
        targets = self.teacher_embeds[torch.from_numpy(chosen).to(ids.device)]

        def embed(part: slice) -> tuple[Tensor, ...]:
            return (embed_by_length(model, ids[part], mask[part]),)

        return embed, lambda student: objective.distillation_loss(student, targets)


def embed_by_length(model: Clip, ids: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors (n, p) of ids (n, t), in groups of similar length without their padding. mask (n, t): 1 for text."""
    lengths = mask.sum(dim=1)
    order = lengths.argsort()
    masked = not model.config.family.causal  # a causal tower never looks at padding on the right
    found = []
    for rows in order.chunk(LENGTH_GROUPS):
        kept = ids[rows, : int(lengths[rows[-1]])]
        found.append(model.embed_texts(kept, mask[rows, : kept.shape[1]] if masked else None))
    return torch.cat(found)[order.argsort()]
