"""The engine of the exercise checks: passed, failed with a diagnosis, not attempted.

An exercise knows its misconceptions: wrong solutions that learners really write, each
with a diagnosis of its own. A function that fails is compared with every one of them;
where it agrees with one on *all* cases, that is what went wrong.
"""

from __future__ import annotations

import copy
import dis
import inspect
import json
import linecache
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from kdcourse.errors import KdcourseError
from kdcourse.study import progress

from .comparison import brief, difference, same

PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"


class CheckFailed(AssertionError):
    """The check's message; an AssertionError, so that graders understand it."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]  # a notebook shows the diagnosis, not the engine's insides


class NotAttempted(CheckFailed):
    """Raised for a blank exercise by ``check(function, required=True)`` alone."""


@dataclass(frozen=True)
class Case:
    """One call: a name for the learner, and the arguments by name, in order."""

    name: str
    arguments: dict[str, Any]


class Misconception:
    """A mistake with a name, a diagnosis, and one or more ways to make it."""

    def __init__(self, key: str, diagnosis: str, *functions: Callable):
        self.key, self.diagnosis, self.functions = key, diagnosis, functions


@dataclass(frozen=True)
class Outcome:
    """What a check found; ``diagnosis`` is a key, empty unless the check failed."""

    name: str
    status: str
    message: str
    diagnosis: str = ""


@dataclass(frozen=True)
class _Seen:
    """What one call did: a value, or an error, or a changed argument."""

    value: Any = None
    error: Exception | None = None
    changed: str = ""


@dataclass(frozen=True)
class Exercise:
    """One function for the learner to write, with all that is needed to check it.

    ``observe(function, arguments)`` makes the call and returns what is compared; the
    default is the function's result. ``reference`` and each misconception are
    observed in the same way.
    """

    name: str
    call: str
    reference: Callable
    cases: Callable[[], list[Case]]
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, ...]
    difficulty: int
    minutes: int
    observe: Callable[[Callable, tuple], Any] = lambda function, arguments: function(
        *arguments
    )

    def check(self, function: Callable, *, required: bool = False) -> None:
        """Print that the function passed, or raise CheckFailed with a diagnosis.

        A blank exercise is *not attempted*: that is said, and is no failure, unless
        ``required`` (for graders) asks for it: then NotAttempted is raised.
        """
        outcome = self.evaluate(function)
        _record(outcome)
        if outcome.status == FAILED:
            raise CheckFailed(outcome.message)
        if outcome.status == NOT_ATTEMPTED and required:
            raise NotAttempted(outcome.message)
        print(outcome.message)

    def hint(self, number: int = 1) -> None:
        """Print a hint; each next number says more."""
        if number not in range(1, len(self.hints) + 1):
            raise KdcourseError(
                f"{self.name} has no hint {number}.",
                wanted=f"a number from 1 to {len(self.hints)}",
                todo=f"Begin with {self.name}.hint().",
            )
        more = (
            f" (next: {self.name}.hint({number + 1}))"
            if number < len(self.hints)
            else ""
        )
        print(f"Hint {number} of {len(self.hints)}: {self.hints[number - 1]}{more}")

    def solution(self) -> None:
        """Print one good solution. Yours may look different and be as right."""
        print(solutions()[self.name])

    def evaluate(self, function: Callable) -> Outcome:
        """Check without printing, recording or raising."""
        if problem := self._not_callable(function):
            return self._failed("not a function", problem)
        if is_blank(function):
            return self._not_attempted()
        cases = self.cases()
        if problem := self._wrong_signature(function, cases[0]):
            return self._failed("signature", problem)
        seen = [self._watch(function, case) for case in cases]
        if any(s.value is ... or _says_not_implemented(s, function) for s in seen):
            return self._not_attempted()
        wanted = [self._watch(self.reference, case) for case in cases]
        wrong = [
            i
            for i, (w, s) in enumerate(zip(wanted, seen, strict=True))
            if not _agree(w, s)
        ]
        if not wrong:
            count = f"all {len(cases)} cases" if len(cases) > 1 else "its one case"
            return Outcome(self.name, PASSED, f"{self.name}: passed ({count}).")
        return self._diagnose(function, cases, wanted, seen, wrong)

    def _diagnose(self, function, cases, wanted, seen, wrong: list[int]) -> Outcome:
        changed = [i for i in wrong if seen[i].changed]
        first = (changed or wrong)[0]
        case, got = cases[first], seen[first]
        rows = list(zip(cases, wanted, seen, strict=True))
        found = None if changed else self._misconception(rows)
        gap = None
        if changed:
            key, text = "mutation", _mutation_text(got.changed)
        elif got.error is not None:
            key, text = "raised", _error_text(got.error, function)
        else:
            gap = difference(wanted[first].value, got.value)
            key, text = gap.kind, gap.text
        if found:
            key, text = found.key, found.diagnosis
        text = "\n".join(textwrap.fill(line, 88) for line in text.split("\n"))
        lines = [text, _given(case)]
        if gap:
            lines += [f"Wanted: {gap.wanted}", f"Got:    {gap.got}"]
        return self._failed(key, "\n".join(lines), case.name)

    def _misconception(
        self, rows: list[tuple[Case, _Seen, _Seen]]
    ) -> Misconception | None:
        """The known mistake that does the same on all cases.

        If there is none, the one that does the same wherever a value came back:
        whoever also forgot to guard a division still hears of the greater mistake.
        """
        valued = [row for row in rows if row[2].error is None]
        return self._known(rows) or self._known(valued)

    def _known(self, rows: list[tuple[Case, _Seen, _Seen]]) -> Misconception | None:
        if all(_agree(wanted, got) for _, wanted, got in rows):
            return None  # what is wrong does not show here
        for misconception in self.misconceptions:
            for function in misconception.functions:
                if all(_agree(self._watch(function, c), got) for c, _, got in rows):
                    return misconception
        return None

    def _watch(self, function: Callable, case: Case) -> _Seen:
        arguments = copy.deepcopy(case.arguments)
        try:
            value = self.observe(function, tuple(arguments.values()))
        except Exception as error:  # whatever a learner's function may raise
            return _Seen(error=error)
        changed = [n for n, v in case.arguments.items() if not same(v, arguments[n])]
        return _Seen(value, changed=changed[0] if changed else "")

    def _not_callable(self, function: object) -> str:
        if callable(function):
            return ""
        short = self.name.partition(".")[2]
        return (
            f"The check was given {brief(function)}, not a function. "
            "Give it the function itself, without brackets: "
            f"{self.name}.check({short})."
        )

    def _wrong_signature(self, function: Callable, case: Case) -> str:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return ""  # some built-in functions have none; let the call decide
        try:
            signature.bind(*case.arguments.values())
        except TypeError:
            return f"Your function takes {signature}; it is called as {self.call}."
        return ""

    def _not_attempted(self) -> Outcome:
        message = (
            f"{self.name}: not attempted. Write your code in place of the three dots; "
            f"{self.name}.hint() helps."
        )
        return Outcome(self.name, NOT_ATTEMPTED, message)

    def _failed(self, key: str, text: str, case: str = "") -> Outcome:
        where = f' on the case "{case}"' if case else ""
        message = (
            f"{self.name}: not yet right{where}.\n{text}\nHelp:   {self.name}.hint()"
        )
        return Outcome(self.name, FAILED, message, key)


def is_blank(function: Callable) -> bool:
    """True for a function whose body is empty: three dots, ``pass``, a docstring."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return False
    dull = {"RESUME", "NOP", "CACHE", "RETURN_VALUE", "RETURN_CONST", "LOAD_CONST"}
    return all(
        i.opname in dull
        and (i.opname not in ("LOAD_CONST", "RETURN_CONST") or i.argval is None)
        for i in dis.get_instructions(code)
    )


