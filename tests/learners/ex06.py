"""Solutions of lesson 06 as learners write them, independently of the package's own."""

from __future__ import annotations

import heapq
import itertools
import math
import re
from collections import Counter, defaultdict

import numpy
from sacrebleu.metrics import CHRF

from kdcourse.translation.corpus import near_key

from .register import mutant, mutants, right

# ------------------------------------------------------------------------------ right


def key_with_a_pattern(text):
    words = re.findall(r"[^\W\d_]+", text.lower())
    return " ".join(words) if words else text


def key_letter_by_letter(text):
    key = ""
    for character in text.lower():
        if character.isalpha():
            key += character
        elif key and key[-1] != " ":
            key += " "
    return key.rstrip() if any(map(str.isalpha, text)) else text


def slots(text):
    parts = [part.split("}")[0] for part in text.split("{")[1:]]
    return [part for part in parts if " " not in part]


def slots_crossed_off(source, target):
    left = slots(target)
    for slot in slots(source):
        if slot not in left:
            return False
        left.remove(slot)
    return not left


def slots_counted(source, target):
    every = set(slots(source)) | set(slots(target))
    return all(slots(source).count(s) == slots(target).count(s) for s in every)


def leaks_by_dictionary(train, test):
    places = defaultdict(list)
    for source, _, _ in train:
        places[near_key(source)].append(source)
    return [n for n in range(len(test)) if places.get(near_key(test[n][0]))]


def leaks_by_two_loops(train, test):
    found = []
    for n in range(len(test)):
        for row in train:
            if near_key(row[0]) == near_key(test[n][0]):
                found.append(n)
                break
    return found


def differing(sources, targets, shift=0):
    """How many rows differ with targets[n + shift] beside sources[n]."""
    size = len(targets)
    return sum(
        not slots_crossed_off(source, targets[(n + shift) % size])
        for n, source in enumerate(sources)
    )


def shards_by_modulo(shards):
    return [
        n
        for n, (s, t) in enumerate(shards)
        if differing(s, t) > min(differing(s, t, 1), differing(s, t, -1))
    ]


def shards_by_rolling(shards):
    found = []
    for n, (sources, targets) in enumerate(shards):
        wanted = [sorted(slots(s)) for s in sources]
        counts = []
        for shift in (0, 1, -1):
            rolled = list(numpy.roll(numpy.array(targets, dtype=object), shift))
            counts.append(
                sum(a != sorted(slots(b)) for a, b in zip(wanted, rolled, strict=True))
            )
        if numpy.argmin(counts) > 0:
            found.append(n)
    return found


def cuts_by_borders(word, scores, alpha):
    """Each set of borders between letters is a cut, if its pieces are known."""
    weights = {}
    for inside in itertools.product((False, True), repeat=len(word) - 1):
        ends = [n + 1 for n, border in enumerate(inside) if border] + [len(word)]
        cut = tuple(word[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True))
        if all(piece in scores for piece in cut):
            weights[cut] = math.prod(math.exp(scores[piece]) for piece in cut) ** alpha
    return {cut: w / sum(weights.values()) for cut, w in weights.items()}


def cuts_from_the_left(word, scores, alpha):
    """Cuts of the first n letters, for each n, and a softmax at the end."""
    table = [[()]]
    for end in range(1, len(word) + 1):
        here = []
        for start in range(end):
            if word[start:end] in scores:
                here += [(*cut, word[start:end]) for cut in table[start]]
        table.append(here)
    totals = numpy.array([alpha * sum(scores[p] for p in cut) for cut in table[-1]])
    shares = numpy.exp(totals - totals.max())
    return dict(zip(table[-1], (shares / shares.sum()).tolist(), strict=True))


def grams(tokens, n):
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def matches(h, r, n):
    ours, theirs = grams(h, n), grams(r, n)
    return sum(min(count, theirs[gram]) for gram, count in ours.items())


