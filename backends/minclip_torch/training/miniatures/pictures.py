"""Make the training set of the bundled models: emoji by seven artists, with their names in twenty-five languages.

    python -m minclip_torch.training.miniatures.pictures data/emoji

fetches nine pinned npm packages by name, checks their digests, rasterizes, and writes

    data/emoji/train.jsonl     a line per concept: pictures by the six artists trained on, names and keywords
    data/emoji/seen.jsonl      the same artists' pictures as drawn, for evaluation
    data/emoji/test.jsonl      the held-out artist, OpenMoji: never trained on
    data/emoji/<artist>/       the pictures, RGBA PNG

The folder appears when it is complete: a run that is interrupted leaves none behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minclip.errors import MinclipError
from minclip_torch.training.command import exit_code
from minclip_torch.training.miniatures.drawing import document, pixels, redraw
from minclip_torch.training.miniatures.exam import refuse_overlap


class PicturesError(MinclipError):
    """The training set cannot be made: what is missing and what to do."""


# Package: version, and SHA-256 of its archive on npm.
PACKAGES = {
    "@iconify-json/noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "@iconify-json/noto-v1": ("1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "@iconify-json/twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "@iconify-json/fluent-emoji": ("1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
    "@iconify-json/fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "@iconify-json/emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "openmoji": ("17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
    "cldr-annotations-full": ("48.2.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"),
    "emoji-datasource": ("16.0.0", "2006725061dc0098daa832d65f854a7bec0740af2eb47cb5b23d89f7e2c849f9"),
}
ARTISTS = ("noto", "noto-v1", "twemoji", "fluent-emoji", "fluent-emoji-flat", "emojione")  # of @iconify-json
HELD_OUT = "openmoji"
LANGUAGES = (
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "vi", "id", "sw",
    "ru", "uk", "el", "ar", "he", "fa", "hi", "bn", "th", "ja", "ko", "zh",
)  # fmt: skip
DRAWINGS = (("plain", 0), ("ink", 1), ("ink", 2), ("line", 3))  # style and seed of each picture trained on
TRAIN_SIZE, TEST_SIZE = 80, 128  # pixels; training crops and turns, testing goes through the image processor

# The 64 things of the small test "everyday".
EVERYDAY = (
    "🐕🐈🐎🐄🐖🐘🐟🦋🐢🐍🦆🌳🌵🌻🌹🍎🍌🍇🍓🥕🍕🍔🍞🧀🥚☕🍺🎂🚗🚲🚌🚂"
    "✈⛵🚀🏠⛺☂🌈⛄☀🌙⭐🔥❤⚽🎸🎹📷📱💻📚✏✂🔑🔨💡⏰🪑🚪👑👓🎁🎈"
)


@dataclass
class Concept:
    """One emoji of the Unicode standard: its code points ("1F436"), its captions, and the drawings of it."""

    code: str
    emoji: str
    category: str
    captions: dict[str, list[str]]  # language -> the name, then keywords
    drawings: dict[str, str] = field(default_factory=dict)  # artist -> SVG


def fetch(folder: Path) -> dict[str, Path]:
    """Download the packages' archives into `folder`, except those that are there; check the digest of each.

    Returns the archive of each package. Raises PicturesError where npm fails or a digest differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archives = {}
    for name, (version, digest) in PACKAGES.items():
        archive = folder / f"{name.strip('@').replace('/', '-')}-{version}.tgz"
        if not archive.is_file():
            _download(name, version, archive)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != digest:
            raise PicturesError(f"{archive} is not what npm publishes as {name} {version}: delete it and run again")
        archives[name] = archive
    return archives


