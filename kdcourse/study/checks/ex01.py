"""Checks of lesson 01: from logits to probabilities, entropies and perplexities."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .core import Case, Exercise, Misconception

IGNORE = -100
INFINITY = float("inf")


def _logs(*parts: float) -> list[float]:
    """Logits whose probabilities are as these numbers; 0 bars a token."""
    return [math.log(part) if part else -INFINITY for part in parts]


def _random(*shape: int, scale: float = 2.0, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator)


def _naive(logits: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """A softmax that overflows: the mistake of many an exercise here."""
    return logits.exp() / logits.exp().sum(dim, keepdim=True)


# --- odds -----------------------------------------------------------------------


def _odds(logits: torch.Tensor, a: int, b: int, temperature: float) -> torch.Tensor:
    gap = logits[a].double() - logits[b].double()
    return torch.exp(gap / temperature).to(logits.dtype)


def _odds_cases() -> list[Case]:
    def case(name: str, logits: list[float], a: int, b: int, t: float) -> Case:
        arguments = {"logits": torch.tensor(logits), "a": a, "b": b, "temperature": t}
        return Case(name, arguments)

    return [
        case("by hand: shares of 5 and 2 have odds of 2.5", _logs(1, 2, 5), 2, 1, 1.0),
        case("the less probable one first", _logs(1, 2, 5), 0, 2, 1.0),
        case("softened, T = 2", _logs(1, 4, 25), 2, 1, 2.0),
        case("sharpened, T = 1/2", [1.0, -0.5, 2.0, 0.5], 2, 0, 0.5),
        case("logits of thousands", [5000.0, 4999.0, -5000.0], 0, 1, 1.0),
        case("both far below the best", [0.0, -400.0, -403.0], 1, 2, 3.0),
    ]


odds = Exercise(
    name="ex01.odds",
    call="odds(logits, a, b, temperature)",
    reference=_odds,
    cases=_odds_cases,
    difficulty=1,
    minutes=3,
    hints=(
        "Write Pr(a)/Pr(b) as a fraction of two fractions. What cancels?",
        "The sum over the vocabulary cancels, and e^x / e^y is e^(x - y).",
        "Divide the difference of the two logits by the temperature, then torch.exp.",
    ),
    misconceptions=(
        Misconception(
            "overflow",
            "Both powers were made, and then divided: with large logits that is "
            "infinity by infinity. Subtract first: e^x / e^y = e^(x - y).",
            lambda z, a, b, t: torch.exp(z[a] / t) / torch.exp(z[b] / t),
        ),
        Misconception(
            "by the probabilities",
            "Two probabilities, or powers of e, were divided. Where both are rounded "
            "to 0 that is 0/0. The odds need no softmax at all, just the two logits.",
            lambda z, a, b, t: (z / t).softmax(-1)[a] / (z / t).softmax(-1)[b],
        ),
        Misconception(
            "temperature forgotten",
            "The temperature makes no difference to your result. Divide the logits, or "
            "their difference, by it.",
            lambda z, a, b, t: torch.exp(z[a] - z[b]),
            lambda z, a, b, t: z.softmax(-1)[a] / z.softmax(-1)[b],
        ),
        Misconception(
            "temperature multiplied",
            "The difference was multiplied by the temperature. A higher temperature "
            "must bring the odds nearer to 1: divide.",
            lambda z, a, b, t: torch.exp((z[a] - z[b]) * t),
        ),
        Misconception(
            "temperature outside",
            "The odds were divided by the temperature after the exponential. It "
            "belongs inside: it divides logits.",
            lambda z, a, b, t: torch.exp(z[a] - z[b]) / t,
        ),
        Misconception(
            "upside down",
            "These are the odds of b to a. Asked is how many times as probable a is as "
            "b: a's logit minus b's.",
            lambda z, a, b, t: torch.exp((z[b] - z[a]) / t),
        ),
        Misconception(
            "ratio of logits",
            "Two logits were divided by each other. Their ratio means nothing: add "
            "the same number to both, and it changes. Use their difference.",
            lambda z, a, b, t: z[a] / z[b],
            lambda z, a, b, t: z[a] / z[b] / t,
            lambda z, a, b, t: torch.exp(z[a] / z[b] / t),
        ),
        Misconception(
            "log-odds",
            "This is the logarithm of the odds. Raise e to it: torch.exp.",
            lambda z, a, b, t: (z[a] - z[b]) / t,
        ),
        Misconception(
            "probability",
            "This is a probability, which is never above 1. Odds compare two: how many "
            "times as probable as b is a?",
            lambda z, a, b, t: (z / t).softmax(-1)[a],
            lambda z, a, b, t: torch.sigmoid((z[a] - z[b]) / t),
        ),
    ),
)

# --- softmax --------------------------------------------------------------------


def _softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(logits / temperature, dim=-1).exp()


def _softmax_cases() -> list[Case]:
    def case(name: str, logits: list | torch.Tensor, t: float) -> Case:
        return Case(name, {"logits": torch.as_tensor(logits), "temperature": t})

    return [
        case("by hand: one, two and five eighths", _logs(1, 4, 25), 2.0),
        case("two positions", [[0.5, -1.0, 2.0], [3.0, 0.0, -2.0]], 1.0),
        case("a batch (2, 3, 4), sharpened", _random(2, 3, 4), 0.5),
        case("a barred token (its logit is -inf)", [_logs(1, 0, 3)], 4.0),
        case(
            "ten thousand above zero, and below",
            # gaps of 20 and more: logits of this size have no third decimal in float32
            [[1e4, 9980.0, -1e4], [-10020.0, -1e4, -10030.0]],
            1.0,
        ),
    ]


def _without_keepdim(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    raised = (logits / temperature).exp()
    return raised / raised.sum(-1)


def _raised(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Powers whose largest is 1, not divided by their sum."""
    scaled = logits / temperature
    return (scaled - scaled.amax(-1, keepdim=True)).exp()


