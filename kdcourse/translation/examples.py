"""From corpus rows to the token ids that a training epoch reads."""

from __future__ import annotations

import random
from collections.abc import Set
from dataclasses import dataclass

from .augmentation import Augmenter, name_spans
from .corpus import Row, near_keys
from .training import Example
from .vocabulary import SubwordSampler, Vocabulary

MAX_TOKENS = 200


@dataclass
class SampledEpochs:
    """Each epoch anew: made-up names on both sides, sources cut into other subwords.

    Targets keep the tokenizer's best segmentation: another one each time would only
    blur what the decoder should say. ``brands`` also builds names from the sources'
    ordinary words. A row that an exchanged name would make a near-duplicate of a
    held-out string, by its ``near_keys`` in ``held``, stays as it was. An epoch depends
    on nothing but its number and ``stream``, so that a resumed training sees the same
    examples.
    """

    rows: list[Row]
    vocabulary: Vocabulary
    invented_names: float = 0.4
    brands: bool = False
    stream: str = "data"
    held: Set[str] = frozenset()

    def __post_init__(self):
        spans = [n for r in self.rows for n in name_spans(r.source, r.target)]
        texts = [row.source for row in self.rows] if self.brands else ()
        self.augment = Augmenter(spans, self.invented_names, texts)
        self.sampler = SubwordSampler(self.vocabulary)

    def __call__(self, epoch: int) -> list[Example]:
        """The examples of an epoch."""
        rng = random.Random(f"{self.stream}/{epoch}")
        sources, texts = [], []
        for row in self.rows:
            source, target = self.augment(row.source, row.target, rng)
            if source != row.source and near_keys(source) & self.held:
                source, target = row.source, row.target
            sources.append(self.sampler.encode(source, rng))
            texts.append(target)
        targets = self.vocabulary(text_target=texts)["input_ids"]
        pairs = zip(sources, targets, strict=True)
        return [Example(s, t) for s, t in pairs if max(len(s), len(t)) <= MAX_TOKENS]


def fixed_examples(
    sources: list[str], targets: list[str], vocabulary: Vocabulary
) -> list[Example]:
    """The tokenizer's best segmentation of each pair; ``key`` is the row's number."""
    pairs = zip(
        vocabulary(sources)["input_ids"],
        vocabulary(text_target=targets)["input_ids"],
        strict=True,
    )
    return [Example(s, t, key) for key, (s, t) in enumerate(pairs)]


def encode_targets(targets: list[str], vocabulary: Vocabulary) -> list[list[int]]:
    """Target token ids, EOS last, cut so that one endless row cannot fill a batch.

    As targets: a vocabulary may cut its two languages in different ways.
    """
    return _cut(vocabulary(text_target=targets)["input_ids"], vocabulary)


def encode_sources(sources: list[str], vocabulary: Vocabulary) -> list[list[int]]:
    """Source token ids, EOS last, cut in the same way."""
    return _cut(vocabulary(sources)["input_ids"], vocabulary)


def _cut(rows: list[list[int]], vocabulary: Vocabulary) -> list[list[int]]:
    eos = vocabulary.eos_token_id
    return [
        ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], eos] for ids in rows
    ]
