"""Figures of lesson 02: what a context does to a teacher, and where the work goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError

from ..plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = ("", "///", "...", "xxx", "\\\\\\")
NARROW = 0.06  # the share of a bar below which a number does not fit into its part


def context_panels(
    panels: Mapping[str, Mapping[str, float]], *, mixture: str
) -> Figure:
    """One small panel of bars for each context: the probability of each output.

    ``panels`` maps a context's title to {output: probability}, the same outputs in
    each, in the order in which they shall stand; ``mixture`` names the panel that is
    drawn with hatched bars, because it is made of the others.

    Raises:
        KdcourseError: no panel, panels of different outputs, or no such mixture.
    """
    import matplotlib.pyplot as plt

    names = _common_names(panels, "panel")
    if mixture not in panels:
        raise KdcourseError(
            f"There is no panel {mixture!r} to hatch.",
            wanted=f"one of {', '.join(panels)}",
            todo="Name the panel as in panels.",
        )
    size = (2.3 * len(panels) + 0.6, 0.34 * len(names) + 1.1)
    fig, rows = plt.subplots(
        1, len(panels), sharey=True, figsize=size, layout="constrained", squeeze=False
    )
    for axes, (title, values) in zip(rows[0], panels.items(), strict=True):
        new = title == mixture
        bars = axes.barh(
            range(len(names)),
            [values[name] for name in names],
            color=COLOURS[4] if new else COLOURS[0],
            edgecolor="black",
            hatch="///" if new else "",
            height=0.65,
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0, 0.85)
        axes.grid(axis="y", visible=False)
    rows[0][0].set_yticks(range(len(names)), names)
    rows[0][0].invert_yaxis()
    fig.supxlabel("probability of the whole output y", fontsize=10)
    return fig


def shares(parts: Mapping[str, Mapping[str, float]], *, xlabel: str) -> Figure:
    """One bar for each model, cut into its parts; a bar's parts make 100 per cent.

    ``parts`` maps a model's name to {part: amount}, the same parts in each, at most
    five. A part is told by its place and its hatch, not by its colour alone.

    Raises:
        KdcourseError: no model, models of different parts, an amount below 0, or a
            model all of whose amounts are 0.
    """
    import matplotlib.pyplot as plt

    names = _common_names(parts, "model")
    _check_amounts(parts, len(names))
    fig, axes = plt.subplots(
        figsize=(6.8, 0.6 * len(parts) + 1.3), layout="constrained"
    )
    for row, amounts in enumerate(parts.values()):
        _cut_bar(axes, row, [amounts[name] for name in names])
    handles = [
        plt.Rectangle(
            (0, 0), 1, 1, facecolor=COLOURS[n], hatch=HATCHES[n], edgecolor="k"
        )
        for n in range(len(names))
    ]
    fig.legend(
        handles, names, loc="outside upper center", ncols=len(names), frameon=False
    )
    axes.set_yticks(range(len(parts)), list(parts))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(xlabel)
    return fig


def _check_amounts(parts: Mapping[str, Mapping[str, float]], number: int) -> None:
    """Nothing below 0, something above it in each model, no more parts than hatches."""
    if min(min(amounts.values()) for amounts in parts.values()) < 0:
        raise KdcourseError(
            "An amount in this figure is below 0.",
            wanted="what each part takes, 0 or more",
            todo="Check the counts that were passed as parts.",
        )
    if min(sum(amounts.values()) for amounts in parts.values()) == 0:
        raise KdcourseError(
            "A model in this figure has no part that takes anything.",
            wanted="at least one amount above 0 for each model",
            todo="Leave that model out.",
        )
    if number > len(HATCHES):
        raise KdcourseError(
            f"This figure was given {number} parts.",
            wanted=f"at most {len(HATCHES)}, for more cannot be told apart",
            todo="Put small parts together.",
        )


def _cut_bar(axes: Axes, row: int, amounts: list[float]) -> None:
    """One bar of the whole width, its parts side by side with their percentages."""
    total, left = sum(amounts), 0.0
    for n, amount in enumerate(amounts):
        width = 100 * amount / total
        axes.barh(
            row,
            width,
            left=left,
            height=0.6,
            color=COLOURS[n],
            edgecolor="black",
            hatch=HATCHES[n],
        )
        if width >= 100 * NARROW:
            axes.text(
                left + width / 2,
                row,
                f"{width:.0f} %",
                ha="center",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
        left += width


def _common_names(table: Mapping[str, Mapping[str, float]], what: str) -> list[str]:
    """The names that all rows share, in the first one's order."""
    if not table:
        raise KdcourseError(
            "This figure was given nothing to show.",
            wanted=f"at least one {what}",
            todo="Run the cell that computes, then this one again.",
        )
    rows = [list(row) for row in table.values()]
    if not rows[0] or any(sorted(row) != sorted(rows[0]) for row in rows):
        raise KdcourseError(
            f"The {what}s of this figure do not have the same entries.",
            wanted=f"the same names in each {what}, at least one",
            todo="Fill in 0 where an entry is missing.",
        )
    return rows[0]
