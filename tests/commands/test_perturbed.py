"""certify --perturb and --directions: what is proved holds for every member, what is found is one, and all say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import idl_audit
from idl_audit.commands import certify as module
from idl_audit.commands.shared.subject import open_subject
from idl_audit.decide.ladder import Options
from idl_audit.decide.perturbed import decide_perturbed
from idl_audit.report.json_text import from_json, to_json
from idl_audit.values.errors import OptionError
from idl_audit.values.patches import Patch
from idl_audit.values.perturbations import Around, Perturbation, Perturbed, Term
from tests.shared.command_line import DATA, MODEL, Run, run
from tests.shared.pairs import onnx_chain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 0 where u0 + u1 > 1: brightness b moves the sum by 2b, and a saturated input does not move."""
    found = tmp_path_factory.mktemp("perturbed")
    onnx_chain(found / "m.onnx", [np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]])], [np.zeros(2), np.array([0.0, 1.0])])
    inputs = np.array([[0.75, 0.75], [0.25, 0.25], [0.125, 1.0], [0.5, 0.5]])
    np.savez(found / "d.npz", inputs=inputs, labels=np.array([0, 1, 0, 1]))
    np.savez(found / "ways.npz", directions=np.array([[1.0, -1.0]]), low=np.array([-0.25]), high=np.array([0.25]))
    return found


def certify(folder: Path, *more: object, command: str = "certify") -> Run:
    return run(command, folder / "m.onnx", "-d", folder / "d.npz", "-f", "json", *more)


def verdicts(found: Run) -> list[list[str]]:
    assert found.code == 0, found.err
    return [[result.verdict.value for result in sample.results] for sample in found.report.samples]


def test_verdicts_are_those_of_the_formula(folder: Path) -> None:
    """u0 + u1 falls below 1 at b = -0.25; of (1, 0.125) raised, 1 stays within the range; a tie is of class 0."""
    found = verdicts(certify(folder, "--perturb", "brightness=-0.24:0", "--bounds", "0,1"))
    assert [row[0] for row in found] == ["certified", "certified", "falsified", "clean_wrong"]
    found = verdicts(certify(folder, "--perturb", "brightness=0:0.2", "--bounds", "0,1"))
    assert [row[0] for row in found] == ["certified", "certified", "certified", "clean_wrong"]
    found = verdicts(certify(folder, "--perturb", "brightness=-0.26:0.26", "--bounds", "0,1"))
    assert [row[0] for row in found] == ["falsified", "falsified", "falsified", "clean_wrong"]
    found = verdicts(certify(folder, "--directions", folder / "ways.npz"))
    assert [row[0] for row in found] == ["certified", "certified", "certified", "clean_wrong"]


def test_eps_multiplies_the_ranges_and_smaller_sets_have_no_more_attacks(folder: Path) -> None:
    found = verdicts(certify(folder, "--perturb", "brightness=-1:1", "-e", "0.1,0.24,0.26,0.9", "--bounds", "0,1"))
    assert found[0] == found[1] == ["certified", "certified", "falsified", "falsified"]
    assert found[2] == ["falsified"] * 4


def test_what_is_found_is_a_member(folder: Path) -> None:
    found = certify(folder, "--perturb", "brightness=-0.5:0", "--save", folder / "adv.npz", "--force", command="attack")
    with np.load(folder / "adv.npz") as saved:
        inputs, originals = saved["inputs"], saved["originals"]
    parameters = [s.results[0].adversarial.parameters[0] for s in found.report.samples if s.results[0].adversarial]
    assert len(parameters) == 2
    for point, original, (b,) in zip(inputs, originals, [[b] for b in parameters], strict=True):
        assert -0.5 <= b <= 0
        np.testing.assert_array_equal(point, (original + b).astype(np.float32))
    assert all("interval arithmetic" in s.results[0].adversarial.confirmed_by for s in found.report.samples[:1])


