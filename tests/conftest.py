"""Every test runs without a network, on one thread, with nothing of the learner's."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from kdcourse.study import offline

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # the tools are scripts; their rules are tested

offline.block()
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A run in the background ignores Ctrl-C, and the processes that tests start would
    # inherit that: what they do on Ctrl-C could not be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update(offline.OFFLINE_VARIABLES)
os.environ.update(
    KDCOURSE_MODE="fast",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    PYTHONHASHSEED="0",
    TOKENIZERS_PARALLELISM="false",
    KDCOURSE_PROGRESS="off",  # a test must not enter itself into a learner's map
)
for name in ("KDCOURSE_RESULTS", "KDCOURSE_DEBUG"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The course's folder."""
    return ROOT


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A folder for downloads and results that is the module's; gives the user's own."""
    before = os.environ.get("KDCOURSE_CACHE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield before


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Results differ between thread counts: wherever torch is in use, one thread."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_figure_left_open():
    """Figures stay in pyplot's memory until closed, and other tests would meet them."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
