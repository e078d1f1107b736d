"""`minclip models`: a line, or a JSON object, for each bundled model."""

from __future__ import annotations

import argparse

from minclip.checkpoints import checkpoint
from minclip.commands import printing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a model")


def run(options: argparse.Namespace) -> int:
    checkpoint.locate()  # raises where the bundled models are missing
    for name in checkpoint.bundled_names():
        folder = checkpoint.BUNDLED / name
        languages = checkpoint.LANGUAGES.get(name, "")
        size = sum(path.stat().st_size for path in folder.iterdir())
        is_default = name == checkpoint.DEFAULT
        if options.json:
            described = {"name": name, "languages": languages, "bytes": size, "folder": str(folder)}
            printing.print_json({**described, "default": is_default})
        else:
            default = " (default)" if is_default else ""
            print(f"{name:<16} {languages:<13} {size / 2**20:5.1f} MiB  {folder}{default}")
    return 0
