"""The figures of lesson 03: divergences as curves, and what their optima say.

Each function takes plain numbers and words and returns a matplotlib figure for
``plots.show(fig, alt)``. Lines differ in style and marker and are named at their ends;
nonsense is hatched: nothing depends on colour.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.study.plots import COLOURS, LINES, MARKERS, need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_GAP = 0.065  # of the axes' height: two names at the right edge do not touch


def curves(
    xs: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: str = "",
    falling: bool = False,
    ceilings: Sequence[float] = (),
    top: float | None = None,
) -> Figure:
    """Curves over one axis, each named at its right end.

    Args:
        xs: the values of x, rising.
        lines: from a curve's name to its values at ``xs``.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        logarithmic: the axes with a logarithmic scale: "", "x", "y" or "xy".
        falling: x falls from left to right.
        ceilings: levels that are drawn as thin dotted lines.
        top: the upper end of y, where a curve may leave the picture.

    Raises:
        KdcourseError: where there is nothing to show.
    """
    import matplotlib.pyplot as plt

    need(lines, "curve with its name")
    fig, axes = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
    for number, (name, ys) in enumerate(lines.items()):
        axes.plot(
            xs,
            ys,
            label=name,
            color=COLOURS[number % len(COLOURS)],
            linestyle=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            markevery=max(1, len(xs) // 8),
        )
    for level in ceilings:
        axes.axhline(level, color="#555555", linestyle=":", marker="", linewidth=1)
    if "x" in logarithmic:
        axes.set_xscale("log")
    if "y" in logarithmic:
        axes.set_yscale("log")
    axes.margins(x=0)
    axes.set_ylim(top=top)
    if falling:
        axes.invert_xaxis()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _name_ends(axes, 0 if falling else -1)
    return fig


def _name_ends(axes: Axes, end: int) -> None:
    """The names of the curves right of the frame, pushed apart where they would touch.

    A thin line leads from the end of each curve to its name. ``end`` is the index of
    the value that stands at the right edge.
    """
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    to_frame = axes.transData + axes.transAxes.inverted()
    ends = []
    for line in named:
        x, y = line.get_xdata()[end], line.get_ydata()[end]
        height = to_frame.transform((x, y))[1]
        ends.append((min(max(height, 0.0), 1.0), line))
    ends.sort(key=lambda pair: pair[0])
    places = [height for height, _ in ends]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + LABEL_GAP)
    over = max(0.0, places[-1] - 1.0)
    for place, (height, line) in zip(places, ends, strict=True):
        axes.annotate(
            line.get_label(),
            (1.0, height),
            xycoords="axes fraction",
            xytext=(1.045, place - over),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def phrase_panels(
    panels: Mapping[str, Mapping[str, float]], nonsense: Collection[str]
) -> Figure:
    """Small multiples: how often each phrase is said, one speaker a panel.

    Args:
        panels: from a panel's title to the probabilities (0..1) of its phrases; all
            panels have the same phrases, the first at the top.
        nonsense: the phrases that nobody should say; their bars are hatched and their
            names stand in brackets.

    Raises:
        KdcourseError: where there is nothing to show.
    """
    import matplotlib.pyplot as plt

    need(panels, "panel with its title")
    columns = 3
    rows = -(-len(panels) // columns)
    names = list(next(iter(panels.values())))
    places = range(len(names) - 1, -1, -1)
    fig, grid = plt.subplots(
        rows,
        columns,
        figsize=(7.6, rows * (0.65 + 0.26 * len(names))),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, shares) in zip(grid.flat, panels.items(), strict=False):
        for place, name in zip(places, names, strict=True):
            _bar(axes, place, shares[name], name in nonsense)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 75)
        axes.set_xticks((0, 25, 50))
        axes.tick_params(labelsize=9)
    labels = [f"({name})" if name in nonsense else name for name in names]
    grid[0][0].set_yticks(places, labels)
    fig.supxlabel("how often it is said, per cent", fontsize=9)
    return fig


def _bar(axes: Axes, place: int, share: float, is_nonsense: bool) -> None:
    """One bar with its per cents, hatched where the phrase is nonsense."""
    axes.barh(
        place,
        100 * share,
        color=COLOURS[4] if is_nonsense else COLOURS[5],
        hatch="///" if is_nonsense else "",
        edgecolor="black",
        height=0.65,
    )
    axes.annotate(
        f"{100 * share:.0f}",
        (100 * share, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
