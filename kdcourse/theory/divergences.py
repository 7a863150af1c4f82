"""Divergences between a teacher's and a student's next-token distributions.

p is the teacher's distribution and q the student's, both softmax(z / T) over the
vocabulary. Every function takes logits (..., V) by name and gives one number for each
position, (...), in nats, computed in float32 (float64 where one of both is float64).
There is no factor T² here: the loss that softens with T multiplies by it.

A logit of -inf is a token that cannot be said. A token with p = 0 adds nothing to
Σ p log(p/q), even where q = 0; one with p > 0 = q makes it +inf, its true value.
Then the gradient of that position is 0, since no finite logit changes the value.
"Zero" means zero in the floats at hand: below about 1e-45 in float32.

The ``_name`` functions take log-probabilities of both, for code that has them already.
They have the gradient of the formula and stop none: whoever trains the student takes
the teacher's logits under ``torch.no_grad``.
"""

from __future__ import annotations

import math

import torch

from .arguments import (
    BadArgument,
    check_logits,
    check_same,
    check_temperature,
    is_number,
)
from .distributions import _expectation, _log_probabilities

__all__ = [
    "DIVERGENCES",
    "FROM_LOG_PROBS",
    "cross_entropy",
    "forward_kl",
    "generalised_js",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "total_variation",
]


