"""Guess before you look: a prediction is stored, and scored at the reveal.

>>> predict("11.a", "How many times faster is the student?", guess=...)
>>> reveal("11.a", 37, shown="about 37 times")

``guess=...`` is the blank that the learner fills in. With no guess the reveal tells
the truth and nothing else, so that a headless run prints the same text every time.

Who adds ``sure=0.8`` says how sure they are, and can see with ``calibration()`` how
well they know what they know. What counts is the guess at its first reveal: the answer
is known afterwards.
"""

from __future__ import annotations

from kdcourse.errors import KdcourseError

from . import progress
from .figures import calibration as figure
from .show import show_text

HOW = "`sure=0.8` in the same cell says how sure you are; see `calibration()`."
_guesses: dict[str, object] = {}
_sureness: dict[str, float] = {}
_options: dict[str, dict[str, str]] = {}


def predict(
    name: str,
    question: str,
    *,
    options: dict[str, str] | None = None,
    guess: object = ...,
    sure: object = ...,
) -> None:
    """Show the question and keep the learner's guess, where there is one.

    With ``options`` (letter to text) the guess is a letter, otherwise a number.
    ``sure`` is the learner's probability that it will be counted as right: a share up
    to 1, such as 0.8, or above 1 a per cent, such as 80. It may be left out.

    Raises:
        KdcourseError: for a guess that is neither, or a sureness outside 0 to 100 %.
    """
    _guesses.pop(name, None)
    _sureness.pop(name, None)
    _options[name] = options or {}
    if guess is ... or guess is None:
        blank = "a letter" if options else "a number"
        state = f"put {blank} for `...` in this cell and run it again."
    else:
        kept, share = _checked(name, guess, options), _share(name, sure)
        _guesses[name] = kept
        if share is None:
            state = f"{kept}. Kept for the reveal. {HOW}"
        else:
            _sureness[name] = share
            state = f"{kept}, {100 * share:.0f} % sure. Kept for the reveal."
        progress.update(lambda data: _keep(data, name, kept, share))
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
    kept = progress.load()["predictions"].get(name, {})
    guess = _guesses.get(name, kept.get("guess"))
    sure = _sureness.get(name) if name in _guesses else _sound(kept.get("sure"))
    if guess is None:
        show_text(f"Predict {name}: you made no guess. The answer: {truth}.")
        return
    if isinstance(actual, str) or isinstance(guess, str):
        right = str(guess).upper() == str(actual).upper()
        said, verdict = str(guess), "right" if right else "not so"
    else:
        right = abs(guess - actual) <= within * abs(actual)
        said, verdict = f"{guess:g}", _distance(guess, actual, right)
    text = f"Predict {name}: you guessed {said}: {verdict}. The answer: {truth}."
    facts = {"right": right}
    if sure is not None:
        text += f" {_brier_of(sure, right)}"
        if "scored" not in kept:
            facts["scored"] = {"sure": sure, "right": right}
    progress.record("predictions", name, **facts)
    show_text(text)


def answers() -> list[figure.Answer]:
    """The revealed guesses with a sureness, by name; damaged ones are left out."""
    found = []
    for _, entry in sorted(progress.load()["predictions"].items()):
        scored = entry.get("scored")
        if isinstance(scored, dict) and isinstance(scored.get("right"), bool):
            sure = _sound(scored.get("sure"))
            if sure is not None:
                found.append(figure.Answer(sure, scored["right"]))
    return found


def calibration() -> None:
    """Show how often the learner was right against how sure they were.

    A point for each group of sureness, with its count and its 95 per cent (Wilson)
    interval, then the Brier score explained. With few predictions it says so, with
    none what to do.
    """
    from . import plots

    made = answers()
    if not made:
        show_text(NOTHING, NOTHING.replace("`", ""))
        return
    plots.show(figure.draw(made), figure.in_words(made))
    show_text(figure.score(made))


NOTHING = (
    "There is nothing to draw yet: no prediction with a sureness has been revealed. "
    'In a predict cell, add it to your guess, such as `guess="B", sure=0.8`.'
)


def _keep(data: dict, name: str, guess: object, sure: float | None) -> None:
    """Enter a guess; without a sureness that of an earlier guess is taken back."""
    entry = data["predictions"].setdefault(name, {})
    entry.update(guess=guess, sure=sure)
    if sure is None:
        del entry["sure"]


def _brier_of(sure: float, right: bool) -> str:
    return (
        f"You were {100 * sure:.0f} % sure: Brier score {(sure - right) ** 2:.2f} "
        "(0 is best, 1 is worst)."
    )


def _sound(sure: object) -> float | None:
    """A sureness from the progress file, where it is one."""
    number = isinstance(sure, int | float) and not isinstance(sure, bool)
    return float(sure) if number and 0 <= sure <= 1 else None


def _share(name: str, sure: object) -> float | None:
    """The sureness as a share; None where it was left out."""
    if sure is ... or sure is None:
        return None
    if isinstance(sure, int | float) and not isinstance(sure, bool):
        if 0 <= sure <= 1:
            return float(sure)
        if 1 < sure <= 100:
            return sure / 100
    raise KdcourseError(
        f"{sure!r} cannot be the sureness of {name}.",
        wanted="a share from 0 to 1, or a per cent above 1 and up to 100",
        todo="For instance sure=0.8, or sure=80.",
    )


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
