"""The figures of a full run, as one JSON with a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch

import kdcourse

from .bench import int8_cost, sizes, speed, throughput
from .decoding import model_hash, open_translator
from .distil import METHODS
from .evaluation import names_kept, paired_bootstrap, score
from .examples import fixed_examples
from .labelling import filter_labels
from .models import Architecture, count_parameters, load_model
from .pipeline import LABELS, Pipeline
from .sources import file_hash
from .storage import write_whole
from .training import HISTORY, fastest_precision, precision_here

READING = "test.json"
PACKAGES = ("torch", "transformers", "tokenizers", "ctranslate2", "sacrebleu")


def code_hash() -> str:
    """One hash over the sources of the package's theory, translation and recipes."""
    root = Path(kdcourse.__file__).parent
    digest = hashlib.sha256()
    for room in ("theory", "translation", "recipes"):
        for path in sorted((root / room).rglob("*.*")):
            if path.suffix in (".py", ".toml"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def commit() -> str | None:
    """The commit of this code, "-dirty" where it was changed; None outside of git."""
    root = Path(kdcourse.__file__).parents[1]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or None


def machine(recipe: dict) -> dict:
    """The processor, whether it multiplies int8 exactly, and the training's precision.

    Where the recipe leaves that to the machine, it is the faster one there.
    """
    known = torch.cpu.get_capabilities()
    return {
        "processor": platform.machine(),
        "name": known.get("cpu_name"),
        "cores": os.cpu_count(),
        "vnni": bool(known.get("avx512_vnni") or known.get("avx_vnni")),
        "precision": precision_here(recipe["training"].get("precision", "auto")),
    }


def manifest(pipeline: Pipeline) -> dict:
    """What a reader needs to trust a figure, or to repeat it."""
    return {
        "commit": commit(),
        "code_sha256": code_hash(),
        "data_sha256": pipeline.data_hash,
        "teacher_sha256": model_hash(pipeline.train_teacher()),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": machine(pipeline.student_recipe),
        "recipes": {
            "teacher": pipeline.teacher_recipe,
            "student": pipeline.student_recipe,
        },
    }


def kept_reading(path: Path, model: str | None, read: Callable[[], dict]) -> dict:
    """What ``read`` says of a model, from ``path`` where it stands there already.

    It is kept under the model's hash: a model trained anew is read anew. Where there
    is a file and no model (None), the file stands for it.
    """
    if path.is_file():
        kept = json.loads(path.read_text("utf-8"))
        if model in (None, kept["model"]):
            return kept
    write_json(path, {"model": model} | read())
    return json.loads(path.read_text("utf-8"))  # rounded, as a later call has it


class Measurement:
    """Read the test split with every model of a finished run."""

    def __init__(self, pipeline: Pipeline):
        self.run = pipeline
        self.sources, self.references = pipeline.sides("test")
        comparison = pipeline.student_recipe["comparison"]
        self.seeds, self.methods = comparison["seeds"], comparison["methods"]
        self.taught = taught_method(pipeline)
        self.outputs: dict[str, list[str]] = {}

    def translate(self, name: str, beam: int = 1) -> list[str]:
        """The float32 translations of the test split, made once."""
        if name not in self.outputs:
            model = self.run.folder / name / "model"
            translator = open_translator(model, "ctranslate2", beam=beam)
            self.outputs[name] = translator.translate(self.sources)
        return self.outputs[name]

    def reading(self, name: str) -> dict:
        """A student's greedy translations of the test split, from disk if there.

        The file can stand for the student where a run goes on on another machine.
        """
        folder = self.run.folder / name
        model = folder / "model"

        def read() -> dict:
            return {
                "parameters": count_parameters(load_model(model)),
                "machine": machine(self.run.student_recipe),
                "lines": self.translate(name),
            }

        known = model_hash(model) if self.run.is_trained(name) else None
        return kept_reading(folder / READING, known, read)

    def scores(self, lines: list[str]) -> dict:
        """BLEU and chrF on the test split."""
        result = score(lines, self.references)
        return {"bleu": result.bleu, "chrf": result.chrf}

    def student(self, method: str, seed: int) -> dict:
        """One student: its curve and its test scores, greedy."""
        name = f"{method}-{seed}"
        reading = self.reading(name)
        kept = {key: reading[key] for key in ("model", "parameters", "machine")}
        return {
            "method": method,
            "seed": seed,
            **kept,
            "curve": self.run.curve(name),
            "test": self.scores(reading["lines"]),
        }

    def pair(self, seed: int) -> dict:
        """Distilled against untaught, same seed: gain in BLEU, interval and p."""
        result = paired_bootstrap(
            self.reading(f"{self.taught}-{seed}")["lines"],
            self.reading(f"untaught-{seed}")["lines"],
            self.references,
        )
        interval = [result.low, result.high]
        return {"seed": seed, "gain": result.delta, "interval": interval, "p": result.p}

    def names(self) -> dict:
        """Shares of the source's names that come through, and without the shield."""
        shares, bare, count = {}, {}, 0
        for label, name in chosen_models(self.run).items():
            kept = names_kept(self.sources, self.references, self.translate(name))
            shares[label], count = kept.share, kept.total
            model = self.run.folder / name / "model"
            beam = 4 if name == "teacher" else 1
            alone = open_translator(model, beam=beam, shield=False)
            outputs = alone.translate(self.sources)
            bare[label] = names_kept(self.sources, self.references, outputs).share
        return {"count": count} | shares | {"unshielded": bare}

    def labels(self) -> dict:
        """How many labels there are, how many were unsound, and how much was by heart.

        ``reference_bleu`` scores the teacher's translations of its own training rows:
        what it has learned by heart it cannot explain to a student.
        """
        targets, faults = self.run.distilled_targets()
        own, references = self.run.sides("train")
        labels = self.run.label()
        said = [labels[source] for source in own]
        examples = zip(self.run.student_data[0][:2000], targets[:2000], strict=True)
        signals = self.run.signals(*map(list, zip(*examples, strict=True)))
        return {
            "rows": len(labels),
            "faults": dict(faults),
            "kept_mass": signals.kept_mass,
            "reference_bleu": score(said, references).bleu,
            "unlabelled": self.unlabelled(),
        }

    def unlabelled(self) -> dict | None:
        """How many strings without references were translated; None where none were."""
        if not METHODS[self.taught].unlabelled:
            return None
        text = self.run.unlabelled_text
        faults = filter_labels(text, self.run.label_unlabelled())[1]
        return {"rows": len(text), "faults": dict(faults)}

    def record(self) -> dict:
        """Everything but the timings."""
        result = score(self.translate("teacher", 4), self.references)
        teacher = self.run.folder / "teacher" / "model"
        pairs = [self.pair(seed) for seed in self.seeds]
        students = [self.student(m, s) for m in self.methods for s in self.seeds]
        taught = [s["test"]["chrf"] for s in students if s["method"] == self.taught]
        return {
            "manifest": manifest(self.run),
            "signatures": {
                "bleu": result.bleu_signature,
                "chrf": result.chrf_signature,
            },
            "teacher": {
                "parameters": count_parameters(load_model(teacher)),
                "beam": 4,
                "curve": self.run.curve("teacher"),
                "test": {"bleu": result.bleu, "chrf": result.chrf},
            },
            "students": students,
            "pairs": pairs,
            "verdict": verdict([p["gain"] for p in pairs], [p["p"] for p in pairs]),
            "share_of_teacher_chrf": [chrf / result.chrf for chrf in taught],
            "names": self.names(),
            "labels": self.labels(),
        }

    def timings(self) -> dict:
        """Speed, size, int8 and throughput, each ratio within this run."""
        chosen = chosen_models(self.run)
        teacher = self.run.folder / chosen["teacher"] / "model"
        student = self.run.folder / chosen["student"] / "model"
        examples = fixed_examples(*self.run.sides("train"), self.run.vocabulary)
        architecture = Architecture(**self.run.student_recipe["architecture"])
        return {
            "speed": speed(teacher, student, self.sources),
            "sizes": sizes(teacher, student),
            "int8": int8_cost(student, self.sources, self.references),
            "throughput": [
                throughput(student, architecture, examples, precision=p)
                for p in dict.fromkeys(("float32", fastest_precision()))
            ],
        }


def taught_method(pipeline: Pipeline) -> str:
    """The method that is compared with the untaught twin: the recipe's last."""
    return pipeline.student_recipe["comparison"]["methods"][-1]


def chosen_models(pipeline: Pipeline) -> dict[str, str]:
    """The shipped names, each with the folder of its model in the full run."""
    return {
        "teacher": "teacher",
        "untaught": "untaught-1",
        "student": f"{taught_method(pipeline)}-1",
    }


def verdict(gains: list[float], p_values: list[float]) -> str:
    """BEATS, NO BEATS or INCONCLUSIVE, from paired seeds.

    BEATS takes at least three seeds, every gain above zero and every p below 0.01;
    NO BEATS at least three seeds and no gain above zero. All else is inconclusive.
    """
    if len(gains) < 3:
        return "INCONCLUSIVE"
    if all(g > 0 for g in gains) and all(p < 0.01 for p in p_values):
        return "BEATS"
    return "NO BEATS" if all(g <= 0 for g in gains) else "INCONCLUSIVE"


def ship(pipeline: Pipeline, record: dict, assets: Path) -> None:
    """Put the seed-1 models, their cards, the labels and the record into ``assets``.

    Beside the record go each student's curve and translations of the test split, from
    which its scores and gains can be computed again.
    """
    for label, name in chosen_models(pipeline).items():
        out = assets / "models" / label
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(pipeline.folder / name / "model", out)
        card = model_card(pipeline, record, label, out)
        write_json(out / "metadata.json", card)
    for made, ending in LABELS.items():
        labels = assets / "labels" / f"{pipeline.target}{ending}"
        if (pipeline.folder / made).is_dir():
            shutil.rmtree(labels, ignore_errors=True)
            shutil.copytree(pipeline.folder / made, labels)
    for student in record["students"]:
        name = f"{student['method']}-{student['seed']}"
        for kept in (READING, HISTORY):
            content = (pipeline.folder / name / kept).read_bytes()
            write_whole(assets / "runs" / "full" / name / kept, content)
    write_json(assets / "runs" / "full.json", record)


def model_card(pipeline: Pipeline, record: dict, label: str, folder: Path) -> dict:
    """The card of a shipped model: what it is, from what, and how good."""
    recipe = pipeline.teacher_recipe if label == "teacher" else pipeline.student_recipe
    if label == "teacher":
        entry, method = record["teacher"], "references"
    else:
        method = "untaught" if label == "untaught" else taught_method(pipeline)
        entry = next(
            s for s in record["students"] if s["method"] == method and s["seed"] == 1
        )
    return {
        "name": label,
        "languages": ["en", pipeline.target],
        "architecture": recipe["architecture"],
        "parameters": entry["parameters"],
        **provenance(folder, record),
        "method": method,
        "recipe": recipe,
        "seed": recipe["training"].get("seed", 1),
        "beam": 4 if label == "teacher" else 1,
        "test": entry["test"],
        "signatures": record["signatures"],
    }


def provenance(folder: Path, record: dict) -> dict:
    """What every card says of a folder's weights: how large, and from which data."""
    return {
        "licence": "Apache-2.0",
        "bytes": sum(f.stat().st_size for f in folder.iterdir()),
        "weights_sha256": file_hash(folder / "model.safetensors"),
        "data": "homeassistant==2026.11.0, translations, training components",
        "data_sha256": record["manifest"]["data_sha256"],
    }


def write_json(path: Path, value: dict) -> None:
    """Write readable JSON, whole, the numbers at a precision that means something."""
    text = json.dumps(_rounded(value), indent=1, ensure_ascii=False, sort_keys=False)
    write_whole(path, f"{text}\n".encode())


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_rounded(v) for v in value]
    return value
