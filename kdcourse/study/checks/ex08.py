"""Checks of lesson 08: choosing, ranking, scoring and mending the teacher's labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import torch

from kdcourse.translation.corpus import near_key, placeholders

from .core import Case, Exercise, Misconception
from .slopes import loss_and_slopes

# --- closest --------------------------------------------------------------------


def _closest(candidates: list[str], reference: str, similarity: Callable) -> str | None:
    best = None
    for candidate in candidates:
        score = similarity(candidate, reference)
        if best is None or score > best[0]:
            best = score, candidate
    return best and best[1]


def _similar(candidate: str, reference: str) -> float:
    """How much of the candidate's own length is words of the reference."""
    words = candidate.split()
    return sum(word in reference.split() for word in words) / max(1, len(words))


def _closest_cases() -> list[Case]:
    def case(name: str, candidates: list[str], reference: str) -> Case:
        return Case(
            name,
            {
                "candidates": candidates,
                "reference": reference,
                "similarity": _similar,
            },
        )

    return [
        case(
            "the second of three",
            ["Enciende la luz", "Encender luz", "Apaga todo ya"],
            "Encender luz de sala",
        ),
        case(
            "two are equally similar; the likelier stands first",
            ["zona", "red no válida", "red válida", "válida red"],
            "red válida de casa",
        ),
        case(
            "a long candidate that holds the whole reference",
            ["no se pudo abrir nada", "puerta", "abrir la puerta ahora mismo sí"],
            "abrir la puerta",
        ),
        case("no candidate", [], "Encender"),
        case("one candidate, unlike the reference", ["Apagar"], "Encender"),
        case(
            "a candidate that is the reference",
            ["modo de noche", "modo noche", "noche"],
            "modo noche",
        ),
    ]


def _ranked_by(key: Callable) -> Callable:
    """A closest() that maximises ``key(candidate, reference, similarity)``."""

    def solution(candidates, reference, similarity):
        return max(
            candidates, key=lambda y: key(y, reference, similarity), default=None
        )

    return solution


def _last_of_equals(candidates, reference, similarity):
    return _closest(candidates[::-1], reference, similarity)


def _reference_for_none(candidates, reference, similarity):
    return _closest(candidates, reference, similarity) if candidates else reference


def _empty_text_for_none(candidates, reference, similarity):
    return _closest(candidates, reference, similarity) or ""


def _raises_for_none(candidates, reference, similarity):
    return max(candidates, key=lambda y: similarity(y, reference))


def _index_of_none(candidates, reference, similarity):
    return sorted(candidates, key=lambda y: -similarity(y, reference))[0]


closest = Exercise(
    name="ex08.closest",
    call="closest(candidates, reference, similarity)",
    reference=_closest,
    cases=_closest_cases,
    difficulty=1,
    minutes=4,
    hints=(
        "max() takes a function as key. What should it compute for a candidate?",
        "max(candidates, key=lambda y: similarity(y, reference)) returns the first of "
        "equals.",
        "max() of an empty list is an error, unless it is told a default.",
    ),
    misconceptions=(
        Misconception(
            "last of equals",
            "Of two equally similar candidates the later one was taken. They stand in "
            "the beam's order: the earlier is the likelier.",
            _last_of_equals,
        ),
        Misconception(
            "no candidates",
            "Without candidates this raises an error. Return None there: max() has "
            "default=None.",
            _raises_for_none,
            _index_of_none,
        ),
        Misconception(
            "reference returned",
            "Without candidates the reference came back. The teacher said nothing; "
            "None says so, and whoever calls decides.",
            _reference_for_none,
        ),
        Misconception(
            "empty text",
            "Without candidates an empty text came back, which looks like a "
            "translation. Return None.",
            _empty_text_for_none,
        ),
        Misconception(
            "exchanged",
            "The arguments of similarity are exchanged. Candidate first, reference "
            "second: sentence chrF weighs recall more than precision, so it is not the "
            "same the other way round.",
            _ranked_by(lambda y, reference, similarity: similarity(reference, y)),
        ),
        Misconception(
            "least similar",
            "This is the least similar candidate.",
            lambda candidates, reference, similarity: min(
                candidates, key=lambda y: similarity(y, reference), default=None
            ),
            lambda candidates, reference, similarity: _last_of_equals(
                candidates, reference, lambda y, r: -similarity(y, r)
            ),
        ),
        Misconception(
            "likeliest",
            "The first candidate was taken, whatever the reference. That is "
            "sequence-level distillation without interpolation.",
            lambda candidates, reference, similarity: (
                candidates[0] if candidates else None
            ),
        ),
        Misconception(
            "score returned",
            "This is the best similarity. The candidate that has it is wanted.",
            lambda candidates, reference, similarity: max(
                (similarity(y, reference) for y in candidates), default=None
            ),
        ),
        Misconception(
            "equality alone",
            "Only a candidate that equals the reference counts, else the first one. "
            "Most references are not among the candidates; take the nearest.",
            _ranked_by(lambda y, reference, similarity: y == reference),
        ),
    ),
)

# --- n_best ---------------------------------------------------------------------


def _n_best(hypotheses: list, n: int) -> list[str]:
    """One at a time, always the best that is left."""
    left, best = list(hypotheses), []
    while left and len(best) < n:
        text, _ = max(left, key=lambda h: sum(h[1]) / len(h[1]))
        best.append(text)
        left = [h for h in left if h[0] != text]
    return best


def _n_best_cases() -> list[Case]:
    def case(name: str, n: int, *hypotheses: tuple) -> Case:
        return Case(name, {"hypotheses": list(hypotheses), "n": n})

    return [
        case(
            "the longer one wins, with means -0.3 and -0.25",
            2,
            ("la luz", [-0.2, -0.4]),
            ("encender la luz", [-0.1, -0.5, -0.3, -0.1]),
        ),
        case(
            "three of four",
            3,
            ("red de casa", [-0.5, -0.4, -0.3, -0.2]),
            ("la red", [-0.9, -0.3]),
            ("red", [-1.9, -0.1]),
            ("red de la casa grande", [-0.4, -0.4, -0.4, -0.4, -0.4, -0.1]),
        ),
        case(
            "one text in two segmentations",
            2,
            ("sensor", [-0.3, -0.3]),
            ("sensores", [-0.25, -0.25, -0.25]),
            ("sensor", [-0.5, -0.1, -0.1, -0.1]),
            ("Sensor", [-0.7, -0.1]),
        ),
        case(
            "the worse segmentation comes last",
            3,
            ("on", [-0.2, -0.1]),
            ("en", [-0.3, -0.3]),
            ("on", [-2.0, -1.0, -0.5]),
            ("un", [-0.6, -0.4]),
            ("en", [-0.2, -0.5, -0.35]),
        ),
        case(
            "equal scores stay in their order",
            3,
            ("zona b", [-0.25, -0.25]),
            ("zona a", [-0.5, 0.0]),
            ("zona c", [-0.25, -0.25, -0.25]),
        ),
        case(
            "nothing but an EOS, and a sure one",
            2,
            ("", [-0.75]),
            ("sí", [-0.05, -0.9]),
            ("no", [-1.0, -0.6]),
        ),
        case("more asked for than there are", 5, ("uno", [-0.1, -0.2])),
        case(
            "one sure token does not make up for a bad one",
            1,
            ("modo eco", [-0.01, -2.3, -0.01]),
            ("modo", [-0.6, -0.6]),
        ),
    ]


def _by_score(score: Callable, *, best: Callable = max) -> Callable:
    """An n_best() that ranks by ``score(text, log_probs)``."""

    def solution(hypotheses, n):
        ranked = sorted(hypotheses, key=lambda h: score(*h), reverse=best is max)
        return list(dict.fromkeys(text for text, _ in ranked))[:n]

    return solution


def _mean(text: str, tokens: list[float]) -> float:
    return sum(tokens) / len(tokens)


def _ranked(hypotheses: list) -> list[str]:
    return [t for t, _ in sorted(hypotheses, key=lambda h: _mean(*h), reverse=True)]


def _last_kept(hypotheses: list, n: int) -> list[str]:
    scores = {text: _mean(text, tokens) for text, tokens in hypotheses}
    return sorted(scores, key=scores.get, reverse=True)[:n]


def _first_kept(hypotheses: list, n: int) -> list[str]:
    first = {}
    for text, tokens in hypotheses:
        first.setdefault(text, tokens)
    return _ranked(list(first.items()))[:n]


def _added(hypotheses: list, n: int) -> list[str]:
    mass: dict[str, float] = {}
    for text, tokens in hypotheses:
        mass[text] = mass.get(text, 0.0) + math.exp(_mean(text, tokens))
    return sorted(mass, key=mass.get, reverse=True)[:n]


def _pairs_sorted(hypotheses: list, n: int) -> list[str]:
    pairs = sorted(((_mean(*h), h[0]) for h in hypotheses), reverse=True)
    return list(dict.fromkeys(text for _, text in pairs))[:n]


def _alphabetical(hypotheses: list, n: int) -> list[str]:
    pairs = sorted((-_mean(*h), h[0]) for h in hypotheses)
    return list(dict.fromkeys(text for _, text in pairs))[:n]


def _ascending_reversed(hypotheses: list, n: int) -> list[str]:
    ranked = sorted(hypotheses, key=lambda h: _mean(*h))[::-1]
    return list(dict.fromkeys(text for text, _ in ranked))[:n]


n_best = Exercise(
    name="ex08.n_best",
    call="n_best(hypotheses, n)",
    reference=_n_best,
    cases=_n_best_cases,
    difficulty=2,
    minutes=8,
    hints=(
        "The score of a hypothesis is the mean of its log-probabilities. A larger one "
        "(nearer 0) is better.",
        "sorted(…, key=…, reverse=True) keeps equal ones in their order. Then drop "
        "repeated texts, and only then cut to n.",
        "dict.fromkeys(texts) keeps the first of each text, in order.",
    ),
    misconceptions=(
        Misconception(
            "sum",
            "The logarithms are summed, not averaged: every further token costs, and "
            "short hypotheses win. Divide by the number of tokens.",
            _by_score(lambda text, tokens: sum(tokens)),
        ),
        Misconception(
            "words",
            "Divided by the words of the text. Divide by the number of "
            "log-probabilities: one a token, EOS included.",
            _by_score(lambda text, tokens: sum(tokens) / max(1, len(text.split()))),
            _by_score(
                lambda text, tokens: sum(tokens) / (len(text.split()) or math.inf)
            ),
        ),
        Misconception(
            "characters",
            "Divided by the characters of the text. Divide by the number of "
            "log-probabilities: one a token, EOS included.",
            _by_score(lambda text, tokens: sum(tokens) / max(1, len(text))),
        ),
        Misconception(
            "EOS not counted",
            "The sum holds the EOS, the length does not. EOS was predicted like any "
            "other token: count it.",
            _by_score(lambda text, tokens: sum(tokens) / max(1, len(tokens) - 1)),
        ),
        Misconception(
            "EOS left out",
            "EOS was left out of the score. To stop here is a prediction, too: a "
            "hypothesis that breaks off must pay for it.",
            _by_score(lambda text, tokens: sum(tokens[:-1]) / max(1, len(tokens) - 1)),
        ),
        Misconception(
            "worst first",
            "The worst stand first. A logarithm nearer 0 is the better one.",
            _by_score(_mean, best=min),
        ),
        Misconception(
            "repeated",
            "A text stands there twice. Two segmentations of one text are one "
            "candidate.",
            lambda hypotheses, n: _ranked(hypotheses)[:n],
        ),
        Misconception(
            "cut too early",
            "The list was cut to n before repeated texts were dropped, so fewer than n "
            "are left.",
            lambda hypotheses, n: list(dict.fromkeys(_ranked(hypotheses)[:n])),
        ),
        Misconception(
            "last kept",
            "Of a repeated text the last segmentation counts. The better one should.",
            _last_kept,
        ),
        Misconception(
            "first kept",
            "Of a repeated text the first segmentation counts. The better one should.",
            _first_kept,
        ),
        Misconception(
            "added",
            "The scores of a repeated text were added up. The mean logarithm is no "
            "probability of the text: take the better one.",
            _added,
        ),
        Misconception(
            "probabilities averaged",
            "The mean was taken of the probabilities. The score is the mean of the "
            "logarithms: one token that is nearly impossible ruins a sentence.",
            _by_score(lambda text, tokens: sum(map(math.exp, tokens)) / len(tokens)),
        ),
        Misconception(
            "ties",
            "Equal scores did not stay in the order in which they came. Sort by the "
            "score alone, with reverse=True, not by pairs and not backwards.",
            _pairs_sorted,
            _alphabetical,
            _ascending_reversed,
        ),
        Misconception(
            "not ranked",
            "The hypotheses stand in the order in which they came.",
            lambda hypotheses, n: list(dict.fromkeys(t for t, _ in hypotheses))[:n],
        ),
    ),
)

