"""The teacher's answers to every target token of a corpus, kept for many epochs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import MarianMTModel

from ..errors import KdcourseError
from ..theory.signals import TopK, top_k
from .training import Batch, Example, token_batches, token_logits


@dataclass
class SignalCache:
    """Top-k answers of the teacher for every target token of a corpus, row by row.

    ``offsets[i]`` is where row i begins; a row has one entry a target token, EOS
    included. The row numbers are those of the examples the cache was made from.
    """

    indices: torch.Tensor
    log_probs: torch.Tensor
    offsets: torch.Tensor

    def signal(self, batch: Batch) -> TopK:
        """The teacher's answers to a batch, in the order of its real tokens."""
        spans = [
            torch.arange(int(self.offsets[k]), int(self.offsets[k + 1]))
            for k in batch.keys
        ]
        rows = torch.cat(spans)
        if len(rows) != batch.tokens:
            raise KdcourseError(
                f"The cache has {len(rows)} answers for {batch.tokens} target tokens.",
                wanted="signals cached from the very targets that are trained on",
                todo="Call cache_signals() on these examples.",
            )
        return TopK(self.indices[rows], self.log_probs[rows])

    @property
    def kept_mass(self) -> float:
        """The mean share of the teacher's mass that the k entries hold."""
        return float(self.log_probs.float().exp().sum(dim=1).mean())


def cache_signals(
    teacher: MarianMTModel,
    examples: list[Example],
    k: int = 8,
    *,
    precision: str = "float32",
    batch_tokens: int = 2000,
    progress: Callable[[int], None] | None = None,
) -> SignalCache:
    """Ask the teacher once, teacher-forced, about every token; keep the k best."""
    lengths = torch.tensor([0] + [len(e.target) for e in examples])
    offsets = lengths.cumsum(0)
    total = int(offsets[-1])
    indices = torch.empty(total, k, dtype=torch.int16)
    log_probs = torch.empty(total, k, dtype=torch.float16)
    keyed = [Example(e.source, e.target, row) for row, e in enumerate(examples)]
    cache = SignalCache(indices, log_probs, offsets)
    teacher.eval()
    with torch.inference_mode():
        pad = teacher.config.pad_token_id
        for batch in token_batches(keyed, batch_tokens, pad, random.Random(0)):
            logits = token_logits(teacher, batch, precision)
            signal = top_k(logits, k)
            rows = torch.cat(
                [torch.arange(int(offsets[r]), int(offsets[r + 1])) for r in batch.keys]
            )
            indices[rows] = signal.indices.to(torch.int16)
            log_probs[rows] = signal.log_probs.to(torch.float16)
            if progress:
                progress(batch.tokens)
    return cache
