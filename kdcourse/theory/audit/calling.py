"""How a loss is called: its options, the form it must have, and ``adapt``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ..arguments import IGNORE, BadArgument, check_choice, check_flag

OPTIONS = (
    "temperature",
    "alpha",
    "beta",
    "k",
    "normalizer",
    "decoder_input_ids",
    "pad_token_id",
    "eos_token_id",
)
"""The options of a loss that the audit knows how to set."""


VIEWS = {
    "student_logits": lambda s, t, y: s,
    "teacher_logits": lambda s, t, y: t,
    "student_log_probs": lambda s, t, y: s.float().log_softmax(-1),
    "teacher_log_probs": lambda s, t, y: t.float().log_softmax(-1),
    "student_probs": lambda s, t, y: s.float().softmax(-1),
    "teacher_probs": lambda s, t, y: t.float().softmax(-1),
    "labels": lambda s, t, y: y,
    "mask": lambda s, t, y: y != IGNORE,
}


def adapt(
    fn: Callable[..., Tensor],
    *,
    takes: str = "student_logits teacher_logits labels",
    tokens: str = "all",
    divide: bool = False,
    float32: bool = False,
    rename: dict[str, str] | None = None,
    options: Iterable[str] = OPTIONS,
) -> Callable[..., Tensor]:
    """Another library's loss in the form that ``audit`` calls.

    ``adapt(torch.nn.KLDivLoss(reduction="sum"), divide=True, tokens="real",
    takes="student_log_probs teacher_probs")`` is the forward KL of torch.

    Args:
        fn: the loss.
        takes: what it takes by position, in its order: words of student_logits,
            teacher_logits, the same with log_probs or probs, labels, mask (bool).
        tokens: "all" for (B, L, V), or "real" for the real tokens alone, (N, V).
        divide: whether it returns a sum, to be divided by the real tokens.
        float32: raise the logits first, where fn relies on its caller for that.
        rename: the audit's name of an option to that of fn: {"temperature": "T"}.
        options: which options are to be set; others keep fn's default.

    Raises:
        BadArgument: fn is no function, or a word is none of those above.
    """
    _check_words(takes, rename, options)
    check_flag("divide", divide)
    check_flag("float32", float32)
    takes, rename, options = takes.split(), rename or {}, tuple(options)
    theirs = parameters_of("fn", fn)
    check_choice("tokens", tokens, ("all", "real"))
    for name, words, choices in (
        ("takes", takes, VIEWS),
        ("options", options, OPTIONS),
        ("rename", rename, OPTIONS),
    ):
        for word in words:
            check_choice(name, word, choices)
    check_renamed(rename, theirs)
    known = [option for option in options if rename.get(option, option) in theirs]

    def adapted(student_logits, teacher_logits, labels, **given):
        divisor = given.pop("normalizer", None) if divide else None
        if divide and divisor is None:
            divisor = (labels != IGNORE).sum()
        parts = (student_logits, teacher_logits, labels)
        if tokens == "real":
            real = labels != IGNORE
            parts = tuple(x[real] for x in parts)
        if float32:
            parts = (parts[0].float(), parts[1].float(), parts[2])
        inputs = [VIEWS[word](*parts) for word in takes]
        result = fn(*inputs, **{rename.get(o, o): v for o, v in given.items()})
        return result / divisor if divide else result

    adapted.__name__ = name_of(fn)
    adapted.__signature__ = signature_of({*known, *(["normalizer"] if divide else [])})
    return adapted


def _check_words(takes, rename, options) -> None:
    """Refuse arguments of ``adapt`` that are of another kind."""
    for name, given, right, wanted in (
        (
            "takes",
            takes,
            isinstance(takes, str) and bool(takes.split()),
            f"a text of one or more of {', '.join(VIEWS)}",
        ),
        (
            "rename",
            rename,
            rename is None or isinstance(rename, Mapping),
            "a dictionary such as {'temperature': 'T'}, or None",
        ),
        (
            "options",
            options,
            isinstance(options, Iterable) and not isinstance(options, str),
            f"a list of some of {', '.join(OPTIONS)}",
        ),
    ):
        if not right:
            raise BadArgument(
                name, f"{given!r}", wanted=wanted, todo="See the text of adapt."
            )


def check_renamed(rename: dict[str, str], theirs: Iterable[str]) -> None:
    """Refuse a new name for an option that the loss does not have."""
    for ours, name in rename.items():
        if name not in theirs:
            raise BadArgument(
                "rename",
                f"{ours}={name!r}",
                wanted="the name of an option that fn has",
                todo="Look at the signature of fn.",
            )


def signature_of(options: set[str]) -> inspect.Signature:
    """The signature of an adapted loss with these options."""
    kind = inspect.Parameter
    first = ("student_logits", "teacher_logits", "labels")
    return inspect.Signature(
        [kind(x, kind.POSITIONAL_OR_KEYWORD) for x in first]
        + [kind(x, kind.KEYWORD_ONLY, default=None) for x in OPTIONS if x in options]
    )


def parameters_of(name: str, fn: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of a function or module by name; some built-ins have none."""
    if not callable(fn):
        raise not_callable(
            name, fn, "loss_fn(student_logits, teacher_logits, labels, **options)"
        )
    try:
        return dict(inspect.signature(called(fn)).parameters)
    except (TypeError, ValueError):  # some built-in functions have none
        return {}


