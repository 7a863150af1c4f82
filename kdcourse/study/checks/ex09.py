"""Checks of lesson 09: samples, their labels, the mix, its loss and its price."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .core import Case, Exercise, Misconception
from .slopes import loss_and_slopes

IGNORE = -100


def _random(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class _Seed:
    """A generator to be made for each call, so that every call begins alike."""

    number: int

    def __repr__(self) -> str:
        return f"torch.Generator().manual_seed({self.number})"

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.number)


# --- share_on_path --------------------------------------------------------------


def _share_on_path(slips: list) -> list:
    shares, now = [1.0], 1.0
    for slip in slips:
        now *= 1.0 - slip
        shares.append(now)
    return shares


def _path_cases() -> list[Case]:
    return [
        Case("by hand: 1, 0.9, 0.72", {"slips": [0.1, 0.2]}),
        Case("four tokens, the second one hard", {"slips": [0.05, 0.4, 0.1, 0.25]}),
        Case("a token at which no sentence survives", {"slips": [0.3, 1.0, 0.2]}),
        Case("a token that is never wrong", {"slips": [0.0, 0.5, 0.0]}),
        Case("one in twenty, ten tokens", {"slips": [0.05] * 10}),
        Case("no token yet", {"slips": []}),
    ]


def _products(numbers: list) -> list:
    return list(itertools.accumulate(numbers, lambda a, b: a * b, initial=1.0))


def _path_by_mean(slips: list) -> list:
    mean = sum(slips) / max(1, len(slips))
    return [(1 - mean) ** t for t in range(len(slips) + 1)]


share_on_path = Exercise(
    name="ex09.share_on_path",
    call="share_on_path(slips)",
    reference=_share_on_path,
    cases=_path_cases,
    difficulty=1,
    minutes=4,
    hints=(
        "Of the sentences that are on the path, the share 1 - slip stays there.",
        "Begin with [1.0]; each token multiplies the last share with 1 - slip.",
        "shares.append(shares[-1] * (1 - slip)) for each slip.",
    ),
    misconceptions=(
        Misconception(
            "slips summed",
            "The slips are added up: 1 - Σ. That counts sentences twice that would "
            "slip twice, and falls below 0 in the end. Multiply what stays.",
            lambda slips: [
                1 - total for total in itertools.accumulate(slips, initial=0.0)
            ],
        ),
        Misconception(
            "start left out",
            "The share before the first token is missing: no sentence has slipped yet, "
            "so it is 1, and the list has L + 1 numbers.",
            lambda slips: _share_on_path(slips)[1:],
        ),
        Misconception(
            "end left out",
            "The share after the last token is missing: the list has L + 1 numbers.",
            lambda slips: _share_on_path(slips)[:-1],
        ),
        Misconception(
            "the lost ones",
            "This is the share that has left the path. Wanted is the share still on "
            "it.",
            lambda slips: [1 - share for share in _share_on_path(slips)],
        ),
        Misconception(
            "slips multiplied",
            "The slips are multiplied: that is the share which slips every single "
            "time. Multiply 1 - slip.",
            _products,
        ),
        Misconception(
            "each alone",
            "Each token is looked at alone. Whoever slipped before is off the path "
            "already: multiply with the share before.",
            lambda slips: [1.0, *(1 - slip for slip in slips)],
        ),
        Misconception(
            "mean slip",
            "The mean slip was used for each token. Each token has a slip of its own, "
            "and one that is always wrong leaves nobody on the path.",
            _path_by_mean,
        ),
        Misconception(
            "first slip for all",
            "The first token's slip was used for all. Each token has its own.",
            lambda slips: [(1 - (slips or [0])[0]) ** t for t in range(len(slips) + 1)],
        ),
    ),
)

# --- ancestral_sample -----------------------------------------------------------

SIZE = 6


def wandering(prefix) -> Tensor:
    """A made-up model whose next token depends on all of the prefix."""
    seed = 17
    for token in prefix:
        seed = (seed * 31 + int(token) + 1) % 1_000_003
    return _random(seed, SIZE).softmax(dim=0)


def narrow(prefix) -> Tensor:
    """Like ``wandering``, but half of the tokens cannot be said."""
    barred = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    p = wandering(prefix) * barred.roll(len(prefix))
    return p / p.sum()


def _one_draw(p: Tensor, generator: torch.Generator | None) -> int:
    return int(torch.multinomial(p, 1, generator=generator))


def _speak(
    pick: Callable = _one_draw,
    prefix_of: Callable = list,
    stop: bool = True,
    extra: int = 0,
    restart: bool = False,
) -> Callable:
    def sample(next_probabilities, eos, limit, generator) -> list:
        said: list = []
        for _ in range(limit + extra):
            if restart:
                generator.manual_seed(generator.initial_seed())
            said.append(pick(next_probabilities(prefix_of(said)), generator))
            if stop and said[-1] == eos:
                break
        return said

    return sample


_ancestral_sample = _speak()


def _sample(function: Callable, arguments: tuple):
    """One call with a fresh generator; torch's own is the same for every call."""
    next_probabilities, eos, limit, seed = arguments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987)
        return function(next_probabilities, eos, limit, seed.generator())


