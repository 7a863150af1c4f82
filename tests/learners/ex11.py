"""Solutions of lesson 11 as learners write them, independently of the package's own."""

from __future__ import annotations

import re

import numpy
import torch
import torch.nn.functional as F

from .register import mutant, mutants, right


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


right("ex11.batch_loss", loss_with_cross_entropy, loss_with_mask_and_where)
right("ex11.decoder_inputs", inputs_by_assignment, inputs_by_padding)
right("ex11.distilled_corpus", corpus_by_loop, corpus_as_lists)
right("ex11.verdict", verdict_with_numpy, verdict_by_counting)
right("ex11.copied_names", names_by_counting, names_as_flat_list)


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


@mutant("ex11.distilled_corpus", "references by source")
def _(sources, references, translations, key):
    humans = dict(zip(sources, references, strict=True))
    pairs = [(s, translations.get(key(s), humans[s])) for s in sources]
    return pairs, sum(key(s) not in translations for s in sources)


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
