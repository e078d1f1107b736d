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
from minclip.evaluation import mean_reciprocal_rank, ranks, recall
from minclip.files import json_bytes, replacing
from minclip.images import image_suffixes
from minclip.model import Model

COLUMNS = ("label", "caption")
FORMATS = (".csv", ".json", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "minclip evaluate FOLDER|FILE.csv [--template TEXT] [--json] [--confusion FILE] [--model MODEL] [...]"
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="FOLDER|FILE.csv",
        help="folder with a folder of pictures for each label; or a CSV file with a first line path,label or "
        "path,caption, whose paths start at its own folder",
    )
    parser.add_argument(
        "--template", action="append", metavar="TEXT", help="sentence with {} for the label; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--confusion", type=Path, metavar="FILE", help="write which label was taken for which, as .csv, .json or .png"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures at a time (default: 32)")
    common.model_options(parser)


def run(options: argparse.Namespace) -> int:
    known = read_csv(options.source) if options.source.is_file() else read_folder(options.source)
    check(known, options)
    model = common.load_model(options)
    paths = list(dict.fromkeys(known.paths))
    pictures = common.Pictures(paths)
    images = model.encode_image(
        paths, batch_size=options.batch_size, progress=sys.stderr.isatty(), on_error=pictures.left_out
    )
    read = pictures.read()
    if not read:
        return pictures.exit_code()
    if known.kind == "caption":
        result = retrieval(known, read, images, model)
    else:
        result = classification(known, read, images, model, options.template)
        if options.confusion:
            write_confusion(options.confusion, result["confusion"])
    result = {"model": model.source, "unreadable": len(paths) - len(read), **result}
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
    endings, paths, answers = image_suffixes(), [], []

    def stop(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}; its label would be judged by nothing")

    for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        for parent, _, names in os.walk(folder / label, onerror=stop):
            inside = [os.path.join(parent, name) for name in names if os.path.splitext(name)[1].lower() in endings]
            paths += sorted(inside)
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
        if key in seen:
            raise ValueError(f"{path}, line {line}: {name} was already in line {seen[key]}; keep one of the two")
        seen[key] = line
    if not lines:
        raise ValueError(f"{path} names no pictures")
    return Known(kind, [os.path.join(path.parent, name) for name, _ in lines.values()], [a for _, a in lines.values()])


def check(known: Known, options: argparse.Namespace) -> None:
    """Raises ValueError, before the work, for labels that are one to a model, and for options that would do nothing."""
    alike: dict[str, str] = {}
    for answer in dict.fromkeys(known.answers):
        other = alike.setdefault(" ".join(answer.casefold().split()), answer)
        if known.kind == "label" and other != answer:
            raise ValueError(f"labels {other!r} and {answer!r} are the same to a model; merge them")
    if known.kind == "label" and len(alike) == 1:
        raise ValueError(f"{known.answers[0]!r} is the only label, so every answer would be right; two are needed")
    if known.kind == "caption" and (options.template or options.confusion):
        raise ValueError("--template and --confusion are for labels, and the CSV file has captions")
    if options.confusion and options.confusion.suffix.lower() not in FORMATS:
        raise ValueError(f"--confusion {options.confusion} must end in {', '.join(FORMATS)}")
    if options.confusion and not options.confusion.absolute().parent.is_dir():
        raise ValueError(f"{options.confusion.parent} is not a folder, so {options.confusion.name} cannot be written")


# --- what is found -------------------------------------------------------------------------------------------------


def classification(
    known: Known, paths: Sequence[str], images: np.ndarray, model: Model, template: Sequence[str] | None
) -> dict[str, Any]:
    """images: unit vectors (n, p) of the paths. Fractions are of 1; confusion counts[i][j]: label i was taken for j."""
    labels = sorted(set(known.answers))
    number = {label: i for i, label in enumerate(labels)}
    answer_of = dict(zip(known.paths, known.answers, strict=True))
    own = np.array([number[answer_of[path]] for path in paths])  # (n,)
    cosines = images @ model.label_embeds(labels, template).T  # (n, labels)
    rank = ranks(cosines, own[:, None] == np.arange(len(labels)))
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (own, cosines.argmax(axis=1)), 1)
    classes = []
    for i, label in enumerate(labels):
        mine, others = rank[own == i], counts[i] * (np.arange(len(labels)) != i)
        scores = {f"top{k}": recall(mine, k) if len(mine) else None for k in (1, 5)}
        taken = labels[int(others.argmax())] if others.any() else None
        classes.append({"label": label, "pictures": len(mine), **scores, "taken_for": taken})
    return {
        "pictures": len(paths),
        "labels": len(labels),
        "top1": recall(rank, 1),
        "top5": recall(rank, 5),
        "mean_top1_of_classes": float(np.mean([each["top1"] for each in classes if each["top1"] is not None])),
        "mean_reciprocal_rank": mean_reciprocal_rank(rank),
        "classes": classes,
        "confusion": {"labels": labels, "counts": counts.tolist()},
    }


