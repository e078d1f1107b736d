"""Evaluate a checkpoint on a held-out set of named images: zero-shot accuracy and retrieval.

    python -m minclip_torch.training.evaluate MODEL DATA.jsonl [--set everyday] [--languages en fr] [--sentences]
                                             [--names NAMES.txt] [--card README.md]

Zero-shot: each image against all names of a language, every name a class (Radford et al. 2021, section 3.1); top-1 and
top-5. Retrieval: images by name and names by image; mean reciprocal rank and recall at 1, 5 and 10. With --sentences,
each name stands in its language's plain sentence: "A dog.", "Un chien.". With --names, each image has further wrong
names to be told from: those of a text file in the one language evaluated, a name a line. It runs on any backend.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import minclip
from minclip.evaluation import mean_reciprocal_rank, ranks, recall
from minclip.files import replacing
from minclip_torch.training import frames
from minclip_torch.training.command import exit_code
from minclip_torch.training.entries import DataError, Entry, name_classes, read_entries

BEGIN, END = "<!-- evaluation -->", "<!-- end of evaluation -->"


@dataclass(frozen=True)
class Scores:
    """Figures from 0 to 1, over `pictures` images and `names` different names of one language.

    Names that no image has are wrong answers for each, and no queries themselves.
    """

    language: str
    pictures: int
    names: int
    top1: float
    top5: float
    image_to_text_mrr: float
    text_to_image_mrr: float
    text_to_image_recall1: float
    text_to_image_recall5: float
    text_to_image_recall10: float


def scores(language: str, images: np.ndarray, texts: np.ndarray, right: np.ndarray) -> Scores:
    """images (n, p) and texts (m, p): unit vectors; right bool (n, m): which names are right for each image."""
    similarity = images @ texts.T
    shown = right.any(axis=0)  # (m,)
    by_image, by_text = ranks(similarity, right), ranks(similarity.T[shown], right.T[shown])
    return Scores(
        language,
        len(images),
        len(texts),
        *(recall(by_image, k) for k in (1, 5)),
        *(mean_reciprocal_rank(found) for found in (by_image, by_text)),
        *(recall(by_text, k) for k in (1, 5, 10)),
    )


def evaluate(
    model: minclip.Model,
    entries: Sequence[Entry],
    languages: Sequence[str] = (),
    *,
    sentences: bool = False,
    further: Sequence[str] = (),
) -> list[Scores]:
    """Score a model in each language (default: all that every entry has), over the entries that have it.

    Names that several entries share are one class, and an image of any of them is right. sentences: put each name into
    its language's plain sentence. further: names to choose from beside the entries' own, of a single language. Raises
    DataError for a language that no entry has or that has no sentence, for further names of several languages, and
    where no language is named and the entries have none in common.
    """
    languages = languages or [code for code in entries[0].captions if all(code in entry.captions for entry in entries)]
    if not languages:
        raise DataError("the entries have no language in common: name those to evaluate")
    if further and len(languages) > 1:
        raise DataError(f"further names are of one language, not of {', '.join(languages)}: name it with --languages")
    present = dict.fromkeys(code for entry in entries for code in entry.captions)
    for code in languages:
        if code not in present:
            raise DataError(f"no entry has captions in {code!r}; there are {', '.join(present)}")
        if sentences and code not in frames.FRAMES:
            raise DataError(f"no sentence is known for names in {code!r}: name other --languages, or drop --sentences")
    images = model.encode_image([str(path) for entry in entries for path in entry.images])
    found = []
    for code in languages:
        named = [entry for entry in entries if code in entry.captions]
        shown = [code in entry.captions for entry in entries for _ in entry.images]
        names, own = name_classes(named, code)
        names = list(dict.fromkeys([*names, *further]))
        right = own[:, None] == np.arange(len(names))  # (images shown, names)
        texts = [frames.sentence(name, code) for name in names] if sentences else names
        found.append(scores(code, images[shown], model.encode_text(texts), right))
    return found


def read_names(path: Path) -> list[str]:
    """The names in a text file, one a line, without empty lines. Raises DataError where there are none."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of names: {error}") from None
    if not names:
        raise DataError(f"{path} holds no names: write one a line")
    return names