def test_a_certified_set_has_no_member_of_another_class() -> None:
    """10^5 members of each, corners and ends included, by the network itself; bounds are below every margin."""
    subject = open_subject(MODEL)
    with np.load(DATA) as data:
        x, y = data["inputs"][:12].astype(np.float64).reshape(12, -1), data["labels"][:12]
    changes = Perturbation((Term("brightness", -0.3, 0.3), Term("contrast", 0.5, 1.5), Term("blur", 0.0, 0.4, "box3")))
    rng, proved = np.random.default_rng(0), 0
    for row, label in zip(x, y.tolist(), strict=True):
        inputs = Perturbed(Around(row, (8, 8), (0.0, 1.0)), changes)
        found = decide_perturbed(
            subject.model, subject.original, label, inputs, Options(time_limit=60, max_nodes=20_000)
        )
        if found.verdict.value != "certified":
            continue
        proved += 1
        (family,) = inputs.pieces
        box = family.parameters
        t = box.lo + rng.random((20_000, 3)) * (box.hi - box.lo)
        corners = np.array(np.meshgrid(*zip(box.lo, box.hi, strict=True))).reshape(3, -1).T
        edges = np.where(rng.random(t.shape) < 0.5, t, np.where(rng.random(t.shape) < 0.5, box.lo, box.hi))
        outputs = subject.model(family.members(np.vstack([t, corners, edges])))
        rivals = np.delete(outputs, label, axis=1).max(axis=1)
        assert (outputs[:, label] - rivals).min() >= found.lower > 0
    assert proved >= 3


def test_reports_and_pages_say_what_changes(folder: Path) -> None:
    asked = ("--perturb", "brightness=0.3", "--bounds", "0,1", "-o", folder / "r.json", "--force")
    text = run("certify", folder / "m.onnx", "-d", folder / "d.npz", "-q", *asked).out
    assert "At eps 1 times brightness=-0.3:0.3: 0 of 4 samples are certified" in text
    threat = from_json((folder / "r.json").read_text()).threat_model
    assert (threat.set, threat.perturbation, threat.clip) == ("perturbed", "brightness=-0.3:0.3", (0.0, 1.0))
    page = run("report", folder / "r.json", "-f", "markdown").out
    assert "eps times brightness=-0.3:0.3, inputs saturating, within 0 to 1" in page.replace("\\", "")
    gate = run("gate", folder / "r.json", "--require", "certified_accuracy@1 >= 0")
    assert gate.code == 0
    assert "inputs change by eps times brightness=-0.3:0.3 alone" in gate.out


def test_different_perturbations_never_compare_as_equal(folder: Path) -> None:
    np.savez(folder / "other.npz", directions=np.array([[1.0, -1.0]]), low=np.array([-0.2]), high=np.array([0.25]))
    lines = {
        "box": ("-e", "1/1", "--bounds", "0,1"),
        "brightness": ("--perturb", "brightness=0.3", "--bounds", "0,1"),
        "less": ("--perturb", "brightness=0.2", "--bounds", "0,1"),
        "unclipped": ("--perturb", "brightness=0.3"),
        "ways": ("--directions", folder / "ways.npz"),
        "other": ("--directions", folder / "other.npz"),
        "flat": ("--perturb", "blur=gauss3:0.5", "--image-shape", "1,2"),
        "tall": ("--perturb", "blur=gauss3:0.5", "--image-shape", "2,1"),
    }
    made = {}
    for name, line in lines.items():
        made[name] = folder / f"{name}.json"
        found = certify(folder, *line, "-o", made[name], "--force")
        if name in ("flat", "tall"):  # a row of two is no picture
            assert found.code == 2
            assert "--image-shape" in found.err
            del made[name]
    for first in made:
        for second in made:
            found = run("diff", made[first], made[second])
            assert found.code == (0 if first == second else 2), (first, second, found.err)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--perturb", "brightness=0.1", "--sigma", "radii.csv"), "--sigma is about how far each input moves"),
        (("--perturb", "brightness=0.1", "--arithmetic", "float32"), "in real arithmetic alone"),
        (("--perturb", "fog=0.1"), "fog needs the valid range"),
        (("--perturb", "blur=box3:1"), "--image-shape"),
        (("--perturb", "brightness=0.1", "--bounds", "0,0.5"), "outside the valid data range"),
        ((), "give a radius with --eps EPS, or what changes with --perturb"),
        (("--perturb", "warp=1"), "'warp=1'"),
    ],
)
def test_what_is_not_proved_is_refused_by_name(folder: Path, line: tuple[str, ...], words: str) -> None:
    found = certify(folder, *line)
    assert found.code == 2
    assert words in found.err


