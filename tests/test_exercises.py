"""The checks are tested by wrong solutions: each must fail with its own diagnosis.

The mutants below are written as a learner would write them, independently of the
misconceptions in the package, which recognise a mistake by what it computes.
"""

from __future__ import annotations

import json
import math
import re
import time

import build_exercises
import numpy
import pytest
import torch
import torch.nn.functional as F

from kdcourse.__main__ import main
from kdcourse.commands import check
from kdcourse.errors import KdcourseError
from kdcourse.study import checks
from kdcourse.study.checks import CheckFailed, NotAttempted, core, ex00, ex11
from kdcourse.study.checks.comparison import brief, difference

EXERCISES = {
    exercise.name: exercise
    for module in (ex00, ex11)
    for exercise in vars(module).values()
    if isinstance(exercise, core.Exercise)
}


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")


# ------------------------------------------------------------ right solutions, twice


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


def loss_with_cross_entropy(logits, labels):
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100)


def loss_with_mask_and_where(logits, labels):
    mask = (labels != -100).float()
    safe = torch.where(labels == -100, 0, labels)
    one_hot = F.one_hot(safe, logits.shape[-1]).float()
    nll = logits.logsumexp(-1) - (one_hot * logits).sum(-1)
    return (nll * mask).sum() / mask.sum()


def inputs_by_assignment(labels, start, pad):
    shifted = torch.full_like(labels, pad)
    shifted[:, 0] = start
    shifted[:, 1:] = labels[:, :-1]
    shifted[shifted == -100] = pad
    return shifted


def inputs_by_padding(labels, start, pad):
    moved = F.pad(labels, (1, 0), value=start)[:, : labels.shape[1]]
    return torch.where(moved == -100, pad, moved)


def corpus_by_loop(sources, references, translations, key):
    pairs, lost = [], []
    for i in range(len(sources)):
        try:
            target = translations[key(sources[i])]
        except KeyError:
            target = references[i]
            lost.append(i)
        pairs.append((sources[i], target))
    return pairs, len(lost)


def corpus_as_lists(sources, references, translations, key):
    hashes = list(map(key, sources))
    targets = [translations.get(h, r) for h, r in zip(hashes, references, strict=True)]
    lost = sum(1 for h in hashes if h not in translations)
    return [list(pair) for pair in zip(sources, targets, strict=True)], lost


def verdict_with_numpy(deltas, p_values):
    deltas, p_values = numpy.array(deltas), numpy.array(p_values)
    if deltas.size < 3:
        return "INCONCLUSIVE"
    if (deltas > 0).all():
        return "BEATS" if (p_values < 0.01).all() else "INCONCLUSIVE"
    return "INCONCLUSIVE" if (deltas > 0).any() else "NO BEATS"


def verdict_by_counting(deltas, p_values):
    n = len(deltas)
    gains = sum(d > 0 for d in deltas)
    sure = sum(d > 0 and p < 0.01 for d, p in zip(deltas, p_values, strict=True))
    answers = {n: "BEATS"} if n > 2 else {}
    if n > 2 and gains == 0:
        return "NO BEATS"
    return answers.get(sure, "INCONCLUSIVE")


def names_by_counting(sources, references, hypotheses):
    total, kept = 0, 0
    for i, source in enumerate(sources):
        for word in source.split(" "):
            if re.search("[A-Z]", word) and word in references[i].split(" "):
                total += 1
                if word in hypotheses[i].split(" "):
                    kept += 1
    if total == 0:
        return 1.0
    return kept / total


def names_as_flat_list(sources, references, hypotheses):
    triples = zip(sources, references, hypotheses, strict=True)
    flags = [
        word in h.split()
        for s, r, h in triples
        for word in s.split()
        if word.lower() != word and word in r.split()
    ]
    return float(numpy.mean(flags)) if flags else 1


RIGHT = {
    "ex00.megabytes": [megabytes_in_bytes_first, megabytes_with_numpy],
    "ex00.fits_budget": [fits_by_sets, fits_by_removal],
    "ex00.shrink_report": [report_with_dict, report_with_loop],
    "ex11.batch_loss": [loss_with_cross_entropy, loss_with_mask_and_where],
    "ex11.decoder_inputs": [inputs_by_assignment, inputs_by_padding],
    "ex11.distilled_corpus": [corpus_by_loop, corpus_as_lists],
    "ex11.verdict": [verdict_with_numpy, verdict_by_counting],
    "ex11.copied_names": [names_by_counting, names_as_flat_list],
}