def _says_not_implemented(seen: _Seen, function: Callable) -> bool:
    """The function itself says so; torch raises the same error for its own reasons."""
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    return isinstance(seen.error, NotImplementedError) and (
        "NotImplementedError" in names
    )


@cache
def notebook_solutions() -> dict[str, dict[str, str]]:
    """The solutions of each exercise notebook, such as 11_topic, by their names."""
    return json.loads((files(__package__) / "solutions.json").read_text("utf-8"))


def solutions() -> dict[str, str]:
    """One solution for each exercise, by its name, such as ex11.verdict."""
    return {
        n: code for found in notebook_solutions().values() for n, code in found.items()
    }


def _agree(wanted: _Seen, got: _Seen) -> bool:
    if got.changed:
        return (
            wanted.changed == got.changed
            and difference(wanted.value, got.value) is None
        )
    if wanted.error is not None or got.error is not None:
        return type(wanted.error) is type(got.error)
    return difference(wanted.value, got.value) is None


def _mutation_text(argument: str) -> str:
    return (
        f"Your function changed its argument {argument}. The caller still needs it: "
        "work on a copy (x.clone() for a tensor, list(x) or dict(x) for a collection)."
    )


def _error_text(error: Exception, function: Callable) -> str:
    """The learner's own line where an error arose, without the engine around it."""
    message = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)).strip().split("\n")[0]
    text = f"Your function raised {type(error).__name__}" + (
        f": {message}" if message else ""
    )
    code = getattr(function, "__code__", None)
    place, trace = None, error.__traceback__
    while code is not None and trace is not None:
        if trace.tb_frame.f_code.co_filename == code.co_filename:
            place = trace
        trace = trace.tb_next
    line = linecache.getline(code.co_filename, place.tb_lineno).strip() if place else ""
    return f"{text}\nLine:   {line}" if line else text


def _given(case: Case) -> str:
    lines = [f"{name} = {brief(value)}" for name, value in case.arguments.items()]
    return "Given:  " + "\n        ".join(lines)


def _record(outcome: Outcome) -> None:
    def merge(data: dict) -> None:
        entry = data["exercises"].setdefault(
            outcome.name, {"status": NOT_ATTEMPTED, "tries": 0}
        )
        if outcome.status != NOT_ATTEMPTED:  # a fresh stub takes nothing back
            entry.update(
                status=outcome.status,
                diagnosis=outcome.diagnosis,
                message=outcome.message,
            )
            entry["tries"] = entry.get("tries", 0) + 1

    progress.update(merge)