def counts_of(hypotheses, references, n):
    pairs = list(zip(hypotheses, references, strict=True))
    matched = sum(matches(h, r, n) for h, r in pairs)
    return matched, sum(sum(grams(h, n).values()) for h, _ in pairs)


def lengths(hypotheses, references):
    return sum(len(h) for h in hypotheses), sum(len(r) for r in references)


def penalty(h, r):
    return 1 if h > r else math.exp(1 - r / h)


def bleu_by_logarithms(hypotheses, references, max_n):
    logs = 0.0
    for n in range(1, max_n + 1):
        matched, total = counts_of(hypotheses, references, n)
        if not matched:
            return 0.0
        logs += math.log(matched / total) / max_n
    h, r = lengths(hypotheses, references)
    return 100 * math.exp(logs + min(0, 1 - r / h))


def bleu_with_numpy(hypotheses, references, max_n):
    table = numpy.array(
        [counts_of(hypotheses, references, n + 1) for n in range(max_n)], dtype=float
    )
    if (table == 0).any():
        return 0.0
    root = (table[:, 0] / table[:, 1]).prod() ** (1 / max_n)
    return float(100 * root * penalty(*lengths(hypotheses, references)))


def chrf_of_sacrebleu(hypothesis, reference):
    return CHRF().sentence_score(hypothesis, [reference]).score


def chrf_with_arrays(hypothesis, reference):
    h, r = hypothesis.replace(" ", ""), reference.replace(" ", "")
    orders = [n for n in range(1, 7) if n <= min(len(h), len(r))]
    if not orders:
        return 0.0
    hits = numpy.array([matches(h, r, n) for n in orders])
    p = (hits / numpy.array([len(h) - n + 1 for n in orders])).mean()
    q = (hits / numpy.array([len(r) - n + 1 for n in orders])).mean()
    return 0.0 if p + q == 0 else float(500 / (4 / q + 1 / p))


def all_extensions(live, tables):
    return [
        (total + p, tokens + (token,))
        for i, (total, tokens) in enumerate(live)
        for token, p in tables[i].items()
    ]


def step_with_a_heap(live, next_log_probs, width):
    best = heapq.nlargest(2 * width, all_extensions(live, next_log_probs))
    finished = [(s, y) for s, y in best[:width] if y[-1] == "</s>"]
    return [(s, y) for s, y in best if y[-1] != "</s>"][0:width], finished


def step_down_the_list(live, next_log_probs, width):
    ranked = sorted(all_extensions(live, next_log_probs), key=lambda pair: pair[0])[
        ::-1
    ]
    on, done = [], []
    for place, (score, tokens) in enumerate(ranked):
        if tokens[-1] == "</s>":
            if place < width:
                done.append((score, tokens))
        elif len(on) < width:
            on.append((score, tokens))
    return on, done


right("ex06.near_duplicate_key", key_with_a_pattern, key_letter_by_letter)
right("ex06.same_placeholders", slots_crossed_off, slots_counted)
right("ex06.find_leaks", leaks_by_dictionary, leaks_by_two_loops)
right("ex06.misaligned_shards", shards_by_modulo, shards_by_rolling)
right("ex06.cut_probabilities", cuts_by_borders, cuts_from_the_left)
right("ex06.corpus_bleu", bleu_by_logarithms, bleu_with_numpy)
right("ex06.chrf", chrf_of_sacrebleu, chrf_with_arrays)
right("ex06.beam_step", step_with_a_heap, step_down_the_list)

# ----------------------------------------------------------------- near_duplicate_key


def spaced(text, keep):
    key = "".join(c if keep(c) else " " for c in text)
    return " ".join(key.split()) or text


