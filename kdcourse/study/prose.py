"""Numbers in prose, bound to the cell that computes them.

A code cell says what it found, and prints it, so that it is compared in every run::

    prose.bind(speedup=f"{ratio:.0f}")        # prints: bound: speedup = 37

The text that follows quotes it between two comments that no reader sees::

    The student is <!--bind speedup-->37<!--/bind--> times faster.

``drift(notebook)`` reads a committed notebook as data and lists every place where the
text and the cell no longer agree.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from kdcourse.errors import KdcourseError

QUOTED = re.compile(r"<!--\s*bind\s+(\w+)\s*-->(.*?)<!--\s*/bind\s*-->", re.DOTALL)
OPENING = re.compile(r"<!--\s*bind\b")
PRINTED = re.compile(r"^bound: (\w+) = (.*)$", re.MULTILINE)


def bind(**values: str | int) -> None:
    """Print each value as ``bound: name = value``, ready to be quoted in the text.

    Raises:
        KdcourseError: for a float. Round it first, to what every machine agrees on.
    """
    for name, value in values.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise KdcourseError(
                f"prose.bind({name}={value!r}) was given a {type(value).__name__}.",
                wanted="a text or a whole number",
                todo=f'Round it first, such as prose.bind({name}=f"{{value:.1f}}").',
            )
    for name, value in values.items():
        print(f"bound: {name} = {value}")


def drift(notebook: str | Path | dict) -> list[str]:
    """Every quoted number that its cell does not print, every bound one not quoted.

    ``notebook`` is a path or the notebook's JSON. An empty list means all is well.
    """
    if not isinstance(notebook, dict):
        notebook = json.loads(Path(notebook).read_text(encoding="utf-8"))
    bound, quoted, problems = {}, set(), []
    cells = list(enumerate(notebook["cells"]))
    for number, cell in cells:
        if cell["cell_type"] == "code":
            for name, value in PRINTED.findall(_printed(cell)):
                if name in bound:
                    problems.append(f"cell {number}: {name} is bound a second time")
                bound[name] = value
    for number, cell in cells:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            found = QUOTED.findall(text)
            if len(found) != len(OPENING.findall(text)):
                problems.append(
                    f"cell {number}: a <!--bind name--> has no <!--/bind-->"
                )
            quoted.update(name for name, _ in found)
            problems += [p for n, v in found if (p := _compare(number, n, v, bound))]
    problems += [
        f"{name} is bound but never quoted" for name in bound if name not in quoted
    ]
    return problems


def _compare(number: int, name: str, value: str, bound: dict[str, str]) -> str | None:
    if name not in bound:
        return f"cell {number}: {name} is quoted, but no cell prints it"
    if value.strip() != bound[name]:
        text, cell = value.strip(), bound[name]
        return f"cell {number}: the text says {name} = {text}, its cell {cell}"
    return None


def _printed(cell: dict) -> str:
    streams = (o for o in cell.get("outputs", []) if o.get("output_type") == "stream")
    return "".join("".join(output["text"]) for output in streams)
