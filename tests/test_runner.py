"""Lessons run on copies, failures are located, and no kernel outlives its runner."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest

from kdcourse.commands import course, doctor, lab
from kdcourse.commands import test as suites
from kdcourse.errors import KdcourseError
from kdcourse.study import results, runner
from kdcourse.study.runner import Progress, clock, seconds_left


def write(path, *sources):
    cells = [nbformat.v4.new_markdown_cell("# A lesson")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def environment():
    with runner.kernel_environment("full", KDCOURSE_RESULTS="there") as variables:
        yield variables


def test_a_copy_is_run_in_the_lessons_folder(tmp_path, environment):
    source = (
        "import os\nprint(os.environ['KDCOURSE_MODE'], os.environ['KDCOURSE_RESULTS'])"
    )
    path = write(tmp_path / "00_a.ipynb", "import os", "", source, "print(os.getcwd())")
    before = path.read_bytes()
    seen = []
    outcome = runner.run_notebook(path, environment, show=lambda p: seen.append(p.done))
    assert outcome.failure is None
    assert path.read_bytes() == before
    assert len(outcome.seconds) == 3, "an empty cell is no cell"
    assert seen[-1] == 3
    texts = [c.outputs[0].text for c in outcome.notebook.cells if c.get("outputs")]
    assert texts == ["full there\n", f"{tmp_path.resolve()}\n"]


def test_a_failing_cell_is_named(tmp_path, environment):
    path = write(tmp_path / "00_a.ipynb", "a = 1", "", "# try it\n1 / 0", "b = 1")
    failure = runner.run_notebook(path, environment).failure
    assert failure.number == 2
    assert failure.first_line == "# try it"
    assert failure.error == "ZeroDivisionError: division by zero"


def test_a_dying_kernel_is_a_failure_of_its_cell(tmp_path, environment):
    path = write(tmp_path / "00_a.ipynb", "import os", "os._exit(3)")
    failure = runner.run_notebook(path, environment).failure
    assert failure.number == 2 and "died" in failure.error


def test_an_endless_cell_is_a_failure(tmp_path, environment):
    path = write(tmp_path / "00_a.ipynb", "while True: pass")
    failure = runner.run_notebook(path, environment, timeout=2).failure
    assert failure.error.startswith("CellTimeoutError")


def test_a_kernel_that_does_not_start_is_a_failure(tmp_path, monkeypatch, environment):
    def broken(*args, **kwargs):
        raise OSError("no ports left")

    monkeypatch.setattr(runner.AsyncKernelManager, "start_kernel", broken)
    path = write(tmp_path / "00_a.ipynb", "1")
    failure = runner.run_notebook(path, environment).failure
    assert failure.number == 0 and failure.error == "OSError: no ports left"


@pytest.mark.skipif(os.name == "nt", reason="signals as Unix has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_kernel_is_left_behind(tmp_path, number):
    note = tmp_path / "pid"
    source = (
        f"import os, pathlib, time\npathlib.Path({str(note)!r}).write_text"
        "(str(os.getpid()))\nwhile True: pass"
    )
    path = write(tmp_path / "00_a.ipynb", source)
    code = (
        "import sys, pathlib\nfrom kdcourse.study import runner\n"
        "runner.interrupt_on_terminate()\n"
        "with runner.kernel_environment('fast') as e:\n"
        f"    runner.run_notebook(pathlib.Path({str(path)!r}), e)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    wait_for(lambda: note.exists() and note.read_text())
    kernel = int(note.read_text())
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    wait_for(lambda: not alive(kernel))


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().split()[2] == "Z")


# ------------------------------------------------------------------ finding lessons


def test_lessons_are_found_by_number(tmp_path):
    for name in ("11_b", "00_a", "scratch"):
        write(tmp_path / f"{name}.ipynb")
    names = [path.stem for path in runner.find_lessons(tmp_path)]
    assert names == ["00_a", "11_b"]
    assert [p.stem for p in runner.find_lessons(tmp_path, ["11", "0"])] == names
    with pytest.raises(KdcourseError, match="no lesson 07"):
        runner.find_lessons(tmp_path, ["7"])
    with pytest.raises(KdcourseError, match="no lesson at all"):
        runner.find_lessons(tmp_path / "nothing")


# ------------------------------------------------------------------ time left


def at(done, seconds, cell_started=100.0, cells=4):
    return Progress(
        cells, done, seconds=seconds, started=0.0, cell_started=cell_started
    )


def test_time_left_is_the_record_at_this_machines_pace():
    recorded = [2.0, 2.0, 10.0, 20.0]
    assert seconds_left(at(0, []), recorded, 100.0) == 34
    twice_as_slow = at(2, [4.0, 4.0])
    assert seconds_left(twice_as_slow, recorded, 100.0) == 60
    assert seconds_left(twice_as_slow, recorded, 105.0) == 55
    assert seconds_left(twice_as_slow, recorded, 900.0) == 40, "never below the rest"
    assert seconds_left(at(4, [4.0] * 4), recorded, 100.0) == 0
    assert seconds_left(at(0, []), recorded[:2], 100.0) is None
    assert seconds_left(at(0, []), [], 100.0) is None


def test_clock():
    assert [clock(s) for s in (0, 9.6, 75, 3600)] == ["0:00", "0:10", "1:15", "60:00"]


def test_timings_are_written_and_read(tmp_path):
    assert runner.read_timings(tmp_path) == {}
    runner.write_timings(tmp_path, {"11_b": [0.04, 61.26], "00_a": []})
    assert runner.read_timings(tmp_path) == {"00_a": [], "11_b": [0.0, 61.3]}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Log(io.StringIO):
    encoding = "ascii"


def test_the_bar_is_redrawn_on_a_terminal_and_sparing_in_a_log():
    progress = at(1, [2.0], time.monotonic())
    progress.started = time.monotonic()
    for stream, lines in ((Terminal(), 1), (Log(), 2)):
        bar = runner.Bar("00_start_here", [2.0, 2.0, 10.0, 20.0], stream)
        for _ in range(3):
            bar.show(progress)
        said = stream.getvalue()
        progress.finished = True
        bar.show(progress)
        progress.finished = False
        assert stream.getvalue().count("\n") == lines
        assert re.search(r"00_start_here .* 1/4 cells  .*0:00, 0:32 left", said)
    assert stream.getvalue().isascii()
    assert "time left unknown" in runner.Bar("a", [], Log()).line(progress, 1e6)


# ------------------------------------------------------------------ the course command


@pytest.fixture
def clone(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(runner, "course_folder", lambda: tmp_path)
    monkeypatch.setattr(runner, "interrupt_on_terminate", lambda: None)
    monkeypatch.setattr("kdcourse.__main__.main", lambda argv: 0)
    return folder


def sound_results():
    column = {"parameters": 1, "megabytes": 1.5, "bleu": 48, "chrf": 67.25, "ms": 1.25}
    sample = {key: f"{key} text" for key in results.SAMPLE_COLUMNS}
    return {
        "columns": [{"name": name, **column} for name in results.COLUMNS],
        "signatures": {"bleu": "nrefs:1|bleu", "chrf": "nrefs:1|chrf"},
        "ms_unit": "median, one thread",
        "samples": [sample] * results.SAMPLES,
    }


def writing(figures):
    text = json.dumps(figures)
    return (
        "import os, pathlib\n"
        f"pathlib.Path(os.environ['KDCOURSE_RESULTS']).write_text({text!r})"
    )


def test_the_course_ends_with_table_and_samples(clone, capsys):
    write(clone / "00_a.ipynb", "1")
    write(clone / "11_b.ipynb", writing(sound_results()))
    assert course.run(Namespace(lessons=[], mode="fast")) == 0
    said = capsys.readouterr()
    for word in ("untaught student", "BLEU [1]", "nrefs:1|chrf", "67.2", "make lab"):
        assert word in said.out
    assert said.out.count("source text") == results.SAMPLES
    assert "00_a" in said.err and "11_b" in said.err


def test_a_failing_lesson_ends_the_course_with_a_report(clone, capsys):
    write(clone / "00_a.ipynb", "raise ValueError('no teacher')")
    write(clone / "11_b.ipynb", "1")
    assert course.run(Namespace(lessons=[], mode="fast")) == 1
    said = capsys.readouterr().err
    assert "Lesson 00_a stopped in code cell 1" in said
    assert "ValueError: no teacher" in said and "doctor" in said
    assert "skipped: 11_b" in said


def test_a_capstone_without_figures_is_an_error(clone):
    write(clone / "11_b.ipynb", "1")
    with pytest.raises(results.ResultsError, match="left no figures"):
        course.run(Namespace(lessons=["11"], mode="fast"))


def test_a_failed_fetch_ends_the_course(clone, monkeypatch):
    write(clone / "00_a.ipynb", "1")
    monkeypatch.setattr("kdcourse.__main__.main", lambda argv: 1)
    assert course.run(Namespace(lessons=[], mode="fast")) == 1


# ------------------------------------------------------------------ its figures


def spoil(change):
    figures = sound_results()
    change(figures)
    return json.dumps(figures)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[]", "a list where an object"),
        ("{}", "columns"),
        (spoil(lambda f: f["columns"].reverse()), "columns"),
        (spoil(lambda f: f["columns"][1].pop("bleu")), "'bleu' of 'untaught' is None"),
        (spoil(lambda f: f["columns"][0].update(ms="1")), "'ms' of 'teacher'"),
        (spoil(lambda f: f["columns"][0].update(parameters=1.5)), "'parameters'"),
        (spoil(lambda f: f["signatures"].pop("chrf")), "signatures"),
        (spoil(lambda f: f.update(signatures="x")), "signatures"),
        (spoil(lambda f: f.update(ms_unit="")), "ms_unit"),
        (spoil(lambda f: f["samples"].pop()), "list of 6"),
        (spoil(lambda f: f["samples"].append(1) or f["samples"].pop(0)), "sample 6"),
    ],
)
def test_malformed_figures_are_told(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(results.ResultsError, match=message):
        results.read_results(path)


def test_samples_stand_side_by_side_and_none_is_cut():
    figures = sound_results()
    figures["samples"][0] = dict.fromkeys(results.SAMPLE_COLUMNS, "many words " * 12)
    said = results.samples(figures, 100)
    assert max(map(len, said.splitlines())) <= 100
    assert said.count("many") == 12 * 5
    assert re.search(r"English +reference +teacher", said)


# ------------------------------------------------------------------ test, doctor, lab


def test_suites_are_made_of_what_is_there(tmp_path):
    for folder in ("notebooks", "exercises/solutions"):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder / "00_a.ipynb")
    found = {suite.name: suite.arguments for suite in suites.find_suites(tmp_path)}
    assert list(found) == ["unit", "lessons"]
    solved = ["notebooks/00_a.ipynb", "exercises/solutions/00_a.ipynb"]
    assert found["lessons"][-2:] == solved and "--nbval" in found["lessons"]
    write(tmp_path / "exercises" / "00_a.ipynb")
    found = {suite.name: suite.arguments for suite in suites.find_suites(tmp_path)}
    assert "--nbval-lax" in found["stubs"]
    assert found["stubs"][-1] == "exercises/00_a.ipynb"
    with pytest.raises(KdcourseError, match="no suite 'nonsense'"):
        suites.choose(suites.find_suites(tmp_path), ["nonsense"])


def run_lessons_suite(folder, root, printed, committed):
    """The exit code of the suite's own command on a lesson with this output."""
    (folder / "notebooks").mkdir()
    path = write(folder / "notebooks" / "00_a.ipynb", f"print({printed!r})")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].execution_count = 1
    output = nbformat.v4.new_output("stream", text=f"{committed}\n")
    notebook.cells[1].outputs = [output]
    nbformat.write(notebook, path)
    (folder / "tests").mkdir()
    cleaner = "tests/nbval_sanitise.cfg"
    (folder / cleaner).write_bytes((root / cleaner).read_bytes())
    lessons = suites.find_suites(folder)[-1]
    command = [sys.executable, "-m", "pytest", *lessons.arguments]
    return subprocess.call(command, cwd=folder, stdout=subprocess.DEVNULL)


