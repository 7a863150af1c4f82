"""The committed notebooks read as data, and each rule seen to fire on a bad one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import lint_notebooks as rules
import nbformat
import pytest
import run_notebooks
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

PNG = "iVBORw0KGgo="
HOME = "/home/" + "ada"


# ------------------------------------------------------------- what is committed


def test_there_are_lessons_and_each_is_checked_as_what_it_is():
    kinds = {path: rules.read(path).kind for path in rules.all_notebooks()}
    assert "lesson" in kinds.values()
    for path, kind in kinds.items():
        assert kind in rules.RULES_OF
        assert path.name[:2].isdigit(), f"{path.name} has no number"


@pytest.mark.parametrize("path", rules.all_notebooks(), ids=lambda path: path.stem)
def test_a_committed_notebook_keeps_the_rules(path):
    assert rules.lint(rules.read(path)) == []


@pytest.mark.parametrize("path", rules.all_notebooks(), ids=lambda path: path.stem)
def test_a_committed_notebook_is_as_the_tool_writes_it(path):
    notebook = nbformat.read(path, as_version=4)
    if rules.Page(path, notebook).kind == "lesson":
        wanted = nbformat.writes(run_notebooks.normalise(notebook)) + "\n"
        assert path.read_text(encoding="utf-8") == wanted


# ------------------------------------------------------------------ a sound notebook


def code(source="1 + 1", count=1, outputs=(), **metadata):
    return new_code_cell(
        source, execution_count=count, outputs=list(outputs), metadata=metadata
    )


def text(source):
    return new_markdown_cell(source)


def page(*cells, folder="notebooks", kernel="python3", path=None):
    cells = [copy.deepcopy(cell) for cell in cells]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": kernel}
    return rules.Page(path or Path(folder) / "00_x.ipynb", notebook)


def good_lesson(folder):
    words = "word " * 120
    cells = [text(f"# A title\n\n**Run:** 1 min\n\n{words}")]
    for number in range(1, 16):
        cells += [code(count=number), text(f"## Part {number}\n{words}")]
    (folder / "timings.json").write_text(json.dumps({"00_x": [2.0] * 15}))
    return page(*cells, path=folder / "00_x.ipynb")


def test_a_sound_lesson_breaks_no_rule(tmp_path):
    assert rules.lint(good_lesson(tmp_path)) == []


def fired(rule, *cells, **kind):
    return list(rule(page(*cells, **kind)))


# ------------------------------------------------------------------ each rule fires


@pytest.mark.parametrize("counts", [(None,), (2,), (1, 3), (2, 1), (1, 1), (1, None)])
def test_executed(counts):
    assert fired(rules.rule_executed, *(code(count=count) for count in counts))


def test_executed_passes_empty_cells_over():
    assert not fired(rules.rule_executed, code(count=1), code("", None), code(count=2))


def test_no_errors():
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert "ValueError: no" in fired(rules.rule_no_errors, code(outputs=[error]))[0]


def test_kernel():
    assert fired(rules.rule_kernel, code(), kernel="my-env")
    assert not fired(rules.rule_kernel, code())


def test_size():
    assert fired(rules.rule_size, text("x" * 500_000))
    assert not fired(rules.rule_size, text("x" * 400_000))


@pytest.mark.parametrize("path", [HOME, "/tmp/x", r"C:\Users\ada", "C:\\\\Users"])
def test_no_absolute_path(path):
    stream = new_output("stream", text=f"saved in {path}\n")
    plain = new_output("execute_result", data={"text/plain": f"Path('{path}')"})
    assert fired(rules.rule_no_absolute_path, code(f"open('{path}')"))
    assert fired(rules.rule_no_absolute_path, text(f"see {path}"))
    assert fired(rules.rule_no_absolute_path, code(outputs=[stream]))
    assert fired(rules.rule_no_absolute_path, code(outputs=[plain]))


@pytest.mark.parametrize(
    "harmless",
    ["https://example.org/home/x", "data/home/x", "../tmp/x", "</tmp/x", "ms/opt/h"],
)
def test_no_absolute_path_leaves_the_rest_alone(harmless):
    assert not fired(rules.rule_no_absolute_path, text(f"see {harmless}"))


WHY = "# Not compared: times differ between machines\n"


@pytest.mark.parametrize(
    "cell, message",
    [
        (code("# NBVAL_IGNORE_OUTPUT\nf()"), "without a line"),
        (code("f()", tags=["nbval-ignore-output"]), "without a line"),
        (code("f()", tags=["raises-exception"]), "without a line"),
        (code("# NBVAL_IGNORE_OUTPUT\n# Not compared: times\nf()"), "without a line"),
        (code(f"{WHY}# NBVAL_IGNORE_OUTPUT: times\nf()"), "alone on its line"),
        (code(f"{WHY}# NBVAL_SKIP\nf()"), "skipped"),
        (code(f"{WHY}f()", tags=["nbval-skip"]), "skipped"),
    ],
)
def test_opt_outs_want_a_reason(cell, message):
    found = fired(rules.rule_opt_outs, cell, code(), code(), code())
    assert any(message in line for line in found)


def test_opt_outs_are_few_and_followed_by_facts():
    out, fact = code(f"# NBVAL_IGNORE_OUTPUT\n{WHY}f()"), code()
    assert not fired(rules.rule_opt_outs, out, fact, fact, fact)
    assert "1 of 3" in fired(rules.rule_opt_outs, out, fact, fact)[0]
    for cells in ((fact, fact, fact, out), (*[fact] * 6, out, out, fact)):
        assert any("no compared cell" in m for m in fired(rules.rule_opt_outs, *cells))


def test_code_length():
    assert fired(rules.rule_code_length, code("\n".join(["f()"] * 26)))
    assert fired(rules.rule_code_length, code("x" * 89))
    assert not fired(rules.rule_code_length, code("\n".join(["x" * 88] * 25)))


@pytest.mark.parametrize(
    "line", ["!pip install x", "%pip install x", "! conda install", "%uv add x"]
)
def test_no_install(line):
    assert fired(rules.rule_no_install, code(f"import os\n{line}"))


def test_no_suppressed_warnings():
    source = "import warnings\nwarnings.filterwarnings('ignore')"
    assert fired(rules.rule_no_suppressed_warnings, code(source))


def test_more_text_than_code():
    assert fired(rules.rule_more_text_than_code, text("a"), code(), code())
    assert not fired(rules.rule_more_text_than_code, text("a"), code())


@pytest.mark.parametrize("words, cells", [(90, 31), (200, 31), (120, 29), (60, 51)])
def test_extent(words, cells):
    part = text("word " * words)
    texts = (cells + 1) // 2
    assert fired(rules.rule_extent, *[part] * texts, *[code()] * (cells - texts))


def test_extent_counts_no_code_and_no_formulas():
    part = text("word " * 100 + "\n\n```\n" + "code " * 100 + "\n```\n\n$a b c d$")
    assert "1,500" in fired(rules.rule_extent, *[part] * 14, *[code()] * 16)[0]


@pytest.mark.parametrize(
    "label, name, recorded, message",
    [
        ("Read: 5 min", "00_x", [30], "no label"),
        ("Run: 1 min", "00_x", [90], "60 s is the budget"),
        ("Run: 1 min", "00_x", [30, 1], "times of 2 cells"),
        ("Run: 1 min", "00_x", None, "times of 0 cells"),
        ("Run: 1 min", "11_x", [90], "measured: 1.5"),
        ("Run: 9 min", "11_x", [90], "measured: 1.5"),
        ("Run: 2 min", "11_x", [181], "180 s is the budget"),
        ("| Run | 2 min |", "11_x", [90], None),
        ("read 20 min, **run** 1 min", "00_x", [50], None),
    ],
)
def test_time(tmp_path, label, name, recorded, message):
    times = {name: recorded} if recorded else {}
    (tmp_path / "timings.json").write_text(json.dumps(times))
    path = tmp_path / f"{name}.ipynb"
    found = fired(rules.rule_time, text(f"# A\n\n{label}"), code(), path=path)
    assert any(message in line for line in found) if message else found == []


@pytest.mark.parametrize(
    "cells",
    [
        [text("## No title")],
        [text("no heading at all")],
        [text("# One"), text("# Two")],
        [text("# One"), text("### Three")],
        [text("# One\n\n## Two\n\n#### Four")],
        [text("Title\n=====\n\n### Three")],
    ],
)
def test_headings(cells):
    assert fired(rules.rule_headings, *cells)


def test_headings_may_climb_at_once_and_comments_are_none():
    assert not fired(
        rules.rule_headings, text("# A\n## B\n### C\n## D\n```\n# no heading\n```")
    )


def test_a_bound_number_does_not_begin_a_line():
    quoted = "<!--bind n-->3<!--/bind-->"
    assert fired(rules.rule_bound_in_line, text(f"It keeps\n{quoted} per cent."))
    assert not fired(rules.rule_bound_in_line, text(f"It keeps {quoted}\nper cent."))


@pytest.mark.parametrize(
    "link",
    [
        "[x](missing.ipynb)",
        "[x](#No-such-heading)",
        "[x](other.ipynb#Nowhere)",
        '<a href="missing.md">x</a>',
        "![a picture of it](missing.png)",
        "[x](/other.ipynb)",
        "[x][ref]\n\n[ref]: missing.md",
    ],
)
def test_links_that_lead_nowhere(tmp_path, link):
    nbformat.write(page(text("# Other")).notebook, tmp_path / "other.ipynb")
    assert fired(rules.rule_links, text(f"# A\n{link}"), path=tmp_path / "00_x.ipynb")


@pytest.mark.parametrize(
    "link",
    [
        "[x](other.ipynb)",
        "[x](other.ipynb#Was-heißt-das?)",
        "[x](#Its-parts)",
        "[x](#place)",
        "[x](https://example.org/missing.md#x)",
        "[x](some%20notes.md)",
        "$f[a](b)$ and `[x](missing.md)`",
    ],
)
def test_links_that_lead_somewhere(tmp_path, link):
    (tmp_path / "some notes.md").touch()
    other = page(text("# Was heißt das?")).notebook
    nbformat.write(other, tmp_path / "other.ipynb")
    here = text(f'# A\n## Its parts\n<a id="place"></a>\n\n{link}')
    assert fired(rules.rule_links, here, path=tmp_path / "00_x.ipynb") == []


def figure(alt="", plain="<Figure size 640x480 with 1 Axes>"):
    metadata = {"image/png": {"alt": alt}} if alt else {}
    data = {"image/png": PNG, "text/plain": plain}
    return code(outputs=[new_output("display_data", data=data, metadata=metadata)])


def test_alternative_text_of_figures():
    assert fired(rules.rule_alternative_text, figure())
    assert fired(rules.rule_alternative_text, figure(plain="Figure: "))
    assert not fired(rules.rule_alternative_text, figure(alt="A line that falls."))
    assert not fired(rules.rule_alternative_text, figure(plain="Figure: a line."))


@pytest.mark.parametrize(
    "picture, told",
    [
        ("![](x.png)", False),
        ("![A line that falls](x.png)", True),
        ('<img src="x.png">', False),
        ('<img src="x.png" alt="">', False),
        ('<img alt="A line that falls" src="x.png">', True),
    ],
)
def test_alternative_text_of_pictures(picture, told):
    assert bool(fired(rules.rule_alternative_text, text(picture))) is not told


# ------------------------------------------------------------------ the tools


def test_each_rule_belongs_to_lessons_and_was_seen_to_fire_above():
    every = {name for name in vars(rules) if name.startswith("rule_")}
    assert {rule.__name__ for rule in rules.RULES_OF["lesson"]} == every
    tests = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in every if f"rules.{name}" not in tests]


def test_the_command_names_file_and_rule(tmp_path, capsys):
    path = tmp_path / "05_bad.ipynb"
    nbformat.write(page(text("## Low"), code(count=None)).notebook, path)
    assert rules.main([str(path)]) == 1
    said = capsys.readouterr().out
    assert "05_bad.ipynb" in said and "[executed]" in said and "[headings]" in said


def test_the_command_survives_what_is_no_notebook(tmp_path, capsys):
    path = tmp_path / "06_bad.ipynb"
    path.write_text("{")
    assert rules.main([str(path)]) == 1
    assert "not a notebook" in capsys.readouterr().out


def test_a_run_leaves_the_same_bytes_each_time():
    def once(seconds):
        cell = code("f()", 7, [new_output("execute_result", execution_count=7)])
        cell.metadata = nbformat.from_dict(
            {"execution": {"iopub.execute_input": seconds}, "tags": ["t"]}
        )
        notebook = page(text("# A"), cell).notebook
        notebook.metadata["widgets"] = {"state": seconds}
        return nbformat.writes(run_notebooks.normalise(notebook))

    assert once("10:00") == once("11:00")
    tidy = nbformat.reads(once("x"), as_version=4)
    assert tidy.cells[1].execution_count == 1
    assert tidy.cells[1].outputs[0].execution_count == 1
    assert tidy.cells[1].metadata == {"tags": ["t"]}
