"""What tests of long runs share: what a run left, and a kill in its midst."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch


def contents(folder: Path) -> dict[str, bytes]:
    """Each file of a folder, to the byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(model) -> torch.Tensor:
    """All weights of a model in one row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def kill_midway(
    process: subprocess.Popen, begun: Callable[[], bool], after: float = 0.3
) -> None:
    """SIGKILL a process some seconds after it has begun, before it ends."""
    try:
        deadline = time.monotonic() + 120
        while not begun():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(after)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