# --- label_loss -----------------------------------------------------------------


def _until_eos(row: list[int], eos: int) -> int:
    """How many of a row's tokens are real."""
    return row.index(eos) + 1 if eos in row else len(row)


def _label_loss(log_q, labels, eos) -> torch.Tensor:
    """Row by row, token by token."""
    terms = []
    for scores, row in zip(log_q, labels.tolist(), strict=True):
        for step in range(_until_eos(row, eos)):
            terms.append(-scores[step, row[step]])
    return sum(terms) / len(terms)


def _made_up(rows: int, length: int, size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = 2.0 * torch.randn(rows, length, size, generator=generator)
    return scores.log_softmax(-1)


def _label_cases() -> list[Case]:
    def case(name: str, labels: list[list[int]], size: int, eos: int) -> Case:
        ids = torch.tensor(labels)
        log_q = _made_up(*ids.shape, size, seed=8)
        return Case(name, {"log_q": log_q, "labels": ids, "eos": eos})

    halves = torch.full((1, 3, 6), 0.1)
    halves[0, 0, 5], halves[0, 1, 0], halves[0, 2, 0] = 0.5, 0.25, 0.125
    return [
        Case(
            "one token, its EOS, one filler; the loss is 1.04",
            {"log_q": halves.log(), "labels": torch.tensor([[5, 0, 0]]), "eos": 0},
        ),
        case("sentences of different lengths", [[3, 1, 4, 0], [2, 0, 0, 0]], 5, 0),
        case("another id for EOS", [[0, 2, 6, 6, 6], [1, 0, 4, 3, 6]], 7, 6),
        case("a row that was cut off has no EOS", [[1, 2, 1], [2, 0, 0]], 3, 0),
        case("an empty translation: an EOS alone", [[0, 0, 0], [2, 1, 0]], 3, 0),
        case("no filler at all", [[1, 2, 0], [3, 1, 0]], 4, 0),
        case("one step", [[1], [0]], 2, 0),
    ]


def _per_token(log_q, labels) -> torch.Tensor:
    return -log_q.gather(2, labels[:, :, None])[:, :, 0]


def _real(labels, eos) -> torch.Tensor:
    is_eos = (labels == eos).long()
    return is_eos.cumsum(dim=1) - is_eos == 0


def _row_sums(log_q, labels, eos) -> torch.Tensor:
    return (_per_token(log_q, labels) * _real(labels, eos)).sum(dim=1)


def _by_first_index(labels, eos) -> torch.Tensor:
    """argmax finds position 0 where there is no EOS: one token is left."""
    last = (labels == eos).long().argmax(dim=1)
    return torch.arange(labels.shape[1])[None] <= last[:, None]


def _masked_mean(log_q, labels, real) -> torch.Tensor:
    return _per_token(log_q, labels)[real].sum() / real.sum()


def _shifted(log_q, labels, eos) -> torch.Tensor:
    """Step t is compared with token t + 1."""
    later = labels[:, 1:]
    real = _real(labels, eos)[:, 1:]
    return _masked_mean(log_q[:, :-1], later, real)


label_loss = Exercise(
    name="ex08.label_loss",
    call="label_loss(log_q, labels, eos)",
    reference=_label_loss,
    observe=loss_and_slopes("its gradient"),
    cases=_label_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "Which tokens of a row are real? All up to its first EOS, and that one, too.",
        "A token is real if no EOS stands *before* it. (labels == eos).long() and its "
        "cumsum(dim=1) count the EOS up to each place.",
        "log_q.gather(2, labels[:, :, None])[:, :, 0] gives log Pr^s of each label. "
        "Minus the sum over the real ones, divided once by their number.",
    ),
    misconceptions=(
        Misconception(
            "EOS erased",
            "The mask labels != eos throws the real EOS out with the filler. No loss, "
            "no learning: this student never stops.",
            lambda log_q, labels, eos: _masked_mean(log_q, labels, labels != eos),
        ),
        Misconception(
            "filler counted",
            "The filler counts. How long a row is filled up depends on its neighbours "
            "in the batch; the loss must not.",
            lambda log_q, labels, eos: _per_token(log_q, labels).mean(),
        ),
        Misconception(
            "divided by all",
            "The filler adds nothing to the sum, but is counted in the division. "
            "Divide by the number of real tokens.",
            lambda log_q, labels, eos: (
                _row_sums(log_q, labels, eos).sum() / labels.numel()
            ),
        ),
        Misconception(
            "EOS not counted",
            "EOS is in the sum, but not in the number that it is divided by.",
            lambda log_q, labels, eos: (
                _row_sums(log_q, labels, eos).sum() / (labels != eos).sum()
            ),
        ),
        Misconception(
            "sign",
            "The sign is wrong: this falls as the student gets worse. A loss is minus "
            "the logarithm.",
            lambda log_q, labels, eos: -_masked_mean(log_q, labels, _real(labels, eos)),
        ),
        Misconception(
            "mean of means",
            "Each row was averaged first, then the rows: the tokens of a short "
            "sentence count more. Sum first, divide once.",
            lambda log_q, labels, eos: (
                _row_sums(log_q, labels, eos) / _real(labels, eos).sum(dim=1)
            ).mean(),
        ),
        Misconception(
            "by sentences",
            "The sum is divided by the number of sentences. It should be the mean over "
            "the real tokens.",
            lambda log_q, labels, eos: _row_sums(log_q, labels, eos).mean(),
        ),
        Misconception(
            "sum",
            "This is the sum over the real tokens. Divide by their number.",
            lambda log_q, labels, eos: _row_sums(log_q, labels, eos).sum(),
        ),
        Misconception(
            "cut-off rows",
            "Of a row without an EOS one token is left: argmax() and index look-ups "
            "give 0 where nothing is found. Such a row counts as a whole.",
            lambda log_q, labels, eos: _masked_mean(
                log_q, labels, _by_first_index(labels, eos)
            ),
        ),
        Misconception(
            "cut-off rows dropped",
            "Rows without an EOS were left out. They were cut at the limit; what was "
            "said counts.",
            lambda log_q, labels, eos: _masked_mean(
                log_q,
                labels,
                _real(labels, eos) & (labels == eos).any(dim=1, keepdim=True),
            ),
        ),
        Misconception(
            "shifted",
            "Each step is compared with the *next* label. log_q[:, t] already is the "
            "prediction for labels[:, t].",
            _shifted,
        ),
        Misconception(
            "no logarithm",
            "These are minus the probabilities. The loss is minus their logarithm, "
            "which log_q holds already.",
            lambda log_q, labels, eos: (
                -(-_per_token(log_q, labels)).exp()[_real(labels, eos)].mean()
            ),
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it: nothing would be "
            "learned. Return the tensor itself.",
            lambda log_q, labels, eos: _label_loss(log_q, labels, eos).detach(),
            lambda log_q, labels, eos: _label_loss(log_q, labels, eos).item(),
        ),
    ),
)

