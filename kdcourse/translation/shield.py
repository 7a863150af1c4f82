"""Carry names that training never saw around the model.

A small translator garbles a word it has never seen ("Tado" became "Se ha"), but it
copies the placeholders of the app's strings. So an unseen name is covered by one
before the translation and put back after it: the way of Luong et al. 2015, "Addressing
the rare word problem in neural machine translation", with the placeholder itself
telling where the name belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .augmentation import NAME
from .corpus import PLACEHOLDER
from .storage import write_whole

KNOWN_FILE = "known_words.txt"
# Placeholders that stand in the place of a name; chosen once, on the validation split.
SLOTS = ("{name}", "{model}", "{host}", "{device}", "{entity}")
# At the beginning of a sentence "Pumping" is no name, whatever its capital says.
BEGINNING = re.compile(r"(?:^|[.!?:]\s+)$")
ENGLISH = re.compile(
    r"[A-Z][a-z]*(?:ing|ed|ers?|ors?|ions?|ly|ments?|[ai]ble|al|ive|ous|ness|ity|ies"
    r"|[ae]nce|ful|less|i[sz]e)"
)
WORD = re.compile(r"(?<![\w{])[\w'.+-]*\w(?![\w}])")


class NameShield:
    """Cover names made of unseen words, and put them back where their slots stand."""

    def __init__(self, known: Iterable[str]):
        self.known = frozenset(known)

    @classmethod
    def load(cls, folder: str | Path) -> NameShield | None:
        """The shield of a model's folder; None where it lists no known words."""
        path = Path(folder) / KNOWN_FILE
        if not path.is_file():
            return None
        return cls(path.read_text(encoding="utf-8").split("\n"))

    def cover(self, text: str) -> tuple[str, dict[str, str]]:
        """The text with unseen names covered, and what stands behind each slot.

        >>> NameShield(["set", "hub"]).cover("Set Tado Vistapool hub")
        ('Set {name} hub', {'{name}': 'Tado Vistapool'})
        """
        spans = self.unseen(text)
        taken = set(PLACEHOLDER.findall(text))
        free = [slot for slot in SLOTS if slot not in taken]
        if len(spans) > len(free):
            return text, {}
        names, parts, end = {}, [], 0
        for (start, stop), slot in zip(spans, free, strict=False):
            parts += [text[end:start], slot]
            names[slot] = text[start:stop]
            end = stop
        return "".join((*parts, text[end:])), names

    def unseen(self, text: str) -> list[tuple[int, int]]:
        """Where names of unseen words stand; neighbours are one name."""
        spans: list[tuple[int, int]] = []
        for match in NAME.finditer(text):
            word = match.group()
            bare = word.removesuffix("'s")
            start, stop = match.span()
            ordinary = ENGLISH.fullmatch(bare) and BEGINNING.search(text[:start])
            if ordinary or not self.known.isdisjoint((word, bare, bare.lower())):
                continue
            stop -= 2 * word.endswith("'s")  # "Tado's": the name is Tado
            if spans and text[spans[-1][1] : start] == " ":
                start = spans.pop()[0]
            spans.append((start, stop))
        return spans


def restore(translation: str, names: dict[str, str]) -> str | None:
    """Put the names back; None where a slot was lost or doubled on the way."""
    if any(translation.count(slot) != 1 for slot in names):
        return None
    for slot, name in names.items():
        translation = translation.replace(slot, name)
    return translation


def write_known_words(
    folder: str | Path, texts: Iterable[str], known: Iterable[str] = ()
) -> None:
    """List the words of the training sources beside a model, and ``known`` ones."""
    words = {word for text in texts for word in WORD.findall(text)} | {*known} - {""}
    text = "\n".join(sorted(words)) + "\n"
    write_whole(Path(folder) / KNOWN_FILE, text.encode())
