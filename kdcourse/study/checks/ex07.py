"""Checks of lesson 07: what a cache keeps, where its answers belong, and one step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .core import Case, Exercise, Misconception

IGNORE = -100


def _random(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- cache_bytes ----------------------------------------------------------------


def _cache_bytes(tokens: int, k: int, vocabulary_size: int) -> int:
    largest_id = vocabulary_size - 1
    id_bytes = 2 if largest_id <= 32_767 else 4
    return tokens * (k * (id_bytes + 2) + 2)


def _bytes_cases() -> list[Case]:
    def case(name: str, tokens: int, k: int, size: int) -> Case:
        return Case(name, {"tokens": tokens, "k": k, "vocabulary_size": size})

    return [
        case("one token, k = 8, V = 4,000: 34 bytes", 1, 8, 4_000),
        case("a million tokens, k = 16", 1_000_000, 16, 4_000),
        case("k = 1", 250, 1, 8_000),
        case("the largest id is 32,767", 10, 4, 32_768),
        case("the largest id is 32,768", 10, 4, 32_769),
        case("V = 50,000", 1_000, 8, 50_000),
        case("V = 250,000", 1_000, 8, 250_000),
    ]


def _bytes(
    per_entry: int = 2, rest: int = 2, most: int = 32_768, wide: int = 4
) -> Callable:
    def wrong(tokens: int, k: int, vocabulary_size: int) -> int:
        id_bytes = 2 if vocabulary_size <= most else wide
        return tokens * (k * (id_bytes + per_entry) + rest)

    return wrong


cache_bytes = Exercise(
    name="ex07.cache_bytes",
    call="cache_bytes(tokens, k, vocabulary_size)",
    reference=_cache_bytes,
    cases=_bytes_cases,
    difficulty=1,
    minutes=5,
    hints=(
        "Count one token first. What is kept k times, and what once?",
        "An entry is an id and a log-probability. The id takes 2 bytes where all ids "
        "fit into int16, whose largest number is 32,767. Ids run from 0 to V - 1.",
        "tokens * (k * (id_bytes + 2) + 2), with id_bytes 2 or 4.",
    ),
    misconceptions=(
        Misconception(
            "ids left out",
            "The ids are missing. A probability alone does not say of which token it "
            "is: keep k ids as well.",
            lambda tokens, k, vocabulary_size: tokens * (2 * k + 2),
        ),
        Misconception(
            "missing mass left out",
            "The missing mass is missing: 2 more bytes a token. It cannot be computed "
            "from the k entries afterwards; their rounding is larger.",
            _bytes(rest=0),
        ),
        Misconception(
            "missing mass for each entry",
            "The missing mass is counted k times. It is one number for each token.",
            lambda tokens, k, vocabulary_size: (
                tokens * k * ((2 if vocabulary_size <= 32_768 else 4) + 4)
            ),
        ),
        Misconception(
            "unsigned",
            "int16 has a sign: half of its 65,536 numbers are below 0. Its largest is "
            "32,767.",
            _bytes(most=65_536),
            _bytes(most=65_535),
        ),
        Misconception(
            "off by one",
            "Off by one at the edge: the ids of V tokens run from 0 to V - 1, and "
            "32,767 itself fits into int16.",
            _bytes(most=32_767),
            _bytes(most=32_769),
        ),
        Misconception(
            "always 16 bits",
            "Two bytes for every id: in a large vocabulary ids above 32,767 overflow, "
            "and become negative without a word.",
            _bytes(wide=2),
        ),
        Misconception(
            "always 32 bits",
            "Four bytes for every id. Where all of them fit into int16, two do.",
            _bytes(most=0),
        ),
        Misconception(
            "float32",
            "Four bytes for a log-probability. float16 takes two, and rounds by less "
            "than a thousandth.",
            _bytes(per_entry=4),
            _bytes(per_entry=4, rest=4),
        ),
        Misconception(
            "bits",
            "These are bits. A byte has 8 of them.",
            lambda tokens, k, vocabulary_size: (
                8 * _cache_bytes(tokens, k, vocabulary_size)
            ),
        ),
        Misconception(
            "whole vocabulary",
            "This counts a number for each of the V tokens: the dense cache. A top-k "
            "cache keeps k of them.",
            lambda tokens, k, vocabulary_size: tokens * vocabulary_size * 4,
            lambda tokens, k, vocabulary_size: tokens * vocabulary_size * 2,
        ),
    ),
)

# --- keep_best ------------------------------------------------------------------


def _keep_best(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    log_p = logits.log_softmax(-1)
    order = log_p.argsort(dim=-1, descending=True)
    sorted_log_p = log_p.gather(-1, order)
    rest = sorted_log_p[:, k:].logsumexp(-1)
    return order[:, :k], sorted_log_p[:, :k], rest


def _keep_cases() -> list[Case]:
    def case(name: str, rows: list[list[float]] | Tensor, k: int) -> Case:
        return Case(name, {"logits": torch.as_tensor(rows), "k": k})

    lesson = torch.tensor([[0.7, 0.2, 0.06, 0.04]]).log() + 3.0
    barred = _random(3, 2, 6)
    barred[0, 1] = barred[1, 5] = -torch.inf
    sure = [[3.0, 40.0, 0.5, 1.0, -2.0], [1.0, 0.0, 4.0, 3.0, 2.0]]
    very_sure = [[0.0, 300.0, -5.0, 1.0], [2.0, 1.0, 3.0, 0.0]]
    return [
        case("0.7, 0.2 and two more; k = 2", lesson, 2),
        case("k = 3 of 7, five tokens", _random(1, 5, 7), 3),
        case("k = 1", _random(2, 3, 5), 1),
        case("tokens that cannot be said (-inf)", barred, 2),
        case("a teacher that is sure: the rest is 1e-16", sure, 1),
        case("a teacher that is surer still", very_sure, 2),
    ]


def _others(values: Tensor, indices: Tensor, blank: float) -> Tensor:
    return values.scatter(-1, indices, blank)


def _kept(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """All log p, and the k best with their ids."""
    log_p = logits.log_softmax(-1)
    values, indices = log_p.topk(k)
    return log_p, values, indices


def _rest(formula: Callable) -> Callable:
    """A wrong log_rest from (log p, kept log p, their ids); the entries are right."""

    def wrong(logits: Tensor, k: int):
        log_p, values, indices = _kept(logits, k)
        return indices, values, formula(log_p, values, indices)

    return wrong


def _entries(formula: Callable) -> Callable:
    """Wrong kept numbers from (logits, k, the ids); ids and rest are right."""

    def wrong(logits: Tensor, k: int):
        indices, _, rest = _keep_best(logits, k)
        return indices, formula(logits, indices), rest

    return wrong


def _keep_renormalised(logits: Tensor, k: int):
    values, indices = logits.topk(k)
    rest = _others(logits.log_softmax(-1), indices, -torch.inf).logsumexp(-1)
    return indices, values.log_softmax(-1), rest


def _keep_worst(logits: Tensor, k: int):
    log_p = logits.log_softmax(-1)
    values, indices = log_p.topk(k, largest=False)
    return indices, values, _others(log_p, indices, -torch.inf).logsumexp(-1)


def _keep_ascending(logits: Tensor, k: int):
    indices, values, rest = _keep_best(logits, k)
    return indices.flip(-1), values.flip(-1), rest


def _keep_renormalised_wholly(logits: Tensor, k: int):
    """The rest of what was made to sum to 1 is nothing."""
    indices, values, rest = _keep_renormalised(logits, k)
    return indices, values, torch.full_like(rest, -torch.inf)


keep_best = Exercise(
    name="ex07.keep_best",
    call="keep_best(logits, k)",
    reference=_keep_best,
    cases=_keep_cases,
    difficulty=2,
    minutes=8,
    hints=(
        "First turn the logits into log-probabilities over the *whole* vocabulary; "
        "only then choose k of them.",
        "log_p.topk(k) gives values and ids, the best first. The rest is the mass of "
        "the other tokens; 1 - Σ p rounds to 0 for a sure teacher.",
        "Set the kept entries to -inf, log_p.scatter(1, indices, float('-inf')), and "
        "take the logsumexp of what is left.",
    ),
    misconceptions=(
        Misconception(
            "renormalised",
            "The softmax was taken over the k kept entries: they sum to 1, and the "
            "rest is said to be impossible. Normalise over all tokens, then choose. "
            "(Museum, row 14.)",
            _keep_renormalised,
            _keep_renormalised_wholly,
            _entries(lambda z, ids: z.gather(-1, ids).log_softmax(-1)),
        ),
        Misconception(
            "raw logits",
            "These are raw logits. Nobody can tell later what they were to be "
            "normalised by: keep log_softmax of them.",
            _entries(lambda z, ids: z.gather(-1, ids)),
        ),
        Misconception(
            "probabilities",
            "These are probabilities. Keep their logarithms: the smallest of them "
            "would round to 0, and the loss needs logarithms anyway.",
            _entries(lambda z, ids: z.softmax(-1).gather(-1, ids)),
        ),
        Misconception(
            "one minus",
            "1 - Σ p is what rounding leaves over: 0, or noise, where the teacher is "
            "sure. Sum the other tokens, in logarithms: logsumexp.",
            _rest(lambda log_p, kept, ids: (1 - kept.exp().sum(-1)).log()),
            _rest(lambda log_p, kept, ids: (-kept.exp().sum(-1)).log1p()),
            *(
                _rest(
                    lambda log_p, kept, ids, eps=eps: (
                        (1 - kept.exp().sum(-1)).clamp_min(eps).log()
                    )
                )
                for eps in (0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
            ),
        ),
        Misconception(
            "softmax, then log",
            "The others' mass was summed from probabilities. Where the teacher is very "
            "sure they are rounded to 0, whose logarithm is -inf. Sum in logarithms: "
            "logsumexp.",
            _rest(
                lambda log_p, kept, ids: _others(log_p.exp(), ids, 0.0).sum(-1).log()
            ),
        ),
        Misconception(
            "rest without logarithm",
            "The rest is a probability here; its logarithm is wanted. In float16 a "
            "mass below 6e-8 would be 0.",
            _rest(
                lambda log_p, kept, ids: (
                    _others(log_p, ids, -torch.inf).logsumexp(-1).exp()
                )
            ),
            _rest(lambda log_p, kept, ids: 1 - kept.exp().sum(-1)),
            _rest(lambda log_p, kept, ids: _others(log_p.exp(), ids, 0.0).sum(-1)),
        ),
        Misconception(
            "sum of logarithms",
            "The others' logarithms were added: that is the logarithm of their "
            "*product*. Masses are added: logsumexp.",
            _rest(lambda log_p, kept, ids: _others(log_p, ids, 0.0).sum(-1)),
        ),
        Misconception(
            "rest of the logits",
            "The rest is the logsumexp of raw logits. Take log_softmax first, or "
            "subtract the logsumexp of all.",
            lambda logits, k: (
                *_keep_best(logits, k)[:2],
                _others(logits, logits.topk(k).indices, -torch.inf).logsumexp(-1),
            ),
        ),
        Misconception(
            "kept counted as rest",
            "The kept tokens are part of the rest here. Take them out first; the mass "
            "of all tokens is 1.",
            _rest(lambda log_p, kept, ids: log_p.logsumexp(-1)),
        ),
        Misconception(
            "rest is the kept mass",
            "log_rest is the mass that was kept. Wanted is the mass that was not.",
            _rest(lambda log_p, kept, ids: kept.logsumexp(-1)),
        ),
        Misconception(
            "least probable",
            "These are the k least probable tokens.",
            _keep_worst,
        ),
        Misconception(
            "ascending",
            "The right tokens, in the wrong order: the most probable stands first.",
            _keep_ascending,
        ),
    ),
)

# --- cached_loss ----------------------------------------------------------------


def _cached_loss(student_logits, labels, indices, log_probs, log_rest) -> Tensor:
    total, n = 0.0, 0
    for row, targets in zip(student_logits, labels.tolist(), strict=True):
        for z, label in zip(row, targets, strict=True):
            if label == IGNORE:
                continue
            log_q = z.log_softmax(-1)
            kept = indices[n].tolist()
            others = [v for v in range(len(z)) if v not in kept]
            log_s = log_q[others].logsumexp(-1)
            terms = log_probs[n].exp() * (log_probs[n] - log_q[kept])
            total = total + terms.sum() + log_rest[n].exp() * (log_rest[n] - log_s)
            n += 1
    return total / n


def _loss_cases() -> list[Case]:
    def case(name: str, lengths: list[int], size: int, k: int, seed: int) -> Case:
        labels = torch.full((len(lengths), max(lengths)), IGNORE)
        for row, length in enumerate(lengths):
            labels[row, :length] = torch.arange(length) % size
        teacher = _random(seed, sum(lengths), size)
        indices, log_probs, log_rest = _keep_best(teacher, k)
        return Case(
            name,
            {
                "student_logits": _random(seed + 50, *labels.shape, size),
                "labels": labels,
                "indices": indices,
                "log_probs": log_probs,
                "log_rest": log_rest,
            },
        )

    equal = case("the student is its teacher: 0", [2, 2], 5, 2, 5)
    teacher = _random(5, 4, 5)
    equal.arguments["student_logits"] = teacher.reshape(2, 2, 5)
    sure = Case(
        "a student that is sure: its rest is 1e-16",
        {
            "student_logits": torch.tensor([[[40.0, 0.0, 1.0, 2.0, 3.0]]]),
            "labels": torch.tensor([[0]]),
            "indices": torch.tensor([[0]]),
            "log_probs": torch.tensor([[0.8]]).log(),
            "log_rest": torch.tensor([0.2]).log(),
        },
    )
    return [
        case("one sentence, no pads", [3], 5, 2, 1),
        case("two sentences, pads behind the first", [2, 4], 6, 2, 2),
        case("three sentences, k = 1", [3, 1, 2], 7, 1, 3),
        case("three sentences, pads behind two", [4, 2, 3], 9, 4, 4),
        equal,
        sure,
    ]


def _value_and_slope(function: Callable, arguments: tuple) -> dict:
    """The loss, and its gradient in the student's logits."""
    logits, *others = arguments
    leaf = logits.clone().requires_grad_()
    loss = function(leaf, *others)
    if not isinstance(loss, Tensor) or loss.dim():
        return {"loss": loss, "gradient": torch.zeros_like(logits)}
    if loss.requires_grad:
        (slope,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        slope = torch.zeros_like(logits) if slope is None else slope
    else:
        slope = torch.zeros_like(logits)
    return {"loss": loss.detach(), "gradient": slope}


def _terms(log_q, indices, log_probs, log_rest) -> tuple[Tensor, Tensor]:
    """Kept terms (N, k) and the bucket's (N,) of log q (N, V)."""
    log_s = log_q.scatter(-1, indices, -torch.inf).logsumexp(-1)
    kept = log_probs.exp() * (log_probs - log_q.gather(-1, indices))
    return kept, log_rest.exp() * (log_rest - log_s)


def _per_token(log_q, indices, log_probs, log_rest) -> Tensor:
    kept, bucket = _terms(log_q, indices, log_probs, log_rest)
    return kept.sum(-1) + bucket


def _word(
    rows: Callable | None = None,
    each: Callable = _per_token,
    divide: Callable | None = None,
) -> Callable:
    """A loss that picks rows, scores each token and divides in its own way."""

    def loss(student_logits, labels, indices, log_probs, log_rest):
        pick = rows or (lambda z, y: z[y != IGNORE])
        log_q = pick(student_logits, labels).log_softmax(-1)
        values = each(log_q, indices, log_probs, log_rest)
        by = len(indices) if divide is None else divide(labels, indices)
        return values.sum() / by

    return loss


def _renormalised(log_q, indices, log_probs, log_rest):
    log_p = log_probs.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q.gather(-1, indices))).sum(-1)


