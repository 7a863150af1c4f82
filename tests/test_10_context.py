"""Contexts, ambiguous strings, glossaries, survival, and the run of lesson 10."""

import json
import random
from collections import Counter
from types import SimpleNamespace

import pytest
import tiny

from kdcourse.commands import context as context_command
from kdcourse.errors import KdcourseError
from kdcourse.study.figures import context as figures
from kdcourse.translation.context import (
    Placed,
    ambiguous,
    ceiling,
    contexts_exchanged,
    describe,
    glossed,
    obeying,
    paired_gain,
    placed_rows,
    replace_term,
    survival,
    survives,
    terms_in,
    with_context,
)
from kdcourse.translation.context import record as recording
from kdcourse.translation.context import run as running
from kdcourse.translation.context.places import split_with_places
from kdcourse.translation.context.record import (
    ContextRecord,
    contrasts,
    load_context,
)
from kdcourse.translation.context.run import ContextEpochs, ContextRun, emphasised
from kdcourse.translation.corpus import Row, split_of
from kdcourse.translation.decoding import model_folder
from kdcourse.translation.models import build_model, load_model, save_model
from kdcourse.translation.pipeline import read_recipe
from kdcourse.translation.sources import file_hash
from kdcourse.translation.vocabulary import load_vocabulary

HOUSE = {"battery": ["pila", "bateria"]}


def row(source, target, component="a", context="x"):
    return Placed(context, source, target, component)


# --- the text that is read ------------------------------------------------------------


def test_a_place_is_told_in_words_the_last_ones():
    assert describe("roborock", "entity.sensor.room_name") == (
        "roborock entity sensor room name"
    )
    path = ".".join(f"w{i}" for i in range(20))
    assert describe("a", path).split() == [f"w{i}" for i in range(8, 20)]
    assert describe("a", "b|c.d;e=f") == "a b c d e f"


def test_c_stands_before_z_and_a_separator_in_c_is_refused():
    assert with_context("hue light", "Light") == "hue light | Light"
    assert with_context("", "Light") == "Light"
    assert with_context("hue", "A | B") == "hue | A | B"
    with pytest.raises(KdcourseError, match="holds the separator"):
        with_context("a | b", "Light")


def test_the_separators_need_no_new_vocabulary():
    vocabulary = load_vocabulary(model_folder("student"))
    text = with_context(glossed("hue light", {"light": "luz"}), "Light")
    ids = vocabulary(text)["input_ids"]
    assert vocabulary.unk_token_id not in ids
    assert vocabulary.decode(ids, skip_special_tokens=True) == text


# --- places and ambiguous strings -----------------------------------------------------


def test_places_are_split_by_component_and_keep_a_pair_in_each_place():
    names = [f"component{i}" for i in range(300)]
    rows = [Row("Off", "Apagado", name, "entity.state.off") for name in names]
    parts = placed_rows(rows)
    assert sum(map(len, parts.values())) == 300
    components = [{p.component for p in part} for part in parts.values()]
    assert sum(map(len, components)) == len(set().union(*components))
    for name in names:
        home = split_with_places(name)
        assert split_of(name) == ("train" if home == "places" else home)
    assert len(parts["places"]) / (len(parts["train"]) + len(parts["places"])) < 0.4
    assert len(parts["places"]) > 30
    assert len(placed_rows([rows[0]] * 3)[split_with_places(names[0])]) == 1


def test_a_row_is_ambiguous_where_training_knows_its_reading_and_another():
    training = [
        row("Clean", "Limpio"),
        row("Clean", "Limpio", context="y"),
        row("Clean", "Limpiar"),
        row("Open", "Abrir"),
        row("Open", "Abrir", context="y"),
    ]
    held = [
        row("Clean", "Limpio", "b"),
        row("Clean", "Limpiar", "b"),
        row("Clean", "Limpiar", "b", "another place"),
        row("Clean", "Limpiar", "c"),
        row("Clean", "Puro", "b"),
        row("Open", "Abrir", "b"),
        row("Open", "Abierto", "b"),
        row("New", "Nuevo", "b"),
    ]
    assert ambiguous(training, held) == [
        (held[0], False),
        (held[1], True),
        (held[3], True),
    ]
    assert ambiguous([], held) == []


