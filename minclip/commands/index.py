"""`minclip index`: make an index of folders of pictures, or bring it up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minclip.commands import common
from minclip.errors import SearchError
from minclip.search import approximate
from minclip.search.build import build
from minclip.search.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "minclip index FOLDER [FOLDER ...] -o PHOTOS.idx [--model MODEL] [...]"
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="folder to search for pictures, and all below it")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="PHOTOS.idx", help="the index")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures at a time (default: 32)")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    if options.model is None and Store.begun(options.output):
        options.model = Store(options.output).facts["model"]
    changes = build(
        options.folders,
        options.output,
        model=common.load_model(options),
        batch_size=options.batch_size,
        progress=sys.stderr.isatty(),
        on_error=lambda line: common.complain(f"left out: {line}"),
    )
    counted = ("added", "changed", "renamed", "removed", "unchanged")
    print(f"{options.output}: {', '.join(f'{getattr(changes, name)} {name}' for name in counted)}", file=sys.stderr)
    if changes.unreadable:
        common.complain(f"{len(changes.unreadable)} files or folders could not be read")
    if not Store.begun(options.output):
        raise ValueError(f"none of the pictures could be read, so {options.output} was not made")
    if approximate.is_due(store := Store(options.output)):
        try:
            facts = approximate.build(store)
            print(f"approximate search: recall {facts.recall:.3f}, {facts.speedup:.0f} times as fast", file=sys.stderr)
        except SearchError as error:
            common.complain(str(error))
    return 1 if changes.unreadable else 0