def _sample_cases() -> list[Case]:
    def case(name: str, model: Callable, eos: int, limit: int, seed: int) -> Case:
        arguments = {"next_probabilities": model, "eos": eos, "limit": limit}
        return Case(name, arguments | {"generator": _Seed(seed)})

    return [
        case("a sentence that ends by itself", wandering, 0, 30, 1),
        case("eos is 4 here", wandering, 4, 30, 2),
        case("the limit comes first", wandering, 5, 3, 4),
        case("one token at most", wandering, 0, 1, 5),
        case("some tokens cannot be said", narrow, 1, 30, 6),
        case("another seed", narrow, 2, 30, 7),
        case("a long one", wandering, 3, 40, 11),
    ]


def _at_once(next_probabilities, eos, limit, generator) -> list:
    p = next_probabilities([])
    said = torch.multinomial(p, limit, replacement=True, generator=generator).tolist()
    return said[: said.index(eos) + 1] if eos in said else said


def _without_end(next_probabilities, eos, limit, generator) -> list:
    said = _ancestral_sample(next_probabilities, eos, limit, generator)
    return said[:-1] if said[-1] == eos else said


def _end_put_there(next_probabilities, eos, limit, generator) -> list:
    said = _ancestral_sample(next_probabilities, eos, limit, generator)
    return said if said[-1] == eos else [*said, eos]


def _end_put_last(next_probabilities, eos, limit, generator) -> list:
    said = _ancestral_sample(next_probabilities, eos, limit, generator)
    return said if said[-1] == eos else [*said[:-1], eos]


ancestral_sample = Exercise(
    name="ex09.ancestral_sample",
    call="ancestral_sample(next_probabilities, eos, limit, generator)",
    reference=_ancestral_sample,
    observe=_sample,
    cases=_sample_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "Keep a list of what has been said. Each round asks for the distribution after "
        "that list, draws one token, and appends it.",
        "int(torch.multinomial(p, 1, generator=generator)) is one drawn id.",
        "Two reasons to stop: the id just appended is eos, or the list has limit ids.",
    ),
    misconceptions=(
        Misconception(
            "greedy",
            "This takes the most probable token each time: greedy search, the same "
            "sentence whatever the seed. Draw, with torch.multinomial.",
            _speak(lambda p, generator: int(p.argmax())),
        ),
        Misconception(
            "softmax again",
            "A softmax was put on top of probabilities, which makes all tokens nearly "
            "alike. They are probabilities already.",
            _speak(lambda p, generator: _one_draw(p.softmax(dim=-1), generator)),
        ),
        Misconception(
            "sharpened",
            "The distribution was sharpened before the draw. An ancestral sample draws "
            "at T = 1, from the probabilities as they are.",
            _speak(lambda p, generator: _one_draw(p**2, generator)),
            _speak(
                lambda p, generator: _one_draw((p.log() / 0.5).softmax(-1), generator)
            ),
        ),
        Misconception(
            "end ignored",
            "It goes on talking after eos. What follows the end of a sentence is "
            "noise: stop.",
            _speak(stop=False),
        ),
        Misconception(
            "end dropped",
            "The eos was drawn but left out. It is a token that was said: without it "
            "no student learns to stop.",
            _without_end,
        ),
        Misconception(
            "end put there",
            "An eos was put at the end of a sentence that reached the limit. The model "
            "did not say it.",
            _end_put_there,
            _end_put_last,
        ),
        Misconception(
            "prefix forgotten",
            "Each token is drawn from the first distribution. Ask again after each "
            "token, with all that was said so far.",
            _speak(prefix_of=lambda said: []),
            _at_once,
        ),
        Misconception(
            "last token only",
            "The model was told the last token alone. It needs the whole prefix.",
            _speak(prefix_of=lambda said: said[-1:]),
        ),
        Misconception(
            "global generator",
            "The draws do not come from the generator you were given, so nobody can "
            "repeat them: pass generator=generator.",
            _speak(lambda p, generator: _one_draw(p, None)),
        ),
        Misconception(
            "reseeded",
            "The generator is seeded anew for each token, so that the same random "
            "number comes every time. Seed once, outside; then only draw.",
            _speak(restart=True),
        ),
        Misconception(
            "one too few",
            "It stops one token early where the limit comes first: limit tokens may be "
            "said.",
            _speak(extra=-1),
        ),
        Misconception(
            "one too many",
            "It says one token more than the limit.",
            _speak(extra=1),
        ),
    ),
)

