"""The second road: the same numbers as the loop, in one process, two, or resumed."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import tiny
import torch
from datasets import Dataset, DatasetDict, Features, Translation, Value
from runs import kill_midway, weights
from safetensors.torch import load_file
from transformers import MarianMTModel, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from kdcourse.__main__ import main
from kdcourse.commands.finetune import keep_known_words
from kdcourse.errors import KdcourseError
from kdcourse.theory.arguments import BadArgument
from kdcourse.translation import training
from kdcourse.translation.caching import cache_corpus, cache_signals
from kdcourse.translation.checkpoints import last_checkpoint
from kdcourse.translation.distil import Method
from kdcourse.translation.losses import live_loss
from kdcourse.translation.models import (
    Architecture,
    build_model,
    load_model,
    save_model,
)
from kdcourse.translation.shield import NameShield, write_known_words
from kdcourse.translation.trainer import DistillationTrainer, arguments
from kdcourse.translation.trainer_data import encode
from kdcourse.translation.training import (
    Example,
    Trainer,
    collate,
    reference_loss,
    validation_loss,
)
from kdcourse.translation.vocabulary import train_vocabulary

CALM = Architecture(32, 64, 2, 1, 1, dropout=0.0)
TEACHER = Architecture(48, 64, 2, 1, 1, dropout=0.3)
ROWS = 96
# Adam hides a gradient of a wrong size, and makes rounding large where it is zero.
PLAIN = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "warmup_steps": 0}


@pytest.fixture(scope="module")
def vocabulary():
    return tiny.vocabulary()


@pytest.fixture(scope="module")
def data():
    return pairs(ROWS)


@pytest.fixture(scope="module")
def teacher(vocabulary):
    return build_model(TEACHER, vocabulary, 7)


def pairs(count, seed=1):
    rows = zip(*tiny.pairs(count, seed), strict=True)
    return Dataset.from_dict(
        {"translation": [{"en": s, "es": t} for s, t in rows]},
        features=Features({"translation": Translation(languages=["en", "es"])}),
    )


def columns(data, vocabulary):
    rows = data["translation"][:]
    return [row["en"] for row in rows], [row["es"] for row in rows]


def examples_of(data, vocabulary):
    rows = encode(*columns(data, vocabulary), vocabulary)
    return [Example(r["input_ids"], r["labels"], r["key"]) for r in rows]


def trainer(vocabulary, data, folder, *, model=None, recipe=None, **options):
    """A trainer that takes 12 steps of 8 rows in the order of the data."""
    names = ("method", "teacher", "signals", "labels", "alpha", "temperature")
    names += ("callbacks", "eval_dataset", "languages", "compute_metrics")
    teaching = {n: options.pop(n) for n in names if n in options}
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": 12,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return DistillationTrainer(
        model or build_model(CALM, vocabulary, 1),
        arguments(folder, recipe or tiny.recipe(), **(settings | options)),
        data,
        processing_class=vocabulary,
        **teaching,
    )


def losses(run):
    return [row["loss"] for row in run.state.log_history if "loss" in row]


# --- The two roads agree ---------------------------------------------------------


@pytest.mark.parametrize("method", ["untaught", "live", "cached", "smoothing"])
def test_the_loop_and_the_trainer_agree_step_by_step(
    method, vocabulary, data, teacher, tmp_path, monkeypatch
):
    """Losses and weights within 1e-5 after 12 steps of warm-up and decay.

    But for the keys' biases: they move all scores of a query alike, so their gradient
    is 0 but for rounding, which Adam makes as large as any other.
    """
    examples = examples_of(data, vocabulary)
    signals = cache_signals(teacher, examples, k=4)
    options, loss = {
        "untaught": ({}, reference_loss),
        "live": (
            {"method": "word-js", "teacher": copy.deepcopy(teacher), "alpha": 0.3},
            live_loss(teacher, 0.3, "generalised_js"),
        ),
        "cached": (
            {"method": "word", "signals": signals, "alpha": 0.3},
            training_loss("word_loss", signals, 0.3),
        ),
        "smoothing": ({"method": "smoothing"}, training_loss("smoothed_loss", 0.1)),
    }[method]

    def rate(progress, step, recipe):  # that of the stock trainer, for 12 steps
        warm = recipe.warmup_steps
        slope = step / warm if step < warm else (12 - step) / (12 - warm)
        return recipe.peak_learning_rate * slope

    monkeypatch.setattr(training, "learning_rate", rate)
    recipe = tiny.recipe(weight_decay=0.0, clip_norm=0.5)
    loop = Trainer(build_model(CALM, vocabulary, 1), recipe, lambda e: [], loss=loss)
    said = []
    for start in range(0, ROWS, 8):
        before = loop.state["loss_sum"]
        batch = collate(examples[start : start + 8], tiny.PAD)
        loop.step(batch)
        said.append((loop.state["loss_sum"] - before) / batch.tokens)

    keyed = data.add_column("key", list(range(ROWS)))
    run = trainer(vocabulary, keyed, tmp_path, recipe=recipe, **options)
    run.train()
    assert losses(run) == pytest.approx(said, abs=1e-5)
    ours = dict(loop.model.named_parameters())
    for name, weight in run.model.named_parameters():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weight, ours[name], atol=1e-5, rtol=0)
    assert said[-1] < said[0]


def training_loss(name, *given):
    from kdcourse.translation import losses

    return getattr(losses, name)(*given)


def test_one_batch_is_as_good_as_four_parts_of_it(vocabulary, data, teacher, tmp_path):
    """A step is divided by all its tokens, not by those of each part, nor twice."""
    options = {"method": "word", "teacher": teacher, "max_steps": 4, **PLAIN}
    whole = trainer(
        vocabulary, data, tmp_path, per_device_train_batch_size=24, **options
    )
    parts = trainer(
        vocabulary,
        data,
        tmp_path,
        per_device_train_batch_size=6,
        gradient_accumulation_steps=4,
        **options,
    )
    whole.train()
    parts.train()
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    torch.testing.assert_close(
        weights(parts.model), weights(whole.model), atol=1e-5, rtol=0
    )


# --- Two processes ---------------------------------------------------------------

TWO = """
    import json, os, sys
    sys.path.insert(0, os.getcwd())  # that of the tests
    from datasets import load_from_disk
    from kdcourse.translation.models import load_model
    from kdcourse.translation.trainer import DistillationTrainer, arguments
    from kdcourse.translation.vocabulary import load_vocabulary
    import tiny, torch
    torch.set_num_threads(1)
    folder = sys.argv[1]
    run = DistillationTrainer(
        load_model(f"{folder}/student"),
        arguments(
            f"{folder}/two", tiny.recipe(), per_device_train_batch_size=4,
            gradient_accumulation_steps=2, max_steps=12,
            train_sampling_strategy="sequential",
            logging_steps=1, save_strategy="no", disable_tqdm=True,
            **json.loads(sys.argv[2]),
        ),
        load_from_disk(f"{folder}/data"),
        processing_class=load_vocabulary(f"{folder}/student"),
        method="word-js", teacher=f"{folder}/teacher", alpha=0.2,
    )
    run.train()
    assert run.accelerator.num_processes == 2
    run.save_model()
    if run.is_world_process_zero():
        said = [row["loss"] for row in run.state.log_history if "loss" in row]
        with open(f"{folder}/losses.json", "w") as file:
            json.dump(said, file)