def _both_renormalised(log_q, indices, log_probs, log_rest):
    log_p = log_probs.log_softmax(-1)
    log_q = log_q.gather(-1, indices).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _reverse(log_q, indices, log_probs, log_rest):
    log_s = log_q.scatter(-1, indices, -torch.inf).logsumexp(-1)
    kept_q = log_q.gather(-1, indices)
    kept = (kept_q.exp() * (kept_q - log_probs)).sum(-1)
    return kept + log_s.exp() * (log_s - log_rest)


def _cross_entropy(log_q, indices, log_probs, log_rest):
    log_s = log_q.scatter(-1, indices, -torch.inf).logsumexp(-1)
    kept = (log_probs.exp() * log_q.gather(-1, indices)).sum(-1)
    return -kept - log_rest.exp() * log_s


def _own_favourites(log_q, indices, log_probs, log_rest):
    best, own = log_q.topk(indices.shape[-1])
    log_s = log_q.scatter(-1, own, -torch.inf).logsumexp(-1)
    kept = (log_probs.exp() * (log_probs - best)).sum(-1)
    return kept + log_rest.exp() * (log_rest - log_s)


def _spread(log_q, indices, log_probs, log_rest):
    share = log_rest - math.log(log_q.shape[-1] - indices.shape[-1])
    log_p = share[:, None].expand_as(log_q).scatter(-1, indices, log_probs)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _one_minus(log_q, indices, log_probs, log_rest):
    kept_q = log_q.gather(-1, indices)
    log_s = (1 - kept_q.exp().sum(-1)).log()
    kept = log_probs.exp() * (log_probs - kept_q)
    return kept.sum(-1) + log_rest.exp() * (log_rest - log_s)


