"""``python -m kdcourse fetch``: bring the corpus into the cache and show its card."""

from __future__ import annotations

import argparse
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "fetch", help="fetch, clean and audit the corpus, and show its data card"
    )
    parser.add_argument(
        "corpus",
        nargs="?",
        default="apps",
        help="apps (default), hub:NAME, tsv:FILE or text:FILE,FILE",
    )
    parser.add_argument("--target", default="es", help="target language (es)")
    parser.add_argument("--source", default="en", help="source language (en)")
    parser.add_argument("--cache", help="cache folder ($KDCOURSE_CACHE)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare the corpus, or find it prepared, and print card and audit."""
    from kdcourse.translation.corpus import audit_splits, load_card, load_corpus
    from kdcourse.translation.sources import cache_folder

    where = {"target": args.target, "source": args.source, "cache": args.cache}
    print(
        f"Preparing the corpus {args.corpus}, {args.source} → {args.target}: "
        "a few seconds, and the download if it is the first time …",
        file=sys.stderr,
        flush=True,
    )
    dataset = load_corpus(args.corpus, **where)
    print(load_card(args.corpus, **where))
    print("Audit, made again just now:")
    print(audit_splits(dataset))
    print(f"Stored under {cache_folder(args.cache)}")
    return 0