@pytest.mark.parametrize(
    ("name", "function"), [(n, f) for n, fs in RIGHT.items() for f in fs]
)
def test_differently_written_right_solutions_pass(name, function):
    outcome = EXERCISES[name].evaluate(function)
    assert outcome.status == "passed", outcome.message


def test_every_exercise_has_two_more_right_solutions():
    assert set(RIGHT) == set(EXERCISES)
    assert all(len(functions) >= 2 for functions in RIGHT.values())


# ------------------------------------------------------------------ wrong solutions

MUTANTS: dict[str, list] = {}


def mutant(name: str, key: str):
    """Register a wrong solution under the diagnosis that it must get."""

    def register(function):
        MUTANTS.setdefault(name, []).append((key, function))
        return function

    return register


def mutants(name: str, **functions):
    """Register short ones; ``_`` in a keyword stands for a space."""
    for key, function in functions.items():
        mutant(name, key.replace("_", " "))(function)


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


def nll(logits, labels):
    """Per-token losses by cross_entropy, 0 at pads: (B, L)."""
    flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


@mutant("ex11.batch_loss", "pads counted")
def _(logits, labels):
    return nll(logits, labels).mean()


@mutant("ex11.batch_loss", "divided by sentences")
def _(logits, labels):
    return nll(logits, labels).sum(dim=1).mean()


@mutant("ex11.batch_loss", "mean of means")
def _(logits, labels):
    sentences = [
        F.cross_entropy(z, y, ignore_index=-100)
        for z, y in zip(logits, labels, strict=True)
    ]
    return torch.stack(sentences).mean()


@mutant("ex11.batch_loss", "mask forgotten")
def _(logits, labels):
    log_p = F.log_softmax(logits, dim=-1)
    return -log_p.gather(2, labels.unsqueeze(2)).mean()


@mutant("ex11.batch_loss", "mask forgotten")
def _(logits, labels):
    labels = torch.where(labels == -100, 0, labels)
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))


@mutant("ex11.batch_loss", "mask forgotten")
def _(logits, labels):
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=0)


@mutant("ex11.batch_loss", "token zero masked")
def _(logits, labels):
    labels = labels.masked_fill(labels == 0, -100)
    return F.cross_entropy(logits.transpose(1, 2), labels)


@mutant("ex11.batch_loss", "shifted")
def _(logits, labels):
    shift_logits, shift_labels = logits[:, :-1].contiguous(), labels[:, 1:].contiguous()
    return F.cross_entropy(shift_logits.transpose(1, 2), shift_labels)


@mutant("ex11.batch_loss", "softmax over time")
def _(logits, labels):
    log_p = torch.log_softmax(logits, dim=1)
    return F.nll_loss(log_p.transpose(1, 2), labels)


@mutant("ex11.batch_loss", "softmax over the batch")
def _(logits, labels):
    log_p = torch.log_softmax(logits, dim=0)
    return F.nll_loss(log_p.transpose(1, 2), labels)


@mutant("ex11.batch_loss", "softmax twice")
def _(logits, labels):
    return F.cross_entropy(logits.softmax(-1).transpose(1, 2), labels)


@mutant("ex11.batch_loss", "sum")
def _(logits, labels):
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")


@mutant("ex11.batch_loss", "divided twice")
def _(logits, labels):
    tokens = (labels != -100).sum()
    return F.cross_entropy(logits.transpose(1, 2), labels) / tokens


@mutant("ex11.batch_loss", "mean over the vocabulary")
def _(logits, labels):
    real = labels != -100
    one_hot = F.one_hot(labels[real], logits.shape[-1])
    return -(one_hot * logits[real].log_softmax(-1)).mean()


@mutant("ex11.batch_loss", "sign")
def _(logits, labels):
    real = labels != -100
    log_p = logits[real].log_softmax(-1)
    return log_p[torch.arange(len(log_p)), labels[real]].mean()


