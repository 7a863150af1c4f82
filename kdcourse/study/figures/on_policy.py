"""The figures of lesson 09: what the teacher thinks of what a student said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, LINES, MARKERS, need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Opinion = tuple[str, float]
SURE, SLIP = 0.5, 0.01  # where a cell is plain, and where it is framed as a slip


def opinions(rows: Sequence[Sequence[Opinion]]) -> Figure:
    """Sampled sentences as rows of cells: each token with the teacher's probability.

    A cell is the darker the less the teacher would have said its token there; the
    probability is written below it, and a token below ``SLIP`` has a thick frame, so
    that nothing hangs on the shade.

    Args:
        rows: one list a sentence of (token, Pr^t of it after the tokens before it).

    Raises:
        KdcourseError: no sentence, an empty one, or a number that is no probability.
    """
    import matplotlib.pyplot as plt

    _check(rows)
    columns = max(map(len, rows))
    fig, axes = plt.subplots(
        figsize=(0.68 * columns, 0.72 * len(rows)), layout="constrained"
    )
    for y, row in enumerate(rows):
        for x, (token, p) in enumerate(row):
            _cell(axes, x, len(rows) - 1 - y, token, p)
    axes.set_xlim(-0.05, columns + 0.05)
    axes.set_ylim(-0.1, len(rows) + 0.05)
    axes.set_axis_off()
    return fig


def _check(rows: Sequence[Sequence[Opinion]]) -> None:
    if not rows or not all(rows):
        given = "no sentence" if not rows else "an empty sentence"
    elif not all(0.0 <= p <= 1.0 for row in rows for _, p in row):
        given = "a number that is no probability"
    else:
        return
    raise KdcourseError(
        f"This figure was given {given}.",
        wanted="lists of (token, probability), one a sampled sentence",
        todo='For instance [[("▁Hola", 0.9), ("</s>", 0.99)]].',
    )


def _cell(axes, x: int, y: int, token: str, p: float) -> None:
    from matplotlib.patches import Rectangle

    slip = p < SLIP
    shade = min(1.0, 0.45 + 0.55 * p / SURE)  # grey, and light enough for black text
    axes.add_patch(
        Rectangle(
            (x + 0.05, y + 0.06),
            0.9,
            0.84,
            facecolor=str(shade),
            edgecolor=COLOURS[1] if slip else "#bbbbbb",
            linewidth=3 if slip else 0.8,
        )
    )
    axes.text(x + 0.5, y + 0.6, token, ha="center", va="center", fontsize=_size(token))
    share = "< .01" if slip else f"{p:.2f}".removeprefix("0")
    axes.text(x + 0.5, y + 0.25, share, ha="center", va="center", fontsize=7)


def _size(token: str) -> float:
    """A font size at which a token fits into its cell."""
    return max(5.0, min(9.0, 50.0 / max(1, len(token))))


def leaving(curves: Mapping[str, Sequence[float]]) -> Figure:
    """The share of a student's sentences that is still on the teacher's path.

    Args:
        curves: from a name to the shares before any token, after the first, … ; the
            names stand at the ends of the curves.

    Raises:
        KdcourseError: no curve.
    """
    import matplotlib.pyplot as plt

    need(curves, "curve, a name with its shares")
    fig, axes = plt.subplots(layout="constrained")
    for number, (name, shares) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            range(len(shares)),
            shares,
            color=colour,
            linestyle=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
        )
        axes.annotate(
            name,
            (len(shares) - 1, shares[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )
    axes.set_ylim(0.0, 1.03)
    axes.set_xlabel("tokens said")
    axes.set_ylabel("share that the teacher could have said")
    return fig
