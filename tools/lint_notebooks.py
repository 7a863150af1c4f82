"""The rules for notebooks, read as data: ``python tools/lint_notebooks.py [FILE …]``.

A notebook that was stripped of its outputs passes every comparison, since nothing is
compared; these rules see to it that what is committed was run, whole and readable.
Each rule is a function from a :class:`Page` to the messages of what breaks it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("notebooks", "exercises", "exercises/solutions")

MAX_BYTES = 500_000
MAX_CODE_LINES = 25
MAX_SOLUTION_LINES = 60  # the last exercise of a set may be a real piece of work
MAX_LINE = 88
CELLS = range(30, 51)
WORDS = range(1_500, 2_501)
FAST_SECONDS = {"11": 180}  # the capstone trains a student; any other lesson:
OTHERS_SECONDS = 60
LABEL_SLACK = 3  # minutes by which the label on the box may exceed what was measured
OPT_OUT_SHARE = 1 / 4

MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~<-])/(?:home|root|Users|tmp|work|mnt|opt|usr|var|private)/\w"
    r"|\b[A-Za-z]:\\\\?\w"
)
INSTALL = re.compile(
    r"^\s*[!%]+\s*(?:\{?sys\.executable\}?\s+-m\s+)?(?:pip|conda|uv|apt)"
)
SUPPRESSED = re.compile(r"filterwarnings|simplefilter|PYTHONWARNINGS|logging\.disable")
OPT_OUT = re.compile(
    r"^\s*#+\s*NBVAL_(IGNORE_OUTPUT|SKIP|RAISES_EXCEPTION)\b(.*)$", re.M
)
OPT_OUT_TAGS = {
    "nbval-ignore-output",
    "nbval-skip",
    "nbval-raises-exception",
    "raises-exception",
}
REASON = re.compile(r"^\s*#\s*Not compared: \w+(?:\W+\w+){2,}", re.M)
WORD = re.compile(r"[^\W\d_][\w'’-]*")
TAG = re.compile(r"<[^>]+>")
HTML_ANCHOR = re.compile(r"""<\w+[^>]*\b(?:id|name)=["']([^"']+)["']""")
HTML_LINK = re.compile(r"""<a\b[^>]*\bhref=["']([^"']+)["']""")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
HTML_ALT = re.compile(r"""\balt=["'][^"']{5,}["']""")
TIME_LABEL = re.compile(r"\brun\b[^\w\n]{0,8}(\d+)\s*min", re.I)
TIMINGS = "timings.json"  # written by run_notebooks.py: seconds of each code cell
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)


@dataclass(frozen=True)
class Page:
    """A notebook, its place, and its text already parsed."""

    path: Path
    notebook: nbformat.NotebookNode

    @cached_property
    def code(self) -> list[nbformat.NotebookNode]:
        """The code cells that are not empty."""
        cells = (cell for cell in self.notebook.cells if cell.cell_type == "code")
        return [cell for cell in cells if cell.source.strip()]

    @cached_property
    def text(self) -> list[str]:
        """The sources of the text cells."""
        return [c.source for c in self.notebook.cells if c.cell_type == "markdown"]

    @cached_property
    def tokens(self) -> list[Token]:
        """The text cells as one flat list of Markdown tokens."""
        blocks = [token for source in self.text for token in MARKDOWN.parse(source)]
        return [t for block in blocks for t in (block, *(block.children or []))]

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        """Level and plain text of each heading, in order."""
        found = []
        for token, following in zip(self.tokens, self.tokens[1:], strict=False):
            if token.type == "heading_open":
                parts = following.children or []
                found.append((int(token.tag[1]), "".join(p.content for p in parts)))
        return found

    @cached_property
    def anchors(self) -> set[str]:
        """What ``#…`` may point to: headings as Jupyter names them, and ids in HTML."""
        named = HTML_ANCHOR.findall("\n".join(self.text))
        return {title.strip().replace(" ", "-") for _, title in self.headings} | {
            *named
        }

    @property
    def kind(self) -> str:
        """``lesson``, ``solution`` or ``stub``, from the folder it lies in."""
        parent = self.path.parent.name
        return {"solutions": "solution", "exercises": "stub"}.get(parent, "lesson")


def numbered(cells: list[nbformat.NotebookNode]) -> Iterator[tuple[str, str]]:
    """Each code cell's name for a message, and its source."""
    for number, cell in enumerate(cells, 1):
        yield f"code cell {number}", cell.source


# ------------------------------------------------------------- what was run, and how


def rule_executed(page: Page) -> Iterator[str]:
    """Counts run 1..n: run top to bottom in a fresh kernel, nothing left out."""
    counts = [cell.execution_count for cell in page.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(counts)}: run it afresh"


