"""A dozen pictures with names in two languages, and small models of each family to train on them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from PIL import Image, ImageDraw

from minclip.config import Config
from minclip.images import ImageProcessor
from minclip.tokenizers import find_tokenizer
from minclip.tokenizers.bpe import BPETokenizer
from minclip_torch.training.recipe import Recipe

COLOURS = {"red": ("rouge", (220, 40, 40)), "green": ("vert", (40, 160, 60)), "blue": ("bleu", (50, 80, 220))}
SHAPES = {"disc": "disque", "box": "carré", "bar": "barre", "dot": "point"}
FAMILIES = {"clip": "CLIP", "altclip": "AltCLIP", "metaclip_2": "MetaClip2"}
SIDE = 16


def entries() -> list[dict[str, Any]]:
    """The lines of the data set: every colour with every shape, two pictures of each disc, one of the others."""
    return [
        {
            "images": [f"{colour}-{shape}-{i}.png" for i in range(2 if shape == "disc" else 1)],
            "captions": {"en": [f"{colour} {shape}", shape, colour], "fr": [f"{SHAPES[shape]} {french}", french]},
            "mirror": shape != "bar",
        }
        for colour, (french, _) in COLOURS.items()
        for shape in SHAPES
    ]


def write_data(folder: Path) -> Path:
    """The data set's file, its pictures beside it: coloured shapes on transparent ground."""
    folder.mkdir(parents=True, exist_ok=True)
    for line in entries():
        for i, name in enumerate(line["images"]):
            colour, shape = name.split("-")[:2]
            picture = Image.new("RGBA", (20, 20))
            pen, fill = ImageDraw.Draw(picture), COLOURS[colour][1]
            if shape in ("disc", "dot"):
                edge = 7 if shape == "dot" else 2 + i
                pen.ellipse((edge, edge, 20 - edge, 20 - edge), fill=fill)
            else:
                pen.rectangle((1, 8, 14, 11) if shape == "bar" else (4, 4, 16, 16), fill=fill)
            picture.save(folder / name)
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in entries()), encoding="utf-8")
    return path


def write_start(folder: Path, family: str = "clip", *, width: int = 16, **text: Any) -> Path:
    """A checkpoint folder of a small model without weights: config, tokenizer, image processor."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [text for line in entries() for texts in line["captions"].values() for text in texts]
    if family == "clip":
        BPETokenizer.train(words, vocab_size=530).save(folder)
    else:
        _train_pieces(words, folder)
    ImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save(folder)
    tokenizer = find_tokenizer(folder)
    assert tokenizer is not None
    sizes = {"hidden_size": width, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    more = {"project_dim": 8, "hidden_dropout_prob": 0.1} if family == "altclip" else {}
    config = Config.from_dict(
        {
            "model_type": family,
            "projection_dim": 8,
            "text_config": {
                **sizes, **ids, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 20, **more, **text
            },
            "vision_config": {**sizes, "image_size": SIDE, "patch_size": 8},
        }
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder


def _train_pieces(words: list[str], folder: Path) -> None:
    """A SentencePiece unigram model in XLM-R's layout."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 5),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    files = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 18}
    (folder / "tokenizer_config.json").write_text(json.dumps(files), encoding="utf-8")


def recipe(**settings: Any) -> Recipe:
    """A run of four steps, float32, AdamW; nothing is dropped unless asked for."""
    small = {"steps": 4, "batch_size": 8, "warmup": 1, "drop_patches": 0.0, "dtype": "float32", "optimizer": "adamw"}
    return Recipe(**{**small, **settings})


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds_per_step"} for line in lines]


def rows(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, size)."""
    x = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def identical(a: Any, b: Any) -> bool:
    """Whether two nests of dicts, lists and tensors are equal to the last bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)
