"""`minclip models`: a line, or a JSON object, for each bundled model."""

from __future__ import annotations

import argparse

from minclip import checkpoints
from minclip.checkpoints import sources
from minclip.commands import printing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a model")


def run(options: argparse.Namespace) -> int:
    """A line for each bundled model."""
    checkpoints.locate()  # raises where the bundled models are missing
    for name in checkpoints.bundled_names():
        folder = sources.BUNDLED / name
        languages = sources.LANGUAGES.get(name, "")
        size = sum(path.stat().st_size for path in folder.iterdir())
        is_default = name == sources.DEFAULT
        if options.json:
            described = {"name": name, "languages": languages, "bytes": size, "folder": str(folder)}
            printing.print_json({**described, "default": is_default})
        else:
            default = " (default)" if is_default else ""
            print(f"{name:<16} {languages:<13} {size / 2**20:5.1f} MiB  {folder}{default}")
    return 0
