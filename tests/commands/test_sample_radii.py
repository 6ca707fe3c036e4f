"""--sigma with radii of each sample: each has its own set, and reports and certificates tell them apart."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from idl_audit.data.radii import read_sample_radii
from idl_audit.gate.fingerprints import differences
from idl_audit.report.schema import Verdict
from idl_audit.values.errors import DataError
from tests.shared.command_line import Run, gemm, network, run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores (x0, x1): a sample of class 0 with margin m falls at m / 2."""
    folder = tmp_path_factory.mktemp("radii")
    network(folder / "m.onnx", [gemm()], {"w": np.eye(4)[:, :3], "b": np.array([0.0, 0.0, -99.0])})
    rows = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]], np.float32)
    np.savez(folder / "d.npz", inputs=rows, labels=np.zeros(3, int))
    np.savez(folder / "eps.npz", eps=np.array([0.4, 0.6, 0.9]))
    np.savez(folder / "both.npz", eps=np.array([0.4, 0.6, 1.1]), sigma=np.array([1.0, 0.75, 0, 0]))
    np.savez(folder / "rows.npz", sigma=np.array([[0.4] * 4, [0.6] * 4, [0.9] * 4]))
    return folder


def asked(files: Path, name: str, *more: object) -> Run:
    given = ("-d", files / "d.npz", "-e", 1, "--sigma", files / name, "-q", "-f", "json")
    return run("certify", files / "m.onnx", *given, *more)


def verdicts(found: Run) -> list[Verdict]:
    return [sample.results[0].verdict for sample in found.report.samples]


def test_each_sample_has_its_own_radius(files: Path) -> None:
    expected = [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.CERTIFIED]
    for name in ("eps.npz", "rows.npz", "both.npz"):
        assert verdicts(asked(files, name)) == expected, name
    assert verdicts(asked(files, "eps.npz", "--index", "1,2")) == expected[1:]
    assert verdicts(asked(files, "eps.npz", "-e", 0.5)) == [Verdict.CERTIFIED] * 3


def test_reports_of_other_radii_are_not_compared(files: Path) -> None:
    one, same, other = (asked(files, name).report for name in ("eps.npz", "rows.npz", "both.npz"))
    assert one.threat_model.sigma_sha256 == same.threat_model.sigma_sha256
    assert "radii in the file of sigma" in " ".join(differences(one, other, same_radii=True))


def test_certificates_are_of_the_samples_own_radii(files: Path, tmp_path: Path) -> None:
    assert asked(files, "eps.npz", "--certificates", tmp_path / "c").code == 0
    (first, second) = sorted((tmp_path / "c").iterdir())
    for path, radius in ((first, 0.4), (second, 0.9)):
        assert run("verify", path, files / "m.onnx").code == 0
        with np.load(path) as proof:
            (sigma,) = [proof[name] for name in proof.files if name.endswith("sigma")]
        np.testing.assert_array_equal(sigma, np.full(4, radius))


def test_radii_that_do_not_fit_are_refused(files: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", eps=np.array([0.4, 0.6]))
    found = asked(files, str(tmp_path / "few.npz"))
    assert (found.code, found.out) == (2, "")
    assert "radii for 2 samples, and the data 3" in found.err
    for values, words in (([0.1, -1.0, 1.0], "-1 for sample 1"), ([np.nan, 1, 1], "nan for sample 0")):
        np.savez(tmp_path / "bad.npz", eps=np.array(values))
        with pytest.raises(DataError, match=words):
            read_sample_radii(tmp_path / "bad.npz", (1, 4))
    np.savez(tmp_path / "table.npz", eps=np.ones((2, 2)))
    with pytest.raises(DataError, match="one number for each sample"):
        read_sample_radii(tmp_path / "table.npz", (1, 4))
    found = run("bounds", files / "m.onnx", "-d", files / "d.npz", "-e", 1, "--sigma", files / "rows.npz", "-q")
    assert found.code == 2


def test_products_are_never_too_small(tmp_path: Path) -> None:
    """A radius that float64 has no number for is rounded upward, not to a set in which nothing moves."""
    eps, sigma = np.array([1e-200, 0.1, 1.0, 0.0]), np.array([1e-200, 0.1, 0.5, 0.0])
    np.savez(tmp_path / "r.npz", eps=eps, sigma=sigma)
    found = read_sample_radii(tmp_path / "r.npz", (1, 4))
    for i, j in np.ndindex(4, 4):
        exact = Fraction(eps[i]) * Fraction(sigma[j])
        assert exact <= Fraction(found[i, j]) <= exact * (1 + Fraction(1, 2**51)) + Fraction(5e-324)
    assert found[0, 0] > 0


def test_balls_have_one_factor_a_sample(files: Path, tmp_path: Path) -> None:
    """In l2 the margin m falls at m / sqrt 2, in l1 at m: the radii of the samples are 0.4, 0.6 and 0.9."""
    wanted = {
        ("l2", "1.17"): [Verdict.CERTIFIED, Verdict.CERTIFIED, Verdict.CERTIFIED],
        ("l2", "1.2"): [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.CERTIFIED],
        ("l2", "1.6"): [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.FALSIFIED],
        ("l1", "2"): [Verdict.CERTIFIED, Verdict.FALSIFIED, Verdict.CERTIFIED],
    }
    for (norm, eps), verdict in wanted.items():
        given = ("-d", files / "d.npz", "--sigma", files / "eps.npz", "-q", "-f", "json")
        found = run("certify", files / "m.onnx", *given, "--norm", norm, "-e", eps)
        assert verdicts(found) == verdict, (norm, eps)
    assert asked(files, "eps.npz", "--norm", "l2", "--certificates", tmp_path / "c").code == 0
    for path in (tmp_path / "c").iterdir():
        assert run("verify", path, files / "m.onnx").code == 0
    with np.load(tmp_path / "c" / "sample-0-eps-1.0.npz") as proof:
        assert '"eps": 0.4' in str(proof["meta"])
    within = verdicts(asked(files, "both.npz", "--norm", "l2"))  # balls within the boxes of these radii
    assert [within[0], within[2]] == [Verdict.CERTIFIED] * 2
