"""Figures that read well: without colour, without sight, without a legend to decode.

Colours are Okabe and Ito's, each with a line style and a marker of its own; labels
stand at the data. Every function returns a figure for ``show(fig, alt)``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 90


@dataclass(frozen=True)
class Point:
    """One model in the size-latency-quality picture."""

    name: str
    milliseconds: float
    quality: float
    megabytes: float


def use_course_style() -> None:
    """Give matplotlib the course's colours, line styles and modest sizes."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS)
            + cycler(linestyle=LINES)
            + cycler(marker=MARKERS),
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "grid.linestyle": ":",
            "lines.markersize": 5,
        }
    )


def show(fig: Figure, alt: str) -> None:
    """Show a figure once, with its text alternative as caption and as plain text.

    Raises:
        KdcourseError: where the text alternative is missing.
    """
    if len(alt.split()) < 4:
        raise KdcourseError(
            f"The text alternative of this figure is {alt!r}.",
            wanted="a sentence that says what the figure shows",
            todo='For instance alt="The student is ten times faster at equal chrF."',
        )
    import matplotlib.pyplot as plt
    from IPython.display import display

    from .show import in_notebook, show_text

    picture = io.BytesIO()
    fig.savefig(
        picture, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None}
    )
    plt.close(fig)  # or the notebook shows it a second time
    if in_notebook():
        display(
            {"image/png": picture.getvalue(), "text/plain": f"Figure: {alt}"},
            raw=True,
            metadata={"image/png": {"alt": alt}},
        )
    # JupyterLab does not give a picture's alternative to a screen reader: print it.
    show_text(f"*Figure: {alt}*", f"Figure: {alt}")