def _detached(*arguments) -> Tensor:
    return _word()(*arguments).detach()


cached_loss = Exercise(
    name="ex07.cached_loss",
    call="cached_loss(student_logits, labels, indices, log_probs, log_rest)",
    reference=_cached_loss,
    cases=_loss_cases,
    observe=_value_and_slope,
    difficulty=3,
    minutes=12,
    hints=(
        "Three steps: take the student's rows at real tokens, compute one number for "
        "each of them, divide the sum once by N.",
        "student_logits[labels != -100] has the shape (N, V) and goes row by row, as "
        "the cache does. For each token the loss is a KL over k + 1 events (exercise "
        "bucket_kl of lesson 04).",
        "log_s is the logsumexp of log_q after scatter(1, indices, float('-inf')). Add "
        "exp(log_rest) * (log_rest - log_s) to the kept terms, sum, divide by N.",
    ),
    misconceptions=(
        Misconception(
            "pads counted",
            "The first N positions of the rectangle were taken, pads among them, and "
            "from the first pad on every answer is compared with a stranger. Select "
            "with labels != -100.",
            _word(rows=lambda z, y: z.flatten(0, 1)[: int((y != IGNORE).sum())]),
        ),
        Misconception(
            "column by column",
            "The real tokens were taken column by column. The cache goes row by row: "
            "first all tokens of the first sentence.",
            _word(rows=lambda z, y: z.transpose(0, 1)[(y != IGNORE).T]),
        ),
        Misconception(
            "divided by sentences",
            "The sum is divided by the number of sentences: long ones count more. "
            "Divide by the N real tokens.",
            _word(divide=lambda labels, indices: len(labels)),
        ),
        Misconception(
            "divided by positions",
            "The sum is divided by all B · L positions. Pads teach nothing and must "
            "not count: divide by the N real tokens.",
            _word(divide=lambda labels, indices: labels.numel()),
        ),
        Misconception(
            "mean over events",
            "The k + 1 terms of a token were averaged. They are weighted already: sum "
            "over the events, divide by the tokens.",
            _word(divide=lambda labels, indices: len(indices) * (indices.shape[1] + 1)),
            _word(divide=lambda labels, indices: len(indices) * indices.shape[1]),
        ),
        Misconception(
            "not divided",
            "The sum was not divided: the step would grow with the batch. Divide once "
            "by the N real tokens.",
            _word(divide=lambda labels, indices: 1),
        ),
        Misconception(
            "bucket left out",
            "The mass of all other tokens is missing. What the student puts there then "
            "costs nothing, and the loss can fall below 0.",
            _word(each=lambda *parts: _terms(*parts)[0].sum(-1)),
        ),
        Misconception(
            "renormalised",
            "The kept entries were made to sum to 1: the student is taught that the "
            "rest is impossible. Use log_probs as they are, and add the bucket. "
            "(Museum, row 14.)",
            _word(each=_renormalised),
            _word(each=_both_renormalised),
        ),
        Misconception(
            "spread evenly",
            "The missing mass was spread evenly over all other tokens. The teacher did "
            "not say so: compare it as one event.",
            _word(each=_spread),
        ),
        Misconception(
            "swapped",
            "This is the reverse KL, weighed by the student. Wanted is the forward "
            "one: the teacher's probabilities weigh all k + 1 terms.",
            _word(each=_reverse),
        ),
        Misconception(
            "entropy kept",
            "This is the cross-entropy: the right gradient, but not 0 where the "
            "student equals its teacher. Subtract the teacher's own: p (log p - log "
            "q).",
            _word(each=_cross_entropy),
        ),
        Misconception(
            "student's favourites",
            "The student's own k best tokens were compared with the teacher's k best. "
            "Ask the student about the *same* tokens: gather(1, indices).",
            _word(each=_own_favourites),
        ),
        Misconception(
            "one minus",
            "The student's rest was taken as one minus the kept mass. In float32 the "
            "rest of a sure student is then 0, and its logarithm minus infinity: take "
            "the logsumexp of the other tokens.",
            _word(each=_one_minus),
        ),
        Misconception(
            "no gradient",
            "The value is right, and no gradient reaches the student: no_grad, detach, "
            "item or numpy stands in the way. The student would learn nothing.",
            _detached,
        ),
    ),
)

