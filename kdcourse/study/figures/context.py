"""The figures of lesson 10: a mixture of two contexts, and what survives of each.

Each function takes plain numbers and returns a matplotlib figure for
``kdcourse.study.plots.show(fig, alt)`` that can be read without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = ("", "//", "..", "xx")


def mixtures(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """One bar a reader: how its probability is shared among the translations.

    Args:
        rows: from a reader, such as "teacher, on a button", to translation and share;
            all of them with the same translations, in the same order.

    Raises:
        KdcourseError: shares that do not sum to 1.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        figsize=(6.8, 0.9 + 0.45 * len(rows)), layout="constrained"
    )
    for place, (reader, shares) in enumerate(rows.items()):
        if abs(sum(shares.values()) - 1.0) > 1e-3:
            raise KdcourseError(
                f"The shares of {reader!r} sum to {sum(shares.values()):.3g}.",
                wanted="probabilities that sum to 1",
                todo="Add what is missing as a translation of its own.",
            )
        left = 0.0
        for n, (text, share) in enumerate(shares.items()):
            axes.barh(
                place,
                share,
                left=left,
                color=COLOURS[n],
                alpha=0.75,
                hatch=HATCHES[n],
                edgecolor="white",
            )
            if share >= 0.15:
                _in_a_box(axes, left + share / 2, place, f"{text} {share:.2f}")
            left += share
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("probability")
    axes.grid(visible=False)
    return fig


def survivals(
    tests: Mapping[str, Mapping[str, Sequence[float]]], ceilings: Mapping[str, float]
) -> Figure:
    """A panel a test: the share of right rows of each student, a point for each seed.

    Args:
        tests: from a test's title to student and its shares, one a seed, in 0..1.
        ceilings: by title, the most that any reader of z alone can have right; drawn
            as a dashed line where there is one.

    Raises:
        KdcourseError: no tests, or a student without a seed.
    """
    import matplotlib.pyplot as plt

    if not tests or not all(
        all(len(s) for s in test.values()) for test in tests.values()
    ):
        raise KdcourseError(
            "There is nothing to draw in a panel.",
            wanted="at least one test, and for each student a share for each seed",
            todo="Pass {title: {student: [share, …]}}.",
        )
    fig, panels = plt.subplots(
        1, len(tests), figsize=(7.2, 3.2), layout="constrained", squeeze=False
    )
    for axes, (title, test) in zip(panels[0], tests.items(), strict=True):
        for n, shares in enumerate(test.values()):
            shifts = [0.12 * (i - (len(shares) - 1) / 2) for i in range(len(shares))]
            axes.plot(
                [n + shift for shift in shifts],
                [100 * share for share in shares],
                linestyle="",
                marker=MARKERS[n],
                markersize=8,
                color=COLOURS[n],
            )
        axes.set_xticks(range(len(test)), test)
        axes.set_xlim(-0.6, len(test) - 0.4)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(-4.0, 104.0)  # one scale: a few points are to look like a few
        if title in ceilings:
            _ceiling(axes, 100 * ceilings[title])
    panels[0][0].set_ylabel("right, per cent")
    return fig


def _ceiling(axes: Axes, height: float) -> None:
    """The dashed line that nobody who reads z alone can pass, with its name."""
    axes.axhline(height, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        "ceiling of z alone",
        (axes.get_xlim()[0], height),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=8,
    )


def _in_a_box(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