def _download(name: str, version: str, archive: Path) -> None:
    """Run `npm pack` in a scratch folder, so that half a download never gets the archive's name."""
    npm = shutil.which("npm")
    if npm is None:
        raise PicturesError(f"npm is not installed: install Node.js, or put {archive.name} into {archive.parent}")
    print(f"fetching {name} {version}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        command = [npm, "pack", f"{name}@{version}", "--loglevel", "error", "--pack-destination", scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        packed = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            lines = [line for line in done.stderr.splitlines() if "err" in line.lower()]
            why = lines[0].strip() if lines else f"npm ended with {done.returncode}"
            raise PicturesError(f"npm could not fetch {name} {version} ({why}): is there a network?")
        os.replace(packed[0], archive)


class Archive:
    """The files of one package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:gz") as tar:
                files = [(m.name.removeprefix("package/"), m) for m in tar.getmembers() if m.isfile()]
                wanted = [(n, m) for n, m in files if n.endswith((".json", ".svg")) and not n.startswith("black/")]
                self.files = {n: reader.read() for n, m in wanted if (reader := tar.extractfile(m))}
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise PicturesError(f"{path} is not a readable archive ({error}): delete it and run again") from None

    def json(self, name: str) -> Any:
        """One file parsed. Raises PicturesError where the package has no such file."""
        if name not in self.files:
            raise PicturesError(f"{self.path} holds no {name}: the package's layout is not the one this script knows")
        return json.loads(self.files[name])


def concepts(archives: dict[str, Path]) -> list[Concept]:
    """The emoji that Noto, Twemoji, OpenMoji and every language of `LANGUAGES` have, but flags and components.

    archives: of every package. Raises PicturesError where one is damaged or has another layout.
    """
    try:
        found = list(_concepts(archives))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise PicturesError(f"the packages' layout is not the one this script knows ({error!r:.80})") from None
    if not found:
        raise PicturesError("the packages have no picture in common: their layout is not the one this script knows")
    return found


def _concepts(archives: dict[str, Path]) -> Iterator[Concept]:
    cldr = Archive(archives["cldr-annotations-full"])
    annotations = {
        language: cldr.json(f"annotations/{language}/annotations.json")["annotations"]["annotations"]
        for language in LANGUAGES
    }
    held_out = Archive(archives[HELD_OUT]).files
    icons = {artist: Icons(Archive(archives[f"@iconify-json/{artist}"])) for artist in ARTISTS}
    for entry in Archive(archives["emoji-datasource"]).json("emoji.json"):
        code = entry["unified"]
        bare = code.replace("-FE0F", "")
        emoji = "".join(chr(int(point, 16)) for point in bare.split("-"))
        open_art = held_out.get(f"color/svg/{code}.svg") or held_out.get(f"color/svg/{bare}.svg")
        named = all("tts" in annotations[language].get(emoji, {}) for language in LANGUAGES)
        drawn = entry["has_img_google"] and entry["has_img_twitter"] and open_art is not None
        if entry["category"] in ("Flags", "Component") or not (named and drawn):
            continue
        captions = {language: _captions(annotations[language][emoji]) for language in LANGUAGES}
        slugs = {slug for set_ in icons.values() if (slug := set_.slug(code))}
        drawings = {artist: svg for artist, set_ in icons.items() if (svg := set_.drawing(slugs, code))}
        if drawings:
            drawings[HELD_OUT] = (open_art or b"").decode()
            yield Concept(bare, emoji, entry["category"], captions, drawings)


def _captions(annotation: dict[str, list[str]]) -> list[str]:
    """The name, then the keywords that are not the name, in Unicode's composed form."""
    name, keywords = annotation["tts"][0], annotation.get("default", [])
    return list(dict.fromkeys(unicodedata.normalize("NFC", text) for text in [name, *keywords]))


class Icons:
    """One artist's set in iconify's form: bodies keyed by a slug, some with code points for the slugs."""

    def __init__(self, archive: Archive) -> None:
        self._set = archive.json("icons.json")
        self._codes = archive.json("chars.json")
        if "icons" not in self._set:
            raise PicturesError(f"{archive.path} holds no icons: the package's layout is not the one this script knows")

    def slug(self, code: str) -> str | None:
        """What this set calls a picture, if it knows code points at all."""
        lower = code.lower()
        return self._codes.get(lower) or self._codes.get(lower.replace("-fe0f", ""))

    def drawing(self, slugs: set[str], code: str) -> str | None:
        """The picture that goes by its own slug, or else by one that other sets use."""
        own = self.slug(code)
        for slug in [own] if own else sorted(slugs):
            alias = self._set.get("aliases", {}).get(slug, {})
            icon = self._set["icons"].get(alias.get("parent", slug))
            if icon is not None:
                box = {**{k: self._set.get(k) for k in ("left", "top", "width", "height")}, **icon}
                sizes = (box.get("left") or 0, box.get("top") or 0, box["width"] or 16, box["height"] or 16)
                return document(icon["body"], *sizes)
        return None


def write(folder: Path, archives: dict[str, Path], workers: int | None = None) -> None:
    """Rasterize everything into `folder`. Raises PicturesError where it exists already, or something cannot be drawn.

    workers: processes that draw, None for one a core.
    """
    refuse_existing(folder)
    if workers is not None and workers < 1:
        raise PicturesError(f"workers must be at least 1, not {workers}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    everything = concepts(archives)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out = Path(scratch) / "set"
        for artist in (*ARTISTS, HELD_OUT):
            (out / artist).mkdir(parents=True)
        try:
            with ProcessPoolExecutor(workers) as pool:
                drawn = pool.map(_rasterize, [(concept, out) for concept in everything], chunksize=16)
                lines = _lines(everything, drawn)
        except BrokenProcessPool:
            raise PicturesError(
                "a process that draws was killed: is there too little memory? Try --workers 1"
            ) from None
        for name, entries in lines.items():
            text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
            (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        refuse_overlap(out / "train.jsonl", out / "test.jsonl")
        os.replace(out, folder)


def refuse_existing(folder: Path) -> None:
    """Raise PicturesError where there is something at `folder`: one set is never mixed with another."""
    if folder.exists():
        raise PicturesError(f"{folder} is there already: name another folder, or delete it to make the set anew")


def _lines(everything: list[Concept], drawn: Iterator[list[str]]) -> dict[str, list[dict[str, Any]]]:
    """The lines of train.jsonl, seen.jsonl and test.jsonl. drawn: the pictures of each concept."""
    everyday = set(EVERYDAY)
    lines: dict[str, list[dict[str, Any]]] = {"train": [], "seen": [], "test": []}
    for concept, files in zip(everything, drawn, strict=True):
        shared = {"name": concept.code, "captions": concept.captions, "mirror": _survives_mirror(concept)}
        sets = [concept.category, *(["everyday"] if concept.emoji in everyday else [])]
        held_out = [file for file in files if file.startswith(f"{HELD_OUT}/")]
        learned = [file for file in files if file not in held_out]
        plain = [file for file in learned if file.endswith("-plain-0.png")]
        lines["train"].append({**shared, "images": learned})
        lines["seen"].append({**shared, "images": plain, "sets": sets})
        lines["test"].append({**shared, "images": held_out, "sets": sets})
        _progress(len(lines["test"]), len(everything))
    return lines


def _rasterize(job: tuple[Concept, Path]) -> list[str]:
    """Write every drawing of one concept; their names within the folder."""
    concept, folder = job
    return [name for artist in concept.drawings for name in _drawings(concept, artist, folder)]


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
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per core)")
    options = parser.parse_args(arguments)

    def body() -> None:
        refuse_existing(options.folder)
        archives = fetch(options.packages or options.folder.parent / "packages")
        write(options.folder, archives, options.workers)

    return exit_code(body, when_stopped="nothing was made but the archives fetched")


if __name__ == "__main__":
    sys.exit(main())