# --- look_up --------------------------------------------------------------------

Pair = tuple[str, str]
UNKNOWN = "an error: a pair is not in the cache"


def _look_up(batch: list, rows: list, lengths: list, answers: Tensor) -> Tensor:
    places, begin = {}, 0
    for pair, length in zip(rows, lengths, strict=True):
        places[pair] = slice(begin, begin + length)
        begin += length
    return torch.cat([answers[places[pair]] for pair in batch])


def _look_up_observed(function: Callable, arguments: tuple):
    """An unknown pair wants an error, whichever way it says so."""
    batch, rows = arguments[:2]
    if all(pair in rows for pair in batch):
        return function(*arguments)
    try:
        return function(*arguments)
    except (LookupError, ValueError):
        return UNKNOWN


def _look_up_cases() -> list[Case]:
    rows = [
        ("open", "abrir"),
        ("open door", "abrir puerta"),
        ("bank", "banco"),
        ("bank", "orilla"),
        ("turn off", "apagar"),
        ("the light is on", "la luz está encendida"),
    ]
    lengths = [2, 3, 2, 4, 3, 6]
    answers = torch.arange(2.0 * sum(lengths)).reshape(-1, 2).sqrt()

    def case(name: str, numbers: list[int], *more: Pair) -> Case:
        return Case(
            name,
            {
                "batch": [rows[n] for n in numbers] + list(more),
                "rows": rows,
                "lengths": lengths,
                "answers": answers,
            },
        )

    return [
        case("the first two rows, in their order", [0, 1]),
        case("shuffled", [4, 0, 5, 1]),
        case("one source with two translations", [3, 2]),
        case("one row alone", [5]),
        case("the same pair twice", [1, 4, 1]),
        case("a pair that was never cached: an error", [0], ("open", "abierto")),
    ]


