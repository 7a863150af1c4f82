"""Checks of lesson 00: what a model weighs, what fits a phone, what shrinking buys."""

from __future__ import annotations

from .core import Case, Exercise, Misconception

# --- megabytes ------------------------------------------------------------------


def _megabytes(parameters: int, bits: int) -> float:
    return parameters * bits / (8 * 1_000_000)


def _megabytes_cases() -> list[Case]:
    return [
        Case("a million parameters at 8 bits", {"parameters": 1_000_000, "bits": 8}),
        Case("a teacher in float32", {"parameters": 14_000_000, "bits": 32}),
        Case("a student in float16", {"parameters": 1_400_000, "bits": 16}),
        Case("a tiny model in 4 bits", {"parameters": 12_345, "bits": 4}),
    ]


megabytes = Exercise(
    name="ex00.megabytes",
    call="megabytes(parameters, bits)",
    reference=_megabytes,
    cases=_megabytes_cases,
    difficulty=1,
    minutes=3,
    hints=(
        "Go in two steps: from bits to bytes, then from bytes to megabytes.",
        "A byte has 8 bits. A megabyte, here, is 1,000,000 bytes. Keep the fraction.",
    ),
    misconceptions=(
        Misconception(
            "bits as bytes",
            "The result is 8 times too large: bits were counted as bytes. Divide by 8.",
            lambda parameters, bits: parameters * bits / 1e6,
        ),
        Misconception(
            "mebibytes",
            "This is mebibytes (1,048,576 bytes). A megabyte is 1,000,000 bytes: app "
            "stores and this course count so.",
            lambda parameters, bits: parameters * bits / 8 / 1024**2,
        ),
        Misconception(
            "bits ignored",
            "The number of bits makes no difference to your result: 4 bytes a "
            "parameter holds for float32 alone. Use the argument bits.",
            lambda parameters, bits: parameters * 4 / 1e6,
        ),
        Misconception(
            "whole numbers",
            "The fraction was cut off. Divide with /, not //, and do not round: a tiny "
            "model does not weigh 0 MB.",
            lambda parameters, bits: parameters * bits // 8 // 1_000_000,
            lambda parameters, bits: round(parameters * bits / 8 / 1e6),
            lambda parameters, bits: int(parameters * bits / 8 / 1e6),
        ),
        Misconception(
            "kilobytes",
            "The result is 1,000 times too large: these are kilobytes. A megabyte is "
            "1,000,000 bytes.",
            lambda parameters, bits: parameters * bits / 8 / 1e3,
        ),
        Misconception(
            "bytes",
            "These are bytes. Divide by 1,000,000 for megabytes.",
            lambda parameters, bits: parameters * bits / 8,
        ),
    ),
)

# --- fits_budget ----------------------------------------------------------------


def _fits_budget(megabytes: dict, milliseconds: dict, budget: dict) -> list[str]:
    fitting = []
    for name in megabytes:
        small = megabytes[name] <= budget["megabytes"]
        fast = milliseconds[name] <= budget["milliseconds"]
        if small and fast:
            fitting.append(name)
    return fitting


def _budget_cases() -> list[Case]:
    budget = {"megabytes": 20, "milliseconds": 100}
    four = {"large": 57.0, "slim": 12.0, "brisk": 31.0, "pocket": 3.0}
    paces = {"large": 310.0, "slim": 140.0, "brisk": 40.0, "pocket": 4.0}
    other_order = dict(reversed(paces.items()))
    return [
        Case(
            "large or slow, or neither",
            {"megabytes": four, "milliseconds": paces, "budget": budget},
        ),
        Case(
            "exactly at the limit",
            {
                "megabytes": {"heavy": 20.0, "late": 1.0},
                "milliseconds": {"heavy": 5.0, "late": 100.0},
                "budget": budget,
            },
        ),
        Case(
            "two tables in different order",
            {"megabytes": four, "milliseconds": other_order, "budget": budget},
        ),
        Case(
            "several fit, not in the order of size",
            {
                "megabytes": {"b": 9.0, "a": 5.0, "c": 7.0},
                "milliseconds": {"b": 9.0, "a": 30.0, "c": 20.0},
                "budget": budget,
            },
        ),
        Case(
            "nothing fits",
            {
                "megabytes": {"large": 57.0},
                "milliseconds": {"large": 310.0},
                "budget": budget,
            },
        ),
        Case(
            "a tighter budget",
            {
                "megabytes": four,
                "milliseconds": paces,
                "budget": {"megabytes": 2, "milliseconds": 2},
            },
        ),
    ]


def _chosen(test):
    """A wrong solution: the names for which a test of (mb, ms, two limits) holds."""
    return lambda sizes, paces, budget: [
        n
        for n in sizes
        if test(sizes[n], paces[n], budget["megabytes"], budget["milliseconds"])
    ]


def _by_position(sizes: dict, paces: dict, budget: dict) -> list[str]:
    rows = zip(sizes.items(), paces.values(), strict=False)
    limit, slowest = budget["megabytes"], budget["milliseconds"]
    return [name for (name, mb), ms in rows if mb <= limit and ms <= slowest]


