"""A glossary as context: "battery = pila" before a string says how to say a word in it.

The teacher sees the glossary's strings both ways: with a term in c and the house's word
in the target, or without and as the reference has it. Only by reading c can it know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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


def obeying(
    source: str, target: str, usual: Mapping[str, str], house: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """The terms of a pair that its target says as ``usual``, and the house's target.

    ``usual`` and ``house`` hold the same words, each with a translation. What the
    target says in another way is left alone, and its term is not among those returned.

    >>> obeying("Low battery", "Batería baja", {"battery": "batería"},
    ...         {"battery": "pila"})
    ({'battery': 'pila'}, 'Pila baja')
    """
    found = terms_in(source, usual)
    said = [term for term in found if word_pattern(found[term]).search(target)]
    for term in said:
        target = replace_term(target, usual[term], house[term])
    return {term: house[term] for term in said}, target
