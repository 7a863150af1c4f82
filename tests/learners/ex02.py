"""Solutions of lesson 02 as learners write them, independently of the package's own."""

from __future__ import annotations

import copy
import math

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from .register import mutant, mutants, right

# --- sequence_score -------------------------------------------------------------


def score_with_cross_entropy(logits, labels):
    nll = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return -nll.sum(dim=1)


def score_sentence_by_sentence(logits, labels):
    scores = []
    for z, y in zip(logits, labels, strict=True):
        kept = y != -100
        log_p = F.log_softmax(z[kept], dim=1)
        scores.append(log_p[torch.arange(len(log_p)), y[kept]].sum())
    return torch.stack(scores)


def score_with_where(logits, labels):
    safe = torch.where(labels == -100, 0, labels).unsqueeze(-1)
    chosen = logits.gather(2, safe).squeeze(-1) - logits.logsumexp(dim=-1)
    return torch.where(labels == -100, torch.zeros_like(chosen), chosen).sum(-1)


right(
    "ex02.sequence_score",
    score_with_cross_entropy,
    score_sentence_by_sentence,
    score_with_where,
)


def nll(logits, labels):
    """-log Pr of each label, 0 at pads: (B, L)."""
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


@mutant("ex02.sequence_score", "pads counted")
def _(logits, labels):
    ids = labels * (labels != -100)
    return F.log_softmax(logits, -1).gather(2, ids[:, :, None]).squeeze(2).sum(1)


@mutant("ex02.sequence_score", "pads counted")
def _(logits, labels):
    vocabulary = logits.shape[-1]
    ids = labels.clone()
    ids[ids < 0] = vocabulary - 1
    return -nll(logits, ids).sum(1)


@mutant("ex02.sequence_score", "the end left out")
def _(logits, labels):
    return -F.cross_entropy(
        logits.transpose(1, 2),
        torch.where(labels > 0, labels, -100),
        reduction="none",
    ).sum(1)


@mutant("ex02.sequence_score", "the end left out")
def _(logits, labels):
    scores = []
    for z, y in zip(logits, labels, strict=True):
        n = int((y != -100).sum()) - 1
        log_p = z.log_softmax(-1)
        scores.append(sum((log_p[t, y[t]] for t in range(n)), torch.tensor(0.0)))
    return torch.stack(scores)


@mutant("ex02.sequence_score", "mean over tokens")
def _(logits, labels):
    means = [
        -F.cross_entropy(z, y, ignore_index=-100)
        for z, y in zip(logits, labels, strict=True)
    ]
    return torch.stack(means)


@mutant("ex02.sequence_score", "mean over the width")
def _(logits, labels):
    return -nll(logits, labels).mean(dim=1)


@mutant("ex02.sequence_score", "one number")
def _(logits, labels):
    return -F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")


@mutant("ex02.sequence_score", "one number")
def _(logits, labels):
    return -F.cross_entropy(logits.transpose(1, 2), labels)


@mutant("ex02.sequence_score", "sum of probabilities")
def _(logits, labels):
    return (torch.exp(-nll(logits, labels)) * (labels != -100)).sum(1)


@mutant("ex02.sequence_score", "not a logarithm")
def _(logits, labels):
    return torch.exp(-nll(logits, labels)).prod(dim=1)


@mutant("ex02.sequence_score", "raw logits")
def _(logits, labels):
    real = labels != -100
    safe = torch.where(real, labels, 0)
    picked = torch.take_along_dim(logits, safe[..., None], dim=-1)[..., 0]
    return torch.where(real, picked, 0.0).sum(1)


@mutant("ex02.sequence_score", "softmax over time")
def _(logits, labels):
    log_p = F.log_softmax(logits, dim=1)
    picked = F.nll_loss(log_p.transpose(1, 2), labels, reduction="none")
    return -picked.sum(1)


@mutant("ex02.sequence_score", "shifted")
def _(logits, labels):
    shift_logits, shift_labels = logits[..., :-1, :], labels[..., 1:]
    return -nll(shift_logits, shift_labels).sum(-1)


