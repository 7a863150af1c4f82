"""The full run on a tiny corpus: every step, its resumption and its figures."""

import copy
import json
import shutil
import subprocess

import pytest
import tiny
from datasets import Dataset, DatasetDict, Features, Translation, Value

import kdcourse.translation.pipeline as module
from kdcourse.__main__ import main
from kdcourse.errors import KdcourseError
from kdcourse.translation import bench
from kdcourse.translation.bench import throughput
from kdcourse.translation.corpus import near_keys
from kdcourse.translation.decoding import model_hash
from kdcourse.translation.distil import METHODS
from kdcourse.translation.evaluation import score
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.labelling import Labels, source_key
from kdcourse.translation.measure import (
    READING,
    Measurement,
    chosen_models,
    model_card,
    ship,
    verdict,
    write_json,
)
from kdcourse.translation.models import build_model, load_model
from kdcourse.translation.pipeline import Pipeline, read_recipe
from kdcourse.translation.training import HISTORY, IGNORE, collate


def split(count, seed, language="es"):
    sources, targets = tiny.pairs(count, seed)
    pairs = [{"en": s, language: t} for s, t in zip(sources, targets, strict=True)]
    columns = {"translation": pairs, "context": ["app key"] * count}
    kinds = {"translation": Translation(["en", language]), "context": Value("string")}
    return Dataset.from_dict(columns, Features(kinds))


def small_recipe(name):
    recipe = copy.deepcopy(read_recipe(name))
    sizes = {"d_model": 16, "ffn": 32, "heads": 2, "encoder_layers": 1}
    recipe["architecture"] |= sizes | {"decoder_layers": 1}
    if name == "student":
        recipe["comparison"]["seeds"] = [1, 2, 3]
    quick = {
        "budget_tokens": 3_000,
        "batch_tokens": 100,
        "peak_learning_rate": 5e-3,
        "warmup_steps": 5,
        "precision": "float32",
    }
    recipe["training"] |= quick
    if name == "evidence":
        recipe["training"] |= {"budget_tokens": 1_000}
        recipe["comparison"]["teacher"] = "the run's own"
        recipe["wide"]["training"] |= quick | {"budget_tokens": 1_000}
        recipe["wide"]["architecture"] |= sizes | {"d_model": 32, "decoder_layers": 1}
    if name == "teacher":
        recipe["vocabulary"] |= {"size": 120, "shipped": False, "alphabet": ""}
        recipe["architecture"]["d_model"] = 32
        for part in ("architecture", "training"):
            recipe["base"][part] |= recipe[part]
        recipe["architecture"]["encoder_layers"] = 2
    return recipe


def more_text(wheel, train, held):
    """Sentences of the tiny language that are in no split."""
    known = {*train, *tiny.pairs(20, 2)[0], *tiny.pairs(30, 3)[0]}
    return [text for text in dict.fromkeys(tiny.pairs(60, 9)[0]) if text not in known]


@pytest.fixture
def tiny_world(monkeypatch, tmp_path):
    def corpus(name, target):
        splits = {"train": (150, 1), "validation": (20, 2), "test": (30, 3)}
        return DatasetDict({name: split(*size) for name, size in splits.items()})

    monkeypatch.setattr(module, "load_corpus", corpus)
    monkeypatch.setattr(module, "read_recipe", small_recipe)
    monkeypatch.setattr(module, "apps_wheel", lambda: "the wheel")
    monkeypatch.setattr(module, "unlabelled", more_text)
    monkeypatch.setattr("kdcourse.translation.bench.SPEED_SENTENCES", 5)
    monkeypatch.setenv("KDCOURSE_QUIET", "1")
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs"