def size_latency_quality(
    points: Sequence[Point],
    history: Sequence[Point] = (),
    *,
    quality: str = "chrF",
    title: str = "",
) -> Figure:
    """The course's growing picture: fast is left, good is up, small is a small disc.

    x: milliseconds a sentence (log scale); y: ``quality``; the disc's *area* is
    proportional to megabytes, its label gives them. ``history`` holds the models of
    earlier lessons; they stand in outline, behind.
    """
    import matplotlib.pyplot as plt

    everything = [*history, *points]
    need(everything, "Point(name, milliseconds, quality, megabytes)")
    largest = max(point.megabytes for point in everything)
    areas = [max(12.0, 1600.0 * point.megabytes / largest) for point in everything]
    fig, axes = plt.subplots(layout="constrained")
    for point, area in zip(everything, areas, strict=True):
        new = point in points
        axes.scatter(
            point.milliseconds,
            point.quality,
            s=area,
            facecolors=COLOURS[0] if new else "none",
            edgecolors="black" if new else "#666666",
            linestyles="-" if new else "--",
            alpha=0.7,
            marker="o",
            zorder=3 if new else 2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(x=0.3, y=0.35)
    axes.set_xlabel("milliseconds a sentence (log scale; left is faster)")
    axes.set_ylabel(f"{quality} (up is better)")
    axes.set_title(title)
    _label_discs(fig, axes, everything, areas, len(history))
    return fig


def _label_discs(
    fig: Figure, axes, points: list[Point], areas: list[float], old: int
) -> None:
    """Write name and size beside each disc, where they cover no disc and no label."""
    fig.draw_without_rendering()  # settles the limits, so that places are known
    scale = fig.dpi / 72
    places = [axes.transData.transform((p.milliseconds, p.quality)) for p in points]
    radii = [scale * area**0.5 / 2 for area in areas]
    taken = [
        (x - r, y - r, x + r, y + r) for (x, y), r in zip(places, radii, strict=True)
    ]
    for number, point in enumerate(points):
        text = f"{point.name}\n{_short(point.megabytes)} MB"
        width, height = scale * 4.6 * max(map(len, text.split("\n"))), scale * 22
        (x, y), away = places[number], radii[number] + 4 * scale
        aside, apart = away + width / 2, away + height / 2
        spots = [(x + aside, y), (x - aside, y), (x, y - apart), (x, y + apart)]
        spots += [(x + a * aside, y + b * apart) for a in (1, -1) for b in (-1, 1)]
        left, bottom = min(  # the first of the best
            ((a - width / 2, b - height / 2) for a, b in spots),
            key=lambda corner, width=width, height=height: _covered(
                (*corner, corner[0] + width, corner[1] + height), taken, axes.bbox
            ),
        )
        taken.append((left, bottom, left + width, bottom + height))
        axes.annotate(
            text,
            (point.milliseconds, point.quality),
            xytext=((left + width / 2 - x) / scale, (bottom + height / 2 - y) / scale),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color="#555555" if number < old else "black",
        )


def _covered(box: tuple, others: list[tuple], frame) -> float:
    """How much of other boxes a box covers, and how much of it leaves the frame."""
    left, bottom, right, top = box

    def common(a: float, b: float, c: float, d: float) -> float:
        return max(0.0, min(right, c) - max(left, a)) * max(
            0.0, min(top, d) - max(bottom, b)
        )

    outside = (right - left) * (top - bottom) - common(*frame.extents)
    return outside + sum(common(*other) for other in others)


def learning_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Curves (name to xs and ys) labelled at their ends; ``levels`` are flat lines."""
    import matplotlib.pyplot as plt

    need(curves, "curve, a name with its xs and ys")
    fig, axes = plt.subplots(layout="constrained")
    ends = []
    for number, (name, (xs, ys)) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            xs,
            ys,
            color=colour,
            linestyle=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            markevery=max(1, len(xs) // 8),
        )
        ends.append((ys[-1], name, colour))
    for name, level in (levels or {}).items():
        axes.axhline(level, color="#555555", linestyle=":", marker="", linewidth=1)
        ends.append((level, name, "#555555"))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    _label_ends(axes, ends)
    return fig


def bars(
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]] | None = None,
    *,
    xlabel: str,
    decimals: int = 1,
    title: str = "",
) -> Figure:
    """Horizontal bars with their values written out and, where given, intervals."""
    import matplotlib.pyplot as plt

    need(values, "value with its name")
    names = list(values)
    rows = range(len(names) - 1, -1, -1)  # the first name stands at the top
    fig, axes = plt.subplots(
        figsize=(6.4, 0.8 + 0.5 * len(names)), layout="constrained"
    )
    axes.barh(
        rows,
        [values[n] for n in names],
        color=COLOURS[5],
        edgecolor="black",
        height=0.6,
    )
    axes.axvline(0, color="black", linewidth=0.8, linestyle="-", marker="")
    for row, name in zip(rows, names, strict=True):
        value, edge = values[name], values[name]
        text = f"{value:.{decimals}f}"
        if intervals and name in intervals:
            low, high = intervals[name]
            axes.plot([low, high], [row, row], color="black", marker="|", linestyle="-")
            edge = max(high, value)
            text += f"  [{low:.{decimals}f}, {high:.{decimals}f}]"
        axes.annotate(
            text,
            (max(edge, 0), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(rows, names)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.3)
    axes.set_xlabel(xlabel)
    axes.set_title(title)
    return fig


def need(data: Sequence | Mapping, what: str) -> None:
    """An error, where a figure was given nothing to show."""
    if not data:
        raise KdcourseError(
            "This figure was given nothing to show.",
            wanted=f"at least one {what}",
            todo="Run the cell that measures, then this one again.",
        )


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def _label_ends(axes, ends: list[tuple[float, str, str]]) -> None:
    """Write names right of the axes, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = 0.07 * (high - low)
    ends = sorted(ends)
    places = [level for level, *_ in ends]
    for i in range(1, len(places)):  # upwards, and where the top is reached, back
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], high)
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - gap)
    for place, (_, name, colour) in zip(places, ends, strict=True):
        axes.annotate(
            name,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )
