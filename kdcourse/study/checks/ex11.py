"""Checks of lesson 11: the pieces of the whole recipe that are easy to get wrong."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from statistics import mean

import torch
from torch.nn.functional import cross_entropy

from .core import Case, Exercise, Misconception

IGNORE = -100

# --- batch_loss -----------------------------------------------------------------


def _batch_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Token by token, slow and plain: independent of every vectorised solution."""
    losses = []
    for row, row_labels in zip(logits, labels.tolist(), strict=True):
        for scores, label in zip(row, row_labels, strict=True):
            if label != IGNORE:
                losses.append(torch.logsumexp(scores, dim=0) - scores[label])
    return sum(losses) / len(losses)


def _loss_and_gradient(function: Callable, arguments: tuple) -> dict:
    """What is compared: the loss, and how it moves each logit (pads included)."""
    logits, labels = arguments
    leaf = logits.detach().clone().requires_grad_(True)
    watched = (
        leaf * 1.0
    )  # the gradient is read at the leaf; the function may edit this one
    loss = function(watched, labels)
    logits.copy_(watched.detach())  # shows the engine whether the logits were changed
    if loss is ...:
        return loss  # a blank; the engine knows it
    gradient = None
    if _can_be_differentiated(loss, leaf):
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return {"the loss": loss, "its gradient": gradient}


def _can_be_differentiated(loss: object, leaf: torch.Tensor) -> bool:
    return (
        isinstance(loss, torch.Tensor)
        and loss.requires_grad
        and loss.numel() == 1
        and loss.device == leaf.device
    )


def _loss_cases() -> list[Case]:
    def case(
        name: str, labels: list[list[int]], vocabulary: int, scale: float = 2.0
    ) -> Case:
        generator = torch.Generator().manual_seed(11)
        shape = (len(labels), len(labels[0]), vocabulary)
        logits = scale * torch.randn(shape, generator=generator)
        return Case(name, {"logits": logits, "labels": torch.tensor(labels)})

    by_hand = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    return [
        Case(
            "one sentence of one token and one pad; the loss is log(4/3)",
            {"logits": by_hand, "labels": torch.tensor([[1, IGNORE]])},
        ),
        case("no pads", [[1, 2, 0], [3, 1, 0]], 4),
        case("two sentences, one padded", [[1, 2, 3, 0], [2, 0, IGNORE, IGNORE]], 5),
        case(
            "three lengths",
            [[5, 6, 1, 2, 0], [4, 0, *3 * [IGNORE]], [3, 3, 0, *2 * [IGNORE]]],
            7,
        ),
        case(
            "very confident logits, up to hundreds",
            [[1, 0, IGNORE], [2, 1, 0]],
            4,
            200.0,
        ),
    ]


def _log_probs(
    logits: torch.Tensor, labels: torch.Tensor, dim: int = -1
) -> torch.Tensor:
    """log Pr of each label, 0 at pads: (B, L)."""
    safe = labels.clamp(min=0)
    chosen = torch.log_softmax(logits, dim=dim).gather(-1, safe[..., None])[..., 0]
    return chosen.masked_fill(labels == IGNORE, 0.0)


def _count(labels: torch.Tensor) -> torch.Tensor:
    return (labels != IGNORE).sum()


def _mean_of_sentences(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    per_sentence = -_log_probs(logits, labels).sum(1) / (labels != IGNORE).sum(1)
    return per_sentence.mean()


def _shifted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    flat = logits[:, :-1].reshape(-1, logits.shape[-1])
    return cross_entropy(flat, labels[:, 1:].reshape(-1), ignore_index=IGNORE)


def _naive_softmax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    real = labels != IGNORE
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    chosen = probabilities[real].gather(-1, labels[real][:, None])
    return -chosen.log().mean()


def _naive_softmax_of_real(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same mistake, but pads were left out first: their gradient is no NaN."""
    real = labels != IGNORE
    return _naive_softmax(logits[real][:, None], labels[real][:, None])


def _separate_log(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    real = labels != IGNORE
    chosen = torch.softmax(logits, -1)[real].gather(-1, labels[real][:, None])
    return -chosen.log().mean()


def _unmasked_gather(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -torch.log_softmax(logits, -1).gather(-1, labels[..., None]).mean()


def _zero_is_pad(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    real = labels > 0
    return -_log_probs(logits, labels)[real].sum() / real.sum()


def _flat(loss: Callable) -> Callable:
    """Let a wrong solution for logits (N, V) and labels (N,) take a whole batch."""
    return lambda logits, labels: loss(logits.flatten(0, 1), labels.flatten())


batch_loss = Exercise(
    name="ex11.batch_loss",
    call="batch_loss(logits, labels)",
    reference=_batch_loss,
    observe=_loss_and_gradient,
    cases=_loss_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "Two numbers are needed: the summed loss of the real tokens, and how many "
        "there are. Which positions are real?",
        "real = labels != -100 is a mask of shape (B, L); logits[real] has shape (N, "
        "V) and labels[real] shape (N,). Pads are gone before anything is computed.",
        "The loss of a token is minus its entry in torch.log_softmax(..., dim=-1); "
        "gather(1, labels[real][:, None]) picks it. Sum, then divide by real.sum().",
    ),
    misconceptions=(
        Misconception(
            "pads counted",
            "The sum is right, but it is divided by all B · L positions. Pads are not "
            "tokens: the same batch with more padding would get a smaller loss. "
            "Divide by the number of labels that are not -100.",
            lambda logits, labels: -_log_probs(logits, labels).sum() / labels.numel(),
        ),
        Misconception(
            "divided by sentences",
            "The sum is divided by the number of sentences. Long sentences then weigh "
            "more than short ones, and the loss grows with their length. Divide by "
            "the number of real tokens.",
            lambda logits, labels: -_log_probs(logits, labels).sum() / len(labels),
        ),
        Misconception(
            "mean of means",
            "This is the mean of each sentence's mean: a token of a short sentence "
            "counts more than one of a long sentence. Sum over the whole batch first, "
            "divide once.",
            _mean_of_sentences,
        ),
        Misconception(
            "mask forgotten",
            "The label -100 marks a pad; it is not a token id. Leave these positions "
            "out before any id is looked up; do not turn them into token 0.",
            _flat(lambda z, y: cross_entropy(z, y.clamp(min=0))),
            _flat(lambda z, y: cross_entropy(z, y, ignore_index=-1)),
            _flat(lambda z, y: cross_entropy(z, y, ignore_index=0)),
            _unmasked_gather,
        ),
        Misconception(
            "token zero masked",
            "Token 0 was left out together with the pads. Here 0 is </s>, the end of "
            "the sentence: a student that never learns it never stops. Only -100 is a "
            "pad.",
            _zero_is_pad,
        ),
        Misconception(
            "shifted",
            "Logits and labels are one position apart. Position t of the logits "
            "already predicts position t of the labels: the shift is made in the "
            "decoder's input.",
            _shifted,
        ),
        Misconception(
            "softmax over time",
            "The softmax runs over the positions of a sentence. Probabilities must "
            "sum to 1 over the vocabulary: dim=-1 of the logits (B, L, V).",
            lambda logits, labels: (
                -_log_probs(logits, labels, dim=1).sum() / _count(labels)
            ),
        ),
        Misconception(
            "softmax over the batch",
            "The softmax runs over the sentences of the batch. Probabilities must sum "
            "to 1 over the vocabulary: dim=-1 of the logits (B, L, V).",
            lambda logits, labels: (
                -_log_probs(logits, labels, dim=0).sum() / _count(labels)
            ),
        ),
        Misconception(
            "softmax twice",
            "A softmax is taken of probabilities. cross_entropy and log_softmax want "
            "raw logits and take the softmax themselves.",
            _flat(lambda z, y: cross_entropy(torch.softmax(z, -1), y)),
        ),
        Misconception(
            "sum",
            "This is the sum over tokens; it grows with the batch. Divide it, once, "
            "by the number of real tokens.",
            lambda logits, labels: -_log_probs(logits, labels).sum(),
        ),
        Misconception(
            "divided twice",
            "The loss is divided by the number of tokens twice: cross_entropy has "
            "already taken the mean.",
            lambda logits, labels: (
                -_log_probs(logits, labels).sum() / _count(labels) ** 2
            ),
        ),
        Misconception(
            "mean over the vocabulary",
            "The loss is divided by the size of the vocabulary too. Only the number "
            "of real tokens belongs below the sum.",
            lambda z, y: -_log_probs(z, y).sum() / _count(y) / z.shape[-1],
        ),
        Misconception(
            "sign",
            "The sign is wrong: this is the mean log-probability, which is to grow. A "
            "loss is to fall, so it is minus that.",
            lambda logits, labels: _log_probs(logits, labels).sum() / _count(labels),
        ),
        Misconception(
            "overflow",
            "exp() of a large logit is infinite, or the logarithm meets a probability "
            "that was rounded to 0. Use torch.log_softmax, which subtracts the "
            "largest logit and stays in logarithms.",
            _naive_softmax,
            _naive_softmax_of_real,
            _separate_log,
        ),
        Misconception(
            "no gradient",
            "The number is right, but no gradient flows from it: nothing would be "
            "learned. Return the tensor itself: no .item(), .detach(), float() or "
            "torch.tensor().",
            lambda logits, labels: _batch_loss(logits, labels).item(),
            lambda logits, labels: _batch_loss(logits, labels).detach(),
        ),
    ),
)

# --- decoder_inputs -------------------------------------------------------------


def _decoder_inputs(labels: torch.Tensor, start: int, pad: int) -> torch.Tensor:
    rows = []
    for row in labels.tolist():
        rows.append([start, *(pad if y == IGNORE else y for y in row)][: len(row)])
    return torch.tensor(rows)


def _decoder_cases() -> list[Case]:
    def case(name: str, labels: list[list[int]], start: int = 9, pad: int = 8) -> Case:
        return Case(name, {"labels": torch.tensor(labels), "start": start, "pad": pad})

    return [
        case("one sentence", [[5, 6, 7, 0]]),
        case("two sentences, one padded", [[5, 6, 7, 4, 0], [3, 0, *3 * [IGNORE]]]),
        case("Marian: the start token is the pad", [[2, 4, 0], [1, 0, IGNORE]], 8, 8),
        case("labels of one token", [[0], [0], [0]]),
    ]


def _replaced(labels: torch.Tensor, pad: int) -> torch.Tensor:
    return labels.masked_fill(labels == IGNORE, pad)


def _starting(first: torch.Tensor | int, rest: torch.Tensor) -> torch.Tensor:
    """``rest`` moved one place to the right, behind a first column."""
    column = (
        first
        if isinstance(first, torch.Tensor)
        else torch.full_like(rest[:, :1], first)
    )
    return torch.cat([column, rest[:, :-1]], dim=1)


def _last_token(labels: torch.Tensor) -> torch.Tensor:
    return labels.gather(1, (labels != IGNORE).sum(1, keepdim=True) - 1)


def _shifted_left(labels: torch.Tensor, start: int, pad: int) -> torch.Tensor:
    return torch.cat(
        [_replaced(labels, pad)[:, 1:], torch.full_like(labels[:, :1], pad)], 1
    )


decoder_inputs = Exercise(
    name="ex11.decoder_inputs",
    call="decoder_inputs(labels, start, pad)",
    reference=_decoder_inputs,
    cases=_decoder_cases,
    difficulty=2,
    minutes=7,
    hints=(
        "To predict label t the decoder may read the labels before t, no more. What "
        "does it read at the first position?",
        "Make a column of start tokens, put it before the labels, drop the last "
        "column. The shape stays (B, L).",
        "masked_fill(labels == -100, pad) returns a copy without -100; "
        "labels.new_full((B, 1), start) is the column; torch.cat([...], dim=1) joins "
        "them.",
    ),
    misconceptions=(
        Misconception(
            "shifted left",
            "The labels moved to the left: the decoder would read token t + 1 before "
            "it predicts token t. Move them to the right, behind the start token.",
            _shifted_left,
            lambda y, start, pad: torch.cat(
                [_replaced(y, pad)[:, 1:], torch.full_like(y[:, :1], start)], 1
            ),
        ),
        Misconception(
            "not shifted",
            "The labels were not moved: at each position the decoder would read the "
            "very token that it is to predict, and learn to copy it.",
            lambda labels, start, pad: _replaced(labels, pad),
            lambda labels, start, pad: torch.cat(
                [torch.full_like(labels[:, :1], start), _replaced(labels, pad)[:, 1:]],
                1,
            ),
        ),
        Misconception(
            "-100 kept",
            "-100 still stands in the result. It is not a token: the embedding has no "
            "such row. Put the pad in its place.",
            lambda labels, start, pad: _starting(start, labels),
        ),
        Misconception(
            "-100 as token zero",
            "-100 became token 0, the end of the sentence. Put the pad in its place.",
            lambda labels, start, pad: _starting(start, labels.clamp(min=0)),
        ),
        Misconception(
            "-100 as start",
            "-100 became the start token. Put the pad in its place: the two are "
            "different tokens in many models.",
            lambda labels, start, pad: _starting(start, _replaced(labels, start)),
        ),
        Misconception(
            "end as start",
            "Each row begins with the end token </s>. Some models (mBART) do so; here "
            "the row begins with the token given as start.",
            lambda labels, start, pad: _starting(0, _replaced(labels, pad)),
            lambda labels, start, pad: _starting(
                _last_token(labels), _replaced(labels, pad)
            ),
        ),
        Misconception(
            "pad as start",
            "Each row begins with the pad. In Marian both are one token, but the "
            "argument start says which it is.",
            lambda labels, start, pad: _starting(pad, _replaced(labels, pad)),
        ),
        Misconception(
            "rolled",
            "The last label came round to the front (torch.roll does that). The first "
            "position holds the start token, and the last label is not read.",
            lambda labels, start, pad: _replaced(labels, pad).roll(1, dims=1),
        ),
        Misconception(
            "too long",
            "The result has one position too many. The start token pushes the last "
            "label out: nothing is left to predict after it.",
            lambda labels, start, pad: torch.cat(
                [torch.full_like(labels[:, :1], start), _replaced(labels, pad)], 1
            ),
        ),
        Misconception(
            "too short",
            "The last label was dropped, but the start token was not put before the "
            "others: the result has one position too few.",
            lambda labels, start, pad: _replaced(labels, pad)[:, :-1],
            lambda labels, start, pad: _replaced(labels, pad)[:, 1:],
        ),
    ),
)

# --- distilled_corpus -----------------------------------------------------------

Corpus = tuple[list[tuple[str, str]], int]


def _distilled_corpus(sources, references, translations, key) -> Corpus:
    pairs, missing = [], 0
    for source, reference in zip(sources, references, strict=True):
        if key(source) in translations:
            pairs.append((source, translations[key(source)]))
        else:
            pairs.append((source, reference))
            missing += 1
    return pairs, missing


def _short_hash(source: str) -> str:
    """Stands in for the package's own key: any function of the source will do."""
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def _corpus_cases() -> list[Case]:
    strings = {
        "Turn on the light": ("Enciende la luz", "Encender la luz"),
        "Wrong password": ("Clave incorrecta", "Contraseña incorrecta"),
        "Living room": ("Cuarto de estar", "Sala de estar"),
        "Low battery": ("Pila baja", "Batería baja"),
    }

    def case(
        name: str, sources: list[str], labelled: list[str], **references: list[str]
    ) -> Case:
        return Case(
            name,
            {
                "sources": sources,
                "references": [strings[source][0] for source in sources],
                **references,
                "translations": {_short_hash(s): strings[s][1] for s in labelled},
                "key": _short_hash,
            },
        )

    one, two, three, four = strings
    return [
        case("every row labelled, in the same order", [one, two], [one, two]),
        case("labelled in another order", [one, two, three], [three, one, two]),
        case("one row without a translation", [one, two, three], [three, one]),
        case("the same source twice", [one, two, one], [one, two]),
        case("more translations than rows", [three, one], [four, two, one, three]),
        case("nothing labelled yet", [four, two], []),
        case(
            "the same source twice, with two references and no translation",
            [two, one, two],
            [one],
            references=["Clave incorrecta", "Enciende la luz", "Contraseña errónea"],
        ),
    ]


def _with_default(default: Callable[[str, str], str], counted: bool = True) -> Callable:
    """A wrong solution: what it writes where the teacher's translation is missing."""

    def corpus(sources, references, translations, key) -> Corpus:
        lost = sum(key(source) not in translations for source in sources)
        pairs = [
            (source, translations.get(key(source), default(source, reference)))
            for source, reference in zip(sources, references, strict=True)
        ]
        return pairs, lost if counted else 0

    return corpus


def _through_a_dict(first: bool) -> Callable:
    """A wrong solution: references looked up by source, of which one is left."""

    def corpus(sources, references, translations, key) -> Corpus:
        known = {}
        for source, reference in zip(sources, references, strict=True):
            if not first or source not in known:
                known[source] = reference
        own = [known[source] for source in sources]
        return _distilled_corpus(sources, own, translations, key)

    return corpus


def _by_position(default: bool) -> Callable:
    def corpus(sources, references, translations, key) -> Corpus:
        outputs = list(translations.values())[: len(sources)]
        lost = len(sources) - len(outputs)
        rest = references[len(outputs) :] if default else []
        return list(zip(sources, outputs + rest, strict=False)), lost

    return corpus


def _dropping(counted: bool) -> Callable:
    def corpus(sources, references, translations, key) -> Corpus:
        pairs = [(s, translations[key(s)]) for s in sources if key(s) in translations]
        return pairs, len(sources) - len(pairs) if counted else 0

    return corpus


def _positional(join: Callable) -> Callable:
    """A lookup that fails where too few translations exist, as learners' code does."""
    return lambda sources, references, translations, key: (
        [(s, join(i, s, translations, key)) for i, s in enumerate(sources)],
        0,
    )


distilled_corpus = Exercise(
    name="ex11.distilled_corpus",
    call="distilled_corpus(sources, references, translations, key)",
    reference=_distilled_corpus,
    cases=_corpus_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "translations may be shuffled, incomplete, or hold more than you need. Only "
        "one thing ties a translation to its source.",
        "Look translations up under key(source). Where the key is absent, keep the "
        "reference and count one.",
        "Return two things: the list of (source, target), as long as sources and in "
        "the same order, and the count.",
    ),
    misconceptions=(
        Misconception(
            "by position",
            "Sources and translations were paired by position. The labelling may "
            "finish in any order: look each translation up under key(source), or "
            "every string gets another one's translation.",
            _by_position(default=True),
            _by_position(default=False),
            _positional(
                lambda i, source, translations, key: list(translations.values())[i]
            ),
        ),
        Misconception(
            "dropped",
            "Rows without a translation vanished from the corpus. The student would be "
            "trained on less than its untaught twin, and nobody would know: keep the "
            "reference there, and count it.",
            _dropping(counted=False),
            _dropping(counted=True),
        ),
        Misconception(
            "not counted",
            "The reference was kept where a translation is missing, but not counted. "
            "A corpus of references alone would look distilled: report how many there "
            "are.",
            _with_default(lambda source, reference: reference, counted=False),
        ),
        Misconception(
            "fails on missing",
            "A missing translation stops your function (KeyError). The labelling may "
            "have been interrupted: keep the reference there, and count it.",
            _positional(lambda i, source, translations, key: translations[key(source)]),
        ),
        Misconception(
            "key unused",
            "Translations were looked up under the source itself. They are stored "
            "under key(source): nothing was found, and every row kept its reference.",
            lambda sources, references, translations, key: _distilled_corpus(
                sources, references, translations, lambda source: source
            ),
            _positional(lambda i, source, translations, key: translations[source]),
        ),
        Misconception(
            "only references",
            "No translation of the teacher is in the corpus: this is the untaught "
            "twin's.",
            lambda sources, references, translations, key: (
                list(zip(sources, references, strict=True)),
                0,
            ),
        ),
        Misconception(
            "references by source",
            "One source stands in two rows with two references, and both rows got the "
            "same one. Where a translation is missing, keep the reference of that very "
            "row: go through sources and references together.",
            _through_a_dict(first=False),
            _through_a_dict(first=True),
        ),
        Misconception(
            "empty targets",
            "Where a translation is missing the target is empty. The student would "
            "learn to say nothing: keep the reference.",
            _with_default(lambda source, reference: ""),
            _with_default(lambda source, reference: None),
            _with_default(lambda source, reference: "", counted=False),
            _with_default(lambda source, reference: None, counted=False),
        ),
        Misconception(
            "source as target",
            "Where a translation is missing the source was copied to the target side. "
            "Keep the reference.",
            _with_default(lambda source, reference: source),
            _with_default(lambda source, reference: source, counted=False),
        ),
        Misconception(
            "sides exchanged",
            "The two sides are exchanged: a pair is (source, target).",
            lambda *arguments: (
                [pair[::-1] for pair in _distilled_corpus(*arguments)[0]],
                _distilled_corpus(*arguments)[1],
            ),
        ),
        Misconception(
            "count of the found",
            "The count is of the rows that the teacher translated. Count those it did "
            "not.",
            lambda sources, *rest: (
                _distilled_corpus(sources, *rest)[0],
                len(sources) - _distilled_corpus(sources, *rest)[1],
            ),
        ),
        Misconception(
            "pairs alone",
            "Only the pairs were returned. Return two things: the pairs, and how many "
            "rows kept their reference.",
            lambda *arguments: _distilled_corpus(*arguments)[0],
        ),
    ),
)

# --- verdict --------------------------------------------------------------------

BEATS, NO_BEATS, INCONCLUSIVE = "BEATS", "NO BEATS", "INCONCLUSIVE"
ALPHA, SEEDS = 0.01, 3


def _verdict(deltas: list[float], p_values: list[float]) -> str:
    if len(deltas) < SEEDS:
        return INCONCLUSIVE
    if max(deltas) <= 0:
        return NO_BEATS
    if min(deltas) > 0 and max(p_values) < ALPHA:
        return BEATS
    return INCONCLUSIVE


def _verdict_cases() -> list[Case]:
    def case(name: str, deltas: list[float], p_values: list[float]) -> Case:
        return Case(name, {"deltas": deltas, "p_values": p_values})

    return [
        case("a gain on every seed", [2.7, 3.1, 2.2], [0.001, 0.001, 0.004]),
        case("no gain on any seed", [-0.4, 0.0, -1.1], [0.4, 0.9, 0.08]),
        case("a clear loss on every seed", [-2.0, -1.5, -1.8], [0.001, 0.002, 0.001]),
        case("one seed shines, one falls", [5.0, -0.2, 0.1], [0.001, 0.6, 0.7]),
        case("gains that may be chance", [0.3, 0.2, 0.4], [0.3, 0.4, 0.2]),
        case("one of three gains may be chance", [2.0, 1.8, 0.3], [0.001, 0.001, 0.02]),
        case(
            "one of three gains is almost surely chance",
            [1.9, 1.7, 0.2],
            [0.001, 0.3, 0.002],
        ),
        case(
            "three gains at p between 0.01 and 0.05",
            [1.2, 0.9, 1.0],
            [0.02, 0.03, 0.02],
        ),
        case("small losses that may be chance", [-0.4, -0.2, -0.6], [0.4, 0.6, 0.2]),
        case("two seeds only", [2.5, 2.6], [0.001, 0.001]),
        case("two seeds without a gain", [-0.5, -0.1], [0.2, 0.5]),
        case("one seed loses for certain", [3.0, 2.9, -1.0], [0.001, 0.001, 0.001]),
        case("p exactly at 0.01", [2.0, 2.1, 2.2], [0.01, 0.002, 0.003]),
        case("no difference on one seed", [1.4, 0.0, 2.1], [0.002, 0.003, 0.001]),
        case(
            "five seeds, all gain",
            [1.1, 1.4, 0.9, 1.6, 1.2],
            [0.004, 0.001, 0.009, 0.001, 0.002],
        ),
        case(
            "four small losses and one gain", [-0.1, -0.2, 1.5, -0.1, -0.3], [0.5] * 5
        ),
    ]


def _rule(beats: Callable, loses: Callable, seeds: int = SEEDS) -> Callable:
    """A wrong rule from two tests of (deltas, p_values)."""

    def verdict(deltas: list[float], p_values: list[float]) -> str:
        if len(deltas) < seeds:
            return INCONCLUSIVE
        if beats(deltas, p_values):
            return BEATS
        return NO_BEATS if loses(deltas, p_values) else INCONCLUSIVE

    return verdict


def _wins(deltas: list[float], p_values: list[float]) -> bool:
    return min(deltas) > 0 and max(p_values) < ALPHA


def _fails(deltas: list[float], p_values: list[float]) -> bool:
    return max(deltas) <= 0


def _best(deltas: list[float], p_values: list[float]) -> bool:
    best = deltas.index(max(deltas))
    return deltas[best] > 0 and p_values[best] < ALPHA


def _mean_wins(deltas: list[float], p_values: list[float]) -> bool:
    return mean(deltas) > 0


verdict = Exercise(
    name="ex11.verdict",
    call="verdict(deltas, p_values)",
    reference=_verdict,
    cases=_verdict_cases,
    difficulty=3,
    minutes=10,
    hints=(
        "Test in this order: are there enough seeds? Is there no gain at all? Is the "
        "gain certain on every seed? What is left is INCONCLUSIVE.",
        "all(d > 0 for d in deltas) and all(p < 0.01 for p in p_values) is the strict "
        "part; NO BEATS needs every delta to be 0 or less.",
    ),
    misconceptions=(
        Misconception(
            "best seed",
            "The best seed alone decided. Of many seeds one always shines by luck (the "
            "winner's curse): every seed must gain.",
            _rule(_best, _fails),
            _rule(_best, _fails, seeds=0),
            _rule(_best, lambda deltas, p_values: True, seeds=0),
        ),
        Misconception(
            "mean only",
            "The mean over the seeds decided. One lucky seed lifts a mean above zero: "
            "look at each seed, and at its p value.",
            _rule(_mean_wins, _fails),
            _rule(_mean_wins, _fails, seeds=0),
            _rule(_mean_wins, lambda deltas, p_values: True, seeds=0),
            _rule(_mean_wins, lambda deltas, p_values: mean(deltas) < 0, seeds=0),
            _rule(_mean_wins, lambda deltas, p_values: mean(deltas) <= 0),
        ),
        Misconception(
            "p ignored",
            "The p values make no difference to your verdict. Three small gains can be "
            "chance: each p must be below 0.01.",
            _rule(lambda deltas, p_values: min(deltas) > 0, _fails),
            _rule(lambda deltas, p_values: min(deltas) > 0, _fails, seeds=0),
        ),
        Misconception(
            "one p is enough",
            "One small p value was enough for your verdict. Every seed must have p < "
            "0.01.",
            _rule(
                lambda deltas, p_values: min(deltas) > 0 and min(p_values) < ALPHA,
                _fails,
            ),
        ),
        Misconception(
            "mean p",
            "The mean of the p values was tested. A small one hides a large one: "
            "every seed must have p < 0.01.",
            _rule(
                lambda deltas, p_values: min(deltas) > 0 and mean(p_values) < ALPHA,
                _fails,
            ),
        ),
        Misconception(
            "five per cent",
            "p was compared with 0.05. Three seeds and many comparisons ask for the "
            "stricter p < 0.01.",
            _rule(
                lambda deltas, p_values: min(deltas) > 0 and max(p_values) < 0.05,
                _fails,
            ),
        ),
        Misconception(
            "p reversed",
            "The p values are read the wrong way round: a small p means that chance "
            "alone would hardly give such a difference.",
            _rule(
                lambda deltas, p_values: min(deltas) > 0 and min(p_values) > ALPHA,
                _fails,
            ),
            _rule(
                lambda deltas, p_values: min(deltas) > 0 and min(p_values) >= ALPHA,
                _fails,
            ),
        ),
        Misconception(
            "direction ignored",
            "Only the p values decided. A small p with a negative delta says that the "
            "student is surely worse.",
            _rule(lambda deltas, p_values: max(p_values) < ALPHA, _fails),
            _rule(lambda deltas, p_values: max(p_values) < ALPHA, _fails, seeds=0),
        ),
        Misconception(
            "two seeds",
            "A verdict was given on two seeds. With fewer than three, say "
            "INCONCLUSIVE.",
            _rule(_wins, _fails, seeds=0),
            _rule(_wins, _fails, seeds=2),
        ),
        Misconception(
            "two answers",
            "What is not proved to be better was called NO BEATS. Where some seeds "
            "gain, or a gain may be chance, or seeds are few, the answer is "
            "INCONCLUSIVE: a result, too.",
            _rule(_wins, lambda deltas, p_values: True),
            _rule(_wins, lambda deltas, p_values: True, seeds=0),
        ),
        Misconception(
            "loss must be certain",
            "NO BEATS was kept for certain losses. It says less: not one seed showed "
            "a gain, whatever its p value.",
            _rule(
                _wins,
                lambda deltas, p_values: max(deltas) <= 0 and max(p_values) < ALPHA,
            ),
            _rule(
                _wins,
                lambda deltas, p_values: max(deltas) < 0 and max(p_values) < ALPHA,
            ),
        ),
        Misconception(
            "limit included",
            "p = 0.01 is not below 0.01: the comparison is <, not <=.",
            _rule(
                lambda deltas, p_values: min(deltas) > 0 and max(p_values) <= ALPHA,
                _fails,
            ),
        ),
        Misconception(
            "zero is a gain",
            "A delta of 0 is no gain. BEATS needs every delta above 0; NO BEATS has "
            "every delta at 0 or below.",
            _rule(
                lambda deltas, p_values: min(deltas) >= 0 and max(p_values) < ALPHA,
                _fails,
            ),
            _rule(_wins, lambda deltas, p_values: max(deltas) < 0),
            _rule(
                lambda deltas, p_values: min(deltas) >= 0 and max(p_values) < ALPHA,
                lambda deltas, p_values: max(deltas) < 0,
            ),
        ),
    ),
)

# --- copied_names ---------------------------------------------------------------


def _copied_names(sources, references, hypotheses) -> float:
    names = kept = 0
    for source, reference, hypothesis in zip(
        sources, references, hypotheses, strict=True
    ):
        for word in source.split():
            if word != word.lower() and word in reference.split():
                names += 1
                kept += word in hypothesis.split()
    return kept / names if names else 1.0


def _names_cases() -> list[Case]:
    def case(name: str, *rows: tuple[str, str, str]) -> Case:
        sources, references, hypotheses = (
            list(column) for column in zip(*rows, strict=True)
        )
        return Case(
            name,
            {"sources": sources, "references": references, "hypotheses": hypotheses},
        )

    hue = ("Connect to Hue", "Conectar a Hue")
    planner = ("Open A Better Routeplanner", "Abrir A Better Routeplanner")
    return [
        case("one name, kept", (*hue, "Conecta con Hue")),
        case("one name, garbled", (*hue, "Conecta con Hje")),
        case(
            "two of three words kept, and one of one",
            (*planner, "Abrir A Better Tratero"),
            (*hue, "Conectar a Hue"),
        ),
        case(
            "a name of three words, garbled",
            (*planner, "Abrir Aet Tratero"),
            (*hue, "A Hue"),
        ),
        case("a name inside a longer word", (*hue, "Conectar a Huelva")),
        case(
            "a capital that is translated is no name",
            ("Settings of Sonos", "Ajustes de Sonos", "Ajustes de Sonos"),
        ),
        case("a name in small letters", (*hue, "Conectar a hue")),
        case(
            "small words that both sides share",
            ("Reset a Hue", "Ve a Hue", "Reinicia Hue"),
        ),
        case("no names at all", ("turn on", "encender", "encender")),
        case(
            "a string without names beside one that lost its name",
            ("turn on", "encender", "encender"),
            (*hue, "Conectar a"),
        ),
    ]


def _names(
    counts: Callable[[str, str], bool], kept: Callable[[str, str], bool]
) -> Callable:
    """A wrong solution: which words count as names, and when one counts as kept."""

    def share(sources, references, hypotheses) -> float:
        found = [
            kept(word, hypothesis)
            for source, reference, hypothesis in zip(
                sources, references, hypotheses, strict=True
            )
            for word in source.split()
            if counts(word, reference)
        ]
        return sum(found) / len(found) if found else 1.0

    return share


def _is_name(word: str, reference: str) -> bool:
    return word != word.lower() and word in reference.split()


def _stands(word: str, hypothesis: str) -> bool:
    return word in hypothesis.split()


def _per_string(combine: Callable, nameless: bool) -> Callable:
    """A wrong solution that makes one number a string and takes their mean."""

    def share(sources, references, hypotheses) -> float:
        shares = []
        for source, reference, hypothesis in zip(
            sources, references, hypotheses, strict=True
        ):
            kept = [
                _stands(w, hypothesis) for w in source.split() if _is_name(w, reference)
            ]
            if kept or nameless:
                shares.append(combine(kept))
        return mean(shares) if shares else 1.0

    return share


copied_names = Exercise(
    name="ex11.copied_names",
    call="copied_names(sources, references, hypotheses)",
    reference=_copied_names,
    cases=_names_cases,
    difficulty=4,
    minutes=12,
    hints=(
        "First find the names of one string: words of the source, with a capital "
        "letter, that stand unchanged in the reference. Then see which of them stand "
        "in the hypothesis.",
        "Compare whole words: word in hypothesis.split(). Count over all strings, and "
        "divide once at the end.",
        "any(letter.isupper() for letter in word) finds a capital. Where no string "
        "has a name, nothing was lost: return 1.0.",
    ),
    misconceptions=(
        Misconception(
            "inside a word",
            'A name counted as kept inside a longer word: "Hue" in "Huelva". Compare '
            "whole words: word in hypothesis.split().",
            _names(_is_name, lambda word, hypothesis: word in hypothesis),
            _names(
                lambda word, reference: word != word.lower() and word in reference,
                lambda word, hypothesis: word in hypothesis,
            ),
        ),
        Misconception(
            "reference ignored",
            "Every word with a capital counted as a name. Many are ordinary words at "
            "the start of a string, and are rightly translated: the reference shows "
            "which stay as they are.",
            _names(lambda word, reference: word != word.lower(), _stands),
        ),
        Misconception(
            "every word",
            "Words without a capital counted as names: only words with a capital "
            "letter do.",
            _names(lambda word, reference: word in reference.split(), _stands),
        ),
        Misconception(
            "mean of strings",
            "This is the mean of each string's share. A string with one name weighs "
            "as much as one with three: count over all strings first, divide once.",
            _per_string(lambda kept: mean(map(float, kept)), nameless=False),
            _per_string(
                lambda kept: mean(map(float, kept)) if kept else 1.0, nameless=True
            ),
            _per_string(
                lambda kept: mean(map(float, kept)) if kept else 0.0, nameless=True
            ),
        ),
        Misconception(
            "whole strings",
            "A string counted as one: kept or lost. Count each name of it.",
            _per_string(lambda kept: float(all(kept)), nameless=False),
            _per_string(lambda kept: float(all(kept)), nameless=True),
        ),
        Misconception(
            "case ignored",
            'Capitals were ignored: "hue" is not "Hue". A name is kept letter by '
            "letter.",
            _names(
                _is_name,
                lambda word, hypothesis: word.lower() in hypothesis.lower().split(),
            ),
        ),
        Misconception(
            "hypothesis unread",
            "The names were looked for in the reference, where they stand by "
            "definition: look in the hypothesis.",
            lambda sources, references, hypotheses: 1.0,
        ),
        Misconception(
            "zero without names",
            "Strings without a single name gave 0. Nothing was lost: return 1.0.",
            lambda *corpus: _copied_names(*corpus) if _any_name(*corpus) else 0.0,
            lambda *corpus: _copied_names(*corpus) if _any_name(*corpus) else math.nan,
        ),
        Misconception(
            "division by zero",
            "Where no string has a name your function divides by zero. Nothing was "
            "lost: return 1.0.",
            lambda *corpus: _copied_names(*corpus) if _any_name(*corpus) else 1 / 0,
        ),
        Misconception(
            "share lost",
            "This is the share of names that were lost. Return the share that was "
            "kept.",
            lambda *corpus: 1.0 - _copied_names(*corpus),
            lambda *corpus: 1.0 - _copied_names(*corpus) if _any_name(*corpus) else 1.0,
        ),
        Misconception(
            "per cent",
            "A share is wanted: 0.9, not 90.",
            lambda *corpus: 100 * _copied_names(*corpus),
            lambda *corpus: 100 * _copied_names(*corpus) if _any_name(*corpus) else 1.0,
        ),
    ),
)


def _any_name(sources, references, hypotheses) -> bool:
    rows = zip(sources, references, strict=True)
    return any(_is_name(word, r) for s, r in rows for word in s.split())