softmax = Exercise(
    name="ex01.softmax",
    call="softmax(logits, temperature)",
    reference=_softmax,
    cases=_softmax_cases,
    difficulty=2,
    minutes=8,
    hints=(
        "Four steps: divide by the temperature, subtract the largest, raise e to it, "
        "divide by the sum. Each position has its own largest logit and its own sum.",
        "amax(dim=-1, keepdim=True) and sum(dim=-1, keepdim=True) work along the "
        "vocabulary and leave a shape that can be subtracted and divided.",
        "z = logits / temperature; raised = (z - z.amax(dim=-1, keepdim=True)).exp(). "
        "One line is left.",
    ),
    misconceptions=(
        Misconception(
            "overflow",
            "With logits of ten thousand exp is infinite (and with -10,000 the sum is "
            "0), and the quotient is NaN. Subtract the largest logit of each position "
            "before exp: nothing else changes.",
            lambda z, t: _naive(z / t),
        ),
        Misconception(
            "one maximum",
            "One maximum was subtracted from all positions. Where a position lies far "
            "below it, all of its powers are 0 and the result is 0/0. Each position "
            "needs its own: amax(dim=-1, keepdim=True).",
            lambda z, t: _naive(z / t - (z / t).max()),
        ),
        Misconception(
            "keepdim forgotten",
            "A sum or a maximum along the vocabulary has lost that dimension, and no "
            "longer fits the logits. keepdim=True keeps it, with length 1.",
            _without_keepdim,
        ),
        Misconception(
            "wrong dimension",
            "The probabilities of a position do not sum to 1: the softmax runs along "
            "another dimension. The vocabulary stands last: dim=-1.",
            lambda z, t: torch.softmax(z / t, dim=0),
            lambda z, t: torch.softmax(z / t, dim=1),
            lambda z, t: torch.softmax(z / t, dim=-2),
            lambda z, t: _naive(z / t, 0),
            lambda z, t: _naive(z / t, 1),
        ),
        Misconception(
            "whole tensor",
            "The sum runs over all positions together. Each position is a distribution "
            "of its own, and must sum to 1 by itself.",
            lambda z, t: (z / t).flatten().softmax(0).view_as(z),
            lambda z, t: (z / t).exp() / (z / t).exp().sum(),
        ),
        Misconception(
            "temperature forgotten",
            "The temperature makes no difference to your result: divide the logits by "
            "it first.",
            lambda z, t: z.softmax(-1),
        ),
        Misconception(
            "temperature multiplied",
            "The logits were multiplied by the temperature: a higher one sharpens "
            "where it should soften. Divide.",
            lambda z, t: (z * t).softmax(-1),
        ),
        Misconception(
            "temperature outside",
            "The temperature was used after the softmax. It divides the logits, not "
            "the probabilities, whose sum must stay 1.",
            lambda z, t: z.softmax(-1) / t,
            lambda z, t: z.softmax(-1) ** (1 / t),
        ),
        Misconception(
            "not normalised",
            "These are powers of e that do not sum to 1. Divide by their sum.",
            _raised,
            lambda z, t: (z / t).exp(),
        ),
        Misconception(
            "logarithm",
            "These are log-probabilities. Probabilities are wanted.",
            lambda z, t: (z / t).log_softmax(-1),
        ),
    ),
)

# --- masked_softmax -------------------------------------------------------------


