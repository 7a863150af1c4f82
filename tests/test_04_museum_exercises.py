"""The bug museum's exercises: what test_exercises asks of all, and what is theirs."""

from __future__ import annotations

import time

import build_exercises
import learners.ex04_museum  # noqa: F401  it registers itself
import pytest
import torch
from learners.register import MUTANTS, RIGHT

import kdcourse
from kdcourse.study import lineup
from kdcourse.study.checks import core, ex04_museum, property_tests

EXERCISES = {
    exercise.name: exercise
    for exercise in vars(ex04_museum).values()
    if isinstance(exercise, core.Exercise)
}
TESTS = [n for n, e in EXERCISES.items() if isinstance(e, property_tests.PropertyTest)]
RIGHT_ONES = [(n, f) for n in EXERCISES for f in RIGHT[n]]
WRONG_ONES = [(n, key, f) for n in EXERCISES for key, f in MUTANTS[n]]
SOURCE = build_exercises.SOURCES / "ex04_museum.py"


@pytest.fixture(scope="module")
def space():
    """The names of the stub's notebook, run to its end."""
    names: dict = {}
    for cell in build_exercises.stub(SOURCE).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, SOURCE.stem, "exec"), names)
    return names


# ------------------------------------------------------------ the tests that are tested


@pytest.mark.parametrize(("name", "function"), RIGHT_ONES)
def test_right_tests_pass(name, function):
    outcome = EXERCISES[name].evaluate(function)
    assert outcome.status == "passed", outcome.message


@pytest.mark.parametrize(
    ("name", "key", "function"),
    WRONG_ONES,
    ids=[f"{name}-{key}-{n}" for n, (name, key, _) in enumerate(WRONG_ONES)],
)
def test_wrong_tests_get_their_own_diagnosis(name, key, function):
    started = time.process_time()
    outcome = EXERCISES[name].evaluate(function)
    assert (outcome.status, outcome.diagnosis) == ("failed", key), outcome.message
    assert time.process_time() - started < 1


@pytest.mark.parametrize("name", EXERCISES)
def test_every_misconception_has_a_mutant_and_keeps_its_name(name):
    exercise = EXERCISES[name]
    named = [m.key for m in exercise.misconceptions]
    assert len(named) == len(set(named)) >= 4
    assert set(named) == {key for key, _ in MUTANTS[name]}
    for misconception in exercise.misconceptions:
        for function in misconception.functions:
            assert exercise.evaluate(function).diagnosis == misconception.key


@pytest.mark.parametrize("name", TESTS)
def test_a_line_up_has_right_losses_wrong_ones_and_ones_wrong_otherwise(name):
    exercise = EXERCISES[name]
    verdicts = [exercise.reference(*c.arguments.values()) for c in exercise.cases()]
    assert verdicts.count(True) >= 4 and verdicts.count(False) >= 5
    assert len({case.name for case in exercise.cases()}) == len(verdicts)


@pytest.mark.parametrize("name", TESTS)
def test_verdicts_do_not_hang_on_rounding(name):
    """The reference says the same of the losses rounded to four digits, or larger."""
    exercise = EXERCISES[name]
    known = {misconception.key for misconception in exercise.misconceptions}
    for case in exercise.cases():
        (loss,) = case.arguments.values()
        verdict = exercise.reference(loss)
        for key, change in exercise.probes.items():
            if key in known:
                assert exercise.reference(change(loss)) is verdict, (key, case.name)


@pytest.mark.parametrize("name", TESTS)
def test_a_message_does_not_name_the_code_of_a_suspect(name):
    for function in (lambda loss: True, lambda loss: False):
        message = EXERCISES[name].evaluate(function).message
        assert "the function suspect" in message


def test_a_bool_of_torch_or_numpy_is_an_answer():
    exercise = EXERCISES["ex04.ignores_repetition"]

    def as_tensor(loss):
        return torch.tensor(exercise.reference(loss))

    def as_numpy(loss):
        return as_tensor(loss).numpy()[()]

    assert exercise.evaluate(as_tensor).status == "passed"
    assert exercise.evaluate(as_numpy).status == "passed"


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "was return forgotten?"), (0.1, "a bool is wanted")]
)
def test_what_is_no_answer_is_named(answer, said):
    def test(loss):
        loss(*lineup.make_batch((3, 2)))
        return answer

    outcome = EXERCISES["ex04.ignores_repetition"].evaluate(test)
    assert outcome.diagnosis == "type" and said in outcome.message


