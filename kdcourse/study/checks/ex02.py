"""Checks of lesson 02: what teacher and student say, what they read, what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .core import Case, Exercise, Misconception

IGNORE = -100

# --- sequence_score -------------------------------------------------------------


def _sequence_score(logits: Tensor, labels: Tensor) -> Tensor:
    """Token by token, slow and plain: independent of every vectorised solution."""
    scores = []
    for row, row_labels in zip(logits, labels.tolist(), strict=True):
        total = torch.zeros(())
        for z, label in zip(row, row_labels, strict=True):
            if label != IGNORE:
                total = total + (z[label] - torch.logsumexp(z, dim=0))
        scores.append(total)
    return torch.stack(scores)


def _score_cases() -> list[Case]:
    def case(name: str, labels: list[list[int]], vocabulary: int, scale: float) -> Case:
        generator = torch.Generator().manual_seed(len(name))
        shape = (len(labels), len(labels[0]), vocabulary)
        logits = scale * torch.randn(shape, generator=generator)
        return Case(name, {"logits": logits, "labels": torch.tensor(labels)})

    by_hand = torch.tensor([[[0.0, math.log(3.0)], [2.0, 0.0]]])
    masked = case("a token that is never said", [[2, 0], [3, IGNORE]], 4, 1.0)
    masked.arguments["logits"][:, 1, 1] = -math.inf
    masked.arguments["logits"][1, 1, 0] = -math.inf  # at a pad
    impossible = case("a sentence that cannot be said", [[2, 0], [1, 0]], 4, 1.0)
    impossible.arguments["logits"][1, 0, 1] = -math.inf
    certain = torch.tensor([[[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]]])
    return [
        Case(
            "one token and one pad; the score is log(3/4)",
            {"logits": by_hand, "labels": torch.tensor([[1, IGNORE]])},
        ),
        case("two sentences without pads", [[1, 2, 0], [3, 1, 0]], 4, 2.0),
        case(
            "three lengths",
            [[5, 6, 1, 2, 0], [4, 0, *3 * [IGNORE]], [3, 3, 0, *2 * [IGNORE]]],
            7,
            2.0,
        ),
        masked,
        impossible,
        Case(
            "logits of 10,000 and -10,000",
            {"logits": certain, "labels": torch.tensor([[2, 0]])},
        ),
    ]


def _factors(logits: Tensor, labels: Tensor, dim: int = -1) -> Tensor:
    """log Pr of each label (B, L); at pads that of token 0."""
    ids = labels.clamp(min=0)
    return torch.log_softmax(logits, dim=dim).gather(-1, ids[..., None])[..., 0]


def _real_sum(factors: Tensor, labels: Tensor) -> Tensor:
    return factors.masked_fill(labels == IGNORE, 0.0).sum(-1)


def _without_last(logits: Tensor, labels: Tensor) -> Tensor:
    """The last real token of each sentence is left out."""
    last = (labels != IGNORE).sum(-1, keepdim=True) - 1
    return _sequence_score(logits, labels.scatter(1, last, IGNORE))


def _pads_as_last_token(logits: Tensor, labels: Tensor) -> Tensor:
    """Pads are looked up as if -100 were the last entry of the vocabulary."""
    ids = torch.where(labels == IGNORE, logits.shape[-1] - 1, labels)
    return _factors(logits, ids).sum(-1)


def _probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    p = torch.softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])
    return _real_sum(p[..., 0], labels)


def _naive_log(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return _real_sum(p.log().gather(-1, labels.clamp(min=0)[..., None])[..., 0], labels)


def _log_of_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    log_p = torch.softmax(logits, -1).log()
    return _real_sum(log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0], labels)


def _infinite_as_certain(logits: Tensor, labels: Tensor) -> Tensor:
    return _real_sum(_factors(logits, labels).nan_to_num(neginf=0.0), labels)


def _classes_in_dim_1(logits: Tensor, labels: Tensor) -> Tensor:
    """What torch takes for the vocabulary where nobody tells it."""
    return -nn.functional.cross_entropy(logits, labels, reduction="none").sum(-1)


def _log_of_product(logits: Tensor, labels: Tensor) -> Tensor:
    p = torch.softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return p.masked_fill(labels == IGNORE, 1.0).prod(-1).log()


sequence_score = Exercise(
    name="ex02.sequence_score",
    call="sequence_score(logits, labels)",
    reference=_sequence_score,
    cases=_score_cases,
    difficulty=2,
    minutes=6,
    hints=(
        "Three steps: log-probabilities over the vocabulary, those of the labels, and "
        "their sum over the real tokens of each sentence.",
        "torch.log_softmax(logits, dim=-1) does not overflow. gather needs ids from 0, "
        "so fill the pads with any token before you look up.",
        "After gather, set the factors of pads to 0 with "
        "masked_fill(labels == -100, 0.0), then .sum(dim=-1). Multiplying by a mask "
        "would do the same, but for 0 times -inf.",
    ),
    misconceptions=(
        Misconception(
            "pads counted",
            "Pads are in your sum: the score then falls with every pad behind the "
            "sentence. Where the label is -100 there is no factor.",
            lambda z, y: _factors(z, y).sum(-1),
            _pads_as_last_token,
        ),
        Misconception(
            "the end left out",
            "The factor of the last token, the end of the sentence, is missing. "
            "Without it no translation pays for stopping in the middle. Token 0 is a "
            "token: only -100 marks a pad.",
            _without_last,
            lambda z, y: _sequence_score(z, y.masked_fill(y == 0, IGNORE)),
        ),
        Misconception(
            "mean over tokens",
            "This is the mean over the real tokens. log Pr(y|c,z) is their sum: a "
            "product of probabilities, not an average.",
            lambda z, y: _sequence_score(z, y) / (y != IGNORE).sum(-1),
        ),
        Misconception(
            "mean over the width",
            "You divided by the width of the batch, pads included. The score is a sum "
            "and does not depend on who else is in the batch.",
            lambda z, y: _sequence_score(z, y) / y.shape[1],
        ),
        Misconception(
            "one number",
            "One number came back for the whole batch. Sum over the tokens of each "
            "sentence, dim=-1, and return one score a sentence.",
            lambda z, y: _sequence_score(z, y).sum(),
            lambda z, y: _sequence_score(z, y).mean(),
            lambda z, y: _sequence_score(z, y).sum() / (y != IGNORE).sum(),
        ),
        Misconception(
            "no sum",
            "These are the factors of the single tokens, (B, L). Sum them over each "
            "sentence.",
            lambda z, y: _factors(z, y).masked_fill(y == IGNORE, 0.0),
        ),
        Misconception(
            "sum of probabilities",
            "You summed probabilities. Probabilities of a chain multiply; it is their "
            "logarithms that add up.",
            _probabilities,
        ),
        Misconception(
            "not a logarithm",
            "This is Pr(y|c,z) itself. Return its logarithm: the probability of a long "
            "sentence is too small for a float.",
            lambda z, y: _sequence_score(z, y).exp(),
        ),
        Misconception(
            "sign",
            "The sign is turned: this is -log Pr, a loss. A score is the logarithm of "
            "a probability, so it is never above 0.",
            lambda z, y: -_sequence_score(z, y),
        ),
        Misconception(
            "raw logits",
            "These are sums of logits. Logits become probabilities by the softmax over "
            "the vocabulary only; take log_softmax first.",
            lambda z, y: _real_sum(z.gather(-1, y.clamp(min=0)[..., None])[..., 0], y),
        ),
        Misconception(
            "softmax over time",
            "The softmax runs over the positions, dim=1. At each position the "
            "probabilities of the whole vocabulary sum to 1: dim=-1. (F.cross_entropy "
            "looks for it in dim=1: transpose(1, 2) first.)",
            lambda z, y: _real_sum(_factors(z, y, dim=1), y),
            _classes_in_dim_1,
        ),
        Misconception(
            "shifted",
            "Logits and labels stand one place apart. Those at t already score the "
            "label at t: the decoder's input was shifted, so nothing else may be.",
            lambda z, y: _real_sum(_factors(z[:, :-1], y[:, 1:]), y[:, 1:]),
            lambda z, y: _real_sum(_factors(z[:, 1:], y[:, :-1]), y[:, :-1]),
        ),
        Misconception(
            "most probable tokens",
            "You summed the log-probability of the most probable token at each "
            "position. That scores another sentence than the one in labels.",
            lambda z, y: _real_sum(torch.log_softmax(z, -1).max(-1).values, y),
        ),
        Misconception(
            "zero times infinity",
            "Right but for NaN: 0 times -inf is no number, and at a pad anything may "
            "stand. Replace the factors of pads (masked_fill, torch.where) in place of "
            "multiplying them by 0.",
            lambda z, y: (_factors(z, y) * (y != IGNORE)).sum(-1),
        ),
        Misconception(
            "impossible made certain",
            "A real token that cannot be said counts as certain in your sum: its -inf "
            "was turned into 0. Such a sentence has the score -inf. Find the pads by "
            "their labels, not by what stands there.",
            _infinite_as_certain,
        ),
        Misconception(
            "overflow",
            "Right for small logits only: exp(10,000) is infinite and exp(-20,000) is "
            "0, of which no logarithm can be taken. torch.log_softmax works with "
            "differences and never leaves the range.",
            _naive_log,
            _log_of_softmax,
            _log_of_product,
        ),
    ),
)

# --- blind_student --------------------------------------------------------------


def _blind_student(context_probabilities: Tensor, distributions: Tensor) -> Tensor:
    mixture = torch.zeros_like(distributions[0])
    for weight, row in zip(context_probabilities, distributions, strict=True):
        mixture = mixture + weight * row
    return mixture


def _context_cases() -> list[Case]:
    def case(name: str, weights: list[float], rows: list[list[float]]) -> Case:
        arguments = {
            "context_probabilities": torch.tensor(weights),
            "distributions": torch.tensor(rows),
        }
        return Case(name, arguments)

    bank = [[0.8, 0.2], [0.97, 0.03], [0.03, 0.97]]
    bill = [[0.96, 0.03, 0.01], [0.03, 0.96, 0.01], [0.02, 0.02, 0.96]]
    return [
        case("by hand, two contexts", [0.25, 0.75], [[1.0, 0.0], [0.2, 0.8]]),
        case("bank in three contexts", [1 / 6, 1 / 2, 1 / 3], bank),
        case("bill in three contexts", [0.3, 0.5, 0.2], bill),
        case(
            "many outputs, some impossible",
            [0.7, 0.3],
            [[0.5, 0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.1, 0.3, 0.6]],
        ),
        case("a context that never occurs", [0.0, 1.0], [[0.5, 0.5], [0.1, 0.9]]),
    ]


def _geometric(weights: Tensor, rows: Tensor) -> Tensor:
    """exp of the mean logarithm, as if the contexts' answers were multiplied."""
    logs = torch.where(weights[:, None] > 0, weights[:, None] * rows.log(), 0.0)
    return logs.sum(0).exp()