# --- labels_from_samples --------------------------------------------------------


def _labels_from_samples(rows: Tensor, eos: int) -> Tensor:
    labels = torch.full_like(rows[:, 1:], IGNORE)
    for n, row in enumerate(rows[:, 1:].tolist()):
        end = row.index(eos) + 1 if eos in row else len(row)
        labels[n, :end] = rows[n, 1 : end + 1]
    return labels


def _rows_cases() -> list[Case]:
    def case(name: str, eos: int, *rows: list) -> Case:
        return Case(name, {"rows": torch.tensor(rows), "eos": eos})

    return [
        case("by hand: the pad is the eos", 2, [9, 5, 6, 2, 2], [9, 7, 2, 2, 2]),
        case(
            "start and pad are 9, eos is 2",
            2,
            [9, 5, 6, 2, 9, 9],
            [9, 7, 2, 9, 9, 9],
            [9, 4, 4, 8, 3, 2],
        ),
        case("the start token is the eos, too", 2, [2, 5, 2, 1, 1], [2, 6, 7, 8, 2]),
        case("start, pad and eos are one", 0, [0, 5, 0, 0], [0, 6, 7, 0]),
        case("a row reached the limit", 2, [9, 5, 6, 7], [9, 8, 2, 9]),
        case("no row has an end", 3, [9, 5, 6], [9, 7, 8], [9, 4, 4]),
        case("an empty sentence among others", 2, [9, 2, 2, 2], [9, 5, 6, 2]),
    ]


def _behind(said: Tensor, eos: int) -> Tensor:
    ends = (said == eos).long()
    return ends.cumsum(dim=1) - ends > 0


def _by_argmax(rows: Tensor, eos: int) -> Tensor:
    said = rows[:, 1:]
    first = (said == eos).int().argmax(dim=1, keepdim=True)
    places = torch.arange(said.shape[1])[None]
    return said.masked_fill(places > first, IGNORE)


def _start_in_the_sum(rows: Tensor, eos: int) -> Tensor:
    return rows.masked_fill(_behind(rows, eos), IGNORE)[:, 1:]


def _ended(rows: Tensor, eos: int) -> Tensor:
    labels = _labels_from_samples(rows, eos)
    open_rows = (labels != eos).all(dim=1)
    labels[open_rows, -1] = eos
    return labels


def _one_length(rows: Tensor, eos: int) -> Tensor:
    labels = _labels_from_samples(rows, eos)
    return labels[:, : int((labels[0] != IGNORE).sum())]


def _only_ended(rows: Tensor, eos: int) -> Tensor:
    labels = _labels_from_samples(rows, eos)
    open_rows = (labels != eos).all(dim=1, keepdim=True)
    return labels.masked_fill(open_rows, IGNORE)


