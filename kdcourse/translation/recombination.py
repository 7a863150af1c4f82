"""New source sentences out of old ones, for the teacher alone to translate.

References end where the corpus ends; a teacher can go on. It can be asked about any
sentence of the source language, and so the student learns from text that nobody has
translated. Where no further text is at hand, sentences can be made: two training
sources that share two words in a row are crossed there, so that

    Failed to connect | to the | device.         Welcome | to the | setup of {name}.

give "Failed to connect to the setup of {name}." Each half was written by a human, and
so were the words around the seam (compare Andreas 2020, *Good-Enough Compositional
Data Augmentation*, where fragments with a common context are exchanged).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from .corpus import near_keys, placeholders

SHARED = 2  # words in a row that two sources have in common
LENGTHS = range(3, 31)  # words of the sources that are crossed
TRIES = 60  # at most, for each sentence that is wanted
PAIRED = (("(", ")"), ("[", "]"), ('"', '"'), ("`", "`"), ("**", "**"))


def recombine(
    sources: Iterable[str], count: int, seed: int, avoid: Iterable[str]
) -> list[str]:
    """Up to ``count`` new sentences, none of them a near-duplicate of another.

    Nor of one in ``avoid``: pass what the student reads anyway, and the strings of the
    validation and test splits. The same arguments give the same sentences. Fewer come
    back where the sources share too little.
    """
    rng = random.Random(seed)
    rows = [source.split(" ") for source in dict.fromkeys(sources)]
    rows = [row for row in rows if len(row) in LENGTHS]
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, row in enumerate(rows):
        for start in range(len(row) - SHARED + 1):
            places[tuple(row[start : start + SHARED])].append((number, start))
    seen = {key for text in avoid for key in near_keys(text)}
    found: list[str] = []
    for _ in range(TRIES * count if rows else 0):
        if len(found) == count:
            break
        text = _crossed(rows, places, rng)
        keys = near_keys(text)
        if is_sound(text) and not keys & seen:
            seen |= keys
            found.append(text)
    return found


def _crossed(rows: list[list[str]], places: dict, rng: random.Random) -> str:
    """The beginning of one row and the end of another; empty where they are one."""
    number = rng.randrange(len(rows))
    row = rows[number]
    start = rng.randrange(len(row) - SHARED + 1)
    other, there = rng.choice(places[tuple(row[start : start + SHARED])])
    new = row[:start] + rows[other][there:]
    if other == number or start == there == 0 or len(new) not in range(2, LENGTHS.stop):
        return ""
    return " ".join(new)


def is_sound(text: str) -> bool:
    """Whether no pair of signs is torn and no placeholder comes twice."""
    for first, second in PAIRED:
        torn = text.count(first) % 2 if first == second else 0
        if torn or text.count(first) != text.count(second):
            return False
    return bool(text) and max(placeholders(text).values(), default=0) < 2
