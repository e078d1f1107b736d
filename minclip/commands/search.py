"""`minclip search`: the pictures of an index that are nearest to a text, a picture, or a sum of both."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from minclip.commands import common, printing
from minclip.search.approximate import AT
from minclip.search.index import Index
from minclip.search.query import query_vector, terms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The index, the query's words, and how to show what is found."""
    parser.usage = (
        "minclip search PHOTOS.idx QUERY [+ QUERY | - QUERY ...] [--top-k K] [--json | --html OUT.html] [...]"
    )
    parser.epilog = (
        'A query is a text ("golden retriever"), a picture (pool.jpg, ./pool, https://...), or a sum of these with '
        'weights: minclip search photos.idx "2:golden retriever" + pool.jpg - fruit. Scores are cosines. Where stdout '
        "is no terminal, the paths alone are printed, best first."
    )
    parser.add_argument("index", metavar="PHOTOS.idx", help="made by minclip index")
    parser.add_argument("query", nargs="+", metavar="QUERY", help="what is searched for; see below")
    parser.add_argument("--top-k", type=int, default=10, metavar="K", help="how many pictures (default: 10)")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture")
    parser.add_argument(
        "--html", type=Path, metavar="OUT.html", help="write a contact sheet, to be opened in a browser"
    )
    parser.add_argument("--exact", action="store_true", help="compare with every vector of a large index, too")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Find pictures and show them: as a page, as JSON, with their scores or as paths alone."""
    if options.html:
        common.check_output(options.html, [], ".html", ".htm")
    index = Index.open(options.index)
    asked = terms(options.query)
    options.model = options.model or index.store.facts["model"]
    model = index.model(common.load_model(options))
    vector = query_vector(options.query, model, draft=index.store.draft)
    found = index.nearest(vector, options.top_k, exact=options.exact)
    if index.approximate and not options.exact:
        print(f"approximate: recall {index.approximate.recall:.3f} at {AT}; --exact has all", file=sys.stderr)
    if options.html:
        from minclip.search.sheet import contact_sheet

        note = f"{len(found)} of {len(index):,} pictures in {options.index}, by {model.source}"
        page = contact_sheet(" ".join(options.query), asked, found, note)
        with common.writing(options.html) as file:
            file.write(page.encode())
        print(f"wrote {options.html}", file=sys.stderr)
    elif options.json:
        for match in found:
            printing.print_json(match._asdict())
    elif sys.stdout.isatty():
        for match in found:
            print(f"{match.score:.3f}  {match.path}")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(os.fsencode(match.path) + b"\n" for match in found))
    return 0
