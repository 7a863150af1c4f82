"""``python -m kdcourse finetune``: train on any corpus with transformers' trainer.

On several processors of one machine, or on several machines::

    accelerate launch --multi_gpu --num_processes 2 -m kdcourse finetune OUT …

("multi_gpu" starts the processes, also where there is no GPU; accelerate's ``--cpu``
starts one only, unless there is MPI.)
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict

METHODS = ("untaught", "smoothing", "word", "word-rkl", "word-js", "word-tvd")
METHODS += ("word-skew", "sequence", "both", "on-policy")
SETTINGS = "finetune.json"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "finetune",
        help="go on training a model on any corpus; a killed training goes on",
    )
    add = parser.add_argument
    add("out", type=Path, help="the folder of checkpoints and of the model")
    add("--model", default="student", help="a shipped model or a folder (student)")
    add("--fresh", action="store_true", help="new weights, with the model's vocabulary")
    add("--corpus", default="apps", help="apps, hub:NAME, tsv:FILE, text:FILE,FILE")
    add("--source", default="en", help="source language (en)")
    add("--target", default="es", help="target language (es)")
    add("--method", choices=METHODS, default="untaught", help="(untaught)")
    add("--teacher", help="a model that answers live: word…, both, on-policy")
    add("--signals", help="a folder of cached answers, in the place of a teacher")
    add("--labels", help="a folder of a teacher's translations: sequence, both")
    add("--alpha", type=float, default=0.0, help="share of hard labels (0)")
    add("--temperature", type=float, default=1.0, help="(1)")
    add("--rows", type=int, default=32, help="rows a batch, in each process (32)")
    add("--epochs", type=float, default=1.0, help="(1)")
    add("--learning-rate", type=float, default=3e-4, help="at its peak (3e-4)")
    add("--warmup-steps", type=int, default=100, help="(100)")
    add("--save-steps", type=int, default=500, help="between two checkpoints (500)")
    add("--seed", type=int, default=1, help="weights, order and dropout (1)")
    add("--tensorboard", action="store_true", help="log for TensorBoard, under OUT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, save, and say where the model is."""
    from kdcourse.translation.corpus import load_corpus
    from kdcourse.translation.decoding import model_folder, text_files
    from kdcourse.translation.models import save_model
    from kdcourse.translation.shield import KNOWN_FILE
    from kdcourse.translation.trainer_data import sides

    data = load_corpus(args.corpus, args.target, source=args.source)
    trainer = open_trainer(args, data)
    _keep_settings(args, trainer.args.should_save)
    trainer.train(resume_from_checkpoint=True)
    if trainer.is_world_process_zero():
        out = save_model(trainer.model, trainer.vocabulary, args.out / "model")
        for path in text_files(model_folder(args.model)):
            if path.name not in ("tokenizer.json", KNOWN_FILE):
                shutil.copyfile(path, out / path.name)
        keep_known_words(args, out, sides(data["train"], (args.source, args.target))[0])
        print(f"The model is in {out}")
    return 0


def keep_known_words(args: argparse.Namespace, out: Path, sources: list[str]) -> None:
    """List what the model has seen: these sources, and what it knew before.

    A model that came without a list, from the Hub, has seen far more: it gets none.
    """
    from kdcourse.translation.decoding import model_folder
    from kdcourse.translation.shield import NameShield, write_known_words

    before = None if args.fresh else NameShield.load(model_folder(args.model))
    if args.fresh or before:
        write_known_words(out, sources, known=before.known if before else ())


def open_trainer(args: argparse.Namespace, data: DatasetDict):
    """The ``DistillationTrainer`` of the command line."""
    from kdcourse.translation.decoding import model_folder
    from kdcourse.translation.models import STUDENT, build_model, load_model
    from kdcourse.translation.trainer import DistillationTrainer, arguments
    from kdcourse.translation.training import Recipe
    from kdcourse.translation.vocabulary import load_vocabulary

    folder = model_folder(args.model)
    vocabulary = load_vocabulary(folder)
    fresh = args.fresh and build_model(STUDENT, vocabulary, args.seed)
    recipe = Recipe(
        0,
        peak_learning_rate=args.learning_rate,
        warmup_steps=args.warmup_steps,
        seed=args.seed,
        precision="float32",
    )
    settings = arguments(
        args.out,
        recipe,
        per_device_train_batch_size=args.rows,
        num_train_epochs=args.epochs,
        save_steps=args.save_steps,
        save_total_limit=2,
        eval_strategy="epoch" if len(data["validation"]) else "no",
        logging_steps=50,
        report_to="tensorboard" if args.tensorboard else "none",
    )
    return DistillationTrainer(
        fresh or load_model(folder),
        settings,
        data,
        processing_class=vocabulary,
        method=args.method,
        teacher=args.teacher and model_folder(args.teacher),
        signals=args.signals,
        labels=args.labels,
        alpha=args.alpha,
        temperature=args.temperature,
        languages=(args.source, args.target),
    )


def _keep_settings(args: argparse.Namespace, writes: bool) -> None:
    """Refuse to go on in a folder that was begun with other settings."""
    from kdcourse.errors import KdcourseError

    kept = ("run", "command", "out", "tensorboard")
    settings = {n: v for n, v in vars(args).items() if n not in kept}
    path = args.out / SETTINGS
    before = json.loads(path.read_text("utf-8")) if path.is_file() else settings
    other = [n for n, v in settings.items() if before.get(n) != v]
    if other:
        raise KdcourseError(
            f"{args.out} was begun with other settings: "
            + ", ".join(f"{n} {before.get(n)!r} for {settings[n]!r}" for n in other),
            wanted="a folder of its own for each training",
            todo="Name another folder, or give the settings it was begun with.",
        )
    if writes:
        args.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
