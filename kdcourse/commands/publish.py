"""``python -m kdcourse publish``: write a model's folder as the Hub wants it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "publish", help="a folder for the Hub, with its model card; uploads nothing"
    )
    parser.add_argument("out", type=Path, help="a new folder to write")
    parser.add_argument(
        "--model",
        default="student",
        metavar="teacher|student|untaught|DIR",
        help="a shipped model, or the folder of one of yours (student)",
    )
    parser.add_argument(
        "--repo", metavar="USER/NAME", help="its name on the Hub, for the card"
    )
    parser.add_argument(
        "--measure",
        metavar="CORPUS",
        help="score it on a corpus's test split first: apps, hub:NAME, tsv:FILE …",
    )
    for name, help_text in {
        "name": "what the model is called",
        "languages": "two of them, such as en,es",
        "licence": "an identifier such as Apache-2.0",
        "data": "what it was trained on",
        "method": "what it learned from: untaught, word, sequence, both …",
    }.items():
        parser.add_argument(f"--{name}", help=f"{help_text}, if it has no metadata")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder, and say how it is uploaded."""
    from kdcourse.errors import KdcourseError
    from kdcourse.translation.decoding import model_folder
    from kdcourse.translation.publishing import facts_of, measured, publish

    folder = model_folder(args.model)
    names = ("name", "languages", "licence", "data", "method")
    given = {name: getattr(args, name) for name in names}
    if args.languages:
        given["languages"] = args.languages.split(",")
        if len(given["languages"]) != 2:
            raise KdcourseError(
                f"--languages is {args.languages!r}.",
                wanted="two codes with a comma between: source, target",
                todo="Write --languages en,es.",
            )
    if args.measure:
        source, target = facts_of(folder, **given)["languages"]
        given |= measured(folder, args.measure, source, target)
    out = publish(folder, args.out, repo=args.repo, **given)
    repo = args.repo or "USER/NAME"
    print(f"""{out} is ready, and nothing was uploaded. Next:
  1. Read {out / "README.md"}: it will be public under your name.
  2. hf auth login
  3. hf upload {repo} {out}
or, in Python:
  import huggingface_hub as hub
  hub.create_repo("{repo}", exist_ok=True)
  hub.upload_folder(repo_id="{repo}", folder_path="{out}")""")
    return 0
