"""The checks are tested by wrong solutions: each must fail with its own diagnosis.

Each lesson's file in ``learners/`` holds the solutions, right and wrong, written as a
learner would write them, independently of the misconceptions in the package, which
recognise a mistake by what it computes.
"""

from __future__ import annotations

import json
import math
import time
from importlib import import_module
from pathlib import Path

import build_exercises
import numpy
import pytest
import torch
from learners.ex00 import megabytes_in_bytes_first
from learners.ex11 import (
    corpus_by_loop,
    inputs_by_assignment,
    loss_with_cross_entropy,
    verdict_with_numpy,
)
from learners.register import MUTANTS, RIGHT

from kdcourse.__main__ import main
from kdcourse.commands import check
from kdcourse.errors import KdcourseError
from kdcourse.study import checks
from kdcourse.study.checks import CheckFailed, NotAttempted, core, ex00, ex11
from kdcourse.study.checks.comparison import brief, difference

FOLDER = Path(checks.__file__).parent
LESSONS = [path.stem for path in sorted(FOLDER.glob("ex[0-9][0-9].py"))]
EXERCISES = {
    exercise.name: exercise
    for lesson in LESSONS
    for exercise in vars(import_module(f"kdcourse.study.checks.{lesson}")).values()
    if isinstance(exercise, core.Exercise)
}
for lesson in LESSONS:
    import_module(f"learners.{lesson}")


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")


# ------------------------------------------------------------ right solutions, twice


@pytest.mark.parametrize(
    ("name", "function"), [(n, f) for n, fs in RIGHT.items() for f in fs]
)
def test_differently_written_right_solutions_pass(name, function):
    outcome = EXERCISES[name].evaluate(function)
    assert outcome.status == "passed", outcome.message


def test_every_exercise_has_two_more_right_solutions():
    assert set(RIGHT) == set(EXERCISES)
    assert all(len(functions) >= 2 for functions in RIGHT.values())


# ------------------------------------------------------------------ wrong solutions

ALL_MUTANTS = [(name, key, f) for name, rows in MUTANTS.items() for key, f in rows]


@pytest.mark.parametrize(
    ("name", "key", "function"),
    ALL_MUTANTS,
    ids=[f"{name}-{key}-{n}" for n, (name, key, _) in enumerate(ALL_MUTANTS)],
)
def test_each_mutant_fails_with_its_own_diagnosis(name, key, function):
    outcome = EXERCISES[name].evaluate(function)
    assert (outcome.status, outcome.diagnosis) == ("failed", key), outcome.message
    (misconception,) = [m for m in EXERCISES[name].misconceptions if m.key == key]
    assert " ".join(misconception.diagnosis.split()) in " ".join(
        outcome.message.split()
    )


@pytest.mark.parametrize("name", EXERCISES)
def test_every_misconception_has_a_mutant(name):
    named = [m.key for m in EXERCISES[name].misconceptions]
    assert len(named) == len(set(named)) >= 4
    assert set(named) == {key for key, _ in MUTANTS[name]}
    diagnoses = {m.diagnosis for m in EXERCISES[name].misconceptions}
    assert len(diagnoses) == len(named)


@pytest.mark.parametrize("name", EXERCISES)
def test_each_known_way_to_be_wrong_gets_its_own_diagnosis(name):
    """No way that a check knows is swallowed by another that stands before it."""
    exercise = EXERCISES[name]
    for misconception in exercise.misconceptions:
        for function in misconception.functions:
            assert exercise.evaluate(function).diagnosis == misconception.key


# ------------------------------------------------------- reference, stub, mechanics


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_passes_in_under_a_second(name):
    started = time.process_time()  # not of the clock: the machine may be busy
    outcome = EXERCISES[name].evaluate(EXERCISES[name].reference)
    assert outcome.status == "passed", outcome.message
    assert time.process_time() - started < 1


@pytest.mark.parametrize("name", EXERCISES)
def test_the_committed_solution_passes(name):
    space = {"torch": torch}
    exec(checks.solutions()[name], space)
    outcome = EXERCISES[name].evaluate(space[name.partition(".")[2]])
    assert outcome.status == "passed", outcome.message


def blank_dots(logits, labels): ...


def blank_docstring(logits, labels):
    """Only words."""


def blank_pass(logits, labels):
    pass


def blank_returns_dots(logits, labels):
    return ...


def blank_raises(logits, labels):
    raise NotImplementedError("yours")


