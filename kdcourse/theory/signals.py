"""The teacher's answer as a value: a loss never asks where it came from.

A full distribution over 4,000 subwords costs 16 kB a token. Almost all of its mass
lies on a few entries, so a cache keeps the k best and the mass of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TopKSignal:
    """The k largest probabilities of each token and what is left for all others.

    ``indices`` (N, k) integer token ids; ``log_probs`` (N, k) natural logarithms of
    Pr^t at temperature 1, not renormalised; ``missing`` (N,) is the rest of the mass,
    1 - Σ_k Pr^t. N counts real target tokens, row by row of a batch.
    """

    indices: torch.Tensor
    log_probs: torch.Tensor

    def __post_init__(self):
        if self.indices.shape != self.log_probs.shape or self.indices.dim() != 2:
            raise ValueError(
                f"indices have shape {tuple(self.indices.shape)} and log_probs "
                f"{tuple(self.log_probs.shape)}: both must be (tokens, k)."
            )

    @property
    def missing(self) -> torch.Tensor:
        """Probability mass outside the k entries, at least 0."""
        return (1.0 - self.log_probs.float().exp().sum(dim=1)).clamp_min(0.0)


def top_k_signal(teacher_logits: torch.Tensor, k: int) -> TopKSignal:
    """The k best of softmax(teacher_logits); logits are (N, V), 1 <= k <= V."""
    tokens, size = teacher_logits.shape
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}: it must lie between 1 and the vocabulary, {size}.")
    log_probs = torch.log_softmax(teacher_logits.float(), dim=-1)
    values, indices = log_probs.topk(k, dim=-1)
    return TopKSignal(indices, values)