def _begins(lengths: list[int]) -> list[int]:
    return [sum(lengths[:n]) for n in range(len(lengths))]


def _found(choose: Callable) -> Callable:
    """Answers row by row, from choose(pair, rows): the number of a row, or None."""

    def look_up(batch: list, rows: list, lengths: list, answers: Tensor) -> Tensor:
        begins = _begins(lengths)
        numbers = [choose(pair, rows) for pair in batch]
        parts = [
            answers[begins[n] : begins[n] + lengths[n]]
            for n in numbers
            if n is not None
        ]
        return torch.cat(parts) if parts else answers[:0]

    return look_up


def _last(rows: list, source: str) -> int:
    return [n for n, pair in enumerate(rows) if pair[0] == source][-1]


def _by_position(batch, rows, lengths, answers):
    places = {pair: n for n, pair in enumerate(rows)}
    for pair in batch:
        places[pair]  # an unknown pair is noticed
    return answers[: sum(lengths[: len(batch)])]


def _by_token_count(batch, rows, lengths, answers):
    return answers[: sum(lengths[rows.index(pair)] for pair in batch)]


def _one_each(batch, rows, lengths, answers):
    return answers[[rows.index(pair) for pair in batch]]


def _cache_order(batch, rows, lengths, answers):
    numbers = sorted(rows.index(pair) for pair in batch)
    begins = _begins(lengths)
    return torch.cat([answers[begins[n] : begins[n] + lengths[n]] for n in numbers])


def _cache_order_once(batch, rows, lengths, answers):
    begins, parts = _begins(lengths), []
    for n, pair in enumerate(rows):
        if pair in batch:
            parts.append(answers[begins[n] : begins[n] + lengths[n]])
    return torch.cat(parts)


def _once(batch, rows, lengths, answers):
    return _look_up(list(dict.fromkeys(batch)), rows, lengths, answers)


def _next_row(batch, rows, lengths, answers):
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    numbers = [rows.index(pair) for pair in batch]
    return torch.cat([answers[ends[n] : ends[n] + lengths[n]] for n in numbers])


def _own_length(batch, rows, lengths, answers):
    numbers = [rows.index(pair) for pair in batch]
    return torch.cat([answers[n * lengths[n] :][: lengths[n]] for n in numbers])


def _end_left_out(batch, rows, lengths, answers):
    begins = _begins(lengths)
    numbers = [rows.index(pair) for pair in batch]
    return torch.cat([answers[begins[n] : begins[n] + lengths[n] - 1] for n in numbers])


