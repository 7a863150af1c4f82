"""Solutions of lesson 05 as learners write them, independently of the package's own."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy
import torch
import torch.nn.functional as F

from .register import mutant, mutants, right

# ------------------------------------------------------------------------------ right


def loss_with_tensors(teacher, student):
    p = torch.tensor([teacher[y] for y in teacher], dtype=torch.float64)
    log_q = torch.tensor([student[y] for y in teacher], dtype=torch.float64)
    return torch.where(p == 0, 0.0, -p * log_q).sum().item()


def loss_over_the_student(teacher, student):
    total = 0
    for y in student:
        if teacher.get(y, 0) != 0:
            total = total + teacher[y] * student[y]
    return -total


def target_with_numpy(teacher, student):
    n = int(numpy.argmax([numpy.sum(tokens) for tokens in teacher]))
    return float(numpy.negative(student[n]).sum())


def target_by_product(teacher, student):
    pairs = zip(teacher, student, strict=True)
    ranked = sorted(pairs, key=lambda pair: math.prod(map(math.exp, pair[0])))
    return -math.log(math.prod(math.exp(token) for token in ranked[-1][1]))


def chain_with_a_queue(teacher, student):
    waiting, kl = [((), 1.0)], 0.0
    while waiting:
        prefix, mass = waiting.pop()
        p, q = teacher.get(prefix), student.get(prefix)
        if p is None:
            continue
        kl += mass * sum(a * (math.log(a) - math.log(q[v])) for v, a in p.items() if a)
        waiting += [((*prefix, v), mass * a) for v, a in p.items()]
    return kl


def chain_by_whole_sentences(teacher, student):
    """Not by tokens at all, and right: both sides of the chain rule are equal."""
    whole = [((), 1.0, 1.0)]
    kl = 0.0
    while whole:
        y, p, q = whole.pop(0)
        if y[-1:] == ("<eos>",):
            kl += p * math.log(p / q)
            continue
        for v, share in teacher[y].items():
            if share > 0:
                whole.append(((*y, v), p * share, q * student[y][v]))
    return kl


def chain_by_length(teacher, student):
    mass = defaultdict(float)
    mass[()] = 1.0
    total = 0.0
    for prefix in sorted(teacher, key=len):
        for v, p in teacher[prefix].items():
            mass[prefix + (v,)] = mass[prefix] * p
            if p > 0:
                total -= mass[prefix] * p * math.log(student[prefix][v] / p)
    return total


def mix_with_dot(data_losses, own_losses, own_probabilities, lam):
    with torch.no_grad():
        weights = lam * own_probabilities
    return (1 - lam) / len(data_losses) * data_losses.sum() + weights @ own_losses


def mix_with_one_vector(data_losses, own_losses, own_probabilities, lam):
    n = len(data_losses)
    weights = torch.cat(
        [torch.full((n,), (1 - lam) / n), lam * own_probabilities.detach()]
    )
    return torch.dot(weights, torch.cat([data_losses, own_losses]))


def target_by_counter(candidates, reference, n, similarity):
    found = Counter(candidates).most_common(n)
    scores = [similarity(y, reference) for y, _ in found]
    return found[scores.index(max(scores))][0]


def target_by_pairs(candidates, reference, n, similarity):
    ranked = sorted(candidates.items(), key=lambda item: -item[1])[:n]
    return max(ranked, key=lambda item: (similarity(item[0], reference), item[1]))[0]


def mixture_by_comprehension(shares, teacher):
    outputs = {y for said in teacher.values() for y in said}
    return {
        y: sum(shares[c] * said.get(y, 0) for c, said in teacher.items())
        for y in outputs
    }


def mixture_with_counter(shares, teacher):
    total = Counter()
    for c in teacher:
        total.update({y: p * shares[c] for y, p in teacher[c].items()})
    return dict(total)


def smoothing_by_torch(logits, labels, epsilon):
    return F.cross_entropy(logits, labels, label_smoothing=epsilon)


def smoothing_by_target(logits, labels, epsilon):
    n, size = logits.shape
    target = torch.full((n, size), epsilon / size)
    target[torch.arange(n), labels] += 1 - epsilon
    log_q = logits - logits.logsumexp(dim=1, keepdim=True)
    return -(target * log_q).sum() / n


right("ex05.sequence_loss", loss_with_tensors, loss_over_the_student)
right("ex05.target_generated_loss", target_with_numpy, target_by_product)
right(
    "ex05.kl_by_tokens", chain_with_a_queue, chain_by_whole_sentences, chain_by_length
)
right("ex05.mixed_loss", mix_with_dot, mix_with_one_vector)
right("ex05.interpolated_target", target_by_counter, target_by_pairs)
right("ex05.without_context", mixture_by_comprehension, mixture_with_counter)
right("ex05.smoothed_loss", smoothing_by_torch, smoothing_by_target)

# ---------------------------------------------------------------------- sequence_loss


@mutant("ex05.sequence_loss", "sign")
def _(teacher, student):
    return -loss_with_tensors(teacher, student)


@mutant("ex05.sequence_loss", "direction")
def _(teacher, student):
    total = 0.0
    for y, p in teacher.items():
        total -= math.exp(student[y]) * math.log(p)
    return total


@mutant("ex05.sequence_loss", "direction")
def _(teacher, student):
    p = numpy.array([teacher[y] for y in teacher])
    q = numpy.exp([student[y] for y in teacher])
    with numpy.errstate(all="ignore"):
        return float(-(q * numpy.log(p)).sum())


@mutant("ex05.sequence_loss", "by position")
def _(teacher, student):
    p, log_q = list(teacher.values()), list(student.values())
    return -sum(p[i] * log_q[i] for i in range(len(p)))


@mutant("ex05.sequence_loss", "by position")
def _(teacher, student):
    values = iter(student.values())
    pairs = [(p, next(values)) for p in teacher.values()]
    return sum(-p * log_q for p, log_q in pairs if p)


@mutant("ex05.sequence_loss", "entropy subtracted")
def _(teacher, student):
    entropy = -sum(p * math.log(p) for p in teacher.values() if p)
    return loss_over_the_student(teacher, student) - entropy


@mutant("ex05.sequence_loss", "mean")
def _(teacher, student):
    return loss_with_tensors(teacher, student) / len(teacher)


@mutant("ex05.sequence_loss", "zero times infinity")
def _(teacher, student):
    loss = 0.0
    for y in teacher:
        loss -= teacher[y] * student[y]
    return loss


@mutant("ex05.sequence_loss", "infinity hidden")
def _(teacher, student):
    total = 0
    for y in teacher:
        if math.isfinite(student[y]):
            total -= teacher[y] * student[y]
    return total


@mutant("ex05.sequence_loss", "infinity hidden")
def _(teacher, student):
    p = numpy.array([teacher[y] for y in teacher])
    log_q = numpy.array([student[y] for y in teacher])
    return float(-(p * numpy.where(numpy.isinf(log_q), 0, log_q)).sum())


@mutant("ex05.sequence_loss", "unweighted")
def _(teacher, student):
    return sum(-student[y] for y in teacher if teacher[y])


@mutant("ex05.sequence_loss", "best only")
def _(teacher, student):
    best = sorted(teacher, key=lambda y: teacher[y])[-1]
    return -student[best]


@mutant("ex05.sequence_loss", "logarithm twice")
def _(teacher, student):
    return -sum(teacher[y] * math.log(student[y]) for y in teacher)


@mutant("ex05.sequence_loss", "no logarithm")
def _(teacher, student):
    return sum(-p * math.e ** student[y] for y, p in teacher.items())


# -------------------------------------------------------------- target_generated_loss


def by_sum(outputs):
    return max(range(len(outputs)), key=lambda n: sum(outputs[n]))


@mutant("ex05.target_generated_loss", "sign")
def _(teacher, student):
    return math.fsum(student[by_sum(teacher)])


@mutant("ex05.target_generated_loss", "mean over tokens")
def _(teacher, student):
    return -float(numpy.mean(student[by_sum(teacher)]))


@mutant("ex05.target_generated_loss", "choice by mean")
def _(teacher, student):
    n = int(numpy.argmax([numpy.mean(tokens) for tokens in teacher]))
    return -sum(student[n])


@mutant("ex05.target_generated_loss", "two means")
def _(teacher, student):
    pairs = sorted(zip(teacher, student, strict=True), key=lambda x: numpy.mean(x[0]))
    return -float(numpy.mean(pairs[-1][1]))


@mutant("ex05.target_generated_loss", "no logarithm")
def _(teacher, student):
    return -math.prod(math.exp(x) for x in student[by_sum(teacher)])


@mutant("ex05.target_generated_loss", "first token")
def _(teacher, student):
    pairs = zip(teacher, student, strict=True)
    _, chosen = max(pairs, key=lambda pair: pair[0][0])
    return -sum(chosen)


@mutant("ex05.target_generated_loss", "student's favourite")
def _(teacher, student):
    return -max(sum(tokens) for tokens in student)


@mutant("ex05.target_generated_loss", "teacher scored")
def _(teacher, student):
    return -max(map(sum, teacher))


@mutant("ex05.target_generated_loss", "weighted")
def _(teacher, student):
    n = by_sum(teacher)
    return -math.prod(math.exp(x) for x in teacher[n]) * sum(student[n])


@mutant("ex05.target_generated_loss", "least probable")
def _(teacher, student):
    return -sum(student[min(range(len(teacher)), key=lambda n: sum(teacher[n]))])


@mutant("ex05.target_generated_loss", "first output")
def _(teacher, student):
    return -sum(student[0])


@mutant("ex05.target_generated_loss", "full sum")
def _(teacher, student):
    weights = [math.exp(sum(tokens)) for tokens in teacher]
    return -sum(w * sum(tokens) for w, tokens in zip(weights, student, strict=True))


# ----------------------------------------------------------------------- kl_by_tokens


def kl_of(p, q):
    return sum(a * math.log(a / q[v]) for v, a in p.items() if a > 0)


def walk(teacher, student, measure=kl_of, guide=None):
    """Sum of mass times measure, the mass being the guide's."""
    guide = guide or teacher
    waiting, found = [((), 1.0)], []
    while waiting:
        prefix, mass = waiting.pop()
        if prefix in teacher:
            found.append((mass, measure(teacher[prefix], student[prefix])))
            for v in teacher[prefix]:
                waiting.append((prefix + (v,), mass * guide[prefix].get(v, 0.0)))
    return found