labels_from_samples = Exercise(
    name="ex09.labels_from_samples",
    call="labels_from_samples(rows, eos)",
    reference=_labels_from_samples,
    cases=_rows_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Take the start token off first. Then it is a question of *places*: what "
        "stands behind the first eos of its row?",
        "(said == eos).long().cumsum(dim=1) counts the ends up to and with each place. "
        "Behind the first end it is at least 1, and at the end itself exactly 1.",
        "Subtract the place's own end from that sum: what is then above 0 stands "
        "behind an end. Fill it with -100.",
    ),
    misconceptions=(
        Misconception(
            "start kept",
            "The start token is still there. Nobody said it, and it shifts every label "
            "by one place.",
            lambda rows, eos: torch.cat(
                [rows[:, :1], _labels_from_samples(rows, eos)], dim=1
            ),
            lambda rows, eos: torch.cat(
                [rows[:, :1], _labels_from_samples(rows, eos)], dim=1
            )[:, :-1],
        ),
        Misconception(
            "end erased",
            "Every eos is gone, the one that ends the sentence, too: a student so "
            "trained never stops. Keep the first eos of each row.",
            lambda rows, eos: rows[:, 1:].masked_fill(
                _behind(rows[:, 1:], eos) | (rows[:, 1:] == eos), IGNORE
            ),
            lambda rows, eos: rows[:, 1:].masked_fill(rows[:, 1:] == eos, IGNORE),
        ),
        Misconception(
            "pads learned",
            "What stands behind the end still counts: the student would learn to say "
            "pads. Put -100 there.",
            lambda rows, eos: rows[:, 1:].clone(),
        ),
        Misconception(
            "every end kept",
            "All eos count, though only the first was said. Where the pad is the eos, "
            "the student would learn to end again and again.",
            lambda rows, eos: rows[:, 1:].masked_fill(
                _behind(rows[:, 1:], eos) & (rows[:, 1:] != eos), IGNORE
            ),
        ),
        Misconception(
            "start counted as end",
            "Where the start token is the eos, everything behind it is taken to be "
            "over. Take the start off before you look for ends.",
            _start_in_the_sum,
        ),
        Misconception(
            "row without end",
            "A row that reached the limit has no eos; argmax then finds place 0, and "
            "all but one token are lost. All of it was said, and counts.",
            _by_argmax,
        ),
        Misconception(
            "row without end dropped",
            "A row that reached the limit was left out. All of it was said, and "
            "counts.",
            _only_ended,
        ),
        Misconception(
            "end invented",
            "A row that reached the limit was given an eos that the student did not "
            "say.",
            _ended,
        ),
        Misconception(
            "one length for all",
            "All rows were cut at the end of the first. Each has an end of its own.",
            _one_length,
        ),
        Misconception(
            "one place early",
            "The label before the end is lost as well: off by one.",
            lambda rows, eos: _labels_from_samples(rows, eos).masked_fill(
                _labels_from_samples(rows, eos).roll(-1, dims=1) == eos, IGNORE
            ),
        ),
        Misconception(
            "another filler",
            "What does not count is not marked with -100, which is the mark that "
            "losses leave out.",
            lambda rows, eos: rows[:, 1:].masked_fill(_behind(rows[:, 1:], eos), 0),
            lambda rows, eos: rows[:, 1:].masked_fill(_behind(rows[:, 1:], eos), -1),
            lambda rows, eos: rows[:, 1:].masked_fill(_behind(rows[:, 1:], eos), 100),
        ),
    ),
)

# --- mixed_batch ----------------------------------------------------------------

CALLS = 12


def _mixed_batch(labels, share, speak, generator) -> Tensor:
    u = torch.rand((), generator=generator)
    return speak(labels) if u < share else labels


def said_instead(labels: Tensor) -> Tensor:
    """What the made-up student says: other ids, and other lengths."""
    return torch.where(labels == IGNORE, labels, labels + 50)


def _calls(function: Callable, arguments: tuple):
    """Several batches with one generator, and how often the student spoke."""
    labels, share, speak, seed = arguments
    generator, spoken = seed.generator(), []

    def counted(batch: Tensor) -> Tensor:
        spoken.append(1)
        return speak(batch)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987)
        made = []
        for _ in range(CALLS):
            made.append(function(labels, share, counted, generator))
            if made[-1] is ...:
                return ...
    return {"the batches": made, "times the student spoke": len(spoken)}


def _batch_cases() -> list[Case]:
    labels = torch.tensor([[5, 6, 2, -100], [7, 8, 9, 2], [4, 2, -100, -100]])

    def case(name: str, share: float, seed: int) -> Case:
        arguments = {"labels": labels, "share": share, "speak": said_instead}
        return Case(name, arguments | {"generator": _Seed(seed)})

    return [
        case("λ = ½, twelve batches", 0.5, 1),
        case("λ = 0.2", 0.2, 11),
        case("λ = 0.8", 0.8, 19),
        case("λ = 0: nothing but data", 0.0, 4),
        case("λ = 1: nothing but samples", 1.0, 5),
    ]


def _mix_by(choose: Callable) -> Callable:
    def mixed(labels, share, speak, generator) -> Tensor:
        return speak(labels) if choose(share, generator) else labels

    return mixed


def _reseeded(share, generator) -> bool:
    generator.manual_seed(generator.initial_seed())
    return bool(torch.rand((), generator=generator) < share)


def _ahead(labels, share, speak, generator) -> Tensor:
    own = speak(labels)
    return own if torch.rand((), generator=generator) < share else labels


def _coin_for(*dimensions: int) -> Callable:
    def mixed(labels, share, speak, generator) -> Tensor:
        shape = [n if d in dimensions else 1 for d, n in enumerate(labels.shape)]
        coins = torch.rand(shape, generator=generator) < share
        return torch.where(coins, speak(labels), labels)

    return mixed


