"""The figures of lesson 06: what a word costs in subwords, and a beam at work.

Each function takes plain numbers and texts and returns a matplotlib figure for
``plots.show(fig, alt)``. Lines differ in style and marker and are labelled at their
ends; the beam is black on white, with its numbers written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.errors import KdcourseError
from kdcourse.study.plots import COLOURS, LINES, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Hypothesis = tuple[float, list[int]]
Step = tuple[Sequence[Hypothesis], Sequence[Hypothesis]]


def subword_cost(
    sizes: Sequence[int],
    cost: Mapping[str, Sequence[float]],
    others: Mapping[str, tuple[int, Mapping[str, float]]],
) -> Figure:
    """Pieces a word against the size of the vocabulary, one line a language.

    Args:
        sizes: numbers of entries, rising; the axis is logarithmic.
        cost: language to pieces a word, one number for each size.
        others: further vocabularies, drawn as single points: name to their size and
            their pieces a word by language.

    Raises:
        KdcourseError: a language whose numbers do not match the sizes.
    """
    import matplotlib.pyplot as plt

    for language, values in cost.items():
        if len(values) != len(sizes):
            raise KdcourseError(
                f"{language!r} has {len(values)} numbers for {len(sizes)} sizes.",
                wanted="one number of pieces a word for each size",
                todo="Measure each vocabulary once a language.",
            )
    fig, axes = plt.subplots(layout="constrained")
    for number, (language, values) in enumerate(cost.items()):
        colour = COLOURS[number]
        axes.plot(
            sizes,
            values,
            color=colour,
            linestyle=LINES[number],
            marker=MARKERS[number],
            label=language,
        )
        beside = (6, 8 if values[-1] == max(v[-1] for v in cost.values()) else -12)
        _write(axes, language, (sizes[-1], values[-1]), beside, colour)
        for name, (size, values_of) in others.items():
            place = (size, values_of[language])
            axes.plot(
                *place,
                color=colour,
                linestyle="",
                marker=MARKERS[number],
                markerfacecolor="white",
                markersize=8,
            )
            _write(axes, f"{language}, {name}", place, (-4, -15), colour)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_xlim(sizes[0] * 0.85, sizes[-1] * 1.6)
    axes.set_ylim(bottom=1)
    axes.set_xlabel("entries of the vocabulary (log scale)")
    axes.set_ylabel("pieces a word, on unseen strings")
    return fig


def beam(steps: Sequence[Step], pieces: Callable[[list[int]], list[str]]) -> Figure:
    """A beam search from left to right: what lives on at each step, and what is done.

    Args:
        steps: after each step the live hypotheses and all that are finished so far,
            each as (score, ids), ids beginning with a start token; a live one's score
            is its log-probability in nats, a finished one's is that divided by a
            power of its length.
        pieces: ids to the texts of the pieces, as ``convert_ids_to_tokens``.

    A box holds the last piece and the probability of the whole beginning; a line leads
    from the beginning that it extends. A finished output has a thick frame and no
    number, because its score is on another scale.

    Raises:
        KdcourseError: no step.
    """
    import matplotlib.pyplot as plt

    if not steps:
        raise KdcourseError(
            "The beam has no step to show.",
            wanted="the list that a beam search has filled while it searched",
            todo="Pass watch=steps to beam_search, and then steps to this figure.",
        )
    ended = [0, *(len(done) for _, done in steps)]
    rows = max(
        len(live) + len(done) - before
        for (live, done), before in zip(steps, ended, strict=False)
    )
    fig, axes = plt.subplots(
        figsize=(1.05 * len(steps) + 1.3, 0.75 * rows + 0.7), layout="constrained"
    )
    places: dict[tuple[int, ...], tuple[float, float]] = {}
    start = steps[0][0] or steps[0][1]
    root = tuple(start[0][1][:1])
    places[root] = (0, 0)
    _box(axes, "start", (0, 0))
    finished: set[tuple[int, ...]] = set()
    for column, (live, done) in enumerate(steps, start=1):
        new = [ids for _, ids in done if tuple(ids) not in finished]
        finished.update(map(tuple, new))
        shown = [(ids, f"{math.exp(score):.2f}") for score, ids in live]
        shown += [(ids, "") for ids in new]
        for row, (ids, number) in enumerate(shown):
            place = (column, -row)
            x, y = places[tuple(ids[:-1])]
            axes.plot(
                [x, column],
                [y, -row],
                color="#555555",
                linestyle="-",
                marker="",
                linewidth=1,
                zorder=1,
            )
            (piece,) = pieces(ids[-1:])
            _box(axes, f"{piece}\n{number}" if number else piece, place, not number)
            places[tuple(ids)] = place
    axes.set_xlim(-0.6, len(steps) + 0.6)
    axes.set_ylim(-rows + 0.4, 0.6)
    axes.set_axis_off()
    return fig


def _box(axes: Axes, text: str, place: tuple[float, float], ends: bool = False) -> None:
    """A framed text in the middle of a place; what ends has a thick frame."""
    axes.text(
        *place,
        text,
        ha="center",
        va="center",
        fontsize=9,
        zorder=2,
        bbox={
            "boxstyle": "round,pad=0.3",
            "facecolor": "#eeeeee" if ends else "white",
            "edgecolor": "black",
            "linewidth": 2.2 if ends else 0.9,
        },
    )


def _write(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    beside: tuple[int, int],
    colour: str,
) -> None:
    """A label beside a point, in the colour of its line."""
    axes.annotate(
        text,
        place,
        xytext=beside,
        textcoords="offset points",
        color=colour,
        fontsize=9,
    )
