"""Zero-shot accuracy, during training, on images that are not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from minclip.evaluation import ranks, recall
from minclip.processor import Processor
from minclip_torch.modules import Clip
from minclip_torch.training.entries import DataError, name_classes, read_entries
from minclip_torch.training.tasks import Tokenize

BATCH = 256  # images or names that go through a tower at once


class HeldOut:
    """A set of named images: pixels (n, 3, side, side), the names of each entry's first language as classes, and the
    class of each image, owners (n,). Raises DataError, or ImageError naming the file."""

    def __init__(self, path: Path, languages: tuple[str, ...] | None, processor: Processor, side: int) -> None:
        entries = read_entries(path, languages)
        self.names, self.owners = name_classes(entries)
        images = [processor.image_processor([str(image)]) for entry in entries for image in entry.images]
        for height, width in (one.shape[2:] for one in images):
            if (height, width) != (side, side):
                raise DataError(
                    f"the image processor makes pictures of {height} x {width} pixels and the image tower takes "
                    f"{side} x {side}: preprocessor_config.json and config.json must agree"
                )
        self.pixels = torch.from_numpy(np.concatenate(images))

    @torch.no_grad()
    def accuracy(self, model: Clip, tokenize: Tokenize) -> dict[str, float]:
        """Zero-shot accuracy among all names: how often the right one ranks first, and among the first five."""
        device, names = model.logit_scale.device, self.names
        image = torch.cat([model.embed_images(part.to(device)) for part in self.pixels.split(BATCH)])
        parts = [names[i : i + BATCH] for i in range(0, len(names), BATCH)]
        text = torch.cat([model.embed_texts(*tokenize(part)) for part in parts])
        similarity = (image @ text.T).cpu().numpy()  # (n, names)
        found = ranks(similarity, self.owners[:, None] == np.arange(len(names)))
        return {"top1": recall(found, 1), "top5": recall(found, 5)}
