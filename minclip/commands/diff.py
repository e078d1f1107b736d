"""`minclip diff`: compare a backend with the reference, step by step. Exit 1: they differ, or one lacks a tower."""

from __future__ import annotations

import argparse

from minclip.commands import common
from minclip.loading import load
from minclip.testing.divergence import compare
from minclip.testing.probe import probe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.model_argument(parser)
    parser.add_argument("--backend", default="torch", help="the backend to examine (default: torch)")
    parser.add_argument("--device", help="where it computes")
    parser.add_argument("--dtype", help="in which numbers")
    parser.add_argument("--image", metavar="IMAGE", help="a picture to compare on (default: noise)")
    parser.add_argument("--text", metavar="TEXT", help="a text to compare on (default: random ids)")


def run(options: argparse.Namespace) -> int:
    reference = load(options.model, dtype="float32")
    examined = common.load_model(options)
    found = compare(reference, examined, probe(reference, image=options.image, text=options.text))
    print(f"{options.backend}: {found}")
    return 1 if found.divergence or found.missing else 0
