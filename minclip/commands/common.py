"""What commands share: options that name a model, where pictures and labels come from, what is left out or written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minclip import notice
from minclip.checkpoints import sources
from minclip.commands.printing import complain
from minclip.errors import ImageError
from minclip.files import replacing
from minclip.images import pictures_below
from minclip.label_set import LabelSet
from minclip.loading import load
from minclip.model import Model
from minclip.ranking import checked_labels

MODEL_HELP = (
    f"checkpoint folder, hub id such as {notice.ANOTHER}, or name of a bundled model (see minclip models; "
    f"default: {sources.DEFAULT}, which knows drawn pictures and groceries)"
)
PICTURES_HELP = "picture file, folder to search for pictures, http(s) URL, or - for a list of them on stdin"


# --- models --------------------------------------------------------------------------------------------------------


def model_options(parser: argparse.ArgumentParser) -> None:
    """--model, --backend, --device, --dtype and --threads: what `load_model` takes."""
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--backend", default="numpy", help="what computes (default: numpy; see minclip backends)")
    parser.add_argument("--device", help="where, such as cuda (default: the backend's first)")
    parser.add_argument("--dtype", help="in which numbers, such as float32 or bfloat16 (default: the backend's)")
    parser.add_argument("--threads", type=int, metavar="N", help="how many compute (default: one for each core)")


def model_argument(parser: argparse.ArgumentParser) -> None:
    """The model as the command's own argument, for commands that are about one."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    parser.set_defaults(how_to_choose=f"name {notice.ANOTHER}")


def load_model(options: argparse.Namespace) -> Model:
    """The model that --model, --backend, --device and --dtype name, with --threads."""
    threads = getattr(options, "threads", None)  # which not every command takes
    return load(options.model, backend=options.backend, device=options.device, dtype=options.dtype, threads=threads)


def encode_options(parser: argparse.ArgumentParser) -> None:
    """--batch-size and --draft, of `Model.encode_image`: what `Pictures.encode` takes."""
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="how many at a time (default: 32)")
    parser.add_argument(
        "--draft",
        action="store_true",
        help="decode JPEG files at 1/2, 1/4 or 1/8 of their size, not below what the model needs: faster, nearly the "
        "same embeddings",
    )


# --- pictures and what is left out ---------------------------------------------------------------------------------