def _maximum(weights: Tensor, rows: Tensor) -> Tensor:
    return (weights[:, None] * rows).max(0).values


def _normalised(function: Callable) -> Callable:
    """A wrong solution whose result is made to sum to 1."""
    return lambda w, p: function(w, p) / function(w, p).sum()


blind_student = Exercise(
    name="ex02.blind_student",
    call="blind_student(context_probabilities, distributions)",
    reference=_blind_student,
    cases=_context_cases,
    difficulty=1,
    minutes=3,
    hints=(
        "Each context contributes its row, weighted by how often it occurs.",
        "A weighted sum of rows is a product of a row vector and a matrix: @.",
    ),
    misconceptions=(
        Misconception(
            "all contexts alike",
            "All contexts count alike in your mixture. Weigh each row by Pr(c|z): some "
            "contexts are likelier for this z.",
            lambda w, p: p.mean(dim=0),
        ),
        Misconception(
            "no weights",
            "The rows were added up without weights: the result does not sum to 1. "
            "Weigh each row by Pr(c|z).",
            lambda w, p: p.sum(dim=0),
        ),
        Misconception(
            "divided by contexts",
            "The weighted rows were averaged, which divides by the number of contexts. "
            "The weights sum to 1 already: add the rows up.",
            lambda w, p: (w[:, None] * p).mean(dim=0),
        ),
        Misconception(
            "likeliest context",
            "This is the teacher's answer in the likeliest context. A student that "
            "always supposes it is wrong, and sure of it, in all the others.",
            lambda w, p: p[w.argmax()],
        ),
        Misconception(
            "logarithms mixed",
            "You averaged logarithms, so the probabilities were multiplied: an output "
            "that is impossible in one context becomes impossible. Average the "
            "probabilities themselves.",
            _geometric,
            _normalised(_geometric),
            lambda w, p: torch.softmax(w @ p.log(), dim=0),
            lambda w, p: (w @ p.log()).exp(),
        ),
        Misconception(
            "best of the contexts",
            "For each output you took the context that gives it most. A mixture adds "
            "up what all contexts give.",
            _maximum,
            _normalised(_maximum),
            lambda w, p: p.max(dim=0).values,
            _normalised(lambda w, p: p.max(dim=0).values),
        ),
        Misconception(
            "softmax of probabilities",
            "The result went through a softmax once more. A weighted sum of "
            "probabilities is one already.",
            lambda w, p: torch.softmax(w @ p, dim=0),
        ),
        Misconception(
            "sum forgotten",
            "One row a context came back, weighted, but not added up. The blind "
            "student has one answer for all contexts.",
            lambda w, p: w[:, None] * p,
        ),
        Misconception(
            "summed over outputs",
            "You summed over the outputs and have one number a context left. Sum over "
            "the contexts, dim=0.",
            lambda w, p: (w[:, None] * p).sum(dim=1),
            lambda w, p: p.sum(dim=1),
        ),
        Misconception(
            "transposed",
            "Rows and columns are exchanged: row c of distributions belongs to context "
            "c. Write the weights on the left: weights @ distributions.",
            lambda w, p: p @ w,
            lambda w, p: w @ p.T,
        ),
    ),
)

