"""Sequence-level interpolation: the teacher's candidate that is nearest the reference.

Kim & Rush (2016, section 3.3): of the teacher's n best translations train on
ỹ = argmax_{t ∈ n best} sim(t, y), which is probable under the teacher and close to what
a person wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sacrebleu.metrics import BLEU, CHRF

from ..errors import KdcourseError
from .labelling import Labels

METRICS = ("chrf", "bleu")


def similarity(metric: str) -> Callable[[str, str], float]:
    """The sentence score (0..100) of a candidate against a reference, by its name.

    "chrf" is sentence chrF2; "bleu" sentence BLEU with effective order, so that a
    sentence of three words can have a score above zero.
    """
    if metric not in METRICS:
        raise KdcourseError(
            f"Unknown metric {metric!r}.",
            wanted=f"one of {', '.join(METRICS)}",
            todo="Leave it out for chrf.",
        )
    scorer = CHRF() if metric == "chrf" else BLEU(effective_order=True)
    return lambda candidate, reference: (
        scorer.sentence_score(candidate, [reference]).score
    )


def closest(candidates: Sequence[str], reference: str, metric: str = "chrf") -> str:
    """The candidate most similar to the reference; of equals the first, the likeliest.

    Raises:
        KdcourseError: no candidate, or an unknown metric.
    """
    if isinstance(candidates, str) or not candidates:
        raise KdcourseError(
            f"{candidates!r} are no candidates.",
            wanted="a list of one translation or more",
            todo="Pass labels.candidates(source).",
        )
    score = similarity(metric)
    return max(candidates, key=lambda candidate: score(candidate, reference))


def interpolate(
    sources: Sequence[str],
    references: Sequence[str],
    labels: Labels,
    metric: str = "chrf",
) -> list[str]:
    """For each source the teacher's candidate that is closest to its reference."""
    return [
        closest(labels.candidates(source), reference, metric)
        for source, reference in zip(sources, references, strict=True)
    ]
