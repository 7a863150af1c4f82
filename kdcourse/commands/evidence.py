"""``python -m kdcourse evidence``: the table of methods, from training to verdicts."""

from __future__ import annotations

import argparse
from pathlib import Path

from .train import add_folder, named_student


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "evidence",
        help="train every method with three seeds and compare; hours, can be killed",
        description="Train every method of recipes/evidence.toml with each seed, read "
        "the test split with all of them and write evidence.json with intervals, "
        "verdicts and costs. A killed run goes on where it was. Several processes on "
        "one folder share the work with --only.",
    )
    add_folder(parser, "runs/evidence")
    parser.add_argument(
        "--only",
        metavar="METHOD-SEED",
        help="train this one student and stop, such as word-js-2",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="these instead of all that the recipe names",
    )
    parser.add_argument(
        "--ship", action="store_true", help="put the record into the package's assets"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, measure, write the record and print the table."""
    import torch

    import kdcourse
    from kdcourse.translation.distil import METHODS
    from kdcourse.translation.evidence import Evidence, costs
    from kdcourse.translation.measure import write_json
    from kdcourse.translation.pipeline import WIDE, Pipeline

    torch.set_num_threads(args.threads)
    pipeline = Pipeline(args.folder, recipe="evidence")
    if args.only:
        student = named_student(args.only, (*METHODS, *WIDE))
        print(f"The student is in {pipeline.train_student(*student)}")
        return 0
    evidence = Evidence(pipeline, args.methods)
    evidence.train()
    record = evidence.record() | {"costs": costs(pipeline, evidence.methods)}
    write_json(args.folder / "evidence.json", record)
    print(table(record))
    print(f"The record is in {args.folder / 'evidence.json'}")
    if args.ship:
        ship(record, Path(kdcourse.__file__).parent / "assets" / "runs")
    return 0


def ship(record: dict, runs: Path) -> None:
    """Put a record into the assets: as the table, or beside it where it is a part."""
    from kdcourse.translation.evidence import RECORDS
    from kdcourse.translation.measure import write_json
    from kdcourse.translation.pipeline import read_recipe

    whole = set(read_recipe("evidence")["comparison"]["methods"])
    if whole <= {s["method"] for s in record["students"]}:
        write_json(runs / RECORDS[0], record)
        (runs / RECORDS[1]).unlink(missing_ok=True)
    else:
        write_json(runs / RECORDS[1], record)


def table(record: dict) -> str:
    """One line a method: means over the seeds, and its verdicts."""
    from kdcourse.translation.evidence import mean_of

    lines = [
        f"{'method':14s} BLEU  chrF  beam  peaked   ECE  against untaught, sequence"
    ]
    for method in dict.fromkeys(s["method"] for s in record["students"]):
        bleu, chrf, beam, peaked, error = (
            mean_of(record, method, figure)
            for figure in (
                "bleu",
                "chrf",
                "beam_bleu",
                "peakedness",
                "calibration_error",
            )
        )
        words = record["verdicts"].get(method, {})
        told = ", ".join(f"{word} {name}" for name, word in words.items())
        lines.append(
            f"{method:14s} {bleu:4.1f}  {chrf:4.1f}  {beam - bleu:+4.1f}  "
            f"{peaked:6.2f}  {error:.3f}  {told}"
        )
    return "\n".join(lines)
