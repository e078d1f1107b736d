"""The three models in the box, each made the way its paper did, small.

    python -m minclip_torch.training.emoji.miniatures data/emoji runs

makes a start folder for each (config, tokenizer, image processor, no weights) and trains it from nothing:

    clip        English; byte-level BPE trained here; both towers from scratch (Radford et al. 2021)
    metaclip-2  both towers from scratch, on 25 languages from the start, several of them for each picture of a batch
                (Chuang et al. 2025); then the text tower alone, so that the other languages catch up with English
    altclip     a bidirectional text tower taught by clip's on the names in 25 languages, then trained
                against clip's frozen image tower (Chen et al. 2022)

SentencePiece's own trainer makes the multilingual vocabulary (the extra `train`).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minclip import checkpoints
from minclip.config import Config, read_config
from minclip.errors import TokenizerError
from minclip.images.image import ImageProcessor
from minclip.tokenizers import find_tokenizer
from minclip.tokenizers.bpe import BPETokenizer
from minclip.weights import Weights
from minclip_torch.modules import Clip
from minclip_torch.training.command import exit_code
from minclip_torch.training.dataset import DataError, read_entries
from minclip_torch.training.recipe import Recipe
from minclip_torch.training.train import GOES_ON, train

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
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "hidden_act": "gelu",
}
BPE_SIZE, PIECES = 2048, 5000

# many captions of each picture, few of them English: the other languages catch up
TEXT_ALONE = Recipe(freeze=("vision",), steps=700, captions=12, first_language=0.05, learning_rate=1e-3, average=0.99)
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "clip": (Recipe(languages=("en",), steps=3800, compile=True),),
    "metaclip-2": (
        Recipe(steps=4500, captions=6, compile=True),
        TEXT_ALONE,
    ),
    "altclip": (
        Recipe(teacher="clip", steps=3000, batch_size=512, dtype="float32", average=0.99),
        replace(TEXT_ALONE, steps=500),
    ),
}


def start(name: str, data: Path, folder: Path) -> Path:
    """Write everything of a miniature but its weights to `folder`. Raises DataError where `data` is not the set."""
    source = data / "train.jsonl"
    entries = read_entries(source, ("en",) if name == "clip" else None)
    texts = [text for entry in entries for texts in entry.captions.values() for text in texts]
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
    config = _config(name, folder)
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    _limit_texts(folder, config)
    return folder


def _config(name: str, folder: Path) -> Config:
    tokenizer = find_tokenizer(folder)
    if tokenizer is None:
        raise TokenizerError(f"{folder} holds no tokenizer files")
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    text: dict[str, Any] = {**TEXT, **ids, "vocab_size": tokenizer.vocab_size}
    text["num_hidden_layers"] = {"clip": 3, "altclip": 2, "metaclip-2": 3}[name]
    if name != "clip":  # the vocabulary is larger, so its vectors are narrower
        text |= {"hidden_size": 96, "intermediate_size": 384}
    if name != "altclip":
        text["projection_dim"] = DIM
    else:
        text |= {"project_dim": 96, "hidden_dropout_prob": 0.0, "type_vocab_size": 1}
    return Config.from_dict(
        {
            "model_type": name.replace("-", "_"),
            "projection_dim": DIM,
            "logit_scale_init_value": 2.6592,
            "text_config": text,
            "vision_config": VISION,
        }
    )


def _limit_texts(folder: Path, config: Config) -> None:
    """Say beside the tokenizer how long a text may be, too: Transformers' tokenizers do not ask the config."""
    assert config.text_config is not None
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["model_max_length"] = config.text_config.context_length
    path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


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
    files = {"tokenizer_class": "XLMRobertaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(files) + "\n", encoding="utf-8")


def _adopt(folder: Path, teacher: Path) -> None:
    """Give a start folder weights: clip's image tower and temperature, and a text tower that is untrained."""
    config = read_config(folder)
    torch.manual_seed(0)
    tensors = {name: tensor.numpy() for name, tensor in Clip(config).state_dict().items()}
    _, taught = checkpoints.read(teacher)
    kept = ("vision_model.", "visual_projection.", "logit_scale")
    tensors |= {name: taught[name] for name in taught if name.startswith(kept)}
    checkpoints.save(folder, config, Weights(tensors))


def make(name: str, data: Path, runs: Path, *, compiled: bool = True, **options: Any) -> Path:
    """Train one miniature from nothing; the folder of its checkpoint. altclip wants clip trained before it.

    compiled: whether runs that gain from it compile their encoders. options: those of `train`.
    """
    begin = start(name, data, runs / f"{name}-start")
    for stage, recipe in enumerate(RECIPES[name], start=1):
        run = runs / f"{name}-{stage}"
        recipe = replace(recipe, compile=recipe.compile and compiled)
        if recipe.teacher:
            teacher = runs / f"{recipe.teacher}-1" / "model"
            _adopt(begin, teacher)
            recipe = replace(recipe, teacher=str(teacher))
        train(begin, data / "train.jsonl", run, recipe, test=data / "test.jsonl", **options)
        begin = run / "model"
    return begin


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minclip_torch.training.emoji.miniatures")
    parser.add_argument("data", type=Path, help="the folder that minclip_torch.training.emoji.pictures wrote")
    parser.add_argument("runs", type=Path, help="where the runs are to lie")
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="needs a C++ compiler")
    options = parser.parse_args(arguments)

    def body() -> None:
        for name in options.only:
            print(f"{name}: {make(name, options.data, options.runs, compiled=options.compile, device=options.device)}")

    return exit_code(body, stopped=GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