@pytest.mark.parametrize(
    "blank",
    [blank_dots, blank_docstring, blank_pass, blank_returns_dots, blank_raises],
)
def test_a_blank_is_not_attempted_and_is_no_failure(blank, capsys):
    assert ex11.batch_loss.evaluate(blank).status == "not attempted"
    ex11.batch_loss.check(blank)
    assert capsys.readouterr().out.startswith("ex11.batch_loss: not attempted.")
    with pytest.raises(NotAttempted):
        ex11.batch_loss.check(blank, required=True)


def test_an_error_of_a_library_is_no_blank():
    """torch raises NotImplementedError for what it cannot do on a device."""

    def library():
        raise NotImplementedError("no such kernel")

    outcome = ex11.batch_loss.evaluate(lambda logits, labels: library())
    assert (outcome.status, outcome.diagnosis) == ("failed", "raised")


@pytest.mark.parametrize(
    "attempt", [lambda logits, labels: None, lambda logits, labels: 0.0]
)
def test_an_attempt_that_returns_nothing_useful_is_a_failure(attempt):
    def tried(logits, labels):
        unused = logits.sum()  # noqa: F841
        return attempt(logits, labels)

    assert ex11.batch_loss.evaluate(tried).status == "failed"


def test_a_failed_check_is_an_assertion_error_without_a_long_traceback():
    with pytest.raises(AssertionError) as caught:
        ex00.megabytes.check(lambda parameters, bits: 0.5)
    assert isinstance(caught.value, CheckFailed)
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "Wanted: 1" in str(caught.value) and "Got:    0.5" in str(caught.value)
    assert "ex00.megabytes.hint()" in str(caught.value)


def test_a_passed_check_prints_one_line(capsys):
    assert ex00.megabytes.check(megabytes_in_bytes_first) is None
    assert capsys.readouterr().out == "ex00.megabytes: passed (all 4 cases).\n"


def changes_labels(labels, start, pad):
    labels[labels == -100] = pad
    return inputs_by_assignment(labels, start, pad)


def changes_logits(logits, labels):
    logits[labels == -100] = 0.0
    return loss_with_cross_entropy(logits, labels)


def changes_translations(sources, references, translations, key):
    pairs = corpus_by_loop(sources, references, translations, key)
    translations.clear()
    return pairs


def changes_by_sorting(deltas, p_values):
    deltas.sort()
    return verdict_with_numpy(deltas, p_values)


@pytest.mark.parametrize(
    ("name", "function", "argument"),
    [
        ("ex11.decoder_inputs", changes_labels, "labels"),
        ("ex11.batch_loss", changes_logits, "logits"),
        ("ex11.distilled_corpus", changes_translations, "translations"),
        ("ex11.verdict", changes_by_sorting, "deltas"),
    ],
)
def test_a_changed_argument_is_noticed_though_the_result_is_right(
    name, function, argument
):
    outcome = EXERCISES[name].evaluate(function)
    assert outcome.diagnosis == "mutation"
    assert f"changed its argument {argument}" in outcome.message


@pytest.mark.parametrize(
    ("kind", "said", "wrap"),
    [
        ("NaN", "NaN", lambda x: x * float("nan")),
        ("shape", "shape (1,) where ()", lambda x: x[None]),
        ("dtype", "float64 where float32", lambda x: x.double()),
        ("device", "device meta", lambda x: x.to("meta")),
        ("type", "is None", lambda x: None),
        ("type", "is a list; a tensor", lambda x: [x]),
        ("value", "", lambda x: 3 * x + 1),
    ],
)
def test_a_wrong_kind_of_result_is_named(kind, said, wrap):
    def function(logits, labels):
        return wrap(loss_with_cross_entropy(logits, labels))

    outcome = ex11.batch_loss.evaluate(function)
    assert (outcome.status, outcome.diagnosis) == ("failed", kind), outcome.message
    assert said in outcome.message


def test_an_error_names_the_learners_own_line():
    def function(logits, labels):
        rows = labels.tolist()
        return rows["first"]

    outcome = ex11.batch_loss.evaluate(function)
    assert outcome.diagnosis == "raised"
    assert 'Line:   return rows["first"]' in outcome.message


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        (lambda x: x, "signature", "it is called as megabytes(parameters, bits)"),
        (56.0, "not a function", "ex00.megabytes.check(megabytes)"),
        (None, "not a function", "was given None"),
    ],
)
def test_what_is_not_the_function_is_explained(given, key, said):
    outcome = ex00.megabytes.evaluate(given)
    assert (outcome.status, outcome.diagnosis) == ("failed", key)
    assert said in outcome.message