"""


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(
    vocabulary, data, teacher, tmp_path, root
):
    """Losses and weights within 1e-5: only the order of sums differs.

    Each of the two reads 4 rows twice a step, the one reads 16 at a time.
    """
    student = build_model(CALM, vocabulary, 1)
    save_model(student, vocabulary, tmp_path / "student", torch.float32)
    save_model(teacher, vocabulary, tmp_path / "teacher", torch.float32)
    data.save_to_disk(tmp_path / "data")
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", "2", "--num_machines", "1", "--dynamo_backend", "no"]
    command += ["--mixed_precision", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [*command, str(tmp_path / "two.py"), str(tmp_path), json.dumps(PLAIN)],
        cwd=root / "tests",
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one = trainer(
        vocabulary,
        data,
        tmp_path / "one",
        per_device_train_batch_size=16,
        method="word-js",
        teacher=str(tmp_path / "teacher"),
        alpha=0.2,
        **PLAIN,
    )
    one.train()
    said = json.loads((tmp_path / "losses.json").read_text())
    assert losses(one) == pytest.approx(said, abs=1e-5)
    two = load_model(tmp_path / "two")
    torch.testing.assert_close(weights(two), weights(one.model), atol=1e-5, rtol=0)
    assert said[-1] < said[0]


# --- Killed and resumed ----------------------------------------------------------

KILLED = """
    import sys, time
    import tiny, torch
    from datasets import load_from_disk
    from transformers import TrainerCallback
    from kdcourse.translation.vocabulary import load_vocabulary
    from test_11_trainer import long_run
    torch.set_num_threads(1)

    class Slow(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            time.sleep(0.1)

    folder = sys.argv[1]
    data, vocabulary = load_from_disk(f"{folder}/data"), load_vocabulary(folder)
    run = long_run(vocabulary, data, f"{folder}/run")
    run.add_callback(Slow())
    run.train()
"""


def long_run(vocabulary, data, folder):
    """18 steps with dropout, a random order, and half of them on its own samples."""
    return trainer(
        vocabulary,
        data,
        folder,
        model=build_model(tiny.TINY, vocabulary, 1),
        method="on-policy",
        teacher=build_model(TEACHER, vocabulary, 7),
        max_steps=18,
        gradient_accumulation_steps=2,
        train_sampling_strategy="random",
        save_strategy="steps",
        save_steps=4,
        save_total_limit=2,
    )


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(vocabulary, data, tmp_path, root):
    """SIGKILL at no chosen moment, then go on: the same weights as never killed."""
    vocabulary.save_pretrained(tmp_path)
    data.save_to_disk(tmp_path / "data")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        cwd=root / "tests",
        stdout=subprocess.DEVNULL,
    )
    kill_midway(process, lambda: last_checkpoint(tmp_path / "run") is not None)
    step = int(last_checkpoint(tmp_path / "run").rpartition("-")[2])
    assert 0 < step < 18
    whole = long_run(vocabulary, data, tmp_path / "whole")
    whole.train()
    again = long_run(vocabulary, data, tmp_path / "run")
    again.train(resume_from_checkpoint=True)
    assert torch.equal(weights(again.model), weights(whole.model))
    assert losses(again) == losses(whole)


def test_a_checkpoint_that_was_cut_short_is_passed_over(vocabulary, data, tmp_path):
    first = trainer(
        vocabulary, data, tmp_path, save_strategy="steps", save_steps=4, max_steps=12
    )
    first.train(resume_from_checkpoint=True)  # there is none: it starts
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"global_st')
    weight_file = tmp_path / "checkpoint-8" / "model.safetensors"
    weight_file.write_bytes(weight_file.read_bytes()[:-10])
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    archive = tmp_path / "checkpoint-4" / "optimizer.pt"
    kept = archive.read_bytes()
    archive.write_bytes(kept[: len(kept) // 2])
    assert last_checkpoint(tmp_path) is None
    archive.write_bytes(kept)
    again = trainer(vocabulary, data, tmp_path, max_steps=12)
    again.train(resume_from_checkpoint=True)
    assert torch.equal(weights(again.model), weights(first.model))


# --- What the student is told ----------------------------------------------------


def test_a_full_cache_found_by_key_says_what_the_live_teacher_says(
    vocabulary, data, teacher, tmp_path
):
    """Shuffled after it was keyed, each row still has its own answers."""
    signals = cache_signals(teacher, examples_of(data, vocabulary), k=tiny.SIZE)
    keyed = data.add_column("key", list(range(ROWS))).shuffle(seed=3)
    live = trainer(vocabulary, keyed, tmp_path, method="word", teacher=teacher)
    cached = trainer(vocabulary, keyed, tmp_path, method="word", signals=signals)
    live.train()
    cached.train()
    assert losses(cached) == pytest.approx(losses(live), abs=2e-3)  # kept in float16
    order = [tuple(e.target) for e in examples_of(keyed, vocabulary)]
    assert order != [tuple(e.target) for e in examples_of(data, vocabulary)]


def test_a_cache_on_disk_is_found_by_source_and_target(
    vocabulary, data, teacher, tmp_path
):
    save_model(teacher, vocabulary, tmp_path / "teacher", torch.float32)
    cache_corpus(
        *columns(data, vocabulary),
        vocabulary,
        tmp_path / "teacher",
        tmp_path / "signals",
        k=tiny.SIZE,
    )
    other = data.shuffle(seed=4).select(range(40))
    live = trainer(vocabulary, other, tmp_path, method="word", teacher=teacher)
    cached = trainer(
        vocabulary, other, tmp_path, method="word", signals=tmp_path / "signals"
    )
    live.train()
    cached.train()
    assert losses(cached) == pytest.approx(losses(live), abs=2e-3)


def test_sequence_level_learns_the_labels_and_not_the_references(
    vocabulary, data, teacher, tmp_path
):
    sources, targets = columns(data, vocabulary)
    labels = {s: "luz luz" for s in sources}
    told = trainer(vocabulary, data, tmp_path, method="sequence", labels=labels)
    assert {vocabulary.decode(r["labels"][:-1]) for r in told.train_dataset} == {
        "luz luz"
    }
    both = trainer(
        vocabulary, data, tmp_path, method="both", labels=labels, teacher=teacher
    )
    both.train()
    assert losses(both)[-1] < losses(both)[0]


@pytest.mark.parametrize("divergence", ["reverse_kl", "skew_kl", "total_variation"])
def test_any_divergence_and_temperature_is_that_of_the_theory(
    divergence, vocabulary, data, teacher, tmp_path
):
    from kdcourse.theory.losses import distillation_loss
    from kdcourse.translation.training import token_logits

    model = build_model(CALM, vocabulary, 1)
    run = trainer(
        vocabulary,
        data,
        tmp_path,
        model=copy.deepcopy(model),
        method=Method(divergence=divergence),
        teacher=teacher,
        temperature=2.0,
        alpha=0.25,
        max_steps=1,
    )
    run.train()
    batch = collate(examples_of(data, vocabulary)[:8], tiny.PAD)
    with torch.no_grad():
        wanted = distillation_loss(
            token_logits(model, batch, "float32"),
            token_logits(teacher, batch, "float32"),
            labels=batch.real_labels,
            divergence=divergence,
            temperature=2.0,
            alpha=0.25,
        )
    assert losses(run) == pytest.approx([float(wanted)], abs=1e-5)


class Watch(TrainerCallback):
    """Keeps what was true at each step."""

    def __init__(self, look):
        self.look, self.seen = look, []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(self.look())


def test_teacher_frozen_and_calm_student_in_training(
    vocabulary, data, teacher, tmp_path
):
    """Pitfall 12; and of the two, only the student is saved."""
    before = weights(teacher).clone()
    teacher.train()
    watch = Watch(lambda: (run.model.training, teacher.training))
    run = trainer(
        vocabulary, data, tmp_path, method="word", teacher=teacher, callbacks=[watch]
    )
    run.train()
    assert watch.seen == [(True, False)] * 12
    assert torch.equal(weights(teacher), before)
    assert not any(p.requires_grad for p in teacher.parameters())
    run.save_model(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert sum(v.numel() for v in saved.values()) <= sum(
        v.numel() for v in build_model(CALM, vocabulary, 1).state_dict().values()
    )
    assert set(saved) <= set(run.model.state_dict())


def test_the_pad_row_stays_zero_and_the_positions_stay(vocabulary, data, tmp_path):
    run = trainer(vocabulary, data, tmp_path)
    positions = run.model.model.encoder.embed_positions.weight.clone()
    run.train()
    assert (run.model.get_input_embeddings().weight[tiny.PAD] == 0).all()
    assert torch.equal(run.model.model.encoder.embed_positions.weight, positions)


# --- On-policy -------------------------------------------------------------------


@pytest.mark.parametrize("share, wanted", [(0.0, {False}), (1.0, {True})])
def test_the_share_of_the_steps_is_on_its_own_samples(
    share, wanted, vocabulary, data, teacher, tmp_path, monkeypatch
):
    """Of a step on samples, N counts the samples' tokens, over all its parts."""
    counts, scored = [], []
    run = trainer(
        vocabulary,
        data,
        tmp_path,
        method=Method(divergence="reverse_kl", share=share),
        teacher=teacher,
        max_steps=3,
        gradient_accumulation_steps=2,
        callbacks=[watch := Watch(lambda: run.own)],
    )
    compute, loss = run.compute_loss, run.teaching.loss

    def counted(model, inputs, *args, **kwargs):
        counts.append(int(kwargs["num_items_in_batch"]))
        return compute(model, inputs, *args, **kwargs)

    def seen(logits, batch, own):
        scored.append(batch)
        return loss(logits, batch, own)

    run.compute_loss = counted
    object.__setattr__(run.teaching, "loss", seen)
    run.train()
    assert set(watch.seen) == wanted
    targets = {tuple(e.target) for e in examples_of(data, vocabulary)}
    for number in range(3):
        parts = scored[2 * number : 2 * number + 2]
        assert sum(b.tokens for b in parts) == counts[2 * number]
        rows = [r[r >= 0].tolist() for b in parts for r in b.labels]
        assert all((tuple(r) in targets) != share for r in rows)


def test_half_the_steps_is_some_of_both(vocabulary, data, teacher, tmp_path):
    watch = Watch(lambda: run.own)
    run = trainer(
        vocabulary,
        data,
        tmp_path,
        method="on-policy",
        teacher=teacher,
        callbacks=[watch],
    )
    run.train()
    assert set(watch.seen) == {True, False}
    assert losses(run)[-1] < losses(run)[0]


# --- Evaluation, logs, progress --------------------------------------------------


@pytest.mark.parametrize("generates", [False, True])
def test_the_loss_of_an_evaluation_is_per_reference_token(
    generates, vocabulary, data, teacher, tmp_path
):
    """However the rows fall into batches, and whatever the method is."""
    unseen = pairs(50, seed=9)
    seen = []
    run = trainer(
        vocabulary,
        DatasetDict(train=data, validation=unseen),
        tmp_path,
        method="word",
        teacher=teacher,
        per_device_eval_batch_size=7,
        predict_with_generate=generates,
        generation_max_length=12,
        compute_metrics=lambda p: seen.append(p) or {} if generates else {},
    )
    wanted = validation_loss(run.model, examples_of(unseen, vocabulary))
    assert run.evaluate()["eval_loss"] == pytest.approx(wanted, abs=1e-5)
    other = pairs(10, seed=8)
    wanted = validation_loss(run.model, examples_of(other, vocabulary))
    assert run.evaluate(other)["eval_loss"] == pytest.approx(wanted, abs=1e-5)
    assert run.predict(other).metrics["test_loss"] == pytest.approx(wanted, abs=1e-5)
    if generates:
        assert len(seen[0].predictions) == 50


def test_tensorboard_is_told_of_loss_and_learning_rate(vocabulary, data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(vocabulary, data, tmp_path, report_to="tensorboard")
    run.train()
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file))
    events.Reload()
    for tag in ("loss", "learning_rate"):
        told = {e.step: e.value for e in events.Scalars(f"train/{tag}")}
        logged = {r["step"]: r[tag] for r in run.state.log_history if tag in r}
        assert list(told) == list(range(1, 13))
        assert told == pytest.approx(logged)


