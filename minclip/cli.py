"""The command line: `minclip zero-shot`, `embed`, `info`, `diff`, `backends`, `demo`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from minclip import checkpoint
from minclip.backend import backends, installed
from minclip.errors import BackendError, ImageError, MinclipError
from minclip.model import Model, Ranking, load

__all__ = ["main"]

BAR = 30  # characters of a score's bar


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 where some images were skipped, 2 where nothing could be done."""
    options = parser().parse_args(arguments)
    try:
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
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary)
        made.set_defaults(run=run)
        return made

    def model_options(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--model", metavar="MODEL", help="checkpoint folder, or hub id such as openai/clip-vit-base-patch32"
        )
        made.add_argument("--backend", default="numpy", help="what computes (default: numpy; see minclip backends)")
        made.add_argument("--device", help="where, such as cuda (default: the backend's first)")
        made.add_argument("--dtype", help="in which numbers, such as float32 or bfloat16 (default: the backend's)")

    made = command("zero-shot", zero_shot, "Rank labels for pictures.")
    made.add_argument("images", nargs="+", metavar="IMAGE", help="picture file")
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
    made.add_argument("model", metavar="MODEL", help="checkpoint folder or hub id")

    made = command("diff", diff, "Find the first step at which a backend leaves the NumPy reference.")
    made.add_argument("model", metavar="MODEL", help="checkpoint folder or hub id")
    made.add_argument("--backend", default="torch", help="the backend to examine (default: torch)")
    made.add_argument("--device", help="where it computes")
    made.add_argument("--dtype", help="in which numbers")
    made.add_argument("--image", metavar="IMAGE", help="a picture to compare on (default: noise)")
    made.add_argument("--text", metavar="TEXT", help="a text to compare on (default: random ids)")

    made = command("demo", demo, "Make a small checkpoint on the spot and rank labels for drawings with it.")
    made.add_argument("--keep", metavar="FOLDER", help="leave the checkpoint and the drawings there")

    command("backends", list_backends, "List what can compute here, and on which devices.")
    return top


def load_model(options: argparse.Namespace) -> Model:
    """The model that --model, --backend, --device and --dtype name."""
    return load(options.model, backend=options.backend, device=options.device, dtype=options.dtype)


def zero_shot(options: argparse.Namespace) -> int:
    """Rank labels for each picture; a picture that cannot be read is reported and the rest goes on."""
    model = load_model(options)
    unreadable = 0
    for path in options.images:
        try:
            ranking = model.zero_shot(path, options.labels, template=options.template, top_k=options.top_k)
        except ImageError as error:
            unreadable += 1
            print(f"minclip: {error}", file=sys.stderr)
            continue
        if options.json:
            print(json.dumps({"image": path, "predictions": [p._asdict() for p in ranking]}, ensure_ascii=False))
        else:
            show(path, ranking)
    return failed(unreadable, len(options.images))


def show(path: str, ranking: Ranking) -> None:
    """Bars where a person is looking, `image<TAB>score<TAB>label` lines where a program is."""
    if not sys.stdout.isatty():
        for label, score in ranking:
            print(f"{path}\t{score:.6f}\t{label}")
        return
    print(path)
    for label, score in ranking:
        print(f"  {score:6.1%} {'█' * round(BAR * score):<{BAR}} {label}")


def embed(options: argparse.Namespace) -> int:
    """Embed all pictures; those that cannot be read are reported, skipped and counted in the exit code."""
    output = Path(options.output)
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent} is not a folder, so {output.name} cannot be written there; make it first")
    paths = pictures(options.images)
    model = load_model(options)
    skipped: list[int] = []

    def report(index: int, error: ImageError) -> None:
        skipped.append(index)
        print(f"\nminclip: skipped: {error}" if sys.stderr.isatty() else f"minclip: skipped: {error}", file=sys.stderr)

    show_bar = sys.stderr.isatty()
    try:
        embeds = model.encode_image(paths, batch_size=options.batch_size, progress=show_bar, on_error=report)
    except BackendError as error:
        if error.finished is not None:  # what is done is kept
            kept = [path for i, path in enumerate(paths) if i not in skipped][: len(error.finished)]
            write(output, error.finished, kept)
            print(f"minclip: wrote the {len(kept)} pictures done before the failure to {output}", file=sys.stderr)
        raise
    kept = [path for i, path in enumerate(paths) if i not in skipped]
    if kept:
        write(output, embeds, kept)
        print(f"wrote {len(kept)} embeddings of {embeds.shape[1]} numbers to {output}", file=sys.stderr)
    return failed(len(skipped), len(paths))


