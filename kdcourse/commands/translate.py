"""``python -m kdcourse translate``: lines in, one translation a line out."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator

CHUNK = 100  # lines translated together; a reader waits for no more than these
BYTE_ORDER_MARK = "\ufeff"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "translate", help="translate the lines of standard input"
    )
    parser.add_argument(
        "--model",
        default="student",
        metavar="teacher|student|untaught|DIR|NAME",
        help="a shipped model, the folder of one of yours, or of one in the format of "
        "opus-mt, or the NAME of such a one that `hf download` brought (student)",
    )
    parser.add_argument(
        "--engine", default="ctranslate2", choices=("ctranslate2", "torch")
    )
    parser.add_argument(
        "--beam", type=int, default=1, help="width of the search; 1 is greedy (1)"
    )
    parser.add_argument(
        "--compute-type",
        default="float32",
        choices=("float32", "int8"),
        help="int8 is smaller and faster, with ctranslate2 only (float32)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Translate standard input, chunk by chunk, in order."""
    from tqdm import tqdm

    from kdcourse.translation.decoding import open_translator

    translator = open_translator(
        args.model, args.engine, args.beam, args.threads, args.compute_type
    )
    typed = sys.stdin.isatty()  # whoever types wants an answer after each line
    lines = decoded(sys.stdin.buffer)
    out = sys.stdout.buffer
    # disable=None: the bar shows on a terminal only, never in a log.
    with tqdm(desc="Translating", unit=" lines", disable=typed or None) as bar:
        while chunk := list(itertools.islice(lines, 1 if typed else CHUNK)):
            for translation in translator.translate(chunk):
                out.write(translation.encode() + b"\n")
            out.flush()
            bar.update(len(chunk))
    return 0


def decoded(stream: Iterable[bytes]) -> Iterator[str]:
    r"""Lines of text; bytes that are not UTF-8 are replaced, and their line reported.

    Read as bytes, a line ends with ``\n`` and nothing else: ``\r``, ``\f`` and the
    line separators of Unicode stay inside, so that no line is ever added.
    """
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            text = line.decode(errors="replace")
            print(
                f"kdcourse translate: line {number} is not UTF-8 "
                f"(byte {error.start + 1}); what cannot be read was replaced.",
                file=sys.stderr,
            )
        yield text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
