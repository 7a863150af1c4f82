"""Solutions of lesson 09 as learners write them, independently of the package's own."""

from __future__ import annotations

import itertools
import math

import numpy
import torch
import torch.nn.functional as F

from .register import mutant, mutants, right

# ------------------------------------------------------------------------------ right


def path_with_numpy(slips):
    return [1.0, *numpy.cumprod(1 - numpy.array(slips, dtype=float)).tolist()]


def path_by_products(slips):
    return [math.prod(1 - s for s in slips[:t]) for t in range(len(slips) + 1)]


def sample_with_while(next_probabilities, eos, limit, generator):
    said = []
    while True:
        p = next_probabilities(said)
        token = torch.multinomial(p, num_samples=1, generator=generator).item()
        said.append(token)
        if token == eos or len(said) == limit:
            return said


def sample_by_recursion(next_probabilities, eos, limit, generator, said=()):
    if len(said) == limit or said[-1:] == (eos,):
        return list(said)
    (token,) = next_probabilities(said).multinomial(1, generator=generator).tolist()
    rest = (*said, token)
    return sample_by_recursion(next_probabilities, eos, limit, generator, rest)


def labels_row_by_row(rows, eos):
    made = []
    for row in rows.tolist():
        kept, over = [], False
        for token in row[1:]:
            kept.append(-100 if over else token)
            over = over or token == eos
        made.append(kept)
    return torch.tensor(made)


def labels_by_lengths(rows, eos):
    said = rows[:, 1:]
    length = said.shape[1]
    places = torch.arange(length).expand_as(said)
    ends = torch.where(said == eos, places, length).min(dim=1).values
    return torch.where(places <= ends[:, None], said, -100)


def mix_with_item(labels, share, speak, generator):
    own = torch.rand(1, generator=generator).item() < share
    return speak(labels) if own else labels.clone()


def mix_with_comparison(labels, share, speak, generator):
    u = torch.rand((), generator=generator)
    if float(u) >= share:
        return labels
    return speak(labels)


def loss_with_kl_div(student_logits, teacher_logits, labels):
    with torch.no_grad():
        log_p = F.log_softmax(teacher_logits, dim=2)
    log_q = F.log_softmax(student_logits, dim=2)
    each = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(2)
    mask = (labels >= 0).float()
    return (each * mask).sum() / mask.sum()


def loss_token_by_token(student_logits, teacher_logits, labels):
    terms = []
    for b, t in (labels != -100).nonzero().tolist():
        q = torch.softmax(student_logits[b, t], 0)
        p = torch.softmax(teacher_logits[b, t], 0).detach()
        terms.append((q * (q / p).log()).sum())
    return sum(terms) / len(terms)


def means_by_loop(gaps, labels):
    found = []
    for t in range(gaps.shape[1]):
        real = labels[:, t] != -100
        found.append(gaps[real, t].sum() / real.sum())
    return torch.stack(found)


def means_with_nan(gaps, labels):
    return torch.where(labels == -100, torch.nan, gaps).nanmean(dim=0)


def cost_of_two_kinds(share, sampling, teacher, learning):
    data, own = learning + teacher, learning + teacher + sampling
    return ((1 - share) * data + share * own) / learning


def cost_in_parts(share, sampling, teacher, learning):
    return 1 + teacher / learning + share * sampling / learning


right("ex09.share_on_path", path_with_numpy, path_by_products)
right("ex09.ancestral_sample", sample_with_while, sample_by_recursion)
right("ex09.labels_from_samples", labels_row_by_row, labels_by_lengths)
right("ex09.mixed_batch", mix_with_item, mix_with_comparison)
right("ex09.on_policy_loss", loss_with_kl_div, loss_token_by_token)
right("ex09.mean_by_position", means_by_loop, means_with_nan)
right("ex09.cost_ratio", cost_of_two_kinds, cost_in_parts)

# ---------------------------------------------------------------------- share_on_path