# --- context_worth --------------------------------------------------------------


def _context_worth(context_probabilities: Tensor, distributions: Tensor) -> float:
    """Term by term in float64: independent of every vectorised solution."""
    weights, rows = context_probabilities.tolist(), distributions.tolist()
    mixture = [
        sum(w * row[y] for w, row in zip(weights, rows, strict=True))
        for y in range(len(rows[0]))
    ]
    return math.fsum(
        w * p * math.log(p / q)
        for w, row in zip(weights, rows, strict=True)
        for p, q in zip(row, mixture, strict=True)
        if w > 0 and p > 0
    )


def _worth_cases() -> list[Case]:
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # Halves and quarters: in float32 the worth is exactly 0 in any order of sums.
    alike = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    return [
        Case(
            "by hand: log 2",
            {"context_probabilities": torch.tensor([0.5, 0.5]), "distributions": sure},
        ),
        Case(
            "a context that changes nothing",
            {"context_probabilities": torch.tensor([0.5, 0.5]), "distributions": alike},
        ),
        *_context_cases()[1:4],
    ]


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL over the last dimension, with 0 log 0 = 0; infinite where q is 0 and p not."""
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)


def _naive_worth(w: Tensor, p: Tensor) -> Tensor:
    q = w @ p
    return (w * (p * (p.log() - q.log())).sum(1)).sum()


def _number(function: Callable) -> Callable:
    """A wrong solution whose result is a number, as a learner's float or tensor is."""
    return lambda w, p: float(function(w, p))