def test_loops_are_refused(tmp_path: Path) -> None:
    sample = MODEL.parent / "digits_mondeq.npz"
    found = run("certify", sample, "-d", DATA, "--perturb", "brightness=0.1")
    assert found.code == 2
    assert "loops" in found.err


def test_a_resumed_run_takes_only_the_same_perturbation(folder: Path) -> None:
    path = folder / "resumed.json"
    line = ("--bounds", "0,1", "-o", path, "--force")
    assert certify(folder, "--perturb", "brightness=0.3", *line).code == 0
    journal = path.with_name("resumed.json.journal")
    whole = from_json(path.read_text())
    path.unlink()
    assert not journal.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "framed_report", lambda *args, **more: (_ for _ in ()).throw(OptionError("stopped")))
        assert certify(folder, "--perturb", "brightness=0.3", *line).code == 2
    assert journal.exists()
    other = certify(folder, "--perturb", "brightness=0.2", "--bounds", "0,1", "-o", path, "--resume")
    assert other.code == 2
    assert "another set of options" in other.err
    again = certify(folder, "--perturb", "brightness=0.3", "--bounds", "0,1", "-o", path, "--resume")
    assert again.code == 0, again.err
    assert [s.results[0].adversarial for s in from_json(path.read_text()).samples] == [
        s.results[0].adversarial for s in whole.samples
    ]


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proofs(folder: Path) -> dict[str, Path]:
    """Accepted certificates: of a family that saturates, and of directions without a range."""
    clipped = ("--perturb", "brightness=-0.24:0,contrast=0.99:1.01", "--bounds", "0,1")
    assert certify(folder, *clipped, "--certificates", folder / "clipped").code == 0
    assert certify(folder, "--directions", folder / "ways.npz", "--certificates", folder / "ways").code == 0
    return {name: folder / name / "sample-0-eps-1.0.npz" for name in ("clipped", "ways")}


def edited(source: Path, target: Path, claim: dict[str, Any], arrays: dict[str, Any]) -> Path:
    with np.load(source) as read:
        found = {name: read[name] for name in read.files}
    meta = json.loads(str(found["meta"][()]))
    meta["claim"] |= claim
    found |= {**arrays, "meta": np.asarray(json.dumps(meta))}
    np.savez(target, **{name: array for name, array in found.items() if array is not None})
    return target


def test_certificates_are_accepted_and_say_what_they_prove(folder: Path, proofs: dict[str, Path]) -> None:
    for name, words in (
        (
            "clipped",
            "for all of brightness=-0.24:0.0,contrast=0.99:1.01, saturating at 0.0 and 1.0, of the file's sample 0",
        ),
        ("ways", "for all of 1 directions of the file of the file's sample 0"),
    ):
        found = run("verify", proofs[name], folder / "m.onnx")
        assert found.code == 0, found.out + found.err
        assert words in " ".join(found.out.split())


BRIGHTER = [{"kind": "brightness", "lo": -0.26, "hi": 0.0, "detail": ""}]
FORGED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a wider range": ("clipped", {"terms": BRIGHTER}, {}),
    "a larger factor": ("clipped", {"factor": 1.2}, {}),
    "another class": ("clipped", {"label": 1}, {}),
    "another sample": ("clipped", {}, {"centre": np.array([0.5, 0.6])}),
    "a range that the sample is not in": ("clipped", {"clip": [0.0, 0.5]}, {}),
    "a range that does not hold the sample itself": (
        "clipped",
        {"terms": [{"kind": "brightness", "lo": 0.1, "hi": 0.2, "detail": ""}]},
        {},
    ),
    "a change that is not known": ("clipped", {"terms": [{"kind": "warp", "lo": 0.0, "hi": 0.2, "detail": ""}]}, {}),
    "no change": ("clipped", {"terms": []}, {}),
    "a factor below 0": ("clipped", {"factor": -1.0}, {}),
    "pictures of another size": ("clipped", {"shape": [3, 1]}, {}),
    "directions without ends": ("clipped", {}, {"directions": np.ones((1, 2))}),
    "a longer direction": ("ways", {}, {"directions": np.array([[1.0, -4.0]])}),
    "a wider direction": ("ways", {}, {"low": np.array([-3.0])}),
    "one direction more": (
        "ways",
        {},
        {
            "directions": np.array([[1.0, -1.0], [1.0, 1.0]]),
            "low": np.array([-0.25, -1.0]),
            "high": np.array([0.25, 0.0]),
        },
    ),
    "a direction that is no number": ("ways", {}, {"directions": np.array([[np.nan, 1.0]])}),
    "directions of other inputs": ("ways", {}, {"directions": np.ones((1, 3))}),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_certificates_are_refused(folder: Path, proofs: dict[str, Path], tmp_path: Path, name: str) -> None:
    which, claim, arrays = FORGED[name]
    found = run("verify", edited(proofs[which], tmp_path / "forged.npz", claim, arrays), folder / "m.onnx")
    assert found.code in (1, 2), found.out