def test_an_output_that_moved_fails_the_lessons(tmp_path, root):
    assert run_lessons_suite(tmp_path, root, "BLEU 48.1", "BLEU 48.2") == 1


def test_what_differs_between_machines_does_not(tmp_path, root):
    here = "torch 2.13.0+cpu, Python 3.13.1, <f at 0x7f0000000001>, 2026-11-24 10:00"
    there = "torch 2.13.0, Python 3.11.7, <f at 0x7faaaaaaaaaa>, 2027-01-02"
    assert run_lessons_suite(tmp_path, root, here, there) == 0


def test_missing_test_tools_are_named(monkeypatch):
    monkeypatch.setattr(suites, "DEVELOPMENT", {"no_such_module": "no-such-thing"})
    with pytest.raises(KdcourseError, match="no-such-thing is not installed"):
        suites.require_tools()


def test_the_doctor_counts_what_must_be_mended(monkeypatch, capsys):
    sound = doctor.Finding("a", "fine")
    minor = doctor.Finding("b", "slow", "wait", fatal=False)
    broken = doctor.Finding("c", "gone", "get it back")
    for findings, code, word in (
        ([sound, minor], 0, "All is well"),
        ([sound, broken, minor], 1, "1 problems"),
    ):
        monkeypatch.setattr(doctor, "CHECKS", [lambda found=findings: iter(found)])
        assert doctor.run(Namespace()) == code
        assert word in capsys.readouterr().out
    assert str(broken).splitlines()[1].strip() == "-> get it back"


