"""Contexts: where they come from, what they decide, and the run that measures it."""

import json

import pytest
import tiny

from kdcourse.__main__ import main
from kdcourse.errors import KdcourseError
from kdcourse.translation import context_run
from kdcourse.translation.context import (
    PLACES,
    Placed,
    ambiguous,
    contexts_exchanged,
    describe,
    placed_rows,
    split_with_places,
    survival,
    with_context,
)
from kdcourse.translation.context_run import STUDENTS, ContextEpochs, ContextRun
from kdcourse.translation.corpus import Row, split_of
from kdcourse.translation.models import build_model, load_model, save_model
from kdcourse.translation.pipeline import read_recipe


def test_a_context_says_where_a_string_stands_in_plain_words():
    assert describe("hue", "entity.light.some_name") == "hue entity light some name"
    long = describe("hue", ".".join("abcdefghijklmnop"))
    assert long.split() == list("efghijklmnop")  # the last words say most
    terms = {"light": "luz", "switch": "interruptor"}
    said = describe("hue", "name", glossary=terms, z="The LIGHT is on")
    assert said == "hue name ; light = luz"
    assert describe("hue", "name", glossary=terms, z="Lighting") == "hue name"


def test_context_and_string_can_be_told_apart_again():
    text = with_context("hue name", "A | B")
    assert text.split(" | ", 1) == ["hue name", "A | B"]
    assert with_context("", "A") == "A"
    with pytest.raises(KdcourseError, match="separator"):
        with_context("a | b", "A")


COMPONENTS = [f"app{n}" for n in range(400)]


def test_no_component_stands_in_two_splits_and_none_is_lost():
    rows = [Row("Light", "Luz", name, "entity.name") for name in COMPONENTS]
    parts = placed_rows(rows)
    seen = {name: {row.component for row in part} for name, part in parts.items()}
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 400
    assert 0.15 < len(seen[PLACES]) / len(seen["train"] | seen[PLACES]) < 0.35
    for name in COMPONENTS:  # test and validation are those of the plain corpus
        ours, plain = split_with_places(name), split_of(name)
        assert ours == plain or (ours, plain) == (PLACES, "train")


def test_a_pair_is_kept_once_for_each_context():
    rows = [Row("Off", "Fuera", "hue", "a.b"), Row("Off", "Fuera", "hue", "a.c")] * 2
    (part,) = (part for part in placed_rows(rows).values() if part)
    assert [row.context for row in part] == ["hue a b", "hue a c"]


def test_only_strings_with_two_known_readings_are_ambiguous():
    training = [
        Placed("a", "Light", "Luz"),
        Placed("b", "Light", "Luz"),
        Placed("c", "Light", "Ligero"),
        Placed("d", "Door", "Puerta"),
    ]
    held_out = [
        Placed("x", "Light", "Ligero", "one"),
        Placed("y", "Light", "Luz", "one"),
        Placed("z", "Light", "Luz", "one"),  # the same again in one component
        Placed("z", "Light", "Luz", "two"),
        Placed("x", "Light", "Lámpara", "one"),  # a reading that nobody could know
        Placed("x", "Door", "Puerta", "one"),
        Placed("x", "Window", "Ventana", "one"),
    ]
    found = ambiguous(training, held_out)
    assert [(r.context, r.target, rarer) for r, rarer in found] == [
        ("x", "Ligero", True),
        ("y", "Luz", False),
        ("z", "Luz", False),
    ]


def test_exchanged_contexts_are_the_same_ones_elsewhere():
    rows = [Placed(str(n), f"s{n}", f"t{n}") for n in range(20)]
    other = contexts_exchanged(rows)
    assert [(r.source, r.target) for r in other] == [(r.source, r.target) for r in rows]
    contexts = [r.context for r in other]
    assert sorted(contexts) == sorted(r.context for r in rows)
    assert contexts != [r.context for r in rows]


def test_survival_is_a_share_of_what_there_was():
    assert survival(0.6, 0.8, 0.4) == pytest.approx(0.5)
    assert survival(0.4, 0.8, 0.4) == pytest.approx(0.0)
    assert survival(0.3, 0.8, 0.4) < 0
    assert survival(0.6, 0.4, 0.4) is None


