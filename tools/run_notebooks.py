"""Run notebooks in place and record their outputs: ``tools/run_notebooks.py [FILE …]``.

Fast mode, without a network, in fresh kernels with the same variables as the tests, so
that what is committed is what they will see. The same code gives the same bytes: times
and identities of the run stay out of the notebooks; the seconds that each cell took go
to ``notebooks/timings.json``, from which the course command tells the time left.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from kdcourse.study import runner

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "jupyter", "alt"}
CELL_SECONDS = 600


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keep what a reader needs: outputs, tags; no times, no widgets, no random ids."""
    notebook.metadata = nbformat.from_dict(
        {k: v for k, v in notebook.metadata.items() if k == "kdcourse"} | METADATA
    )
    count = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in CELL_METADATA}
        )
        if cell.cell_type == "code" and cell.source.strip():
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def main(arguments: list[str]) -> int:
    """Run these notebooks, or all lessons; a failing one is left as it was."""
    lessons = runner.course_folder() / "notebooks"
    paths = [Path(name).resolve() for name in arguments] or runner.find_lessons(lessons)
    timings = runner.read_timings(lessons)
    failed = 0
    with runner.kernel_environment("fast") as environment:
        for path in paths:
            bar = runner.Bar(path.stem, timings.get(path.stem, []))
            done = runner.run_notebook(
                path, environment, show=bar.show, timeout=CELL_SECONDS
            )
            if done.failure:
                failed += 1
                print(f"{path.name}, code cell {done.failure.number}: not written")
                print(done.failure.error)
                continue
            text = nbformat.writes(normalise(done.notebook))
            path.write_text(text + "\n", encoding="utf-8", newline="\n")
            if path.parent == lessons:  # read again: another run may have written
                timings = runner.read_timings(lessons) | {path.stem: done.seconds}
                runner.write_timings(lessons, timings)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