def total(found):
    return sum(mass * kl for mass, kl in found)


@mutant("ex05.kl_by_tokens", "unweighted")
def _(teacher, student):
    return sum(kl_of(teacher[prefix], student[prefix]) for prefix in teacher)


@mutant("ex05.kl_by_tokens", "student's mass")
def _(teacher, student):
    return total(walk(teacher, student, guide=student))


@mutant("ex05.kl_by_tokens", "last step")
def _(teacher, student):
    def below(prefix, p_last):
        if prefix not in teacher:
            return 0.0
        here = p_last * kl_of(teacher[prefix], student[prefix])
        return here + sum(below((*prefix, v), p) for v, p in teacher[prefix].items())

    return below((), 1.0)


@mutant("ex05.kl_by_tokens", "best path")
def _(teacher, student):
    prefix, kl = (), 0.0
    while prefix in teacher:
        p = teacher[prefix]
        kl += kl_of(p, student[prefix])
        prefix += (max(p, key=lambda v: p[v]),)
    return kl


@mutant("ex05.kl_by_tokens", "best path")
def _(teacher, student):
    prefix, mass, kl = (), 1.0, 0.0
    while prefix in teacher:
        p = teacher[prefix]
        kl += mass * kl_of(p, student[prefix])
        v = max(p, key=p.get)
        mass, prefix = mass * p[v], (*prefix, v)
    return kl


