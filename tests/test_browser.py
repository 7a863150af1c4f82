"""The browser test runs by ``make test-browser``; here: is what it needs in order?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
import torch
import yaml

from kdcourse.study.slider import Softened


@pytest.fixture(scope="module")
def folder(root):
    return root / "tests" / "browser"


def test_its_packages_are_exact_and_locked_without_an_address(folder):
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    text = (folder / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in text and "resolved" not in text
    locked = json.loads(text)["packages"]
    assert package["dependencies"] == locked[""]["dependencies"]
    for name, version in package["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        entry = locked[f"node_modules/{name}"]
        assert entry["version"] == version and entry["integrity"].startswith("sha512-")


def test_make_ci_and_the_workflow_run_it(root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^test-browser: \$\(READY\).*\n((\t.*\n)+)", makefile, re.M)[1]
    assert recipe.index("kdcourse fetch") < recipe.index("run.mjs")  # corpus first
    ci = (root / ".ci" / "run").read_text(encoding="utf-8")
    assert ci.index("make test\n") < ci.index("make test-browser\n")
    workflow = root / ".github" / "workflows" / "course.yml"
    job = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["browser"]
    assert {"run": "make test-browser"} in job["steps"]


def test_it_reads_what_the_slider_says(folder):
    """The sentence below the slider is read by both; they must not drift apart."""
    source = (folder / "notebook.mjs").read_text(encoding="utf-8")
    patterns = dict(re.findall(r"(\w+): Number\(/(.+?)/\.exec", source))
    assert set(patterns) == {"temperature", "perplexity"}
    said = Softened(torch.zeros(4), ("a", "b")).read_out(2.0)
    assert float(re.search(patterns["temperature"], said)[1]) == 2
    assert float(re.search(patterns["perplexity"], said)[1]) == 4


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
@pytest.mark.parametrize("name", ["lab.mjs", "notebook.mjs", "run.mjs"])
def test_its_modules_are_valid(folder, name):
    subprocess.run(["node", "--check", folder / name], check=True)


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_without_a_browser_it_says_what_to_install(folder, root):
    done = subprocess.run(
        ["node", folder / "run.mjs", root / "notebooks" / "00_start_here.ipynb"],
        env=os.environ | {"CHROMIUM": "/nonexistent/chromium"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "There is no /nonexistent/chromium" in done.stderr
    assert "apt-get install chromium" in done.stderr