look_up = Exercise(
    name="ex07.look_up",
    call="look_up(batch, rows, lengths, answers)",
    reference=_look_up,
    cases=_look_up_cases,
    observe=_look_up_observed,
    difficulty=2,
    minutes=8,
    hints=(
        "Where does each row begin in answers? Go through rows and lengths once and "
        "keep a running sum.",
        "A dictionary from the pair (source and target) to its slice: places[pair] = "
        "slice(begin, begin + length). An unknown pair is then an error by itself.",
        "torch.cat([answers[places[pair]] for pair in batch]).",
    ),
    misconceptions=(
        Misconception(
            "by position",
            "The first answers of the cache were taken, whatever the batch holds. That "
            "is right until the first shuffle, and then silently wrong. Look each pair "
            "up. (Museum, row 15.)",
            _by_position,
            _by_token_count,
            lambda batch, rows, lengths, answers: answers[: sum(lengths[: len(batch)])],
        ),
        Misconception(
            "by source alone",
            'The source alone does not name a row: "bank" stands there with two '
            "translations, and the teacher was asked along each of them. Use the pair.",
            _found(lambda pair, rows: [s for s, _ in rows].index(pair[0])),
            _found(lambda pair, rows: _last(rows, pair[0])),
        ),
        Misconception(
            "one answer a row",
            "One answer for each sentence. There is one for each *token*: a row has "
            "lengths[n] of them.",
            _one_each,
        ),
        Misconception(
            "order of the cache",
            "The right answers, in the cache's order. The student's logits come in the "
            "order of the batch.",
            _cache_order,
            _cache_order_once,
        ),
        Misconception(
            "duplicates dropped",
            "A pair that stands in the batch twice got its answers once. From there on "
            "all others are out of step.",
            _once,
        ),
        Misconception(
            "next row",
            "Each row got the answers of its neighbour: the running sum includes the "
            "row itself. A row begins where those *before* it end.",
            _next_row,
        ),
        Misconception(
            "rows of one length",
            "The place was computed as if all rows were as long as this one. Rows have "
            "different lengths: sum those before it.",
            _own_length,
        ),
        Misconception(
            "end left out",
            "The last answer of each row is missing: that of the end of the sentence. "
            "lengths counts it, and slices end before their second number already.",
            _end_left_out,
        ),
        Misconception(
            "unknown skipped",
            "A pair that was never cached was passed over in silence: all answers "
            "behind it belong to other tokens. Let it be an error.",
            _found(lambda pair, rows: rows.index(pair) if pair in rows else None),
        ),
    ),
)

# --- steps_within ---------------------------------------------------------------


def _steps_within(batches: list[Tensor], budget: int) -> int:
    tokens = steps = 0
    while tokens < budget:
        labels = batches[steps % len(batches)]
        tokens += int((labels != IGNORE).sum())
        steps += 1
    return steps


def _steps_cases() -> list[Case]:
    def case(name: str, budget: int, *epoch: list[int]) -> Case:
        batches = []
        for lengths in epoch:
            labels = torch.full((len(lengths), max(lengths)), IGNORE)
            for row, length in enumerate(lengths):
                labels[row, :length] = torch.arange(3, 3 + length)
            batches.append(labels)
        return Case(name, {"batches": batches, "budget": budget})

    three = ([4, 2], [3, 5, 2], [6])
    return [
        case("6, 10 and 6 tokens, a budget of 15: two steps", 15, *three),
        case("the budget is met exactly: 16", 16, *three),
        case("more than one epoch: 30", 30, *three),
        case("many epochs: 200", 200, *three),
        case("less than one batch: 5", 5, *three),
        case("one batch, again and again", 40, [7, 1, 1]),
    ]


def _stopping(count: Callable, go_on: Callable, epochs: int | None = None) -> Callable:
    """Count something a batch, while go_on(so far, of this batch, budget)."""

    def steps_within(batches: list[Tensor], budget: int) -> int:
        spent = steps = 0
        while epochs is None or steps < epochs * len(batches):
            more = count(batches[steps % len(batches)])
            if not go_on(spent, more, budget):
                break
            spent, steps = spent + more, steps + 1
        return steps

    return steps_within


def _real(labels: Tensor) -> int:
    return int((labels != IGNORE).sum())


def _below(spent: int, more: int, budget: int) -> bool:
    return spent < budget


def _of_mean(round_up: bool) -> Callable:
    def steps_within(batches: list[Tensor], budget: int) -> int:
        mean = sum(map(_real, batches)) / len(batches)
        return math.ceil(budget / mean) if round_up else round(budget / mean)

    return steps_within


def _of_first(batches: list[Tensor], budget: int) -> int:
    return math.ceil(budget / _real(batches[0]))


def _whole_epochs(batches: list[Tensor], budget: int) -> int:
    epoch = sum(map(_real, batches))
    return math.ceil(budget / epoch) * len(batches)


