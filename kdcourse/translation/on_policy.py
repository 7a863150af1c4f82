"""On-policy distillation: the teacher scores what the student itself says.

Taught on references or on the teacher's translations, a student never sees the
prefixes that it will make, with its own mistakes in them (exposure bias). Here a share
λ of the steps takes its targets from the student (Agarwal et al. 2024, GKD)::

    L(θ) = (1 - λ) E_{y ~ data} Σ_t D(Pr^t ‖ Pr^s) + λ E_{y ~ Pr^s} Σ_t D(Pr^t ‖ Pr^s)

and no gradient flows through the sampling. It costs time: each such step must first
be said, token by token, and the teacher must be there to answer.
"""

from __future__ import annotations

import time

import torch
from transformers import MarianMTModel

from ..theory.arguments import check_share
from .caching import SignalCache
from .losses import live_loss, word_loss
from .sampling import own_outputs
from .training import Batch


class OnPolicyMix:
    """The two hooks of a ``Trainer``: ``rewrite`` chooses the targets, ``loss`` scores.

    ``share`` is λ, in 0..1: one draw a step decides for the whole batch. ``alpha`` is
    the share of hard labels in the steps on data; the student's own samples are no
    labels, so there it is 0. ``signals`` answer for the teacher in the steps on data,
    where they are cached; else it answers live in all. ``seconds`` counts what sampling
    and the teacher cost.
    """

    def __init__(
        self,
        teacher: MarianMTModel,
        share: float,
        divergence: str = "generalised_js",
        alpha: float = 0.0,
        signals: SignalCache | None = None,
        precision: str = "float32",
    ):
        check_share("share", share)
        self.share, self.sampled = share, False
        self.seconds = {"sampling": 0.0, "scoring": 0.0}
        self.steps = {"data": 0, "samples": 0}
        self.on_data = (
            live_loss(teacher, alpha, divergence, precision)
            if signals is None
            else word_loss(signals, alpha, divergence)
        )
        self.on_samples = live_loss(teacher, 0.0, divergence, precision)

    def rewrite(self, student: MarianMTModel, batch: Batch) -> Batch:
        """The batch as it is, or with targets sampled from the student."""
        self.sampled = float(torch.rand(())) < self.share
        self.steps["samples" if self.sampled else "data"] += 1
        if not self.sampled:
            return batch
        started = time.monotonic()
        batch = own_outputs(student, batch)
        self.seconds["sampling"] += time.monotonic() - started
        return batch

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """D to the teacher, summed over the real tokens of the batch."""
        started = time.monotonic()
        total = (self.on_samples if self.sampled else self.on_data)(logits, batch)
        self.seconds["scoring"] += time.monotonic() - started
        return total