def test_progress_is_shown_as_by_the_stock_trainer(vocabulary, data, tmp_path, capsys):
    run = trainer(vocabulary, data, tmp_path, disable_tqdm=False)
    assert any(isinstance(c, ProgressCallback) for c in run.callback_handler.callbacks)
    run.train()
    assert "12/12" in capsys.readouterr().err


def test_what_is_saved_is_ready_to_generate(vocabulary, data, tmp_path):
    run = trainer(vocabulary, data, tmp_path)
    run.train()
    run.save_model(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["use_cache"]
    saved = MarianMTModel.from_pretrained(tmp_path / "saved")
    generation = saved.generation_config
    assert generation.use_cache and generation.max_length == 256
    assert generation.num_beams == 1


# --- Mistakes --------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_training(vocabulary, data, tmp_path):
    class Spoil(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 7:
                with torch.no_grad():
                    model.model.encoder.layers[0].fc1.weight[0, 0] = torch.nan

    run = trainer(
        vocabulary,
        data,
        tmp_path,
        save_strategy="steps",
        save_steps=3,
        callbacks=[Spoil()],
    )
    with pytest.raises(KdcourseError, match="not finite at step 8.*checkpoint-6"):
        run.train()
    kept = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    assert all(value.isfinite().all() for value in kept.values())
    assert last_checkpoint(tmp_path).endswith("checkpoint-6")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_moves_no_weight(bad, vocabulary, data, tmp_path):
    run = trainer(vocabulary, data, tmp_path, save_strategy="steps", save_steps=1)
    weight = run.model.model.encoder.layers[0].fc1.weight
    before = weights(run.model).clone()

    def spoil(gradient):
        return gradient.index_fill(0, torch.tensor([0]), bad)

    weight.register_hook(spoil)
    with pytest.raises(KdcourseError, match="gradient is not finite at step 1"):
        run.train()
    assert torch.equal(weights(run.model), before)
    assert last_checkpoint(tmp_path) is None


def test_an_infinite_loss_ends_the_training(vocabulary, data, tmp_path):
    run = trainer(vocabulary, data, tmp_path)
    object.__setattr__(
        run.teaching, "loss", lambda logits, *_: logits.sum() * 0 + float("inf")
    )
    with pytest.raises(KdcourseError, match="loss is not finite at step 1"):
        run.train()


def other_vocabulary():
    return train_vocabulary([*tiny.WORDS] * 5, 40)


def test_a_teacher_of_another_vocabulary_is_sent_to_sequence_level(
    vocabulary, data, tmp_path
):
    model = build_model(TEACHER, other := other_vocabulary(), 1)
    with pytest.raises(KdcourseError, match="sequence-level"):
        trainer(vocabulary, data, tmp_path, method="word", teacher=model)
    save_model(model, other, tmp_path / "other")
    with pytest.raises(KdcourseError, match="sequence-level"):
        trainer(vocabulary, data, tmp_path, method="word", teacher=tmp_path / "other")


def test_a_teacher_whose_vocabulary_only_has_the_same_size(vocabulary, data, tmp_path):
    model = build_model(TEACHER, vocabulary, 1)
    save_model(model, vocabulary, tmp_path / "same")
    trainer(vocabulary, data, tmp_path, method="word", teacher=tmp_path / "same")
    shutil.copytree(tmp_path / "same", tmp_path / "mixed")
    path = tmp_path / "mixed" / "tokenizer.json"
    state = json.loads(path.read_text())
    pieces = state["model"]["vocab"]
    pieces[10], pieces[11] = pieces[11], pieces[10]
    path.write_text(json.dumps(state))
    with pytest.raises(KdcourseError, match="vocabulary of its own"):
        trainer(vocabulary, data, tmp_path, method="word", teacher=tmp_path / "mixed")
    path.unlink()  # as in the folder of a slow tokenizer
    with pytest.raises(KdcourseError, match="vocabulary of its own"):
        trainer(vocabulary, data, tmp_path, method="word", teacher=tmp_path / "mixed")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "word"}, "no answers of a teacher"),
        ({"method": "on-policy"}, "no answers of a teacher"),
        ({"method": "sequence"}, "labels are missing"),
        ({"labels": {}}, "labels were given"),
        ({"method": "sequence", "labels": {"turn": "gira"}}, "label"),
        ({"method": "unheard"}, "Unknown method"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"languages": ("en", "fr")}, "Row 0 has texts in en, es"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    options, message, vocabulary, data, tmp_path
):
    with pytest.raises(KdcourseError, match=message):
        trainer(vocabulary, data, tmp_path, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": Method(divergence="forward-kl")},
        {"method": "word", "alpha": 1.5},
        {"method": "word", "temperature": 0.0},
    ],
)
def test_a_wrong_divergence_or_number_is_named(
    options, vocabulary, data, teacher, tmp_path
):
    with pytest.raises(BadArgument, match="divergence|alpha|temperature"):
        trainer(vocabulary, data, tmp_path, teacher=teacher, **options)