@mutant("ex05.kl_by_tokens", "reverse")
def _(teacher, student):
    def other_way(p, q):
        return sum(q[v] * math.log(q[v] / p[v]) for v in p if p[v])

    return total(walk(teacher, student, other_way))


@mutant("ex05.kl_by_tokens", "reverse")
def _(teacher, student):
    return total(walk(teacher, student, lambda p, q: kl_of(q, p)))


@mutant("ex05.kl_by_tokens", "exchanged")
def _(teacher, student):
    def below(prefix, mass):
        if prefix not in teacher:
            return 0.0
        kl = 0.0
        for v, q in student[prefix].items():
            if teacher[prefix].get(v):
                kl += mass * q * math.log(q / teacher[prefix][v])
                kl += below((*prefix, v), mass * q)
        return kl

    return below((), 1.0)


@mutant("ex05.kl_by_tokens", "sign")
def _(teacher, student):
    def upside_down(p, q):
        return sum(a * math.log(q[v] / a) for v, a in p.items() if a)

    return total(walk(teacher, student, upside_down))


@mutant("ex05.kl_by_tokens", "bits")
def _(teacher, student):
    def bits(p, q):
        return sum(a * math.log2(a / q[v]) for v, a in p.items() if a)

    return total(walk(teacher, student, bits))