def test_the_doctor_sees_a_wrong_version(monkeypatch):
    wanted = ["torch==0.0.1", "no-such-package==1", 'ruff==0; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    (finding,) = doctor.check_packages()
    assert "torch" in finding.found and "no-such-package missing" in finding.found
    assert "ruff" not in finding.found and finding.remedy


def test_the_doctor_sees_a_missing_corpus_and_a_closed_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("KDCOURSE_WHEEL", raising=False)
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "new"))
    cache, corpus = doctor.check_cache()
    assert not cache.remedy and "fetch" in corpus.remedy and not corpus.fatal
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    cache, _ = doctor.check_cache()
    assert "KDCOURSE_CACHE" in cache.remedy


def test_the_doctor_starts_a_kernel():
    *_, kernel = doctor.check_notebooks()
    assert (kernel.what, kernel.remedy) == ("kernel", "")


def test_lab_opens_the_first_lesson(clone, monkeypatch):
    write(clone / "00_a.ipynb")
    said = clone / "said.json"
    code = (
        f"import json, sys; json.dump(sys.argv, open({str(said)!r}, 'w')); sys.exit(7)"
    )
    start = subprocess.Popen
    monkeypatch.setattr(
        lab.subprocess,
        "Popen",
        lambda command, cwd: start([sys.executable, "-c", code, *command], cwd=cwd),
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        assert lab.run(Namespace(arguments=["--no-browser"])) == 7
    finally:
        signal.signal(signal.SIGINT, before)
    command = json.loads(said.read_text())
    assert command[2:4] == ["-m", "jupyterlab"]
    assert command[-2:] == ["--no-browser", str(clone / "00_a.ipynb")]
