"""``python -m kdcourse train``: train the teacher, or go on with it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "train", help="train the teacher; a killed training goes on where it was"
    )
    add_folder(parser)
    parser.set_defaults(run=run)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The options that every step of the full run shares."""
    parser.add_argument(
        "--folder", type=Path, default=Path("runs"), help="where results go (runs)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")


def add_teacher(parser: argparse.ArgumentParser, default: str) -> None:
    """The option that says whose students these are."""
    parser.add_argument(
        "--teacher",
        choices=("shipped", "own"),
        default=default,
        help="where the folder has no teacher: take the one that ships with its labels,"
        f" or train one for hours ({default})",
    )


def open_pipeline(args: argparse.Namespace):
    """The full run in the folder of the command line."""
    import torch

    from kdcourse.translation.pipeline import Pipeline

    torch.set_num_threads(args.threads)
    pipeline = Pipeline(args.folder)
    if getattr(args, "teacher", "own") == "shipped":
        pipeline.take_shipped_teacher()
    return pipeline


def run(args: argparse.Namespace) -> int:
    """Train, and say where the model is."""
    print(f"The teacher is in {open_pipeline(args).train_teacher()}")
    return 0
