"""Distillation losses as pure functions, summed over tokens in float32.

Each takes logits of real tokens only, (N, V), and returns a sum over the N tokens:
whoever holds the batch divides once by its number of real tokens. The loss then
does not depend on padding, batch shape or gradient accumulation.
"""

from __future__ import annotations

import torch

from .signals import TopKSignal

TINY = 1e-9


class _CrossEntropy(torch.autograd.Function):
    """Summed cross-entropy that keeps one (N, V) tensor where autograd keeps three.

    Value: -Σ log softmax(z)_y; gradient: softmax(z) - onehot(y).
    """

    @staticmethod
    def forward(ctx, logits, labels):
        probabilities = torch.softmax(logits, dim=-1)
        ctx.save_for_backward(probabilities, labels)
        chosen = logits.gather(1, labels[:, None]).squeeze(1)
        return (torch.logsumexp(logits, dim=-1) - chosen).sum()

    @staticmethod
    def backward(ctx, upstream):
        gradient, labels = ctx.saved_tensors
        minus_one = gradient.new_full((len(labels), 1), -1.0)
        return gradient.scatter_add(1, labels[:, None], minus_one).mul_(upstream), None


def cross_entropy(student_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-Σ_t log Pr^s(y_t | y_<t, z), in nats.

    With labels from the reference this trains an untaught student; with the teacher's
    own output ŷ it is the target-generated loss of sequence-level distillation
    (Kim & Rush 2016, eq. 8). ``student_logits`` (N, V); ``labels`` (N,) token ids.
    """
    return _CrossEntropy.apply(student_logits.float(), labels)


def top_k_divergence(student_logits: torch.Tensor, signal: TopKSignal) -> torch.Tensor:
    """Forward KL(Pr^t ‖ Pr^s) over the k kept entries and one bucket for the rest.

    Σ_n [ Σ_{v ∈ top k} p_v (log p_v - log q_v) + r (log r - log s) ], in nats, with p
    the teacher, q the student, r = 1 - Σ_{v ∈ top k} p_v and s likewise for q. Merging
    entries never raises a KL, so this is a lower bound of the full one; it reaches it
    at k = V and is zero only where the student agrees on every kept entry. The kept
    probabilities are not renormalised: that would teach the student to forget the rest.
    """
    log_q = torch.log_softmax(student_logits.float(), dim=-1).gather(
        1, signal.indices.long()
    )
    log_p = signal.log_probs.float()
    p, rest = log_p.exp(), signal.missing
    student_rest = (1.0 - log_q.exp().sum(dim=1)).clamp_min(TINY)
    kept = (p * (log_p - log_q)).sum()
    bucket = rest * (rest.clamp_min(TINY).log() - student_rest.log())
    return kept + bucket.sum()


def word_level(
    student_logits: torch.Tensor,
    signal: TopKSignal,
    labels: torch.Tensor,
    *,
    alpha: float = 0.0,
) -> torch.Tensor:
    """Word-level distillation: (1 - alpha) · KL(Pr^t ‖ Pr^s) + alpha · cross-entropy.

    Response-based distillation at temperature 1 on every target token (Hinton et al.
    2015; Kim & Rush 2016, eq. 7), from a top-k signal, with hard labels mixed in.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(
            f"alpha is {alpha}: the share of the hard labels lies in 0..1."
        )
    loss = (1.0 - alpha) * top_k_divergence(student_logits, signal)
    if alpha:
        loss = loss + alpha * cross_entropy(student_logits, labels)
    return loss