def _first_rows(labels, share, speak, generator) -> Tensor:
    own, n = speak(labels), round(share * len(labels))
    return torch.cat([own[:n], labels[n:]])


mixed_batch = Exercise(
    name="ex09.mixed_batch",
    call="mixed_batch(labels, share, speak, generator)",
    reference=_mixed_batch,
    observe=_calls,
    cases=_batch_cases,
    difficulty=2,
    minutes=6,
    hints=(
        "One coin for the whole batch: it is either the student's or the data's.",
        "u = torch.rand((), generator=generator) is below λ with probability λ.",
        "if u < share: return speak(labels); otherwise return labels.",
    ),
    misconceptions=(
        Misconception(
            "lambda reversed",
            "λ is the share of the student's batches. At λ = 1 all must be its own; "
            "yours are all data.",
            _mix_by(lambda share, g: torch.rand((), generator=g) >= share),
            _mix_by(lambda share, g: torch.rand((), generator=g) > share),
            _mix_by(lambda share, g: torch.rand((), generator=g) < 1 - share),
        ),
        Misconception(
            "fair coin",
            "The coin is fair whatever λ is. Compare u with share.",
            _mix_by(lambda share, g: torch.rand((), generator=g) < 0.5),
        ),
        Misconception(
            "no chance",
            "There is no chance in it: λ is compared with a constant, so that one kind "
            "of batch never comes. Draw u.",
            _mix_by(lambda share, g: share >= 0.5),
            _mix_by(lambda share, g: share > 0.5),
            _mix_by(lambda share, g: share > 0),
        ),
        Misconception(
            "coin for each token",
            "Data and samples were mixed token by token. That makes sentences which "
            "nobody said, with prefixes that fit neither.",
            _coin_for(0, 1),
        ),
        Misconception(
            "coin for each row",
            "A coin was tossed for each row. Then the student must speak in nearly "
            "every batch. One coin a batch has the same expectation and is cheaper.",
            _coin_for(0),
        ),
        Misconception(
            "share of the rows",
            "The first rows are the student's, the others data. Toss one coin a batch: "
            "then a batch is either sampled or not, and costs accordingly.",
            _first_rows,
        ),
        Misconception(
            "spoken in vain",
            "The batches are right, but the student speaks for each of them, and "
            "mostly in vain. Sampling is what costs: toss the coin first.",
            _ahead,
        ),
        Misconception(
            "global generator",
            "The coin does not come from the generator you were given, so no run can "
            "be repeated: pass generator=generator.",
            _mix_by(lambda share, g: torch.rand(()) < share),
        ),
        Misconception(
            "reseeded",
            "The generator is seeded anew for each batch: every coin falls alike. Seed "
            "once, outside; here only draw.",
            _mix_by(_reseeded),
        ),
        Misconception(
            "ids averaged",
            "The ids themselves were averaged with λ. An id is a name, not an amount: "
            "token 5 and token 7 do not make token 6.",
            lambda labels, share, speak, generator: (
                (1 - share) * labels + share * speak(labels)
            ).long(),
            lambda labels, share, speak, generator: (
                (1 - share) * labels + share * speak(labels)
            ),
        ),
    ),
)

# --- on_policy_loss -------------------------------------------------------------


def _kls(student: Tensor, teacher: Tensor, dim: int = -1) -> Tensor:
    log_q, log_p = student.log_softmax(dim), teacher.log_softmax(dim)
    return (log_q.exp() * (log_q - log_p)).sum(dim)


def _on_policy_loss(student_logits, teacher_logits, labels) -> Tensor:
    real = labels != IGNORE
    return _kls(student_logits, teacher_logits.detach())[real].sum() / real.sum()


def _loss_cases() -> list[Case]:
    def case(name: str, seed: int, labels: list, size: int) -> Case:
        labels = torch.tensor(labels)
        arguments = {
            "student_logits": _random(seed, *labels.shape, size),
            "teacher_logits": _random(seed + 1, *labels.shape, size),
        }
        return Case(name, arguments | {"labels": labels})

    by_hand = {
        "student_logits": torch.tensor([[[0.5, 0.5]] * 2]).log(),
        "teacher_logits": torch.tensor([[[0.75, 0.25]] * 2]).log(),
        "labels": torch.tensor([[1, 0]]),
    }
    return [
        Case("by hand, the same token twice: 0.14", by_hand),
        case("two rows, one shorter", 1, [[4, 1, 2, -100], [3, 0, 4, 2]], 5),
        case("many pads", 3, [[1, -100, -100], [2, 0, 2], [3, 2, -100]], 4),
        case("no pad at all", 5, [[1, 2, 0], [2, 1, 0]], 3),
        case("one row, six words", 7, [[5, 0, 3, 2, 5, 1, 2]], 6),
    ]


