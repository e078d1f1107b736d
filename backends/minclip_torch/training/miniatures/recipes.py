"""The three bundled models: each trained the way its paper describes, on a small scale.

    python -m minclip_torch.training.miniatures data/box runs

makes a start folder for each (config, tokenizer, image processor, no weights) and trains it in stages, each from the
weights of the one before, the first from nothing:

    clip        English; byte-level BPE trained here; both towers from scratch (Radford et al. 2021)
    metaclip-2  both towers from scratch, on 25 languages from the start, several of them for each picture of a batch
                (Chuang et al. 2025); then a larger text tower, taught by the first one's English, so that the other
                languages catch up with it, with a while on pictures in between
    altclip     a bidirectional text tower distilled from clip's on captions in 25 languages, beside clip's image tower
                (Chen et al. 2022, the first of its two stages)

The first two begin with the emoji alone and go on to the wider box, `train.jsonl`; altclip begins with that.

A stage's run is called after the model and its number, `runs/clip-1`. Where it holds a checkpoint in `model/` and no
saved state, that is kept as the stage's result: to go on from a bundled model, copy its folder to `runs/clip-1/model`.

SentencePiece's own trainer makes the multilingual vocabulary (the extra `train`).
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from minclip import checkpoints
from minclip.config import Config, read_config
from minclip.errors import TokenizerError
from minclip.files import json_bytes, read_json, replacing
from minclip.images import ImageProcessor
from minclip.tokenizers import find_tokenizer
from minclip.tokenizers.bpe import BPETokenizer
from minclip.weights import Weights
from minclip_torch.modules import Clip
from minclip_torch.training import frames
from minclip_torch.training.command import exit_code
from minclip_torch.training.entries import DataError, read_entries
from minclip_torch.training.recipe import Recipe
from minclip_torch.training.train import RESUME, train

SIDE = 64
DIM = 192
VISION = {
    "projection_dim": DIM,
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_act": "gelu",
}
TEXT = {"num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 40, "hidden_act": "gelu"}
SMALL = {**TEXT, "hidden_size": 96, "intermediate_size": 384, "projection_dim": DIM}
MEDIUM = {**TEXT, "hidden_size": 128, "intermediate_size": 512, "projection_dim": DIM}
LARGE = {**TEXT, "hidden_size": 160, "intermediate_size": 640, "projection_dim": DIM}
BOTH_WAYS = {**TEXT, "hidden_size": 160, "intermediate_size": 640, "project_dim": 160}
BOTH_WAYS |= {"hidden_dropout_prob": 0.0, "type_vocab_size": 1}
BPE_SIZE, PIECES = 2048, 5000


class Stage(NamedTuple):
    """One run of a miniature's training: on `emoji.jsonl` or `train.jsonl` of the data, and how.

    text: the text tower it begins with, of no training; None for the one of the stage before. A recipe's teacher is
    named by its run, "clip-2".
    """

    data: str
    recipe: Recipe
    text: dict[str, Any] | None = None


# The wider box on top of what the emoji taught: smaller steps, so that they are not forgotten.
WIDER = Recipe(steps=1700, learning_rate=1e-3, compile=True)
# Many captions of each image, few of them English, so that the other languages catch up.
TEXT_ALONE = Recipe(freeze=("vision",), steps=500, captions=12, first_language=0.05, learning_rate=5e-4, average=0.99)
# What the English of a finished model means, in all languages alike; English needs no lessons.
TAUGHT = Recipe(steps=4000, batch_size=512, dtype="float32", average=0.99, first_language=0.05)
STAGES: dict[str, tuple[Stage, ...]] = {
    "clip": (
        Stage("emoji", Recipe(languages=("en",), steps=3800, compile=True), MEDIUM),
        Stage("train", replace(WIDER, languages=("en",))),
    ),
    "metaclip-2": (
        Stage("emoji", Recipe(steps=4500, captions=6, compile=True), SMALL),
        Stage("train", replace(WIDER, steps=1300, captions=4)),  # begun as a trial, which was worth going on from
        Stage("train", replace(WIDER, steps=3000, captions=6, seed=1)),
        Stage("train", replace(TAUGHT, teacher="metaclip-2-3", steps=2500, first_language=0.2), LARGE),
        Stage("train", TEXT_ALONE),
        Stage("train", replace(TAUGHT, teacher="metaclip-2-3", steps=2000)),
    ),
    "altclip": (Stage("train", replace(TAUGHT, teacher="clip-2"), BOTH_WAYS),),
}


def start(name: str, data: Path, folder: Path, tower: dict[str, Any]) -> Path:
    """Write a miniature's config, tokenizer and image processor. Raises DataError where `data` is no such set.

    tower: the shape of its text tower, as config.json has it.
    """
    source = data / "train.jsonl"
    entries = read_entries(source, ("en",) if name == "clip" else None)
    texts = [text for entry in entries for texts in entry.captions.values() for text in texts]
    rng = np.random.default_rng(0)  # the vocabulary is to know the phrases that training puts around names, too
    names = [(own[0], language) for entry in entries for language, own in entry.captions.items()]
    texts += [frames.draw(name, language, 1.0, rng) for name, language in names]
    folder.mkdir(parents=True, exist_ok=True)
    if name == "clip":
        BPETokenizer.train(texts, vocab_size=BPE_SIZE).save(folder)
    else:
        try:
            _train_pieces(texts, folder)
        except RuntimeError as error:  # sentencepiece's only kind
            reason = " ".join(str(error).split())
            raise DataError(f"{source} holds too few captions for {PIECES} pieces ({reason:.200})") from None
    ImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save(folder)
    config = _config(name, folder, tower)
    _write(folder / "config.json", config.to_dict())
    _limit_texts(folder, config)
    return folder


def _config(name: str, folder: Path, tower: dict[str, Any]) -> Config:
    tokenizer = find_tokenizer(folder)
    if tokenizer is None:
        raise TokenizerError(f"{folder} holds no tokenizer files")
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    return Config.from_dict(
        {
            "model_type": name.replace("-", "_"),
            "projection_dim": DIM,
            "logit_scale_init_value": 2.6592,
            "text_config": {**tower, **ids, "vocab_size": tokenizer.vocab_size},
            "vision_config": VISION,
        }
    )


def _limit_texts(folder: Path, config: Config) -> None:
    """Write the longest text's length into tokenizer_config.json, too: Transformers' tokenizers ignore the config."""
    assert config.text_config is not None
    path = folder / "tokenizer_config.json"
    _write(path, {**read_json(path, TokenizerError), "model_max_length": config.text_config.context_length})


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json_bytes(content))


def _train_pieces(texts: list[str], folder: Path) -> None:
    """A SentencePiece unigram model in XLM-R's layout."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=0.9994,
        normalization_rule_name="nmt_nfkc_cf",
        num_threads=1,
        minloglevel=2,
    )
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})