@mutant("ex11.batch_loss", "overflow")
def _(logits, labels):
    real = labels != -100
    exp = torch.exp(logits[real])
    p = exp / exp.sum(dim=-1, keepdim=True)
    return -torch.log(p[torch.arange(len(p)), labels[real]]).mean()


@mutant("ex11.batch_loss", "overflow")
def _(logits, labels):
    real = labels != -100
    p = torch.softmax(logits[real], dim=-1)
    return -torch.log(p[torch.arange(len(p)), labels[real]]).mean()


@mutant("ex11.batch_loss", "no gradient")
def _(logits, labels):
    return torch.tensor(loss_with_cross_entropy(logits, labels).item())


@mutant("ex11.batch_loss", "no gradient")
def _(logits, labels):
    with torch.no_grad():
        return loss_with_cross_entropy(logits, labels)


@mutant("ex11.batch_loss", "no gradient")
def _(logits, labels):
    return float(loss_with_cross_entropy(logits, labels).detach())


def clean(labels, pad):
    return torch.where(labels == -100, pad, labels)


mutants(
    "ex11.decoder_inputs",
    shifted_left=lambda y, s, p: F.pad(clean(y, p), (0, 1), value=p)[:, 1:],
    not_shifted=lambda y, s, p: clean(y, p),
    rolled=lambda y, s, p: torch.roll(clean(y, p), shifts=1, dims=-1),
    too_long=lambda y, s, p: F.pad(clean(y, p), (1, 0), value=s),
    too_short=lambda y, s, p: clean(y, p)[:, :-1],
    end_as_start=lambda y, s, p: F.pad(clean(y, p), (1, 0), value=0)[:, :-1],
    pad_as_start=lambda y, s, p: F.pad(clean(y, p), (1, 0), value=p)[:, :-1],
)
for key, function in {
    "-100 kept": lambda y, s, p: F.pad(y, (1, 0), value=s)[:, :-1],
    "-100 as token zero": lambda y, s, p: F.pad(y.relu(), (1, 0), value=s)[:, :-1],
    "-100 as start": lambda y, s, p: F.pad(clean(y, s), (1, 0), value=s)[:, :-1],
}.items():
    mutant("ex11.decoder_inputs", key)(function)


@mutant("ex11.decoder_inputs", "end as start")
def _(labels, start, pad):
    """As mBART does it: the last real token goes to the front."""
    shifted = clean(labels, pad)
    last = (labels != -100).sum(dim=1) - 1
    first = labels[torch.arange(len(labels)), last]
    shifted[:, 1:] = shifted[:, :-1].clone()
    shifted[:, 0] = first
    return shifted


@mutant("ex11.distilled_corpus", "by position")
def _(sources, references, translations, key):
    outputs = list(translations.values())
    return [(s, outputs[i]) for i, s in enumerate(sources)], 0


@mutant("ex11.distilled_corpus", "by position")
def _(sources, references, translations, key):
    return list(zip(sources, translations.values(), strict=False)), max(
        0, len(sources) - len(translations)
    )


@mutant("ex11.distilled_corpus", "dropped")
def _(sources, references, translations, key):
    pairs = []
    for source in sources:
        if key(source) in translations:
            pairs.append((source, translations[key(source)]))
    return pairs, 0


@mutant("ex11.distilled_corpus", "dropped")
def _(sources, references, translations, key):
    pairs, missing = [], 0
    for source in sources:
        if key(source) not in translations:
            missing += 1
            continue
        pairs.append((source, translations[key(source)]))
    return pairs, missing


@mutant("ex11.distilled_corpus", "not counted")
def _(sources, references, translations, key):
    pairs = []
    for source, reference in zip(sources, references, strict=True):
        pairs.append((source, translations.get(key(source), reference)))
    return pairs, 0


@mutant("ex11.distilled_corpus", "fails on missing")
def _(sources, references, translations, key):
    return [(source, translations[key(source)]) for source in sources], 0


@mutant("ex11.distilled_corpus", "key unused")
def _(sources, references, translations, key):
    pairs, missing = [], 0
    for source, reference in zip(sources, references, strict=True):
        target = translations.get(source)
        if target is None:
            missing += 1
            target = reference
        pairs.append((source, target))
    return pairs, missing