@mutant("ex05.kl_by_tokens", "cross-entropy")
def _(teacher, student):
    def nats(p, q):
        return -sum(a * math.log(q[v]) for v, a in p.items() if a)

    return total(walk(teacher, student, nats))


@mutant("ex05.kl_by_tokens", "mean over prefixes")
def _(teacher, student):
    found = walk(teacher, student)
    return total(found) / len(found)


@mutant("ex05.kl_by_tokens", "per token")
def _(teacher, student):
    found = walk(teacher, student)
    return total(found) / sum(mass for mass, _ in found)


@mutant("ex05.kl_by_tokens", "first token")
def _(teacher, student):
    return kl_of(teacher[()], student[()])


# ------------------------------------------------------------------------- mixed_loss

mutants(
    "ex05.mixed_loss",
    lambda_reversed=lambda a, b, p, lam: mix_with_dot(a, b, p, 1 - lam),
    gradient_through_the_sampling=lambda a, b, p, lam: torch.lerp(
        a.mean(), p.dot(b), lam
    ),
    wrong_side_detached=lambda a, b, p, lam: (
        a.mean() * (1 - lam) + lam * p.dot(b.detach())
    ),
    own_part_detached=lambda a, b, p, lam: torch.lerp(
        a.mean(), p.data.dot(b.data), lam
    ),
    own_outputs_alike=lambda a, b, p, lam: torch.lerp(a.mean(), b.mean(), lam),
    data_summed=lambda a, b, p, lam: (1 - lam) * sum(a) + lam * p.detach().dot(b),
    own_mean_of_products=lambda a, b, p, lam: (
        (1 - lam) * a.mean() + lam * torch.mean(p.data * b)
    ),
    lambda_forgotten=lambda a, b, p, lam: a.mean() + p.detach().dot(b),
    added_on_top=lambda a, b, p, lam: a.mean() + lam * p.detach().dot(b),
    no_gradient=lambda a, b, p, lam: mix_with_dot(a, b, p, lam).item(),
)


@mutant("ex05.mixed_loss", "pooled")
def _(data_losses, own_losses, own_probabilities, lam):
    weighted = [(1 - lam) * x for x in data_losses] + [lam * x for x in own_losses]
    return sum(weighted) / len(weighted)


@mutant("ex05.mixed_loss", "pooled")
def _(data_losses, own_losses, own_probabilities, lam):
    return (data_losses.sum() + own_losses.sum()) / (len(data_losses) + len(own_losses))


@mutant("ex05.mixed_loss", "pooled")
def _(data_losses, own_losses, own_probabilities, lam):
    own = lam * own_probabilities.detach() * own_losses
    return torch.hstack([(1 - lam) * data_losses, own]).mean()


@mutant("ex05.mixed_loss", "no gradient")
def _(data_losses, own_losses, own_probabilities, lam):
    with torch.no_grad():
        return mix_with_dot(data_losses, own_losses, own_probabilities, lam)


# ---------------------------------------------------------------- interpolated_target


def best_first(candidates):
    return [y for y, _ in sorted(candidates.items(), key=lambda item: -item[1])]


