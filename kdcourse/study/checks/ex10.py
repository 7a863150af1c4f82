"""Checks of lesson 10: texts with contexts, ambiguity, alignment, and what survives."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable

import torch

from .core import Case, Exercise, Misconception

LETTERS = re.compile(r"[^\W\d_]+")

# --- read -----------------------------------------------------------------------


def _reader(
    words: Callable = lambda z: set(LETTERS.findall(z.casefold())),
    order: Callable = lambda terms, z: sorted(terms),
    join: Callable = lambda parts, z: (
        " | ".join([" ; ".join(parts), z]) if parts else z
    ),
) -> Callable:
    """A read() whose words of z, order of terms, or way of joining can be another."""

    def read(place, glossary, z):
        found = words(z)
        terms = order([term for term in glossary if term in found], z)
        parts = [place] if place else []
        return join(parts + [f"{term} = {glossary[term]}" for term in terms], z)

    return read


class _Everything:
    """Holds every word."""

    def __contains__(self, word: str) -> bool:
        return True


class _Substrings(str):
    """Holds a word as soon as it holds its letters, which is what str does."""


def _read_cases() -> list[Case]:
    glossary = {"low": "corto", "light": "lámpara", "battery": "pila", "key": "llave"}

    def case(name: str, place: str, z: str) -> Case:
        return Case(name, {"place": place, "glossary": dict(glossary), "z": z})

    return [
        case("two terms, a full stop", "hue sensor name", "Low battery."),
        case("terms in the order of z and of the glossary", "hue name", "light, key"),
        case("no term", "hue sensor name", "Temperature"),
        case("a word that holds a term", "sky sensor name", "Lightning"),
        case("capitals", "hue sensor name", "LIGHT!"),
        case("no place", "", "Battery 2 of {name}"),
        case("neither place nor term", "", "Temperature"),
        case("z has a separator of its own", "app menu", "Key | value ; rest"),
        case("a term twice", "hue name", "Key of the key-box"),
        case("a digit or an underscore ends a word", "hue name", "key_1 low2"),
    ]


def _by_z(terms, z):
    return sorted(terms, key=lambda term: z.casefold().find(term))


read = Exercise(
    name="ex10.read",
    call="read(place, glossary, z)",
    reference=_reader(),
    cases=_read_cases,
    difficulty=2,
    minutes=6,
    hints=(
        "Three steps: the words of z, the terms among them, one list of parts to join.",
        'The words are re.findall(r"[^\\W\\d_]+", z.lower()). Keep z itself as it is.',
        'Collect place and terms in a list and use " ; ".join; only if it holds '
        'something do " | " and z follow, else z stands alone.',
    ),
    misconceptions=(
        Misconception(
            "whole glossary",
            "Terms are told whose word is not in z. A long glossary would drown the "
            "string, and costs time at each of its tokens.",
            _reader(words=lambda z: _Everything()),
        ),
        Misconception(
            "part of a word",
            '"light" was found in "Lightning". A term counts as a whole word: compare '
            "it with the words of z, not with its letters.",
            _reader(words=lambda z: _Substrings(z.casefold())),
        ),
        Misconception(
            "capitals",
            '"LIGHT" and "light" are one word. Compare in lower case, but leave z as '
            "it is in the text.",
            _reader(words=lambda z: set(LETTERS.findall(z))),
        ),
        Misconception(
            "punctuation",
            "A term before a full stop or a comma was missed: split() leaves "
            '"battery." whole. A word is a longest run of letters.',
            _reader(words=lambda z: set(z.casefold().split())),
        ),
        Misconception(
            "digits in words",
            r"\w counts digits and the underscore as letters, so that the key of "
            '"key_1" was missed. A word is a longest run of letters.',
            _reader(words=lambda z: set(re.findall(r"\w+", z.casefold()))),
        ),
        Misconception(
            "empty context",
            "Without a context the text is z alone. A lone separator is a text that "
            "the model has never seen.",
            _reader(join=lambda parts, z: " ; ".join(parts) + " | " + z),
            _reader(join=lambda parts, z: (" ; ".join(parts) + " | " + z).strip()),
        ),
        Misconception(
            "after z",
            "c stands after z here. It belongs before: place, terms, separator, z.",
            _reader(
                join=lambda parts, z: " | ".join(
                    [z, " ; ".join(parts)][: 1 + bool(parts)]
                )
            ),
        ),
        Misconception(
            "order",
            "The terms are not in alphabetical order. One order for all rows, whatever "
            "z or the glossary's file: the model should not have to guess.",
            _reader(order=lambda terms, z: terms),
            _reader(order=_by_z),
        ),
        Misconception(
            "z in lower case",
            "z itself was changed to lower case. Only the search for terms ignores "
            "case; the model has to see the string as it is.",
            _reader(
                join=lambda parts, z: (
                    " | ".join([" ; ".join(parts), z.lower()]) if parts else z.lower()
                )
            ),
        ),
        Misconception(
            "one separator",
            "Place and terms are joined by the separator that ends the context. Inside "
            'of c it is " ; ", so that " | " says where z begins.',
            _reader(join=lambda parts, z: " | ".join([*parts, z])),
        ),
    ),
)

# --- ambiguous ------------------------------------------------------------------


def _translations(rows) -> dict[str, set[str]]:
    known = defaultdict(set)
    for _, z, y in rows:
        known[z].add(y)
    return known


def _ambiguous(rows):
    found = _translations(rows).items()
    return {z: sorted(ys) for z, ys in found if len(ys) > 1}


def _ambiguous_cases() -> list[Case]:
    def case(name: str, *rows: tuple) -> Case:
        return Case(name, {"rows": list(rows)})

    return [
        case(
            "three rows, two translations",
            ("vacuum", "Clean", "Limpiar"),
            ("filter", "Clean", "Limpio"),
            ("room", "Clean", "Limpio"),
        ),
        case(
            "one translation in two places",
            ("lamp", "Off", "Apagado"),
            ("fan", "Off", "Apagado"),
            ("lamp", "On", "Encendido"),
        ),
        case(
            "the same place, two translations",
            ("menu", "Open", "Abrir"),
            ("menu", "Open", "Abierto"),
            ("door", "Closed", "Cerrado"),
        ),
        case(
            "upper and lower case, and one target of two sources",
            ("menu", "Home", "Inicio"),
            ("menu", "home", "casa"),
            ("tv", "Start", "Inicio"),
        ),
        case(
            "three translations",
            ("a", "Light", "Luz"),
            ("b", "Light", "Ligero"),
            ("c", "Light", "Claro"),
            ("d", "Dark", "Oscuro"),
        ),
        case("no row"),
    ]


def _counted(rows):
    known = defaultdict(list)
    for _, z, y in rows:
        known[z].append(y)
    return known


def _in_the_order_of_rows(rows):
    found = {z: list(dict.fromkeys(ys)) for z, ys in _counted(rows).items()}
    return {z: ys for z, ys in found.items() if len(ys) > 1}


def _by_place(rows):
    places = defaultdict(set)
    for c, z, _ in rows:
        places[z].add(c)
    return {
        z: sorted(ys) for z, ys in _translations(rows).items() if len(places[z]) > 1
    }


def _caseless(rows):
    return _ambiguous([(c, z.casefold(), y) for c, z, y in rows])


ambiguous = Exercise(
    name="ex10.ambiguous",
    call="ambiguous(rows)",
    reference=_ambiguous,
    cases=_ambiguous_cases,
    difficulty=1,
    minutes=4,
    hints=(
        "Collect for each source its translations in a set: it holds each one once.",
        "known.setdefault(z, set()).add(y), then keep those with more than one.",
    ),
    misconceptions=(
        Misconception(
            "repeats counted",
            "A source counts as ambiguous because it stands in several rows. It is the "
            "number of different translations that counts.",
            lambda rows: {
                z: sorted(set(ys)) for z, ys in _counted(rows).items() if len(ys) > 1
            },
        ),
        Misconception(
            "repeats listed",
            "A translation is listed as often as it stands in the rows. Each once.",
            lambda rows: {
                z: sorted(ys) for z, ys in _counted(rows).items() if len(set(ys)) > 1
            },
        ),
        Misconception(
            "places counted",
            "Several places do not make a source ambiguous, and it can be ambiguous "
            "within one. Count translations.",
            _by_place,
        ),
        Misconception(
            "all sources",
            "Sources with a single translation are no use here: leave them out.",
            lambda rows: {z: sorted(ys) for z, ys in _translations(rows).items()},
        ),
        Misconception(
            "more than two",
            "Two translations are enough to be ambiguous; only three were.",
            lambda rows: {
                z: sorted(ys) for z, ys in _translations(rows).items() if len(ys) > 2
            },
        ),
        Misconception(
            "order",
            "The translations stand in the order of the rows. Sort them, so that the "
            "result does not depend on it.",
            _in_the_order_of_rows,
        ),
        Misconception(
            "case folded",
            '"Home" and "home" are two sources here: each has its own translation.',
            _caseless,
        ),
        Misconception(
            "turned round",
            "This finds translations that have several sources. Wanted is the other "
            "direction: sources with several translations.",
            lambda rows: _ambiguous([(c, y, z) for c, z, y in rows]),
        ),
    ),
)

# --- ceiling --------------------------------------------------------------------


def _counts(rows) -> dict[str, Counter]:
    known = defaultdict(Counter)
    for _, z, y in rows:
        known[z][y] += 1
    return known


def _ceiling(rows):
    return sum(max(ys.values()) for ys in _counts(rows).values()) / len(rows)


def _ceiling_cases() -> list[Case]:
    def rows(text: str) -> list[tuple]:
        return [
            (f"place {i}", z, y)
            for i, (z, y) in enumerate(x.split(":") for x in text.split())
        ]

    return [
        Case("two sources", {"rows": rows("a:1 a:1 a:2 b:3 b:4")}),
        Case("one is not ambiguous", {"rows": rows("a:1 a:2 a:2 a:2 b:3 b:3")}),
        Case("three ways, equally often", {"rows": rows("a:1 a:2 a:3 b:4")}),
        Case("one row", {"rows": rows("a:1")}),
        Case("a translation of two sources", {"rows": rows("a:1 a:2 b:1 b:1 c:2")}),
    ]


def _macro(rows):
    shares = [max(ys.values()) / sum(ys.values()) for ys in _counts(rows).values()]
    return sum(shares) / len(shares)


def _guessing(rows):
    found = _counts(rows).values()
    return sum(sum(ys.values()) / len(ys) for ys in found) / len(rows)


def _sampling(rows):
    found = _counts(rows).values()
    right = (sum(n * n for n in ys.values()) / sum(ys.values()) for ys in found)
    return sum(right) / len(rows)


def _only_ambiguous(rows):
    found = _counts(rows)
    left = [row for row in rows if len(found[row[1]]) > 1]
    return _ceiling(left) if left else 1.0


def _one_for_all(rows):
    return max(Counter(y for _, _, y in rows).values()) / len(rows)


def _of_pairs(rows):
    found = _counts(rows)
    return len(found) / sum(len(ys) for ys in found.values())


ceiling = Exercise(
    name="ex10.ceiling",
    call="ceiling(rows)",
    reference=_ceiling,
    cases=_ceiling_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "Think of the best such model: what does it say for one source?",
        "Its most frequent translation among the rows. So it has that many rows right.",
        "Sum these largest counts over the sources and divide once by all rows.",
    ),
    misconceptions=(
        Misconception(
            "mean over sources",
            "Each source counts the same here, however many rows it has. Wanted is a "
            "share of rows: sum first, divide once.",
            _macro,
        ),
        Misconception(
            "guessing evenly",
            "1/k of the rows of a source with k translations is what guessing gives. "
            "The best model says the most frequent one.",
            _guessing,
        ),
        Misconception(
            "sampling",
            "This model draws a translation as often as it occurs. The best one always "
            "says the most frequent.",
            _sampling,
        ),
        Misconception(
            "ambiguous alone",
            "Rows of sources with one translation count: the model has them right.",
            _only_ambiguous,
        ),
        Misconception(
            "one answer for all",
            "This is the most frequent translation of all rows. The model reads z: it "
            "gives each source an answer of its own.",
            _one_for_all,
        ),
        Misconception(
            "pairs counted",
            "Each pair of source and translation counts once here, however often it "
            "occurs. Count rows.",
            _of_pairs,
        ),
        Misconception(
            "count returned",
            "This is the number of rows. Divide by all of them.",
            lambda rows: _ceiling(rows) * len(rows),
        ),
    ),
)

# --- lessons --------------------------------------------------------------------


def _text(c: str, z: str) -> str:
    return f"{c} | {z}" if c else z


def _lessons(rows, teacher, reads_context):
    return [
        (_text(c, z) if reads_context else z, teacher(_text(c, z))) for c, z in rows
    ]


def _shout(text: str) -> str:
    """A teacher whose answer shows all that it read."""
    return text.upper()


def _lessons_cases() -> list[Case]:
    rows = [
        ("vacuum", "Clean"),
        ("filter", "Clean"),
        ("menu", "Home"),
        ("", "Home"),
        ("vacuum", "Clean"),
        ("", "Away"),
    ]

    def case(name: str, rows: list, reads: bool) -> Case:
        arguments = {"rows": rows, "teacher": _shout, "reads_context": reads}
        return Case(name, arguments)

    return [
        case("the context-distilled student", rows, False),
        case("the control", rows, True),
        case("no context at all", [("", "Home"), ("", "Away")], False),
        case("no row", [], True),
    ]


def _by_source(last: bool) -> Callable:
    """The mistake of keeping answers under z: one of them is left for all places."""

    def lessons(rows, teacher, reads_context):
        answers = {}
        for c, z in rows:
            if last or z not in answers:
                answers[z] = teacher(_text(c, z))
        read = _text if reads_context else (lambda c, z: z)
        return [(read(c, z), answers[z]) for c, z in rows]

    return lessons


def _changed(change: Callable) -> Callable:
    def lessons(rows, teacher, reads_context):
        return change(_lessons(rows, teacher, reads_context))

    return lessons


def _lone_separator(rows, teacher, reads_context):
    return [
        (f"{c} | {z}" if reads_context else z, teacher(f"{c} | {z}")) for c, z in rows
    ]


lessons = Exercise(
    name="ex10.lessons",
    call="lessons(rows, teacher, reads_context)",
    reference=_lessons,
    cases=_lessons_cases,
    difficulty=3,
    minutes=5,
    hints=(
        "One loop. In it make the full text once: the teacher always reads it.",
        "The target is teacher(text). What differs is the student's own source.",
        "Append (text if reads_context else z, teacher(text)) for every row.",
    ),
    misconceptions=(
        Misconception(
            "last answer",
            "All rows of a source got one answer, that of its last place. Answers kept "
            "under z overwrite each other: keep them with their row, or under c and z.",
            _by_source(last=True),
        ),
        Misconception(
            "first answer",
            "All rows of a source got the answer of its first place. Ask the teacher "
            "for each row.",
            _by_source(last=False),
        ),
        Misconception(
            "teacher without context",
            "The teacher was asked about z alone. That makes the twin: nothing of the "
            "context is in its answers, so nothing can survive.",
            lambda rows, teacher, reads_context: [
                (_text(c, z) if reads_context else z, teacher(z)) for c, z in rows
            ],
        ),
        Misconception(
            "teacher reads what the student reads",
            "The teacher was given the student's text. In context distillation the two "
            "inputs differ: the teacher always reads c.",
            lambda rows, teacher, reads_context: [
                (text, teacher(text))
                for c, z in rows
                for text in [_text(c, z) if reads_context else z]
            ],
        ),
        Misconception(
            "always with context",
            "The student reads c whatever was asked for. That makes the control twice.",
            lambda rows, teacher, reads_context: _lessons(rows, teacher, True),
        ),
        Misconception(
            "never with context",
            "The student never reads c. Then there is no control that says what c is "
            "worth.",
            lambda rows, teacher, reads_context: _lessons(rows, teacher, False),
        ),
        Misconception(
            "turned round",
            "Control and distilled student are exchanged: reads_context is True for "
            "the one that reads c.",
            lambda rows, teacher, reads_context: _lessons(
                rows, teacher, not reads_context
            ),
        ),
        Misconception(
            "repeats dropped",
            "Rows that repeat were dropped. How often an answer occurs is what the "
            "student's mixture is made of: keep every row.",
            _changed(lambda pairs: list(dict.fromkeys(pairs))),
        ),
        Misconception(
            "sorted",
            "The rows came back in another order. Keep theirs, so that the students "
            "of a seed learn from the same rows in the same order.",
            _changed(sorted),
        ),
        Misconception(
            "lone separator",
            'Without a context the text is z alone, not " | " and z.',
            _lone_separator,
        ),
    ),
)

# --- context_loss ---------------------------------------------------------------


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _answers(student, teacher, student_mask, teacher_mask):
    """log Pr^t and log Pr^s (N, V) of the answer tokens."""
    log_p = teacher.detach()[teacher_mask].log_softmax(-1)
    return log_p, student[student_mask].log_softmax(-1)


def _context_loss(student, teacher, student_mask, teacher_mask):
    return _kl(*_answers(student, teacher, student_mask, teacher_mask)).mean()


def _masks(*rows: str) -> torch.Tensor:
    return torch.tensor([[sign == "1" for sign in row] for row in rows])


def _context_loss_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(10)

    def case(name: str, student: torch.Tensor, teacher: torch.Tensor) -> Case:
        def logits(mask):
            return 2 * torch.randn(*mask.shape, 5, generator=generator)

        return Case(
            name,
            {
                "student_logits": logits(student),
                "teacher_logits": logits(teacher),
                "student_mask": student,
                "teacher_mask": teacher,
            },
        )

    return [
        case("one row, two answer tokens", _masks("011"), _masks("00011")),
        case(
            "two rows, pads behind the answers",
            _masks("01110", "01000"),
            _masks("0001110", "0000100"),
        ),
        case(
            "pads before the prompts, a teacher's prompt of another length a row",
            _masks("000101", "011110"),
            _masks("00000011", "01111000"),
        ),
        case("the same input", _masks("0110", "0011"), _masks("0110", "0011")),
    ]


def _observed(function: Callable, arguments: tuple) -> dict:
    student, teacher, *masks = arguments
    student.requires_grad_(True)
    teacher.requires_grad_(True)
    loss = function(student, teacher, *masks)
    seen = {"loss": loss.detach() if isinstance(loss, torch.Tensor) else loss}
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        loss.backward()
        for name, logits in (("student", student), ("teacher", teacher)):
            gradient = logits.grad
            seen[f"gradient of the {name}"] = (
                torch.zeros_like(logits) if gradient is None else gradient
            ).detach()
        student.requires_grad_(False)
        teacher.requires_grad_(False)
        student.grad = teacher.grad = None
    return seen


def _same_positions(student, teacher, student_mask, teacher_mask):
    length = min(student.shape[1], teacher.shape[1])
    mask = student_mask[:, :length]
    return _context_loss(student[:, :length], teacher[:, :length], mask, mask)


def _from_the_end(student, teacher, student_mask, teacher_mask):
    length = min(student.shape[1], teacher.shape[1])
    mask = student_mask[:, -length:]
    return _context_loss(student[:, -length:], teacher[:, -length:], mask, mask)


def _turned(student, teacher, student_mask, teacher_mask):
    log_p, log_q = _answers(student, teacher, student_mask, teacher_mask)
    return _kl(log_q, log_p).mean()


def _over(divide: Callable) -> Callable:
    """The sum over the answer tokens, divided by another number."""

    def loss(student, teacher, student_mask, teacher_mask):
        log_p, log_q = _answers(student, teacher, student_mask, teacher_mask)
        return divide(_kl(log_p, log_q).sum(), student_mask, log_q)

    return loss


def _mean_of_rows(student, teacher, student_mask, teacher_mask):
    rows = zip(student, teacher, student_mask, teacher_mask, strict=True)
    return torch.stack([_context_loss(*row) for row in rows]).mean()


def _cross_entropy(student, teacher, student_mask, teacher_mask):
    log_p, log_q = _answers(student, teacher, student_mask, teacher_mask)
    return -(log_p.exp() * log_q).sum(-1).mean()


def _teacher_learns(student, teacher, student_mask, teacher_mask):
    log_p = teacher[teacher_mask].log_softmax(-1)
    return _kl(log_p, student[student_mask].log_softmax(-1)).mean()


context_loss = Exercise(
    name="ex10.context_loss",
    call="context_loss(student_logits, teacher_logits, student_mask, teacher_mask)",
    reference=_context_loss,
    cases=_context_loss_cases,
    observe=_observed,
    difficulty=4,
    minutes=8,
    hints=(
        "Each model has its own mask. What does student_logits[student_mask] hold?",
        "The answer tokens (N, V), row by row, in order; teacher_logits[teacher_mask] "
        "holds the same tokens in the same order.",
        "log-softmax both, detach the teacher's, then one mean over all N of "
        "(log_p.exp() * (log_p - log_q)).sum(-1).",
    ),
    misconceptions=(
        Misconception(
            "same positions",
            "The student's mask was laid over the teacher's logits. The teacher's "
            "prompt is longer, so its answer starts later: these are positions in its "
            "prompt. Give each model its own mask.",
            _same_positions,
        ),
        Misconception(
            "counted from the end",
            "Both were aligned at their ends. That is right only as long as no row has "
            "pads behind its answer, and all answers end together.",
            _from_the_end,
        ),
        Misconception(
            "turned round",
            "This is KL(Pr^s ‖ Pr^t). Wanted is the teacher's distribution first.",
            _turned,
        ),
        Misconception(
            "divided by rows",
            "The sum was divided by the number of rows. Divide by that of all answer "
            "tokens, else a batch of long answers takes longer steps.",
            _over(lambda total, mask, log_q: total / len(mask)),
        ),
        Misconception(
            "divided by positions",
            "The sum was divided by all positions, prompts and pads among them: then "
            "padding changes the loss. Divide by the number of answer tokens.",
            _over(lambda total, mask, log_q: total / mask.numel()),
        ),
        Misconception(
            "divided by the vocabulary, too",
            "The mean was taken over the vocabulary as well. Sum over it.",
            _over(lambda total, mask, log_q: total / log_q.numel()),
        ),
        Misconception(
            "summed",
            "This is the sum over the answer tokens. Divide by their number.",
            _over(lambda total, mask, log_q: total),
        ),
        Misconception(
            "mean of the rows' means",
            "Each row has the same weight here, however short its answer. Take one "
            "mean over all answer tokens.",
            _mean_of_rows,
        ),
        Misconception(
            "cross-entropy",
            "This is the cross-entropy: the gradient is right, but the value is not 0 "
            "where the two agree. Subtract the teacher's entropy.",
            _cross_entropy,
        ),
        Misconception(
            "the teacher learns",
            "The value is right, but a gradient flows to the teacher's logits. The "
            "teacher is frozen: detach them.",
            _teacher_learns,
        ),
    ),
)

# --- survives -------------------------------------------------------------------


def _mean(figures) -> float:
    return sum(figures) / len(figures)


def _ratio(top: Callable, bottom: Callable, guard: bool = True) -> Callable:
    """top / bottom of the means (a, b, c) of taught, control and twin."""

    def survives(taught, control, twin):
        a, b, c = _mean(taught), _mean(control), _mean(twin)
        if guard and b <= c:
            return None
        return top(a, b, c) / bottom(a, b, c)

    return survives


_survives = _ratio(lambda a, b, c: a - c, lambda a, b, c: b - c)


def _survives_cases() -> list[Case]:
    def case(name: str, taught: list, control: list, twin: list) -> Case:
        return Case(name, {"taught": taught, "control": control, "twin": twin})

    return [
        case("two seeds", [0.5, 0.7], [0.9, 0.9], [0.4, 0.4]),
        case("seeds that differ", [0.5, 0.6, 0.4], [0.9, 0.7, 0.6], [0.4, 0.1, 0.3]),
        case("less than nothing", [0.2, 0.3], [0.75, 0.75], [0.5, 0.25]),
        case("more than all", [0.875], [0.75], [0.25]),
        case("a context that is worth nothing", [0.5, 0.75], [0.5, 0.5], [0.5, 0.5]),
        case("a context that does harm", [0.5], [0.25], [0.75]),
        case("nothing survives", [0.25], [0.75], [0.25]),
    ]


def _mean_of_ratios(taught, control, twin):
    rows = list(zip(taught, control, twin, strict=True))
    if _mean(control) <= _mean(twin):
        return None
    return _mean([(a - c) / (b - c) for a, b, c in rows])


def _clipped(taught, control, twin):
    share = _survives(taught, control, twin)
    return None if share is None else min(1.0, max(0.0, share))


def _or(value) -> Callable:
    def survives(taught, control, twin):
        share = _survives(taught, control, twin)
        return value if share is None else share

    return survives


def _none_at_equality_alone(taught, control, twin):
    if _mean(control) == _mean(twin):
        return None
    return _ratio(lambda a, b, c: a - c, lambda a, b, c: b - c, False)(
        taught, control, twin
    )


def _falsy(taught, control, twin):
    share = _survives(taught, control, twin)
    return share if share else None


survives = Exercise(
    name="ex10.survives",
    call="survives(taught, control, twin)",
    reference=_survives,
    cases=_survives_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "First the three means, then one ratio.",
        "The denominator is what the context is worth: control minus twin.",
        "Return None where that is 0 or less, before you divide.",
    ),
    misconceptions=(
        Misconception(
            "mean of ratios",
            "A ratio was taken for each seed, and their mean. A seed whose worth is "
            "nearly 0 then drowns the others: take the means first.",
            _mean_of_ratios,
        ),
        Misconception(
            "twin ignored",
            "This is taught / control. A student that learned nothing from c would "
            "seem to keep most of it: take the twin away from both.",
            _ratio(lambda a, b, c: a, lambda a, b, c: b),
        ),
        Misconception(
            "what is lost",
            "This is the share that is lost. Wanted is the one that survives.",
            _ratio(lambda a, b, c: b - a, lambda a, b, c: b - c),
        ),
        Misconception(
            "turned round",
            "Numerator and denominator are exchanged.",
            _ratio(lambda a, b, c: b - c, lambda a, b, c: a - c),
        ),
        Misconception(
            "clipped",
            "The share was cut to 0..1. A student worse than its twin is a result, "
            "and hiding it is not honest.",
            _clipped,
        ),
        Misconception(
            "no worth",
            "Where the context is worth nothing there is nothing to survive. Return "
            "None, and test for it before dividing.",
            _ratio(lambda a, b, c: a - c, lambda a, b, c: b - c, guard=False),
            _or(0.0),
            _or(float("nan")),
        ),
        Misconception(
            "harm",
            "Where the control is worse than the twin, the context did harm: then a "
            "ratio of two losses would look like a gain. Return None there, too.",
            _none_at_equality_alone,
        ),
        Misconception(
            "zero taken for None",
            "A share of exactly 0 is a result, not a missing one: compare with None, "
            "or test the denominator.",
            _falsy,
        ),
        Misconception(
            "difference alone",
            "This is the gain over the twin. Divide by what the control gains.",
            _ratio(lambda a, b, c: a - c, lambda a, b, c: 1.0),
        ),
    ),
)
