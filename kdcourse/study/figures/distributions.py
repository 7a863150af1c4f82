"""The figures of lesson 01: next-token distributions, temperature, top-k mass.

Each function takes plain numbers and words and returns a figure for
``plots.show(fig, alt)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.study.plots import COLOURS, LINES, MARKERS, need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Shares = Mapping[str, float]


def panels(
    distributions: Mapping[str, Shares],
    *,
    marked: Mapping[str, str] | None = None,
    columns: int = 2,
    xlabel: str = "probability, per cent",
) -> Figure:
    """Small multiples: one distribution a panel, as bars with their per cents.

    Args:
        distributions: from a panel's title to the probabilities (0..1) of its words,
            the first at the top.
        marked: from a panel's title to a word whose bar is hatched and named
            "reference".
        columns: panels side by side.
        xlabel: what the bars measure.

    Raises:
        KdcourseError: where there is nothing to show.
    """
    import matplotlib.pyplot as plt

    need(distributions, "distribution with its title")
    rows = -(-len(distributions) // columns)
    longest = max(map(len, distributions.values()))
    fig, grid = plt.subplots(
        rows,
        columns,
        figsize=(3.7 * columns, rows * (0.75 + 0.27 * longest)),
        sharex=True,
        layout="constrained",
        squeeze=False,
    )
    for axes in grid.flat[len(distributions) :]:
        axes.set_visible(False)
    for axes, (title, shares) in zip(grid.flat, distributions.items(), strict=False):
        _bars(axes, shares, (marked or {}).get(title))
        axes.set_title(_plain(title), fontsize=9)
    fig.supxlabel(xlabel, fontsize=9)
    return fig


def _bars(axes: Axes, shares: Shares, marked: str | None) -> None:
    """Bars of one panel, the first word at the top, each with its per cent."""
    need(shares, "word with its probability")
    places = range(len(shares) - 1, -1, -1)
    drawn = axes.barh(
        places,
        [100 * share for share in shares.values()],
        color=COLOURS[5],
        edgecolor="black",
        height=0.65,
    )
    for place, bar, (word, share) in zip(places, drawn, shares.items(), strict=True):
        text = _per_cent(share)
        if word == marked:
            bar.set(facecolor=COLOURS[4], hatch="///")
            text += "  reference"
        axes.annotate(
            text,
            (100 * share, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places, [_plain(word) for word in shares], fontsize=9)
    axes.set_xlim(0, 119)
    axes.set_xticks(range(0, 101, 25))
    axes.grid(axis="y", visible=False)


def mass_by_k(
    sizes: Sequence[int], curves: Mapping[str, Sequence[float]], level: float
) -> Figure:
    """Mass (0..1) that the k most probable tokens hold, against k on a log scale.

    Args:
        sizes: the values of k.
        curves: from a name, written at the curve, to its mass at each k.
        level: a mass of interest, drawn as a flat line.

    Raises:
        KdcourseError: where there is nothing to show.
    """
    import matplotlib.pyplot as plt

    need(curves, "curve with its name")
    fig, axes = plt.subplots(layout="constrained")
    for number, (name, masses) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            sizes,
            masses,
            color=colour,
            linestyle=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
        )
        axes.annotate(
            name,
            (sizes[0], masses[0]),
            xytext=(8, -9),
            textcoords="offset points",
            color=colour,
            fontsize=9,
        )
    axes.axhline(level, color="#555555", linestyle=":", marker="", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(k) for k in sizes])
    axes.annotate(
        f"{level:.0%}".replace("%", " %"),
        (sizes[-1], level),
        xytext=(0, -11),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color="#555555",
    )
    axes.set_xlabel("k, the number of most probable tokens that are kept")
    axes.set_ylabel("mass that they hold")
    lowest = min(map(min, curves.values()))
    room = 0.1 * (1 - lowest)  # for the names, which stand below their curves
    axes.set_ylim(lowest - room, 1.02)
    return fig


def _per_cent(share: float) -> str:
    """A share in whole per cent; what is small but not nothing is not called 0."""
    if 0 < share < 0.005:
        return "<1 %"
    return f"{100 * share:.0f} %"


def _plain(text: str) -> str:
    """Text without mathematics: a dollar sign is a token like others."""
    return text.replace("$", r"\$")