steps_within = Exercise(
    name="ex07.steps_within",
    call="steps_within(batches, budget)",
    reference=_steps_within,
    cases=_steps_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "Count what a student has read so far, and stop after the step that reaches "
        "the budget. What counts is real target tokens.",
        "A batch has int((labels != -100).sum()) real tokens. When the epoch is over "
        "it begins again: batches[steps % len(batches)].",
        "while tokens < budget: add the tokens of the next batch, and one step.",
    ),
    misconceptions=(
        Misconception(
            "pads counted",
            "Pads were counted: then a student stops the earlier, the worse its "
            "batches are filled. Count labels != -100.",
            _stopping(lambda labels: labels.numel(), _below),
        ),
        Misconception(
            "sentences counted",
            "Sentences were counted. The budget is in target tokens; sentences of the "
            "teacher and of people differ in length.",
            _stopping(len, _below),
        ),
        Misconception(
            "steps counted",
            "The budget was taken as a number of steps. Steps hold different numbers "
            "of tokens.",
            lambda batches, budget: budget,
        ),
        Misconception(
            "one epoch",
            "This ends with the epoch. The budget decides: begin the data again until "
            "it is spent.",
            _stopping(_real, _below, epochs=1),
        ),
        Misconception(
            "stops before",
            "This stops *before* the step that would reach the budget. One twin may "
            "then be left a batch short: go on while tokens < budget.",
            _stopping(_real, lambda spent, more, budget: spent + more <= budget),
            _stopping(_real, lambda spent, more, budget: spent + more < budget),
        ),
        Misconception(
            "one step too many",
            "When the budget is met exactly, it is spent: no further step. Go on while "
            "tokens < budget, not <=.",
            _stopping(_real, lambda spent, more, budget: spent <= budget),
        ),
        Misconception(
            "mean batch",
            "The budget was divided by a mean batch. Batches differ: count what was "
            "read.",
            _of_mean(True),
            _of_mean(False),
            lambda batches, budget: int(
                budget / (sum(map(_real, batches)) / len(batches))
            ),
        ),
        Misconception(
            "first batch",
            "All batches were taken to be as large as the first. Count each one.",
            _of_first,
        ),
        Misconception(
            "whole epochs",
            "The epoch was finished though the budget was spent. Stop in the middle of "
            "it.",
            _whole_epochs,
        ),
        Misconception(
            "end not counted",
            "The end of each sentence was not counted. It is a target token like any "
            "other, and it carries loss.",
            _stopping(lambda labels: _real(labels) - len(labels), _below),
        ),
    ),
)

# --- distillation_step ----------------------------------------------------------


class _Model(torch.nn.Module):
    """Logits (n, V) of inputs (n, d); in train mode a dropout that is always alike."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(weights.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs times weights; the first feature is dropped while training."""
        if self.training:
            kept = torch.ones(inputs.shape[-1])
            kept[0] = 0.0
            inputs = inputs * kept * 1.5
        return inputs @ self.weight


def _run_step(function: Callable, arguments: tuple) -> dict:
    """Make models and optimiser, let the function step, and look at what it left.

    The teacher comes in train mode and the student in eval mode with an old gradient,
    as a validation in between may leave them.
    """
    student, teacher = _Model(arguments[0]).eval(), _Model(arguments[1]).train()
    student.weight.grad = torch.ones_like(student.weight)
    optimizer = torch.optim.SGD(student.parameters(), lr=arguments[3])
    loss = function(student, teacher, arguments[2], optimizer)
    return {
        "loss": loss.detach() if isinstance(loss, Tensor) and not loss.dim() else loss,
        "student's weights": student.weight.detach(),
        "teacher's weights": teacher.weight.detach(),
        "teacher got a gradient": teacher.weight.grad is not None,
    }


def _step_cases() -> list[Case]:
    def case(name: str, seed: int, *masks: list[int], rate: float = 0.5) -> Case:
        batches = [
            (_random(seed + 10 + n, len(mask), 3), torch.tensor(mask) > 0)
            for n, mask in enumerate(masks)
        ]
        return Case(
            name,
            {
                "student": _random(seed, 3, 5),
                "teacher": _random(seed + 1, 3, 5),
                "micro_batches": batches,
                "optimizer": rate,
            },
        )

    return [
        case("one micro-batch without pads", 1, [1, 1, 1]),
        case("one micro-batch with pads", 2, [1, 1, 0, 1, 0]),
        case("two micro-batches of different sizes", 3, [1, 1, 1, 1, 0], [0, 1]),
        case("three micro-batches", 4, [1, 0, 0], [1, 1, 1, 1], [1, 1, 0], rate=0.2),
        case("a micro-batch of pads alone", 5, [1, 1], [0, 0], [1]),
    ]


