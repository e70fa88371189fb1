"""Line charts as SVG, drawn without a library: a frame, ticks, a legend and lines with a mark at each point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Axis", "Line", "chart", "log_ticks"]

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 40, 92, 62
#: Colours that can be told apart also by people who do not see red and green, on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f6000")
_BARE = "#8a8a8a"
#: Width of a letter of the legend, and of the sample of a line with the space around it.
_LETTER, _SAMPLE = 6.6, 46
_FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True, slots=True)
class Axis:
    """What is along it, with its unit; where there are ticks and what stands at them; from where to where it goes."""

    label: str
    ticks: Sequence[tuple[float, str]]
    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where ``value`` is, from 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one thing measured. A ``bare`` one is what it is compared with: grey and dashed."""

    name: str
    points: Sequence[tuple[float, float]]
    bare: bool = False


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """The powers of ten from ``low`` to ``high``."""
    exponents = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [(10.0**exponent, f"{10**exponent:,}") for exponent in exponents]


def chart(title: str, note: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """The document. ``note`` stands below the title: what was measured on what."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    names = ", ".join(line.name for line in lines)

    def across(value: float) -> float:
        return _LEFT + x.place(value) * (right - _LEFT)

    def up(value: float) -> float:
        return bottom - y.place(value) * (bottom - _TOP)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' "
        f"height='{_HEIGHT}' {_FONT} role='img'>",
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(f'{y.label} by {x.label}: {names}; {note}')}</desc>",
        f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#ffffff'/>",
        _text(_LEFT, 26, title, size=16, weight="bold"),
        _text(_LEFT, 46, note, size=12, colour="#555555"),
        *_legend(lines),
    ]
    for value, label in y.ticks:
        parts.append(_rule(_LEFT, up(value), right, up(value)))
        parts.append(_text(_LEFT - 8, up(value) + 4, label, anchor="end"))
    for value, label in x.ticks:
        parts.append(_rule(across(value), _TOP, across(value), bottom))
        parts.append(_text(across(value), bottom + 18, label, anchor="middle"))
    parts.append(f"<path d='M{_LEFT} {_TOP}V{bottom}H{right}' fill='none' stroke='#333333'/>")
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 16, x.label, size=13, anchor="middle"))
    middle = (_TOP + bottom) / 2
    parts.append(f"<g transform='rotate(-90 20 {middle:g})'>{_text(20, middle, y.label, size=13, anchor='middle')}</g>")
    for line, colour in zip(lines, _colours(lines), strict=True):
        parts += _drawn(line, colour, across, up)
    return "\n".join([*parts, "</svg>", ""])


def _colours(lines: Sequence[Line]) -> list[str]:
    left = iter(_COLOURS)
    return [_BARE if line.bare else next(left) for line in lines]


def _drawn(line: Line, colour: str, across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    places = [(across(at), up(value)) for at, value in line.points]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    dashes = " stroke-dasharray='6 4'" if line.bare else ""
    return [
        f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{dashes}/>",
        *(f"<circle cx='{left:.1f}' cy='{top:.1f}' r='3.5' fill='{colour}'/>" for left, top in places),
    ]


def _legend(lines: Sequence[Line]) -> list[str]:
    parts: list[str] = []
    left = float(_LEFT)
    for line, colour in zip(lines, _colours(lines), strict=True):
        dashes = " stroke-dasharray='6 4'" if line.bare else ""
        parts.append(f"<path d='M{left:.1f} 68h22' stroke='{colour}' stroke-width='2'{dashes}/>")
        parts.append(f"<circle cx='{left + 11:.1f}' cy='68' r='3.5' fill='{colour}'/>")
        parts.append(_text(left + 28, 72, line.name))
        left += _SAMPLE + _LETTER * len(line.name)
    return parts


def _rule(left: float, top: float, right: float, bottom: float) -> str:
    return f"<path d='M{left:.1f} {top:.1f}L{right:.1f} {bottom:.1f}' stroke='#e3e3e3'/>"


def _text(
    left: float, top: float, text: str, *, size: int = 12, anchor: str = "start", weight: str = "", colour: str = ""
) -> str:
    look = f" font-weight='{weight}'" if weight else ""
    return (
        f"<text x='{left:.1f}' y='{top:.1f}' font-size='{size}' text-anchor='{anchor}' "
        f"fill='{colour or '#222222'}'{look}>{escape(text)}</text>"
    )
