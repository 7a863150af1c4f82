"""What k buys, on small students: ``python tools/record_topk.py``.

Twins of one small architecture are trained on the same short strings, in the same
order, to the same budget of target tokens, with three seeds. They differ in what was
kept of the teacher's answers: nothing, the k best entries and their bucket, the k best
renormalised, or all. Measured is what word-level distillation minimises: the KL from
the teacher on strings of the validation split. It takes a few minutes of one core and
writes ``kdcourse/assets/runs/topk.json``, which lesson 07 shows.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

import kdcourse
from kdcourse.theory.divergences import forward_kl
from kdcourse.theory.signals import Dense, top_k
from kdcourse.translation.caching import SignalCache, cache_signals
from kdcourse.translation.decoding import model_folder, model_hash, open_translator
from kdcourse.translation.distil import distil
from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.measure import PACKAGES, code_hash
from kdcourse.translation.models import Architecture
from kdcourse.translation.training import Recipe, token_batches, token_logits

RECORD = Path(kdcourse.__file__).parent / "assets" / "runs" / "topk.json"
SMALL = Architecture(64, 256, 4, 1, 1, dropout=0.05)
STRINGS, HELD_OUT, LONGEST = 1_000, 400, 4  # strings, strings, words of a source
SEEDS = (1, 2, 3)
WAYS = [(0, ""), (1, "renormalise"), (1, "bucket"), (8, "bucket"), (32, "bucket")]
WAYS += [(None, "")]  # None: all of it


def recipe(seed: int) -> Recipe:
    """The settings of every student here; they were chosen for the untaught one."""
    return Recipe(
        60_000,
        batch_tokens=250,
        peak_learning_rate=4e-3,
        warmup_steps=30,
        average_decay=0.98,
        seed=seed,
        group_by="source",
        precision="float32",
    )


def short(split: str, count: int) -> tuple[list[str], list[str]]:
    """Distinct short pairs of a split, drawn with a seed of its own."""
    pairs = kdcourse.load_corpus("apps", target="es")[split]["translation"]
    rows = [(p["en"], p["es"]) for p in pairs if len(p["en"].split()) <= LONGEST]
    drawn = random.Random(split).sample(list(dict.fromkeys(rows)), count)
    return [source for source, _ in drawn], [target for _, target in drawn]


def kept(full: SignalCache, k: int | None, tail: str) -> SignalCache | None:
    """What a way of keeping leaves of the whole answers."""
    if k is None:
        return full
    if not k:
        return None
    best = top_k(full.answers.logits, k, tail=tail).compact()
    return SignalCache(best, full.offsets)


class HeldOut:
    """Mean KL(Pr^t ‖ Pr^s) a token, along references that nobody was trained on."""

    def __init__(self, teacher, vocabulary):
        examples = fixed_examples(*short("validation", HELD_OUT), vocabulary)
        pad = teacher.config.pad_token_id
        self.batches = list(token_batches(examples, 2000, pad, random.Random(1)))
        with torch.inference_mode():
            self.answers = [token_logits(teacher, b, "float32") for b in self.batches]

    def __call__(self, student) -> float:
        """The mean over the held-out tokens, in nats."""
        total = 0.0
        student.eval()
        with torch.inference_mode():
            for batch, z_t in zip(self.batches, self.answers, strict=True):
                z_s = token_logits(student, batch, "float32")
                total += float(forward_kl(student_logits=z_s, teacher_logits=z_t).sum())
        return total / sum(batch.tokens for batch in self.batches)


def main() -> None:
    """Cache once, train every way with every seed, write the record."""
    torch.set_num_threads(1)
    translator = open_translator("teacher", "torch")
    teacher, vocabulary = translator.model, translator.vocabulary
    sources, targets = short("train", STRINGS)
    full = cache_signals(teacher, fixed_examples(sources, targets, vocabulary), None)
    measure, rows = HeldOut(teacher, vocabulary), []
    for k, tail in tqdm(WAYS, desc="Ways"):
        signals, found = kept(full, k, tail), []
        for seed in SEEDS:
            student, _ = distil(
                "untaught" if signals is None else "word",
                sources,
                targets,
                vocabulary,
                recipe(seed),
                signals=signals,
                architecture=SMALL,
            )
            found.append(round(measure(student), 4))
        row = {"k": "all" if k is None else k, "tail": tail, "kl": found}
        row["bytes_per_token"] = signals.bytes_per_token if signals else 0
        row["kept_mass"] = round(signals.kept_mass, 4) if signals else 0.0
        rows.append(row)
    record = {
        "manifest": {
            "code_sha256": code_hash(),
            "teacher": model_hash(model_folder("teacher")),
            "versions": {name: version(name) for name in PACKAGES},
            "recipe": asdict(replace(recipe(SEEDS[0]), seed=0)) | {"seed": "each"},
            "architecture": asdict(SMALL),
        },
        "strings": STRINGS,
        "tokens": len(full.answers.logits),
        "budget_tokens": recipe(1).budget_tokens,
        "held_out_tokens": sum(batch.tokens for batch in measure.batches),
        "seeds": list(SEEDS),
        "ways": rows,
    }
    assert isinstance(full.answers, Dense)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
