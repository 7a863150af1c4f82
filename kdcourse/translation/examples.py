"""From corpus rows to the token ids that a training epoch reads."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from .augmentation import Augmenter, name_spans
from .corpus import Row
from .training import Example
from .vocabulary import SubwordSampler

MAX_TOKENS = 200


@dataclass
class SampledEpochs:
    """Each epoch anew: made-up names on both sides, sources cut into other subwords.

    Targets keep the tokenizer's best segmentation: another one each time would only
    blur what the decoder should say. ``related`` holds further (tag, row) pairs, such
    as English to Galician; each of the first ``related_epochs`` draws as many of them
    as there are main rows. An epoch depends on nothing but its number, so that a
    resumed training sees the same examples.
    """

    rows: list[Row]
    vocabulary: PreTrainedTokenizerFast
    related: list[tuple[str, Row]] = field(default_factory=list)
    related_epochs: int = 0
    invented_names: float = 0.4
    stream: str = "data"

    def __post_init__(self):
        spans = [n for r in self.rows for n in name_spans(r.source, r.target)]
        self.augment = Augmenter(spans, self.invented_names)
        self.sampler = SubwordSampler(self.vocabulary)

    def __call__(self, epoch: int) -> list[Example]:
        """The examples of an epoch."""
        rng = random.Random(f"{self.stream}/{epoch}")
        pool = [("", row) for row in self.rows]
        if epoch < self.related_epochs:
            pool += rng.sample(self.related, min(len(pool), len(self.related)))
        sources, texts = [], []
        for tag, row in pool:
            source, target = self.augment(row.source, row.target, rng)
            sources.append(self.sampler.encode(f"{tag} {source}", rng))
            texts.append(target)
        targets = self.vocabulary(texts)["input_ids"]
        pairs = zip(sources, targets, strict=True)
        return [Example(s, t) for s, t in pairs if max(len(s), len(t)) <= MAX_TOKENS]


def fixed_examples(
    sources: list[str], targets: list[str], vocabulary: PreTrainedTokenizerFast
) -> list[Example]:
    """The tokenizer's best segmentation of each pair; ``key`` is the row's number."""
    pairs = zip(
        vocabulary(sources)["input_ids"], vocabulary(targets)["input_ids"], strict=True
    )
    return [Example(s, t, key) for key, (s, t) in enumerate(pairs)]
