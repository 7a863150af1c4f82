"""Make the exercise notebooks from their one source.

    python tools/build_exercises.py            write everything
    python tools/build_exercises.py 11         only the notebooks that begin so
    python tools/build_exercises.py --check    write nothing; fail where a file differs

From each ``exercises/src/exNN_topic.py`` (py:percent) come three things: the stub
``exercises/NN_topic.ipynb``, the solved and run ``exercises/solutions/NN_topic.ipynb``,
and the solutions' text in ``kdcourse/study/checks/solutions.json``, which
``ex11.verdict.solution()`` prints wherever the package is installed.

In a source, lines between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` become three
dots in the stub; a cell tagged ``solution`` stands in the solved notebook alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat

from kdcourse.study import runner

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "exercises" / "src"
SOLUTIONS_JSON = ROOT / "kdcourse" / "study" / "checks" / "solutions.json"
REGION = re.compile(
    r"^(?P<indent> *)### BEGIN SOLUTION\n(?P<body>.*?)^ *### END SOLUTION\n",
    re.MULTILINE | re.DOTALL,
)
MARKER = re.compile(r"^ *### (?:BEGIN|END) SOLUTION\n", re.MULTILINE)
DEFINED = re.compile(r"^def (\w+)", re.MULTILINE)
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or with ``--check`` compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 11: only these notebooks")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    given = parser.parse_args(arguments)
    checking = given.check
    solutions = as_json(all_solutions())
    # The solved notebooks print what solutions.json says, so it comes first.
    stale = settle({SOLUTIONS_JSON: solutions}, checking)
    stale += settle(notebooks(given.names), checking)
    for path in stale:
        print(f"{'differs' if checking else 'written'}: {path.relative_to(ROOT)}")
    if checking and stale:
        print("Run: python tools/build_exercises.py", file=sys.stderr)
    return 1 if checking and stale else 0


def settle(texts: dict[Path, str], checking: bool) -> list[Path]:
    """The files that differ from their text; they are written unless ``checking``."""
    stale = [p for p, text in texts.items() if not p.is_file() or read(p) != text]
    if not checking:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8", newline="\n")
    return stale


def notebooks(names: list[str]) -> dict[Path, str]:
    """Each stub and each solved, executed notebook as text: all, or those so named."""
    texts = {}
    for source in sources():
        name = notebook_name(source)
        if names and not name.startswith(tuple(names)):
            continue
        texts[ROOT / "exercises" / name] = as_text(stub(source))
        texts[ROOT / "exercises" / "solutions" / name] = as_text(
            execute(solved(source))
        )
    return texts


def sources() -> list[Path]:
    """The sources in the course's order."""
    return sorted(SOURCES.glob("ex[0-9][0-9]_*.py"))


def notebook_name(source: Path) -> str:
    """``ex11_topic.py`` makes ``11_topic.ipynb``."""
    return f"{source.stem.removeprefix('ex')}.ipynb"


def stub(source: Path) -> nbformat.NotebookNode:
    """The learner's notebook: three dots for each solution, nothing run."""
    notebook = cells_of(source, leave_out="solution")
    for cell in notebook.cells:
        cell.source = without_solution(cell.source)
    return notebook


def solved(source: Path) -> nbformat.NotebookNode:
    """The solved notebook, before it is run."""
    notebook = cells_of(source, leave_out="stub")
    for cell in notebook.cells:
        cell.source = MARKER.sub("", cell.source)
    return notebook


def without_solution(code: str) -> str:
    """The code with three dots for each region."""
    return REGION.sub(lambda found: f"{found['indent']}...  # your code\n", code)


def all_solutions() -> dict[str, dict[str, str]]:
    """The solutions of each notebook: ``{"11_topic": {"ex11.verdict": "def …"}}``."""
    return {Path(notebook_name(s)).stem: solutions_of(s) for s in sources()}


def solutions_of(source: Path) -> dict[str, str]:
    """Each exercise's function as the source has it, in the source's order."""
    found = {}
    for cell in cells_of(source, leave_out="stub").cells:
        if REGION.search(cell.source):
            name = DEFINED.search(cell.source)[1]
            code = MARKER.sub("", cell.source[: last_region_end(cell.source)])
            found[f"{source.stem[:4]}.{name}"] = code.strip()
    return found


def last_region_end(code: str) -> int:
    """Where the solution ends: the call of the check below it does not belong to it."""
    return max(found.end() for found in REGION.finditer(code))


def cells_of(source: Path, leave_out: str) -> nbformat.NotebookNode:
    """The source's cells, without those of one tag, with ids that never change."""
    parsed = jupytext.reads(read(source), fmt="py:percent")
    kept = [c for c in parsed.cells if leave_out not in c.metadata.get("tags", [])]
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    for number, cell in enumerate(kept):
        make = nbformat.v4.new_code_cell
        if cell.cell_type == "markdown":
            make = nbformat.v4.new_markdown_cell
        new = make(cell.source, id=f"{source.stem[:4]}-{number:02d}")
        notebook.cells.append(new)
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel, offline, in fast mode, touching no progress.

    Raises:
        RuntimeError: a cell failed; the solution or its check is wrong.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        runner.kernel_environment("fast", KDCOURSE_PROGRESS="off") as environment,
    ):
        path = Path(folder) / "solved.ipynb"
        path.write_text(as_text(notebook), encoding="utf-8")
        outcome = runner.run_notebook(path, environment, timeout=120)
    if outcome.failure:
        raise RuntimeError(f"{outcome.failure.first_line}\n{outcome.failure.error}")
    outcome.notebook.metadata = nbformat.from_dict(
        METADATA
    )  # not this Python's version
    return outcome.notebook


def as_text(notebook: nbformat.NotebookNode) -> str:
    """A notebook as Jupyter itself writes it."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def as_json(data: dict) -> str:
    """Data as text, in their own order."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> str:
    """A text file as it is."""
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
