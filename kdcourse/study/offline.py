"""Refuse every connection that would leave this machine.

The notebooks promise to work offline; the tests prove it by running every process,
kernels included, under this guard. It is a Python audit hook, so it sees each socket
however it was made, and it cannot be taken off again. Loopback and Unix sockets stay
open: Jupyter talks to its kernels through them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

STARTUP = "from kdcourse.study import offline\n\noffline.block()\ndel offline\n"
OFFLINE_VARIABLES = {
    "KDCOURSE_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",  # a mistyped folder else becomes a look-up with retries
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PIP_NO_INDEX": "1",
}

_blocked = False


class OfflineError(ConnectionError):
    """A connection was refused because this process must work without a network."""

    def __init__(self, event: str, target: object):
        super().__init__(
            f"{event} to {target!r} refused: the lessons and their tests work without "
            "a network. Read the data from the cache (python -m kdcourse fetch fills "
            "it), or unset KDCOURSE_OFFLINE if this connection is meant."
        )


def is_local(host: object) -> bool:
    """True for loopback addresses, this machine's own name and no address at all."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host is None or host in ("", "localhost", "0.0.0.0", "::", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(event: str, args: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if isinstance(address, tuple) and not is_local(address[0]):
            raise OfflineError(event, address)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if not is_local(args[0]):
            raise OfflineError(event, args[0])


def block() -> None:
    """Guard this process from now on; calling it twice does no harm."""
    global _blocked
    if not _blocked:
        sys.addaudithook(_guard)
        _blocked = True


def environment(ipython_folder: Path) -> dict[str, str]:
    """Variables under which a child process, or a notebook's kernel, stays offline.

    Our own processes are guarded when they import ``kdcourse``; a kernel even before
    its first cell, by a start-up file in ``ipython_folder``, which is made here and
    also keeps a reader's private IPython settings out of the results.
    """
    startup = ipython_folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "00-offline.py").write_text(STARTUP, encoding="utf-8")
    return {**os.environ, **OFFLINE_VARIABLES, "IPYTHONDIR": str(ipython_folder)}
