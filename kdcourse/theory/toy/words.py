"""The word list of the toy language, and how its words are inflected."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

CONTEXTS = ("kitchen", "finance", "river")


Ids = tuple[int, ...]


Words = tuple[str, ...]


class Sense(NamedTuple):
    """One translation of a source word, and its probability in each of the contexts."""

    word: str
    gender: str
    weights: tuple[float, ...]


def _same(probability: float) -> tuple[float, ...]:
    return (probability,) * len(CONTEXTS)


# The columns of weights are those of CONTEXTS; those of one word sum to 1, downwards.
NOUNS = {
    "bank": (
        Sense("banco", "m", (0.80, 0.97, 0.03)),
        Sense("orilla", "f", (0.20, 0.03, 0.97)),
    ),
    "bill": (
        Sense("cuenta", "f", (0.96, 0.03, 0.02)),
        Sense("factura", "f", (0.03, 0.96, 0.02)),
        Sense("pico", "m", (0.01, 0.01, 0.96)),
    ),
    "charge": (
        Sense("cargo", "m", (0.40, 0.97, 0.03)),
        Sense("carga", "f", (0.60, 0.03, 0.97)),
    ),
    "scale": (
        Sense("balanza", "f", (0.95, 0.03, 0.01)),
        Sense("escala", "f", (0.01, 0.96, 0.01)),
        Sense("escama", "f", (0.04, 0.01, 0.98)),
    ),
    "spoon": (Sense("cuchara", "f", _same(1.0)),),
    "coin": (Sense("moneda", "f", _same(1.0)),),
    "boat": (Sense("barco", "m", _same(1.0)),),
}


PEOPLE = {
    "cook": (
        Sense("cocinero", "m", _same(0.6)),
        Sense("cocinera", "f", _same(0.4)),
    ),
    "friend": (
        Sense("amigo", "m", _same(0.5)),
        Sense("amiga", "f", _same(0.5)),
    ),
}


ADJECTIVES = {
    "light": (
        Sense("ligero", "", (0.97, 0.90, 0.05)),
        Sense("claro", "", (0.03, 0.10, 0.95)),
    ),
    "old": (
        Sense("viejo", "", _same(0.7)),
        Sense("antiguo", "", _same(0.3)),
    ),
}


OF_PEOPLE = ("old",)  # nobody is light


VERBS = {
    "see": (Sense("ve", "", _same(1.0)),),
    "keep": (
        Sense("guarda", "", _same(0.7)),
        Sense("conserva", "", _same(0.3)),
    ),
    "save": (
        Sense("guarda", "", (0.96, 0.02, 0.02)),
        Sense("ahorra", "", (0.02, 0.97, 0.01)),
        Sense("salva", "", (0.02, 0.01, 0.97)),
    ),
}


SUBJECT_PRONOUNS = {
    "she": (Sense("ella", "f", _same(1.0)),),
    "he": (Sense("él", "m", _same(1.0)),),
    "they": (
        Sense("ellos", "m", _same(0.7)),
        Sense("ellas", "f", _same(0.3)),
    ),
}


OBJECT_PRONOUNS = {
    "it": (
        Sense("lo", "m", _same(0.6)),
        Sense("la", "f", _same(0.4)),
    ),
    "them": (
        Sense("los", "m", _same(0.6)),
        Sense("las", "f", _same(0.4)),
    ),
}


PLURAL_PRONOUNS = ("they", "them")


ARTICLES = {
    ("the", "m", False): "el",
    ("the", "f", False): "la",
    ("the", "m", True): "los",
    ("the", "f", True): "las",
    ("a", "m", False): "un",
    ("a", "f", False): "una",
}


# How well a word goes with each context; words that are not listed fit all of them.
TOPICS = {
    "bank": (1.0, 3.0, 2.0),
    "bill": (2.0, 4.0, 1.0),
    "charge": (1.0, 3.0, 2.0),
    "scale": (3.0, 1.0, 2.0),
    "spoon": (8.0, 1.0, 1.0),
    "coin": (1.0, 8.0, 1.0),
    "boat": (1.0, 1.0, 8.0),
    "cook": (4.0, 1.0, 1.0),
}


def plural_of(word: str) -> str:
    """The plural of a word of either language."""
    return word + ("s" if word[-1] in "aeo" else "es")


def inflect(word: str, gender: str, plural: bool) -> str:
    """A form of an adjective that is listed in the masculine: viejo → viejas."""
    word = word[:-1] + "a" if gender == "f" else word
    return plural_of(word) if plural else word


class Phrase(NamedTuple):
    """A noun phrase or a pronoun of the source, taken apart."""

    noun: str
    plural: bool
    determiner: str = ""
    adjective: str = ""

    @property
    def words(self) -> Words:
        """The phrase as it is written."""
        pronoun = not self.determiner
        noun = self.noun + "s" if self.plural and not pronoun else self.noun
        return tuple(word for word in (self.determiner, self.adjective, noun) if word)


def phrases(nouns, numbers, adjectives) -> list[Phrase]:
    """All noun phrases of some nouns, (determiner, plural) pairs and adjectives."""
    return [
        Phrase(noun, plural, determiner, adjective)
        for noun, (determiner, plural), adjective in product(nouns, numbers, adjectives)
    ]
