"""How a report is shown: a table that reads as text and as Markdown, or one JSON object."""

from __future__ import annotations

from typing import Any

from minclip.bench.measure import LIMIT, OURS, Row
from minclip.bench.peers import COMPILED, NAMES
from minclip.bench.plan import Report

COLUMNS = (LIMIT, *(name for peer in NAMES for name in (peer, *((COMPILED,) if peer == "transformers" else ()))))


def lines(report: Report) -> list[str]:
    """The machine, what was measured, the table, and what was left out."""
    rounds = f"median of {report.rounds} rounds" if report.rounds > 1 else "one round"
    threads = "" if report.threads is None else f", {report.threads} thread{'s'[: report.threads != 1]}"
    busy = f", beside {report.busy} busy process{'es'[: 2 * (report.busy != 1)]}" if report.busy else ""
    return [
        str(report.machine),
        f"{report.model}, on the CPU{threads}{busy}; {rounds} in which all take turns; in brackets how many times "
        f"better minclip is",
        f"{LIMIT}: {report.flops / 1e9:,.0f} GFLOP/s in NumPy's float32 products, {report.bandwidth / 1e9:,.1f} GB/s "
        f"from memory, for every token through every layer",
        "",
        *table(report.rows),
        *([""] if report.left_out else []),
        *(f"left out: {name}: {reason}" for name, reason in report.left_out.items()),
    ]


def table(rows: list[Row]) -> list[str]:
    """A line for each of our figures; a column for each peer that any row has."""
    columns = [name for name in COLUMNS if any(name in row.figures for row in rows)]
    header = ["", OURS, *columns]
    cells = [
        [
            ", ".join([row.what, *ours.split()[1:]]),
            amount(row.median(ours), row.unit),
            *(compared(row, ours, name) for name in columns),
        ]
        for row in rows
        for ours in row.ours
    ]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    return [
        aligned(header, widths),
        f"|{'|'.join('-' * (width + 2) for width in widths)}|",
        *(aligned(line, widths) for line in cells),
    ]


def aligned(line: list[str], widths: list[int]) -> str:
    """The first cell to the left, the figures to the right."""
    first, *others = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
    return f"| {' | '.join([f'{first.strip():<{widths[0]}}', *others])} |"


def compared(row: Row, ours: str, other: str) -> str:
    """A peer's figure, and how many times better ours is; empty where it was not measured."""
    if other not in row.figures:
        return ""
    return f"{amount(row.median(other), row.unit)} ({row.ratio(ours, other):.2f})"


def amount(value: float, unit: str) -> str:
    """Three digits or more: 0.355 s, 36.1 images/s, 812,000 texts/s."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{round(value, -3) if value >= 1e5 else value:,.{digits}f} {unit}"


def as_json(report: Report) -> dict[str, Any]:
    """Everything that was found."""
    return {
        "machine": report.machine.as_json() | {"flops_per_second": report.flops, "bytes_per_second": report.bandwidth},
        "model": report.model,
        "device": "cpu",
        "rounds": report.rounds,
        "threads": report.threads,
        "busy": report.busy,
        "rows": [row.as_json() for row in report.rows],
        "growth": report.growth,
        "left_out": report.left_out,
    }