mutants(
    "ex06.near_duplicate_key",
    case=lambda text: spaced(text, str.isalpha),
    capitals=lambda text: spaced(text.upper(), str.isalpha),
    digits_kept=lambda text: spaced(text.lower(), str.isalnum),
    punctuation_kept=lambda text: re.sub(r"\s+", " ", text.lower()).strip(),
    accents_lost=lambda text: spaced(text.lower(), lambda c: "a" <= c <= "z"),
    underscore=lambda text: spaced(text.lower(), lambda c: c.isalpha() or c == "_"),
    empty_key=lambda text: " ".join(re.findall(r"[^\W\d_]+", text.lower())),
    glued=lambda text: "".join(filter(str.isalpha, text.lower())) or text,
)


@mutant("ex06.near_duplicate_key", "edges")
def _(text):
    key = ""
    for c in text.lower():
        if c.isalpha():
            key += c
        elif not key.endswith(" "):
            key += " "
    return key if key != " " else text


@mutant("ex06.near_duplicate_key", "doubled spaces")
def _(text):
    key = "".join(c if c.isalpha() else " " for c in text.lower()).strip()
    return key if key else text


# ------------------------------------------------------------------ same_placeholders

mutants(
    "ex06.same_placeholders",
    how_often=lambda source, target: set(slots(source)) == set(slots(target)),
    number_only=lambda source, target: source.count("{") == target.count("{"),
    order=lambda source, target: slots(source) == slots(target),
    extra_ones_unseen=lambda source, target: (
        not [s for s in slots(source) if "{" + s + "}" not in target]
    ),
    lost_ones_unseen=lambda source, target: (
        not [s for s in slots(target) if "{" + s + "}" not in source]
    ),
    answer_reversed=lambda source, target: not slots_crossed_off(source, target),
)


@mutant("ex06.same_placeholders", "letters only")
def _(source, target):
    names = re.compile("{[A-Za-z0-9_]+}")
    return Counter(names.findall(source)) == Counter(names.findall(target))


@mutant("ex06.same_placeholders", "spaces inside")
def _(source, target):
    inside = re.compile("{([^{}]+)}")
    return Counter(inside.findall(source)) == Counter(inside.findall(target))


@mutant("ex06.same_placeholders", "extra ones unseen")
def _(source, target):
    return all(slots(target).count(s) >= slots(source).count(s) for s in slots(source))


@mutant("ex06.same_placeholders", "greedy pattern")
def _(source, target):
    return Counter(re.findall("{.+}", source)) == Counter(re.findall("{.+}", target))


# ------------------------------------------------------------------------- find_leaks


def numbers(test, leaks):
    return [n for n, row in enumerate(test) if leaks(row)]


@mutant("ex06.find_leaks", "exact only")
def _(train, test):
    sources = [source for source, *_ in train]
    return numbers(test, lambda row: row[0] in sources)


@mutant("ex06.find_leaks", "case only")
def _(train, test):
    sources = {row[0].lower().strip() for row in train}
    return numbers(test, lambda row: row[0].lower().strip() in sources)


def leaks_by_runs(of):
    """Sources are alike that have the same runs of one kind of character."""

    def find_leaks(train, test):
        sources = [re.findall(of, row[0].lower()) for row in train]
        return numbers(test, lambda row: re.findall(of, row[0].lower()) in sources)

    return find_leaks


mutants(
    "ex06.find_leaks",
    digits_hide=leaks_by_runs(r"\w+"),
    no_letters=leaks_by_runs(r"[^\W\d_]+"),
)


@mutant("ex06.find_leaks", "targets")
def _(train, test):
    targets = {near_key(target) for _, target, _ in train}
    return numbers(test, lambda row: near_key(row[1]) in targets)


@mutant("ex06.find_leaks", "whole pairs")
def _(train, test):
    pairs = [(near_key(a), near_key(b)) for a, b, _ in train]
    return numbers(test, lambda row: (near_key(row[0]), near_key(row[1])) in pairs)


@mutant("ex06.find_leaks", "components")
def _(train, test):
    return numbers(test, lambda row: row[-1] in {other[-1] for other in train})


