"""The command line: `minclip zero-shot`, `embed`, `info`, `diff`, `demo`, `models`, `backends`."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from minclip import __version__
from minclip.backend import backends, installed
from minclip.checkpoints import checkpoint
from minclip.errors import BackendError, ImageError, MinclipError
from minclip.files import replacing
from minclip.images import image_suffixes
from minclip.loading import load
from minclip.notice import ANOTHER, way_out
from minclip.pipeline import batched
from minclip.ranking import Ranking
from minclip.weights import BFLOAT16

BAR = 30  # characters of a score's bar
MODEL_HELP = (
    f"checkpoint folder, hub id such as {ANOTHER}, or name of a bundled model (see minclip models; "
    f"default: {checkpoint.DEFAULT}, which knows drawn pictures, not photographs)"
)
CLEAR_LINE = "\r\x1b[K"
AT_A_TIME = 32  # pictures ranked before their rankings are printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 where some images were skipped, 2 where nothing could be done."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a label that the terminal cannot show costs no ranking
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings(), way_out(options.way_out):
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # at twice the size it is an error
            code: int = options.run(options)
        sys.stdout.flush()
    except (MinclipError, ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"minclip: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="minclip", description="CLIP in NumPy: rank labels for pictures, embed pictures."
    )
    top.add_argument("--version", action="version", version=f"minclip {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary)
        made.set_defaults(run=run, way_out=f"pass --model {ANOTHER}")
        return made

    def model_argument(made: argparse.ArgumentParser) -> None:
        made.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
        made.set_defaults(way_out=f"name {ANOTHER}")

    def model_options(made: argparse.ArgumentParser) -> None:
        made.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
        made.add_argument("--backend", default="numpy", help="what computes (default: numpy; see minclip backends)")
        made.add_argument("--device", help="where, such as cuda (default: the backend's first)")
        made.add_argument("--dtype", help="in which numbers, such as float32 or bfloat16 (default: the backend's)")

    made = command("zero-shot", zero_shot, "Rank labels for pictures.")
    made.usage = "minclip zero-shot IMAGE [IMAGE ...] --labels LABEL [LABEL ...] [--model MODEL] [...]"
    made.add_argument("images", nargs="*", metavar="IMAGE", help="picture file; all of them come before --labels")
    made.add_argument("--labels", nargs="+", required=True, metavar="LABEL", help="what might be in the pictures")
    made.add_argument(
        "--template", action="append", metavar="TEXT", help="sentence with {} for the label; may be repeated"
    )
    made.add_argument("--top-k", type=int, metavar="K", help="show only the K best labels")
    made.add_argument("--json", action="store_true", help="one JSON object a picture")
    model_options(made)

    made = command("embed", embed, "Embed pictures into an .npz file.")
    made.add_argument(
        "images", nargs="+", metavar="IMAGE_OR_FOLDER", help="picture files, or folders to search for them"
    )
    made.add_argument("-o", "--output", required=True, metavar="OUT.npz", help="receives arrays 'embeds' and 'paths'")
    made.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures at a time (default: 32)")
    model_options(made)

    made = command("info", info, "Say what a checkpoint is: config, parameters, memory, files.")
    model_argument(made)

    made = command("diff", diff, "Find the first step at which a backend leaves the NumPy reference.")
    model_argument(made)
    made.add_argument("--backend", default="torch", help="the backend to examine (default: torch)")
    made.add_argument("--device", help="where it computes")
    made.add_argument("--dtype", help="in which numbers")
    made.add_argument("--image", metavar="IMAGE", help="a picture to compare on (default: noise)")
    made.add_argument("--text", metavar="TEXT", help="a text to compare on (default: random ids)")

    made = command("demo", show_demo, "Rank labels in several languages for the pictures in the box.")
    made.set_defaults(way_out=f"use minclip zero-shot --model {ANOTHER}")

    command("models", list_models, "List the models in the box: name, languages, size, folder.")
    command("backends", list_backends, "List what can compute here, and on which devices.")
    return top


def load_model(options: argparse.Namespace) -> Model:
    """The model that --model, --backend, --device and --dtype name."""
    return load(options.model, backend=options.backend, device=options.device, dtype=options.dtype)


def zero_shot(options: argparse.Namespace) -> int:
    """Rank labels for each picture; a picture that cannot be read is reported and the rest goes on."""
    if not options.images:
        raise ValueError("no picture was named; pictures come before --labels, which takes all words that follow it")
    model = load_model(options)
    label_embeds = model.label_embeds(options.labels, options.template)
    unreadable = 0
    skipped: set[int] = set()

    def report(index: int, error: ImageError) -> None:
        skipped.add(index)
        print(f"minclip: {error}", file=sys.stderr)

    for paths in batched(options.images, AT_A_TIME):
        skipped.clear()
        image_embeds = model.encode_image(paths, batch_size=AT_A_TIME, on_error=report)
        rankings = model.rank(image_embeds, options.labels, label_embeds, top_k=options.top_k)
        readable = [path for i, path in enumerate(paths) if i not in skipped]
        for path, ranking in zip(readable, rankings, strict=True):
            if options.json:
                write_json(path, ranking)
            else:
                show(path, ranking)
        sys.stdout.flush()
        unreadable += len(skipped)
    return failed(unreadable, len(options.images))


def write_json(path: str, ranking: Ranking) -> None:
    """One line of JSON, in letters of any script where stdout takes them."""
    line = {"image": path, "predictions": [prediction._asdict() for prediction in ranking]}
    print(json.dumps(line, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))


def show(path: str, ranking: Ranking) -> None:
    """Bars where a person is looking, `image<TAB>score<TAB>label` lines where a program is."""
    if not sys.stdout.isatty():
        for label, score in ranking:
            print(f"{path}\t{score:.6f}\t{label}")
        return
    print(path)
    show_bars(ranking)


def show_bars(ranking: Ranking) -> None:
    """A line per label. The label stands last: one written from right to left then moves nothing of the line."""
    for label, score in ranking:
        print(f"  {score:6.1%} {'█' * round(BAR * score):<{BAR}} {label}")


def embed(options: argparse.Namespace) -> int:
    """Embed all pictures; those that cannot be read are reported, skipped and counted in the exit code.

    The output is opened before the work begins and takes its place when it is complete, or not at all.
    """
    output = Path(options.output)
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent} is not a folder, so {output.name} cannot be written there; make it first")
    if output.exists() and not output.is_file():
        raise ValueError(f"{output} is {'a folder' if output.is_dir() else 'no file'}; name the .npz file to write")
    paths = pictures(options.images)
    skipped: list[int] = []
    on_terminal = sys.stderr.isatty()

    def report(index: int, error: ImageError) -> None:
        skipped.append(index)
        print(f"{CLEAR_LINE if on_terminal else ''}minclip: skipped: {error}", file=sys.stderr)

    failure: BackendError | None = None
    with naming(output), replacing(output) as file:
        model = load_model(options)
        try:
            embeds = model.encode_image(paths, batch_size=options.batch_size, progress=on_terminal, on_error=report)
        except BackendError as error:
            if error.finished is None:
                raise
            failure, embeds = error, error.finished  # what is done is kept
        kept = [path for i, path in enumerate(paths) if i not in skipped][: len(embeds)]
        if not kept:
            raise ValueError(f"none of the {len(paths)} pictures could be read, so {output} was not written")
        np.savez(file, embeds=embeds, paths=np.array(kept))
    print(f"wrote {len(kept)} embeddings of {embeds.shape[1]} numbers to {output}", file=sys.stderr)
    if failure is not None:
        raise failure
    return failed(len(skipped), len(paths))


@contextmanager
def naming(output: Path) -> Iterator[None]:
    """Makes the disk's errors name the file that the user named, not the temporary one beside it.

    Reading models and pictures raises errors of minclip's own, so an OSError comes from writing.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {error.strerror or error}") from None


