"""Labels: never misaligned, never half-written, the same bytes after any kill."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap

import pytest
import tiny
import torch
from runs import contents, kill_midway

from kdcourse.errors import KdcourseError
from kdcourse.translation import labelling, storage
from kdcourse.translation.corpus import normalise
from kdcourse.translation.decoding import open_translator
from kdcourse.translation.labelling import (
    Labels,
    fault,
    filter_labels,
    label_corpus,
    source_key,
)
from kdcourse.translation.models import load_model
from kdcourse.translation.sampling import own_outputs
from kdcourse.translation.training import Example, collate, token_logits
from kdcourse.translation.vocabulary import EOS_ID, load_vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")
SOURCES = [*dict.fromkeys(tiny.pairs(90)[0]), "日本語", "open {host}"]
OPTIONS = {"beam": 2, "shard_size": 9}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher that has learned just enough to say something else each time."""
    return tiny.save_trained(tmp_path_factory.mktemp("teacher"), 10_000)


@pytest.fixture(scope="module")
def whole(teacher, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("labels")
    label_corpus(SOURCES, teacher, folder, **OPTIONS)
    return folder


# ------------------------------------------------------------------ found by source


def test_each_source_finds_its_own_translation(teacher, whole):
    labels = Labels.load(whole)
    assert len(labels) == len(SOURCES) == labels.manifest["count"]
    translator = labelling.open_translator(teacher, beam=2, compute_type="int8")
    for source in random.Random(1).sample(SOURCES, 20):
        assert [labels[source]] == translator.translate([source])
    assert labels["日本語"] == "日本語"
    assert len(set(labels.targets.values())) > len(SOURCES) / 2


def test_white_space_and_unicode_form_do_not_matter(whole):
    labels = Labels.load(whole)
    assert labels[f"  {SOURCES[0].replace(' ', '   ')}\n"] == labels[SOURCES[0]]
    assert source_key("cafe\u0301") == source_key("café")


def test_order_and_repetition_do_not_matter(teacher, whole, tmp_path):
    sources = [*SOURCES, *SOURCES[:20], f" {SOURCES[5]} "]
    random.Random(3).shuffle(sources)
    labels = label_corpus(sources, teacher, tmp_path / "shuffled", **OPTIONS)
    assert contents(tmp_path / "shuffled") == contents(whole)
    assert len(labels) == len(SOURCES)


def test_the_files_hold_keys_and_targets_and_no_source(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["complete"] and manifest["beam"] == 2
    keys = []
    for name, digest in manifest["shards"].items():
        data = (whole / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        assert data[4:8] == b"\0\0\0\0"  # gzip's time stamp
        rows = [json.loads(line) for line in gzip.decompress(data).splitlines()]
        assert all(set(row) == {"key", "target"} for row in rows)
        assert len(rows) <= OPTIONS["shard_size"]
        keys += [row["key"] for row in rows]
    assert keys == sorted(source_key(source) for source in SOURCES)
    assert set(contents(whole)) == {"manifest.json", *manifest["shards"]}


def test_a_source_without_a_label_is_named(whole):
    labels = Labels.load(whole)
    labels.check(SOURCES)
    assert SOURCES[3] in labels and "never seen" not in labels
    with pytest.raises(KdcourseError, match="1 source without a label: 'never seen'"):
        _ = labels["never seen"]
    missing = [f"number {n}" for n in range(7)]
    with pytest.raises(KdcourseError, match="7 sources .*'number 2', …"):
        labels.check([*SOURCES, *missing])


# ------------------------------------------------------------------ killed and resumed


class PowerCut(BaseException):
    """Nothing may catch this."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("moment", [0, 1, 2, 5])
def test_a_run_stopped_at_any_write_ends_with_the_same_bytes(
    moment, before, teacher, whole, tmp_path, monkeypatch
):
    count, replace = iter(range(1000)), os.replace

    def cut(old, new):
        now = next(count) == moment
        if not (now and before):
            replace(old, new)
        if now:
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", cut)
        with pytest.raises(PowerCut):
            label_corpus(SOURCES, teacher, tmp_path, **OPTIONS)
    assert contents(tmp_path) != contents(whole)
    with pytest.raises(KdcourseError, match="(No|Unfinished) labels"):
        Labels.load(tmp_path)
    label_corpus(reversed(SOURCES), teacher, tmp_path, **OPTIONS)
    assert contents(tmp_path) == contents(whole)


def test_a_process_killed_midway_ends_with_the_same_bytes(teacher, whole, tmp_path):
    (tmp_path / "sources.json").write_text(json.dumps(SOURCES))
    code = f"""
        import json, sys, time
        from kdcourse.translation import labelling, storage

        write = storage.write_manifest
        def slowly(*arguments):
            write(*arguments)
            time.sleep(1.0)

        storage.write_manifest = slowly
        sources = json.load(open(sys.argv[1]))
        labelling.label_corpus(sources, sys.argv[2], sys.argv[3], **{OPTIONS})
    """
    out = tmp_path / "out"
    arguments = [tmp_path / "sources.json", teacher, out]
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments])
    kill_midway(child, lambda: len(list(out.glob("shard-*.gz"))) >= 3, after=0.0)
    begun = {path.name for path in out.glob("shard-*.gz")}
    assert "shard-00002.jsonl.gz" in begun < {p.name for p in whole.glob("shard-*.gz")}
    label_corpus(SOURCES, teacher, out, **OPTIONS)
    assert contents(out) == contents(whole)


def test_shards_made_side_by_side_have_the_same_bytes(teacher, whole, tmp_path):
    label_corpus(SOURCES, teacher, tmp_path, **OPTIONS, workers=3)
    assert contents(tmp_path) == contents(whole)


def test_what_is_done_is_not_done_again(teacher, whole, monkeypatch):
    before = contents(whole)
    monkeypatch.setattr(labelling, "open_translator", None)
    label_corpus(SOURCES, teacher, whole, **OPTIONS)
    assert contents(whole) == before


def test_a_damaged_shard_is_refused_and_made_anew(teacher, whole, tmp_path):
    for name, data in contents(whole).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "shard-00001.jsonl.gz").write_bytes(b"damaged")
    (tmp_path / "shard-00002.jsonl.gz").unlink()
    with pytest.raises(KdcourseError, match="shard-00001.* not what the manifest"):
        Labels.load(tmp_path)
    label_corpus(SOURCES, teacher, tmp_path, **OPTIONS)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"beam": 3}, "beam 2 for 3"),
        ({"compute_type": "float32"}, "compute_type 'int8' for 'float32'"),
        ({"shard_size": 10}, "shard_size 9 for 10"),
        ({"sources": SOURCES[1:]}, "sources .* count"),
        ({"teacher_folder": "another"}, "teacher '"),
    ],
)
def test_labels_of_another_kind_are_not_gone_on_with(
    changes, named, teacher, whole, tmp_path
):
    before = contents(whole)
    if "teacher_folder" in changes:
        changes = {"teacher_folder": tiny.save_trained(tmp_path, 100)}
    wanted = {"sources": SOURCES, "teacher_folder": teacher, **OPTIONS, **changes}
    with pytest.raises(KdcourseError, match=f"holds other labels.*{named}"):
        label_corpus(out_folder=whole, **wanted)
    assert contents(whole) == before


def test_several_candidates_begin_with_the_best_and_stay_with_their_source(
    teacher, whole, tmp_path
):
    three = label_corpus(
        SOURCES, teacher, tmp_path, **OPTIONS | {"beam": 3}, candidates=3
    )
    shuffled = random.Random(3).sample(SOURCES, len(SOURCES))
    found = {source: three.candidates(source) for source in shuffled}
    assert all(1 <= len(set(c)) == len(c) <= 3 for c in found.values())
    assert all(three[source] == c[0] for source, c in found.items())
    assert max(map(len, found.values())) == 3
    translator = open_translator(teacher, beam=3, compute_type="int8", shield=False)
    assert translator.translate(shuffled) == [c[0] for c in found.values()]
    one = Labels.load(whole)
    assert one.candidates(SOURCES[0]) == [one[SOURCES[0]]]
    assert three.manifest["candidates"] == 3 and "candidates" not in one.manifest


def test_samples_are_the_same_whenever_they_are_drawn(teacher, tmp_path):
    options = OPTIONS | {"candidates": 3, "search": "samples"}
    torch.manual_seed(5)
    first = label_corpus(SOURCES, teacher, tmp_path / "a", **options)
    shuffled = random.Random(3).sample(SOURCES, len(SOURCES))
    torch.manual_seed(6)
    label_corpus(shuffled, teacher, tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    drawn = [first.candidates(source) for source in SOURCES]
    assert all(len(c) == 3 for c in drawn)
    assert any(len(set(c)) > 1 for c in drawn)  # they are draws, not a search


def test_samples_follow_the_teachers_distribution(teacher):
    """The first token's frequencies are its probabilities."""
    model, vocabulary = load_model(teacher), load_vocabulary(teacher)
    source = vocabulary("open the door")["input_ids"]
    batch = collate([Example(source, [EOS_ID], k) for k in range(2000)], tiny.PAD)
    torch.manual_seed(1)
    first = own_outputs(model, batch).labels[:, 0]
    seen = torch.bincount(first, minlength=tiny.SIZE) / len(first)
    one = collate([Example(source, [EOS_ID])], tiny.PAD)
    with torch.no_grad():
        wanted = token_logits(model, one, "float32").softmax(-1)[0]
    assert (seen - wanted).abs().sum() / 2 < 0.08


def test_a_search_that_cannot_be_is_explained(teacher, tmp_path):
    for changes, named in (
        ({"candidates": 3}, "from 1 to 2, the beam"),
        ({"candidates": 0}, "Asked for 0"),
        ({"search": "greedy"}, "Unknown search"),
        ({"search": "samples", "candidates": 65}, "from 1 to 64"),
    ):
        with pytest.raises(KdcourseError, match=named):
            label_corpus(SOURCES, teacher, tmp_path, **OPTIONS | changes)
    assert not list(tmp_path.iterdir())


def test_bad_requests_are_explained(teacher, tmp_path):
    with pytest.raises(KdcourseError, match="No source"):
        label_corpus([], teacher, tmp_path)
    with pytest.raises(KdcourseError, match="number 2 is empty"):
        label_corpus(["a", " "], teacher, tmp_path)
    with pytest.raises(KdcourseError, match="No labels in"):
        Labels.load(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(KdcourseError, match="not a manifest"):
        Labels.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(KdcourseError, match="cannot be written"):
        label_corpus(["open"], teacher, tmp_path / "file")


# ------------------------------------------------------------------ filtering


@pytest.mark.parametrize(
    "source, target, reason",
    [
        ("Turn on", "", "empty"),
        ("The device", "El aparato de de de", "looping"),
        ("The device", "no se pudo no se pudo no se pudo", "looping"),
        ("Routeplanner", "Rutatatatatata", "looping"),
        ("Off", "Apagado y algo que nadie ha dicho jamás aquí", "overlong"),
        ("Open {host}", "Abrir", "placeholders"),
        ("Open {host}", "Abrir {hoost}", "placeholders"),
        ("Open", "Abrir {host}", "placeholders"),
        ("{a} and {a}", "{a}", "placeholders"),
        ("Open {host}", "Abrir {host}", None),
        ("No, no, no", "No, no, no", None),
        ("bla bla bla bla", "ble ble ble ble", None),
        ("Set up the new device", "Set up the new device", "copied"),
        ("Stereo surround", "Stereo surround", None),
        ("Home Assistant Cloud AB CD", "Home Assistant Cloud AB CD", None),
        (
            "The device {my_one} {that_two}",
            "The device {my_one} {that_two}",
            None,
        ),
        ("Enter the code that the device shows you", "Código", "truncated"),
        ("Enter the code that the device shows", "Escribe el código", None),
        ("Uptime", "Tiempo de funcionamiento", None),
        ("Wait ......", "Espere ......", None),
        ("Code 1111111111", "Código 1111111111", None),
    ],
)
def test_each_fault_is_told_from_sound_text(source, target, reason):
    assert fault(source, target) == reason


def test_filtering_keeps_the_order_and_counts_the_faults():
    labels = {"A": "", "C": "C", "{d}": "d", "E": "E E E", "F": "", "G": "G"}
    kept, faults = filter_labels([*labels, "C"], labels)
    assert kept == ["C", "G", "C"]
    assert faults == {"empty": 2, "placeholders": 1, "looping": 1}


def test_the_sources_here_are_as_a_corpus_gives_them():
    assert SOURCES == [normalise(source) for source in SOURCES]
