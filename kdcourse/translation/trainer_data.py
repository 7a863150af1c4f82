"""From a set of ``datasets`` to the batches of ``DistillationTrainer``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from ..errors import KdcourseError
from .examples import encode_sources, encode_targets
from .labelling import Labels, unlabelled
from .training import Batch, Example, collate

COLUMNS = ("input_ids", "labels", "key")


def sides(
    dataset: Dataset, languages: tuple[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Sources and targets of a set with the standard ``translation`` column.

    ``languages`` (source, target) are by default those of the column, in its order.

    Raises:
        KdcourseError: no such column or language, no row, or a row without its text.
    """
    if "translation" not in dataset.column_names:
        raise KdcourseError(
            f"The data have the columns {', '.join(dataset.column_names) or 'none'}.",
            wanted='"translation", with a text for each of two languages',
            todo="Load them with load_corpus(), or make the column with dataset.map().",
        )
    if not len(dataset):
        raise KdcourseError(
            "The data have no rows.",
            wanted="at least one pair",
            todo="Look at the split, and at what select() and filter() left of it.",
        )
    rows = dataset["translation"][:]
    source, target = languages or tuple(rows[0])[:2]
    for number, row in enumerate(rows):
        if not all(isinstance(row.get(name), str) for name in (source, target)):
            raise KdcourseError(
                f"Row {number} has texts in {', '.join(k for k in row if row[k])}.",
                wanted=f"a text in {source} and one in {target}",
                todo="Name languages=(source, target), or filter() such rows out.",
            )
    return [row[source] for row in rows], [row[target] for row in rows]


def encode(
    sources: list[str],
    targets: list[str],
    vocabulary: PreTrainedTokenizerFast,
    keys: list[int] | None = None,
) -> Dataset:
    """Token ids of pairs, EOS last, cut at 200; ``key`` is what their signals have.

    Without ``keys`` it is the number of the row. It stays with its row through
    ``shuffle``, ``select`` and ``filter``.
    """
    return Dataset.from_dict(
        {
            "input_ids": encode_sources(sources, vocabulary),
            "labels": encode_targets(targets, vocabulary),
            "key": list(range(len(sources))) if keys is None else keys,
        }
    )


def collate_rows(rows: list[dict], pad: int) -> dict[str, torch.Tensor]:
    """``training.collate`` as the dictionary of tensors that accelerate moves."""
    batch = collate([Example(*(row[name] for name in COLUMNS)) for row in rows], pad)
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.labels,
        "key": torch.tensor(batch.keys),
    }


def as_batch(inputs: Mapping[str, torch.Tensor]) -> Batch:
    """The same dictionary as a ``Batch``."""
    tensors = (inputs[name] for name in ("input_ids", "attention_mask", "labels"))
    return Batch(*tensors, inputs["key"].tolist())


def relabelled(sources: list[str], labels) -> list[str]:
    """The teacher's translation of each source."""
    if isinstance(labels, (str, Path)):
        labels = Labels.load(labels)
    missing = [source for source in sources if source not in labels]
    if missing:
        raise unlabelled(missing)
    return [labels[source] for source in sources]