# --- peakedness -----------------------------------------------------------------


def _own_logs(log_q: torch.Tensor, eos: int) -> list[list[float]]:
    """The log-probabilities of each greedy output, EOS's the last."""
    rows = []
    for steps in log_q.tolist():
        best = [max(step) for step in steps]
        said = [step.index(top) for step, top in zip(steps, best, strict=True)]
        rows.append(best[: _until_eos(said, eos)])
    return rows


def _mean_of(values: list[float]) -> float:
    return sum(values) / len(values)


def _peakedness(log_q, eos) -> float:
    return _mean_of([math.exp(sum(row)) for row in _own_logs(log_q, eos)])


def _peaked_cases() -> list[Case]:
    def case(name: str, greedy: list[list[tuple[int, float]]], size=4, eos=0) -> Case:
        """Each step: the token that is largest, and its probability."""
        rows = torch.zeros(len(greedy), len(greedy[0]), size)
        for n, steps in enumerate(greedy):
            for t, (token, p) in enumerate(steps):
                rows[n, t] = (1 - p) / (size - 1)
                rows[n, t, token] = p
        return Case(name, {"log_q": rows.log(), "eos": eos})

    return [
        case("0.9, an EOS of 0.5, filler: 0.45", [[(2, 0.9), (0, 0.5), (1, 0.8)]]),
        case(
            "two sentences of different lengths",
            [
                [(1, 0.8), (2, 0.6), (3, 0.7), (0, 0.9)],
                [(3, 0.5), (0, 0.4), (0, 0.99), (0, 0.7)],
            ],
        ),
        case(
            "one never ends",
            [[(1, 0.7), (2, 0.9), (1, 0.6)], [(2, 0.4), (0, 0.8), (2, 0.5)]],
        ),
        case("EOS is the last id", [[(0, 0.6), (3, 0.7), (1, 0.9)]], eos=3),
        case("nothing but an EOS", [[(0, 0.6), (1, 0.5)], [(1, 0.9), (0, 0.8)]]),
        case(
            "an EOS in second place ends nothing",
            [[(1, 0.55), (2, 0.5), (0, 0.95)]],
            size=3,
        ),
    ]


def _over_rows(fold: Callable, *, part: Callable = lambda row: row) -> Callable:
    def solution(log_q, eos):
        return _mean_of([fold(part(row)) for row in _own_logs(log_q, eos)])

    return solution


def _without_last_eos(log_q, eos) -> float:
    values = []
    for steps, row in zip(log_q, _own_logs(log_q, eos), strict=True):
        ends = int(steps[len(row) - 1].argmax()) == eos
        values.append(math.exp(sum(row[:-1] if ends else row)))
    return _mean_of(values)


def _cut_off_at_once(log_q, eos) -> float:
    best, tokens = log_q.max(dim=-1)
    real = _by_first_index(tokens, eos)
    return (best * real).sum(dim=1).exp().mean().item()


def _cut_off_dropped(log_q, eos) -> float:
    best, tokens = log_q.max(dim=-1)
    ended = (tokens == eos).any(dim=1)
    rows = (best * _real(tokens, eos)).sum(dim=1).exp()
    return rows[ended].mean().item() if ended.any() else 0.0


def _all_eos_left_out(log_q, eos) -> float:
    best, tokens = log_q.max(dim=-1)
    return (best * (tokens != eos)).sum(dim=1).exp().mean().item()


peakedness = Exercise(
    name="ex08.peakedness",
    call="peakedness(log_q, eos)",
    reference=_peakedness,
    cases=_peaked_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "log_q.max(dim=-1) gives each step's largest log-probability and the token "
        "that has it. Which steps belong to ŷ?",
        "A step belongs to ŷ if no EOS was said before it. Set the others to 0: they "
        "then add nothing.",
        "The probability of a sentence is exp of the *sum* of its logarithms; the mean "
        "over the sentences comes last.",
    ),
    misconceptions=(
        Misconception(
            "per token",
            "This is the mean probability of a token. p(t = ŷ) is that of the whole "
            "sentence: a product over its tokens.",
            _over_rows(lambda row: _mean_of([math.exp(x) for x in row])),
            lambda log_q, eos: _mean_of(
                [math.exp(x) for row in _own_logs(log_q, eos) for x in row]
            ),
        ),
        Misconception(
            "length-normalised",
            "The logarithms of a sentence were averaged. That ranks hypotheses in a "
            "beam; the probability of a sentence is exp of their sum.",
            _over_rows(lambda row: math.exp(_mean_of(row))),
        ),
        Misconception(
            "filler counted",
            "Steps behind the EOS are multiplied in. The sentence ended with it.",
            lambda log_q, eos: log_q.amax(-1).sum(dim=1).exp().mean().item(),
        ),
        Misconception(
            "EOS left out",
            "The EOS is not multiplied in. To stop is a part of ŷ.",
            _without_last_eos,
        ),
        Misconception(
            "EOS skipped",
            "EOS is left out, and what comes behind it counts.",
            _all_eos_left_out,
        ),
        Misconception(
            "mean of the logarithms",
            "The mean over the sentences was taken of the logarithms. Exponentiate "
            "each sentence first.",
            lambda log_q, eos: math.exp(
                _mean_of(list(map(sum, _own_logs(log_q, eos))))
            ),
        ),
        Misconception(
            "logarithm",
            "This is log Pr(ŷ). The probability is wanted: exp of it, then the mean.",
            _over_rows(sum),
        ),
        Misconception(
            "cut-off rows",
            "Of a sentence without an EOS one token is left: argmax() and index "
            "look-ups give 0 where nothing is found. It counts as a whole.",
            _cut_off_at_once,
        ),
        Misconception(
            "cut-off rows dropped",
            "Sentences without an EOS were left out. What was said counts.",
            _cut_off_dropped,
        ),
        Misconception(
            "pooled",
            "All sentences were multiplied together. Each has its own probability; "
            "then comes the mean.",
            lambda log_q, eos: math.exp(sum(map(sum, _own_logs(log_q, eos)))),
        ),
        Misconception(
            "sum",
            "The sentences were summed. Divide by their number.",
            lambda log_q, eos: sum(math.exp(sum(row)) for row in _own_logs(log_q, eos)),
        ),
        Misconception(
            "first token",
            "Only the first token counts: lesson 01's peakedness of one distribution. "
            "A sentence is the product over its tokens.",
            _over_rows(lambda row: math.exp(row[0])),
        ),
    ),
)