def called(fn: Callable) -> Callable:
    """What holds the signature: a module's is that of its forward."""
    return fn.forward if isinstance(fn, nn.Module) else fn


def options_of(name: str, fn: Callable) -> frozenset[str]:
    """The audit's options that a loss takes.

    Raises:
        BadArgument: it cannot be called in the audit's form.
    """
    parameters = parameters_of(name, fn)
    accepts = frozenset(parameters) & set(OPTIONS)
    if parameters:
        signature = inspect.signature(called(fn))
        try:
            signature.bind(0, 0, 0, **dict.fromkeys(accepts, 0))
        except TypeError as error:
            raise BadArgument(
                name,
                f"{name_of(fn)}{signature}: {error}",
                wanted="loss_fn(student_logits, teacher_logits, labels, **options)",
                todo="Bring it into this form with adapt(fn, takes=…, rename=…).",
            ) from None
    return accepts


def not_callable(name: str, given: object, wanted: str) -> BadArgument:
    """The error for what is no function."""
    return BadArgument(
        name,
        f"a {type(given).__name__}",
        wanted=f"a function {wanted}",
        todo="Pass the function itself, without calling it.",
    )


def name_of(fn: Callable) -> str:
    """What a report calls a function, a module or a partial."""
    fn = getattr(fn, "func", fn)  # of a functools.partial
    return getattr(fn, "__name__", type(fn).__name__)


class Refused(Exception):
    """The loss raised something, or gave back what is no single number."""

    def as_argument(self, name: str) -> BadArgument:
        """The refusal as an error about the argument of this name."""
        return BadArgument(
            name,
            f"a function that {self}",
            wanted="one number, torch.Size([]), for any batch",
            todo="Call it by hand on logits (2, 3, 5) and labels (2, 3), and see.",
        )


def call_loss(fn: Callable, *inputs, **options) -> Tensor:
    """Call a loss; whatever it raises, or gives back but one number, is Refused."""
    try:
        result = fn(*inputs, **options)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:100]
        raise Refused(f"raises {type(error).__name__}: {first}") from error
    if not isinstance(result, Tensor):
        raise Refused(f"returns a {type(result).__name__} and no tensor")
    if result.dim():
        raise Refused(f"returns a tensor of shape {tuple(result.shape)}")
    if result.is_complex() or result.layout != torch.strided:
        raise Refused(f"returns a tensor of {result.dtype}, {result.layout}")
    if result.is_meta:
        raise Refused("returns a tensor on meta, a device without numbers")
    return result
