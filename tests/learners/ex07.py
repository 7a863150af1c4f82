"""Solutions of lesson 07 as learners write them, independently of the package's own."""

from __future__ import annotations

import itertools
import math

import numpy
import torch
import torch.nn.functional as F

from kdcourse.theory.losses import distillation_loss
from kdcourse.theory.signals import TopK, top_k

from .register import mutant, mutants, right

# ------------------------------------------------------------------------------ right


def bytes_with_numpy(tokens, k, vocabulary_size):
    fits = vocabulary_size - 1 <= numpy.iinfo(numpy.int16).max
    entry = numpy.dtype(numpy.float16).itemsize + (2 if fits else 4)
    return tokens * k * entry + 2 * tokens


def bytes_from_tensors(tokens, k, vocabulary_size):
    kind = torch.int16 if vocabulary_size <= 2**15 else torch.int32
    parts = torch.zeros(k, dtype=kind), torch.zeros(k + 1).half()
    return tokens * sum(part.numel() * part.element_size() for part in parts)


def best_with_mask(logits, k):
    total = logits.logsumexp(1, keepdim=True)
    values, ids = torch.topk(logits, k, dim=1)
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    rest = logits.masked_fill(kept, -torch.inf).logsumexp(1)
    return ids, values - total, rest - total.squeeze(1)


def best_by_sorting(logits, k):
    ordered, ids = logits.double().log_softmax(1).sort(1, descending=True)
    rest = torch.logsumexp(ordered[:, k:], 1).float()
    return ids[:, :k], ordered[:, :k].float(), rest


def best_from_the_package(logits, k):
    found = top_k(logits, k)
    return [found.indices, found.log_probs, found.log_rest]


def loss_from_the_package(student_logits, labels, indices, log_probs, log_rest):
    answers = TopK(indices, log_probs, log_rest=log_rest)
    return distillation_loss(student_logits[labels != -100], answers)


def loss_with_an_extra_column(student_logits, labels, indices, log_probs, log_rest):
    log_q = F.log_softmax(student_logits.flatten(0, 1), 1)[labels.flatten() >= 0]
    kept = torch.zeros_like(log_q, dtype=torch.bool).scatter_(1, indices, True)
    log_s = log_q.masked_fill(kept, -torch.inf).logsumexp(1, keepdim=True)
    log_q = torch.cat([log_q.gather(1, indices), log_s], 1)
    log_p = torch.cat([log_probs, log_rest[:, None]], 1)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / len(log_p)


def loss_sentence_by_sentence(student_logits, labels, indices, log_probs, log_rest):
    begin, losses = 0, []
    for z, y in zip(student_logits, labels, strict=True):
        n = int((y != -100).sum())
        log_q = z[:n].log_softmax(1)
        ids, p = indices[begin : begin + n], log_probs[begin : begin + n]
        r = log_rest[begin : begin + n]
        q = log_q.gather(1, ids)
        s = log_q.scatter(1, ids, -1e9).logsumexp(1)
        losses.append((p.exp() * (p - q)).sum(1) + r.exp() * (r - s))
        begin += n
    return torch.cat(losses).mean()


def look_up_by_splitting(batch, rows, lengths, answers):
    found = dict(zip(rows, answers.split(lengths), strict=True))
    return torch.cat([found[pair] for pair in batch])


def look_up_by_index(batch, rows, lengths, answers):
    ends = list(itertools.accumulate(lengths))
    wanted = []
    for pair in batch:
        n = rows.index(pair)
        wanted += range(ends[n] - lengths[n], ends[n])
    return answers[wanted]


def steps_with_cycle(batches, budget):
    left = budget
    for step, labels in enumerate(itertools.cycle(batches), 1):
        left -= labels.ge(0).sum().item()
        if left <= 0:
            return step


def steps_by_epochs(batches, budget):
    sizes = [int((labels != -100).sum()) for labels in batches]
    epochs, rest = divmod(budget, sum(sizes))
    if rest == 0:
        return epochs * len(sizes)
    read = list(itertools.accumulate(sizes))
    return epochs * len(sizes) + 1 + sum(seen < rest for seen in read)


