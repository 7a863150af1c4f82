"""How sure against how right: stored, scored, drawn, and honest about small numbers."""

from __future__ import annotations

import json
import random

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcourse.__main__ import main
from kdcourse.errors import KdcourseError
from kdcourse.study import predict, progress
from kdcourse.study.figures import calibration
from kdcourse.study.figures.calibration import Answer

OPTIONS = {"A": "The teacher.", "B": "The student."}
ANSWERS = st.lists(st.builds(Answer, st.floats(0, 1), st.booleans()), min_size=1)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(path))
    monkeypatch.setattr(progress, "_told", set())
    monkeypatch.setattr(predict, "_guesses", {})
    monkeypatch.setattr(predict, "_sureness", {})
    return path


def guess(name, letter, **sure):
    predict.predict(name, "Which is faster?", options=OPTIONS, guess=letter, **sure)


def stored(name):
    return progress.load()["predictions"][name]


# ------------------------------------------------------------------ stored and scored


@pytest.mark.parametrize(
    ("sure", "share"),
    [(0.8, 0.8), (80, 0.8), (1, 1.0), (0, 0.0), (1.5, 0.015), (100, 1.0)],
)
def test_a_sureness_is_kept_as_a_share(sure, share, capsys):
    guess("11.b", "B", sure=sure)
    assert stored("11.b") == {"guess": "B", "sure": pytest.approx(share)}
    assert f"B, {100 * share:.0f} % sure. Kept" in capsys.readouterr().out


@pytest.mark.parametrize("sure", [-0.1, 101, float("nan"), "80 %", True, [0.8]])
def test_a_sureness_that_is_none_is_explained(sure):
    with pytest.raises(KdcourseError, match="sureness of 11.b[^$]*share[^$]*sure=0.8"):
        guess("11.b", "B", sure=sure)
    assert progress.load()["predictions"] == {}


def test_a_number_and_a_letter_are_scored(capsys):
    guess("11.b", "A", sure=0.9)
    predict.reveal("11.b", "B")
    assert "You were 90 % sure: Brier score 0.81" in capsys.readouterr().out
    predict.predict("11.a", "How many?", guess=40, sure=70)
    predict.reveal("11.a", 36.9)
    assert "close enough" in capsys.readouterr().out
    assert predict.answers() == [Answer(0.7, True), Answer(0.9, False)]


def test_without_a_sureness_a_guess_tells_of_it_and_counts_for_nothing(capsys):
    guess("11.b", "B")
    assert "`" not in capsys.readouterr().out.replace("`...`", "")
    predict.reveal("11.b", "B")
    assert capsys.readouterr().out == (
        "Predict 11.b: you guessed B: right. The answer: B, The student.\n"
    )
    assert stored("11.b") == {"guess": "B", "right": True}
    assert predict.answers() == []


def test_blanks_print_what_they_always_printed(capsys, own_progress):
    guess("11.b", ..., sure=...)
    predict.reveal("11.b", "B")
    said = capsys.readouterr().out
    assert "put a letter for ... in this cell and run it again.\n" in said
    assert said.endswith("you made no guess. The answer: B, The student.\n")
    assert not own_progress.exists()


def test_what_counts_is_the_guess_at_the_first_reveal():
    guess("11.b", "A", sure=0.9)
    predict.reveal("11.b", "B")
    guess("11.b", "B", sure=1)  # now the answer is known
    predict.reveal("11.b", "B")
    assert predict.answers() == [Answer(0.9, False)]
    assert stored("11.b")["right"] is True


def test_a_second_thought_before_the_reveal_takes_the_first_back():
    guess("11.b", "A", sure=0.9)
    guess("11.b", "B")
    predict.reveal("11.b", "B")
    assert predict.answers() == []


def test_a_sureness_survives_a_restart_and_needs_no_file(monkeypatch, capsys):
    guess("11.b", "B", sure=0.6)
    predict._guesses.clear()
    predict._sureness.clear()
    predict.reveal("11.b", "B")
    assert predict.answers() == [Answer(0.6, True)]
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")
    guess("11.c", "B", sure=0.6)
    predict.reveal("11.c", "B")
    assert "Brier score 0.16" in capsys.readouterr().out


def test_files_of_before_and_damaged_entries_are_read(own_progress):
    entries = {
        "old": {"guess": "B", "right": True},
        "good": {"guess": 3, "scored": {"sure": 1, "right": False}},
        "no share": {"scored": {"sure": 7, "right": True}},
        "no number": {"scored": {"sure": "much", "right": True}},
        "no outcome": {"scored": {"sure": 0.5, "right": "yes"}},
        "no scores": {"scored": [0.5, True]},
    }
    own_progress.write_text(
        json.dumps({"version": 1, "exercises": {}, "predictions": entries})
    )
    assert predict.answers() == [Answer(1.0, False)]


