"""`minclip labels`: labels in their templates, encoded once into a file that `zero-shot` and `evaluate` take."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minclip.commands import common
from minclip.ranking import checked_templates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Labels, their templates, and the file to write."""
    parser.usage = (
        "minclip labels (LABEL [LABEL ...] | --labels-file FILE) -o SET.npz [--template TEXT] [--model MODEL] [...]"
    )
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="what might be in pictures")
    parser.add_argument("--labels-file", metavar="FILE", help="file with a label on each line; - for stdin")
    common.template_option(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="SET.npz", help="the file to write")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="texts at a time (default: 256)")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Encode and write, whole or not at all."""
    labels, templates = common.labels(options), checked_templates(options.template)
    common.check_output(options.output, [], ".npz")
    with common.writing(options.output) as file:
        model = common.load_model(options)
        found = model.label_set(labels, templates, batch_size=options.batch_size, progress=sys.stderr.isatty())
        found.write(file)
    each = "" if len(templates) == 1 else f" in {len(templates)} templates"
    print(f"wrote {len(found)} labels{each} to {options.output}", file=sys.stderr)
    return 0