def test_the_full_run_from_corpus_to_assets(tiny_world, tmp_path, monkeypatch):
    import kdcourse.translation.measure as measure

    quick = {"loop": 2.0, "stock": 1.0, "ratio": 2.0, "precision": "float32"}
    monkeypatch.setattr(measure, "throughput", lambda *a, **k: quick)
    assert main(["reproduce", "--folder", str(tiny_world)]) == 0
    record = json.loads((tiny_world / "full.json").read_text("utf-8"))
    assert [s["method"] for s in record["students"]] == [
        *["untaught"] * 3,
        *["unlabelled"] * 3,
    ]
    assert [p["seed"] for p in record["pairs"]] == [1, 2, 3]
    gain = record["students"][3]["test"]["bleu"] - record["students"][0]["test"]["bleu"]
    assert record["pairs"][0]["gain"] == pytest.approx(gain, abs=1e-3)
    assert record["manifest"]["recipes"]["student"]["labels"]["k"] == 8
    assert len(record["manifest"]["code_sha256"]) == 64
    assert record["signatures"]["bleu"].startswith("nrefs:1|case:mixed")

    before = (tiny_world / "full.json").stat().st_mtime_ns
    weights = tiny_world / "unlabelled-1" / "model" / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert main(["distil", "--folder", str(tiny_world), "--seed", "1"]) == 0
    assert weights.stat().st_mtime_ns == stamp  # what is there is not made again
    assert (tiny_world / "full.json").stat().st_mtime_ns == before

    assets = tmp_path / "assets"
    ship(Pipeline(tiny_world), record, assets)
    card = json.loads((assets / "models" / "student" / "metadata.json").read_text())
    assert card["test"] == record["students"][3]["test"]
    assert card["method"] == "unlabelled"
    assert load_model(assets / "models" / "teacher").config.d_model == 32
    for name in ("es", "es-unlabelled"):
        assert (assets / "labels" / name / "manifest.json").is_file()
    lines = json.loads((assets / "runs/full/untaught-2" / READING).read_text())["lines"]
    references = Pipeline(tiny_world).sides("test")[1]
    bleu = score(lines, references).bleu
    assert bleu == pytest.approx(record["students"][1]["test"]["bleu"], abs=1e-3)
    curve = json.loads((assets / "runs/full/untaught-2" / HISTORY).read_text())
    assert len(curve) == len(record["students"][1]["curve"])
    counted = record["labels"]["unlabelled"]
    assert counted["rows"] == len(Labels.load(assets / "labels" / "es-unlabelled")) > 0