def _mean_of(each: Callable) -> Callable:
    """A wrong loss that is right but for what it measures at each token."""

    def loss(student_logits, teacher_logits, labels) -> Tensor:
        real = labels != IGNORE
        return each(student_logits, teacher_logits.detach())[real].sum() / real.sum()

    return loss


def _divided(by: Callable) -> Callable:
    def loss(student_logits, teacher_logits, labels) -> Tensor:
        real = labels != IGNORE
        total = _kls(student_logits, teacher_logits.detach())[real].sum()
        return total / by(student_logits, real)

    return loss


def _weights_fixed(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_q.exp().detach() * (log_q - log_p)).sum(-1)


def _of_said_tokens(student_logits, teacher_logits, labels) -> Tensor:
    real = labels != IGNORE
    ids = labels.clamp_min(0)[..., None]
    log_q = student_logits.log_softmax(-1).gather(-1, ids)
    log_p = teacher_logits.detach().log_softmax(-1).gather(-1, ids)
    return (log_q - log_p)[..., 0][real].sum() / real.sum()


def _hard_labels(student_logits, teacher_logits, labels) -> Tensor:
    real = labels != IGNORE
    log_q = student_logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])
    return -log_q[..., 0][real].sum() / real.sum()


def _shifted(student_logits, teacher_logits, labels) -> Tensor:
    real = labels[:, 1:] != IGNORE
    each = _kls(student_logits, teacher_logits.detach())[:, :-1]
    return each[real].sum() / real.sum()


def _row_means(student_logits, teacher_logits, labels) -> Tensor:
    real = labels != IGNORE
    each = _kls(student_logits, teacher_logits.detach()).masked_fill(~real, 0.0)
    return (each.sum(1) / real.sum(1)).mean()


def _pads_counted(student_logits, teacher_logits, labels) -> Tensor:
    return _kls(student_logits, teacher_logits.detach()).mean()


def _over_time(student_logits, teacher_logits, labels) -> Tensor:
    real = labels != IGNORE
    log_q = student_logits.log_softmax(1)
    log_p = teacher_logits.detach().log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)[real].sum() / real.sum()


on_policy_loss = Exercise(
    name="ex09.on_policy_loss",
    call="on_policy_loss(student_logits, teacher_logits, labels)",
    reference=_on_policy_loss,
    observe=loss_and_slopes("slope in the student", "slope in the teacher"),
    cases=_loss_cases,
    difficulty=3,
    minutes=9,
    hints=(
        "real = labels != -100 chooses the tokens; student_logits[real] is (N, V), row "
        "by row. The ids themselves are not needed: the prefix has already done its "
        "work.",
        "log_q and log_p by torch.log_softmax over the last dimension. Who weighs the "
        "difference in a reverse KL?",
        "(log_q.exp() * (log_q - log_p)).sum() / real.sum(), with "
        "teacher_logits.detach().",
    ),
    misconceptions=(
        Misconception(
            "forward",
            "This is the forward KL, weighted with the teacher's probabilities. The "
            "reverse one weighs with the student's: Σ q (log q - log p).",
            _mean_of(lambda student, teacher: _kls(teacher, student)),
        ),
        Misconception(
            "sign",
            "The sign is wrong: a divergence is never negative. It is log q - log p, "
            "weighted with q.",
            _mean_of(lambda student, teacher: -_kls(student, teacher)),
        ),
        Misconception(
            "pads counted",
            "The pads are averaged in. Choose the real tokens first, those whose label "
            "is not -100.",
            _pads_counted,
        ),
        Misconception(
            "pads in the divisor",
            "The sum is right, but it is divided by all B · L places, pads included. "
            "Divide by the number of real tokens.",
            _divided(lambda student, real: real.numel()),
        ),
        Misconception(
            "divided by rows",
            "The sum is divided by the number of sentences. A loss a token is divided "
            "by the number of real tokens.",
            _divided(lambda student, real: len(real)),
        ),
        Misconception(
            "divided by the vocabulary",
            "This averages over the vocabulary, too: it is V times too small. Sum over "
            "v, then divide by the tokens.",
            _divided(lambda student, real: real.sum() * student.shape[-1]),
        ),
        Misconception(
            "divided twice",
            "The sum is divided by the number of tokens twice. Once is enough.",
            _divided(lambda student, real: real.sum() ** 2),
        ),
        Misconception(
            "sum",
            "This is the sum. Divide once by the number of real tokens.",
            _divided(lambda student, real: 1),
        ),
        Misconception(
            "mean of means",
            "Each sentence was averaged first, so that tokens of short sentences count "
            "more. Sum over all, then divide once.",
            _row_means,
        ),
        Misconception(
            "gradient to the teacher",
            "The value is right, but a gradient flows to the teacher: it would move "
            "towards the student. Detach its logits.",
            lambda student_logits, teacher_logits, labels: _kls(
                student_logits, teacher_logits
            )[labels != IGNORE].mean(),
        ),
        Misconception(
            "weights held fixed",
            "The value is right, but the weights q were detached. The slope that is "
            "left is Σ q ∇ log q = 0: the student learns nothing. No gradient through "
            "the *sampling* is right; within a token q must move.",
            _mean_of(_weights_fixed),
        ),
        Misconception(
            "said tokens alone",
            "This compares the tokens that were said alone, log q - log p. Its value "
            "is right on average, but its slope does not know the teacher. Sum over "
            "the whole vocabulary.",
            _of_said_tokens,
        ),
        Misconception(
            "own words as labels",
            "This teaches the student its own words as if they were right: the teacher "
            "is not asked.",
            _hard_labels,
        ),
        Misconception(
            "shifted",
            "Logits and labels were moved against each other. Here the logits at [b, "
            "t] predict labels[b, t] already.",
            _shifted,
        ),
        Misconception(
            "softmax over time",
            "The softmax runs over the positions. Each token is a distribution over "
            "the vocabulary, the last dimension.",
            _over_time,
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows to the student: nothing would "
            "be learned.",
            lambda *arguments: _on_policy_loss(*arguments).detach(),
            lambda *arguments: _on_policy_loss(*arguments).item(),
        ),
    ),
)


