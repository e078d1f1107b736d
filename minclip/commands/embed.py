"""`minclip embed`: unit vectors of pictures, or of texts, in an .npz file.

Its arrays: 'embeds' (n, p); 'paths' or 'texts' (n,), whose they are; 'model' and 'fingerprint', which model made them.
The file takes its place when it is complete, or not at all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from minclip.commands import common
from minclip.errors import BackendError
from minclip.fingerprint import fingerprint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "minclip embed (IMAGE [IMAGE ...] | --text TEXT [TEXT ...]) -o OUT.npz [--model MODEL] [...]"
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=common.PICTURES_HELP)
    parser.add_argument("--text", nargs="+", action="extend", default=[], metavar="TEXT", help="texts instead")
    parser.add_argument("--text-file", metavar="FILE", help="file with a text on each line; - for stdin")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.npz", help="the file to write")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="how many at a time (default: 32)")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    texts = [*options.text, *(common.lines_of(options.text_file) if options.text_file else [])]
    if bool(texts) == bool(options.images):
        raise ValueError("name pictures, or give texts with --text or --text-file: one of the two")
    output = Path(options.output)
    common.check_output(output, options.images, ending=".npz")
    return embed_texts(texts, output, options) if texts else embed_pictures(output, options)


def embed_texts(texts: list[str], output: Path, options: argparse.Namespace) -> int:
    with common.writing(output) as file:
        model = common.load_model(options)
        embeds = model.encode_text(texts, batch_size=options.batch_size, progress=sys.stderr.isatty())
        common.check_finite(embeds, texts, model)
        np.savez(file, embeds=embeds, texts=np.array(texts), model=model.source, fingerprint=fingerprint(model))
    print(f"wrote {len(embeds)} embeddings of {embeds.shape[1]} numbers to {output}", file=sys.stderr)
    return 0


def embed_pictures(output: Path, options: argparse.Namespace) -> int:
    """Those that cannot be read are left out. Where the memory runs out, the batches done before are written."""
    pictures = common.Pictures(options.images)
    failure: BackendError | None = None
    with common.writing(output) as file:
        model = common.load_model(options)
        try:
            embeds = model.encode_image(
                pictures.paths,
                batch_size=options.batch_size,
                progress=sys.stderr.isatty(),
                on_error=pictures.left_out,
            )
        except BackendError as error:
            if error.finished is None:
                raise
            failure, embeds = error, error.finished
        paths = pictures.read()[: len(embeds)]
        if not paths:
            raise ValueError(f"none of the {len(pictures.paths)} pictures could be read, so {output} was not written")
        common.check_finite(embeds, paths, model)
        np.savez(file, embeds=embeds, paths=np.array(paths), model=model.source, fingerprint=fingerprint(model))
    print(f"wrote {len(paths)} embeddings of {embeds.shape[1]} numbers to {output}", file=sys.stderr)
    if failure is not None:
        raise failure
    return pictures.exit_code()
