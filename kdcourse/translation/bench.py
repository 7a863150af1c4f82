"""Ratios, both sides measured in one run: size, speed, int8, training throughput."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from .decoding import open_translator, text_files
from .evaluation import latency, score
from .models import Architecture, build_model, count_parameters, load_model
from .training import IGNORE, Example, Recipe, Trainer
from .vocabulary import load_vocabulary

SPEED_SENTENCES = 200  # drawn once from the test split, with a fixed seed


def speed_sample(sources: list[str], count: int = SPEED_SENTENCES) -> list[str]:
    """A fixed random sample of test sources, so that lengths are as in the app."""
    return random.Random(7).sample(sources, min(count, len(sources)))


def speed(teacher: Path, student: Path, sources: list[str]) -> dict:
    """Milliseconds a sentence, one at a time on one thread, and the ratios.

    The teacher searches with beam 4, the student greedily. ``newcomer`` is the
    teacher as ``transformers``' generate runs it, in float32, on some of the sample;
    its ratio is to the int8 student on these very sentences.
    """
    sample = speed_sample(sources)
    few = sample[: max(10, len(sample) // 5)]  # generate takes tenths of a second each
    result = {}
    for precision in ("float32", "int8"):
        for name, model, beam in (("teacher", teacher, 4), ("student", student, 1)):
            translator = open_translator(
                model, "ctranslate2", beam=beam, threads=1, compute_type=precision
            )
            result[f"{name} {precision}"] = asdict(latency(translator, sample))
    newcomer = open_translator(teacher, "torch", beam=4, threads=1)
    result["newcomer"] = asdict(latency(newcomer, few, repeats=1))
    phone = open_translator(student, "ctranslate2", threads=1, compute_type="int8")
    result["student int8, few"] = asdict(latency(phone, few))
    for precision in ("float32", "int8"):
        slow, fast = (
            result[f"{who} {precision}"]["p50_ms"] for who in ("teacher", "student")
        )
        result[f"ratio same engine {precision}"] = slow / fast
    slow, fast = (result[n]["p50_ms"] for n in ("newcomer", "student int8, few"))
    result["ratio newcomer"] = slow / fast
    return result


def sizes(teacher: Path, student: Path) -> dict:
    """Parameters of both and the bytes of the int8 student with its vocabulary."""
    counts = {
        "teacher": count_parameters(load_model(teacher)),
        "student": count_parameters(load_model(student)),
    }
    return {
        "parameters": counts,
        "ratio parameters": counts["teacher"] / counts["student"],
        "int8 student bytes": int8_bytes(student),
    }


def int8_bytes(model: Path) -> int:
    """What a model takes on disk in int8, with its vocabulary and word list."""
    converted = open_translator(model, "ctranslate2", compute_type="int8").folder
    files = [*Path(converted).iterdir(), *text_files(model)]
    return sum(f.stat().st_size for f in files if f.is_file())


def int8_cost(student: Path, sources: list[str], references: list[str]) -> dict:
    """BLEU of the student in float32 and int8 through CTranslate2, greedy.

    ``int8`` is by the engine's default kernel for this processor. Without VNNI that
    one adds two products in 16 bits, which may overflow; ``exact`` is by a kernel that
    does not. ``cost`` is what eight bits cost exactly, ``cost here`` by default.
    """
    scores = {}
    for precision in ("float32", "int8"):
        translator = open_translator(student, "ctranslate2", compute_type=precision)
        scores[precision] = score(translator.translate(sources), references).bleu
    exact = exactly_in_int8(student, sources)
    scores["exact"] = score(exact, references).bleu if exact else scores["int8"]
    whole = scores["float32"]
    return scores | {
        "cost": whole - scores["exact"],
        "cost here": whole - scores["int8"],
    }


def exactly_in_int8(model: Path, sources: list[str]) -> list[str] | None:
    """Greedy int8 translations by MKL's kernel; None where the engine has no MKL.

    CTranslate2 chooses its kernels once in a process, so this takes a new one.
    """
    command = [sys.executable, "-m", "kdcourse", "translate", "--compute-type", "int8"]
    done = subprocess.run(
        [*command, "--model", str(model)],
        input="".join(f"{source}\n" for source in sources).encode(),
        capture_output=True,
        env=os.environ | {"CT2_USE_MKL": "1"},
    )
    lines = done.stdout.decode().split("\n")[:-1]
    return lines if done.returncode == 0 and len(lines) == len(sources) else None


def throughput(
    folder: Path,
    architecture: Architecture,
    examples: list[Example],
    *,
    batch_tokens: int = 500,
    seconds: float = 20.0,
    precision: str = "float32",
) -> dict:
    """Real target tokens a second: our loop and the stock ``Seq2SeqTrainer``.

    The same model, the same examples, as many target tokens a batch on average, the
    same precision and threads, both in this process, one after the other.
    """
    examples = [e for e in examples if max(len(e.source), len(e.target)) <= 200]
    recipe = Recipe(10**9, batch_tokens=batch_tokens, precision=precision)
    ours = _our_rate(folder, architecture, examples, recipe, seconds)
    stock = _stock_rate(folder, architecture, examples, recipe, seconds)
    return {"loop": ours, "stock": stock, "ratio": ours / stock, "precision": precision}


def _our_rate(folder, architecture, examples, recipe, seconds) -> float:
    model = build_model(architecture, load_vocabulary(folder), 1)
    trainer = Trainer(model, recipe, lambda epoch: examples)
    batches = trainer.batches()
    for _ in range(20):  # the first steps allocate
        trainer.step(next(batches))
    tokens, start = trainer.state["tokens"], time.perf_counter()
    while time.perf_counter() - start < seconds:
        trainer.step(next(batches))
    return (trainer.state["tokens"] - tokens) / (time.perf_counter() - start)


class _Stopwatch(TrainerCallback):
    """Stops the stock trainer after some seconds, the first 20 steps not counted."""

    def __init__(self, seconds: float):
        self.seconds, self.start, self.steps = seconds, None, 0

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 20:
            self.start = time.perf_counter()
        if self.start is not None:
            self.elapsed = time.perf_counter() - self.start
            self.steps = state.global_step - 20
            control.should_training_stop = self.elapsed >= self.seconds
        return control


class _Counter(DataCollatorForSeq2Seq):
    """The stock collator, counting the real target tokens of each batch."""

    counts: list[int]

    def __call__(self, features, return_tensors=None):
        batch = super().__call__(features, return_tensors)
        self.counts.append(int((batch["labels"] != IGNORE).sum()))
        return batch


def _stock_rate(folder, architecture, examples, recipe, seconds) -> float:
    vocabulary = load_vocabulary(folder)
    model = build_model(architecture, vocabulary, 1)
    mean_length = sum(len(e.target) for e in examples) / len(examples)
    data = Dataset.from_dict(
        {
            "input_ids": [e.source for e in examples],
            "labels": [e.target for e in examples],
        }
    )
    collator = _Counter(vocabulary, model=model, label_pad_token_id=IGNORE)
    collator.counts = []
    watch = _Stopwatch(seconds)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = Seq2SeqTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=round(recipe.batch_tokens / mean_length),
            max_steps=10**6,
            learning_rate=recipe.peak_learning_rate,
            bf16=recipe.precision == "bfloat16",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=1,
        )
        trainer = Seq2SeqTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=collator,
            callbacks=[watch],
        )
        trainer.train()
    return sum(collator.counts[20 : 20 + watch.steps]) / watch.elapsed