@mutant("ex06.find_leaks", "by position")
def _(train, test):
    return [
        n
        for n in range(min(len(train), len(test)))
        if near_key(train[n][0]) == near_key(test[n][0])
    ]


@mutant("ex06.find_leaks", "contained")
def _(train, test):
    found = set()
    for (n, row), other in itertools.product(enumerate(test), train):
        if near_key(row[0]).find(near_key(other[0])) >= 0:
            found.add(n)
    return sorted(found)


@mutant("ex06.find_leaks", "words in any order")
def _(train, test):
    bags = [set(near_key(row[0]).split(" ")) for row in train]
    return numbers(test, lambda row: set(near_key(row[0]).split(" ")) in bags)


@mutant("ex06.find_leaks", "numbers of training")
def _(train, test):
    unseen = {near_key(row[0]) for row in test}
    return numbers(train, lambda row: near_key(row[0]) in unseen)


@mutant("ex06.find_leaks", "test repeats")
def _(train, test):
    keys = Counter(near_key(row[0]) for row in train)
    found = []
    for n, row in enumerate(test):
        if keys[near_key(row[0])]:
            found.append(n)
        keys[near_key(row[0])] += 1
    return found


@mutant("ex06.find_leaks", "once each")
def _(train, test):
    left = {near_key(row[0]) for row in train}
    found = []
    for n, row in enumerate(test):
        if near_key(row[0]) in left:
            left.discard(near_key(row[0]))
            found.append(n)
    return found


@mutant("ex06.find_leaks", "first only")
def _(train, test):
    for n in leaks_by_two_loops(train, test):
        return [n]
    return []


@mutant("ex06.find_leaks", "whole components")
def _(train, test):
    bad = [test[n][2] for n in leaks_by_two_loops(train, test)]
    return numbers(test, lambda row: bad.count(row[2]))


mutants(
    "ex06.find_leaks",
    everything=lambda train, test: [*range(len(test))],
    sound_rows=lambda train, test: sorted(
        set(range(len(test))) - set(leaks_by_two_loops(train, test))
    ),
    rows_returned=lambda train, test: [
        test[n] for n in leaks_by_dictionary(train, test)
    ],
)

# ------------------------------------------------------------------ misaligned_shards


def flagged(shards, test):
    return [n for n, (s, t) in enumerate(shards) if test(s, t)]


def fixed_by(differs, *shifts):
    """Shards that a shift mends, with another idea of a row that differs."""

    def count(sources, targets, shift):
        size = len(targets)
        return sum(
            differs(s, targets[(n + shift) % size]) for n, s in enumerate(sources)
        )

    return lambda shards: flagged(
        shards, lambda s, t: any(count(s, t, k) < count(s, t, 0) for k in shifts)
    )


mutants(
    "ex06.misaligned_shards",
    any_fault=lambda shards: flagged(shards, differing),
    line_counts=lambda shards: flagged(shards, lambda s, t: len(s) - len(t)),
    order_ignored=lambda shards: flagged(
        shards, lambda s, t: sorted(slots(" ".join(s))) != sorted(slots(" ".join(t)))
    ),
    up_only=fixed_by(lambda s, t: not slots_counted(s, t), 1),
    down_only=fixed_by(lambda s, t: not slots_counted(s, t), -1),
    how_often=fixed_by(lambda s, t: set(slots(s)) != set(slots(t)), 1, -1),
    number_only=fixed_by(lambda s, t: len(slots(s)) != len(slots(t)), 1, -1),
    lengths=fixed_by(lambda s, t: abs(len(s) - len(t)), 1, -1),
    ties=lambda shards: flagged(
        shards,
        lambda s, t: differing(s, t) >= min(differing(s, t, 1), differing(s, t, -1)),
    ),
    majority=lambda shards: flagged(shards, lambda s, t: differing(s, t) > len(s) / 2),
    first_only=lambda shards: shards_by_modulo(shards)[0:1],
    sound_ones=lambda shards: flagged(
        shards,
        lambda s, t: differing(s, t) <= min(differing(s, t, 1), differing(s, t, -1)),
    ),
    from_one=lambda shards: [1 + n for n in shards_by_modulo(shards)],
    everything=lambda shards: [n for n, _ in enumerate(shards)],
)