def test_signals_want_keys_and_their_own_rows(vocabulary, data, teacher, tmp_path):
    signals = cache_signals(teacher, examples_of(data, vocabulary)[:8], k=4)
    with pytest.raises(KdcourseError, match="no key"):
        trainer(vocabulary, data, tmp_path, method="word", signals=signals)
    keyed = data.add_column("key", list(range(ROWS)))
    run = trainer(vocabulary, keyed, tmp_path, method="word", signals=signals)
    with pytest.raises(KdcourseError, match="keys in"):
        run.train()
    with pytest.raises(KdcourseError, match="No signals"):
        trainer(vocabulary, data, tmp_path, method="word", signals=tmp_path / "none")


def test_data_without_rows_or_translations(vocabulary, data, tmp_path):
    with pytest.raises(KdcourseError, match="no rows"):
        trainer(vocabulary, data.select([]), tmp_path)
    with pytest.raises(KdcourseError, match="columns text"):
        trainer(vocabulary, Dataset.from_dict({"text": ["a"]}), tmp_path)
    half = Dataset.from_dict(
        {"translation": [{"en": "door", "es": None}]},
        features=Features({"translation": {n: Value("string") for n in ("en", "es")}}),
    )
    with pytest.raises(KdcourseError, match="Row 0 has texts in en"):
        trainer(vocabulary, half, tmp_path)


