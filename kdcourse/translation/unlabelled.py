"""English of the same domain that nobody translated: what only a teacher can label.

The wheel whose translations are the corpus also holds the programs whose screens they
are. Their docstrings, messages and comments are sentences about the same devices, and
their identifiers are names of the same quantities: ``wifi_signal_strength`` is "Wifi
signal strength". Sequence-level distillation needs no more of a sentence than its
source (Kim & Rush 2016).

No file of a component held out for validation or testing is read, and no string that
is a near-duplicate of one of theirs is kept.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .corpus import near_keys, normalise
from .shield import WORD
from .sources import open_wheel

MODULE = re.compile(r"homeassistant/(?:components/([^/]+)/)?.*\.py")
# A comment's text, or a string literal with its prefix.
QUOTED = re.compile(
    r"\#+[!:]?[ ]*(?P<comment>[^\n]*)"
    r"|(?P<prefix>\b[rRfFbBuU]{1,2}|)(?:"
    r"(?P<quotes>\"{3}|'{3})(?P<long>.*?)(?P=quotes)"
    r'|"(?P<double>(?:\\.|[^"\\\n])*)"'
    r"|'(?P<single>(?:\\.|[^'\\\n])*)')",
    re.DOTALL,
)
FIELD = re.compile(r"\{([^{}]*)\}")
NAME_AT_END = re.compile(r"(?:^|[.])_*([a-z][a-z_]*)(?:\(\))?(?:![rsa])?$")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
PARAGRAPH = re.compile(r"\n\s*\n|\n\s*[-*]\s+")
PERCENT = re.compile(r"%(?:\.\d+)?[sdrfi]")
IDENTIFIER = re.compile(r"[a-z]{2,}(?:_[a-z]+)+|[A-Z]{2,}(?:_[A-Z]+)+")
# What prose is made of; a string with any other sign is code, a format or a path.
PROSE = re.compile(r"[A-Za-z][A-Za-z0-9 ,.;:!?'\"()/%{}°&+-]*")
PLACEHOLDERS = ("{name}", "{host}", "{error}", "{device}", "{entity}", "{value}")
LEAST_WORDS, MOST_WORDS = 2, 40
LONGEST_IDENTIFIER = 5  # words
KNOWN_SHARE = 0.8  # of a string's words; the others are mostly names
PREFIXES = {"async", "attr", "conf", "const", "default", "service", "get", "is", "test"}


def unlabelled(wheel: str | Path, train: Iterable[str], held: Held) -> list[str]:
    """Distinct English strings of the wheel's programs, in a fixed order.

    Args:
        wheel: the verified wheel (``sources.apps_wheel``).
        train: the training sources; a string is kept where four fifths of its words
            stand in them too, and it is none of them.
        held: what nothing may come from.

    Raises:
        CorpusError: the wheel is broken or cannot be read.
    """
    train = list(train)
    known = {word.lower() for text in train for word in WORD.findall(text)}
    seen = set(train)
    kept: list[str] = []
    with open_wheel(wheel) as archive:
        for text in texts(archive, held.components):
            if text in seen:
                continue
            seen.add(text)
            if is_prose(text, known) and near_keys(text).isdisjoint(held.keys):
                kept.append(text)
    return kept


class Held:
    """The components and the near keys of the strings that are held out."""

    def __init__(self, components: Iterable[str], sources: Iterable[str]):
        self.components = frozenset(components)
        self.keys = frozenset(key for text in sources for key in near_keys(text))


def texts(archive: zipfile.ZipFile, without: frozenset[str]) -> Iterator[str]:
    """Every sentence and every spelt-out identifier of the wheel's Python files."""
    for name in sorted(archive.namelist()):
        match = MODULE.fullmatch(name)
        if match and match[1] not in without:
            code = archive.read(name).decode("utf-8")
            yield from sentences(code)
            yield from spelt_out(code)


def sentences(code: str) -> Iterator[str]:
    """The sentences of a module's strings and comments.

    A pattern finds them, not Python's parser, which refuses code newer than itself:
    so the same strings are found whatever Python reads them. Neighbours that only
    white space parts are one text: Python joins such strings, and a comment goes on.
    """
    block: list[str] = []
    kind, end = None, 0
    for match in QUOTED.finditer(code):
        comment = match["comment"]
        last, kind = kind, "quotes" if comment is None else "comment"
        if kind != last or code[end : match.start()].strip():
            yield from split_sentences("".join(block))
            block = []
        block.append(literal(match) if comment is None else f"{comment} ")
        end = match.end()
    yield from split_sentences("".join(block))


def literal(match: re.Match) -> str:
    """The text of a string literal; ``f"Open {self.host}"`` is "Open {host}"."""
    text = match["long"] or match["double"] or match["single"] or ""
    if "r" not in match["prefix"].lower():
        text = text.replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
    return FIELD.sub(placeholder, text) if "f" in match["prefix"].lower() else text


def placeholder(field: re.Match) -> str:
    """The placeholder for a formatted expression, by the last of its names."""
    name = NAME_AT_END.search(field[1])
    return f"{{{name[1]}}}" if name else "{value}"


def split_sentences(text: str) -> Iterator[str]:
    """Sentences, each on one line, with placeholders in the place of ``%s``."""
    for paragraph in PARAGRAPH.split(text):
        line = normalise(paragraph)
        for number, _ in enumerate(PERCENT.findall(line)):
            slot = PLACEHOLDERS[(len(line) + number) % len(PLACEHOLDERS)]
            line = PERCENT.sub(slot, line, count=1)
        yield from SENTENCE_END.split(line)


def spelt_out(code: str) -> Iterator[str]:
    """Identifiers as phrases: ``ATTR_FAN_SPEED`` is "Fan speed"."""
    for name in dict.fromkeys(IDENTIFIER.findall(code)):
        words = name.lower().split("_")
        while words and words[0] in PREFIXES:
            words = words[1:]
        if 2 <= len(words) <= LONGEST_IDENTIFIER:
            yield " ".join(words).capitalize()


def is_prose(text: str, known: set[str]) -> bool:
    """Whether a string is English as the training sources are."""
    if not PROSE.fullmatch(text):
        return False
    words = WORD.findall(text)
    if not LEAST_WORDS <= len(words) <= MOST_WORDS:
        return False
    return sum(word.lower() in known for word in words) >= KNOWN_SHARE * len(words)
