"""Checks of arguments: what was given, what is wanted, what to do.

Every public function of this room calls these first, so that a mistake becomes one
sentence that names the argument, and never a silent number.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

IGNORE = -100  # the label of a position without a token, as in transformers


class BadArgument(ValueError):
    """An argument that cannot be right, in a sentence for a learner."""

    def __init__(self, name: str, given: str, *, wanted: str, todo: str):
        super().__init__(f"{name} is {given}. Wanted: {wanted}. To do: {todo}")
        self.name = name


def widen(values: torch.Tensor) -> torch.Tensor:
    """The values in float32, or in float64 where they are: how all is computed here."""
    return values if values.dtype == torch.float64 else values.float()


def as_rows(values: torch.Tensor) -> torch.Tensor:
    """(..., V) as (N, V): one row a token, a single token (V,) included."""
    return values.reshape(-1, values.shape[-1])


def check_logits(name: str, logits: torch.Tensor, *, values: bool = True) -> None:
    """A floating-point tensor (..., V) with tokens, without NaN or +inf.

    An entry of -inf is a token that cannot be said (a masked vocabulary); a position
    where nothing can be said is an error. ``values=False`` skips the passes over the
    numbers, for code that runs at every training step.
    """
    todo = "Pass raw logits, before any softmax, with the vocabulary last."
    _check_floats(name, logits, "floating-point logits", todo)
    if logits.dim() == 0 or logits.numel() == 0:
        given = f"a tensor of shape {tuple(logits.shape)}"
        raise BadArgument(name, given, wanted="at least one token, (..., V)", todo=todo)
    if values:
        _check_values(name, logits)


def _check_floats(name: str, tensor: torch.Tensor, wanted: str, todo: str) -> None:
    """An ordinary tensor of floating-point numbers, on a device that holds them."""
    if not isinstance(tensor, torch.Tensor):
        kind = type(tensor).__name__
        raise BadArgument(
            name, f"a {kind}", wanted="a torch.Tensor (..., V)", todo=todo
        )
    if not tensor.is_floating_point():
        given = f"a tensor of {tensor.dtype}"
        raise BadArgument(name, given, wanted=wanted, todo=todo)
    if tensor.is_meta:
        raise BadArgument(
            name,
            "on meta, a device without numbers",
            wanted="numbers to compute with",
            todo="Load the model's weights, and move it to cpu or cuda.",
        )
    if tensor.layout != torch.strided:
        given = f"a tensor of layout {tensor.layout}"
        raise BadArgument(
            name, given, wanted="a dense tensor", todo=f"Pass {name}.to_dense()."
        )


def check_features(name: str, features: torch.Tensor) -> None:
    """A floating-point tensor (..., d) with tokens, every number of it finite."""
    todo = "Pass one layer's output: hidden states with their width last."
    _check_floats(name, features, "floating-point numbers", todo)
    if features.dim() == 0 or features.numel() == 0:
        given = f"a tensor of shape {tuple(features.shape)}"
        raise BadArgument(name, given, wanted="at least one token, (..., d)", todo=todo)
    bad = ~_precise(features).isfinite()
    if bad.any():
        _raise_at(name, features, bad, "finite numbers")


def _precise(values: torch.Tensor) -> torch.Tensor:
    """The values, raised where they have 8 bits: torch can test no such number."""
    return values if values.element_size() > 1 else values.float()


def _raise_at(name: str, values: torch.Tensor, bad: torch.Tensor, wanted: str):
    where = tuple(bad.nonzero()[0].tolist())
    raise BadArgument(
        name,
        f"{values[where].item()} at {where}, and so at {int(bad.sum())} places",
        wanted=wanted,
        todo="Look for a division by zero or an overflow where they were made.",
    )


def _check_values(name: str, logits: torch.Tensor) -> None:
    logits = _precise(logits)
    bad = logits.isnan() | logits.isposinf()
    if bad.any():
        wanted = "finite numbers, or -inf for a token that cannot be said"
        _raise_at(name, logits, bad, wanted)
    silent = logits.isneginf().all(dim=-1)
    if silent.any():
        raise BadArgument(
            name,
            f"-inf everywhere at position {tuple(silent.nonzero()[0].tolist())}",
            wanted="at least one token that can be said",
            todo="Mask positions with mask=, not with logits.",
        )


def check_same(name: str, tensor: torch.Tensor, other_name: str, other: torch.Tensor):
    """Two tensors of one shape on one device."""
    if tensor.shape != other.shape:
        raise BadArgument(
            name,
            f"of shape {tuple(tensor.shape)}",
            wanted=f"{tuple(other.shape)}, as {other_name}",
            todo="Give both models the same tokens and the same vocabulary.",
        )
    check_device(name, tensor, other_name, other)


def check_device(name: str, tensor: torch.Tensor, other_name: str, other: torch.Tensor):
    """Two tensors on one device."""
    if tensor.device != other.device:
        raise BadArgument(
            name,
            f"on {tensor.device}",
            wanted=f"{other.device}, as {other_name}",
            todo=f"Move it with {name}.to({other_name}.device).",
        )


def check_integers(name: str, tensor: torch.Tensor) -> None:
    """A tensor of whole numbers: token ids."""
    whole = isinstance(tensor, torch.Tensor) and not (
        tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
    )
    if not whole:
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise BadArgument(
            name,
            f"of {kind}",
            wanted="a tensor of integer token ids",
            todo="Pass ids such as labels.long(), not scores or text.",
        )


def check_labels(labels: torch.Tensor, name: str, logits: torch.Tensor) -> None:
    """Token ids (...), -100 where there is none, of the logits (..., V) ``name``."""
    shape, size = logits.shape[:-1], logits.shape[-1]
    check_integers("labels", labels)
    check_device("labels", labels, name, logits)
    if labels.shape != shape:
        raise BadArgument(
            "labels",
            f"of shape {tuple(labels.shape)}",
            wanted=f"{tuple(shape)}: one label for each position of {name}",
            todo="Compare the logits at t with the token that stands at t.",
        )
    wrong = (labels != IGNORE) & ((labels < 0) | (labels >= size))
    if wrong.any():
        raise BadArgument(
            "labels",
            f"{int(labels[wrong][0])} at {tuple(wrong.nonzero()[0].tolist())}",
            wanted=f"ids in 0..{size - 1}, or {IGNORE} where there is no token",
            todo="Use the vocabulary that the logits are over.",
        )


def check_mask(mask: torch.Tensor, name: str, values: torch.Tensor) -> None:
    """A bool tensor (...), True for a token that counts, for values (..., d)."""
    shape, todo = values.shape[:-1], f"Make it from the labels: labels != {IGNORE}."
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        raise BadArgument(
            "mask",
            f"of {getattr(mask, 'dtype', type(mask).__name__)}",
            wanted="a bool tensor, True for a token that counts",
            todo=todo,
        )
    if mask.shape != shape:
        raise BadArgument(
            "mask",
            f"of shape {tuple(mask.shape)}",
            wanted=f"{tuple(shape)}: one value for each position of {name}",
            todo=todo,
        )
    check_device("mask", mask, name, values)


def check_share(name: str, value: float) -> None:
    """A number in 0..1."""
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise BadArgument(
            name, f"{value!r}", wanted="a number in 0..1", todo="Choose such a number."
        )


def check_positive(name: str, value: float, todo: str) -> None:
    """A finite number above 0."""
    if not is_number(value) or not 0.0 < value < float("inf"):
        raise BadArgument(
            name, f"{value!r}", wanted="a finite number above 0", todo=todo
        )


def check_temperature(temperature: float) -> None:
    """A finite number above 0."""
    todo = "Take 1 for the distribution itself, 2 to 10 to soften it."
    check_positive("temperature", temperature, todo)


def check_softening(temperature: float) -> None:
    """A temperature by whose square a loss can be multiplied, in float32 as well."""
    check_temperature(temperature)
    if not 1e-18 <= temperature <= 1e18:
        raise BadArgument(
            "temperature",
            f"{temperature!r}",
            wanted="a number in 1e-18..1e18: the loss is multiplied by its square",
            todo="Take 1 for the distribution itself, 2 to 10 to soften it.",
        )


def check_count(name: str, value: int) -> None:
    """A whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadArgument(
            name, f"{value!r}", wanted="a whole number from 1", todo="Take at least 1."
        )


def check_flag(name: str, value: bool) -> None:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        raise BadArgument(
            name, f"{value!r}", wanted="True or False", todo="Write one of the two."
        )


def check_kind(name: str, value: object, kind: type, todo: str) -> None:
    """A value of one of the package's own kinds."""
    if not isinstance(value, kind):
        own, article = (
            isinstance(value, type),
            "an" if kind.__name__[0] in "AO" else "a",
        )
        raise BadArgument(
            name,
            f"the class {value.__name__}" if own else f"a {type(value).__name__}",
            wanted=f"{article} {kind.__name__}",
            todo=todo,
        )


def check_k(k: int, size: int) -> None:
    """A number of entries that the vocabulary has."""
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= size:
        raise BadArgument(
            "k",
            f"{k!r}",
            wanted=f"a whole number in 1..{size}, the size of the vocabulary",
            todo="Keep fewer entries, or give logits of the whole vocabulary.",
        )


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise BadArgument(
            name,
            f"{value!r}",
            wanted=f"one of {', '.join(choices)}",
            todo="Check the spelling.",
        )


def is_number(value) -> bool:
    """An int or a float; True and False are not meant as numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)
