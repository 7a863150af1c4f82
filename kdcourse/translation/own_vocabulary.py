"""Students that count in another vocabulary than their teacher.

Sequence-level distillation hands on texts, so each model may cut them as it likes.
Word-level distillation compares Pr^t(v | …) with Pr^s(v | …) entry by entry, and entry
17 must be the same token in both; two vocabularies of one size are not enough.

A smaller vocabulary makes a smaller student: at d = 128 and 4,000 entries a third of
the shipped one is its embeddings (``parameters_saved``). It is paid for with longer
sequences, which the decoder must say token by token (``tokens_per_text``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from transformers import MarianMTModel

from ..errors import KdcourseError
from .hub import model_folder
from .models import Architecture
from .opus import is_opus
from .vocabulary import Vocabulary, load_vocabulary, train_vocabulary

SHOWN = 3  # differing entries in an error


class OtherVocabulary(KdcourseError):
    """Teacher and student count in different vocabularies; word-level cannot be."""


def own_vocabulary(
    sources: Iterable[str], labels: Iterable[str], size: int = 2000
) -> Vocabulary:
    """A vocabulary trained on what the student will read and say.

    It has ``size`` entries, or fewer where the texts offer no more pieces. Every
    character of the texts is kept, so that none of them becomes ``<unk>``.

    Raises:
        KdcourseError: ``size`` has no room for the characters.
    """
    return train_vocabulary([*sources, *labels], size)


def tokens_per_text(vocabulary: Vocabulary, targets: list[str]) -> float:
    """The mean number of tokens of a target, EOS included: decoding steps a text."""
    rows = vocabulary(text_target=targets)["input_ids"]
    return sum(map(len, rows)) / len(rows)


def parameters_saved(
    architecture: Architecture, teachers: Vocabulary, own: Vocabulary
) -> int:
    """(V_teacher - V_own) · d: what the smaller vocabulary takes off the student.

    One matrix is embedding of sources, of targets, and output layer in one.
    """
    return (len(teachers) - len(own)) * architecture.d_model


# --- Do two models count in the same tokens? --------------------------------------


def differing_entries(
    teachers: Vocabulary, students: Vocabulary
) -> list[tuple[int, str | None, str | None]]:
    """Each id that is not one token in both: the id, the teacher's, the student's."""
    ours, theirs = (
        {index: token for token, index in vocabulary.get_vocab().items()}
        for vocabulary in (teachers, students)
    )
    pairs = ((i, ours.get(i), theirs.get(i)) for i in sorted({*ours, *theirs}))
    return [(i, a, b) for i, a, b in pairs if a != b]


def same_vocabulary(teachers: Vocabulary, students: Vocabulary) -> bool:
    """Whether every id is the same token in both: word-level distillation can be."""
    return not differing_entries(teachers, students)


def check_same_vocabulary(teachers: Vocabulary, students: Vocabulary) -> None:
    """Nothing where both are the same, else what differs and what works instead.

    Raises:
        OtherVocabulary: an id is another token in each, or a token in one only.
    """
    differing = differing_entries(teachers, students)
    if differing:
        named = (_named(*entry) for entry in itertools.islice(differing, SHOWN))
        more = ", …" if len(differing) > SHOWN else ""
        raise other_vocabulary(
            len(teachers),
            len(students),
            f"{len(differing)} ids differ: {', '.join(named)}{more}.",
        )


def check_teacher(teacher: MarianMTModel, students: Vocabulary) -> None:
    """The same for a teacher's model: by its folder's vocabulary, or else by its size.

    A model that was loaded knows its folder; one that was built has no tokens to
    compare, only their number.

    Raises:
        OtherVocabulary: it counts in other tokens, or in more or fewer.
    """
    check_origin(teacher.config.vocab_size, teacher.name_or_path, students)


def check_origin(size: int, folder: str, students: Vocabulary) -> None:
    """``check_teacher`` from what is kept of a model: its size, and where it was."""
    if size != len(students):
        raise other_vocabulary(size, len(students))
    if folder and has_vocabulary(folder):
        check_same_vocabulary(load_vocabulary(folder), students)


def check_folder(teacher: str | Path, students: Vocabulary) -> None:
    """The same for the folder of a teacher, which must hold its vocabulary."""
    if not has_vocabulary(teacher):
        raise other_vocabulary(0, len(students), f"{teacher} holds none to compare.")
    check_same_vocabulary(load_vocabulary(teacher), students)


def has_vocabulary(folder: str | Path) -> bool:
    """Whether there is a vocabulary to read."""
    folder = model_folder(folder)
    return (folder / "tokenizer.json").is_file() or is_opus(folder)


def other_vocabulary(teachers: int, students: int, said: str = "") -> OtherVocabulary:
    """The error for a student that was to learn word-level in a vocabulary of its own.

    ``teachers`` and ``students`` are the sizes, ``said`` what more is known.
    """
    return OtherVocabulary(
        f"The student has a vocabulary of its own ({students} entries), the teacher "
        f"another vocabulary ({teachers or 'unknown'}). {said}".rstrip(),
        wanted="one vocabulary for both: word-level distillation compares the two "
        "distributions entry by entry, so each id must be the same token in both",
        todo="Distil sequence-level, which hands on texts: label_corpus() with the "
        "teacher, then the method 'sequence'; or give the student the teacher's "
        "vocabulary, load_vocabulary(TEACHER).",
    )


def _named(index: int, teachers: str | None, students: str | None) -> str:
    names = ("nothing" if t is None else repr(t) for t in (teachers, students))
    return f"{index} is {next(names)} there and {next(names)} here"
