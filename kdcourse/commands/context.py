"""``python -m kdcourse context``: context distillation, and what survives."""

from __future__ import annotations

import argparse

from .train import add_folder, named_student


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "context",
        help="train a teacher that reads contexts, and students that do not: half an "
        "hour",
        description="Train the shipped teacher on to read contexts, let it "
        "translate, train three students a seed (distilled, control, twin), and write "
        "context.json with what survives. A killed run goes on where it was.",
    )
    add_folder(parser, "runs/context")
    parser.add_argument(
        "--only",
        metavar="STUDENT-SEED",
        help="train this one and stop, such as control-2, or teacher",
    )
    parser.add_argument(
        "--ship", action="store_true", help="put record and students into the assets"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, measure, write the record and print the table."""
    import torch

    from kdcourse.translation.context.record import ContextRecord, ship
    from kdcourse.translation.context.run import STUDENTS, ContextRun
    from kdcourse.translation.measure import write_json

    torch.set_num_threads(args.threads)
    made = ContextRun(args.folder)
    if args.only == "teacher":
        print(f"The teacher is in {made.teacher()}")
        return 0
    if args.only:
        student = named_student(args.only, STUDENTS)
        print(f"The student is in {made.student(*student)}")
        return 0
    record = ContextRecord(made).record()
    write_json(args.folder / "context.json", record)
    print(table(record))
    print(f"The record is in {args.folder / 'context.json'}")
    if args.ship:
        ship(made, record)
    return 0


def table(record: dict) -> str:
    """One line a student, then verdicts and what survives."""
    from kdcourse.translation.context import Survival

    lines = ["student      seed  places  rarer  pairs  glossary  BLEU  chrF"]
    for row in record["students"]:
        lines.append(
            f"{row['student']:12s} {row['seed']:4d}  {row['places']:6.1%}  "
            f"{row['rarer']:5.0%}  {row['pairs']:5.0%}  {row['glossary']:8.0%}  "
            f"{row['plain']['bleu']:4.1f}  {row['plain']['chrf']:4.1f}"
        )
    for test, words in record["verdicts"].items():
        told = "; ".join(f"{kind} {word}" for kind, word in words.items())
        share = Survival(**record["survival"][test])
        lines.append(f"{test}: {told}; survives: {share}")
    return "\n".join(lines)
