"""An SVG of small panels from `growth`. Needs matplotlib, which is imported only here."""

from __future__ import annotations

from itertools import cycle
from typing import Any, BinaryIO

from minclip.bench import growth, random_models
from minclip.bench.flops import image_work
from minclip.bench.measure import LIMIT, OURS
from minclip.bench.peers import INSTALL
from minclip.bench.plan import Report

TITLES = {
    growth.BATCH: ("Images in a batch", "milliseconds an image"),
    growth.SIZE: ("Side of the image in pixels, batch 1", "milliseconds an image"),
    growth.LABELS: ("Labels encoded and ranked for an image", "milliseconds"),
    growth.MODEL: ("Model, by its GFLOP an image, batch 1", "milliseconds an image"),
}
OUR_COLOURS = ("#0f766e", "#c2410c", "#7c3aed", "#be185d")
OTHER_COLOURS = (("#64748b", "s"), ("#94a3b8", "^"), ("#a3a36b", "D"), ("#6d8fc7", "v"))  # with the points' shapes


def check() -> None:
    """Raises ValueError, before the work, where matplotlib cannot be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--plot needs matplotlib ({error}): {INSTALL}") from None


def draw(report: Report, file: BinaryIO) -> None:
    """Write the panels that `report.growth` holds, both axes logarithmic, as an SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panels = [(name, TITLES[name]) for name in TITLES if name in report.growth]
    drawn = styles(report)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows + 0.9), layout="constrained")
    FigureCanvasSVG(figure)
    for place, (name, (title, unit)) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        for series, points in report.growth[name].items():
            axes.plot(*zip(*points, strict=True), label=series, **drawn[series])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylabel(unit, fontsize=9)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        mark_x(axes, name, report.growth[name])
    handles = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(f"{report.model}\n{report.machine.processor}, {report.machine.cores} cores", fontsize=10)
    figure.savefig(file, format="svg")


def styles(report: Report) -> dict[str, dict[str, Any]]:
    """How each series is drawn, the same in every panel: ours bold, the peers' thin, the machine's limit dashed."""
    found: dict[str, dict[str, Any]] = {}
    ours, others = cycle(OUR_COLOURS), cycle(OTHER_COLOURS)
    for name in dict.fromkeys(name for panel in report.growth.values() for name in panel):
        if name.startswith(LIMIT):
            found[name] = {"color": "#111827", "linewidth": 1, "linestyle": "--", "zorder": 2}
        elif name.startswith(OURS):
            found[name] = {"color": next(ours), "linewidth": 2, "marker": "o", "markersize": 4, "zorder": 3}
        else:
            colour, marker = next(others)
            found[name] = {"color": colour, "linewidth": 1.2, "marker": marker, "markersize": 4, "zorder": 1}
    return found


def mark_x(axes: Any, name: str, panel: growth.Panel) -> None:
    """The x that were measured as ticks; models by their names."""
    xs = sorted({x for points in panel.values() for x, _ in points})
    texts = [f"{x:g}" for x in xs]
    if name == growth.MODEL:
        work = {model: image_work(random_models.vision_model(model)) for model in random_models.VISION}
        texts = [f"{model}\n{done.flops / 1e9:.0f}" for model, done in work.items()]
    axes.set_xticks(xs, texts)
    axes.set_xticks([], minor=True)
