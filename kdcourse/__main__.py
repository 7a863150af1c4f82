"""The command line: ``python -m kdcourse COMMAND``.

Each command lives in a module of ``kdcourse.commands`` with ``add_parser`` and
``run``. Only the command that was asked for is imported, so that ``translate`` does
not wait for what ``train`` needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from kdcourse import __version__
from kdcourse.errors import KdcourseError

COMMANDS = (
    "course",
    "lab",
    "test",
    "doctor",
    "fetch",
    "check",
    "progress",
    "translate",
    "score",
    "train",
    "distil",
    "finetune",
    "reproduce",
    "evidence",
    "context",
    "bench",
    "publish",
)
INTERRUPTED = 130  # the shell's own code for Ctrl-C: 128 + SIGINT


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with the sub-parsers of these commands."""
    parser = argparse.ArgumentParser(
        prog="python -m kdcourse",
        description="A notebook course on knowledge distillation.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for name in commands:
        importlib.import_module(f"kdcourse.commands.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors made for the reader are printed without a traceback."""
    argv = sys.argv[1:] if argv is None else list(argv)
    known = argv[:1] if argv and argv[0] in COMMANDS else COMMANDS
    args = build_parser(known).parse_args(argv)
    try:
        return args.run(args) or 0
    except KdcourseError as error:
        print(f"kdcourse {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nkdcourse {args.command}: stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `… | head` closed the pipe: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