def _adopt(folder: Path, teacher: Path) -> None:
    """Give a start folder weights: its teacher's image tower and temperature, and an untrained text tower."""
    config = read_config(folder)
    torch.manual_seed(0)
    tensors = {name: tensor.numpy() for name, tensor in Clip(config).state_dict().items()}
    _, trained = checkpoints.read(teacher)
    kept = ("vision_model.", "visual_projection.", "logit_scale")
    tensors |= {name: trained[name] for name in trained if name.startswith(kept)}
    checkpoints.save(folder, config, Weights(tensors))


def make(name: str, data: Path, runs: Path, *, compiled: bool = True, **options: Any) -> Path:
    """Train one miniature, stage by stage. Returns the folder of its checkpoint. altclip needs a trained clip.

    A stage whose run holds a checkpoint, `model/config.json`, without a saved state, `state.pt`, is not trained again:
    the next one begins with that checkpoint. One with a state is resumed, or found finished, as by `train`.

    compiled: whether the runs that gain from it compile their encoders. options: those of `train`.
    """
    begin = None
    for number, (source, recipe, text) in enumerate(STAGES[name], start=1):
        run = runs / f"{name}-{number}"
        if (run / "model" / "config.json").is_file() and not (run / "state.pt").exists():
            begin = run / "model"
            continue
        recipe = replace(recipe, compile=recipe.compile and compiled)
        if recipe.teacher:
            recipe = replace(recipe, teacher=str(runs / recipe.teacher / "model"))
        if text is not None:
            begin = start(name, data, runs / f"{name}-{number}-start", text)
            if recipe.teacher:
                _adopt(begin, Path(recipe.teacher))
        assert begin is not None  # the first stage has a text tower of its own
        train(begin, data / f"{source}.jsonl", run, recipe, test=data / "test.jsonl", **options)
        begin = run / "model"
    assert begin is not None  # there are no recipes without stages
    return begin


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minclip_torch.training.miniatures")
    parser.add_argument("data", type=Path, help="the folder that minclip_torch.training.miniatures.pictures wrote")
    parser.add_argument("runs", type=Path, help="where the runs are to lie; one with model/ and no state.pt is kept")
    parser.add_argument("--only", nargs="*", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="needs a C++ compiler")
    options = parser.parse_args(arguments)

    def body() -> None:
        for name in options.only:
            print(f"{name}: {make(name, options.data, options.runs, compiled=options.compile, device=options.device)}")

    return exit_code(body, when_stopped=RESUME)
