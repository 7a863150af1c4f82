"""The table of methods: trained, read, compared and told, on a tiny corpus."""

import json

import pytest
from test_11_pipeline import tiny_world  # noqa: F401  (a fixture)

from kdcourse.__main__ import main
from kdcourse.commands.evidence import ship
from kdcourse.errors import KdcourseError
from kdcourse.translation.distil import METHODS
from kdcourse.translation.evidence import (
    RECORDS,
    Evidence,
    baselines_of,
    costs,
    findings,
    gain_of,
    holds,
    joined,
    load_evidence,
    load_records,
    mean_of,
    verdicts,
)
from kdcourse.translation.hub import model_folder
from kdcourse.translation.pipeline import WIDE, Pipeline, read_recipe


def row(method, seed, gain, p, baseline="untaught"):
    return {
        "method": method,
        "baseline": baseline,
        "seed": seed,
        "gain": gain,
        "p": p,
    }


def test_a_method_is_compared_with_its_twins_alone():
    assert baselines_of("untaught") == ("sequence",)
    assert baselines_of("word") == ("untaught", "sequence")
    assert baselines_of("copied") == ("wide",)
    assert baselines_of("wide") == ()


def test_verdicts_are_given_pair_by_pair():
    rows = [row("a", s, 1.0, 0.001) for s in (1, 2, 3)]
    rows += [row("a", s, -1.0, 0.001, "sequence") for s in (1, 2, 3)]
    rows += [row("b", s, g, 0.001) for s, g in ((1, 2.0), (2, 2.0), (3, -0.1))]
    assert verdicts(rows) == {
        "a": {"untaught": "BEATS", "sequence": "NO BEATS"},
        "b": {"untaught": "INCONCLUSIVE"},
    }


def test_a_finding_holds_where_all_seeds_agree():
    assert [holds(d) for d in ([1, 2], [0, -1], [1, -1])] == [
        "yes",
        "no",
        "inconclusive",
    ]


def student(method, seed, bleu, beam, peaked=0.5):
    return {
        "method": method,
        "seed": seed,
        "bleu": bleu,
        "beam_bleu": beam,
        "peakedness": peaked,
    }


def test_findings_are_differences_of_the_same_seeds():
    table = {
        "untaught": [(30, 32, 0.1), (31, 33, 0.1)],
        "sequence": [(33, 33, 0.3), (34, 35, 0.3)],
        "word": [(32, 34, 0.1), (35, 36, 0.1)],
        "word-js": [(33, 34, 0.1), (34, 35, 0.1)],
        "both": [(34, 35, 0.3), (36, 37, 0.3)],
    }
    rows = [
        student(method, seed, *figures)
        for method, seeds in table.items()
        for seed, figures in reversed([*enumerate(seeds, 1)])
    ]
    found = findings(rows)
    assert [f["differences"] for f in found] == [
        pytest.approx([2, 1]),
        pytest.approx([0.2, 0.2]),
        pytest.approx([1, -1]),
        pytest.approx([1, 1]),
    ]
    assert [f["holds"] for f in found] == ["yes", "yes", "inconclusive", "yes"]