@pytest.mark.parametrize(
    ("turned", "key"),
    [
        ("mean over the vocabulary", "blames one without cause"),
        ("softmax over time", "lets one through"),
    ],
)
def test_what_no_misconception_explains_is_said_in_words(turned, key):
    """One verdict of the line-up is exchanged, and nothing known explains it."""
    exercise = EXERCISES["ex04.leaves_pads_alone"]
    batch = lineup.make_batch((5, 3))
    (odd,) = (c.arguments["loss"] for c in exercise.cases() if c.name == turned)

    def nearly_right(loss):
        is_odd = torch.isclose(loss(*batch), odd(*batch))
        return exercise.reference(loss) is not bool(is_odd)

    outcome = exercise.evaluate(nearly_right)
    assert (outcome.status, outcome.diagnosis) == ("failed", key), outcome.message
    assert f'the case "{turned}"' in outcome.message


# ------------------------------------------------------------------------ the notebook


def test_the_audit_agrees_with_the_notebook_on_each_exhibit(space):
    diagnoses = {
        1: "mean-over-vocabulary",
        2: "divided-by-sentences",
        3: "pads-averaged-in",
        5: "softmax-over-time",
        7: "eos-erased",
        8: "t-squared-forgotten",
        9: "off-by-one",
        10: "beta-mirrored",
    }
    for number, slug in diagnoses.items():
        report = kdcourse.audit(space[f"exhibit_{number}"])
        assert [found.slug for found in report.diagnoses] == [slug]
    assert kdcourse.audit(space["exhibit_4"]).passed
    asked = kdcourse.audit(space["exhibit_4_as_asked"])
    assert [found.slug for found in asked.diagnoses] == ["log-target-forgotten"]


def test_each_exhibit_but_one_fails_the_test_that_is_made_for_it(space):
    verdicts = [
        EXERCISES[name].reference(exhibit)
        for name, exhibit in zip(TESTS, space["exhibits"], strict=True)
    ]
    assert [n for n, holds in enumerate(verdicts, 1) if holds] == [4]
    assert EXERCISES["ex04.false_report"].reference() == 4
    assert not EXERCISES["ex04.is_a_divergence"].reference(space["exhibit_4_as_asked"])


@pytest.mark.parametrize("guess", [3, 0, 11, "4", [4], None, True])
def test_a_wrong_guess_does_not_see_which_report_is_false(guess):
    outcome = EXERCISES["ex04.false_report"].evaluate(lambda: guess)
    assert outcome.status == core.FAILED
    shown = outcome.message.replace(f"Got:    {guess!r}", "").replace("ex04", "")
    assert "Wanted" not in shown and "4" not in shown


def test_no_name_in_the_line_ups_says_which_call_of_kl_div_is_right():
    for name in TESTS:
        for case in EXERCISES[name].cases():
            assert "target" not in case.name


def test_the_notebook_lists_the_exercises_in_their_order(space):
    names = list(build_exercises.solutions_of(SOURCE))
    assert names == list(EXERCISES)
    assert [f"ex04.{test.__name__}" for test in space["tests"]] == TESTS


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_runs_on_its_own(name):
    code = build_exercises.solutions_of(SOURCE)[name]
    own: dict = {"torch": torch}
    exec(code, own)
    assert EXERCISES[name].evaluate(own[name.partition(".")[2]]).status == "passed"


def test_nothing_in_the_stub_tells_which_report_is_false():
    text = "\n".join(cell.source for cell in build_exercises.stub(SOURCE).cells)
    for word in ("return 4", "log_target", "reported_though_right", "as it stood"):
        assert word not in text


# --------------------------------------------------------------------------- the tools


def test_a_batch_is_what_its_docstring_says():
    student, teacher, labels = lineup.make_batch((4, 1, 2), vocabulary=6, seed=3)
    assert student.shape == teacher.shape == (3, 4, 6)
    assert (labels != lineup.IGNORE).sum(1).tolist() == [4, 1, 2]
    assert (labels == lineup.EOS).sum(1).tolist() == [1, 1, 1]
    assert labels.max() < 6 and labels[0, :3].min() >= 2
    again = lineup.make_batch((4, 1, 2), vocabulary=6, seed=3)
    assert all(map(torch.equal, (student, teacher, labels), again))
    assert not torch.equal(student, lineup.make_batch((4, 1, 2), 6, seed=4)[0])


def test_a_gradient_is_that_of_autograd_or_zero():
    batch = lineup.make_batch((3, 2))
    twice = lineup.gradient(lambda s, t, y, by: (by * s).sum(), *batch, by=2.0)
    assert torch.equal(twice, torch.full_like(batch[0], 2.0))
    for unmoved in (lambda s, t, y: t.sum(), lambda s, t, y: (s - s).sum().detach()):
        assert not lineup.gradient(unmoved, *batch).any()
    assert batch[0].grad is None and not batch[0].requires_grad