def pictures(given: Sequence[str]) -> list[str]:
    """The files given, and for each folder the picture files below it, sorted. Raises ValueError for an empty one."""
    found: list[str] = []
    suffixes = image_suffixes()
    for item in given:
        path = Path(item)
        if not path.is_dir():
            found.append(item)
            continue
        inside = sorted(str(p) for p in path.rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
        if not inside:
            raise ValueError(f"{item} holds no picture files; name pictures, or a folder that has some")
        found.extend(inside)
    return found


def failed(count: int, total: int) -> int:
    """Say how many pictures were skipped; the exit code for it."""
    if count:
        print(f"minclip: {count} of {total} pictures could not be read", file=sys.stderr)
    return 0 if not count else 1 if count < total else 2


def info(options: argparse.Namespace) -> int:
    """Config, parameters, memory and files of a checkpoint; reads no weights, only their headers."""
    folder = checkpoint.locate(options.model)
    config, weights = checkpoint.read(folder)
    stored = {name: weights.stored(name) for name in weights}
    total = sum(tensor.size for tensor in stored.values())
    types = sorted({"bfloat16" if tensor.dtype == BFLOAT16 else tensor.dtype.name for tensor in stored.values()})
    print(f"{folder}\n  family      {config.model_type}: {' and '.join(config.towers)} tower")
    for name, tower in (("text", config.text_config), ("vision", config.vision_config)):
        if tower is not None and name in config.towers:
            count = sum(tensor.size for key, tensor in stored.items() if key.startswith(f"{name}_model."))
            layers = f"{tower.num_hidden_layers} layer{'s' if tower.num_hidden_layers != 1 else ''}"
            print(
                f"  {name:<11} {layers}, width {tower.hidden_size}, "
                f"{tower.num_attention_heads} heads, {tower.hidden_act}, {count:,} parameters"
            )
    if config.vision_config is not None and "vision" in config.towers:
        print(f"  images      {config.vision_config.image_size} px in patches of {config.vision_config.patch_size}")
    if config.text_config is not None and "text" in config.towers:
        text = config.text_config
        print(f"  texts       {text.context_length} tokens at most, from a vocabulary of {text.vocab_size:,}")
    if config.has_projection:
        print(f"  space       {config.projection_dim} dimensions")
    print(f"  parameters  {total:,}, stored as {' and '.join(types)}; {4 * total / 2**20:,.1f} MiB in float32")
    small = {path for pattern in checkpoint.SMALL_FILES for path in folder.glob(pattern)}
    for path in [*checkpoint.weight_files(folder), *sorted(small)]:
        size = path.stat().st_size / 2**10
        print(f"  file        {path.name}, {f'{size:,.1f} KiB' if size < 2**10 else f'{size / 2**10:,.1f} MiB'}")
    return 0


def diff(options: argparse.Namespace) -> int:
    """Compare a backend with the reference, step by step. Exit code 1 where they differ."""
    from minclip.testing.divergence import first_divergence, probe  # a debugger; the other commands do not pay for it

    reference = load(options.model, dtype="float32")
    examined = load(options.model, backend=options.backend, device=options.device, dtype=options.dtype)
    found = first_divergence(reference, examined, probe(reference, image=options.image, text=options.text))
    print(f"{options.backend} agrees with numpy at every step" if found is None else f"{options.backend}: {found}")
    return 0 if found is None else 1


def show_demo(options: argparse.Namespace) -> int:
    """The main job, offline: rank labels of several languages for the pictures in the box."""
    from minclip.commands import demo  # pictures and labels that the other commands do not need

    for example, ranking in demo.rankings(load()):
        print(f"{example.picture} ({example.language})")
        show_bars(ranking)
    print(f"\nthe first one in Python:\n{demo.in_python(demo.EXAMPLES[0])}")
    return 0


def list_models(options: argparse.Namespace) -> int:
    """A line per bundled model."""
    checkpoint.locate()  # which says so where they are missing
    for name in checkpoint.bundled_names():
        folder = checkpoint.BUNDLED / name
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        default = " (default)" if name == checkpoint.DEFAULT else ""
        print(f"{name:<16} {checkpoint.LANGUAGES.get(name, ''):<13} {size:5.1f} MiB  {folder}{default}")
    return 0


def list_backends(options: argparse.Namespace) -> int:
    """Every installed backend with its devices, or the reason why it does not work."""
    working = backends()
    for name, import_it in sorted(installed().items()):
        backend = import_it() if name not in working else None
        print(f"{name:<10} {', '.join(working[name]) if name in working else backend}")
    return 0
