"""`minclip evaluate`: how good labels or captions are on pictures of which the right answer is known.

Pictures with labels: zero-shot top-1 and top-5 (Radford et al. 2021, section 3.1), of each class too, and which class
is taken for which. Pictures with captions: recall at 1, 5 and 10 and mean reciprocal rank, in both directions.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minclip.commands import common, printing
from minclip.evaluation import classification, retrieval
from minclip.files import json_bytes
from minclip.images import pictures_below
from minclip.label_set import LabelSet

COLUMNS = ("label", "caption")
FORMATS = (".png", ".csv", ".json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures whose answers are known, and what to print or write."""
    parser.usage = (
        "minclip evaluate FOLDER|FILE.csv [--template TEXT | --label-set SET.npz] [--json] [--confusion FILE] "
        "[--model MODEL] [...]"
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="FOLDER|FILE.csv",
        help="folder with a folder of pictures for each label; or a CSV file with a first line path,label or "
        "path,caption, whose paths start at its own folder",
    )
    common.template_option(parser)
    common.label_set_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--confusion", type=Path, metavar="FILE", help="write which label was taken for which, as .csv, .json or .png"
    )
    common.encode_options(parser)
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Embed, compare, count. Returns 1 where pictures could not be read, 2 where none could."""
    known = read_csv(options.source) if options.source.is_file() else read_folder(options.source)
    label_set = common.label_set(options)
    check(known, label_set, options)
    model = common.load_model(options)
    pictures = common.Pictures(list(dict.fromkeys(known.paths)))
    images = pictures.encode(model, options)
    place = {path: row for row, path in enumerate(pictures.read())}
    if not place:
        return pictures.exit_code()
    result: dict[str, Any] = {"model": model.source, "unreadable": len(pictures.errors)}
    if known.kind == "label":
        labels, label_embeds = model.encoded_labels(label_set or sorted(set(known.answers)), options.template)
        own = {path: labels.index(label) for path, label in zip(known.paths, known.answers, strict=True)}
        cosines = images @ label_embeds.T  # (pictures, labels)
        result |= classification(cosines, np.array([own[path] for path in place]), labels)
    else:
        pairs = [(path, text) for path, text in zip(known.paths, known.answers, strict=True) if path in place]
        number = {text: column for column, text in enumerate(dict.fromkeys(text for _, text in pairs))}
        right = np.zeros((len(place), len(number)), bool)
        right[[place[path] for path, _ in pairs], [number[text] for _, text in pairs]] = True
        cosines = images @ model.encode_text(list(number)).T  # (pictures, captions)
        result |= {"pictures": len(place), "captions": len(number), **retrieval(cosines, right)}
    if options.confusion:
        write_confusion(options.confusion, result["confusion"])
    if options.json:
        printing.print_json(result)
    else:
        print("\n".join(table(result)))
    return pictures.exit_code()


# --- what is known -------------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """The i-th path goes with the i-th answer; kind: "label" or "caption". Only captions may share a path."""

    kind: str
    paths: list[str]
    answers: list[str]


def read_folder(folder: Path) -> Known:
    """Each folder in `folder` is a label, its pictures lie in it at any depth. Raises ValueError for none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; name a folder with a folder of pictures for each label, or a .csv")
    paths, answers = [], []

    def stop(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}; its label would be judged by nothing")

    for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        inside = pictures_below(str(folder / label), stop)
        paths += inside
        answers += [label] * len(inside)
    if not paths:
        raise ValueError(f"{folder} holds no folders with pictures in them; each of its folders is a label")
    return Known("label", paths, answers)


