"""Draw the README's picture from the recorded run: python tools/readme_picture.py."""

from __future__ import annotations

import json
from pathlib import Path

import kdcourse
from kdcourse.study import plots
from kdcourse.study.plots import Point
from kdcourse.translation.bench import int8_bytes
from kdcourse.translation.decoding import model_folder

ROOT = Path(__file__).resolve().parents[1]
FULL = Path(kdcourse.__file__).parent / "assets" / "runs" / "full.json"


def points(record: dict) -> list[Point]:
    """Teacher and both students of seed 1 in int8, CTranslate2 on one thread."""
    speed, seed_one = record["speed"], [s for s in record["students"] if s["seed"] == 1]
    untaught, taught = sorted(seed_one, key=lambda s: s["method"] != "untaught")
    student_ms = speed["student int8"]["p50_ms"]
    small = record["sizes"]["int8 student bytes"] / 1e6
    return [
        Point(
            "teacher",
            speed["teacher int8"]["p50_ms"],
            record["teacher"]["test"]["chrf"],
            int8_bytes(model_folder("teacher")) / 1e6,
        ),
        Point("untaught student", student_ms, untaught["test"]["chrf"], small),
        Point("distilled student", student_ms, taught["test"]["chrf"], small),
    ]


def main() -> None:
    """Write docs/size_latency_quality.png."""
    import matplotlib

    matplotlib.use("Agg")
    plots.use_course_style()
    figure = plots.size_latency_quality(points(json.loads(FULL.read_text("utf-8"))))
    out = ROOT / "docs" / "size_latency_quality.png"
    figure.savefig(out, dpi=120, metadata={"Software": None})
    print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