@mutant("ex06.misaligned_shards", "worst")
def _(shards):
    counts = [differing(*shard) for shard in shards]
    worst = int(numpy.argmax(counts))
    return [worst] if counts[worst] > 0 else []


@mutant("ex06.misaligned_shards", "rows dropped")
def _(shards):
    found = []
    for n, (s, t) in enumerate(shards):
        up = sum(not slots_counted(a, b) for a, b in zip(s, t[1:], strict=False))
        down = sum(not slots_counted(a, b) for a, b in zip(s[1:], t, strict=False))
        if up < differing(s, t) or down < differing(s, t):
            found.append(n)
    return found


# ------------------------------------------------------------------ cut_probabilities


def log_of(cut, scores):
    return sum(scores[piece] for piece in cut)


def reweighed(weight):
    """Shares of weight(cut, scores, alpha) over all cuts."""

    def solution(word, scores, alpha):
        weights = {
            cut: weight(cut, scores, alpha) for cut in cuts_by_borders(word, scores, 1)
        }
        return {cut: w / (sum(weights.values()) or 1) for cut, w in weights.items()}

    return solution


def relabelled(change):
    return lambda word, scores, alpha: dict(
        change(cut, p) for cut, p in cuts_by_borders(word, scores, alpha).items()
    )


def only(keep):
    """The shares of those cuts alone that keep(cut, all cuts)."""

    def solution(word, scores, alpha):
        found = cuts_by_borders(word, scores, alpha)
        kept = {cut: p for cut, p in found.items() if keep(cut, found)}
        return {cut: p / sum(kept.values()) for cut, p in kept.items()}

    return solution


mutants(
    "ex06.cut_probabilities",
    alpha_forgotten=lambda word, scores, alpha: cuts_from_the_left(word, scores, 1.0),
    not_normalised=lambda word, scores, alpha: {
        cut: math.exp(log_of(cut, scores)) ** alpha
        for cut in cuts_by_borders(word, scores, 1)
    },
    mean_a_piece=reweighed(
        lambda cut, scores, alpha: math.exp(log_of(cut, scores) / len(cut)) ** alpha
    ),
    linear_weights=reweighed(lambda cut, scores, alpha: alpha * log_of(cut, scores)),
    all_alike=reweighed(lambda cut, scores, alpha: 1),
    sign=reweighed(lambda cut, scores, alpha: math.exp(-log_of(cut, scores) * alpha)),
    text_joined=relabelled(lambda cut, p: (" ".join(cut), p)),
    logarithms=relabelled(lambda cut, p: (cut, math.log(p))),
    two_pieces_at_most=only(lambda cut, found: len(cut) < 3),
    most_pieces_only=only(lambda cut, found: len(cut) == max(len(c) for c in found)),
)


@mutant("ex06.cut_probabilities", "best only")
def _(word, scores, alpha):
    found = cuts_by_borders(word, scores, 1)
    return {max(found, key=found.get): 1.0}


@mutant("ex06.cut_probabilities", "longest piece first")
def _(word, scores, alpha):
    cut = ()
    while word:
        for end in range(len(word), 0, -1):
            if word[:end] in scores:
                cut, word = (*cut, word[:end]), word[end:]
                break
        else:
            break
    return {cut: 1.0}


# ------------------------------------------------------------------------ corpus_bleu


def precisions(hypotheses, references, max_n):
    pairs = (counts_of(hypotheses, references, n + 1) for n in range(max_n))
    return [m / t if t else 0 for m, t in pairs]


def finish(precision, factor, max_n):
    return 100 * factor * numpy.prod(precision).item() ** (1 / max_n)


