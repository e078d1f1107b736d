"""What one step of training learns from: pictures against their captions, or a teacher's embeddings of names.

A lesson, called with a step, gives what `objective.backward` takes: a function that embeds some of this process's rows,
and the loss of all processes' embeddings. Both follow from recipe and step alone.
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
from minclip_torch.modules import Clip, RobertaTextTower
from minclip_torch.training import augment, objective
from minclip_torch.training.dataset import Batch, Captioner, Entry, draw_batch, read_pictures, shared_captions
from minclip_torch.training.recipe import Recipe, RecipeError

SEEDS = 1 << 64  # how many torch's generators know
GROUPS = 4  # of texts of like length: padding names in 25 languages to the longest took a step from 0.9 s to 1.5
Tokens: TypeAlias = Callable[[list[str]], tuple[Tensor, Tensor]]
EmbedRows: TypeAlias = Callable[[slice], tuple[Tensor, ...]]


class Contrast:
    """Images against their captions (Radford et al. 2021). Raises ImageError naming the picture that cannot be read.

    rows: those of each batch that are this process's. tokens: texts to input_ids (b, t) and mask (b, t) on the model's
    device.
    """

    def __init__(
        self,
        recipe: Recipe,
        entries: list[Entry],
        rows: slice,
        model: Clip,
        tokens: Tokens,
        processor: ImageProcessor,
        side: int,
    ) -> None:
        self.recipe, self.entries, self.rows, self.model, self.tokens = recipe, entries, rows, model, tokens
        self.processor, self.side = processor, side
        self.overlap = shared_captions(entries)
        self.captioner = Captioner(recipe.first_language, recipe.names, recipe.keywords, recipe.templates)
        self.pictures = read_pictures(entries, side * 5 // 4)

    def __call__(self, step: int) -> tuple[EmbedRows, objective.Loss]:
        recipe, model = self.recipe, self.model
        batch = draw_batch(self.pictures, self.entries, self.captioner, recipe.batch_size, recipe.seed, step, self.rows)
        pixels = self._shown(batch, step)
        ids, mask = self.tokens([text for texts in (batch.texts, *self._more_texts(batch, step)) for text in texts])
        ids = ids.view(recipe.captions, len(pixels), -1)  # (c, b, t): c captions of each picture
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

    def _more_texts(self, batch: Batch, step: int) -> list[list[str]]:
        """Further captions of this process's pictures, drawn as the first were: a list (b) for each."""
        found = []
        for which in range(1, self.recipe.captions):
            rng = np.random.default_rng([self.recipe.seed, step, which])
            texts = [self.captioner(self.entries[entry], rng) for entry in batch.entries]
            found.append(texts[self.rows])
        return found

    def _shown(self, batch: Batch, step: int) -> Tensor:
        """The batch's pictures as the image tower takes them (b, 3, side, side), augmented if the recipe says so."""
        if self.recipe.augment:
            generator = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + step) % SEEDS)
            draws = augment.draw(self.recipe.batch_size, generator)
            mine = {name: value[self.rows] for name, value in draws.items()}
            pixels = augment.augment(batch.pixels, batch.mirror, mine, self.side)
        else:
            white = augment.over_white(batch.pixels)
            pixels = F.interpolate(white, (self.side, self.side), mode="bilinear", antialias=True)
        if self.processor.do_normalize:
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.processor.image_mean, self.processor.image_std))
            pixels = (pixels - mean) / std
        return pixels.to(self.model.logit_scale.device)


class Imitation:
    """Names in any language against the teacher's embeddings of the first one's (Chen et al. 2022, first stage).

    No picture is read. teacher: the folder of a checkpoint. Raises RecipeError where it embeds in another width.
    """

    def __init__(self, recipe: Recipe, entries: list[Entry], rows: slice, model: Clip, tokens: Tokens) -> None:
        self.recipe, self.entries, self.rows, self.model, self.tokens = recipe, entries, rows, model, tokens
        names = [next(iter(entry.captions.values()))[0] for entry in entries]
        embeds = torch.from_numpy(load(recipe.teacher).encode_text(names))  # (entries, p)
        if embeds.shape[1] != model.config.projection_dim:
            raise RecipeError(
                f"teacher {recipe.teacher} embeds in {embeds.shape[1]} dimensions and the student "
                f"in {model.config.projection_dim}: the projection_dim of their configs must agree"
            )
        self.embeds = embeds.to(model.logit_scale.device)

    def __call__(self, step: int) -> tuple[EmbedRows, objective.Loss]:
        recipe, model = self.recipe, self.model
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.integers(len(self.entries), size=recipe.batch_size)
        names = Captioner(recipe.first_language, name=1.0, keyword=0.0)
        texts = [names(self.entries[i], rng) for i in chosen]
        ids, mask = self.tokens(texts[self.rows])
        wanted = self.embeds[torch.from_numpy(chosen).to(ids.device)]

        def embed(part: slice) -> tuple[Tensor, ...]:
            return (embed_by_length(model, ids[part], mask[part]),)

        return embed, lambda student: objective.regression_loss(student, wanted)


def embed_by_length(model: Clip, ids: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors (n, p) of ids (n, t), their padding cut off group by group. mask (n, t): 1 where text is."""
    lengths = mask.sum(dim=1)
    order = lengths.argsort()
    bidirectional = isinstance(model.text_model, RobertaTextTower)  # else no token sees the padding after it
    found = []
    for rows in order.chunk(GROUPS):
        shown = ids[rows, : int(lengths[rows[-1]])]
        found.append(model.embed_texts(shown, mask[rows, : shown.shape[1]] if bidirectional else None))
    return torch.cat(found)[order.argsort()]
