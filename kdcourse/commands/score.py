"""``python -m kdcourse score``: BLEU and chrF of a file of translations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

WRONG_INPUT = 2  # the exit code of argparse for arguments that do not fit


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "score", help="BLEU and chrF of translations, with signatures"
    )
    parser.add_argument(
        "references", type=Path, help="human translations, one sentence a line, UTF-8"
    )
    parser.add_argument("hypotheses", type=Path, help="the system's, in the same order")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score two files against each other, line by line."""
    from kdcourse.translation.evaluation import score
    from kdcourse.translation.sources import read_lines

    references, hypotheses = read_lines(args.references), read_lines(args.hypotheses)
    if len(references) != len(hypotheses):
        print(
            f"kdcourse score: {args.references} has {len(references)} lines but "
            f"{args.hypotheses} has {len(hypotheses)}.\n"
            "  Wanted: line n of one file is the translation of line n of the other\n"
            "  To do: find the lost line; an empty translation is an empty line.",
            file=sys.stderr,
        )
        return WRONG_INPUT
    scores = score(hypotheses, references)
    print(f"{len(references)} sentence{'s' * (len(references) != 1)}\n{scores}")
    return 0