mutants(
    "ex09.share_on_path",
    slips_summed=lambda s: [1 - sum(s[:t]) for t in range(len(s) + 1)],
    start_left_out=lambda s: numpy.cumprod([1 - x for x in s]).tolist(),
    end_left_out=lambda s: path_with_numpy(s[:-1]) if s else [],
    the_lost_ones=lambda s: [
        1 - math.prod(1 - x for x in s[:t]) for t in range(len(s) + 1)
    ],
    slips_multiplied=lambda s: [math.prod(s[:t]) for t in range(len(s) + 1)],
    each_alone=lambda s: [1.0] + [1 - x for x in s],
)


@mutant("ex09.share_on_path", "mean slip")
def _(slips):
    stay = 1 - (numpy.mean(slips) if slips else 0)
    return [float(stay**t) for t in range(len(slips) + 1)]


@mutant("ex09.share_on_path", "first slip for all")
def _(slips):
    shares = [1.0]
    for _ in slips:
        shares.append(shares[-1] * (1 - slips[0]))
    return shares


# ------------------------------------------------------------------- ancestral_sample


@mutant("ex09.ancestral_sample", "greedy")
def _(next_probabilities, eos, limit, generator):
    said = []
    while len(said) < limit and eos not in said:
        said.append(torch.argmax(next_probabilities(said)).item())
    return said


@mutant("ex09.ancestral_sample", "softmax again")
def _(next_probabilities, eos, limit, generator):
    said = []
    while len(said) < limit and eos not in said:
        p = torch.softmax(next_probabilities(said), 0)
        said.append(torch.multinomial(p, 1, generator=generator).item())
    return said


@mutant("ex09.ancestral_sample", "sharpened")
def _(next_probabilities, eos, limit, generator):
    said = []
    while len(said) < limit and eos not in said:
        p = next_probabilities(said).square()
        said.append(torch.multinomial(p / p.sum(), 1, generator=generator).item())
    return said


@mutant("ex09.ancestral_sample", "end ignored")
def _(next_probabilities, eos, limit, generator):
    said = []
    for _ in range(limit):
        p = next_probabilities(said)
        said += torch.multinomial(p, 1, generator=generator).tolist()
    return said


@mutant("ex09.ancestral_sample", "end dropped")
def _(next_probabilities, eos, limit, generator):
    said = []
    for _ in range(limit):
        p = next_probabilities(said)
        token = int(torch.multinomial(p, 1, generator=generator))
        if token == eos:
            break
        said.append(token)
    return said


@mutant("ex09.ancestral_sample", "end put there")
def _(next_probabilities, eos, limit, generator):
    said = sample_with_while(next_probabilities, eos, limit, generator)
    if eos not in said:
        said.append(eos)
    return said


@mutant("ex09.ancestral_sample", "end put there")
def _(next_probabilities, eos, limit, generator):
    said = sample_with_while(next_probabilities, eos, limit, generator)
    said[-1] = eos
    return said


@mutant("ex09.ancestral_sample", "prefix forgotten")
def _(next_probabilities, eos, limit, generator):
    p, said = next_probabilities([]), []
    for _ in range(limit):
        said.append(torch.multinomial(p, 1, generator=generator).item())
        if said[-1] == eos:
            break
    return said


@mutant("ex09.ancestral_sample", "last token only")
def _(next_probabilities, eos, limit, generator):
    said, last = [], []
    while len(said) < limit and eos not in last:
        last = torch.multinomial(
            next_probabilities(last), 1, generator=generator
        ).tolist()
        said += last
    return said


@mutant("ex09.ancestral_sample", "global generator")
def _(next_probabilities, eos, limit, generator):
    said = []
    while len(said) < limit and eos not in said:
        said.append(next_probabilities(said).multinomial(1).item())
    return said


@mutant("ex09.ancestral_sample", "reseeded")
def _(next_probabilities, eos, limit, generator):
    said, seed = [], generator.initial_seed()
    while len(said) < limit and eos not in said:
        fresh = torch.Generator().manual_seed(seed)
        p = next_probabilities(said)
        said.append(torch.multinomial(p, 1, generator=fresh).item())
    return said


@mutant("ex09.ancestral_sample", "one too few")
def _(next_probabilities, eos, limit, generator):
    return (
        sample_with_while(next_probabilities, eos, limit - 1, generator)
        if limit > 1
        else []
    )