# --- mean_by_position -----------------------------------------------------------


def _mean_by_position(gaps: Tensor, labels: Tensor) -> Tensor:
    columns = zip(gaps.unbind(1), (labels != IGNORE).unbind(1), strict=True)
    return torch.stack([gap[real].mean() for gap, real in columns])


def _position_cases() -> list[Case]:
    def case(name: str, gaps: list, labels: list) -> Case:
        return Case(name, {"gaps": torch.tensor(gaps), "labels": torch.tensor(labels)})

    nan = float("nan")
    return [
        case("by hand: 1.5, 3", [[1.0, 3.0], [2.0, 0.0]], [[5, 2], [2, -100]]),
        case(
            "three rows, three lengths",
            [[0.1, 0.4, 0.9, 1.2], [0.3, 0.2, 5.0, 5.0], [0.2, 0.9, 0.6, 7.0]],
            [[5, 6, 7, 2], [5, 2, -100, -100], [8, 7, 2, -100]],
        ),
        case(
            "NaN at the pads",
            [[0.5, nan, nan], [1.5, 2.5, 0.25]],
            [[2, -100, -100], [5, 6, 2]],
        ),
        case(
            "a gap of exactly 0 is a measurement",
            [[0.0, 0.0], [1.0, 2.0], [0.5, 9.0]],
            [[5, 2], [5, 2], [2, -100]],
        ),
        case("one row", [[0.2, 0.4, 0.8]], [[5, 6, 2]]),
    ]


def _filled(gaps: Tensor, labels: Tensor) -> Tensor:
    return gaps.masked_fill(labels == IGNORE, 0.0)