# --- looping --------------------------------------------------------------------

LONGEST_PHRASE = 4


def _words(text: str) -> list[str]:
    return text.casefold().split()


def _loops(
    words: list, times: int = 3, longest: int = LONGEST_PHRASE, exact: bool = False
) -> bool:
    """A phrase of 1 to ``longest`` items ``times`` in a row (``exact``: no more)."""
    for size in range(1, longest + 1):
        for at in range(len(words) - times * size + 1):
            phrase = words[at : at + size]
            if all(
                words[at + n * size : at + (n + 1) * size] == phrase
                for n in range(times)
            ):
                once_more = words[at + times * size : at + (times + 1) * size]
                before = words[max(0, at - size) : at]
                if not exact or phrase not in (once_more, before):
                    return True
    return False


def _looping(source: str, target: str) -> bool:
    return _loops(_words(target)) and not _loops(_words(source))


def _looping_cases() -> list[Case]:
    rows = [
        ("three words, three times", "Light", "de la luz de la luz de la luz"),
        ("twice in a row, and once more", "Light", "la luz la luz de casa la luz"),
        ("one word", "Target temperature", "temperatura deseada deseada deseada"),
        ("two in a row may be", "Very large", "muy muy grande"),
        ("a sound translation", "Open the door", "Abre la puerta"),
        ("often, but not in a row", "a, b and c", "la a de la b de la c"),
        ("the source repeats, too", "Knock knock knock", "Toc toc toc"),
        ("the source has the word, once", "A very big one", "Un very very very alto"),
        ("other case", "No way", "No no NO puede ser"),
        ("a longer word begins alike", "Song", "la la lado"),
        ("a word ends alike", "Song", "hola la la"),
        ("letters are no words", "Short", "pssss"),
        ("a loop in the middle", "Add one now", "añade uno uno uno ahora mismo"),
        ("five times", "Hello", "ja ja ja ja ja"),
        ("four words", "Key", "a la vez que a la vez que a la vez que"),
        ("five words are no phrase", "Key", "a b c d e a b c d e a b c d e"),
        ("nothing was said", "Hello", ""),
        ("both loop, the source in other case", "Ha HA ha", "ja ja ja"),
        ("the source loops, the target does not", "ha ha ha", "risas"),
        ("over a line break", "Go", "ve ve\nve"),
    ]
    return [Case(name, {"source": s, "target": t}) for name, s, t in rows]


def _with_loops(check: Callable[[str], bool]) -> Callable:
    """A looping() that sees loops with ``check(text)`` in both texts."""
    return lambda source, target: check(target) and not check(source)


def _often(text: str) -> bool:
    words = _words(text)
    return any(count >= 3 for count in Counter(words).values())


def _phrase_often(text: str) -> bool:
    words = _words(text)
    return any(
        count >= 3
        for size in range(1, LONGEST_PHRASE + 1)
        for count in Counter(
            tuple(words[at : at + size]) for at in range(len(words) - size + 1)
        ).values()
    )


def _inside_words(text: str) -> bool:
    """As a regular expression finds it that forgets where words end."""
    import re

    return bool(
        re.search(r"(\S+(?:\s+\S+){0,3}?)(?:\s+\1){2}", text.casefold())
        or re.search(r"\b(\w+(?: \w+){0,3}?)(?: \1){2}", text.casefold())
    )


def _prefix_matched(text: str) -> bool:
    import re

    return bool(re.search(r"(?<!\S)(\S+(?:\s+\S+){0,3}?)(?:\s+\1){2}", text.casefold()))


def _letters(text: str) -> bool:
    return _loops(list(text.casefold()))


