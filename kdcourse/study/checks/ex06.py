"""Checks of lesson 06: an honest corpus, honest scores, and a step of the beam."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

from kdcourse.translation.corpus import near_key, placeholders

from .core import Case, Exercise, Misconception

END = "</s>"

# --- near_duplicate_key ---------------------------------------------------------


def _near_duplicate_key(text: str) -> str:
    letters = "".join(c if c.isalpha() else " " for c in text.casefold())
    return " ".join(letters.split()) or text


def _key_cases() -> list[Case]:
    texts = {
        "the first of the lesson's pair": "Wrong password!",
        "the second of the lesson's pair": "wrong  Password",
        "a number, and letters with accents": "Batería al 10 %",
        "underscores": "log_file_2",
        "a hyphen and a placeholder": "Wi-Fi: {ssid}",
        "signs at both ends": "¿Encender?",
        "no letter at all: the text itself": "100 %",
    }
    return [Case(name, {"text": text}) for name, text in texts.items()]


def _key_by(pattern: str, filler: str = " ", fold: Callable = str.casefold) -> Callable:
    """A solution that replaces a pattern in the folded text."""
    return lambda text: re.sub(pattern, filler, fold(text)).strip() or text


near_duplicate_key = Exercise(
    name="ex06.near_duplicate_key",
    call="near_duplicate_key(text)",
    reference=_near_duplicate_key,
    cases=_key_cases,
    difficulty=1,
    minutes=5,
    hints=(
        "Three steps: small letters, everything that is no letter becomes a space, "
        "runs of spaces become one.",
        'c.isalpha() knows letters with accents. " ".join(x.split()) folds spaces and '
        "trims both ends.",
        'Nothing left? Then the text is its own key: "100 %" is no near-duplicate of '
        '"50 %". `key or text` says it in one word.',
    ),
    misconceptions=(
        Misconception(
            "case",
            "Capitals are still there. Take the text to small letters first: "
            "text.casefold().",
            _key_by(r"[\W\d_]+", fold=str),
        ),
        Misconception(
            "capitals",
            "The key is in capitals. That would do as a key, but small letters were "
            "asked for, so that keys from two programs agree.",
            _key_by(r"[\W\d_]+", fold=str.upper),
        ),
        Misconception(
            "digits kept",
            'The digits are still there. "Zone 1" and "Zone 2" are near-duplicates: '
            "whoever has seen the one can translate the other.",
            _key_by(r"[\W_]+"),
        ),
        Misconception(
            "punctuation kept",
            "Only case and spaces were folded. Signs have to go as well: what is no "
            "letter becomes a space.",
            lambda text: " ".join(text.casefold().split()),
        ),
        Misconception(
            "accents lost",
            "Letters with accents were taken for signs. They are letters: use "
            r"c.isalpha(), or \W in a pattern, not a-z.",
            _key_by(r"[^a-z]+"),
        ),
        Misconception(
            "underscore",
            r"The underscore is still there: \w counts it as a letter. Take it out as "
            "well.",
            _key_by(r"[\W\d]+"),
        ),
        Misconception(
            "empty key",
            "A text without letters has an empty key, so that all such texts are "
            'near-duplicates of each other: "100 %" and "->". Return the text itself.',
            lambda text: re.sub(r"[\W\d_]+", " ", text.casefold()).strip(),
        ),
        Misconception(
            "glued",
            "What is no letter was deleted, so that words are glued together. Put a "
            "space there.",
            lambda text: "".join(c for c in text.casefold() if c.isalpha()) or text,
        ),
        Misconception(
            "edges",
            "There are spaces at the ends: a sign at the beginning or the end leaves "
            "one. Strip the key.",
            lambda text: (
                re.sub(r"[\W\d_]+", " ", text.casefold())
                if re.search(r"[^\W\d_]", text)
                else text
            ),
        ),
        Misconception(
            "doubled spaces",
            "Runs of spaces are still there. Two signs in a row, or two spaces, must "
            "become one space.",
            _key_by(r"[\W\d_]"),
        ),
    ),
)

# --- same_placeholders ----------------------------------------------------------

SLOT = re.compile(r"\{[^{}\s]+\}")


def _same_placeholders(source: str, target: str) -> bool:
    return sorted(SLOT.findall(source)) == sorted(SLOT.findall(target))


def _slot_cases() -> list[Case]:
    rows = {
        "two, in another order": (
            "{name} is at {place}",
            "En {place} está {name}",
        ),
        "two, in the same order": ("{a} of {b} is open", "{a} de {b} está abierto"),
        "one was lost": ("Connect to {host}", "Conectar"),
        "one was translated": ("Connect to {host}", "Conectar a {anfitrión}"),
        "one stands twice in the source": ("{n} of {n} done", "{n} listos"),
        "one was invented": ("Connected", "Conectado a {host}"),
        "none at all": ("Turn on", "Encender"),
        "two next to each other": ("{value}{unit} left", "Quedan {unit}{value}"),
        "one stands twice in the target": ("{a} or {b}", "{a} o {b} o {b}"),
        "a name with a hyphen, lost": ("Open {device-id}", "Abrir"),
        "braces around words are none": ("Use { or } here", "Usa { u o } aquí"),
    }
    return [
        Case(name, {"source": source, "target": target})
        for name, (source, target) in rows.items()
    ]


def _slots_by(find: Callable, compare: Callable) -> Callable:
    return lambda source, target: compare(find(source), find(target))


def _slots_as(pattern: str) -> Callable:
    """A solution that finds placeholders by another pattern."""
    return _slots_by(
        lambda text: re.findall(pattern, text), lambda a, b: sorted(a) == sorted(b)
    )


same_placeholders = Exercise(
    name="ex06.same_placeholders",
    call="same_placeholders(source, target)",
    reference=_same_placeholders,
    cases=_slot_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "Find all placeholders of both sides, then compare. A translation may order "
        "them in another way; it may not lose, add or rename one.",
        r're.findall(r"\{[^{}\s]+\}", text) lists them: a brace, anything but braces '
        "and spaces, a brace.",
        "To compare without order but with counts, compare sorted lists or two "
        "collections.Counter.",
    ),
    misconceptions=(
        Misconception(
            "how often",
            "The placeholders were compared as sets. One that stands twice in the "
            "source must stand twice in the target: compare counts.",
            _slots_by(lambda text: set(SLOT.findall(text)), lambda a, b: a == b),
        ),
        Misconception(
            "number only",
            "Only their number was compared. A placeholder that was translated, {host} "
            "to {anfitrión}, is as broken as a lost one.",
            _slots_by(SLOT.findall, lambda a, b: len(a) == len(b)),
        ),
        Misconception(
            "order",
            "Their order was compared as well. Spanish may say things in another "
            "order: sort both lists, or count.",
            _slots_by(SLOT.findall, lambda a, b: a == b),
        ),
        Misconception(
            "extra ones unseen",
            "Each placeholder of the source was looked for in the target, but not the "
            "other way round: an invented one goes unseen.",
            lambda source, target: all(s in target for s in SLOT.findall(source)),
            _slots_by(lambda text: Counter(SLOT.findall(text)), lambda a, b: not a - b),
        ),
        Misconception(
            "lost ones unseen",
            "Each placeholder of the target was looked for in the source, but not the "
            "other way round: a lost one goes unseen.",
            lambda source, target: all(s in source for s in SLOT.findall(target)),
            _slots_by(lambda text: Counter(SLOT.findall(text)), lambda a, b: not b - a),
        ),
        Misconception(
            "greedy pattern",
            "The pattern runs from the first brace to the last, and takes the words in "
            r"between along. Forbid braces and spaces inside: \{[^{}\s]+\}.",
            _slots_as(r"\{.*\}"),
        ),
        Misconception(
            "letters only",
            r"\w knows letters, digits and the underscore: {device-id} goes unseen. "
            "Inside may stand anything but braces and spaces.",
            _slots_as(r"\{\w+\}"),
        ),
        Misconception(
            "spaces inside",
            'Braces with spaces between them, as in "{ or }", were taken for a '
            "placeholder. Forbid spaces inside, too.",
            _slots_as(r"\{[^{}]+\}"),
        ),
        Misconception(
            "answer reversed",
            "True and False are exchanged: True means that the pair is sound.",
            lambda source, target: not _same_placeholders(source, target),
        ),
    ),
)

# --- find_leaks -----------------------------------------------------------------

Row = tuple[str, str, str]


def _find_leaks(train: list[Row], test: list[Row]) -> list[int]:
    seen = {near_key(source) for source, _, _ in train}
    return [n for n, (source, _, _) in enumerate(test) if near_key(source) in seen]


TRAIN = [
    ("Turn on the lamp", "Enciende la lámpara", "acme_light"),
    ("Switched off", "Apagado", "acme_light"),
    ("Connection to zone 1 failed!", "¡Falló la conexión con la zona 1!", "garden"),
    ("Sensor offline", "Sensor sin conexión", "garden"),
    ("50 %", "50 %", "battery"),
    ("Restart", "Reiniciar", "router"),
]


def _leak_cases() -> list[Case]:
    def case(name: str, *test: Row, train: list[Row] = TRAIN) -> Case:
        return Case(name, {"train": train, "test": list(test)})

    return [
        case(
            "a planted leak: only case, digits and signs differ",
            ("Open the door", "Abre la puerta", "gate"),
            ("Close the door", "Cierra la puerta", "gate"),
            ("connection to Zone 12: failed", "Sin conexión con la zona 12", "pool"),
            ("Water is warm", "El agua está caliente", "pool"),
        ),
        case(
            "nothing leaks: a target in common is none, nor a word in common",
            ("Off", "Apagado", "fan"),
            ("Offline sensor", "El sensor sin conexión", "fan"),
            ("Restart the fan", "Reiniciar el ventilador", "fan"),
            ("100 %", "100 %", "fan"),
        ),
        case(
            "an exact copy, and a string that stands twice in the test",
            ("Speed", "Velocidad", "fan"),
            ("Speed", "Velocidad", "pump"),
            ("Turn on the lamp", "Enciende la lámpara", "pump"),
            ("turn on the LAMP", "Encender la lámpara", "pump"),
            ("Mode", "Modo", "pump"),
        ),
        case(
            "two leaks of one training string, translated in another way",
            ("RESTART!", "Arrancar de nuevo", "hub"),
            ("Switched ... off", "Desconectado", "hub"),
            ("Restart (2)", "Reiniciar (2)", "modem"),
            ("Pairing", "Emparejando", "modem"),
        ),
        case(
            "the same place in both lists means nothing",
            ("Hello", "Hola", "door"),
            ("Bye", "Adiós", "door"),
            train=[("Hello!", "¡Hola!", "gate"), ("Stop", "Detener", "gate")],
        ),
    ]


def _leaks_by(key: Callable[[Row], object]) -> Callable:
    """A solution that flags the test rows whose key stands in training."""

    def solution(train: list[Row], test: list[Row]) -> list[int]:
        seen = {key(row) for row in train}
        return [n for n, row in enumerate(test) if key(row) in seen]

    return solution


def _bare(text: str) -> str:
    return re.sub(r"[\W\d_]+", " ", text.casefold()).strip()


def _each_key_once(train: list[Row], test: list[Row]) -> list[int]:
    first = {}
    for n, row in enumerate(test):
        first.setdefault(near_key(row[0]), n)
    return sorted(set(_find_leaks(train, test)) & set(first.values()))


def _whole_components(train: list[Row], test: list[Row]) -> list[int]:
    bad = {test[n][2] for n in _find_leaks(train, test)}
    return [n for n, row in enumerate(test) if row[2] in bad]


def _repeats(train: list[Row], test: list[Row]) -> list[int]:
    seen = [near_key(row[0]) for row in train]
    found = []
    for n, row in enumerate(test):
        if near_key(row[0]) in seen:
            found.append(n)
        seen.append(near_key(row[0]))
    return found


find_leaks = Exercise(
    name="ex06.find_leaks",
    call="find_leaks(train, test)",
    reference=_find_leaks,
    cases=_leak_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Put the keys of all training sources into a set, then go through the test "
        "with enumerate.",
        "Only sources are compared, each by near_key(source). Targets, components and "
        "places in the list do not matter.",
        "[n for n, row in enumerate(test) if near_key(row[0]) in seen]",
    ),
    misconceptions=(
        Misconception(
            "exact only",
            "Only exact copies were found. The planted leak differs in case, digits "
            "and signs, and is as easy to look up: compare near_key of both.",
            _leaks_by(lambda row: row[0]),
        ),
        Misconception(
            "case only",
            "Strings that differ in case alone were found; digits and signs still hide "
            "leaks. near_key folds them as well.",
            _leaks_by(lambda row: row[0].casefold()),
        ),
        Misconception(
            "digits hide",
            'Case and signs are folded, digits are not: "zone 1" and "zone 12" are '
            "near-duplicates too.",
            _leaks_by(
                lambda row: re.sub(r"[\W_]+", " ", row[0].casefold()).strip() or row[0]
            ),
        ),
        Misconception(
            "targets",
            "The targets were compared. Two different sources may share a translation, "
            "and a leak may be translated in another way: compare sources.",
            _leaks_by(lambda row: near_key(row[1])),
            _leaks_by(lambda row: row[1]),
        ),
        Misconception(
            "whole pairs",
            "A row counts only where source *and* target agree. A leak that was "
            "translated in another way is still a leak: the source was seen.",
            _leaks_by(lambda row: (near_key(row[0]), near_key(row[1]))),
        ),
        Misconception(
            "components",
            "Components were compared. None stands on both sides here, and still there "
            "are leaks: that is why splitting by component is not enough.",
            _leaks_by(lambda row: row[2]),
            _leaks_by(lambda row: (near_key(row[0]), row[2])),
        ),
        Misconception(
            "by position",
            "Row n of the test was compared with row n of training only. A leak may "
            "stand anywhere: look it up in all of training.",
            lambda train, test: [
                n
                for n, (a, b) in enumerate(zip(train, test, strict=False))
                if near_key(a[0]) == near_key(b[0])
            ],
        ),
        Misconception(
            "contained",
            'A source that is contained in another was flagged: "Restart" in "Restart '
            'the fan". That is no near-duplicate; the whole key must agree.',
            lambda train, test: [
                n
                for n, row in enumerate(test)
                if any(near_key(r[0]) in near_key(row[0]) for r in train)
            ],
            lambda train, test: [
                n
                for n, row in enumerate(test)
                if any(
                    near_key(r[0]) in near_key(row[0])
                    or near_key(row[0]) in near_key(r[0])
                    for r in train
                )
            ],
        ),
        Misconception(
            "words in any order",
            "The words were compared as a set, without their order. “Offline sensor” "
            "is another string than “Sensor offline”.",
            _leaks_by(lambda row: frozenset(near_key(row[0]).split())),
            _leaks_by(lambda row: tuple(sorted(near_key(row[0]).split()))),
        ),
        Misconception(
            "no letters",
            'Strings without letters were all taken for one: "100 %" for "50 %". Their '
            "key is the text itself, as near_key has it.",
            _leaks_by(lambda row: _bare(row[0])),
        ),
        Misconception(
            "numbers of training",
            "These are numbers of training rows. Wanted are those of the test rows "
            "that leak: they will have to go.",
            lambda train, test: _find_leaks(test, train),
        ),
        Misconception(
            "test repeats",
            "A test row that repeats another *test* row was flagged. It was never seen "
            "in training; a repetition is no leak.",
            _repeats,
        ),
        Misconception(
            "once each",
            "Of several test rows with one key only one was flagged. All of them leak, "
            "and all must go.",
            _each_key_once,
        ),
        Misconception(
            "first only",
            "The search stopped at the first leak. Return the numbers of all.",
            lambda train, test: _find_leaks(train, test)[:1],
        ),
        Misconception(
            "whole components",
            "All rows of a component with a leak were flagged. Its other rows are "
            "honest: flag the rows that leak.",
            _whole_components,
        ),
        Misconception(
            "everything",
            "Every test row was flagged. That finds each leak, and leaves no test.",
            lambda train, test: list(range(len(test))),
        ),
        Misconception(
            "sound rows",
            "These are the rows that do *not* leak. Return the others.",
            lambda train, test: [
                n for n in range(len(test)) if n not in _find_leaks(train, test)
            ],
        ),
        Misconception(
            "rows returned",
            "The rows themselves were returned; wanted are their numbers in the test, "
            "from 0.",
            lambda train, test: [test[n] for n in _find_leaks(train, test)],
        ),
    ),
)

# --- misaligned_shards ----------------------------------------------------------

Shard = tuple[list[str], list[str]]


def _broken(sources: list[str], targets: list[str]) -> int:
    return sum(
        placeholders(a) != placeholders(b)
        for a, b in zip(sources, targets, strict=True)
    )


def _up(lines: list[str]) -> list[str]:
    return lines[1:] + lines[:1]


def _down(lines: list[str]) -> list[str]:
    return lines[-1:] + lines[:-1]


def _misaligned_shards(shards: list[Shard]) -> list[int]:
    found = []
    for number, (sources, targets) in enumerate(shards):
        here = _broken(sources, targets)
        if min(_broken(sources, move(targets)) for move in (_up, _down)) < here:
            found.append(number)
    return found


def _sound() -> Shard:
    return (
        ["Turn on", "{n} left", "Hello {name}", "Off", "Up to {n}", "Mode"],
        ["Encender", "Quedan {n}", "Hola {name}", "Apagado", "Hasta {n}", "Modo"],
    )


def _faulty() -> Shard:
    """In step, though the teacher has lost three placeholders."""
    return (
        ["Add {a}", "Remove {b}", "Speed", "Find {c}", "Open {d}", "Zone"],
        ["Añadir", "Quitar", "Velocidad", "Buscar", "Abrir {d}", "Zona"],
    )


def _plain() -> Shard:
    return ["On", "Auto", "Humidity target"], ["Encendido", "Automático", "Humedad"]


def _last_lost() -> Shard:
    """In step; of its one placeholder, in the last row, the teacher lost the name."""
    return ["Speed", "Mode", "{n} left"], ["Velocidad", "Modo", "Quedan"]


def _quiet() -> Shard:
    """Hardly any placeholder, so hardly any trace of a shift."""
    return (
        ["Warm", "Cold", "Max {n}", "Fan", "Heat", "Dry", "Eco", "Boost"],
        ["Cálido", "Frío", "Máx. {n}", "Vent", "Calor", "Seco", "Eco", "Turbo"],
    )


def _moved(shard: Shard, move: Callable) -> Shard:
    return shard[0], move(shard[1])


def _twice() -> Shard:
    """Told only by how often a placeholder stands: {n} twice, once, once."""
    return (
        ["{n} of {n}", "{n} left", "Up to {n}", "{n} days"],
        ["{n} de {n}", "Quedan {n}", "Hasta {n}", "{n} días"],
    )


def _one_each() -> Shard:
    """Told only by the names of the placeholders."""
    return (
        ["Open {door}", "Set {mode}", "Wait {time}"],
        ["Abrir {door}", "Poner {mode}", "Esperar {time}"],
    )


def _shard_cases() -> list[Case]:
    def case(name: str, *shards: Shard) -> Case:
        return Case(name, {"shards": list(shards)})

    lost = _sound()
    lost = lost[0], lost[1][1:] + ["Modo"]  # the first line is gone, the last doubled
    return [
        case("a planted shift, up by one", _plain(), _moved(_sound(), _up), _sound()),
        case("a shift down by one", _moved(_sound(), _down), _sound(), _faulty()),
        case("all in step, though some rows are faulty", _faulty(), _last_lost()),
        case("the shifted one has fewer faults", _faulty(), _moved(_quiet(), _up)),
        case("no placeholder: nothing can be said", _plain()),
        case("two out of step, one of them with a line lost", lost, _faulty(),
             _moved(_quiet(), _down)),
        case("each row has one placeholder", _sound(), _moved(_one_each(), _down)),
        case("how often a placeholder stands", _moved(_twice(), _up), _sound()),
    ]  # fmt: skip


def _shards_where(test: Callable[[list[str], list[str]], bool]) -> Callable:
    return lambda shards: [n for n, shard in enumerate(shards) if test(*shard)]


def _better_by(count: Callable, *moves: Callable, or_equal: bool = False) -> Callable:
    """Shards where a move makes ``count(sources, targets)`` smaller."""

    def test(sources: list[str], targets: list[str]) -> bool:
        here = count(sources, targets)
        least = min(count(sources, move(targets)) for move in moves)
        return least <= here if or_equal else least < here

    return _shards_where(test)


def _worst(shards: list[Shard]) -> list[int]:
    counts = [_broken(*shard) for shard in shards]
    return [counts.index(max(counts))] if max(counts) else []


def _set_broken(sources: list[str], targets: list[str]) -> int:
    return sum(
        set(placeholders(a)) != set(placeholders(b))
        for a, b in zip(sources, targets, strict=True)
    )


def _number_broken(sources: list[str], targets: list[str]) -> int:
    return sum(
        placeholders(a).total() != placeholders(b).total()
        for a, b in zip(sources, targets, strict=True)
    )


def _length_gap(sources: list[str], targets: list[str]) -> int:
    return sum(abs(len(a) - len(b)) for a, b in zip(sources, targets, strict=True))


def _overlap_better(sources: list[str], targets: list[str]) -> bool:
    here = _broken(sources, targets)
    up = _broken(sources[:-1], targets[1:])
    return min(up, _broken(sources[1:], targets[:-1])) < here


def _all_slots(lines: list[str]) -> Counter:
    return sum(map(placeholders, lines), Counter())


misaligned_shards = Exercise(
    name="ex06.misaligned_shards",
    call="misaligned_shards(shards)",
    reference=_misaligned_shards,
    cases=_shard_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "First count, for one shard, the rows whose placeholders differ. Then count "
        "again with the targets moved by one place, up and down.",
        "targets[1:] + targets[:1] moves them up, targets[-1:] + targets[:-1] down. "
        "The shard is out of step if one of the two counts is smaller.",
        "A row: placeholders(s) != placeholders(t). Sum over zip(sources, targets). "
        "Compare the counts with <, not <=.",
    ),
    misconceptions=(
        Misconception(
            "any fault",
            "Every shard with a faulty row was flagged. Teachers lose a placeholder "
            "now and then. A shift shows in that *moving* the targets mends rows.",
            _shards_where(lambda s, t: _broken(s, t) > 0),
        ),
        Misconception(
            "worst",
            "The shard with the most faulty rows was flagged. It may be in step, with "
            "a bad teacher, and a shifted one may have few placeholders. Compare each "
            "shard with itself, moved.",
            _worst,
        ),
        Misconception(
            "majority",
            "A shard was flagged where half of its rows or more are faulty. A shift "
            "among strings with few placeholders breaks few rows: compare with the "
            "count after moving.",
            _shards_where(lambda s, t: 2 * _broken(s, t) > len(s)),
            _shards_where(lambda s, t: 2 * _broken(s, t) >= len(s)),
        ),
        Misconception(
            "line counts",
            "No shard was ever flagged: the numbers of lines agree in all of them. "
            "Each file alone looks fine; compare row by row.",
            _shards_where(lambda s, t: len(s) != len(t)),
            lambda shards: [],
        ),
        Misconception(
            "order ignored",
            "The placeholders of whole files were compared, without the rows in which "
            "they stand. A shift changes just that: the row.",
            _shards_where(lambda s, t: _all_slots(s) != _all_slots(t)),
            _shards_where(lambda s, t: set(_all_slots(s)) != set(_all_slots(t))),
        ),
        Misconception(
            "up only",
            "Only one direction was tried: targets moved up. A file may have gained a "
            "line as well as lost one: try down, too.",
            _better_by(_broken, _up),
        ),
        Misconception(
            "down only",
            "Only one direction was tried: targets moved down. A file may have gained "
            "a line as well as lost one: try up, too.",
            _better_by(_broken, _down),
        ),
        Misconception(
            "ties",
            "A shard was flagged where moving makes nothing worse. It must make it "
            "*better*: a shard without placeholders proves nothing. Use <.",
            _better_by(_broken, _up, _down, or_equal=True),
        ),
        Misconception(
            "how often",
            "Placeholders were compared as sets. How often each stands is a trace of "
            "the shift, too: compare counts, as in exercise 2.",
            _better_by(_set_broken, _up, _down),
        ),
        Misconception(
            "number only",
            "Only the number of placeholders in a row was compared. {name} in the "
            "place of {n} is a trace, too.",
            _better_by(_number_broken, _up, _down),
        ),
        Misconception(
            "lengths",
            "Lengths of texts were compared. They hardly tell a row from its "
            "neighbour; placeholders do.",
            _better_by(_length_gap, _up, _down),
        ),
        Misconception(
            "rows dropped",
            "The moved count leaves a row out: the first or the last has no partner. "
            "With fewer rows there are fewer faults. Let the line that falls off the "
            "one end come in at the other.",
            _shards_where(_overlap_better),
        ),
        Misconception(
            "first only",
            "The search stopped at the first shard. There may be several.",
            lambda shards: _misaligned_shards(shards)[:1],
        ),
        Misconception(
            "sound ones",
            "These are the shards in step. Return the others.",
            lambda shards: [
                n for n in range(len(shards)) if n not in _misaligned_shards(shards)
            ],
        ),
        Misconception(
            "from one",
            "The shards were numbered from 1. Count from 0, as Python does.",
            lambda shards: [n + 1 for n in _misaligned_shards(shards)],
        ),
        Misconception(
            "everything",
            "Every shard was flagged. That finds the shifted one, and throws all "
            "labels away.",
            lambda shards: list(range(len(shards))),
        ),
    ),
)

# --- cut_probabilities ----------------------------------------------------------

Scores = dict[str, float]
Cut = tuple[str, ...]


def _cuts(word: str, scores: Scores) -> list[Cut]:
    """Every way to cut a word into known pieces."""
    if not word:
        return [()]
    return [
        (word[:n], *rest)
        for n in range(1, len(word) + 1)
        if word[:n] in scores
        for rest in _cuts(word[n:], scores)
    ]


def _total(cut: Cut, scores: Scores) -> float:
    return sum(scores[piece] for piece in cut)


def _weighed(weight: Callable, cuts: Callable = _cuts) -> Callable:
    """A solution that gives each cut a share of weight(total, alpha, pieces)."""

    def solution(word: str, scores: Scores, alpha: float) -> dict[Cut, float]:
        weights = {
            cut: weight(_total(cut, scores), alpha, len(cut))
            for cut in cuts(word, scores)
        }
        total = sum(weights.values())
        return {cut: w / total for cut, w in weights.items()}

    return solution


def _cut_cases() -> list[Case]:
    def case(name: str, word: str, alpha: float, **scores: float) -> Case:
        return Case(name, {"word": word, "scores": scores, "alpha": alpha})

    letters = {"a": -3.0, "b": -2.5, "c": -4.0}
    return [
        case("the lesson's word", "reload", 0.5, re=-5.0, load=-6.0, reload=-12.0),
        case("three letters, four cuts", "abc", 0.3, ab=-4.0, abc=-7.0, **letters),
        case("the longest piece leads astray", "abcd", 1.0, abc=-2.0, ab=-4.0,
             cd=-5.0, **letters),
        case("a piece twice in a word", "lala", 0.5, la=-3.0, l=-5.0, a=-2.0, al=-9.0),
        case("alpha 0: all cuts alike", "abc", 0.0, ab=-4.0, bc=-9.0, **letters),
        case("one cut only", "cab", 0.7, c=-4.0, ab=-1.0),
    ]  # fmt: skip


def _longest_first(word: str, scores: Scores) -> list[Cut]:
    pieces: list[str] = []
    while word:
        fits = [n for n in range(len(word), 0, -1) if word[:n] in scores]
        if not fits:
            return [tuple(pieces)]
        pieces.append(word[: fits[0]])
        word = word[fits[0] :]
    return [tuple(pieces)]


def _two_at_most(word: str, scores: Scores) -> list[Cut]:
    return [cut for cut in _cuts(word, scores) if len(cut) <= 2]


def _best_cut(word: str, scores: Scores) -> list[Cut]:
    return [max(_cuts(word, scores), key=lambda cut: _total(cut, scores))]


def _power(total: float, alpha: float, pieces: int) -> float:
    return math.exp(alpha * total)


def _linear(word: str, scores: Scores, alpha: float) -> dict[Cut, float]:
    weights = {cut: alpha * _total(cut, scores) for cut in _cuts(word, scores)}
    total = sum(weights.values())
    return {cut: w / total if total else 0.0 for cut, w in weights.items()}


def _of_the_most_pieces(word: str, scores: Scores) -> list[Cut]:
    cuts = _cuts(word, scores)
    return [cut for cut in cuts if len(cut) == max(map(len, cuts))]


cut_probabilities = Exercise(
    name="ex06.cut_probabilities",
    call="cut_probabilities(word, scores, alpha)",
    reference=_weighed(_power),
    cases=_cut_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "First list all cuts. A function that calls itself does it: each known piece "
        "at the beginning, followed by every cut of the rest.",
        "A cut's log-probability is the sum over its pieces; its weight is exp(alpha · "
        "sum).",
        "Divide each weight by the sum of all weights. The empty word has one cut: ().",
    ),
    misconceptions=(
        Misconception(
            "alpha forgotten",
            "The probabilities are right for alpha = 1 alone. The weight of a cut is "
            "its probability to the power alpha.",
            _weighed(lambda total, alpha, pieces: math.exp(total)),
        ),
        Misconception(
            "not normalised",
            "The weights do not sum to 1. Divide each by the sum of all.",
            lambda word, scores, alpha: {
                cut: math.exp(alpha * _total(cut, scores))
                for cut in _cuts(word, scores)
            },
        ),
        Misconception(
            "mean a piece",
            "The log-probability of a cut was divided by the number of its pieces. It "
            "is the whole sum.",
            _weighed(lambda total, alpha, pieces: math.exp(alpha * total / pieces)),
        ),
        Misconception(
            "linear weights",
            "The weights are not exponentials: alpha times the sum is still a "
            "logarithm. Take exp of it.",
            _linear,
        ),
        Misconception(
            "best only",
            "All of the probability went to the best cut. That is how a tokenizer "
            "cuts; sampling gives each cut a share.",
            lambda word, scores, alpha: {
                cut: float(cut == _best_cut(word, scores)[0])
                for cut in _cuts(word, scores)
            },
            lambda word, scores, alpha: {_best_cut(word, scores)[0]: 1.0},
        ),
        Misconception(
            "longest piece first",
            "Only the cut that takes the longest piece first was found. Each known "
            "piece at the beginning leads to cuts.",
            lambda word, scores, alpha: {_longest_first(word, scores)[0]: 1.0},
        ),
        Misconception(
            "two pieces at most",
            "Cuts of three pieces and more are missing: the rest of a word can be cut "
            "again.",
            _weighed(_power, _two_at_most),
        ),
        Misconception(
            "all alike",
            "All cuts have the same probability. That is alpha = 0; else likely pieces "
            "weigh more.",
            _weighed(lambda total, alpha, pieces: 1.0),
        ),
        Misconception(
            "sign",
            "The least likely cut has the largest probability: the sign of the "
            "exponent is wrong.",
            _weighed(lambda total, alpha, pieces: math.exp(-alpha * total)),
        ),
        Misconception(
            "text joined",
            "The keys are strings. Use tuples of pieces: ('re', 'load').",
            lambda word, scores, alpha: {
                " ".join(cut): p
                for cut, p in _weighed(_power)(word, scores, alpha).items()
            },
            lambda word, scores, alpha: {
                "·".join(cut): p
                for cut, p in _weighed(_power)(word, scores, alpha).items()
            },
        ),
        Misconception(
            "logarithms",
            "These are log-probabilities. Return probabilities, between 0 and 1.",
            lambda word, scores, alpha: {
                cut: math.log(p)
                for cut, p in _weighed(_power)(word, scores, alpha).items()
            },
        ),
        Misconception(
            "most pieces only",
            "Only the finest cuts were kept. Longer pieces, where they are known, make "
            "cuts as well.",
            _weighed(_power, _of_the_most_pieces),
        ),
    ),
)

# --- corpus_bleu ----------------------------------------------------------------

Lines = list[list[str]]


def _grams(tokens: list[str], n: int) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _clip(hypothesis: list[str], reference: list[str], n: int) -> int:
    return (_grams(hypothesis, n) & _grams(reference, n)).total()


def _sums(hypotheses: Lines, references: Lines, n: int, matched=_clip) -> tuple:
    pairs = list(zip(hypotheses, references, strict=True))
    total = sum(max(0, len(h) - n + 1) for h in hypotheses)
    return sum(matched(h, r, n) for h, r in pairs), total


def _brevity(hypotheses: Lines, references: Lines) -> float:
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    return 1.0 if h >= r else math.exp(1 - r / h) if h else 0.0


def _root(precisions: list[float]) -> float:
    return math.prod(precisions) ** (1 / len(precisions))


def _bleu(
    precision: Callable = lambda h, r, n: _ratio(*_sums(h, r, n)),
    brevity: Callable = _brevity,
    mean: Callable = _root,
    scale: float = 100.0,
) -> Callable:
    """Corpus BLEU with one of its parts replaced."""

    def solution(hypotheses: Lines, references: Lines, max_n: int) -> float:
        precisions = [precision(hypotheses, references, n + 1) for n in range(max_n)]
        if not any(hypotheses):
            return 0.0
        return scale * brevity(hypotheses, references) * mean(precisions)

    return solution


def _ratio(matched: float, total: float) -> float:
    return matched / total if total else 0.0


def _bleu_cases() -> list[Case]:
    def case(name: str, pairs: list[tuple[str, str]], max_n: int) -> Case:
        hypotheses = [h.split() for h, _ in pairs]
        references = [r.split() for _, r in pairs]
        return Case(
            name, {"hypotheses": hypotheses, "references": references, "max_n": max_n}
        )

    return [
        case(
            "the lesson's sentence: 55",
            [("la la puerta del garaje", "Abre la puerta del garaje ahora")],
            4,
        ),
        case(
            "two sentences, one of them short and wrong",
            [
                ("apaga la luz de la cocina ahora", "apaga la luz de la sala ahora"),
                ("no hay", "sin conexión"),
            ],
            2,
        ),
        case(
            "longer than the reference, and one word again and again",
            [
                ("de de de de la casa de la", "la casa de la plaza de"),
                ("el modo es el modo", "el modo"),
            ],
            2,
        ),
        case(
            "one sentence is too long, the other too short",
            [
                ("abre ya la puerta de la casa", "abre la puerta"),
                ("cierra la puerta", "cierra ahora la puerta de la casa grande"),
            ],
            2,
        ),
        case("no pair of words agrees: 0", [("luz la apaga", "apaga la luz")], 2),
        case("an empty hypothesis beside a good one", [("", "luz"), ("a b", "a b")], 2),
        case("nothing was said: 0", [("", "luz"), ("", "a b")], 2),
        case("no pair of words was said: 0", [("luz", "luz")], 2),
    ]


def _unclipped(h: list[str], r: list[str], n: int) -> int:
    known = _grams(r, n)
    return sum(count for gram, count in _grams(h, n).items() if gram in known)


def _mean_of_sentences(hypotheses: Lines, references: Lines, max_n: int) -> float:
    one = _bleu()
    pairs = zip(hypotheses, references, strict=True)
    return sum(one([h], [r], max_n) for h, r in pairs) / len(hypotheses)


def _mean_precision(hypotheses: Lines, references: Lines, n: int) -> float:
    pairs = zip(hypotheses, references, strict=True)
    return sum(_ratio(*_sums([h], [r], n)) for h, r in pairs) / len(hypotheses)


def _distinct(hypotheses: Lines, references: Lines, n: int) -> float:
    pairs = list(zip(hypotheses, references, strict=True))
    matched = sum(len(_grams(h, n).keys() & _grams(r, n).keys()) for h, r in pairs)
    return _ratio(matched, sum(len(_grams(h, n)) for h in hypotheses))


def _distinct_matches(h: list[str], r: list[str], n: int) -> int:
    return len(_grams(h, n).keys() & _grams(r, n).keys())


def _joined(hypotheses: Lines, references: Lines, max_n: int) -> float:
    return _bleu()([sum(hypotheses, [])], [sum(references, [])], max_n)


def _lengths(hypotheses: Lines, references: Lines) -> tuple[int, int]:
    return sum(map(len, hypotheses)), sum(map(len, references))


def _each_brevity(hypotheses: Lines, references: Lines) -> float:
    pairs = list(zip(hypotheses, references, strict=True))
    return sum(_brevity([h], [r]) for h, r in pairs) / len(pairs)


def _upside_down(hypotheses: Lines, references: Lines) -> float:
    h, r = _lengths(hypotheses, references)
    return min(1.0, math.exp(1 - h / r))


def _bonus(hypotheses: Lines, references: Lines) -> float:
    h, r = _lengths(hypotheses, references)
    return math.exp(1 - r / h)


def _share(hypotheses: Lines, references: Lines) -> float:
    h, r = _lengths(hypotheses, references)
    return min(1.0, h / r)


def _by_logarithms(precisions: list[float]) -> float:
    return math.exp(sum(math.log(p) for p in precisions) / len(precisions))


corpus_bleu = Exercise(
    name="ex06.corpus_bleu",
    call="corpus_bleu(hypotheses, references, max_n)",
    reference=_bleu(),
    cases=_bleu_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "For each n: sum the clipped matches over all sentences, sum the n-grams of "
        "all hypotheses, and divide once.",
        "(ours & theirs).total() of two Counters clips. Then take the max_n-th root of "
        "the product of the precisions; where one is 0, BLEU is 0.",
        "h and r are the tokens of *all* hypotheses and *all* references. The brevity "
        "penalty is exp(1 - r/h) where h < r, else 1. Times 100.",
    ),
    misconceptions=(
        Misconception(
            "no clipping",
            "The counts are not clipped: a word that is said four times counts four "
            "times, though the reference has it twice. Take the smaller count.",
            _bleu(lambda h, r, n: _ratio(*_sums(h, r, n, _unclipped))),
        ),
        Misconception(
            "mean of sentences",
            "This is the mean of the sentences' own scores. Corpus BLEU sums matches "
            "and totals over all sentences first, and divides once.",
            _mean_of_sentences,
        ),
        Misconception(
            "mean of precisions",
            "The precisions of the sentences were averaged, so that a sentence of two "
            "words weighs as much as one of twenty. Sum matches and totals first.",
            _bleu(_mean_precision),
        ),
        Misconception(
            "no brevity penalty",
            "The brevity penalty is missing: one sure word would have 100.",
            _bleu(brevity=lambda h, r: 1.0),
        ),
        Misconception(
            "brevity upside down",
            "The brevity penalty is upside down: it punishes what is too long. It is "
            "exp(1 - r/h), for h tokens said where r are wanted, if h < r.",
            _bleu(brevity=_upside_down),
        ),
        Misconception(
            "bonus for length",
            "The factor exp(1 - r/h) was applied to long output as well, where it is "
            "above 1. From h = r on it is 1: the precisions punish what is too much.",
            _bleu(brevity=_bonus),
        ),
        Misconception(
            "ratio of lengths",
            "The ratio h/r was used for the brevity penalty. It is exp(1 - r/h).",
            _bleu(brevity=_share),
        ),
        Misconception(
            "brevity of sentences",
            "The brevity penalty was computed for each sentence. It looks at the whole "
            "corpus: one sentence may be short if another is long.",
            _bleu(brevity=_each_brevity),
        ),
        Misconception(
            "arithmetic mean",
            "The precisions were averaged by sum. BLEU takes the geometric mean, the "
            "max_n-th root of their product.",
            _bleu(mean=lambda ps: sum(ps) / len(ps)),
        ),
        Misconception(
            "root forgotten",
            "The product of the precisions lacks its max_n-th root.",
            _bleu(mean=math.prod),
        ),
        Misconception(
            "recall",
            "The matches were divided by the n-grams of the references: that is a "
            "recall. BLEU divides by those of the hypotheses.",
            _bleu(
                lambda h, r, n: _ratio(_sums(h, r, n)[0], _sums(r, h, n)[1]),
            ),
        ),
        Misconception(
            "longest only",
            "Only the longest n-grams were counted. All from 1 to max_n belong to the "
            "mean.",
            _bleu(mean=lambda ps: ps[-1]),
        ),
        Misconception(
            "single words only",
            "Only single words were counted. All n from 1 to max_n belong to the mean; "
            "range(1, max_n) stops before max_n.",
            _bleu(mean=lambda ps: _root(ps[:-1])),
            _bleu(mean=lambda ps: ps[0]),
        ),
        Misconception(
            "distinct",
            "Each distinct n-gram was counted once. What the reference has twice may "
            "be said twice: count, and clip.",
            _bleu(_distinct),
            _bleu(lambda h, r, n: _ratio(*_sums(h, r, n, _distinct_matches))),
        ),
        Misconception(
            "across sentences",
            "All sentences were joined into one text, so that words of one sentence "
            "match another's, and runs go across the borders. Match each sentence with "
            "its own reference, and sum the counts.",
            _joined,
        ),
        Misconception(
            "share",
            "This is a share between 0 and 1. BLEU is told from 0 to 100.",
            _bleu(scale=1.0),
        ),
        Misconception(
            "logarithm of zero",
            "Where a precision is 0, its logarithm does not exist. BLEU is 0 there: "
            "say so before you take logarithms, or take a root of the product.",
            _bleu(mean=_by_logarithms),
        ),
    ),
)

# --- chrf -----------------------------------------------------------------------

ORDER, BETA = 6, 2


def _characters(text: str) -> str:
    return "".join(text.split())


def _chrf_by(
    units: Callable = _characters,
    beta2: float = BETA**2,
    combine: Callable | None = None,
    matched: Callable = lambda a, b: (a & b).total(),
    orders: tuple[int, ...] = tuple(range(1, ORDER + 1)),
    skip: bool = True,
    scale: float = 100.0,
) -> Callable:
    """chrF with one of its parts replaced."""

    def f_score(p: float, r: float) -> float:
        below = beta2 * p + r
        return (1 + beta2) * p * r / below if below else 0.0

    def solution(hypothesis: str, reference: str) -> float:
        ours, theirs = units(hypothesis), units(reference)
        pairs = []
        for n in orders:
            a, b = _grams(ours, n), _grams(theirs, n)
            if a and b:
                match = matched(a, b)
                pairs.append((match / a.total(), match / b.total()))
            elif not skip:
                pairs.append((0.0, 0.0))
        if not pairs:
            return 0.0
        return scale * (combine or _means_first)(pairs, f_score)

    return solution


def _means_first(pairs: list, f_score: Callable) -> float:
    p, r = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return f_score(p, r)


def _f_first(pairs: list, f_score: Callable) -> float:
    return sum(f_score(p, r) for p, r in pairs) / len(pairs)


def _only(side: int) -> Callable:
    return lambda pairs, f_score: sum(pair[side] for pair in pairs) / len(pairs)


def _chrf_pooled(hypothesis: str, reference: str) -> float:
    ours, theirs = _characters(hypothesis), _characters(reference)
    rows = [(_grams(ours, n), _grams(theirs, n)) for n in range(1, ORDER + 1)]
    matched = sum((a & b).total() for a, b in rows)
    p = _ratio(matched, sum(a.total() for a, _ in rows))
    r = _ratio(matched, sum(b.total() for _, b in rows))
    return 100 * 5 * p * r / (4 * p + r) if matched else 0.0


def _unclipped_matches(a: Counter, b: Counter) -> int:
    return sum(count for gram, count in a.items() if gram in b)


def _chrf_cases() -> list[Case]:
    rows = {
        "another ending": ("Enciende la luz", "Encender la luz"),
        "too little was said": ("Apagar", "Apagar automatización"),
        "too much was said": ("Abrir la puerta del garaje", "Abrir puerta"),
        "the same text: 100": ("Modo de espera", "Modo de espera"),
        "nothing in common: 0": ("luz", "Modo"),
        "two letters: only runs of 1 and 2 can be counted": ("Sí", "Si"),
        "repeated letters, capitals": ("aaa Bbbb", "aa bbbbbb"),
        "an empty hypothesis": ("", "Modo"),
    }
    return [
        Case(name, {"hypothesis": hypothesis, "reference": reference})
        for name, (hypothesis, reference) in rows.items()
    ]


chrf = Exercise(
    name="ex06.chrf",
    call="chrf(hypothesis, reference)",
    reference=_chrf_by(),
    cases=_chrf_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "Take the spaces out, then for n = 1 to 6 count the runs of n characters of "
        "both, and their clipped matches.",
        "Precision divides the matches by the runs of the hypothesis, recall by those "
        "of the reference. Average each over the orders first; leave out an order in "
        "which one side has no run.",
        "At the end, with the mean P and the mean R: 100 · 5 P R / (4 P + R), and 0 "
        "where both are 0.",
    ),
    misconceptions=(
        Misconception(
            "words",
            "Words were counted. chrF counts runs of *characters*: that is why it "
            "forgives an ending.",
            _chrf_by(units=str.split),
        ),
        Misconception(
            "spaces kept",
            "Spaces were counted as characters. chrF takes them out first.",
            _chrf_by(units=str),
        ),
        Misconception(
            "F1",
            "Precision and recall count alike here. In chrF recall counts β = 2 times "
            "as much: (1 + β²) P R / (β² P + R).",
            _chrf_by(beta2=1),
        ),
        Misconception(
            "beta reversed",
            "Precision counts more than recall here: β² stands at the wrong side. The "
            "denominator is β² P + R.",
            _chrf_by(beta2=1 / BETA**2),
        ),
        Misconception(
            "beta not squared",
            "β stands in the formula without its square: (1 + β²) P R / (β² P + R).",
            _chrf_by(beta2=BETA),
        ),
        Misconception(
            "F of each order",
            "The F score was computed for each n and then averaged. chrF averages "
            "precision and recall over the orders first, and takes F once.",
            _chrf_by(combine=_f_first),
        ),
        Misconception(
            "pooled",
            "The counts of all orders were added up before dividing, so that short "
            "runs weigh more. Each order has its own precision and recall; then "
            "average.",
            _chrf_pooled,
        ),
        Misconception(
            "short texts",
            "An order for which a text is too short counted as 0. Leave it out of the "
            "mean: two letters have no run of three.",
            _chrf_by(skip=False),
        ),
        Misconception(
            "no clipping",
            "The matches are not clipped: a letter that stands three times counts "
            "three times, though the reference has it twice.",
            _chrf_by(matched=_unclipped_matches),
        ),
        Misconception(
            "distinct",
            "Each distinct run counts once among the matches. What the reference has "
            "twice may match twice: use Counters, and their intersection.",
            _chrf_by(matched=lambda a, b: len(a.keys() & b.keys())),
        ),
        Misconception(
            "longest only",
            "Only runs of six characters were counted. All from 1 to 6 belong to it.",
            _chrf_by(orders=(ORDER,)),
        ),
        Misconception(
            "up to five",
            "Runs of six characters are missing: range(1, 6) stops at 5.",
            _chrf_by(orders=tuple(range(1, ORDER))),
        ),
        Misconception(
            "capitals folded",
            "Capitals were folded. chrF counts them: a and A are two characters.",
            _chrf_by(units=lambda text: _characters(text).casefold()),
        ),
        Misconception(
            "precision",
            "This is the precision alone: whoever says little and sure wins.",
            _chrf_by(combine=_only(0)),
        ),
        Misconception(
            "recall",
            "This is the recall alone: whoever says everything that there is wins.",
            _chrf_by(combine=_only(1)),
        ),
        Misconception(
            "share",
            "This is a share between 0 and 1. chrF is told from 0 to 100.",
            _chrf_by(scale=1.0),
        ),
    ),
)

# --- beam_step ------------------------------------------------------------------

Beam = list[tuple[float, tuple[str, ...]]]


def _extensions(live: Beam, next_log_probs: list[dict[str, float]]) -> Beam:
    return [
        (total + log_p, (*tokens, token))
        for (total, tokens), table in zip(live, next_log_probs, strict=True)
        for token, log_p in table.items()
    ]


def _best_first(beam: Beam) -> Beam:
    return sorted(beam, key=lambda hypothesis: -hypothesis[0])


def _ends(hypothesis: tuple) -> bool:
    return hypothesis[1][-1] == END


def _parted(ranked: Beam, width: int) -> tuple[Beam, Beam]:
    live = [h for h in ranked if not _ends(h)][:width]
    return live, [h for h in ranked[:width] if _ends(h)]


def _step_by(
    extend: Callable = _extensions,
    rank: Callable = _best_first,
    part: Callable = _parted,
) -> Callable:
    """A step of the beam with one of its parts replaced."""
    return lambda live, tables, width: part(rank(extend(live, tables)), width)


def _beam_cases() -> list[Case]:
    def case(name: str, live: list, tables: list[dict], width: int) -> Case:
        return Case(
            name,
            {
                "live": [(math.log(p), tokens) for p, tokens in live],
                "next_log_probs": [
                    {token: math.log(p) for token, p in table.items()}
                    for table in tables
                ],
                "width": width,
            },
        )

    start = [(1.0, ())]
    two = [(0.6, ("omit",)), (0.4, ("Omitir",))]
    return [
        case("the first step", start, [{"el": 0.1, "omit": 0.5, "Omitir": 0.4}], 2),
        case(
            "the second beginning overtakes the first",
            two,
            [{"ir": 0.5, "e": 0.3, "a": 0.2}, {"la": 0.06, "condiciones": 0.94}],
            2,
        ),
        case(
            "both places go to extensions of one beginning",
            [(0.7, ("a", "b")), (0.1, ("a", "c"))],
            [{"x": 0.5, "y": 0.4, END: 0.1}, {"x": 0.9, "y": 0.1}],
            2,
        ),
        case(
            "the best one ends; two others live on",
            two,
            [{END: 0.8, "s": 0.2}, {"las": 0.55, "los": 0.45}],
            2,
        ),
        case(
            "an end that is not among the best is no output",
            two,
            [{"x": 0.5, "y": 0.45, END: 0.05}, {"x": 0.95, END: 0.05}],
            2,
        ),
        case("everything ends", two, [{END: 1.0}, {END: 0.999}], 2),
        case("a beam of one is greedy search", [(0.5, ("a",))],
             [{"x": 0.2, END: 0.3, "y": 0.5}], 1),
        case("fewer extensions than places", [(0.5, ("a",))],
             [{"x": 0.4, END: 0.6}], 3),
    ]  # fmt: skip


def _replaced(live: Beam, tables: list) -> Beam:
    return [
        (log_p, (*tokens, token))
        for (_, tokens), table in zip(live, tables, strict=True)
        for token, log_p in table.items()
    ]


def _multiplied(live: Beam, tables: list) -> Beam:
    return [
        (total * log_p, (*tokens, token))
        for (total, tokens), table in zip(live, tables, strict=True)
        for token, log_p in table.items()
    ]


def _exponentiated(live: Beam, tables: list) -> Beam:
    return [(math.exp(t), tokens) for t, tokens in _extensions(live, tables)]


def _by_last_token(live: Beam, tables: list, width: int) -> tuple[Beam, Beam]:
    last = {tokens: log_p for log_p, tokens in _replaced(live, tables)}
    ranked = sorted(_extensions(live, tables), key=lambda h: -last[h[1]])
    return _parted(ranked, width)


def _per_token(beam: Beam) -> Beam:
    return _best_first([(total / len(tokens), tokens) for total, tokens in beam])


def _each(count: Callable[[int], int]) -> Callable:
    """The best ``count(width)`` extensions of each beginning; all of them kept."""

    def solution(live: Beam, tables: list, width: int) -> tuple[Beam, Beam]:
        kept = []
        for one, table in zip(live, tables, strict=True):
            kept += _best_first(_extensions([one], [table]))[: count(width)]
        kept = _best_first(kept)
        return [h for h in kept if not _ends(h)], [h for h in kept if _ends(h)]

    return solution


def _one_each_cut(live: Beam, tables: list, width: int) -> tuple[Beam, Beam]:
    kept, ended = _each(lambda width: 1)(live, tables, width)
    ranked = _best_first(kept + ended)
    return _parted(ranked, width)


beam_step = Exercise(
    name="ex06.beam_step",
    call="beam_step(live, next_log_probs, width)",
    reference=_step_by(),
    cases=_beam_cases,
    difficulty=4,
    minutes=12,
    hints=(
        "First make all extensions: for each beginning and each of its tokens a pair "
        "(total + log_p, (*tokens, token)). Sort them, best first.",
        "Finished are those among the first `width` of the list that end in </s>. Live "
        "are the first `width` of those that do not end.",
        "Do not cut the list to `width` before you look for the live ones: an ended "
        "extension frees its place for the next in the list.",
    ),
    misconceptions=(
        Misconception(
            "last token only",
            "The total is lost: only the new token's log-probability counts. Add it to "
            "that of the beginning: log Pr(y) is a sum over all tokens.",
            _step_by(extend=_replaced),
        ),
        Misconception(
            "ranked by the last token",
            "The totals are right, but the extensions are ranked by their last token. "
            "Rank by the total.",
            _by_last_token,
        ),
        Misconception(
            "product of logarithms",
            "Logarithms were multiplied. Probabilities multiply, their logarithms add.",
            _step_by(extend=_multiplied),
        ),
        Misconception(
            "probabilities",
            "The totals were turned into probabilities. Keep logarithms: the product "
            "of many probabilities ends as 0 in a computer.",
            _step_by(extend=_exponentiated),
        ),
        Misconception(
            "one extension each",
            "Each beginning was extended by its best token alone. Two extensions of "
            "one beginning may both beat all of another's: rank them all together.",
            _each(lambda width: 1),
            _one_each_cut,
        ),
        Misconception(
            "width for each",
            "Each beginning keeps `width` extensions, so that the beam grows with each "
            "step. `width` are kept in all.",
            _each(lambda width: width),
        ),
        Misconception(
            "places lost",
            "An ended extension took a place of a live one. Live are the best `width` "
            "that do *not* end, even if others rank above them.",
            _step_by(
                part=lambda ranked, width: (
                    [h for h in ranked[:width] if not _ends(h)],
                    [h for h in ranked[:width] if _ends(h)],
                )
            ),
        ),
        Misconception(
            "any end",
            "Every extension that ends was taken for an output, however improbable. It "
            "must be among the best `width` of all extensions.",
            _step_by(
                part=lambda ranked, width: (
                    [h for h in ranked if not _ends(h)][:width],
                    [h for h in ranked if _ends(h)],
                )
            ),
            _step_by(
                part=lambda ranked, width: (
                    [h for h in ranked if not _ends(h)][:width],
                    [h for h in ranked if _ends(h)][:width],
                )
            ),
        ),
        Misconception(
            "ended live on",
            "An ended extension stays in the beam, and would be extended after its "
            "</s>. Move it to finished.",
            _step_by(part=lambda ranked, width: (ranked[:width], [])),
            _step_by(
                part=lambda ranked, width: (
                    ranked[:width],
                    [h for h in ranked[:width] if _ends(h)],
                )
            ),
        ),
        Misconception(
            "finished forgotten",
            "The ended extensions are gone. They are the outputs of the search: return "
            "them as finished.",
            _step_by(
                part=lambda ranked, width: (
                    [h for h in ranked if not _ends(h)][:width],
                    [],
                )
            ),
        ),
        Misconception(
            "worst first",
            "The extensions were sorted with the least probable first. The best "
            "logarithm is the largest, nearest to 0: reverse the order.",
            _step_by(rank=lambda beam: sorted(beam, key=lambda h: h[0])),
        ),
        Misconception(
            "per token",
            "The totals were divided by the length. The length penalty belongs to the "
            "*finished* outputs, when they are compared at the end; the step adds up.",
            _step_by(rank=_per_token),
            _step_by(
                part=lambda ranked, width: (
                    _parted(ranked, width)[0],
                    [(t / len(y), y) for t, y in _parted(ranked, width)[1]],
                )
            ),
        ),
        Misconception(
            "end cut off",
            "The finished outputs lack their </s>. It is a token of y, with a "
            "probability of its own: keep it.",
            _step_by(
                part=lambda ranked, width: (
                    _parted(ranked, width)[0],
                    [(t, y[:-1]) for t, y in _parted(ranked, width)[1]],
                )
            ),
        ),
        Misconception(
            "exchanged",
            "Live and finished are exchanged: return (live, finished).",
            _step_by(part=lambda ranked, width: _parted(ranked, width)[::-1]),
        ),
    ),
)