def write(output: Path, embeds: np.ndarray, paths: list[str]) -> None:
    """Write the .npz beside its name first, so that an interrupted run leaves no half file."""
    partial = output.with_name(output.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, embeds=embeds, paths=np.array(paths))
    partial.replace(output)


def pictures(given: Sequence[str]) -> list[str]:
    """The files given, and for each folder the picture files below it, sorted. Raises ValueError for an empty one."""
    found: list[str] = []
    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    for item in given:
        path = Path(item)
        if not path.is_dir():
            found.append(item)
            continue
        inside = sorted(str(p) for p in path.rglob("*") if p.is_file() and p.suffix.lower() in endings)
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
    print(f"{folder}\n  family      {config.model_type}: {' and '.join(config.towers)} tower")
    for name, tower in (("text", config.text_config), ("vision", config.vision_config)):
        if tower is not None and name in config.towers:
            count = sum(tensor.size for key, tensor in stored.items() if key.startswith(f"{name}_model."))
            print(
                f"  {name:<11} {tower.num_hidden_layers} layers, width {tower.hidden_size}, "
                f"{tower.num_attention_heads} heads, {tower.hidden_act}, {count:,} parameters"
            )
    if config.vision_config is not None:
        print(f"  images      {config.vision_config.image_size} px in patches of {config.vision_config.patch_size}")
    if config.text_config is not None and "text" in config.towers:
        text = config.text_config
        print(f"  texts       {text.vocab_size:,} tokens, at most {text.max_position_embeddings} positions")
    if config.has_projection:
        print(f"  space       {config.projection_dim} dimensions")
    print(f"  parameters  {total:,}, {4 * total / 2**20:,.1f} MiB in float32")
    for path in checkpoint.weight_files(folder):
        print(f"  file        {path.name}, {path.stat().st_size / 2**20:,.1f} MiB")
    return 0


def diff(options: argparse.Namespace) -> int:
    """Compare a backend with the reference, step by step. Exit code 1 where they differ."""
    from minclip.divergence import first_divergence, probe  # a debugger; the other commands do not pay for it

    reference = load(options.model, dtype="float32")
    examined = load(options.model, backend=options.backend, device=options.device, dtype=options.dtype)
    found = first_divergence(reference, examined, probe(reference, image=options.image, text=options.text))
    print(f"{options.backend} agrees with numpy at every step" if found is None else f"{options.backend}: {found}")
    return 0 if found is None else 1


def demo(options: argparse.Namespace) -> int:
    """The main job from nothing: make a checkpoint, draw pictures, rank what they might show."""
    from minclip import miniature

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.keep or scratch)
        print("making a small checkpoint: random towers, projections solved by least squares; it knows 4 colours and")
        print("3 shapes, drawn as below, and nothing else. For the world outside, name a real one with --model.\n")
        model = load(miniature.make(folder))
        rng = np.random.default_rng(2021)
        for caption in ("a red circle", "a blue square", "a yellow triangle"):
            path = folder / f"{caption.replace(' ', '-')}.png"
            miniature.draw(caption, rng, side=128).save(path)
            show(path.name, model.zero_shot(path, miniature.captions(), top_k=3))
    print("\nthe same in Python:\n  import minclip")
    print('  minclip.zero_shot("photo.jpg", ["a cat", "a dog"], model="path/to/checkpoint or hub id")')
    return 0


def list_backends(options: argparse.Namespace) -> int:
    """Every installed backend with its devices, or the reason why it does not work."""
    working = backends()
    for name, import_it in sorted(installed().items()):
        backend = import_it() if name not in working else None
        print(f"{name:<10} {', '.join(working[name]) if name in working else backend}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