def _masked_softmax(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """The softmax of the allowed tokens alone, put back in their places."""
    result = torch.zeros_like(logits)
    result[..., allowed] = torch.softmax(logits[..., allowed], dim=-1)
    return result


def _masked_cases() -> list[Case]:
    def case(name: str, logits: list | torch.Tensor, allowed: list[int]) -> Case:
        arguments = {
            "logits": torch.as_tensor(logits),
            "allowed": torch.tensor(allowed, dtype=torch.bool),
        }
        return Case(name, arguments)

    return [
        case("by hand: one third and two thirds", _logs(1, 2, 5), [1, 1, 0]),
        case("two positions", _random(2, 4, seed=2), [1, 0, 1, 0]),
        case("a batch (2, 3, 5)", _random(2, 3, 5, seed=3), [0, 1, 1, 0, 1]),
        case("all are allowed", _random(2, 3, seed=4), [1, 1, 1]),
        case(
            "the barred token is the favourite, by far", [[300.0, 1.0, 0.0]], [0, 1, 1]
        ),
        case("allowed tokens of a high score", [[500.0, 498.0, 1.0]], [1, 1, 0]),
        case("allowed tokens of a very low score", [-2e4, -20001.0, 0.0], [1, 1, 0]),
    ]


def _late(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    kept = logits.softmax(-1) * allowed
    return kept / kept.sum(-1, keepdim=True)


def _filled(value: float, dim: int = -1) -> Callable:
    return lambda logits, allowed: logits.masked_fill(~allowed, value).softmax(dim)


masked_softmax = Exercise(
    name="ex01.masked_softmax",
    call="masked_softmax(logits, allowed)",
    reference=_masked_softmax,
    cases=_masked_cases,
    difficulty=2,
    minutes=6,
    hints=(
        "Bar the tokens before the softmax, while they are still scores. Which score "
        "has the probability 0?",
        "e to minus infinity is 0. logits.masked_fill(mask, value) puts a value where "
        "the mask is True, in a copy; ~allowed is True for barred tokens.",
        "logits.masked_fill(~allowed, float('-inf')), then the softmax along dim=-1.",
    ),
    misconceptions=(
        Misconception(
            "zero as score",
            "Barred tokens got the logit 0. That is a score like any other, often a "
            "good one. Minus infinity is the score of what cannot be said.",
            _filled(0.0),
        ),
        Misconception(
            "zeroed afterwards",
            "The probabilities of barred tokens were set to 0 after the softmax, and "
            "what is left no longer sums to 1. Bar them before it.",
            lambda z, allowed: z.softmax(-1) * allowed,
        ),
        Misconception(
            "renormalised too late",
            "You take the softmax of all, and share out what is left. When a barred "
            "token holds nearly everything, what is left is rounded to 0, and 0/0 is "
            "NaN. Bar before the softmax.",
            _late,
        ),
        Misconception(
            "inverted",
            "The wrong ones are barred: allowed is True for tokens that may be said, "
            "so fill where it is False (~allowed).",
            lambda z, allowed: _masked_softmax(z, ~allowed),
            lambda z, allowed: z.masked_fill(allowed, -INFINITY).softmax(-1),
        ),
        Misconception(
            "not low enough",
            "The score given to barred tokens is low, but not low enough: an allowed "
            "token can score lower still. Use minus infinity.",
            *[_filled(value) for value in (-1.0, -10.0, -100.0, -1e3, -9999.0, -1e4)],
        ),
        Misconception(
            "infinity times zero",
            "0 times minus infinity is NaN, so multiplying infinity with a mask spoils "
            "the allowed tokens. Use masked_fill or torch.where: they choose, they "
            "do not multiply.",
            lambda z, allowed: (z + (~allowed) * -INFINITY).softmax(-1),
        ),
        Misconception(
            "removed",
            "The barred tokens are gone from the result. Keep their places, with the "
            "probability 0: a token's id is its place.",
            lambda z, allowed: z[..., allowed].softmax(-1),
        ),
        Misconception(
            "wrong dimension",
            "The probabilities of a position do not sum to 1. The vocabulary stands "
            "last: dim=-1.",
            _filled(-INFINITY, 0),
            _filled(-INFINITY, 1),
            _filled(-INFINITY, -2),
        ),
        Misconception(
            "overflow",
            "exp of a large logit is infinite, of a very low one 0, and the quotient "
            "NaN. Bar first, then use torch.softmax, or subtract the largest.",
            lambda z, allowed: _naive(z.masked_fill(~allowed, -INFINITY)),
            lambda z, allowed: z.exp() * allowed / (z.exp() * allowed).sum(-1, True),
        ),
    ),
)

# --- token_log_probability ------------------------------------------------------


def _token_log_probability(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Position by position, slow and plain."""
    rows = zip(logits, tokens.tolist(), strict=True)
    return torch.stack([row[token] - torch.logsumexp(row, 0) for row, token in rows])


def _token_cases() -> list[Case]:
    def case(name: str, logits: list | torch.Tensor, tokens: list[int]) -> Case:
        arguments = {
            "logits": torch.as_tensor(logits),
            "tokens": torch.tensor(tokens),
        }
        return Case(name, arguments)

    return [
        case(
            "by hand: log(5/8) and log(1/8)",
            [_logs(1, 2, 5), _logs(1, 2, 5)],
            [2, 0],
        ),
        case("three positions", _random(3, 5, seed=5), [4, 0, 2]),
        case(
            "tokens that are next to impossible",
            [[0.0, -200.0, -1.0], [1e4, 0.0, 9999.0], [-50.0, 40.0, 3.0]],
            [1, 1, 0],
        ),
        case("a sure thing, of a high score", [[1e3, 980.0], [0.0, 0.0]], [0, 1]),
        case("a token that is barred", [_logs(1, 0, 3), _logs(2, 0, 2)], [1, 2]),
    ]


def _pick(values: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return values.gather(-1, tokens[:, None])[:, 0]


def _with_floor(smallest: float) -> Callable:
    return lambda z, tokens: _pick(z.softmax(-1), tokens).add(smallest).log()


token_log_probability = Exercise(
    name="ex01.token_log_probability",
    call="token_log_probability(logits, tokens)",
    reference=_token_log_probability,
    cases=_token_cases,
    difficulty=2,
    minutes=8,
    hints=(
        "Never make the probability itself: it may be too small for a float. log of a "
        "fraction is the log of its top minus the log of its bottom.",
        "log Pr(v) = z_v - log Σ exp(z_w). torch.logsumexp(logits, dim=-1) gives the "
        "second part safely (or torch.log_softmax both at once).",
        "values.gather(-1, tokens[:, None]) picks one entry a row, with shape (N, 1); "
        "squeeze(-1) makes it (N,).",
    ),
    misconceptions=(
        Misconception(
            "log of softmax",
            "A probability below about 1e-45 is 0 in float32, and its logarithm minus "
            "infinity: the token seems impossible, and is only unlikely. Go straight "
            "to log-probabilities: log_softmax, or logits minus logsumexp.",
            lambda z, tokens: _pick(z.softmax(-1), tokens).log(),
        ),
        Misconception(
            "overflow",
            "exp of a logit of ten thousand is infinite, and the result is NaN. Use "
            "logsumexp or log_softmax, which subtract the largest logit first.",
            lambda z, tokens: _pick(_naive(z), tokens).log(),
            lambda z, tokens: _pick(z, tokens) - z.exp().sum(-1).log(),
        ),
        Misconception(
            "epsilon",
            "A small number was added to the probability, or it was clamped, to save "
            "the logarithm. Now all unlikely tokens look alike: -200 and -10,000 "
            "become the same. log_softmax needs no such help.",
            *[_with_floor(10.0**-n) for n in (*range(5, 21), 24, 30, 35, 37, 38)],
            _with_floor(torch.finfo(torch.float32).eps),
        ),
        Misconception(
            "probability",
            "These are probabilities. Their logarithms are wanted.",
            lambda z, tokens: _pick(z.softmax(-1), tokens),
        ),
        Misconception(
            "sign",
            "The sign is turned round: a log-probability is 0 or below. (Minus the "
            "log-probability is a loss.)",
            lambda z, tokens: -_token_log_probability(z, tokens),
        ),
        Misconception(
            "not normalised",
            "These are the tokens' logits. Without the sum over the vocabulary they "
            "say nothing: subtract logsumexp.",
            _pick,
        ),
        Misconception(
            "softmax twice",
            "The softmax was taken twice: probabilities went into log_softmax (or "
            "cross_entropy), which wants the logits themselves.",
            lambda z, tokens: _pick(z.softmax(-1).log_softmax(-1), tokens),
        ),
        Misconception(
            "another base",
            "The logarithm has another base. All logarithms here are natural: "
            "torch.log.",
            lambda z, tokens: _token_log_probability(z, tokens) / math.log(2),
            lambda z, tokens: _token_log_probability(z, tokens) / math.log(10),
        ),
        Misconception(
            "all pairs",
            "Every position was asked about every token. The first token belongs to "
            "the first position, the second to the second: gather picks one a row.",
            lambda z, tokens: z.log_softmax(-1)[:, tokens],
        ),
        Misconception(
            "most probable",
            "This is the most probable token of each position, whatever was asked: the "
            "argument tokens says whose log-probability is wanted.",
            lambda z, tokens: z.log_softmax(-1).amax(-1),
        ),
        Misconception(
            "one number",
            "The positions were added up or averaged. One number a position is "
            "wanted, shape (N,).",
            lambda z, tokens: _token_log_probability(z, tokens).sum(),
            lambda z, tokens: _token_log_probability(z, tokens).mean(),
        ),
        Misconception(
            "wrong dimension",
            "The softmax runs over the positions. The vocabulary stands last: dim=-1.",
            lambda z, tokens: _pick(z.log_softmax(0), tokens),
        ),
    ),
)

# --- tokens_for_mass ------------------------------------------------------------


def _tokens_for_mass(logits: torch.Tensor, mass: float) -> torch.Tensor:
    """Position by position: take the largest share until there is enough."""
    counts = []
    for row in torch.softmax(logits.double(), -1).flatten(0, -2).tolist():
        held = count = 0
        for share in sorted(row, reverse=True):
            if held < mass:
                held, count = held + share, count + 1
        counts.append(count)
    return torch.tensor(counts).view(logits.shape[:-1])


def _mass_cases() -> list[Case]:
    def case(name: str, logits: list | torch.Tensor, mass: float) -> Case:
        return Case(name, {"logits": torch.as_tensor(logits), "mass": mass})

    return [
        case("by hand: 5/8 is not 0.8, 5/8 + 2/8 is more", [_logs(2, 5, 1)], 0.8),
        case(
            "a sure position and an even one",
            [[0.0, 30.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]],
            0.7,
        ),
        case("the largest alone is more than enough", [_logs(1, 6, 3)], 0.05),
        case("barred tokens", [_logs(0, 3, 0, 2, 4), _logs(0, 0, 1, 0, 0)], 0.9),
        case("a batch (2, 3, 40)", _random(2, 3, 40, seed=6), 0.9),
        case("logits of ten thousand", [[1e4, 9999.0, 9998.0, -1e4]], 0.95),
        case("half, and half is enough", [[0.0, 0.0], [0.0, -torch.inf]], 0.5),
    ]


def _counted(shares: torch.Tensor, mass: float, order: bool | None = True):
    """How many entries, in this order, have not reached the mass yet."""
    if order is not None:
        shares = shares.sort(dim=-1, descending=order).values
    return (shares.cumsum(-1) < mass).sum(-1)


tokens_for_mass = Exercise(
    name="ex01.tokens_for_mass",
    call="tokens_for_mass(logits, mass)",
    reference=_tokens_for_mass,
    cases=_mass_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Take the largest probabilities first, and keep a running sum. How many sums "
        "are still too small?",
        "probabilities.sort(dim=-1, descending=True).values, then cumsum(dim=-1). One "
        "token more than the sums that lie below the mass is needed.",
        "(sums < mass).sum(dim=-1) counts the sums that are too small, row by row.",
    ),
    misconceptions=(
        Misconception(
            "one too few",
            "Your number of tokens holds less than the mass: these are the sums that "
            "are still too small. The token that reaches the mass counts as well.",
            lambda z, mass: _counted(z.softmax(-1), mass),
            lambda z, mass: (_counted(z.softmax(-1), mass)).clamp(min=1),
        ),
        Misconception(
            "more than the mass",
            "A sum that is exactly the mass was not enough for you. At least the mass "
            "is asked for: count the sums that are smaller, with < and not <=.",
            lambda z, mass: (
                _counted(z.softmax(-1), mass)
                + (z.softmax(-1).sort(-1, True).values.cumsum(-1) == mass).sum(-1)
                + 1
            ),
        ),
        Misconception(
            "not sorted",
            "The probabilities were added up in the order of the vocabulary. The "
            "smallest number of tokens takes the largest first: sort, falling.",
            lambda z, mass: _counted(z.softmax(-1), mass, None) + 1,
        ),
        Misconception(
            "rising order",
            "The smallest probabilities were taken first, which takes the most tokens. "
            "sort has the argument descending=True.",
            lambda z, mass: _counted(z.softmax(-1), mass, False) + 1,
        ),
        Misconception(
            "the other side",
            "You counted the sums that have reached the mass. Those that have not, and "
            "one more, are the tokens that are needed.",
            lambda z, mass: z.shape[-1] - _counted(z.softmax(-1), mass),
        ),
        Misconception(
            "logits summed",
            "Logits were added up. They are scores; probabilities have a mass. Take "
            "the softmax first.",
            lambda z, mass: _counted(z, mass) + 1,
        ),
        Misconception(
            "one by one",
            "Each probability was compared with the mass (or with what may be left "
            "out) by itself. It is their running sum that must reach it.",
            lambda z, mass: (z.softmax(-1) >= mass).sum(-1),
            lambda z, mass: (z.softmax(-1) >= 1 - mass).sum(-1),
            lambda z, mass: (z.softmax(-1) > 1 - mass).sum(-1),
            lambda z, mass: (z.softmax(-1) < mass).sum(-1) + 1,
        ),
        Misconception(
            "one number",
            "One number came back for all positions. Each position has its own.",
            lambda z, mass: _tokens_for_mass(z, mass).max(),
            lambda z, mass: _tokens_for_mass(z, mass).sum(),
            lambda z, mass: (_counted(z.softmax(-1), mass) + 1).float().mean(),
        ),
        Misconception(
            "overflow",
            "With logits of ten thousand your softmax is NaN, and no comparison with "
            "NaN is true. Use torch.softmax, or subtract the largest logit first.",
            lambda z, mass: _counted(_naive(z), mass) + 1,
        ),
        Misconception(
            "share of the vocabulary",
            "This is the number of tokens as a share of the vocabulary. The number "
            "itself is wanted.",
            lambda z, mass: _tokens_for_mass(z, mass) / z.shape[-1],
        ),
    ),
)

# --- batch_perplexity -----------------------------------------------------------


def _batch_perplexity(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Token by token, slow and plain."""
    surprises = []
    for row, row_labels in zip(logits, labels.tolist(), strict=True):
        for scores, label in zip(row, row_labels, strict=True):
            if label != IGNORE:
                surprises.append(torch.logsumexp(scores, 0) - scores[label])
    return (sum(surprises) / len(surprises)).exp()


def _perplexity_cases() -> list[Case]:
    def case(name: str, logits: list | torch.Tensor, labels: list) -> Case:
        arguments = {
            "logits": torch.as_tensor(logits),
            "labels": torch.tensor(labels),
        }
        return Case(name, arguments)

    unlikely = _random(2, 3, 4, seed=8)
    unlikely[0, 1, 2] -= 150.0
    pad = IGNORE
    return [
        case(
            "by hand: surprises of log 2 and log 8, so a perplexity of 4",
            [[_logs(4, 2, 2), _logs(6, 1, 1), _logs(1, 1, 1)]],
            [[0, 1, pad]],
        ),
        case("no pads", _random(2, 3, 5, seed=7), [[1, 4, 0], [2, 3, 0]]),
        case(
            "three lengths",
            _random(3, 5, 6, seed=9),
            [[5, 3, 1, 2, 0], [4, 0, *3 * [pad]], [3, 1, 0, *2 * [pad]]],
        ),
        case("a token next to impossible", unlikely, [[1, 2, 0], [3, 0, pad]]),
    ]


def _surprises(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log Pr of each label, 0 at pads: (B, L)."""
    log_p = logits.log_softmax(-1)
    picked = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return picked.masked_fill(labels == IGNORE, 0.0)


def _real_surprises(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _surprises(logits, labels)[labels != IGNORE]


def _per_sentence(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _surprises(logits, labels).sum(1) / (labels != IGNORE).sum(1)


def _zero_is_pad(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _batch_perplexity(logits, labels.masked_fill(labels == 0, IGNORE))


def _own_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p = logits.softmax(-1)[labels != IGNORE]
    return torch.special.entr(p).sum(-1).mean().exp()


def _from_softmax(shares: Callable) -> Callable:
    """A wrong solution from probabilities: their logarithm underflows."""

    def perplexity(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        real = labels != IGNORE
        return (-_pick(shares(logits[real]), labels[real]).log()).mean().exp()

    return perplexity


def _over_time(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    real = labels != IGNORE
    return (-_pick(logits.log_softmax(1)[real], labels[real])).mean().exp()


def _classes_in_dim_1(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What torch takes for the vocabulary where nobody tells it."""
    return torch.nn.functional.cross_entropy(logits, labels).exp()


def _shifted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _batch_perplexity(logits[:, :-1], labels[:, 1:])


def _pads_as_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _batch_perplexity(logits, labels.clamp(min=0))


batch_perplexity = Exercise(
    name="ex01.batch_perplexity",
    call="batch_perplexity(logits, labels)",
    reference=_batch_perplexity,
    cases=_perplexity_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "The surprise at a token is -log Pr(label). Average it over all real tokens of "
        "the batch, and raise e to the average, once, at the end.",
        "real = labels != -100 is a mask; logits[real] has shape (N, V) and "
        "labels[real] shape (N,). Then it is your token_log_probability.",
        "log_p = torch.log_softmax(logits[real], dim=-1).gather(1, labels[real][:, "
        "None]); what is left: minus, mean, exp.",
    ),
    misconceptions=(
        Misconception(
            "pads counted",
            "The sum of surprises was divided by all B · L positions. Pads are no "
            "tokens: more padding would make the model look better. Divide by the "
            "number of labels that are not -100.",
            lambda z, y: (_surprises(z, y).sum() / y.numel()).exp(),
        ),
        Misconception(
            "mean over sentences",
            "Each sentence was averaged first, and then the sentences. A token of a "
            "short sentence counts more than one of a long sentence. Sum over the "
            "whole batch, divide once.",
            lambda z, y: _per_sentence(z, y).exp().mean(),
            lambda z, y: _per_sentence(z, y).mean().exp(),
        ),
        Misconception(
            "mean of powers",
            "e was raised to each token's surprise before averaging: one rare token "
            "then drowns all others. Average the surprises, then raise e to the mean.",
            lambda z, y: _real_surprises(z, y).exp().mean(),
        ),
        Misconception(
            "mean of probabilities",
            "The probabilities were averaged. The mean of their logarithms is asked: a "
            "model that is once sure and wrong must be seen.",
            lambda z, y: 1 / (-_real_surprises(z, y)).exp().mean(),
        ),
        Misconception(
            "nats",
            "This is the mean surprise in nats. The perplexity is e to that: exp.",
            lambda z, y: _real_surprises(z, y).mean(),
        ),
        Misconception(
            "sign",
            "The sign of the exponent is turned round: this is the (geometric) mean "
            "probability. A perplexity is 1 or more.",
            lambda z, y: (-_real_surprises(z, y).mean()).exp(),
        ),
        Misconception(
            "mask forgotten",
            "The label -100 is a pad and no token id. Leave these positions out "
            "before you look up a label; do not turn them into token 0.",
            _pads_as_tokens,
            lambda z, y: (-z.log_softmax(-1).gather(-1, y[..., None]).mean()).exp(),
        ),
        Misconception(
            "token zero masked",
            "Token 0 was left out with the pads. Here 0 is </s>, the end of the "
            "sentence, and a token like others. Only -100 is a pad.",
            _zero_is_pad,
        ),
        Misconception(
            "divided by sentences",
            "The sum was divided by the number of sentences, so the perplexity grows "
            "with their length. Divide by the number of real tokens.",
            lambda z, y: (_surprises(z, y).sum() / len(y)).exp(),
        ),
        Misconception(
            "not divided",
            "The surprises were added up and not averaged: the result grows with the "
            "length of the text. Divide the sum by the number of real tokens.",
            lambda z, y: _surprises(z, y).sum().exp(),
        ),
        Misconception(
            "own entropy",
            "This is the surprise that the model expects of itself; the labels were "
            "not looked up. Wanted is its surprise at the labels.",
            _own_entropy,
            lambda z, y: torch.special.entr(z.softmax(-1)).sum(-1).mean().exp(),
        ),
        Misconception(
            "another base",
            "Two logarithms met: 2 was raised to natural logarithms (or e to those of "
            "base 2). Use log_softmax and exp together.",
            lambda z, y: 2 ** _real_surprises(z, y).mean(),
            lambda z, y: (_real_surprises(z, y).mean() / math.log(2)).exp(),
        ),
        Misconception(
            "log of softmax",
            "The probability of an unlikely token is rounded to 0, and its surprise "
            "becomes infinite. Use log_softmax in place of softmax and log.",
            _from_softmax(lambda z: z.softmax(-1)),
        ),
        Misconception(
            "softmax over time",
            "The softmax runs along dim=1, which is the position in the sentence. The "
            "vocabulary stands last: dim=-1. (F.cross_entropy looks for it in dim=1: "
            "flatten or transpose first.)",
            _over_time,
            _classes_in_dim_1,
        ),
        Misconception(
            "softmax twice",
            "The softmax was taken twice: probabilities went into log_softmax (or "
            "cross_entropy), which wants the logits themselves.",
            lambda z, y: _batch_perplexity(z.softmax(-1), y),
        ),
        Misconception(
            "shifted",
            "Logits and labels stand one place apart. Those at t already score the "
            "label at t: nothing has to be moved.",
            _shifted,
        ),
    ),
)

# --- temperature_for_entropy ----------------------------------------------------

CLOSE, FAR = 1e-3, 4.0  # share by which an answer may miss; times that are "far"


def _entropy(logits: torch.Tensor, temperature: float) -> float:
    """In nats and float64, with 0 log 0 = 0."""
    p = torch.softmax(logits.double() / temperature, dim=-1)
    return float(torch.special.entr(p).sum())


def _bisect(
    measure: Callable, wanted: float, low: float, high: float, turned: bool = False
) -> float:
    """The T in low..high at which ``measure``, growing with T, is ``wanted``."""
    for _ in range(80):
        middle = (low + high) / 2
        if (measure(middle) < wanted) != turned:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _temperature_for_entropy(logits: torch.Tensor, wanted: float) -> float:
    return _bisect(lambda t: _entropy(logits, t), wanted, 1e-6, 1e6)


class _Far(float):
    """A number far off: it counts as the edge it lies beyond, and is shown as it is."""

    def __new__(cls, edge: float, own: float) -> _Far:
        far = super().__new__(cls, edge)
        far.own = own
        return far

    def __format__(self, spec: str) -> str:
        return format(self.own, spec)


def _roughly(function: Callable, arguments: tuple) -> object:
    """What is compared: the temperature, where it is near the right one at all.

    A search that runs to an end of its range returns that end, which is each learner's
    own; what they share is to be far off, and on which side.
    """
    logits, wanted = arguments
    kept = logits.clone()  # in case the function changes its argument
    found = function(logits, wanted)
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError):
        return found
    right = _temperature_for_entropy(kept, wanted)
    if math.isclose(number, right, rel_tol=CLOSE):
        return right
    if number > FAR * right:
        return _Far(FAR * right, number)
    if number < right / FAR:
        return _Far(right / FAR, number)
    return number


def _temperature_cases() -> list[Case]:
    def case(name: str, logits: list | torch.Tensor, temperature: float) -> Case:
        z = torch.as_tensor(logits)
        return Case(name, {"logits": z, "wanted": round(_entropy(z, temperature), 4)})

    return [
        case("by hand: T = 2 makes eighths of it", _logs(1, 4, 25), 2.0),
        case("softened a little", _random(30, seed=10), 1.4),
        case("sharpened", _random(8, seed=11), 0.6),
        case("a barred token", _logs(3, 0, 1, 5), 1.7),
        case("hot: nearly even", [300.0, 0.0, 100.0, 200.0], 400.0),
        case("cold: logits that hardly differ", [0.1, 0.08, 0.0], 0.012),
        case("logits of ten thousand", [1e4, 9000.0, 7000.0, -1e4], 4500.0),
    ]


def _searched(measure: Callable, low: float, high: float, turned: bool = False):
    """A wrong solution: a search for ``measure(logits, T) == wanted`` in one range."""
    return lambda logits, wanted: _bisect(
        lambda t: measure(logits, t), wanted, low, high, turned
    )


def _fragile_entropy(logits: torch.Tensor, temperature: float) -> float:
    """NaN where a probability is 0: 0 times the logarithm of 0."""
    p = torch.softmax(logits / temperature, dim=-1)
    return float(-(p * p.log()).sum())


def _half_fragile_entropy(logits: torch.Tensor, temperature: float) -> float:
    """NaN where a token is barred: 0 times minus infinity."""
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    return float(-(log_p.exp() * log_p).sum())


def _nan_is_hot(measure: Callable) -> Callable:
    """The same, for a search that asks ``> wanted`` and not ``< wanted``."""

    def measured(logits: torch.Tensor, temperature: float) -> float:
        value = measure(logits, temperature)
        return -INFINITY if math.isnan(value) else value

    return measured


RANGES = ((1e-6, 1e6), (1e-4, 1e4), (1e-3, 1e5))
NARROW = [(low, high) for low in (1e-6, 0.1, 0.5) for high in (5.0, 100.0, 1e3, 1e4)]
NARROW.remove((1e-6, 1e4))  # wide enough


temperature_for_entropy = Exercise(
    name="ex01.temperature_for_entropy",
    call="temperature_for_entropy(logits, wanted)",
    reference=_temperature_for_entropy,
    observe=_roughly,
    cases=_temperature_cases,
    difficulty=4,
    minutes=15,
    hints=(
        "The entropy grows with T, so if it is too small at some T, all lower "
        "temperatures are too cold as well. Halve the range of candidates, again and "
        "again.",
        "low, high = 1e-6, 1e6; 80 times: middle = (low + high) / 2; if the entropy "
        "at middle is below wanted, low = middle, otherwise high = middle.",
        "The entropy: p = torch.softmax(logits / T, -1), then "
        "torch.special.entr(p).sum(). entr(p) is -p log p, and 0 where p is 0.",
    ),
    misconceptions=(
        Misconception(
            "wrong way",
            "The search runs to an end of its range: it keeps the wrong half, or the "
            "entropy lacks its minus sign. Where the entropy at the middle is too "
            "small, the answer is hotter: raise low. Otherwise lower high.",
            *[
                _searched(_entropy, 1e-6, high, True)
                for high in (10.0, 50.0, 100.0, 500.0, 1e3, 1e4, 1e5, 1e6)
            ],
        ),
        Misconception(
            "narrow range",
            "The answer lies outside of the range that you searched. Logits can be "
            "small or huge: begin wide (1e-6 to 1e6), or double the upper end until "
            "the entropy there is large enough.",
            *[_searched(_entropy, low, high) for low, high in NARROW],
            _searched(_entropy, 1.0, 1e6),
            _searched(_entropy, 1e-6, 1.0),
        ),
        Misconception(
            "zero times infinity",
            "Where a probability is 0, its logarithm is minus infinity and their "
            "product NaN. Every comparison with NaN is false, so the search goes "
            "astray. 0 log 0 counts as 0: torch.special.entr, or torch.where.",
            *[
                _searched(treat(measure), low, high)
                for measure in (_fragile_entropy, _half_fragile_entropy)
                for treat in (lambda measure: measure, _nan_is_hot)
                for low, high in RANGES
            ],
        ),
        Misconception(
            "inverse",
            "This is 1/T: the logits were multiplied by your number, not divided by "
            "it.",
            lambda z, wanted: 1 / _temperature_for_entropy(z, wanted),
        ),
        Misconception(
            "bits",
            "The entropy was measured in bits (base 2). wanted is in nats: use the "
            "natural logarithm.",
            _searched(lambda z, t: _entropy(z, t) / math.log(2), 1e-6, 1e6),
        ),
        Misconception(
            "perplexity",
            "The perplexity was compared with wanted. wanted is an entropy: leave the "
            "exp out.",
            _searched(lambda z, t: math.exp(_entropy(z, t)), 1e-6, 1e6),
        ),
        Misconception(
            "mean entropy",
            "The terms -p log p were averaged over the vocabulary. An entropy is their "
            "sum.",
            *[
                _searched(lambda z, t: _entropy(z, t) / len(z), low, high)
                for low, high in RANGES
            ],
        ),
        Misconception(
            "proportion",
            "The temperature was computed as if the entropy grew in proportion to it. "
            "It does not (it never exceeds log V): search.",
            lambda z, wanted: wanted / _entropy(z, 1.0),
        ),
        Misconception(
            "entropy",
            "An entropy was returned. Wanted is the temperature that gives it.",
            lambda z, wanted: wanted,
            lambda z, wanted: _entropy(z, 1.0),
        ),
    ),
)
