"""`minclip backends`: every installed backend with its devices, or the reason why it cannot start."""

from __future__ import annotations

import argparse

from minclip.backend import status
from minclip.errors import BackendError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace) -> int:
    for name, found in status().items():
        print(f"{name:<10} {found if isinstance(found, BackendError) else ', '.join(found)}")
    return 0
