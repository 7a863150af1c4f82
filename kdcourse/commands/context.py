"""``python -m kdcourse context``: the recorded run of context distillation."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "context",
        help="a teacher that reads where a string stands, students that do not",
        description="Train the teacher on with contexts, label, train three students a "
        "seed, read the ambiguous strings and write context.json. A killed run goes on "
        "where it was.",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/context"), help="(runs/context)"
    )
    parser.add_argument(
        "--ship", action="store_true", help="put the record into the package's assets"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make what is missing, measure, and write the record."""
    import torch

    import kdcourse
    from kdcourse.translation.context_run import ContextRun
    from kdcourse.translation.measure import write_json

    torch.set_num_threads(1)
    record = ContextRun(args.folder).record()
    write_json(args.folder / "context.json", record)
    if args.ship:
        assets = Path(kdcourse.__file__).parent / "assets"
        write_json(assets / "runs" / "context.json", record)
    for name, word in record["verdicts"].items():
        print(f"{name} against its twin on ambiguous strings: {word}")
    print(f"The record is in {args.folder / 'context.json'}")
    return 0
