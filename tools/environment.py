"""Read environment.yml, and ask pip whether its list can still be installed.

``python tools/environment.py`` resolves the list anew and installs nothing; it needs
the network. The structure is checked by the test suite, which needs none.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def read(root: Path = ROOT) -> tuple[dict, list[str], list[str]]:
    """environment.yml as a whole, its conda specs, and the lines of its pip part."""
    whole = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in whole["dependencies"] if isinstance(entry, str)]
    pip = [entry["pip"] for entry in whole["dependencies"] if isinstance(entry, dict)]
    return whole, conda, [line for part in pip for line in part]


def requirements(lines: list[str], root: Path = ROOT) -> list[Requirement]:
    """The requirements that such lines amount to, ``-r`` files read; no ``-e``."""
    found = []
    for line in lines:
        line = line.partition(" #")[0].strip()
        if line.startswith("-r "):
            file = root / line.removeprefix("-r ").strip()
            text = file.read_text(encoding="utf-8")
            found += requirements(text.splitlines(), root)
        elif line and not line.startswith(("#", "-e ")):
            found.append(Requirement(line))
    return found


def main() -> int:
    """Let pip resolve the pip part of environment.yml; its exit code is ours."""
    wanted = [str(requirement) for requirement in requirements(read()[2])]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
    ]
    done = subprocess.run([*command, "--quiet", *wanted], cwd=ROOT)
    if done.returncode == 0:
        print(f"pip can install these {len(wanted)} packages together.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