@mutant("ex11.distilled_corpus", "empty targets")
def _(sources, references, translations, key):
    targets = [translations.get(key(source), "") for source in sources]
    return list(zip(sources, targets, strict=True)), targets.count("")


@mutant("ex11.distilled_corpus", "source as target")
def _(sources, references, translations, key):
    pairs = [(s, translations.get(key(s), s)) for s in sources]
    return pairs, sum(source == target for source, target in pairs)


mutants(
    "ex11.distilled_corpus",
    only_references=lambda s, r, t, k: ([*zip(s, r, strict=True)], 0),
    sides_exchanged=lambda s, r, t, k: (
        [(target, source) for source, target in corpus_by_loop(s, r, t, k)[0]],
        corpus_by_loop(s, r, t, k)[1],
    ),
    count_of_the_found=lambda s, r, t, k: (
        corpus_by_loop(s, r, t, k)[0],
        len([source for source in s if k(source) in t]),
    ),
    pairs_alone=lambda s, r, t, k: corpus_by_loop(s, r, t, k)[0],
)


@mutant("ex11.verdict", "best seed")
def _(deltas, p_values):
    delta, p = max(zip(deltas, p_values, strict=True))
    if delta > 0 and p < 0.01:
        return "BEATS"
    return "NO BEATS"


@mutant("ex11.verdict", "mean only")
def _(deltas, p_values):
    return "BEATS" if sum(deltas) / len(deltas) > 0 else "NO BEATS"


@mutant("ex11.verdict", "two answers")
def _(deltas, p_values):
    good = [d > 0 and p < 0.01 for d, p in zip(deltas, p_values, strict=True)]
    return "BEATS" if all(good) else "NO BEATS"


@mutant("ex11.verdict", "two answers")
def _(deltas, p_values):
    if len(deltas) < 3:
        return "INCONCLUSIVE"
    good = [d > 0 and p < 0.01 for d, p in zip(deltas, p_values, strict=True)]
    return "BEATS" if all(good) else "NO BEATS"


def rule(gains, losses=lambda d, p: all(x <= 0 for x in d), seeds=3):
    def verdict(deltas, p_values):
        if len(deltas) < seeds:
            return "INCONCLUSIVE"
        if gains(deltas, p_values):
            return "BEATS"
        return "NO BEATS" if losses(deltas, p_values) else "INCONCLUSIVE"

    return verdict


def up(d):
    return all(x > 0 for x in d)


def sure(p):
    return all(x < 0.01 for x in p)


mutants(
    "ex11.verdict",
    p_ignored=rule(lambda d, p: up(d)),
    one_p_is_enough=rule(lambda d, p: up(d) and any(x < 0.01 for x in p)),
    mean_p=rule(lambda d, p: up(d) and sum(p) / len(p) < 0.01),
    five_per_cent=rule(lambda d, p: up(d) and all(x < 0.05 for x in p)),
    p_reversed=rule(lambda d, p: up(d) and all(x > 0.01 for x in p)),
    direction_ignored=rule(lambda d, p: sure(p)),
    two_seeds=rule(lambda d, p: up(d) and sure(p), seeds=1),
    loss_must_be_certain=rule(
        lambda d, p: up(d) and sure(p), lambda d, p: all(x < 0 for x in d) and sure(p)
    ),
    limit_included=rule(lambda d, p: up(d) and not any(x > 0.01 for x in p)),
    zero_is_a_gain=rule(lambda d, p: not any(x < 0 for x in d) and sure(p)),
)


def capital(word):
    return any(letter.isupper() for letter in word)


def share(counts, kept):
    def function(sources, references, hypotheses):
        results = []
        for i in range(len(sources)):
            for word in sources[i].split():
                if counts(word, references[i]):
                    results.append(kept(word, hypotheses[i]))
        return sum(results) / len(results) if results else 1.0

    return function


def is_name(word, reference):
    return capital(word) and word in reference.split()


@mutant("ex11.copied_names", "mean of strings")
def _(sources, references, hypotheses):
    shares = []
    for s, r, h in zip(sources, references, hypotheses, strict=True):
        names = [w for w in s.split() if is_name(w, r)]
        if names:
            shares.append(sum(w in h.split() for w in names) / len(names))
    return sum(shares) / len(shares) if shares else 1.0


