"""What the capstone measured, as the course command shows it on its last screen."""

from __future__ import annotations

import json
import textwrap
from itertools import zip_longest
from pathlib import Path

from kdcourse.errors import KdcourseError

COLUMNS = {
    "teacher": "teacher",
    "untaught": "untaught student",
    "student": "distilled student",
}
MEASURES = {  # key: (type, label, format)
    "parameters": (int, "parameters", "{:,}"),
    "megabytes": ((int, float), "size, MB", "{:.1f}"),
    "bleu": ((int, float), "BLEU [1]", "{:.1f}"),
    "chrf": ((int, float), "chrF [2]", "{:.1f}"),
    "ms": ((int, float), "ms a sentence [3]", "{:.2f}"),
}
SAMPLES = 6
SAMPLE_COLUMNS = {"source": "English", "reference": "reference", **COLUMNS}


class ResultsError(KdcourseError):
    """The capstone's figures are missing or not as agreed."""


def read_results(path: Path) -> dict:
    """The figures that lesson 11 wrote to ``$KDCOURSE_RESULTS``, checked.

    Returns:
        ``{"columns": [{"name", "parameters", "megabytes", "bleu", "chrf", "ms"}, …],
        "signatures": {"bleu", "chrf"}, "ms_unit", "samples": [{"source", "reference",
        "teacher", "untaught", "student"} × 6]}``.

    Raises:
        ResultsError: no file, no JSON, or a field that is missing or of another kind.
    """
    if not path.exists():
        raise _error("Lesson 11 ran but left no figures.")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _error(f"The figures of lesson 11 are not JSON: {error}.") from error
    problem = _problem(results)
    if problem:
        raise _error(f"The figures of lesson 11 are not as agreed: {problem}.")
    return results


def _error(given: str) -> ResultsError:
    return ResultsError(
        given,
        wanted="the table of teacher and students that its last cells write to the "
        "file named by KDCOURSE_RESULTS",
        todo="Restore the lesson (git checkout notebooks) and run it again: "
        "python -m kdcourse course 11",
    )


def _problem(results: object) -> str | None:
    """The first thing that is wrong with the figures, or None."""
    if not isinstance(results, dict):
        return f"a {type(results).__name__} where an object should stand"
    columns, samples = results.get("columns"), results.get("samples")
    names = [c.get("name") for c in columns or [] if isinstance(c, dict)]
    if names != list(COLUMNS):
        return f"columns {names}, not {list(COLUMNS)}"
    for column in columns:
        for key, (kind, *_) in MEASURES.items():
            value = column.get(key)
            if not isinstance(value, kind) or isinstance(value, bool):
                return f"{key!r} of {column['name']!r} is {value!r}, not a number"
    signatures = results.get("signatures")
    signatures = signatures if isinstance(signatures, dict) else {}
    notes = [signatures.get("bleu"), signatures.get("chrf"), results.get("ms_unit")]
    if not all(isinstance(note, str) and note for note in notes):
        return "'signatures' (bleu, chrf) or 'ms_unit' is missing"
    if not isinstance(samples, list) or len(samples) != SAMPLES:
        return f"'samples' must be a list of {SAMPLES}"
    for number, sample in enumerate(samples, 1):
        for key in SAMPLE_COLUMNS:
            if not isinstance(sample, dict) or not isinstance(sample.get(key), str):
                return f"sample {number} has no text {key!r}"
    return None


def table(results: dict) -> str:
    """Teacher, untaught and distilled student: one row a measure, notes below."""
    rows = [["", *COLUMNS.values()]]
    for key, (_, label, form) in MEASURES.items():
        rows.append([label, *(form.format(c[key]) for c in results["columns"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    signatures = results["signatures"]
    return "\n".join(
        [
            *lines,
            "",
            f"[1] sacreBLEU {signatures['bleu']}",
            f"[2] sacreBLEU {signatures['chrf']}",
            f"[3] {results['ms_unit']}",
        ]
    )


def samples(results: dict, width: int = 110) -> str:
    """The sample sentences side by side, wrapped into columns of equal width."""
    gap = "  "
    room = max(
        12, (width - len(gap) * (len(SAMPLE_COLUMNS) - 1)) // len(SAMPLE_COLUMNS)
    )
    rows = [list(SAMPLE_COLUMNS.values())]
    rows += [[sample[key] for key in SAMPLE_COLUMNS] for sample in results["samples"]]
    blocks = []
    for row in rows:
        cells = [textwrap.wrap(text, room) or [""] for text in row]
        lines = zip_longest(*cells, fillvalue="")
        block = [gap.join(part.ljust(room) for part in line).rstrip() for line in lines]
        blocks.append("\n".join(block))
    rule = gap.join("-" * room for _ in SAMPLE_COLUMNS)
    return "\n".join([blocks[0], rule, "\n\n".join(blocks[1:])])