def table(found: Sequence[Scores]) -> str:
    """A Markdown table in per cent, the mean over languages in its last row."""
    heads = ["language", "pictures", "names", "top-1", "top-5", "MRR i→t", "MRR t→i", "R@1 t→i", "R@5 t→i", "R@10 t→i"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    rows = [list(asdict(one).values()) for one in found]
    if len(rows) > 1:
        pictures, names, *means = np.mean([row[1:] for row in rows], axis=0)
        rows.append(["mean", round(pictures), round(names), *means])
    for language, pictures, names, *values in rows:
        cells = [language or "-", pictures, names, *(f"{100 * value:.1f}" for value in values)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def read_card(path: Path) -> tuple[str, str]:
    """A model card up to the first marker, and from the second one on. Raises DataError where it lacks one."""
    try:
        before, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise DataError(f"{path} has no {BEGIN} ... {END} for the results to go between")
    return before + mark, end + after


def write_card(path: Path, text: str) -> None:
    """Replace what is between the card's two markers by the results. Raises DataError where it lacks one."""
    before, after = read_card(path)
    with replacing(path) as file:
        file.write(f"{before}\n\n{text}\n\n{after}".encode())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minclip_torch.training.evaluate", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("model", help="a bundled name, a checkpoint folder or a hub id")
    parser.add_argument("data", type=Path, nargs="+", help="JSON lines of named pictures")
    parser.add_argument("--set", help="only entries that belong to this set, among their own names")
    parser.add_argument("--languages", nargs="+", default=[], metavar="CODE", help="(default: all)")
    parser.add_argument("--sentences", action="store_true", help='names in plain sentences, such as "A dog."')
    parser.add_argument("--names", type=Path, help="a text file of further names to choose from, one a line")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--json", action="store_true", help="a JSON object a line instead of a table")
    parser.add_argument("--card", type=Path, help="write the tables into this model card, too")
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "-m", "minclip_torch.training.evaluate", *(arguments or sys.argv[1:])])
    return exit_code(lambda: _report(options, command), when_stopped="no card was written")


def _report(options: argparse.Namespace, command: str) -> None:
    """Print the tables, or JSON lines, and write the card, which names the command that made them."""
    if options.card:
        read_card(options.card)  # raises before the work, not after it
    further = read_names(options.names) if options.names else []
    model = minclip.load(options.model, backend=options.backend)
    parts = []
    for data in options.data:
        entries = read_entries(data)
        if options.set:
            entries = [entry for entry in entries if options.set in entry.sets]
            if not entries:
                raise DataError(f"{data} has no entry of the set {options.set!r}")
        found = evaluate(model, entries, options.languages, sentences=options.sentences, further=further)
        if options.json:
            about = {"data": str(data), "sentences": options.sentences}
            about |= {"further_names": str(options.names)} if further else {}
            print("\n".join(json.dumps({**about, **asdict(one)}) for one in found))
        title = f"`{data.name}`{f', {options.set}' if options.set else ''}, {_labels(found, options.sentences)}"
        title += f", those of `{options.names.name}` among them" if further else ""
        parts.append(f"{title}:\n\n{table(found)}")
    if not options.json:
        print("\n\n".join(parts))
    if options.card:
        write_card(options.card, "\n\n".join([f"    {command}", *parts]))


def _labels(found: Sequence[Scores], sentences: bool) -> str:
    """What the labels were, for a table's title."""
    if not sentences:
        return "bare names"
    return f'names in sentences ("{frames.sentence("name", found[0].language)}")'


if __name__ == "__main__":
    sys.exit(main())
