"""``python -m kdcourse test``: every test, of the package and of the notebooks."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CELL_SECONDS = 300  # a cell of the capstone may train for three minutes
DEVELOPMENT = {
    "hypothesis": "hypothesis",
    "yaml": "PyYAML",
    "rattler": "py-rattler",
    "markdown_it": "markdown-it-py",
}


@dataclass(frozen=True)
class Suite:
    """One run of pytest."""

    name: str
    arguments: list[str]


def add_parser(subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "test",
        help="run all tests: unit tests, then the notebooks with nbval",
        description="Everything runs without a network, in fast mode.",
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help="unit, lessons, stubs (default: all that exist)",
    )
    parser.set_defaults(run=run)


def find_suites(folder: Path) -> list[Suite]:
    """The runs of pytest for what is there.

    Lessons and solutions are compared strictly with their committed outputs; stubs only
    have to run to their end.
    """
    nbval = ["-p", "no:cacheprovider", "--nbval-current-env"]
    nbval += ["--nbval-cell-timeout", str(CELL_SECONDS)]
    sanitiser = ["--nbval-sanitize-with", "tests/nbval_sanitise.cfg"]
    solved = [
        path.relative_to(folder).as_posix()
        for where in ("notebooks", "exercises/solutions")
        for path in sorted((folder / where).glob("*.ipynb"))
    ]
    stubs = [
        path.relative_to(folder).as_posix()
        for path in sorted((folder / "exercises").glob("*.ipynb"))
    ]
    suites = [Suite("unit", ["tests"])]
    if stubs:
        suites.append(Suite("stubs", ["--nbval-lax", *nbval, *stubs]))
    suites.append(Suite("lessons", ["--nbval", *nbval, *sanitiser, *solved]))
    return suites


def choose(suites: list[Suite], names: list[str]) -> list[Suite]:
    """The suites with these names, or all.

    Raises:
        KdcourseError: there is no suite of a name.
    """
    from kdcourse.errors import KdcourseError

    known = [suite.name for suite in suites]
    for name in names:
        if name not in known:
            raise KdcourseError(
                f"There is no suite {name!r}.",
                wanted=f"one of {', '.join(known)}",
                todo="Leave the name out to run them all.",
            )
    return [suite for suite in suites if not names or suite.name in names]


def require_tools() -> None:
    """Ask for the development packages before a test trips over their absence.

    Raises:
        KdcourseError: one of them is not installed.
    """
    from kdcourse.errors import KdcourseError

    missing = [
        name
        for module, name in DEVELOPMENT.items()
        if not importlib.util.find_spec(module)
    ]
    if missing:
        raise KdcourseError(
            f"{', '.join(missing)} is not installed.",
            wanted="the packages of requirements-dev.txt, which the tests use",
            todo='Run: python -m pip install -e ".[dev]"',
        )


def run(args: argparse.Namespace) -> int:
    """Fetch the corpus, run each suite; 1 if one of them failed."""
    from kdcourse.__main__ import main
    from kdcourse.study import runner

    runner.interrupt_on_terminate()
    require_tools()
    folder = runner.course_folder()
    suites = choose(find_suites(folder), args.suites)
    if main(["fetch"]):
        return 1
    failed = []
    with runner.kernel_environment("fast") as environment:
        for suite in suites:
            print(f"\n=== {suite.name} ===", flush=True)
            command = [sys.executable, "-m", "pytest", *suite.arguments]
            if subprocess.call(command, cwd=folder, env=environment):
                failed.append(suite.name)
    if failed:
        print(f"kdcourse test: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
