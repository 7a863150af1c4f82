"""Quizzes: questions as text, fed by data files, every option explained.

>>> quiz("00.1")          # shows the question and its options
>>> answer("00.1", "C")   # says right or wrong, and why
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from kdcourse.errors import KdcourseError

from . import progress
from .show import show_text

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Option:
    """One thing to choose, and why it is right or wrong."""

    text: str
    why: str


@dataclass(frozen=True)
class Item:
    """One question with four options, exactly one of them right."""

    id: str
    question: str
    options: dict[str, Option]
    right: str


def quiz(number: str) -> None:
    """Show a question: ``quiz("00.1")``, or all of a lesson: ``quiz("00")``."""
    items = _chosen(str(number))
    show_text(
        "\n\n".join(_as_markdown(item) for item in items),
        "\n\n".join(_as_plain(item) for item in items),
    )


def answer(number: str, letter: str) -> None:
    """Answer a question, ``answer("00.1", "C")``: right or wrong, and why.

    Raises:
        KdcourseError: for an unknown question or a letter that is not an option.
    """
    (item,) = _chosen(str(number), whole_lesson=False)
    letter = _letter(item, letter)
    option, right = item.options[letter], letter == item.right

    def count(data: dict) -> None:
        entry = data["quizzes"].setdefault(item.id, {"tries": 0})
        entry.update(right=right, tries=entry.get("tries", 0) + 1)

    progress.update(count)
    verdict = "Right" if right else "Not quite"
    again = "" if right else f' Choose again: `answer("{item.id}", "…")`.'
    show_text(
        f"**{verdict}: {letter}.** {option.why}{again}",
        f"{verdict}: {letter}. {option.why}{again}".replace("`", ""),
    )


def lessons_with_quiz() -> list[str]:
    """The numbers of the lessons that have a quiz, in order."""
    folder = files(__package__) / "quizzes_data"
    names = (entry.name for entry in folder.iterdir())
    return sorted(
        name.removesuffix(".toml") for name in names if name.endswith(".toml")
    )


@cache
def items_of(lesson: str) -> tuple[Item, ...]:
    """All questions of a lesson, checked: one right option, every option explained."""
    if lesson not in lessons_with_quiz():
        raise KdcourseError(
            f"There is no quiz for lesson {lesson!r}.",
            wanted=f"one of {', '.join(lessons_with_quiz())}",
            todo='Write the number in quotes, such as quiz("00").',
        )
    text = (files(__package__) / "quizzes_data" / f"{lesson}.toml").read_text("utf-8")
    return parse(text, lesson)


def parse(text: str, lesson: str) -> tuple[Item, ...]:
    """Questions from TOML; a ValueError names whatever an author forgot."""
    items = []
    for number, raw in enumerate(tomllib.loads(text)["item"], start=1):
        item = Item(
            f"{lesson}.{number}",
            " ".join(raw["question"].split()),
            {letter: Option(**_stripped(raw.get(letter, {}))) for letter in LETTERS},
            raw["right"],
        )
        if item.right not in LETTERS:
            raise ValueError(
                f"{item.id}: right is {item.right!r}, not one of A, B, C, D"
            )
        items.append(item)
    return tuple(items)


def _stripped(option: dict) -> dict:
    if set(option) != {"text", "why"} or not all(v.strip() for v in option.values()):
        raise ValueError(
            f"an option needs a text and a why, both filled in; got {option}"
        )
    return {key: " ".join(value.split()) for key, value in option.items()}


def _chosen(number: str, whole_lesson: bool = True) -> tuple[Item, ...]:
    lesson, dot, _ = number.partition(".")
    items = items_of(lesson)
    if whole_lesson and not dot:
        return items
    found = tuple(item for item in items if item.id == number)
    if not found:
        raise KdcourseError(
            f"There is no question {number!r}.",
            wanted=f"one of {', '.join(item.id for item in items)}",
            todo=f'Write it in quotes, such as "{items[0].id}".',
        )
    return found


def _letter(item: Item, letter: str) -> str:
    chosen = str(letter).strip().upper()
    if chosen not in item.options:
        raise KdcourseError(
            f"{letter!r} is not an option of question {item.id}.",
            wanted="one letter of A, B, C, D",
            todo=f'For instance answer("{item.id}", "A").',
        )
    return chosen


def _as_markdown(item: Item) -> str:
    options = "\n".join(
        f"- **{k}.** {option.text}" for k, option in item.options.items()
    )
    return (
        f"**Question {item.id}.** {item.question}\n\n{options}\n\n"
        f'*Your answer:* `answer("{item.id}", "…")`'
    )


def _as_plain(item: Item) -> str:
    options = "\n".join(f"  {k}. {option.text}" for k, option in item.options.items())
    return (
        f"Question {item.id}. {item.question}\n{options}\n"
        f'Your answer: answer("{item.id}", "…")'
    )