@mutant("ex11.copied_names", "whole strings")
def _(sources, references, hypotheses):
    strings = []
    for s, r, h in zip(sources, references, hypotheses, strict=True):
        names = {w for w in s.split() if is_name(w, r)}
        if names:
            strings.append(names <= set(h.split()))
    return sum(strings) / len(strings) if strings else 1.0


@mutant("ex11.copied_names", "division by zero")
def _(sources, references, hypotheses):
    total, kept = 0, 0
    for s, r, h in zip(sources, references, hypotheses, strict=True):
        for word in s.split():
            if is_name(word, r):
                total += 1
                kept += word in h.split()
    return kept / total


mutants(
    "ex11.copied_names",
    inside_a_word=share(is_name, lambda w, h: w in h),
    reference_ignored=share(lambda w, r: capital(w), lambda w, h: w in h.split()),
    every_word=share(lambda w, r: w in r.split(), lambda w, h: w in h.split()),
    case_ignored=share(is_name, lambda w, h: w.lower() in h.lower().split()),
    hypothesis_unread=lambda s, r, h: names_by_counting(s, r, r),
    zero_without_names=lambda s, r, h: (
        names_by_counting(s, r, h) if any(map(capital, s)) else 0
    ),
    share_lost=lambda s, r, h: 1 - names_by_counting(s, r, h),
    per_cent=lambda s, r, h: names_by_counting(s, r, h) * 100,
)

ALL_MUTANTS = [(name, key, f) for name, rows in MUTANTS.items() for key, f in rows]


@pytest.mark.parametrize(
    ("name", "key", "function"),
    ALL_MUTANTS,
    ids=[f"{name}-{key}-{n}" for n, (name, key, _) in enumerate(ALL_MUTANTS)],
)
def test_each_mutant_fails_with_its_own_diagnosis(name, key, function):
    outcome = EXERCISES[name].evaluate(function)
    assert (outcome.status, outcome.diagnosis) == ("failed", key), outcome.message
    (misconception,) = [m for m in EXERCISES[name].misconceptions if m.key == key]
    assert " ".join(misconception.diagnosis.split()) in " ".join(
        outcome.message.split()
    )


@pytest.mark.parametrize("name", EXERCISES)
def test_every_misconception_has_a_mutant(name):
    named = [m.key for m in EXERCISES[name].misconceptions]
    assert len(named) == len(set(named)) >= 4
    assert set(named) == {key for key, _ in MUTANTS[name]}
    diagnoses = {m.diagnosis for m in EXERCISES[name].misconceptions}
    assert len(diagnoses) == len(named)


@pytest.mark.parametrize("name", EXERCISES)
def test_each_known_way_to_be_wrong_gets_its_own_diagnosis(name):
    """No way that a check knows is swallowed by another that stands before it."""
    exercise = EXERCISES[name]
    for misconception in exercise.misconceptions:
        for function in misconception.functions:
            assert exercise.evaluate(function).diagnosis == misconception.key


# ------------------------------------------------------- reference, stub, mechanics


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_passes_in_under_a_second(name):
    started = time.perf_counter()
    outcome = EXERCISES[name].evaluate(EXERCISES[name].reference)
    assert outcome.status == "passed", outcome.message
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("name", EXERCISES)
def test_the_committed_solution_passes(name):
    space = {"torch": torch}
    exec(checks.solutions()[name], space)
    outcome = EXERCISES[name].evaluate(space[name.partition(".")[2]])
    assert outcome.status == "passed", outcome.message


def blank_dots(logits, labels): ...


def blank_docstring(logits, labels):
    """Only words."""


def blank_pass(logits, labels):
    pass


def blank_returns_dots(logits, labels):
    return ...


def blank_raises(logits, labels):
    raise NotImplementedError("yours")


@pytest.mark.parametrize(
    "blank",
    [blank_dots, blank_docstring, blank_pass, blank_returns_dots, blank_raises],
)
def test_a_blank_is_not_attempted_and_is_no_failure(blank, capsys):
    assert ex11.batch_loss.evaluate(blank).status == "not attempted"
    ex11.batch_loss.check(blank)
    assert capsys.readouterr().out.startswith("ex11.batch_loss: not attempted.")
    with pytest.raises(NotAttempted):
        ex11.batch_loss.check(blank, required=True)


