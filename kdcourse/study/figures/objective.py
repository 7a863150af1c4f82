"""The figures of lesson 05: a tree of prefixes, and what each objective pays for.

Each function takes plain numbers and words and returns a matplotlib figure for
``plots.show(fig, alt)``. Points differ in marker, all numbers are written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Prefix = tuple[str, ...]
Branches = Mapping[str, tuple[float, float]]


def prefix_tree(
    tree: Mapping[Prefix, Branches], contributions: Mapping[Prefix, tuple[float, float]]
) -> Figure:
    """What can be said, from left to right, with what each prefix adds to the KL.

    Args:
        tree: from a prefix to its branches: what can follow, with the teacher's and the
            student's probability of it; the empty prefix is the root.
        contributions: for each prefix of ``tree`` the teacher's mass there and the KL
            of the next step, whose product is written below it.

    Raises:
        KdcourseError: a tree without a root.
    """
    import matplotlib.pyplot as plt

    if () not in tree:
        raise KdcourseError(
            "This tree has no root.",
            wanted="the empty prefix () with its branches",
            todo='For instance {(): {"ve": (0.6, 0.5)}}.',
        )
    heights: dict[Prefix, float] = {}
    _place((), tree, heights)
    depth = max(map(len, heights))
    fig, axes = plt.subplots(
        figsize=(7.2, 0.9 + 0.8 * len(_leaves(tree, heights))), layout="constrained"
    )
    for prefix, branches in tree.items():
        for word, shares in branches.items():
            _draw_branch(axes, prefix, word, shares, heights, tree)
    for prefix, (mass, kl) in contributions.items():
        axes.annotate(
            f"{mass:.2f} × {kl:.2f} nats",
            (len(prefix), heights[prefix]),
            xytext=(0, -18),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "#999999", "pad": 2},
        )
    axes.set_xlim(-0.3, depth + 0.4)
    axes.set_ylim(min(heights.values()) - 0.6, max(heights.values()) + 0.5)
    axes.set_axis_off()
    return fig


def _leaves(
    tree: Mapping[Prefix, Branches], heights: Mapping[Prefix, float]
) -> list[Prefix]:
    return [prefix for prefix in heights if prefix not in tree]


def _place(prefix: Prefix, tree: Mapping[Prefix, Branches], heights: dict) -> float:
    """The height of a prefix: a leaf takes the next line, a parent the middle."""
    if prefix not in tree:
        heights[prefix] = -float(len(_leaves(tree, heights)))
    else:
        below = [_place((*prefix, word), tree, heights) for word in tree[prefix]]
        heights[prefix] = sum(below) / len(below)
    return heights[prefix]


def _draw_branch(
    axes: Axes,
    prefix: Prefix,
    word: str,
    shares: tuple[float, float],
    heights: Mapping[Prefix, float],
    tree: Mapping[Prefix, Branches],
) -> None:
    """A line as wide as the teacher's share, with both shares and the word."""
    child = (*prefix, word)
    xs, ys = (len(prefix), len(child)), (heights[prefix], heights[child])
    teacher, student = shares
    axes.plot(
        xs, ys, color=COLOURS[0], linestyle="-", marker="", linewidth=0.8 + 5 * teacher
    )
    axes.plot(xs, ys, color="black", linestyle="", marker="o", markersize=4)
    axes.annotate(
        f"{teacher:.2f} | {student:.2f}",
        (xs[0] + 0.55, ys[0] + 0.55 * (ys[1] - ys[0])),
        ha="center",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
    last = child not in tree
    axes.annotate(
        word,
        (xs[1], ys[1]),
        xytext=(7, 0) if last else (0, 11),
        textcoords="offset points",
        ha="left" if last else "center",
        va="center",
        fontsize=10,
    )


def trade(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Points of several groups, one marker a group, the runs of one pair joined.

    Args:
        groups: from a group's name to its points (x, y); the n-th points of all groups
            belong together and are joined by a thin line.
        xlabel: what x is, with its unit; its scale is logarithmic.
        ylabel: what y is, with its unit.

    Raises:
        KdcourseError: no group, or groups of different size.
    """
    import matplotlib.pyplot as plt

    if len({len(points) for points in groups.values()}) != 1:
        raise KdcourseError(
            "The groups of this figure cannot be paired.",
            wanted="at least one group, all with equally many points",
            todo="Give each group one point for each run.",
        )
    fig, axes = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
    for pair in zip(*groups.values(), strict=True):
        xs, ys = zip(*pair, strict=True)
        axes.plot(xs, ys, color="#999999", linestyle="-", marker="", linewidth=0.8)
    for number, (name, points) in enumerate(groups.items()):
        xs, ys = zip(*points, strict=True)
        axes.plot(
            xs,
            ys,
            linestyle="",
            marker=MARKERS[number],
            color=COLOURS[number],
            markeredgecolor="black",
            markersize=8,
            label=name,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.margins(x=0.08, y=0.1)
    fig.legend(loc="outside upper left", ncols=len(groups), frameon=False, fontsize=9)
    return fig