mean_by_position = Exercise(
    name="ex09.mean_by_position",
    call="mean_by_position(gaps, labels)",
    reference=_mean_by_position,
    cases=_position_cases,
    difficulty=2,
    minutes=5,
    hints=(
        "A mean down each column, dim=0, but of the real tokens alone.",
        "Sum the real gaps of each column, and divide by how many there are. NaN times "
        "0 is NaN: fill the pads with 0 before you sum.",
        "gaps.masked_fill(~real, 0.0).sum(dim=0) / real.sum(dim=0)",
    ),
    misconceptions=(
        Misconception(
            "pads counted",
            "What stands at pads is averaged in. It is no measurement, and may be NaN.",
            lambda gaps, labels: gaps.mean(dim=0),
        ),
        Misconception(
            "divided by all rows",
            "The sum is divided by the number of rows, also of those that have ended. "
            "So the gap seems to shrink towards the end of long sentences.",
            lambda gaps, labels: _filled(gaps, labels).mean(dim=0),
        ),
        Misconception(
            "zero times NaN",
            "The pads were multiplied by 0. NaN · 0 is NaN: fill them, with "
            "masked_fill or torch.where.",
            lambda gaps, labels: (
                (gaps * (labels != IGNORE)).sum(dim=0) / (labels != IGNORE).sum(dim=0)
            ),
        ),
        Misconception(
            "summed",
            "This is the sum at each position. Divide by the number of sentences that "
            "are still going on.",
            lambda gaps, labels: _filled(gaps, labels).sum(dim=0),
        ),
        Misconception(
            "by sentence",
            "This is one mean for each sentence. Wanted is one for each position.",
            lambda gaps, labels: (
                _filled(gaps, labels).sum(dim=1) / (labels != IGNORE).sum(dim=1)
            ),
        ),
        Misconception(
            "one number",
            "This is one mean over everything. Wanted is one for each position.",
            lambda gaps, labels: gaps[labels != IGNORE].mean(),
        ),
        Misconception(
            "accumulated",
            "The means were added up along the sentence. Whether errors accumulate is "
            "the question, not the method.",
            lambda gaps, labels: _mean_by_position(gaps, labels).cumsum(dim=0),
        ),
        Misconception(
            "zeros left out",
            "Gaps of exactly 0 were taken for pads. A student may agree with its "
            "teacher; only the labels say what is a pad.",
            lambda gaps, labels: (
                _filled(gaps, labels).sum(dim=0)
                / (_filled(gaps, labels) != 0).sum(dim=0)
            ),
        ),
    ),
)

# --- cost_ratio -----------------------------------------------------------------


def _cost_ratio(share, sampling, teacher, learning) -> float:
    return (learning + teacher + share * sampling) / learning


def _cost_cases() -> list[Case]:
    def case(name: str, *numbers: float) -> Case:
        names = ("share", "sampling", "teacher", "learning")
        return Case(name, dict(zip(names, numbers, strict=True)))

    return [
        case("by hand: 5", 0.5, 4.0, 2.0, 1.0),
        case("a quarter of the steps", 0.25, 0.6, 0.9, 0.3),
        case("never sampled: the teacher remains", 0.0, 5.0, 1.5, 0.5),
        case("always sampled", 1.0, 3.0, 1.0, 2.0),
        case("a teacher that is free", 0.4, 2.0, 0.0, 0.8),
    ]


cost_ratio = Exercise(
    name="ex09.cost_ratio",
    call="cost_ratio(share, sampling, teacher, learning)",
    reference=_cost_ratio,
    cases=_cost_cases,
    difficulty=1,
    minutes=3,
    hints=(
        "What is paid at every step, and what only at a share of them?",
        "(what is paid in the mean) / learning: the learning itself counts as well.",
    ),
    misconceptions=(
        Misconception(
            "always sampled",
            "Sampling is paid at each step here. Only a share λ of the steps samples.",
            lambda share, sampling, teacher, learning: (
                (learning + teacher + sampling) / learning
            ),
        ),
        Misconception(
            "teacher on samples alone",
            "The teacher is paid on the sampled steps alone. It is asked live at each "
            "step, on data as well.",
            lambda share, sampling, teacher, learning: (
                (learning + share * (sampling + teacher)) / learning
            ),
        ),
        Misconception(
            "lambda reversed",
            "λ is the share of the steps that *do* sample; 1 - λ do not.",
            lambda share, sampling, teacher, learning: (
                (learning + teacher + (1 - share) * sampling) / learning
            ),
        ),
        Misconception(
            "learning left out",
            "The learning itself is missing from the price: with no samples and no "
            "teacher the ratio must be 1.",
            lambda share, sampling, teacher, learning: (
                (teacher + share * sampling) / learning
            ),
        ),
        Misconception(
            "teacher forgotten",
            "The teacher's time is missing. On-policy it cannot be cached.",
            lambda share, sampling, teacher, learning: (
                (learning + share * sampling) / learning
            ),
        ),
        Misconception(
            "all shared",
            "Everything is multiplied by λ. Learning and teacher are paid at each "
            "step.",
            lambda share, sampling, teacher, learning: (
                share * (learning + teacher + sampling) / learning
            ),
        ),
        Misconception(
            "upside down",
            "The ratio is upside down: it says how much *cheaper* plain learning is.",
            lambda share, sampling, teacher, learning: (
                learning / (learning + teacher + share * sampling)
            ),
        ),
        Misconception(
            "seconds",
            "These are the seconds of a step. Wanted is a multiple of learning alone.",
            lambda share, sampling, teacher, learning: (
                learning + teacher + share * sampling
            ),
        ),
    ),
)