def test_an_error_of_a_library_is_no_blank():
    """torch raises NotImplementedError for what it cannot do on a device."""

    def library():
        raise NotImplementedError("no such kernel")

    outcome = ex11.batch_loss.evaluate(lambda logits, labels: library())
    assert (outcome.status, outcome.diagnosis) == ("failed", "raised")


@pytest.mark.parametrize(
    "attempt", [lambda logits, labels: None, lambda logits, labels: 0.0]
)
def test_an_attempt_that_returns_nothing_useful_is_a_failure(attempt):
    def tried(logits, labels):
        unused = logits.sum()  # noqa: F841
        return attempt(logits, labels)

    assert ex11.batch_loss.evaluate(tried).status == "failed"


def test_a_failed_check_is_an_assertion_error_without_a_long_traceback():
    with pytest.raises(AssertionError) as caught:
        ex00.megabytes.check(lambda parameters, bits: 0.5)
    assert isinstance(caught.value, CheckFailed)
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "Wanted: 1" in str(caught.value) and "Got:    0.5" in str(caught.value)
    assert "ex00.megabytes.hint()" in str(caught.value)


def test_a_passed_check_prints_one_line(capsys):
    assert ex00.megabytes.check(megabytes_in_bytes_first) is None
    assert capsys.readouterr().out == "ex00.megabytes: passed (all 4 cases).\n"


def changes_labels(labels, start, pad):
    labels[labels == -100] = pad
    return inputs_by_assignment(labels, start, pad)


def changes_logits(logits, labels):
    logits[labels == -100] = 0.0
    return loss_with_cross_entropy(logits, labels)


def changes_translations(sources, references, translations, key):
    pairs = corpus_by_loop(sources, references, translations, key)
    translations.clear()
    return pairs


def changes_by_sorting(deltas, p_values):
    deltas.sort()
    return verdict_with_numpy(deltas, p_values)


@pytest.mark.parametrize(
    ("name", "function", "argument"),
    [
        ("ex11.decoder_inputs", changes_labels, "labels"),
        ("ex11.batch_loss", changes_logits, "logits"),
        ("ex11.distilled_corpus", changes_translations, "translations"),
        ("ex11.verdict", changes_by_sorting, "deltas"),
    ],
)
def test_a_changed_argument_is_noticed_though_the_result_is_right(
    name, function, argument
):
    outcome = EXERCISES[name].evaluate(function)
    assert outcome.diagnosis == "mutation"
    assert f"changed its argument {argument}" in outcome.message


@pytest.mark.parametrize(
    ("kind", "said", "wrap"),
    [
        ("NaN", "NaN", lambda x: x * float("nan")),
        ("shape", "shape (1,) where ()", lambda x: x[None]),
        ("dtype", "float64 where float32", lambda x: x.double()),
        ("device", "device meta", lambda x: x.to("meta")),
        ("type", "is None", lambda x: None),
        ("type", "is a list; a tensor", lambda x: [x]),
        ("value", "", lambda x: 3 * x + 1),
    ],
)
def test_a_wrong_kind_of_result_is_named(kind, said, wrap):
    def function(logits, labels):
        return wrap(loss_with_cross_entropy(logits, labels))

    outcome = ex11.batch_loss.evaluate(function)
    assert (outcome.status, outcome.diagnosis) == ("failed", kind), outcome.message
    assert said in outcome.message


def test_an_error_names_the_learners_own_line():
    def function(logits, labels):
        rows = labels.tolist()
        return rows["first"]

    outcome = ex11.batch_loss.evaluate(function)
    assert outcome.diagnosis == "raised"
    assert 'Line:   return rows["first"]' in outcome.message


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        (lambda x: x, "signature", "it is called as megabytes(parameters, bits)"),
        (56.0, "not a function", "ex00.megabytes.check(megabytes)"),
        (None, "not a function", "was given None"),
    ],
)
def test_what_is_not_the_function_is_explained(given, key, said):
    outcome = ex00.megabytes.evaluate(given)
    assert (outcome.status, outcome.diagnosis) == ("failed", key)
    assert said in outcome.message


