"""A glossary as context: "battery = pila" before a string says how to say a word in it.

The teacher must obey a glossary that it has never seen. It learns to on rows in which
a word of the reference has been exchanged for another one, and the context says so:
only by reading the context can it know. The words of the recorded run's glossary are
kept out of them.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

WORD = re.compile(r"[^\W\d_]{3,}")
AND = " ; "


def terms_in(source: str, glossary: Mapping[str, str]) -> dict[str, str]:
    """The entries of a glossary whose word stands in a string, by the alphabet.

    >>> terms_in("Low battery.", {"light": "lámpara", "battery": "pila"})
    {'battery': 'pila'}
    """
    words = set(WORD.findall(source.casefold()))
    return {term: glossary[term] for term in sorted(glossary) if term in words}


def glossed(place: str, terms: Mapping[str, str]) -> str:
    """c whole: the place, then each term, "place ; term = translation".

    >>> glossed("hue entity light name", {"light": "lámpara"})
    'hue entity light name ; light = lámpara'
    """
    entries = [f"{term} = {translation}" for term, translation in terms.items()]
    return AND.join([place, *entries] if place else entries)


def replace_term(text: str, usual: str, wanted: str) -> str:
    """A text with a word exchanged wherever it stands; a capital stays one.

    >>> replace_term("Batería baja", "batería", "pila")
    'Pila baja'
    """

    def one(found: re.Match) -> str:
        capital = found[0][0].isupper()
        return wanted[0].upper() + wanted[1:] if capital else wanted

    return word_pattern(usual).sub(one, text)


@cache
def word_pattern(word: str) -> re.Pattern:
    """Finds a word as a whole, whatever its case, but not in a {placeholder}."""
    return re.compile(rf"(?<![\w{{]){re.escape(word)}(?!\w)", re.IGNORECASE)


def lexicon(
    pairs: Iterable[tuple[str, str]], least: int = 20, dice: float = 0.5
) -> dict[str, str]:
    """Words that translate each other, from how often they stand in the same pair.

    The Dice coefficient 2 n(v, w) / (n(v) + n(w)) of each other's best partners, at
    least ``dice``, met in at least ``least`` pairs. Crude, and enough here.
    """
    left, right, both = Counter(), Counter(), Counter()
    for source, target in pairs:
        ours = set(WORD.findall(source.casefold()))
        theirs = set(WORD.findall(target.casefold()))
        left.update(ours)
        right.update(theirs)
        both.update((v, w) for v in ours for w in theirs if v != w)
    links = sorted(
        (2 * n / (left[v] + right[w]), v, w) for (v, w), n in both.items() if n >= least
    )
    there = {v: (w, strength) for strength, v, w in links}  # the last is the strongest
    back = {w: v for _, v, w in links}
    return {
        v: w for v, (w, strength) in there.items() if strength >= dice and back[w] == v
    }


def exchange_terms(
    source: str,
    target: str,
    known: Mapping[str, str],
    words: Sequence[str],
    rng: random.Random,
    *,
    most: int = 2,
    exchanged: float = 0.7,
) -> tuple[dict[str, str], str]:
    """A glossary for one pair, and the target that obeys it.

    Up to ``most`` of the ``known`` words that this pair translates as usual, once; a
    share ``exchanged`` of them gets one of ``words`` instead of its usual translation.
    """
    usual = {
        term: said
        for term, said in terms_in(source, known).items()
        if len(word_pattern(said).findall(target)) == 1
    }
    terms = {}
    for term in sorted(rng.sample(sorted(usual), min(most, len(usual)))):
        terms[term] = usual[term]
        if rng.random() < exchanged:
            terms[term] = rng.choice(words)
            target = replace_term(target, usual[term], terms[term])
    return terms, target
