"""`minclip explain`: a sheet of heat maps, which patches and which words each label's score rests on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minclip import explanations
from minclip.commands import common, printing
from minclip.commands.heat import heat_sheet
from minclip.commands.sheet import Fonts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A picture, labels, the sheet to write."""
    parser.usage = "minclip explain IMAGE --labels LABEL [LABEL ...] -o HEAT.png [--against LABEL] [...]"
    parser.add_argument("image", metavar="IMAGE", help="picture file; it comes before --labels")
    common.label_options(parser)
    parser.add_argument("-o", "--output", required=True, metavar="HEAT.png", help="receives the sheet")
    parser.add_argument("--against", metavar="LABEL", help="explain why it is each label rather than this one")
    parser.add_argument(
        "--method",
        choices=explanations.METHODS,
        default=explanations.DEFAULT,
        help=f"how relevance is found (default: {explanations.DEFAULT})",
    )
    parser.add_argument("--font", nargs="+", default=[], metavar="FILE", help="fonts for labels beyond Latin letters")
    parser.add_argument("--json", action="store_true", help="print maps, tokens and scores, too, as one JSON object")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Explain each label's cosine, and draw the sheet."""
    labels, output = common.labels(options), Path(options.output)
    common.check_output(output, [options.image], ".png")
    fonts = Fonts(options.font)
    model = common.load_model(options)
    found = explanations.explain(options.image, labels, model=model, method=options.method, against=options.against)
    for one in found:
        if one.truncated:
            read = "".join(characters for characters, _ in one.tokens)
            printing.complain(f"{one.text!r:.60} is longer than the model reads; explained is {read!r:.200}")
    drawn = heat_sheet(found, Path(options.image).name, options.against, fonts)
    with common.writing(output) as file:
        drawn.save(file, "PNG", optimize=True)
    if options.json:
        printing.print_json(
            {
                "image": options.image,
                "explanations": [
                    {"label": one.text, "score": one.score, "map": one.map.tolist(), "tokens": one.tokens}
                    for one in found
                ],
            }
        )
    print(f"wrote {output}: {len(found)} heat map{'s' if len(found) > 1 else ''}", file=sys.stderr)
    return 0