@mutant("ex06.corpus_bleu", "no clipping")
def _(hypotheses, references, max_n):
    product = 1.0
    for n in range(1, max_n + 1):
        matched = total = 0
        for h, r in zip(hypotheses, references, strict=True):
            there = set(grams(r, n))
            ours = list(grams(h, n).elements())
            matched += sum(gram in there for gram in ours)
            total += len(ours)
        product *= matched / total if total else 0
    return finish([product], penalty(*lengths(hypotheses, references)), max_n)


@mutant("ex06.corpus_bleu", "mean of sentences")
def _(hypotheses, references, max_n):
    scores = [
        bleu_by_logarithms([h], [r], max_n)
        for h, r in zip(hypotheses, references, strict=True)
    ]
    return float(numpy.mean(scores))


@mutant("ex06.corpus_bleu", "mean of precisions")
def _(hypotheses, references, max_n):
    rows = [
        precisions([h], [r], max_n) for h, r in zip(hypotheses, references, strict=True)
    ]
    means = numpy.array(rows, dtype=float).mean(axis=0)
    return finish(means, penalty(*lengths(hypotheses, references)), max_n)


def with_factor(factor):
    return lambda hypotheses, references, max_n: finish(
        precisions(hypotheses, references, max_n),
        factor(*lengths(hypotheses, references)),
        max_n,
    )


mutants(
    "ex06.corpus_bleu",
    no_brevity_penalty=with_factor(lambda h, r: 1),
    brevity_upside_down=with_factor(lambda h, r: 1 if h < r else math.exp(1 - h / r)),
    bonus_for_length=with_factor(lambda h, r: math.exp(1 - r / h)),
    ratio_of_lengths=with_factor(lambda h, r: min(h, r) / r),
)


@mutant("ex06.corpus_bleu", "brevity of sentences")
def _(hypotheses, references, max_n):
    factors = [
        penalty(len(h), len(r)) if h else 0
        for h, r in zip(hypotheses, references, strict=True)
    ]
    factor = float(numpy.mean(factors))
    return finish(precisions(hypotheses, references, max_n), factor, max_n)


def with_mean(mean):
    return lambda hypotheses, references, max_n: (
        100
        * penalty(*lengths(hypotheses, references))
        * mean(precisions(hypotheses, references, max_n))
    )


mutants(
    "ex06.corpus_bleu",
    arithmetic_mean=with_mean(lambda ps: float(numpy.mean(ps))),
    root_forgotten=with_mean(lambda ps: float(numpy.prod(ps))),
    longest_only=with_mean(lambda ps: ps[-1]),
    single_words_only=with_mean(
        lambda ps: float(numpy.prod(ps[:-1])) ** (1 / (len(ps) - 1))
    ),
    share=lambda hypotheses, references, max_n: (
        bleu_with_numpy(hypotheses, references, max_n) / 100
    ),
)


@mutant("ex06.corpus_bleu", "logarithm of zero")
def _(hypotheses, references, max_n):
    if sum(map(len, hypotheses)) == 0:
        return 0.0
    logarithms = map(math.log, precisions(hypotheses, references, max_n))
    factor = penalty(*lengths(hypotheses, references))
    return 100 * factor * math.exp(sum(logarithms) / max_n)


@mutant("ex06.corpus_bleu", "single words only")
def _(hypotheses, references, max_n):
    matched, total = counts_of(hypotheses, references, 1)
    return 100 * penalty(*lengths(hypotheses, references)) * matched / total


@mutant("ex06.corpus_bleu", "recall")
def _(hypotheses, references, max_n):
    recalls = precisions(references, hypotheses, max_n)  # clipping is symmetric
    return finish(recalls, penalty(*lengths(hypotheses, references)), max_n)


