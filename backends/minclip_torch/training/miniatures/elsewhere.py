"""Make the exam "elsewhere": pictures by other artists, with sentences by other authors, that no training saw.

    python -m minclip_torch.training.miniatures.elsewhere data/elsewhere

fetches the stamps of the painting program Tux Paint (Debian's tuxpaint-stamps-default, GPL-2: neither trained on nor
shipped), checks the archive's digest, and writes

    data/elsewhere/elsewhere.jsonl    a line per stamp: its picture, and a sentence in each language that it has
    data/elsewhere/<folder>/...       the pictures, RGBA PNG, cut out, as the stamps are: drawings and photographs

Some of the stamps are in Open Clip Art, too: those that look like a picture of a training set beside the folder are
left out, so make the training sets first. The folder appears when it is complete.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from minclip.errors import ImageError
from minclip.images import open_image
from minclip_torch.training.command import exit_code
from minclip_torch.training.miniatures.debian import Package
from minclip_torch.training.miniatures.drawing import fitted
from minclip_torch.training.miniatures.emoji import LANGUAGES
from minclip_torch.training.miniatures.exam import alike, drawn_part, refuse_overlap
from minclip_torch.training.miniatures.packages import PicturesError
from minclip_torch.training.miniatures.pictures import TEST_SIZE, refuse_existing, write_lines
from minclip_torch.training.miniatures.things import Line

PACKAGE = Package(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    Path("usr/share/tuxpaint/stamps"),
)
# Signs, not things: what they show is told by a rule one has learned.
NOT_THINGS = (Path("symbols"), Path("town/flags"), Path("town/roadsigns"))
MIRRORED = "_mirror"  # ends the name of a stamp's mirror image
CODES = {code: (code,) for code in LANGUAGES} | {"pt": ("pt", "pt_BR"), "zh": ("zh_CN",)}  # the first of these found


@dataclass(frozen=True)
class Stamp:
    """A picture. name: its path among the stamps, without suffix; file: PNG or SVG; captions: language -> sentence."""

    name: str
    file: Path
    captions: dict[str, str]


def stamps(root: Path) -> list[Stamp]:
    """What the stamps in the folder `root` show, in order of their names; of a PNG and an SVG of one name the PNG.

    Left out are `NOT_THINGS`, mirror images, and what has no sentence in English. Raises PicturesError where nothing
    is left, or a text is not in UTF-8.
    """
    files = [file for suffix in ("svg", "png") for file in root.rglob(f"*.{suffix}")]
    named = {file.relative_to(root).with_suffix(""): file for file in files}
    found = []
    for name in sorted(named):
        text = named[name].with_suffix(".txt")
        if name.name.endswith(MIRRORED) or any(name.is_relative_to(sign) for sign in NOT_THINGS) or not text.is_file():
            continue
        try:
            captions = read_captions(text.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise PicturesError(f"{text} is no text in UTF-8 ({error.reason} at byte {error.start})") from None
        if "en" in captions:
            found.append(Stamp(name.as_posix(), named[name], captions))
    if not found:
        raise PicturesError(f"{root} holds no pictures with texts: name {PACKAGE.name}'s .deb, or its {PACKAGE.inside}")
    return found


def read_captions(text: str) -> dict[str, str]:
    """The sentence of each language in a stamp's text: English in the first line, then lines like `fr.utf8=Un lit.`"""
    first, *others = text.split("\n")
    if re.match(r"[\w@]+\.utf8=", first):  # no English
        first, others = "", [first, *others]
    pairs = (line.partition(".utf8=") for line in others)
    found = {"en": _clean(first)} | {code.strip(): _clean(sentence) for code, mark, sentence in pairs if mark}
    chosen = {language: next(filter(None, map(found.get, codes)), None) for language, codes in CODES.items()}
    return {language: sentence for language, sentence in chosen.items() if sentence}


def _clean(sentence: str) -> str:
    """On one line, in Unicode's composed form; some stamps' texts hold tabs written out."""
    return " ".join(unicodedata.normalize("NFC", sentence.replace("\\t", " ")).split())


def picture(file: Path) -> Image.Image:
    """A stamp in the middle of a transparent square of `TEST_SIZE`, RGBA. Raises PicturesError where it is damaged."""
    try:
        if file.suffix == ".svg":
            image = fitted(file.read_text(encoding="utf-8"), TEST_SIZE)
        else:
            image = open_image(file).convert("RGBA")
    except (ValueError, ImageError) as error:
        raise PicturesError(f"{file} cannot be drawn: {error!s:.200}") from None
    scale = TEST_SIZE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGBA", (TEST_SIZE, TEST_SIZE))
    corner = ((TEST_SIZE - width) // 2, (TEST_SIZE - height) // 2)
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), corner)
    return square


def write(folder: Path, found: list[Stamp], training: list[Path]) -> list[str]:
    """Draw into `folder` every stamp that shows something and is in none of the training sets `training`.

    Returns a line for each data set on what was left out. Raises PicturesError where the folder exists already, or a
    stamp cannot be drawn, DataError for a training set that cannot be read.
    """
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out = Path(scratch) / "set"
        exam = out / "elsewhere.jsonl"
        lines = list(_lines(found, out))
        said = []
        for train in training:
            write_lines(exam, lines)
            seen = {asked.relative_to(out).as_posix() for asked, _ in alike(train, exam)}
            said.append(f"left out, for they look like pictures of {train}: {len(seen)}")
            lines = [line for line in lines if seen.isdisjoint(line["images"])]
            for name in seen:
                (out / name).unlink()
        if not lines:
            raise PicturesError("no stamp is left that is not trained on: are the training sets the right ones?")
        write_lines(exam, lines)
        for train in training:
            refuse_overlap(train, exam)
        os.replace(out, folder)
    different = len({line["captions"]["en"][0] for line in lines})
    return [*said, f"{folder}: {len(lines)} pictures, {different} different sentences in English"]


def _lines(found: list[Stamp], out: Path) -> Iterator[Line]:
    """The lines of elsewhere.jsonl, whose pictures are written into `out`."""
    for stamp in found:
        image = picture(stamp.file)
        if drawn_part(image) is None:
            continue
        drawn = out / f"{stamp.name}.png"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        image.save(drawn)
        captions = {language: [sentence] for language, sentence in stamp.captions.items()}
        sets = [stamp.name.split("/")[0]]
        yield {"name": stamp.name, "images": [f"{stamp.name}.png"], "captions": captions, "sets": sets}


def main(arguments: list[str] | None = None) -> int:
    """Make the exam. Returns the exit code: 0, 1 where it cannot be made, 130 where it was stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m minclip_torch.training.miniatures.elsewhere", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the exam is to lie")
    parser.add_argument("--stamps", type=Path, help="the package's .deb, or its stamps unpacked (default: fetched)")
    parser.add_argument("--train", type=Path, nargs="+", help="training sets (default: */train.jsonl beside it)")
    options = parser.parse_args(arguments)

    def body() -> None:
        refuse_existing(options.folder)
        beside = options.folder.parent
        source = options.stamps or PACKAGE.fetch(beside / "packages")
        training = options.train or sorted(beside.glob("*/train.jsonl"))
        with PACKAGE.opened(source) as root:
            print("\n".join(write(options.folder, stamps(root), training)))

    return exit_code(body, when_stopped="nothing was made but the archive fetched")


if __name__ == "__main__":
    sys.exit(main())
