"""A toy language, small enough to write down every translation of every sentence.

The sequence-level loss sums over all output sequences y. For a real translator that sum
cannot be computed; here it has at most a few dozen terms, so each claim about teachers,
students and contexts is a number. The language is a probabilistic synchronous grammar:
each rule writes a source phrase, English-like, and a target phrase, Spanish-like, at
once (syntax-directed transduction: Lewis & Stearns 1968; in translation: Chiang 2007).

    source                          target
    S  → Subject Verb NP            Subject Verb NP
    S  → Subject Verb "it"          Subject "lo" Verb     a pronoun before the verb
    NP → Det Adj Noun               Det Noun Adj          the adjective after the noun
    Subject → "she"                 "ella" or nothing     an optional word

Article and adjective take the gender and the number of the noun that was chosen, the
verb takes the number of its subject: the tokens of y depend on each other. Words are
ambiguous ("bank" is "banco" or "orilla"); a context c says which is meant, nearly.

Notation: z a source sentence, c a context or None, y a sequence of target ids that ends
in ``<eos>``, V the size of the target vocabulary. Probabilities are in float64,
logarithms natural (nats).
"""

from .exact import (
    sequence_cross_entropy,
    sequence_kl,
    sequence_kl_by_tokens,
    target_generated_loss,
)
from .language import Outputs, Toy, toy_language
from .students import BigramStudent, Student, TabularStudent, enumerate_student
from .words import CONTEXTS, Sense

__all__ = [
    "BigramStudent",
    "CONTEXTS",
    "Outputs",
    "Sense",
    "Student",
    "TabularStudent",
    "Toy",
    "enumerate_student",
    "sequence_cross_entropy",
    "sequence_kl",
    "sequence_kl_by_tokens",
    "target_generated_loss",
    "toy_language",
]
