"""Losses of a batch for the training loop: ``loss(logits (N, V), batch)``, summed."""

from __future__ import annotations

import torch
from transformers import MarianMTModel

from ..theory.arguments import check_share
from ..theory.losses import cross_entropy, distillation_loss
from ..theory.signals import Dense
from .caching import SignalCache
from .own_vocabulary import other_vocabulary
from .training import Batch, Loss, token_logits


def word_loss(
    signals: SignalCache, alpha: float, divergence: str = "forward_kl"
) -> Loss:
    """(1 - α) T² D(Pr^t_T ‖ Pr^s_T) - α log Pr^s(y_t), the teacher's answers cached.

    D is any name of ``theory.divergences.DIVERGENCES``; T is the cache's temperature.
    """
    temperature = signals.temperature

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        answers = signals.signal(batch)
        return _mixed(logits, answers, batch, alpha, divergence, temperature)

    return loss


def live_loss(
    teacher: MarianMTModel,
    alpha: float,
    divergence: str = "forward_kl",
    precision: str = "float32",
) -> Loss:
    """The same with the whole distribution of a teacher that answers batch by batch."""
    teacher.eval().requires_grad_(False)

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            answers = token_logits(teacher, batch, precision)
        if answers.shape[-1] != logits.shape[-1]:
            raise other_vocabulary(answers.shape[-1], logits.shape[-1])
        return _mixed(logits, Dense(answers), batch, alpha, divergence)

    return loss


def _mixed(logits, answers, batch: Batch, alpha, divergence, temperature=1.0):
    return distillation_loss(
        logits,
        answers,
        labels=batch.real_labels,
        temperature=temperature,
        alpha=alpha,
        divergence=divergence,
        normalizer=1.0,
    )


def smoothed_loss(epsilon: float) -> Loss:
    """Label smoothing, the control whose "teacher" knows nothing (Szegedy et al. 2016).

    Σ_t [ -(1 - ε) log Pr^s(y_t) - ε/V Σ_v log Pr^s(v) ]: cross-entropy with a target
    that gives ε away, evenly. V counts the tokens that can be said: the pad, which
    the model's bias bars, is none of them.
    """
    check_share("epsilon", epsilon)

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        hard = cross_entropy(logits, batch.real_labels)
        # The pad is the last entry: -Σ_v log q_v / V over the others.
        log_q = logits[:, :-1].log_softmax(dim=-1)
        return (1.0 - epsilon) * hard - epsilon * log_q.mean(dim=-1).sum()

    return loss