mutants(
    "ex05.interpolated_target",
    most_probable=lambda candidates, r, n, sim: max(candidates, key=candidates.get),
    n_ignored=lambda candidates, r, n, sim: max(
        best_first(candidates), key=lambda y: sim(y, r)
    ),
    off_by_one=lambda candidates, r, n, sim: max(
        best_first(candidates)[: n + 1], key=lambda y: sim(y, r)
    ),
    n_least_probable=lambda candidates, r, n, sim: max(
        sorted(candidates, key=candidates.get)[:n], key=lambda y: sim(y, r)
    ),
    the_reference=lambda candidates, r, n, sim: str(r),
    first_listed=lambda candidates, r, n, sim: max(
        [y for i, y in enumerate(candidates) if i < n], key=lambda y: sim(y, r)
    ),
    arguments_swapped=lambda candidates, r, n, sim: max(
        best_first(candidates)[:n], key=lambda y: sim(r, y)
    ),
    least_similar=lambda candidates, r, n, sim: sorted(
        best_first(candidates)[:n], key=lambda y: sim(y, r)
    )[0],
    tie=lambda candidates, r, n, sim: sorted(
        best_first(candidates)[:n], key=lambda y: sim(y, r)
    )[-1],
    weighted=lambda candidates, r, n, sim: max(
        best_first(candidates)[:n], key=lambda y: candidates[y] * sim(y, r)
    ),
)


@mutant("ex05.interpolated_target", "off by one")
def _(candidates, reference, n, similarity):
    allowed = best_first(candidates)[0 : n - 1]
    scores = [similarity(y, reference) for y in allowed]
    return allowed[numpy.argmax(scores)]


@mutant("ex05.interpolated_target", "weighted")
def _(candidates, reference, n, similarity):
    return max(
        candidates.items(), key=lambda item: item[1] * similarity(item[0], reference)
    )[0]


@mutant("ex05.interpolated_target", "steps exchanged")
def _(candidates, reference, n, similarity):
    near = sorted(candidates, key=lambda y: -similarity(y, reference))[:n]
    return sorted(near, key=candidates.get)[-1]


# -------------------------------------------------------------------- without_context


@mutant("ex05.without_context", "unweighted")
def _(shares, teacher):
    outputs = {y for said in teacher.values() for y in said}
    return {
        y: float(numpy.mean([said.get(y, 0.0) for said in teacher.values()]))
        for y in outputs
    }


@mutant("ex05.without_context", "likeliest context")
def _(shares, teacher):
    return teacher[max(shares, key=lambda c: shares[c])].copy()


@mutant("ex05.without_context", "common outputs alone")
def _(shares, teacher):
    common = set.intersection(*(set(said) for said in teacher.values()))
    return {y: sum(shares[c] * teacher[c][y] for c in shares) for y in common}


@mutant("ex05.without_context", "geometric")
def _(shares, teacher):
    outputs = {y: None for said in teacher.values() for y in said}
    with numpy.errstate(divide="ignore"):
        scores = {
            y: numpy.exp(
                sum(shares[c] * numpy.log(teacher[c].get(y, 0.0)) for c in shares)
            )
            for y in outputs
        }
    return {y: float(s / sum(scores.values())) for y, s in scores.items()}


@mutant("ex05.without_context", "overwritten")
def _(shares, teacher):
    mixture = {}
    for c in teacher:
        for y in teacher[c]:
            mixture[y] = shares[c] * teacher[c][y]
    return mixture


@mutant("ex05.without_context", "overwritten")
def _(shares, teacher):
    mixture = {}
    for c, share in shares.items():
        mixture |= {y: share * p for y, p in teacher[c].items()}
    return mixture


@mutant("ex05.without_context", "first kept")
def _(shares, teacher):
    mixture = {}
    for c, share in shares.items():
        for y, p in teacher[c].items():
            mixture.setdefault(y, share * p)
    return mixture


@mutant("ex05.without_context", "bests alone")
def _(shares, teacher):
    mixture = defaultdict(float)
    for c, said in teacher.items():
        mixture[max(said, key=said.get)] += shares[c]
    return dict(mixture)


@mutant("ex05.without_context", "by position")
def _(shares, teacher):
    mixture = Counter()
    for share, said in zip(shares.values(), teacher.values(), strict=True):
        for y, p in said.items():
            mixture[y] += share * p
    return dict(mixture)


@mutant("ex05.without_context", "shares forgotten")
def _(shares, teacher):
    mixture = Counter()
    for said in teacher.values():
        mixture.update(said)
    return dict(mixture)


@mutant("ex05.without_context", "largest")
def _(shares, teacher):
    mixture = {}
    for c in shares:
        for y, p in teacher[c].items():
            mixture[y] = max(mixture.get(y, 0.0), shares[c] * p)
    return mixture


