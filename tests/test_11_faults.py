"""Kills, full disks, damaged files, too little memory, NaN: one error, nothing lost."""

import contextlib
import functools
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from runs import contents, weights

from kdcourse.errors import KdcourseError
from kdcourse.translation import storage, training
from kdcourse.translation.caching import SignalCache, cache_corpus
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.labelling import Labels, label_corpus
from kdcourse.translation.models import Architecture, build_model, save_model
from kdcourse.translation.training import (
    CHECKPOINT,
    DAMAGED,
    PREVIOUS,
    Example,
    OutOfMemory,
    Trainer,
    read_checkpoint,
    reference_loss,
)
from kdcourse.translation.vocabulary import load_vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")
SOURCES, TARGETS = tiny.pairs(45)
SOURCES = list(dict.fromkeys(SOURCES))
TARGETS = TARGETS[: len(SOURCES)]
SHARDS = {"shard_size": 9}
OWN_PROCESS = "KDCOURSE_TEST_OWN_PROCESS"
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a teacher that knows little, but knows to end."""
    return tiny.save_trained(tmp_path_factory.mktemp("teacher"), 4_000)


@pytest.fixture(scope="module")
def vocabulary(teacher):
    return load_vocabulary(teacher)


def label(teacher, folder):
    return label_corpus(SOURCES, teacher, folder, beam=2, **SHARDS)


def cache(teacher, folder):
    vocabulary = load_vocabulary(teacher)
    return cache_corpus(SOURCES, TARGETS, vocabulary, teacher, folder, k=4, **SHARDS)


def read(make, teacher, folder):
    if make is label:
        return Labels.load(folder)
    return SignalCache.load(folder, SOURCES, TARGETS, load_vocabulary(teacher))


both = pytest.mark.parametrize("make", [label, cache])


@pytest.fixture(scope="module")
def untouched(teacher, tmp_path_factory):
    """For labels and for signals, the files of a run that nobody disturbed."""
    files = {}
    for make in (label, cache):
        folder = tmp_path_factory.mktemp(make.__name__)
        make(teacher, folder)
        files[make] = contents(folder)
    return files


def lay_out(files, folder):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sorted(name for name in files if name.startswith("shard"))


def recipe(budget=800, **changes):
    return tiny.recipe(budget, **changes)


def trainer(vocabulary, folder=None, budget=800, **options):
    examples = fixed_examples(*tiny.pairs(), vocabulary)
    options = {"save_seconds": 0.0} | options
    model = build_model(tiny.TINY, vocabulary, 1)
    return Trainer(
        model, recipe(budget), lambda epoch: examples, folder=folder, **options
    )


# ------------------------------------------------------------------ kill -9


def train(teacher, folder):
    """A short training that writes a checkpoint after each of its steps."""
    trainer(load_vocabulary(teacher), folder, 900).run()


def killed_at(kind, number, make, teacher, folder):
    """Run ``make`` in this process, to be killed at its n-th doing of one kind.

    Python tells an audit hook of each opening and renaming, before it happens. At a
    flush half of the file is still on its way, and is lost.
    """
    torch.set_num_threads(1)
    count, fsync = iter(range(1_000_000)), os.fsync

    def watch(event, arguments):
        ours = bool(arguments) and str(folder) in str(arguments[0])
        if event == kind and ours and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(file):
        if kind == "fsync" and next(count) == number:
            os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    storage.os.fsync = watched
    sys.addaudithook(watch)
    make(teacher, folder)


@pytest.fixture(scope="module")
def server():
    """Forks of a process that has imported all and started nothing: quick and clean."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["kdcourse.translation.caching", "kdcourse.translation.labelling"]
    )
    return context


@linux
@pytest.mark.parametrize("make", [label, cache, train])
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    make, server, teacher, vocabulary, untouched, tmp_path
):
    """SIGKILL at seeded moments, each time in the folder that the last one left."""
    chosen = random.Random(f"kill {make.__name__}")
    moments = [("fsync", chosen.choice((1, 3))), ("os.rename", chosen.randrange(5))]
    for kind, number in [*moments, ("open", chosen.randrange(2, 7))]:
        arguments = (kind, number, make, teacher, tmp_path)
        child = server.Process(target=killed_at, args=arguments)
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
    assert any(tmp_path.iterdir())
    if make is train:
        again = trainer(vocabulary, tmp_path, 900)
        assert again.resume() and not again.done
        assert torch.equal(
            weights(again.run()), weights(trainer(vocabulary, None, 900).run())
        )
        return
    assert contents(tmp_path) != untouched[make]
    make(teacher, tmp_path)
    assert contents(tmp_path) == untouched[make]