@mutant("ex09.ancestral_sample", "one too many")
def _(next_probabilities, eos, limit, generator):
    said = []
    while len(said) <= limit and eos not in said:
        p = next_probabilities(said)
        said.append(torch.multinomial(p, 1, generator=generator).item())
    return said


# ---------------------------------------------------------------- labels_from_samples


def cut(row, eos):
    """A sentence up to its first end."""
    return row[: row.index(eos) + 1] if eos in row else row


def filled(sentences, length, filler=-100):
    return torch.tensor([s + [filler] * (length - len(s)) for s in sentences])


@mutant("ex09.labels_from_samples", "start kept")
def _(rows, eos):
    start = rows[:, :1]
    return torch.hstack([start, labels_row_by_row(rows, eos)])


@mutant("ex09.labels_from_samples", "end erased")
def _(rows, eos):
    sentences = [cut(row[1:], eos) for row in rows.tolist()]
    kept = [[t for t in s if t != eos] for s in sentences]
    return filled(kept, rows.shape[1] - 1)


@mutant("ex09.labels_from_samples", "end erased")
def _(rows, eos):
    labels = rows[:, 1:].clone()
    labels[labels == eos] = -100
    return labels


@mutant("ex09.labels_from_samples", "pads learned")
def _(rows, eos):
    return torch.stack([row[1:] for row in rows])


@mutant("ex09.labels_from_samples", "every end kept")
def _(rows, eos):
    made = []
    for row in rows.tolist():
        said = row[1:]
        end = len(cut(said, eos))
        made.append([t if n < end or t == eos else -100 for n, t in enumerate(said)])
    return torch.tensor(made)


@mutant("ex09.labels_from_samples", "start counted as end")
def _(rows, eos):
    sentences = [cut(row, eos)[1:] for row in rows.tolist()]
    return filled(sentences, rows.shape[1] - 1)


@mutant("ex09.labels_from_samples", "row without end")
def _(rows, eos):
    labels = rows[:, 1:].clone()
    ends = (labels == eos).float().argmax(1)
    for n, end in enumerate(ends.tolist()):
        labels[n, end + 1 :] = -100
    return labels


@mutant("ex09.labels_from_samples", "row without end dropped")
def _(rows, eos):
    sentences = [cut(r[1:], eos) if eos in r[1:] else [] for r in rows.tolist()]
    return filled(sentences, rows.shape[1] - 1).long()


@mutant("ex09.labels_from_samples", "end invented")
def _(rows, eos):
    labels = labels_row_by_row(rows, eos)
    for row in labels:
        if eos not in row.tolist():
            row[-1] = eos
    return labels


@mutant("ex09.labels_from_samples", "one length for all")
def _(rows, eos):
    length = len(cut(rows[0, 1:].tolist(), eos))
    return labels_by_lengths(rows, eos)[:, :length]


@mutant("ex09.labels_from_samples", "one place early")
def _(rows, eos):
    labels = labels_row_by_row(rows, eos)
    for row in labels:
        end = row.tolist().index(eos) if eos in row.tolist() else 0
        if end:
            row[end - 1] = -100
        elif eos in row.tolist() and row[0] == eos:
            continue
    return labels


@mutant("ex09.labels_from_samples", "another filler")
def _(rows, eos):
    sentences = [cut(row[1:], eos) for row in rows.tolist()]
    return filled(sentences, rows.shape[1] - 1, filler=0)


@mutant("ex09.labels_from_samples", "another filler")
def _(rows, eos):
    return labels_row_by_row(rows, eos).clamp(min=-1)


# ------------------------------------------------------------------------ mixed_batch


@mutant("ex09.mixed_batch", "lambda reversed")
def _(labels, share, speak, generator):
    if torch.rand((), generator=generator).item() < share:
        return labels
    return speak(labels)


@mutant("ex09.mixed_batch", "fair coin")
def _(labels, share, speak, generator):
    heads = torch.rand(1, generator=generator).item() < 1 / 2
    return speak(labels) if heads else labels


