"""How well a model in training names pictures that it does not learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from minclip.processor import Processor
from minclip_torch.modules import Clip
from minclip_torch.training.dataset import DataError, read_entries
from minclip_torch.training.lessons import Tokens

AT_ONCE = 256  # pictures or names that go through a tower together


class HeldOut:
    """A set of named pictures ready for the towers: pixels (n, 3, side, side), and the different names, of each entry's
    first language. Raises DataError, or ImageError naming the picture."""

    def __init__(self, path: Path, languages: tuple[str, ...] | None, processor: Processor, side: int) -> None:
        entries = read_entries(path, languages)
        names = [next(iter(entry.captions.values()))[0] for entry in entries]
        self.names = list(dict.fromkeys(names))
        classes = {name: number for number, name in enumerate(self.names)}
        own = [classes[name] for name, entry in zip(names, entries, strict=True) for _ in entry.images]
        self.owners = torch.tensor(own)  # (n,)
        pictures = [processor.image_processor([str(image)]) for entry in entries for image in entry.images]
        for height, width in (one.shape[2:] for one in pictures):
            if (height, width) != (side, side):
                raise DataError(
                    f"the image processor makes pictures of {height} x {width} pixels and the image tower takes "
                    f"{side} x {side}: preprocessor_config.json and config.json must agree"
                )
        self.pixels = torch.from_numpy(np.concatenate(pictures))

    @torch.no_grad()
    def accuracy(self, model: Clip, tokens: Tokens) -> dict[str, float]:
        """Zero-shot accuracy over all names: how often the right one is the best, and among the best five."""
        device, names = model.logit_scale.device, self.names
        image = torch.cat([model.embed_images(part.to(device)) for part in self.pixels.split(AT_ONCE)])
        parts = [names[i : i + AT_ONCE] for i in range(0, len(names), AT_ONCE)]
        text = torch.cat([model.embed_texts(*tokens(part)) for part in parts])
        best = (image @ text.T).topk(min(5, len(names)), dim=1).indices.cpu() == self.owners[:, None]  # (n, 5)
        return {"top1": float(best[:, :1].any(1).float().mean()), "top5": float(best.any(1).float().mean())}
