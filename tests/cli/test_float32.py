"""--arithmetic float32, as it is typed: verdicts, reports that name it, certificates, and what is not compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from idl_audit import api
from idl_audit.cli.app import app
from idl_audit.report.reading import read_report
from idl_audit.report.render import Format, render
from idl_audit.testing import assert_robust
from tests.commands.test_float_margins import asked, bump

ROOT = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA = ROOT / "digits_mlp.onnx", ROOT / "digits_mlp.npz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], prog_name="idl-audit")


def test_every_view_of_a_report_names_the_arithmetic(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    found = run("certify", MODEL, "-d", DATA, "-e", "0.02", "--limit", 3, "--arithmetic", "float32", "-o", file)
    assert found.exit_code == 0, found.output
    assert "in float32 arithmetic: 3 of 3 samples are certified" in found.output
    report = read_report(file)
    assert report.threat_model is not None
    assert report.threat_model.arithmetic == "float32"
    for view in (Format.HTML, Format.MARKDOWN, Format.JUNIT):
        assert "float32 arithmetic" in render(report, view)
    assert "float32, as runtimes compute" in render(report, Format.HTML)


def test_reports_in_another_arithmetic_are_not_compared(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("real", "float32")}
    for name, file in files.items():
        found = run("certify", MODEL, "-d", DATA, "-e", "0.02", "--limit", 3, "--arithmetic", name, "-o", file)
        assert found.exit_code == 0
    for command in (
        ("diff", files["real"], files["float32"]),
        ("gate", files["float32"], "--require", "drop <= 0", "--baseline", files["real"]),
    ):
        found = run(*command)
        assert found.exit_code == 2, found.output
        assert "arithmetic real, not float32" in " ".join(found.output.split())
    assert run("diff", files["real"], files["real"]).exit_code == 0


@pytest.mark.parametrize("eps", ["0.02", "0.05"])
def test_certificates_are_accepted_and_say_what_they_prove(tmp_path: Path, eps: str) -> None:
    folder = tmp_path / "proofs"
    found = run(
        "certify", MODEL, "-d", DATA, "-e", eps, "--limit", 4, "--arithmetic", "float32", "--certificates", folder
    )
    assert found.exit_code == 0, found.output
    files = sorted(folder.glob("*.npz"))
    assert len(files) >= 3
    for file in files:
        found = run("verify", file, MODEL)
        assert found.exit_code == 0, found.output
        text = " ".join(found.output.split())
        assert "in float32 arithmetic as runtimes compute" in text
        assert "float32, as runtimes compute: sums in any order" in text
    with np.load(files[0]) as archive:
        arrays = {name: archive[name] for name in archive.files}
    assert json.loads(str(arrays["meta"]))["arithmetic"] == "float32"
    assert {name for name in arrays if ".delta." in name} == {f"part.0.delta.{a}" for a in range(9)}
    for change in (1 / 40, 1e6):  # what is written is 16 times what is needed, or less
        forged = {name: array * change if ".delta." in name else array for name, array in arrays.items()}
        np.savez(tmp_path / "forged.npz", allow_pickle=True, **forged)
        assert run("verify", tmp_path / "forged.npz", MODEL).exit_code == 1


def test_preprocessing_is_part_of_what_is_proved(tmp_path: Path) -> None:
    """Two claims about the same network: (u - 1000) + what the mean shifted loses digits."""
    with np.load(DATA) as data:
        np.savez(tmp_path / "shifted.npz", inputs=data["inputs"][:3] + 1000, labels=data["labels"][:3])
    lowers, slacks = [], []
    for file, mean in ((DATA, "0"), (tmp_path / "shifted.npz", "1000")):
        report, folder = tmp_path / f"{mean}.json", tmp_path / f"proofs-{mean}"
        where = ("-d", file, "-e", "0.01", "--limit", 3, "--mean", mean, "-o", report, "--certificates", folder)
        found = run("certify", MODEL, *where, "--arithmetic", "float32")
        assert found.exit_code == 0, found.output
        lowers.append([sample.results[0].lower_bound or 0.0 for sample in read_report(report).samples])
        for certificate in sorted(folder.glob("*.npz")):
            assert run("verify", certificate, MODEL).exit_code == 0
            with np.load(certificate) as archive:
                slacks.append(archive["part.0.delta.0"][0])
    assert all(shifted < plain for plain, shifted in zip(*lowers, strict=True))
    assert min(slacks[3:]) > 3 * max(slacks[:3])


def test_a_property_and_its_certificate(tmp_path: Path) -> None:
    model, _ = bump(tmp_path)
    far, near = asked(tmp_path, "(assert (<= Y_0 Y_1))", hi=4.9), asked(tmp_path, "(assert (<= Y_0 Y_1))")
    folder = tmp_path / "proofs"
    found = run("certify", model, far, "--arithmetic", "float32", "--certificates", folder)
    assert found.output.split() == ["unsat"]
    (certificate,) = folder.glob("*.npz")
    found = run("verify", certificate, model, far)
    assert found.exit_code == 0, found.output
    assert "in float32 arithmetic as runtimes compute" in " ".join(found.output.split())
    assert run("certify", model, near, "--arithmetic", "float32").output.startswith("sat\n")
    words = " ".join(run("certify", model, far, "--arithmetic", "real").output.split())
    assert words == "unsat"


@pytest.mark.slow
def test_rows_of_a_list_are_decided_again_in_another_arithmetic(tmp_path: Path) -> None:
    model, _ = bump(tmp_path)
    far = asked(tmp_path, "(assert (<= Y_0 Y_1))", hi=4.9)
    (tmp_path / "list.csv").write_text(f"onnx,vnnlib,timeout\n{model.name},{far.name},20\n")
    file = tmp_path / "b.json"
    assert run("bench", tmp_path / "list.csv", "-o", file).exit_code == 0
    found = run("bench", tmp_path / "list.csv", "-o", file, "--resume", "--arithmetic", "float32")
    assert found.exit_code == 0, found.output
    assert re.search(r"asked about real\s+arithmetic, and are about\s+float32 now", found.output)
    (entry,) = read_report(file).properties
    assert (entry.result, entry.arithmetic) == ("unsat", "float32")
    assert "in float32 arithmetic" in " ".join(found.output.split())


def test_a_configuration_and_the_environment_may_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.json"
    text = f"[defaults]\nmodel = '{MODEL}'\ndata = '{DATA}'\neps = 0.02\nlimit = 2\n"
    for where, extra, environment in (("file", "arithmetic = 'float32'\n", {}), ("env", "", {"float32": True})):
        (tmp_path / "idl-audit.toml").write_text(f"{text}{extra}[run]\nsteps = 'bounds,certify'\n")
        if environment:
            monkeypatch.setenv("IDL_AUDIT_RUN_ARITHMETIC", "float32")
        found = run("run", "-c", tmp_path / "idl-audit.toml", "-o", file)
        assert found.exit_code == 0, (where, found.output)
        report = read_report(file)
        assert report.threat_model is not None
        assert report.threat_model.arithmetic == "float32", where
        assert [sample.results[0].verdict for sample in report.samples] == ["certified"] * 2
        file.unlink()


def test_python_asks_for_it(tmp_path: Path) -> None:
    model, data = bump(tmp_path)
    with np.load(data) as archive:
        x, y = archive["inputs"], archive["labels"]
    for eps, verdict in ((0.2, "falsified"), (0.05, "certified")):
        (found,) = api.certify(model, x, y, eps=eps, arithmetic="float32").samples
        assert found.verdict == verdict
    implicit = api.load(model)
    (found,) = api.certify(implicit, x, y, eps=0.05, arithmetic="float32").samples
    assert found.verdict == "certified"
    (found,) = api.certify(implicit, x, y, eps=0.2, arithmetic="float32", method=["linear"]).samples
    assert (found.verdict, found.reason) == ("unknown", "within_rounding")
    assert_robust(model, x, y, eps=0.2, method=["linear"])
    with pytest.raises(AssertionError, match="within_rounding"):
        assert_robust(model, x, y, eps=0.2, method=["linear"], arithmetic="float32")


def test_a_network_whose_roundings_nothing_bounds_is_unknown_at_once() -> None:
    found = run(
        "certify", ROOT / "digits_mondeq.npz", "-d", DATA, "-e", "0.01", "--limit", 2, "--arithmetic", "float32"
    )
    assert found.exit_code == 0
    text = " ".join(found.output.split())
    assert "IDL217" in text
    assert "no_rounding_bound" in text