def test_a_record_names_the_commit_and_whether_the_code_was_changed(
    tmp_path, monkeypatch
):
    import kdcourse.translation.measure as measure

    package = tmp_path / "kdcourse" / "__init__.py"
    monkeypatch.setattr(measure.kdcourse, "__file__", str(package))
    assert measure.commit() is None  # an installed package has no history
    package.parent.mkdir()
    package.write_text("one")
    who = ["-c", "user.name=learner", "-c", "user.email=learner@localhost"]
    for command in (
        ["init", "-q"],
        ["add", "."],
        [*who, "commit", "-q", "--no-verify", "-m", "Begin"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = measure.commit()
    assert len(clean) == 40 and set(clean) <= set("0123456789abcdef")
    package.write_text("two")
    assert measure.commit() == f"{clean}-dirty"


def test_a_run_goes_on_where_another_machine_left_it(tiny_world, monkeypatch):
    """Curves and test outputs stand for students, but not for those that ship."""
    import kdcourse.translation.measure as measure

    monkeypatch.setattr(measure.Measurement, "timings", lambda self: {})
    assert main(["reproduce", "--folder", str(tiny_world)]) == 0
    record = json.loads((tiny_world / "full.json").read_text("utf-8"))
    for name in ("untaught-2", "unlabelled-2", "unlabelled-1"):
        shutil.rmtree(tiny_world / name / "model")
    shutil.rmtree(tiny_world / "untaught-3")
    assert main(["reproduce", "--folder", str(tiny_world)]) == 0
    assert not (tiny_world / "untaught-2" / "model").exists()
    assert (tiny_world / "unlabelled-1" / "model").exists()
    again = json.loads((tiny_world / "full.json").read_text("utf-8"))
    for row in (
        row for r in (record, again) for s in r["students"] for row in s["curve"]
    ):
        del row["seconds"]  # untaught-3 was trained twice
    assert again == record


@pytest.fixture
def shipped(tiny_world, tmp_path, monkeypatch):
    """Assets of a tiny full run; the folder of the next run is empty."""
    pipeline = Pipeline(tmp_path / "first")
    pipeline.train_teacher()
    pipeline.label(), pipeline.label_unlabelled()
    assets = tmp_path / "assets"
    for made, ending in module.LABELS.items():
        shutil.copytree(pipeline.folder / made, assets / "labels" / f"es{ending}")
    write_json(assets / "runs" / "full.json", {"teacher": {"curve": [{"val": 1.5}]}})
    model = pipeline.folder / "teacher" / "model"
    monkeypatch.setattr(module, "ASSETS", assets)
    monkeypatch.setattr(module, "model_folder", lambda name: model)
    return assets


def test_a_run_may_begin_with_the_shipped_teacher(shipped, tiny_world, monkeypatch):
    monkeypatch.setattr(module, "label_corpus", lambda *given, **how: given[2])
    pipeline = Pipeline(tiny_world)
    pipeline.take_shipped_teacher()
    model = tiny_world / "teacher" / "model"
    assert pipeline.is_trained("teacher") and pipeline.train_teacher() == model
    assert model_hash(model) == model_hash(module.model_folder("teacher"))
    assert pipeline.curve("teacher") == [{"val": 1.5}]
    for made, ending in module.LABELS.items():
        theirs = Labels.load(shipped / "labels" / f"es{ending}")
        assert Labels.load(tiny_world / made) == theirs
    (model / "config.json").write_text("{}")
    pipeline.take_shipped_teacher()  # there is one: it stays
    assert (model / "config.json").read_text() == "{}"


def test_labels_of_another_recipe_are_not_taken(shipped, tiny_world):
    pipeline = Pipeline(tiny_world)
    pipeline.student_data = ([*pipeline.student_data[0], "one more"], [])
    pipeline.take_shipped_teacher()
    assert pipeline.is_trained("teacher")
    assert not (tiny_world / "labels").exists()


def test_a_student_trained_anew_is_read_anew(tiny_world):
    measurement = Measurement(pipeline := Pipeline(tiny_world))
    pipeline.train_student("untaught", 1)
    first = measurement.reading("untaught-1")
    assert Measurement(pipeline).reading("untaught-1") == first
    path = tiny_world / "untaught-1" / READING
    path.write_text(json.dumps(first | {"lines": ["kept"]}), encoding="utf-8")
    assert Measurement(pipeline).reading("untaught-1")["lines"] == ["kept"]
    path.write_text(json.dumps(first | {"model": "another"}), encoding="utf-8")
    assert Measurement(pipeline).reading("untaught-1") == first


def test_tags_of_the_recipe_are_single_entries(tiny_world):
    vocabulary = Pipeline(tiny_world).vocabulary
    tag = vocabulary.convert_tokens_to_ids("<2gl>")
    assert vocabulary.decode([tag]) == "<2gl>"


def test_the_teacher_grows_out_of_its_base(tiny_world):
    pipeline = Pipeline(tiny_world)
    teacher = load_model(pipeline.train_teacher())
    assert len(load_model(tiny_world / "base" / "model").model.encoder.layers) == 1
    assert len(teacher.model.encoder.layers) == 2
    base, curve = pipeline.curve("base"), pipeline.curve("teacher")
    assert curve[: len(base)] == base
    later = json.loads((tiny_world / "teacher" / "history.json").read_text())
    assert curve[-1]["tokens"] == base[-1]["tokens"] + later[-1]["tokens"]


def test_unlabelled_text_is_read_by_its_own_method_alone(tiny_world, monkeypatch):
    """The untaught twin reads the training rows; the taught one more, and no less.

    In the end it reads the training rows, too.
    """
    read, ends_with = {}, {}

    def spy(told, sources, targets, *rest, curriculum, **options):
        read[told] = dict(zip(sources, targets, strict=True))
        ends_with[told] = sources[: curriculum.own_rows] if curriculum else sources
        return build_model(tiny.TINY, pipeline.vocabulary, 1), []

    pipeline = Pipeline(tiny_world)
    pipeline.train_teacher()
    monkeypatch.setattr(module, "distil", spy)
    sound = pipeline.unlabelled_text[1:]
    monkeypatch.setattr(module, "filter_labels", lambda *given: (sound, {}))
    monkeypatch.setattr(module, "fault", lambda *given: None)
    for method in ("untaught", "sequence", "unlabelled"):
        pipeline.train_student(method, 1)
    untaught, sequence, more = (
        read[METHODS[name]] for name in ("untaught", "sequence", "unlabelled")
    )
    assert untaught.keys() == sequence.keys() < more.keys()
    assert more | sequence == more
    extra = more.keys() - sequence.keys()
    assert extra == set(sound)
    labels = Labels.load(tiny_world / "labels-unlabelled")
    assert all(more[source] == labels[source] for source in extra)
    assert ends_with[METHODS["unlabelled"]] == ends_with[METHODS["untaught"]]


def test_what_is_held_out_is_told_to_the_search_for_text(tiny_world, monkeypatch):
    told = []
    monkeypatch.setattr(module, "unlabelled", lambda *given: told.append(given) or [])
    pipeline = Pipeline(tiny_world)
    assert pipeline.unlabelled_text == []
    wheel, train, held = told[0]
    assert train == pipeline.sides("train")[0]
    assert held.components == {"app"}
    for name in ("validation", "test"):
        keys = {key for text in pipeline.sides(name)[0] for key in near_keys(text)}
        assert keys <= held.keys


def test_unsound_labels_give_way_to_their_references(tiny_world, monkeypatch):
    pipeline = Pipeline(tiny_world)
    sources, references = pipeline.student_data
    sound = [f"{reference} ya" for reference in references]
    labels = dict(zip(sources, sound, strict=True))
    labels[sources[3]] = "luz luz luz luz luz luz luz"
    monkeypatch.setattr(Pipeline, "label", lambda self: labels)
    targets, faults = pipeline.distilled_targets()
    assert targets[3] == references[3]
    assert faults == {"looping": 1}
    assert targets[:3] == sound[:3] and targets[4:] == sound[4:]


@pytest.mark.parametrize(
    ("gains", "p_values", "expected"),
    [
        ([2.0, 3.0, 2.5], [0.001] * 3, "BEATS"),
        ([2.0, 3.0, 2.5], [0.001, 0.2, 0.001], "INCONCLUSIVE"),
        ([2.0, -0.1, 2.5], [0.001] * 3, "INCONCLUSIVE"),
        ([-2.0, -0.1, 0.0], [0.001] * 3, "NO BEATS"),
        ([9.0], [0.001], "INCONCLUSIVE"),
    ],
)
def test_the_verdict_needs_every_seed(gains, p_values, expected):
    assert verdict(gains, p_values) == expected


def test_the_shipped_recipes_name_one_student_under_a_tenth():
    student, teacher = read_recipe("student"), read_recipe("teacher")
    assert student["training"]["group_by"] == "source"
    assert student["architecture"]["decoder_layers"] == 1
    assert teacher["architecture"]["d_model"] > student["architecture"]["d_model"]


def test_pads_are_no_tokens_in_either_trainers_rate():
    vocabulary = tiny.vocabulary()
    sources = ["open door", "open door turn light close window"]
    examples = fixed_examples(sources, sources, vocabulary)
    real = sum(len(e.target) for e in examples)
    rows = [{"input_ids": e.source, "labels": e.target} for e in examples]
    counter = bench._Counter(vocabulary, label_pad_token_id=IGNORE)
    counter.counts = []
    padded = counter(rows)["labels"].numel()
    assert counter.counts == [real] and real < padded
    batch = collate(examples, vocabulary.pad_token_id)
    assert batch.tokens == real and batch.labels.numel() == padded


def test_throughput_is_measured_on_both_sides(tmp_path):
    vocabulary = tiny.vocabulary()
    vocabulary.save_pretrained(tmp_path)
    examples = fixed_examples(*tiny.pairs(400), vocabulary)
    result = throughput(tmp_path, tiny.TINY, examples, batch_tokens=60, seconds=0.5)
    assert result["loop"] > 0 and result["stock"] > 0
    assert result["ratio"] == pytest.approx(result["loop"] / result["stock"])


def test_figures_are_written_with_few_digits(tmp_path):
    write_json(tmp_path / "a" / "x.json", {"x": [1 / 3, {"y": 2.0}], "n": 7, "s": "é"})
    assert json.loads((tmp_path / "a" / "x.json").read_text("utf-8")) == {
        "x": [0.333333, {"y": 2.0}],
        "n": 7,
        "s": "é",
    }


def test_the_shipped_student_is_the_one_that_the_recipe_compares(tiny_world):
    pipeline = Pipeline(tiny_world)
    pipeline.student_recipe["comparison"]["methods"] = ["untaught", "word"]
    assert chosen_models(pipeline) == {
        "teacher": "teacher",
        "untaught": "untaught-1",
        "student": "word-1",
    }


def test_a_model_of_another_recipe_is_not_taken_for_this_one(tiny_world):
    pipeline = Pipeline(tiny_world)
    pipeline.train_teacher(), pipeline.train_student("untaught", 1)
    changed = Pipeline(tiny_world)
    changed.student_recipe["training"]["budget_tokens"] = 4_000
    with pytest.raises(KdcourseError, match="made by another recipe .*4000"):
        changed.train_student("untaught", 1)
    changed.teacher_recipe["training"]["budget_tokens"] = 4_000
    with pytest.raises(KdcourseError, match="teacher was made by another recipe"):
        changed.train_teacher()


def test_each_reference_has_the_candidate_nearest_to_it(tiny_world, monkeypatch):
    pipeline = Pipeline(tiny_world)
    pipeline.student_data = ["Clean", "Clean"], ["Limpiar", "Limpio"]
    key, found = source_key("Clean"), ["Limpio", "Limpiar"]
    labels = Labels({}, {key: found[0]}, {key: found})
    monkeypatch.setattr(pipeline, "label", lambda n: labels)
    assert pipeline.targets("interpolation") == ["Limpiar", "Limpio"]


def test_the_card_names_the_recipes_seed(tiny_world, tmp_path):
    pipeline = Pipeline(tiny_world)
    folder = pipeline.train_teacher()
    test = {"bleu": 1.0, "chrf": 2.0}
    record = {
        "teacher": {"parameters": 7, "test": test},
        "manifest": {"data_sha256": "d"},
        "signatures": {},
    }
    card = model_card(pipeline, record, "teacher", folder)
    assert card["seed"] == pipeline.teacher_recipe["training"]["seed"] != 1
