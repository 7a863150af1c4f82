"""Solutions of lesson 01 as learners write them, independently of the package's own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .register import mutant, mutants, right

INF = float("inf")

# ------------------------------------------------------------------------- odds


def odds_from_scaled(logits, a, b, temperature):
    z = logits / temperature
    return (z[a] - z[b]).exp()


def odds_by_log_softmax(logits, a, b, temperature):
    log_p = F.log_softmax(logits / temperature, dim=0)
    return torch.pow(torch.tensor(math.e), log_p[a] - log_p[b])


right("ex01.odds", odds_from_scaled, odds_by_log_softmax)


@mutant("ex01.odds", "overflow")
def _(logits, a, b, temperature):
    raised = torch.exp(logits / temperature)
    return raised[a] / raised[b]


@mutant("ex01.odds", "by the probabilities")
def _(logits, a, b, temperature):
    p = F.softmax(logits / temperature, dim=-1)
    return p[a] / p[b]


@mutant("ex01.odds", "ratio of logits")
def _(logits, a, b, temperature):
    z = logits / temperature
    return z[a] / z[b]


mutants(
    "ex01.odds",
    temperature_forgotten=lambda z, a, b, t: (z[a] - z[b]).exp(),
    temperature_multiplied=lambda z, a, b, t: (t * z[a] - t * z[b]).exp(),
    temperature_outside=lambda z, a, b, t: (z[a] - z[b]).exp().div(t),
    upside_down=lambda z, a, b, t: 1 / odds_from_scaled(z, a, b, t),
    ratio_of_logits=lambda z, a, b, t: torch.exp(z[a] / z[b] / t),
)


@mutant("ex01.odds", "by the probabilities")
def _(logits, a, b, temperature):
    powers = ((logits - logits.max()) / temperature).exp()
    return powers[a] / powers[b]


@mutant("ex01.odds", "temperature forgotten")
def _(logits, a, b, temperature):
    p = F.softmax(logits, dim=0) / temperature
    return p[a] / p[b]


@mutant("ex01.odds", "probability")
def _(logits, a, b, temperature):
    pair = torch.stack([logits[a], logits[b]]) / temperature
    return F.softmax(pair, dim=0)[0]


@mutant("ex01.odds", "probability")
def _(logits, a, b, temperature):
    return F.softmax(logits / temperature, dim=0)[a]


mutant("ex01.odds", "log-odds")(lambda z, a, b, t: z[a] / t - z[b] / t)

# ---------------------------------------------------------------------- softmax


def softmax_by_logsumexp(logits, temperature):
    z = logits / temperature
    return torch.exp(z - torch.logsumexp(z, dim=-1, keepdim=True))


def softmax_max_first(logits, temperature):
    top = logits.max(dim=-1, keepdim=True).values
    numerator = torch.exp((logits - top) / temperature)
    return numerator / numerator.sum(-1).unsqueeze(-1)


def softmax_row_by_row(logits, temperature):
    out = torch.empty_like(logits)
    flat, result = logits.reshape(-1, logits.shape[-1]), out.view(-1, logits.shape[-1])
    for i, row in enumerate(flat):
        e = [math.exp(float(x - row.max()) / temperature) for x in row]
        result[i] = torch.tensor([x / sum(e) for x in e])
    return out


right("ex01.softmax", softmax_by_logsumexp, softmax_max_first, softmax_row_by_row)


@mutant("ex01.softmax", "overflow")
def _(logits, temperature):
    e = torch.exp(logits / temperature)
    return e / e.sum(dim=-1, keepdim=True)


@mutant("ex01.softmax", "one maximum")
def _(logits, temperature):
    z = logits / temperature
    e = torch.exp(z - z.max())
    return e / e.sum(dim=-1, keepdim=True)


@mutant("ex01.softmax", "keepdim forgotten")
def _(logits, temperature):
    z = logits / temperature
    e = torch.exp(z - z.amax(dim=-1))
    return e / e.sum(dim=-1)


@mutant("ex01.softmax", "wrong dimension")
def _(logits, temperature):
    """What is right for (N, V), taken to batches of sequences."""
    z = logits / temperature
    e = torch.exp(z - z.max(dim=1, keepdim=True).values)
    return e / e.sum(dim=1, keepdim=True)


@mutant("ex01.softmax", "wrong dimension")
def _(logits, temperature):
    z = logits / temperature
    e = torch.exp(z - z.amax(0))
    return e / e.sum(0)


@mutant("ex01.softmax", "whole tensor")
def _(logits, temperature):
    e = torch.exp((logits - logits.max()) / temperature)
    return e / e.sum()


@mutant("ex01.softmax", "temperature outside")
def _(logits, temperature):
    return torch.pow(softmax_by_logsumexp(logits, 1.0), 1 / temperature)


mutants(
    "ex01.softmax",
    temperature_forgotten=lambda z, t: softmax_max_first(z, 1.0),
    temperature_multiplied=lambda z, t: softmax_max_first(z, 1 / t),
    temperature_outside=lambda z, t: softmax_max_first(z, 1.0) / t,
    not_normalised=lambda z, t: torch.exp((z - z.amax(-1, keepdim=True)) / t),
    logarithm=lambda z, t: z / t - torch.logsumexp(z / t, -1, keepdim=True),
)

# --------------------------------------------------------------- masked_softmax


def masked_by_where(logits, allowed):
    z = torch.where(allowed, logits, torch.tensor(-INF))
    return F.softmax(z, dim=-1)


def masked_by_log_of_mask(logits, allowed):
    return (logits + allowed.float().log()).softmax(dim=-1)


def masked_very_low(logits, allowed):
    return torch.softmax(logits.masked_fill(~allowed, -1e9), dim=-1)


right("ex01.masked_softmax", masked_by_where, masked_by_log_of_mask, masked_very_low)


@mutant("ex01.masked_softmax", "zero as score")
def _(logits, allowed):
    return F.softmax(logits * allowed, dim=-1)


@mutant("ex01.masked_softmax", "zeroed afterwards")
def _(logits, allowed):
    p = torch.softmax(logits, dim=-1).clone()
    p[..., ~allowed] = 0
    return p


@mutant("ex01.masked_softmax", "renormalised too late")
def _(logits, allowed):
    p = torch.softmax(logits, dim=-1).masked_fill(~allowed, 0.0)
    return p / p.sum(dim=-1, keepdim=True)


@mutant("ex01.masked_softmax", "infinity times zero")
def _(logits, allowed):
    penalty = (1 - allowed.float()) * -INF
    return torch.softmax(logits + penalty, dim=-1)


@mutant("ex01.masked_softmax", "overflow")
def _(logits, allowed):
    e = torch.exp(logits) * allowed.float()
    return e / e.sum(dim=-1, keepdim=True)


@mutant("ex01.masked_softmax", "wrong dimension")
def _(logits, allowed):
    z = masked_by_where(logits, allowed).log()
    z = torch.where(allowed, logits, torch.full_like(z, -INF))
    return F.softmax(z, dim=1)


mutants(
    "ex01.masked_softmax",
    inverted=lambda z, ok: z.masked_fill(ok, -INF).softmax(-1),
    not_low_enough=lambda z, ok: torch.where(ok, z, torch.tensor(-1e4)).softmax(-1),
    removed=lambda z, ok: F.softmax(z[..., ok], -1),
    wrong_dimension=lambda z, ok: z.masked_fill(~ok, -INF).softmax(0),
)
mutants(
    "ex01.masked_softmax",
    not_low_enough=lambda z, ok: torch.where(ok, z, torch.tensor(-100.0)).softmax(-1),
)

# -------------------------------------------------------- token_log_probability


def token_by_index(logits, tokens):
    log_p = F.log_softmax(logits, dim=-1)
    return log_p[torch.arange(len(tokens)), tokens]


def token_by_cross_entropy(logits, tokens):
    return -F.cross_entropy(logits, tokens, reduction="none")


def token_by_hand(logits, tokens):
    top = logits.amax(-1)
    log_sum = top + (logits - top[:, None]).exp().sum(-1).log()
    one_hot = F.one_hot(tokens, logits.shape[-1]).bool()
    return logits[one_hot] - log_sum


right(
    "ex01.token_log_probability", token_by_index, token_by_cross_entropy, token_by_hand
)


@mutant("ex01.token_log_probability", "log of softmax")
def _(logits, tokens):
    p = F.softmax(logits, dim=-1)
    return torch.log(p[range(len(tokens)), tokens])


@mutant("ex01.token_log_probability", "overflow")
def _(logits, tokens):
    e = torch.exp(logits)
    p = e / e.sum(dim=-1, keepdim=True)
    return torch.log(p)[torch.arange(len(p)), tokens]


@mutant("ex01.token_log_probability", "overflow")
def _(logits, tokens):
    log_p = logits - torch.log(torch.exp(logits).sum(dim=1, keepdim=True))
    return log_p.gather(1, tokens.unsqueeze(1)).squeeze(1)


@mutant("ex01.token_log_probability", "epsilon")
def _(logits, tokens):
    p = F.softmax(logits, dim=-1)
    return torch.log(p + 1e-8)[torch.arange(len(p)), tokens]


@mutant("ex01.token_log_probability", "epsilon")
def _(logits, tokens):
    p = F.softmax(logits, dim=-1).clamp(min=1e-12)
    return torch.log(p[torch.arange(len(p)), tokens])


@mutant("ex01.token_log_probability", "epsilon")
def _(logits, tokens):
    p = F.softmax(logits, dim=-1)[torch.arange(len(tokens)), tokens]
    return torch.log(torch.clamp(p, min=1e-30))


@mutant("ex01.token_log_probability", "softmax twice")
def _(logits, tokens):
    return -F.cross_entropy(F.softmax(logits, dim=1), tokens, reduction="none")


@mutant("ex01.token_log_probability", "all pairs")
def _(logits, tokens):
    return torch.log_softmax(logits, -1).index_select(1, tokens)


mutants(
    "ex01.token_log_probability",
    probability=lambda z, y: token_by_index(z, y).exp(),
    sign=lambda z, y: F.cross_entropy(z, y, reduction="none"),
    not_normalised=lambda z, y: z[torch.arange(len(y)), y],
    another_base=lambda z, y: token_by_index(z, y) * math.log2(math.e),
    most_probable=lambda z, y: token_by_index(z, z.argmax(-1)),
    one_number=lambda z, y: -F.cross_entropy(z, y),
    wrong_dimension=lambda z, y: z.log_softmax(0)[torch.arange(len(y)), y],
)
mutants(
    "ex01.token_log_probability",
    another_base=lambda z, y: token_by_index(z, y) / math.log(10),
    one_number=lambda z, y: token_by_index(z, y).sum(),
)

# -------------------------------------------------------------- tokens_for_mass


def mass_by_argmax(logits, mass):
    shares, _ = torch.softmax(logits, -1).sort(-1, descending=True)
    enough = shares.cumsum(-1) >= mass
    return enough.int().argmax(-1) + 1


def mass_by_searchsorted(logits, mass):
    shares = torch.softmax(logits, -1).topk(logits.shape[-1], dim=-1).values
    wanted = torch.full((*logits.shape[:-1], 1), mass)
    return torch.searchsorted(shares.cumsum(-1), wanted).squeeze(-1) + 1


def mass_by_rest(logits, mass):
    """Count the tokens before which something of the mass was still missing."""
    shares = torch.softmax(logits, -1).sort(-1, descending=True).values
    before = shares.cumsum(-1) - shares
    return (before < mass).sum(-1)


right("ex01.tokens_for_mass", mass_by_argmax, mass_by_searchsorted, mass_by_rest)


def running(logits, descending=True):
    p = F.softmax(logits, dim=-1)
    return torch.sort(p, dim=-1, descending=descending)[0].cumsum(dim=-1)


@mutant("ex01.tokens_for_mass", "one too few")
def _(logits, mass):
    return (running(logits) >= mass).int().argmax(dim=-1)


@mutant("ex01.tokens_for_mass", "more than the mass")
def _(logits, mass):
    return (running(logits) <= mass).sum(dim=-1) + 1


@mutant("ex01.tokens_for_mass", "not sorted")
def _(logits, mass):
    sums = F.softmax(logits, dim=-1).cumsum(dim=-1)
    return (sums >= mass).int().argmax(dim=-1) + 1


@mutant("ex01.tokens_for_mass", "rising order")
def _(logits, mass):
    return (running(logits, descending=False) >= mass).int().argmax(dim=-1) + 1


@mutant("ex01.tokens_for_mass", "logits summed")
def _(logits, mass):
    ordered = logits.sort(dim=-1, descending=True).values
    return (ordered.cumsum(-1) < mass).sum(-1) + 1


@mutant("ex01.tokens_for_mass", "overflow")
def _(logits, mass):
    e = torch.exp(logits)
    p = e / e.sum(-1, keepdim=True)
    return (p.sort(-1, descending=True).values.cumsum(-1) < mass).sum(-1) + 1


mutants(
    "ex01.tokens_for_mass",
    the_other_side=lambda z, mass: (running(z) >= mass).sum(-1),
    one_by_one=lambda z, mass: (F.softmax(z, -1) >= mass).sum(-1),
    one_number=lambda z, mass: mass_by_argmax(z, mass).max(),
    share_of_the_vocabulary=lambda z, mass: mass_by_argmax(z, mass) / z.size(-1),
)
mutants(
    "ex01.tokens_for_mass",
    one_by_one=lambda z, mass: (F.softmax(z, -1) > 1 - mass).sum(-1),
    one_number=lambda z, mass: mass_by_argmax(z, mass).float().mean(),
)

# ------------------------------------------------------------- batch_perplexity


def perplexity_by_cross_entropy(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten()).exp()


def perplexity_with_mask(logits, labels):
    mask = labels.ne(-100)
    log_p = torch.log_softmax(logits, dim=2)
    safe = torch.where(mask, labels, 0).unsqueeze(2)
    chosen = torch.where(mask, log_p.gather(2, safe).squeeze(2), 0.0)
    return torch.exp(-chosen.sum() / mask.sum())


right("ex01.batch_perplexity", perplexity_by_cross_entropy, perplexity_with_mask)


def nll(logits, labels):
    """Surprises by cross_entropy, 0 at pads: (B, L)."""
    flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def real_nll(logits, labels):
    return nll(logits, labels)[labels != -100]


@mutant("ex01.batch_perplexity", "mean over sentences")
def _(logits, labels):
    rows = zip(logits.split(1), labels.split(1), strict=True)
    return torch.stack([perplexity_by_cross_entropy(z, y) for z, y in rows]).mean()


@mutant("ex01.batch_perplexity", "mean over sentences")
def _(logits, labels):
    each = [F.cross_entropy(z, y) for z, y in zip(logits, labels, strict=True)]
    return torch.stack(each).mean().exp()


@mutant("ex01.batch_perplexity", "mask forgotten")
def _(logits, labels):
    labels = torch.where(labels < 0, 0, labels)
    return F.cross_entropy(logits.transpose(1, 2), labels).exp()


@mutant("ex01.batch_perplexity", "mask forgotten")
def _(logits, labels):
    log_p = F.log_softmax(logits, dim=-1)
    return torch.exp(-log_p.gather(2, labels.unsqueeze(-1)).mean())


@mutant("ex01.batch_perplexity", "own entropy")
def _(logits, labels):
    real = logits[labels != -100]
    log_p = real.log_softmax(-1)
    terms = (log_p.exp() * log_p).nan_to_num(0.0)
    return (-terms.sum(-1)).mean().exp()


@mutant("ex01.batch_perplexity", "own entropy")
def _(logits, labels):
    log_p = F.log_softmax(logits, dim=-1)
    return torch.exp(-(log_p.exp() * log_p.clamp(min=-1e30)).sum(dim=2).mean())


@mutant("ex01.batch_perplexity", "softmax over time")
def _(logits, labels):
    return torch.exp(F.cross_entropy(logits, labels, ignore_index=-100))


@mutant("ex01.batch_perplexity", "softmax twice")
def _(logits, labels):
    p = F.softmax(logits, dim=-1)
    return F.cross_entropy(p.flatten(0, 1), labels.flatten()).exp()


@mutant("ex01.batch_perplexity", "not divided")
def _(logits, labels):
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum").exp()


@mutant("ex01.batch_perplexity", "shifted")
def _(logits, labels):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:]).exp()


@mutant("ex01.batch_perplexity", "log of softmax")
def _(logits, labels):
    real = labels != -100
    p = F.softmax(logits[real], dim=-1)
    p = p[torch.arange(len(p)), labels[real]]
    return torch.exp(-torch.log(p).mean())


@mutant("ex01.batch_perplexity", "softmax over time")
def _(logits, labels):
    log_p = F.log_softmax(logits, dim=1)
    return F.nll_loss(log_p.transpose(1, 2), labels).exp()


mutants(
    "ex01.batch_perplexity",
    pads_counted=lambda z, y: nll(z, y).mean().exp(),
    mean_of_powers=lambda z, y: real_nll(z, y).exp().mean(),
    mean_of_probabilities=lambda z, y: real_nll(z, y).neg().exp().mean() ** -1,
    nats=lambda z, y: F.cross_entropy(z.transpose(1, 2), y),
    sign=lambda z, y: F.cross_entropy(z.transpose(1, 2), y).neg().exp(),
    token_zero_masked=lambda z, y: (
        real_nll(z, torch.where(y > 0, y, -100)).sum().div((y > 0).sum()).exp()
    ),
    divided_by_sentences=lambda z, y: nll(z, y).sum(1).mean().exp(),
    another_base=lambda z, y: 2 ** F.cross_entropy(z.transpose(1, 2), y),
)

# ------------------------------------------------------ temperature_for_entropy


def plain_entropy(logits, temperature):
    log_p = F.log_softmax(logits / temperature, dim=-1)
    return -(log_p.exp() * log_p.clamp(min=-1e30)).sum().item()


def temperature_by_doubling(logits, wanted):
    """Find a range first, and halve it in the logarithm."""
    logits = logits.double()
    low = high = 1.0
    while plain_entropy(logits, high) < wanted:
        high *= 2
    while plain_entropy(logits, low) > wanted:
        low /= 2
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        if plain_entropy(logits, middle) > wanted:
            high = middle
        else:
            low = middle
    return torch.tensor(low)


def temperature_by_grid(logits, wanted):
    """Look at a line of temperatures, and ever closer around the nearest."""
    low, high = -3.0, 6.0
    for _ in range(12):
        tries = torch.logspace(low, high, 40, dtype=torch.float64)
        p = torch.softmax(logits.double() / tries[:, None], dim=-1)
        h = torch.special.entr(p).sum(-1)
        at = int((h < wanted).sum())
        low, high = tries[[max(at - 1, 0), min(at, 39)]].log10().tolist()
    return 10 ** ((low + high) / 2)


def temperature_in_float32(logits, wanted):
    low, high = 0.001, 100_000.0
    while (high - low) / low > 1e-5:
        t = (low + high) / 2
        p = F.softmax(logits / t, dim=0)
        terms = torch.where(p > 0, p * p.log(), torch.zeros(()))
        low, high = (t, high) if -terms.sum() < wanted else (low, t)
    return low


right(
    "ex01.temperature_for_entropy",
    temperature_by_doubling,
    temperature_by_grid,
    temperature_in_float32,
)


def halved(entropy, low, high, steps=60, wrong=False):
    def search(logits, wanted):
        a, b = low, high
        for _ in range(steps):
            t = 0.5 * (a + b)
            if (entropy(logits, t) > wanted) ^ wrong:
                b = t
            else:
                a = t
        return t

    return search


def with_plain_log(logits, t):
    p = F.softmax(logits / t, dim=-1)
    return -(p * torch.log(p)).sum()


def with_log_softmax(logits, t):
    log_p = F.log_softmax(logits / t, dim=-1)
    return -(log_p.exp() * log_p).sum()


def in_bits(logits, t):
    return plain_entropy(logits, t) * math.log2(math.e)


def as_perplexity(logits, t):
    return math.exp(plain_entropy(logits, t))


mutant("ex01.temperature_for_entropy", "wrong way")(
    halved(plain_entropy, 0.001, 1000.0, wrong=True)
)
mutant("ex01.temperature_for_entropy", "wrong way")(
    halved(plain_entropy, 1e-6, 1e6, wrong=True)
)
mutant("ex01.temperature_for_entropy", "wrong way")(
    halved(plain_entropy, 0.01, 10.0, wrong=True)
)
mutant("ex01.temperature_for_entropy", "narrow range")(
    halved(plain_entropy, 0.05, 20.0)
)
mutant("ex01.temperature_for_entropy", "narrow range")(
    halved(plain_entropy, 0.001, 100.0)
)
mutant("ex01.temperature_for_entropy", "narrow range")(halved(plain_entropy, 0.1, 50.0))
mutant("ex01.temperature_for_entropy", "zero times infinity")(
    halved(with_plain_log, 1e-6, 1e6)
)
mutant("ex01.temperature_for_entropy", "zero times infinity")(
    halved(with_log_softmax, 1e-5, 1e5)
)
mutants(
    "ex01.temperature_for_entropy",
    inverse=lambda z, wanted: 1 / temperature_by_grid(z, wanted),
    bits=halved(in_bits, 1e-6, 1e6, steps=80),
    perplexity=halved(as_perplexity, 1e-6, 1e6, steps=80),
    proportion=lambda z, wanted: wanted / plain_entropy(z, 1.0),
    entropy=lambda z, wanted: plain_entropy(z, 1.0),
)
mutant("ex01.temperature_for_entropy", "wrong way")(
    halved(lambda z, t: -plain_entropy(z, t), 1e-6, 1e6)  # the minus sign forgotten
)
mutant("ex01.temperature_for_entropy", "mean entropy")(
    halved(lambda z, t: torch.special.entr(F.softmax(z / t, 0)).mean(), 1e-5, 1e5)
)
mutants("ex01.temperature_for_entropy", entropy=lambda z, wanted: wanted)