# ------------------------------------------------------------------ altered files


def set_field(name, value):
    return lambda manifest: manifest | {name: value}


def other_hash(manifest):
    shards = dict(manifest["shards"])
    shards[min(shards)] = "0" * 64
    return manifest | {"shards": shards}


def one_shard_less(manifest):
    shards = dict(manifest["shards"])
    del shards[min(shards)]
    return manifest | {"shards": shards}


def without(name):
    return lambda manifest: {n: v for n, v in manifest.items() if n != name}


@both
@pytest.mark.parametrize(
    "alter",
    [
        set_field("count", 7),
        set_field("teacher", "another"),
        set_field("shard_size", 8),
        other_hash,
        one_shard_less,
        without("count"),
        without("shards"),
    ],
    ids="count teacher size hash shard no-count no-shards".split(),
)
def test_an_altered_manifest_is_not_believed(make, alter, teacher, untouched, tmp_path):
    lay_out(untouched[make], tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(alter(json.loads(path.read_text()))))
    with pytest.raises(KdcourseError, match="not a manifest as it was written"):
        read(make, teacher, tmp_path)
    with pytest.raises(KdcourseError, match="not a manifest as it was written"):
        make(teacher, tmp_path)


@both
@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (set_field("count", 7), "count"),
        (other_hash, "is not what the manifest says"),
        (one_shard_less, "count|rows"),
        (without("count"), "not a manifest .*count"),
    ],
    ids="count hash shard no-count".split(),
)
def test_nor_is_one_that_was_sealed_anew(
    make, alter, message, teacher, untouched, tmp_path
):
    """Whoever knows the format can forge a seal, but not shards that fit."""
    lay_out(untouched[make], tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    storage.write_manifest(tmp_path, alter(manifest))
    with pytest.raises(KdcourseError, match=message):
        read(make, teacher, tmp_path)


def test_signals_of_another_k_are_not_what_the_manifest_says(
    teacher, untouched, tmp_path
):
    lay_out(untouched[cache], tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    storage.write_manifest(tmp_path, manifest | {"k": 8})
    with pytest.raises(KdcourseError, match="another k: k 4 for 8"):
        read(cache, teacher, tmp_path)


@both
def test_a_manifest_that_is_cut_short_is_refused(make, teacher, untouched, tmp_path):
    lay_out(untouched[make], tmp_path)
    path = tmp_path / "manifest.json"
    for text in (path.read_text()[:300], "", "[]", "null"):
        path.write_text(text)
        with pytest.raises(KdcourseError, match="not a manifest as it was written"):
            read(make, teacher, tmp_path)
        with pytest.raises(KdcourseError, match="not a manifest as it was written"):
            make(teacher, tmp_path)


@both
def test_labels_of_old_need_no_seal_and_signals_do(make, teacher, untouched, tmp_path):
    lay_out(untouched[make], tmp_path)
    path = tmp_path / "manifest.json"
    manifest = without("seal")(json.loads(path.read_text()))
    path.write_text(json.dumps(manifest))
    if make is label:
        assert len(read(make, teacher, tmp_path)) == len(SOURCES)
    else:
        with pytest.raises(KdcourseError, match="seal is broken"):
            read(make, teacher, tmp_path)


def cut(folder, shards):
    data = (folder / shards[1]).read_bytes()
    (folder / shards[1]).write_bytes(data[: len(data) // 2])


def exchange(folder, shards):
    first, second = ((folder / name).read_bytes() for name in shards[:2])
    (folder / shards[0]).write_bytes(second)
    (folder / shards[1]).write_bytes(first)


def flip(folder, shards):
    data = bytearray((folder / shards[2]).read_bytes())
    data[-5] ^= 1
    (folder / shards[2]).write_bytes(data)


def remove(folder, shards):
    (folder / shards[0]).unlink()


@both
@pytest.mark.parametrize("damage", [cut, exchange, flip, remove])
def test_damaged_shards_are_refused_and_made_anew(
    make, damage, teacher, untouched, tmp_path
):
    damage(tmp_path, lay_out(untouched[make], tmp_path))
    assert contents(tmp_path) != untouched[make]
    with pytest.raises(KdcourseError, match="shard-.* is (missing|not what)") as error:
        read(make, teacher, tmp_path)
    assert f"Run {make.__name__}_corpus() again" in error.value.todo
    make(teacher, tmp_path)
    assert contents(tmp_path) == untouched[make]


def test_shards_of_another_teacher_do_not_slip_in(
    teacher, vocabulary, untouched, tmp_path
):
    other = save_model(
        build_model(tiny.TINY, vocabulary, 5), vocabulary, tmp_path / "m"
    )
    cache(other, tmp_path / "other")
    folder = tmp_path / "mixed"
    folder.mkdir()
    name = lay_out(untouched[cache], folder)[0]
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(KdcourseError, match=f"{name} is not what the manifest says"):
        read(cache, teacher, folder)
    cache(teacher, folder)
    assert contents(folder) == untouched[cache]


# ------------------------------------------------------------------ a full disk


def fill_disk(path):
    """From now on what is written for this path meets a device that is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".part").symlink_to("/dev/full")


@linux
@both
@pytest.mark.parametrize("victim", ["shard", "manifest.json"])
def test_a_full_disk_loses_no_shard(make, victim, teacher, untouched, tmp_path):
    names = sorted(untouched[make])
    victim = [name for name in names if name.startswith(victim)][-1]
    fill_disk(tmp_path / victim)
    with pytest.raises(KdcourseError, match=f"{victim} cannot be written: No space"):
        make(teacher, tmp_path)
    assert not list(tmp_path.glob("*.part"))
    made = [name for name in names if (tmp_path / name).exists()]
    assert made and victim not in made
    make(teacher, tmp_path)
    assert contents(tmp_path) == untouched[make]


@linux
def test_a_full_disk_keeps_the_checkpoint(vocabulary, tmp_path):
    run = trainer(vocabulary, tmp_path, save_seconds=1e9)
    for batch in run.batches():
        run.step(batch)
        if run.state["step"] == 3:
            break
    run.save()
    before = contents(tmp_path)
    run.step(batch)
    fill_disk(tmp_path / CHECKPOINT)
    with pytest.raises(KdcourseError, match="checkpoint.pt cannot be .*: No space"):
        run.save()
    assert not list(tmp_path.glob("*.part"))
    assert contents(tmp_path) == before
    again = trainer(vocabulary, tmp_path)
    assert again.resume() and again.state["step"] == 3
    assert torch.equal(weights(again.run()), weights(trainer(vocabulary).run()))


@linux
def test_a_file_may_also_be_refused_in_the_middle(tmp_path):
    """The system's own limit on the size of a file, met half-way."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "file"
    storage.write_whole(path, b"old")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(KdcourseError, match="cannot be written: File too large"):
            storage.write_whole(path, bytes(1_000_000))
        with pytest.raises(KdcourseError, match="cannot be written: File too large"):
            with storage.writing_whole(path) as file:
                torch.save(torch.zeros(1_000_000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path) == {"file": b"old"}


# ------------------------------------------------------------------ checkpoints


def spoil(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    elif how == "flipped":
        data[len(data) // 2] ^= 1  # torch.load would take it for a weight
    else:
        data = bytearray()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_costs_no_training(how, vocabulary, tmp_path):
    run = trainer(vocabulary, tmp_path, 500)
    run.run()
    newest, older = (read_checkpoint(tmp_path / n) for n in (CHECKPOINT, PREVIOUS))
    assert newest["state"]["step"] >= older["state"]["step"] > 0
    spoil(tmp_path / CHECKPOINT, how)
    again = trainer(vocabulary, tmp_path, 500)
    with pytest.warns(UserWarning, match="checkpoint.pt is damaged.* Using .*previous"):
        assert again.resume()
    assert (tmp_path / DAMAGED).exists() and (tmp_path / PREVIOUS).exists()
    assert torch.equal(weights(again.run()), weights(run.model))
    read_checkpoint(tmp_path / PREVIOUS)  # the damaged one did not take its place
    spoil(tmp_path / CHECKPOINT, how)
    spoil(tmp_path / PREVIOUS, how)
    with pytest.raises(KdcourseError, match="checkpoint.pt is damaged"):
        trainer(vocabulary, tmp_path, 500).run()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"weights": []}, tmp_path / "a")
    with pytest.raises(KdcourseError, match="is damaged"):
        read_checkpoint(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(KdcourseError, match="is damaged"):
        read_checkpoint(tmp_path / "b")


def test_a_kill_between_two_renames_leaves_the_older_checkpoint(vocabulary, tmp_path):
    trainer(vocabulary, tmp_path, 500).run()
    (tmp_path / CHECKPOINT).unlink()
    again = trainer(vocabulary, tmp_path, 500)
    assert again.resume()
    whole = trainer(vocabulary, None, 500).run()
    assert torch.equal(weights(again.run()), weights(whole))


def test_the_checkpoint_of_another_architecture_is_refused(vocabulary, tmp_path):
    trainer(vocabulary, tmp_path, 500).run()
    examples = fixed_examples(*tiny.pairs(), vocabulary)
    wider = build_model(Architecture(64, 64, 2, 1, 1, dropout=0.1), vocabulary, 1)
    with pytest.raises(KdcourseError, match="a model of other sizes"):
        Trainer(wider, recipe(500), lambda epoch: examples, folder=tmp_path).run()


# ------------------------------------------------------------------ NaN


def bad_loss(value):
    return lambda logits, batch: reference_loss(logits, batch) * value


def bad_gradient(logits, batch):
    """Finite, but its slope is not: the root of 0."""
    return reference_loss(logits, batch) + (logits[0, 0] - logits[0, 0]).sqrt()


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (bad_loss(math.nan), "loss is nan"),
        (bad_loss(math.inf), "loss is inf"),
        (bad_gradient, "gradient's norm is nan"),
    ],
)
def test_a_loss_that_is_no_number_stops_before_it_does_harm(
    loss, named, vocabulary, tmp_path
):
    def sometimes(logits, batch):
        step = run.state["step"]
        return (loss if step == 3 else reference_loss)(logits, batch)

    run = trainer(vocabulary, tmp_path, loss=sometimes)
    message = rf"{named} at step 4 \(epoch 0, batch 4, learning rate 0\.00\d+\)"
    with pytest.raises(KdcourseError, match=message) as error:
        run.run()
    assert str(tmp_path / CHECKPOINT) in str(error.value)
    saved = read_checkpoint(tmp_path / CHECKPOINT)
    assert saved["state"]["step"] == 3
    for kept, own in zip(saved["weights"], run.weights, strict=True):
        assert kept.isfinite().all() and torch.equal(kept, own)
    again = trainer(vocabulary, tmp_path)
    assert torch.equal(weights(again.run()), weights(trainer(vocabulary).run()))


def test_weights_that_are_no_numbers_are_named(vocabulary):
    run = trainer(vocabulary)
    with torch.no_grad():
        run.model.model.encoder.layers[0].fc1.weight[0, 0] = math.nan
    with pytest.raises(KdcourseError, match="logits are nan at step 1"):
        run.run()


def test_an_ordinary_mistake_in_a_loss_keeps_its_own_error(vocabulary):
    run = trainer(vocabulary, loss=lambda z, batch: reference_loss(z[None], batch))
    with pytest.raises(ValueError, match="student_logits is of shape"):
        run.run()


# ------------------------------------------------------------------ memory


def in_own_process(test):
    """Run a test in a fresh process: what others left mapped is room for a batch."""

    @functools.wraps(test)
    def run(*fixtures, **named):
        if os.environ.get(OWN_PROCESS):
            return test(*fixtures, **named)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"{__file__}::{test.__name__}"],
            env=os.environ | {OWN_PROCESS: "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout

    return run


@contextlib.contextmanager
def little_memory(spare):
    """No more than so many bytes beside those that the process has now."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (most, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


def greedy_trainer(vocabulary, folder, batch_tokens, budget=30_000):
    """A first epoch of one small batch, then one of a few hundred megabytes."""
    small = fixed_examples(*tiny.pairs(30), vocabulary)
    row = [*random.Random(1).choices(range(2, tiny.SIZE - 1), k=199), 0]
    large = [Example(row, row)] * 60
    return Trainer(
        build_model(tiny.TINY, vocabulary, 1),
        recipe(budget, batch_tokens=batch_tokens),
        lambda epoch: large if epoch == 1 else small,
        folder=folder,
    )


@linux
@in_own_process
def test_a_batch_without_memory_is_named_and_costs_no_training(vocabulary, tmp_path):
    run = greedy_trainer(vocabulary, tmp_path, 12_000)
    message = "60 rows, sources padded to 200 and targets to 200 tokens"
    with little_memory(60_000_000):
        with pytest.raises(OutOfMemory, match=message) as error:
            run.run()
    assert "Lower batch_tokens" in error.value.todo
    assert read_checkpoint(tmp_path / CHECKPOINT)["state"]["step"] == 1

    # With more memory, as if nothing had happened; or at once, with smaller batches.
    smaller = greedy_trainer(vocabulary, tmp_path, 1_000, budget=30_000)
    assert smaller.resume() and smaller.state["batch"] == 0
    for batch in smaller.batches():
        smaller.step(batch)
        break
    assert smaller.state["step"] == 2 and batch.tokens == 1_000
    ends = []
    for folder in (tmp_path, None):
        own = greedy_trainer(vocabulary, folder, 12_000)
        assert own.resume() == bool(folder)
        while own.state["step"] < 2:
            own.step(next(own.batches()))
        ends.append(weights(own.model))
    assert torch.equal(*ends)


def test_a_batch_that_cannot_even_be_padded_is_named_too(
    vocabulary, tmp_path, monkeypatch
):
    """The second epoch has no room for its rectangle: nothing of the first is lost."""
    whole = training.pad_sequence

    def pad_sequence(rows, **options):
        if max(map(len, rows)) == 200:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(rows, **options)

    monkeypatch.setattr(training, "pad_sequence", pad_sequence)
    run = greedy_trainer(vocabulary, tmp_path, 12_000)
    message = "60 rows, sources padded to 200 and targets to 200 tokens"
    with pytest.raises(OutOfMemory, match=message) as error:
        run.run()
    assert "Lower batch_tokens" in error.value.todo
    state = read_checkpoint(tmp_path / CHECKPOINT)["state"]
    assert (state["step"], state["epoch"], state["batch"]) == (1, 1, 0)


def test_larger_batches_than_the_checkpoints_are_another_recipe(vocabulary, tmp_path):
    greedy_trainer(vocabulary, tmp_path, 500, budget=300).run()
    with pytest.raises(KdcourseError, match="another recipe"):
        greedy_trainer(vocabulary, tmp_path, 501, budget=300).run()


@linux
@in_own_process
def test_a_cache_without_memory_goes_on_with_less(teacher, tmp_path):
    """The folder accepts smaller batches: what was made before stays."""
    vocabulary = load_vocabulary(teacher)
    long = [f"{'open door window ' * 20}{number}" for number in range(150)]
    sources, targets = [*SOURCES, *long], [*TARGETS, *long]

    def run(batch_tokens):
        return cache_corpus(
            sources,
            targets,
            vocabulary,
            teacher,
            tmp_path,
            k=4,
            shard_size=200,
            batch_tokens=batch_tokens,
        )

    with little_memory(100_000_000):
        with pytest.raises(OutOfMemory, match="A batch of .* rows"):
            run(100_000)
    assert not list(tmp_path.glob("*.part"))
    assert len(run(500).offsets) == len(sources) + 1


def test_two_processes_on_one_store_share_its_work(tmp_path):
    """The second waits for the first, and makes what that has left: nothing."""
    made = []

    def make(part):
        made.append(part)
        time.sleep(0.05)
        return f"part {part}".encode()

    def fill(store):
        return store.fill(make, workers=2)

    parts = {f"shard-{n}": n for n in range(6)}
    stores = [
        storage.Store(
            tmp_path / "store", {"of": 1}, parts, maker="make", things="parts"
        )
        for _ in range(2)
    ]
    assert all(len(store.todo) == 6 for store in stores)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fill, stores)
    assert first == second and first["complete"]
    assert sorted(made) == list(range(6))