def test_another_true_claim_of_a_proof_is_accepted(folder: Path, proofs: dict[str, Path], tmp_path: Path) -> None:
    """The checker makes the set of the claim: it does not merely compare the file with the one that was written."""
    smaller = [{"kind": "brightness", "lo": -0.125, "hi": 0.0, "detail": ""}]
    for number, claim in enumerate(({"terms": smaller}, {"clip": None})):
        found = run("verify", edited(proofs["clipped"], tmp_path / f"{number}.npz", claim, {}), folder / "m.onnx")
        assert found.code == 0, found.out


# --- Python ----------------------------------------------------------------------------------------------------------


def test_python_has_perturbations(folder: Path) -> None:
    with np.load(folder / "d.npz") as data:
        x, y = data["inputs"], data["labels"]
    found = idl_audit.certify(folder / "m.onnx", x, y, perturb="brightness=-0.24:0", bounds=(0, 1))
    assert [sample.verdict for sample in found.samples] == ["certified", "certified", "falsified", "clean_wrong"]
    assert -0.24 <= found.samples[2].parameters[0] < 0
    assert found.eps == 1.0
    with pytest.raises(OptionError, match="give a radius"):
        idl_audit.certify(folder / "m.onnx", x, y)
    with pytest.raises(OptionError, match="real arithmetic alone"):
        idl_audit.certify(folder / "m.onnx", x, y, perturb="brightness=0.1", arithmetic="float32")
    assert to_json(idl_audit.audit(folder / "m.onnx", folder / "d.npz", perturb="brightness=0.1"))


# --- patches ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 0 where the sum of 3 x 4 pixels, the last column twice, is above 2."""
    found = tmp_path_factory.mktemp("patches")
    weights = np.ones((3, 4))
    weights[:, 3] = 2.0
    layers = [np.eye(12), np.stack([weights.reshape(-1), np.zeros(12)])]
    onnx_chain(found / "m.onnx", layers, [np.zeros(12), np.array([0.0, 2.0])])
    inputs = np.zeros((3, 3, 4))
    inputs[0] = 0.25  # 3.75; the last two columns of two rows: 1.5
    inputs[1, :, 0] = 0.5  # 1.5: any pixel of the last column
    inputs[2, 1, 1] = 1.0
    np.savez(found / "d.npz", inputs=inputs.reshape(3, -1), labels=np.array([0, 1, 1]))
    return found


def patched(pictures: Path, patch: str, *more: object) -> Run:
    asked = ("--perturb", f"patch={patch}", "--image-shape", "3,4", "--bounds", "0,1", "-f", "json")
    return run("certify", pictures / "m.onnx", "-d", pictures / "d.npz", *asked, *more)


def test_patches_are_decided_position_by_position(pictures: Path) -> None:
    assert [row[0] for row in verdicts(patched(pictures, "2x2"))] == ["certified", "falsified", "falsified"]
    assert [row[0] for row in verdicts(patched(pictures, "3x2"))] == ["falsified", "falsified", "falsified"]
    assert [row[0] for row in verdicts(patched(pictures, "2x1"))] == ["certified", "falsified", "falsified"]
    assert [row[0] for row in verdicts(patched(pictures, "1x1"))] == ["certified", "falsified", "falsified"]
    assert [row[0] for row in verdicts(patched(pictures, "1"))] == ["certified", "falsified", "falsified"]


