"""Files that other frameworks' own exporters wrote: each is read, and is what the framework itself computes.

`frameworks/write_keras.py` and `write_jax.py` made them, with the versions that they name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.subject import check_agreement, open_subject
from tests.shared.command_line import run

FOLDER = Path(__file__).parent / "frameworks"
FILES = sorted(path.stem for path in FOLDER.glob("*.onnx"))


def outputs_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and the framework's own outputs, a row each."""
    framework, _, network = name.partition("_")
    with np.load(FOLDER / f"{'keras' if framework == 'tf2onnx' else framework}_{network}.npz") as file:
        return file["inputs"].reshape(5, -1), file["outputs"].reshape(5, -1)


def test_each_network_of_each_exporter_is_there():
    keras = {"dense", "conv", "separable", "smooth", "normed", "recurrent"}
    jax = {"dense", "smooth", "silu", "leaky", "normed", "conv"}
    assert {*FILES} == {f"{one}_{name}" for one in ("keras", "tf2onnx") for name in keras} | {f"jax_{x}" for x in jax}
    assert all((FOLDER / f"{name}.onnx").stat().st_size < 20_000 for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_implicit_model_is_what_the_framework_computes(name):
    subject = open_subject(FOLDER / f"{name}.onnx")
    inputs, wanted = outputs_of(name)
    check_agreement(subject, inputs.astype(np.float64))
    found = subject.model(inputs.astype(np.float64))
    if subject.model.stripped_output == "Softmax":
        found = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["keras_conv", "jax_dense"])
def test_samples_are_certified(tmp_path, name):
    inputs, wanted = outputs_of(name)
    np.savez(tmp_path / "d.npz", inputs=inputs.astype(np.float32), labels=wanted.argmax(axis=1))
    ran = run("certify", FOLDER / f"{name}.onnx", "-d", tmp_path / "d.npz", "-e", "1e-5", "-f", "json")
    assert ran.report.summary.per_eps[0].certified == 5