def retrieval(known: Known, paths: Sequence[str], images: np.ndarray, model: Model) -> dict[str, Any]:
    """Each picture against all captions, and each caption against all pictures; several may be right."""
    place = {path: i for i, path in enumerate(paths)}
    pairs = [(place[path], caption) for path, caption in zip(known.paths, known.answers, strict=True) if path in place]
    captions = list(dict.fromkeys(caption for _, caption in pairs))
    number = {caption: i for i, caption in enumerate(captions)}
    right = np.zeros((len(paths), len(captions)), bool)
    for picture, caption in pairs:
        right[picture, number[caption]] = True
    cosines = images @ model.encode_text(captions).T
    found: dict[str, Any] = {"pictures": len(paths), "captions": len(captions)}
    for name, rank in (("image_to_text", ranks(cosines, right)), ("text_to_image", ranks(cosines.T, right.T))):
        found[name] = {f"recall{k}": recall(rank, k) for k in (1, 5, 10)}
        found[name]["mean_reciprocal_rank"] = mean_reciprocal_rank(rank)
    return found


# --- how it is shown -----------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> list[str]:
    """Lines of text, per cent; the classes from worst to best."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    if "captions" in result:
        names = ("recall1", "recall5", "recall10", "mean_reciprocal_rank")
        lines = [f"{result['pictures']} pictures, {result['captions']} captions, {result['model']}"]
        lines.append(f"{'':<16}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'MRR':>8}")
        for direction in ("image_to_text", "text_to_image"):
            cells = "".join(f"{percent(result[direction][name]):>8}" for name in names)
            lines.append(f"{direction.replace('_', ' '):<16}{cells}")
        return lines
    width = max(5, *(len(each["label"]) for each in result["classes"]))
    lines = [
        f"{result['pictures']} pictures, {result['labels']} labels, {result['model']}",
        f"top-1 {percent(result['top1'])}, top-5 {percent(result['top5'])}, "
        f"mean top-1 of the classes {percent(result['mean_top1_of_classes'])}",
        f"\n{'label':<{width}}  pictures    top-1    top-5  most often taken for",
    ]
    for each in sorted(
        result["classes"], key=lambda each: (-1 if each["top1"] is None else each["top1"], each["label"])
    ):
        scores = f"{percent(each['top1']):>8} {percent(each['top5']):>8}"
        lines.append(f"{each['label']:<{width}}  {each['pictures']:>8} {scores}  {each['taken_for'] or ''}".rstrip())
    return lines


def write_confusion(path: Path, confusion: dict[str, Any]) -> None:
    """The matrix as a table, as JSON or as a picture, by the file's ending: a row a right label, a column an answer."""
    labels, counts = confusion["labels"], confusion["counts"]
    with replacing(path) as file:
        if path.suffix.lower() == ".json":
            file.write(json_bytes(confusion))
        elif path.suffix.lower() == ".png":
            draw(labels, np.array(counts)).save(file, "PNG")
        else:
            text = io.StringIO()
            csv.writer(text).writerows(
                [["", *labels], *([label, *row] for label, row in zip(labels, counts, strict=True))]
            )
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
