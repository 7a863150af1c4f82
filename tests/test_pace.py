"""How fast a machine is: measured (by an injected clock), kept, used for labels."""

from __future__ import annotations

import itertools
import json
from argparse import Namespace

import nbformat
import pytest
import torch

from kdcourse.commands import course, doctor
from kdcourse.study import pace, progress, runner
from kdcourse.study.pace import REFERENCE, Speed

TWICE = Speed(2 * REFERENCE.matrix, 2 * REFERENCE.step)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(tmp_path / "learner" / "progress.json"))
    return tmp_path / "learner" / pace.FILE


class Clock:
    """A clock that only goes on when somebody works."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def working(clock, *seconds):
    """Work that takes these seconds, call after call; the last of them for ever."""
    costs = itertools.chain(seconds, itertools.repeat(seconds[-1]))

    def work():
        clock.now += next(costs)

    return work


# -------------------------------------------------------------------------- measured


def test_what_counts_is_the_median_after_a_round_to_warm_up():
    clock = Clock()
    work = working(clock, 60.0, 1.0, 1.0, 9.0, 9.0, 2.0, 2.0)
    typical = pace.typical(work, 2, 5.0, clock, clock)
    assert typical == 2.0  # 1, 9, 2: the 60 s of the first call are left out


def test_rounds_go_on_until_the_time_is_over():
    clock, calls = Clock(), []
    work = working(clock, 0.5)
    pace.typical(lambda: (work(), calls.append(1)), 1, 10.0, clock, clock)
    assert len(calls) == 20


def test_what_others_take_from_the_wall_does_not_count():
    own, wall = Clock(), Clock()

    def work():
        own.now += 0.01
        wall.now += 1.0

    assert pace.typical(work, 10, 5.0, own, wall) == pytest.approx(0.01)


def test_measuring_is_on_one_thread_and_leaves_no_trace(monkeypatch):
    torch.set_num_threads(2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    threads = []

    def typical(work, repeats, seconds, clock, wall):
        work()
        threads.append(torch.get_num_threads())
        return seconds / 1e3

    monkeypatch.setattr(pace, "typical", typical)
    assert pace.measure(seconds=8.0) == Speed(4.0, 4.0)
    assert threads == [1, 1] and torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_the_step_trains():
    step = pace.training_step()
    model = step.__closure__[[*step.__code__.co_freevars].index("model")].cell_contents
    step()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters()
    )


def test_a_factor_is_the_geometric_mean_of_both_ratios():
    assert REFERENCE.factor() == 1 and TWICE.factor() == pytest.approx(2)
    mixed = Speed(4 * REFERENCE.matrix, REFERENCE.step)
    assert mixed.factor() == pytest.approx(2)


# ------------------------------------------------------------------------------ kept


def test_a_speed_is_kept_beside_the_progress(own_progress):
    assert pace.kept() is None and pace.factor() == 1.0
    assert pace.keep(TWICE)
    assert own_progress.is_file() and pace.factor() == pytest.approx(2, rel=1e-3)
    assert pace.here([1.0, 0.5]) == pytest.approx([2.0, 1.0], rel=1e-3)
    progress.record("quizzes", "11.1", right=True)
    assert pace.factor() == pytest.approx(2, rel=1e-3)  # neither touches the other


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        b"\xff\xfe",
        '{"version": 9, "matrix": 1}',
    ],
)
def test_a_damaged_file_stops_nothing(text, own_progress):
    own_progress.parent.mkdir(parents=True)
    own_progress.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert pace.kept() is None and pace.factor() == 1.0
    assert pace.keep(TWICE) and pace.kept() is not None


@pytest.mark.parametrize(
    "change",
    [
        {"cores": 999},
        {"processor": "abacus"},
        {"matrix": 0},
        {"matrix": float("nan")},
        {"matrix": "fast"},
        {"step": 1e9},
        {"step": None},
    ],
)
def test_another_machines_speed_and_nonsense_are_ignored(change, own_progress):
    pace.keep(TWICE)
    data = json.loads(own_progress.read_text())
    own_progress.write_text(json.dumps(data | change))
    assert pace.kept() is None


def test_switched_off_or_not_writable_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")
    assert not pace.keep(TWICE) and pace.kept() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDCOURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert not pace.keep(TWICE) and pace.kept() is None


# ------------------------------------------------------------------------------ used


@pytest.fixture
def clone(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(runner, "course_folder", lambda: tmp_path)
    monkeypatch.setattr(runner, "interrupt_on_terminate", lambda: None)
    monkeypatch.setattr("kdcourse.__main__.main", lambda argv: 0)
    cell = nbformat.v4.new_code_cell("1")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "00_a.ipynb")
    runner.write_timings(folder, {"00_a": [40.0], "01_b": [80.0]})
    return folder


def test_the_course_tells_this_machines_time(clone, capsys):
    for speed, expected in ((None, "0:40"), (TWICE, "1:20")):
        if speed:
            pace.keep(speed)
        assert course.run(Namespace(lessons=["00"], mode="fast")) == 0
        assert f"about {expected} min" in capsys.readouterr().out


def test_the_doctor_prints_each_lessons_minutes(clone):
    rows = doctor.lesson_times().split("\n")
    assert rows[1].split() == ["minutes", "to", "run,", "fast", "mode", "recorded"]
    assert rows[2].split() == ["00_a", "0:40"]
    pace.keep(TWICE)
    rows = doctor.lesson_times().split("\n")
    assert rows[1].endswith("recorded      here")
    assert [row.split()[-2:] for row in rows[2:5]] == [
        ["0:40", "1:20"],
        ["1:20", "2:40"],
        ["2:00", "4:00"],
    ]


def test_the_doctor_is_silent_where_no_time_was_recorded(clone):
    (clone / runner.TIMINGS).unlink()
    assert doctor.lesson_times() == ""
    (clone / runner.TIMINGS).write_text("{")
    assert doctor.lesson_times() == ""


@pytest.mark.parametrize(
    ("load", "remedy"), [(0.1, ""), (64.0, "other programs rest")], ids=["idle", "busy"]
)
def test_the_doctor_measures_keeps_and_reports_the_load(load, remedy, monkeypatch):
    monkeypatch.setattr(pace, "measure", lambda: TWICE)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, 0, 0), raising=False)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 2)
    (finding,) = doctor.check_speed()
    assert "2.0 times as long as recorded" in finding.found
    assert f"1 thread, load {load:.1f}" in finding.found
    assert remedy in finding.remedy and bool(remedy) == bool(finding.remedy)
    assert not finding.fatal and pace.factor() == pytest.approx(2, rel=1e-3)


def test_the_doctor_says_when_nothing_can_be_kept_or_told(monkeypatch):
    monkeypatch.setattr(pace, "measure", lambda: TWICE)
    monkeypatch.setenv("KDCOURSE_PROGRESS", "off")
    (finding,) = doctor.check_speed()
    assert "cannot be kept" in finding.remedy and not finding.fatal
    monkeypatch.setattr(pace, "measure", lambda: Speed(0.0, 0.0))
    (finding,) = doctor.check_speed()
    assert "too coarse" in finding.found and not finding.remedy

    def broken():
        raise ImportError("no torch")

    monkeypatch.setattr(pace, "measure", broken)
    assert list(doctor.check_speed()) == []
