"""``python -m kdcourse train``: train the teacher, or go on with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kdcourse.errors import KdcourseError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "train", help="train the teacher; a killed training goes on where it was"
    )
    add_folder(parser)
    parser.set_defaults(run=run)


def add_folder(parser: argparse.ArgumentParser, folder: str = "runs") -> None:
    """The options that every step of a run shares; each kind of run has its folder."""
    parser.add_argument(
        "--folder", type=Path, default=Path(folder), help=f"where results go ({folder})"
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


def named_student(text: str, kinds: Sequence[str]) -> tuple[str, int]:
    """Kind and seed of a student's name, such as word-js-2.

    Raises:
        KdcourseError: no such kind, or no seed behind it.
    """
    kind, _, seed = text.rpartition("-")
    if kind not in kinds or not seed.isdecimal():
        raise KdcourseError(
            f"No student is called {text!r}.",
            wanted=f"a kind ({', '.join(kinds)}), a hyphen and a seed",
            todo=f"Write, for example, --only {kinds[0]}-1.",
        )
    return kind, int(seed)


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
