"""The plots of ``docs/performance.md``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("nats")  # what measures them needs it, and comes with what draws them

from benchmarks.plots import draw as drawing
from benchmarks.plots.chart import Axis, Line, chart, log_ticks

_DOCS = Path(__file__).parent.parent.parent / "docs"
_SVG = "{http://www.w3.org/2000/svg}"


def test_a_value_is_placed_along_its_axis() -> None:
    """From 0 at the low end to 1 at the high one, evenly by the logarithm where it is logarithmic."""
    even, log = Axis("a", (), 10, 30), Axis("b", (), 1, 10_000, logarithmic=True)
    assert [even.place(value) for value in (10, 20, 30)] == [0, 0.5, 1]
    assert [log.place(value) for value in (1, 100, 10_000)] == pytest.approx([0, 0.5, 1])


def test_ticks_are_powers_of_ten() -> None:
    """Those within the axis, written out."""
    assert log_ticks(50, 20_000) == [(100, "100"), (1000, "1,000"), (10_000, "10,000")]


def test_a_chart_shows_every_point_and_says_what_it_is() -> None:
    """Well-formed, with the labels of both axes, a line and a name for each, a mark for each point within the frame."""
    x, y = Axis("tasks & more", [(0, "none")], 0, 10), Axis("seconds <s>", [(1, "one")], 0, 1)
    lines = [Line("ours", [(0, 0.5), (10, 1)]), Line("bare", [(5, 0)], bare=True)]
    found = ElementTree.fromstring(chart("a 'title'", "a note", x, y, lines))
    texts = [text.text for text in found.iter(f"{_SVG}text")]
    assert {"tasks & more", "seconds <s>", "a 'title'", "a note", "none", "one", "ours", "bare"} == set(texts)
    circles = [(float(each.get("cx", "nan")), float(each.get("cy", "nan"))) for each in found.iter(f"{_SVG}circle")]
    assert len(circles) == 3 + len(lines)  # and one in the legend for each
    width, height = float(found.get("width", "nan")), float(found.get("height", "nan"))
    assert all(0 < left < width and 0 < top < height for left, top in circles)
    dashed = [line.get("stroke-dasharray") is not None for line in found.iter(f"{_SVG}polyline")]
    assert dashed == [False, True]


def test_the_plots_of_the_documentation_are_drawn_from_the_figures_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing them anew changes nothing, each is within its axes, and the page shows each."""
    kept = sorted((_DOCS / "plots").glob("*.json"))
    assert [path.stem for path in kept] == ["memory", "processes", "queue", "size"]
    page = (_DOCS / "performance.md").read_text()
    for path in kept:
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(drawing, "_FOLDER", tmp_path)
    drawing.draw()
    for path in kept:
        name = f"{path.stem}.svg"
        assert (tmp_path / name).read_text() == (_DOCS / "plots" / name).read_text(), f"{name}: draw it again"
        assert f"(plots/{name})" in page
        figures = json.loads(path.read_text())["lines"]
        marks = [float(each.get("cy", "nan")) for each in ElementTree.parse(tmp_path / name).iter(f"{_SVG}circle")]
        assert len(marks) == sum(map(len, figures.values())) + len(figures)
        assert all(60 < mark <= 358 for mark in marks), f"{name}: a point is outside of its axes"