def _whole_text(text: str) -> bool:
    words = _words(text)
    return any(
        len(words) >= 3 * size and words == words[:size] * (len(words) // size)
        for size in range(1, LONGEST_PHRASE + 1)
    )


def _phrase_in_source(source: str, target: str) -> bool:
    """Excused where the looping phrase stands in the source at all."""
    words, there = _words(target), " ".join(_words(source))
    for size in range(1, LONGEST_PHRASE + 1):
        for at in range(len(words) - 3 * size + 1):
            if words[at : at + size] * 3 == words[at : at + 3 * size]:
                phrase = " ".join(words[at : at + size])
                if f" {phrase} " not in f" {there} ":
                    return True
    return False


looping = Exercise(
    name="ex08.looping",
    call="looping(source, target)",
    reference=_looping,
    cases=_looping_cases,
    difficulty=3,
    minutes=8,
    hints=(
        "First write a function that says whether one text loops; then ask it about "
        "target and source.",
        "Split into words. For each size from 1 to 4 and each place: is the phrase "
        "there, three times over, what stands there?",
        "words[at:at + size] * 3 == words[at:at + 3 * size] compares lists of words.",
    ),
    misconceptions=(
        Misconception(
            "twice",
            "A phrase twice in a row was taken for a loop. That happens in good "
            'sentences ("muy muy grande"); three times are wanted.',
            _with_loops(lambda text: _loops(_words(text), times=2)),
        ),
        Misconception(
            "not in a row",
            "A phrase that occurs three times anywhere was taken for a loop. Articles "
            "do that in every long sentence: it must be in a row.",
            _with_loops(_often),
            _with_loops(_phrase_often),
        ),
        Misconception(
            "one word alone",
            "Only single words are looked for. Decoders also loop in phrases, here of "
            "up to four words.",
            _with_loops(lambda text: _loops(_words(text), longest=1)),
        ),
        Misconception(
            "source ignored",
            "A repetition that the source has, too, is no fault: the translator did "
            "its job.",
            lambda source, target: _loops(_words(target)),
        ),
        Misconception(
            "word in the source",
            "A loop was excused because its words stand in the source. Only a source "
            "that loops itself is an excuse.",
            _phrase_in_source,
        ),
        Misconception(
            "parts of words",
            '"la la lado" was taken for a loop: the third is another word. Compare '
            "whole words, as lists.",
            _with_loops(_inside_words),
            _with_loops(_prefix_matched),
        ),
        Misconception(
            "letters",
            "Letters were compared, not words. Split the text first.",
            _with_loops(_letters),
        ),
        Misconception(
            "case",
            '"No no NO" is the same word three times: compare small letters.',
            _with_loops(lambda text: _loops(text.split())),
        ),
        Misconception(
            "exactly three",
            "A phrase four or five times in a row is a loop as well.",
            _with_loops(lambda text: _loops(_words(text), exact=True)),
        ),
        Misconception(
            "whole text",
            "A loop was found only where the whole text is nothing else. Most begin "
            "after a few good words.",
            _with_loops(_whole_text),
        ),
        Misconception(
            "any length",
            "Phrases of five words and more were looked for, too. The limit is four: "
            "a long legal phrase may stand there thrice.",
            _with_loops(lambda text: _loops(_words(text), longest=len(text))),
        ),
        Misconception(
            "spaces alone",
            "Only single spaces part words here. A line break does as well: split() "
            "without an argument.",
            _with_loops(lambda text: _loops(text.casefold().split(" "))),
        ),
    ),
)

# --- repair ---------------------------------------------------------------------

Rule = Callable[[str, str, dict, list], bool]


def _leaked(source, target, references, held_out) -> bool:
    return near_key(source) in {near_key(held) for held in held_out}


def _empty(source, target, references, held_out) -> bool:
    return not target.strip()


def _copied(source, target, references, held_out) -> bool:
    own = references.get(source)
    same = target.casefold() == source.casefold()
    return same and own is not None and own.casefold() != source.casefold()


def _word_loop(text: str) -> bool:
    return _loops(_words(text), longest=1)


def _in_a_loop(source, target, references, held_out) -> bool:
    return _word_loop(target) and not _word_loop(source)


def _truncated(source, target, references, held_out) -> bool:
    return len(source) >= 40 and 3 * len(target) < len(source)


def _broken_slots(source, target, references, held_out) -> bool:
    return placeholders(source) != placeholders(target)


def _misaligned(source, target, references, held_out) -> bool:
    own = references.get(source)
    if own is None or target not in references.values():
        return False
    return not set(_words(target)) & set(_words(own))


RULES: dict[str, Rule] = {
    "leaked": _leaked,
    "empty": _empty,
    "copied": _copied,
    "looping": _in_a_loop,
    "truncated": _truncated,
    "placeholders": _broken_slots,
    "misaligned": _misaligned,
}


def _mend(rows, references, held_out, rules=None, replace=None, goes=("leaked",)):
    """kept and counts by some rules; ``replace(number, source, target)`` mends a row.

    ``replace`` returns the new target, or None for a row that goes.
    """
    rules = rules or RULES
    replace = replace or (lambda number, source, target: references.get(source))
    kept, counts = [], {}
    for number, (source, target) in enumerate(rows):
        given = (source, target, references, held_out)
        found = next((name for name, rule in rules.items() if rule(*given)), None)
        if found:
            counts[found] = counts.get(found, 0) + 1
            target = None if found in goes else replace(number, source, target)
        if target is not None:
            kept.append((source, target))
    return kept, counts


def _ruled(**rules: Rule | None) -> Callable:
    """The right repair with other rules; None for a rule that is forgotten."""

    def solution(rows, references, held_out):
        chosen = {n: r for n, r in (RULES | rules).items() if r is not None}
        return _mend(rows, references, held_out, chosen)

    return solution


def _repair_cases() -> list[Case]:
    def case(name: str, rows: list, references: dict, held_out: list) -> Case:
        return Case(
            name, {"rows": rows, "references": references, "held_out": held_out}
        )

    long = "The device at {host} did not answer within ten seconds"
    return [
        case(
            "misaligned, and a name that is rightly copied",
            [("On", "Bluetooth"), ("Bluetooth", "Bluetooth")],
            {"Bluetooth": "Bluetooth", "On": "Encender"},
            ["Wrong password!"],
        ),
        case(
            "one row of each fault",
            [
                ("Light", "Luz"),
                ("wrong  Password", "Contraseña incorrecta"),
                ("Door", " "),
                ("Turn everything off", "turn everything off"),
                ("Night mode", "modo modo modo"),
                (long, "El dispositivo"),
                ("Hello {name}", "Hola"),
                ("Window", "Puerta"),
                ("Kitchen", "Cocina"),
            ],
            {
                "Kitchen": "La cocina",
                "Window": "Ventana",
                "Hello {name}": "Hola, {name}",
                long: "El dispositivo en {host} no respondió en diez segundos",
                "Night mode": "Modo noche",
                "Turn everything off": "Apagar todo",
                "Door": "Puerta",
                "wrong  Password": "Contraseña errónea",
                "Light": "La luz",
            },
            ["Wrong password!"],
        ),
        case(
            "nothing is wrong, though it looks so",
            [
                ("Knock knock knock", "Toc toc toc"),
                ("{a} of {b}", "de {b}, {a}"),
                ("Version 2", "VERSIÓN 2"),
                ("WLAN", "wlan"),
                ("Turn on", "Encender"),
                ("Turn it on now", "Encender"),
                ("Please restart the device at home now", "Reinicia"),
                ("Stop", "Parar ahora"),
                ("Halt", "Parar ahora"),
                ("Password", "Contraseña"),
                ("No, no", "no no"),
            ],
            {
                "Knock knock knock": "Toc, toc, toc",
                "{a} of {b}": "{a} de {b}",
                "Version 2": "Versión 2",
                "WLAN": "WLAN",
                "Turn on": "Encender",
                "Turn it on now": "Encender ahora mismo",
                "Please restart the device at home now": "Reinicia tu aparato",
                "Stop": "Parar ahora",
                "Halt": "Parar ahora",
                "Password": "La contraseña",
                "No, no": "No, no",
            },
            ["Passwords", "Stop it", "The wrong password"],
        ),
        case(
            "no reference to fall back on",
            [
                ("Door", ""),
                ("Hello {name}", "Hola"),
                ("Window", "Ventana ventana VENTANA"),
                ("Kitchen", "kitchen"),
                ("Bed", "Ventana"),
                ("Light", "Luz"),
            ],
            {"Room": "Ventana"},
            [],
        ),
        case(
            "a row with several faults counts once",
            [
                ("Wrong password 3", ""),
                (long, "no no no"),
                (long, "El aparato"),
                ("{n} doors", "  "),
                ("Copy all of it", "COPY ALL OF IT"),
                ("all all all", "{n} no no no"),
                ("{n} left", "quedan quedan quedan"),
                ("{n} doors", "Puerta"),
            ],
            {
                long: "El aparato en {host} no responde",
                "{n} doors": "{n} puertas",
                "Copy all of it": "Copiarlo todo",
                "all all all": "todo",
                "{n} left": "quedan {n}",
                "Door": "Puerta",
                "Wrong password 3": "Contraseña errónea 3",
            },
            ["wrong password"],
        ),
        case(
            "two rows that changed places, and their source twice",
            [
                ("Open", "Cerrar"),
                ("Open", "Abre"),
                ("Close", "Abrir"),
                ("Open", "Abrir"),
                ("Close", "Cierra"),
            ],
            {"Lock": "Bloquear", "Close": "Cerrar", "Open": "Abrir"},
            ["Lock"],
        ),
        case(
            "placeholders: how often, which, and one too many",
            [
                ("{n} of {n} doors", "{n} puertas"),
                ("{a} and {b}", "{b} y {a}"),
                ("At {host}", "En {puerto}"),
                ("Done", "{n} listo"),
            ],
            {
                "Done": "Listo",
                "At {host}": "En {host}",
                "{a} and {b}": "{a} y {b}",
                "{n} of {n} doors": "{n} de {n} puertas",
            },
            ["{n}"],
        ),
        case(
            "leaks in other case, digits and punctuation; a part is none",
            [
                ("Zone 2", "Zona 2"),
                ("The zone", "La zona"),
                ("ZONE!", "Zona"),
                ("Zone", "zone"),
                ("Off", "Apagado"),
            ],
            {
                "Zone 2": "Zona dos",
                "The zone": "La zona",
                "Zone": "Zona",
                "Off": "Apagado",
            },
            ["Zone 1", "Switch it off"],
        ),
        case("an empty corpus", [], {"On": "Encender"}, ["Off"]),
    ]


def _all_counted(rows, references, held_out):
    """A row counts under each of its faults."""
    kept, _ = _mend(rows, references, held_out)
    counts = Counter(
        name
        for source, target in rows
        for name, rule in RULES.items()
        if rule(source, target, references, held_out)
    )
    return kept, dict(counts)


def _zeros(rows, references, held_out):
    kept, counts = _mend(rows, references, held_out)
    return kept, dict.fromkeys(RULES, 0) | counts


def _by_position(rows, references, held_out):
    humans = list(references.values())
    known = len(humans)
    return _mend(
        rows,
        references,
        held_out,
        replace=lambda n, s, t: humans[n] if n < known and s in references else None,
    )


def _by_position_alone(rows, references, held_out):
    humans = list(references.values())
    return _mend(
        rows,
        references,
        held_out,
        replace=lambda n, s, t: humans[n] if n < len(humans) else None,
    )


def _by_position_raising(rows, references, held_out):
    humans = list(references.values())
    return _mend(
        rows, references, held_out, replace=lambda n, source, target: humans[n]
    )


def _order_lost(rows, references, held_out):
    sound, mended = [], []
    counts: Counter = Counter()
    for row in rows:
        kept, found = _mend([row], references, held_out)
        counts.update(found)
        (mended if found else sound).extend(kept)
    return sound + mended, dict(counts)


def _one_a_source(rows, references, held_out):
    kept, counts = _mend(rows, references, held_out)
    return list(dict(kept).items()), counts


def _first_a_source(rows, references, held_out):
    kept, counts = _mend(rows, references, held_out)
    first: dict[str, str] = {}
    for source, target in kept:
        first.setdefault(source, target)
    return list(first.items()), counts


def _in_order(*names: str) -> Callable:
    """The right rules in another order."""
    return lambda rows, references, held_out: _mend(
        rows, references, held_out, {name: RULES[name] for name in names}
    )


def _in_held_out(source, target, references, held_out) -> bool:
    return any(near_key(source) in near_key(held) for held in held_out)


repair = Exercise(
    name="ex08.repair",
    call="repair(rows, references, held_out)",
    reference=_mend,
    cases=_repair_cases,
    difficulty=5,
    minutes=30,
    hints=(
        "Write a function fault(source, target) that returns the name of the first "
        "fault, or None. Then one loop over the rows decides what becomes of each.",
        "The order of the tests is that of the table; return at the first that "
        "applies, so a row can never count twice. references.get(source) is None where "
        "there is no reference.",
        "Leaked: near_key(source) in {near_key(h) for h in held_out}. Placeholders: "
        "placeholders() returns a Counter; compare with !=. Misaligned: target in "
        "set(references.values()), and its words have nothing in common with those of "
        "references[source].",
    ),
    misconceptions=(
        Misconception(
            "names dropped",
            "Every copy was taken for a fault. Names are rightly copied; the reference "
            "tells: where it equals the source as well, the row is sound.",
            _ruled(copied=lambda s, t, r, h: s.casefold() == t.casefold()),
            _ruled(copied=lambda s, t, r, h: s in r and s.casefold() == t.casefold()),
        ),
        Misconception(
            "copies in one case alone",
            '"TURN OFF" for "Turn off" is a copy, too: compare small letters, also '
            "with the reference.",
            _ruled(copied=lambda s, t, r, h: s == t and r.get(s, s) != s),
        ),
        Misconception(
            "repetition dropped",
            "A loop was counted though the source has one as well. Then the "
            "translation is right.",
            _ruled(looping=lambda s, t, r, h: _word_loop(t)),
        ),
        Misconception(
            "exact leaks alone",
            "Only exact copies of held-out sources were found. A near-duplicate gives "
            "the test away just as well: compare near_key of both.",
            _ruled(leaked=lambda s, t, r, h: s in h),
        ),
        Misconception(
            "leaks by substring",
            "A source was taken for leaked because it is a part of a held-out one. "
            '"Off" is not "Switch it off": compare whole keys.',
            _ruled(leaked=_in_held_out),
            _ruled(
                leaked=lambda s, t, r, h: any(s.casefold() in x.casefold() for x in h)
            ),
        ),
        Misconception(
            "leaks repaired",
            "A leaked row got its reference and stayed. Its *source* is the leak: no "
            "target can mend that. It goes.",
            lambda rows, references, held_out: _mend(
                rows, references, held_out, goes=()
            ),
        ),
        Misconception(
            "leaks last",
            "A leaked row with another fault was mended and kept. Look for the leak "
            "first.",
            _in_order(*list(RULES)[1:], "leaked"),
        ),
        Misconception(
            "other order",
            "A row with two faults was counted under the later one. The table's order "
            "decides, from top to bottom.",
            _in_order(
                "leaked",
                "empty",
                "placeholders",
                "copied",
                "looping",
                "truncated",
                "misaligned",
            ),
            _in_order(
                "leaked",
                "empty",
                "copied",
                "truncated",
                "looping",
                "placeholders",
                "misaligned",
            ),
            _in_order(
                "leaked",
                "misaligned",
                "empty",
                "copied",
                "looping",
                "truncated",
                "placeholders",
            ),
            _in_order("leaked", *list(RULES)[:0:-1]),
        ),
        Misconception(
            "counted twice",
            "A row with two faults was counted under both. Only the first counts, or "
            "the counts add up to more rows than there are.",
            _all_counted,
        ),
        Misconception(
            "by position",
            "A faulty row got another row's reference: they were joined by position. "
            "Look it up by the source, references[source].",
            _by_position,
            _by_position_alone,
            _by_position_raising,
        ),
        Misconception(
            "dropped",
            "Faulty rows were dropped although their reference is at hand. Put it in "
            "place of the target.",
            lambda rows, references, held_out: _mend(
                rows, references, held_out, goes=tuple(RULES)
            ),
        ),
        Misconception(
            "only counted",
            "The faults were counted, but the rows stayed as they were.",
            lambda rows, references, held_out: _mend(
                rows,
                references,
                held_out,
                replace=lambda number, source, target: target,
            ),
        ),
        Misconception(
            "no reference, kept",
            "A faulty row without a reference was kept with its faulty target. There "
            "is nothing to mend it with: it goes.",
            lambda rows, references, held_out: _mend(
                rows,
                references,
                held_out,
                replace=lambda n, source, target: references.get(source, target),
            ),
        ),
        Misconception(
            "no reference, an error",
            "Some sources have no reference, and references[source] raises KeyError. "
            "references.get(source) gives None.",
            lambda rows, references, held_out: _mend(
                rows,
                references,
                held_out,
                replace=lambda number, source, target: references[source],
            ),
            _ruled(
                copied=lambda s, t, r, h: (
                    s.casefold() == t.casefold() != r[s].casefold()
                )
            ),
        ),
        Misconception(
            "order lost",
            "The mended rows stand at the end. Keep the order of the rows.",
            _order_lost,
        ),
        Misconception(
            "one row a source",
            "A source that stands there twice has lost a row: dictionaries keep one. "
            "Two translations of one source are two rows.",
            _one_a_source,
            _first_a_source,
        ),
        Misconception(
            "sets of placeholders",
            "The placeholders were compared as sets. {n} twice is not {n} once: "
            "compare the Counters.",
            _ruled(
                placeholders=lambda s, t, r, h: (
                    set(placeholders(s)) != set(placeholders(t))
                )
            ),
        ),
        Misconception(
            "lost placeholders alone",
            "Only lost placeholders were counted. One that the source does not have is "
            "a fault, too: the app would print it as it is.",
            _ruled(
                placeholders=lambda s, t, r, h: bool(placeholders(s) - placeholders(t))
            ),
        ),
        Misconception(
            "blanks",
            "A target of white space alone is empty, too: strip() it first.",
            _ruled(empty=lambda s, t, r, h: t == ""),
        ),
        Misconception(
            "short sources",
            "A short source may well have a much shorter translation. Only sources of "
            "40 characters or more are tested for truncation.",
            _ruled(truncated=lambda s, t, r, h: 3 * len(t) < len(s)),
        ),
        Misconception(
            "misaligned missed",
            "Rows whose target belongs to another source were not found. Is the target "
            "a reference, and has it no word in common with its own?",
            _ruled(misaligned=None),
        ),
        Misconception(
            "shared words ignored",
            "A target that shares words with its own reference was taken for "
            "misaligned because another row has it as its reference. Similar strings "
            "have similar translations.",
            _ruled(
                misaligned=lambda s, t, r, h: s in r and t in r.values() and t != r[s]
            ),
        ),
        Misconception(
            "nothing in common",
            "Every target without a word of its reference was taken for misaligned. "
            "The teacher may say it in other words; it must also be the reference of "
            "another source.",
            _ruled(
                misaligned=lambda s, t, r, h: (
                    s in r and not set(_words(t)) & set(_words(r[s]))
                )
            ),
        ),
        Misconception(
            "zeros",
            "Faults that do not occur stand in counts with 0. Only those that occur "
            "are wanted.",
            _zeros,
        ),
    ),
)
