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

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from torch import nn

from .arguments import BadArgument, check_share

EOS, PAD = "<eos>", "<pad>"
CONTEXTS = ("kitchen", "finance", "river")
MINUS_INFINITY = float("-inf")

Ids = tuple[int, ...]
Words = tuple[str, ...]
Alternatives = list[tuple[Words, float]]


# ---------------------------------------------------------------------- the word list


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
    "cook": (Sense("cocinero", "m", _same(0.6)), Sense("cocinera", "f", _same(0.4))),
    "friend": (Sense("amigo", "m", _same(0.5)), Sense("amiga", "f", _same(0.5))),
}
ADJECTIVES = {
    "light": (
        Sense("ligero", "", (0.97, 0.90, 0.05)),
        Sense("claro", "", (0.03, 0.10, 0.95)),
    ),
    "old": (Sense("viejo", "", _same(0.7)), Sense("antiguo", "", _same(0.3))),
}
OF_PEOPLE = ("old",)  # nobody is light
VERBS = {
    "see": (Sense("ve", "", _same(1.0)),),
    "keep": (Sense("guarda", "", _same(0.7)), Sense("conserva", "", _same(0.3))),
    "save": (
        Sense("guarda", "", (0.96, 0.02, 0.02)),
        Sense("ahorra", "", (0.02, 0.97, 0.01)),
        Sense("salva", "", (0.02, 0.01, 0.97)),
    ),
}
SUBJECT_PRONOUNS = {
    "she": (Sense("ella", "f", _same(1.0)),),
    "he": (Sense("él", "m", _same(1.0)),),
    "they": (Sense("ellos", "m", _same(0.7)), Sense("ellas", "f", _same(0.3))),
}
OBJECT_PRONOUNS = {
    "it": (Sense("lo", "m", _same(0.6)), Sense("la", "f", _same(0.4))),
    "them": (Sense("los", "m", _same(0.6)), Sense("las", "f", _same(0.4))),
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


def _plural(word: str) -> str:
    return word + ("s" if word[-1] in "aeo" else "es")


def _inflect(word: str, gender: str, plural: bool) -> str:
    """A form of an adjective that is listed in the masculine: viejo → viejas."""
    word = word[:-1] + "a" if gender == "f" else word
    return _plural(word) if plural else word


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


def _phrases(nouns, numbers, adjectives) -> list[Phrase]:
    """All noun phrases of some nouns, (determiner, plural) pairs and adjectives."""
    return [
        Phrase(noun, plural, determiner, adjective)
        for noun, (determiner, plural), adjective in product(nouns, numbers, adjectives)
    ]


# ------------------------------------------------------------------------- the teacher


@dataclass(frozen=True, eq=False)
class Outputs:
    """Output sequences with their probabilities, the most probable first.

    ``sequences`` are N tuples of target ids, ``<eos>`` included; ``probabilities`` is
    (N,) in float64. Of a teacher they are all that it can say and sum to 1; of a
    student they may be a part (see ``enumerate_student``).
    """

    sequences: tuple[Ids, ...]
    probabilities: torch.Tensor

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def entropy(self) -> float:
        """H = -Σ_y Pr(y) log Pr(y), in nats."""
        return torch.special.entr(self.probabilities).sum().item()

    @property
    def missing(self) -> float:
        """1 - Σ_y Pr(y): the mass of what is not listed."""
        return 1.0 - self.probabilities.sum().item()


@dataclass(frozen=True, eq=False)
class Toy:
    """The toy language and its teacher, Pr^t(y|c,z).

    ``toy_language()`` gives the standard one; ``dataclasses.replace(toy, drop=0.0)`` a
    variant. The tables map a source word to its senses; ``topics`` maps a word to its
    fit to each context; ``drop`` is the probability that a subject pronoun is left out.

    Raises:
        BadArgument: a word's weights are no probabilities, a topic's fits are not all
            above 0, or ``drop`` is no probability.
    """

    nouns: Mapping[str, tuple[Sense, ...]]
    people: Mapping[str, tuple[Sense, ...]]
    adjectives: Mapping[str, tuple[Sense, ...]]
    verbs: Mapping[str, tuple[Sense, ...]]
    topics: Mapping[str, tuple[float, ...]]
    drop: float

    def __post_init__(self):
        check_share("drop", self.drop)
        for name in ("nouns", "people", "adjectives", "verbs"):
            for word, senses in getattr(self, name).items():
                _check_weights(f"{name}[{word!r}]", [sense.weights for sense in senses])
        for word, fits in self.topics.items():
            if len(fits) != len(CONTEXTS) or min(fits) <= 0:
                raise BadArgument(
                    f"topics[{word!r}]",
                    repr(fits),
                    wanted=f"numbers above 0 for {', '.join(CONTEXTS)}",
                    todo="Take 1 where the word says nothing about the context.",
                )

    # ------------------------------------------------------------------ vocabularies

    @property
    def contexts(self) -> Words:
        """The contexts c that there are; None is no context."""
        return CONTEXTS

    @cached_property
    def vocabulary(self) -> Words:
        """The V target tokens; ``<eos>`` has id 0, ``<pad>`` the last.

        ``<pad>`` fills up and stands before the first token; it is never said.
        """
        forms = [EOS, *ARTICLES.values()]
        for table in (SUBJECT_PRONOUNS, OBJECT_PRONOUNS):
            forms += [s.word for senses in table.values() for s in senses]
        for senses in [*self.nouns.values(), *self.people.values()]:
            forms += [form for s in senses for form in (s.word, _plural(s.word))]
        for senses in self.adjectives.values():
            kinds = product(senses, "mf", (False, True))
            forms += [_inflect(s.word, gender, plural) for s, gender, plural in kinds]
        for senses in self.verbs.values():
            forms += [form for s in senses for form in (s.word, s.word + "n")]
        return tuple(dict.fromkeys([*forms, PAD]))

    @cached_property
    def source_vocabulary(self) -> Words:
        """The source words, in order of first use."""
        return tuple(dict.fromkeys(word for z in self._parses for word in z))

    @property
    def eos(self) -> int:
        """The id of ``<eos>``, 0."""
        return 0

    @property
    def pad(self) -> int:
        """The id of ``<pad>``, V - 1."""
        return len(self.vocabulary) - 1

    def encode_source(self, z: Sequence[str]) -> Ids:
        """The ids of a source sentence's words in ``source_vocabulary``."""
        z, _ = self.check(z, None)
        return tuple(self.source_vocabulary.index(word) for word in z)

    def encode(self, text: str) -> Ids:
        """The ids of target words, without ``<eos>``: "la orilla" → two ids."""
        for word in text.split():
            if word not in self.vocabulary:
                raise BadArgument(
                    "text",
                    f"{text!r} with the unknown word {word!r}",
                    wanted="words of the target language",
                    todo="Look at toy.vocabulary.",
                )
        return tuple(self.vocabulary.index(word) for word in text.split())

    def decode(self, ids: Sequence[int]) -> str:
        """The words of target ids, without ``<eos>`` and ``<pad>``."""
        self._check_ids("ids", ids, "Take ids from outputs, sample or encode.")
        words = (self.vocabulary[i] for i in ids)
        return " ".join(word for word in words if word not in (EOS, PAD))

    def padded(self, sequences: Sequence[Ids]) -> torch.Tensor:
        """Ids (N, L) of N sequences of at most L tokens, filled up with ``<pad>``.

        Raises:
            BadArgument: not a list of sequences that each end in their one ``<eos>``.
        """
        todo = "Pass outputs.sequences, or [y]."
        if not isinstance(sequences, list | tuple):
            given = f"a {type(sequences).__name__}"
            raise BadArgument("sequences", given, wanted="a list of y", todo=todo)
        if not sequences:
            raise BadArgument("sequences", "empty", wanted="a list of y", todo=todo)
        for y in sequences:
            self._check_sequence(y)
        length = max(len(y) for y in sequences)
        rows = [list(y) + [self.pad] * (length - len(y)) for y in sequences]
        return torch.tensor(rows)

    # ------------------------------------------------------------------ the source side

    @cached_property
    def _parses(self) -> dict[Words, tuple[Phrase, str, Phrase]]:
        """Each source sentence with its parts: the source side of the grammar."""
        subjects = [Phrase(p, p in PLURAL_PRONOUNS) for p in SUBJECT_PRONOUNS]
        both = [("the", False), ("the", True)]
        fitting = [word for word in self.adjectives if word in OF_PEOPLE]
        subjects += _phrases(self.people, both, ["", *fitting])
        objects = [Phrase(p, p in PLURAL_PRONOUNS) for p in OBJECT_PRONOUNS]
        objects += _phrases(self.nouns, [*both, ("a", False)], ["", *self.adjectives])
        parses = {}
        for subject, verb, thing in product(subjects, self.verbs, objects):
            form = verb if subject.plural else verb + "s"
            parses[*subject.words, form, *thing.words] = subject, verb, thing
        return parses

    def sources(self) -> tuple[Words, ...]:
        """All source sentences z, as tuples of words, in a fixed order."""
        return tuple(self._parses)

    def check(self, z: Sequence[str], c: str | None) -> tuple[Words, str | None]:
        """z as a tuple of words, and c.

        Raises:
            BadArgument: z is no list of words, is empty, has an unknown word or is no
                sentence of the language; or c is not one of the contexts.
        """
        if not isinstance(z, list | tuple) or not all(isinstance(w, str) for w in z):
            todo = "Split the text: z = 'she sees the bank'.split()."
            raise BadArgument("z", repr(z), wanted="a list of source words", todo=todo)
        z = tuple(z)
        if z not in self._parses:
            raise self._not_a_source(z)
        if c is not None and c not in self.contexts:
            wanted = f"None or one of {', '.join(self.contexts)}"
            raise BadArgument("c", repr(c), wanted=wanted, todo="Check the spelling.")
        return z, c

    def _not_a_source(self, z: Words) -> BadArgument:
        if not z:
            given = "empty"
        elif unknown := [word for word in z if word not in self.source_vocabulary]:
            given = f"{z!r} with the unknown word {unknown[0]!r}"
        else:
            given = f"{z!r}, known words in an order that the grammar does not write"
        todo = "Take z from toy.sources(), words from toy.source_vocabulary."
        return BadArgument("z", given, wanted="a sentence of the language", todo=todo)

    # ------------------------------------------------------------------ the target side

    def _senses(self, table, word: str, c: str) -> list[tuple[Sense, float]]:
        column = self.contexts.index(c)
        return [(s, s.weights[column]) for s in table[word] if s.weights[column] > 0]

    def _noun_phrase(self, phrase: Phrase, c: str) -> Alternatives:
        """NP → Det Adj Noun | Det Noun Adj, in the gender and number of the noun."""
        table = self.people if phrase.noun in self.people else self.nouns
        found = []
        for noun, p in self._senses(table, phrase.noun, c):
            article = ARTICLES[phrase.determiner, noun.gender, phrase.plural]
            form = _plural(noun.word) if phrase.plural else noun.word
            adjectives = [((), 1.0)]
            if phrase.adjective:
                adjectives = [
                    ((_inflect(s.word, noun.gender, phrase.plural),), q)
                    for s, q in self._senses(self.adjectives, phrase.adjective, c)
                ]
            found += [((article, form, *after), p * q) for after, q in adjectives]
        return found

    def _subject(self, phrase: Phrase, c: str) -> Alternatives:
        """Subject → NP, or a pronoun that is often left out, as the verb shows it."""
        if phrase.determiner:
            return self._noun_phrase(phrase, c)
        said = self._senses(SUBJECT_PRONOUNS, phrase.noun, c)
        return [((), self.drop)] + [((s.word,), p * (1 - self.drop)) for s, p in said]

    def _predicate(self, verb: str, plural: bool, thing: Phrase, c: str):
        """Verb NP | Verb NP, and Verb pronoun | pronoun Verb."""
        verbs = [
            (s.word + "n" * plural, p) for s, p in self._senses(self.verbs, verb, c)
        ]
        if thing.determiner:
            objects = self._noun_phrase(thing, c)
            return [((v, *words), p * q) for v, p in verbs for words, q in objects]
        pronouns = self._senses(OBJECT_PRONOUNS, thing.noun, c)
        return [((s.word, v), p * q) for v, p in verbs for s, q in pronouns]

    def _translations(self, z: Words, c: str | None) -> dict[Words, float]:
        """All translations of z with Pr^t(y|c,z); without c the mixture over contexts.

        Subject and predicate are independent given c. Different derivations, or
        different contexts, may write the same words: their probabilities add up.
        """
        shares = {c: 1.0}
        if c is None:
            shares = dict(zip(self.contexts, self._topic(z), strict=True))
        subject, verb, thing = self._parses[z]
        total: dict[Words, float] = defaultdict(float)
        for context, share in shares.items():
            parts = (
                self._subject(subject, context),
                self._predicate(verb, subject.plural, thing, context),
            )
            for (first, p), (rest, q) in product(*parts):
                total[first + rest] += share * p * q
        return total

    def _topic(self, z: Words) -> list[float]:
        fits = [1.0] * len(self.contexts)
        subject, verb, thing = self._parses[z]
        for word in (subject.noun, verb, thing.noun):
            topic = self.topics.get(word, [1.0] * len(fits))
            fits = [fit * more for fit, more in zip(fits, topic, strict=True)]
        return [fit / sum(fits) for fit in fits]

    # ------------------------------------------------------------------ distributions

    def context_distribution(self, z: Sequence[str]) -> torch.Tensor:
        """Pr(c|z), (C,): how z alone tells where it was said; "coin" suggests finance.

        Pr(c|z) ∝ Π_{w in z} fit(w, c) over nouns and verb, all contexts alike a priori.
        """
        z, _ = self.check(z, None)
        return torch.tensor(self._topic(z), dtype=torch.float64)

    def outputs(self, z: Sequence[str], c: str | None = None) -> Outputs:
        """Every y that the teacher can say, with its exact Pr^t(y|c,z).

        Without c it is the mixture Pr^t(y|z) = Σ_c Pr(c|z) Pr^t(y|c,z). The most
        probable comes first; equal probabilities are ordered by their ids.

        Raises:
            BadArgument: see ``check``.
        """
        z, c = self.check(z, c)
        number = {word: i for i, word in enumerate(self.vocabulary)}
        found = [
            (tuple(number[word] for word in words) + (self.eos,), p)
            for words, p in self._translations(z, c).items()
            if p > 0
        ]
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        sequences, probabilities = zip(*found, strict=True)
        return Outputs(sequences, torch.tensor(probabilities, dtype=torch.float64))

    def best(self, z: Sequence[str], c: str | None = None) -> Ids:
        """The teacher's own output ŷ = argmax_y Pr^t(y|c,z)."""
        return self.outputs(z, c).sequences[0]

    def _tree(self, z: Sequence[str], c: str | None) -> dict[Ids, torch.Tensor]:
        """Pr^t(y_t | y_<t, c, z), a (V,) for every prefix y_<t that can be said."""
        size = len(self.vocabulary)
        mass: dict[Ids, list[float]] = defaultdict(lambda: [0.0] * size)
        outputs = self.outputs(z, c)
        pairs = zip(outputs.sequences, outputs.probabilities.tolist(), strict=True)
        for y, p in pairs:
            for t, token in enumerate(y):
                mass[y[:t]][token] += p
        rows = torch.tensor(list(mass.values()), dtype=torch.float64)
        return dict(zip(mass, rows / rows.sum(dim=1, keepdim=True), strict=True))

    def _ended(self) -> torch.Tensor:
        """The log-probabilities (V,) after ``<eos>``: nothing but ``<pad>``."""
        row = torch.full((len(self.vocabulary),), MINUS_INFINITY, dtype=torch.float64)
        row[self.pad] = 0.0
        return row

    def next_token_distribution(
        self, prefix: Sequence[int], z: Sequence[str], c: str | None = None
    ) -> torch.Tensor:
        """Pr^t(y_t = · | y_<t, c, z), (V,), for a prefix y_<t of ids.

        It is Σ Pr^t(y|c,z) over the outputs that begin with y_<t y_t, divided by the
        same sum for y_<t. After a finished output it is ``<pad>`` with certainty.

        Raises:
            BadArgument: the teacher cannot say the prefix; see ``check`` for z and c.
        """
        tree = self._tree(z, c)
        self._check_ids("prefix", prefix, "Make one with toy.encode('la orilla').")
        prefix = tuple(prefix)
        if prefix[-1:] == (self.eos,) and prefix[:-1] in tree:
            if tree[prefix[:-1]][self.eos] > 0:
                return self._ended().exp()
        if prefix not in tree:
            raise self._cannot_say("prefix", prefix, tree)
        return tree[prefix]

    def teacher_logits(
        self, sequences: Sequence[Ids], z: Sequence[str], c: str | None = None
    ) -> torch.Tensor:
        """log Pr^t(· | y_<t, c, z) at every position of N sequences, (N, L, V), nats.

        They are logits whose softmax is the distribution itself; -inf marks what the
        teacher never says there. After ``<eos>`` the row is 0 at ``<pad>`` and -inf
        elsewhere, so with ids = ``padded(sequences)`` the factors give the whole:
        Σ_t log Pr^t(y_t | y_<t, c, z) = log Pr^t(y|c,z).

        Raises:
            BadArgument: a y without ``<eos>``, or one whose tokens before ``<eos>`` the
                teacher cannot say: after them it has no distribution.
        """
        tree = self._tree(z, c)
        ids = self.padded(sequences)
        logits = self._ended().expand(*ids.shape, -1).clone()
        for n, y in enumerate(map(tuple, sequences)):
            if y[:-1] not in tree:
                raise self._cannot_say("sequences", y[:-1], tree)
            for t in range(len(y)):
                logits[n, t] = tree[y[:t]].log()
        return logits

    def sample(
        self,
        z: Sequence[str],
        c: str | None = None,
        *,
        count: int,
        generator: torch.Generator,
    ) -> list[Ids]:
        """``count`` independent y ~ Pr^t(·|c,z), drawn one token after the other.

        Raises:
            BadArgument: ``count`` is below 1 or ``generator`` is no torch.Generator;
                see ``check`` for z and c.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            wanted = "a whole number from 1"
            raise BadArgument("count", repr(count), wanted=wanted, todo="Draw some.")
        if not isinstance(generator, torch.Generator):
            given, todo = repr(generator), "Pass torch.Generator().manual_seed(0)."
            raise BadArgument("generator", given, wanted="a torch.Generator", todo=todo)
        tree = self._tree(z, c)
        samples = []
        for _ in range(count):
            y: Ids = ()
            while y[-1:] != (self.eos,):
                drawn = torch.multinomial(tree[y], 1, generator=generator)
                y += (int(drawn),)
            samples.append(y)
        return samples

    # ------------------------------------------------------------------ checks of ids

    def _check_ids(self, name: str, ids: Sequence[int], todo: str) -> None:
        whole = isinstance(ids, list | tuple) and all(
            isinstance(i, int) and 0 <= i < len(self.vocabulary) for i in ids
        )
        if not whole:
            wanted = f"a tuple of target ids in 0..{self.pad}"
            raise BadArgument(name, repr(ids), wanted=wanted, todo=todo)

    def _check_sequence(self, y: Sequence[int]) -> None:
        self._check_ids("sequences", y, "Pass outputs.sequences, or [y].")
        if tuple(y[-1:]) != (self.eos,) or self.eos in y[:-1] or self.pad in y:
            raise BadArgument(
                "sequences",
                f"{tuple(y)!r} among others",
                wanted=f"<eos>, id {self.eos}, at the end of each and only there",
                todo="Add it: toy.encode('la orilla') + (toy.eos,).",
            )

    def _cannot_say(self, name: str, prefix: Ids, tree) -> BadArgument:
        said = prefix
        while said not in tree:
            said = said[:-1]
        words = [self.vocabulary[i] for i in tree[said].nonzero().flatten().tolist()]
        given = " ".join(self.vocabulary[i] for i in prefix)
        return BadArgument(
            name,
            f"{given!r}, which the teacher cannot say",
            wanted="a beginning of one of the teacher's outputs",
            todo=f"After {self.decode(said)!r} take one of: {', '.join(words)}.",
        )


def _check_weights(name: str, weights: list[tuple[float, ...]]) -> None:
    """Probabilities in every context, which sum to 1 over the senses of a word."""
    right = all(len(row) == len(CONTEXTS) and min(row) >= 0 for row in weights)
    sums = [sum(column) for column in zip(*weights, strict=True)] if right else []
    if not right or any(abs(total - 1) > 1e-12 for total in sums):
        raise BadArgument(
            name,
            f"given with weights {weights}",
            wanted=f"senses that sum to 1 in each of {', '.join(CONTEXTS)}",
            todo="Change the weights.",
        )


def toy_language() -> Toy:
    """The standard toy language of the course: always the same."""
    return Toy(
        nouns=NOUNS,
        people=PEOPLE,
        adjectives=ADJECTIVES,
        verbs=VERBS,
        topics=TOPICS,
        drop=0.6,
    )


# --------------------------------------------------------------------- the exact losses


def sequence_cross_entropy(
    outputs: Outputs, student_log_probs: torch.Tensor
) -> torch.Tensor:
    """The sequence-level loss: -Σ_y Pr^t(y|c,z) log Pr^s_θ(y|c',z), in nats, ().

    ``outputs`` are all of the teacher's, ``student_log_probs`` (N,) the student's
    log Pr^s_θ of the same sequences, through which the gradient flows. Its minimum over
    all students is the teacher's entropy, ``outputs.entropy``. Kim & Rush 2016 call it
    the sequence-level objective and approximate it; here it is exact.

    Raises:
        BadArgument: not one logarithm of a probability for each output.
    """
    _check_log_probs(outputs, student_log_probs)
    return -(outputs.probabilities * student_log_probs).sum()


def sequence_kl(outputs: Outputs, student_log_probs: torch.Tensor) -> torch.Tensor:
    """KL(Pr^t ‖ Pr^s) = Σ_y Pr^t(y|c,z) log [Pr^t(y|c,z) / Pr^s_θ(y|c',z)], nats, ().

    It is the sequence-level loss less the teacher's entropy: it has the same gradient
    and is 0 exactly where the student is the teacher. The sum runs over what the
    teacher can say; what the student says beside that costs it mass here. The other
    direction would be infinite for a student that says anything the teacher cannot.
    Arguments and errors as for ``sequence_cross_entropy``.
    """
    _check_log_probs(outputs, student_log_probs)
    p = outputs.probabilities
    return (p * (p.log() - student_log_probs)).sum()


def target_generated_loss(
    outputs: Outputs, student_log_probs: torch.Tensor
) -> torch.Tensor:
    """-log Pr^s_θ(ŷ|c',z), with ŷ = argmax_y Pr^t(y|c,z), in nats, ().

    The textbook prints log Pr^s_θ(ŷ|c',z) without the minus sign; but a loss is
    minimised, and without the sign that would teach the student to avoid ŷ. It replaces
    the teacher by a distribution with all its mass on ŷ: sequence-level distillation
    (Kim & Rush 2016). Arguments and errors as for ``sequence_cross_entropy``.
    """
    _check_log_probs(outputs, student_log_probs)
    return -student_log_probs[0]  # outputs begin with the most probable


def _check_log_probs(outputs: Outputs, student_log_probs: torch.Tensor) -> None:
    todo = "Compute them with student.log_prob(outputs.sequences, z, c)."
    name, wanted = "student_log_probs", f"log Pr^s of {len(outputs)} outputs, (N,)"
    if not isinstance(student_log_probs, torch.Tensor):
        given = f"a {type(student_log_probs).__name__}"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    if student_log_probs.shape != outputs.probabilities.shape:
        given = f"of shape {tuple(student_log_probs.shape)}"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    worst = student_log_probs.max().item()
    if not worst < 1e-6:  # also true of NaN
        given = f"up to {worst}"
        raise BadArgument(name, given, wanted="logarithms, at most 0", todo=todo)


def sequence_kl_by_tokens(
    toy: Toy, student: Student, z: Sequence[str], c: str | None = None
) -> torch.Tensor:
    """The chain rule: Σ_{y_<t} Pr^t(y_<t) KL(Pr^t(·|y_<t,c,z) ‖ Pr^s_θ(·|y_<t,c',z)).

    The sum runs over all prefixes that the teacher can say. It equals ``sequence_kl``:
    a KL between sequences is the sum of the KLs between next tokens, each weighted by
    how often the teacher comes by. As Pr^t(y_<t) = Σ Pr^t(y) over the y that begin with
    it, the sum is taken as Σ_y Pr^t(y) Σ_t KL_t. Nats, (), with gradient.
    """
    outputs = toy.outputs(z, c)
    log_p = toy.teacher_logits(outputs.sequences, z, c)
    log_q = student.logits(outputs.sequences, z, c).log_softmax(dim=-1)
    said = log_p > MINUS_INFINITY  # 0 · log 0 is 0, but not for a computer
    terms = log_p.exp()[said] * (log_p[said] - log_q[said])
    weights = outputs.probabilities[:, None, None].expand_as(log_p)[said]
    return (weights * terms).sum()


# ------------------------------------------------------------------------- two students


class Student(nn.Module):
    """What the students of the toy language have in common: Pr^s_θ(y|c',z).

    A subclass gives ``scores``. With ``reads_context=False`` the student is blind to c:
    its simplified context c' is empty, whatever the teacher reads. The parameters start
    at 0 and are float64, so that training is deterministic and comparisons exact.
    """

    def __init__(self, toy: Toy, reads_context: bool):
        super().__init__()
        self.toy, self.reads_context = toy, reads_context

    def scores(self, ids: torch.Tensor, z: Words, c: str | None) -> torch.Tensor:
        """Unnormalised scores (N, L, V - 1) of all tokens but ``<pad>`` for y_t."""
        raise NotImplementedError

    def logits(
        self, sequences: Sequence[Ids], z: Sequence[str], c: str | None = None
    ) -> torch.Tensor:
        """Logits (N, L, V) of y_t given y_<t, at every position of N sequences.

        As with ``Toy.teacher_logits``, ``<pad>`` is -inf before the end and certain
        after it. What follows a prefix is the last row of ``prefix + (eos,)``.

        Raises:
            BadArgument: a sequence without ``<eos>``; see ``Toy.check`` for z and c.
        """
        z, c = self.toy.check(z, c)
        ids = self.toy.padded(sequences)
        scores = self.scores(ids, z, c if self.reads_context else None)
        logits = nn.functional.pad(scores, (0, 1), value=MINUS_INFINITY)
        return torch.where((ids == self.toy.pad)[..., None], self.toy._ended(), logits)

    def log_prob(
        self, sequences: Sequence[Ids], z: Sequence[str], c: str | None = None
    ) -> torch.Tensor:
        """log Pr^s_θ(y|c',z) = Σ_t log Pr^s_θ(y_t | y_<t, c', z), (N,), in nats."""
        log_q = self.logits(sequences, z, c).log_softmax(dim=-1)
        ids = self.toy.padded(sequences)
        return log_q.gather(-1, ids[..., None]).squeeze(-1).sum(dim=-1)


class TabularStudent(Student):
    """A row of free logits for each prefix that the teacher can say.

    It can be the teacher exactly: what it fails to learn is the loss's doing, not its
    size. ``sources`` are the sentences that it knows; it has a table for each of them
    and, where it reads the context, each context and None. Off its table, where the
    teacher never goes, it ends the sentence.

    Raises:
        BadArgument: a source is none of the language, or later was not among these.
    """

    def __init__(
        self, toy: Toy, sources: Sequence[Sequence[str]], *, reads_context: bool = True
    ):
        super().__init__(toy, reads_context)
        self.rows: dict[tuple[Words, str | None, Ids], int] = {}
        for z in sources:
            for c in (None, *toy.contexts) if reads_context else (None,):
                for prefix in toy._tree(z, c):
                    self.rows.setdefault((tuple(z), c, prefix), len(self.rows))
        size = len(toy.vocabulary) - 1
        self.table = nn.Parameter(
            torch.zeros(len(self.rows), size, dtype=torch.float64)
        )

    def scores(self, ids: torch.Tensor, z: Words, c: str | None) -> torch.Tensor:
        """The table's rows, (N, L, V - 1)."""
        if (z, c, ()) not in self.rows:
            raise BadArgument(
                "z",
                f"{z!r}, of which this student has no table",
                wanted="one of its sources",
                todo="Give it when you make the student: TabularStudent(toy, [z]).",
            )
        end = self.table.new_full((1, self.table.shape[1]), MINUS_INFINITY)
        end[0, self.toy.eos] = 0.0
        off = len(self.rows)
        index = [
            [self.rows.get((z, c, tuple(y[:t])), off) for t in range(len(y))]
            for y in ids.tolist()
        ]
        return torch.cat([self.table, end])[torch.tensor(index)]


class BigramStudent(Student):
    """A student too small for the language: it sees one token back.

    logits(y_t) = B[y_{t-1}] + Σ_{w in z} A[w] (+ C[c]): what came before y_{t-1}, and
    the order of z, are lost on it. All sentences share its parameters, V - 1 for each
    target token, source word and context. The logits are linear in them, so the
    sequence-level loss is convex: what remains at its minimum is the price of the
    student's size, not of bad luck.
    """

    def __init__(self, toy: Toy, *, reads_context: bool = True):
        super().__init__(toy, reads_context)
        size = len(toy.vocabulary)

        def zeros(rows):
            return nn.Parameter(torch.zeros(rows, size - 1, dtype=torch.float64))

        self.bigrams = zeros(size)
        self.words = zeros(len(toy.source_vocabulary))
        self.topics = zeros(len(toy.contexts)) if reads_context else None

    def scores(self, ids: torch.Tensor, z: Words, c: str | None) -> torch.Tensor:
        """B[y_{t-1}] + Σ_w A[w] + C[c], (N, L, V - 1)."""
        start = ids.new_full((len(ids), 1), self.toy.pad)
        previous = torch.cat([start, ids[:, :-1]], dim=1)
        bag = self.words[list(self.toy.encode_source(z))].sum(dim=0)
        if c is not None:
            bag = bag + self.topics[self.toy.contexts.index(c)]
        return self.bigrams[previous] + bag


def enumerate_student(
    student: Student,
    z: Sequence[str],
    c: str | None = None,
    *,
    max_length: int = 12,
    floor: float = 1e-4,
) -> Outputs:
    """What the student says with Pr^s_θ(y|c',z) > floor in at most max_length tokens.

    A student may say infinitely many sequences. Prefixes are followed while they are
    more probable than ``floor``; no more than 1 / floor of one length can be. The
    probabilities are exact and not renormalised: ``missing`` is the mass of all that
    was left out. Most probable first, without gradient; ``<eos>`` counts as a token.

    Raises:
        BadArgument: ``floor`` is not above 0 and below 1, or ``max_length`` below 1.
    """
    if not isinstance(floor, float) or not 0.0 < floor < 1.0:
        wanted = "a number above 0 and below 1"
        raise BadArgument("floor", repr(floor), wanted=wanted, todo="Take 1e-4.")
    if not isinstance(max_length, int) or max_length < 1:
        given, wanted = repr(max_length), "a whole number from 1"
        raise BadArgument("max_length", given, wanted=wanted, todo="Take 12.")
    eos = student.toy.eos
    alive, done = {(): 1.0}, []
    for _ in range(max_length):
        ends = [prefix + (eos,) for prefix in alive]
        with torch.no_grad():
            q = student.logits(ends, z, c)[:, -1].softmax(dim=-1)
        q *= torch.tensor(list(alive.values()), dtype=q.dtype)[:, None]
        prefixes, alive = list(alive), {}
        for n, token in (q > floor).nonzero().tolist():
            y, p = prefixes[n] + (token,), q[n, token].item()
            if token == eos:
                done.append((y, p))
            else:
                alive[y] = p
        if not alive:
            break
    done.sort(key=lambda pair: (-pair[1], pair[0]))
    sequences = tuple(y for y, _ in done)
    probabilities = torch.tensor([p for _, p in done], dtype=torch.float64)
    return Outputs(sequences, probabilities)
