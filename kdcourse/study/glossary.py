"""The course's words, each explained in a sentence or two."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from kdcourse.errors import KdcourseError

from .show import show_text


@dataclass(frozen=True)
class Term:
    """A word, its meaning, and the lesson that brings it in."""

    name: str
    meaning: str
    lesson: str
    also: tuple[str, ...] = ()


@cache
def terms() -> tuple[Term, ...]:
    """Every term, in the order of the alphabet."""
    found = [
        Term(
            raw["name"],
            " ".join(raw["meaning"].split()),
            file.name.removesuffix(".toml"),
            tuple(raw.get("also", ())),
        )
        for file in (files(__package__) / "glossary_data").iterdir()
        for raw in tomllib.loads(file.read_text("utf-8"))["term"]
    ]
    return tuple(sorted(found, key=lambda term: term.name.casefold()))


def glossary(*names: str, lesson: str | None = None) -> None:
    """Show terms: ``glossary("chrF")``, those of a ``lesson``, or all.

    Raises:
        KdcourseError: for an unknown term, naming the nearest ones.
    """
    chosen = [find(name) for name in names] or [
        term for term in terms() if lesson in (None, term.lesson)
    ]
    if not chosen:
        raise KdcourseError(
            f"No term of the glossary belongs to lesson {lesson!r}.",
            wanted=f"one of {', '.join(sorted({term.lesson for term in terms()}))}",
            todo="Leave lesson out to see every term.",
        )
    show_text(
        "\n".join(f"- **{term.name}**: {term.meaning}" for term in chosen),
        "\n".join(f"{term.name}: {term.meaning}" for term in chosen),
    )


def find(name: str) -> Term:
    """The term of this name or of one of its other names, in any case."""
    known = {n.casefold(): term for term in terms() for n in (term.name, *term.also)}
    term = known.get(name.strip().casefold())
    if term is None:
        near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.6)
        names = ", ".join(dict.fromkeys(known[n].name for n in near))
        raise KdcourseError(
            f"The glossary has no term {name!r}.",
            wanted=f"for instance {names}" if names else "one of its terms",
            todo="glossary() without a name shows them all.",
        )
    return term
