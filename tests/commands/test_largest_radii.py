"""certify --largest: radii below the one given, in reports, journals, gates, pages and certificates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared import decider
from idl_audit.gate.fingerprints import differences
from idl_audit.report.json_text import from_json
from idl_audit.report.radius_curve import radius_curve
from idl_audit.report.schema import Report, Verdict
from idl_audit.report.wording import verdict_sentence
from tests.shared.command_line import Run, gemm, network, run

N = 4


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """y = (u_0, u_1): the class of a sample changes at half of u_0 - u_1, exactly."""
    folder = tmp_path_factory.mktemp("line")
    constants = {"w": np.eye(2, 3), "b": np.array([0, 0, -9.0])}
    network(folder / "m.onnx", [gemm()], constants, inputs=(("x", (1, 2)),))
    rows = np.array([[0.5, 0.25], [0.75, 0.25], [1.0, 0.0], [0.0, 0.5]], np.float32)
    np.savez(folder / "d.npz", inputs=rows, labels=np.array([0, 0, 0, 0]))
    return folder / "m.onnx", folder / "d.npz"


def certify(line: tuple[Path, Path], *more: object) -> Run:
    return run("certify", line[0], "-d", line[1], "-e", 0.4, "--largest", "-q", "-f", "json", *more)


def test_the_true_radius_is_bracketed(line: tuple[Path, Path]) -> None:
    report = certify(line).report
    for sample, truth in zip(report.samples, (0.125, 0.25), strict=False):
        found = sample.largest
        assert found.certified < truth <= found.falsified
        assert found.falsified - found.certified <= 0.01 * truth
    assert report.samples[2].largest.certified == 0.4
    assert report.samples[2].largest.falsified is None
    assert report.samples[3].results[0].verdict is Verdict.CLEAN_WRONG
    assert report.samples[3].largest.certified is None
    points = {round(p.eps, 3): p for p in radius_curve(report)}
    assert points[0.12].certified == 0.75
    assert points[0.2].certified == 0.5
    assert points[0.4].certified == points[0.4].attacked == 0.25


DISTANCES = {"linf": (0.125, 0.25), "l2": (0.125 * 2**0.5, 0.25 * 2**0.5), "l1": (0.25, 0.5)}
"""How far the first two samples are from the other class."""


@pytest.mark.parametrize("norm", DISTANCES)
def test_the_nearest_attack_is_told_beside_the_largest_certified_radius(
    line: tuple[Path, Path], tmp_path: Path, norm: str
) -> None:
    greatest = 0.4 if norm == "linf" else 0.6
    asked = ("-d", line[1], "-e", greatest, "--norm", norm, "--minimal", "--max-queries", 200, "-q", "-f", "json")
    report = run("attack", line[0], *asked, "--save", tmp_path / "adv.npz").report
    assert "fmn" in report.summary.methods
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    with np.load(tmp_path / "adv.npz") as saved:
        points, originals = saved["inputs"].astype(np.float64), saved["originals"]
    for place, truth in enumerate(DISTANCES[norm]):
        found = report.samples[place].largest
        assert found.certified < truth <= found.falsified <= (1 + 1e-4) * truth
        assert found.falsified - found.certified <= 0.02 * truth
        result = report.samples[place].results[0]
        assert (result.verdict, result.method) == (Verdict.FALSIFIED, "fmn")
        assert 0 < result.queries <= 300
        assert points[place, 0] < points[place, 1]
        # rounded norms: the exact ones are compared where boxes and balls are tested
        assert truth <= np.linalg.norm(points[place] - originals[place], order) <= found.falsified
    sentence = verdict_sentence(report)
    assert "1 certified, 0 withstood" in sentence
    assert "The largest certified eps is" in sentence
    far, wrong = report.samples[2:]
    assert (far.largest.certified, far.largest.falsified) == (greatest, None)
    assert far.results[0].verdict is Verdict.CERTIFIED
    assert wrong.results[0].verdict is Verdict.CLEAN_WRONG
    assert {points.shape, originals.shape} == {(2, 2)}


def test_certified_radii_are_found_in_other_norms(line: tuple[Path, Path]) -> None:
    report = run("certify", line[0], "-d", line[1], "-e", 0.6, "--norm", "l2", "--largest", "-q", "-f", "json").report
    for sample, truth in zip(report.samples, DISTANCES["l2"], strict=False):
        assert sample.largest.certified < truth <= sample.largest.falsified <= 1.02 * sample.largest.certified


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("-e", "0.1,0.2"), "--minimal looks between 0 and one radius; give one with --eps"),
        (("-e", 0.1, "--sparse", 1), "--minimal is for boxes and balls, and knows no --sparse yet"),
        (("--perturb", "brightness=0.1"), "--minimal is for boxes and balls, and knows no --perturb yet"),
        (("-e", 0.1, "--within", 0.5), "--minimal is for boxes and balls, and knows no --task, --top and limits yet"),
    ],
)
def test_sets_without_one_radius_have_no_nearest_attack(line: tuple[Path, Path], more: tuple, why: str) -> None:
    found = run("attack", line[0], "-d", line[1], "--minimal", "--bounds", "0,1", *more)
    assert found.code == 2
    assert why in found.err


def test_quantiles_are_gated(line: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    certify(line, "-o", output)
    for rule, code in (
        ("largest_certified_eps@q50 >= 0.12", 0),
        ("largest_certified_eps@q50 >= 0.13", 1),
        ("largest_certified_eps@q25 > 0", 1),
        ("largest_certified_eps@q75 >= 1/4", 1),
        ("largest_certified_eps@q100 >= 2/5", 0),
        ("largest_certified_eps >= 0.1", 2),
        ("largest_certified_eps@0.1 >= 0.1", 2),
        ("largest_certified_eps@q101 >= 0.1", 2),
        ("certified_accuracy@0.4 >= 0.25", 0),
    ):
        assert run("gate", output, "--require", rule).code == code, rule
    plain = tmp_path / "p.json"
    run("certify", line[0], "-d", line[1], "-e", 0.4, "-q", "-f", "json", "-o", plain)
    assert run("gate", plain, "--require", "largest_certified_eps@q10 >= 0").code == 2
    one, other = (from_json(path.read_text()) for path in (output, plain))
    assert "only one of the two reports looks for the largest radii" in list(differences(one, other, same_radii=True))


def test_pages_tables_and_pictures_show_the_curve(line: tuple[Path, Path], tmp_path: Path) -> None:
    output, picture = tmp_path / "r.json", tmp_path / "p.png"
    certify(line, "-o", output, "--plot", picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    table = run("report", output, "-f", "table").out
    assert "Over eps" in table
    assert "nine of ten" in table
    run("report", output, "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Shares of samples over eps" in page
    assert "certified up to" in page


def test_the_largest_radius_has_a_certificate(line: tuple[Path, Path], tmp_path: Path) -> None:
    report = certify(line, "--certificates", tmp_path / "c").report
    files = list((tmp_path / "c").glob("*.npz"))
    assert len(files) == sum(sample.largest.certified is not None for sample in report.samples) == 3
    for file in files:
        found = run("verify", file, line[0], "-f", "json").report.verification
        assert found.accepted
        (sample,) = [one for one in report.samples if one.index == found.about.index]
        assert found.about.eps == sample.largest.certified


def radii(report: Report) -> list[object]:
    return [sample.largest for sample in report.samples]


def test_a_run_goes_on_and_processes_find_the_same(line: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    whole, calls, real = certify(line).report, iter(range(1000)), decider.Search

    def counted(*arguments: object, **more: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    output = tmp_path / "r.json"
    with monkeypatch.context() as patch:
        patch.setattr(decider, "Search", counted)
        certify(line, "-o", output)
    assert from_json(output.read_text()).status == "incomplete"
    certify(line, "-o", output, "--resume", "--force")
    resumed = from_json(output.read_text())
    assert radii(resumed) == radii(whole) == radii(certify(line, "--jobs", 2).report)
    assert "IDL207" in [entry.code for entry in resumed.diagnostics]


def test_several_radii_are_refused(line: tuple[Path, Path]) -> None:
    found = certify(line, "-e", "0.1,0.2")
    assert found.code == 2
    assert "one radius" in found.err
    found = run("certify", line[0], "-d", line[1], "-e", 0.4, "--plot", "x.png")
    assert found.code == 2
    assert "several radii" in found.err
