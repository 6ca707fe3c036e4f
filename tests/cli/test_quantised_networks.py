"""The network that is deployed: int8 models are certified, attacked, verified and compared as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat

from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.original import onnxruntime_network
from tests.proof.test_float_layers import compared
from tests.shared.command_line import run
from tests.shared.quantised import quantised

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
KINDS = {"digits_mlp": False, "digits_mlp per channel": True, "digits_conv": False, "digits_conv per channel": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("int8")
    for kind, per_channel in KINDS.items():
        name = kind.split()[0]
        inputs = np.load(SAMPLES / f"{name}.npz")["inputs"][200:250]
        quantised(SAMPLES / f"{name}.onnx", made / f"{kind.replace(' ', '_')}.onnx", inputs, per_channel=per_channel)
    return made


def of(folder: Path, kind: str) -> tuple[Path, Path]:
    return folder / f"{kind.replace(' ', '_')}.onnx", SAMPLES / f"{kind.split()[0]}.npz"


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_of_int8_networks_are_accepted(folder: Path, tmp_path: Path, kind: str) -> None:
    model, data = of(folder, kind)
    proofs = tmp_path / "proofs"
    options = ["--bounds", "0,1", "--limit", "3", "--certificates", proofs, "--time-limit", "20"]
    found = run("certify", model, "-d", data, "-e", "0.005", *options, "-f", "json")
    assert found.code == 0
    assert found.report.summary.per_eps[0].certified == 3
    assert found.report.conversion.check.max_rel_error < 1e-5
    assert found.report.conversion.check.near_jumps is not None
    assert not any("no known bound" in d.message for d in found.report.diagnostics)
    files = sorted(proofs.iterdir())
    assert len(files) == 3
    for file in files:
        assert run("verify", file, model).code == 0
    # the proof is of this network alone
    assert run("verify", files[0], SAMPLES / f"{kind.split()[0]}.onnx").code != 0


def test_in_float32_int8_networks_are_certified_where_no_step_matters(folder: Path) -> None:
    model, data = of(folder, "digits_mlp")
    options = ["--bounds", "0,1", "--limit", "4", "--arithmetic", "float32", "--method", "linear", "-f", "json"]
    for eps, count in (("0.0001", 4), ("0.005", 3)):
        found = run("certify", model, "-d", data, "-e", eps, *options)
        assert found.report.summary.per_eps[0].certified >= count


@pytest.mark.parametrize("kind", list(KINDS)[:2])
def test_integer_kernels_are_no_further_off_than_the_bound(folder: Path, kind: str) -> None:
    path, data = of(folder, kind)
    sample = np.load(data)["inputs"][3].reshape(1, -1)
    bound, _ = compared(onnx.load(path), *(np.clip(sample + off, 0, 1)[0] for off in (-0.003, 0.003)), n=20)
    assert np.isfinite(bound).all()


def test_attacks_are_shown_to_the_network_itself(folder: Path, tmp_path: Path) -> None:
    model, data = of(folder, "digits_mlp")
    saved = tmp_path / "points.npz"
    options = ["--bounds", "0,1", "--limit", "4", "--save", saved, "--time-limit", "2", "-f", "json"]
    found = run("certify", model, "-d", data, "-e", "0.2", *options)
    wrong = [one for sample in found.report.samples for one in sample.results if one.verdict == "falsified"]
    assert len(wrong) >= 3
    with np.load(saved) as file:
        points, labels, originals = file["inputs"], file["labels"], file["originals"]
    outputs = onnxruntime_network(model, read_onnx(model))(points)
    assert (outputs.argmax(axis=1) != labels).all()
    assert (np.abs(points - originals) <= 0.2).all()


def test_no_number_bounds_its_slope(folder: Path, tmp_path: Path) -> None:
    model, data = of(folder, "digits_mlp")
    unbounded = run("sensitivity", model)
    assert unbounded.code == 0
    assert "No bound on the sensitivity was found" in unbounded.out
    attack = ["attack", model, "-d", data, "-e", "0.1", "--limit", "1", "--method"]
    assert run(*attack, "gradient").code == 0
    named = run(*attack, "sensitivity")
    assert named.code == 2
    assert "the attack sensitivity has no ranking of inputs" in named.err
    found = run("bounds", model, "-d", data, "-e", "0.01", "--limit", "1", "-f", "json")
    assert found.code == 0
    used = {one.method for entry in found.report.bounds for one in entry.methods}
    assert used == {"interval", "linear"}
    drift = run("compress", model, "--quantize", "8", "--out", tmp_path / "small.npz", "-d", data, "--bounds", "0,1")
    assert drift.code == 0
    assert "the network jumps" in drift.out.replace("\n", " ")


def test_a_run_leaves_out_what_needs_slopes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = of(folder, "digits_mlp")
    monkeypatch.chdir(tmp_path)
    text = f'[defaults]\nmodel = "{model}"\ndata = "{data}"\neps = "0.005"\nbounds = "0,1"\nlimit = 2\n'
    Path("idl-audit.toml").write_text(text)
    found = run("run", "-f", "json")
    assert found.code == 0
    assert found.report.summary.per_eps[0].certified == 2
    Path("idl-audit.toml").write_text(text + '[run]\nsteps = "sensitivity"\n')
    alone = run("run")
    assert alone.code == 0
    assert "No bound on the sensitivity was found" in alone.out


def test_a_converted_int8_network_is_the_same(folder: Path, tmp_path: Path) -> None:
    model, data = of(folder, "digits_mlp per channel")
    assert run("convert", model, "--out", tmp_path / "m.npz").code == 0
    options = ["-d", data, "-e", "0.02", "--bounds", "0,1", "--limit", "3", "--method", "interval,linear", "-f", "json"]
    first, second = run("certify", model, *options), run("certify", tmp_path / "m.npz", *options)
    ours, theirs = ([sample.results[0] for sample in one.report.samples] for one in (first, second))
    assert [one.verdict for one in ours] == [one.verdict for one in theirs]
    assert [one.lower_bound for one in ours] == pytest.approx([one.lower_bound for one in theirs])


def test_the_verdicts_of_the_float_and_the_int8_network_are_compared(folder: Path, tmp_path: Path) -> None:
    model, data = of(folder, "digits_mlp")
    options = ["-d", data, "-e", "0.02", "--bounds", "0,1", "--limit", "4"]
    for name, path in (("float", SAMPLES / "digits_mlp.onnx"), ("int8", model)):
        assert run("certify", path, *options, "-o", tmp_path / f"{name}.json").code == 0
    found = run("diff", tmp_path / "float.json", tmp_path / "int8.json")
    assert found.code == 0
    assert "0.02" in found.out


def test_operators_of_onnxruntime_s_own_are_named(tmp_path: Path) -> None:
    inputs = np.load(SAMPLES / "digits_conv.npz")["inputs"][200:250]
    made = quantised(SAMPLES / "digits_conv.onnx", tmp_path / "q.onnx", inputs, format=QuantFormat.QOperator)
    found = run("inspect", made)
    assert found.code == 0
    assert "QLinearAveragePool of domain com.microsoft is not read" in found.out