def _kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _distillation_step(student, teacher, micro_batches, optimizer) -> float:
    student.train()
    teacher.eval()
    optimizer.zero_grad()
    tokens = sum(int(mask.sum()) for _, mask in micro_batches)
    total = 0.0
    for inputs, mask in micro_batches:
        with torch.no_grad():
            answers = teacher(inputs)[mask]
        loss = _kl(student(inputs)[mask], answers).sum() / tokens
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _step(
    student_mode: bool | None = True,
    teacher_mode: bool | None = False,
    zero: str = "once",
    each: Callable = _kl,
    divide: str = "tokens",
    pads: bool = False,
    through_teacher: bool = False,
    every: bool = False,
    told: str = "sum",
) -> Callable:
    """A step with one or another thing wrong; the defaults are right."""

    def scale(tokens: int, mask: Tensor, count: int) -> float:
        own = len(mask) if pads else int(mask.sum())
        return {
            "tokens": tokens,
            "nothing": 1,
            "means": own * count,
            "own": own,
            "count": count,
        }[divide]

    def step(student, teacher, micro_batches, optimizer):
        if student_mode is not None:
            student.train(student_mode)
        if teacher_mode is not None:
            teacher.train(teacher_mode)
        if zero == "once":
            optimizer.zero_grad()
        tokens = sum(
            len(mask) if pads else int(mask.sum()) for _, mask in micro_batches
        )
        total = last = 0.0
        for inputs, mask in micro_batches:
            if zero == "each":
                optimizer.zero_grad()
            real = torch.ones_like(mask) if pads else mask
            with torch.set_grad_enabled(through_teacher):
                answers = teacher(inputs)[real]
            summed = each(student(inputs)[real], answers).sum()
            loss = summed / scale(tokens, mask, len(micro_batches))
            loss.backward()
            last = loss.item()
            total += last
            if every:
                optimizer.step()
                if zero == "once":
                    optimizer.zero_grad()
        if not every:
            optimizer.step()
        return {"sum": total, "last": last, "mean": total / len(micro_batches)}[told]

    return step


distillation_step = Exercise(
    name="ex07.distillation_step",
    call="distillation_step(student, teacher, micro_batches, optimizer)",
    reference=_distillation_step,
    cases=_step_cases,
    observe=_run_step,
    difficulty=4,
    minutes=18,
    hints=(
        "In this order: set both modes; forget old gradients; for each micro-batch ask "
        "both models, keep the real positions, and call backward; step once.",
        "student.train(), teacher.eval(); the teacher's answer under torch.no_grad(). "
        "Count the real positions of *all* micro-batches first: each sum is divided by "
        "that one number.",
        "log_p = teacher(inputs)[mask].log_softmax(-1), log_q likewise; loss = "
        "(log_p.exp() * (log_p - log_q)).sum() / tokens; loss.backward(). After the "
        "loop optimizer.step(), and return the sum of the losses.",
    ),
    misconceptions=(
        Misconception(
            "modes untouched",
            "Neither mode was set. A validation may have left the student in eval "
            "mode, and a teacher in train mode answers with dropout. (Museum, row 12.)",
            _step(None, None),
        ),
        Misconception(
            "teacher in train mode",
            "The teacher answered in train mode, with its dropout on: noise, another "
            "each time. Call teacher.eval().",
            _step(True, None),
            _step(True, True),
        ),
        Misconception(
            "student in eval mode",
            "The student learned in eval mode, without dropout. Call student.train() "
            "at every step: a validation may have switched it off.",
            _step(None, False),
            _step(False, False),
        ),
        Misconception(
            "old gradients",
            "The gradients of an earlier step were still there, and were added. Begin "
            "with optimizer.zero_grad().",
            _step(zero="never"),
        ),
        Misconception(
            "last micro-batch only",
            "The gradients were set to zero before each micro-batch: only the last one "
            "was learned. Zero them once, before the loop.",
            _step(zero="each"),
        ),
        Misconception(
            "mean of means",
            "Each micro-batch was averaged by itself: a token in a small one counts "
            "more. Divide each sum by the real tokens of the whole step. (Museum, row "
            "16.)",
            _step(divide="means"),
            _step(divide="own", told="mean"),
            _step(divide="own"),
        ),
        Misconception(
            "step after each",
            "The optimiser stepped after every micro-batch. They are parts of one "
            "step: collect their gradients, then step once.",
            _step(every=True),
            _step(every=True, divide="own", told="mean"),
            _step(every=True, divide="own"),
            _step(every=True, divide="own", told="last"),
        ),
        Misconception(
            "not divided",
            "The sum was not divided by the number of real tokens: the step grows with "
            "the batch.",
            _step(divide="nothing"),
        ),
        Misconception(
            "divided by micro-batches",
            "The sums were divided by the number of micro-batches. Divide by the "
            "number of real tokens in all of them.",
            _step(divide="count"),
        ),
        Misconception(
            "pads counted",
            "The pads were learned, too. Keep only positions where mask is True, in "
            "the sum and in the number it is divided by.",
            _step(pads=True),
            _step(pads=True, divide="means"),
        ),
        Misconception(
            "gradient into the teacher",
            "The gradient ran into the teacher as well: twice the work, and with an "
            "optimiser over both, a teacher that learns. Ask it under torch.no_grad().",
            _step(through_teacher=True),
        ),
        Misconception(
            "swapped",
            "This is KL(Pr^s ‖ Pr^t), weighed by the student. Wanted is the forward "
            "KL: the teacher's probabilities weigh the terms.",
            _step(each=lambda z_s, z_t: _kl(z_t, z_s)),
        ),
        Misconception(
            "entropy kept",
            "The student's weights are right, but the number returned is the "
            "cross-entropy. The KL also has the teacher's log p in it, and is 0 when "
            "both agree.",
            _step(
                each=lambda z_s, z_t: -(z_t.softmax(-1) * z_s.log_softmax(-1)).sum(-1)
            ),
        ),
        Misconception(
            "last loss",
            "The step is right; returned is the share of the last micro-batch alone. "
            "Add up the losses of all.",
            _step(told="last"),
        ),
    ),
)