def test_a_student_cannot_teach_itself_by_mistake(vocabulary, data, tmp_path):
    model = build_model(CALM, vocabulary, 1)
    with pytest.raises(KdcourseError, match="one and the same"):
        trainer(vocabulary, data, tmp_path, model=model, method="word", teacher=model)
    with pytest.raises(KdcourseError, match="processing_class"):
        trainer(other_vocabulary(), data, tmp_path, model=model)


def test_interpolation_is_not_taken_for_plain_sequences(vocabulary, data, tmp_path):
    with pytest.raises(KdcourseError, match="interpolation chooses among several"):
        trainer(vocabulary, data, tmp_path, method="interpolation", labels={})


# --- The command -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fresh", "listed", "known"),
    [
        (False, True, {"turn", "luz", "abre"}),
        (True, True, {"luz", "abre"}),
        (True, False, {"luz", "abre"}),
        (False, False, None),
    ],
)
def test_the_list_of_known_words_follows_the_data(fresh, listed, known, tmp_path):
    """What the model has read; one from the Hub without a list has read far more."""
    start, out = tmp_path / "start", tmp_path / "out"
    start.mkdir()
    if listed:
        write_known_words(start, ["turn"])
    args = SimpleNamespace(fresh=fresh, model=start)
    keep_known_words(args, out, ["luz abre"])
    shield = NameShield.load(out)
    assert (shield and shield.known - {""}) == known