def test_the_text_is_the_same_every_time_and_random_states_stay_untouched():
    class Odd:
        pass

    def function(logits, labels):
        return Odd()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = ex11.batch_loss.evaluate(function).message
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    numpy.random.seed(3)
    assert ex11.batch_loss.evaluate(function).message == first
    assert "0x" not in first


def test_hints_come_one_by_one_and_the_solution_is_whole(capsys):
    ex11.batch_loss.hint()
    assert "Hint 1 of 3" in capsys.readouterr().out
    ex11.batch_loss.hint(3)
    assert "next" not in capsys.readouterr().out
    with pytest.raises(KdcourseError, match="from 1 to 3"):
        ex11.batch_loss.hint(4)
    ex11.batch_loss.solution()
    assert capsys.readouterr().out.startswith("def batch_loss(logits, labels):")


@pytest.mark.parametrize("name", EXERCISES)
def test_each_exercise_is_rated_and_called_by_its_own_name(name):
    exercise = EXERCISES[name]
    assert exercise.difficulty in range(1, 6) and exercise.minutes > 0
    assert exercise.call.startswith(name.partition(".")[2] + "(")
    assert len(exercise.hints) >= 2
    (source,) = (
        path.read_text("utf-8")
        for path in SOURCES
        if name in build_exercises.solutions_of(path)
    )
    assert f"Difficulty {exercise.difficulty}, {exercise.minutes} minute" in source
    assert f"\ndef {exercise.call}:\n" in source
    assert f"\n{name}.check({name.partition('.')[2]})\n" in source


@pytest.mark.parametrize(
    ("wanted", "got", "kind"),
    [
        ([1, 2], (n for n in (1, 2)), "type"),
        ([1, 2], [1], "length"),
        ({"a": 1}, {"a": 1, "b": 2}, "keys"),
        ({"a": 1}, {}, "keys"),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, "value"),
        (1.0, "1.0", "type"),
        (1.0, True, "type"),
        ("x", None, "type"),
        (2.0, math.nan, "NaN"),
    ],
)
def test_differences_have_a_kind(wanted, got, kind):
    assert difference(wanted, got).kind == kind


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ([1, 2.0], (1, torch.tensor(2.0))),
        (0.25, numpy.float64(0.25)),
        (math.nan, math.nan),
        (torch.ones(2), torch.ones(2) + 1e-7),
    ],
)
def test_what_means_the_same_is_no_difference(wanted, got):
    assert difference(wanted, got) is None


def test_a_message_never_grows_long():
    assert len(brief(list(range(10_000)))) < 320
    assert brief(torch.zeros(30, 40)) == "tensor (30, 40) float32"


# --------------------------------------------------------------- generated notebooks

SOURCES = build_exercises.sources()


def test_every_source_has_its_checks_and_every_exercise_its_source():
    assert checks.exercise_names() == list(EXERCISES)
    assert checks.exercise_names("11") == [n for n in EXERCISES if "ex11" in n]
    assert checks.names_in_notebook("11_mine") == checks.exercise_names("11")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_stub_and_solution_are_what_the_source_says(source, root):
    """Cells, byte for byte; the solved one's outputs are compared by nbval."""
    name = build_exercises.notebook_name(source)
    stub = build_exercises.as_text(build_exercises.stub(source))
    assert (root / "exercises" / name).read_text("utf-8") == stub
    committed = json.loads((root / "exercises/solutions" / name).read_text("utf-8"))
    for cell in committed["cells"]:
        if cell["cell_type"] == "code":
            cell.update(execution_count=None, outputs=[])
    made = json.loads(build_exercises.as_text(build_exercises.solved(source)))
    assert committed == made


def test_the_solutions_text_is_what_the_sources_say():
    text = build_exercises.as_json(build_exercises.all_solutions())
    assert build_exercises.SOLUTIONS_JSON.read_text("utf-8") == text