def step_in_one_backward(student, teacher, micro_batches, optimizer):
    student.train()
    teacher.eval()
    losses = []
    for inputs, mask in micro_batches:
        with torch.inference_mode():
            p = teacher(inputs).softmax(1)[mask]
        q = F.log_softmax(student(inputs), 1)[mask]
        losses.append(F.kl_div(q, p.clone(), reduction="none").sum(1))
    loss = torch.cat(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def step_that_scales_gradients(student, teacher, micro_batches, optimizer):
    optimizer.zero_grad(set_to_none=True)
    total, tokens = 0.0, 0
    for inputs, mask in micro_batches:
        log_p = teacher.eval()(inputs).detach().log_softmax(1)
        log_q = student.train()(inputs).log_softmax(1)
        per_row = (log_p.exp() * (log_p - log_q)).sum(1) * mask
        per_row.sum().backward()
        total, tokens = total + per_row.sum().item(), tokens + mask.sum().item()
    for parameter in student.parameters():
        parameter.grad /= tokens
    optimizer.step()
    return total / tokens


right("ex07.cache_bytes", bytes_with_numpy, bytes_from_tensors)
right("ex07.keep_best", best_with_mask, best_by_sorting, best_from_the_package)
right(
    "ex07.cached_loss",
    loss_from_the_package,
    loss_with_an_extra_column,
    loss_sentence_by_sentence,
)
right("ex07.look_up", look_up_by_splitting, look_up_by_index)
right("ex07.steps_within", steps_with_cycle, steps_by_epochs)
right("ex07.distillation_step", step_in_one_backward, step_that_scales_gradients)

# ------------------------------------------------------------------------ cache_bytes


def width(vocabulary_size):
    return 2 if vocabulary_size - 1 < 2**15 else 4


mutants(
    "ex07.cache_bytes",
    ids_left_out=lambda tokens, k, vocabulary_size: tokens * 2 * (k + 1),
    missing_mass_left_out=lambda tokens, k, vocabulary_size: (
        tokens * k * width(vocabulary_size) + tokens * k * 2
    ),
    missing_mass_for_each_entry=lambda tokens, k, vocabulary_size: (
        tokens * k * (width(vocabulary_size) + 2 + 2)
    ),
    unsigned=lambda tokens, k, vocabulary_size: (
        tokens * (2 + k * (4 if vocabulary_size > 65_536 else 2) + 2 * k)
    ),
    off_by_one=lambda tokens, k, vocabulary_size: (
        tokens * (2 + k * (4 if vocabulary_size > 32_767 else 2) + 2 * k)
    ),
    always_16_bits=lambda tokens, k, vocabulary_size: tokens * (4 * k + 2),
    always_32_bits=lambda tokens, k, vocabulary_size: tokens * (6 * k + 2),
    float32=lambda tokens, k, vocabulary_size: (
        tokens * (k * width(vocabulary_size) + 4 * (k + 1))
    ),
    bits=lambda tokens, k, vocabulary_size: (
        tokens * 8 * (k * (width(vocabulary_size) + 2) + 2)
    ),
    whole_vocabulary=lambda tokens, k, vocabulary_size: 4 * tokens * vocabulary_size,
)

# -------------------------------------------------------------------------- keep_best


@mutant("ex07.keep_best", "renormalised")
def best_then_softmax(logits, k):
    values, ids = logits.topk(k, 1)
    _, _, rest = best_with_mask(logits, k)
    return ids, F.log_softmax(values, 1), rest


@mutant("ex07.keep_best", "raw logits")
def best_of_scores(logits, k):
    values, ids = logits.topk(k, 1)
    return ids, values, best_with_mask(logits, k)[2]


@mutant("ex07.keep_best", "probabilities")
def best_of_softmax(logits, k):
    p = torch.softmax(logits, 1)
    values, ids = p.topk(k, 1)
    return ids, values, best_with_mask(logits, k)[2]


@mutant("ex07.keep_best", "one minus")
def best_with_difference(logits, k):
    log_p = F.log_softmax(logits, 1)
    values, ids = log_p.topk(k, 1)
    return ids, values, torch.log(1.0 - values.exp().sum(1))


@mutant("ex07.keep_best", "one minus")
def best_with_clamped_difference(logits, k):
    log_p = F.log_softmax(logits, 1)
    values, ids = log_p.topk(k, 1)
    return ids, values, torch.log((1.0 - values.exp().sum(1)).clamp(min=1e-9))


@mutant("ex07.keep_best", "softmax, then log")
def best_with_summed_softmax(logits, k):
    p = torch.softmax(logits, 1)
    ids, log_probs, _ = best_with_mask(logits, k)
    return ids, log_probs, p.scatter(1, ids, 0).sum(1).log()


@mutant("ex07.keep_best", "rest without logarithm")
def best_with_plain_rest(logits, k):
    ids, log_probs, rest = best_with_mask(logits, k)
    return ids, log_probs, rest.exp()


@mutant("ex07.keep_best", "sum of logarithms")
def best_with_added_logarithms(logits, k):
    ordered, ids = F.log_softmax(logits, 1).sort(1, descending=True)
    return ids[:, :k], ordered[:, :k], ordered[:, k:].sum(1)


@mutant("ex07.keep_best", "rest of the logits")
def best_with_unnormalised_rest(logits, k):
    ids, log_probs, _ = best_with_mask(logits, k)
    ordered = logits.sort(1, descending=True).values
    return ids, log_probs, ordered[:, k:].logsumexp(1)


@mutant("ex07.keep_best", "kept counted as rest")
def best_without_masking(logits, k):
    ids, log_probs, _ = best_with_mask(logits, k)
    return ids, log_probs, F.log_softmax(logits, 1).exp().sum(1).log()


@mutant("ex07.keep_best", "rest is the kept mass")
def best_with_kept_mass(logits, k):
    ids, log_probs, _ = best_with_mask(logits, k)
    return ids, log_probs, log_probs.exp().sum(1).log()


@mutant("ex07.keep_best", "least probable")
def best_from_the_front(logits, k):
    ordered, ids = F.log_softmax(logits, 1).sort(1)
    return ids[:, :k], ordered[:, :k], ordered[:, k:].logsumexp(1)


@mutant("ex07.keep_best", "ascending")
def best_from_the_end(logits, k):
    ordered, ids = F.log_softmax(logits, 1).sort(1)
    return ids[:, -k:], ordered[:, -k:], ordered[:, :-k].logsumexp(1)


# ------------------------------------------------------------------------ cached_loss


def events(log_q, indices, log_probs, log_rest):
    """log p and log q of the k + 1 events, (N, k + 1) each."""
    kept = torch.zeros_like(log_q, dtype=torch.bool).scatter_(1, indices, True)
    log_s = log_q.masked_fill(kept, -torch.inf).logsumexp(1, keepdim=True)
    log_q = torch.cat([log_q.gather(1, indices), log_s], 1)
    return torch.cat([log_probs, log_rest[:, None]], 1), log_q


def kl_of(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(1)


def of_real(student_logits, labels):
    return student_logits[labels != -100].log_softmax(1)


@mutant("ex07.cached_loss", "one minus")
def loss_with_what_is_left_of_one(z, labels, indices, log_probs, log_rest):
    log_q = z[labels != -100].log_softmax(1).gather(1, indices)
    rest = (1 - log_q.exp().sum(1, keepdim=True)).log()
    log_p = torch.cat([log_probs, log_rest[:, None]], 1)
    return kl_of(log_p, torch.cat([log_q, rest], 1)).mean()


@mutant("ex07.cached_loss", "pads counted")
def loss_of_the_first_positions(z, labels, indices, log_probs, log_rest):
    log_q = z.reshape(-1, z.shape[-1])[: len(indices)].log_softmax(1)
    return kl_of(*events(log_q, indices, log_probs, log_rest)).mean()


@mutant("ex07.cached_loss", "column by column")
def loss_by_columns(z, labels, indices, log_probs, log_rest):
    log_q = torch.cat([z[labels[:, t] != -100, t] for t in range(z.shape[1])])
    return kl_of(*events(log_q.log_softmax(1), indices, log_probs, log_rest)).mean()


@mutant("ex07.cached_loss", "divided by sentences")
def loss_batchmean(z, labels, indices, log_probs, log_rest):
    values = kl_of(*events(of_real(z, labels), indices, log_probs, log_rest))
    return values.sum() / z.shape[0]


@mutant("ex07.cached_loss", "divided by positions")
def loss_over_the_rectangle(z, labels, indices, log_probs, log_rest):
    values = kl_of(*events(of_real(z, labels), indices, log_probs, log_rest))
    whole = torch.zeros(labels.shape)
    whole[labels != -100] = values
    return whole.mean()


@mutant("ex07.cached_loss", "mean over events")
def loss_with_kldivloss_mean(z, labels, indices, log_probs, log_rest):
    log_p, log_q = events(of_real(z, labels), indices, log_probs, log_rest)
    return torch.nn.KLDivLoss(reduction="none", log_target=True)(log_q, log_p).mean()


@mutant("ex07.cached_loss", "not divided")
def loss_summed(z, labels, indices, log_probs, log_rest):
    return kl_of(*events(of_real(z, labels), indices, log_probs, log_rest)).sum()


@mutant("ex07.cached_loss", "bucket left out")
def loss_of_the_kept(z, labels, indices, log_probs, log_rest):
    log_q = of_real(z, labels).gather(1, indices)
    return kl_of(log_probs, log_q).mean()


@mutant("ex07.cached_loss", "bucket left out")
def loss_with_the_teachers_rest_on_both_sides(z, labels, indices, log_probs, log_rest):
    log_q = of_real(z, labels).gather(1, indices)
    log_p = torch.cat([log_probs, log_rest[:, None]], 1)
    return kl_of(log_p, torch.cat([log_q, log_rest[:, None]], 1)).mean()


@mutant("ex07.cached_loss", "renormalised")
def loss_renormalised(z, labels, indices, log_probs, log_rest):
    p = log_probs.exp() / log_probs.exp().sum(1, keepdim=True)
    return kl_of(p.log(), of_real(z, labels).gather(1, indices)).mean()


@mutant("ex07.cached_loss", "renormalised")
def loss_of_kept_logits(z, labels, indices, log_probs, log_rest):
    log_q = z[labels != -100].gather(1, indices).log_softmax(1)
    return kl_of(log_probs.log_softmax(1), log_q).mean()


@mutant("ex07.cached_loss", "spread evenly")
def loss_spread(z, labels, indices, log_probs, log_rest):
    log_q = of_real(z, labels)
    each = log_rest - math.log(log_q.shape[1] - indices.shape[1])
    log_p = each[:, None].repeat(1, log_q.shape[1]).scatter(1, indices, log_probs)
    return kl_of(log_p, log_q).mean()


@mutant("ex07.cached_loss", "swapped")
def loss_swapped(z, labels, indices, log_probs, log_rest):
    log_p, log_q = events(of_real(z, labels), indices, log_probs, log_rest)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


@mutant("ex07.cached_loss", "entropy kept")
def loss_cross_entropy(z, labels, indices, log_probs, log_rest):
    log_p, log_q = events(of_real(z, labels), indices, log_probs, log_rest)
    return -(log_p.exp() * log_q).sum() / len(log_p)


@mutant("ex07.cached_loss", "student's favourites")
def loss_of_both_bests(z, labels, indices, log_probs, log_rest):
    log_q = of_real(z, labels)
    own = log_q.topk(indices.shape[1]).indices
    return kl_of(*events(log_q, own, log_probs, log_rest)).mean()


@mutant("ex07.cached_loss", "no gradient")
def loss_under_no_grad(z, labels, indices, log_probs, log_rest):
    with torch.no_grad():
        return kl_of(*events(of_real(z, labels), indices, log_probs, log_rest)).mean()


# ---------------------------------------------------------------------------- look_up


@mutant("ex07.look_up", "by position")
def answers_from_the_front(batch, rows, lengths, answers):
    counts = dict(zip(rows, lengths, strict=True))
    return answers[: sum(counts[pair] for pair in batch)]


@mutant("ex07.look_up", "by position")
def answers_of_the_first_rows(batch, rows, lengths, answers):
    return torch.cat(answers.split(lengths)[: len(batch)])


@mutant("ex07.look_up", "by source alone")
def answers_by_source(batch, rows, lengths, answers):
    found = {}
    for (source, _), part in zip(rows, answers.split(lengths), strict=True):
        found[source] = part
    return torch.cat([found[source] for source, _ in batch])


@mutant("ex07.look_up", "by source alone")
def answers_by_first_source(batch, rows, lengths, answers):
    parts = answers.split(lengths)
    sources = [source for source, _ in rows]
    return torch.cat([parts[sources.index(source)] for source, _ in batch])


@mutant("ex07.look_up", "one answer a row")
def answers_by_row_number(batch, rows, lengths, answers):
    numbers = {pair: n for n, pair in enumerate(rows)}
    return torch.stack([answers[numbers[pair]] for pair in batch])


@mutant("ex07.look_up", "order of the cache")
def answers_by_filtering(batch, rows, lengths, answers):
    parts = zip(rows, answers.split(lengths), strict=True)
    return torch.cat([part for pair, part in parts if pair in set(batch)])


@mutant("ex07.look_up", "duplicates dropped")
def answers_of_distinct(batch, rows, lengths, answers):
    parts = dict(zip(rows, answers.split(lengths), strict=True))
    return torch.cat(list({pair: parts[pair] for pair in batch}.values()))


@mutant("ex07.look_up", "next row")
def answers_of_neighbours(batch, rows, lengths, answers):
    begins = dict(zip(rows, itertools.accumulate(lengths), strict=True))
    counts = dict(zip(rows, lengths, strict=True))
    return torch.cat([answers[begins[p] :][: counts[p]] for p in batch])


@mutant("ex07.look_up", "rows of one length")
def answers_in_equal_blocks(batch, rows, lengths, answers):
    found = []
    for pair in batch:
        n = rows.index(pair)
        found.append(answers[n * lengths[n] : (n + 1) * lengths[n]])
    return torch.cat(found)


@mutant("ex07.look_up", "end left out")
def answers_without_the_end(batch, rows, lengths, answers):
    parts = dict(zip(rows, answers.split(lengths), strict=True))
    return torch.cat([parts[pair][:-1] for pair in batch])


@mutant("ex07.look_up", "unknown skipped")
def answers_of_the_known(batch, rows, lengths, answers):
    parts = dict(zip(rows, answers.split(lengths), strict=True))
    return torch.cat([parts[pair] for pair in batch if pair in parts])


# ----------------------------------------------------------------------- steps_within


def counted(count, enough):
    """Steps until enough(read, budget)."""

    def steps(batches, budget):
        read = 0
        for step, labels in enumerate(itertools.cycle(batches), 1):
            read += count(labels)
            if enough(read, budget):
                return step

    return steps


def tokens_of(labels):
    return int((labels >= 0).sum())


def stop_before(batches, budget):
    read = steps = 0
    while True:
        more = tokens_of(batches[steps % len(batches)])
        if read + more > budget:
            return steps
        read, steps = read + more, steps + 1


def stop_with_the_epoch(batches, budget):
    read = 0
    for step, labels in enumerate(batches, 1):
        read += tokens_of(labels)
        if read >= budget:
            return step
    return len(batches)


def stop_after_the_epoch(batches, budget):
    read = steps = 0
    while read < budget:
        for labels in batches:
            read += tokens_of(labels)
            steps += 1
    return steps


mutants(
    "ex07.steps_within",
    pads_counted=counted(lambda y: y.shape[0] * y.shape[1], lambda a, b: a >= b),
    sentences_counted=counted(lambda y: y.shape[0], lambda a, b: a >= b),
    steps_counted=lambda batches, budget: len(range(budget)),
    one_epoch=stop_with_the_epoch,
    stops_before=stop_before,
    one_step_too_many=counted(tokens_of, lambda a, b: a > b),
    mean_batch=lambda batches, budget: math.ceil(
        budget * len(batches) / sum(map(tokens_of, batches))
    ),
    first_batch=lambda batches, budget: -(-budget // tokens_of(batches[0])),
    whole_epochs=stop_after_the_epoch,
    end_not_counted=counted(lambda y: tokens_of(y) - len(y), lambda a, b: a >= b),
)

# ------------------------------------------------------------------ distillation_step


def each_kl(student, teacher, inputs, mask):
    """A KL for each real position, the teacher left alone."""
    with torch.no_grad():
        p = teacher(inputs).softmax(1)
    log_q = student(inputs).log_softmax(1)
    return F.kl_div(log_q, p, reduction="none").sum(1)[mask]


def usual(student, teacher, micro_batches, optimizer, kl=each_kl):
    """The right step; returns the share of each micro-batch."""
    optimizer.zero_grad()
    tokens = sum(mask.sum() for _, mask in micro_batches)
    shares = []
    for inputs, mask in micro_batches:
        loss = kl(student, teacher, inputs, mask).sum() / tokens
        loss.backward()
        shares.append(loss.item())
    optimizer.step()
    return shares


@mutant("ex07.distillation_step", "modes untouched")
def step_without_modes(student, teacher, micro_batches, optimizer):
    return sum(usual(student, teacher, micro_batches, optimizer))


@mutant("ex07.distillation_step", "teacher in train mode")
def step_with_a_busy_teacher(student, teacher, micro_batches, optimizer):
    student.train()
    return sum(usual(student, teacher, micro_batches, optimizer))


@mutant("ex07.distillation_step", "student in eval mode")
def step_with_a_sleepy_student(student, teacher, micro_batches, optimizer):
    student.eval()
    teacher.eval()
    return sum(usual(student, teacher, micro_batches, optimizer))


def one_loss(of):
    """A step on one loss, made of the KLs of each micro-batch."""

    def step(student, teacher, micro_batches, optimizer):
        student.train(), teacher.eval(), optimizer.zero_grad()
        loss = of([each_kl(student, teacher, x, m) for x, m in micro_batches])
        loss.backward()
        optimizer.step()
        return loss

    return step


mutants(
    "ex07.distillation_step",
    mean_of_means=one_loss(lambda kls: sum(kl.mean() for kl in kls)),
    not_divided=one_loss(lambda kls: torch.cat(kls).sum()),
)
mutant("ex07.distillation_step", "divided by micro-batches")(
    one_loss(lambda kls: torch.stack([kl.sum() for kl in kls]).mean())
)


@mutant("ex07.distillation_step", "old gradients")
def step_without_zeroing(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()
    kls = [each_kl(student, teacher, x, m) for x, m in micro_batches]
    loss = torch.cat(kls).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


@mutant("ex07.distillation_step", "last micro-batch only")
def step_zeroing_inside(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()
    tokens, total = sum(m.sum() for _, m in micro_batches), 0.0
    for x, m in micro_batches:
        optimizer.zero_grad()
        loss = each_kl(student, teacher, x, m).sum() / tokens
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@mutant("ex07.distillation_step", "mean of means")
def step_of_means(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval(), optimizer.zero_grad()
    total = 0.0
    for x, m in micro_batches:
        loss = each_kl(student, teacher, x, m).mean() / len(micro_batches)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@mutant("ex07.distillation_step", "step after each")
def step_every_time(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()
    tokens, total = sum(m.sum() for _, m in micro_batches), 0.0
    for x, m in micro_batches:
        loss = each_kl(student, teacher, x, m).sum() / tokens
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


@mutant("ex07.distillation_step", "pads counted")
def step_without_the_mask(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval(), optimizer.zero_grad()
    x = torch.cat([inputs for inputs, _ in micro_batches])
    loss = each_kl(student, teacher, x, slice(None)).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


@mutant("ex07.distillation_step", "gradient into the teacher")
def step_with_a_learning_teacher(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()

    def kl(student, teacher, inputs, mask):
        log_p = teacher(inputs).log_softmax(1)
        log_q = student(inputs).log_softmax(1)
        return (log_p.exp() * (log_p - log_q)).sum(1)[mask]

    return sum(usual(student, teacher, micro_batches, optimizer, kl))


@mutant("ex07.distillation_step", "swapped")
def step_swapped(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()

    def kl(student, teacher, inputs, mask):
        with torch.no_grad():
            log_p = teacher(inputs).log_softmax(1)
        q = student(inputs).softmax(1)
        return (q * (q.log() - log_p)).sum(1)[mask]

    return sum(usual(student, teacher, micro_batches, optimizer, kl))


@mutant("ex07.distillation_step", "entropy kept")
def step_of_cross_entropy(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()

    def kl(student, teacher, inputs, mask):
        with torch.no_grad():
            p = teacher(inputs).softmax(1)
        return F.cross_entropy(student(inputs), p, reduction="none")[mask]

    return sum(usual(student, teacher, micro_batches, optimizer, kl))


@mutant("ex07.distillation_step", "last loss")
def step_that_tells_the_last(student, teacher, micro_batches, optimizer):
    student.train(), teacher.eval()
    return usual(student, teacher, micro_batches, optimizer)[-1]