def rule_no_errors(page: Page) -> Iterator[str]:
    """No cell ended in an error."""
    for number, cell in enumerate(page.code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"code cell {number} ended in {output.ename}: {output.evalue}"


def rule_kernel(page: Page) -> Iterator[str]:
    """Every Jupyter has a kernel named python3."""
    spec = page.notebook.metadata.get("kernelspec", {})
    if spec.get("name") != "python3":
        yield f"kernelspec is {spec.get('name')!r}, not 'python3'"


def rule_size(page: Page) -> Iterator[str]:
    """A notebook is small enough to be read on the web and in a diff."""
    size = len(nbformat.writes(page.notebook).encode("utf-8"))
    if size >= MAX_BYTES:
        yield f"{size:,} bytes; less than {MAX_BYTES:,} wanted: smaller figures?"


def rule_no_absolute_path(page: Page) -> Iterator[str]:
    """Nothing names a folder of the machine on which it was made."""
    places = [(f"text cell {n}", text) for n, text in enumerate(page.text, 1)]
    places += numbered(page.code)
    for number, cell in enumerate(page.code, 1):
        for output in cell.outputs:
            texts = [output.get("text", ""), *output.get("traceback", [])]
            texts += [
                str(v) for k, v in output.get("data", {}).items() if "image/" not in k
            ]
            places.append((f"output of code cell {number}", "\n".join(texts)))
    for place, text in places:
        match = ABSOLUTE_PATH.search(text)
        if match:
            yield f"{place} names an absolute path: {text[match.start() :][:40]!r}"


# ------------------------------------------------------------------- what is compared


def opts_out(cell: nbformat.NotebookNode) -> bool:
    """True where nbval is told not to compare a cell."""
    tags = set(cell.metadata.get("tags", []))
    return bool(tags & OPT_OUT_TAGS or OPT_OUT.search(cell.source))


def rule_opt_outs(page: Page) -> Iterator[str]:
    """Cells leave the comparison seldom, with a reason, and facts follow them."""
    out = [opts_out(cell) for cell in page.code]
    for number, (cell, is_out) in enumerate(zip(page.code, out, strict=True), 1):
        if not is_out:
            continue
        skips = "SKIP" in cell.source or "nbval-skip" in cell.metadata.get("tags", [])
        if skips:
            yield f"code cell {number} is skipped by nbval: a cell may not go unrun"
        match = OPT_OUT.search(cell.source)
        if match and match[2].strip():
            yield f"code cell {number}: nbval knows the marker only alone on its line"
        if not REASON.search(cell.source):
            yield f"code cell {number} opts out without a line '# Not compared: why …'"
        if number == len(out) or out[number]:
            yield f"code cell {number} opts out and no compared cell of facts follows"
    if sum(out) > len(out) * OPT_OUT_SHARE:
        yield f"{sum(out)} of {len(out)} code cells opt out; at most a quarter may"


# --------------------------------------------------------------------- how it is made


def rule_code_length(page: Page) -> Iterator[str]:
    """A code cell fits on a screen, a line into its column."""
    solved = page.path.parent.name == "solutions"
    most = MAX_SOLUTION_LINES if solved else MAX_CODE_LINES
    for place, source in numbered(page.code):
        lines = source.splitlines()
        if len(lines) > most:
            yield f"{place} has {len(lines)} lines; at most {most}"
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_LINE:
                yield f"{place}, line {number}: {len(line)} characters, not {MAX_LINE}"


def rule_no_install(page: Page) -> Iterator[str]:
    """Installing is the set-up's business, not a lesson's."""
    for place, source in numbered(page.code):
        if any(INSTALL.match(line) for line in source.splitlines()):
            yield f"{place} installs packages"


def rule_no_suppressed_warnings(page: Page) -> Iterator[str]:
    """A warning is mended or explained, never hidden."""
    for place, source in numbered(page.code):
        if SUPPRESSED.search(source):
            yield f"{place} hides warnings"


def rule_more_text_than_code(page: Page) -> Iterator[str]:
    """At least one text cell a code cell."""
    if len(page.text) < len(page.code):
        yield f"{len(page.text)} text cells for {len(page.code)} code cells"


def rule_extent(page: Page) -> Iterator[str]:
    """A lesson is as long as reads well in one sitting."""
    cells = len(page.notebook.cells)
    if cells not in CELLS:
        yield f"{cells} cells; {CELLS[0]} to {CELLS[-1]} read well"
    plain = [t.content for t in page.tokens if t.type == "text"]
    words = len(WORD.findall(TAG.sub(" ", " ".join(plain))))
    if words not in WORDS:
        yield f"{words:,} words; {WORDS[0]:,} to {WORDS[-1]:,} read well"


def rule_time(page: Page) -> Iterator[str]:
    """The minutes on the box are those that were measured, and within the budget."""
    label = TIME_LABEL.search("\n".join(page.text[:3]))
    file = page.path.parent / TIMINGS
    recorded = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    seconds = recorded.get(page.path.stem, [])
    if not label:
        yield "the first cells have no label 'Run: N min'"
    if len(seconds) != len(page.code):
        yield f"{TIMINGS} holds the times of {len(seconds)} cells: run it afresh"
        return
    budget = FAST_SECONDS.get(page.path.name[:2], OTHERS_SECONDS)
    if sum(seconds) > budget:
        yield f"took {sum(seconds):.0f} s when recorded; {budget} s is the budget"
    minutes = sum(seconds) / 60
    if label and not minutes <= int(label[1]) <= minutes + LABEL_SLACK:
        yield f"label says {label[1]} min to run; measured: {minutes:.1f}"


# -------------------------------------------------------------------- how it is found


def rule_headings(page: Page) -> Iterator[str]:
    """One title, and no level skipped on the way down: screen readers walk by them."""
    levels = [level for level, _ in page.headings]
    if levels[:1] != [1] or levels.count(1) != 1:
        yield "wants exactly one first-level heading, and it first"
    for (above, _), (level, title) in zip(
        page.headings, page.headings[1:], strict=False
    ):
        if level > above + 1:
            yield f"heading {title!r} skips from level {above} to {level}"


def rule_bound_in_line(page: Page) -> Iterator[str]:
    """No line begins with a bound number: its comment would tear the paragraph."""
    for token in page.tokens:
        html = token.content.strip() if token.type == "html_block" else ""
        if html.startswith("<!--bind"):
            yield f"a line begins with {html[:40]!r}: wrap it elsewhere"


def links(page: Page) -> Iterator[str]:
    """The targets of all links and pictures, Markdown and HTML."""
    for token in page.tokens:
        if token.type == "link_open":
            yield str(token.attrs["href"])
        elif token.type == "image":
            yield str(token.attrs["src"])
        elif token.type in ("html_inline", "html_block"):
            yield from HTML_LINK.findall(token.content)


def rule_links(page: Page) -> Iterator[str]:
    """Relative links lead to files that exist, anchors to headings that exist."""
    for link in links(page):
        target, _, anchor = link.partition("#")
        if ELSEWHERE.match(link):
            continue
        path = (page.path.parent / MarkdownIt().normalizeLinkText(target)).resolve()
        if target.startswith("/") or not path.exists():
            yield f"link to {link!r}: no such file"
        elif anchor and (not target or path.suffix == ".ipynb"):
            there = page if not target else read(path)
            if MarkdownIt().normalizeLinkText(anchor) not in there.anchors:
                yield f"link to {link!r}: no such heading"


def rule_alternative_text(page: Page) -> Iterator[str]:
    """Each picture says in words what it shows."""
    for number, cell in enumerate(page.code, 1):
        for output in cell.outputs:
            for mime, _ in output.get("data", {}).items():
                if mime.startswith("image/") and not described(output, mime):
                    yield f"figure of code cell {number} has no text alternative"
    for token in page.tokens:
        if token.type == "image" and len(token.content.strip()) < 5:
            yield f"picture {token.attrs['src']!r} has no text alternative"
        elif token.type in ("html_inline", "html_block"):
            for tag in HTML_IMAGE.findall(token.content):
                if not HTML_ALT.search(tag):
                    yield f"picture {tag[:60]!r} has no text alternative"


def described(output: nbformat.NotebookNode, mime: str) -> bool:
    """True where an image output carries its alternative: ``plots.show`` sees to it."""
    noted = output.get("metadata", {}).get(mime, {}).get("alt", "")
    plain = output.get("data", {}).get("text/plain", "")
    return bool(noted.strip()) or bool(re.match(r"Figure: \w", plain))


# ------------------------------------------------------------------------- all of them

Rule = Callable[[Page], Iterator[str]]
ALWAYS: tuple[Rule, ...] = (
    rule_kernel,
    rule_size,
    rule_no_absolute_path,
    rule_no_errors,
    rule_code_length,
    rule_no_install,
    rule_no_suppressed_warnings,
    rule_headings,
    rule_bound_in_line,
    rule_links,
    rule_alternative_text,
)
RUN: tuple[Rule, ...] = (rule_executed, rule_opt_outs)
LESSON: tuple[Rule, ...] = (rule_more_text_than_code, rule_extent, rule_time)
RULES_OF = {
    "stub": ALWAYS,  # generated, and run by the learner
    "solution": ALWAYS + RUN,
    "lesson": ALWAYS + RUN + LESSON,
}


def read(path: Path) -> Page:
    """A notebook from its file."""
    return Page(path, nbformat.read(path, as_version=4))


def lint(page: Page) -> list[str]:
    """Everything that is wrong with a notebook, each with its file and rule."""
    return [
        f"{page.path.name}: {message} [{rule.__name__.removeprefix('rule_')}]"
        for rule in RULES_OF[page.kind]
        for message in rule(page)
    ]


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """Every committed notebook of the course."""
    return [p for folder in FOLDERS for p in sorted((root / folder).glob("*.ipynb"))]


def main(arguments: list[str]) -> int:
    """Check these files, or all; 1 if a rule is broken."""
    paths = [Path(name).resolve() for name in arguments] or all_notebooks()
    found = []
    for path in paths:
        try:
            found += lint(read(path))
        except (nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
            found.append(f"{path.name}: not a notebook: {str(error).splitlines()[0]}")
    print("\n".join(found) if found else f"{len(paths)} notebooks, nothing to mend")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
