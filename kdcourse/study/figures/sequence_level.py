"""The figures of lesson 08: how translations begin, and what each search gains.

Each function takes plain numbers and words and returns a matplotlib figure for
``plots.show(fig, alt)``. Groups differ in hatch or marker; numbers are written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HATCHES = ("", "///")
OTHERS = "all others"


def openings(
    counts: Mapping[str, Mapping[str, int]], *, most: int = 4, xlabel: str = "strings"
) -> Figure:
    """Paired bars: how often each of two groups of texts begins with some words.

    Args:
        counts: from each of the two groups' names to {opening: how often}. The ``most``
            frequent openings of the first group have bars, all others share one.
        most: how many openings stand alone.
        xlabel: what is counted.

    Raises:
        KdcourseError: not two groups, or an empty one.
    """
    import matplotlib.pyplot as plt

    if len(counts) != 2 or not all(counts.values()):
        raise KdcourseError(
            f"Asked to compare {len(counts)} groups of openings.",
            wanted="two groups, each with at least one opening",
            todo='For instance {"people": {"No se": 3}, "teacher": {"No se": 4}}.',
        )
    first = next(iter(counts.values()))
    shown = sorted(first, key=lambda words: -first[words])[:most]
    rows = [*shown, OTHERS]
    fig, axes = plt.subplots(figsize=(6.8, 0.9 + 0.6 * len(rows)), layout="constrained")
    for number, (name, found) in enumerate(counts.items()):
        alone = [found.get(words, 0) for words in shown]
        values = [*alone, sum(found.values()) - sum(alone)]
        places = [len(rows) - 1 - n + 0.2 - 0.4 * number for n in range(len(rows))]
        bars = axes.barh(
            places,
            values,
            height=0.36,
            color=COLOURS[(5, 4)[number]],
            edgecolor="black",
            hatch=HATCHES[number],
            label=name,
        )
        axes.bar_label(bars, padding=4, fontsize=8)
    axes.set_yticks(range(len(rows)), rows[::-1])
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.set_xlabel(xlabel)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return fig


def gains(
    points: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str
) -> Figure:
    """Dots in rows: what each method gains, once for every kind of search.

    Args:
        points: from a method to {kind of search: one gain for each seed}. A kind has a
            marker and a colour of its own; the zero line is "no gain".
        xlabel: what is gained, with its unit.

    Raises:
        KdcourseError: no method, or methods with different kinds of search.
    """
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys(kind for found in points.values() for kind in found))
    if not points or any(list(found) != kinds for found in points.values()):
        raise KdcourseError(
            "The methods of this figure cannot be compared.",
            wanted="at least one method, all with the same kinds of search, in order",
            todo='For instance {"sequence": {"greedy": [3.1], "beam": [2.0]}}.',
        )
    fig, axes = plt.subplots(
        figsize=(6.8, 1.3 + 0.7 * len(points)), layout="constrained"
    )
    for row, found in enumerate(points.values()):
        for number, (kind, values) in enumerate(found.items()):
            place = len(points) - 1 - row + 0.18 - 0.36 * number
            axes.plot(
                values,
                [place] * len(values),
                linestyle="",
                marker=MARKERS[number],
                color=COLOURS[number],
                markeredgecolor="black",
                markersize=8,
                label=kind if row == 0 else None,
            )
    axes.axvline(0, color="black", linewidth=0.8, linestyle="-", marker="")
    axes.set_yticks(range(len(points)), list(points)[::-1])
    axes.set_ylim(-0.6, len(points) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(xlabel)
    fig.legend(loc="outside upper left", ncols=len(kinds), frameon=False, fontsize=9)
    return fig