@mutant("ex09.mixed_batch", "no chance")
def _(labels, share, speak, generator):
    return labels if share < 0.5 else speak(labels)


@mutant("ex09.mixed_batch", "coin for each token")
def _(labels, share, speak, generator):
    own = torch.rand(labels.shape, generator=generator) < share
    mixed = labels.clone()
    mixed[own] = speak(labels)[own]
    return mixed


@mutant("ex09.mixed_batch", "coin for each row")
def _(labels, share, speak, generator):
    own = speak(labels)
    coins = torch.rand(len(labels), generator=generator)
    rows = [o if u < share else d for o, d, u in zip(own, labels, coins, strict=True)]
    return torch.stack(rows)


@mutant("ex09.mixed_batch", "share of the rows")
def _(labels, share, speak, generator):
    mixed = labels.clone()
    count = round(len(labels) * share)
    mixed[:count] = speak(labels)[:count]
    return mixed


@mutant("ex09.mixed_batch", "spoken in vain")
def _(labels, share, speak, generator):
    both = (labels, speak(labels))
    return both[int(torch.rand((), generator=generator) < share)]


@mutant("ex09.mixed_batch", "global generator")
def _(labels, share, speak, generator):
    return speak(labels) if torch.rand(1).item() < share else labels


@mutant("ex09.mixed_batch", "reseeded")
def _(labels, share, speak, generator):
    mine = torch.Generator().manual_seed(generator.initial_seed())
    return speak(labels) if torch.rand(1, generator=mine) < share else labels


@mutant("ex09.mixed_batch", "ids averaged")
def _(labels, share, speak, generator):
    return torch.lerp(labels.float(), speak(labels).float(), share)


# --------------------------------------------------------------------- on_policy_loss


def tokens_of(student_logits, teacher_logits, labels, dim=-1):
    """log q and log p of the real tokens, (N, V), the teacher's without gradient."""
    real = labels != -100
    log_q = F.log_softmax(student_logits, dim=dim)[real]
    return log_q, F.log_softmax(teacher_logits, dim=dim)[real].detach()


def reverse(log_q, log_p):
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)


@mutant("ex09.on_policy_loss", "forward")
def _(student_logits, teacher_logits, labels):
    log_q, log_p = tokens_of(student_logits, teacher_logits, labels)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@mutant("ex09.on_policy_loss", "sign")
def _(student_logits, teacher_logits, labels):
    log_q, log_p = tokens_of(student_logits, teacher_logits, labels)
    return (log_q.exp() * (log_p - log_q)).sum(1).mean()


@mutant("ex09.on_policy_loss", "pads counted")
def _(student_logits, teacher_logits, labels):
    return loss_with_kl_div(student_logits, teacher_logits, labels.clamp(min=0))


@mutant("ex09.on_policy_loss", "pads in the divisor")
def _(student_logits, teacher_logits, labels):
    each = reverse(*tokens_of(student_logits, teacher_logits, labels))
    return each.sum() / labels.numel()


@mutant("ex09.on_policy_loss", "divided by rows")
def _(student_logits, teacher_logits, labels):
    each = reverse(*tokens_of(student_logits, teacher_logits, labels))
    return each.sum() / len(labels)


@mutant("ex09.on_policy_loss", "divided by the vocabulary")
def _(student_logits, teacher_logits, labels):
    log_q, log_p = tokens_of(student_logits, teacher_logits, labels)
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).mean()


@mutant("ex09.on_policy_loss", "divided twice")
def _(student_logits, teacher_logits, labels):
    each = reverse(*tokens_of(student_logits, teacher_logits, labels))
    return each.mean() / len(each)


@mutant("ex09.on_policy_loss", "sum")
def _(student_logits, teacher_logits, labels):
    return reverse(*tokens_of(student_logits, teacher_logits, labels)).sum()


@mutant("ex09.on_policy_loss", "mean of means")
def _(student_logits, teacher_logits, labels):
    rows = [
        loss_with_kl_div(s[None], t[None], y[None])
        for s, t, y in zip(student_logits, teacher_logits, labels, strict=True)
    ]
    return sum(rows) / len(rows)


