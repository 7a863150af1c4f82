"""Where does a learner's result differ from the right one, and how to say it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RELATIVE, ABSOLUTE = 1e-4, 1e-7  # float32 computed in another order still agrees
LONGEST = 300  # characters of a value in a message


@dataclass(frozen=True)
class Difference:
    """The first difference found: its kind, what it means, and both sides."""

    kind: str  # "type", "length", "keys", "shape", "dtype", "device", "NaN", "value"
    text: str
    wanted: str
    got: str


def difference(wanted: Any, got: Any, where: str = "") -> Difference | None:
    """The first place in which ``got`` is not what is ``wanted``, or None."""
    if is_tensor(wanted):
        return _of_tensors(wanted, got, where)
    if isinstance(wanted, bool | str) or wanted is None:
        return _of_plain(wanted, got, where)
    if isinstance(wanted, int | float):
        return _of_numbers(wanted, got, where)
    if isinstance(wanted, dict):
        return _of_dicts(wanted, got, where)
    if isinstance(wanted, list | tuple):
        return _of_lists(wanted, got, where)
    return (
        None
        if wanted == got
        else _gap("value", "is not the right one", wanted, got, where)
    )


def same(before: Any, after: Any) -> bool:
    """True where nothing at all changed, NaN and types included."""
    if is_tensor(before):
        import torch

        return (
            is_tensor(after)
            and before.shape == after.shape
            and before.dtype == after.dtype
            and torch.equal(before.nan_to_num(), after.nan_to_num())
        )
    if isinstance(before, dict):
        return list(before) == list(after) and all(
            same(v, after[k]) for k, v in before.items()
        )
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(same, before, after))
    return before is after or before == after


def brief(value: Any) -> str:
    """A value for a message: the same text every time, never long."""
    if is_tensor(value):
        text = _brief_tensor(value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{k!r}: {brief(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(map(brief, value)) + "]"
    elif isinstance(value, tuple):
        text = (
            "(" + ", ".join(map(brief, value)) + ("," if len(value) == 1 else "") + ")"
        )
    elif callable(value):
        text = f"the function {getattr(value, '__name__', type(value).__name__)}"
    elif type(value).__repr__ is object.__repr__:  # it would print an address
        text = f"a {type(value).__name__}"
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def is_tensor(value: Any) -> bool:
    """True for a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _gap(kind: str, text: str, wanted: Any, got: Any, where: str) -> Difference:
    label = f"{where} = " if where else ""
    subject = f"{where[0].upper()}{where[1:]}" if where else "Your result"
    return Difference(
        kind, f"{subject} {text}.", f"{label}{brief(wanted)}", f"{label}{brief(got)}"
    )


def _of_plain(wanted: Any, got: Any, where: str) -> Difference | None:
    if type(wanted) is not type(got):
        return _gap("type", _is_a(got, wanted), wanted, got, where)
    return (
        None
        if wanted == got
        else _gap("value", "is not the right one", wanted, got, where)
    )


def _of_numbers(wanted: float, got: Any, where: str) -> Difference | None:
    number = _as_number(got)
    if number is None:
        return _gap("type", _is_a(got, wanted), wanted, got, where)
    if math.isnan(number) != math.isnan(wanted):
        return _gap("NaN", "is NaN: not a number", wanted, got, where)
    if math.isnan(wanted) or math.isclose(
        wanted, number, rel_tol=RELATIVE, abs_tol=ABSOLUTE
    ):
        return None
    return _gap("value", "is not the right number", wanted, got, where)


def _as_number(value: Any) -> float | None:
    """Python, NumPy or one-element tensor: all are numbers; bool and text are not."""
    if isinstance(value, bool | str | bytes) or value is None:
        return None
    try:
        return float(value.detach() if is_tensor(value) else value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _of_dicts(wanted: dict, got: Any, where: str) -> Difference | None:
    if not isinstance(got, dict):
        return _gap("type", _is_a(got, wanted), wanted, got, where)
    missing = [k for k in wanted if k not in got]
    extra = [k for k in got if k not in wanted]
    if missing:
        return _gap("keys", f"lacks the entry {missing[0]!r}", wanted, got, where)
    if extra:
        return _gap("keys", f"has an entry {extra[0]!r} too many", wanted, got, where)
    return _first(
        difference(v, got[k], _inside(where, str(k))) for k, v in wanted.items()
    )


def _of_lists(wanted: list | tuple, got: Any, where: str) -> Difference | None:
    if isinstance(got, Iterator):
        return _gap("type", "is a generator; wrap it in list(...)", wanted, got, where)
    if not isinstance(got, list | tuple):
        return _gap("type", _is_a(got, wanted), wanted, got, where)
    if len(wanted) != len(got):
        text = f"has {len(got)} entries where {len(wanted)} are wanted"
        return _gap("length", text, wanted, got, where)
    pairs = zip(wanted, got, strict=True)
    return _first(
        difference(w, g, _inside(where, f"entry {i}")) for i, (w, g) in enumerate(pairs)
    )


def _of_tensors(wanted: Any, got: Any, where: str) -> Difference | None:
    import torch

    if not is_tensor(got):
        text = f"{_is_a(got, wanted)} (no .item(), .numpy() or .tolist())"
        return _gap("type", text, wanted, got, where)
    if wanted.shape != got.shape:
        text = f"has shape {tuple(got.shape)} where {tuple(wanted.shape)} is wanted"
        return _gap("shape", text, wanted, got, where)
    if wanted.device != got.device:
        text = (
            f"stands on device {got.device}; keep it on {wanted.device}, with its input"
        )
        return _gap("device", text, wanted, got, where)
    if wanted.dtype != got.dtype:
        text = f"has dtype {_dtype(got)} where {_dtype(wanted)} is wanted"
        return _gap("dtype", text, wanted, got, where)
    if bool((got.isnan() & ~wanted.isnan()).any()):
        return _gap("NaN", "holds NaN: not a number", wanted, got, where)
    if torch.allclose(wanted, got, rtol=RELATIVE, atol=1e-6, equal_nan=True):
        return None
    return _gap("value", "is not the right one", wanted, got, where)


def _first(found: Iterator[Difference | None]) -> Difference | None:
    return next((gap for gap in found if gap), None)


def _inside(where: str, part: str) -> str:
    return f"{where}, {part}" if where else part


def _is_a(got: Any, wanted: Any) -> str:
    if got is None:
        return f"is None (was return forgotten?); a {_kind(wanted)} is wanted"
    article = "an" if _kind(got)[0] in "aeiou" else "a"
    return f"is {article} {_kind(got)}; a {_kind(wanted)} is wanted"


def _kind(value: Any) -> str:
    names = {str: "text", dict: "dictionary", int: "number", float: "number"}
    if is_tensor(value):
        return "tensor"
    return "None" if value is None else names.get(type(value), type(value).__name__)


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _brief_tensor(tensor: Any) -> str:
    shape = f"tensor {tuple(tensor.shape)} {_dtype(tensor)}"
    if tensor.device.type == "meta" or tensor.numel() > 24:
        return shape
    values = tensor.detach().tolist()
    if tensor.dim() == 0:
        return brief(values)
    return f"{shape} {brief(values)}"