def test_no_function_of_z_alone_beats_the_ceiling():
    rows = [row("Clean", y) for y in ("Limpio", "Limpio", "Limpiar")]
    rows += [row("Home", "Inicio"), row("Home", "En casa")]
    assert ceiling(rows) == 3 / 5
    rng = random.Random(1)
    for _ in range(50):
        answers = {z: rng.choice(rows).target for z in ("Clean", "Home")}
        right = sum(answers[r.source] == r.target for r in rows) / len(rows)
        assert right <= ceiling(rows)
    with pytest.raises(KdcourseError, match="no rows"):
        ceiling([])


def test_exchanged_contexts_keep_strings_and_all_contexts():
    rows = [row(f"z{i}", f"y{i}", context=f"c{i}") for i in range(20)]
    other = contexts_exchanged(rows)
    assert [(r.source, r.target) for r in other] == [(r.source, r.target) for r in rows]
    assert sorted(r.context for r in other) == sorted(r.context for r in rows)
    assert other == contexts_exchanged(rows) != rows


# --- the glossary ---------------------------------------------------------------------


def test_terms_are_whole_words_whatever_their_case():
    glossary = {"light": "lámpara", "key": "llave"}
    assert terms_in("Light, key.", glossary) == {"key": "llave", "light": "lámpara"}
    assert terms_in("Lightning keys", glossary) == {}
    assert glossed("", {"key": "llave"}) == "key = llave"
    assert glossed("hue", {}) == "hue"


def test_a_term_is_replaced_as_a_whole_word_and_keeps_its_capital():
    assert replace_term("Luz y luz", "luz", "lámpara") == "Lámpara y lámpara"
    for text in ("Luces", "{luz_id}", "{luz}", "trasluz"):
        assert replace_term(text, "luz", "lámpara") == text


def test_a_target_obeys_the_terms_that_it_says_as_usual():
    usual, house = {"key": "clave", "light": "luz"}, {"key": "llave", "light": "foco"}
    assert obeying("Light key", "Clave de luz", usual, house) == (
        {"key": "llave", "light": "foco"},
        "Llave de foco",
    )
    assert obeying("Light key", "Luz de la tecla", usual, house) == (
        {"light": "foco"},
        "Foco de la tecla",
    )
    assert obeying("Door", "Puerta", usual, house) == ({}, "Puerta")


def test_ambiguous_rows_are_repeated_and_others_drawn():
    rows = [row("Clean", "Limpio"), row("Clean", "Limpiar"), row("Key", "Clave")]
    rows += [row(f"z{i}", f"y{i}") for i in range(50)]
    rows += [row("Key", "Llave", context="elsewhere")]  # ambiguous, but with a term
    chosen = emphasised(rows, {"key": "llave"}, random.Random(1), 3, 10)
    count = Counter(r.source for r in chosen)
    assert count["Clean"] == 6 and count["Key"] == 2 and len(chosen) == 18
    again = emphasised(rows, {"key": "llave"}, random.Random(1), 3, 10)
    assert chosen == again
    assert chosen != emphasised(rows, {"key": "llave"}, random.Random(2), 3, 10)
    assert len(emphasised(rows, {}, random.Random(1), 1, 10_000)) == len(rows)


def test_only_the_context_tells_the_teacher_which_word_is_wanted():
    rows = [row("battery name", "pila nombre"), row("door", "puerta")] * 200
    options = {"without": 0.2, "glossed": 0.5, "repeats": 1, "others": 1000}
    epochs = ContextEpochs(rows, tiny.vocabulary(), HOUSE, **options)
    rng = random.Random(1)
    read = Counter(epochs.reading(r, rng) for r in rows)
    assert set(read) == {
        ("x ; battery = bateria | battery name", "bateria nombre"),
        ("battery = bateria | battery name", "bateria nombre"),
        ("x | battery name", "pila nombre"),
        ("battery name", "pila nombre"),
        ("x | door", "puerta"),
        ("door", "puerta"),
    }
    assert 0.1 < read["door", "puerta"] / 200 < 0.3
    termed = sum(n for (text, _), n in read.items() if "=" in text)
    assert 0.4 < termed / 200 < 0.6
    assert epochs(3) == epochs(3) != epochs(4)


# --- survival -------------------------------------------------------------------------


def test_survival_is_the_share_of_what_c_is_worth():
    assert survival(taught=0.5, control=0.75, twin=0.25) == 0.5
    assert survival(taught=0.2, control=0.75, twin=0.25) == pytest.approx(-0.1)
    assert survival(taught=0.9, control=0.5, twin=0.5) is None
    assert survival(taught=0.9, control=0.4, twin=0.5) is None