# -------------------------------------------------------------------- the statistics


def test_wilsons_interval_has_the_published_values():
    # n = 10: computed by hand from the formula with z = 1.96
    assert calibration.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert calibration.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert calibration.wilson(1, 1) == pytest.approx((0.2065, 1.0), abs=1e-4)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_its_share_and_solves_its_equation(case):
    right, count = case
    low, high = calibration.wilson(right, count)
    share = right / count
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    for bound in (low, high):  # (p - b)² = z² b (1 - b) / n: Wilson's definition
        spread = calibration.Z**2 * bound * (1 - bound) / count
        assert (share - bound) ** 2 == pytest.approx(spread, abs=1e-12)
    mirrored = calibration.wilson(count - right, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = random.Random(5), 0
    for _ in range(2000):
        truth, count = rng.uniform(0.1, 0.9), rng.randint(5, 40)
        right = sum(rng.random() < truth for _ in range(count))
        low, high = calibration.wilson(right, count)
        covered += low <= truth <= high
    assert 0.93 < covered / 2000 < 0.97


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_brier_score_rewards_what_one_believes(belief, said):
    def expected(sure):
        right, wrong = Answer(sure, True), Answer(sure, False)
        one, other = calibration.brier([right]), calibration.brier([wrong])
        return belief * one + (1 - belief) * other

    assert expected(belief) <= expected(said) + 1e-12


@given(ANSWERS)
def test_every_answer_is_in_one_group(answers):
    groups = calibration.groups(answers)
    assert sum(group.count for group in groups) == len(answers)
    assert sum(group.right for group in groups) == sum(a.right for a in answers)
    for group in groups:
        assert group.low <= group.sure <= group.high + 1e-12
    rows = calibration.text_plot(answers).split("\n")[1:-1]
    assert len(rows) == len(groups) and len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(
    ("sure", "right", "count", "said"),
    [
        (0.9, 9, 9, "9 predictions are too few to judge by"),
        (0.9, 1, 1, "1 prediction is too few to judge by"),
        (0.9, 10, 20, "You are too sure: sure to 90 % on average, right in 50 %"),
        (0.5, 19, 20, "You know more than you think: sure to 50 %"),
        (0.8, 16, 20, "Neither too sure nor too modest"),
    ],
)
def test_the_verdict_is_careful(sure, right, count, said):
    answers = [Answer(sure, place < right) for place in range(count)]
    assert calibration.verdict(answers).startswith(said)


# ----------------------------------------------------------------------------- shown


def test_with_nothing_to_draw_it_says_what_to_do(monkeypatch, capsys):
    predict.calibration()
    said = capsys.readouterr().out
    assert "nothing to draw yet" in said and 'guess="B", sure=0.8' in said
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")
    predict.calibration()
    assert main(["progress", "--calibration"]) == 0
    assert capsys.readouterr().out == said * 2


@pytest.fixture
def some_answers(capsys):
    for number, (sure, letter) in enumerate([(0.6, "B"), (0.6, "A"), (0.95, "B")]):
        guess(f"11.{number}", letter, sure=sure)
        predict.reveal(f"11.{number}", "B")
    capsys.readouterr()


def test_the_plot_has_counts_intervals_and_words(some_answers, capsys):
    fig = calibration.draw(predict.answers())
    labels = [text.get_text() for text in fig.axes[0].texts]
    assert {"1 of 2", "1 of 1"} <= set(labels)
    plt.close(fig)
    predict.calibration()
    said = capsys.readouterr().out
    assert "50-69 % sure: 1 of 2 right (95 % interval 9 to 91 %)" in said
    assert "3 predictions are too few" in said and "Brier score 0.17" in said


def test_the_command_draws_in_text_and_as_a_picture(some_answers, tmp_path, capsys):
    picture = tmp_path / "mine.png"
    assert main(["progress", "--calibration", str(picture)]) == 0
    rows = capsys.readouterr().out.splitlines()
    middle = next(row for row in rows if "1 of 2" in row).split()[-1]
    assert middle[20] == "o" and middle[24] == "|" and len(middle) == 41
    assert middle[3] == "." and middle[4] == "-" == middle[36] and middle[37] == "."
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["progress", "--calibration", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["predictions"] == 3 and [g["count"] for g in data["groups"]] == [2, 1]


@pytest.mark.parametrize("name", ["mine.svg", "no/such/folder/mine.png"])
def test_a_picture_that_cannot_be_written_is_explained(name, some_answers, capsys):
    assert main(["progress", "--calibration", name]) == 1
    said = capsys.readouterr().err
    assert name in said and "To do:" in said and "Traceback" not in said
