"""The figures of lesson 07: the teacher's answer to each token, and what k keeps of it.

Each returns a matplotlib figure for ``kdcourse.study.plots.show(fig, alt)`` and can be
read without colour: parts are hatched and named, lines differ in style and marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, LINES, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = (  # name, colour, hatch
    ("the reference's token", COLOURS[0], ""),
    ("the teacher's other best", COLOURS[4], "//"),
    ("all others", "#dddddd", ".."),
)
NARROW = 0.12  # a narrower part has no room for its token


def answers(
    tokens: Sequence[str],
    of_reference: Sequence[float],
    others: Sequence[tuple[str, float]],
) -> Figure:
    """One bar a position: the mass of the reference's token, of one other, of the rest.

    Args:
        tokens: the reference's tokens, in order.
        of_reference: the teacher's probability of each.
        others: for each position the teacher's best other token, and its probability.

    Raises:
        KdcourseError: probabilities that sum to more than 1.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        figsize=(6.8, 0.9 + 0.36 * len(tokens)), layout="constrained"
    )
    rows = zip(tokens, of_reference, others, strict=True)
    for place, (token, p, (other, q)) in enumerate(rows):
        if p + q > 1.0 + 1e-6:
            raise KdcourseError(
                f"At {token!r} the two parts sum to {p + q:.3g}.",
                wanted="probabilities of two different tokens",
                todo="Take the best token that is not the reference's.",
            )
        left = 0.0
        for (_, colour, hatch), width, word in zip(
            PARTS, (p, q, 1.0 - p - q), (token, other, ""), strict=True
        ):
            axes.barh(
                place, width, left=left, color=colour, hatch=hatch, edgecolor="white"
            )
            if word and width >= NARROW:
                axes.text(
                    left + width / 2,
                    place,
                    word,
                    ha="center",
                    va="center",
                    fontsize=9,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
            left += width
    axes.set_yticks(range(len(tokens)), tokens)
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("the teacher's probability of the next token")
    axes.grid(visible=False)
    _legend(fig)
    return fig


def _legend(fig: Figure) -> None:
    """The three parts by name, above the bars."""
    import matplotlib.patches as patches

    fig.legend(
        handles=[
            patches.Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name)
            for name, colour, hatch in PARTS
        ],
        loc="outside upper center",
        ncols=len(PARTS),
        frameon=False,
        fontsize=9,
    )


def shares(
    ks: Sequence[int], lines: Mapping[str, Sequence[float]], sizes: Sequence[int]
) -> Figure:
    """Curves over k that all end at 1; above the picture the bytes that k costs.

    Args:
        ks: numbers of kept entries, ascending.
        lines: a name to a share at each k, such as the loss in units of the full one.
        sizes: bytes a token at each k.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(6.8, 4.0), layout="constrained")
    for number, (name, values) in enumerate(lines.items()):
        axes.plot(
            ks,
            values,
            color=COLOURS[number],
            linestyle=LINES[number],
            marker=MARKERS[number],
        )
        axes.annotate(
            name,
            (ks[0], values[0]),
            xytext=(8, 10 if values[0] > 1.0 else -8),
            textcoords="offset points",
            va="center",
            color=COLOURS[number],
            fontsize=9,
        )
    axes.axhline(1.0, color="black", linestyle="-", marker="", linewidth=1)
    axes.margins(y=0.12)  # room for the names
    axes.set_xscale("log")
    axes.set_xticks(ks, [f"{k:,}" for k in ks])
    axes.minorticks_off()
    axes.set_xlabel("k, entries kept of each answer (log scale)")
    axes.set_ylabel("share of the whole")
    above = axes.secondary_xaxis("top")
    above.set_xticks(ks, [f"{size:,}" for size in sizes])
    above.minorticks_off()
    above.set_xlabel("bytes a token")
    return fig