def read_csv(path: Path) -> Known:
    """A CSV file in UTF-8. Raises ValueError naming the line for what is missing, empty or said twice."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            kind = next((name for name in COLUMNS if name in (rows.fieldnames or ())), None)
            if kind is None or "path" not in (rows.fieldnames or ()):
                raise ValueError(f"{path} must begin with a line that names its columns: path,label or path,caption")
            lines = dict((rows.line_num, (row["path"], row[kind])) for row in rows)  # noqa: C402 - a new line each time
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}") from None
    seen: dict[object, int] = {}
    for line, (name, answer) in lines.items():
        if not (name or "").strip() or not (answer or "").strip():
            raise ValueError(f"{path}, line {line}: a path and a {kind} are expected, not {name!r} and {answer!r}")
        key = name if kind == "label" else (name, answer)
        if seen.setdefault(key, line) != line:
            raise ValueError(f"{path}, line {line}: {name} was already in line {seen[key]}; keep one of the two")
    if not lines:
        raise ValueError(f"{path} names no pictures")
    return Known(kind, [os.path.join(path.parent, name) for name, _ in lines.values()], [a for _, a in lines.values()])


def check(known: Known, label_set: LabelSet | None, options: argparse.Namespace) -> None:
    """Raises ValueError, before the work, for labels that are one to a model, and for options that would do nothing."""
    alike: dict[str, str] = {}
    for answer in dict.fromkeys(known.answers):
        other = alike.setdefault(" ".join(answer.casefold().split()), answer)
        if known.kind == "label" and other != answer:
            raise ValueError(f"labels {other!r} and {answer!r} are the same to a model; merge them")
    if known.kind == "label" and len(label_set or alike) == 1:
        raise ValueError(f"{known.answers[0]!r} is the only label, so every answer would be right; two are needed")
    if known.kind == "caption" and (options.template or options.confusion or label_set):
        raise ValueError("--template, --label-set and --confusion are for labels, and the CSV file has captions")
    if label_set and (missing := sorted(set(known.answers) - set(label_set.labels))):
        raise ValueError(f"{options.label_set} lacks label {missing[0]!r} of {options.source}; encode a set with it")
    if options.confusion:
        common.check_output(options.confusion, known.paths, *FORMATS)


# --- how it is shown -----------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> list[str]:
    """Lines of text, per cent; the classes from worst to best."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    if "captions" in result:
        lines = [f"{result['pictures']} pictures, {result['captions']} captions, {result['model']}"]
        lines.append(f"{'':<16}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'MRR':>8}")
        for direction in ("image_to_text", "text_to_image"):
            cells = "".join(f"{percent(value):>8}" for value in result[direction].values())
            lines.append(f"{direction.replace('_', ' '):<16}{cells}")
        return lines
    classes = sorted(result["classes"], key=lambda one: (-1 if one["top1"] is None else one["top1"], one["label"]))
    width = max(5, *(len(one["label"]) for one in classes))
    lines = [
        f"{result['pictures']} pictures, {result['labels']} labels, {result['model']}",
        f"top-1 {percent(result['top1'])}, top-5 {percent(result['top5'])}, "
        f"mean top-1 of the classes {percent(result['mean_top1_of_classes'])}",
        f"\n{'label':<{width}}  pictures    top-1    top-5  most often taken for",
    ]
    for one in classes:
        scores = f"{percent(one['top1']):>8} {percent(one['top5']):>8}"
        lines.append(f"{one['label']:<{width}}  {one['pictures']:>8} {scores}  {one['taken_for'] or ''}".rstrip())
    return lines


def write_confusion(path: Path, confusion: dict[str, Any]) -> None:
    """The matrix as a table, as JSON or as a picture, by the file's ending: a row a right label, a column an answer."""
    labels, counts = confusion["labels"], confusion["counts"]
    with common.writing(path) as file:
        if path.suffix.lower() == ".json":
            file.write(json_bytes(confusion))
        elif path.suffix.lower() == ".png":
            draw(labels, np.array(counts)).save(file, "PNG")
        else:
            text = io.StringIO()
            rows = ([label, *row] for label, row in zip(labels, counts, strict=True))
            csv.writer(text).writerows([["", *labels], *rows])
            file.write(text.getvalue().encode())
    print(f"wrote {path}", file=sys.stderr)


def draw(labels: Sequence[str], counts: np.ndarray) -> Image.Image:
    """The matrix (n, n), each row by its share; the counts in the cells where there is room."""
    cell = min(64, max(9, 1400 // len(labels)))
    font = ImageFont.load_default(min(20, max(8, cell * 0.8)))
    texts = [label if len(label) <= 28 else f"{label[:27]}…" for label in labels]
    margin = 24 + round(max(font.getlength(text) for text in texts))
    side = margin + cell * len(labels) + 24
    canvas = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(canvas)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    light, dark = np.array([238, 241, 246]), np.array([12, 74, 110])
    for i, text in enumerate(texts):
        middle = margin + i * cell + cell / 2
        pen.text((margin - 8, middle), text, "#1f2937", font, anchor="rm")
        upright = Image.new("RGB", (margin - 8, cell), "white")
        ImageDraw.Draw(upright).text((0, cell / 2), text, "#1f2937", font, anchor="lm")
        canvas.paste(upright.rotate(90, expand=True), (margin + i * cell, 0))
    for (row, column), count in np.ndenumerate(counts):
        x, y, share = margin + column * cell, margin + row * cell, shares[row, column]
        colour = tuple(int(c) for c in light + (dark - light) * share**0.6) if count else (248, 249, 251)
        pen.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour)
        if count and cell >= 24:
            ink = "white" if share > 0.35 else "#1f2937"
            pen.text((x + cell / 2 - 1, y + cell / 2 - 1), str(count), ink, font, anchor="mm")
    return canvas
