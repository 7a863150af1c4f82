"""What a clean clone is set up from: one list of versions, read by everything."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import environment
import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import kdcourse
from kdcourse import __main__ as cli

REQUIRED = "jupyterlab torch transformers datasets matplotlib nbval sacrebleu".split()
IMPORT_NAMES = {
    "PyYAML": "yaml",
    "py-rattler": "rattler",
    "markdown-it-py": "markdown_it",
}
needs_make = pytest.mark.skipif(
    not shutil.which("make"), reason="make is not installed"
)
COMMAND_LINE = re.compile(r"^\t@?\$\(PY\) -m kdcourse (\w+)", re.M)


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins():
    lines = ["-r requirements.txt", "-r requirements-dev.txt"]
    return {req.name: req for req in environment.requirements(lines)}


# ------------------------------------------------------------------ the one list


def test_every_version_is_exact_and_stands_once(root, pins):
    lines = []
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (root / name).read_text(encoding="utf-8")
        lines += [x for x in text.splitlines() if x and not x.startswith("#")]
    assert len(lines) == len(pins)
    for requirement in pins.values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version
        assert not requirement.url and not requirement.marker


def test_torch_comes_first_and_the_required_packages_are_there(pins):
    assert next(iter(pins)) == "torch"
    assert set(REQUIRED) <= set(pins)


def test_what_is_installed_is_what_is_pinned(pins):
    wrong = {
        name: metadata.version(name)
        for name, req in pins.items()
        if metadata.version(name) not in req.specifier
    }
    assert wrong == {}


def test_pyproject_reads_the_list_and_has_none_of_its_own(project):
    assert {"dependencies", "optional-dependencies"} <= set(
        project["project"]["dynamic"]
    )
    dynamic = project["tool"]["setuptools"]["dynamic"]
    assert dynamic["dependencies"] == {"file": ["requirements.txt"]}
    assert dynamic["optional-dependencies"] == {
        "dev": {"file": ["requirements-dev.txt"]}
    }


def test_the_installed_package_asks_for_exactly_the_list(pins):
    asked = map(Requirement, metadata.requires("kdcourse"))
    assert {r.name: r.specifier for r in asked} == {
        name: requirement.specifier for name, requirement in pins.items()
    }
    assert metadata.version("kdcourse") == kdcourse.__version__


@pytest.mark.parametrize(
    "folder, lists",
    [
        ("kdcourse", ["requirements.txt"]),
        ("tools", [f"requirements{part}.txt" for part in ("", "-dev", "-peers")]),
    ],
)
def test_each_package_that_the_code_imports_is_pinned(root, folder, lists):
    """A package that merely came along with another may leave with it."""
    listed = environment.requirements([f"-r {name}" for name in lists])
    allowed = {IMPORT_NAMES.get(r.name, r.name.replace("-", "_")) for r in listed}
    allowed |= {"kdcourse", *sys.stdlib_module_names}
    allowed |= {"IPython", "jupyter_client", "cycler"}  # of ipykernel and matplotlib
    allowed |= {path.stem for path in (root / "tools").glob("*.py")}
    found = {}
    for path in (root / folder).rglob("*.py"):
        for name in imports(path):
            found.setdefault(name, path.relative_to(root).as_posix())
    assert {name: where for name, where in found.items() if name not in allowed} == {}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


# ------------------------------------------------------------------ environment.yml


def test_conda_gives_python_and_node_and_pip_the_rest(pins, project):
    whole, conda, pip = environment.read()
    assert whole["name"] == "kdcourse"
    assert whole["channels"][0] == "conda-forge"
    assert set(whole["channels"]) <= {"conda-forge", "nodefaults"}
    specs = {spec.name.normalized: spec for spec in map(rattler.MatchSpec, conda)}
    assert set(specs) == {"python", "nodejs", "pip"}
    python = re.search(r"3\.\d+", str(specs["python"].version))[0]
    assert f"{python}.0" in SpecifierSet(project["project"]["requires-python"])
    listed = environment.requirements(pip)
    assert [str(r) for r in listed] == [str(r) for r in pins.values()]
    assert pip[-1] == "-e ."
    assert isinstance(whole["dependencies"][-1], dict), "pip's part comes last"


def test_a_requirement_that_is_malformed_is_seen(tmp_path):
    (tmp_path / "r.txt").write_text("# a comment\ntorch==1.0 # why\n\nnumpy=2\n")
    with pytest.raises(ValueError):
        environment.requirements(["-r r.txt"], tmp_path)
    (tmp_path / "r.txt").write_text("# a comment\ntorch==1.0 # why\n\n")
    names = [r.name for r in environment.requirements(["-r r.txt", "-e ."], tmp_path)]
    assert names == ["torch"]


# ------------------------------------------------------------------ make, CI, hooks


@needs_make
def test_make_installs_torch_first_and_by_exact_version(root, pins):
    done = subprocess.run(
        ["make", "-n", "-B", "setup", "TORCH_INDEX="],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    installs = re.findall(r"pip install (.*)", done.stdout)
    assert installs[0].split() == [str(pins["torch"])]
    assert installs[1].endswith("-r requirements.txt -r requirements-dev.txt")
    assert installs[2].endswith("--no-deps -e .")


@needs_make
def test_make_passes_an_index_for_torch_on(root):
    done = subprocess.run(
        ["make", "-n", "-B", "setup", "TORCH_INDEX=file:///wheels"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, _ = re.findall(r"pip install (.*)", done.stdout)
    assert first.startswith("--index-url file:///wheels torch==")
    assert "index" not in second


@needs_make
def test_make_refuses_a_python_that_is_too_old(root, tmp_path):
    old = tmp_path / "python"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; code = sys.argv[2]; "
        'exec("import sys; sys.version_info = (3, 9)"); exec(code)\' "$@"\n'
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-B", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode and "This is Python 3.9; the course wants" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_each_command_of_make_exists(root):
    text = (root / "Makefile").read_text(encoding="utf-8")
    used = set(COMMAND_LINE.findall(text))
    assert {"course", "test", "lab", "bench", "fetch"} <= used <= set(cli.COMMANDS)
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    assert {"course", "test", "lab", "bench", "lint", "clean", "notebooks"} <= targets


def test_ci_and_the_workflow_run_the_readers_two_commands(root):
    here = (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make test", "make lint"} <= set(here)
    assert (root / ".ci" / "run").stat().st_mode & 0o111
    path = root / ".github" / "workflows" / "course.yml"
    job = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["run"]
    commands = job["strategy"]["matrix"]["command"]
    assert commands[:2] == ["test", "course"] and "lint" in commands
    targets = (root / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{command}:" in targets for command in commands)
    assert job["runs-on"] == "ubuntu-latest"
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs == ["make ${{ matrix.command }}"]
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w./-]+@v\d+", action) for action in uses)


def test_the_hooks_download_nothing(root):
    hooks = yaml.safe_load(
        (root / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    )
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    entries = [hook["entry"] for hook in hooks["repos"][0]["hooks"]]
    assert all(entry.startswith("python ") for entry in entries)


def test_no_file_of_the_house_names_an_address(root):
    """Where packages come from is each machine's own setting (TORCH_INDEX, pip's)."""
    files = [root / "Makefile", root / "pyproject.toml", root / "environment.yml"]
    files += [*root.glob("requirements*.txt"), *root.glob(".github/workflows/*.yml")]
    files += [root / ".ci" / "run", root / ".pre-commit-config.yaml"]
    found = [file.name for file in files if "://" in file.read_text(encoding="utf-8")]
    assert found == []


# ------------------------------------------------------------------ the package's door


def test_importing_the_package_and_asking_for_help_is_cheap():
    code = (
        "import sys, kdcourse.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy'} & {*sys.modules}\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert re.search(rf"^ +{name}\b", done.stdout, re.M)


def test_public_names_are_found_where_they_live():
    for name in kdcourse.__all__:
        assert getattr(kdcourse, name) is not None
    assert set(kdcourse.__all__) <= set(dir(kdcourse))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kdcourse.nonsense


def test_errors_for_the_reader_come_without_a_traceback(monkeypatch, capsys):
    def broken(args):
        raise cli.KdcourseError("No corpus.", wanted="one", todo="Fetch it.")

    monkeypatch.setattr("kdcourse.commands.doctor.run", broken)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("kdcourse doctor: No corpus.") and "Fetch it." in said
    assert "Traceback" not in said


def test_ctrl_c_is_not_an_error_of_ours(monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("kdcourse.commands.doctor.run", stopped)
    assert cli.main(["doctor"]) == 130
    assert "stopped" in capsys.readouterr().err
