"""What survives of a context in a student that does not read it, with an interval."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import KdcourseError


@dataclass(frozen=True)
class Gain:
    """One student's share of right rows minus another's, a 95 % interval, and p."""

    gain: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Survival:
    """A share with a 95 % interval; all None where c was worth nothing for certain."""

    share: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None:
            return "inconclusive: the control is not surely better than the twin"
        return f"{self.share:.0%} [{self.low:.0%}, {self.high:.0%}]"


def survival(taught: float, control: float, twin: float) -> float | None:
    """(taught - twin) / (control - twin): the share of c's worth that survived.

    ``taught`` is the context-distilled student's figure, ``control`` that of the
    student that reads c itself, ``twin`` that of the student that neither reads c nor
    had a teacher that did. None where the control is no better than the twin: then c
    was worth nothing, and there is nothing to survive.
    """
    worth = control - twin
    return (taught - twin) / worth if worth > 0 else None


def resampled(
    rows: Sequence[Sequence[float]],
    groups: Sequence[Hashable],
    samples: int,
    seed: int,
) -> Iterator[list[float]]:
    """Means of each list of ``rows`` over resampled groups: a cluster bootstrap.

    Rows of one group (here: of one source) are no independent witnesses, as a model
    that reads z alone gives them one answer; so groups are drawn, not rows.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    sums = [
        [len(ids), *(sum(row[i] for i in ids) for row in rows)]
        for ids in members.values()
    ]
    rng = random.Random(seed)
    for _ in range(samples):
        drawn = rng.choices(sums, k=len(sums))
        count, *totals = (sum(column) for column in zip(*drawn, strict=True))
        yield [total / count for total in totals]


def paired_gain(
    ours: Sequence[float],
    theirs: Sequence[float],
    groups: Sequence[Hashable],
    samples: int = 2000,
    seed: int = 1,
) -> Gain:
    """Paired bootstrap over groups of rows: is the first student right more often?

    ``ours`` and ``theirs`` hold 1 for a row that is right, else 0. p is the share of
    the samples in which the sign of the gain is another one (Koehn 2004).
    """
    _check((ours, theirs), groups)
    gain = (sum(ours) - sum(theirs)) / len(ours)
    deltas = sorted(a - b for a, b in resampled([ours, theirs], groups, samples, seed))
    against = sum(d <= 0 if gain > 0 else d >= 0 for d in deltas)
    low, high = _middle(deltas)
    return Gain(gain, low, high, (against + 1) / (samples + 1))


def survives(
    taught: Sequence[float],
    control: Sequence[float],
    twin: Sequence[float],
    groups: Sequence[Hashable],
    samples: int = 2000,
    seed: int = 1,
) -> Survival:
    """``survival`` of the shares of right rows, with a bootstrap interval over groups.

    Inconclusive, without an interval, where in more than 2.5 % of the samples the
    control is no better than the twin: a ratio over a worth of about 0 says nothing.
    """
    rows = (taught, control, twin)
    _check(rows, groups)
    share = survival(*(sum(row) / len(row) for row in rows))
    drawn = [survival(*means) for means in resampled(rows, groups, samples, seed)]
    sure = sorted(ratio for ratio in drawn if ratio is not None)
    if share is None or samples - len(sure) > 0.025 * samples:
        return Survival(share)
    return Survival(share, *_middle(sure))


def _middle(values: list[float]) -> tuple[float, float]:
    """The bounds of the middle 95 % of sorted values."""
    cut = int(0.025 * len(values))
    return values[cut], values[-1 - cut]


def _check(rows: Sequence[Sequence[float]], groups: Sequence) -> None:
    if not groups or any(len(row) != len(groups) for row in rows):
        counts = ", ".join(str(len(row)) for row in rows)
        raise KdcourseError(
            f"The students answered {counts} rows, in {len(groups)} rows with a group.",
            wanted="one figure a row for each student, and one group a row; at least 1",
            todo="Let all read the same rows; give each row its source as its group.",
        )
