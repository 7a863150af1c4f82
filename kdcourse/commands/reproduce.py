"""``python -m kdcourse reproduce``: the full run, from the corpus to the figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from .train import add_folder, add_teacher, open_pipeline


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "reproduce",
        help="teacher, labels, all students, figures; hours, but it can be killed",
    )
    add_folder(parser)
    add_teacher(parser, "own")
    parser.add_argument(
        "--ship",
        action="store_true",
        help="put models, labels and figures into the package's assets",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run whatever is not there yet, then measure; the figures go to full.json."""
    import kdcourse
    from kdcourse.translation.measure import (
        READING,
        Measurement,
        chosen_models,
        ship,
        write_json,
    )

    pipeline = open_pipeline(args)
    pipeline.train_teacher()
    comparison = pipeline.student_recipe["comparison"]
    shipped = chosen_models(pipeline).values()
    for seed in comparison["seeds"]:
        for method in comparison["methods"]:
            name = f"{method}-{seed}"
            carried = (args.folder / name / READING).is_file()
            if name in shipped or not carried:
                pipeline.train_student(method, seed)
    measurement = Measurement(pipeline)
    record = measurement.record() | measurement.timings()
    write_json(args.folder / "full.json", record)
    print(
        f"The figures are in {args.folder / 'full.json'}; verdict: {record['verdict']}"
    )
    if args.ship:
        ship(pipeline, record, Path(kdcourse.__file__).parent / "assets")
    return 0
