"""certify and attack over rotations: verdicts by proof over all angles, and rotated pictures that networks err at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from idl_audit.decide.ladder import Options
from idl_audit.decide.perturbed import decide_perturbed
from idl_audit.gate.fingerprints import differences
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Verdict
from idl_audit.values.perturbations import Around, Perturbation, Perturbed
from idl_audit.values.rotations import Rotation
from tests import independent_rotations
from tests.independent_files import Refused
from tests.shared.command_line import DATA, MODEL, Run, network, run
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


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 4 x 4 pictures, one of them, and the certificate of its rotations by 3 degrees.

    The score of class 0 is above that of class 1 by 0.02 at least, at the worst angle.
    """
    folder, rng = tmp_path_factory.mktemp("turned"), np.random.default_rng(4)
    sample = rng.integers(0, 256, 16) / 256
    first = rng.integers(-64, 65, (6, 16)) / 64
    states = np.maximum(roughly(sample.reshape(1, 4, 4), np.linspace(-3, 3, 2001)).reshape(-1, 16) @ first.T, 0)
    last = np.stack([rng.integers(-64, 65, 6) / 64, np.zeros(6)])
    least = float((states @ last[0]).min())
    constants = {"w": first.T, "b": np.zeros(6), "v": last.T, "c": np.array([0.0, np.floor(64 * (least - 0.02)) / 64])}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Relu", ["z"], ["h"])]
    nodes.append(helper.make_node("Gemm", ["h", "v", "c"], ["y"]))
    network(folder / "m.onnx", nodes, constants, inputs=(("x", (1, 16)),), outputs=(("y", (1, 2)),))
    np.savez(folder / "d.npz", inputs=sample[None], labels=np.zeros(1, np.int64))
    asked = ("-d", folder / "d.npz", "--image-shape", "4,4", "--bounds", "0,1", "--certificates", folder / "c")
    assert run("certify", folder / "m.onnx", *asked, "--perturb", "rotate=3").code == 0
    return folder


def test_certificates_are_checked_from_the_sample(turned: Path) -> None:
    proof = turned / "c" / "sample-0-eps-1.0.npz"
    found = run("verify", proof, turned / "m.onnx")
    assert found.code == 0
    assert "class 0 for all of rotate=3.0 in" in " ".join(found.out.split())
    assert '"rotate": 3.0' in independent_rotations.check(turned / "m.onnx", proof)


def forged(turned: Path, path: Path, claim: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> Path:
    with np.load(turned / "c" / "sample-0-eps-1.0.npz") as read:
        made = {name: read[name] for name in read.files}
    meta = json.loads(str(made["meta"][()]))
    meta["claim"] = {key: value for key, value in (meta["claim"] | claim).items() if value is not ...}
    change(made)
    np.savez(path, **(made | {"meta": np.asarray(json.dumps(meta))}))
    return path


def without_last_part(made: dict[str, Any]) -> None:
    last = made["angles"].size - 2
    for name in [name for name in made if name.startswith(f"part.{last}.")]:
        del made[name]
    made["angles"] = made["angles"][:-1]


FORGERIES: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "more degrees": ({"rotate": 3.0000000000000004}, lambda made: None),
    "a larger factor": ({"factor": 1.01}, lambda made: None),
    "beyond 45": ({"rotate": 90.0}, lambda made: None),
    "less than nothing": ({"factor": -1.0}, lambda made: None),
    "another class": ({"label": 1}, lambda made: None),
    "no rotation": ({"rotate": ...}, lambda made: None),
    "with a shift": ({"translate": 0.1}, lambda made: None),
    "outside the range": ({"clip": [0.5, 1.0]}, lambda made: None),
    "no intervals": ({}, lambda made: made.pop("angles")),
    "one interval less": ({}, without_last_part),
    "intervals that overlap": (
        {},
        lambda made: made.update(angles=np.insert(made["angles"][:-1], 1, made["angles"][2])),
    ),
    "an interval left out": ({}, lambda made: made["angles"].__setitem__(-1, 2.9)),
    "wide intervals": ({"rotate": 40.0}, lambda made: made.update(angles=np.linspace(-45, 45, made["angles"].size))),
    "another picture": ({}, lambda made: made.update(centre=1 - made["centre"])),
    "no number": ({}, lambda made: made["angles"].__setitem__(0, np.nan)),
    "numbers without end": ({"clip": None}, lambda made: made.update(centre=np.tile([1.7e308, -1.7e308], 8))),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_certificates_are_refused(turned: Path, tmp_path: Path, name: str) -> None:
    path = forged(turned, tmp_path / "f.npz", *FORGERIES[name])
    assert run("verify", path, turned / "m.onnx").code in (1, 2)
    with pytest.raises(Refused):
        independent_rotations.check(turned / "m.onnx", path)
