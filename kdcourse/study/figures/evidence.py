"""The table of methods as a picture: one line a method, one marker a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOM = 0.24  # between the seeds of one method


def forest(
    comparisons: Sequence[dict], baseline: str, verdicts: dict[str, dict[str, str]]
) -> Figure:
    """Gains in BLEU over a baseline with their 95 % intervals, the best mean on top.

    ``comparisons`` and ``verdicts`` are those of ``load_evidence()``. Each seed has a
    marker of its own; the verdict stands at the right.

    Raises:
        KdcourseError: no method was compared with this baseline.
    """
    import matplotlib.pyplot as plt

    rows = [c for c in comparisons if c["baseline"] == baseline]
    if not rows:
        known = sorted({c["baseline"] for c in comparisons})
        raise KdcourseError(
            f"Nothing was compared with {baseline!r}.",
            wanted=f"one of {', '.join(known)}",
            todo="Take a baseline of load_evidence()['comparisons'].",
        )
    gains: dict[str, list[float]] = {}
    for row in rows:
        gains.setdefault(row["method"], []).append(row["gain"])
    order = sorted(gains, key=lambda method: sum(gains[method]) / len(gains[method]))
    seeds = sorted({row["seed"] for row in rows})
    fig, axes = plt.subplots(
        figsize=(6.8, 1.1 + 0.42 * len(order)), layout="constrained"
    )
    for number, seed in enumerate(seeds):
        these = [row for row in rows if row["seed"] == seed]
        middle = [row["gain"] for row in these]
        sides = [
            [row["gain"] - row["interval"][0] for row in these],
            [row["interval"][1] - row["gain"] for row in these],
        ]
        shift = ROOM * ((len(seeds) - 1) / 2 - number)
        axes.errorbar(
            middle,
            [order.index(row["method"]) + shift for row in these],
            xerr=sides,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle="none",
            elinewidth=1,
            label=f"seed {seed}",
        )
    axes.axvline(0.0, color="black", linewidth=1, linestyle="-", marker="")
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel(f"gain in BLEU over {baseline}, with its 95 % interval")
    _write_verdicts(axes, order, baseline, verdicts)
    fig.legend(loc="outside upper center", ncols=len(seeds), fontsize=8, frameon=False)
    return fig


def _write_verdicts(axes, order, baseline, verdicts) -> None:
    """The verdict of each line, beyond the right edge."""
    for place, method in enumerate(order):
        axes.annotate(
            verdicts[method][baseline].lower(),
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
