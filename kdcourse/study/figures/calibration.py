"""How sure against how right: a learner's own calibration, as numbers, text and figure.

Somebody is well calibrated who is right about 8 times in 10 when 80 per cent sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGES = (0.0, 0.5, 0.7, 0.9, 1.0)  # groups of sureness; the last takes its upper edge
FEW = 10  # predictions below which nothing is concluded
Z = 1.959964  # of a 95 per cent interval
COLUMNS = 41  # characters of the scale in the text plot


@dataclass(frozen=True)
class Answer:
    """One prediction: how sure (a share from 0 to 1), and whether it was right."""

    sure: float
    right: bool


@dataclass(frozen=True)
class Group:
    """The predictions made with about the same sureness; never empty."""

    low: float
    high: float
    answers: tuple[Answer, ...]

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.answers)

    @property
    def right(self) -> int:
        """How many of them were right."""
        return sum(answer.right for answer in self.answers)

    @property
    def sure(self) -> float:
        """The mean sureness."""
        return fmean(answer.sure for answer in self.answers)

    @property
    def share(self) -> float:
        """The share that was right."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 per cent interval of that share."""
        return wilson(self.right, self.count)

    @property
    def name(self) -> str:
        """Such as ``70-89 %``."""
        top = 100 if self.high == 1 else round(100 * self.high) - 1
        return f"{round(100 * self.low)}-{top} %"


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 per cent interval of a share, right / count (Wilson 1927).

    centre = (p + z²/2n) / (1 + z²/n), half = z √(p(1-p)/n + z²/4n²) / (1 + z²/n),
    with p = right / count, n = count, z = 1.96. Unlike p ± z·s it stays between 0 and
    1, and it has a width where all were right, or none.
    """
    p, scale = right / count, 1 + Z**2 / count
    centre = (p + Z**2 / (2 * count)) / scale
    half = Z * math.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def brier(answers: Sequence[Answer]) -> float:
    """The mean of (sure - right)², with right as 1 or 0 (Brier 1950).

    0 is perfect, 1 the worst; who always says 0.5 gets 0.25. Its expectation is least
    for who says what they believe: neither boldness nor modesty pays.
    """
    return fmean((answer.sure - answer.right) ** 2 for answer in answers)


def groups(answers: Sequence[Answer]) -> list[Group]:
    """The answers by their sureness, in the groups of ``EDGES`` that hold any."""
    found = []
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        inside = tuple(
            a for a in answers if low <= a.sure < high or a.sure == high == 1
        )
        if inside:
            found.append(Group(low, high, inside))
    return found


def verdict(answers: Sequence[Answer]) -> str:
    """One sentence: too sure, too modest, in agreement, or too few to tell."""
    whole = Group(0.0, 1.0, tuple(answers))
    low, high = whole.interval
    said = (
        f"sure to {_percent(whole.sure)} on average, right in {_percent(whole.share)}"
    )
    if whole.count < FEW:
        many = (
            "1 prediction is" if whole.count == 1 else f"{whole.count} predictions are"
        )
        return f"{many} too few to judge by ({said}): see from {FEW} on."
    said += f" (95 % interval {_range(low, high)})"
    if whole.sure > high:
        return f"You are too sure: {said}."
    if whole.sure < low:
        return f"You know more than you think: {said}."
    return f"Neither too sure nor too modest, as far as this shows: {said}."


def score(answers: Sequence[Answer]) -> str:
    """The Brier score, and what to hold it against."""
    share = fmean(answer.right for answer in answers)
    return (
        f"Brier score {brier(answers):.2f}: the mean of (sure - right)², right being 1 "
        "or 0; 0 is best. Always saying 50 % gets 0.25, always saying your own share "
        f"of right answers {share * (1 - share):.2f}: below that, your doubts know "
        "something."
    )


def text_plot(answers: Sequence[Answer]) -> str:
    """The figure in characters: a row a group of sureness, a scale for shares."""
    lines = [
        "  sure      right     0 %       25 %      50 %      75 %    100 %",
        *(_line(group) for group in groups(answers)),
        "  o share right, ---- its 95 % interval, | how sure you were (+ both at once)",
    ]
    return "\n".join(lines)


def _line(group: Group) -> str:
    row = ["."] * COLUMNS
    low, high = map(_column, group.interval)
    row[low : high + 1] = "-" * (high + 1 - low)
    right, sure = _column(group.share), _column(group.sure)
    row[right] = "o"
    row[sure] = "+" if right == sure else "|"
    counts = f"{group.right} of {group.count}"
    return f"  {group.name:<10}{counts:<10}{''.join(row)}"


def _column(share: float) -> int:
    return round(share * (COLUMNS - 1))


def in_words(answers: Sequence[Answer]) -> str:
    """The figure for who does not see it: each group, then the verdict."""
    parts = [
        f"{group.name} sure: {group.right} of {group.count} right "
        f"(95 % interval {_range(*group.interval)})"
        for group in groups(answers)
    ]
    return f"How sure against how right. {'; '.join(parts)}. {verdict(answers)}"


def as_data(answers: Sequence[Answer]) -> dict:
    """The same for programs; shares from 0 to 1, the score None without an answer."""
    return {
        "predictions": len(answers),
        "brier": brier(answers) if answers else None,
        "groups": [
            {
                "sure": [group.low, group.high],
                "mean_sure": group.sure,
                "count": group.count,
                "right": group.right,
                "interval": list(group.interval),
            }
            for group in groups(answers)
        ],
    }


def draw(answers: Sequence[Answer]) -> Figure:
    """Share right (y) against sureness (x), a point a group with its Wilson interval.

    On the dashed diagonal both agree; below it one is too sure. Each point is labelled
    with its counts.
    """
    import matplotlib.pyplot as plt

    from kdcourse.study.plots import COLOURS

    fig, axes = plt.subplots(figsize=(5.2, 4.4), layout="constrained")
    axes.plot([0, 100], [0, 100], color="#555555", linestyle="--", marker="")
    axes.annotate("as sure as right", (3, 8), color="#555555", fontsize=9, rotation=38)
    for group in groups(answers):
        x, y = 100 * group.sure, 100 * group.share
        low, high = (100 * bound for bound in group.interval)
        axes.plot([x, x], [low, high], color="black", linestyle="-", marker="_")
        axes.plot(x, y, color=COLOURS[0], marker="o", markersize=9, linestyle="")
        left = x > 85
        axes.annotate(
            f"{group.right} of {group.count}",
            (x, y),
            xytext=(-9 if left else 9, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=9,
        )
    axes.set_xlim(0, 103)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("how sure you said you were, per cent")
    axes.set_ylabel("how often you were right, per cent")
    return fig


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} %"