def test_the_text_is_the_same_every_time_and_random_states_stay_untouched():
    class Odd:
        pass

    def function(logits, labels):
        return Odd()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = ex11.batch_loss.evaluate(function).message
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    numpy.random.seed(3)
    assert ex11.batch_loss.evaluate(function).message == first
    assert "0x" not in first


def test_hints_come_one_by_one_and_the_solution_is_whole(capsys):
    ex11.batch_loss.hint()
    assert "Hint 1 of 3" in capsys.readouterr().out
    ex11.batch_loss.hint(3)
    assert "next" not in capsys.readouterr().out
    with pytest.raises(KdcourseError, match="from 1 to 3"):
        ex11.batch_loss.hint(4)
    ex11.batch_loss.solution()
    assert capsys.readouterr().out.startswith("def batch_loss(logits, labels):")


@pytest.mark.parametrize("name", EXERCISES)
def test_each_exercise_is_rated_and_called_by_its_own_name(name):
    exercise = EXERCISES[name]
    assert exercise.difficulty in range(1, 6) and exercise.minutes > 0
    assert exercise.call.startswith(name.partition(".")[2] + "(")
    assert len(exercise.hints) >= 2
    source = next(build_exercises.SOURCES.glob(f"{name[:4]}_*.py")).read_text("utf-8")
    assert f"Difficulty {exercise.difficulty}, {exercise.minutes} minute" in source
    assert f"\ndef {exercise.call}:\n" in source
    assert f"\n{name}.check({name.partition('.')[2]})\n" in source


@pytest.mark.parametrize(
    ("wanted", "got", "kind"),
    [
        ([1, 2], (n for n in (1, 2)), "type"),
        ([1, 2], [1], "length"),
        ({"a": 1}, {"a": 1, "b": 2}, "keys"),
        ({"a": 1}, {}, "keys"),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, "value"),
        (1.0, "1.0", "type"),
        (1.0, True, "type"),
        ("x", None, "type"),
        (2.0, math.nan, "NaN"),
    ],
)
def test_differences_have_a_kind(wanted, got, kind):
    assert difference(wanted, got).kind == kind


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ([1, 2.0], (1, torch.tensor(2.0))),
        (0.25, numpy.float64(0.25)),
        (math.nan, math.nan),
        (torch.ones(2), torch.ones(2) + 1e-7),
    ],
)
def test_what_means_the_same_is_no_difference(wanted, got):
    assert difference(wanted, got) is None


def test_a_message_never_grows_long():
    assert len(brief(list(range(10_000)))) < 320
    assert brief(torch.zeros(30, 40)) == "tensor (30, 40) float32"


# --------------------------------------------------------------- generated notebooks

SOURCES = build_exercises.sources()


def test_every_source_has_its_checks_and_every_exercise_its_source():
    assert checks.exercise_names() == list(EXERCISES)
    assert checks.exercise_names("11") == [n for n in EXERCISES if "ex11" in n]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_stub_and_solution_are_what_the_source_says(source, root):
    """Cells, byte for byte; the solved one's outputs are compared by nbval."""
    name = build_exercises.notebook_name(source)
    stub = build_exercises.as_text(build_exercises.stub(source))
    assert (root / "exercises" / name).read_text("utf-8") == stub
    committed = json.loads((root / "exercises/solutions" / name).read_text("utf-8"))
    for cell in committed["cells"]:
        if cell["cell_type"] == "code":
            cell.update(execution_count=None, outputs=[])
    made = json.loads(build_exercises.as_text(build_exercises.solved(source)))
    assert committed == made


def test_the_solutions_text_is_what_the_sources_say():
    text = build_exercises.as_json(build_exercises.all_solutions())
    assert build_exercises.SOLUTIONS_JSON.read_text("utf-8") == text


@pytest.mark.slow
def test_running_again_gives_the_same_bytes(capsys):
    assert build_exercises.main(["--check"]) == 0, capsys.readouterr()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_solution_leaks_into_a_stub(source, root):
    stub = (root / "exercises" / build_exercises.notebook_name(source)).read_text(
        "utf-8"
    )
    cells = json.loads(stub)["cells"]
    lines = {ln.strip() for c in cells for ln in "".join(c["source"]).splitlines()}
    regions = list(build_exercises.REGION.finditer(source.read_text("utf-8")))
    assert len(regions) == len(checks.exercise_names(source.stem[2:4]))
    for region in regions:
        for line in region["body"].splitlines():
            assert line.strip() not in lines - {""}, line
    assert "SOLUTION" not in stub and '"outputs": []' in stub


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_stub_runs_to_its_end_not_attempted(source, capsys):
    space: dict = {}
    for cell in build_exercises.stub(source).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, source.stem, "exec"), space)
    said = capsys.readouterr().out
    names = checks.exercise_names(source.stem[2:4])
    assert [n for n in names if f"{n}: not attempted" in said] == names