@mutant("ex06.corpus_bleu", "distinct")
def _(hypotheses, references, max_n):
    shares = []
    for n in range(1, max_n + 1):
        pairs = [
            (set(grams(h, n)), set(grams(r, n)))
            for h, r in zip(hypotheses, references, strict=True)
        ]
        total = sum(len(ours) for ours, _ in pairs)
        shares.append(sum(len(a & b) for a, b in pairs) / total if total else 0)
    return finish(shares, penalty(*lengths(hypotheses, references)), max_n)


@mutant("ex06.corpus_bleu", "across sentences")
def _(hypotheses, references, max_n):
    one = [list(itertools.chain(*hypotheses))], [list(itertools.chain(*references))]
    return bleu_by_logarithms(*one, max_n)


# ------------------------------------------------------------------------------- chrf


def character_scores(h, r, orders=range(1, 7)):
    """Precision and recall of each order that both sides have."""
    rows = []
    for n in orders:
        if len(h) >= n and len(r) >= n:
            hits = matches(h, r, n)
            rows.append((hits / (len(h) - n + 1), hits / (len(r) - n + 1)))
    return rows


def f_beta(p, r, square=4.0):
    return 100 * (1 + square) * p * r / (square * p + r) if p + r else 0.0


def means(rows, count=None):
    count = count or len(rows) or 1
    return sum(p for p, _ in rows) / count, sum(r for _, r in rows) / count


def bare(text):
    return text.replace(" ", "")


def rows_of(hypothesis, reference):
    return character_scores(bare(hypothesis), bare(reference))


mutants(
    "ex06.chrf",
    words=lambda h, r: f_beta(*means(character_scores(h.split(), r.split()))),
    spaces_kept=lambda h, r: f_beta(*means(character_scores(h, r))),
    F1=lambda h, r: f_beta(*means(rows_of(h, r)), square=1.0),
    beta_reversed=lambda h, r: f_beta(*means(rows_of(h, r))[::-1]),
    beta_not_squared=lambda h, r: f_beta(*means(rows_of(h, r)), square=2.0),
    short_texts=lambda h, r: f_beta(*means(rows_of(h, r), 6)),
    longest_only=lambda h, r: f_beta(*means(character_scores(bare(h), bare(r), [6]))),
    up_to_five=lambda h, r: f_beta(
        *means(character_scores(bare(h), bare(r), range(1, 6)))
    ),
    capitals_folded=lambda h, r: CHRF(lowercase=True).sentence_score(h, [r]).score,
    precision=lambda h, r: 100 * means(rows_of(h, r))[0],
    recall=lambda h, r: 100 * means(rows_of(h, r))[1],
    share=lambda h, r: chrf_with_arrays(h, r) / 100,
)


@mutant("ex06.chrf", "F of each order")
def _(hypothesis, reference):
    scores = [f_beta(p, r) for p, r in rows_of(hypothesis, reference)]
    return float(numpy.mean(scores)) if scores else 0.0


@mutant("ex06.chrf", "pooled")
def _(hypothesis, reference):
    h, r = bare(hypothesis), bare(reference)
    hits = sum(matches(h, r, n) for n in range(1, 7))
    if not hits:
        return 0.0
    said = sum(max(0, len(h) - n + 1) for n in range(1, 7))
    wanted = sum(max(0, len(r) - n + 1) for n in range(1, 7))
    return f_beta(hits / said, hits / wanted)


def chrf_with(hits):
    def solution(hypothesis, reference):
        h, r = bare(hypothesis), bare(reference)
        rows = [
            (hits(h, r, n) / (len(h) - n + 1), hits(h, r, n) / (len(r) - n + 1))
            for n in range(1, 7)
            if min(len(h), len(r)) >= n
        ]
        return f_beta(*means(rows))

    return solution


mutants(
    "ex06.chrf",
    no_clipping=chrf_with(
        lambda h, r, n: sum(h[i : i + n] in r for i in range(len(h) - n + 1))
    ),
    distinct=chrf_with(lambda h, r, n: len(set(grams(h, n)) & set(grams(r, n)))),
)