def test_the_command_trains_goes_on_and_refuses_other_settings(
    vocabulary, teacher, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    rows = zip(*tiny.pairs(300, seed=5), strict=True)
    (tmp_path / "mine.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in rows))
    save_model(build_model(CALM, vocabulary, 1), vocabulary, tmp_path / "start")
    save_model(teacher, vocabulary, tmp_path / "teacher")
    command = ["finetune", str(tmp_path / "out"), "--model", str(tmp_path / "start")]
    command += ["--corpus", f"tsv:{tmp_path / 'mine.tsv'}", "--method", "word-js"]
    command += ["--teacher", str(tmp_path / "teacher"), "--save-steps", "5"]
    command += ["--tensorboard", "--warmup-steps", "3", "--learning-rate", "0.01"]
    assert main(command) == 0
    out = tmp_path / "out" / "model"
    assert f"The model is in {out}" in capsys.readouterr().out
    trained = weights(load_model(out))
    start = weights(load_model(tmp_path / "start"))
    assert trained.isfinite().all() and not torch.equal(trained, start)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    assert main(command) == 0  # it is finished: nothing changes
    assert torch.equal(weights(load_model(out)), trained)
    assert main([*command, "--alpha", "0.5"]) == 1
    assert "alpha 0.0 for 0.5" in capsys.readouterr().err
