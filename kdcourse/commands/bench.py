"""``python -m kdcourse bench``: size, speed, int8 and throughput of what ships."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "bench", help="ratios of size, speed and quality, both sides in one run"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="per training throughput (20)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the shipped models on the test split and print the ratios."""
    import torch

    from kdcourse.translation import bench
    from kdcourse.translation.corpus import load_corpus
    from kdcourse.translation.decoding import model_folder
    from kdcourse.translation.examples import fixed_examples
    from kdcourse.translation.models import STUDENT
    from kdcourse.translation.training import fastest_precision
    from kdcourse.translation.vocabulary import load_vocabulary

    torch.set_num_threads(1)
    corpus = load_corpus("apps")
    test, train = corpus["test"]["translation"], corpus["train"]["translation"]
    sources, references = [p["en"] for p in test], [p["es"] for p in test]
    teacher, student = model_folder("teacher"), model_folder("student")
    print(report_sizes(bench.sizes(teacher, student)))
    print(report_speed(bench.speed(teacher, student, sources)))
    print(report_int8(bench.int8_cost(student, sources, references)))
    vocabulary = load_vocabulary(student)
    examples = fixed_examples(
        [p["en"] for p in train], [p["es"] for p in train], vocabulary
    )
    for precision in dict.fromkeys(("float32", fastest_precision())):
        result = bench.throughput(
            student, STUDENT, examples, precision=precision, seconds=args.seconds
        )
        print(report_throughput(result))
    return 0


def report_sizes(sizes: dict) -> str:
    """Parameters and bytes."""
    teacher, student = sizes["parameters"]["teacher"], sizes["parameters"]["student"]
    return (
        f"parameters: teacher {teacher:,} / student {student:,} = "
        f"{sizes['ratio parameters']:.1f}x\n"
        f"int8 student with its vocabulary: {sizes['int8 student bytes'] / 1e6:.2f} MB"
    )


def report_speed(speed: dict) -> str:
    """One line a model, then the ratios of the medians."""
    from kdcourse.translation.evaluation import Latency

    lines = []
    for name, row in speed.items():
        if isinstance(row, dict):
            lines.append(f"{name:17s} {Latency(**row)}")
    for precision in ("float32", "int8"):
        ratio = speed[f"ratio same engine {precision}"]
        lines.append(
            f"teacher beam 4 / student greedy, CTranslate2 {precision}: {ratio:.1f}x"
        )
    lines.append(f"teacher in generate / student int8: {speed['ratio newcomer']:.0f}x")
    return "\n".join(lines)


def report_int8(cost: dict) -> str:
    """What eight bits cost."""
    return (
        f"student BLEU: float32 {cost['float32']:.2f}, int8 {cost['exact']:.2f}, "
        f"cost {cost['cost']:.2f}; with the engine's default kernel for this processor "
        f"int8 {cost['int8']:.2f}, cost {cost['cost here']:.2f}"
    )


def report_throughput(result: dict) -> str:
    """Training speed of the loop beside the stock trainer."""
    return (
        f"training, {result['precision']}, real target tokens/s: loop "
        f"{result['loop']:,.0f} / Seq2SeqTrainer {result['stock']:,.0f} = "
        f"{result['ratio']:.2f}x"
    )