def cross_entropy(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """H(p, q) = -Σ_v p_v log q_v, in nats (Hinton et al. 2015).

    It is H(p) + KL(p ‖ q): the gradient of the forward KL in the student, but H(p),
    not 0, at equality. +inf where q = 0 < p. Logits (..., V); the result is (...).

    Raises:
        BadArgument: logits that are no floating-point tensors of one shape, are
            empty, hold NaN or +inf or bar every token of a position; or T not above 0.
    """
    return _cross_entropy(*_log_pair(student_logits, teacher_logits, temperature))


def forward_kl(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(p ‖ q) = Σ_v p_v (log p_v - log q_v), in nats (Hinton et al. 2015).

    It punishes a student that gives little to what its teacher says; +inf where
    q = 0 < p. Logits (..., V); the result is (...).

    Raises:
        BadArgument: as ``cross_entropy``.
    """
    return _forward_kl(*_log_pair(student_logits, teacher_logits, temperature))


def reverse_kl(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(q ‖ p) = Σ_v q_v (log q_v - log p_v), in nats (Gu et al. 2024, MiniLLM).

    It punishes a student that says what its teacher would not; +inf where
    p = 0 < q. Logits (..., V); the result is (...).

    Raises:
        BadArgument: as ``cross_entropy``.
    """
    return _reverse_kl(*_log_pair(student_logits, teacher_logits, temperature))


def generalised_js(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> torch.Tensor:
    """β KL(p ‖ m) + (1-β) KL(q ‖ m), m = β p + (1-β) q (Agarwal et al. 2024, GKD).

    β = ½ is the Jensen-Shannon divergence: symmetric, at most ln 2. Divided by β it
    tends to the forward KL(p ‖ q) as β → 0, and divided by 1-β to the reverse
    KL(q ‖ p) as β → 1; undivided, both limits are 0. Always finite. Logits (..., V);
    the result (...) is in nats.

    Raises:
        BadArgument: β not strictly between 0 and 1, or as ``cross_entropy``.
    """
    _check_beta(beta)
    pair = _log_pair(student_logits, teacher_logits, temperature)
    return _generalised_js(*pair, beta)


def skew_kl(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    alpha: float = 0.1,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(p ‖ α p + (1-α) q), in nats (Ko et al. 2024, DistiLLM).

    α = 0 is the forward KL; α > 0 bounds it by -log α, so that it is finite where
    q = 0. Logits (..., V); the result is (...).

    Raises:
        BadArgument: α outside 0 ≤ α < 1, or as ``cross_entropy``.
    """
    _check_alpha(alpha)
    return _skew_kl(*_log_pair(student_logits, teacher_logits, temperature), alpha)


def skew_reverse_kl(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    alpha: float = 0.1,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(q ‖ (1-α) p + α q), in nats (Ko et al. 2024, DistiLLM).

    α = 0 is the reverse KL; α > 0 bounds it by -log α, so that it is finite where
    p = 0. Logits (..., V); the result is (...).

    Raises:
        BadArgument: α outside 0 ≤ α < 1, or as ``cross_entropy``.
    """
    _check_alpha(alpha)
    pair = _log_pair(student_logits, teacher_logits, temperature)
    return _skew_reverse_kl(*pair, alpha)


def total_variation(
    *,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """½ Σ_v |p_v - q_v|, in 0..1, a probability and so without a unit.

    At most √(KL/2) in either direction (Pinsker); as a distillation loss: Wen et al.
    2023, f-distill. Logits (..., V); the result is (...).

    Raises:
        BadArgument: as ``cross_entropy``.
    """
    return _total_variation(*_log_pair(student_logits, teacher_logits, temperature))


def _cross_entropy(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return _expectation(log_p, -log_q)


def _forward_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return _expectation(log_p, log_p - log_q)


def _reverse_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return _forward_kl(log_q, log_p)


def _generalised_js(
    log_p: torch.Tensor, log_q: torch.Tensor, beta: float = 0.5
) -> torch.Tensor:
    of_p = _kl_to_mixture(log_p, log_q, beta, 1.0 - beta)
    of_q = _kl_to_mixture(log_q, log_p, 1.0 - beta, beta)
    return beta * of_p + (1.0 - beta) * of_q


def _skew_kl(
    log_p: torch.Tensor, log_q: torch.Tensor, alpha: float = 0.1
) -> torch.Tensor:
    if alpha == 0.0:
        return _forward_kl(log_p, log_q)
    return _kl_to_mixture(log_p, log_q, alpha, 1.0 - alpha)


def _skew_reverse_kl(
    log_p: torch.Tensor, log_q: torch.Tensor, alpha: float = 0.1
) -> torch.Tensor:
    return _skew_kl(log_q, log_p, alpha)


def _total_variation(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(dim=-1)


def _kl_to_mixture(
    log_a: torch.Tensor, log_b: torch.Tensor, own: float, other: float
) -> torch.Tensor:
    """KL(a ‖ own · a + other · b) = -Σ_v a_v log(own + other · b_v / a_v).

    The ratio b/a, not the mixture, stands in the logarithm: at equality it is exactly
    1, where log a - log m would leave the rounding of two large numbers.
    """
    # A token without a adds nothing; 0/0 among the ratios would make NaN gradients.
    log_ratio = (log_b - log_a).masked_fill(log_a.isneginf(), 0.0)
    weights = (log_ratio.new_tensor(math.log(weight)) for weight in (own, other))
    log_own, log_other = weights
    return _expectation(log_a, -torch.logaddexp(log_own, log_other + log_ratio))


DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "generalised_js": generalised_js,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "total_variation": total_variation,
}
"""The divergences, zero where student and teacher agree, by name."""

FROM_LOG_PROBS = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "generalised_js": _generalised_js,
    "skew_kl": _skew_kl,
    "skew_reverse_kl": _skew_reverse_kl,
    "total_variation": _total_variation,
}
"""The same as functions (log p, log q) of log-probabilities (..., V), unchecked."""


def _log_pair(student_logits, teacher_logits, temperature):
    """log p of the teacher and log q of the student, in this order, once checked."""
    check_logits("student_logits", student_logits)
    check_logits("teacher_logits", teacher_logits)
    check_same("student_logits", student_logits, "teacher_logits", teacher_logits)
    check_temperature(temperature)
    pair = (teacher_logits, student_logits)
    return tuple(_log_probabilities(logits, temperature) for logits in pair)


def _check_beta(beta: float) -> None:
    if not is_number(beta) or not 0.0 < beta < 1.0:
        raise BadArgument(
            "beta",
            f"{beta!r}",
            wanted="a number strictly between 0 and 1",
            todo="Take forward_kl for the limit at 0 and reverse_kl for that at 1.",
        )


def _check_alpha(alpha: float) -> None:
    if not is_number(alpha) or not 0.0 <= alpha < 1.0:
        raise BadArgument(
            "alpha",
            f"{alpha!r}",
            wanted="a number from 0 up to, but not including, 1",
            todo="Take 0.1; at 1 the divergence would be 0 for every student.",
        )