def test_a_source_that_differs_is_noticed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build_exercises, "ROOT", tmp_path)
    monkeypatch.setattr(build_exercises, "SOLUTIONS_JSON", tmp_path / "solutions.json")
    monkeypatch.setattr(build_exercises, "notebooks", dict)
    assert build_exercises.main(["--check"]) == 1
    assert "differs: solutions.json" in capsys.readouterr().out
    assert not (tmp_path / "solutions.json").exists()
    assert build_exercises.main([]) == 0
    assert build_exercises.main(["--check"]) == 0


# ------------------------------------------------------------------- command line


def edited_stub(folder, *bodies: str):
    """The stub of lesson 00 with these bodies in place of the dots, in order."""
    notebook = build_exercises.stub(SOURCES[0])
    bodies = list(bodies)
    for cell in notebook.cells:
        if "...  # your code" in cell.source and bodies:
            cell.source = cell.source.replace("...  # your code", bodies.pop(0))
    path = folder / "00_start_here.ipynb"
    path.write_text(build_exercises.as_text(notebook), "utf-8")
    return path


@pytest.mark.slow
def test_check_reports_each_exercise_as_json(tmp_path, monkeypatch, capsys):
    bodies = ("return parameters * bits / 8e6", "return nonsense", "while True: pass")
    path = edited_stub(tmp_path, *bodies)
    before = path.read_bytes()
    progress = tmp_path / "learner.json"
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(progress))
    assert main(["check", str(path), "--json", "--seconds", "3"]) == 1
    (report,) = json.loads(capsys.readouterr().out)["notebooks"]
    statuses = {row["name"]: row["status"] for row in report["exercises"]}
    assert statuses == {
        "ex00.megabytes": "passed",
        "ex00.fits_budget": "failed",
        "ex00.shrink_report": "not attempted",
    }
    assert report["exercises"][1]["diagnosis"] == "raised"
    assert "NameError" in report["exercises"][1]["message"]
    assert [error["error"] for error in report["errors"]] == [
        "it took over 3 seconds; does a loop never end?"
    ]
    assert path.read_bytes() == before and not progress.exists()


@pytest.mark.parametrize(
    ("statuses", "errors", "usual", "strict"),
    [
        (["passed", "passed"], [], 0, 0),
        (["passed", "not attempted"], [], 0, 1),
        (["passed", "failed"], [], 1, 1),
        (["passed"], [{"cell": 3, "error": "NameError: no"}], 1, 1),
    ],
)
def test_the_exit_status_says_what_a_grader_must_know(
    monkeypatch, capsys, statuses, errors, usual, strict
):
    rows = [{"name": "ex", "status": s, "message": "why"} for s in statuses]
    report = {"notebook": "00_x.ipynb", "exercises": rows, "errors": errors}
    monkeypatch.setattr(check, "check_notebook", lambda path, seconds: report)
    assert main(["check", __file__]) == usual
    assert main(["check", __file__, "--strict"]) == strict
    said = capsys.readouterr().out
    assert ("why" in said) == ("failed" in statuses)
    assert ("Cell 3 stopped: NameError" in said) == bool(errors)


def test_check_explains_what_it_cannot_read(tmp_path, capsys):
    assert main(["check", str(tmp_path / "11_none.ipynb")]) == 1
    assert "There is no notebook" in capsys.readouterr().err
    (tmp_path / "mine.ipynb").write_text("{}")
    assert main(["check", str(tmp_path / "mine.ipynb")]) == 1
    assert "is not an exercise notebook" in capsys.readouterr().err
    (tmp_path / "11_mine.ipynb").write_text("not JSON")
    assert main(["check", str(tmp_path / "11*.ipynb")]) == 1
    assert "cannot be read" in capsys.readouterr().err