fits_budget = Exercise(
    name="ex00.fits_budget",
    call="fits_budget(megabytes, milliseconds, budget)",
    reference=_fits_budget,
    cases=_budget_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "Go through the names of megabytes. A model must pass both limits.",
        "A model that needs exactly the budget still fits: use <=.",
        "Look each latency up by name, milliseconds[name], and compare it with "
        'budget["milliseconds"].',
    ),
    misconceptions=(
        Misconception(
            "either",
            "A model that keeps only one of the two limits is in your list. A phone "
            "needs both: and, not or.",
            _chosen(lambda mb, ms, limit, slowest: mb <= limit or ms <= slowest),
        ),
        Misconception(
            "strict",
            "A model that needs exactly the budget fits it: use <=, not <.",
            _chosen(lambda mb, ms, limit, slowest: mb < limit and ms < slowest),
        ),
        Misconception(
            "size only",
            "Only the size was looked at. A small model can still be too slow.",
            _chosen(lambda mb, ms, limit, slowest: mb <= limit),
        ),
        Misconception(
            "latency only",
            "Only the latency was looked at. A fast model can still be too large.",
            _chosen(lambda mb, ms, limit, slowest: ms <= slowest),
        ),
        Misconception(
            "the others",
            "These are the models that do not fit. Return those that do.",
            _chosen(lambda mb, ms, limit, slowest: mb > limit or ms > slowest),
        ),
        Misconception(
            "by position",
            "The sizes and the latencies were paired by their place in the tables, "
            "and the tables need not have the same order. Look each model up by its "
            "name.",
            _by_position,
        ),
        Misconception(
            "sorted",
            "The right names in another order: keep the order of megabytes.",
            lambda *tables: sorted(_fits_budget(*tables)),
            lambda *tables: sorted(
                _fits_budget(*tables), key=lambda name: tables[0][name]
            ),
            lambda *tables: sorted(
                _fits_budget(*tables), key=lambda name: tables[1][name]
            ),
        ),
        Misconception(
            "only one",
            "Only one model was returned. Return every model that fits; the loop must "
            "go on after the first.",
            lambda *tables: _fits_budget(*tables)[:1],
            lambda *tables: _fits_budget(*tables)[-1:],
        ),
    ),
)

# --- shrink_report --------------------------------------------------------------


def _shrink_report(teacher: dict, student: dict) -> dict:
    return {
        "times_smaller": teacher["megabytes"] / student["megabytes"],
        "times_faster": teacher["milliseconds"] / student["milliseconds"],
        "quality_kept": student["chrf"] / teacher["chrf"],
    }


def _shrink_cases() -> list[Case]:
    def model(megabytes: float, milliseconds: float, chrf: float) -> dict:
        return {"megabytes": megabytes, "milliseconds": milliseconds, "chrf": chrf}

    return [
        Case(
            "ten times smaller, twenty times faster, a tenth of the quality lost",
            {"teacher": model(50.0, 80.0, 70.0), "student": model(5.0, 4.0, 63.0)},
        ),
        Case(
            "a student that is better than its teacher",
            {"teacher": model(12.0, 30.0, 50.0), "student": model(8.0, 10.0, 55.0)},
        ),
        Case(
            "a student that is slower",
            {"teacher": model(9.0, 6.0, 64.0), "student": model(3.0, 12.0, 48.0)},
        ),
    ]


def _report(smaller, faster, kept):
    """A wrong solution from three functions of (teacher, student)."""

    def report(teacher: dict, student: dict) -> dict:
        mb, ms, quality = (
            (teacher[k], student[k]) for k in ("megabytes", "milliseconds", "chrf")
        )
        return {
            "times_smaller": smaller(*mb),
            "times_faster": faster(*ms),
            "quality_kept": kept(*quality),
        }

    return report


def _down(teacher: float, student: float) -> float:
    return teacher / student


def _up(teacher: float, student: float) -> float:
    return student / teacher


def _crossed(teacher: dict, student: dict) -> dict:
    right = _shrink_report(teacher, student)
    return right | {
        "times_smaller": right["times_faster"],
        "times_faster": right["times_smaller"],
    }


shrink_report = Exercise(
    name="ex00.shrink_report",
    call="shrink_report(teacher, student)",
    reference=_shrink_report,
    cases=_shrink_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "Each entry is one division. Which of the two models must stand on top?",
        "A student that is 10 times smaller gives times_smaller = 10: the teacher on "
        "top. Of quality the share that is kept is asked: the student on top.",
    ),
    misconceptions=(
        Misconception(
            "upside down",
            "Size and latency are upside down: a student of a tenth of the size is 10 "
            "times smaller, not 0.1 times. Divide the teacher's number by the "
            "student's.",
            _report(_up, _up, _up),
            _report(_up, _up, _down),
        ),
        Misconception(
            "latency upside down",
            "times_faster is upside down: fewer milliseconds are faster. Divide the "
            "teacher's milliseconds by the student's.",
            _report(_down, _up, _up),
        ),
        Misconception(
            "quality upside down",
            "quality_kept is upside down: it is the student's chrF as a share of the "
            "teacher's, below 1 for a student that is a little worse.",
            _report(_down, _down, _down),
        ),
        Misconception(
            "per cent",
            "quality_kept is a share: 0.9, not 90.",
            _report(_down, _down, lambda teacher, student: 100 * student / teacher),
        ),
        Misconception(
            "share lost",
            "quality_kept is the share that is kept, not the share that is lost.",
            _report(_down, _down, lambda teacher, student: 1 - student / teacher),
            _report(
                _down, _down, lambda teacher, student: (teacher - student) / teacher
            ),
        ),
        Misconception(
            "differences",
            "These are differences. Ratios are wanted: they mean the same for a model "
            "of 5 MB and for one of 5 GB.",
            _report(*3 * [lambda teacher, student: teacher - student]),
            _report(
                *2 * [lambda teacher, student: teacher - student],
                lambda teacher, student: student - teacher,
            ),
            _report(*2 * [lambda teacher, student: teacher - student], _up),
        ),
        Misconception(
            "crossed",
            "times_smaller and times_faster are exchanged: the first comes from "
            "megabytes, the second from milliseconds.",
            _crossed,
        ),
    ),
)
