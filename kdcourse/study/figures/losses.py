"""The figures of lesson 04: what T² keeps, which positions learn, how features relate.

Each returns a matplotlib figure for ``kdcourse.study.plots.show(fig, alt)`` and can be
read without colour: lines differ in style and marker, cells carry signs or numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdcourse.study import plots

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure


def with_and_without_t_squared(
    temperatures: Sequence[float],
    panels: Mapping[str, Sequence[float]],
    limits: Sequence[float],
) -> Figure:
    """One panel a quantity, falling as 1/T² by itself and kept level by T².

    Args:
        temperatures: T, above 0, from small to large.
        panels: the panel's title to the quantity *without* T² at each temperature.
        limits: for each panel, what T² times the quantity tends to as T → ∞.
    """
    import matplotlib.pyplot as plt

    fig, row = plt.subplots(
        1, len(panels), figsize=(7.4, 3.2), layout="constrained", squeeze=False
    )
    for axes, (title, values), limit in zip(
        row[0], panels.items(), limits, strict=True
    ):
        scaled = [t**2 * v for t, v in zip(temperatures, values, strict=True)]
        for number, line in enumerate((values, scaled)):
            axes.loglog(
                temperatures,
                line,
                color=plots.COLOURS[number],
                linestyle=plots.LINES[number],
                marker=plots.MARKERS[number],
                markevery=4,
            )
        axes.axhline(limit, color="black", linestyle=":", marker="", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("temperature T (log scale)")
        middle, last = len(temperatures) // 2, -1
        for text, point, place, offset in (
            ("without T²", middle, values[middle], (-8, -6)),
            ("times T²; dotted: its limit", last, limit, (0, -10)),
        ):
            axes.annotate(
                text,
                (temperatures[point], place),
                xytext=offset,
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=9,
            )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return fig


def positions(labels: torch.Tensor, learned: Mapping[str, torch.Tensor]) -> Figure:
    """One grid a loss: the positions of a batch, filled where the student learns.

    Args:
        labels: (B, L) token ids, -100 at pads; the last id of a row ends its sentence.
        learned: the grid's title to a bool tensor (B, L), True where the gradient of
            that position's logits is not 0. A cross stands where it should be the
            other way round.
    """
    import matplotlib.pyplot as plt

    real = labels != -100
    rows, columns = labels.shape
    fig, row = plt.subplots(
        1,
        len(learned),
        figsize=(2.5 * len(learned), 0.8 + 0.42 * rows),
        layout="constrained",
        squeeze=False,
    )
    for axes, (title, filled) in zip(row[0], learned.items(), strict=True):
        for i in range(rows):
            for j in range(columns):
                _position(axes, i, j, bool(real[i, j]), bool(filled[i, j]))
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xticks(range(columns), range(1, columns + 1))
        axes.set_yticks(range(rows), "ABCDEFGHIJ"[:rows])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=9)
    return fig


def _position(axes, i: int, j: int, real: bool, filled: bool) -> None:
    """One square: dark where it learns, "pad" where it is one, a cross if wrong."""
    import matplotlib.patches as patches

    axes.add_patch(
        patches.Rectangle(
            (j - 0.46, i - 0.46),
            0.92,
            0.92,
            facecolor=plots.COLOURS[0] if filled else "white",
            edgecolor="black" if real else "#999999",
            linestyle="-" if real else ":",
        )
    )
    ink = "white" if filled else "#555555"
    if real != filled:
        text = "✗"
    else:
        text = "" if real else "pad"
    size = 14 if text == "✗" else 7
    colour = "black" if real != filled and not filled else ink
    axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def similarities(tokens: Sequence[str], matrices: Mapping[str, torch.Tensor]) -> Figure:
    """One heat map a model: the cosine of the features of each pair of tokens.

    Args:
        tokens: the n tokens, in order.
        matrices: the model's name to its cosines (n, n); they are written out.
    """
    import matplotlib.pyplot as plt

    fig, row = plt.subplots(
        1, len(matrices), figsize=(7.4, 3.9), layout="constrained", squeeze=False
    )
    for axes, (title, matrix) in zip(row[0], matrices.items(), strict=True):
        axes.imshow(matrix.tolist(), cmap="Blues", vmin=-0.5, vmax=1.3)
        for i, values in enumerate(matrix.tolist()):
            for j, value in enumerate(values):
                axes.text(
                    j,
                    i,
                    f"{round(value, 1) + 0.0:.1f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
        axes.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right")
        axes.set_yticks(range(len(tokens)), tokens)
        axes.grid(visible=False)
        axes.set_title(title, fontsize=10)
    return fig
