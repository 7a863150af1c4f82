"""Next-token distributions: from logits to probabilities, entropy and perplexity.

Every function takes logits (..., V) of any leading shape, the vocabulary last, and
computes in float32: float64 stays float64, float16 and bfloat16 are raised. A logit of
-inf is a token that cannot be said: its probability is exactly 0, and so is its
gradient. Logarithms are natural, so entropies are in nats.
"""

from __future__ import annotations

import torch

from .arguments import (
    IGNORE,
    BadArgument,
    check_k,
    check_labels,
    check_logits,
    check_mask,
    check_temperature,
    widen,
)

__all__ = [
    "entropy",
    "log_probabilities",
    "peakedness",
    "perplexity",
    "probabilities",
    "sequence_log_probability",
    "sequence_perplexity",
    "top_k_mass",
]


def log_probabilities(
    logits: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """log Pr_T(v) = z_v / T - log Σ_w exp(z_w / T), in nats.

    T > 1 softens the distribution, T < 1 sharpens it (Hinton et al. 2015). ``logits``
    (..., V); the result has the same shape.

    Raises:
        BadArgument: logits that are no floating-point tensor, are empty, hold NaN or
            +inf or bar every token of a position; or T not above 0.
    """
    check_logits("logits", logits)
    check_temperature(temperature)
    return _log_probabilities(logits, temperature)


def probabilities(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Pr_T(v) = exp(z_v / T) / Σ_w exp(z_w / T).

    ``logits`` (..., V); the result has the same shape and sums to 1 over V.

    Raises:
        BadArgument: as ``log_probabilities``.
    """
    return log_probabilities(logits, temperature=temperature).exp()


def entropy(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """H = -Σ_v Pr_T(v) log Pr_T(v), in nats, with 0 log 0 = 0 (Shannon 1948).

    ``logits`` (..., V); the result (...) lies in 0..ln V.

    Raises:
        BadArgument: as ``log_probabilities``.
    """
    log_p = log_probabilities(logits, temperature=temperature)
    return _expectation(log_p, -log_p)


def perplexity(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """exp(H): as many equally likely choices would be as uncertain.

    ``logits`` (..., V); the result (...) lies in 1..V (Jelinek et al. 1977).

    Raises:
        BadArgument: as ``log_probabilities``.
    """
    return entropy(logits, temperature=temperature).exp()


def peakedness(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """max_v Pr_T(v): how sure the distribution is of its first choice.

    ``logits`` (..., V); the result (...) lies in 1/V..1.

    Raises:
        BadArgument: as ``log_probabilities``.
    """
    return probabilities(logits, temperature=temperature).amax(dim=-1)


def top_k_mass(
    logits: torch.Tensor, k: int, *, temperature: float = 1.0
) -> torch.Tensor:
    """Σ_{v ∈ top k} Pr_T(v): what is left of a distribution cut after k entries.

    ``logits`` (..., V), 1 ≤ k ≤ V; the result (...) lies in k/V..1.

    Raises:
        BadArgument: as ``log_probabilities``, or k outside 1..V.
    """
    check_logits("logits", logits)
    check_k(k, logits.shape[-1])
    chances = probabilities(logits, temperature=temperature)
    return chances.topk(k, dim=-1).values.sum(dim=-1)


def sequence_log_probability(
    logits: torch.Tensor, labels: torch.Tensor, *, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """log Pr(y) = Σ_t log Pr(y_t | y_<t), in nats (Sutskever et al. 2014).

    Args:
        logits: (..., L, V); those at t score the label at t.
        labels: (..., L) token ids, -100 where there is no token: never counted.
        mask: (..., L) bool, True for a token that counts. Without it, all labels but
            -100 count.

    Returns:
        (...). A sequence without a token has the value 0; one that contains a token
        that cannot be said, -inf.

    Raises:
        BadArgument: labels or mask of another shape, type or device than the logits
            ask for, ids outside 0..V-1, or bad logits.
    """
    log_probs, counted = _label_log_probabilities(logits, labels, mask)
    return log_probs.masked_fill(~counted, 0.0).sum(dim=-1)


def sequence_perplexity(
    logits: torch.Tensor, labels: torch.Tensor, *, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """exp(-1/N Σ log Pr(y_t | y_<t)) over the N tokens of all sequences, a scalar.

    One sum over all tokens is divided once by their number: a mean of the sequences'
    perplexities would weigh a token by the length of its sequence. Arguments as in
    ``sequence_log_probability`` (Jelinek et al. 1977). It is +inf, with a gradient of
    0, where a token cannot be said or exp overflows.

    Raises:
        BadArgument: as ``sequence_log_probability``, or nothing counts.
    """
    log_probs, counted = _label_log_probabilities(logits, labels, mask)
    number = int(counted.sum())
    if not number:
        raise BadArgument(
            "labels" if mask is None else "mask",
            "without a single token that counts",
            wanted="at least one",
            todo="Leave such a batch out: its perplexity is exp(0/0).",
        )
    nats = -log_probs.masked_fill(~counted, 0.0).sum() / number
    # exp would multiply its infinity by gradients of 0 and give NaN.
    endless = nats.detach().exp().isinf()
    return nats.masked_fill(endless, 0.0).exp().masked_fill(endless, torch.inf)


def _log_probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """``log_probabilities`` without its checks."""
    z = widen(logits)
    floats = torch.finfo(z.dtype)
    # 1e-50 would be 0 in float32 and 1e50 infinite: 0/0 and inf/inf.
    temperature = min(max(temperature, floats.tiny), floats.max)
    # The largest logit becomes 0 first, so that a small T cannot overflow it.
    shifted = (z - z.detach().amax(dim=-1, keepdim=True)) / temperature
    log_p = torch.log_softmax(shifted, dim=-1)
    # Filling changes no value; it stops whatever gradient arrives at log 0.
    return log_p.masked_fill(log_p.isneginf(), -torch.inf)


def _expectation(log_p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Σ_v p_v x_v (...) from log p and x (..., V), where p_v = 0 contributes 0.

    An infinite x_v where p_v > 0 makes the result +inf. It then is so for all finite
    logits, so its gradient is 0; the product rule would give NaN.
    """
    p = log_p.exp()
    never = p == 0  # not from log_p: a p too small for its dtype would make 0 · inf
    infinite = values.isinf()
    endless = (infinite & ~never).any(dim=-1)
    finite = (p * values.masked_fill(never | infinite, 0.0)).sum(dim=-1)
    return finite.masked_fill(endless, torch.inf)


def _label_log_probabilities(logits, labels, mask):
    """log Pr(y_t | y_<t) (..., L), and which positions (..., L) count."""
    check_logits("logits", logits)
    if logits.dim() < 2:
        raise BadArgument(
            "logits",
            f"of shape {tuple(logits.shape)}",
            wanted="positions and tokens, (..., L, V)",
            todo="For one position, pass logits[None] and labels[None].",
        )
    check_labels(labels, "logits", logits)
    counted = labels != IGNORE
    ids = labels.masked_fill(~counted, 0).long()
    if mask is not None:
        check_mask(mask, "logits", logits)
        counted = counted & mask
    log_p = _log_probabilities(logits, 1.0)
    return log_p.gather(-1, ids[..., None]).squeeze(-1), counted
