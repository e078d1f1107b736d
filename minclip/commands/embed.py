"""`minclip embed`: unit vectors of pictures, or of texts, in an .npz file.

Its arrays: 'embeds' (n, p); 'paths' or 'texts' (n,), whose they are; 'model' and 'fingerprint', which model made them.
The file takes its place when it is complete, or not at all.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from minclip.commands import common
from minclip.errors import BackendError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pictures or texts, the file or folder to write, and how the work is shared out."""
    parser.usage = (
        "minclip embed (IMAGE [IMAGE ...] | --text TEXT [TEXT ...]) -o OUT.npz [--model MODEL] [...]\n"
        "       minclip embed SOURCE [...] -o FOLDER (--shard I/N | --ray [ADDRESS]) [--model MODEL] [...]"
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=common.PICTURES_HELP)
    parser.add_argument("--text", nargs="+", action="extend", default=[], metavar="TEXT", help="texts instead")
    parser.add_argument("--text-file", metavar="FILE", help="file with a text on each line; - for stdin")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.npz", help="the file to write")
    parser.add_argument(
        "--shard", metavar="I/N", help="write the I-th of N parts of the pictures, from 0, into folder -o"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="write all --shards N on a Ray cluster: the one at ADDRESS, a new one on this machine for local, or "
        "without either the one that runs here, a new one where none does",
    )
    parser.add_argument("--shards", type=int, metavar="N", help="how many parts --ray makes (default: one for 4096)")
    parser.add_argument("--gpus", type=float, default=0, metavar="SHARE", help="of a GPU, for each actor of --ray")
    common.encode_options(parser)
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """What cannot be read is left out. Where the memory runs out, the batches done before are written."""
    if options.shard is not None or options.ray is not None:
        return embed_shards(options)
    texts = [*options.text, *(common.lines_of(options.text_file) if options.text_file else [])]
    if bool(texts) == bool(options.images):
        raise ValueError("name pictures, or give texts with --text or --text-file: one of the two")
    output = Path(options.output)
    common.check_output(output, options.images, ".npz")
    pictures = None if texts else common.Pictures(options.images)
    failure: BackendError | None = None
    with common.writing(output) as file:
        model = common.load_model(options)
        try:
            if pictures is not None:
                embeds = pictures.encode(model, options)
            else:
                embeds = model.encode_text(texts, batch_size=options.batch_size, progress=sys.stderr.isatty())
        except BackendError as error:
            if error.finished is None:
                raise
            failure, embeds = error, error.finished
        if pictures is not None and not pictures.read():
            raise ValueError(f"none of the {len(pictures.paths)} pictures could be read, so {output} was not written")
        kind, items = ("texts", texts) if pictures is None else ("paths", pictures.read())
        arrays: dict[str, Any] = {kind: np.array(items[: len(embeds)]), "model": model.source}
        np.savez(file, embeds=embeds, fingerprint=model.fingerprint, **arrays)
    print(f"wrote {len(embeds)} embeddings of {embeds.shape[1]} numbers to {output}", file=sys.stderr)
    if failure is not None:
        raise failure
    return 0 if pictures is None else pictures.exit_code()


def embed_shards(options: argparse.Namespace) -> int:
    """One shard, or all of them by the plugin for Ray; see `minclip.search.shards`. 1 where a picture is broken."""
    from minclip.search import shards  # which other runs need not wait for

    folder = Path(options.output)
    found = shards.entries(options.images)
    broken = 0

    def report(number: int, pictures: int, unreadable: int) -> None:
        nonlocal broken
        broken += unreadable
        print(f"shard {number}: {pictures} pictures, {unreadable} of them could not be read", file=sys.stderr)

    if options.ray is None:
        match = re.fullmatch(r"(\d+)/(\d+)", options.shard)
        if not match or not int(match[1]) < int(match[2]):
            raise ValueError(f"--shard {options.shard} must be I/N with I from 0 to N - 1, such as 0/8")
        shard = shards.blocks(found, int(match[2]), draft=options.draft)[int(match[1])]
        if not shards.is_made(folder, shard):
            model = common.load_model(options)
            report(shard.number, *shards.make(folder, shard, model, batch_size=options.batch_size))
        return 1 if broken else 0
    engine = next(iter(entry_points(group="minclip.engines", name="ray")), None)
    if engine is None:
        raise ValueError("--ray needs the plugin minclip_ray; install minclip again")
    try:
        embed = engine.load()
    except ImportError as error:
        raise ValueError(f"--ray needs Ray: pip install minclip[ray] ({error})") from None
    embed(
        found,
        folder,
        options.shards or -(-len(found) // 4096),
        address=options.ray or None,
        source=options.model,
        batch_size=options.batch_size,
        draft=options.draft,
        gpus=options.gpus,
        report=report,
        backend=options.backend,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
    )
    return 1 if broken else 0
