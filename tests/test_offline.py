"""The guard refuses what leaves the machine, lets Jupyter be, and holds in kernels."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import nbformat
import pytest

from kdcourse.study import offline, runner

FAR = ("192.0.2.1", 80)  # a documentation address (RFC 5737): nobody is there


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_connection_to_another_machine_is_refused():
    with pytest.raises(offline.OfflineError, match="192.0.2.1.*refused"):
        socket.create_connection(FAR, timeout=1)


def test_a_bare_socket_is_guarded_as_well():
    with socket.socket() as plain:
        plain.settimeout(1)
        with pytest.raises(offline.OfflineError, match="socket.connect to"):
            plain.connect(FAR)


def test_a_datagram_to_another_machine_is_refused():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        with pytest.raises(offline.OfflineError):
            plain.sendto(b"?", FAR)


def test_a_name_is_not_even_looked_up():
    with pytest.raises(offline.OfflineError, match="example.org"):
        socket.getaddrinfo("example.org", 443)


def test_the_loopback_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            peer, _ = server.accept()
            with peer:
                client.sendall(b"hello")
                assert peer.recv(5) == b"hello"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_unix_sockets_stay_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a Unix socket's path must be short
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as one:
        server.bind("s")
        server.listen()
        one.connect("s")


@pytest.mark.parametrize(
    "host, local",
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        (b"localhost", True),
        (None, True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("fe80::1%eth0", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_what_counts_as_this_machine(host, local):
    assert offline.is_local(host) is local


def test_a_kernel_is_guarded_before_its_first_cell(tmp_path):
    path = notebook(
        tmp_path / "far.ipynb",
        f"import socket\nsocket.socket().connect({FAR})",
    )
    with runner.kernel_environment("fast") as environment:
        outcome = runner.run_notebook(path, environment)
    assert outcome.failure.error.startswith("OfflineError: socket.connect")


def test_nbval_kernels_are_guarded_too(tmp_path):
    source = (
        "import socket\n"
        "try:\n"
        f"    socket.create_connection({FAR}, timeout=1)\n"
        "except ConnectionError as error:\n"
        "    print(type(error).__name__)\n"
    )
    path = notebook(tmp_path / "far.ipynb", source)
    written = nbformat.read(path, 4)
    written.cells[0].execution_count = 1
    written.cells[0].outputs = [
        nbformat.v4.new_output("stream", text="OfflineError\n"),
    ]
    nbformat.write(written, path)
    with runner.kernel_environment("fast") as environment:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--nbval",
                "--nbval-current-env",
                str(path),
            ],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert "1 passed" in done.stdout, done.stdout


def test_a_process_that_imports_the_package_is_guarded():
    code = f"import kdcourse, socket; socket.create_connection({FAR}, timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KDCOURSE_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert "OfflineError" in done.stderr
