"""Where a string stands in the app, and the strings whose translation depends on it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...errors import KdcourseError
from ..corpus import SPLITS, Row, clean, find_origin, normalise, split_of
from ..sources import cache_folder

SEPARATOR = " | "
PLACES, PLACES_SHARE = "places", 25  # per cent of the training components
MAX_WORDS = 12  # of a context, the last ones: they say most about the string


@dataclass(frozen=True)
class Placed:
    """A string z with its translation, and the context c in which it stands."""

    context: str
    source: str
    target: str
    component: str = ""


def describe(component: str, path: str) -> str:
    """The place in words: the component and the key path, its last words at most 12.

    >>> describe("hue", "entity.light.brightness.name")
    'hue entity light brightness name'
    """
    place = f"{component} {path}"
    for sign in "._|;=":
        place = place.replace(sign, " ")
    return normalise(" ".join(place.split()[-MAX_WORDS:]))


def with_context(context: str, source: str) -> str:
    """What a model reads that reads c and z: "c | z"; without a context z alone.

    >>> with_context("hue entity light name", "Light")
    'hue entity light name | Light'

    Raises:
        KdcourseError: the context holds the separator, so that nobody could tell
            where it ends.
    """
    if SEPARATOR.strip() in context:
        raise KdcourseError(
            f"The context {context!r} holds the separator {SEPARATOR.strip()!r}.",
            wanted="a context without it: what follows the first one is z",
            todo="Make it with describe(), or replace the sign.",
        )
    return f"{context}{SEPARATOR}{source}" if context else source


def placed_rows(rows: Iterable[Row]) -> dict[str, list[Placed]]:
    """Clean rows with their places, split by component, each (c, z, y) once.

    Unlike the plain corpus it keeps a pair once for each place, and it has a further
    split: "places", a quarter of the training components. Their strings are known to
    models trained on the plain corpus, but in no place; here they ask what a place is
    worth. No component stands in two splits.
    """
    parts: dict[str, dict[Placed, None]] = {name: {} for name in (*SPLITS, PLACES)}
    for row in clean(rows)[0]:
        context = describe(row.component, row.path)
        placed = Placed(context, row.source, row.target, row.component)
        parts[split_with_places(row.component)][placed] = None
    return {name: list(part) for name, part in parts.items()}


def split_with_places(component: str) -> str:
    """The split of a component; "places" takes its share from training, by a hash."""
    name = split_of(component)
    digest = hashlib.sha256(f"places/{component}".encode()).hexdigest()
    held = name == "train" and int(digest, 16) % 100 < PLACES_SHARE
    return PLACES if held else name


def load_placed(target: str = "es") -> dict[str, list[Placed]]:
    """The apps corpus with places; the wheel must have been fetched."""
    return placed_rows(find_origin("apps", "en", target, cache_folder(None)).read())


def ambiguous(
    training: Sequence[Placed], held_out: Sequence[Placed]
) -> list[tuple[Placed, bool]]:
    """The held-out rows that z alone leaves open; of each, is it the rarer reading?

    A row counts where training shows at least two translations of its source and its
    own is one of them; once for each component. The flag is True where it is not
    training's most frequent one (the first of equals): there a model that knows z
    alone, and says what is likeliest, must fail.
    """
    readings: dict[str, Counter[str]] = defaultdict(Counter)
    for row in training:
        readings[row.source][row.target] += 1
    found, seen = [], set()
    for row in held_out:
        what = row.component, row.source, row.target
        known = readings.get(row.source, Counter())
        if len(known) > 1 and row.target in known and what not in seen:
            seen.add(what)
            found.append((row, row.target != known.most_common(1)[0][0]))
    return found


def ceiling(rows: Sequence[Placed]) -> float:
    """The largest share of rows that any function of z alone can have right.

    It gives one translation for each source, so at best each source's most frequent
    one among these very rows: Σ_z max_y count(z, y) / N.
    """
    if not rows:
        raise KdcourseError(
            "There are no rows to have right.",
            wanted="at least one row with its source and target",
            todo="Pass the rows of ambiguous(); there may be none in a small corpus.",
        )
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        answers[row.source][row.target] += 1
    return sum(max(known.values()) for known in answers.values()) / len(rows)


def contexts_exchanged(rows: Sequence[Placed], seed: int = 1) -> list[Placed]:
    """The same strings, each with another row's place: does a model heed it?"""
    contexts = [row.context for row in rows]
    random.Random(seed).shuffle(contexts)
    return [
        replace(row, context=context)
        for context, row in zip(contexts, rows, strict=True)
    ]
