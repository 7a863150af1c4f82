"""What a student is told: a method, and the teacher's answers that it needs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from transformers import MarianMTModel

from ..errors import KdcourseError
from ..theory.arguments import check_choice, check_share, check_softening
from ..theory.divergences import FROM_LOG_PROBS
from ..theory.losses import distillation_loss
from ..theory.signals import Dense, Signal
from .caching import SignalCache
from .distil import Method, check_answers
from .losses import smoothed_loss
from .training import Batch, reference_loss, token_logits


@dataclass(frozen=True)
class Teaching:
    """One row of the objective with its numbers, checked when it is made.

    ``teacher`` answers live; ``signals`` were cached. ``alpha`` is the share of hard
    labels, ``temperature`` T.

    Raises:
        KdcourseError: the method lacks its teacher's answers, or has no use for them.
        BadArgument: an unknown divergence, or a number out of range.
    """

    method: Method
    teacher: MarianMTModel | None = None
    signals: SignalCache | None = None
    alpha: float = 0.0
    temperature: float = 1.0

    def __post_init__(self):
        method = self.method
        check_share("alpha", self.alpha)
        check_share("share", method.share)
        check_softening(self.temperature)
        if method.divergence is not None:
            check_choice("divergence", method.divergence, FROM_LOG_PROBS)
        answers = [n for n in ("signals", "teacher") if getattr(self, n) is not None]
        check_answers(method, answers)
        if method.share and self.signals is not None:
            raise KdcourseError(
                "Signals were given beside a teacher that answers live.",
                wanted="the teacher alone: it answers for data and samples alike",
                todo="Leave signals= out.",
            )

    def loss(self, logits: torch.Tensor, batch: Batch, own: bool) -> torch.Tensor:
        """Σ_t over the real tokens; logits (N, V). ``own``: the student's samples.

        Those are no labels, so that α is 0 there.
        """
        if self.method.divergence is None:
            smoothing = self.method.smoothing
            return (smoothed_loss(smoothing) if smoothing else reference_loss)(
                logits, batch
            )
        return distillation_loss(
            logits,
            self._answers(batch, logits.device),
            labels=batch.real_labels,
            alpha=0.0 if own else self.alpha,
            divergence=self.method.divergence,
            temperature=self.temperature,
            normalizer=1.0,
        )

    def _answers(self, batch: Batch, device: torch.device) -> Signal:
        if self.teacher is not None:
            with torch.no_grad():
                return Dense(token_logits(self.teacher, batch, "float32"))
        signal = self.signals.signal(batch)
        parts = {f.name: getattr(signal, f.name) for f in fields(signal)}
        tensors = {n: v for n, v in parts.items() if isinstance(v, torch.Tensor)}
        return replace(signal, **{n: v.to(device) for n, v in tensors.items()})
