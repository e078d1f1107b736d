"""`minclip index`: make an index of folders of pictures, or bring it up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minclip.commands import common, printing
from minclip.errors import SearchError
from minclip.search import approximate
from minclip.search.build import build
from minclip.search.shards import export_index, index_shards
from minclip.search.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders or shards, the index, and how pictures are read."""
    parser.usage = "minclip index (FOLDER [FOLDER ...] | --from DIR | --export DIR) -o PHOTOS.idx [--model MODEL] [...]"
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="folder to search for pictures, and all below it")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="PHOTOS.idx", help="the index")
    parser.add_argument("--from", dest="shards", type=Path, metavar="DIR", help="take what minclip embed --shard wrote")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the index in clip-retrieval's layout")
    common.encode_options(parser)
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Index folders, or shards; or export. Returns 1 where something could not be read."""
    if sum(map(bool, (options.folders, options.shards, options.export))) != 1:
        raise ValueError("name folders of pictures, or --from DIR, or --export DIR: one of the three")
    if options.draft and not options.folders:
        raise ValueError("--draft is for folders of pictures; shards and an index were made with it or without")
    if options.export:
        count = export_index(Store(options.output), options.export)
        print(f"wrote {count} shards to {options.export}", file=sys.stderr)
        return 0
    if options.shards:
        count = index_shards(options.shards, options.output, progress=sys.stderr.isatty())
        print(f"{options.output}: {count} pictures from shards", file=sys.stderr)
        code = 0
    else:
        code = update(options)
    if approximate.is_due(store := Store(options.output)):
        try:
            found = approximate.build(store)
            print(f"approximate search: recall {found.recall:.3f} at {approximate.AT}", file=sys.stderr)
        except SearchError as error:
            printing.complain(str(error))
    return code


def update(options: argparse.Namespace) -> int:
    """Bring the index up to date with the folders; 1 where something could not be read."""
    if options.model is None and Store.begun(options.output):
        options.model = Store(options.output).facts["model"]
    changes = build(
        options.folders,
        options.output,
        model=common.load_model(options),
        batch_size=options.batch_size,
        draft=options.draft or None,
        progress=sys.stderr.isatty(),
        on_error=lambda line: printing.complain(f"left out: {line}"),
    )
    counted = ("added", "changed", "renamed", "removed", "unchanged")
    print(f"{options.output}: {', '.join(f'{getattr(changes, name)} {name}' for name in counted)}", file=sys.stderr)
    if changes.unreadable:
        printing.complain(f"{len(changes.unreadable)} files or folders could not be read")
    if not Store.begun(options.output):
        raise ValueError(f"none of the pictures could be read, so {options.output} was not made")
    return 1 if changes.unreadable else 0
