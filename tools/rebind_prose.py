"""Write the numbers of executed cells into the text: ``tools/rebind_prose.py``.

A cell that called ``prose.bind(gain="2.7")`` has printed ``bound: gain = 2.7``; now
the text between ``<!--bind gain-->`` and ``<!--/bind-->`` becomes 2.7. Outputs stay as
they are. What still differs afterwards is reported, and the exit code is 1.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from kdcourse.study import prose

QUOTED = re.compile(r"(<!--\s*bind\s+(\w+)\s*-->)(.*?)(<!--\s*/bind\s*-->)", re.S)


def printed(notebook: dict) -> dict[str, str]:
    """The bound values that the code cells have printed."""
    values: dict[str, str] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                values |= dict(prose.PRINTED.findall("".join(output["text"])))
    return values


def rebind(notebook: dict) -> int:
    """Put the printed values into the text cells; the number of cells changed."""
    values, changed = printed(notebook), 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            old = "".join(cell["source"])
            new = QUOTED.sub(lambda m: m[1] + values.get(m[2], m[3]) + m[4], old)
            if new != old:
                changed += 1
                cell["source"] = new.splitlines(keepends=True)
    return changed


def main(arguments: list[str]) -> int:
    """Rebind these notebooks, or all lessons."""
    lessons = Path(__file__).resolve().parents[1] / "notebooks"
    failed = 0
    for path in map(Path, arguments or sorted(map(str, lessons.glob("*.ipynb")))):
        notebook = json.loads(path.read_text("utf-8"))
        changed = rebind(notebook)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, "utf-8", newline="\n")
        drift = prose.drift(path)
        failed += bool(drift)
        print(f"{path.name}: {changed} text cells changed, drift: {drift or 'none'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