def test_the_whole_table_from_training_to_verdicts(tiny_world, monkeypatch):  # noqa: F811
    monkeypatch.setattr(
        "kdcourse.translation.evidence.costs",
        lambda pipeline, methods: {"training": {}},
    )
    command = ["evidence", "--folder", str(tiny_world)]
    assert main([*command, "--only", "word-rkl-2"]) == 0
    stamp = tiny_world / "word-rkl-2" / "model" / "model.safetensors"
    before = stamp.stat().st_mtime_ns
    assert main(command) == 0
    assert stamp.stat().st_mtime_ns == before  # what is there is not made again
    record = json.loads((tiny_world / "evidence.json").read_text("utf-8"))
    methods = read_recipe("evidence")["comparison"]["methods"]
    assert {s["method"] for s in record["students"]} == set(methods)
    assert len(record["students"]) == 3 * len(methods)
    assert all(0 <= s["peakedness"] <= 1 for s in record["students"])
    assert all("lines" not in s and s["curve"] for s in record["students"])
    both = {(s["method"], s["seed"]): s for s in record["students"]}
    for pair in record["comparisons"]:
        ours = both[pair["method"], pair["seed"]]["bleu"]
        theirs = both[pair["baseline"], pair["seed"]]["bleu"]
        assert pair["gain"] == pytest.approx(ours - theirs, abs=1e-3)
        assert pair["interval"][0] <= pair["gain"] <= pair["interval"][1]
    widths = {m: both[m, 1]["parameters"] for m in methods}
    assert widths["wide"] == widths["copied"] > widths["untaught"] == widths["both"]

    pipeline = Pipeline(tiny_world, recipe="evidence")
    kept = Evidence(pipeline).reading("word", 1)
    path = tiny_world / "word-1" / "reading.json"
    path.write_text(json.dumps(kept | {"bleu": -1.0}))
    assert Evidence(pipeline).reading("word", 1)["bleu"] == -1.0  # read from disk
    path.write_text(json.dumps(kept | {"bleu": -1.0, "model": "another"}))
    assert Evidence(pipeline).reading("word", 1) == kept  # a new model is read anew

    ticks = iter(range(1000))
    prices = costs(pipeline, steps=2, warmup=1, rows=5, clock=lambda: next(ticks))
    assert prices["training"].keys() == set(methods)
    assert min(prices["training"].values()) > 0
    assert set(prices["preparation"]) == {"labels", "signals"}


def test_the_recipe_differs_from_the_shipped_students_in_its_budget_alone():
    ours, shipped = read_recipe("evidence"), read_recipe("student")
    assert ours["architecture"] == shipped["architecture"]
    assert ours["data"] | {"unlabelled_epochs": 4} == shipped["data"]  # none reads it
    assert ours["labels"] == shipped["labels"]
    changed = {
        k for k, v in ours["training"].items() if v != shipped["training"].get(k)
    }
    assert changed == {"budget_tokens"}
    assert set(ours["comparison"]["methods"]) <= METHODS.keys() | set(WIDE)


def test_the_shipped_records_are_whole_and_tell_their_own_verdicts():
    recipe, said = read_recipe("evidence"), set()
    records = load_records()
    for record in records:
        methods = list(dict.fromkeys(s["method"] for s in record["students"]))
        wanted = {(m, s) for m in methods for s in recipe["comparison"]["seeds"]}
        assert {(s["method"], s["seed"]) for s in record["students"]} == wanted
        assert record["verdicts"] == verdicts(record["comparisons"])
        for told, found in zip(
            record["findings"], findings(record["students"]), strict=True
        ):
            assert told["claim"] == found["claim"] and told["holds"] == found["holds"]
            assert told["differences"] == pytest.approx(found["differences"], abs=1e-4)
        assert record["budget_tokens"] == recipe["training"]["budget_tokens"]
        assert without_comparison(record["manifest"]["recipes"]["student"]) == (
            without_comparison(recipe)
        )
        assert record["costs"]["training"].keys() == set(methods)
        assert (
            record["manifest"]["data_sha256"] == (records[0]["manifest"]["data_sha256"])
        )
        said |= set(methods)
    assert said == set(recipe["comparison"]["methods"])
    assert {s["method"] for s in load_evidence()["students"]} == said


def readme_line(run, method):
    """A method's line in the README's tables."""
    figures = ("bleu", "chrf", "beam_bleu", "peakedness", "calibration_error")
    bleu, chrf, beam, peaked, error = (mean_of(run, method, f) for f in figures)
    twin = "wide" if method in WIDE else "untaught"
    words = run["verdicts"].get(method, {})
    gain = f"{gain_of(run, method, twin):+.1f}" if twin in words else ""
    seconds = run["costs"]["training"]
    cells = [method, f"{bleu:.1f}", f"{chrf:.1f}", gain, words.get(twin, "")]
    cells += [words.get("sequence", ""), f"{beam - bleu:+.1f}", f"{peaked:.2f}"]
    cells += [f"{error:.2f}", f"{seconds[method] / seconds['untaught']:.1f}x"]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("run", load_records(), ids=RECORDS[: len(load_records())])
def test_the_readme_tells_what_the_records_say(run, root):
    told = (root / "README.md").read_text("utf-8").splitlines()
    for method in {s["method"] for s in run["students"]}:
        assert readme_line(run, method) in told


