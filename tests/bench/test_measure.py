"""Turns, medians and ratios; the table and the JSON object say the same."""

from __future__ import annotations

import re
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minclip.bench import measure, report
from minclip.bench.machine import Machine
from minclip.bench.measure import LIMIT, Row, rates, take_turns
from minclip.bench.plan import Report

figures = st.floats(1e-3, 1e6)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row of one or two backends and some peers."""
    names = ["minclip numpy", *draw(st.sets(st.sampled_from(["minclip torch", *report.COLUMNS])))]
    rounds = draw(st.integers(1, 4))
    return Row(
        draw(st.sampled_from(["images", "texts"])),
        draw(st.sampled_from(["image tower, batch 1", "512x512 picture"])),
        draw(st.sampled_from(["images/s", "ms", "MiB"])),
        {name: draw(st.lists(figures, min_size=rounds, max_size=rounds)) for name in names},
        less_is_better=draw(st.booleans()),
    )


def a_report(found: list[Row]) -> Report:
    this = Machine("a processor", 2, "Linux", "3.11", "2.0", "some BLAS", {"openvino": "1.0"}, {}, "2026-01-02")
    return Report(this, "a model", [1e10, 4e11, 5e11], 2e10, 3, None, found, {"a peer": "not installed"})


def test_competitors_take_turns_after_a_run_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PAUSE", 0)
    ran: list[str] = []
    seconds = take_turns({name: lambda name=name: ran.append(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(ran) == "abc" * 4
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    """The machine halves its speed in the second round: the medians mix rounds, the ratio must not."""
    row = Row("images", "x", "images/s", {"minclip numpy": [30, 15, 30], "openvino": [20, 10, 20]})
    assert row.ratio("minclip numpy", "openvino") == 1.5
    busy = Row("images", "x", "images/s", {"minclip numpy": [40, 10], "openvino": [20, 20]})
    assert busy.ratio("minclip numpy", "openvino") == 1.25  # of 2 and 0.5


@given(rows())
def test_a_ratio_above_one_means_that_ours_is_better(row: Row) -> None:
    for other in row.others:
        better = [
            (mine < theirs) if row.less_is_better else (mine > theirs)
            for mine, theirs in zip(row.figures["minclip numpy"], row.figures[other], strict=True)
        ]
        if all(better):
            assert row.ratio("minclip numpy", other) > 1
        if not any(better):
            assert row.ratio("minclip numpy", other) <= 1


def test_rates_are_things_a_second() -> None:
    assert rates({"a": [0.5, 2.0]}, 32) == {"a": [64.0, 16.0]}


@given(st.lists(rows(), min_size=1, max_size=4))
def test_the_table_shows_what_the_json_object_holds(found: list[Row]) -> None:
    shown = report.table(found)
    header, rule, *lines = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in shown)
    assert len({len(line) for line in shown}) == 1
    assert len(rule) == 1
    held = report.as_json(a_report(found))["rows"]
    expected = [(row, ours) for row in held for ours in row["ratios"]]
    assert len(lines) == len(expected)
    for line, (row, ours) in zip(lines, expected, strict=True):
        name, own, *others = line
        assert name == f"{row['what']}, {ours.split()[1]}"
        assert own == report.amount(row["medians"][ours], row["unit"])
        assert row["medians"] == {who: median(values) for who, values in row["rounds"].items()}
        for column, cell in zip(header[2:], others, strict=True):
            if column in row["ratios"][ours]:
                amount = report.amount(row["medians"][column], row["unit"])
                assert cell == f"{amount} ({row['ratios'][ours][column]:.2f})"
            else:
                assert cell == ""


def test_the_first_line_says_where_and_when_and_the_last_what_was_left_out() -> None:
    row = Row("images", "image tower", "images/s", {"minclip numpy": [30.0], LIMIT: [40.0]})
    lines = report.lines(a_report([row]))
    assert lines[0] == "a processor, 2 cores, Python 3.11, NumPy 2.0 with some BLAS, openvino 1.0, 2026-01-02"
    assert lines[1].startswith("a model, on the CPU; median of 3 rounds")
    assert lines[2].startswith("machine's limit: 400 GFLOP/s")
    assert "20.0 GB/s" in lines[2]
    assert lines[-1] == "left out: a peer: not installed"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.3554, "0.355 x"), (1.884, "1.88 x"), (36.13, "36.1 x"), (556.4, "556 x"), (811234.0, "811,000 x")],
)
def test_amounts_have_three_digits(value: float, shown: str) -> None:
    assert report.amount(value, "x") == shown


def test_this_machine_is_described_without_importing_its_packages() -> None:
    this = Machine.this()
    assert this.cores >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", this.date)
    assert "torch" in this.packages
    assert str(this).startswith(this.processor)