context_worth = Exercise(
    name="ex02.context_worth",
    call="context_worth(context_probabilities, distributions)",
    reference=_context_worth,
    cases=_worth_cases,
    difficulty=4,
    minutes=9,
    hints=(
        "First the mixture of exercise 2, then one KL for each context, then their "
        "mean, weighted by Pr(c|z).",
        "In PyTorch 0 · log 0 is NaN. Let the ratio p/q be 1 where p is 0: "
        "torch.where(p > 0, p / q, 1.0).log() is 0 there.",
        "kl = (distributions * ratios.log()).sum(dim=1), and the result is "
        "context_probabilities @ kl. (Equal to H(mixture) minus the mean of the "
        "contexts' entropies: a check on paper.)",
    ),
    misconceptions=(
        Misconception(
            "0 log 0",
            "NaN: the computer takes 0 · log 0 for no number. An output that cannot be "
            "said contributes 0; leave it out of the logarithm.",
            _number(_naive_worth),
            _number(lambda w, p: w @ (p * (p / (w @ p)).log()).sum(1)),
        ),
        Misconception(
            "mixture of equals",
            "Your mixture counts all contexts alike. The best blind student is "
            "Σ_c Pr(c|z) Pr^t(y|c,z), with weights.",
            _number(lambda w, p: w @ _kl(p, p.mean(0))),
        ),
        Misconception(
            "mean of equals",
            "The divergences were averaged as if all contexts were equally frequent. "
            "Weigh each by Pr(c|z).",
            _number(lambda w, p: _kl(p, w @ p).mean()),
        ),
        Misconception(
            "all alike, twice",
            "Neither the mixture nor the mean of the divergences uses Pr(c|z). Both "
            "need it: contexts are not equally frequent.",
            _number(lambda w, p: _kl(p, p.mean(0)).mean()),
        ),
        Misconception(
            "sum over contexts",
            "The divergences of all contexts were added up. Take their mean, weighted "
            "by Pr(c|z).",
            _number(lambda w, p: _kl(p, w @ p).sum()),
        ),
        Misconception(
            "no mean",
            "One number a context came back. Take their mean, weighted by Pr(c|z).",
            lambda w, p: _kl(p, w @ p),
            lambda w, p: w * _kl(p, w @ p),
        ),
        Misconception(
            "KL reversed",
            "The arguments of the KL are exchanged: the teacher comes first, "
            "Σ p log(p/q) with p the teacher's. The other way it is infinite wherever "
            "the mixture says what the teacher never does.",
            _number(lambda w, p: w @ _kl(w @ p, p)),
        ),
        Misconception(
            "cross-entropy",
            "This is the entropy of the mixture, which is also the cross-entropy "
            "-Σ p log q. A student that reads c would not have 0 here, but the "
            "teacher's own entropy: subtract it.",
            _number(lambda w, p: _entropy(w @ p)),
        ),
        Misconception(
            "the teacher's entropy",
            "This is how unsure the teacher is when it knows the context. A student "
            "that reads c has that, too. Asked is what the blind one has beyond it.",
            _number(lambda w, p: w @ _entropy(p)),
        ),
        Misconception(
            "entropy of the contexts",
            "This is how unsure one is about the context, H(c). Being unsure of c "
            "costs only where c changes the translation.",
            _number(lambda w, p: _entropy(w)),
        ),
        Misconception(
            "mean over outputs",
            "The sum over outputs was divided by their number (as torch's kl_div does "
            "by default). A divergence sums over y.",
            _number(lambda w, p: w @ _kl(p, w @ p) / p.shape[1]),
            _number(lambda w, p: w @ _kl(p, w @ p) / p.numel()),
        ),
        Misconception(
            "bits",
            "This is in bits. The course counts in nats: take the natural logarithm.",
            _number(lambda w, p: w @ _kl(p, w @ p) / math.log(2.0)),
        ),
        Misconception(
            "sign",
            "The sign is turned. A KL is never below 0.",
            _number(lambda w, p: -(w @ _kl(p, w @ p))),
        ),
    ),
)