class Pictures:
    """The pictures that a command was given, and what could not be read: reported on a line each, and counted.

    given: picture files, http(s) URLs, folders to search, or "-" for a list of these on stdin. Raises ValueError where
    there is none, and for a folder that holds none.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self.paths: list[str] = []
        self.errors: dict[int, ImageError] = {}  # of pictures that could not be read, by their place in paths
        self.unreadable_folders = 0
        for item in given:
            self._add(stdin_paths() if item == "-" else [item])
        if not self.paths:
            raise ValueError("no picture was named; name picture files, folders, URLs, or - for a list on stdin")

    def _add(self, items: Iterable[str]) -> None:
        for item in items:
            self.paths += self._below(item) if os.path.isdir(item) else [item]

    def _below(self, folder: str) -> list[str]:
        found = pictures_below(folder, self._folder_left_out, self._link_left_out)
        if not found:
            raise ValueError(f"{folder} holds no picture files; name pictures, or a folder that has some")
        return found

    def _link_left_out(self, path: str) -> None:
        complain(f"left out: {path} is a link to a folder; name it to have its pictures too")

    def _folder_left_out(self, error: OSError) -> None:
        self.unreadable_folders += 1
        complain(f"left out: folder {error.filename} cannot be read: {error.strerror}")

    def encode(self, model: Model, options: argparse.Namespace) -> np.ndarray:
        """Unit vectors (n, p) of those that can be read, see `Model.encode_image`."""
        return model.encode_image(
            self.paths,
            batch_size=options.batch_size,
            draft=options.draft,
            progress=sys.stderr.isatty(),
            on_error=self.left_out,
        )

    def left_out(self, index: int, error: ImageError) -> None:
        """Report that `paths[index]` cannot be read, and count it: the `on_error` of `Model.encode_image`."""
        self.errors[index] = error
        complain(f"skipped: {error}")

    def read(self) -> list[str]:
        """The paths that could be read, in their order."""
        return [path for index, path in enumerate(self.paths) if index not in self.errors]

    def exit_code(self) -> int:
        """Say how much was left out; 0 where it was nothing, 1 where it was a part, 2 where it was every picture."""
        if self.errors:
            complain(f"{len(self.errors)} of {len(self.paths)} pictures could not be read")
        if self.unreadable_folders:
            complain(f"{self.unreadable_folders} folders could not be read")
        if len(self.errors) == len(self.paths):
            return 2
        return 1 if self.errors or self.unreadable_folders else 0


def stdin_paths() -> Iterator[str]:
    """The paths on stdin: a line each, or separated by NUL as `find -print0` does. Any bytes name a file."""
    if sys.stdin is None:
        raise ValueError("- stands for stdin, and stdin is closed")
    content = sys.stdin.buffer.read()
    parts = content.split(b"\0") if b"\0" in content else (line.rstrip(b"\r") for line in content.split(b"\n"))
    return (os.fsdecode(part) for part in parts if part)


# --- labels and other texts ----------------------------------------------------------------------------------------


def label_options(parser: argparse.ArgumentParser) -> None:
    """--labels and --labels-file: what `labels` takes."""
    parser.add_argument(
        "--labels", nargs="+", action="extend", default=[], metavar="LABEL", help="what might be in the pictures"
    )
    parser.add_argument("--labels-file", metavar="FILE", help="file with a label on each line; - for stdin")


def template_option(parser: argparse.ArgumentParser) -> None:
    """--template, which may be given several times."""
    parser.add_argument(
        "--template", action="append", metavar="TEXT", help="sentence with {} for the label; may be repeated"
    )


def label_set_option(parser: argparse.ArgumentParser) -> None:
    """--label-set: what `label_set` opens."""
    parser.add_argument(
        "--label-set", metavar="SET.npz", help="labels and templates that minclip labels encoded, and their model"
    )


def label_set(options: argparse.Namespace) -> LabelSet | None:
    """What --label-set names, whose model is the one to load where --model names none. None without --label-set.

    Raises ValueError for labels and templates beside it, and LabelSetError where it cannot be read.
    """
    if options.label_set is None:
        return None
    for option in ("labels", "labels_file", "template"):
        if getattr(options, option, None):
            raise ValueError(f"--label-set has labels and templates of its own; leave out --{option.replace('_', '-')}")
    found = LabelSet.open(options.label_set)
    options.model = options.model or found.model
    return found


def labels(options: argparse.Namespace) -> list[str]:
    """All labels of --labels and --labels-file. Raises ValueError for none, an empty one, and one given twice."""
    found = [*options.labels, *(lines_of(options.labels_file) if options.labels_file else [])]
    if not found:
        raise ValueError('no label was given; give some, as in --labels "a cat" "a dog", or --labels-file FILE')
    return checked_labels(found)


def hint_at_lone_label(found: Sequence[str]) -> None:
    """Say what the probability of a lone label is; where it has commas, several may have been meant."""
    if len(found) == 1:
        words = [word.strip() for word in found[0].split(",")]
        separate = " ".join(f'"{word}"' if " " in word else word for word in words if word)
        what_to_do = f"for several write --labels {separate}" if len(words) > 1 else "give others to compare it with"
        complain(f"{found[0]!r} is the only label, so its probability is always 1; {what_to_do}")


def lines_of(path: str) -> list[str]:
    """The lines of a UTF-8 text file, or of stdin for "-", without the empty ones."""
    if path == "-" and sys.stdin is None:
        raise ValueError("- stands for stdin, and stdin is closed")
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


# --- writing -------------------------------------------------------------------------------------------------------


def check_output(output: Path, inputs: Sequence[str], *endings: str) -> None:
    """Raises ValueError, before any work is done, for an output that cannot or should not be written."""
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent} is not a folder, so {output.name} cannot be written there; make it first")
    try:
        exists = output.exists()
    except OSError as error:  # a name that is too long, say
        raise ValueError(f"{output} cannot be written: {error.strerror}") from None
    if exists and not output.is_file():
        raise ValueError(
            f"{output} is {'a folder' if output.is_dir() else 'no file'}; name the {endings[0]} file to write"
        )
    if exists and any(os.path.exists(path) and output.samefile(path) for path in inputs):
        raise ValueError(f"{output} is one of the pictures; name another file to write")
    if output.suffix.lower() not in endings:
        formats = "the format that is written" if len(endings) == 1 else "the formats that are written"
        name = f"{output.stem}{endings[0]}"
        raise ValueError(f"{output} must end in {', '.join(endings)}, {formats}; name it {name}")


@contextmanager
def writing(output: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `output` when it is complete, or leaves what was there.

    The disk's errors name the file that the user named, not the temporary one beside it: reading models and pictures
    raises errors of minclip's own, so an OSError within comes from writing.
    """
    try:
        with replacing(output) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {error.strerror or error}") from None
