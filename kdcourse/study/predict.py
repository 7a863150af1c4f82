"""Guess before you look: a prediction is stored, and scored at the reveal.

>>> predict("11.a", "How many times faster is the student?", guess=...)
>>> reveal("11.a", 37, shown="about 37 times")

``guess=...`` is the blank that the learner fills in. With no guess the reveal tells
the truth and nothing else, so that a headless run prints the same text every time.
"""

from __future__ import annotations

from kdcourse.errors import KdcourseError

from . import progress
from .show import show_text

_guesses: dict[str, object] = {}
_options: dict[str, dict[str, str]] = {}


def predict(
    name: str,
    question: str,
    *,
    options: dict[str, str] | None = None,
    guess: object = ...,
) -> None:
    """Show the question and keep the learner's guess, where there is one.

    With ``options`` (letter to text) the guess is a letter, otherwise a number.

    Raises:
        KdcourseError: for a guess that is neither.
    """
    _guesses.pop(name, None)
    _options[name] = options or {}
    if guess is ... or guess is None:
        blank = "a letter" if options else "a number"
        state = f"put {blank} for `...` in this cell and run it again."
    else:
        _guesses[name] = _checked(name, guess, options)
        progress.record("predictions", name, guess=_guesses[name])
        state = f"{_guesses[name]}. Kept for the reveal."
    rows = "\n".join(f"- **{key}.** {text}" for key, text in _options[name].items())
    parts = [f"**Predict {name}.** {question}", rows, f"*Your guess:* {state}"]
    plain_rows = "\n".join(f"  {key}. {text}" for key, text in _options[name].items())
    state = state.replace("`", "")
    plain = [f"Predict {name}. {question}", plain_rows, f"Your guess: {state}"]
    show_text("\n\n".join(filter(None, parts)), "\n".join(filter(None, plain)))


def reveal(
    name: str,
    actual: float | str,
    *,
    shown: str | None = None,
    within: float = 0.25,
) -> None:
    """Say what is true and score the stored guess against it.

    ``shown`` is the text for ``actual``: round it to what is the same on every
    machine. A number counts as right within the share ``within`` of the truth.
    """
    truth = str(actual) if shown is None else shown
    if shown is None and actual in _options.get(name, {}):
        truth = f"{actual}, {_options[name][actual].rstrip('.')}"
    guess = _guesses.get(
        name, progress.load()["predictions"].get(name, {}).get("guess")
    )
    if guess is None:
        text = f"Predict {name}: you made no guess. The answer: {truth}."
    elif isinstance(actual, str) or isinstance(guess, str):
        right = str(guess).upper() == str(actual).upper()
        score = "right" if right else "not so"
        text = f"Predict {name}: you guessed {guess}: {score}. The answer: {truth}."
        progress.record("predictions", name, right=right)
    else:
        right = abs(guess - actual) <= within * abs(actual)
        text = (
            f"Predict {name}: you guessed {guess:g}: "
            f"{_distance(guess, actual, right)}. The answer: {truth}."
        )
        progress.record("predictions", name, right=right)
    show_text(text)


def _distance(guess: float, actual: float, right: bool) -> str:
    if right:
        return "close enough"
    if guess * actual > 0:
        ratio = max(guess / actual, actual / guess)
        if ratio >= 2:
            return (
                f"{ratio:.0f} times too {'high' if abs(guess) > abs(actual) else 'low'}"
            )
    return "too high" if guess > actual else "too low"


def _checked(name: str, guess: object, options: dict[str, str] | None) -> object:
    if options:
        letter = str(guess).strip().upper()
        if letter in options:
            return letter
        wanted, example = f"one of {', '.join(options)}", f'"{next(iter(options))}"'
    else:
        if isinstance(guess, int | float) and not isinstance(guess, bool):
            return guess
        wanted, example = "a number", "10"
    raise KdcourseError(
        f"{guess!r} cannot be the guess of {name}.",
        wanted=wanted,
        todo=f"For instance guess={example}.",
    )
