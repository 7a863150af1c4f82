"""Solutions of lesson 00 as learners write them, independently of the package's own."""

from __future__ import annotations

import math

import numpy

from .register import mutant, mutants, right


def megabytes_in_bytes_first(parameters, bits):
    size_in_bytes = parameters * (bits / 8)
    return size_in_bytes / 10**6


def megabytes_with_numpy(parameters, bits):
    return numpy.float32(parameters) * numpy.float32(bits) / numpy.float32(8e6)


def fits_by_sets(megabytes, milliseconds, budget):
    small = {n for n in megabytes if not megabytes[n] > budget["megabytes"]}
    fast = {n for n in milliseconds if not milliseconds[n] > budget["milliseconds"]}
    return [name for name in megabytes if name in small & fast]


def fits_by_removal(megabytes, milliseconds, budget):
    names = list(megabytes)
    for name in list(names):
        if megabytes[name] > budget["megabytes"]:
            names.remove(name)
        elif milliseconds[name] > budget["milliseconds"]:
            names.remove(name)
    return tuple(names)


def report_with_dict(teacher, student):
    report = dict(quality_kept=1 / (teacher["chrf"] / student["chrf"]))
    report["times_faster"] = teacher["milliseconds"] / student["milliseconds"]
    report["times_smaller"] = 1 / (student["megabytes"] / teacher["megabytes"])
    return report


def report_with_loop(teacher, student):
    ratio = {key: teacher[key] / student[key] for key in teacher}
    return {
        "times_smaller": ratio["megabytes"],
        "times_faster": ratio["milliseconds"],
        "quality_kept": ratio["chrf"] ** -1,
    }


right("ex00.megabytes", megabytes_in_bytes_first, megabytes_with_numpy)
right("ex00.fits_budget", fits_by_sets, fits_by_removal)
right("ex00.shrink_report", report_with_dict, report_with_loop)


mutants(
    "ex00.megabytes",
    bits_as_bytes=lambda p, b: p * b / 1_000_000,
    mebibytes=lambda p, b: p * b / 8 / (1024 * 1024),
    bits_ignored=lambda p, b: p * 32 / 8 / 1e6,
    whole_numbers=lambda p, b: math.floor(p * b / 8 / 1e6),
    kilobytes=lambda p, b: p * b / 8000,
    bytes=lambda p, b: p * b // 8,
)
mutants("ex00.megabytes", whole_numbers=lambda p, b: round(p * b / 8e6, 0))


@mutant("ex00.fits_budget", "either")
def _(megabytes, milliseconds, budget):
    result = []
    for name in megabytes:
        if megabytes[name] <= budget["megabytes"]:
            result.append(name)
        elif milliseconds[name] <= budget["milliseconds"]:
            result.append(name)
    return result


@mutant("ex00.fits_budget", "strict")
def _(megabytes, milliseconds, budget):
    return [
        n
        for n in megabytes
        if budget["megabytes"] > megabytes[n]
        and budget["milliseconds"] > milliseconds[n]
    ]


@mutant("ex00.fits_budget", "by position")
def _(megabytes, milliseconds, budget):
    times = list(milliseconds.values())
    fits = []
    for i, (name, size) in enumerate(megabytes.items()):
        if size <= budget["megabytes"] and times[i] <= budget["milliseconds"]:
            fits.append(name)
    return fits


@mutant("ex00.fits_budget", "only one")
def _(megabytes, milliseconds, budget):
    result = []
    for name in megabytes:
        if (
            megabytes[name] <= budget["megabytes"]
            and milliseconds[name] <= budget["milliseconds"]
        ):
            result.append(name)
            break
    return result


mutants(
    "ex00.fits_budget",
    size_only=lambda s, t, b: [n for n, v in s.items() if v <= b["megabytes"]],
    latency_only=lambda s, t, b: [n for n in s if t[n] <= b["milliseconds"]],
    the_others=lambda s, t, b: [n for n in s if n not in fits_by_sets(s, t, b)],
    sorted=lambda s, t, b: sorted(fits_by_sets(s, t, b), key=t.get),
)


def shrink(mb, ms, quality):
    def report(teacher, student):
        return {
            "times_smaller": mb(teacher["megabytes"], student["megabytes"]),
            "times_faster": ms(teacher["milliseconds"], student["milliseconds"]),
            "quality_kept": quality(teacher["chrf"], student["chrf"]),
        }

    return report


def over(t, s):
    return t / s


def under(t, s):
    return 1 / (t / s)


mutants(
    "ex00.shrink_report",
    upside_down=shrink(under, under, under),
    latency_upside_down=shrink(over, under, under),
    quality_upside_down=shrink(over, over, over),
    per_cent=shrink(over, over, lambda t, s: s / t * 100),
    share_lost=shrink(over, over, lambda t, s: 1 - s / t),
    differences=shrink(*[lambda t, s: t - s] * 3),
    crossed=lambda t, s: {
        "times_smaller": t["milliseconds"] / s["milliseconds"],
        "times_faster": t["megabytes"] / s["megabytes"],
        "quality_kept": s["chrf"] / t["chrf"],
    },
)
