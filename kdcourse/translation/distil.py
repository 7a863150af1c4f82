"""Distil a teacher into a student: one function, four kinds of lesson.

==========  ====================================  ==================================
method      target sequences                      loss on each target token
==========  ====================================  ==================================
untaught    references                            cross-entropy
word        references                            KL to the teacher's distribution
sequence    the teacher's beam translations       cross-entropy
both        the teacher's beam translations       KL to the teacher's distribution
==========  ====================================  ==================================

All four start from the same weights, read the same sources in the same order and
stop at the same number of target tokens: only what they are told differs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import MarianMTModel, PreTrainedTokenizerFast

from ..errors import KdcourseError
from ..theory.losses import distillation_loss
from .augmentation import Augmenter, name_spans
from .caching import SignalCache
from .examples import MAX_TOKENS
from .models import STUDENT, Architecture, build_model
from .training import Batch, Example, Recipe, Trainer
from .vocabulary import SubwordSampler

METHODS = ("untaught", "word", "sequence", "both")


def with_invented_names(
    sources: list[str], references: list[str], copies: int, seed: int
) -> tuple[list[str], list[str]]:
    """The corpus, then ``copies`` more of its rows with names, the names exchanged.

    These are the sentences on which the student learns to copy what it never saw;
    the teacher translates them as it does all others.
    """
    spans = [
        n for s, r in zip(sources, references, strict=True) for n in name_spans(s, r)
    ]
    augment, rng = Augmenter(spans, 1.0, sources), random.Random(seed)
    pairs = list(zip(sources, references, strict=True))
    made = dict(pairs)
    extra: dict[str, str] = {}
    for _ in range(copies):
        for source, reference in pairs:
            new_source, new_reference = augment(source, reference, rng)
            if new_source not in made:
                extra.setdefault(new_source, new_reference)
    pairs += extra.items()
    return [s for s, _ in pairs], [r for _, r in pairs]


@dataclass
class StudentEpochs:
    """Fixed targets, sources cut anew each epoch, which depends on its number alone."""

    sources: list[str]
    targets: list[list[int]]
    sampler: SubwordSampler

    def __call__(self, epoch: int) -> list[Example]:
        """The examples of an epoch, in the order of the rows."""
        rng = random.Random(f"student/{epoch}")
        return [
            Example(self.sampler.encode(source, rng), target, key)
            for key, (source, target) in enumerate(
                zip(self.sources, self.targets, strict=True)
            )
        ]


def encode_targets(
    targets: list[str], vocabulary: PreTrainedTokenizerFast
) -> list[list[int]]:
    """Target token ids, EOS last, cut so that one endless row cannot fill a batch."""
    eos = vocabulary.eos_token_id
    rows = vocabulary(targets)["input_ids"]
    return [
        ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], eos] for ids in rows
    ]


def distil(
    method: str,
    sources: list[str],
    targets: list[str],
    vocabulary: PreTrainedTokenizerFast,
    recipe: Recipe,
    *,
    signals: SignalCache | None = None,
    alpha: float = 0.0,
    architecture: Architecture = STUDENT,
    **trainer_options,
) -> tuple[MarianMTModel, list[dict]]:
    """Train one student; return it with its learning curve.

    ``targets`` are the references for "untaught" and "word", the teacher's beam
    translations for "sequence" and "both"; "word" and "both" also need ``signals``,
    cached on these targets. ``recipe.seed`` fixes weights, dropout and order;
    ``alpha`` is the share of hard labels in the word-level loss. Further options go
    to ``Trainer``: folder, validate, validate_every, report.
    """
    soft = method in ("word", "both")
    _check_request(method, sources, targets, recipe, soft, signals)
    epochs = StudentEpochs(
        sources, encode_targets(targets, vocabulary), SubwordSampler(vocabulary)
    )
    trainer = Trainer(
        build_model(architecture, vocabulary, recipe.seed),
        recipe,
        epochs,
        loss=word_loss(signals, alpha) if soft else None,
        **trainer_options,
    )
    return trainer.run(), trainer.history


def _check_request(method, sources, targets, recipe, soft, signals) -> None:
    if method not in METHODS:
        raise KdcourseError(
            f"Unknown method {method!r}.",
            wanted=f"one of {', '.join(METHODS)}",
            todo="See the table at the head of kdcourse.translation.distil.",
        )
    if soft != (signals is not None):
        raise KdcourseError(
            f"Method {method!r} {'without' if soft else 'with'} signals.",
            wanted="signals for word and both, none for untaught and sequence",
            todo="Make them with cache_signals(), or leave them out.",
        )
    if len(sources) != len(targets):
        raise KdcourseError(
            f"{len(sources)} sources but {len(targets)} targets.",
            wanted="one target a source, in the same order",
            todo="Join them by key (Labels), never by position in two files.",
        )
    if recipe.group_by != "source":
        raise KdcourseError(
            f"recipe.group_by is {recipe.group_by!r}.",
            wanted='"source": batches then hold the same rows whatever the targets are',
            todo='Make the recipe with group_by="source".',
        )


def word_loss(signals: SignalCache, alpha: float):
    """The word-level loss of a batch, its teacher's answers taken from the cache."""

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        answers, labels = signals.signal(batch), batch.real_labels
        return distillation_loss(
            logits, answers, labels=labels, alpha=alpha, normalizer=1.0
        )

    return loss