def test_a_clear_worth_has_an_interval_and_an_unclear_one_has_none():
    groups = list(range(200))
    twin, control = [0] * 200, [1] * 160 + [0] * 40
    taught = [1] * 80 + [0] * 120
    found = survives(taught, control, twin, groups)
    assert found.share == 0.5
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    assert str(found).startswith("50%")
    luck = [1, *[0] * 199]
    unclear = survives(taught, luck, twin, groups)
    assert unclear.low is None and "inconclusive" in str(unclear)
    with pytest.raises(KdcourseError, match="one figure a row"):
        survives(taught[:3], control, twin, groups)


def test_rows_of_one_group_are_one_witness():
    ours, theirs = [1] * 50 + [0] * 50, [0] * 50 + [1] * 40 + [0] * 10
    apart = paired_gain(ours, theirs, list(range(100)))
    together = paired_gain(ours, theirs, [i // 50 for i in range(100)])
    assert apart.gain == together.gain == pytest.approx(0.1)
    assert together.high - together.low > 3 * (apart.high - apart.low)
    same = paired_gain(ours, ours, list(range(100)))
    assert same.gain == same.low == same.high == 0 and same.p == 1


def test_p_is_small_for_a_clear_gain_or_loss_and_large_for_luck():
    better, worse = [1] * 40 + [0] * 10, [0] * 50
    groups = list(range(50))
    assert paired_gain(better, worse, groups).p < 0.001
    assert paired_gain(worse, better, groups).p < 0.001
    luck = paired_gain([1, 0] * 25, [0, 1] * 24 + [0, 0], groups)
    assert luck.gain > 0 and luck.p > 0.2


def test_contrasts_are_pairs_of_one_source_and_two_translations():
    rows = [row("a", "1"), row("a", "1", "b"), row("a", "2"), row("b", "1")]
    rows += [row("a", "3")]
    assert contrasts(rows) == [(0, 2), (0, 4), (2, 4)]


# --- the run, with tiny models --------------------------------------------------------


@pytest.fixture
def tiny_run(tmp_path, monkeypatch):
    """A run on a tiny language in which "open" depends on the place."""
    vocabulary = tiny.vocabulary()
    for name, seed in (("teacher", 1), ("student", 2)):
        model = build_model(tiny.TINY, vocabulary, seed)
        save_model(model, vocabulary, tmp_path / name)
    monkeypatch.setattr(running, "model_folder", lambda name: tmp_path / name)
    rows = []
    for i in range(60):
        context = "door name" if i % 3 else "window error"
        rows.append(row("open", "abre" if i % 3 else "cierra", f"c{i}", context))
        rows.append(row("battery name", "pila nombre", f"c{i}", context))
        rows.append(row("light", "luz", f"c{i}", context))
    placed = {"train": rows[:120], "places": rows[120:150], "test": rows[150:]}
    placed["validation"] = rows[90:120]
    monkeypatch.setattr(running, "load_placed", lambda target: placed)
    settings = {
        "budget_tokens": 300,
        "batch_tokens": 100,
        "peak_learning_rate": 1e-3,
        "warmup_steps": 2,
        "precision": "float32",
    }
    recipe = {
        "data": {"repeats": 2, "others": 10, "seed": 1},
        "glossary": HOUSE,
        "labels": {"beam": 2, "compute_type": "float32"},
        "teacher": settings
        | {"seed": 1, "group_by": "target", "without": 0.2, "glossed": 0.5}
        | {"repeats": 2, "others": 10},
        "student": settings | {"group_by": "source"},
        "comparison": {"seeds": [1, 2]},
    }
    monkeypatch.setattr(running, "read_recipe", lambda name: recipe)
    fake = SimpleNamespace()
    monkeypatch.setattr(recording, "Pipeline", lambda folder: fake)
    monkeypatch.setattr(recording, "manifest", lambda pipeline: {"data_sha256": "0"})
    return ContextRun(tmp_path / "run")


def test_lessons_hold_what_is_ambiguous_and_glossed_and_some_others(tiny_run):
    lessons = tiny_run.lessons
    assert sum(r.source == "open" for r in lessons) == 80  # twice
    assert sum(r.source == "battery name" for r in lessons) == 40
    assert sum(r.source == "light" for r in lessons) == 10
    texts = [tiny_run.read(r, True) for r in lessons]
    assert "window error ; battery = bateria | battery name" in texts
    assert "door name | open" in texts
    assert [tiny_run.read(r, False) for r in lessons] == [r.source for r in lessons]


def test_a_student_learns_what_the_teacher_says_of_its_own_row(tiny_run, monkeypatch):
    """The same z in two places gets two targets; the twin's z gets one."""
    asked = {}

    def label(texts, teacher, out, **settings):
        asked[out.name] = texts
        return {text: text.upper() for text in texts}

    monkeypatch.setattr(running, "label_corpus", label)
    monkeypatch.setattr(tiny_run, "teacher", lambda: "the one with contexts")
    monkeypatch.setattr(running, "fault", lambda source, line: None)
    pairs = list(zip(tiny_run.lessons, tiny_run.targets(True), strict=True))
    for lesson, target in pairs:
        assert target == tiny_run.read(lesson, True).upper()
    said = {target for lesson, target in pairs if lesson.source == "open"}
    assert len(said) == 2
    assert set(tiny_run.targets(False)) == {"OPEN", "BATTERY NAME", "LIGHT"}
    assert all("|" in text for text in asked["labels-c"])
    monkeypatch.setattr(running, "fault", lambda source, line: "empty")
    assert tiny_run.targets(True) == [r.target for r in tiny_run.lessons]


def test_the_whole_run_records_every_figure_and_goes_on_where_it_was(tiny_run):
    record = ContextRecord(tiny_run).record()
    assert record["counts"]["ambiguous"] == 20
    assert record["counts"]["rarer"] == 6
    assert record["counts"]["contrasts"] == 1
    assert record["counts"]["glossary"] == 1
    assert {(s["student"], s["seed"]) for s in record["students"]} == {
        (kind, seed) for kind in running.STUDENTS for seed in (1, 2)
    }
    assert len(record["comparisons"]) == 8
    assert record["verdicts"]["places"]["control"] == "INCONCLUSIVE"  # two seeds
    assert set(record["teacher"]) == {"right", "exchanged", "none"}
    for student in record["students"]:
        if student["student"] != "control":  # reads z alone: never both of a pair
            assert student["pairs"] == 0
        hits = record["hits"]["places"][f"{student['student']}-{student['seed']}"]
        assert hits.count("1") / len(hits) == student["places"]
    model = tiny_run.folder / "control-2" / "model" / "model.safetensors"
    made = model.stat().st_mtime_ns
    assert ContextRecord(ContextRun(tiny_run.folder)).record() == record
    assert model.stat().st_mtime_ns == made


def test_the_command_prints_a_line_a_student_and_what_survives(tiny_run):
    printed = context_command.table(ContextRecord(tiny_run).record()).splitlines()
    assert len(printed) == 1 + 6 + 2
    assert printed[1].split()[:2] == ["distilled", "1"]
    assert "control INCONCLUSIVE" in printed[-2] and "survives" in printed[-1]


def test_students_of_a_seed_differ_in_their_lessons_alone(tiny_run, monkeypatch):
    calls = {}

    def watch(method, sources, targets, vocabulary, recipe, **options):
        calls[options["folder"].name] = (method, sources, targets, recipe)
        return options["start"], []

    monkeypatch.setattr(running, "distil", watch)
    monkeypatch.setattr(tiny_run, "targets", lambda with_c: [f"taught {with_c}"])
    for kind in running.STUDENTS:
        tiny_run.student(kind, 1)
    own, control, twin = (calls[f"{kind}-1"] for kind in running.STUDENTS)
    assert own[0] == control[0] == twin[0] == "sequence"
    assert own[3] == control[3] == twin[3]
    assert own[1] == twin[1] != control[1]
    assert own[2] == control[2] == ["taught True"] and twin[2] == ["taught False"]


def test_in_a_test_the_control_alone_reads_c(tiny_run, monkeypatch):
    read = {}
    monkeypatch.setattr(tiny_run, "student", lambda kind, seed: kind)

    def says(folder, texts, beam=1):
        read[folder] = texts
        return texts

    monkeypatch.setattr(tiny_run, "says", says)
    made = ContextRecord(tiny_run)
    for test in ("places", "glossary"):
        for kind in running.STUDENTS:
            made.said(test, kind, 1)
        assert read["distilled"] == read["twin"] == [r.source for r in made.rows[test]]
        assert all(text.count(" | ") == 1 for text in read["control"])
    made.plain("twin", 1)
    assert not any("|" in text for text in read["twin"])


def test_the_house_is_obeyed_where_its_word_stands_and_the_usual_one_does_not(tiny_run):
    made = ContextRecord(tiny_run)
    asked = row("battery name", "pila nombre")
    assert made.obeys("Bateria nombre", asked)
    assert not made.obeys("pila nombre", asked)
    assert not made.obeys("bateria pila", asked)
    assert not made.obeys("baterias", asked)
    assert made.terms(row("battery name", "nombre")) == []


# --- what ships -----------------------------------------------------------------------


def test_a_shipped_record_is_read_as_it_was_made(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "ASSETS", tmp_path / "assets")
    with pytest.raises(KdcourseError, match="no recorded run") as told:
        load_context()
    assert "python -m kdcourse context" in str(told.value)
    made = ContextRecord(tiny_run)
    record = made.record()
    recording.ship(tiny_run, record)
    read = load_context()
    assert read["counts"].keys() == record["counts"].keys()
    for kind in running.STUDENTS:
        hits = made.right("places", made.said("places", kind, 1))
        assert read["hits"]["places"][f"{kind}-1"] == hits
    for kind in recording.SHIPPED:
        folder = recording.context_model(kind)
        assert load_model(folder).config.d_model == 32
        card = json.loads((folder / "metadata.json").read_text("utf-8"))
        assert card["test"] in read["students"] and card["test"]["student"] == kind
        assert card["reads"] == ("c and z" if kind == "control" else "z")
        start = tiny_run.shipped_student / "model.safetensors"
        assert card["started_from"]["weights_sha256"] == file_hash(start)


def test_the_shipped_record_is_whole_and_tells_its_own_verdicts():
    record, recipe = load_context(), read_recipe("context")
    assert record["manifest"]["context"] == recipe
    seeds = recipe["comparison"]["seeds"]
    wanted = [(kind, seed) for kind in running.STUDENTS for seed in seeds]
    assert [(s["student"], s["seed"]) for s in record["students"]] == wanted
    for test, verdicts in record["verdicts"].items():
        hits, groups = record["hits"][test], record["groups"][test]
        assert {len(row) for row in hits.values()} == {len(groups)}
        for kind, word in verdicts.items():
            assert recording.judged(record["comparisons"], test, kind) == word
        for row in record["comparisons"]:
            if row["test"] == test:
                own, twin = (
                    hits[f"{k}-{row['seed']}"] for k in (row["student"], "twin")
                )
                gain = (sum(own) - sum(twin)) / len(groups)
                assert row["gain"] == pytest.approx(gain, abs=1e-3)
        shares = recording.over_seeds(hits, seeds)
        again = survives(*shares, groups)
        told = record["survival"][test]
        assert told["share"] == pytest.approx(again.share, abs=1e-4)
        assert (told["low"] is None) == (again.low is None)


@pytest.mark.parametrize("kind", recording.SHIPPED)
def test_a_shipped_student_is_the_one_of_its_card(kind):
    folder = recording.context_model(kind)
    card = json.loads((folder / "metadata.json").read_text("utf-8"))
    assert card["weights_sha256"] == file_hash(folder / "model.safetensors")
    assert card["test"] in load_context()["students"]


# --- the figures ----------------------------------------------------------------------


def test_the_bar_of_a_reader_is_shared_among_the_translations():
    figure = figures.mixtures({"teacher": {"Limpiar": 0.9, "Limpio": 0.1}})
    (axes,) = figure.axes
    assert [round(bar.get_width(), 2) for bar in axes.patches] == [0.9, 0.1]
    assert [text.get_text() for text in axes.texts] == ["Limpiar 0.90"]
    with pytest.raises(KdcourseError, match="sum to 0.9"):
        figures.mixtures({"teacher": {"Limpiar": 0.9}})


def test_each_seed_of_each_student_is_a_point_below_its_ceiling():
    tests = {"places": {"twin": [0.4, 0.5], "control": [0.6, 0.7]}}
    figure = figures.survivals(tests | {"glossary": {"twin": [0.0]}}, {"places": 0.9})
    places, glossary = figure.axes
    heights = [line.get_ydata() for line in places.lines]
    assert [list(h) for h in heights] == [[40, 50], [60, 70], [90, 90]]
    assert places.get_ylim() == glossary.get_ylim() == (-4, 104)
    assert [t.get_text() for t in places.texts] == ["ceiling of z alone"]
    assert len(glossary.lines) == 1 and not glossary.texts
    with pytest.raises(KdcourseError, match="nothing to draw"):
        figures.survivals({"places": {"twin": []}}, {})
