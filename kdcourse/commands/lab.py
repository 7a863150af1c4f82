"""``python -m kdcourse lab``: open the lessons in JupyterLab."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys


def add_parser(subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "lab",
        help="open the lessons in JupyterLab",
        description="Starts JupyterLab in the course's folder; Ctrl-C stops it. "
        "Arguments after -- go to JupyterLab: lab -- --no-browser --port 9999",
    )
    parser.add_argument("arguments", nargs="*", help="arguments for JupyterLab")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Start JupyterLab with the first lesson open; its exit code is ours."""
    from kdcourse.study import runner

    folder = runner.course_folder()
    first = runner.find_lessons(folder / "notebooks")[0]
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often nobody else
    with subprocess.Popen(
        [*command, *args.arguments, str(first)], cwd=folder
    ) as server:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is for the server: it asks
        return server.wait()
