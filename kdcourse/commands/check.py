"""``python -m kdcourse check``: run exercise notebooks and report each exercise."""

from __future__ import annotations

import argparse
import glob
import json
import re
import subprocess
import tempfile
from pathlib import Path

from kdcourse.errors import KdcourseError

CELL_SECONDS = 120
NUMBERED = re.compile(r"(\d\d)_.*\.ipynb")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def add_parser(subparsers) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser(
        "check",
        help="run exercise notebooks and report what passed",
        description="Run exercise notebooks in fresh kernels and report each exercise: "
        "passed, failed with a diagnosis, or not attempted. The notebooks are not "
        "changed. Exit status 1 where something failed.",
    )
    parser.add_argument(
        "notebooks", nargs="+", metavar="NOTEBOOK", help="such as exercises/11_*.ipynb"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document on standard output"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit status 1 for exercises not attempted, too",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=CELL_SECONDS,
        help=f"the most that one cell may take (default {CELL_SECONDS})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check every notebook; 0 where nothing failed."""
    reports = [check_notebook(path, args.seconds) for path in expand(args.notebooks)]
    if args.json:
        print(json.dumps({"notebooks": reports}, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(as_text(report) for report in reports))
    statuses = {row["status"] for report in reports for row in report["exercises"]}
    failed = "failed" in statuses or any(report["errors"] for report in reports)
    return int(failed or (args.strict and "not attempted" in statuses))


def expand(patterns: list[str]) -> list[Path]:
    """The notebooks meant, also where no shell has expanded the ``*``."""
    paths = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))
        if not found:
            raise KdcourseError(
                f"There is no notebook {pattern!r}.",
                wanted="a file such as exercises/11_translation_student.ipynb",
                todo="Look at the name, and at the folder you are in.",
            )
        paths += map(Path, found)
    return list(dict.fromkeys(paths))


def check_notebook(path: Path, seconds: int = CELL_SECONDS) -> dict:
    """Run a notebook to its end and tell the status of each of its exercises.

    Its checks write what they find to a progress file of their own, which is read here:
    the learner's own progress stays as it is.
    """
    from kdcourse.study.checks import names_in_notebook

    number = NUMBERED.fullmatch(path.name)
    names = names_in_notebook(path.stem) if number else []
    if not names:
        raise KdcourseError(
            f"{path} is not an exercise notebook.",
            wanted="a name that begins with a lesson's number, such as 11_name.ipynb",
            todo="Give it its old name again: the number says what it holds.",
        )
    with tempfile.TemporaryDirectory(prefix="kdcourse-") as folder:
        log = Path(folder) / "progress.json"
        errors = _execute(path, log, seconds)
        done = (
            json.loads(log.read_text(encoding="utf-8"))["exercises"]
            if log.exists()
            else {}
        )
    rows = [_row(name, done.get(name, {})) for name in names]
    return {"notebook": path.as_posix(), "exercises": rows, "errors": errors}


def as_text(report: dict) -> str:
    """A report to be read: a line an exercise, then what went wrong."""
    lines = [report["notebook"]]
    lines += [f"  {row['status']:<14} {row['name']}" for row in report["exercises"]]
    for row in report["exercises"]:
        if row["status"] == "failed":
            lines += ["", *(f"  {line}" for line in row["message"].splitlines())]
    for error in report["errors"]:
        lines += ["", f"  Cell {error['cell'] or '?'} stopped: {error['error']}"]
    return "\n".join(lines)


def _row(name: str, entry: dict) -> dict:
    row = {"name": name, "status": entry.get("status", "not attempted")}
    return row | {key: entry.get(key, "") for key in ("diagnosis", "message")}


def _execute(path: Path, log: Path, seconds: int) -> list[dict]:
    """Run all cells, errors or not; what stopped a cell, other than a failed check."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError
    from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

    from kdcourse.study import runner

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as problem:  # nbformat raises many kinds for a damaged file
        raise KdcourseError(
            f"{path} cannot be read: {str(problem).splitlines()[0]}",
            wanted="a Jupyter notebook",
            todo="Open it in JupyterLab and save it, or take a fresh copy.",
        ) from None
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME,
            kernel_spec_manager=NbvalKernelspecManager(),
        ),
        timeout=seconds,
        interrupt_on_timeout=True,  # an endless loop is the fault of one cell alone
        allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with runner.kernel_environment("fast", KDCOURSE_PROGRESS=str(log)) as environment:
        try:
            client.execute(env=environment, cleanup_kc=True, stderr=subprocess.DEVNULL)
        except DeadKernelError:
            error = "the kernel died; was there too little memory?"
            return [*_errors(notebook, seconds), {"cell": None, "error": error}]
    return _errors(notebook, seconds)


def _errors(notebook, seconds: int) -> list[dict]:
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type != "error":
                continue
            if output.ename in ("CheckFailed", "NotAttempted"):
                continue  # these are exercises, and reported as such
            text = ANSI.sub("", f"{output.ename}: {output.evalue}")
            if output.ename == "KeyboardInterrupt":
                text = f"it took over {seconds} seconds; does a loop never end?"
            found.append({"cell": number, "error": text})
    return found
