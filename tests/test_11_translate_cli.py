"""The commands translate and score, as a shell would use them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
import tiny

from kdcourse.__main__ import main
from kdcourse.translation import decoding
from kdcourse.translation.corpus import normalise
from kdcourse.translation.models import build_model, save_model

ODD = [
    "turn the light",
    "",
    "日本語 🔥",
    "one\u2028line\x0cand\u2029only\x85one\x1c.",
    "carriage\rreturn",
    "door " * 300,
    "",
    "</s> <pad> <unk>",
    "last",
]


class Stream:
    """Standard input or output as bytes, on a terminal or not."""

    def __init__(self, data=b"", terminal=False):
        self.buffer, self.terminal = io.BytesIO(data), terminal

    def isatty(self):
        return self.terminal


class Shouter:
    """Translates by shouting; remembers how many lines came at a time."""

    def __init__(self):
        self.chunks = []

    def translate(self, texts):
        self.chunks.append(len(texts))
        return [normalise(text).upper() for text in texts]


@pytest.fixture
def shell(monkeypatch):
    """Run ``translate`` on bytes; gives exit code, standard output and translator."""

    def run(data, *options, terminal=False):
        opened, translator, out = [], Shouter(), Stream()

        def open_translator(*arguments):
            opened.append(arguments)
            return translator

        monkeypatch.setattr(decoding, "open_translator", open_translator)
        monkeypatch.setattr(sys, "stdin", Stream(data, terminal))
        monkeypatch.setattr(sys, "stdout", out)
        translator.code = main(["translate", *options])
        translator.options = opened
        return out.buffer.getvalue(), translator

    return run


def test_one_line_out_for_each_line_in_whatever_it_holds(shell):
    out, translator = shell("\n".join(ODD).encode() + b"\n")
    assert out.decode().split("\n") == [*(normalise(t).upper() for t in ODD), ""]
    assert translator.code == 0


@pytest.mark.parametrize(
    "data, out",
    [
        (b"", b""),
        (b"\n", b"\n"),
        (b"a\n\nb", b"A\n\nB\n"),  # the last line lacks its end
        (b"a\r\nb\r\n", b"A\nB\n"),  # from Windows
        (b"\xef\xbb\xbfa\n", b"A\n"),  # with a byte order mark
    ],
)
def test_the_ends_of_lines_and_files(shell, data, out):
    assert shell(data)[0] == out


def test_what_is_not_utf8_is_replaced_and_reported_with_its_line(shell, capfd):
    out, translator = shell(b"good\nbad \xff\xfe byte\nna\xc3\nfine\n")
    assert out.decode() == "GOOD\nBAD \ufffd\ufffd BYTE\nNA\ufffd\nFINE\n"
    said = capfd.readouterr().err.splitlines()
    assert translator.code == 0 and len(said) == 2
    assert "line 2 is not UTF-8 (byte 5)" in said[0] and "line 3" in said[1]


def test_lines_go_through_in_chunks_and_one_by_one_where_they_are_typed(shell):
    data = b"a\n" * 250
    assert shell(data)[1].chunks == [100, 100, 50]
    assert shell(b"a\nb\n", terminal=True)[1].chunks == [1, 1]


def test_the_options_reach_the_translator(shell):
    assert shell(b"")[1].options == [("student", "ctranslate2", 1, 1, "float32")]
    options = "--model my/model --engine torch --beam 4 --threads 2".split()
    assert shell(b"", *options)[1].options == [("my/model", "torch", 4, 2, "float32")]
    options = ["--compute-type", "int8"]
    assert shell(b"", *options)[1].options[0][-1] == "int8"
    with pytest.raises(SystemExit) as stop:
        shell(b"", "--engine", "steam")
    assert stop.value.code == 2


def test_a_wrong_model_is_one_clear_error(capsys):
    assert main(["translate", "--model", "no/such/model"]) == 1
    assert "kdcourse translate: No model in no/such/model" in capsys.readouterr().err


# ------------------------------------------------------------------ real processes


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """Start the real command with a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = tiny.vocabulary()
    save_model(build_model(tiny.TINY, vocabulary, 1), vocabulary, folder)
    cache = tmp_path_factory.mktemp("cache")

    def start(**options):
        command = [sys.executable, "-m", "kdcourse", "translate", "--model", folder]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = {**os.environ, "KDCOURSE_CACHE": str(cache), **options}
        environment.pop("PYTHONUNBUFFERED", None)  # it would flush in our stead
        return subprocess.Popen(command, bufsize=0, env=environment, **pipes)

    return start


def test_a_real_process_loses_no_line_and_says_nothing_else(process):
    # A locale without UTF-8, as in a bare container, must not matter.
    child = process(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    out, err = child.communicate("\n".join(ODD).encode(), timeout=100)
    lines = out.decode().split("\n")
    assert len(lines) == len(ODD) + 1 and lines[-1] == ""
    assert [not line for line in lines[:-1]] == [not text for text in ODD]
    assert lines[2] == ODD[2]
    assert child.returncode == 0 and err == b""


def test_a_reader_that_leaves_early_is_no_error_of_ours(process):
    child = process()
    child.stdout.close()
    _, err = child.communicate(b"open the door\n" * 3000, timeout=100)
    assert err == b"" and child.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
def test_ctrl_c_stops_at_once_with_what_was_done(process):
    child = process()
    child.stdin.write(b"open\n" * 100)
    # The first chunk comes out while the input is still open: it is streaming.
    assert all([child.stdout.readline() for _ in range(100)])
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=100)
    assert out == b""
    assert err == b"\nkdcourse translate: stopped.\n" and child.returncode == 130


# ------------------------------------------------------------------ score


@pytest.fixture
def files(tmp_path):
    def write(references, hypotheses):
        paths = tmp_path / "references.txt", tmp_path / "hypotheses.txt"
        for path, text in zip(paths, (references, hypotheses), strict=True):
            path.write_bytes(text.encode())
        return [str(path) for path in paths]

    return write


def test_score_prints_both_scores_with_their_signatures(files, capsys):
    text = "La luz del salón está encendida.\nNo se pudo conectar con {host}.\n"
    assert main(["score", *files(text, text)]) == 0
    out = capsys.readouterr().out
    assert "2 sentences" in out and "BLEU 100.0" in out and "chrF 100.0" in out
    assert out.count("|version:") == 2 and "tok:13a" in out


def test_the_first_file_is_the_reference(files, capsys):
    """A hypothesis that is too short is punished for it; a reference is not."""
    long, short = "la luz del salón está bien hoy\n", "la luz del salón está\n"
    scores = []
    for pair in ((long, short), (short, long)):
        main(["score", *files(*pair)])
        scores.append(capsys.readouterr().out)
    assert "BLEU  67.0" in scores[0] and "BLEU  61.5" in scores[1]


def test_only_a_line_feed_ends_a_line(files, capsys):
    assert main(["score", *files("uno\u2028dos\ntres\n\n", "uno dos\ntres\n\n")]) == 0
    assert "3 sentences" in capsys.readouterr().out


def test_files_of_unequal_length_are_refused(files, capsys):
    assert main(["score", *files("a\nb\nc\n", "a\nb\n")]) == 2
    said = capsys.readouterr().err
    assert "references.txt has 3 lines but" in said and "hypotheses.txt has 2" in said


def test_files_that_are_missing_or_empty_are_named(files, capsys, tmp_path):
    assert main(["score", str(tmp_path / "none"), *files("a", "a")[1:]]) == 1
    assert "none cannot be read" in capsys.readouterr().err
    assert main(["score", *files("", "")]) == 1
    assert "empty" in capsys.readouterr().err
