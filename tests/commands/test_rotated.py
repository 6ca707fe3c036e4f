"""certify and attack over rotations: verdicts by proof over all angles, and rotated pictures that networks err at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idl_audit.decide.ladder import Options
from idl_audit.decide.perturbed import decide_perturbed
from idl_audit.gate.fingerprints import differences
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Verdict
from idl_audit.values.perturbations import Around, Perturbation, Perturbed
from idl_audit.values.rotations import Rotation
from tests.shared.command_line import DATA, MODEL, Run, run
from tests.shared.pairs import chain
from tests.values.test_rotations import roughly


def asked(*more: object, command: str = "certify") -> Run:
    given = ("-d", DATA, "--image-shape", "8,8", "--bounds", "0,1", "-q", "-f", "json", "--limit", 3)
    return run(command, MODEL, *given, *more)


def test_rotations_have_verdicts_and_angles_and_nested_sets_nested_ones() -> None:
    reports = [asked("--perturb", f"rotate={degrees}", "--max-nodes", 600).report for degrees in (1, 4)]
    small, large = ([sample.results[0] for sample in report.samples] for report in reports)
    assert {one.verdict for one in small} == {Verdict.CERTIFIED}
    for one, other in zip(small, large, strict=True):
        assert not (other.verdict is Verdict.CERTIFIED and one.verdict is Verdict.FALSIFIED)
    threat = reports[0].threat_model
    assert (threat.set, threat.perturbation, threat.picture) == ("perturbed", "rotate=1.0", (8, 8))
    assert "another threat model" in " ".join(differences(*reports, same_radii=True))


def test_what_is_falsified_is_a_rotated_picture() -> None:
    report = asked("--perturb", "rotate=45", "--max-nodes", 400, command="attack").report
    found = [(sample, sample.results[0]) for sample in report.samples]
    fallen = [(sample, one) for sample, one in found if one.verdict is Verdict.FALSIFIED]
    assert fallen
    for _, one in fallen:
        (angle,) = one.adversarial.parameters
        assert abs(angle) <= 45
        assert len(one.adversarial.confirmed_by) >= 2


def scored(weights: np.ndarray, offset: float) -> ImplicitModel:
    """Two classes of pictures of 16 pixels: w . u + offset + 40 - 40, behind states that do not bend, and 0."""
    first, last = np.stack([weights]), np.array([[1.0], [0.0]])
    return chain([first, last], [np.array([offset + 40.0]), np.array([-40.0, 0.0])], ("relu",))


@pytest.mark.parametrize("seed", range(6))
def test_no_angle_contradicts_a_verdict(seed: int) -> None:
    """Of a linear score the least value over the angles is known from many of them."""
    rng = np.random.default_rng(seed)
    sample, weights = rng.random(16).astype(np.float32).astype(np.float64), rng.normal(size=16)
    angles = np.linspace(-6, 6, 10_001)
    least = float((roughly(sample.reshape(1, 4, 4), angles).reshape(len(angles), -1) @ weights).min())
    inputs = Perturbed(Around(sample, (4, 4), None), Perturbation(rotation=Rotation(6.0)))
    for gap, wanted in ((0.02, Verdict.CERTIFIED), (-0.02, Verdict.FALSIFIED)):
        model = scored(weights, gap - least)
        options = Options(max_nodes=3000)
        found = decide_perturbed(model, lambda u, m=model: m(u.astype(np.float64)), 0, inputs, options)
        if float(model(sample[None])[0, 0]) <= 0:
            assert found.verdict is Verdict.CLEAN_WRONG
            continue
        assert found.verdict is wanted
        if wanted is Verdict.CERTIFIED:
            assert 0 < found.lowers[0] <= gap + 1e-9
        else:
            assert found.found is not None
            (angle,) = found.found.parameters
            shown = roughly(sample.reshape(1, 4, 4), np.array([angle])).reshape(-1)
            np.testing.assert_allclose(found.found.point, shown, atol=1e-6)


def test_what_a_family_holds_beside_rotations_falsifies_nothing() -> None:
    """A picture without contrast does not change: certified, however tight the score."""
    model = scored(np.ones(16), -8.0 + 1e-6)
    inputs = Perturbed(Around(np.full(16, 0.5), (4, 4), None), Perturbation(rotation=Rotation(45.0)))
    found = decide_perturbed(model, lambda u: model(u.astype(np.float64)), 0, inputs, Options(max_nodes=400))
    assert found.verdict is Verdict.CERTIFIED


def test_no_nodes_leave_it_unknown() -> None:
    rng = np.random.default_rng(0)
    model = scored(rng.normal(size=16), 1.0)
    inputs = Perturbed(Around(rng.random(16), (4, 4), None), Perturbation(rotation=Rotation(20.0)))
    found = decide_perturbed(model, lambda u: model(u.astype(np.float64)), 0, inputs, Options(max_nodes=1))
    assert found.verdict in (Verdict.UNKNOWN, Verdict.FALSIFIED, Verdict.CLEAN_WRONG)


def test_certificates_are_refused_in_one_sentence(tmp_path: Path) -> None:
    found = asked("--perturb", "rotate=1", "--certificates", tmp_path / "c")
    assert found.code == 2
    assert "not written for rotations" in found.err
