"""`minclip zero-shot`: rank labels for pictures. One that cannot be read is reported, and the rest goes on."""

from __future__ import annotations

import argparse
import sys

from minclip.commands import common, printing
from minclip.errors import ImageError
from minclip.ranking import Ranking

AT_A_TIME = 32  # pictures ranked before their rankings are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pictures, labels, and how to show the rankings."""
    parser.usage = (
        "minclip zero-shot IMAGE [IMAGE ...] (--labels LABEL [LABEL ...] | --label-set SET.npz) [--model MODEL] [...]"
    )
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help=f"{common.PICTURES_HELP}; all of them come before --labels"
    )
    common.label_options(parser)
    common.template_option(parser)
    common.label_set_option(parser)
    parser.add_argument("--top-k", type=int, metavar="K", help="show only the K best labels")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Rank and print, some pictures at a time. Returns 1 where one could not be read, 2 where none could."""
    if not options.images:
        raise ValueError("no picture was named; pictures come before --labels, which takes all words that follow it")
    if "-" in options.images and options.labels_file == "-":
        raise ValueError("pictures and labels cannot both be read from stdin; put the labels in a file")
    given = common.label_set(options) or common.labels(options)
    pictures = common.Pictures(options.images)
    model = common.load_model(options)
    labels, label_embeds = model.encoded_labels(given, options.template)
    common.hint_at_lone_label(labels)
    for start in range(0, len(pictures.paths), AT_A_TIME):
        paths = pictures.paths[start : start + AT_A_TIME]

        def left_out(index: int, error: ImageError, start: int = start) -> None:
            pictures.left_out(start + index, error)

        image_embeds = model.encode_image(paths, batch_size=AT_A_TIME, on_error=left_out)
        rankings = iter(model.rank(image_embeds, labels, label_embeds, top_k=options.top_k))
        for index, path in enumerate(paths, start):
            error = pictures.errors.get(index)
            if options.json:
                found = {"error": str(error)} if error else {"predictions": [p._asdict() for p in next(rankings)]}
                printing.print_json({"image": path, **found})
            elif error is None:
                show(path, next(rankings))
        sys.stdout.flush()
    return pictures.exit_code()


def show(path: str, ranking: Ranking) -> None:
    """Bars where a person is looking, `image<TAB>score<TAB>label` lines where a program is."""
    if sys.stdout.isatty():
        print(printing.printable(path), *printing.bars(ranking), sep="\n  ")
        return
    for label, score in ranking:
        print(f"{printing.printable(path)}\t{score:.6f}\t{label}")