@mutant("ex09.on_policy_loss", "gradient to the teacher")
def _(student_logits, teacher_logits, labels):
    real = labels != -100
    log_q = F.log_softmax(student_logits[real], 1)
    log_p = F.log_softmax(teacher_logits[real], 1)
    return reverse(log_q, log_p).mean()


@mutant("ex09.on_policy_loss", "weights held fixed")
def _(student_logits, teacher_logits, labels):
    log_q, log_p = tokens_of(student_logits, teacher_logits, labels)
    with torch.no_grad():
        q = log_q.exp()
    return (q * (log_q - log_p)).sum(1).mean()


@mutant("ex09.on_policy_loss", "said tokens alone")
def _(student_logits, teacher_logits, labels):
    log_q, log_p = tokens_of(student_logits, teacher_logits, labels)
    ids = labels[labels != -100]
    places = torch.arange(len(ids))
    return (log_q[places, ids] - log_p[places, ids]).mean()


@mutant("ex09.on_policy_loss", "own words as labels")
def _(student_logits, teacher_logits, labels):
    return F.cross_entropy(student_logits.transpose(1, 2), labels)


@mutant("ex09.on_policy_loss", "shifted")
def _(student_logits, teacher_logits, labels):
    return loss_with_kl_div(
        student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:]
    )


@mutant("ex09.on_policy_loss", "softmax over time")
def _(student_logits, teacher_logits, labels):
    log_q, log_p = tokens_of(student_logits, teacher_logits, labels, dim=1)
    return reverse(log_q, log_p).mean()


@mutant("ex09.on_policy_loss", "no gradient")
def _(student_logits, teacher_logits, labels):
    with torch.no_grad():
        return loss_with_kl_div(student_logits, teacher_logits, labels)


@mutant("ex09.on_policy_loss", "no gradient")
def _(student_logits, teacher_logits, labels):
    return loss_with_kl_div(student_logits, teacher_logits, labels).item()


# ------------------------------------------------------------------- mean_by_position

mutants(
    "ex09.mean_by_position",
    pads_counted=lambda gaps, labels: gaps.sum(0) / len(gaps),
    divided_by_all_rows=lambda gaps, labels: torch.where(
        labels == -100, 0.0, gaps
    ).mean(0),
    zero_times_NaN=lambda gaps, labels: (
        torch.einsum("bl,bl->l", gaps, (labels >= 0).float()) / (labels >= 0).sum(0)
    ),
    summed=lambda gaps, labels: torch.where(labels >= 0, gaps, 0.0).sum(0),
    by_sentence=lambda gaps, labels: torch.stack(
        [gap[y >= 0].mean() for gap, y in zip(gaps, labels, strict=True)]
    ),
    one_number=lambda gaps, labels: means_with_nan(
        gaps.reshape(-1, 1), labels.reshape(-1, 1)
    )[0],
    accumulated=lambda gaps, labels: torch.tensor(
        list(itertools.accumulate(means_by_loop(gaps, labels).tolist()))
    ),
)


@mutant("ex09.mean_by_position", "zeros left out")
def _(gaps, labels):
    real = torch.where(labels == -100, 0.0, gaps)
    return real.sum(0) / real.count_nonzero(0)


# ------------------------------------------------------------------------- cost_ratio

mutants(
    "ex09.cost_ratio",
    always_sampled=lambda share, s, t, learn: 1 + (s + t) / learn,
    teacher_on_samples_alone=lambda share, s, t, learn: 1 + share * (s + t) / learn,
    lambda_reversed=lambda share, s, t, learn: cost_in_parts(1 - share, s, t, learn),
    learning_left_out=lambda share, s, t, learn: t / learn + share * s / learn,
    teacher_forgotten=lambda share, s, t, learn: 1 + share * s / learn,
    all_shared=lambda share, s, t, learn: share * (1 + t / learn + s / learn),
    upside_down=lambda share, s, t, learn: 1 / cost_in_parts(share, s, t, learn),
    seconds=lambda share, s, t, learn: sum([learn, t, share * s]),
)