def without_comparison(recipe):
    return {name: part for name, part in recipe.items() if name != "comparison"}


def recorded(seconds, **gains):
    """A record of a run in which each method gained so much over its own twin."""
    rows = [row(m, 1, gain, 0.001) for m, gain in gains.items()]
    return {
        "students": [student(m, 1, 30 + gains.get(m, 0), 31) for m in seconds],
        "comparisons": rows,
        "verdicts": verdicts(rows),
        "costs": {"training": seconds, "preparation": {}},
    }


def test_a_second_run_adds_its_methods_and_never_mixes_twins():
    first = recorded({"untaught": 100.0, "word": 110.0}, word=2.0)
    second = recorded(
        {"untaught": 50.0, "word": 60.0, "smoothing": 75.0}, word=-1.0, smoothing=0.5
    )
    table = joined(first, second)
    methods = [s["method"] for s in table["students"]]
    assert methods == ["untaught", "word", "smoothing"]
    assert table["students"][:2] == first["students"]
    assert [gain_of(table, m) for m in ("word", "smoothing")] == [2.0, 0.5]
    assert table["verdicts"] == first["verdicts"] | {
        "smoothing": second["verdicts"]["smoothing"]
    }
    costs = table["costs"]["training"]
    assert costs == {"untaught": 100.0, "word": 110.0, "smoothing": 150.0}
    assert [(c["method"], c["gain"]) for c in table["again"]] == [("word", -1.0)]
    assert joined(first) == first | {"again": []}


def test_a_whole_record_replaces_the_table_and_a_part_stands_beside_it(tmp_path):
    whole, part = tmp_path / RECORDS[0], tmp_path / RECORDS[1]
    every = read_recipe("evidence")["comparison"]["methods"]
    ship(recorded(dict.fromkeys(every[:3], 1.0)), tmp_path)
    assert part.is_file() and not whole.exists()
    ship(recorded(dict.fromkeys(every, 1.0)), tmp_path)
    assert whole.is_file() and not part.exists()


def test_the_table_is_of_the_shipped_teacher_unless_the_run_has_its_own(tmp_path):
    pipeline = Pipeline(tmp_path, recipe="evidence")
    assert pipeline.train_teacher() == model_folder("teacher")
    own = tmp_path / "teacher" / "model"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    assert pipeline.train_teacher() == own


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["word", "sequence"], "also untaught"),
        (["copied"], "also wide"),
        (["untaught", "sequence", "wrod"], "Unknown method 'wrod'"),
    ],
)
def test_methods_without_their_twins_are_refused(tiny_world, methods, message):  # noqa: F811
    with pytest.raises(KdcourseError, match=message):
        Evidence(Pipeline(tiny_world, recipe="evidence"), methods)


def test_a_run_without_sequences_is_compared_with_its_untaught_twins_alone(
    tiny_world,  # noqa: F811
):
    evidence = Evidence(Pipeline(tiny_world, recipe="evidence"), ["untaught", "word"])
    evidence.train()
    assert evidence.record()["verdicts"].keys() == {"word"}
    assert evidence.record()["verdicts"]["word"].keys() == {"untaught"}


def test_a_student_may_be_taught_by_its_own_twin(tiny_world):  # noqa: F811
    pipeline = Pipeline(tiny_world, recipe="evidence")
    pipeline.train_student("self", 2)
    assert pipeline.is_trained("untaught-2")  # its teacher was trained first
    read = pipeline.lesson(METHODS["self"])
    own, other, misled = (
        pipeline.answers(METHODS[name], *read, 2)["signals"].answers
        for name in ("self", "word", "shuffled")
    )
    assert own.shape == other.shape == misled.shape
    assert not own.log_probs.equal(other.log_probs)
    assert not misled.log_probs.equal(other.log_probs)


@pytest.mark.parametrize("command", ["evidence", "context"])
@pytest.mark.parametrize("name", ["word-js", "foo-1", "twins-1", "7", "word-"])
def test_a_student_of_no_such_name_is_explained(command, name, tmp_path, capsys):
    assert main([command, "--folder", str(tmp_path), "--only", name]) == 1
    told = capsys.readouterr().err
    assert f"No student is called {name!r}" in told and "--only" in told
