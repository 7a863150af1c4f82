"""What surrounds the lessons: set-up, quizzes, guesses, progress, figures, prose."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

import kdcourse
from kdcourse.__main__ import main
from kdcourse.commands import progress as progress_command
from kdcourse.errors import KdcourseError
from kdcourse.study import (
    checks,
    glossary,
    plots,
    predict,
    progress,
    prose,
    quizzes,
    settings,
    show,
)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    path = tmp_path / "learner" / "progress.json"
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(path))
    monkeypatch.setattr(progress, "_told", set())
    monkeypatch.setattr(predict, "_guesses", {})
    return path


# ------------------------------------------------------------------------- set-up


def test_setup_seeds_everything_and_says_so(monkeypatch, capsys):
    monkeypatch.delenv("KDCOURSE_MODE")

    def draw():
        made = kdcourse.setup(lesson="11", seed=4)
        return made, random.random(), numpy.random.rand(), torch.rand(1).item()

    first, second = draw(), draw()
    assert first == second
    assert first[0] == settings.Settings("11", "fast", 4, 1) and first[0].fast
    assert torch.get_num_threads() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]
    assert lines[0] == "lesson 11, mode fast, seed 4, 1 thread"
    assert re.fullmatch(r"(\w+ [\d.]+(, |$))+", lines[1])  # no build tag, no time
    assert lines[1].startswith(f"kdcourse {kdcourse.__version__}, torch 2.")


def test_full_mode_is_read_and_a_mistyped_one_explained(monkeypatch, capsys):
    monkeypatch.setenv("KDCOURSE_MODE", " Full ")
    assert not settings.setup().fast
    assert capsys.readouterr().out.startswith("mode full, seed 1, 1 thread")
    monkeypatch.setenv("KDCOURSE_MODE", "quick")
    with pytest.raises(KdcourseError, match="'quick'[^$]*fast[^$]*full[^$]*restart"):
        settings.setup()


def test_the_asked_number_of_threads_is_set(capsys):
    settings.setup(threads=2)
    assert torch.get_num_threads() == 2
    assert "2 threads" in capsys.readouterr().out


def test_no_threads_at_all_is_explained():
    with pytest.raises(KdcourseError, match="threads=0"):
        settings.setup(threads=0)


def test_setup_keeps_the_libraries_offline_though_imported_before():
    code = (
        "import huggingface_hub.constants as h; assert not h.is_offline_mode()\n"
        "import kdcourse; kdcourse.setup(); assert h.is_offline_mode()"
    )
    hub = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if k not in hub}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True
    )


def test_who_wants_to_be_online_may(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    settings.stay_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "0"


# ------------------------------------------------------------------------ quizzes

ITEMS = [item for n in quizzes.lessons_with_quiz() for item in quizzes.items_of(n)]


def test_the_lessons_have_their_quizzes():
    sizes = {n: len(quizzes.items_of(n)) for n in quizzes.lessons_with_quiz()}
    assert sizes["00"] == 5 and sizes["11"] == 6
    assert all(4 <= size <= 6 for size in sizes.values())


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_every_option_differs_and_is_explained(item):
    assert item.question.endswith("?")
    assert item.right in item.options and len(item.options) == 4
    for part in ("text", "why"):
        texts = {getattr(option, part) for option in item.options.values()}
        assert len(texts) == 4
    assert all(len(option.why.split()) >= 8 for option in item.options.values())


def test_neither_place_nor_length_gives_the_answer_away():
    rights = [item.right for item in ITEMS]
    assert set(rights) == set(quizzes.LETTERS)
    assert max(map(rights.count, rights)) <= len(rights) / 2
    longest = [
        max(item.options, key=lambda letter: len(item.options[letter].text))
        == item.right
        for item in ITEMS
    ]
    assert sum(longest) <= len(ITEMS) / 2


def test_the_two_questions_that_matter_most_are_asked_first():
    advantage, inputs = quizzes.items_of("00")[:2]
    assert "primary strategic advantage" in advantage.question
    assert "student's price" in advantage.options[advantage.right].text
    assert "relation between the inputs" in inputs.question
    assert "c'" in inputs.options[inputs.right].text


def test_a_question_shows_no_answer_and_a_lesson_all_its_questions(capsys):
    quizzes.quiz("00.1")
    text = capsys.readouterr().out
    for option in quizzes.items_of("00")[0].options.values():
        assert option.text in text and option.why not in text
    assert 'answer("00.1", "…")' in text
    quizzes.quiz("00")
    everything = capsys.readouterr().out
    assert text.strip() in everything and everything.count("Your answer:") == 5


def test_an_answer_is_judged_explained_and_recorded(capsys, own_progress):
    item = quizzes.items_of("00")[0]
    wrong = next(letter for letter in item.options if letter != item.right)
    quizzes.answer("00.1", wrong.lower())
    said = capsys.readouterr().out
    assert said.startswith(f"Not quite: {wrong}.") and item.options[wrong].why in said
    assert item.options[item.right].why not in said
    assert progress.load()["quizzes"]["00.1"] == {"right": False, "tries": 1}
    quizzes.answer("00.1", f" {item.right} ")
    assert capsys.readouterr().out.startswith(f"Right: {item.right}.")
    assert progress.load()["quizzes"]["00.1"] == {"right": True, "tries": 2}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: quizzes.quiz("77"), "no quiz for lesson '77'"),
        (lambda: quizzes.quiz("00.9"), "00.1, 00.2, 00.3, 00.4, 00.5"),
        (lambda: quizzes.answer("00", "A"), "no question '00'"),
        (lambda: quizzes.answer("00.1", "E"), "A, B, C, D"),
    ],
)
def test_a_mistyped_question_or_letter_is_explained(call, said):
    with pytest.raises(KdcourseError, match=re.escape(said)):
        call()


GOOD = 'right = "B"\nquestion = "What?"\n' + "".join(
    f'[item.{letter}]\ntext = "{letter}"\nwhy = "because {letter}"\n'
    for letter in "ABCD"
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('right = "B"', 'right = "E"'), "one of A, B, C, D"),
        (('why = "because C"\n', ""), "text and a why"),
        (('text = "D"', 'text = " "'), "text and a why"),
        (("[item.D]", "[item.E]"), "text and a why"),
    ],
)
def test_what_an_author_forgot_is_named(change, said):
    assert len(quizzes.parse(f"[[item]]\n{GOOD}", "77")) == 1
    with pytest.raises(ValueError, match=said):
        quizzes.parse("[[item]]\n" + GOOD.replace(*change), "77")


# -------------------------------------------------------------------- predictions


def test_without_a_guess_the_text_is_always_the_same(capsys):
    predict.predict("11.a", "How many times faster?", guess=...)
    predict.reveal("11.a", 36.9, shown="about 37 times")
    assert capsys.readouterr().out.splitlines() == [
        "Predict 11.a. How many times faster?",
        "Your guess: put a number for ... in this cell and run it again.",
        "Predict 11.a: you made no guess. The answer: about 37 times.",
    ]
    assert progress.load()["predictions"] == {}


@pytest.mark.parametrize(
    ("guess", "score", "right"),
    [
        (37, "close enough", True),
        (30, "close enough", True),
        (5, "7 times too low", False),
        (400, "11 times too high", False),
        (50, "too high", False),
        (-3, "too low", False),
    ],
)
def test_a_number_is_scored_by_its_distance(guess, score, right, capsys):
    predict.predict("11.a", "How many times faster?", guess=guess)
    predict.reveal("11.a", 36.9, shown="about 37 times")
    assert f"you guessed {guess}: {score}. The answer: about 37" in (
        capsys.readouterr().out
    )
    assert progress.load()["predictions"]["11.a"] == {"guess": guess, "right": right}


@pytest.mark.parametrize(("guess", "score"), [("a", "not so"), ("B", "right")])
def test_a_letter_is_scored_and_its_text_told(guess, score, capsys):
    options = {"A": "The teacher.", "B": "The student."}
    predict.predict("11.b", "Which is faster?", options=options, guess=guess)
    predict.reveal("11.b", "B")
    said = capsys.readouterr().out
    assert f"you guessed {guess.upper()}: {score}. The answer: B, The student." in said


def test_a_guess_survives_a_restart_of_the_kernel(capsys):
    predict.predict("11.a", "How many?", guess=12)
    predict._guesses.clear()
    predict.reveal("11.a", 12)
    assert "you guessed 12: close enough" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "guess"), [(None, "many"), (None, True), ({"A": "x", "B": "y"}, "C")]
)
def test_a_guess_of_the_wrong_kind_is_explained(options, guess):
    with pytest.raises(KdcourseError, match="cannot be the guess of 11.a"):
        predict.predict("11.a", "How many?", options=options, guess=guess)


# ----------------------------------------------------------------------- progress


def test_progress_is_kept_and_merged(own_progress):
    progress.record("quizzes", "11.1", right=False)
    progress.record("quizzes", "11.1", right=True)
    progress.record("quizzes", "11.2", right=False)
    assert progress.load()["quizzes"] == {
        "11.1": {"right": True},
        "11.2": {"right": False},
    }
    leftovers = {p.name for p in own_progress.parent.iterdir()} - {own_progress.name}
    assert leftovers <= {f"{own_progress.name}.lock"}


def test_checks_are_recorded_and_a_fresh_stub_takes_nothing_back(capsys):
    exercise = checks_of("00")["megabytes"]

    def stub(parameters, bits): ...

    exercise.check(stub)
    with pytest.raises(checks.CheckFailed):
        exercise.check(lambda parameters, bits: parameters * bits / 1e6)
    entry = progress.load()["exercises"]["ex00.megabytes"]
    assert entry["status"] == "failed" and entry["diagnosis"] == "bits as bytes"
    exercise.check(lambda parameters, bits: parameters * bits / 8e6)
    exercise.check(stub)
    entry = progress.load()["exercises"]["ex00.megabytes"]
    assert (entry["status"], entry["tries"]) == ("passed", 2)


def checks_of(lesson):
    from kdcourse.study.checks import ex00

    return vars({"00": ex00}[lesson])


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"version": 99}',
        b'{"version": 1, "quizzes": 3}',
        b'{"version": 1, "exercises": {"ex00.megabytes": "passed"}}',
    ],
)
def test_a_damaged_file_is_set_aside_and_nothing_lost(damage, own_progress, capsys):
    own_progress.parent.mkdir()
    own_progress.write_bytes(damage)
    older = own_progress.with_name("progress.json.damaged-1")
    older.write_text("an older one")
    progress.record("quizzes", "11.1", right=True)
    assert progress.load()["quizzes"] == {"11.1": {"right": True}}
    assert older.read_text() == "an older one"
    kept = own_progress.with_name("progress.json.damaged-2")
    assert kept.read_bytes() == damage
    said = capsys.readouterr().err
    assert str(kept) in said and said.count("could not be read") == 1


def test_a_failed_write_leaves_the_old_file_whole(own_progress, monkeypatch, capsys):
    progress.record("quizzes", "11.1", right=True)
    before = own_progress.read_bytes()

    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    progress.record("quizzes", "11.2", right=True)
    progress.record("quizzes", "11.3", right=True)
    assert own_progress.read_bytes() == before
    assert not list(own_progress.parent.glob("*.part"))
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1
    assert "KDCOURSE_PROGRESS" in said


def test_a_place_that_cannot_be_written_stops_no_lesson(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    progress.record("quizzes", "11.1", right=True)
    assert progress.load() == progress.empty()
    assert "was not saved" in capsys.readouterr().err


def test_switched_off_nothing_is_kept(monkeypatch, own_progress):
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")
    progress.record("quizzes", "11.1", right=True)
    assert progress.progress_path() is None and progress.load() == progress.empty()
    assert not own_progress.exists()


def test_the_usual_place_is_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("KDCOURSE_PROGRESS")
    path = progress.progress_path()
    assert path.name == "progress.json" and path.parent.name == "kdcourse"
    assert path.is_absolute()


def test_two_programs_at_once_lose_nothing(own_progress):
    code = (
        "import sys; from kdcourse.study import progress\n"
        "for i in range(25):\n"
        "    progress.record('quizzes', f'{sys.argv[1]}.{i}', right=True)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b")
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(progress.load()["quizzes"]) == 50


# ------------------------------------------------------------------------- the map


def test_an_empty_map_says_where_to_begin(capsys):
    assert main(["progress"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"lesson 00  exercises \[ ]\[ ]\[ ] +quiz 0 of 5", said)
    assert "Next: try ex00.megabytes in exercises/00_*.ipynb" in said


def test_the_map_shows_what_fails_first(capsys):
    progress.record("exercises", "ex00.megabytes", status="passed")
    progress.record("exercises", "ex11.verdict", status="failed", diagnosis="best seed")
    progress.record("quizzes", "11.2", right=True)
    assert main(["progress"]) == 0
    said = capsys.readouterr().out
    assert "lesson 00  exercises [x][ ][ ]" in said
    assert re.search(r"lesson 11  exercises (\[ ]){3}\[!]\[ ] +quiz 1 of 6", said)
    assert "Failing: ex11.verdict (best seed)" in said
    assert "Next: mend ex11.verdict in exercises/11_*.ipynb" in said
    assert main(["progress", "--json"]) == 0
    lessons = json.loads(capsys.readouterr().out)["lessons"]
    capstone = next(lesson for lesson in lessons if lesson["lesson"] == "11")
    assert capstone["exercises"]["ex11.verdict"] == "failed"


def test_the_map_ends_with_the_quizzes_and_then_with_praise():
    for name in checks.exercise_names():
        progress.record("exercises", name, status="passed")
    assert "question 00.1" in progress_command.next_step(progress_command.survey())
    for item in ITEMS:
        progress.record("quizzes", item.id, right=True)
    assert "nothing is left" in progress_command.next_step(progress_command.survey())


# ------------------------------------------------------------------------- figures

POINTS = [
    plots.Point("student", 2.0, 66.0, 2.5),
    plots.Point("untaught", 2.0, 63.0, 2.5),
]
EARLIER = [plots.Point("teacher, beam 4", 60.0, 68.0, 40.0)]


def test_area_not_radius_tells_the_size():
    fig = plots.size_latency_quality(POINTS, EARLIER)
    earlier, student, _ = fig.axes[0].collections
    assert earlier.get_sizes()[0] / student.get_sizes()[0] == pytest.approx(16)
    assert fig.axes[0].get_xscale() == "log"


def test_models_are_told_apart_without_colour():
    fig = plots.size_latency_quality(POINTS, EARLIER)
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts == ["teacher, beam 4\n40 MB", "student\n2.5 MB", "untaught\n2.5 MB"]
    earlier, student, _ = fig.axes[0].collections
    assert len(earlier.get_facecolor()) == 0 and len(student.get_facecolor()) == 1
    ends = plots.learning_curves(
        {"taught": ([1, 2], [3, 5]), "untaught": ([1, 2], [2, 4])},
        xlabel="million tokens",
        ylabel="chrF",
        levels={"teacher": 6.0},
    )
    taught, untaught = ends.axes[0].lines[:2]
    assert taught.get_linestyle() != untaught.get_linestyle()
    assert taught.get_marker() != untaught.get_marker()
    names = {text.get_text() for text in ends.axes[0].texts}
    assert names == {"taught", "untaught", "teacher"}


def boxes(fig):
    fig.draw_without_rendering()
    return [t.get_window_extent(fig.canvas.get_renderer()) for t in fig.axes[0].texts]


def test_labels_stay_clear_of_each_other():
    crowd = [
        plots.Point(f"model {i}", 2.0 + i / 2, 66.0 + i / 5, 3.0) for i in range(4)
    ]
    for fig in (
        plots.size_latency_quality(POINTS, [*EARLIER, *crowd[:2]]),
        plots.learning_curves(
            {str(i): ([1, 2], [1, 50 + i / 100]) for i in range(5)},
            xlabel="tokens",
            ylabel="chrF",
        ),
    ):
        rows = boxes(fig)
        pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
        assert not any(a.overlaps(b) for a, b in pairs)


@pytest.mark.parametrize("end", [0, 50])
def test_labels_stay_beside_the_axes(end):
    curves = {str(i): ([1, 2], [50 - end, end + i / 100]) for i in range(5)}
    fig = plots.learning_curves(curves, xlabel="tokens", ylabel="chrF")
    rows, axes = boxes(fig), fig.axes[0].bbox
    assert all(axes.y0 - 10 < row.y0 and row.y1 < axes.y1 + 10 for row in rows)


def test_bars_write_values_and_intervals_out():
    fig = plots.bars(
        {"seed 1": 2.7, "seed 2": -0.3}, {"seed 1": (1.9, 3.4)}, xlabel="BLEU"
    )
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts == ["2.7  [1.9, 3.4]", "-0.3"]


def test_a_figure_is_not_shown_without_its_text(capsys):
    fig = plots.bars({"a": 1.0}, xlabel="BLEU")
    with pytest.raises(KdcourseError, match="text alternative"):
        plots.show(fig, alt="")
    plots.show(fig, alt="One bar with the value one.")
    assert capsys.readouterr().out == "Figure: One bar with the value one.\n"


def test_in_a_notebook_a_figure_carries_its_text(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(show, "in_notebook", lambda: True)
    monkeypatch.setattr(
        IPython.display, "display", lambda data, **rest: shown.append((data, rest))
    )
    alt = "One bar with the value one."
    plots.show(plots.bars({"a": 1.0}, xlabel="BLEU"), alt=alt)
    (picture, rest), (caption, _) = shown
    assert picture["image/png"].startswith(b"\x89PNG")
    assert picture["text/plain"] == f"Figure: {alt}"
    assert rest["metadata"] == {"image/png": {"alt": alt}}
    assert caption["text/markdown"] == f"*Figure: {alt}*"
    assert len(picture["image/png"]) < 40_000


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.size_latency_quality([]),
        lambda: plots.learning_curves({}, xlabel="tokens", ylabel="chrF"),
        lambda: plots.bars({}, xlabel="BLEU"),
    ],
)
def test_nothing_to_plot_is_explained(draw):
    with pytest.raises(KdcourseError, match="given nothing to show"):
        draw()


# --------------------------------------------------------------------------- prose


def notebook(text, printed):
    output = {"output_type": "stream", "name": "stdout", "text": printed}
    return {
        "cells": [
            {"cell_type": "code", "source": ["…"], "outputs": [output]},
            {"cell_type": "markdown", "source": [text]},
        ]
    }


TEXT = (
    "It is <!--bind ratio-->37<!--/bind--> times\n"
    "<!-- bind who -->faster<!-- /bind -->."
)


def test_bound_text_agrees_with_its_cell(capsys):
    prose.bind(ratio=37, who="faster")
    printed = capsys.readouterr().out
    assert printed == "bound: ratio = 37\nbound: who = faster\n"
    assert prose.drift(notebook(TEXT, [printed])) == []


@pytest.mark.parametrize(
    ("text", "printed", "said"),
    [
        (TEXT, "bound: ratio = 38\nbound: who = faster\n", "ratio = 37, its cell 38"),
        (TEXT, "bound: ratio = 37\n", "who is quoted, but no cell prints it"),
        ("Fast.", "bound: ratio = 37\n", "ratio is bound but never quoted"),
        (TEXT, "bound: ratio = 37\n" * 2 + "bound: who = faster\n", "a second time"),
        ("<!--bind ratio-->37", "bound: ratio = 37\n", "has no <!--/bind-->"),
    ],
)
def test_drift_is_named(text, printed, said):
    assert said in "\n".join(prose.drift(notebook(text, printed)))


def test_a_raw_float_is_not_bound():
    with pytest.raises(KdcourseError, match="Round it first"):
        prose.bind(ratio=36.91234)


def test_the_committed_text_agrees_with_its_cells(root):
    paths = sorted(
        path
        for folder in ("notebooks", "exercises", "exercises/solutions")
        for path in (root / folder).glob("*.ipynb")
    )
    assert {str(p.relative_to(root)): d for p in paths if (d := prose.drift(p))} == {}


# ------------------------------------------------------------------------ glossary


def test_every_term_is_explained_once(root):
    names = [n.casefold() for t in glossary.terms() for n in (t.name, *t.also)]
    assert len(names) == len(set(names))
    assert all(4 <= len(term.meaning.split()) <= 60 for term in glossary.terms())
    lessons = {path.name[:2] for path in (root / "notebooks").glob("*.ipynb")}
    assert {term.lesson for term in glossary.terms()} == lessons


def test_terms_are_found_by_any_of_their_names(capsys):
    glossary.glossary("Knowledge Distillation", "control")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("knowledge distillation: Training a small model")
    assert said[1].startswith("untaught student:")
    glossary.glossary(lesson="07")
    assert "paired seeds" in capsys.readouterr().out
    glossary.glossary()
    assert len(capsys.readouterr().out.splitlines()) == len(glossary.terms())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: glossary.glossary("distilation"), "knowledge distillation"),
        (lambda: glossary.glossary("xyzzy"), "shows them all"),
        (lambda: glossary.glossary(lesson="99"), "one of 00, "),
    ],
)
def test_an_unknown_term_is_explained(call, said):
    with pytest.raises(KdcourseError, match=said):
        call()


def test_rebinding_writes_what_the_cells_printed():
    import rebind_prose

    text = "about <!--bind gain-->9<!--/bind--> and <!--bind lost-->3<!--/bind-->"
    output = {"output_type": "stream", "text": ["bound: gain = 2.7\n"]}
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": [text]},
            {"cell_type": "code", "source": [], "outputs": [output]},
        ]
    }
    assert rebind_prose.rebind(notebook) == 1
    assert "".join(notebook["cells"][0]["source"]) == text.replace("9", "2.7")
    assert rebind_prose.rebind(notebook) == 0


def test_a_file_that_cannot_be_read_today_is_not_written_over(
    own_progress, monkeypatch, capsys
):
    progress.record("quizzes", "11.1", right=True)
    before = own_progress.read_bytes()
    with monkeypatch.context() as broken:

        def refuse(*given, **how):
            raise OSError(errno.ESTALE, "Stale file handle")

        broken.setattr(Path, "read_text", refuse)
        progress.record("quizzes", "11.2", right=True)
        assert progress.load() == progress.empty()
    assert own_progress.read_bytes() == before
    assert "was not saved (Stale file handle)" in capsys.readouterr().err
