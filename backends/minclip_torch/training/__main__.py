"""Train, or fine-tune, a checkpoint of any family.

    python -m minclip_torch.training START DATA RUN [--steps 5000 --batch-size 256 ...]

START is a checkpoint folder: config.json, tokenizer files, preprocessor_config.json, and weights for fine-tuning. DATA
is a file of JSON lines (`minclip_torch.training.entries`). RUN receives recipe.json, metrics.jsonl, state.pt, and at
the end model/, a checkpoint like any other. The same command resumes a run that was interrupted, and ends with the same
weights. Under `torchrun -m minclip_torch.training`, the processes share the batch, and each sees the negatives of all.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from minclip_torch.training.command import exit_code
from minclip_torch.training.recipe import Recipe
from minclip_torch.training.train import RESUME, train


def parser() -> argparse.ArgumentParser:
    """The command line: a flag for every setting of a recipe, and the options that are not part of it."""
    made = argparse.ArgumentParser(
        prog="python -m minclip_torch.training", description=(__doc__ or "").split("\n\n")[0]
    )
    made.add_argument("start", type=Path, help="checkpoint folder to begin with")
    made.add_argument("data", type=Path, help="JSON lines of images and captions")
    made.add_argument("run", type=Path, help="folder to write, or to resume from")
    made.add_argument("--recipe", type=Path, help="a JSON file of settings; flags override it")
    made.add_argument("--test", type=Path, help="JSON lines of a held-out set")
    made.add_argument("--every", type=int, default=200, help="steps between evaluations, log lines and saved states")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or mps (default cpu)")
    for name, default in asdict(Recipe()).items():
        flag, shown = f"--{name.replace('_', '-')}", f"(default {default!r})"
        if isinstance(default, bool):
            made.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=shown)
        elif isinstance(default, tuple):
            made.add_argument(flag, nargs="*", default=None, help=f"(default: {' | '.join(default) or 'none'})")
        else:
            made.add_argument(flag, type=type(default), default=None, help=shown)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, 1 for an error, 130 where it was interrupted."""
    options = vars(parser().parse_args(arguments))
    flags = {name: options.pop(name) for name in asdict(Recipe())}
    flags = {name: tuple(v) if isinstance(v, list) else v for name, v in flags.items() if v is not None}
    file = options.pop("recipe")

    def body() -> None:
        settings = {} if file is None else asdict(Recipe.read(file))
        train(recipe=Recipe.from_dict(settings | flags, "the command line"), **options)

    return exit_code(body, when_stopped=RESUME)


if __name__ == "__main__":
    sys.exit(main())
