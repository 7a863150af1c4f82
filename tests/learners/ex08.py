"""Solutions of lesson 08 as learners write them, independently of the package's own."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from itertools import groupby

import numpy
import torch
import torch.nn.functional as F

from kdcourse.translation.corpus import near_key, placeholders

from .register import mutant, mutants, right

# ------------------------------------------------------------------------------ right


def closest_by_index(candidates, reference, similarity):
    scores = [similarity(candidate, reference) for candidate in candidates]
    return candidates[scores.index(max(scores))] if scores else None


def closest_by_sorting(candidates, reference, similarity):
    ranked = sorted(candidates, key=lambda y: -similarity(y, reference))
    for first in ranked:
        return first
    return None


def n_best_by_dictionary(hypotheses, n):
    scores = {}
    for text, tokens in hypotheses:
        scores[text] = max(float(numpy.mean(tokens)), scores.get(text, -math.inf))
    return sorted(scores, key=lambda text: -scores[text])[:n]


def n_best_by_loop(hypotheses, n):
    chosen = []
    for text, _ in sorted(hypotheses, key=lambda h: -sum(h[1]) / len(h[1])):
        if text not in chosen and len(chosen) < n:
            chosen.append(text)
    return chosen


def label_loss_by_nll(log_q, labels, eos):
    targets = labels.clone()
    for row in targets:
        places = (row == eos).nonzero().flatten().tolist()
        if places:
            row[places[0] + 1 :] = -100
    return F.nll_loss(log_q.transpose(1, 2), targets, ignore_index=-100)


def label_loss_by_positions(log_q, labels, eos):
    N, L = labels.shape
    first = torch.where(labels == eos, torch.arange(L), L).amin(dim=1)
    real = torch.arange(L).expand(N, L) <= first[:, None]
    one_hot = F.one_hot(labels, log_q.shape[2])
    return -(log_q * one_hot * real[:, :, None]).sum() / real.sum()


def peaked_by_loop(log_q, eos):
    total = 0.0
    for sentence in log_q:
        p = 1.0
        for step in sentence:
            best = int(step.argmax())
            p *= math.exp(step[best])
            if best == eos:
                break
        total += p
    return total / len(log_q)


def peaked_by_products(log_q, eos):
    p, said = log_q.exp().max(-1)
    ended = torch.cat(
        [torch.zeros_like(said[:, :1]).bool(), (said == eos).cumsum(1)[:, :-1] > 0], 1
    )
    return torch.where(ended, 1.0, p).prod(1).mean()


def looping_by_slices(source, target):
    def loops(text):
        words = text.lower().split()
        for size in (1, 2, 3, 4):
            for i in range(len(words)):
                a, b, c = (words[i + k * size : i + (k + 1) * size] for k in range(3))
                if a == b == c and len(c) == size:
                    return True
        return False

    return loops(target) and not loops(source)


LOOP = re.compile(r"(?<!\S)(\S+(?: \S+){0,3}?)(?: \1){2}(?!\S)")


def looping_by_pattern(source, target):
    def loops(text):
        return LOOP.search(" ".join(text.casefold().split())) is not None

    return loops(target) and not loops(source)


def thrice(text):
    return any(len(list(run)) >= 3 for _, run in groupby(text.lower().split()))


FAULTS = ("leaked", "empty", "copied", "looping", "truncated", "placeholders")
FAULTS = (*FAULTS, "misaligned")


def tests_of(source, target, references, held_out):
    """Every test of a row, by its name."""
    own, low = references.get(source), target.lower()
    elsewhere = [r for s, r in references.items() if s != source]
    return {
        "leaked": any(near_key(source) == near_key(h) for h in held_out),
        "empty": target.isspace() or target == "",
        "copied": (
            own is not None and source.lower() == low and own.lower() != source.lower()
        ),
        "looping": thrice(target) and not thrice(source),
        "truncated": len(source) > 39 and len(target) / len(source) < 1 / 3,
        "placeholders": placeholders(source) != placeholders(target),
        "misaligned": (
            own is not None
            and target in elsewhere
            and set(low.split()).isdisjoint(own.lower().split())
        ),
    }


def repair_with(rows, references, held_out, test=tests_of, order=FAULTS, mend=None):
    """A repair whose tests, order and way of mending can be exchanged."""
    mend = mend or (
        lambda at, name, s, t: None if name == "leaked" else references.get(s)
    )
    kept, counts = [], Counter()
    for at, (source, target) in enumerate(rows):
        found = test(source, target, references, held_out)
        names = [name for name in order if found[name]]
        if names:
            counts[names[0]] += 1
            target = mend(at, names[0], source, target)
        if target is not None:
            kept.append([source, target])
    return kept, counts


def repair_by_table(rows, references, held_out):
    return repair_with(rows, references, held_out)


def repair_by_elif(rows, references, held_out):
    keys = set(map(near_key, held_out))
    mended, found = [], defaultdict(int)
    for z, y in rows:
        r, what = references.get(z), ""
        if near_key(z) in keys:
            found["leaked"] += 1
            continue
        if y.split() == []:
            what = "empty"
        elif r and y.lower() == z.lower() and r.lower() != z.lower():
            what = "copied"
        elif looping_by_slices(z, y):  # exercise 5 again
            what = "looping"
        elif len(z) >= 40 and len(y) * 3 < len(z):
            what = "truncated"
        elif sorted(placeholders(z).elements()) != sorted(placeholders(y).elements()):
            what = "placeholders"
        elif r and y in references.values():
            shared = [w for w in y.lower().split() if w in r.lower().split()]
            what = "" if shared else "misaligned"
        if not what:
            mended.append((z, y))
            continue
        found[what] += 1
        if r:
            mended.append((z, r))
    return mended, dict(found)


right("ex08.closest", closest_by_index, closest_by_sorting)
right("ex08.n_best", n_best_by_dictionary, n_best_by_loop)
right("ex08.label_loss", label_loss_by_nll, label_loss_by_positions)
right("ex08.peakedness", peaked_by_loop, peaked_by_products)
right("ex08.looping", looping_by_slices, looping_by_pattern)
right("ex08.repair", repair_by_table, repair_by_elif)

# ---------------------------------------------------------------------------- closest


@mutant("ex08.closest", "last of equals")
def _(candidates, reference, similarity):
    best, top = None, -math.inf
    for y in candidates:
        if similarity(y, reference) >= top:
            best, top = y, similarity(y, reference)
    return best


@mutant("ex08.closest", "no candidates")
def _(candidates, reference, similarity):
    scores = [similarity(y, reference) for y in candidates]
    return candidates[scores.index(max(scores))]


@mutant("ex08.closest", "no candidates")
def _(candidates, reference, similarity):
    best = candidates[0]
    for y in candidates:
        if similarity(y, reference) > similarity(best, reference):
            best = y
    return best


@mutant("ex08.closest", "score returned")
def _(candidates, reference, similarity):
    scores = [similarity(y, reference) for y in candidates]
    return max(scores) if scores else None


mutants(
    "ex08.closest",
    reference_returned=lambda ys, r, sim: max(ys, key=lambda y: sim(y, r), default=r),
    empty_text=lambda ys, r, sim: max(ys, key=lambda y: sim(y, r), default=""),
    exchanged=lambda ys, r, sim: max(ys, key=lambda y: sim(r, y), default=None),
    least_similar=lambda ys, r, sim: (
        sorted(ys, key=lambda y: sim(y, r))[0] if ys else None
    ),
    likeliest=lambda ys, r, sim: next(iter(ys), None),
    equality_alone=lambda ys, r, sim: r if r in ys else (ys or [None])[0],
)

# ----------------------------------------------------------------------------- n_best


def distinct(texts):
    return [t for at, t in enumerate(texts) if t not in texts[:at]]


def by(score):
    def solution(hypotheses, n):
        ranked = sorted(hypotheses, key=lambda h: -score(h[0], h[1]))
        return distinct([text for text, _ in ranked])[:n]

    return solution


mutants(
    "ex08.n_best",
    sum=by(lambda text, logs: math.fsum(logs)),
    words=by(lambda text, logs: sum(logs) / max(len(text.split()), 1)),
    characters=by(lambda text, logs: sum(logs) / max(len(text), 1)),
    EOS_not_counted=by(lambda text, logs: sum(logs) / max(len(logs) - 1, 1)),
    EOS_left_out=by(lambda text, logs: numpy.mean(logs[:-1]) if logs[1:] else 0.0),
    worst_first=by(lambda text, logs: -numpy.mean(logs)),
    repeated=lambda hypotheses, n: [
        t for t, _ in sorted(hypotheses, key=lambda h: -numpy.mean(h[1]))
    ][:n],
    probabilities_averaged=by(lambda text, logs: numpy.exp(logs).mean()),
    not_ranked=lambda hypotheses, n: distinct([t for t, _ in hypotheses])[:n],
)


@mutant("ex08.n_best", "cut too early")
def _(hypotheses, n):
    ranked = sorted(hypotheses, key=lambda h: -numpy.mean(h[1]))[:n]
    return distinct([text for text, _ in ranked])


@mutant("ex08.n_best", "last kept")
def _(hypotheses, n):
    logs = dict(hypotheses)
    return sorted(logs, key=lambda text: -numpy.mean(logs[text]))[:n]


@mutant("ex08.n_best", "first kept")
def _(hypotheses, n):
    logs = dict(reversed(hypotheses))
    order = distinct([text for text, _ in hypotheses])
    return sorted(order, key=lambda text: -numpy.mean(logs[text]))[:n]


@mutant("ex08.n_best", "added")
def _(hypotheses, n):
    scores = Counter()
    for text, logs in hypotheses:
        scores[text] += math.exp(sum(logs) / len(logs))
    return [text for text, _ in scores.most_common(n)]


@mutant("ex08.n_best", "ties")
def _(hypotheses, n):
    scored = [(float(numpy.mean(logs)), text) for text, logs in hypotheses]
    scored.sort()
    return distinct([text for _, text in scored[::-1]])[:n]


@mutant("ex08.n_best", "ties")
def _(hypotheses, n):
    scored = [(-sum(logs) / len(logs), text) for text, logs in hypotheses]
    return distinct([text for _, text in sorted(scored)])[:n]


# ------------------------------------------------------------------------- label_loss


def nats(log_q, labels):
    N, L = labels.shape
    return -log_q[torch.arange(N)[:, None], torch.arange(L)[None], labels]


def kept(labels, eos):
    rows = []
    for row in labels.tolist():
        stop = row.index(eos) if eos in row else len(row)
        rows.append([t <= stop for t in range(len(row))])
    return torch.tensor(rows)


mutants(
    "ex08.label_loss",
    EOS_erased=lambda q, y, eos: (
        F.nll_loss(q.flatten(0, 1), y.masked_fill(y == eos, -100).flatten())
        if (y != eos).any()
        else q.sum() * math.nan
    ),
    filler_counted=lambda q, y, eos: F.nll_loss(q.flatten(0, 1), y.flatten()),
    divided_by_all=lambda q, y, eos: (nats(q, y) * kept(y, eos)).mean(),
    EOS_not_counted=lambda q, y, eos: (
        nats(q, y)[kept(y, eos)].sum() / int((y != eos).sum())
    ),
    sign=lambda q, y, eos: -nats(q, y)[kept(y, eos)].mean(),
    mean_of_means=lambda q, y, eos: torch.stack(
        [row[real].mean() for row, real in zip(nats(q, y), kept(y, eos), strict=True)]
    ).mean(),
    by_sentences=lambda q, y, eos: nats(q, y)[kept(y, eos)].sum() / len(y),
    sum=lambda q, y, eos: nats(q, y)[kept(y, eos)].sum(),
    no_logarithm=lambda q, y, eos: -torch.exp(-nats(q, y)[kept(y, eos)]).mean(),
    no_gradient=lambda q, y, eos: nats(q, y)[kept(y, eos)].mean().detach(),
)


@mutant("ex08.label_loss", "cut-off rows")
def _(log_q, labels, eos):
    lengths = (labels == eos).int().argmax(dim=1) + 1
    total = sum(nats(log_q, labels)[n, :stop].sum() for n, stop in enumerate(lengths))
    return total / lengths.sum()


@mutant("ex08.label_loss", "cut-off rows dropped")
def _(log_q, labels, eos):
    total, count = 0.0, 0
    for terms, row in zip(nats(log_q, labels), labels.tolist(), strict=True):
        if eos in row:
            count += row.index(eos) + 1
            total = total + terms[: row.index(eos) + 1].sum()
    return total / count


@mutant("ex08.label_loss", "shifted")
def _(log_q, labels, eos):
    real = kept(labels, eos)[:, 1:]
    return nats(log_q[:, :-1], labels[:, 1:])[real].sum() / real.sum()


@mutant("ex08.label_loss", "no gradient")
def _(log_q, labels, eos):
    return nats(log_q, labels)[kept(labels, eos)].mean().item()


# ------------------------------------------------------------------------- peakedness


def greedy(log_q, eos):
    """For each sentence the probabilities of its steps, and whether it ends."""
    rows = []
    for sentence in log_q.exp().numpy():
        steps, ended = [], False
        for step in sentence:
            steps.append(float(step.max()))
            if step.argmax() == eos:
                ended = True
                break
        rows.append((steps, ended))
    return rows


mutants(
    "ex08.peakedness",
    per_token=lambda q, eos: numpy.mean([numpy.mean(p) for p, _ in greedy(q, eos)]),
    filler_counted=lambda q, eos: q.exp().amax(-1).prod(-1).mean().item(),
    EOS_left_out=lambda q, eos: numpy.mean(
        [numpy.prod(p[:-1] if ended else p) for p, ended in greedy(q, eos)]
    ),
    mean_of_the_logarithms=lambda q, eos: math.prod(
        math.prod(p) ** (1 / len(q)) for p, _ in greedy(q, eos)
    ),
    logarithm=lambda q, eos: numpy.mean(
        [numpy.log(p).sum() for p, _ in greedy(q, eos)]
    ),
    pooled=lambda q, eos: math.prod(math.prod(p) for p, _ in greedy(q, eos)),
    sum=lambda q, eos: sum(math.prod(p) for p, _ in greedy(q, eos)),
    first_token=lambda q, eos: q[:, 0].max(dim=1).values.exp().mean(),
)
mutant("ex08.peakedness", "length-normalised")(
    lambda q, eos: numpy.mean([math.prod(p) ** (1 / len(p)) for p, _ in greedy(q, eos)])
)


@mutant("ex08.peakedness", "per token")
def _(log_q, eos):
    return numpy.mean([p for steps, _ in greedy(log_q, eos) for p in steps])


@mutant("ex08.peakedness", "EOS skipped")
def _(log_q, eos):
    best = log_q.max(dim=-1)
    return best.values.masked_fill(best.indices == eos, 0).sum(1).exp().mean()


@mutant("ex08.peakedness", "cut-off rows")
def _(log_q, eos):
    best = log_q.max(dim=-1)
    lengths = (best.indices == eos).int().argmax(1) + 1
    return numpy.mean(
        [float(v[:n].sum().exp()) for v, n in zip(best.values, lengths, strict=True)]
    )


@mutant("ex08.peakedness", "cut-off rows dropped")
def _(log_q, eos):
    rows = [math.prod(p) for p, ended in greedy(log_q, eos) if ended]
    return sum(rows) / max(1, len(rows))


# ---------------------------------------------------------------------------- looping


def searched(pattern, fold=True):
    def solution(source, target):
        texts = [t.casefold() if fold else t for t in (source, target)]
        there, here = (re.search(pattern, " ".join(t.split())) for t in texts)
        return bool(here) and not there

    return solution


def at_any_place(source, target):
    def often(text):
        words = text.lower().split()
        return max(map(words.count, words), default=0) > 2

    return often(target) and not often(source)


mutants(
    "ex08.looping",
    twice=searched(r"(?<!\S)(\S+(?: \S+){0,3}?) \1(?!\S)"),
    not_in_a_row=at_any_place,
    one_word_alone=lambda source, target: thrice(target) and not thrice(source),
    source_ignored=lambda source, target: looping_by_pattern("", target),
    parts_of_words=searched(r"(?<!\S)(\S+(?: \S+){0,3}?)(?: \1){2}"),
    letters=searched(r"(.{1,4}?)\1\1"),
    case=searched(LOOP, fold=False),
    any_length=searched(r"(?<!\S)(\S+(?: \S+)*?)(?: \1){2}(?!\S)"),
)


@mutant("ex08.looping", "word in the source")
def _(source, target):
    found = LOOP.search(" ".join(target.casefold().split()))
    return bool(found) and found[1] not in source.casefold().split()


@mutant("ex08.looping", "exactly three")
def _(source, target):
    def loops(text):
        words = text.lower().split()
        runs = [len(list(run)) for _, run in groupby(words)]
        longer = any(
            words[i : i + k] * 3 == words[i : i + 3 * k]
            for k in (2, 3, 4)
            for i in range(len(words))
            if len(set(words[i : i + k])) > 1
        )
        return 3 in runs or longer

    return loops(target) and not loops(source)


@mutant("ex08.looping", "whole text")
def _(source, target):
    whole = re.compile(r"(\S+(?: \S+){0,3}?)(?: \1){2,}")

    def loops(text):
        return bool(whole.fullmatch(" ".join(text.casefold().split())))

    return loops(target) and not loops(source)


@mutant("ex08.looping", "spaces alone")
def _(source, target):
    return bool(LOOP.search(target.lower())) and not LOOP.search(source.lower())


# ----------------------------------------------------------------------------- repair


def otherwise(**changed):
    """A repair one of whose tests is another one of four arguments."""

    def tests(source, target, references, held_out):
        found = tests_of(source, target, references, held_out)
        given = (source, target, references, held_out)
        return found | {name: test(*given) for name, test in changed.items()}

    return lambda *given: repair_with(*given, test=tests)


def mended(mend):
    """A repair that does mend(references, at, name, source, target) with faults."""
    return lambda rows, references, held_out: repair_with(
        rows, references, held_out, mend=lambda *row: mend(references, *row)
    )


def leaked_goes(target_of):
    def mend(references, at, name, source, target):
        return None if name == "leaked" else target_of(references, at, source, target)

    return mended(mend)


mutants(
    "ex08.repair",
    names_dropped=otherwise(copied=lambda z, y, refs, held: z.lower() == y.lower()),
    copies_in_one_case_alone=otherwise(
        copied=lambda z, y, refs, held: z in refs and z == y and y != refs[z]
    ),
    repetition_dropped=otherwise(looping=lambda z, y, refs, held: thrice(y)),
    exact_leaks_alone=otherwise(leaked=lambda z, y, refs, held: z in set(held)),
    leaks_by_substring=otherwise(
        leaked=lambda z, y, refs, held: any(near_key(z) in near_key(h) for h in held)
    ),
    leaks_repaired=mended(lambda refs, at, name, z, y: refs.get(z)),
    by_position=leaked_goes(
        lambda refs, at, z, y: [*refs.values(), *[None] * 99][at] if z in refs else None
    ),
    dropped=mended(lambda refs, at, name, z, y: None),
    only_counted=leaked_goes(lambda refs, at, z, y: y),
    sets_of_placeholders=otherwise(
        placeholders=lambda z, y, refs, held: (
            placeholders(z).keys() != placeholders(y).keys()
        )
    ),
    lost_placeholders_alone=otherwise(
        placeholders=lambda z, y, refs, held: not placeholders(z) <= placeholders(y)
    ),
    blanks=otherwise(empty=lambda z, y, refs, held: not y),
    short_sources=otherwise(truncated=lambda z, y, refs, held: len(y) < len(z) / 3),
    misaligned_missed=otherwise(misaligned=lambda z, y, refs, held: False),
    shared_words_ignored=otherwise(
        misaligned=lambda z, y, refs, held: (
            refs.get(z) not in (None, y) and y in refs.values()
        )
    ),
    nothing_in_common=otherwise(
        misaligned=lambda z, y, refs, held: (
            z in refs and not set(y.lower().split()) & set(refs[z].lower().split())
        )
    ),
)


@mutant("ex08.repair", "leaks last")
def _(rows, references, held_out):
    order = [*FAULTS[1:], "leaked"]
    return repair_with(rows, references, held_out, order=order)


@mutant("ex08.repair", "other order")
def _(rows, references, held_out):
    return repair_with(
        rows,
        references,
        held_out,
        order=(
            "leaked",
            "empty",
            "placeholders",
            "copied",
            "looping",
            "truncated",
            "misaligned",
        ),
    )


@mutant("ex08.repair", "other order")
def _(rows, references, held_out):
    """Each test overwrites the one before it."""

    def last(source, target, references, held_out):
        found = tests_of(source, target, references, held_out)
        names = [name for name in FAULTS if found[name]]
        name = "leaked" if found["leaked"] else names[-1] if names else None
        return {n: n == name for n in FAULTS}

    return repair_with(rows, references, held_out, test=last)


@mutant("ex08.repair", "counted twice")
def _(rows, references, held_out):
    counts = Counter()
    for row in rows:
        found = tests_of(*row, references, held_out)
        counts.update(name for name in found if found[name])
    return repair_with(rows, references, held_out)[0], dict(counts)


@mutant("ex08.repair", "by position")
def _(rows, references, held_out):
    humans = list(references.values())
    return leaked_goes(lambda refs, at, z, y: humans[at])(rows, references, held_out)


@mutant("ex08.repair", "no reference, kept")
def _(rows, references, held_out):
    out, counts = [], Counter()
    for z, y in rows:
        found = [n for n, yes in tests_of(z, y, references, held_out).items() if yes]
        counts.update(found[:1])
        if found and z in references:
            y = references[z]
        if found[:1] != ["leaked"]:
            out.append((z, y))
    return out, counts


@mutant("ex08.repair", "no reference, an error")
def _(rows, references, held_out):
    out, counts = [], {}
    for z, y in rows:
        found = [n for n, yes in tests_of(z, y, references, held_out).items() if yes]
        if not found:
            out.append((z, y))
            continue
        counts[found[0]] = counts.get(found[0], 0) + 1
        if found[0] != "leaked":
            out.append((z, references[z]))
    return out, counts


@mutant("ex08.repair", "order lost")
def _(rows, references, held_out):
    good, bad, counts = [], [], Counter()
    for z, y in rows:
        found = [n for n, yes in tests_of(z, y, references, held_out).items() if yes]
        counts.update(found[:1])
        if not found:
            good.append((z, y))
        elif found[0] != "leaked" and z in references:
            bad.append((z, references[z]))
    return good + bad, counts


@mutant("ex08.repair", "one row a source")
def _(rows, references, held_out):
    out, counts = repair_with(rows, references, held_out)
    return [(z, y) for z, y in {z: y for z, y in out}.items()], counts


@mutant("ex08.repair", "zeros")
def _(rows, references, held_out):
    out, counts = repair_with(rows, references, held_out)
    return out, {name: counts[name] for name in FAULTS}
