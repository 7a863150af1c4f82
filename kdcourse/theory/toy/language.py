"""The language itself: sources, every translation of each, and their probabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch

from ..arguments import BadArgument, check_count, check_share, is_number
from .words import (
    ADJECTIVES,
    ARTICLES,
    CONTEXTS,
    NOUNS,
    OBJECT_PRONOUNS,
    OF_PEOPLE,
    PEOPLE,
    PLURAL_PRONOUNS,
    SUBJECT_PRONOUNS,
    TOPICS,
    VERBS,
    Ids,
    Phrase,
    Sense,
    Words,
    inflect,
    phrases,
    plural_of,
)

EOS, PAD = "<eos>", "<pad>"


MINUS_INFINITY = float("-inf")


Alternatives = list[tuple[Words, float]]


@dataclass(frozen=True, eq=False)
class Outputs:
    """Output sequences with their probabilities, the most probable first.

    ``sequences`` are N tuples of target ids, ``<eos>`` included; ``probabilities`` is
    (N,) in float64. Of a teacher they are all that it can say and sum to 1; of a
    student they may be a part (see ``enumerate_student``).

    Raises:
        BadArgument: not one number in 0..1 for each sequence, or a sum above 1.
    """

    sequences: tuple[Ids, ...]
    probabilities: torch.Tensor

    def __post_init__(self):
        if not isinstance(self.sequences, list | tuple):
            raise BadArgument(
                "sequences",
                f"a {type(self.sequences).__name__}",
                wanted="a tuple of tuples of target ids",
                todo="Take what toy.outputs gives.",
            )
        wanted = f"probabilities ({len(self.sequences)},), which sum to at most 1"
        todo = "Take what toy.outputs or enumerate_student gives."
        p, given = self.probabilities, None
        if not isinstance(p, torch.Tensor) or not p.is_floating_point() or p.is_meta:
            given = f"of {getattr(p, 'dtype', type(p).__name__)}"
            given += " on meta" if getattr(p, "is_meta", False) else ""
        elif p.shape != (len(self.sequences),):
            given = f"of shape {tuple(p.shape)}"
        elif not (p >= 0).all() or not p.sum() < 1 + 1e-6:  # also true of NaN
            given = f"of the sum {p.sum().item():.6g}, with {p.min().item():.6g}"
        if given is not None:
            raise BadArgument("probabilities", given, wanted=wanted, todo=todo)

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
            _check_table(name, getattr(self, name))
        _check_topics(self.topics)

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
            forms += [form for s in senses for form in (s.word, plural_of(s.word))]
        for senses in self.adjectives.values():
            kinds = product(senses, "mf", (False, True))
            forms += [inflect(s.word, gender, plural) for s, gender, plural in kinds]
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
        if not isinstance(text, str):
            raise BadArgument(
                "text",
                f"a {type(text).__name__}",
                wanted="words of the target language in one text",
                todo="Join them: toy.encode(' '.join(words)).",
            )
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
        subjects += phrases(self.people, both, ["", *fitting])
        objects = [Phrase(p, p in PLURAL_PRONOUNS) for p in OBJECT_PRONOUNS]
        objects += phrases(self.nouns, [*both, ("a", False)], ["", *self.adjectives])
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
        if c is not None and not (isinstance(c, str) and c in self.contexts):
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
            form = plural_of(noun.word) if phrase.plural else noun.word
            adjectives = [((), 1.0)]
            if phrase.adjective:
                adjectives = [
                    ((inflect(s.word, noun.gender, phrase.plural),), q)
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
        check_count("count", count)
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
            isinstance(i, int)
            and not isinstance(i, bool)
            and 0 <= i < len(self.vocabulary)
            for i in ids
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


def _check_table(name: str, table: Mapping[str, tuple[Sense, ...]]) -> None:
    """Words with one or more senses each, of which something is said in any context."""
    todo = "Look at the tables of kdcourse.theory.toy.words."
    if not isinstance(table, Mapping):
        given, wanted = f"a {type(table).__name__}", "a dictionary: word to its senses"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    for word, senses in table.items():
        here = f"{name}[{word!r}]"
        if not senses or not all(isinstance(sense, Sense) for sense in senses):
            raise BadArgument(
                here, f"{senses!r}", wanted="a tuple of one or more Sense", todo=todo
            )
        genders = {sense.gender for sense in senses}
        if name in ("nouns", "people") and not genders <= {"m", "f"}:
            given = f"of the genders {sorted(map(str, genders))}"
            raise BadArgument(here, given, wanted="'m' or 'f'", todo=todo)
        _check_weights(here, [sense.weights for sense in senses])


def _are_numbers(row) -> bool:
    return (
        isinstance(row, list | tuple)
        and len(row) == len(CONTEXTS)
        and all(is_number(x) and 0.0 <= x < float("inf") for x in row)
    )


def _check_topics(topics: Mapping[str, tuple[float, ...]]) -> None:
    if not isinstance(topics, Mapping):
        raise BadArgument(
            "topics",
            f"a {type(topics).__name__}",
            wanted="a dictionary: word to its fit to each context",
            todo="Take {} where no word suggests a context.",
        )
    for word, fits in topics.items():
        if not _are_numbers(fits) or min(fits) <= 0:
            raise BadArgument(
                f"topics[{word!r}]",
                repr(fits),
                wanted=f"finite numbers above 0 for {', '.join(CONTEXTS)}",
                todo="Take 1 where the word says nothing about the context.",
            )


def _check_weights(name: str, weights: list[tuple[float, ...]]) -> None:
    """Probabilities in every context, which sum to 1 over the senses of a word."""
    right = all(map(_are_numbers, weights))
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