def test_the_worst_position_is_told_and_what_is_found_is_a_patch(pictures: Path) -> None:
    found = patched(pictures, "2x2", "--save", pictures / "adv.npz", "--force").report
    sure, second, _ = (sample.results[0] for sample in found.samples)
    assert sure.worst[1] == 2, "the last two columns matter most"
    assert sure.lower_bound == pytest.approx(3.75 - 1.5 - 2)
    with np.load(pictures / "adv.npz") as saved:
        moved = (saved["inputs"] != saved["originals"]).reshape(-1, 3, 4)
    for change, result in zip(moved, [s.results[0] for s in found.samples if s.results[0].adversarial], strict=True):
        row, column = map(int, result.adversarial.parameters)
        change[row : row + 2, column : column + 2] = False
        assert not change.any()
    assert second.adversarial.l0 <= 4


def test_a_certified_patch_has_no_picture_of_another_class() -> None:
    subject = open_subject(MODEL)
    with np.load(DATA) as data:
        x, y = data["inputs"][:8].astype(np.float64).reshape(8, -1), data["labels"][:8]
    rng, proved = np.random.default_rng(0), 0
    for row, label in zip(x, y.tolist(), strict=True):
        inputs = Perturbed(Around(row, (8, 8), (0.0, 1.0)), Perturbation(patch=Patch(2, 1)))
        found = decide_perturbed(
            subject.model, subject.original, label, inputs, Options(time_limit=60, max_nodes=20_000)
        )
        if found.verdict.value == "certified":
            proved += 1
            for box in inputs.pieces:
                share = np.where(rng.random((250, 64)) < 0.5, rng.random((250, 64)), rng.integers(0, 2, (250, 64)))
                outputs = subject.model(box.lo + share * (box.hi - box.lo))
                assert (outputs[:, label] - np.delete(outputs, label, axis=1).max(axis=1)).min() >= found.lower > 0
    assert proved >= 2


def test_certificates_of_patches_speak_of_every_position(pictures: Path, tmp_path: Path) -> None:
    assert patched(pictures, "2x2", "--certificates", tmp_path / "proofs").code == 0
    proof = tmp_path / "proofs" / "sample-0-eps-1.0.npz"
    found = run("verify", proof, pictures / "m.onnx")
    assert found.code == 0, found.out
    text = " ".join(found.out.split())
    assert "for all of patch=2x2 within [0.0, 1.0] of the file's sample 0 as 3x4" in text
    assert "6 claims" in text
    claims: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"patch": [3, 2]}, {}),
        ({"patch": [2, 2, 2]}, {}),
        ({"patch": [9, 9]}, {}),
        ({"patch": [0, 2]}, {}),
        ({"shape": [2, 6]}, {}),
        ({"clip": None}, {}),
        ({"factor": 2.0}, {}),
        ({"label": 1}, {}),
        ({}, {"centre": np.full(12, 0.2)}),
    ]
    for number, (claim, arrays) in enumerate(claims):
        forged = edited(proof, tmp_path / f"forged-{number}.npz", claim, arrays)
        assert run("verify", forged, pictures / "m.onnx").code in (1, 2), claim


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--perturb", "patch=2x2,brightness=0.1", "--bounds", "0,1"), "stands alone"),
        (("--perturb", "patch=2x2,patch=1x1", "--bounds", "0,1"), "two patches"),
        (("--perturb", "patch=4x5", "--bounds", "0,1"), "does not fit into pictures of 3x4"),
        (("--perturb", "patch=2x2"), "patch needs the valid range"),
        (("--perturb", "patch=2x2", "--bounds", "0,1", "-e", "0.5"), "has no range for eps to multiply"),
        (("--perturb", "patch=0x2", "--bounds", "0,1"), "1 pixel or more"),
        (("--perturb", "patch=ax2", "--bounds", "0,1"), "write it like patch=4x4"),
    ],
)
def test_patches_that_make_no_sense_are_refused(pictures: Path, more: tuple[str, ...], words: str) -> None:
    found = run("certify", pictures / "m.onnx", "-d", pictures / "d.npz", "--image-shape", "3,4", *more)
    assert found.code == 2
    assert words in found.err
