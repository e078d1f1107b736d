"""How good the maps of `minclip.explain` are: deletion and insertion over held-out drawings.

    python -m minclip_torch.training.miniatures.pictures data/box
    python tests/explanations.py data/box/test.jsonl --every 5

For each drawing and its English name, patches are removed (painted white) in the order of the map, most relevant first,
and the area under the cosine is taken; then they alone are shown. A good map has a small first area and a large second.
The orders of the table: chance, the last layer's attention, and the methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import minclip
from minclip.explanations import METHODS, deletion_insertion, explain
from minclip_torch.training.entries import read_entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="test.jsonl of the emoji set")
    parser.add_argument("--model", help="a bundled name or checkpoint folder (default: the default model)")
    parser.add_argument("--every", type=int, default=5, help="take every N-th drawing (default: 5)")
    parser.add_argument("--steps", type=int, default=16, help="points of a curve (default: 16)")
    parser.add_argument("--layers", type=int, nargs="*", default=[], help="further start layers of relevance")
    options = parser.parse_args()
    model, rng = minclip.load(options.model), np.random.default_rng(0)
    vision = model.config.vision_config
    assert vision is not None

    def chance(image: str, text: str) -> np.ndarray:
        return rng.random((vision.grid, vision.grid))

    def by(image: str, text: str, **how: object) -> np.ndarray:
        return explain(image, text, model=model, **how)[0].map

    orders: dict[str, Callable[[str, str], np.ndarray]] = {"chance": chance}
    orders |= {method: partial(by, method=method) for method in METHODS}
    orders |= {f"relevance from {i}": partial(by, method="relevance", start_layer=i) for i in options.layers}
    areas: dict[str, list[tuple[float, float]]] = {name: [] for name in orders}
    entries = read_entries(options.pictures, ("en",))[:: options.every]
    for entry in entries:
        image, text = str(entry.images[0]), entry.captions["en"][0]
        for name, order in orders.items():
            areas[name].append(deletion_insertion(model, image, text, order(image, text), steps=options.steps))
    print(f"{model.source}, {len(entries)} drawings, curves of {options.steps} steps\n")
    print("| order | deletion | to chance | insertion | to chance |\n|---|---:|---:|---:|---:|")
    base = np.mean(areas["chance"], axis=0)
    for name, found in areas.items():
        mean = np.mean(found, axis=0)
        change = 100 * (mean / base - 1)
        print(f"| {name} | {mean[0]:.4f} | {change[0]:+.1f} % | {mean[1]:.4f} | {change[1]:+.1f} % |")


if __name__ == "__main__":
    main()
