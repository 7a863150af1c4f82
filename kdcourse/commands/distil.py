"""``python -m kdcourse distil``: label with the teacher and train one student."""

from __future__ import annotations

import argparse

from .train import add_folder, add_teacher, open_pipeline


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "distil", help="train one student of the shipped teacher, or of your own"
    )
    parser.add_argument(
        "--method",
        choices=("untaught", "word", "sequence", "both", "unlabelled"),
        default="unlabelled",
        help="what the student learns from (unlabelled)",
    )
    parser.add_argument("--seed", type=int, default=1, help="weights and order (1)")
    add_folder(parser)
    add_teacher(parser, "shipped")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the model is."""
    model = open_pipeline(args).train_student(args.method, args.seed)
    print(f"The student is in {model}")
    return 0
