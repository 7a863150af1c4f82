"""What eight bits cost: by the default kernel, and by one that cannot overflow."""

import subprocess

import pytest

from kdcourse.translation import bench
from kdcourse.translation.decoding import model_folder

SOURCES = ["Turn on the light", "Wrong password for {host}", "Battery level", "Café 😀"]
REFERENCES = ["Encender la luz", "Clave errónea de {host}", "Nivel de batería", "x"]


def test_int8_is_also_translated_by_a_process_with_another_kernel(monkeypatch):
    asked = []
    real = subprocess.run

    def watched(command, **options):
        asked.append(options["env"]["CT2_USE_MKL"])
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    student = model_folder("student")
    exact = bench.exactly_in_int8(student, SOURCES)
    assert asked == ["1"]
    if exact is None:
        pytest.skip("this build of CTranslate2 has no MKL")
    here = bench.open_translator(student, compute_type="int8").translate(SOURCES)
    assert len(exact) == len(SOURCES)
    assert exact[0] == here[0] == "Encender la luz"
    assert "{host}" in exact[1] and "😀" in exact[3]  # each line in its place


@pytest.mark.parametrize("failure", [(1, b""), (0, b"one line alone\n")])
def test_without_mkl_the_default_kernel_stands_for_both(monkeypatch, failure):
    done = subprocess.CompletedProcess([], failure[0], failure[1], b"")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    found = bench.int8_cost(model_folder("student"), SOURCES, REFERENCES)
    assert found["exact"] == found["int8"]
    assert found["cost"] == found["cost here"] == found["float32"] - found["int8"]


def test_the_cost_of_eight_bits_is_the_exact_kernels(monkeypatch):
    monkeypatch.setattr(bench, "exactly_in_int8", lambda *given: REFERENCES)
    found = bench.int8_cost(model_folder("student"), SOURCES, REFERENCES)
    assert found["exact"] == pytest.approx(100)
    assert found["cost"] == found["float32"] - found["exact"] < found["cost here"]
