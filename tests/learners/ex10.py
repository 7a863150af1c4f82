"""Solutions of lesson 10 as learners write them, independently of the package's own."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import groupby
from statistics import mean

import torch
import torch.nn.functional as F

from .register import mutant, mutants, right

# ------------------------------------------------------------------------------ right


def read_by_steps(place, glossary, z):
    text = place
    for word in sorted(glossary.keys()):
        if re.search(rf"(?<![^\W\d_]){word}(?![^\W\d_])", z, re.IGNORECASE):
            entry = word + " = " + glossary[word]
            text = text + " ; " + entry if text else entry
    if text == "":
        return z
    return text + " | " + z


def read_by_letters(place, glossary, z):
    words = "".join(c.lower() if c.isalpha() else " " for c in z).split()
    terms = [f"{w} = {t}" for w, t in sorted(glossary.items()) if w in words]
    c = " ; ".join(filter(None, [place, *terms]))
    return " | ".join(filter(None, [c, z]))


right("ex10.read", read_by_steps, read_by_letters)


def ambiguous_by_sorting(rows):
    pairs = sorted({(z, y) for _, z, y in rows})
    found = {z: [y for _, y in group] for z, group in groupby(pairs, lambda p: p[0])}
    return {z: ys for z, ys in found.items() if len(ys) >= 2}


def ambiguous_by_search(rows):
    result = {}
    for _, z, _ in rows:
        ys = sorted({other[2] for other in rows if other[1] == z})
        if len(ys) != 1:
            result[z] = ys
    return result


right("ex10.ambiguous", ambiguous_by_sorting, ambiguous_by_search)


def ceiling_by_counter(rows):
    counts = Counter((z, y) for _, z, y in rows)
    best = {}
    for (z, _), n in counts.items():
        best[z] = max(n, best.get(z, 0))
    return sum(best.values()) / len(rows)


def ceiling_by_answers(rows):
    sources = {z for _, z, _ in rows}
    answers = {}
    for source in sources:
        ys = [y for _, z, y in rows if z == source]
        answers[source] = max(sorted(set(ys)), key=ys.count)
    return mean(float(answers[z] == y) for _, z, y in rows)


right("ex10.ceiling", ceiling_by_counter, ceiling_by_answers)


def lessons_by_zip(rows, teacher, reads_context):
    texts = [" | ".join(part for part in row if part) for row in rows]
    targets = [teacher(text) for text in texts]
    sources = texts if reads_context else [z for _, z in rows]
    return list(zip(sources, targets, strict=True))


def lessons_by_cache(rows, teacher, reads_context):
    answers = {(c, z): teacher(c + " | " + z if c else z) for c, z in set(rows)}
    pairs = []
    for c, z in rows:
        source = z
        if reads_context and c != "":
            source = c + " | " + z
        pairs.append((source, answers[c, z]))
    return pairs


right("ex10.lessons", lessons_by_zip, lessons_by_cache)


def loss_by_kl_div(student_logits, teacher_logits, student_mask, teacher_mask):
    with torch.no_grad():
        target = F.log_softmax(teacher_logits, -1)[teacher_mask]
    log_q = F.log_softmax(student_logits, -1)[student_mask]
    return F.kl_div(log_q, target, reduction="sum", log_target=True) / len(target)


def loss_by_loop(student_logits, teacher_logits, student_mask, teacher_mask):
    total, count = 0.0, 0
    for b in range(len(student_logits)):
        ours = student_mask[b].nonzero().flatten().tolist()
        theirs = teacher_mask[b].nonzero().flatten().tolist()
        for i, j in zip(ours, theirs, strict=True):
            p = teacher_logits[b, j].detach().softmax(0)
            q = student_logits[b, i].softmax(0)
            total = total + (p * (p.log() - q.log())).sum()
            count += 1
    return total / count


right("ex10.context_loss", loss_by_kl_div, loss_by_loop)


def survives_by_sums(taught, control, twin):
    gained = sum(taught) - sum(twin)
    worth = sum(control) - sum(twin)
    if worth <= 0:
        return None
    return gained / worth


def survives_by_tensor(taught, control, twin):
    a, b, c = torch.tensor([taught, control, twin], dtype=torch.float64).mean(1)
    return ((a - c) / (b - c)).item() if b - c > 0 else None


right("ex10.survives", survives_by_sums, survives_by_tensor)

# ------------------------------------------------------------------------------- read


def reads(find, arrange=sorted, finish=None):
    def solution(place, glossary, z):
        chosen = arrange([w for w in glossary if find(w, z)])
        c = [place] * bool(place) + [w + " = " + glossary[w] for w in chosen]
        if finish:
            return finish(c, z)
        return z if not c else " ; ".join(c) + " | " + z

    return solution


def is_word(word, z):
    return word in re.split(r"[\W\d_]+", z.lower())


mutant("ex10.read", "whole glossary")(reads(lambda word, z: True))
mutant("ex10.read", "part of a word")(reads(lambda word, z: word in z.lower()))
mutant("ex10.read", "capitals")(reads(lambda word, z: word in re.split(r"[\W\d_]+", z)))
mutant("ex10.read", "punctuation")(reads(lambda word, z: word in z.lower().split()))
mutant("ex10.read", "digits in words")(
    reads(lambda word, z: word in re.split(r"\W+", z.lower()))
)
mutant("ex10.read", "order")(reads(is_word, arrange=list))


@mutant("ex10.read", "order")
def reads_along_z(place, glossary, z):
    found = dict.fromkeys(w for w in re.findall("[a-z]+", z.lower()) if w in glossary)
    c = " ; ".join(([place] if place else []) + [f"{w} = {glossary[w]}" for w in found])
    return f"{c} | {z}" if c else z


@mutant("ex10.read", "empty context")
def reads_with_bar(place, glossary, z):
    c = place
    for word in sorted(glossary):
        if is_word(word, z):
            c += f" ; {word} = {glossary[word]}" if c else f"{word} = {glossary[word]}"
    return f"{c} | {z}"


mutant("ex10.read", "after z")(
    reads(is_word, finish=lambda c, z: z + " | " + " ; ".join(c) if c else z)
)
mutant("ex10.read", "z in lower case")(
    reads(
        is_word,
        finish=lambda c, z: f"{' ; '.join(c)} | {z.lower()}" if c else z.lower(),
    )
)
mutant("ex10.read", "one separator")(
    reads(is_word, finish=lambda c, z: " | ".join(c + [z]))
)

# -------------------------------------------------------------------------- ambiguous


def grouped(rows, key=1, value=2):
    found = {}
    for row in rows:
        found.setdefault(row[key], []).append(row[value])
    return found


mutants(
    "ex10.ambiguous",
    repeats_counted=lambda rows: {
        z: sorted({*ys}) for z, ys in grouped(rows).items() if len(ys) >= 2
    },
    repeats_listed=lambda rows: {
        z: sorted(ys) for z, ys in grouped(rows).items() if len({*ys}) >= 2
    },
    places_counted=lambda rows: {
        z: sorted({*grouped(rows)[z]})
        for z, cs in grouped(rows, value=0).items()
        if len({*cs}) >= 2
    },
    all_sources=lambda rows: {z: sorted({*ys}) for z, ys in grouped(rows).items()},
    more_than_two=lambda rows: {
        z: sorted({*ys}) for z, ys in grouped(rows).items() if len({*ys}) >= 3
    },
    turned_round=lambda rows: {
        y: sorted({*zs}) for y, zs in grouped(rows, 2, 1).items() if len({*zs}) >= 2
    },
)


@mutant("ex10.ambiguous", "order")
def ambiguous_unsorted(rows):
    found = {}
    for _, z, y in rows:
        known = found.setdefault(z, [])
        if y not in known:
            known.append(y)
    return {z: ys for z, ys in found.items() if len(ys) > 1}


@mutant("ex10.ambiguous", "case folded")
def ambiguous_in_lower_case(rows):
    found = grouped([(c, z.lower(), y) for c, z, y in rows])
    return {z: sorted({*ys}) for z, ys in found.items() if len({*ys}) > 1}


# ---------------------------------------------------------------------------- ceiling


def best_counts(rows):
    return {z: (max(map(ys.count, ys)), len(ys)) for z, ys in grouped(rows).items()}


mutants(
    "ex10.ceiling",
    mean_over_sources=lambda rows: mean(n / m for n, m in best_counts(rows).values()),
    guessing_evenly=lambda rows: mean(1 / len({*grouped(rows)[z]}) for _, z, _ in rows),
    sampling=lambda rows: mean(
        grouped(rows)[z].count(y) / len(grouped(rows)[z]) for _, z, y in rows
    ),
    one_answer_for_all=lambda rows: (
        Counter(y for _, _, y in rows).most_common(1)[0][1] / len(rows)
    ),
    pairs_counted=lambda rows: (
        len({z for _, z, _ in rows}) / len({(z, y) for _, z, y in rows})
    ),
    count_returned=lambda rows: sum(n for n, _ in best_counts(rows).values()),
)


@mutant("ex10.ceiling", "ambiguous alone")
def ceiling_of_ambiguous(rows):
    found = [ys for ys in grouped(rows).values() if len({*ys}) > 1]
    if not found:
        return 1.0
    return sum(max(map(ys.count, ys)) for ys in found) / sum(map(len, found))


# ---------------------------------------------------------------------------- lessons


def full(c, z):
    return z if c == "" else c + " | " + z


@mutant("ex10.lessons", "last answer")
def lessons_in_a_dictionary(rows, teacher, reads_context):
    answers = {z: teacher(full(c, z)) for c, z in rows}
    return [(full(c, z) if reads_context else z, answers[z]) for c, z in rows]


@mutant("ex10.lessons", "first answer")
def lessons_by_setdefault(rows, teacher, reads_context):
    answers = {}
    for c, z in rows:
        answers.setdefault(z, teacher(full(c, z)))
    return [(full(c, z) if reads_context else z, answers[z]) for c, z in rows]


def lessons_with(ours, theirs, finish=list):
    def solution(rows, teacher, reads_context):
        return finish(
            (ours(c, z, reads_context), teacher(theirs(c, z, reads_context)))
            for c, z in rows
        )

    return solution


def chosen(c, z, reads):
    return full(c, z) if reads else z


def always(c, z, reads):
    return full(c, z)


def never(c, z, reads):
    return z


def sorted_once(pairs):
    return sorted(pairs, key=lambda pair: (pair[0], pair[1]))


def distinct(pairs):
    kept = []
    for pair in pairs:
        if pair not in kept:
            kept.append(pair)
    return kept


mutants(
    "ex10.lessons",
    teacher_without_context=lessons_with(chosen, never),
    teacher_reads_what_the_student_reads=lessons_with(chosen, chosen),
    always_with_context=lessons_with(always, always),
    never_with_context=lessons_with(never, always),
    turned_round=lessons_with(lambda c, z, r: chosen(c, z, not r), always),
    repeats_dropped=lessons_with(chosen, always, distinct),
    sorted=lessons_with(chosen, always, sorted_once),
    lone_separator=lessons_with(
        lambda c, z, r: f"{c} | {z}" if r else z, lambda c, z, r: f"{c} | {z}"
    ),
)

# ----------------------------------------------------------------------- context_loss


def token_kls(student, teacher, student_mask, teacher_mask, detach=True):
    p = teacher.softmax(-1)[teacher_mask]
    p = p.detach() if detach else p
    q = student.softmax(-1)[student_mask]
    return (p * (p / q).log()).sum(-1)


@mutant("ex10.context_loss", "same positions")
def loss_with_one_mask(student, teacher, student_mask, teacher_mask):
    teacher = teacher[:, : student.shape[1]]
    return token_kls(student, teacher, student_mask, student_mask).mean()


@mutant("ex10.context_loss", "counted from the end")
def loss_aligned_at_the_end(student, teacher, student_mask, teacher_mask):
    teacher = teacher[:, teacher.shape[1] - student.shape[1] :]
    return token_kls(student, teacher, student_mask, student_mask).mean()


@mutant("ex10.context_loss", "turned round")
def loss_reversed(student, teacher, student_mask, teacher_mask):
    q = student.softmax(-1)[student_mask]
    p = teacher.softmax(-1)[teacher_mask].detach()
    return F.kl_div(p.log(), q, reduction="batchmean")


mutants(
    "ex10.context_loss",
    divided_by_rows=lambda *a: token_kls(*a).sum() / a[0].shape[0],
    divided_by_positions=lambda *a: token_kls(*a).sum() / math.prod(a[0].shape[:2]),
    summed=lambda *a: token_kls(*a).sum(),
    the_teacher_learns=lambda *a: token_kls(*a, detach=False).mean(),
)


@mutant("ex10.context_loss", "divided by the vocabulary, too")
def loss_with_default_mean(student, teacher, student_mask, teacher_mask):
    log_q = student[student_mask].log_softmax(-1)
    p = teacher[teacher_mask].softmax(-1).detach()
    return (p * (p.log() - log_q)).mean()


@mutant("ex10.context_loss", "mean of the rows' means")
def loss_of_rows(student, teacher, student_mask, teacher_mask):
    total = 0.0
    for row in zip(student, teacher, student_mask, teacher_mask, strict=True):
        total = total + token_kls(*row).mean()
    return total / len(student)


@mutant("ex10.context_loss", "cross-entropy")
def loss_by_cross_entropy(student, teacher, student_mask, teacher_mask):
    target = teacher[teacher_mask].softmax(-1).detach()
    return F.cross_entropy(student[student_mask], target)


# --------------------------------------------------------------------------- survives


def worth(taught, control, twin):
    return mean(control) - mean(twin)


def gained(taught, control, twin):
    return mean(taught) - mean(twin)


def guarded(function):
    return lambda *a: None if worth(*a) <= 0 else function(*a)


mutants(
    "ex10.survives",
    twin_ignored=guarded(lambda taught, control, twin: mean(taught) / mean(control)),
    what_is_lost=guarded(lambda *a: 1 - gained(*a) / worth(*a)),
    turned_round=guarded(lambda *a: worth(*a) / gained(*a)),
    clipped=guarded(lambda *a: max(0, min(1, gained(*a) / worth(*a)))),
    no_worth=lambda *a: gained(*a) / worth(*a),
    difference_alone=guarded(gained),
)


@mutant("ex10.survives", "mean of ratios")
def survives_each_seed(taught, control, twin):
    if sum(control) <= sum(twin):
        return None
    shares = [(a - c) / (b - c) for a, b, c in zip(taught, control, twin, strict=True)]
    return mean(shares)


@mutant("ex10.survives", "no worth")
def survives_or_zero(taught, control, twin):
    return (
        gained(taught, control, twin) / worth(taught, control, twin)
        if (worth(taught, control, twin) > 0)
        else 0
    )


@mutant("ex10.survives", "harm")
def survives_unless_equal(taught, control, twin):
    try:
        return gained(taught, control, twin) / worth(taught, control, twin)
    except ZeroDivisionError:
        return None


@mutant("ex10.survives", "zero taken for None")
def survives_or_none(taught, control, twin):
    if worth(taught, control, twin) <= 0:
        return None
    return gained(taught, control, twin) / worth(taught, control, twin) or None