# --- freeze ---------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """What a network to be frozen looks like; the check builds it afresh each time."""

    parts: tuple[str, ...]
    training: bool = True
    half_frozen: bool = False

    def build(self) -> nn.Module:
        """Small, nested, of reproducible weights."""
        kinds = {
            "linear": lambda: nn.Linear(6, 6),
            "dropout": lambda: nn.Dropout(0.5),
            "norm": lambda: nn.BatchNorm1d(6),
            "block": lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            network = nn.Sequential(*(kinds[part]() for part in self.parts))
        network.train(self.training)
        if self.half_frozen:
            network[0].requires_grad_(False)
        return network


def _observe_freeze(function: Callable, arguments: tuple) -> object:
    """Freeze a new network and report what became of it."""
    teacher = arguments[0].build()
    weights = [p.detach().clone() for p in teacher.parameters()]
    returned = function(teacher)
    if returned is ...:
        return returned  # a blank; the engine knows it
    modules = [(name or "the whole", m) for name, m in teacher.named_modules()]
    wanting = [name for name, p in teacher.named_parameters() if p.requires_grad]
    same = zip(weights, teacher.parameters(), strict=True)
    return {
        "parts still in training mode": [n for n, m in modules if m.training],
        "parameters that ask for a gradient": wanting,
        "the weights are as they were": all(torch.equal(a, b) for a, b in same),
        "the rates of dropout": [m.p for _, m in modules if isinstance(m, nn.Dropout)],
        "it was given a useless attribute": "requires_grad" in vars(teacher),
        "what came back": _returned(returned, teacher),
    }


def _returned(returned: object, teacher: nn.Module) -> str:
    if returned is teacher:
        return "the teacher"
    another = isinstance(returned, nn.Module)
    return "another network" if another else type(returned).__name__


def _freeze(teacher: nn.Module) -> nn.Module:
    teacher.train(False)
    for part in teacher.modules():
        for parameter in part.parameters(recurse=False):
            parameter.requires_grad = False
    return teacher


def _freeze_cases() -> list[Case]:
    def case(name: str, *parts: str, **more: bool) -> Case:
        return Case(name, {"teacher": Network(parts, **more)})

    return [
        case("a network with dropout", "linear", "dropout", "linear"),
        case("blocks within blocks", "block", "block", "linear"),
        case("already in evaluation mode", "block", "linear", training=False),
        case("already half frozen", "linear", "dropout", "linear", half_frozen=True),
        case("with batch norm", "linear", "norm", "dropout", "linear"),
    ]


def _gradients_only(teacher: nn.Module) -> nn.Module:
    return teacher.requires_grad_(False)


def _flag_only(teacher: nn.Module) -> nn.Module:
    teacher.training = False
    return teacher.requires_grad_(False)


def _attribute(teacher: nn.Module) -> nn.Module:
    teacher.eval().requires_grad = False
    return teacher


def _attribute_alone(teacher: nn.Module) -> nn.Module:
    teacher.requires_grad = False
    return teacher


def _weights_only(teacher: nn.Module) -> nn.Module:
    for name, parameter in teacher.eval().named_parameters():
        if name.endswith("weight"):
            parameter.requires_grad_(False)
    return teacher


def _matrices_only(teacher: nn.Module) -> nn.Module:
    for parameter in teacher.eval().parameters():
        parameter.requires_grad = parameter.dim() < 2
    return teacher


def _first_part_only(teacher: nn.Module) -> nn.Module:
    teacher.eval()[0].requires_grad_(False)
    return teacher


def _last_part_only(teacher: nn.Module) -> nn.Module:
    teacher.eval()[-1].requires_grad_(False)
    return teacher


def _own_parameters_only(teacher: nn.Module) -> nn.Module:
    for parameter in teacher.eval().parameters(recurse=False):
        parameter.requires_grad_(False)
    return teacher


def _children_only(teacher: nn.Module) -> nn.Module:
    for part in teacher.children():
        part.eval()
    return teacher.requires_grad_(False)


def _dropouts_only(teacher: nn.Module) -> nn.Module:
    for part in teacher.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    return teacher.requires_grad_(False)


def _dropout_of_zero(teacher: nn.Module) -> nn.Module:
    for part in teacher.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return teacher.requires_grad_(False)


def _copy(teacher: nn.Module) -> nn.Module:
    twin = nn.Sequential(*teacher)
    return twin.eval().requires_grad_(False)


def _fresh_copy(teacher: nn.Module) -> nn.Module:
    return deepcopy(teacher).eval().requires_grad_(False)


def _nothing_back(teacher: nn.Module) -> None:
    teacher.eval().requires_grad_(False)


freeze = Exercise(
    name="ex02.freeze",
    call="freeze(teacher)",
    reference=_freeze,
    cases=_freeze_cases,
    observe=_observe_freeze,
    difficulty=2,
    minutes=4,
    hints=(
        "Two things that have nothing to do with one another: the mode of the network, "
        "and whether its parameters ask for gradients.",
        "teacher.eval() sets the mode of every part. Then go through "
        "teacher.parameters() and set requires_grad of each to False.",
        "teacher.requires_grad_(False), with the underscore, does the second in one "
        "go. Do not forget to return the teacher.",
    ),
    misconceptions=(
        Misconception(
            "dropout still on",
            "The parameters ask for no gradient, but the teacher is in training mode: "
            "its dropout is on, and it answers the same question differently each "
            "time. Call eval().",
            _gradients_only,
            lambda t: t.train().requires_grad_(False),
        ),
        Misconception(
            "gradients still on",
            "The teacher is in evaluation mode, but its parameters still ask for "
            "gradients: an optimiser that gets hold of them would move them. eval() "
            "does not change that, and no_grad() holds only inside its block.",
            lambda t: t.eval(),
            _own_parameters_only,
        ),
        Misconception(
            "an attribute of its own",
            "teacher.requires_grad = False gives the network a new attribute that "
            "nobody reads. Parameters have it: set it on each of them, or call "
            "requires_grad_(False), with the underscore.",
            _attribute,
            _attribute_alone,
        ),
        Misconception(
            "outer flag only",
            "Only the flag of the outermost network says evaluation; the parts inside "
            "are still in training mode, dropout among them. eval() reaches all of "
            "them.",
            _flag_only,
        ),
        Misconception(
            "some parts left",
            "Something is still in training mode: the whole, or parts that you did not "
            "reach. teacher.eval(), called on the whole, sets every part of it; there "
            "is no need to go through them.",
            _children_only,
            _dropouts_only,
        ),
        Misconception(
            "some parameters left",
            "Some parameters still ask for gradients: biases, or the parts that you "
            "did not reach. teacher.parameters() runs over all of them, at every "
            "depth.",
            _weights_only,
            _matrices_only,
            _first_part_only,
            _last_part_only,
        ),
        Misconception(
            "dropout set to 0",
            "You set the rates of dropout to 0 in a network that stays in training "
            "mode. Batch norm would go on changing, and a caller finds another "
            "network than it gave you. eval() is enough.",
            _dropout_of_zero,
        ),
        Misconception(
            "a copy frozen",
            "You froze a copy. The caller's teacher, which the training loop holds, "
            "is as it was; freeze that one.",
            _fresh_copy,
        ),
        Misconception(
            "another network returned",
            "The parts of the teacher are frozen, but inside a new network. Return the "
            "teacher itself: the flag of the old one still says training.",
            _copy,
        ),
        Misconception(
            "nothing returned",
            "The teacher is frozen, but your function returns None. Return the "
            "teacher.",
            _nothing_back,
        ),
        Misconception(
            "left as it was",
            "The teacher came back as it was. Change its mode, and its parameters' "
            "requires_grad.",
            lambda t: t,
            lambda t: t.train(),
        ),
    ),
)

# --- marian_parameters ----------------------------------------------------------


def _config(
    vocabulary: int, d: int, heads: int, layers: tuple, inner: tuple, positions=512
) -> dict:
    return {
        "vocab_size": vocabulary,
        "d_model": d,
        "encoder_layers": layers[0],
        "decoder_layers": layers[1],
        "encoder_ffn_dim": inner[0],
        "decoder_ffn_dim": inner[1],
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "max_position_embeddings": positions,
    }


TINY = _config(10, 2, 1, (1, 1), (4, 4), positions=16)
STUDENT = _config(4000, 128, 4, (4, 1), (512, 512))
TEACHER = _config(4000, 320, 5, (7, 4), (1280, 1280))
OTHER = {"encoder": "decoder", "decoder": "encoder"}
ODD = _config(250, 24, 3, (3, 2), (72, 40), positions=100)


def _marian_parameters(config: dict) -> int:
    """Shape by shape, as the weights lie in a file."""
    d = config["d_model"]
    attention = 4 * [(d, d), (d,)]
    norm = [(d,), (d,)]

    def block(inner: int) -> list[tuple]:
        return [(d, inner), (inner,), (inner, d), (d,)]

    shapes = [(config["vocab_size"], d)]
    encoder = attention + block(config["encoder_ffn_dim"]) + 2 * norm
    decoder = 2 * attention + block(config["decoder_ffn_dim"]) + 3 * norm
    shapes += config["encoder_layers"] * encoder + config["decoder_layers"] * decoder
    return sum(math.prod(shape) for shape in shapes)


def _parameter_cases() -> list[Case]:
    return [
        Case("by hand: 156", {"config": TINY}),
        Case("the course's student", {"config": STUDENT}),
        Case("the course's teacher", {"config": TEACHER}),
        Case("two inner widths, neither 4 times d", {"config": ODD}),
    ]


def _count(
    *,
    embeddings: int = 1,
    attention_bias: int = 1,
    block_bias: int = 1,
    output_bias: int = 0,
    crossings: int = 2,
    norms: tuple[int, int] = (2, 3),
    heads: bool = False,
    positions: int = 0,
    matrices: int = 2,
    attention_matrices: int = 4,
    inner: Callable[[dict, str], int] | None = None,
    decoder_layers: str = "decoder_layers",
) -> Callable[[dict], int]:
    """A way to count that differs from the right one in what is given."""

    def counted(config: dict) -> int:
        d = config["d_model"]
        attention = attention_matrices * (d * d + attention_bias * d)
        attention *= config["encoder_attention_heads"] if heads else 1
        total = embeddings * config["vocab_size"] * d
        total += output_bias * config["vocab_size"]
        total += positions * config["max_position_embeddings"] * d
        sides = (
            ("encoder", 1, "encoder_layers"),
            ("decoder", crossings, decoder_layers),
        )
        for (side, attentions, layers), norm in zip(sides, norms, strict=True):
            wide = inner(config, side) if inner else config[f"{side}_ffn_dim"]
            biases = wide + (d if matrices > 1 else 0)
            block = matrices * d * wide + block_bias * biases
            one = attentions * attention + block + norm * 2 * d
            total += config[layers] * one
        return total

    return counted


marian_parameters = Exercise(
    name="ex02.marian_parameters",
    call="marian_parameters(config)",
    reference=_marian_parameters,
    cases=_parameter_cases,
    difficulty=3,
    minutes=7,
    hints=(
        "Write attention, feed-forward and norm as three small sums first; a layer is "
        "then one line.",
        "attention = 4 · (d·d + d); norm = 2 · d; feed-forward = (d·inner + inner) + "
        "(inner·d + d).",
        "encoder layer = attention + feed-forward + 2 norms; decoder layer = 2 "
        "attentions + feed-forward + 3 norms; and vocab_size · d once.",
    ),
    misconceptions=(
        Misconception(
            "biases forgotten",
            "The biases are missing: each matrix from m to n numbers has n of them "
            "besides its m · n weights.",
            _count(attention_bias=0, block_bias=0),
        ),
        Misconception(
            "some biases forgotten",
            "Part of the biases is missing. Each of the four matrices of an attention "
            "has d of them, and each of the two of a feed-forward block as many as it "
            "puts out.",
            _count(attention_bias=0),
            _count(block_bias=0),
        ),
        Misconception(
            "a bias at the output",
            "The scores over the vocabulary were given a bias, vocab_size numbers "
            "more. Here they have none to learn.",
            _count(output_bias=1),
        ),
        Misconception(
            "embedding three times",
            "The embedding was counted three times. Encoder, decoder and output share "
            "one matrix (tied embeddings): it is stored, and counted, once.",
            _count(embeddings=3),
        ),
        Misconception(
            "embedding twice",
            "The embedding was counted twice. Encoder, decoder and output share one "
            "matrix (tied embeddings): it is stored, and counted, once.",
            _count(embeddings=2),
        ),
        Misconception(
            "embedding forgotten",
            "The embedding is missing: vocab_size · d_model, a third of our student.",
            _count(embeddings=0),
        ),
        Misconception(
            "attention over the source forgotten",
            "A decoder layer has two attentions: one over what was said so far, one "
            "over the source. The second is missing.",
            _count(crossings=1),
        ),
        Misconception(
            "decoder like encoder",
            "Your decoder layer is an encoder layer. It has a second attention, over "
            "the source, and a third norm.",
            _count(crossings=1, norms=(2, 2)),
        ),
        Misconception(
            "third norm forgotten",
            "A decoder layer has three norms, one behind each of its three blocks; you "
            "counted two.",
            _count(norms=(2, 2)),
        ),
        Misconception(
            "norms forgotten",
            "The norms are missing: each has a scale and a shift for every one of the "
            "d numbers, 2 · d.",
            _count(norms=(0, 0)),
        ),
        Misconception(
            "half norms",
            "A norm has two numbers for each of the d: a scale and a shift, 2 · d. You "
            "counted one.",
            _count(norms=(1.0, 1.5)),
        ),
        Misconception(
            "heads multiplied",
            "The attention was multiplied by the number of heads. Heads share the d × "
            "d matrices out among themselves; more heads make narrower heads, not "
            "more parameters.",
            _count(heads=True),
        ),
        Misconception(
            "positions counted",
            "Positions were counted. In Marian they are fixed sines, not learned.",
            _count(positions=1),
            _count(positions=2),
        ),
        Misconception(
            "inner width of 4 d",
            "The inner width was taken to be 4 · d_model. That is a habit, not a law: "
            "read encoder_ffn_dim and decoder_ffn_dim.",
            _count(inner=lambda config, side: 4 * config["d_model"]),
        ),
        Misconception(
            "one inner width",
            "Encoder and decoder may have different inner widths: encoder_ffn_dim and "
            "decoder_ffn_dim.",
            _count(inner=lambda config, side: config["encoder_ffn_dim"]),
            _count(inner=lambda config, side: config["decoder_ffn_dim"]),
            _count(inner=lambda config, side: config[f"{OTHER[side]}_ffn_dim"]),
        ),
        Misconception(
            "half a feed-forward",
            "The way back is missing: a feed-forward block has two matrices, d to the "
            "inner width and the inner width to d.",
            _count(matrices=1),
        ),
        Misconception(
            "three matrices an attention",
            "An attention has four matrices: query, key, value, and the output that "
            "mixes the heads. You counted three.",
            _count(attention_matrices=3),
        ),
        Misconception(
            "equal depths",
            "The decoder was given as many layers as the encoder. It has "
            "decoder_layers, and a quick translator has few.",
            _count(decoder_layers="encoder_layers"),
        ),
    ),
)

# --- step_flops -----------------------------------------------------------------


def _step_flops(config: dict, source_length: int, position: int) -> int:
    """Piece by piece: (multiply-adds, how often)."""
    d, layers = config["d_model"], config["decoder_layers"]
    pieces = [
        (d * d, 4 * layers),  # query, key, value, output of the self-attention
        (position * d, 2 * layers),  # its scores, and its mixture
        (d * d, 2 * layers),  # query and output of the attention over the source
        (source_length * d, 2 * layers),
        (d * config["decoder_ffn_dim"], 2 * layers),
        (d * config["vocab_size"], 1),
    ]
    return sum(2 * size * times for size, times in pieces)


def _step_cases() -> list[Case]:
    def case(name: str, config: dict, source_length: int, position: int) -> Case:
        arguments = {"config": config, "source_length": source_length}
        return Case(name, arguments | {"position": position})

    return [
        case("by hand: 160", TINY, 3, 2),
        case("the student's first step", STUDENT, 6, 1),
        case("the teacher, in the middle", TEACHER, 30, 17),
        case("a long source and a late step", ODD, 90, 41),
    ]


def _steps(
    *,
    operations: int = 2,
    output: int = 1,
    output_each_layer: bool = False,
    own: int = 4,
    cross: int = 2,
    source_anew: bool = False,
    own_length: Callable[[int, int], int] = lambda s, t: t,
    cross_length: Callable[[int, int], int] = lambda s, t: s,
    terms: int = 2,
    matrices: int = 2,
    layers_of: str = "decoder",
    inner_of: str = "decoder",
    one_layer: bool = False,
    heads: bool = False,
    crossed: bool = True,
) -> Callable[[dict, int, int], int]:
    """A way to count that differs from the right one in what is given."""

    def counted(config: dict, s: int, t: int) -> int:
        d = config["d_model"]
        layers = 1 if one_layer else config[f"{layers_of}_layers"]
        many = config["decoder_attention_heads"] if heads else 1
        layer = many * (own * d * d + terms * own_length(s, t) * d)
        if crossed:
            layer += many * (cross * d * d + terms * cross_length(s, t) * d)
        if source_anew:
            layer += 2 * s * d * d
        layer += matrices * d * config[f"{inner_of}_ffn_dim"]
        last = output * d * config["vocab_size"] * (layers if output_each_layer else 1)
        return operations * (layers * layer + last)

    return counted


def _whole_prefix(config: dict, source_length: int, position: int) -> int:
    return position * _step_flops(config, source_length, position)


def _all_steps(config: dict, source_length: int, position: int) -> int:
    return sum(_step_flops(config, source_length, t + 1) for t in range(position))


step_flops = Exercise(
    name="ex02.step_flops",
    call="step_flops(config, source_length, position)",
    reference=_step_flops,
    cases=_step_cases,
    difficulty=3,
    minutes=7,
    hints=(
        "Add up multiply-adds first, layer by layer; double at the very end.",
        "Self-attention: 4·d·d + 2·t·d. Attention over the source: 2·d·d + 2·S·d. "
        "Feed-forward: 2 · d · decoder_ffn_dim.",
        "2 · (decoder_layers · layer + d · vocab_size), where layer is the sum of the "
        "three in hint 2.",
    ),
    misconceptions=(
        Misconception(
            "multiply-adds",
            "These are multiply-adds. Each is a multiplication and an addition, 2 "
            "FLOPs.",
            _steps(operations=1),
        ),
        Misconception(
            "vocabulary forgotten",
            "The way out is missing: scores for the whole vocabulary, d · vocab_size. "
            "In our student that is the greater part of the step.",
            _steps(output=0),
        ),
        Misconception(
            "vocabulary in each layer",
            "The output over the vocabulary was counted in each layer. It comes once, "
            "behind the last.",
            _steps(output_each_layer=True),
        ),
        Misconception(
            "keys of the source anew",
            "Keys and values of the source were computed anew. They are made at the "
            "first step and kept; only query and output remain, 2·d·d.",
            _steps(source_anew=True),
            _steps(cross=4),
        ),
        Misconception(
            "lengths forgotten",
            "Comparing and mixing is missing: 2 · t · d in the self-attention, "
            "2 · S · d in the attention over the source.",
            _steps(terms=0),
        ),
        Misconception(
            "comparison without mixture",
            "Per attention there are two terms with the length: the comparison of "
            "query and keys, and the mixture of the values.",
            _steps(terms=1),
        ),
        Misconception(
            "one length for both",
            "Both attentions run over the same length in your count. The "
            "self-attention has t tokens to look at, the other the S of the source.",
            _steps(own_length=lambda s, t: s),
            _steps(cross_length=lambda s, t: t),
        ),
        Misconception(
            "itself left out",
            "The new token also looks at itself: at step t there are t keys, not t - "
            "1.",
            _steps(own_length=lambda s, t: t - 1),
        ),
        Misconception(
            "attention over the source forgotten",
            "The attention over the source is missing: 2·d·d + 2·S·d in each layer.",
            _steps(crossed=False),
        ),
        Misconception(
            "the encoder's numbers",
            "You used the encoder's layers or inner width. A step is the decoder's; "
            "the encoder runs once a sentence.",
            _steps(layers_of="encoder", inner_of="encoder"),
            _steps(layers_of="encoder"),
            _steps(inner_of="encoder"),
        ),
        Misconception(
            "one layer",
            "One decoder layer was counted. The token passes through all of them: "
            "decoder_layers.",
            _steps(one_layer=True),
        ),
        Misconception(
            "half a feed-forward",
            "A feed-forward block has two matrices: there and back, 2 · d · inner "
            "width.",
            _steps(matrices=1),
        ),
        Misconception(
            "heads multiplied",
            "The attention was multiplied by the number of heads. Heads share the d "
            "numbers out among themselves: the work is that of one.",
            _steps(heads=True),
        ),
        Misconception(
            "the whole prefix again",
            "You let the decoder run over all t tokens again. Their keys and values "
            "are kept: only the new token passes through the matrices.",
            _whole_prefix,
        ),
        Misconception(
            "all steps so far",
            "This is the sum of the steps 1 to t. Asked is step t alone.",
            _all_steps,
        ),
    ),
)