@pytest.mark.slow
def test_running_again_gives_the_same_bytes(capsys):
    assert build_exercises.main(["--check"]) == 0, capsys.readouterr()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_solution_leaks_into_a_stub(source, root):
    stub = (root / "exercises" / build_exercises.notebook_name(source)).read_text(
        "utf-8"
    )
    cells = json.loads(stub)["cells"]
    lines = {ln.strip() for c in cells for ln in "".join(c["source"]).splitlines()}
    regions = list(build_exercises.REGION.finditer(source.read_text("utf-8")))
    assert len(regions) == len(build_exercises.solutions_of(source))
    for region in regions:
        for line in region["body"].splitlines():
            assert line.strip() not in lines - {""}, line
    assert "SOLUTION" not in stub and '"outputs": []' in stub


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_stub_runs_to_its_end_not_attempted(source, capsys):
    space: dict = {}
    for cell in build_exercises.stub(source).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, source.stem, "exec"), space)
    said = capsys.readouterr().out
    names = list(build_exercises.solutions_of(source))
    assert [n for n in names if f"{n}: not attempted" in said] == names


def test_a_source_that_differs_is_noticed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build_exercises, "ROOT", tmp_path)
    monkeypatch.setattr(build_exercises, "SOLUTIONS_JSON", tmp_path / "solutions.json")
    monkeypatch.setattr(build_exercises, "notebooks", lambda names: {})
    assert build_exercises.main(["--check"]) == 1
    assert "differs: solutions.json" in capsys.readouterr().out
    assert not (tmp_path / "solutions.json").exists()
    assert build_exercises.main([]) == 0
    assert build_exercises.main(["--check"]) == 0


# ------------------------------------------------------------------- command line


def edited_stub(folder, *bodies: str):
    """The stub of lesson 00 with these bodies in place of the dots, in order."""
    notebook = build_exercises.stub(SOURCES[0])
    bodies = list(bodies)
    for cell in notebook.cells:
        if "...  # your code" in cell.source and bodies:
            cell.source = cell.source.replace("...  # your code", bodies.pop(0))
    path = folder / "00_start_here.ipynb"
    path.write_text(build_exercises.as_text(notebook), "utf-8")
    return path


@pytest.mark.slow
def test_check_reports_each_exercise_as_json(tmp_path, monkeypatch, capsys):
    bodies = ("return parameters * bits / 8e6", "return nonsense", "while True: pass")
    path = edited_stub(tmp_path, *bodies)
    before = path.read_bytes()
    progress = tmp_path / "learner.json"
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(progress))
    assert main(["check", str(path), "--json", "--seconds", "9"]) == 1
    (report,) = json.loads(capsys.readouterr().out)["notebooks"]
    statuses = {row["name"]: row["status"] for row in report["exercises"]}
    assert statuses == {
        "ex00.megabytes": "passed",
        "ex00.fits_budget": "failed",
        "ex00.shrink_report": "not attempted",
    }
    assert report["exercises"][1]["diagnosis"] == "raised"
    assert "NameError" in report["exercises"][1]["message"]
    assert [error["error"] for error in report["errors"]] == [
        "it took over 9 seconds; does a loop never end?"
    ]
    assert path.read_bytes() == before and not progress.exists()


@pytest.mark.parametrize(
    ("statuses", "errors", "usual", "strict"),
    [
        (["passed", "passed"], [], 0, 0),
        (["passed", "not attempted"], [], 0, 1),
        (["passed", "failed"], [], 1, 1),
        (["passed"], [{"cell": 3, "error": "NameError: no"}], 1, 1),
    ],
)
def test_the_exit_status_says_what_a_grader_must_know(
    monkeypatch, capsys, statuses, errors, usual, strict
):
    rows = [{"name": "ex", "status": s, "message": "why"} for s in statuses]
    report = {"notebook": "00_x.ipynb", "exercises": rows, "errors": errors}
    monkeypatch.setattr(check, "check_notebook", lambda path, seconds: report)
    assert main(["check", __file__]) == usual
    assert main(["check", __file__, "--strict"]) == strict
    said = capsys.readouterr().out
    assert ("why" in said) == ("failed" in statuses)
    assert ("Cell 3 stopped: NameError" in said) == bool(errors)


def test_check_explains_what_it_cannot_read(tmp_path, capsys):
    assert main(["check", str(tmp_path / "11_none.ipynb")]) == 1
    assert "There is no notebook" in capsys.readouterr().err
    (tmp_path / "mine.ipynb").write_text("{}")
    assert main(["check", str(tmp_path / "mine.ipynb")]) == 1
    assert "is not an exercise notebook" in capsys.readouterr().err
    (tmp_path / "11_mine.ipynb").write_text("not JSON")
    assert main(["check", str(tmp_path / "11*.ipynb")]) == 1
    assert "cannot be read" in capsys.readouterr().err
