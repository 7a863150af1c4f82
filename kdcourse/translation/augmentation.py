"""Teach copying: swap names and placeholders for made-up ones on both sides.

A small translator garbles names it has never seen ("A Better Routeplanner" became
"Aet Tratero"). The cure is to make names worthless to memorise: whatever stands
word for word on both sides of a pair may be replaced, on both, by an invented one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from .corpus import PLACEHOLDER

# A word with a capital or a digit after its first letter, or a capitalised word.
NAME = re.compile(r"(?<![\w{])(?:[A-Z][\w'.+-]*\w|[a-z]+[A-Z0-9]\w*|[A-Z]\d*)(?![\w}])")
ONSETS = (
    "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kn pl qu sh sk st tr th"
).split()
VOWELS = "a e i o u a e i o ai ea ee io oo ou y".split()
CODAS = ["", "", "", *"n r s l t x ck nd rt m ng sh z".split()]
# Few rows have a name to exchange; others get one in a place that any language allows.
ATTACHED = 0.15
FORMS = ("{name}: {text}", "{text}: {name}", "{text} ({name})", "{text} - {name}")
# Half of the words of a name, where ordinary words to build them from are known.
COMPOUNDS = 0.5
ORDINARY = re.compile(r"(?<!\S)[a-z]{3,8}(?!\S)")
UNKNOWN = "日本語のテキスト中文房間приветстранаעבריתहिन्दी🔥💡🏠🚗🎉😀🌡🔋❄⚡"


def name_spans(source: str, target: str) -> list[str]:
    """The longest runs of shared names: "Better Routeplanner" is one name."""
    spans: list[str] = []
    end = -1
    for match in NAME.finditer(source):
        if match.group() not in target:
            continue
        joined = f"{spans[-1]} {match.group()}" if spans else ""
        if spans and match.start() == end + 1 and joined in target:
            spans[-1] = joined
        else:
            spans.append(match.group())
        end = match.end()
    return [span for span in dict.fromkeys(spans) if stands_in(span, target)]


def stands_in(span: str, text: str) -> bool:
    """Whether a name stands in a text whole: "Hue" does not stand in "Huelva"."""
    return re.search(rf"(?<!\w){re.escape(span)}(?!\w)", text) is not None


class Augmenter:
    """Replace shared names and placeholders, reproducibly, with some probability.

    ``texts``, where given, lend their ordinary words: half of all names are then
    built as brands are, "Nextcloud" and "SmartThings", or begin small, "deCONZ".
    """

    def __init__(
        self, names: list[str], probability: float = 0.3, texts: Iterable[str] = ()
    ):
        self.words = sorted({word for name in names for word in name.split()})
        self.probability = probability
        self.ordinary = sorted({w for text in texts for w in ORDINARY.findall(text)})

    def __call__(self, source: str, target: str, rng: random.Random) -> tuple[str, str]:
        """The pair, perhaps with some of its names and placeholders exchanged."""
        if rng.random() >= self.probability:
            return source, target
        spans = name_spans(source, target)
        for span in spans:
            if rng.random() < 0.7:
                source, target = self._swap(span, self.name(rng), source, target)
        if not spans and rng.random() < ATTACHED:
            form, name = rng.choice(FORMS), self.name(rng)
            source, target = (form.format(text=t, name=name) for t in (source, target))
        for slot in dict.fromkeys(PLACEHOLDER.findall(source)):
            if rng.random() < 0.5:
                new = "{" + self.identifier(rng) + "}"
                source, target = source.replace(slot, new), target.replace(slot, new)
        return source, target

    @staticmethod
    def _swap(old: str, new: str, source: str, target: str) -> tuple[str, str]:
        pattern = re.compile(rf"(?<!\w){re.escape(old)}(?!\w)")
        return pattern.sub(lambda _: new, source), pattern.sub(lambda _: new, target)

    def word(self, rng: random.Random) -> str:
        """One invented word, such as "Brontai"."""
        syllables = rng.choices((1, 2, 3), (2, 5, 3))[0]
        parts = (
            rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
            for _ in range(syllables)
        )
        return "".join(parts).capitalize()

    def code(self, rng: random.Random) -> str:
        """One model number, such as "XR-204"."""
        letters = "".join(
            rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(1, 4))
        )
        return (
            letters
            + rng.choice(("", "-", ""))
            + str(rng.randint(1, 10 ** rng.randint(1, 4)))
        )

    def name(self, rng: random.Random) -> str:
        """A made-up name of one to three words."""
        makers = (
            lambda: self.word(rng),
            lambda: rng.choice(self.words) if self.words else self.word(rng),
            lambda: self.code(rng),
            lambda: self.word(rng) + self.word(rng),
            lambda: self.word(rng).upper(),
            lambda: self.word(rng).lower()[:2] + self.word(rng).upper()[:5],
            lambda: f"{self.word(rng)}_{self.word(rng)}".upper(),
            lambda: "".join(rng.choices(UNKNOWN, k=rng.randint(1, 4))),
        )
        count = rng.choices((1, 2, 3), (6, 3, 1))[0]
        return " ".join(
            self.brand(rng)
            if self.ordinary and rng.random() < COMPOUNDS
            else rng.choices(makers, (8, 6, 2, 3, 1, 1, 1, 1))[0]()
            for _ in range(count)
        )

    def brand(self, rng: random.Random) -> str:
        """One word as brands are made: "Nextcloud", "SmartThings", "deCONZ"."""
        first, second = rng.choices(self.ordinary, k=2)
        other = rng.choice((second, self.word(rng).lower()))
        small = rng.choice((*"aeimxz", "de", "my", "eco", "go", first))
        makers = (
            lambda: (first + other).capitalize(),
            lambda: (other + first).capitalize(),
            lambda: first.capitalize() + other.capitalize(),
            lambda: small + other.capitalize(),
            lambda: small + self.word(rng).upper()[:5],
            lambda: self.word(rng) + self.word(rng).lower(),
            lambda: f"{first.capitalize()}-{other.capitalize()}",
        )
        return rng.choices(makers, (5, 3, 4, 3, 2, 3, 1))[0]()

    def identifier(self, rng: random.Random) -> str:
        """A made-up placeholder name, such as ``brontai_host``."""
        common = (
            "name",
            "host",
            "id",
            "error",
            "device",
            "url",
            "count",
            "model",
            "entity",
            "value",
        )
        words = (
            self.word(rng).lower() if rng.random() < 0.4 else rng.choice(common)
            for _ in range(rng.choice((1, 2)))
        )
        return "_".join(words)
