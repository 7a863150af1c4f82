"""The divergences from their definitions, and how to see which of them a loss is.

Written out in float64, with no code of the losses under test.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .worlds import World


def kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(a || b) of probabilities over the last dimension, with 0 log 0 = 0."""
    return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(-1)


def mixed_kl(p: Tensor, q: Tensor, beta: float, share: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = share p + (1 - share) q."""
    m = share * p + (1 - share) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


REFERENCES = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "generalised_js": lambda p, q, beta=0.5: mixed_kl(p, q, beta, beta),
    "skew_kl": lambda p, q: kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.9 * p + 0.1 * q),
    "total_variation": lambda p, q: 0.5 * (p - q).abs().sum(-1),
}
"""What ``divergences.DIVERGENCES`` should give of p (teacher) and q (student)."""


OPPOSITE = {
    "forward_kl": "reverse_kl",
    "reverse_kl": "forward_kl",
    "skew_kl": "skew_reverse_kl",
    "skew_reverse_kl": "skew_kl",
}


# What comes out of kl_div(input, target) = Σ target (log target - input) where the
# input is no log-probability, and of a cross-entropy.
OTHER_FORMULAS = {
    "cross_entropy": lambda p, q, z: -torch.xlogy(p, q).sum(-1),
    "kl_div of probabilities": lambda p, q, z: (torch.xlogy(p, p) - p * q).sum(-1),
    "kl_div of probabilities, swapped": lambda p, q, z: (torch.xlogy(q, q) - q * p).sum(
        -1
    ),
    "kl_div of raw logits": lambda p, q, z: (torch.xlogy(p, p) - p * z).sum(-1),
}


def both_probabilities(world: World, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's, in this order."""
    pair = (world.teacher, world.student)
    return tuple((x.double() / temperature).softmax(-1) for x in pair)


def match_formula(
    values: Tensor, candidates: dict[str, Tensor], tolerance: float = 1e-3
):
    """(name, factor) of the candidate that the values are a positive multiple of."""
    if not values.isfinite().all() or values.norm() < 1e-7:
        return None, math.nan
    for name, wanted in candidates.items():
        if not wanted.isfinite().all():
            continue
        factor = ((values @ wanted) / (wanted @ wanted)).item()
        misses = (values - factor * wanted).norm()
        if factor > 0 and misses < tolerance * values.norm():
            return name, factor
    return None, math.nan


def near(a: float, b: float, tolerance: float = 1e-3) -> bool:
    """Numbers that differ by no more than a share of the larger."""
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) + 1e-7


def alike(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    """Tensors whose difference is small beside the larger of them."""
    return bool((a - b).norm() <= tolerance * max(a.norm(), b.norm()) + 1e-9)


def ratio_of(a: float, b: float) -> float:
    """a / b, NaN where b is nothing."""
    return a / b if abs(b) > 1e-9 else math.nan


def figure(number: float) -> str:
    """Three digits at most; what is only rounding is 0 on every machine."""
    return "0" if abs(number) < 1e-5 else f"{number:.3g}"
