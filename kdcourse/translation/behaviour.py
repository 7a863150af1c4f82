"""How a model behaves, beside how good it is: peakedness and calibration."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import torch
from transformers import MarianMTModel, PreTrainedTokenizerFast

from ..errors import KdcourseError
from ..theory.arguments import IGNORE
from .sampling import own_outputs
from .training import Batch, Example, token_batches, token_logits
from .vocabulary import EOS_ID

BATCH_TOKENS = 2000


def _batches(examples: list[Example], pad: int) -> Iterator[Batch]:
    if not examples:
        raise KdcourseError(
            "No sentence to look at.",
            wanted="at least one",
            todo="Pass some sources of the test split.",
        )
    yield from token_batches(examples, BATCH_TOKENS, pad, random.Random(0), "source")


@torch.no_grad()
def peakedness(
    model: MarianMTModel, vocabulary: PreTrainedTokenizerFast, sources: list[str]
) -> float:
    """The mean of Pr(ŷ | z), ŷ the model's own greedy translation, in 0..1.

    Kim & Rush (2016) report it as p(t = ŷ): a student taught on the teacher's
    translations puts much more of its mass on one of them, and its greedy search then
    finds nearly what a beam would. Translations that do not end within the limit
    count with the probability of what was said.
    """
    pad, rows = model.config.pad_token_id, vocabulary(sources)["input_ids"]
    examples = [Example(row, [EOS_ID], key) for key, row in enumerate(rows)]
    total = 0.0
    for batch in _batches(examples, pad):
        said = own_outputs(model.eval(), batch, sample=False)
        log_q = token_logits(model, said, "float32").log_softmax(dim=-1)
        chosen = log_q.gather(1, said.real_labels[:, None]).squeeze(1)
        real = said.labels != IGNORE
        by_row = chosen.new_zeros(real.shape).masked_scatter_(real, chosen).sum(dim=1)
        total += float(by_row.exp().sum())
    return total / len(examples)


@torch.no_grad()
def calibration_error(
    model: MarianMTModel, examples: Iterable[Example], bins: int = 10
) -> float:
    """Expected calibration error of next-token predictions, in 0..1.

    Σ_b n_b / N · |accuracy_b - confidence_b| over ``bins`` equal intervals of the
    largest probability (Guo et al. 2017), teacher-forced on the examples' targets:
    of the tokens of which a model is 80 % sure, are 80 % right?
    """
    confidence, right = [], []
    for batch in _batches(list(examples), model.config.pad_token_id):
        probabilities = token_logits(model.eval(), batch, "float32").softmax(dim=-1)
        best, guess = probabilities.max(dim=-1)
        confidence.append(best)
        right.append((guess == batch.real_labels).float())
    return binned_gap(torch.cat(confidence), torch.cat(right), bins)


def binned_gap(confidence: torch.Tensor, right: torch.Tensor, bins: int = 10) -> float:
    """The expected calibration error of N guesses with confidences (N,) in 0..1."""
    place = (confidence * bins).long().clamp(max=bins - 1)
    count = torch.zeros(bins).index_add(0, place, torch.ones_like(confidence))
    gap = torch.zeros(bins).index_add(0, place, right - confidence)
    return float(gap.abs().sum() / count.sum())
