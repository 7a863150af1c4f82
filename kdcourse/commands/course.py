"""``python -m kdcourse course``: run the lessons and show what came of them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

CAPSTONE = "11"
WIDTH = 110


def add_parser(subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "course",
        help="run the lessons without a browser and show the final table",
        description="Runs copies of the lessons; the files themselves are not changed.",
    )
    parser.add_argument(
        "lessons", nargs="*", metavar="NN", help="numbers (default: all)"
    )
    parser.add_argument(
        "--mode",
        choices=["fast", "full"],
        default=os.environ.get("KDCOURSE_MODE") or "fast",
        help="fast: minutes, on a laptop; full: the real runs (default: fast)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch the corpus, run each lesson, report; 1 if a lesson failed."""
    from kdcourse.__main__ import main
    from kdcourse.study import results, runner

    runner.interrupt_on_terminate()
    started = time.monotonic()
    lessons = runner.find_lessons(runner.course_folder() / "notebooks", args.lessons)
    if main(["fetch"]):
        return 1
    with tempfile.TemporaryDirectory(prefix="kdcourse-") as folder:
        figures = Path(folder) / "results.json"
        with runner.kernel_environment(
            args.mode, KDCOURSE_RESULTS=str(figures)
        ) as environment:
            failed = run_lessons(lessons, args.mode, environment)
        if failed:
            return 1
        if any(path.name.startswith(CAPSTONE) for path in lessons):
            show(results.read_results(figures))
    taken = runner.clock(time.monotonic() - started)
    print(f"\n{len(lessons)} lessons passed in {taken} min.")
    print("Open them in JupyterLab:  make lab   (or: python -m kdcourse lab)")
    return 0


def run_lessons(lessons: list[Path], mode: str, environment: dict[str, str]) -> bool:
    """Run the lessons in turn, up to the first that fails; True if one did."""
    from kdcourse.study import pace, runner

    recorded = runner.read_timings(lessons[0].parent) if mode == "fast" else {}
    timings = {name: pace.here(seconds) for name, seconds in recorded.items()}
    expected = sum(sum(timings.get(path.stem, [])) for path in lessons)
    about = f", about {runner.clock(expected)} min" if expected else ""
    print(f"Running {len(lessons)} lessons in {mode} mode{about}.", flush=True)
    for position, path in enumerate(lessons):
        bar = runner.Bar(path.stem, timings.get(path.stem, []))
        outcome = runner.run_notebook(path, environment, show=bar.show)
        if outcome.failure:
            report(path, outcome.failure)
            for skipped in lessons[position + 1 :]:
                print(f"skipped: {skipped.stem}", file=sys.stderr)
            return True
    return False


def report(path: Path, failure) -> None:
    """Say which lesson stopped where, why, and what to do."""
    print(
        f"\nLesson {path.stem} stopped in code cell {failure.number}, which begins\n"
        f"    {failure.first_line}\n"
        f"{failure.error}\n"
        "What to do: check the set-up with `python -m kdcourse doctor`; if all is well "
        "there,\nopen the lesson (`make lab`) and run it down to that cell. "
        "If you changed the lesson,\n`git diff notebooks` shows where.",
        file=sys.stderr,
    )


def show(figures: dict) -> None:
    """Print the table and the six sentences."""
    from kdcourse.study import results

    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    print("\nWhat did distillation buy?\n")
    print(results.table(figures))
    print("\nSix sentences that none of them saw in training\n")
    print(results.samples(figures, min(WIDTH, columns)))