# -------------------------------------------------------------------------- beam_step


def ended(pair):
    return pair[1][-1] == "</s>"


def shared_out(ranked, width):
    return (
        list(itertools.islice(itertools.filterfalse(ended, ranked), width)),
        list(filter(ended, ranked[:width])),
    )


def ranked(live, tables):
    return sorted(all_extensions(live, tables), reverse=True)


@mutant("ex06.beam_step", "last token only")
def _(live, next_log_probs, width):
    fresh = [(0.0, tokens) for _, tokens in live]
    return shared_out(ranked(fresh, next_log_probs), width)


@mutant("ex06.beam_step", "ranked by the last token")
def _(live, next_log_probs, width):
    rows = []
    for (total, tokens), table in zip(live, next_log_probs, strict=True):
        rows += [(p, total + p, (*tokens, token)) for token, p in table.items()]
    rows.sort(reverse=True)
    return shared_out([row[1:] for row in rows], width)


@mutant("ex06.beam_step", "product of logarithms")
def _(live, next_log_probs, width):
    rows = []
    for (total, tokens), table in zip(live, next_log_probs, strict=True):
        rows += [(total * p, (*tokens, token)) for token, p in table.items()]
    return shared_out(sorted(rows, key=lambda row: row[0], reverse=True), width)


@mutant("ex06.beam_step", "probabilities")
def _(live, next_log_probs, width):
    rows = [(math.exp(s), y) for s, y in ranked(live, next_log_probs)]
    return shared_out(rows, width)


@mutant("ex06.beam_step", "one extension each")
def _(live, next_log_probs, width):
    rows = []
    for (total, tokens), table in zip(live, next_log_probs, strict=True):
        token = max(table, key=table.get)
        rows.append((total + table[token], (*tokens, token)))
    return shared_out(sorted(rows, reverse=True), width)


@mutant("ex06.beam_step", "width for each")
def _(live, next_log_probs, width):
    rows = []
    for one, table in zip(live, next_log_probs, strict=True):
        rows += ranked([one], [table])[:width]
    rows.sort(reverse=True)
    return list(itertools.filterfalse(ended, rows)), list(filter(ended, rows))


@mutant("ex06.beam_step", "places lost")
def _(live, next_log_probs, width):
    on, done = [], []
    for pair in ranked(live, next_log_probs)[:width]:
        (done if ended(pair) else on).append(pair)
    return on, done


@mutant("ex06.beam_step", "any end")
def _(live, next_log_probs, width):
    on, done = [], []
    for pair in ranked(live, next_log_probs):
        if ended(pair):
            done.append(pair)
        elif len(on) < width:
            on.append(pair)
    return on, done


@mutant("ex06.beam_step", "ended live on")
def _(live, next_log_probs, width):
    best = heapq.nlargest(width, all_extensions(live, next_log_probs))
    return best, [pair for pair in best if ended(pair)]


@mutant("ex06.beam_step", "finished forgotten")
def _(live, next_log_probs, width):
    return shared_out(ranked(live, next_log_probs), width)[0], []


@mutant("ex06.beam_step", "worst first")
def _(live, next_log_probs, width):
    return shared_out(sorted(all_extensions(live, next_log_probs)), width)


@mutant("ex06.beam_step", "per token")
def _(live, next_log_probs, width):
    rows = [(s / len(y), y) for s, y in all_extensions(live, next_log_probs)]
    return shared_out(sorted(rows, reverse=True), width)


@mutant("ex06.beam_step", "end cut off")
def _(live, next_log_probs, width):
    on, done = shared_out(ranked(live, next_log_probs), width)
    return on, [(s, y[: y.index("</s>")]) for s, y in done]


@mutant("ex06.beam_step", "exchanged")
def _(live, next_log_probs, width):
    on, done = shared_out(ranked(live, next_log_probs), width)
    return done, on
