"""``python -m kdcourse progress``: the learner's map."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kdcourse.errors import KdcourseError

MARKS = {"passed": "[x]", "failed": "[!]", "not attempted": "[ ]"}


def add_parser(subparsers) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser(
        "progress",
        help="draw your map: passed, failing, untouched, what next",
        description="Draw your map: which exercises passed, are failing or untouched, "
        "how the quizzes stand, and what to do next.",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument(
        "--calibration",
        nargs="?",
        const="",
        metavar="PNG",
        help="how right your predictions were against how sure you were; with the name "
        "of a PNG file also as a picture",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the map, or how well the learner knows what they know."""
    if args.calibration is not None:
        return show_calibration(args.calibration, args.json)
    lessons = survey()
    if args.json:
        print(json.dumps({"lessons": lessons}, indent=1, ensure_ascii=False))
    else:
        print(draw(lessons))
    return 0


def survey() -> list[dict]:
    """Each lesson with the status of its exercises and of its quiz questions."""
    from kdcourse.study import progress, quizzes
    from kdcourse.study.checks import exercise_names

    data = progress.load()
    numbers = {name[2:4] for name in exercise_names()} | {*quizzes.lessons_with_quiz()}
    lessons = []
    for number in sorted(numbers):
        items = (
            quizzes.items_of(number) if number in quizzes.lessons_with_quiz() else ()
        )
        quiz = {i.id: data["quizzes"].get(i.id, {}).get("right") for i in items}
        exercises = {
            name: data["exercises"].get(name, {}).get("status", "not attempted")
            for name in exercise_names(number)
        }
        diagnoses = {
            name: data["exercises"][name].get("diagnosis", "")
            for name, status in exercises.items()
            if status == "failed"
        }
        lessons.append(
            {
                "lesson": number,
                "exercises": exercises,
                "diagnoses": diagnoses,
                "quiz": quiz,
            }
        )
    return lessons


def draw(lessons: list[dict]) -> str:
    """The map as text: a line a lesson, what is failing, what comes next."""
    key = ", ".join(f"{mark} {status}" for status, mark in MARKS.items())
    width = max(3 * len(lesson["exercises"]) for lesson in lessons)
    lines = [f"Your map: {key}", ""]
    for lesson in lessons:
        marks = "".join(MARKS[status] for status in lesson["exercises"].values())
        right = sum(answer is True for answer in lesson["quiz"].values())
        lines.append(
            f"  lesson {lesson['lesson']}  exercises {marks:<{width}}  "
            f"quiz {right} of {len(lesson['quiz'])}"
        )
    for lesson in lessons:
        lines += [
            f"\nFailing: {name} ({why})" for name, why in lesson["diagnoses"].items()
        ]
    return "\n".join([*lines, "", f"Next: {next_step(lessons)}"])


def next_step(lessons: list[dict]) -> str:
    """One thing to do: mend what fails, else go on with what is open."""
    for wanted in ("failed", "not attempted"):
        for lesson in lessons:
            for name, status in lesson["exercises"].items():
                if status == wanted:
                    verb = "mend" if wanted == "failed" else "try"
                    return f"{verb} {name} in exercises/{lesson['lesson']}_*.ipynb"
    for lesson in lessons:
        for item, answer in lesson["quiz"].items():
            if answer is not True:
                return f'answer question {item}: quiz("{item}")'
    return "nothing is left. Well done: show somebody your student."


def show_calibration(picture: str, as_json: bool) -> int:
    """Print sureness against success as a plot in text, or as JSON.

    Raises:
        KdcourseError: the picture has another ending than .png, or cannot be written.
    """
    from kdcourse.study import predict
    from kdcourse.study.figures import calibration

    if picture and not picture.lower().endswith(".png"):
        raise KdcourseError(
            f"The picture was to be called {picture!r}.",
            wanted="a name that ends in .png",
            todo="For instance: python -m kdcourse progress --calibration mine.png",
        )
    answers = predict.answers()
    if as_json:
        print(json.dumps(calibration.as_data(answers), indent=1, ensure_ascii=False))
    elif not answers:
        print(predict.NOTHING.replace("`", ""))
    else:
        many = "1 prediction" if len(answers) == 1 else f"{len(answers)} predictions"
        print(f"How sure, how right: {many}\n\n{calibration.text_plot(answers)}\n")
        print(f"{calibration.verdict(answers)}\n{calibration.score(answers)}")
    if picture and answers:
        write_picture(calibration.draw(answers), Path(picture), as_json)
    return 0


def write_picture(fig, path: Path, quiet: bool) -> None:
    """Write the figure where the learner wants it, and say so."""
    try:
        fig.savefig(path, format="png", dpi=120, metadata={"Software": None})
    except OSError as problem:
        raise KdcourseError(
            f"{path} could not be written ({problem.strerror}).",
            wanted="a file in a folder that exists and that you may write to",
            todo="Name another place.",
        ) from problem
    if not quiet:
        print(f"The same as a picture: {path}")