# ---------------------------------------------------------------------- smoothed_loss


def uniform_part(logits):
    return -F.log_softmax(logits, dim=1).mean()


@mutant("ex05.smoothed_loss", "uniform over the others")
def _(logits, labels, epsilon):
    size = logits.shape[1]
    target = torch.full_like(logits, epsilon / (size - 1)).detach()
    target[range(len(labels)), labels] = 1 - epsilon
    return -(target * logits.log_softmax(1)).sum(1).mean()


@mutant("ex05.smoothed_loss", "epsilon reversed")
def _(logits, labels, epsilon):
    return F.cross_entropy(logits, labels, label_smoothing=1 - epsilon)


@mutant("ex05.smoothed_loss", "KL to uniform")
def _(logits, labels, epsilon):
    uniform = torch.full_like(logits, 1 / logits.shape[1]).detach()
    kl = F.kl_div(logits.log_softmax(1), uniform, reduction="batchmean")
    return (1 - epsilon) * F.cross_entropy(logits, labels) + epsilon * kl


@mutant("ex05.smoothed_loss", "not divided by V")
def _(logits, labels, epsilon):
    soft = -F.log_softmax(logits, dim=1).sum(dim=1).mean()
    return (1 - epsilon) * F.cross_entropy(logits, labels) + epsilon * soft


def smoothed_target(logits, labels, epsilon):
    size = logits.shape[1]
    return F.one_hot(labels, size) * (1.0 - epsilon) + epsilon / size


@mutant("ex05.smoothed_loss", "mean over the vocabulary")
def _(logits, labels, epsilon):
    target = smoothed_target(logits, labels, epsilon)
    return -(target * logits.log_softmax(1)).mean()


@mutant("ex05.smoothed_loss", "added on top")
def _(logits, labels, epsilon):
    return F.cross_entropy(logits, labels) + epsilon * uniform_part(logits)


@mutant("ex05.smoothed_loss", "KL to the target")
def _(logits, labels, epsilon):
    target = smoothed_target(logits, labels, epsilon)
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")


@mutant("ex05.smoothed_loss", "softmax over the rows")
def _(logits, labels, epsilon):
    target = smoothed_target(logits, labels, epsilon)
    return -(target * F.log_softmax(logits, dim=0)).sum(1).mean()


@mutant("ex05.smoothed_loss", "sign")
def _(logits, labels, epsilon):
    return -F.cross_entropy(logits, labels, label_smoothing=epsilon)


@mutant("ex05.smoothed_loss", "student smoothed")
def _(logits, labels, epsilon):
    q = F.softmax(logits, dim=1) * (1 - epsilon) + epsilon / logits.shape[1]
    return F.nll_loss(q.log(), labels)


@mutant("ex05.smoothed_loss", "own entropy")
def _(logits, labels, epsilon):
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    return (1 - epsilon) * F.cross_entropy(logits, labels) + epsilon * entropy


@mutant("ex05.smoothed_loss", "sum")
def _(logits, labels, epsilon):
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=epsilon)


@mutant("ex05.smoothed_loss", "overflow")
def _(logits, labels, epsilon):
    log_q = torch.log(torch.softmax(logits, 1))
    hard = F.nll_loss(log_q, labels)
    return (1 - epsilon) * hard - epsilon * log_q.mean()


@mutant("ex05.smoothed_loss", "overflow")
def _(logits, labels, epsilon):
    weights = torch.exp(logits)
    log_q = torch.log(weights / weights.sum(1, keepdim=True))
    hard = -log_q[range(len(labels)), labels].mean()
    return (1 - epsilon) * hard - epsilon * log_q.mean()


@mutant("ex05.smoothed_loss", "labels alone")
def _(logits, labels, epsilon):
    return F.nll_loss(logits.log_softmax(1), labels)


@mutant("ex05.smoothed_loss", "no gradient")
def _(logits, labels, epsilon):
    hard = F.cross_entropy(logits, labels)
    return ((1 - epsilon) * hard + epsilon * uniform_part(logits)).item()


@mutant("ex05.smoothed_loss", "no gradient")
def _(logits, labels, epsilon):
    return F.cross_entropy(logits.detach(), labels, label_smoothing=epsilon)