def test_an_epoch_hides_a_share_of_the_contexts_and_depends_on_its_number():
    vocabulary = tiny.vocabulary()
    rows = [Placed("door window " * 5, "open", "abre")] * 300
    epochs = ContextEpochs(rows, vocabulary, without=0.25)
    lengths = [len(e.source) for e in epochs(0)]
    bare = sum(length < 10 for length in lengths)
    assert 45 < bare < 105
    assert [e.source for e in epochs(1)] == [e.source for e in epochs(1)]
    assert [e.source for e in epochs(0)] != [e.source for e in epochs(1)]


READINGS = {"door": "puerta", "battery": "pila"}  # "open" means one or the other


def tiny_rows():
    """A world in which "open" is read after its component, and nothing else helps."""
    sources, targets = tiny.pairs(60, seed=5)
    rows = []
    for number, name in enumerate(COMPONENTS[:120]):
        kind = ("door", "battery")[number % 3 == 0]
        rows.append(Row("open", READINGS[kind], name, f"{kind}.name"))
        pair = number % len(sources)
        rows.append(Row(sources[pair], targets[pair], name, "turn.name"))
    return rows


@pytest.fixture
def tiny_world(monkeypatch, tmp_path):
    vocabulary = tiny.vocabulary()
    for name in ("teacher", "student"):
        model = build_model(tiny.TINY, vocabulary, 1)
        save_model(model, vocabulary, tmp_path / "shipped" / name)
    recipe = read_recipe("context")
    quick = {"batch_tokens": 100, "peak_learning_rate": 5e-3, "warmup_steps": 5}
    recipe["teacher"] |= quick | {"budget_tokens": 6_000, "precision": "float32"}
    recipe["student"] |= quick | {"budget_tokens": 2_000}
    recipe["data"]["others"] = 40

    monkeypatch.setattr(
        context_run, "load_placed", lambda target: placed_rows(tiny_rows())
    )
    monkeypatch.setattr(
        context_run, "model_folder", lambda name: tmp_path / "shipped" / name
    )
    monkeypatch.setattr(context_run, "read_recipe", lambda name: recipe)
    monkeypatch.setattr(context_run, "manifest", lambda run: {})
    monkeypatch.setattr(
        context_run.Pipeline, "sides", lambda self, split: tiny.pairs(10)
    )
    monkeypatch.setenv("KDCOURSE_QUIET", "1")
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs"


def test_the_whole_run_from_contexts_to_verdicts(tiny_world):
    assert main(["context", "--folder", str(tiny_world)]) == 0
    record = json.loads((tiny_world / "context.json").read_text("utf-8"))
    assert {(s["student"], s["seed"]) for s in record["students"]} == {
        (kind, seed) for kind in STUDENTS for seed in (1, 2, 3)
    }
    assert set(record["teacher"]) == {"right", "exchanged", "none"}
    assert record["counts"]["ambiguous"] >= record["counts"]["rarer"] > 0
    assert set(record["verdicts"]) == {"distilled", "control"}
    for example in record["examples"]:
        assert example["source"] == "open" and set(STUDENTS) <= example.keys()
    weights = tiny_world / "control-1" / "model" / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert main(["context", "--folder", str(tiny_world)]) == 0
    assert weights.stat().st_mtime_ns == stamp


def test_students_read_the_same_rows_and_differ_in_what_they_are_told(tiny_world):
    run = ContextRun(tiny_world)
    assert len(run.lessons) == len({(r.context, r.source) for r in run.lessons})
    assert sum(row.source == "open" for row in run.lessons) > 20
    held = {row.component for row in run.asked}
    assert not held & {row.component for row in run.lessons}
    texts = [run.read(row, with_c) for row in run.lessons[:5] for with_c in (1, 0)]
    assert texts[0].endswith(f" | {texts[1]}")
    first, other = (load_model(run.student(k, 1)) for k in ("distilled", "twin"))
    assert len(run.targets(True)) == len(run.targets(False)) == len(run.lessons)
    a, b = (m.get_input_embeddings().weight for m in (first, other))
    same = run.targets(True) == run.targets(False)
    assert a.equal(b) == same


def test_a_teacher_that_reads_the_context_uses_it(tiny_world):
    """With another row's context it does worse: it is c that decides."""
    context_run.read_recipe("context")["teacher"]["budget_tokens"] = 90_000
    run = ContextRun(tiny_world)
    found = ambiguous(run.placed["train"], run.asked)
    rows, rarer = [row for row, _ in found], [flag for _, flag in found]
    read = run.teacher_reading(rows, rarer)
    assert read["right"]["chrf"] > read["exchanged"]["chrf"] + 5
    assert read["right"]["chrf"] > read["none"]["chrf"] + 5