@mutant("ex02.sequence_score", "shifted")
def _(logits, labels):
    return -nll(logits[:, 1:], labels[:, :-1]).sum(-1)


@mutant("ex02.sequence_score", "most probable tokens")
def _(logits, labels):
    best = F.log_softmax(logits, dim=-1).amax(dim=-1)
    return best.masked_fill(labels == -100, 0).sum(dim=1)


@mutant("ex02.sequence_score", "zero times infinity")
def _(logits, labels):
    mask = (labels != -100).float()
    ids = torch.where(labels == -100, 0, labels)
    log_p = F.log_softmax(logits, dim=-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return (log_p * mask).sum(dim=1)


@mutant("ex02.sequence_score", "overflow")
def _(logits, labels):
    p = F.softmax(logits, dim=-1)
    scores = []
    for row, y in zip(p, labels, strict=True):
        real = y != -100
        scores.append(row[real, y[real]].log().sum())
    return torch.stack(scores)


@mutant("ex02.sequence_score", "overflow")
def _(logits, labels):
    scores = []
    for z, y in zip(logits, labels, strict=True):
        total = torch.tensor(0.0)
        for t in range(len(y)):
            if y[t] != -100:
                total = total + torch.log(z[t, y[t]].exp() / z[t].exp().sum())
        scores.append(total)
    return torch.stack(scores)


@mutant("ex02.sequence_score", "softmax over time")
def _(logits, labels):
    return -F.cross_entropy(logits, labels, ignore_index=-100, reduction="none").sum(1)


@mutant("ex02.sequence_score", "impossible made certain")
def _(logits, labels):
    factors = -nll(logits, labels)
    return torch.where(torch.isfinite(factors), factors, 0.0).sum(dim=1)


mutants(
    "ex02.sequence_score",
    no_sum=lambda z, y: -nll(z, y),
    sign=lambda z, y: nll(z, y).sum(dim=1),
)

# --- blind_student --------------------------------------------------------------


def mixture_by_broadcasting(context_probabilities, distributions):
    return (context_probabilities.unsqueeze(1) * distributions).sum(0)


def mixture_by_einsum(context_probabilities, distributions):
    return torch.einsum("c,cn->n", context_probabilities, distributions)


right("ex02.blind_student", mixture_by_broadcasting, mixture_by_einsum)


@mutant("ex02.blind_student", "all contexts alike")
def _(weights, rows):
    total = torch.zeros(rows.shape[1])
    for row in rows:
        total += row / len(rows)
    return total


@mutant("ex02.blind_student", "divided by contexts")
def _(weights, rows):
    return weights @ rows / len(weights)


@mutant("ex02.blind_student", "likeliest context")
def _(weights, rows):
    return rows[int(torch.max(weights, dim=0).indices)].clone()


@mutant("ex02.blind_student", "logarithms mixed")
def _(weights, rows):
    powers = rows ** weights[:, None]
    product = powers.prod(dim=0)
    return product / product.sum()


@mutant("ex02.blind_student", "logarithms mixed")
def _(weights, rows):
    return torch.prod(rows ** weights[:, None], dim=0)


@mutant("ex02.blind_student", "best of the contexts")
def _(weights, rows):
    best = rows.amax(0)
    return best / best.sum()


@mutant("ex02.blind_student", "best of the contexts")
def _(weights, rows):
    return torch.stack([w * r for w, r in zip(weights, rows, strict=True)]).amax(0)


@mutant("ex02.blind_student", "transposed")
def _(weights, rows):
    return torch.matmul(rows, weights)


mutants(
    "ex02.blind_student",
    no_weights=lambda w, p: torch.einsum("cn->n", p),
    softmax_of_probabilities=lambda w, p: F.softmax((w[:, None] * p).sum(0), -1),
    sum_forgotten=lambda w, p: torch.einsum("c,cn->cn", w, p),
    summed_over_outputs=lambda w, p: torch.einsum("c,cn->c", w, p),
)

# --- context_worth --------------------------------------------------------------


def worth_by_entropies(context_probabilities, distributions):
    def entropy(p):
        return torch.special.entr(p).sum(-1)

    rest = context_probabilities @ entropy(distributions)
    return entropy(context_probabilities @ distributions) - rest


def worth_by_loops(context_probabilities, distributions):
    worth = 0.0
    mixture = context_probabilities @ distributions
    for c, weight in enumerate(context_probabilities):
        for y, q in enumerate(mixture):
            p = float(distributions[c, y])
            if p > 0:
                worth += float(weight) * p * (math.log(p) - math.log(float(q)))
    return worth


def worth_with_xlogy(context_probabilities, distributions):
    mixture = context_probabilities @ distributions
    kl = torch.special.xlogy(distributions, distributions)
    kl = kl - torch.special.xlogy(distributions, mixture)
    return (context_probabilities[:, None] * kl).sum()


right("ex02.context_worth", worth_by_entropies, worth_by_loops, worth_with_xlogy)


def xlogx(p, q=None):
    return torch.special.xlogy(p, p if q is None else q)


@mutant("ex02.context_worth", "0 log 0")
def _(weights, rows):
    mixture = weights @ rows
    total = torch.tensor(0.0)
    for w, p in zip(weights, rows, strict=True):
        total = total + w * torch.sum(p * torch.log(p / mixture))
    return total


@mutant("ex02.context_worth", "mixture of equals")
def _(weights, rows):
    mixture = rows.sum(0) / rows.shape[0]
    return (weights * (xlogx(rows) - xlogx(rows, mixture)).sum(1)).sum()


@mutant("ex02.context_worth", "mean of equals")
def _(weights, rows):
    mixture = weights @ rows
    return (xlogx(rows) - xlogx(rows, mixture)).sum() / len(rows)


@mutant("ex02.context_worth", "all alike, twice")
def _(weights, rows):
    equal = torch.full_like(weights, 1 / len(weights))
    return worth_with_xlogy(equal, rows)


@mutant("ex02.context_worth", "sum over contexts")
def _(weights, rows):
    mixture = weights @ rows
    return (xlogx(rows) - xlogx(rows, mixture)).sum()


@mutant("ex02.context_worth", "no mean")
def _(weights, rows):
    return (xlogx(rows) - xlogx(rows, weights @ rows)).sum(1)


@mutant("ex02.context_worth", "KL reversed")
def _(weights, rows):
    mixture = weights @ rows
    total = 0.0
    for w, p in zip(weights.tolist(), rows, strict=True):
        for a, b in zip(mixture.tolist(), p.tolist(), strict=True):
            if a > 0:
                total += w * a * (math.log(a / b) if b > 0 else math.inf)
    return total


@mutant("ex02.context_worth", "cross-entropy")
def _(weights, rows):
    mixture = weights @ rows
    return -(weights @ (rows * mixture.log()).sum(1))


@mutant("ex02.context_worth", "mean over outputs")
def _(weights, rows):
    mixture = weights @ rows
    kl = [
        F.kl_div(mixture.log(), p, reduction="none").mean()  # what the default is
        for p in rows
    ]
    return weights @ torch.stack(kl)


@mutant("ex02.context_worth", "mean over outputs")
def _(weights, rows):
    kl = xlogx(rows) - xlogx(rows, weights @ rows)
    return (weights[:, None] * kl).mean()


@mutant("ex02.context_worth", "bits")
def _(weights, rows):
    p, q = rows.numpy(), (weights @ rows).numpy()
    ratios = numpy.divide(p, q[None], out=numpy.ones_like(p), where=p > 0)
    return float(weights.numpy() @ (p * numpy.log2(ratios)).sum(1))


mutants(
    "ex02.context_worth",
    entropy_of_the_contexts=lambda w, p: -xlogx(w).sum(),
    sign=lambda w, p: (w @ (xlogx(p, w @ p) - xlogx(p))).sum(),
)


@mutant("ex02.context_worth", "the teacher's entropy")
def _(weights, rows):
    return -(weights[:, None] * xlogx(rows)).sum()


# --- freeze ---------------------------------------------------------------------


def freeze_in_one_line(teacher):
    return teacher.requires_grad_(False).eval()


def freeze_module_by_module(teacher):
    for module in teacher.modules():
        module.training = False
    for _, parameter in teacher.named_parameters():
        parameter.requires_grad = False
    return teacher


right("ex02.freeze", freeze_in_one_line, freeze_module_by_module)


@mutant("ex02.freeze", "dropout still on")
def _(teacher):
    for p in teacher.parameters():
        p.requires_grad = False
    return teacher


@mutant("ex02.freeze", "gradients still on")
def _(teacher):
    with torch.no_grad():
        teacher.train(mode=False)
    return teacher


@mutant("ex02.freeze", "an attribute of its own")
def _(teacher):
    teacher.eval()
    teacher.requires_grad = False
    return teacher


@mutant("ex02.freeze", "outer flag only")
def _(teacher):
    for p in teacher.parameters():
        p.requires_grad_(False)
    teacher.training = False
    return teacher


@mutant("ex02.freeze", "some parts left")
def _(teacher):
    teacher.requires_grad_(False)
    for part in teacher:
        part.train(False)
    return teacher


@mutant("ex02.freeze", "some parts left")
def _(teacher):
    for part in teacher.modules():
        if "Dropout" in type(part).__name__:
            part.training = False
    for parameter in teacher.parameters():
        parameter.requires_grad = False
    return teacher


@mutant("ex02.freeze", "some parameters left")
def _(teacher):
    teacher.eval()
    for p in teacher.parameters():
        p.requires_grad = p.dim() < 2  # matrices are frozen, biases not
    return teacher


@mutant("ex02.freeze", "some parameters left")
def _(teacher):
    teacher.eval()
    for p in list(teacher.children())[0].parameters():
        p.requires_grad = False
    return teacher


@mutant("ex02.freeze", "dropout set to 0")
def _(teacher):
    for module in teacher.modules():
        if module.__class__.__name__ == "Dropout":
            module.p = 0
    for p in teacher.parameters():
        p.requires_grad = False
    return teacher


@mutant("ex02.freeze", "a copy frozen")
def _(teacher):
    frozen = copy.deepcopy(teacher)
    frozen.eval()
    for p in frozen.parameters():
        p.requires_grad = False
    return frozen


@mutant("ex02.freeze", "another network returned")
def _(teacher):
    frozen = nn.Sequential(*teacher.children())
    frozen.eval()
    for p in frozen.parameters():
        p.requires_grad = False
    return frozen


@mutant("ex02.freeze", "nothing returned")
def _(teacher):
    teacher.eval()
    for p in teacher.parameters():
        p.requires_grad = False


@mutant("ex02.freeze", "left as it was")
def _(teacher):
    with torch.no_grad():
        return teacher


# --- marian_parameters ----------------------------------------------------------


def parameters_by_loops(config):
    d, total = config["d_model"], config["vocab_size"] * config["d_model"]
    for side, attentions in (("encoder", 1), ("decoder", 2)):
        inner = config[side + "_ffn_dim"]
        for _ in range(config[side + "_layers"]):
            total += attentions * 4 * d * (d + 1)
            total += 2 * d * inner + inner + d
            total += (attentions + 1) * 2 * d
    return total


def parameters_from_modules(config):
    d = config["d_model"]

    def size(*modules):
        return sum(p.numel() for m in modules for p in m.parameters())

    def attention():
        return [nn.Linear(d, d) for _ in range(4)]

    def ffn(inner):
        return [nn.Linear(d, inner), nn.Linear(inner, d)]

    encoder = size(*attention(), *ffn(config["encoder_ffn_dim"]))
    decoder = size(*attention(), *attention(), *ffn(config["decoder_ffn_dim"]))
    encoder += 2 * size(nn.LayerNorm(d))
    decoder += 3 * size(nn.LayerNorm(d))
    layers = config["encoder_layers"] * encoder + config["decoder_layers"] * decoder
    return size(nn.Embedding(config["vocab_size"], d)) + layers


right("ex02.marian_parameters", parameters_by_loops, parameters_from_modules)


def translator(
    config, embedding=1, attention=None, ffn=None, encoder=(1, 2), decoder=(2, 3)
):
    """Embedding matrices, and (attentions, norms) of a layer on each side."""
    d = config["d_model"]
    attention = attention or 4 * d * d + 4 * d
    ffn = ffn or (lambda f: 2 * d * f + f + d)
    total = embedding * config["vocab_size"] * d
    for side, (attentions, norms) in (("encoder", encoder), ("decoder", decoder)):
        layer = attentions * attention + norms * 2 * d + ffn(config[f"{side}_ffn_dim"])
        total += config[f"{side}_layers"] * layer
    return total


def without_biases(config):
    d = config["d_model"]
    return translator(config, attention=4 * d**2, ffn=lambda f: d * f + f * d)


def with_positions(config):
    return (
        translator(config) + 2 * config["max_position_embeddings"] * config["d_model"]
    )


def with_one_table_of_positions(config):
    return translator(config) + config["max_position_embeddings"] * config["d_model"]


def with_heads(config):
    d, heads = config["d_model"], config["encoder_attention_heads"]
    return translator(config, attention=heads * (4 * d * d + 4 * d))


def with_habitual_width(config):
    wide = 4 * config["d_model"]
    return translator(config | {"encoder_ffn_dim": wide, "decoder_ffn_dim": wide})


def with_the_encoders_width(config):
    return translator(config | {"decoder_ffn_dim": config["encoder_ffn_dim"]})


def with_the_decoders_width(config):
    return translator(config | {"encoder_ffn_dim": config["decoder_ffn_dim"]})


def with_one_matrix(config):
    return translator(config, ffn=lambda f: config["d_model"] * f + f)


def with_three_matrices(config):
    d = config["d_model"]
    return translator(config, attention=3 * d * (d + 1))


def with_widths_exchanged(config):
    widths = config["decoder_ffn_dim"], config["encoder_ffn_dim"]
    return translator(
        config | dict(zip(("encoder_ffn_dim", "decoder_ffn_dim"), widths, strict=True))
    )


def without_biases_in_attention(config):
    return translator(config, attention=4 * config["d_model"] ** 2)


def without_biases_in_blocks(config):
    return translator(config, ffn=lambda f: 2 * config["d_model"] * f)


for key, function in {
    "biases forgotten": without_biases,
    "some biases forgotten": without_biases_in_attention,
    "a bias at the output": lambda c: translator(c) + c["vocab_size"],
    "embedding three times": lambda c: translator(c, embedding=3),
    "embedding twice": lambda c: translator(c, embedding=2),
    "embedding forgotten": lambda c: translator(c, embedding=0),
    "attention over the source forgotten": lambda c: translator(c, decoder=(1, 3)),
    "decoder like encoder": lambda c: translator(c, decoder=(1, 2)),
    "third norm forgotten": lambda c: translator(c, decoder=(2, 2)),
    "norms forgotten": lambda c: translator(c, encoder=(1, 0), decoder=(2, 0)),
    "half norms": lambda c: translator(c, encoder=(1, 1), decoder=(2, 1.5)),
    "heads multiplied": with_heads,
    "positions counted": with_positions,
    "inner width of 4 d": with_habitual_width,
    "one inner width": with_the_encoders_width,
    "half a feed-forward": with_one_matrix,
    "three matrices an attention": with_three_matrices,
    "equal depths": lambda c: translator(c | {"decoder_layers": c["encoder_layers"]}),
}.items():
    mutant("ex02.marian_parameters", key)(function)
mutant("ex02.marian_parameters", "positions counted")(with_one_table_of_positions)
mutant("ex02.marian_parameters", "one inner width")(with_the_decoders_width)
mutant("ex02.marian_parameters", "one inner width")(with_widths_exchanged)
mutant("ex02.marian_parameters", "some biases forgotten")(without_biases_in_blocks)

# --- step_flops -----------------------------------------------------------------


def flops_from_shapes(config, source_length, position):
    d, f = config["d_model"], config["decoder_ffn_dim"]
    products = 4 * [(1, d, d)]
    products += [(1, d, position), (1, position, d)]
    products += 2 * [(1, d, d)]
    products += [(1, d, source_length), (1, source_length, d)]
    products += [(1, d, f), (1, f, d)]
    products = products * config["decoder_layers"] + [(1, d, config["vocab_size"])]
    return sum(2 * math.prod(shape) for shape in products)


def flops_in_one_formula(config, source_length, position):
    d, f, v = config["d_model"], config["decoder_ffn_dim"], config["vocab_size"]
    layer = 6 * d * d + 2 * d * f + 2 * (source_length + position) * d
    return 2 * config["decoder_layers"] * layer + 2 * d * v


right("ex02.step_flops", flops_from_shapes, flops_in_one_formula)


def step(config, s, t, square=6, lengths=None, ffn=2, vocabulary=1, flops=2):
    """Multiples of d² and of d · inner width in a layer, and the two lengths' term."""
    d, n = config["d_model"], config["decoder_layers"]
    lengths = 2 * s + 2 * t if lengths is None else lengths
    layer = square * d**2 + lengths * d + ffn * d * config["decoder_ffn_dim"]
    return flops * (n * layer + vocabulary * d * config["vocab_size"])


def with_keys_anew(c, s, t):
    return step(c, s, t, square=6 + 2 * s)


def with_heads_in_attention(c, s, t):
    heads = c["decoder_attention_heads"]
    return step(c, s, t, square=6 * heads, lengths=2 * heads * (s + t))


def of_the_encoder(c, s, t):
    mistaken = {"decoder_layers": c["encoder_layers"]}
    return step(c | mistaken | {"decoder_ffn_dim": c["encoder_ffn_dim"]}, s, t)


for key, function in {
    "multiply-adds": lambda c, s, t: step(c, s, t, flops=1),
    "vocabulary forgotten": lambda c, s, t: step(c, s, t, vocabulary=0),
    "vocabulary in each layer": lambda c, s, t: step(
        c, s, t, vocabulary=c["decoder_layers"]
    ),
    "keys of the source anew": with_keys_anew,
    "lengths forgotten": lambda c, s, t: step(c, s, t, lengths=0),
    "comparison without mixture": lambda c, s, t: step(c, s, t, lengths=s + t),
    "one length for both": lambda c, s, t: step(c, s, t, lengths=4 * s),
    "itself left out": lambda c, s, t: step(c, s, t - 1),
    "attention over the source forgotten": lambda c, s, t: step(
        c, s, t, square=4, lengths=2 * t
    ),
    "the encoder's numbers": of_the_encoder,
    "one layer": lambda c, s, t: step(c | {"decoder_layers": 1}, s, t),
    "half a feed-forward": lambda c, s, t: step(c, s, t, ffn=1),
    "heads multiplied": with_heads_in_attention,
    "the whole prefix again": lambda c, s, t: t * step(c, s, t),
    "all steps so far": lambda c, s, t: sum(step(c, s, i) for i in range(1, t + 1)),
}.items():
    mutant("ex02.step_flops", key)(function)
mutant("ex02.step_flops", "keys of the source anew")(
    lambda c, s, t: step(c, s, t, square=8)
)
mutant("ex02.step_flops", "one length for both")(
    lambda c, s, t: step(c, s, t, lengths=4 * t)
)
for mistaken in ("layers", "ffn_dim"):
    mutant("ex02.step_flops", "the encoder's numbers")(
        lambda c, s, t, one=mistaken: step(
            c | {f"decoder_{one}": c[f"encoder_{one}"]}, s, t
        )
    )
